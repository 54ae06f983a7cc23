"""The one training loop, for every kernel: from the first step to the last epoch's end, top to bottom.

With `exact_resume` off and the same threads it is bit-identical to ultralytics' own trainer (tests/training/
test_parity.py holds it to that). It differs on purpose where that one loses something: the best weights are chosen
only after a real evaluation, early stop also counts epochs without any success, the whole state is saved in 32 bits,
and no step waits for the GPU.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.schedule import Schedule
from engine.training import checkpoint, environment, randomness
from engine.training.environment import Precision
from engine.training.optim import Average
from engine.training.progress import Bar, Meter, Requests, finite_weights, require_finite, short
from engine.training.session import Batch, Evaluation, Session
from engine.worker import Job

CLIP_NORM = 10.0  # ultralytics' limit on the gradients' norm


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
class Setting:
    """What the loop trains by, settled before the first step. `warm_momentum` is where momentum's warm-up ends."""

    schedule: Schedule
    momentum: float
    warm_momentum: float
    accumulate: int
    precision: Precision
    seed: int


class Loop:
    """One training. `run` goes from wherever it stands to the end, or to where the person stops it."""

    def __init__(
        self, job: Job, session: Session, optimizer: torch.optim.Optimizer, setting: Setting, requests: Requests
    ) -> None:
        self.job, self.session, self.optimizer = job, session, optimizer
        self.spec, self.log, self.setting, self.requests = job.spec, job.log, setting, requests
        self.average = Average(session.model, session.decay)
        self.scaler = torch.amp.GradScaler(setting.precision.device.type, enabled=setting.precision.scaled)
        self.at = Position()
        self.epoch_losses: Tensor | None = None  # running mean of the epoch so far, on the device
        self.meter = Meter(job.log, session.loss_names)
        self.saving_seconds = 0.0

    # From here on in the order in which things happen

    def run(self) -> Literal["complete", "stopped"]:
        """Train until every epoch is done, patience runs out, or the person says stop or finish."""
        while not self.at.complete:
            if self.requests.stopped():
                return self._stop()
            started = time.monotonic()
            if self._train_epoch() == "stop":
                return self._stop()
            trained = time.monotonic()
            evaluation = self._evaluate()
            if evaluation is None:
                return self._stop()
            self._end_epoch(evaluation, trained - started, time.monotonic() - trained)
        return "complete"

    def _train_epoch(self) -> Literal["stop", "finish", None]:
        """The steps of this epoch that are not done yet; the person's request when one ended it early."""
        at, session, steps = self.at, self.session, self.session.steps_per_epoch
        session.model.train()
        self.meter.restart_clock()
        request = None
        for batch in session.batches(at.epoch, at.step) if at.step < steps else ():
            self._step(batch)
            request = self.requests.poll()
            if request or self.meter.due or at.step == steps:
                self._show_step()
            if request:
                break
        return request

    def _step(self, batch: Batch) -> None:
        """Forward, backward and, once enough gradients are gathered, an update."""
        at, setting = self.at, self.setting
        step = at.epoch * self.session.steps_per_epoch + at.step
        self._set_rates(step)
        if self.spec.exact_resume:
            randomness.seed_step(setting.seed, at.epoch, at.step)
        with setting.precision.autocast():
            loss, parts = self.session.loss(batch)
        self.scaler.scale(loss).backward()
        if step - at.last_update >= self._accumulate(step):
            self._update()
            at.last_update = step
        mean = self.epoch_losses
        self.epoch_losses = parts if mean is None else (mean * at.step + parts) / (at.step + 1)
        self.meter.add(parts, self.session.size(batch))
        at.step += 1
        at.taken = step + 1

    def _set_rates(self, step: int) -> None:
        """Every group's learning rate for `step`, and momentum while it warms up."""
        schedule, spec = self.setting.schedule, self.spec
        bias_start = spec.warmup_lr if spec.warmup_bias_lr is None else spec.warmup_bias_lr
        for group in self.optimizer.param_groups:
            start = bias_start if group["kind"] == "bias" else spec.warmup_lr
            group["lr"] = schedule.rate(step, group["initial_lr"], start)
            if "momentum" in group and schedule.warmup_steps and step <= schedule.warmup_steps:
                group["momentum"] = schedule.ramp(step, spec.warmup_momentum, self.setting.warm_momentum)

    def _accumulate(self, step: int) -> int:
        """Steps whose gradients are added up for one update; grows from 1 during warm-up."""
        return max(1, round(self.setting.schedule.ramp(step, 1, self.setting.accumulate)))

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.session.model.parameters(), max_norm=CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.session.model)

    def _show_step(self) -> None:
        at = self.at
        lr = self.setting.schedule.at(at.taken - 1)
        memory = environment.memory(self.setting.precision.device)
        self.meter.show(epoch=at.epoch + 1, step=at.taken, i=at.step, lr=lr, memory=memory)

    def _evaluate(self) -> Evaluation | None:
        """The averaged weights on val; None when the person stopped it."""
        bar = Bar(self.log, "val")

        def between(done: int, total: int) -> bool:
            bar.show(done, total)
            return not self.requests.stopped()

        return self.session.evaluate(self.average.model, "val", between)

    def _end_epoch(self, evaluation: Evaluation, train_seconds: float, val_seconds: float) -> None:
        """Log the epoch, keep the weights if they are the best so far, decide whether to go on, save."""
        at, number = self.at, self.at.epoch + 1
        losses = [] if self.epoch_losses is None else self.epoch_losses.tolist()
        require_finite(losses, f"in epoch {number}")
        if not finite_weights(self.session.model):
            require_finite([float("nan")], f"at the end of epoch {number}")
        fitness = evaluation.fitness
        best = at.best is None or fitness >= at.best  # of equals the later: while all are 0, it has learned more
        if at.best is None or fitness > at.best:
            at.best, at.best_epoch = fitness, number
        if best:
            self._timed(lambda: self.session.export(self.average.model, self.job.version.best_weights))
        lr = self.setting.schedule.at(max(0, at.taken - 1))
        self._log_epoch(number, losses, evaluation, lr, best, train_seconds, val_seconds)
        at.epoch, at.step = number, 0
        at.complete = number >= self.spec.epochs or self._give_up(number) or self.requests.poll() == "finish"
        self.epoch_losses = None
        if at.complete:
            self._keep_last()
        self.save()

    def _give_up(self, number: int) -> bool:
        """Whether patience has run out: counted from the first epoch, however bad it was."""
        patience = self.spec.patience
        if not patience or number - self.at.best_epoch < patience:
            return False
        if number < self.spec.epochs:
            text = f"no better result on val in {patience} epochs; the best was epoch {self.at.best_epoch}"
            self.log.append("log", level="info", text=f"Stopped early: {text}.")
        return True

    def _log_epoch(
        self, number: int, losses: list[float], found: Evaluation, lr: float, best: bool, train: float, val: float
    ) -> None:
        self.log.append(
            "epoch",
            epoch=number,
            split=found.split,
            train={name: round(v, 5) for name, v in zip(self.session.loss_names, losses, strict=False)},
            val=found.losses,
            metrics=found.metrics,
            per_class=found.per_class,
            lr=lr,
            seconds={"train": short(train), "val": short(val), "checkpoint": short(self.saving_seconds)},
            best=best,
        )
        self.saving_seconds = 0.0

    def _stop(self) -> Literal["stopped"]:
        """As asked: leave everything so that a resumed training goes on from right here."""
        self._keep_last()
        self.save()
        return "stopped"

    # What is kept

    def _keep_last(self) -> None:
        self._timed(lambda: self.session.export(self.average.model, self.job.version.last_weights))

    def save(self) -> None:
        """Write the resumable state. Raises DojangError(DISK_FULL, …); the one before is kept then."""
        self._timed(lambda: checkpoint.save(self.job.version.state_file, self.state()))
        self.log.append("checkpoint", name="state.pt", epoch=self.at.epoch + 1, step=self.at.taken)

    def _timed(self, write: Any) -> None:
        started = time.monotonic()
        write()
        self.saving_seconds += time.monotonic() - started

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        steps = self.session.steps_per_epoch
        pending = self.at.last_update != self.at.epoch * steps + self.at.step - 1
        gradients = [p.grad for p in self.session.model.parameters()] if pending else None
        return {
            "position": asdict(self.at),
            "model": self.session.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": gradients,
            "epoch_losses": self.epoch_losses,
            "structure": dict(self.session.structure()),
            "weights_text": self.session.weights_text,
            "spec": self.spec.model_dump(),
            "data_hash": self.session.data_hash,
            "threads": torch.get_num_threads(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state; tensors go to wherever the model is."""
        device = self.setting.precision.device
        self.at = Position(**state["position"])
        self.session.weights_text = state["weights_text"]
        self.session.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        saved = state["optimizer"]
        for old, group in zip(saved["param_groups"], self.optimizer.param_groups, strict=True):
            for key in ("fused", "foreach", "capturable"):  # these belong to the device, which may be another one now
                old[key] = group.get(key)
        self.optimizer.load_state_dict(saved)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        mean = state["epoch_losses"]
        self.epoch_losses = None if mean is None else mean.to(device)
        if state["gradients"] is not None:
            for parameter, gradient in zip(self.session.model.parameters(), state["gradients"], strict=True):
                parameter.grad = None if gradient is None else gradient.to(device)
