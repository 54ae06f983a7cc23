"""Dots to characters. plotext rasterises a line point by point, some 3 µs each: a band of noise on a large chart takes
it 0.3 s, on the loop that answers the keys. Here a pixel column is one integer, a vertical run is one shift, and
plotext is handed one finished character per cell, which it places, colours and frames. Where two curves share a cell
the dots of both stay (plotext would keep the last one's, and leave gaps in the other).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from tui.widgets.reduce import PixelColumn

Marker = Literal["braille", "quadrant", "ascii"]


class Grain(NamedTuple):
    """How many dots a cell has, and what stands for a point that has no neighbours."""

    across: int
    down: int
    lone: str


GRAINS: dict[str, Grain] = {
    "braille": Grain(2, 4, "⠶"),
    "quadrant": Grain(2, 2, "▄"),
    "ascii": Grain(1, 1, "*"),
}
ASCII_DOTS = "*+x#%@"
QUADRANTS = " ▗▝▐▖▄▞▟▘▚▀▜▌▙▛█"  # bit 0 is lower right, 1 upper right, 2 lower left, 3 upper left

# The four bits of half a braille cell, lowest dot first, to the bits of its code point.
_LEFT = (0x40, 0x04, 0x02, 0x01)
_RIGHT = (0x80, 0x20, 0x10, 0x08)
_BRAILLE_LEFT = [sum(bit for i, bit in enumerate(_LEFT) if value >> i & 1) for value in range(16)]
_BRAILLE_RIGHT = [sum(bit for i, bit in enumerate(_RIGHT) if value >> i & 1) for value in range(16)]

LONE = 1 << 8
Masks = dict[tuple[int, int], int]
"""The dots of each cell by (column, row), rows counted from below: four bits for its left half, four for its right."""


class Raster:
    """The dots of one series on `columns` × `rows` cells."""

    def __init__(self, columns: int, rows: int, marker: Marker) -> None:
        self.grain = GRAINS[marker]
        self.width, self.height = columns * self.grain.across, rows * self.grain.down
        self._bits = [0] * self.width
        self._lone: list[tuple[int, int]] = []

    def draw(self, points: Iterable[PixelColumn], level: Callable[[float], int]) -> None:
        """Draw the line through `points`; `level` gives the dot row of a value, 0 at the bottom."""
        before: tuple[int, int] | None = None
        single: tuple[int, int] | None = None
        for point in points:
            first, last = level(point.first), level(point.last)
            self._run(point.column, level(point.low), level(point.high))
            if before is not None and point.joined:
                self._line(*before, point.column, first)
                single = None
            else:
                self._note(single)
                single = (point.column, first) if point.low == point.high else None
            before = (point.column, last)
        self._note(single)

    def _note(self, single: tuple[int, int] | None) -> None:
        if single is not None and 0 <= single[0] < self.width and 0 <= single[1] < self.height:
            self._lone.append(single)

    def _run(self, x: int, low: int, high: int) -> None:
        low, high = max(low, 0), min(high, self.height - 1)
        if 0 <= x < self.width and low <= high:
            self._bits[x] |= (1 << high + 1) - (1 << low)

    def _line(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """One vertical run per column: half of the way belongs to each of the two ends."""
        steps = x1 - x0
        if steps <= 0:
            self._run(x0, min(y0, y1), max(y0, y1))
            return
        rise = (y1 - y0) / steps
        start = y0
        for step in range(steps + 1):
            stop = y1 if step == steps else round(y0 + rise * (step + 0.5))
            self._run(x0 + step, min(start, stop), max(start, stop))
            start = stop

    def masks(self) -> Masks:
        """Every cell that has a dot; a point without neighbours is `LONE`."""
        across, down = self.grain.across, self.grain.down
        mask = (1 << down) - 1
        found: Masks = {}
        for column in range(self.width // across):
            left = self._bits[column * across]
            right = self._bits[column * across + across - 1]
            row = 0
            while left or right:
                if dots := (left & mask) << 4 | right & mask:
                    found[column, row] = dots
                left, right, row = left >> down, right >> down, row + 1
        for x, y in self._lone:
            found[x // across, y // down] = LONE
        return found


def character(mask: int, marker: Marker, dot: str) -> str:
    """What shows the dots of one cell; where a cell is one dot, that dot is `dot`."""
    if marker == "ascii":
        return dot
    if mask & LONE:
        return GRAINS[marker].lone
    left, right = mask >> 4, mask & 15
    if marker == "braille":
        return chr(0x2800 + _BRAILLE_LEFT[left] + _BRAILLE_RIGHT[right])
    return QUADRANTS[left << 2 | right]
