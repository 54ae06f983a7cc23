"""The curve of a learning rate sweep: loss over rates on a logarithmic axis, with one rate marked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tui.widgets.axes import Ticks, linear_ticks
from tui.widgets.lines import Line, LineWidget
from tui.widgets.plot import Mark, Place, frame
from tui.widgets.raster import ASCII_DOTS, Marker, Raster, character
from tui.widgets.reduce import ColumnReducer
from tui.widgets.symbols import ascii_only, fit, sign

LEAST = (20, 5)
MARGIN = 2  # cells
HEADROOM = 0.3  # how far above nine tenths of the curve the axis goes on, as a share of their span


def draw(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    limits: tuple[float, float],
    size: tuple[int, int],
    mark: float | None = None,
) -> list[Line]:
    """The figure in `size` cells: raw losses dim, the smoothed bright, a line down at the rate `mark`."""
    width, height = size
    rows = height - 2
    if width < LEAST[0] or height < LEAST[1] or not smoothed:
        return []
    ticks = _levels(smoothed, rows)
    gutter = max(4, *(len(label) for label in ticks.labels))
    columns = width - gutter - 1
    low, high = (math.log10(v) for v in limits)
    each = (high - low) / max(1, columns - 2 * MARGIN)
    low, high = low - MARGIN * each, high + MARGIN * each  # so that no label hangs over the end
    marker: Marker = "ascii" if ascii_only() else "braille"
    marks: dict[Place, Mark] = {}
    xs = [math.log10(r) for r in rates]
    for values, role, dot in ((losses, "chart-1-raw", "."), (smoothed, "chart-1", ASCII_DOTS[0])):
        raster = Raster(columns, rows, marker)
        reducer = ColumnReducer((low, high), raster.width)
        top, span = raster.height - 1, ticks.high - ticks.low

        def level(value: float, top: int = top, span: float = span) -> int:
            return int(min(max((value - ticks.low) / span, 0.0), 1.0) * top + 0.5)

        points = reducer.update(xs, values)
        if role.endswith("-raw"):  # dots: lines between noisy values would hide the curve
            points = [p._replace(joined=False) for p in points if ticks.low <= p.low and p.high <= ticks.high]
        raster.draw(points, level)
        marks |= {place: Mark(character(mask, marker, dot), role) for place, mask in raster.masks().items()}
    if mark is not None:
        _put_mark(marks, mark, (low, high), (columns, rows), _height(xs, smoothed, math.log10(mark), ticks, rows))
    scale = (rows - 1) / (ticks.high - ticks.low)
    y_places = [((v - ticks.low) * scale, label) for v, label in zip(ticks.values, ticks.labels, strict=True)]
    return frame(marks, (columns, rows), _powers(low, high, columns), y_places, gutter, "lr")


def _levels(smoothed: Sequence[float], rows: int) -> Ticks:
    """The y axis: all of the curve but where it runs away, which would flatten the rest."""
    low, most = min(smoothed), sorted(smoothed)[int(0.9 * (len(smoothed) - 1))]
    roof = most + HEADROOM * (most - low)
    return linear_ticks(low, min(max(smoothed), roof), rows)


def _powers(low: float, high: float, columns: int) -> list[tuple[float, str]]:
    """Ticks at powers of ten, as many as fit."""
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    every = max(1, math.ceil(len(powers) * 7 / max(columns, 1)))
    scale = (columns - 1) / (high - low)
    return [((p - low) * scale, f"1e{p}" if p else "1") for p in powers if not (p - powers[0]) % every]


def _height(xs: Sequence[float], smoothed: Sequence[float], x: float, ticks: Ticks, rows: int) -> int:
    near = min(range(len(smoothed)), key=lambda i: abs(xs[i] - x))
    share = min(max((smoothed[near] - ticks.low) / (ticks.high - ticks.low), 0.0), 1.0)
    return int(share * (rows - 1) + 0.5)


def _put_mark(
    marks: dict[Place, Mark], rate: float, limits: tuple[float, float], size: tuple[int, int], row: int
) -> None:
    """A line down at the rate, and a dot where it meets the curve."""
    (low, high), (columns, rows) = limits, size
    column = round((math.log10(rate) - low) / (high - low) * (columns - 1))
    if 0 <= column < columns:
        for y in range(rows):
            if (column, y) not in marks or marks[column, y].role != "chart-1":
                marks[column, y] = Mark(sign("│"), "accent")
        marks[column, row] = Mark(sign("●"), "accent")


class SweepChart(LineWidget):
    """The same as a widget; `show` draws anew."""

    DEFAULT_CSS = "SweepChart { height: 1fr; width: 1fr; min-height: 5; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curves: tuple[Sequence[float], Sequence[float], Sequence[float]] = ((), (), ())
        self._limits = (1e-7, 1.0)
        self._mark: float | None = None
        self._empty = ""

    def show(
        self,
        curves: tuple[Sequence[float], Sequence[float], Sequence[float]],
        limits: tuple[float, float],
        mark: float | None,
        empty: str = "",
    ) -> None:
        """Rates, losses, smoothed losses; `empty` stands where there is no curve yet."""
        self._curves, self._limits, self._mark, self._empty = curves, limits, mark, empty
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        lines = draw(*self._curves, self._limits, (width, height), self._mark)
        if lines:
            return lines
        return [()] * max(0, (height - 1) // 2) + [((fit(self._empty, width, "center"), "muted"),)]
