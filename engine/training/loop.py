"""The one training loop, for every kernel: from the first step to the last epoch's end, top to bottom.

With `exact_resume` off and the same threads it is bit-identical to ultralytics' own trainer (tests/training/
test_parity.py holds it to that). It differs on purpose where that one loses something: the best weights are chosen
only after a real evaluation, early stop also counts epochs without any success, the whole state is saved in 32 bits,
no step waits for the GPU, and what can go wrong (memory, numbers) is gone back on and gone on from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from engine import schedule
from engine.control import Settings
from engine.training import environment, optim, randomness, rescue, signs
from engine.training.environment import Precision
from engine.training.failures import ShortOfMemory, short_of_memory
from engine.training.keeper import Course, Keeper, Position
from engine.training.optim import Average
from engine.training.progress import (
    Bar,
    Diverged,
    Meter,
    Requests,
    require_finite,
    require_finite_weights,
    short,
)
from engine.training.session import Batch, Evaluation, Session
from engine.training.world import World
from engine.worker import Job

Ending = Literal["complete", "stopped", "paused"]
FLAGS: dict[str | None, int] = {None: 0, "finish": 1, "pause": 2, "stop": 3}
CHANGED, SHORT = 10, 100  # added to a flag; instead of one


@dataclass(frozen=True)
class Setting:
    """What the loop trains by, settled before the first step. `warm_momentum` is where momentum's warm-up ends."""

    lr: float
    momentum: float
    warm_momentum: float
    accumulate: int
    precision: Precision
    seed: int
    probe: bool = False  # try the memory of the densest batch before the first step


class Loop:
    """One training. `run` goes from wherever it stands to the end, or to where the person stops it."""

    def __init__(
        self,
        job: Job,
        session: Session,
        optimizer: torch.optim.Optimizer,
        setting: Setting,
        requests: Requests,
        world: World | None = None,
    ) -> None:
        self.job, self.session, self.optimizer = job, session, optimizer
        self.spec, self.log, self.setting, self.requests = job.spec, job.log, setting, requests
        self.world = world or World()
        spec, decay = self.spec, session.decay
        if not spec.ema or spec.ema_decay is not None:
            fixed = spec.ema_decay if spec.ema and spec.ema_decay is not None else 0.0
            decay = lambda updates: fixed  # noqa: E731
        self.average = Average(session.model, decay)
        self.scaler = torch.amp.GradScaler(setting.precision.device.type, enabled=setting.precision.scaled)
        self.at = Position()
        self.course = Course(epochs=spec.epochs, patience=spec.patience)
        self.scheduled = spec.epochs  # what the session was last told
        self.history: list[signs.Epoch] = []
        self.epoch_losses: Tensor | None = None  # running mean of the epoch so far, on the device
        self.flag = 0  # what all processes agreed on in the latest step
        self.meter = Meter(job.log, session.loss_names)
        self.keeper, self.rescue = Keeper(self), rescue.Rescue(self)
        self.schedule = self.new_schedule()

    # From here on in the order in which things happen

    def run(self) -> Ending:
        """Train until every epoch is done, patience runs out, or the person says stop, pause or finish."""
        if self.at == Position():
            self.keeper.save()  # so that there is always something to go back to
        if self.setting.probe and not self.at.complete:
            self.rescue.probe()
        while not self.at.complete:
            try:
                ended = self._epoch()
            except Diverged as e:
                self.rescue.calm_down(e)
            except ShortOfMemory as e:
                self.rescue.halve(e)
                self.rescue.go_back("OOM_GPU" if e.on_gpu else "OOM_HOST", self.rescue.split_text())
            else:
                if ended:
                    return self._leave(ended)
        self.keeper.wait()
        return "complete"

    def _epoch(self) -> Ending | None:
        """What is left of this epoch, its evaluation, and all that follows from it."""
        if self._heard() in ("stop", "pause"):
            return self._word()
        if self.scheduled != self.course.epochs:
            self.scheduled = self.course.epochs
            self.session.reschedule(self.scheduled)
        started = time.monotonic()
        request = self._train_epoch()
        if request in ("stop", "pause"):
            return self._word()
        self.world.same_weights(self.session.model)
        trained = time.monotonic()
        evaluation = None
        if request == "finish" or self._evaluates(self.at.epoch + 1):
            evaluation = self._evaluate()
            if self.world.agree(int(self.world.writes and evaluation is None)):
                return self._word()
        self._end_epoch(evaluation, trained - started, time.monotonic() - trained)
        return None

    def _train_epoch(self) -> str | None:
        """The steps of this epoch that are not done yet; the person's request when one ended it early."""
        at, session, steps = self.at, self.session, self.session.steps_per_epoch
        self.meter.restart_clock()
        session.model.train()
        request = None
        for batch in session.batches(at.epoch, at.step) if at.step < steps else ():
            self._step(batch)
            request = self._request()
            if request or self.meter.due or at.step == steps:
                self._show_step()
            if request:
                break
            if self.keeper.due and at.step < steps:
                require_finite_weights(session.model, f"in step {at.taken} (epoch {at.epoch + 1})")
                self.keeper.save()
        return request

    def _step(self, batch: Batch) -> None:
        """Forward, backward and, once enough gradients are gathered, an update."""
        at, setting = self.at, self.setting
        step = at.epoch * self.session.steps_per_epoch + at.step
        self._set_rates(step)
        if self.spec.exact_resume:
            randomness.seed_step(setting.seed, at.epoch, at.step)
        parts = self._gradients(batch)
        if step - at.last_update >= self._accumulate(step):
            self._update()
            at.last_update = step
        mean = self.epoch_losses
        self.epoch_losses = parts if mean is None else (mean * at.step + parts) / (at.step + 1)
        self.meter.add(parts, self.session.size(batch) * self.world.size)
        at.step += 1
        at.taken = step + 1

    def _gradients(self, batch: Batch) -> Tensor:
        """Add this batch's gradients to what is there; its losses.

        A process that runs short of memory must say so before the others wait for its gradients, and with the same
        word all hear what the person asks for: small talk is slow between processes.
        """
        failure: ShortOfMemory | None = None
        parts = torch.zeros(())
        try:
            parts = self._backward(batch)
        except Exception as e:
            failure = short_of_memory(e)
            if failure is None:
                raise
        if self.world.size > 1:
            self.flag = self.world.agree(SHORT if failure else self._asked())
        if failure or self.flag >= SHORT:
            raise failure or ShortOfMemory("another process ran out of memory", self.on_gpu)
        return self.world.mean(parts)

    def _request(self) -> str | None:
        """The person's request after a step, which all processes agree on; new settings are taken up."""
        flag = self.flag if self.world.size > 1 else self._asked()
        if flag >= CHANGED:
            self.hear()
        return _named(flag)

    def _asked(self) -> int:
        """What the person asks for now, as a flag. Only the first process listens."""
        if not self.world.writes:
            return 0
        flag = FLAGS[self.requests.poll()]
        return flag + (CHANGED if self.requests.changed(self._settings) else 0)

    def _backward(self, batch: Batch) -> Tensor:
        """Forward and backward through `batch`, in as many pieces as memory needs; the mean of their losses."""
        pieces = self.session.split(batch, self.course.parts) if self.course.parts > 1 else [batch]
        at, total = self.at, self.session.size(batch)
        left = self.session.images["train"] - at.step * self.spec.batch_size
        weight = self.world.weight(min(left, self.spec.batch_size))
        mean: Tensor | None = None
        for piece in pieces:
            with self.setting.precision.autocast():
                loss, parts = self.session.loss(piece)
            self.scaler.scale(loss if weight == 1 else loss * weight).backward()
            share = self.session.size(piece) / total
            parts = parts if share == 1 else parts * share
            mean = parts if mean is None else mean + parts
        assert mean is not None
        return mean

    def _set_rates(self, step: int) -> None:
        """Every group's learning rate for `step`, and momentum while it warms up."""
        plan, spec = self.schedule, self.spec
        bias_start = spec.warmup_lr if spec.warmup_bias_lr is None else spec.warmup_bias_lr
        for group in self.optimizer.param_groups:
            start = (bias_start if group["kind"] == "bias" else spec.warmup_lr) * min(1.0, group["ratio"])
            group["lr"] = plan.rate(step, group["initial_lr"], start)
            if "momentum" in group and spec.momentum_warmup and plan.warmup_steps and step <= plan.warmup_steps:
                group["momentum"] = plan.ramp(step, spec.warmup_momentum, self.setting.warm_momentum)

    def _accumulate(self, step: int) -> int:
        """Steps whose gradients are added up for one update; grows from 1 during warm-up."""
        return max(1, round(self.schedule.ramp(step, 1, self.setting.accumulate)))

    def _update(self) -> None:
        self.world.add_gradients(self.session.model.parameters())
        self.scaler.unscale_(self.optimizer)
        optim.clip(self.session.model, self.spec)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.session.model)

    def _show_step(self) -> None:
        at = self.at
        lr = self.schedule.at(at.taken - 1)
        memory = environment.memory(self.setting.precision.device)
        self.meter.show(epoch=at.epoch + 1, step=at.taken, i=at.step, lr=lr, memory=memory)
        if self.meter.spoilt:
            # With 16-bit floats a single overflow is no harm: the scaler leaves that step out.
            if not self.setting.precision.scaled or self.meter.spoilt > 10:
                raise Diverged(f"in step {at.taken} (epoch {at.epoch + 1})")
            require_finite_weights(self.session.model, f"in step {at.taken} (epoch {at.epoch + 1})")
        self.keeper.settle()

    def _evaluates(self, number: int) -> bool:
        """Whether epoch `number` (1…) ends with an evaluation: by the cadence, and always near the end."""
        last = self.course.epochs
        return number % self.spec.val_every == 0 or number >= last or number > last - max(1, last // 10)

    def _evaluate(self) -> Evaluation | None:
        """The averaged weights on val; None when the person stopped it, and where another process does it."""
        if not self.world.writes:
            return None
        bar = Bar(self.log, "val")

        def between(done: int, total: int) -> bool:
            bar.show(done, total)
            return not self.requests.stopped()

        return rescue.evaluate(self.session, self.average.model, "val", between, self.log)

    def _end_epoch(self, evaluation: Evaluation | None, train_seconds: float, val_seconds: float) -> None:
        """Log the epoch, keep the weights if they are the best so far, decide whether to go on, save."""
        at, number = self.at, self.at.epoch + 1
        losses = [] if self.epoch_losses is None else self.epoch_losses.tolist()
        if not self.setting.precision.scaled:
            require_finite(losses, f"in epoch {number}")
        require_finite_weights(self.session.model, f"at the end of epoch {number}")
        if self.world.writes:
            self._judge(number, losses, evaluation, train_seconds, val_seconds)
        at.epoch, at.step = number, 0
        done = number >= self.course.epochs or self._give_up(number) or self._heard() == "finish"
        at.complete = bool(self.world.agree(int(done and self.world.writes)))
        self.epoch_losses = None
        if at.complete:
            self.keeper.keep_last()
        self.keeper.save()

    def _judge(self, number: int, losses: list[float], found: Evaluation | None, train: float, val: float) -> None:
        """Whether the epoch was the best so far, and what there is to say of it."""
        at, best = self.at, False
        if found:
            best = at.best is None or found.fitness >= at.best  # of equals the later: while all are 0, it learned more
            if at.best is None or found.fitness > at.best:
                at.best, at.best_epoch = found.fitness, number
        if best:
            self.keeper.keep_best()
        self._log_epoch(number, losses, found, best, train, val)
        self.history.append(signs.Epoch(sum(losses), sum(found.losses.values()) if found else None, best))
        for text in signs.read(self.history, self.course.patience):
            self.log.append("log", level="info", text=text)

    def _give_up(self, number: int) -> bool:
        """Whether patience has run out: counted from the first epoch, however bad it was."""
        patience = self.course.patience
        if not patience or not self.world.writes or number - self.at.best_epoch < patience:
            return False
        if number < self.course.epochs:
            text = f"no better result on val in {patience} epochs; the best was epoch {self.at.best_epoch}"
            self.log.append("log", level="info", text=f"Stopped early: {text}.")
        return True

    def _log_epoch(
        self, number: int, losses: list[float], found: Evaluation | None, best: bool, train: float, val: float
    ) -> None:
        self.log.append(
            "epoch",
            epoch=number,
            split="val",
            train={name: round(v, 5) for name, v in zip(self.session.loss_names, losses, strict=False)},
            val=found.losses if found else {},
            metrics=found.metrics if found else {},
            per_class=found.per_class if found else [],
            lr=self.schedule.at(max(0, self.at.taken - 1)),
            seconds={"train": short(train), "val": short(val), "checkpoint": short(self.keeper.seconds)},
            best=best,
            confidence=found.confidence if found else None,
        )
        self.keeper.seconds = 0.0

    def _leave(self, ended: Ending) -> Ending:
        """As asked: leave everything so that a resumed training goes on from right here.

        Weights that an update has just spoilt are not kept: they would take the place of the last sound ones.
        """
        try:
            require_finite_weights(self.session.model, f"in step {self.at.taken} (epoch {self.at.epoch + 1})")
        except Diverged as e:
            text = f"The weights became infinite or not a number {e}: the last checkpoint before that is kept."
            self.log.append("log", level="warning", text=text)
        else:
            self.keeper.keep_last()
            self.keeper.save()
        self.keeper.wait()
        return ended

    # What the person changes while it runs

    def _heard(self) -> str | None:
        """The request that all processes know of, between two epochs."""
        flag = self.world.agree(self._asked())
        self.hear()
        return _named(flag)

    def _word(self) -> Ending:
        return "paused" if self.world.agree(int(self.requests.word == "paused")) else "stopped"

    @property
    def _settings(self) -> Settings:
        return {"epochs": self.course.epochs, "patience": self.course.patience, "lr_scale": self.course.lr_scale}

    def hear(self) -> None:
        """Take up new epochs, patience and learning rate, whichever were asked for."""
        told = self.world.share_settings(self.requests.settings if self.world.writes else {})
        new = {name: told[name] for name, old in self._settings.items() if name in told and told[name] != old}
        if not new:
            return
        self.course = replace(self.course, **new)  # type: ignore[arg-type]
        self.schedule = self.new_schedule()
        self.at.complete = self.at.complete and self.at.epoch >= self.course.epochs
        self.log.append("control", request="change", **new)

    @property
    def on_gpu(self) -> bool:
        return self.setting.precision.device.type == "cuda"

    def new_schedule(self) -> schedule.Schedule:
        course, steps = self.course, self.session.steps_per_epoch
        scale = course.lr_scale * course.damping
        return schedule.of(self.spec, self.setting.lr, steps, epochs=course.epochs, scale=scale)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return self.keeper.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state, and the course it was on."""
        self.course = Course(**state["course"])
        self.keeper.restore(state)
        self.schedule = self.new_schedule()


def _named(flag: int) -> str | None:
    return next(name for name, number in FLAGS.items() if number == flag % CHANGED)
