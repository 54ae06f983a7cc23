"""Curves of any length, brought down to what a chart can show, without numpy.

`ColumnReducer` keeps the first, lowest, highest and last value of every pixel column of a *fixed* x axis ("M4"): the
line drawn from those is the line drawn from all points, spikes stay, and columns that are full never change again,
which is what keeps the bytes over SSH few. `Smoother` is the running mean that the eye follows in noise. Both only
look at what was appended since the last call.

Values that are not finite are left out and open a gap; xs must not decrease. A series counts as continued when it is
no shorter, and its first and last known points are as they were; anything else is read afresh.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

Values = Sequence[float]


class PixelColumn(NamedTuple):
    """What is left of the points in one pixel column. `joined` is False after a gap."""

    column: int
    first: float
    low: float
    high: float
    last: float
    joined: bool = True


class _Continued:
    """Knows whether a series is the one seen last time with something appended."""

    def __init__(self) -> None:
        self.count = 0
        self._ends: tuple[float, ...] = ()

    def continues(self, xs: Values, ys: Values) -> bool:
        count = self.count
        return 0 < count <= min(len(xs), len(ys)) and self._ends == (xs[0], ys[0], xs[count - 1], ys[count - 1])

    def remember(self, xs: Values, ys: Values) -> None:
        self.count = min(len(xs), len(ys))
        self._ends = (xs[0], ys[0], xs[self.count - 1], ys[self.count - 1]) if self.count else ()


class ColumnReducer:
    """One series on the axis `x_range`, `columns` pixels wide. With `positive`, values ≤ 0 (no logarithm) are gaps."""

    def __init__(self, x_range: tuple[float, float], columns: int, *, positive: bool = False) -> None:
        low, high = x_range
        self.low, self.high, self.columns, self.positive = low, high, columns, positive
        self._scale = (columns - 1) / (high - low) if high > low else 0.0
        self._seen = _Continued()
        self._open_start = 0
        self.result: list[PixelColumn] = []

    def column_of(self, x: float) -> int:
        return int((x - self.low) * self._scale + 0.5)

    def update(self, xs: Values, ys: Values) -> list[PixelColumn]:
        """The reduced series; costs what was appended, plus the column that was still open."""
        if not self._seen.continues(xs, ys):
            self.result, self._open_start = [], bisect_left(xs, self.low)
        end = min(bisect_right(xs, self.high), len(ys))
        start = self._open_start
        if self.result and start < end and self.result[-1].column == self.column_of(xs[start]):
            self.result.pop()
        while start < end:
            column = self.column_of(xs[start])
            edge = self.low + (column + 0.5) / self._scale if self._scale else math.inf
            stop = max(bisect_left(xs, edge, start + 1, end), start + 1)
            self._open_start = start
            self._add(column, ys[start:stop], start == 0 or self._usable(ys[start - 1]))
            start = stop
        self._seen.remember(xs, ys)
        return self.result

    def _usable(self, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not self.positive)

    def _add(self, column: int, values: Values, joined: bool) -> None:
        low, high = min(values), max(values)
        # A sum is finite only if every value is, and costs far less than asking each of them.
        if not math.isfinite(sum(values)) or (self.positive and low <= 0):
            joined = joined and self._usable(values[0])
            floor = 0.0 if self.positive else -math.inf
            values = [value for value in values if floor < value < math.inf]  # NaN fails both
            if not values:
                return
            low, high = min(values), max(values)
        self.result.append(PixelColumn(column, values[0], low, high, values[-1], joined))


class Smoother:
    """Exponential running mean, corrected for its start, so that the first values are not dragged towards zero."""

    def __init__(self, smoothing: float) -> None:
        self.smoothing = min(max(smoothing, 0.0), 0.99)
        self._seen = _Continued()
        self._mean = 0.0
        self._weight = 0.0
        self.result: list[float] = []

    def update(self, xs: Values, ys: Values) -> list[float]:
        """As many values as `ys`; where `ys` is not finite, so is the result."""
        if not self._seen.continues(xs, ys):
            self.result, self._mean, self._weight = [], 0.0, 0.0
        fresh = ys[len(self.result) : min(len(xs), len(ys))]
        settled = self._weight > 1 - 1e-12
        if not settled or not math.isfinite(sum(fresh)):
            head = len(fresh) if not math.isfinite(sum(fresh)) else min(len(fresh), self._settling())
            self.result.extend(self._one(value) for value in fresh[:head])
            fresh = fresh[head:]
        if fresh:
            keep, take = self.smoothing, 1 - self.smoothing
            means = accumulate(fresh, lambda mean, value: mean * keep + value * take, initial=self._mean)
            next(means)
            self.result.extend(means)
            self._mean = self.result[-1]
        self._seen.remember(xs, ys)
        return self.result

    def _settling(self) -> int:
        """After so many values the correction is below what a float can tell."""
        return 1 if not self.smoothing else math.ceil(math.log(1e-12) / math.log(self.smoothing)) + 1

    def _one(self, value: float) -> float:
        if not math.isfinite(value):
            return math.nan
        self._mean = self._mean * self.smoothing + value * (1 - self.smoothing)
        self._weight = self._weight * self.smoothing + (1 - self.smoothing)
        return self._mean / self._weight


def last_finite(values: Values) -> float | None:
    """The newest value that is a number."""
    return next((value for value in reversed(values) if math.isfinite(value)), None)
