"""Choosing a folder or file: typed, completed with Tab, or walked to with the arrow keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, DirectoryTree, Input, Label, Static

from tui.screens.dialogs import Dialog


class Tree(DirectoryTree):
    """Folders, and files of the wanted kinds; hidden ones left out."""

    def __init__(self, path: Path, files: tuple[str, ...]) -> None:
        super().__init__(path)
        self._files = files
        self.guide_depth = 2

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        return [
            p for p in paths if not p.name.startswith(".") and (p.suffix.lower() in self._files or safe_is_folder(p))
        ]


def safe_is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


class PathDialog(Dialog[str]):
    """A path to type or browse to; Tab completes it as a shell does."""

    DEFAULT_CSS = """
    PathDialog > Vertical { width: 90; }
    PathDialog Tree { height: 14; background: $surface; padding: 0; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+u", "up", "one folder up", show=False),
        Binding("f2", "browse", "browse", show=False),
    ]

    def __init__(self, title: str, what: str, *, files: tuple[str, ...] = (), name: bool = False) -> None:
        """`name` also asks for a name to register under; the answer is then “path\\nname”."""
        super().__init__()
        self._title, self._what, self._files, self._named = title, what, files, name
        self._top = Path.home()

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            yield Label(f"Path of {self._what}: type, Tab completes, ↓ browses", classes="note")
            yield PathInput(id="path", placeholder="/data/…", select_on_focus=False)
            if self._named:
                yield Label("Name, if not the folder's", classes="note")
                yield Input(id="name", select_on_focus=False)
            yield Tree(self._top, self._files)
            yield Static("", id="wrong", classes="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel  esc", id="cancel", compact=True)
                yield Button("Add" if self._named else "Choose", id="ok", compact=True, variant="primary")

    def on_mount(self) -> None:
        self.query_one("#path", Input).focus()

    @on(DirectoryTree.DirectorySelected)
    @on(DirectoryTree.FileSelected)
    def _walked(self, event: DirectoryTree.DirectorySelected | DirectoryTree.FileSelected) -> None:
        self.query_one("#path", Input).value = str(event.path)

    def action_browse(self) -> None:
        self.query_one(Tree).focus()

    def action_up(self) -> None:
        self._top = self._top.parent
        self.query_one(Tree).path = self._top

    @on(Input.Submitted)
    def _submitted(self) -> None:
        path = Path(self.query_one("#path", Input).value.strip()).expanduser()
        if not self.query_one("#path", Input).value.strip() or not path.exists():
            self.query_one("#wrong", Static).update("There is nothing at that path.")
            return
        self.dismiss(f"{path}\n{self.query_one('#name', Input).value.strip()}" if self._named else str(path))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "ok":
            self._submitted()
        else:
            self.dismiss(None)


class PathInput(Input):
    """An input whose Tab completes a path; with nothing to complete it moves on as everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "complete", show=False, priority=True),
        Binding("down", "screen.browse", "browse", show=False),
    ]

    def action_complete(self) -> None:
        done = complete(self.value)
        if done == self.value:
            self.screen.focus_next()
        else:
            self.value = done
            self.cursor_position = len(done)


def complete(text: str) -> str:
    """`text` as far as it has only one way to go on among what exists."""
    if not text:
        return text
    folder, _, start = os.path.expanduser(text).rpartition(os.sep)
    try:
        with os.scandir(folder or (os.sep if text.startswith(os.sep) else ".")) as entries:
            found = [e.name + (os.sep if e.is_dir() else "") for e in entries if e.name.startswith(start)]
    except OSError:
        return text
    if not found or (not start and len(found) > 1):
        return text
    return os.path.join(folder + os.sep if folder or text.startswith(os.sep) else "", os.path.commonprefix(found))  # noqa: RUF071 (letters, not folders)
