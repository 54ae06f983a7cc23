"""Event logs for tests, written by the program's own writer."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.events import Event, EventLog
from engine.spec import Label, Spec
from engine.versions import Version, Workspace

CLASSES = ["circle", "square"]


def version(workspace: Workspace, name: str = "", **spec: Any) -> Version:
    """A draft on a data set that need not exist."""
    given = {"dataset": "shapes", "epochs": 4, **spec}
    return workspace.project(create=True).create(Spec(**given), Label(name=name))


def metrics(value: float) -> dict[str, float]:
    return {"map50": value, "map50_95": value / 2, "precision": value, "recall": value, "f1": value}


def begin(log: EventLog, attempt: int = 1, epochs: int = 4, per_epoch: int = 5, resumed: Any = None) -> None:
    log.append("start", attempt=attempt, pid=1, host="box", versions={}, resumed=resumed)
    log.append("stage", stage="preparing")
    log.append("stage", stage="preprocessing")
    log.append(
        "plan", epochs=epochs, steps_per_epoch=per_epoch, train_images=40, val_images=8, device="cpu", optimizer="AdamW",
        lr=0.001, weights="random weights", classes=CLASSES, loss_names=["box", "cls"], image_size=64, batch_size=8,
    )  # fmt: skip
    log.append("stage", stage="training")


def steps(log: EventLog, first: int, last: int, per_epoch: int = 5) -> None:
    for step in range(first, last + 1):
        loss = {"box": 2 - step / 100, "cls": 1 - step / 100}
        epoch, i = (step - 1) // per_epoch + 1, (step - 1) % per_epoch + 1
        log.append("step", epoch=epoch, step=step, i=i, n=1, loss=loss, lr=0.001, img_s=100.0, memory=1.0)


def epoch(log: EventLog, number: int, value: float, best: bool = True) -> None:
    rows = [{"name": n, **metrics(value), "images": 4, "labels": 9} for n in CLASSES]
    log.append(
        "epoch", epoch=number, split="val", train={"box": 1.0, "cls": 0.5}, val={"box": 1.1, "cls": 0.6}, best=best,
        metrics=metrics(value), per_class=rows, lr=0.001, seconds={"train": 1.0, "val": 0.5, "checkpoint": 0.1},
    )  # fmt: skip


def finished(version: Version, value: float = 0.8) -> Version:
    with EventLog(version.events) as log:
        begin(log)
        for number in range(1, 5):
            steps(log, number * 5 - 4, number * 5)
            epoch(log, number, value * number / 4)
        log.append("stage", stage="testing")
        log.append("result", split="val", metrics=metrics(value), per_class=[], weights="best.pt", images=8)
        log.append("end", state="done")
    return version


@contextmanager
def running(version: Version) -> Iterator[EventLog]:
    """Its lock held, as by a worker; yields its log."""
    with version.lock.open("a") as lock, EventLog(version.events) as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield log


def only(events: list[Event], kind: str) -> list[Event]:
    return [e for e in events if e["kind"] == kind]
