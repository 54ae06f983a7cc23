"""The arithmetic of the learning rate finder: which rates are tried, how the loss is smoothed, and what is suggested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOW, HIGH, STEPS = 1e-7, 1.0, 100
LEAST_STEPS, MOST_STEPS = 20, 2000
MEMORY = 0.9  # share of the running mean that each step keeps
DIVERGED = 4.0  # times the best smoothed loss
SKIPPED = 0.1  # share of the sweep, at its start, from which nothing is concluded
LEAST_FALL = 4.0  # standard errors, below which a fall may be chance: the lowest place was looked for


def rates(low: float, high: float, count: int) -> list[float]:
    """`count` learning rates from `low` to `high`, each the same multiple of the one before."""
    return [low * (high / low) ** (i / max(1, count - 1)) for i in range(count)]


def smooth(losses: Sequence[float]) -> list[float]:
    """The running mean of `losses`, its start not drawn towards nought (bias correction)."""
    found: list[float] = []
    mean = 0.0
    for i, value in enumerate(losses):
        mean = MEMORY * mean + (1 - MEMORY) * value
        found.append(mean / (1 - MEMORY ** (i + 1)))
    return found


def diverged(smoothed: Sequence[float]) -> bool:
    """Whether the sweep has gone far enough: the loss is not finite, or has left the best seen far behind."""
    return bool(smoothed) and (not math.isfinite(smoothed[-1]) or smoothed[-1] > DIVERGED * min(smoothed))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`lr` where the loss falls fastest, or None and in `reason` why there is none. `lowest` is where it was lowest."""

    lr: float | None
    lowest: float | None
    reason: str = ""


def suggest(rates: Sequence[float], losses: Sequence[float], whole: bool = True) -> Suggestion:
    """The rate at the steepest fall of the loss, before its minimum.

    A running mean lags behind, which would shift the suggestion to a higher rate; so the losses are smoothed once
    forwards and once backwards. The slope is that of a straight line through an eighth of the points, over the
    logarithm of the rate. The first tenth is left out, and what comes after the minimum. `whole` says that the sweep
    came to its end without diverging.
    """
    finite = [(r, v) for r, v in zip(rates, losses, strict=False) if math.isfinite(v)]
    if len(finite) < LEAST_STEPS // 2:
        return Suggestion(None, None, "The loss diverged before there was a curve. Begin at a lower rate.")
    used = finite[max(1, round(len(finite) * SKIPPED)) :]
    xs, ys = [math.log10(r) for r, _ in used], [v for _, v in used]
    level = [(a + b) / 2 for a, b in zip(smooth(ys), reversed(smooth(ys[::-1])), strict=True)]
    lowest = min(range(len(level)), key=level.__getitem__)
    half = max(2, len(ys) // 16)
    last = max(half + 1, lowest - half // 2)  # at the very ends the smoothed losses are as noisy as the raw ones
    steepest = min(range(half, last), key=lambda i: _slope(xs, level, i - half, i + half + 1))
    if not _falls(ys, steepest, lowest):
        return Suggestion(None, None, _why(level, whole))
    return Suggestion(_round(used[steepest][0]), used[lowest][0])


def _falls(ys: list[float], steepest: int, lowest: int) -> bool:
    """Whether the losses around the minimum are lower than those before the fall by more than the noise of batches."""
    reach = max(3, len(ys) // 12)
    before, around = ys[: max(steepest, 3)], ys[max(0, lowest - reach) : lowest + reach + 1]
    fall = _mean(before) - _mean(around)
    error = math.sqrt(_variance(before) / len(before) + _variance(around) / len(around))
    return fall > LEAST_FALL * error and fall > 0.005 * abs(_mean(before))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)


def _why(level: list[float], whole: bool) -> str:
    if whole and level[-1] <= level[0] * 1.05:
        return "The loss hardly moves in this range. Try higher rates, or more steps."
    return "The loss never falls clearly in this range. Try lower rates, or more steps."


def _slope(xs: list[float], ys: list[float], start: int, stop: int) -> float:
    """Of the straight line through these points, by least squares."""
    start, stop = max(0, start), min(len(xs), stop)
    count = stop - start
    x_mean, y_mean = math.fsum(xs[start:stop]) / count, math.fsum(ys[start:stop]) / count
    across = math.fsum((x - x_mean) ** 2 for x in xs[start:stop])
    together = math.fsum((xs[i] - x_mean) * (ys[i] - y_mean) for i in range(start, stop))
    return together / across if across else 0.0


def _round(lr: float) -> float:
    """Two digits: more would be a pretence."""
    return float(f"{lr:.1e}")
