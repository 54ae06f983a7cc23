"""A form made from a pydantic model: one row a field, checked as it is typed, nothing declared a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from engine import spec as specs
from tui.widgets.symbols import sign

Option = tuple[str, str, str]
"""Value, word, note."""


class Choice(Widget, can_focus=True):
    """One of a few values in one line: ← → step through them, Enter opens the list."""

    DEFAULT_CSS = """
    Choice { height: 1; width: 1fr; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    Choice:focus { background: $block-cursor-blurred-background; text-style: bold; }
    Choice:focus:ansi { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "previous", show=False),
        Binding("right", "step(1)", "next", show=False),
        Binding("up", "app.focus_previous", "up", show=False),
        Binding("down", "app.focus_next", "down", show=False),
        Binding("enter,space", "choose", "choose", tooltip="choose from the list"),
    ]
    value: reactive[str] = reactive("", init=False)

    class Changed(Message):
        def __init__(self, choice: Choice, value: str) -> None:
            super().__init__()
            self.choice, self.value = choice, value

        @property
        def control(self) -> Choice:
            return self.choice

    def __init__(self, title: str, options: Sequence[Option], value: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title, self.options = title, list(options)
        self.set_reactive(Choice.value, value)

    def set_options(self, options: Sequence[Option]) -> None:
        self.options = list(options)
        self.refresh()

    def render(self) -> Content:
        word, note = next(((w, n) for v, w, n in self.options if v == self.value), (self.value, ""))
        muted = Content.styled(f"  {note}" if note else "", "$foreground-muted")
        return Content.assemble(word, f" {sign('▾')}", muted)

    def watch_value(self) -> None:
        self.refresh()
        self.post_message(self.Changed(self, self.value))

    def action_step(self, by: int) -> None:
        values = [v for v, *_ in self.options]
        if values:
            here = values.index(self.value) if self.value in values else 0
            self.value = values[(here + by) % len(values)]

    def action_choose(self) -> None:
        from tui.screens.dialogs import Pick

        def take(chosen: str | None) -> None:
            if chosen is not None:
                self.value = chosen

        self.app.push_screen(Pick(self._title, self.options, self.value), take)

    def on_click(self) -> None:
        self.action_choose()


class Line(Input):
    """A one-line input; ↑ ↓ leave it, so that a whole form can be walked with arrows."""

    DEFAULT_CSS = """
    Line { height: 1; border: none; padding: 0 1; background: $surface; width: 1fr; }
    Line:focus { border: none; background: $block-cursor-blurred-background; }
    Line.-bad { color: $error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "up", show=False),
        Binding("down,enter", "app.focus_next", "down", show=False),
    ]


class Field(Horizontal):
    """Label, editor, and a note: the range, or what is wrong, or that it was changed."""

    DEFAULT_CSS = """
    Field { height: 1; }
    Field > .label { width: 24; padding: 0 1; color: $foreground; }
    Field > .note { width: 1fr; max-width: 44; padding: 0 0 0 1; color: $foreground-muted; text-overflow: ellipsis; text-wrap: nowrap; }
    Field > .note.bad { color: $error; }
    Field > .note.changed { color: $accent; }
    Field > Line, Field > Choice { width: 36; min-width: 16; }
    """

    def __init__(self, name: str, model: type[BaseModel], value: str, options: Sequence[Option] | None) -> None:
        super().__init__(id=f"field-{name}")
        self.field, self.model = name, model
        self.info = specs.property_of(name, model)
        self.editor: Line | Choice
        if options is not None:
            self.editor = Choice(self.info["title"], options, value, id=f"edit-{name}")
        else:
            auto = f"auto: {self.info['auto']}" if self.info.get("auto") else ""
            self.editor = Line(value, placeholder=auto, id=f"edit-{name}", select_on_focus=False)
        self._said = Static("", classes="note", markup=False)
        self._note = ""

    def compose(self) -> Iterator[Widget]:
        yield Static(self.info["title"], classes="label", markup=False)
        yield self.editor
        yield self._said

    def tell(self, problem: str, default: str) -> None:
        """Show what is wrong, else whether the value is the default, else the range."""
        value = self.editor.value.strip()
        changed = not problem and value != default
        unit = str(self.info.get("unit", ""))
        nought = str(self.info.get("zero", "")) if value == "0" else ""
        if problem:
            text = problem
        elif changed:
            text = f"{sign('●')} {nought or ('changed' if default else 'set')}" + (f" ({default})" if default else "")
        else:
            text = nought or "  ".join(t for t in (unit, specs.range_text(self.field, self.model)) if t)
        if text == self._note:
            return
        self._note = text
        self._said.update(text)
        self._said.set_class(bool(problem), "bad")
        self._said.set_class(changed, "changed")
        self.editor.set_class(bool(problem), "-bad")


class Heading(Static):
    """A section's name, how much of it is changed, and what of it stands behind the switch."""

    def __init__(self, section: str, members: Sequence[Field], first: bool) -> None:
        super().__init__(classes="section first" if first else "section", markup=False)
        self._section, self.members = section, members
        self._text = ""

    def on_mount(self) -> None:
        self.tell(set(), False)

    def tell(self, changed: set[str], shown: bool) -> None:
        """`changed` are names of fields; `shown` says that the advanced ones stand in view."""
        here = [f for f in self.members if f.field in changed]
        more = [f for f in self.members if f.info.get("advanced") and f.display]
        hidden = sum(f.info.get("advanced", False) for f in here)
        parts = [f"{sign('─') * 2} {self._section}"]
        if here:
            parts.append(f"{sign('●')} {len(here)} changed")
        if more and not shown:
            parts.append(f"F6: {len(more)} more" + (f", {hidden} changed" if hidden else ""))
        text = "  ".join(parts)
        if text != self._text:
            self._text = text
            self.update(text)


class Form(VerticalScroll, can_focus=False):
    """Rows for the named fields, section by section. Advanced ones stand behind a switch."""

    DEFAULT_CSS = """
    Form { scrollbar-size-vertical: 1; }
    Form .section { color: $foreground-muted; padding: 0 1; margin-top: 1; height: 1; }
    Form .section.first { margin-top: 0; }
    Form .advanced { display: none; height: auto; }
    Form.all .advanced { display: block; }
    Form .empty, Form.all .empty { display: none; }
    Form Vertical { height: auto; }
    """
    show_all: reactive[bool] = reactive(False, init=False)

    class Changed(Message):
        """A value changed; `values` are all of them, as typed."""

        def __init__(self, form: Form) -> None:
            super().__init__()
            self.form = form

    class Focused(Message):
        """Another field has the focus."""

        def __init__(self, field: Field) -> None:
            super().__init__()
            self.field = field

    def __init__(
        self,
        parts: Sequence[tuple[type[BaseModel], Sequence[str]]],
        values: Mapping[str, Any],
        options: Mapping[str, Sequence[Option]],
        *,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._parts, self._start, self._options = parts, dict(values), options
        self.fields: list[Field] = []
        self.defaults: dict[str, str] = {}
        """As typed, where the default depends on something else: on the model, say."""
        self._headings: list[Heading] = []
        self._told = True

    def compose(self) -> Iterator[Widget]:
        first = True
        for model, names in self._parts:
            sections: dict[str, list[str]] = {}
            for name in names:
                sections.setdefault(str(specs.property_of(name, model)["section"]), []).append(name)
            for section, members in sections.items():
                fields = [self._field(name, model) for name in members]
                plain = [f for f in fields if not f.info.get("advanced")]
                more = [f for f in fields if f.info.get("advanced")]
                with Vertical(classes="" if plain else "advanced"):
                    self._headings.append(Heading(section, [*plain, *more], first))
                    yield self._headings[-1]
                    first = False
                    yield from plain
                    if more:
                        with Vertical(classes="advanced"):
                            yield from more

    def _field(self, name: str, model: type[BaseModel]) -> Field:
        options = self._options.get(name)
        if options is None:
            words_ = specs.choices(name, model)
            info = specs.property_of(name, model)
            if info.get("type") == "boolean":
                words_ = ["yes", "no"]
            options = [(w, w, "") for w in words_] or None
        value = as_text(self._start.get(name, specs.default_of(name, model)))
        self.fields.append(Field(name, model, value, options))
        return self.fields[-1]

    def values(self) -> dict[str, Any]:
        """What stands in the form, as typed; empty where empty means “auto”, and left out where it means nothing."""
        found: dict[str, Any] = {}
        for field in self.fields:
            text = field.editor.value.strip()
            if text == "" and field.info.get("nullable"):
                found[field.field] = None
            else:
                found[field.field] = text
        return found

    def field_of(self, name: str) -> Field:
        return self.query_one(f"#field-{name}", Field)

    def set_value(self, name: str, value: Any) -> None:
        self.field_of(name).editor.value = as_text(value)

    def default(self, field: Field) -> str:
        """What stands in a field that nobody changed."""
        return self.defaults.get(field.field, as_text(specs.default_of(field.field, field.model)))

    def changed(self, model: type[BaseModel]) -> list[str]:
        """Names of the fields of `model` that differ from their defaults."""
        return [f.field for f in self.fields if f.model is model and f.editor.value.strip() != self.default(f)]

    def reset(self, names: Sequence[str]) -> None:
        """Put these fields back to their defaults."""
        for name in names:
            field = self.field_of(name)
            field.editor.value = self.default(field)

    def leave_out(self, idle: set[str]) -> None:
        """Hide fields that do nothing now; a section without any goes with them."""
        for field in self.fields:
            field.display = field.field not in idle
        for heading in self._headings:
            if isinstance(heading.parent, Widget):
                heading.parent.set_class(not any(f.display for f in heading.members), "empty")

    def placeholder(self, name: str, text: str) -> None:
        """Say what “auto” comes to."""
        editor = self.field_of(name).editor
        if isinstance(editor, Line) and editor.placeholder != text:
            editor.placeholder = text

    def tell(self, problems: Mapping[str, str]) -> None:
        """Show each field's problem, or that it is changed, or its range."""
        changed = set()
        for field in self.fields:
            default = self.default(field)
            field.tell(problems.get(field.field, ""), default)
            if field.editor.value.strip() != default:
                changed.add(field.field)
        for heading in self._headings:
            heading.tell(changed, self.show_all)

    def reveal(self, name: str) -> None:
        """Show a field and put the focus into it."""
        field = self.field_of(name)
        field.display = True
        if field.info.get("advanced"):
            self.show_all = True
        self.call_after_refresh(field.editor.focus)

    def watch_show_all(self) -> None:
        self.set_class(self.show_all, "all")
        self._tell_changed()

    @on(Input.Changed)
    @on(Choice.Changed)
    def _edited(self, event: Message) -> None:
        event.stop()
        self._tell_changed()

    def _tell_changed(self) -> None:
        """Once for all that changed at one go, as when all values are set back."""
        if self._told:
            self._told = False
            self.call_later(self._changed)

    def _changed(self) -> None:
        self._told = True
        self.post_message(self.Changed(self))

    def on_descendant_focus(self, event: Any) -> None:
        row = event.widget.parent
        if isinstance(row, Field):
            self.post_message(self.Focused(row))


def as_text(value: Any) -> str:
    """A value as it is typed; “auto” is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} = {as_text(v)}" for k, v in value.items())
    return str(value)


def help_of(field: Field, default: str, file: str = "spec.toml") -> Content:
    """The longer help of a field: what it does, what too small and too large do, its range and default."""
    info = field.info
    lines = [Content.styled(str(info["title"]), "bold"), Content(str(info["description"]))]
    for word, key in (("Too small: ", "small"), ("Too large: ", "large")):
        if info.get(key):
            lines.append(Content.assemble((word, "$foreground-muted"), f"{info[key]}."))
    facts = [
        ("Range: ", specs.range_text(field.field, field.model)),
        ("Default: ", default or (f"auto: {info['auto']}" if info.get("auto") else "")),
        (f"In {file}: ", field.field),
    ]
    lines += [Content.styled(k + v, "$foreground-muted") for k, v in facts if v]
    return Content("\n").join(lines)


__all__ = ["Choice", "Field", "Form", "Line", "as_text", "help_of"]
