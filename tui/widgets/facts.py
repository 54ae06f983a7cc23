"""Lines of text that wrap within their own column: a value that is too long goes on under itself, not under its name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import get_character_cell_size
from textual.content import Content
from textual.widgets import Static

from tui.widgets.symbols import fit, sign

NAME = 23
Fact = Content | tuple[Content, int]
"""A line, or a line and the column at which it goes on when it wraps."""


class Facts(Static):
    """Shows lines, each wrapped with its own indent, and anew for every width."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__("", id=id, classes=classes, markup=False)
        self._facts: Sequence[Fact] = ()
        self._laid: tuple[int, Sequence[Fact]] = (0, ())

    def show(self, facts: Sequence[Fact]) -> None:
        self._facts = facts
        self._lay()

    def on_resize(self) -> None:
        self._lay()

    def _lay(self) -> None:
        width = self.content_size.width
        if width and self._laid != (width, self._facts):
            self._laid = (width, self._facts)
            lines = [part for fact in self._facts for part in hang(fact, width)]
            self.update(Content("\n").join(lines))


def head(text: str) -> Content:
    """The heading of a section."""
    return Content.styled(f"{sign('─') * 2} {text}", "$foreground-muted")


def row(name: str, value: str | Content, mark: str = "") -> Fact:
    """Name and value, and in colour what is special about it."""
    shown = Content.styled(value, "bold" if mark else "") if isinstance(value, str) else value
    return Content.assemble(f"{fit(name, NAME)} ", shown, (f"  {mark}" if mark else "", "$accent")), NAME + 1


def hang(fact: Fact, width: int) -> list[Content]:
    """The lines that a fact takes in `width` cells."""
    line, indent = fact if isinstance(fact, tuple) else (fact, 0)
    indent = indent if width - indent >= 12 else 0
    if "\n" in line.plain:
        return [part for piece in line.split("\n") for part in hang((piece, indent), width)]
    found: list[Content] = []
    while line.cell_length > (room := width - (indent if found else 0)):
        cut, after = break_at(line.plain, room, 0 if found else indent)
        found.append(pad(line[:cut], indent if found else 0))
        line = line[after:]
    return [*found, pad(line, indent if found else 0)]


def pad(line: Content, indent: int) -> Content:
    return Content.assemble(" " * indent, line) if indent else line


def break_at(text: str, width: int, least: int = 0) -> tuple[int, int]:
    """Where to end a line of `width` cells, and where the next begins: at a space, or anywhere in a long word.

    A space before `least` does not count: it stands between a name and its value.
    """
    used = 0
    for index, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > width:
            space = text.rfind(" ", 0, index + 1)
            if space > least and text[least:space].strip():
                return space, space + 1
            return max(index, 1), max(index, 1)
    return len(text), len(text)


__all__ = ["Fact", "Facts", "hang", "head", "row"]
