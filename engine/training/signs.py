"""Signs in a training's course that a person should know of, read from what every epoch came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOOK_BACK = 5  # epochs that a tendency must last for before it is said
RISE = 1.02  # of the val loss over the look-back that is more than noise


@dataclass(frozen=True)
class Epoch:
    """One epoch: its losses summed over their parts, val's where it was evaluated, and whether it was the best so far."""

    train: float
    val: float | None
    best: bool


def read(history: Sequence[Epoch], patience: int) -> list[str]:
    """What the last epoch brought to light; each tendency is said once, when it has lasted `LOOK_BACK` epochs."""
    return [text for text in (_overfitting(history), _plateau(history, patience), _exploding(history)) if text]


def _overfitting(history: Sequence[Epoch]) -> str:
    """Train still falls while val has risen since its lowest, which lies just so far back."""
    losses = [e.val for e in history if e.val is not None]
    if len(losses) <= LOOK_BACK:
        return ""
    low = min(range(len(losses)), key=losses.__getitem__)
    falls = history[-1].train < history[-1 - LOOK_BACK].train
    better = any(e.best for e in history[-LOOK_BACK:])  # then it still learns what counts, whatever the loss says
    if len(losses) - 1 - low != LOOK_BACK or losses[-1] < losses[low] * RISE or not falls or better:
        return ""
    return (
        f"The loss on val has risen for {LOOK_BACK} epochs while that on train falls: it begins to overfit. "
        "The best weights are kept; more images or augmentation help, more epochs do not."
    )


def _plateau(history: Sequence[Epoch], patience: int) -> str:
    """Half the patience is used up."""
    since = next((n for n, e in enumerate(reversed(history)) if e.best), len(history))
    half = patience // 2
    if half < LOOK_BACK or since != half:
        return ""
    return f"No better result on val for {since} epochs; after {patience} it stops by itself."


def _exploding(history: Sequence[Epoch]) -> str:
    """The loss is ten times what it was at its lowest."""
    if len(history) < 2:
        return ""
    low = min(e.train for e in history[:-1])
    before = history[-2].train <= 10 * low
    if low <= 0 or history[-1].train <= 10 * low or not before:
        return ""
    return "The loss has grown to more than ten times its lowest: the learning rate is probably too high."
