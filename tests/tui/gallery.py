"""Every widget on one screen, moving as in a training: `python tests/tui/gallery.py [THEME] [--still]`.

For looking at (`tmux2png.sh`), for the tests, and to measure bytes per second. Keys: t theme, l log, s smoothing,
m marker, space mark.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tui import terminal

if __name__ == "__main__" and (problem := terminal.prepare_environment()):
    sys.exit(problem)

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content

from tui.themes import register
from tui.widgets.bars import Bar, Metric, MetricBars, ProgressBars, StageLine, state_badge
from tui.widgets.chart import Chart, Series, sparkline
from tui.widgets.symbols import STATES, state_sign
from tui.widgets.table import Column, Row, Table

EPOCHS, STEPS = 50, 128
NAMES = [
    "V_7 augmented",
    "V_6 baseline",
    "V_5 야간 데이터로 다시 학습한 모델",
    "V_4 d0",
    "V_3 작은 객체",
    "V_2",
    "V_1",
    "V_0",
]


class Run:
    """A made-up training: losses by step and metrics by epoch."""

    def __init__(self, seed: int = 7) -> None:
        self.chance = random.Random(seed)
        self.steps: list[float] = []
        self.losses: dict[str, list[float]] = {"box": [], "cls": [], "dfl": []}
        self.epochs: list[float] = []
        self.maps: dict[str, list[float]] = {"mAP50": [], "mAP50-95": []}

    def advance(self, count: int) -> None:
        for _ in range(count):
            step = len(self.steps)
            self.steps.append(float(step))
            for index, values in enumerate(self.losses.values()):
                values.append(
                    (2.4 - index * 0.5) * math.exp(-step / 1500) + 0.5 - index * 0.1 + self.chance.gauss(0, 0.07)
                )
            if step % STEPS == STEPS - 1:
                self.epochs.append(float(len(self.epochs) + 1))
                done = 1 - math.exp(-len(self.epochs) / 7)
                self.maps["mAP50"].append(0.84 * done + self.chance.gauss(0, 0.012))
                self.maps["mAP50-95"].append(0.53 * done + self.chance.gauss(0, 0.012))


class Gallery(App[None]):
    CSS = """
    Screen { padding: 0 1; }
    #charts { height: 2fr; }
    #right { width: 44; padding-left: 2; }
    #charts Chart { margin-right: 2; }
    #log-chart { width: 1fr; }
    Table { height: 1fr; }
    .small #right, .small #epochs { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("t", "next_theme"), ("l", "log"), ("s", "smooth"), ("m", "marker"), ("space", "mark"),
    ]  # fmt: skip

    def __init__(self, theme: str = "dojang-dark", *, moving: bool = True) -> None:
        super().__init__(driver_class=terminal.driver_class() if __name__ == "__main__" else None)
        self.problems = register(self)
        self.theme = theme
        self.run_ = Run()
        self.moving = moving

    def compose(self) -> ComposeResult:
        yield StageLine(id="stages")
        yield ProgressBars(id="across", across=True)
        yield ProgressBars(id="bars")
        with Horizontal(id="charts"):
            yield Chart(id="loss")
            yield Chart(id="epochs")
        with Horizontal():
            yield Table(COLUMNS, id="versions", empty="No versions yet\nPress n to train the first one")
            with Vertical(id="right"):
                yield MetricBars(id="metrics")
                yield Chart(id="nothing", empty="no data yet")

    def on_mount(self) -> None:
        terminal.install_fixes(self)
        self.run_.advance(1533)
        self.query_one("#loss", Chart).smoothing = 0.97
        self.query_one(Table).set_rows(version_rows(self.run_))
        self.query_one(Table).sorted_by("map", descending=True)
        self.query_one(Table).focus()
        self.show_all()
        if self.moving:
            self.set_interval(1 / 4, self.tick)

    def on_resize(self) -> None:
        self.screen.set_class(self.size.width < 100, "small")

    def tick(self) -> None:
        self.run_.advance(7)
        self.show_all()

    def show_all(self) -> None:
        run = self.run_
        step, epoch = len(run.steps) % STEPS, len(run.epochs)
        names = ["server", "preprocessing", "training", "testing", "done"]
        self.query_one("#stages", StageLine).show_steps(names, 2)
        bars = [Bar("epoch", epoch, EPOCHS), Bar("step", step, STEPS), Bar("val")]
        self.query_one("#across", ProgressBars).show(bars)
        packing = Bar("packing 이미지", 812, 1093, text="1 093 images, 2 skipped", role="success")
        self.query_one("#bars", ProgressBars).show([*bars[:2], packing])
        colours = ["chart-1", "chart-2", "chart-3"]
        losses = [Series(n, run.steps, v, c) for (n, v), c in zip(run.losses.items(), colours, strict=True)]
        self.query_one("#loss", Chart).show(losses, x_range=(0, EPOCHS * STEPS), title="loss, train", x_label="step")
        maps = [Series(name, run.epochs, values) for name, values in run.maps.items()]
        self.query_one("#epochs", Chart).show(maps, x_range=(0, EPOCHS), title="mAP, val", x_label="epoch")
        best = run.maps["mAP50"][-1]
        self.query_one("#metrics", MetricBars).show(
            [Metric("mAP50", best), Metric("mAP50-95", 0.452), Metric("precision", 0.801), Metric("recall", None)]
        )
        self.query_one("#nothing", Chart).show([], title="confusion")

    def action_next_theme(self) -> None:
        order = ["dojang-dark", "dojang-light", "ansi-dark", "ansi-light", "nord"]
        self.theme = order[(order.index(self.theme) + 1) % len(order)] if self.theme in order else order[0]

    def action_log(self) -> None:
        for chart in self.query(Chart):
            chart.log_scale = not chart.log_scale

    def action_smooth(self) -> None:
        chart = self.query_one("#loss", Chart)
        chart.smoothing = 0.0 if chart.smoothing else 0.97

    def action_marker(self) -> None:
        for chart in self.query(Chart):
            chart.marker = {"braille": "quadrant", "quadrant": "ascii", "ascii": "braille"}[chart.marker]

    def action_mark(self) -> None:
        self.query_one(Table).toggle_mark()


COLUMNS = [
    Column("sign", "", 1, priority=9),
    Column("version", "version", 12, flex=2, priority=9),
    Column("state", "state", 13, priority=8),
    Column("data", "data", 8, flex=1, priority=2),
    Column("map", "mAP50", 6, align="right", priority=7),
    Column("trend", "trend", 10, priority=1),
    Column("took", "took", 7, align="right", priority=3),
]


def version_rows(run: Run) -> list[Row]:
    rows = []
    for index, state in enumerate(["training", *list(STATES)[:3], "done", "failed", "paused", "lost"] * 5):
        name = NAMES[index % len(NAMES)]
        cells = {
            "sign": state_sign(state), "version": name, "state": state_badge(state), "data": f"세포 v{index % 4}",
            "map": f"{0.9 - index / 60:.3f}" if state in ("done", "training") else "–",
            "trend": Content.styled(sparkline(run.maps["mAP50"], 10), "$foreground-muted"), "took": f"{index}:{index * 7 % 60:02d}h",
        }  # fmt: skip
        rows.append(Row(f"{index}", cells))
    return rows


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    Gallery(*arguments, moving="--still" not in sys.argv).run()
