"""Axes that stand still: round limits, round ticks, and a memory of what was shown before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

Formatter = Callable[[float], str]
SHRINK_BELOW = 0.45  # the y axis follows the data inwards only when they fill less of it than this
LARGEST, SMALLEST = 1e300, 1e-290
LARGEST_POWER = 300


class Ticks(NamedTuple):
    low: float
    high: float
    values: list[float]
    labels: list[str]


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that cuts `span` in at most `count` pieces."""
    raw = max(span, 1e-300) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))


def number_label(value: float, step: float) -> str:
    """A number with the digits that tell it from its neighbour `step` away, and no more."""
    size = max(abs(value), step)
    if size >= 1e5 or (size < 1e-3 and step < 1e-4):
        return "0" if value == 0 else _exponent(value)
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    return f"{value:.{digits}f}" if abs(value) > step / 1000 else f"{0:.{digits}f}"


def _exponent(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def linear_ticks(low: float, high: float, rows: int, label: Formatter | None = None) -> Ticks:
    """Round ticks around `low` … `high`, on an axis of `rows` cells."""
    if high - low <= max(max(abs(high), abs(low)) * 1e-9, SMALLEST):
        pad = abs(high) * 0.1 or 1.0
        low, high = (0.0, pad) if high == 0 else (low - pad, high + pad)  # nothing shown here falls below nought
    steps = {nice_step(high - low, count) for count in range(1, max(min(rows // 2, 6), 1) + 1)}
    plans = [plan for step in sorted(steps) for plan in _plans(low, high, step, rows)]
    best = max(plans, key=lambda plan: _merit(plan, high - low))
    indices = range(best.first, best.last + 1) if best.last - best.first < rows else (best.first, best.last)
    values = [index * best.step for index in indices]
    labels = [label(value) if label else number_label(value, best.step) for value in values]
    return Ticks(best.first * best.step, (best.first + best.steps) * best.step, values, labels)


class _Plan(NamedTuple):
    """An axis to choose from: ticks at `first` … `last` times `step`, and `steps` steps from bottom to top."""

    step: float
    first: int
    last: int
    steps: float
    even: bool


def _plans(low: float, high: float, step: float, rows: int) -> list[_Plan]:
    """Ending at the last tick, or a little above it where that puts the ticks an equal number of rows apart."""
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    count = last - first
    exact = _Plan(step, first, last, count, (rows - 1) % count == 0)
    each = (rows - 1) // count
    return [exact, _Plan(step, first, last, (rows - 1) / each, True)] if each else [exact]


def _merit(plan: _Plan, span: float) -> float:
    """How much of the axis the data fill; ticks are worth a little, and so are equal distances between them."""
    return span / (plan.steps * plan.step) + 0.04 * min(plan.last - plan.first, 5) + 0.1 * plan.even


def log_ticks(low: float, high: float, rows: int, label: Formatter | None = None) -> Ticks:
    """The same in powers of ten, on a short way also 2 and 5; `low`, `high` and what comes back are logarithms."""
    parts = (0.0, math.log10(2), math.log10(5)) if high - low < 2 and rows >= 6 else (0.0,)
    grid = [power + part for power in range(math.floor(low) - 1, math.ceil(high) + 2) for part in parts]
    first = max(value for value in grid if value <= low + 1e-9)
    last = min(value for value in grid if value >= max(high - 1e-9, first + 1e-9))
    values = [value for value in grid if first <= value <= last]
    every = max(1, math.ceil((len(values) - 1) * 2 / max(rows - 1, 1)))
    values = values[::every]
    labels = [label(10**value) if label else _log_label(value) for value in values]
    return Ticks(first, last, values, labels)


def _log_label(power: float) -> str:
    number = 10.0**power
    return f"{number:.3g}" if 1e-3 <= number < 1e5 else _exponent(number)


class SteadyAxis:
    """The y axis: grows at once when data leave it, shrinks only when they fill too little of it."""

    def __init__(self) -> None:
        self._ticks: Ticks | None = None
        self._span = (0.0, 0.0)
        self._rows = 0
        self.gutter = 0

    def reset(self) -> None:
        self._ticks, self.gutter = None, 0

    def ticks(self, low: float, high: float, rows: int, *, log: bool, label: Formatter | None = None) -> Ticks:
        limit = LARGEST_POWER if log else LARGEST
        low, high = min(max(low, -limit), limit), max(min(high, limit), -limit)
        if self._ticks is not None:
            inside = self._ticks.low <= low and high <= self._ticks.high
            fills = high - low >= (self._span[1] - self._span[0]) * SHRINK_BELOW
            if inside and fills and rows == self._rows:
                return self._ticks
            if not inside or fills:
                low, high = min(low, self._span[0]), max(high, self._span[1])
        ticks = (log_ticks if log else linear_ticks)(low, high, rows, label)
        self._ticks, self._span, self._rows = ticks, (low, high), rows
        self.gutter = max(self.gutter, *(len(text) for text in ticks.labels))
        return ticks


def x_ticks(low: float, high: float, columns: int, label: Formatter | None = None) -> list[tuple[float, str]]:
    """Round x ticks as (column, label) in `columns` cells, so far apart that the labels never touch."""
    if high <= low or columns < 2:
        return [(0, number_label(low, 1))]
    widest = max(len(number_label(high, 1)), 2) + 3
    step = max(nice_step(high - low, max(columns // widest, 1)), 0.0)
    if float(low).is_integer() and float(high).is_integer():
        step = max(step, 1.0)
    found: list[tuple[float, str]] = []
    index = math.ceil(low / step - 1e-9)
    while index * step <= high * (1 + 1e-9):
        value = index * step
        text = label(value) if label else number_label(value, step)
        column = round((value - low) / (high - low) * (columns - 1))
        found.append((column, text))
        index += 1
    return found


def growing_range(last: float, start: float = 0.0) -> tuple[float, float]:
    """An x range for a run of unknown length: its end moves only in jumps (10, 20, 50, 100 …), so columns stay put."""
    span = max(last - start, 1.0)
    power = 10.0 ** math.floor(math.log10(span))
    return start, start + next(step * power for step in (1, 2, 5, 10) if step * power >= span)
