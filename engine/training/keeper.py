"""What a training keeps: its resumable state, written while it goes on, and the weights worth having."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.errors import DojangError
from engine.training import checkpoint, frozen, signs

if TYPE_CHECKING:
    from engine.training.loop import Loop

State = dict[str, Any]
KEPT_BY_DEVICE = ("fused", "foreach", "capturable")  # of an optimizer's groups: the device may be another one now


@dataclass
class Position:
    """Where a training stands between two steps."""

    epoch: int = 0  # 0…, the one it is in; all epochs before are trained, evaluated and logged
    step: int = 0  # steps of it that are done
    taken: int = 0  # number of the last step, over the whole training
    last_update: int = -1  # step, 0… over the whole training, whose gradients last changed the weights
    best: float | None = None  # highest fitness so far
    best_epoch: int = 0  # 1…, the first that reached it
    complete: bool = False  # nothing is left but testing


@dataclass(frozen=True)
class Course:
    """What a training may change of itself while it runs: by request, or to save itself."""

    epochs: int
    patience: int
    lr_scale: float = 1.0  # by request
    damping: float = 1.0  # after divergence
    parts: int = 1  # pieces that a batch goes through in, for want of memory
    rollbacks: int = 0


class Keeper:
    """Checkpoints and exports of one loop. Only the process that writes touches the disk."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._apart = frozen.names(loop.session.model)  # what never changes
        self._frozen = ""  # digest of it, once it is on disk
        self.seconds = 0.0  # that training waited for writing, since the last epoch event
        self._writing: _Writing | None = None
        self._copy: State | None = None  # the latest, on disk or on its way there
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the minutes between two checkpoints are over; all processes say the same only when alone."""
        minutes = self.loop.spec.save_minutes
        over = bool(minutes) and time.monotonic() - self._saved >= minutes * 60 and self._writing is None
        return over and self.loop.world.size == 1

    def save(self) -> None:
        """Copy the state and write it in the background. Raises DojangError(DISK_FULL, …); the one before is kept then."""
        started = time.monotonic()
        self.wait()
        self._gather_gradients()
        if self.loop.world.writes:
            at = self.loop.at
            if self._apart and not self._frozen:
                self._frozen = frozen.keep(self.loop.job.version.checkpoints, self.loop.session.model, self._apart)
            self._copy = copied(self.state(), self._copy)
            self._writing = _Writing(self.loop.job.version.state_file, self._copy, at.epoch + 1, at.taken)
        self._saved = time.monotonic()
        self.seconds += self._saved - started

    def settle(self) -> None:
        """Tell of a checkpoint that is written by now. Raises what went wrong with it."""
        if self._writing and not self._writing.alive:
            self.wait()

    def wait(self) -> None:
        """Until the checkpoint being written, if any, is whole and on disk."""
        writing, self._writing = self._writing, None
        if writing:
            writing.finish()
            self.loop.log.append("checkpoint", name="state.pt", epoch=writing.epoch, step=writing.step)

    def abandon(self) -> None:
        """Let a checkpoint on its way reach the disk, whatever else went wrong: the process may end at once after this."""
        if self._writing:
            self._writing.join()

    def _gather_gradients(self) -> None:
        """Gradients not yet used, of all processes: rank 0 carries their sum on."""
        world, model = self.loop.world, self.loop.session.model
        if world.size > 1 and self._pending:
            world.add_gradients(model.parameters())
            if not world.writes:
                self.loop.optimizer.zero_grad()

    def keep_last(self) -> None:
        self._export(self.loop.job.version.last_weights)

    def keep_best(self) -> None:
        self._export(self.loop.job.version.best_weights)

    def _export(self, path: Any) -> None:
        if self.loop.world.writes:
            started = time.monotonic()
            self.loop.session.export(self.loop.average.model, path)
            self.seconds += time.monotonic() - started

    @property
    def _pending(self) -> bool:
        """Whether gradients are gathered that no update has used yet."""
        at = self.loop.at
        return at.last_update != at.epoch * self.loop.session.steps_per_epoch + at.step - 1

    def state(self) -> State:
        """Everything that the next step depends on, as tensors and plain values."""
        loop = self.loop
        parameters = loop.session.model.parameters()
        return {
            "position": asdict(loop.at),
            "course": asdict(loop.course),
            "history": [asdict(e) for e in loop.history],
            "model": frozen.without(loop.session.model.state_dict(), self._apart),
            "average": frozen.without(loop.average.model.state_dict(), self._apart),
            "frozen": self._frozen,
            "updates": loop.average.updates,
            "optimizer": loop.optimizer.state_dict(),
            "scaler": loop.scaler.state_dict(),
            "gradients": [p.grad for p in parameters] if self._pending else None,
            "epoch_losses": loop.epoch_losses,
            "structure": dict(loop.session.structure()),
            "weights_text": loop.session.weights_text,
            "spec": loop.spec.model_dump(),
            "data_hash": loop.session.data_hash,
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: State) -> None:
        """Take up a saved state, but for its course; tensors go to wherever the model is."""
        loop, device = self.loop, self.loop.setting.precision.device
        loop.at = Position(**state["position"])
        loop.history = [signs.Epoch(**e) for e in state["history"]]
        loop.session.weights_text = state["weights_text"]
        loop.session.model.load_state_dict(state["model"])
        loop.average.model.load_state_dict(state["average"])
        loop.average.updates = state["updates"]
        saved = state["optimizer"]
        for old, group in zip(saved["param_groups"], loop.optimizer.param_groups, strict=True):
            for key in KEPT_BY_DEVICE:
                old[key] = group.get(key)
        loop.optimizer.load_state_dict(saved)
        if state["scaler"] and loop.scaler.is_enabled():
            loop.scaler.load_state_dict(state["scaler"])
        mean = state["epoch_losses"]
        loop.epoch_losses = None if mean is None else mean.to(device)
        if state["gradients"] is not None and loop.world.writes:
            for parameter, gradient in zip(loop.session.model.parameters(), state["gradients"], strict=True):
                parameter.grad = None if gradient is None else gradient.to(device)

    def restore_last(self) -> None:
        """Back to the newest sound checkpoint on disk."""
        self.wait()
        self.loop.world.agree(0)  # it is whole once rank 0 says so
        state, problems = checkpoint.load(self.loop.job.version.state_file)
        if state is None:
            raise DojangError(
                "There is no checkpoint left to go back to" + (f": {'; '.join(problems)}." if problems else "."),
                code="NO_CHECKPOINT",
                hint="Train a new version.",
            )
        frozen.fill(state, self.loop.job.version.checkpoints)
        self.restore(state)


class _Writing:
    """One checkpoint on its way to the disk."""

    def __init__(self, path: Any, state: State, epoch: int, step: int) -> None:
        self.epoch, self.step = epoch, step
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, args=(path, state), name="checkpoint")
        self._thread.start()

    def _write(self, path: Any, state: State) -> None:
        try:
            checkpoint.save(path, state)
        except BaseException as e:
            self._error = e

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def finish(self) -> None:
        self.join()
        if self._error:
            raise self._error


def copied(value: Any, into: Any = None) -> Any:
    """`value` with every tensor copied into this machine's memory, where no further step can reach it.

    `into` is an earlier copy that nobody needs any more: its memory is used again, which saves asking for new.
    """
    if isinstance(value, Tensor):
        fits = isinstance(into, Tensor) and into.shape == value.shape and into.dtype == value.dtype
        return into.copy_(value.detach()) if fits else value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        old = into if isinstance(into, dict) else {}
        return {k: copied(v, old.get(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        same = into if isinstance(into, (list, tuple)) and len(into) == len(value) else [None] * len(value)
        return type(value)(copied(v, old) for v, old in zip(value, same, strict=True))
    return value
