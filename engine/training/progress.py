"""What a training says while it runs: averaged steps, bars, and what it heard of the person's requests."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from engine.control import Control, Request
from engine.errors import DojangError
from engine.events import EventLog

STEP_SECONDS = 0.1  # at least, between two step events
BAR_SECONDS = 0.25  # and between two of a bar
SMOOTHING_SECONDS = 5.0  # over which images/s is averaged


class Requests:
    """The person's requests, each logged once, when it is first seen."""

    def __init__(self, control: Control, log: EventLog) -> None:
        self._control, self._log = control, log
        self._told: Request | None = None

    def poll(self) -> Request | None:
        asked = self._control.poll()
        if asked != self._told and asked is not None:
            self._log.append("control", request=asked)
            self._told = asked
        return asked

    def stopped(self) -> bool:
        return self.poll() == "stop"


class Bar:
    """Progress of one counted thing, a few events a second."""

    def __init__(self, log: EventLog, what: str) -> None:
        self._log, self._what = log, what
        self._at = 0.0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < total <= done or now - self._at >= BAR_SECONDS:
            self._at = now
            self._log.append("progress", what=self._what, done=done, total=total)


class Meter:
    """Averages steps on the device and reads them only when an event is due: reading waits for the GPU.

    One value that is not finite spoils the whole sum, so a diverged loss is seen at the next reading without a check
    of its own in each step.
    """

    def __init__(self, log: EventLog, loss_names: tuple[str, ...]) -> None:
        self._log, self._names = log, loss_names
        self._sum: Tensor | None = None
        self._steps = self._images = 0
        self._at = time.monotonic()
        self._rate: float | None = None

    def restart_clock(self) -> None:
        """Leave out of images/s what was not training."""
        self._at = time.monotonic()

    def add(self, losses: Tensor, images: int) -> None:
        """One step: `losses` float32 of shape (names,), on the device."""
        self._sum = losses.clone() if self._sum is None else self._sum + losses
        self._steps += 1
        self._images += images

    @property
    def due(self) -> bool:
        return time.monotonic() - self._at >= STEP_SECONDS

    def show(self, *, epoch: int, step: int, i: int, lr: float, memory: float | None) -> None:
        """Log the steps since the last event. Raises DojangError(NAN_LOSS) when a loss among them was not finite."""
        if self._sum is None:
            return
        means = [v / self._steps for v in self._sum.tolist()]
        self._log.append(
            "step",
            epoch=epoch,
            step=step,
            i=i,
            n=self._steps,
            loss={name: short(v) for name, v in zip(self._names, means, strict=True)},
            lr=lr,
            img_s=self._images_per_second(),
            memory=memory,
        )
        require_finite(means, f"in step {step} (epoch {epoch})")
        self._sum, self._steps, self._images = None, 0, 0

    def _images_per_second(self) -> float:
        now = time.monotonic()
        seconds = max(now - self._at, 1e-6)
        self._at = now
        rate = self._images / seconds
        weight = 1.0 if self._rate is None else 1 - math.exp(-seconds / SMOOTHING_SECONDS)
        self._rate = rate if self._rate is None else self._rate + weight * (rate - self._rate)
        return short(self._rate)


def short(value: float) -> float:
    """Six significant digits: what a curve shows, at half the bytes."""
    return float(f"{value:.6g}")


def require_finite(values: list[float], where: str) -> None:
    if not all(map(math.isfinite, values)):
        raise DojangError(
            f"The loss became infinite or not a number {where}.",
            code="NAN_LOSS",
            hint="Lower lr or raise warmup_epochs, or set amp to off, and train a new version. Weights of earlier epochs are kept.",
        )


def finite_weights(model: torch.nn.Module) -> bool:
    """Whether no weight is infinite or not a number; one reading for the whole model."""
    norms = torch._foreach_norm([p.detach() for p in model.parameters() if p.is_floating_point()])
    return bool(torch.stack([n.float() for n in norms]).sum().isfinite())
