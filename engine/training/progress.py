"""What a training says while it runs: averaged steps, bars, and what it heard of the person's requests."""

from __future__ import annotations

import math
import time
from typing import Literal

import torch
from torch import Tensor

from engine.control import Control, Request, Settings
from engine.errors import DojangError
from engine.events import EventLog

STEP_SECONDS = 0.1  # at least, between two step events
BAR_SECONDS = 0.25  # and between two of a bar
SMOOTHING_SECONDS = 5.0  # over which images/s is averaged


class Requests:
    """The person's requests, each logged once, when it is first seen."""

    def __init__(self, control: Control, log: EventLog) -> None:
        self._control, self._log = control, log
        self.last: Request | None = None

    def poll(self) -> Request | None:
        asked = self._control.poll()
        if asked != self.last and asked is not None:
            self._log.append("control", request=asked)
            self.last = asked
        return asked

    def stopped(self) -> bool:
        """Whether to leave now, be it for good or for a while."""
        return self.poll() in ("stop", "pause")

    @property
    def word(self) -> Literal["stopped", "paused"]:
        """How it ends when `stopped`."""
        return "paused" if self.last == "pause" else "stopped"

    @property
    def settings(self) -> Settings:
        """What is to change while it runs, by the latest poll."""
        return self._control.settings

    def changed(self, now: Settings) -> bool:
        """Whether a setting is asked for that is not so now."""
        return any(now.get(name) != value for name, value in self._control.settings.items())


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
        self.spoilt = 0  # readings in a row with a loss that is not finite

    def restart_clock(self) -> None:
        """Leave out of images/s what was not training."""
        self._at = time.monotonic()

    def forget(self) -> None:
        """What was added and not yet shown never was."""
        self._sum, self._steps, self._images, self.spoilt = None, 0, 0, 0

    def add(self, losses: Tensor, images: int) -> None:
        """One step: `losses` float32 of shape (names,), on the device."""
        self._sum = losses.clone() if self._sum is None else self._sum + losses
        self._steps += 1
        self._images += images

    @property
    def due(self) -> bool:
        return time.monotonic() - self._at >= STEP_SECONDS

    def show(self, *, epoch: int, step: int, i: int, lr: float, memory: float | None) -> None:
        """Log the steps since the last event."""
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
        self.spoilt = 0 if all(map(math.isfinite, means)) else self.spoilt + 1
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


class Diverged(Exception):
    """The numbers are no longer finite. The text says where: “in step 12 (epoch 3)”."""

    def final(self, tried: int) -> DojangError:
        """What to tell the person once going back has not helped."""
        return DojangError(
            f"The loss became infinite or not a number {self}"
            + (f", and again after {tried} times with a lower learning rate." if tried else "."),
            code="NAN_LOSS",
            hint="Lower lr or raise warmup_epochs, or set amp to off, and train a new version. "
            "Weights of earlier epochs are kept.",
        )


def require_finite(values: list[float], where: str) -> None:
    """Raises Diverged."""
    if not all(map(math.isfinite, values)):
        raise Diverged(where)


def require_finite_weights(model: torch.nn.Module, where: str) -> None:
    """Raises Diverged when a weight or a running statistic is not finite; one reading for the whole model."""
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    norms = torch._foreach_norm(tensors)
    if not bool(torch.stack([n.float() for n in norms]).sum().isfinite()):
        raise Diverged(where)
