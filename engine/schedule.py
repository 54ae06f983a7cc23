"""Learning rates as pure functions of the step, so that they can be drawn before the start and followed by the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.spec import Spec

ScheduleName = Literal["linear", "cosine", "constant", "step", "cyclic", "one-cycle"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole training's learning rate.

    `lr` is the rate after warm-up, `final_ratio` the last rate as a share of it, `warmup_lr` the rate of the very first
    step and `warmup_steps` how many steps the climb takes. After warm-up linear, cosine and step change by epoch, as
    ultralytics does; cyclic and one-cycle by step. `scale` is what a person multiplied every rate by while it ran.
    """

    lr: float
    epochs: int
    steps_per_epoch: int
    name: ScheduleName = "linear"
    final_ratio: float = 0.01
    warmup_lr: float = 0.0
    warmup_steps: int = 0
    step_gamma: float = 0.1
    step_every: float = 30.0
    cycle_epochs: float = 10.0
    cycle_low_ratio: float = 0.1
    rise_share: float = 0.3
    scale: float = 1.0

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return max(1, self.epochs * self.steps_per_epoch)

    def factor(self, step: int) -> float:
        """Share of `lr` at `step` (0…), were there no warm-up; ultralytics' own formulas where it has them."""
        epoch = step // max(1, self.steps_per_epoch)
        if self.name == "constant":
            return 1.0
        if self.name == "cosine":
            return max((1 - math.cos(epoch * math.pi / self.epochs)) / 2, 0) * (self.final_ratio - 1) + 1
        if self.name == "step":
            return self.step_gamma ** int(epoch / self.step_every)
        if self.name == "cyclic":
            return self._triangle(step)
        if self.name == "one-cycle":
            return self._descent(step)
        return max(1 - epoch / self.epochs, 0) * (1.0 - self.final_ratio) + self.final_ratio

    def _triangle(self, step: int) -> float:
        """Down to the low and up again once a cycle; the first peak is where warm-up ends."""
        period = max(2.0, self.cycle_epochs * self.steps_per_epoch)
        place = max(0, step - self.warmup_steps) % period / period
        return self.cycle_low_ratio + (1 - self.cycle_low_ratio) * abs(1 - 2 * place)

    def _descent(self, step: int) -> float:
        """One-cycle after its peak: half a cosine down to the final ratio."""
        rise = self.rise_steps
        place = min(1.0, max(0, step - rise) / max(1, self.steps - 1 - rise))
        return self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * place)) / 2

    @property
    def rise_steps(self) -> int:
        """Steps in which one-cycle climbs; 0 for the others, which have a warm-up instead."""
        return max(1, round(self.rise_share * self.steps)) if self.name == "one-cycle" else 0

    def at(self, step: int) -> float:
        """Rate used by `step` (0…)."""
        return self.rate(step, self.lr, self.warmup_lr)

    def rate(self, step: int, lr: float, start: float) -> float:
        """Rate at `step` of weights that have a rate and a first rate of their own."""
        if step < self.rise_steps:
            climbed = (1 - math.cos(math.pi * step / self.rise_steps)) / 2
            return (start + (lr - start) * climbed) * self.scale
        return self.ramp(step, start, lr * self.factor(step)) * self.scale

    def ramp(self, step: int, start: float, target: float) -> float:
        """Linear climb from `start` to `target` over the warm-up steps; `target` after them."""
        if not self.warmup_steps or step > self.warmup_steps:
            return target
        slope = (target - start) / self.warmup_steps
        return slope * step + start if step < self.warmup_steps else target


def of(spec: Spec, lr: float, steps_per_epoch: int, *, epochs: int | None = None, scale: float = 1.0) -> Schedule:
    """The schedule that `spec` describes for a settled `lr`; `epochs` and `scale` as changed while it runs."""
    total = epochs or spec.epochs
    given = None if spec.warmup_steps is None else spec.warmup_steps / max(1, steps_per_epoch)
    length = warmup_steps(spec.warmup_epochs if given is None else given, total, steps_per_epoch)
    return Schedule(
        lr=lr,
        epochs=total,
        steps_per_epoch=steps_per_epoch,
        name=spec.schedule,
        final_ratio=spec.final_lr_ratio if spec.final_lr is None else spec.final_lr / lr,
        warmup_lr=spec.warmup_lr,
        warmup_steps=0 if spec.schedule == "one-cycle" else length,
        step_gamma=spec.step_gamma,
        step_every=spec.step_every,
        cycle_epochs=spec.cycle_epochs,
        cycle_low_ratio=spec.cycle_low_ratio,
        rise_share=spec.rise_share,
        scale=scale,
    )


def warmup_steps(warmup_epochs: float, epochs: int, steps_per_epoch: int) -> int:
    """Steps of warm-up; at least the last epoch is left for the schedule itself (ultralytics' rule)."""
    length = min(warmup_epochs, max(epochs - 1, 0))
    return round(length * steps_per_epoch) if length > 0 else 0
