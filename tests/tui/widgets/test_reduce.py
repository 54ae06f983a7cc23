"""Reducing keeps what is drawn: extremes, ends and gaps; and appending gives what reading it all gives."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from tui.widgets.axes import SteadyAxis, growing_range, linear_ticks, log_ticks, number_label, x_ticks
from tui.widgets.raster import LONE, Raster, character
from tui.widgets.reduce import ColumnReducer, PixelColumn, Smoother, last_finite

NAN, INF = math.nan, math.inf


def noisy(count: int, seed: int = 1, bad: float = 0.0) -> tuple[list[float], list[float]]:
    chance = random.Random(seed)
    xs = sorted(chance.uniform(0, 100) for _ in range(count))
    return xs, [chance.choice([NAN, INF, -INF]) if chance.random() < bad else chance.gauss(0, 1) for _ in xs]


def by_hand(reducer: ColumnReducer, xs: list[float], ys: list[float], positive: bool = False) -> dict[int, list[float]]:
    columns: dict[int, list[float]] = {}
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y) and (y > 0 or not positive):
            columns.setdefault(reducer.column_of(x), []).append(y)
    return columns


@pytest.mark.parametrize("bad", [0.0, 0.02, 0.7])
@pytest.mark.parametrize("positive", [False, True])
def test_first_lowest_highest_and_last_of_every_column(bad: float, positive: bool) -> None:
    xs, ys = noisy(5000, bad=bad)
    reducer = ColumnReducer((0, 100), 111, positive=positive)
    expected = by_hand(reducer, xs, ys, positive)
    found = reducer.update(xs, ys)
    assert [point.column for point in found] == sorted(expected)
    for point in found:
        values = expected[point.column]
        assert point[1:5] == (values[0], min(values), max(values), values[-1])


@pytest.mark.parametrize("bad", [0.0, 0.1])
def test_appending_gives_the_same_as_reading_afresh(bad: float) -> None:
    xs, ys = noisy(3000, seed=2, bad=bad)
    chance, end = random.Random(5), 0
    growing, smoother = ColumnReducer((0, 100), 80), Smoother(0.9)
    while end < len(xs):
        end = min(end + chance.randrange(1, 400), len(xs))
        reduced, smooth = growing.update(xs[:end], ys[:end]), smoother.update(xs[:end], ys[:end])
        assert reduced == ColumnReducer((0, 100), 80).update(xs[:end], ys[:end])
        assert smooth == pytest.approx(Smoother(0.9).update(xs[:end], ys[:end]), nan_ok=True)


def test_full_columns_never_change() -> None:
    xs, ys = noisy(2000, seed=3)
    half = ColumnReducer((0, 100), 60).update(xs[:1000], ys[:1000])
    assert ColumnReducer((0, 100), 60).update(xs, ys)[: len(half) - 1] == half[:-1]


def test_another_series_is_read_afresh() -> None:
    reducer = ColumnReducer((0, 10), 11)
    reducer.update([0, 1, 2], [1, 1, 1])
    assert [point.first for point in reducer.update([0, 1, 2, 3], [5, 5, 5, 5])] == [5, 5, 5, 5]
    assert [point.first for point in reducer.update([0], [7])] == [7]
    assert reducer.update([], []) == []


def test_points_beside_the_axis_are_left_out() -> None:
    found = ColumnReducer((10, 20), 11).update([0, 5, 10, 15, 20, 25], [9, 9, 1, 2, 3, 9])
    assert [(point.column, point.first) for point in found] == [(0, 1), (5, 2), (10, 3)]


def test_gaps() -> None:
    found = ColumnReducer((0, 5), 6).update([0, 1, 2, 3, 4, 5], [1, NAN, 2, 3, INF, 4])
    assert [(point.column, point.joined) for point in found] == [(0, True), (2, False), (3, True), (5, False)]


def test_smoothing_is_the_corrected_running_mean() -> None:
    ys = [5.0, 1.0, 4.0, NAN, 2.0]
    mean = weight = 0.0
    expected = []
    for y in ys:
        if math.isfinite(y):
            mean, weight = 0.8 * mean + 0.2 * y, 0.8 * weight + 0.2
        expected.append(mean / weight if math.isfinite(y) else NAN)
    assert Smoother(0.8).update(list(range(5)), ys) == pytest.approx(expected, nan_ok=True)
    assert Smoother(0.0).update(list(range(5)), ys) == pytest.approx(ys, nan_ok=True)
    long = [3.0] * 9000
    assert Smoother(0.99).update(range(9000), long) == pytest.approx(long)


def test_last_finite() -> None:
    assert last_finite([1, 2, NAN, INF]) == 2
    assert last_finite([NAN]) is None and last_finite([]) is None


def test_raster_joins_what_is_joined_and_shows_what_stands_alone() -> None:
    raster = Raster(4, 2, "braille")
    raster.draw([PixelColumn(0, 0, 0, 0, 0), PixelColumn(1, 7, 7, 7, 7)], int)
    assert raster.masks() == {(0, 0): 0b1111_0000, (0, 1): 0b0001_1111}  # each of the two goes half of the way
    alone = Raster(4, 2, "braille")
    alone.draw([PixelColumn(5, 3, 3, 3, 3)], int)
    assert alone.masks() == {(2, 0): LONE}
    assert character(LONE, "braille", "*") == "⠶" and character(LONE, "ascii", "*") == "*"


def test_characters() -> None:
    assert character(0b1111_1111, "braille", "*") == "⣿"
    assert character(0b0001_0000, "braille", "*") == "⡀"
    assert character(0b1000_0000, "braille", "*") == "⠁"
    assert character(0b0000_0001, "braille", "*") == "⢀"
    assert [
        character(left << 4 | right, "quadrant", "*") for left, right in ((1, 0), (2, 0), (0, 1), (0, 2), (3, 3))
    ] == list("▖▘▗▝█")


@pytest.mark.parametrize("rows", [2, 3, 5, 9, 14, 30])
@pytest.mark.parametrize(
    "low,high", [(0, 1), (0.3, 2.4), (-5, 5), (1e-6, 2e-6), (3, 3), (0, 0), (-1e300, 1e300), (0, 40_000)]
)
def test_ticks_hold_the_data(low: float, high: float, rows: int) -> None:
    ticks = linear_ticks(low, high, rows)
    assert ticks.low <= low and high <= ticks.high + abs(ticks.high) * 1e-9
    assert ticks.low <= ticks.values[0] and ticks.values[-1] <= ticks.high + abs(ticks.high) * 1e-9
    assert len(ticks.labels) == len(set(ticks.labels)) == len(ticks.values) <= max(rows, 2)


def test_log_ticks_are_powers_of_ten() -> None:
    ticks = log_ticks(math.log10(0.03), math.log10(40), 12)
    assert ticks.labels == ["0.01", "0.1", "1", "10", "100"]
    assert log_ticks(math.log10(0.6), math.log10(3), 12).labels == ["0.5", "1", "2", "5"]
    assert log_ticks(-300, 300, 4).labels[0] == "1e-300"


def test_the_axis_stands_still() -> None:
    axis = SteadyAxis()
    first = axis.ticks(0.1, 2.4, 12, log=False)
    assert axis.ticks(0.2, 2.1, 12, log=False) is first
    grown = axis.ticks(0.2, 6.0, 12, log=False)
    assert grown.high >= 6
    assert axis.ticks(0.2, 4.0, 12, log=False) is grown
    assert axis.ticks(0.2, 1.0, 12, log=False).high < 2


def test_labels() -> None:
    assert [number_label(value, 0.05) for value in (0, 0.05, 1)] == ["0.00", "0.05", "1.00"]
    assert number_label(2e-6, 1e-6) == "2e-6" and number_label(200_000, 100_000) == "2e5"
    assert x_ticks(0, 50, 70)[-1] == (69, "50")
    assert x_ticks(0, 3, 70) == [(0, "0"), (23, "1"), (46, "2"), (69, "3")]
    places = x_ticks(0, 123_456, 60)
    assert all(b[0] - a[0] > len(a[1]) for a, b in itertools.pairwise(places))


def test_an_unknown_length_grows_in_jumps() -> None:
    assert [growing_range(last)[1] for last in (0, 1, 7, 10, 11, 49, 51, 130)] == [1, 1, 10, 10, 20, 50, 100, 200]
