"""The learning rate finder: a short sweep over learning rates on a model of its own, which is thrown away.

Runs as `python -m engine.training.finder` in a process of its own (`engine.find` starts it). What to do comes in as
one JSON line; what happens goes out as JSON lines, so that nothing is written anywhere and no version is touched.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalog, sweep, weights
from engine.errors import DojangError
from engine.processes import end_with_parent
from engine.spec import Spec, parse
from engine.versions import Workspace

if TYPE_CHECKING:
    import torch

    from engine.training.environment import Precision
    from engine.training.session import Batch, Session

Tell = Callable[..., None]


@dataclass(frozen=True)
class Request:
    """What to sweep: from `low` to `high` in `steps` updates."""

    workspace: Workspace
    spec: Spec
    low: float
    high: float
    steps: int


def main() -> int:
    """Read the request, sweep, and say so line by line. Returns 0 when there is a last word, 1 after an error."""
    end_with_parent()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between our lines
    given = json.loads(_first_line())
    threading.Thread(target=_end_with_input, daemon=True).start()
    lock = threading.Lock()

    def tell(kind: str, **values: Any) -> None:
        with lock:
            out.write(json.dumps({"kind": kind, **values}, allow_nan=False) + "\n")
            out.flush()

    try:
        spec = parse(given["spec"])
        _find(Request(Workspace(Path(given["workspace"])), spec, given["low"], given["high"], given["steps"]), tell)
    except DojangError as e:
        traceback.print_exc()
        tell("error", code=e.code, message=e.message, hint=e.hint)
        return 1
    except Exception as e:
        traceback.print_exc()
        first = str(e).strip().splitlines()
        tell("error", code="INTERNAL", message=f"{type(e).__name__}: {first[0] if first else 'no message'}", hint="")
        return 1
    return 0


def _first_line() -> bytes:
    """The request. Read without Python's own buffer, whose lock a forked process would inherit from the thread below."""
    found = b""
    while not found.endswith(b"\n") and (part := os.read(0, 65_536)):
        found += part
    return found


def _end_with_input() -> None:
    """Our input stays open as long as somebody waits for us."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _find(request: Request, tell: Tell) -> None:
    """The stages of a training up to its first step, then the sweep instead of the epochs."""
    from engine.training import environment

    spec = request.spec
    environment.prepare(request.workspace.cache, spec.threads or environment.cores())
    tell("stage", stage="preparing")
    from engine.training.run import machine

    precision = machine(spec, spec.threads or environment.cores())
    try:
        session = open_session(request, precision, tell)
        try:
            _sweep(request, session, precision, tell)
        finally:
            session.close()
    except Exception as e:
        raise _explained(e, spec) from e


def open_session(request: Request, precision: Precision, tell: Tell) -> Session:
    """The very session that the training would open, on a model of its own."""
    from engine.training import data, kernels, randomness

    def tick(done: int, total: int) -> bool:
        tell("progress", what="preprocessing", done=done, total=total)
        return True

    spec, file = request.spec, _weights_file(request)
    material = data.gather(spec, request.workspace.path, tick)
    assert material is not None
    size = spec.images_per_step  # what fits is only settled when a training starts
    per_epoch = -(-material.images["train"] // size)
    # enough epochs for the sweep before the last ones, in which images are no longer mixed
    epochs = max(spec.epochs, -(-request.steps // per_epoch) + spec.close_mosaic)
    widened = spec.model_copy(update={"batch_size": size, "epochs": min(epochs, 10_000)})
    randomness.seed_all(spec.seed)
    session = kernels.open_session(widened, material, precision, request.workspace.cache / "scratch", file, None)
    session.prepare(tick)
    return session


def _weights_file(request: Request) -> Path | None:
    """The file to start from. Nothing is downloaded for a try."""
    spec = request.spec
    if spec.weights == "scratch":
        return None
    if spec.weights != "pretrained":
        return Path(spec.weights).expanduser()
    model = catalog.find(spec.model)
    found = weights.find(model, request.workspace)
    if found is None:
        raise weights.missing(model, request.workspace)
    return found


def _sweep(request: Request, session: Session, precision: Precision, tell: Tell) -> None:
    """One update a batch, each at a higher rate, until the loss diverges or the rates are through."""
    from engine.training.run import settle

    spec = request.spec.model_copy(update={"batch_size": request.spec.images_per_step})
    setting, optimizer = settle(spec, session, precision)
    rates = sweep.rates(request.low, request.high, request.steps)
    tell(
        "plan", optimizer=type(optimizer).__name__, batch_size=spec.batch_size, device=str(precision.device),
        low=request.low, high=request.high, steps=len(rates), lr=setting.lr,
    )  # fmt: skip
    stepper = Stepper(spec, session, optimizer, precision, setting.accumulate)
    losses: list[float] = []
    smoothed: list[float] = []
    stop = False
    for rate, (epoch, index, batch) in zip(rates, _batches(session), strict=False):
        losses.append(stepper.step(batch, rate, epoch, index))
        smoothed = sweep.smooth(losses)
        stop = sweep.diverged(smoothed)
        if math.isfinite(smoothed[-1]):
            tell("point", step=len(losses), lr=rate, loss=losses[-1], smooth=smoothed[-1])
        if stop:
            break
    found = sweep.suggest(rates, losses, whole=not stop)
    tell(
        "end", suggestion=found.lr, lowest=found.lowest, reason=found.reason, steps=len(losses),
        ended="diverged" if stop else "complete",
    )  # fmt: skip


def _batches(session: Session) -> Iterator[tuple[int, int, Batch]]:
    """Epoch, place and batch, without end."""
    epoch = 0
    while True:
        for index, batch in enumerate(session.batches(epoch, 0)):
            yield epoch, index, batch
        epoch += 1


class Stepper:
    """One update of the training's own kind at a given rate.

    A training adds the gradients of `accumulate` batches up for one update. Here one batch stands for all of them: its
    gradients are taken that many times, which is the same on average and costs a fraction.
    """

    def __init__(
        self, spec: Spec, session: Session, optimizer: torch.optim.Optimizer, precision: Precision, accumulate: int
    ) -> None:
        import torch

        self.spec, self.session, self.optimizer, self.precision = spec, session, optimizer, precision
        self.accumulate = accumulate
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.scaled)
        base = next((g["initial_lr"] / g.get("ratio", 1.0) for g in optimizer.param_groups), 1.0)
        self.shares = [g["initial_lr"] / base for g in optimizer.param_groups]
        session.model.train()

    def step(self, batch: Batch, lr: float, epoch: int, index: int) -> float:
        """The loss of `batch` before the weights move at rate `lr`."""
        from engine.training import randomness
        from engine.training.optim import clip

        for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
            group["lr"] = lr * share
        randomness.seed_step(self.spec.seed, epoch, index)
        with self.precision.autocast():
            loss, parts = self.session.loss(batch)
        value = float(parts.sum())
        self.scaler.scale(loss * self.accumulate).backward()
        self.scaler.unscale_(self.optimizer)
        clip(self.session.model, self.spec)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return value


def _explained(e: Exception, spec: Spec) -> Exception:
    """Failures that a person can do something about, in plain words."""
    import torch

    from engine.training.data import missing_images
    from engine.training.session import UnreadableImage

    if isinstance(e, UnreadableImage):
        return missing_images(spec.dataset, [str(e).strip().splitlines()[-1].rpartition(": ")[2]])
    text = str(e)
    if isinstance(e, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in text or "allocate memory" in text:
        hint = "Lower batch_size or image_size, and try again."
        return DojangError(f"There is not enough memory for batches of {spec.images_per_step}.", code="OOM", hint=hint)
    return e


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # native libraries may crash while they are taken down
