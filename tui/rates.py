"""A training's learning rate before its start: the curve, and what is worth saying of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine import schedule as schedules
from engine.schedule import Schedule
from engine.spec import Spec
from tui import words
from tui.widgets.chart import Series

POINTS = 600  # of a drawn curve: more than a chart has dots


@dataclass(frozen=True)
class Rates:
    """The learning rates of every step of `spec`, for a settled `lr` and `optimizer`."""

    spec: Spec
    optimizer: str
    lr: float
    steps_per_epoch: int

    @property
    def schedule(self) -> Schedule:
        return schedules.of(self.spec, self.lr, self.steps_per_epoch)

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def climbing(self) -> int:
        """Steps of warm-up, or of one-cycle's rise."""
        return self.schedule.rise_steps or self.schedule.warmup_steps

    @property
    def has_backbone(self) -> bool:
        return self.spec.backbone_lr_ratio != 1

    def head(self, step: int) -> float:
        return self.schedule.at(step)

    def backbone(self, step: int) -> float:
        """Rate of the backbone; a slower one begins lower too, as the loop has it."""
        ratio = self.spec.backbone_lr_ratio
        return self.schedule.rate(step, self.lr * ratio, self.spec.warmup_lr * min(1.0, ratio))

    def drawn_steps(self, count: int = POINTS) -> list[int]:
        """Steps spread over the whole, with those at which the rate turns."""
        last = self.steps - 1
        even = {round(i * last / max(1, count - 1)) for i in range(count)}
        return sorted(even | {0, min(self.climbing, last), min(self.climbing + 1, last), last})

    def series(self) -> list[Series]:
        """The curve over epochs; the backbone's beside it where that learns at a rate of its own."""
        steps, per = self.drawn_steps(), self.steps_per_epoch
        xs = [s / per for s in steps]
        name = "head" if self.has_backbone else f"{self.optimizer}, to"
        found = [Series(name, xs, [self.head(s) for s in steps])]
        if self.has_backbone:
            found.append(Series("backbone", xs, [self.backbone(s) for s in steps]))
        return found

    @property
    def log_scale(self) -> bool:
        """A rate that falls by factors is seen on a logarithmic axis alone."""
        return self.spec.schedule == "step" and self.spec.step_gamma < 1

    def peak(self) -> tuple[int, float]:
        """The step of the highest rate, and that rate."""
        schedule = self.schedule
        return max(((s, schedule.at(s)) for s in self.drawn_steps()), key=lambda pair: pair[1])

    def told(self) -> list[str]:
        """Start, peak, end, warm-up, and what learns at another rate."""
        spec, per = self.spec, self.steps_per_epoch
        step, peak = self.peak()
        end = self.head(self.steps - 1)
        lines = [
            f"start {words.number(self.head(0))}, peak {words.number(peak)} at step {step} (epoch {step // per + 1}), "
            f"end {words.number(end)}"
        ]
        if self.climbing:
            what = "rise" if spec.schedule == "one-cycle" else "warm-up"
            epochs = f"{self.climbing / per:.3g} {'epoch' if self.climbing == per else 'epochs'}"
            lines.append(
                f"{what}: {words.plural(self.climbing, 'step')} ({epochs}) from {words.number(spec.warmup_lr)}"
            )
        else:
            lines.append("no warm-up: the first step has the full rate")
        if self.has_backbone:
            top, last = self.backbone(step), self.backbone(self.steps - 1)
            share = f"{spec.backbone_lr_ratio:g} × the head's"
            lines.append(f"backbone: {share}, {words.number(top)} at the peak, {words.number(last)} at the end")
        if spec.warmup_bias_lr is not None and self.climbing:
            lines.append(f"biases: start at {words.number(spec.warmup_bias_lr)} and meet the rest after the {what}")
        return lines

    def rows(self, count: int) -> list[dict[str, Any]]:
        """At most about `count` points as plain values."""
        return [
            {
                "step": s, "epoch": round(s / self.steps_per_epoch, 4), "lr": self.head(s),
                **({"backbone_lr": self.backbone(s)} if self.has_backbone else {}),
            }
            for s in self.drawn_steps(count)
        ]  # fmt: skip
