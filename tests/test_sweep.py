"""The arithmetic of the learning rate finder."""

from __future__ import annotations

import math
import random

import pytest

from engine import sweep

STEEPEST = -3.5  # logarithm of the rate


def curve(count: int, noise: float = 0.0, seed: int = 0) -> tuple[list[float], list[float]]:
    """A loss that falls around 10^-3.5 and runs away above 10^-1.5."""
    chance = random.Random(seed)
    rates = sweep.rates(1e-7, 1, count)
    losses = []
    for x in map(math.log10, rates):
        away = 2 * (x + 1.5) ** 3 if x > -1.5 else 0.0
        losses.append(10 - 6 / (1 + math.exp(-4 * (x - STEEPEST))) + away + chance.gauss(0, noise))
    return rates, losses


def test_rates_are_evenly_apart_on_a_logarithmic_axis() -> None:
    found = sweep.rates(1e-6, 1e-2, 5)
    assert found == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])


def test_the_running_mean_begins_at_the_first_value() -> None:
    assert sweep.smooth([5.0, 5.0, 5.0]) == pytest.approx([5, 5, 5])
    assert sweep.smooth([4.0, 2.0])[1] == pytest.approx((0.9 * 0.1 * 4 + 0.1 * 2) / (1 - 0.81))


@pytest.mark.parametrize("count", [25, 40, 100])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_suggestion_is_where_the_loss_falls_fastest(count: int, noise: float, seed: int) -> None:
    found = sweep.suggest(*curve(count, noise, seed))
    assert found.lr is not None and not found.reason
    assert abs(math.log10(found.lr) - STEEPEST) < 0.35  # a running mean alone would be off by 0.6 and more
    assert found.lowest is not None and found.lowest > found.lr


def test_the_first_steps_and_what_comes_after_the_minimum_do_not_count() -> None:
    rates, losses = curve(100)
    losses[:5] = [40, 30, 20, 14, 11]  # a fall that has nothing to do with the rate
    losses[-3:] = [300, 100, 20]
    found = sweep.suggest(rates, losses)
    assert found.lr is not None and abs(math.log10(found.lr) - STEEPEST) < 0.35


@pytest.mark.parametrize("seed", range(6))
def test_noise_without_a_fall_suggests_nothing_and_says_why(seed: int) -> None:
    chance = random.Random(seed)
    found = sweep.suggest(sweep.rates(1e-7, 1, 100), [10 + chance.gauss(0, 1) for _ in range(100)])
    assert found.lr is None and "more steps" in found.reason


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    rates = sweep.rates(1e-4, 1, 60)
    found = sweep.suggest(rates, [3 + i / 10 for i in range(60)], whole=False)
    assert found.lr is None and "lower rates" in found.reason


def test_values_that_are_not_finite_are_left_out() -> None:
    rates, losses = curve(100)
    losses[95:] = [math.inf, math.nan, math.nan, math.nan, math.nan]
    assert sweep.suggest(rates, losses).lr == pytest.approx(10**STEEPEST, rel=0.5)
    assert sweep.suggest(rates, [math.nan] * 100).lr is None


def test_it_has_gone_far_enough_when_the_loss_runs_away() -> None:
    assert not sweep.diverged([]) and not sweep.diverged([3.0, 2.0, 7.9])
    assert sweep.diverged([3.0, 2.0, 8.1]) and sweep.diverged([3.0, math.nan])
