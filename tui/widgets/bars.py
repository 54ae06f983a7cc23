"""Bars and stages: how far it is, how good it is, where it stands.

    ProgressBars(across=False)   .show([Bar("epoch", 12, 50), Bar("step", 41, 128, text="212 img/s")])
    MetricBars()                 .show([Metric("mAP50", 0.781, "val: found and well placed"), …])
    StageLine()                  .show([Stage("server", "done"), Stage("training", "current"), …])
                                 .show_steps(["Data set", "Settings", "Server"], current=1)
    state_badge(state), state_sign(state)   see `symbols`

Each is one widget whatever the number of rows, and each repaints only the lines whose cells changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len
from textual.geometry import Size

from tui.widgets.lines import Line, LineWidget, Piece, line_width
from tui.widgets.symbols import ascii_only, fit, sign, state_badge, state_sign

__all__ = ["Bar", "Metric", "MetricBars", "ProgressBars", "Stage", "StageLine", "bar", "state_badge", "state_sign"]

GAP = "  "
LEAST_BAR = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One row. Without a `total` nothing is known but the count, and the bar stays empty instead of pretending."""

    label: str
    value: float | None = None
    total: float | None = None
    text: str | None = None
    """What stands at the right; the percentage when left out."""
    role: str = "accent"

    @property
    def share(self) -> float | None:
        if self.value is None or not self.total or not math.isfinite(self.value / self.total):
            return None
        return min(max(self.value / self.total, 0.0), 1.0)

    @property
    def count(self) -> str:
        if self.value is None:
            return ""
        return f"{_short(self.value)}/{_short(self.total)}" if self.total else _short(self.value)

    @property
    def right(self) -> str:
        if self.text is not None:
            return self.text
        return "" if self.share is None else f"{math.floor(self.share * 100):d} %"


class Metric(NamedTuple):
    """A number between 0 and 1, and one line that says what it means. `None` is "not measured"."""

    name: str
    value: float | None
    help: str = ""
    role: str = "accent"


class Stage(NamedTuple):
    """One stop on a stage line; `state` is done, current, todo, failed or paused."""

    name: str
    state: str = "todo"


def _short(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.3g}"


def bar(share: float | None, width: int, role: str = "accent") -> Line:
    """A bar of exactly `width` cells, in half cells. Full and empty differ in weight, so it reads without colour."""
    halves = 0 if share is None else round(share * width * 2)
    if share and not halves:
        halves = 1
    if share is not None and share < 1 and halves == width * 2:
        halves -= 1
    full, half = divmod(halves, 2)
    if ascii_only():
        full, half = full + half, 0
    done = sign("━") * full + ("╸" if half else "")
    return (done, role), (sign("─") * (width - full - half), "track")


class ProgressBars(LineWidget):
    """Rows of label, bar, count and percentage; with `across=True` all of them share one line."""

    def __init__(
        self, *, across: bool = False, name: str | None = None, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.across = across
        self._rows: list[Bar] = []

    def show(self, rows: Sequence[Bar]) -> None:
        """Show these rows; only a changed number of rows costs a layout."""
        grew = len(rows) != len(self._rows) and not self.across
        self._rows = list(rows)
        if grew:
            self.refresh(layout=True)
        self.repaint()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 if self.across else len(self._rows)

    def paint(self, width: int, height: int) -> list[Line]:
        if not self._rows:
            return []
        if self.across:
            return [self._one_line(width)]
        labels = min(max(cell_len(row.label) for row in self._rows), max(width // 4, 8))
        counts = max(cell_len(row.count) for row in self._rows)
        rights = max(cell_len(row.right) for row in self._rows)
        room = width - labels - len(GAP)
        if room - counts - len(GAP) < LEAST_BAR:
            counts = 0
        room -= counts + len(GAP) if counts else 0
        if room - rights - len(GAP) < LEAST_BAR:
            rights = 0
        room -= rights + len(GAP) if rights else 0
        return [self._row(row, labels, max(room, 0), counts, rights) for row in self._rows]

    @staticmethod
    def _row(row: Bar, labels: int, room: int, counts: int, rights: int) -> Line:
        pieces: list[Piece] = [(fit(row.label, labels) + GAP, ""), *bar(row.share, room, row.role)]
        if counts:
            pieces.append((GAP + fit(row.count, counts, "right"), ""))
        if rights:
            align = "right" if row.text is None else "left"
            pieces.append((GAP + fit(row.right, rights, align), "muted"))
        return tuple(pieces)

    def _one_line(self, width: int) -> Line:
        each, extra = divmod(width - len(GAP) * (len(self._rows) - 1), len(self._rows))
        pieces: list[Piece] = []
        for index, row in enumerate(self._rows):
            room = each + (extra if index == len(self._rows) - 1 else 0)
            head = f"{row.label} {row.count or row.right} " if row.value is not None else f"{row.label} "
            if cell_len(head) + 3 > room:
                head = fit(f"{row.label} ", min(cell_len(row.label) + 1, max(room - 3, 0)))
            pieces.extend(((GAP if index else "", ""), (head, ""), *bar(row.share, room - cell_len(head), row.role)))
        return tuple(pieces)


class MetricBars(LineWidget):
    """Metrics between 0 and 1: name, bar, number, and in what room is left a line of help."""

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._metrics: list[Metric] = []

    def show(self, metrics: Sequence[Metric]) -> None:
        grew = len(metrics) != len(self._metrics)
        self._metrics = list(metrics)
        if grew:
            self.refresh(layout=True)
        self.repaint()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._metrics)

    def paint(self, width: int, height: int) -> list[Line]:
        if not self._metrics:
            return []
        names = min(max(cell_len(metric.name) for metric in self._metrics), max(width // 3, 8))
        rest = width - names - len(GAP) - 5 - len(GAP)
        helps = any(metric.help for metric in self._metrics) and rest >= 40
        room = min(rest // 2, 30) if helps else rest
        return [
            self._row(metric, names, max(room, 0), rest - room - len(GAP) if helps else 0) for metric in self._metrics
        ]

    @staticmethod
    def _row(metric: Metric, names: int, room: int, helps: int) -> Line:
        value = metric.value if metric.value is not None and math.isfinite(metric.value) else None
        number = sign("–") if value is None else f"{value:.3f}"
        share = None if value is None else min(max(value, 0.0), 1.0)
        pieces: list[Piece] = [(fit(metric.name, names) + GAP, ""), *bar(share, room, metric.role)]
        pieces.append((GAP + fit(number, 5, "right"), "" if value is not None else "muted"))
        if helps:
            pieces.append((GAP + fit(metric.help, helps), "muted"))
        return tuple(pieces)


STAGE_SIGNS: dict[str, tuple[str, str, str]] = {
    "done": ("✓", "+", "success"),
    "current": ("●", "@", "current"),
    "todo": ("○", "o", "muted"),
    "failed": ("✗", "x", "error"),
    "paused": ("‖", "=", "warning"),
}


class StageLine(LineWidget):
    """`✓ server ── ● training ── ○ done` in one line. In a narrow room the words far from the current stage go first."""

    DEFAULT_CSS = """
    StageLine { height: 1; }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._stages: list[Stage] = []

    def show(self, stages: Sequence[Stage]) -> None:
        self._stages = list(stages)
        self.repaint()

    def show_steps(self, names: Sequence[str], current: int) -> None:
        """A stepper: what is before `current` is done, what is after is to do; `len(names)` means all done."""
        states = ["done" if i < current else "current" if i == current else "todo" for i in range(len(names))]
        self.show([Stage(name, state) for name, state in zip(names, states, strict=True)])

    def paint(self, width: int, height: int) -> list[Line]:
        if not self._stages:
            return []
        here = next((i for i, stage in enumerate(self._stages) if stage.state not in ("done", "todo")), 0)
        far_first = sorted(range(len(self._stages)), key=lambda index: -abs(index - here))
        silent: set[int] = set()
        line = self._line(silent)
        for index in far_first:
            if line_width(line) <= width:
                break
            silent.add(index)
            line = self._line(silent)
        return [line]

    def _line(self, silent: set[int]) -> Line:
        pieces: list[Piece] = []
        for index, stage in enumerate(self._stages):
            if index:
                pieces.append((f" {sign('─') * 2} ", "track"))
            utf, plain, role = STAGE_SIGNS.get(stage.state, STAGE_SIGNS["todo"])
            pieces.append((plain if ascii_only() else utf, role))
            if index not in silent:
                pieces.append((f" {stage.name}", role if role != "success" else ""))
        return tuple(pieces)
