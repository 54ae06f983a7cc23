"""The objects of an image as a list: class, confidence where there is one, and size. Its first row is all of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from textual.content import Content

from tui import words
from tui.widgets.blocks import Look, Mark, colour_of, dimmed
from tui.widgets.symbols import sign
from tui.widgets.table import Cell, Column, Row, Table

ALL = "all"
ON_LIGHT = 0.72  # of a class's colour, on a light ground
CLASS = Column("name", "object", width=8, flex=1, priority=9)
CONFIDENCE = Column("confidence", "conf.", width=5, align="right", priority=7)
SIZE = Column("size", "px", width=9, align="right", priority=5)


class ObjectList(Table):
    """Goes with a Picture: `chosen` is the object to look at there."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__((CLASS, SIZE), empty="no objects", id=id)

    def show(self, marks: Sequence[Mark], size: tuple[int, int], chosen: int | None = None) -> None:
        """The objects of another image of `size` pixels, the cursor on `chosen`."""
        scored = any(mark.confidence is not None for mark in marks)
        self.set_columns((CLASS, CONFIDENCE, SIZE) if scored else (CLASS, SIZE))
        rows = [self._object_row(number, mark, size) for number, mark in enumerate(marks)]
        head = [Row(ALL, {"name": "all", "size": str(len(marks))})] if marks else []
        self.set_rows([*head, *rows])
        self.move_to(ALL if chosen is None else str(chosen))

    @property
    def chosen(self) -> int | None:
        key = self.cursor_key
        return None if key in (None, ALL) else int(key or 0)

    def _object_row(self, number: int, mark: Mark, size: tuple[int, int]) -> Row:
        name = unicodedata.normalize("NFC", words.clean(mark.name))
        cells: dict[str, Cell] = {
            "name": Content.assemble((f"{sign('●')} ", self.colour(mark.number)), name),
            "size": Content(f"{mark.box[2] * size[0]:.0f}×{mark.box[3] * size[1]:.0f}"),
        }
        if mark.confidence is not None:
            cells["confidence"] = Content(f"{mark.confidence:.2f}")
        return Row(str(number), cells)

    def colour(self, number: int) -> str:
        """The colour of a class, as styles spell it, fit for the theme's ground."""
        look = Look.here()
        colour = colour_of(number, look)
        dark = self.app.current_theme.dark or look.colours <= 16
        return f"#{colour if dark else dimmed(colour, ON_LIGHT):06x}"
