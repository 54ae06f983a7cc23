"""What all full screens share: the frame, the help key, and how errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widget import Widget

from engine.errors import DojangError
from tui.keys import bind
from tui.widgets.chrome import KeyBar, Sections, TitleBar

if TYPE_CHECKING:
    from tui.app import DojangApp

SECTIONS = (("1", "Versions"), ("2", "Data sets"), ("3", "Servers"), ("4", "Queue"), ("5", "Settings"))


class Page(Screen[None]):
    """A full screen: title line, sections where it is one of them, its body, and the keys."""

    SECTION: ClassVar[str] = ""
    HELP_TITLE: ClassVar[str] = ""
    HELP_TEXT: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [bind("question_mark,f1", "help", "help", show=False, help="this page")]

    @property
    def dojang(self) -> DojangApp:
        from tui.app import DojangApp

        assert isinstance(self.app, DojangApp)
        return self.app

    def compose(self) -> ComposeResult:
        yield TitleBar(id="title")
        if self.SECTION:
            yield Sections(SECTIONS, self.SECTION)
        yield from self.body()
        yield KeyBar()

    def body(self) -> Iterator[Widget]:
        """The widgets between the frame's lines."""
        yield from ()

    @property
    def title_bar(self) -> TitleBar:
        return self.query_one("#title", TitleBar)

    def on_screen_suspend(self) -> None:
        """Another screen or a dialog comes: pixels would lie over it."""
        for picture in self.query("Picture"):
            picture.away()  # type: ignore[attr-defined]

    def on_screen_resume(self) -> None:
        for picture in self.query("Picture"):
            picture.back()  # type: ignore[attr-defined]

    async def may_leave(self) -> bool:
        """Whether the screen may close now; asks where something would be lost. Called in a worker."""
        return True

    def complain(self, error: DojangError) -> None:
        """Say what is wrong and what to do, without losing anything."""
        self.notify(
            error.hint, title=error.message, severity="error", timeout=12, markup=False
        ) if error.hint else self.notify(error.message, severity="error", timeout=12, markup=False)

    def action_help(self) -> None:
        from tui.screens.dialogs import Help

        self.app.push_screen(Help(self))
