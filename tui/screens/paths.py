"""Choosing a folder or file: typed, completed with Tab, or walked to with the arrow keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, DirectoryTree, Input, Label, Static
from textual.widgets.directory_tree import DirEntry
from textual.widgets.tree import TreeNode

from tui.screens.dialogs import Dialog
from tui.widgets.symbols import sign

SHOWN = 6


class Tree(DirectoryTree):
    """Folders, and files of the wanted kinds; hidden ones left out. ← and → close and open, ← at the top goes up."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "open", "open", show=False),
        Binding("left", "close", "close", show=False),
    ]

    def __init__(self, path: Path, files: tuple[str, ...]) -> None:
        super().__init__(path)
        self._files = files
        self.guide_depth = 2
        self.show_guides = False

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        return [
            p for p in paths if not p.name.startswith(".") and (p.suffix.lower() in self._files or safe_is_folder(p))
        ]

    def render_label(self, node: TreeNode[DirEntry], base_style: Style, style: Style) -> Text:
        """A name, with a slash where it is a folder; the top one whole."""
        if node.is_root:
            return Text(str(self.path), style=style)
        folder = node.allow_expand
        arrow = sign("▾" if node.is_expanded else "▸") if folder else " "
        return Text(f"{arrow} {node.label}{os.sep if folder else ''}", style=style)

    def action_open(self) -> None:
        if self.cursor_node and self.cursor_node.allow_expand:
            self.cursor_node.expand()

    def action_close(self) -> None:
        node = self.cursor_node
        if node is None or node.is_root:
            self.path = Path(self.path).absolute().parent
        elif node.is_expanded:
            node.collapse()
        elif node.parent is not None:
            self.move_cursor(node.parent)

    def action_cursor_up(self) -> None:
        """From the first line back to the path."""
        if self.cursor_line <= 0:
            self.screen.focus_previous()
        else:
            super().action_cursor_up()


def safe_is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


class PathDialog(Dialog[tuple[str, str]]):
    """A path to type or browse to, and where asked for a name; Tab completes the path as a shell does."""

    DEFAULT_CSS = """
    PathDialog > Vertical { width: 90; height: 26; }
    PathDialog Tree { height: 1fr; background: $surface; padding: 0; scrollbar-size: 1 1; }
    PathDialog Tree:focus { background-tint: transparent; }
    PathDialog .buttons { margin-top: 0; }
    PathDialog #wrong { min-height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("down", "browse", "browse", show=False)]

    def __init__(
        self, title: str, what: str, *, files: tuple[str, ...] = (), path: str = "", name: str | None = None
    ) -> None:
        """`name` also asks for a name; None does not."""
        super().__init__()
        self._title, self._what, self._files, self._path, self._name = title, what, files, path, name

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            yield Label(f"Path of {self._what}. Tab completes, {sign('↓')} browses.", classes="note")
            yield PathInput(self._path, id="path", placeholder="/data/…", select_on_focus=False)
            if self._name is not None:
                yield Label("Name, if not the folder's", classes="note")
                yield Input(self._name, id="name", select_on_focus=False)
            yield Tree(folder_of(self._path) or Path.cwd(), self._files)
            yield Static("", id="wrong", classes="wrong", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel  esc", id="cancel", compact=True)
                yield Button(f"{'Choose' if self._name is None else 'Add'}  enter", id="ok", compact=True)

    def on_mount(self) -> None:
        self.query_one("#path", Input).focus()

    @on(Input.Changed, "#path")
    def _typed(self, event: Input.Changed) -> None:
        """The tree follows what is typed."""
        tree = self.query_one(Tree)
        if tree.has_focus:
            return
        self.tell("")
        folder = folder_of(event.value)
        if folder and folder != Path(tree.path):
            tree.path = folder

    @on(DirectoryTree.DirectorySelected)
    @on(DirectoryTree.FileSelected)
    def _walked(self, event: DirectoryTree.DirectorySelected | DirectoryTree.FileSelected) -> None:
        """Enter takes the path over, a second time it is the answer."""
        box = self.query_one("#path", Input)
        if box.value == str(event.path):
            self._submitted()
        else:
            box.value = str(event.path)
            self.tell("enter again takes this one", wrong=False)

    def tell(self, text: str, *, wrong: bool = True) -> None:
        place = self.query_one("#wrong", Static)
        place.update(text)
        place.set_classes("wrong" if wrong else "note")

    def action_browse(self) -> None:
        self.query_one(Tree).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        text = self.query_one("#path", Input).value.strip()
        if not text or not Path(text).expanduser().exists():
            self.tell("There is nothing at that path." if text else "Type the path, or browse to it.")
            return
        self.dismiss((text, self.query_one("#name", Input).value.strip() if self._name is not None else ""))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "ok":
            self._submitted()
        else:
            self.dismiss(None)


class PathInput(Input):
    """An input whose Tab completes a path; with nothing more to complete it moves on as everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", "complete", show=False)]
    _told = ""

    def action_complete(self) -> None:
        done, choices = complete(self.value)
        if done != self.value:
            self.value = done
            self.cursor_position = len(done)
        elif len(choices) > 1 and self._told != done:
            more = f" and {len(choices) - SHOWN} more" if len(choices) > SHOWN else ""
            assert isinstance(self.screen, PathDialog)
            self.screen.tell("  ".join(choices[:SHOWN]) + more, wrong=False)
            self._told = done
        else:
            self.screen.focus_next()


def folder_of(text: str) -> Path | None:
    """The folder that a half-typed path is in, or is; None where there is none."""
    path = Path(os.path.expanduser(text.strip()))
    if not text.strip() or not path.is_absolute():
        return None
    if safe_is_folder(path):
        return path
    return path.parent if safe_is_folder(path.parent) else None


def complete(text: str) -> tuple[str, list[str]]:
    """`text` as far as it has only one way to go on among what exists, and the ways from there."""
    if not text:
        return text, []
    folder, _, start = os.path.expanduser(text).rpartition(os.sep)
    try:
        with os.scandir(folder or (os.sep if text.startswith(os.sep) else ".")) as entries:
            found = sorted(e.name + (os.sep if e.is_dir() else "") for e in entries if e.name.startswith(start))
    except OSError:
        return text, []
    found = [n for n in found if start.startswith(".") or not n.startswith(".")]
    if not found:
        return text, []
    head = text[: len(text) - len(start)]
    return head + os.path.commonprefix(found), found  # noqa: RUF071 (letters, not folders)
