"""Columns that fit and cells that stay in them: the geometry of `table`, apart from its behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style as RichStyle
from rich.text import Text
from textual.content import Content

from tui.widgets.symbols import cut, fit, sign

Cell: TypeAlias = str | Content | Text
GAP = 2


class Column(NamedTuple):
    """A column; `width` is exact, or with `flex` the least. Without both it is as wide as its title."""

    key: str
    title: str
    width: int | None = None
    flex: int = 0
    align: Literal["left", "right"] = "left"
    priority: int = 0

    @property
    def least(self) -> int:
        return self.width if self.width is not None else max(cell_len(self.title), 1)


class Row(NamedTuple):
    """A row; a column whose key is not in `cells` stays blank. A `Content` may use theme colours (`$success`)."""

    key: str
    cells: dict[str, Cell]


def fit_columns(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The columns that fit in `width` cells, each with its width. At least one column always stays."""
    kept = list(columns)

    def needed() -> int:
        return sum(column.least for column in kept) + GAP * (len(kept) - 1)

    while len(kept) > 1 and needed() > width:
        lowest = min(column.priority for column in kept)
        kept.remove([column for column in kept if column.priority == lowest][-1])
    spare = max(width - needed(), 0) if kept else 0
    weight = sum(column.flex for column in kept)
    sized: list[tuple[Column, int]] = []
    for column in kept:
        share = spare * column.flex // weight if weight and column.flex else 0
        spare, weight = spare - share, weight - column.flex
        sized.append((column, min(column.least + share, width)))
    return sized


def cell_segments(cell: Cell, width: int, align: str, style: RichStyle, coloured: bool) -> list[Segment]:
    if isinstance(cell, str):
        return [Segment(fit(one_line(cell), width, align), style)]
    content = Content.from_rich_text(cell) if isinstance(cell, Text) else cell
    if not coloured or "\n" in content.plain:
        return [Segment(fit(one_line(content.plain), width, align), style)]
    if content.cell_length > width:
        content = content[: len(cut(content.plain, width - 1))] + sign("…")
    space = Segment(" " * max(width - content.cell_length, 0), style)
    parts = [Segment(s.text, style + ink(s.style)) for s in content.render_segments()]
    return [space, *parts] if align == "right" else [*parts, space]


def one_line(text: str) -> str:
    """Names come from people and files: control characters would move the terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def ink(style: RichStyle | None) -> RichStyle:
    """The style without its background, which is the row's business."""
    if style is None:
        return RichStyle()
    return RichStyle(color=style.color, bold=style.bold, dim=style.dim, italic=style.italic, underline=style.underline)
