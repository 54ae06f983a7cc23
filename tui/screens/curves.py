"""The charts of a training: which there are, how many fit, and their looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from textual.containers import Horizontal
from textual.widget import Widget

from engine.progress import Progress
from tui import words
from tui.widgets.chart import Chart, Series

SMOOTHINGS = (0.0, 0.3, 0.6, 0.8, 0.9)
TWO_COLUMNS = 90


class Plot(NamedTuple):
    """One chart: its title, its unit of x, and what it draws of a progress."""

    title: str
    x: str
    series: Callable[[Progress], list[Series]]
    smooth: bool
    y_format: Callable[[float], str] | None = None


def by_step(p: Progress) -> list[Series]:
    return [Series(words.loss(n), s.xs, s.ys) for n, s in p.step_series.items() if n != "lr"]


def by_epoch(p: Progress) -> list[Series]:
    names = [n.removeprefix("train/") for n in p.epoch_series if n.startswith("train/")]
    found = []
    for i, name in enumerate(names):
        for j, split in enumerate(("train", "val")):
            series = p.epoch_series.get(f"{split}/{name}")
            if series:
                found.append(
                    Series(f"{words.loss(name)} {split}", series.xs, series.ys, f"chart-{(2 * i + j) % 6 + 1}")
                )
    return found


def metrics(*names: str) -> Callable[[Progress], list[Series]]:
    def pick(p: Progress) -> list[Series]:
        found = ((words.METRIC_LONG[n], p.epoch_series.get(n)) for n in names)
        return [Series(title, s.xs, s.ys) for title, s in found if s]

    return pick


def rate(p: Progress) -> list[Series]:
    series = p.step_series.get("lr")
    return [Series("lr", series.xs, series.ys)] if series else []


PLOTS = (
    Plot("train loss", "step", by_step, True),
    Plot("mAP, val", "epoch", metrics("map50", "map50_95"), False, words.metric),
    Plot("loss", "epoch", by_epoch, False),
    Plot("precision, recall, val", "epoch", metrics("precision", "recall"), False, words.metric),
    Plot("learning rate", "step", rate, False, words.number),
)


class Curves(Horizontal):
    """Two charts side by side, one where it is narrow or zoomed; `next_charts` walks through all of them."""

    DEFAULT_CSS = """
    Curves { height: 1fr; }
    Curves Chart { height: 1fr; padding: 0 1; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._first, self._zoomed = 0, False
        self._progress = Progress()

    def compose(self) -> Iterator[Widget]:
        yield Chart(empty="the first step is yet to come", id="chart-a")
        yield Chart(empty="the first epoch is yet to end", id="chart-b")

    @property
    def charts(self) -> list[Chart]:
        return list(self.query(Chart))

    @property
    def can_zoom(self) -> bool:
        """Whether there is room for two."""
        return self.size.width >= TWO_COLUMNS

    def set_looks(self, marker: str, smoothing: float) -> None:
        for chart in self.charts:
            chart.marker = marker  # type: ignore[assignment]
        self._smoothing = smoothing

    def show(self, p: Progress) -> None:
        """Draw what is in view."""
        self._progress = p
        charts = self.charts
        two = not self._zoomed and self.can_zoom
        if charts[1].display != two:  # setting it, even to what it is, lays the whole screen out anew
            charts[1].display = two
        for i, chart in enumerate(charts):
            plot = PLOTS[(self._first + i) % len(PLOTS)]
            total = p.steps_total if plot.x == "step" else p.epochs_total
            chart.smoothing = self._smoothing if plot.smooth else 0.0
            series = plot.series(p)
            chart.show(
                series,
                x_range=(0 if plot.x == "step" else min(1, total), total) if total > 1 else None,
                title=plot.title,
                x_label=plot.x,
                y_format=plot.y_format,
            )

    def on_resize(self) -> None:
        self.call_after_refresh(self.show, self._progress)

    def next_charts(self, p: Progress) -> None:
        self._first = (self._first + (2 if self.charts[1].display else 1)) % len(PLOTS)
        self.show(p)

    def zoom(self, p: Progress) -> None:
        self._zoomed = not self._zoomed
        self.show(p)

    def toggle_log_scale(self) -> None:
        for chart in self.charts:
            chart.log_scale = not chart.log_scale

    def next_smoothing(self) -> float:
        """The next stronger smoothing, or none after the strongest."""
        later = [s for s in SMOOTHINGS if s > self._smoothing]
        self._smoothing = later[0] if later else 0.0
        self.show(self._progress)
        return self._smoothing
