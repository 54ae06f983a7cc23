"""Small windows over a screen: yes or no, a line to type, a choice from a list, and help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import DojangError
from tui.keys import bind, display
from tui.widgets.chrome import working_bindings
from tui.widgets.facts import Fact, Facts
from tui.widgets.symbols import sign

if TYPE_CHECKING:
    from tui.screens.base import Page

T = TypeVar("T")


class Dialog(ModalScreen[T], Generic[T]):
    """A window that Esc closes with the answer “no”."""

    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog > Vertical { width: 72; max-width: 96%; height: auto; max-height: 94%; background: $surface; border: round $accent;
        padding: 0 2; border-title-color: $accent; border-title-style: bold; border-subtitle-color: $foreground-muted; }
    Dialog VerticalScroll { height: auto; max-height: 84vh; }
    Dialog .text { height: auto; margin: 1 0; }
    Dialog .note { height: auto; color: $foreground-muted; }
    Dialog .wrong { height: auto; color: $error; }
    Dialog .buttons { height: auto; align-horizontal: right; margin-top: 1; }
    Dialog Button { margin-left: 2; min-width: 10; }
    Dialog Input { border: none; height: 1; padding: 0 1; background: $panel; margin: 0 0 1 0; }
    Dialog Input:focus { border: none; background: $panel; }
    Dialog OptionList { height: auto; max-height: 16; scrollbar-size-vertical: 1; border: none; background: $surface; margin: 1 0; padding: 0; }
    Dialog OptionList:focus { border: none; background-tint: transparent; }
    Dialog OptionList > .option-list--option-highlighted { background: $block-cursor-background;
        color: $block-cursor-foreground; text-style: $block-cursor-text-style; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "close")]

    def action_cancel(self) -> None:
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """A last yes or no. Names the thing, and what cannot be undone. “No” has the focus when something gets lost."""

    BINDINGS: ClassVar[list[BindingType]] = [
        bind("y", "answer(True)", "yes"),
        bind("n", "answer(False)", "no"),
        Binding("left,right", "app.focus_next", "choose", show=False),
    ]

    def __init__(self, title: str, text: str, *, yes: str = "Yes", no: str = "No", careful: bool = False) -> None:
        super().__init__()
        self._title, self._text, self._yes, self._no, self._careful = title, text, yes, no, careful

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            yield Static(self._text, classes="text", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(f"{self._no}  n", id="no", compact=True)
                yield Button(f"{self._yes}  y", id="yes", compact=True, variant="error" if self._careful else "primary")

    def on_mount(self) -> None:
        self.query_one("#no" if self._careful else "#yes").focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


ROOMY = 5  # fields with a line between them


class Ask(Dialog[dict[str, str]]):
    """A few lines to type; `check` says what is wrong with them as they are typed, or nothing."""

    DEFAULT_CSS = "Ask.tight Input { margin: 0; }"

    def __init__(
        self,
        title: str,
        fields: Sequence[tuple[str, str, str, str]],
        check: Callable[[dict[str, str]], dict[str, str]],
        *,
        ok: str = "Save",
    ) -> None:
        """`fields`: (key, label, value, help) each. `check` maps keys to what is wrong."""
        super().__init__(classes="tight" if len(fields) > ROOMY else "")
        self._title, self._fields, self._check, self._ok = title, fields, check, ok

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            for key, label, value, help in self._fields:
                yield Label(label, classes="note")
                yield Input(value, id=f"ask-{key}", select_on_focus=False, placeholder=help)
                yield Static("", id=f"wrong-{key}", classes="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel  esc", id="cancel", compact=True)
                yield Button(f"{self._ok}  enter", id="ok", compact=True, variant="primary")

    def values(self) -> dict[str, str]:
        return {key: self.query_one(f"#ask-{key}", Input).value for key, *_ in self._fields}

    def _look(self) -> bool:
        wrong = self._check(self.values())
        for key, *_ in self._fields:
            place = self.query_one(f"#wrong-{key}", Static)
            place.update(wrong.get(key, ""))
            place.display = key in wrong
        self.query_one("#ok", Button).disabled = bool(wrong)
        return not wrong

    def on_mount(self) -> None:
        self._look()
        self.query(Input).first().focus()

    @on(Input.Changed)
    def _changed(self) -> None:
        self._look()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._look():
            self.dismiss(self.values())

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "ok":
            self._submitted()
        else:
            self.dismiss(None)


class Pick(Dialog[str]):
    """One of several, each with a note; typing filters."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "down", show=False, priority=True),
        Binding("up", "move(-1)", "up", show=False, priority=True),
    ]

    def __init__(self, title: str, options: Sequence[tuple[str, str, str]], current: str = "") -> None:
        """`options`: (key, word, note) each."""
        super().__init__()
        self._title, self._options, self._current = title, options, current

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            if len(self._options) > 8:
                yield Input(placeholder="type to filter", id="filter")
            yield OptionList(id="options")

    def on_mount(self) -> None:
        self._fill("")
        self.query_one("#options", OptionList).can_focus = not self.query("#filter")
        (self.query("#filter").first() if self.query("#filter") else self.query_one("#options")).focus()

    def _fill(self, text: str) -> None:
        from rich.cells import cell_len

        listed = self.query_one("#options", OptionList)
        listed.clear_options()
        shown = [o for o in self._options if text.lower() in f"{o[1]} {o[2]}".lower()]
        wide = max((cell_len(o[1]) for o in shown), default=0)
        for key, word, note in shown:
            pad = " " * (wide - cell_len(word) + 2)
            mark = Content.styled(f"{sign('›')} " if key == self._current else "  ", "$accent")
            listed.add_option(Option(Content.assemble(mark, word, (pad + note, "dim")), id=key))
        keys = [o[0] for o in shown]
        listed.highlighted = keys.index(self._current) if self._current in keys else (0 if keys else None)

    @on(Input.Changed, "#filter")
    def _filter(self, event: Input.Changed) -> None:
        self._fill(event.value)

    @on(Input.Submitted, "#filter")
    def _take(self) -> None:
        listed = self.query_one("#options", OptionList)
        if listed.highlighted is not None:
            self.dismiss(listed.get_option_at_index(listed.highlighted).id)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_move(self, by: int) -> None:
        listed = self.query_one("#options", OptionList)
        if by > 0:
            listed.action_cursor_down()
        else:
            listed.action_cursor_up()


class Note(Dialog[None]):
    """Something to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f1,enter,q", "cancel", "close", show=False)]

    def __init__(self, title: str, text: Sequence[Fact]) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            box.border_subtitle = "esc close"
            with VerticalScroll():
                yield Facts(classes="text")

    def on_mount(self) -> None:
        self.query_one(Facts).show(self._text)


class Wait(Dialog[str]):
    """Something long, with a bar; Esc stops it. On failure the window says why and stays until it is read."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        from tui.widgets.bars import ProgressBars

        with Vertical() as box:
            box.border_title = "One moment"
            yield Static(self._title, classes="text", markup=False)
            yield ProgressBars(id="bar")
            yield Static("esc stops it", id="hint", classes="note", markup=False)

    def tell(self, done: int, total: int) -> None:
        from tui.widgets.bars import Bar, ProgressBars

        self.query_one("#bar", ProgressBars).show([Bar("images", done, total or None)])

    def fail(self, error: DojangError) -> None:
        text = Content.assemble((error.message, "$error"), "\n", (error.hint, "$foreground"), "\n\nesc goes back")
        self.query_one("#hint", Static).update(text)

    def action_cancel(self) -> None:
        self.workers.cancel_node(self)
        self.dismiss(None)


MOVING = (
    ("arrows", "move; page up, page down, home and end go further"),
    ("tab", "to the next field or button, shift+tab back"),
)


class Help(Dialog[None]):
    """What this screen is for and every key that works on it, made from the bindings themselves."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,enter,q", "cancel", "close", show=False)]

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = f"Help: {self._page.HELP_TITLE or self._page.SECTION}"
            box.border_subtitle = "esc close"
            with VerticalScroll():
                yield Static(self._page.HELP_TEXT, classes="text", markup=False)
                yield Facts(id="keys")

    def on_mount(self) -> None:
        self.query_one(Facts).show([*self._keys(), *(self._key(*m) for m in MOVING)])

    def _keys(self) -> list[Fact]:
        found = working_bindings(self._page)
        return [self._key(display(b.key), b.tooltip or b.description) for b in found]

    @staticmethod
    def _key(key: str, does: str) -> Fact:
        return Content.assemble((f"{key:<12} ", "$accent"), does), 13
