"""Learning rates as pure functions of the step, so that they can be drawn before the start and followed by the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole training's learning rate.

    `lr` is the rate after warm-up, `final_ratio` the last epoch's rate as a share of it, `warmup_lr` the rate of the
    very first step and `warmup_steps` how many steps the climb takes. Rates change by epoch after warm-up and by step
    during it, as ultralytics does.
    """

    lr: float
    epochs: int
    steps_per_epoch: int
    name: ScheduleName = "linear"
    final_ratio: float = 0.01
    warmup_lr: float = 0.0
    warmup_steps: int = 0

    def factor(self, epoch: int) -> float:
        """Share of `lr` in `epoch` (0…): ultralytics' own formulas, so that curves agree to the last bit."""
        if self.name == "constant":
            return 1.0
        if self.name == "cosine":
            return max((1 - math.cos(epoch * math.pi / self.epochs)) / 2, 0) * (self.final_ratio - 1) + 1
        return max(1 - epoch / self.epochs, 0) * (1.0 - self.final_ratio) + self.final_ratio

    def at(self, step: int, *, warmup_lr: float | None = None) -> float:
        """Rate used by `step` (0…). `warmup_lr` replaces the schedule's own, for groups that start elsewhere."""
        target = self.lr * self.factor(step // max(1, self.steps_per_epoch))
        return self.ramp(step, self.warmup_lr if warmup_lr is None else warmup_lr, target)

    def ramp(self, step: int, start: float, target: float) -> float:
        """Linear climb from `start` to `target` over the warm-up steps; `target` after them."""
        if not self.warmup_steps or step > self.warmup_steps:
            return target
        slope = (target - start) / self.warmup_steps
        return slope * step + start if step < self.warmup_steps else target


def warmup_steps(warmup_epochs: float, epochs: int, steps_per_epoch: int) -> int:
    """Steps of warm-up; at least the last epoch is left for the schedule itself (ultralytics' rule)."""
    length = min(warmup_epochs, max(epochs - 1, 0))
    return round(length * steps_per_epoch) if length > 0 else 0
