"""Line charts that are cheap to keep on a screen behind SSH.

    chart = Chart(id="loss")
    chart.show([Series("train", steps, losses), Series("val", epochs, val_losses, "chart-2")],
               x_range=(0, 50), title="loss", x_label="epoch")
    chart.log_scale = True; chart.smoothing = 0.6; chart.marker = "quadrant"     # each redraws at once

Give `x_range` whenever the length of the run is known: on an axis that does not move, columns that are full never
change, and only the lines with something new are sent. Without it the axis grows in jumps (10, 20, 50, 100 …). Calls of
`show` may come as often as events do: they are drawn at most `draws_per_second` times a second, and not at all while
the chart cannot be seen. The lists given may be the same ones, appended to; xs must not decrease.

plotext frames, labels and places; it is imported when the first chart is drawn (26 ms).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.cells import cell_len
from textual.reactive import reactive
from textual.timer import Timer

from tui.widgets.axes import Formatter, SteadyAxis, Ticks, growing_range, x_ticks
from tui.widgets.lines import Line, LineWidget, line_width
from tui.widgets.plot import Mark, Place, frame
from tui.widgets.raster import ASCII_DOTS, GRAINS, Marker, Masks, Raster, character
from tui.widgets.reduce import ColumnReducer, PixelColumn, Smoother, Values, last_finite
from tui.widgets.symbols import ascii_only, fit, sign

LEAST_WIDTH, LEAST_HEIGHT = 20, 5
LEAST_GUTTER = 6


class Series(NamedTuple):
    """One curve. `colour` is a role, `chart-1` … `chart-6`; empty takes the next one in order.

    While the chart smooths, the raw values stay behind as a dim line, unless `raw_dim` is False. The legend says the
    last value, unless `last` is False: of a curve over something else than time it is not the newest.
    """

    name: str
    xs: Values
    ys: Values
    colour: str = ""
    raw_dim: bool = True
    last: bool = True


@dataclass
class _Memory:
    """What was worked out of a series so far, on one axis."""

    raw: ColumnReducer
    smoother: Smoother
    smooth: ColumnReducer


@dataclass
class _View:
    """What to draw, as the last `show` said."""

    series: list[Series] = field(default_factory=list)
    x_range: tuple[float, float] | None = None
    title: str = ""
    x_label: str = "epoch"
    y_format: Formatter | None = None


class _Curve(NamedTuple):
    role: str
    points: list[PixelColumn]
    dot: str
    dim: bool = False


class Chart(LineWidget):
    """A line chart with a heading that is also its legend."""

    DEFAULT_CSS = """
    Chart { height: 1fr; width: 1fr; min-height: 5; }
    """

    log_scale: reactive[bool] = reactive(False, repaint=False, init=False)
    """The y axis in powers of ten; values ≤ 0 are left out."""
    smoothing: reactive[float] = reactive(0.0, repaint=False, init=False)
    """0 shows the values; up to 0.99 shows their running mean, and the values dim behind it."""
    marker: reactive[Marker] = reactive[Marker]("braille", repaint=False, init=False)
    """braille is finest; quadrant is for terminals without it, ascii for those without either."""

    def __init__(
        self,
        *,
        empty: str = "no data yet",
        draws_per_second: float = 2.0,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.draws = 0
        self._empty = empty
        self._interval = 1 / draws_per_second
        self._view = _View()
        self._axis = SteadyAxis()
        self._memory: dict[str, _Memory] = {}
        self._drawn_at = -math.inf
        self._timer: Timer | None = None
        if ascii_only():
            self.set_reactive(Chart.marker, "ascii")

    def show(
        self,
        series: Sequence[Series],
        *,
        x_range: tuple[float, float] | None = None,
        title: str = "",
        x_label: str = "epoch",
        y_format: Formatter | None = None,
    ) -> None:
        """Show these curves. Another title or other names begin anew: the y axis forgets what it had shown."""
        series = [one._replace(colour=one.colour or f"chart-{i % 6 + 1}") for i, one in enumerate(series)]
        fresh = title != self._view.title or [one.name for one in series] != [one.name for one in self._view.series]
        if fresh:
            self._forget()
        self._view = _View(series, x_range, title, x_label, y_format)
        wait = self._drawn_at + self._interval - time.monotonic()
        if fresh or wait <= 0:
            self._draw_now()
        elif self._timer is None and self.is_mounted:
            self._timer = self.set_timer(wait, self._draw_now)

    def _draw_now(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.repaint()

    def _forget(self) -> None:
        self._axis.reset()
        self._memory.clear()

    def watch_log_scale(self) -> None:
        self._axis.reset()
        self._draw_now()

    def watch_smoothing(self) -> None:
        self._draw_now()

    def watch_marker(self) -> None:
        self._draw_now()

    def validate_smoothing(self, value: float) -> float:
        return min(max(value, 0.0), 0.99)

    def validate_marker(self, value: Marker) -> Marker:
        return value if value in GRAINS and not ascii_only() else "ascii"

    # Drawing

    def paint(self, width: int, height: int) -> list[Line]:
        self._drawn_at = time.monotonic()
        self.draws += 1
        view = self._view
        lines = [self._header(width)] if view.title or view.series else []
        if width < LEAST_WIDTH or height < LEAST_HEIGHT:
            return lines
        plot = self._plot(width, height - len(lines)) if any(len(one.xs) for one in view.series) else None
        return lines + (plot or self._blank(width, height - len(lines)))

    def _blank(self, width: int, height: int) -> list[Line]:
        text = fit(self._empty, width, "center")
        return [()] * ((height - 1) // 2) + [((text, "muted"),)]

    def _header(self, width: int) -> Line:
        """The title at the left, and at the right as many curves with their last values as there is room for."""
        view = self._view
        title = view.title if cell_len(view.title) <= width else fit(view.title, width)
        room = width - cell_len(title) - 2
        entries: list[Line] = []
        for index, one in enumerate(view.series):
            entry = self._legend(index, one)
            room -= line_width(entry) + 2
            if room < 0:
                break
            entries.append(entry)
        pieces = [piece for entry in entries for piece in (("  ", ""), *entry)]
        space = width - cell_len(title) - line_width(tuple(pieces))
        return ((title, "title"), (" " * max(space, 0), ""), *pieces)

    def _legend(self, index: int, one: Series) -> Line:
        value = last_finite(one.ys)
        number = "" if value is None or not one.last else f" {(self._view.y_format or short_number)(value)}"
        mark = ASCII_DOTS[index % len(ASCII_DOTS)] * 2 if self.marker == "ascii" else sign("━") * 2
        return (mark, one.colour), (f" {one.name}", "muted"), (number, "")

    def _plot(self, width: int, height: int) -> list[Line] | None:
        """The figure, or None when no value can be shown (all are NaN, or none is above zero on a log scale)."""
        rows = height - 2
        for _ in range(2):
            gutter = max(LEAST_GUTTER, self._axis.gutter, len(self._view.x_label))
            columns = width - gutter - 1
            curves = self._curves(columns)
            points = [point for curve in curves for point in curve.points]
            if not points:
                return None
            low, high = min(point.low for point in points), max(point.high for point in points)
            ticks = self._ticks(low, high, rows)
            if self._axis.gutter <= gutter:
                break
        scale = (rows - 1) / (ticks.high - ticks.low)
        y_places = [
            ((value - ticks.low) * scale, label) for value, label in zip(ticks.values, ticks.labels, strict=True)
        ]
        marks = self._marks(curves, ticks, columns, rows)
        x_places = x_ticks(*self._range(), columns)
        return frame(marks, (columns, rows), x_places, y_places, gutter, self._view.x_label)

    def _ticks(self, low: float, high: float, rows: int) -> Ticks:
        if self.log_scale:
            low, high = math.log10(low), math.log10(high)
        return self._axis.ticks(low, high, rows, log=self.log_scale, label=self._view.y_format)

    def _range(self) -> tuple[float, float]:
        if self._view.x_range is not None:
            return self._view.x_range
        return growing_range(max(one.xs[-1] for one in self._view.series if len(one.xs)))

    def _curves(self, columns: int) -> list[_Curve]:
        """What to draw, in the order of drawing: the dim lines first."""
        dim: list[_Curve] = []
        bright: list[_Curve] = []
        for index, one in enumerate(self._view.series):
            memory = self._remember(one, columns * GRAINS[self.marker].across)
            dot = ASCII_DOTS[index % len(ASCII_DOTS)]
            if not self.smoothing:
                bright.append(_Curve(one.colour, memory.raw.update(one.xs, one.ys), dot))
                continue
            if one.raw_dim:
                dim.append(_Curve(f"{one.colour}-raw", memory.raw.update(one.xs, one.ys), ".", True))
            smooth = memory.smoother.update(one.xs, one.ys)
            bright.append(_Curve(one.colour, memory.smooth.update(one.xs, smooth), dot))
        return dim + bright

    def _remember(self, one: Series, columns: int) -> _Memory:
        """What is known of this series, as far as it still holds after a toggle, a resize or a longer axis."""
        low, high = x_range = self._range()
        memory = self._memory.get(one.name)
        if memory is None or memory.smoother.smoothing != self.smoothing:
            smoother = Smoother(self.smoothing)
        else:
            smoother = memory.smoother
        wanted = (low, high, columns, self.log_scale)

        def reducer(old: ColumnReducer | None) -> ColumnReducer:
            if old is not None and (old.low, old.high, old.columns, old.positive) == wanted:
                return old
            return ColumnReducer(x_range, columns, positive=self.log_scale)

        kept = memory.smooth if memory is not None and smoother is memory.smoother else None
        memory = _Memory(reducer(memory.raw if memory else None), smoother, reducer(kept))
        self._memory[one.name] = memory
        return memory

    def _marks(self, curves: list[_Curve], ticks: Ticks, columns: int, rows: int) -> dict[Place, Mark]:
        """Every cell that has something. A bright curve covers dim ones; bright curves share a cell."""
        masks: Masks = {}
        owners: dict[Place, _Curve] = {}
        span = ticks.high - ticks.low
        for curve in curves:
            raster = Raster(columns, rows, self.marker)
            top = raster.height - 1

            def level(value: float, top: int = top) -> int:
                height = math.log10(value) if self.log_scale else value
                return int(min(max((height - ticks.low) / span, 0.0), 1.0) * top + 0.5)

            raster.draw(curve.points, level)
            for place, mask in raster.masks().items():
                before = owners.get(place)
                shared = before is not None and before.dim == curve.dim
                masks[place] = masks[place] | mask if shared else mask
                owners[place] = curve
        return {
            place: Mark(character(mask, self.marker, owners[place].dot), owners[place].role)
            for place, mask in masks.items()
        }


def short_number(value: float) -> str:
    """Four digits, always four, so that the legend does not wobble."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:#.4g}".removesuffix(".")


SPARKS = "▁▂▃▄▅▆▇█"
ASCII_SPARKS = "_.-=+*#@"


def sparkline(values: Values, width: int) -> str:
    """The newest story of `values` in at most `width` cells: the mean of equal shares, lowest ▁, highest █."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width <= 0:
        return ""
    count = min(width, len(finite))
    means = []
    for index in range(count):
        share = finite[index * len(finite) // count : (index + 1) * len(finite) // count]
        means.append(math.fsum(value / len(share) for value in share))
    low, high = min(means), max(means)
    signs = ASCII_SPARKS if ascii_only() else SPARKS
    if high <= low:
        return signs[3] * count
    half = 0.5 * high - 0.5 * low
    return "".join(signs[min(int((0.5 * value - 0.5 * low) / half * 8), 7)] for value in means)
