"""What a training does when memory or numbers fail it: go back to what was sound, and on more carefully."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from engine.training import environment
from engine.training.failures import ShortOfMemory, memory_error, short_of_memory
from engine.training.progress import Diverged

if TYPE_CHECKING:
    from torch import nn

    from engine.events import EventLog
    from engine.training.loop import Loop
    from engine.training.session import Between, Evaluation, Session

MOST_PIECES = 256  # of an evaluation's batch: single images by then
ROLLBACKS = 2  # times that a diverged training is taken back before it is given up
DAMPING = 0.25  # what every learning rate is multiplied by each time


def evaluate(session: Session, model: nn.Module, split: str, between: Between, log: EventLog) -> Evaluation | None:
    """`session.evaluate`; when memory runs out again in smaller runs, down to single images."""
    while True:
        try:
            return session.evaluate(model, split, between)
        except Exception as e:
            if short_of_memory(e) is None or session.pieces >= MOST_PIECES:
                raise
        session.pieces *= 2
        environment.free(next(model.parameters()).device)
        log.append(
            "log", level="warning", text=f"Memory ran out in the evaluation: in runs of 1/{session.pieces} batch."
        )


class Rescue:
    """Guards of one loop. They change its course, never its model."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def probe(self) -> None:
        """The densest batch once, for its memory alone: better to run short now than at night."""
        while True:
            failed: ShortOfMemory | None = None
            try:
                self._try_densest()
            except Exception as e:
                failed = short_of_memory(e)
                if failed is None:
                    raise
            if not self.loop.world.agree(int(failed is not None)):
                return
            self.halve(failed or ShortOfMemory("another process ran out of memory", self.loop.on_gpu))
            self.loop.log.append("log", level="warning", text=self.split_text())

    def _try_densest(self) -> None:
        """Forward and backward, leaving the model, its gradients and all randomness as they were."""
        model = self.loop.session.model
        images = -(-self.loop.spec.batch_size // (self.loop.world.size * self.loop.course.parts))
        gradients, buffers = [p.grad for p in model.parameters()], [b.clone() for b in model.buffers()]
        devices = [self.loop.setting.precision.device] if self.loop.on_gpu else []
        model.train()
        try:
            with torch.random.fork_rng(devices):
                for p in model.parameters():
                    p.grad = None
                with self.loop.setting.precision.autocast():
                    loss, _ = self.loop.session.loss(self.loop.session.densest(images))
                loss.backward()
        finally:
            for p, gradient in zip(model.parameters(), gradients, strict=True):
                p.grad = gradient
            with torch.no_grad():
                for b, before in zip(model.buffers(), buffers, strict=True):
                    b.copy_(before)
            environment.free(self.loop.setting.precision.device)

    def halve(self, e: ShortOfMemory) -> None:
        """Batches go through in twice as many pieces from here on. Raises DojangError when they are single images."""
        if self.loop.course.parts * self.loop.world.size >= self.loop.spec.batch_size:
            raise memory_error(self.loop.job, e.on_gpu) from e
        self.loop.course = replace(self.loop.course, parts=self.loop.course.parts * 2)

    def split_text(self) -> str:
        parts, batch = self.loop.course.parts, self.loop.spec.batch_size
        runs = -(-batch // (parts * self.loop.world.size))
        return (
            f"Memory ran out: each batch of {batch} now goes through in runs of {runs} whose gradients are added up. "
            "Slower, with the same learning rate and the same images."
        )

    def calm_down(self, e: Diverged) -> None:
        """Go back to the last sound state with a lower learning rate. Raises DojangError(NAN_LOSS) the third time."""
        if self.loop.course.rollbacks >= ROLLBACKS:
            raise e.final(self.loop.course.rollbacks)
        course = self.loop.course
        self.loop.course = replace(course, rollbacks=course.rollbacks + 1, damping=course.damping * DAMPING)
        self.go_back("NAN_LOSS", f"The loss became infinite or not a number {e}: the learning rate is quartered.")

    def go_back(self, code: str, text: str) -> None:
        """To the last checkpoint, on the course as it is now."""
        self.loop.optimizer.zero_grad()
        environment.free(self.loop.setting.precision.device)
        self.loop.keeper.restore_last()
        self.loop.schedule = self.loop.new_schedule()
        self.loop.scheduled = self.loop.course.epochs
        self.loop.session.reschedule(self.loop.scheduled)
        self.loop.meter.forget()
        at, course = self.loop.at, self.loop.course
        scale = course.lr_scale * course.damping
        self.loop.log.append(
            "rollback", code=code, text=text, epoch=at.epoch + 1, step=at.taken, lr_scale=scale, parts=course.parts
        )
