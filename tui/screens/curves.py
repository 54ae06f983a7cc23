"""The charts of a training: which there are, how many fit, and their looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from textual.containers import Horizontal
from textual.widget import Widget

from engine import metrics
from engine.progress import Progress
from tui import words
from tui.widgets.chart import Chart, Series

if TYPE_CHECKING:
    from tui.metrics_files import FileCharts

SMOOTHINGS = (0.0, 0.3, 0.6, 0.8, 0.9)
TWO_COLUMNS = 90
WEAKEST = 3  # classes that get a curve of their own beside the mean


class Plot(NamedTuple):
    """One chart: its title, its unit of x, and what it draws of a progress."""

    title: str
    x: str
    series: Callable[[Progress], list[Series]]
    smooth: bool
    y_format: Callable[[float], str] | None = None
    own: bool = False  # from a file of the training's own: where its x ends is not known


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


def measured(*keys: str) -> Callable[[Progress], list[Series]]:
    """The metrics of either task that are among `keys`, as far as there are any."""

    def pick(p: Progress) -> list[Series]:
        found = ((m.name, p.epoch_series.get(m.key)) for m in metrics.of(p.task) if m.key in keys)
        return [Series(name, s.xs, s.ys) for name, s in found if s]

    return pick


def at_end(what: str) -> Callable[[Progress], list[Series]]:
    """A curve of the best weights on val: the mean of all classes, and the weakest of them."""

    def pick(p: Progress) -> list[Series]:
        curves = (p.results.get("val") or {}).get("curves")
        if not curves:
            return []
        each = curves["per_class"] if len(curves["per_class"]) > 1 else []
        weak = sorted(each, key=lambda row: sum(row[what]))[:WEAKEST]
        lines = [("all classes", curves["mean"]), *((words.clean(row["name"]), row) for row in weak)]
        x = [100 * v for v in curves["x"]]
        return [Series(name, x, row[what], last=False) for name, row in lines]

    return pick


def rate(p: Progress) -> list[Series]:
    series = p.step_series.get("lr")
    return [Series("lr", series.xs, series.ys)] if series else []


TITLES = {"detect": "mAP, val", "classify": "accuracy, val"}


def plots(p: Progress) -> list[Plot]:
    """The charts of a training; what only the last evaluation tells comes when it is there."""
    found = [
        Plot("train loss", "step", by_step, True),
        Plot(
            TITLES.get(p.task, TITLES["detect"]),
            "epoch",
            measured("map50", "map50_95", "top1", "top5"),
            False,
            words.metric,
        ),
        Plot("loss", "epoch", by_epoch, False),
        Plot("precision, recall, F1, val", "epoch", measured("precision", "recall", "f1"), False, words.metric),
        Plot("learning rate", "step", rate, False, words.number),
    ]
    if (p.results.get("val") or {}).get("curves"):
        found.append(Plot("precision, val", "recall, %", at_end("precision"), False, words.metric))
        found.append(Plot("F1, val", "confidence, %", at_end("f1"), False, words.metric))
    return found


def x_range(p: Progress, x: str) -> tuple[float, float] | None:
    """The axis that does not move, once its end is known."""
    if x not in ("step", "epoch"):
        return 0, 100
    total = p.steps_total if x == "step" else p.epochs_total
    return (0 if x == "step" else min(1, total), total) if total > 1 else None


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
        self.files: FileCharts | None = None

    def compose(self) -> Iterator[Widget]:
        yield Chart(empty="the first step is yet to come", id="chart-a")
        yield Chart(empty="the first epoch is yet to end", id="chart-b")

    @property
    def charts(self) -> list[Chart]:
        return list(self.query(Chart))

    @property
    def can_zoom(self) -> bool:
        """Whether there is room for two. By the screen: while another view is in front, this one has no size."""
        return self.screen.size.width >= TWO_COLUMNS

    def plots(self, p: Progress) -> list[Plot]:
        """Every chart there is: dojang's, then those that the training draws itself."""
        return [*plots(p), *(self.files.plots if self.files else ())]

    def set_looks(self, marker: str, smoothing: float) -> None:
        for chart in self.charts:
            chart.marker = marker  # type: ignore[assignment]
        self._smoothing = smoothing

    def show(self, p: Progress) -> None:
        """Draw what is in view."""
        self._progress = p
        charts, there = self.charts, self.plots(p)
        two = not self._zoomed and self.can_zoom
        if charts[1].display != two:  # setting it, even to what it is, lays the whole screen out anew
            charts[1].display = two
        for i, chart in enumerate(charts):
            plot = there[(self._first + i) % len(there)]
            chart.smoothing = self._smoothing if plot.smooth else 0.0
            series = plot.series(p)
            chart.show(
                series,
                x_range=None if plot.own else x_range(p, plot.x),
                title=plot.title,
                x_label=plot.x,
                y_format=plot.y_format,
            )

    def on_resize(self) -> None:
        self.call_after_refresh(self.show, self._progress)

    def next_charts(self, p: Progress) -> None:
        self._first = (self._first + (2 if self.charts[1].display else 1)) % len(self.plots(p))
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
