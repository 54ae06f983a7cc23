"""The whole spec as text, TOML or JSON, checked as it is typed by the very checks that the form uses."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import tomli_w
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static, TextArea

from engine import catalog, launch
from engine.errors import DojangError
from engine.spec import Spec, property_of
from engine.versions import Workspace
from tui.screens.dialogs import Confirm, Dialog
from tui.widgets.symbols import sign

Form = Literal["toml", "json"]
Data = dict[str, Any]
LARGEST = 32_000  # characters; a spec has some three thousand
LEFT_OUT = ("dataset_hash", "download")  # filled in by themselves
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with the text, and where: line and column from 1, 0 where that is not known."""

    line: int
    column: int
    message: str

    @property
    def text(self) -> str:
        place = f"line {self.line}" + (f", column {self.column}" if self.column else "")
        return f"{place}: {self.message}" if self.line else self.message


def as_toml(data: Mapping[str, Any]) -> str:
    """Every setting by section; what is empty stands as a comment that says what that comes to."""
    lines: list[str] = []
    section, tables = "", {}
    for name in (n for n in Spec.model_fields if n not in LEFT_OUT and n in data):
        info, value = property_of(name), data[name]
        if value is None and not _applies(info.get("kernels"), data.get("model")):
            continue
        if isinstance(value, dict):  # a table would swallow what follows it
            tables.update({name: value} if value else {})
            continue
        if info["section"] != section:
            section = str(info["section"])
            lines += [*([""] if lines else []), f"# {section}"]
        auto = f"# {name} =   empty: {info['auto'] or 'auto'}"
        lines.append(auto if value is None else tomli_w.dumps({name: value}).rstrip())
    return "\n".join([*lines, "", *([tomli_w.dumps(tables)] if tables else [])])


def _applies(kernels: list[str] | None, model: object) -> bool:
    """Whether the model's family has a setting that only `kernels` have; a model nobody knows may have anything."""
    try:
        return not kernels or catalog.find(str(model)).kernel in kernels
    except DojangError:
        return True


def as_json(data: Mapping[str, Any]) -> str:
    shown = {n: data[n] for n in Spec.model_fields if n not in LEFT_OUT and n in data}
    return json.dumps(shown, ensure_ascii=False, indent=2) + "\n"


def read(text: str, form: Form) -> tuple[Data | None, list[Finding]]:
    """What the text holds, or where it is broken. Whatever the text is, this does not fail."""
    if len(text) > LARGEST:
        return None, [Finding(0, 0, f"The text is too long: {len(text)} characters, {LARGEST} are allowed.")]
    odd = next((i for i, c in enumerate(text) if not c.isprintable() and c not in "\n\t"), None)
    if odd is not None:
        return None, [_at(text, odd, f"a control character (U+{ord(text[odd]):04X})")]
    try:
        found = json.loads(text) if form == "json" else tomllib.loads(text)
    except json.JSONDecodeError as e:
        return None, [Finding(e.lineno, e.colno, e.msg)]
    except tomllib.TOMLDecodeError as e:
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(e))
        message = str(e)[: place.start()] if place else str(e)
        line, column = (int(place[1]), int(place[2])) if place and place[1] else (text.count("\n") + 1, 0)
        return None, [Finding(line, column, message)]
    except (ValueError, RecursionError):
        return None, [Finding(0, 0, "It cannot be read: it is nested too deeply, or a number is too long.")]
    if not isinstance(found, dict):
        return None, [Finding(1, 1, "must be an object: {…}")]
    return found, []


def _at(text: str, place: int, message: str) -> Finding:
    before = text[:place]
    return Finding(before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1, message)


def findings(workspace: Workspace, text: str, form: Form) -> tuple[Data | None, list[Finding]]:
    """What the text holds, and everything that is wrong with it as a spec, in the order of the lines."""
    data, broken = read(text, form)
    if data is None:
        return None, broken
    wrong = [
        Finding(line_of(text, p.field, form), 0, f"{p.field} {p.message}")
        for p in launch.check(workspace, {**data, "download": True})
    ]
    return data, sorted(wrong, key=lambda f: (not f.line, f.line))


def line_of(text: str, name: str, form: Form) -> int:
    """The line that sets `name`; 0 where none does."""
    key = rf'\s*"{re.escape(name)}"\s*:' if form == "json" else rf'\s*(?:{re.escape(name)}|"{re.escape(name)}")\s*[=.]'
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(key, line) or (form == "toml" and re.match(rf"\s*\[+\s*{re.escape(name)}\s*[\].]", line)):
            return number
    return 0


class Editor(TextArea):
    """A text area that takes what is pasted without its control characters, and not more than a spec can need."""

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        clean = "".join(c for c in text[: LARGEST + 1] if c.isprintable() or c in "\n\t")
        if len(self.text) + len(clean) > LARGEST:
            self.notify(f"That is too long: {LARGEST} characters are allowed.", severity="warning")
            return
        if result := self._replace_via_keyboard(clean, *self.selection):
            self.move_cursor(result.end_location)
            self.focus()


class RawDialog(Dialog[Data]):
    """Closes with the spec as it was written; only one without a mistake can be taken over."""

    DEFAULT_CSS = """
    RawDialog > Vertical { width: 110; height: 94%; max-height: 60; padding: 0 1; }
    RawDialog Editor { height: 1fr; border: none; padding: 0; background: $surface; scrollbar-size-vertical: 1;
        scrollbar-size-horizontal: 1; }
    RawDialog Editor:focus { border: none; }
    RawDialog #wrong { height: auto; max-height: 7; padding: 0 1; margin-top: 1; }
    RawDialog #keys { height: 1; padding: 0 1; color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s,ctrl+enter", "apply", "take over", priority=True),
        Binding("f4", "switch", "TOML or JSON", priority=True),
        Binding("f5", "next_finding", "to the mistake", priority=True),
        Binding("escape", "cancel", "close", priority=True),
    ]

    def __init__(self, workspace: Workspace, data: Mapping[str, Any]) -> None:
        """`data` is every setting by name, as it stands in the form."""
        super().__init__()
        self._workspace = workspace
        self._form: Form = "toml"
        self._before = as_toml(data)
        self._data: Data | None = None
        self._wrong: list[Finding] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "The spec as TOML"
            yield Editor(
                self._before, show_line_numbers=True, soft_wrap=False, tab_behavior="indent", compact=True, id="text"
            )
            yield Static("", id="wrong", markup=False)
            yield Static("", id="keys", markup=False)

    @property
    def _editor(self) -> Editor:
        return self.query_one(Editor)

    def on_mount(self) -> None:
        self._editor.focus()
        self._look()

    @on(TextArea.Changed)
    def _look(self) -> None:
        self._data, self._wrong = findings(self._workspace, self._editor.text, self._form)
        lines = [Content.styled(f.text, "$error") for f in self._wrong[:SHOWN]]
        if len(self._wrong) > SHOWN:
            lines.append(Content.styled(f"and {len(self._wrong) - SHOWN} more", "$foreground-muted"))
        if not lines:
            changed = "not changed" if self._editor.text == self._before else "no mistake"
            lines = [Content.styled(f"{sign('✓')} {changed}", "$foreground-muted")]
        self.query_one("#wrong", Static).update(Content("\n").join(lines))
        other = "JSON" if self._form == "toml" else "TOML"
        go = "f5 to the mistake   " if self._wrong and self._wrong[0].line else ""
        keys = f"^s take over   {go}f4 as {other}   esc close"
        self.query_one("#keys", Static).update(keys)

    def action_next_finding(self) -> None:
        """To the next line with a mistake after the cursor, or the first."""
        places = [f for f in self._wrong if f.line]
        if places:
            row = self._editor.cursor_location[0] + 1
            target = next((f for f in places if f.line > row), places[0])
            self._editor.move_cursor((target.line - 1, max(0, target.column - 1)))
            self._editor.scroll_cursor_visible(center=True)

    def action_switch(self) -> None:
        """The same settings in the other notation. What cannot be read cannot be turned over either."""
        if self._data is None:
            self.notify("Mend the text first: it cannot be read.", severity="warning")
            return
        same = self._editor.text == self._before
        self._form = "json" if self._form == "toml" else "toml"
        extra = {k: v for k, v in self._data.items() if k not in Spec.model_fields}
        try:
            text = self._written(self._data, extra)
        except (TypeError, ValueError):  # dates, which JSON does not know
            self._form = "json" if self._form == "toml" else "toml"
            self.notify("There is a value that only this notation knows.", severity="warning")
            return
        self._before = text if same else self._before
        self.query_one("Vertical", Vertical).border_title = f"The spec as {self._form.upper()}"
        self._editor.load_text(text)
        self._look()

    def _written(self, data: Data, extra: Data) -> str:
        """`extra` is what is no setting: it stays, so that nothing typed is lost."""
        whole = {n: data.get(n) for n in Spec.model_fields if n in data or property_of(n).get("nullable")}
        if self._form == "json":
            return json.dumps({**whole, **extra}, ensure_ascii=False, indent=2) + "\n"
        more = {k: v for k, v in extra.items() if v is not None}
        return as_toml(whole) + (tomli_w.dumps(more) if more else "")

    def action_apply(self) -> None:
        if self._wrong or self._data is None:
            self.app.bell()
            self.action_next_finding()
        else:
            self.dismiss(self._data)

    @work
    async def action_cancel(self) -> None:  # type: ignore[override]
        changed = self._editor.text != self._before
        text = "Close without taking over what you changed?"
        if not changed or await self.app.push_screen_wait(Confirm("Close", text, yes="Close", careful=True)):
            self.dismiss(None)
