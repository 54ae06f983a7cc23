"""Made-up trainings: whole or half event logs in every state, written as the worker writes them."""

from __future__ import annotations

import fcntl
import json
import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import demo
from engine.datasets import registry
from engine.events import Event
from engine.spec import parse, parse_label
from engine.versions import Version, Workspace

CLASSES = ("circle", "square", "triangle")
LOSSES = ("box_loss", "cls_loss", "dfl_loss")


def training(
    epochs: int = 10,
    per_epoch: int = 20,
    *,
    until: int | None = None,
    start: float | None = None,
    pace: float = 0.5,
    best: float = 0.8,
    nan_from: int | None = None,
    classes: tuple[str, ...] = CLASSES,
    test: bool = False,
    seed: int = 1,
    task: str = "detect",
) -> list[Event]:
    """Every event of a training up to step `until` (all of it, without the last word, when left out)."""
    chance = random.Random(seed)
    total = epochs * per_epoch
    until = total if until is None else until
    t = time.time() - 5 - until * pace if start is None else start
    found: list[Event] = [*opening(epochs, per_epoch, t, classes=classes, test=test, task=task)]
    t += 4
    for step in range(1, until + 1):
        epoch, i = (step - 1) // per_epoch + 1, (step - 1) % per_epoch + 1
        t += pace
        found.append(step_event(step, epoch, i, total, t, chance, nan_from))
        if i == per_epoch:
            found.append(epoch_event(epoch, epochs, t, best, classes, found[-1]["loss"], task))
    return found


def opening(
    epochs: int,
    per_epoch: int,
    t: float,
    *,
    classes: tuple[str, ...] = CLASSES,
    test: bool = False,
    task: str = "detect",
) -> Iterator[Event]:
    """Up to the stage `training`."""
    yield {"kind": "start", "t": t, "attempt": 1, "pid": 7, "host": "box", "versions": {}, "resumed": None}
    yield {"kind": "stage", "t": t, "stage": "preparing"}
    yield {"kind": "stage", "t": t + 1, "stage": "preprocessing"}
    yield {"kind": "progress", "t": t + 2, "what": "preprocessing", "done": 400, "total": 400}
    yield {
        "kind": "plan", "t": t + 3, "epochs": epochs, "steps_per_epoch": per_epoch, "batch_size": 16, "image_size": 640,
        "train_images": 320, "val_images": 80, "test_images": 40 if test else 0, "classes": list(classes),
        "device": "cpu", "device_name": "cpu", "threads": 2, "workers": 0, "amp": "off", "optimizer": "AdamW",
        "lr": 0.001429, "momentum": 0.9, "warmup_steps": 3 * per_epoch, "parameters": 3011433,
        "weights": "random weights", "loss_names": list(LOSSES), "task": task,
    }  # fmt: skip
    yield {"kind": "stage", "t": t + 4, "stage": "training"}


def step_event(
    step: int, epoch: int, i: int, total: int, t: float, chance: random.Random, nan_from: int | None = None
) -> Event:
    left = math.exp(-3 * step / total)
    loss: dict[str, float | None] = {
        name: round((1 + k) * (0.4 + left) + chance.gauss(0, 0.08), 5) for k, name in enumerate(LOSSES)
    }
    if nan_from is not None and step >= nan_from:
        loss = dict.fromkeys(LOSSES)
    return {
        "kind": "step", "t": round(t, 3), "epoch": epoch, "step": step, "i": i, "n": 1, "loss": loss,
        "lr": 0.001 * (1 - step / total), "img_s": 212.5, "memory": 1.25,
    }  # fmt: skip


def epoch_event(
    epoch: int, epochs: int, t: float, best: float, classes: tuple[str, ...], loss: Any, task: str = "detect"
) -> Event:
    share = 1 - math.exp(-4 * epoch / epochs)
    both = {"precision": min(1.0, best * share * 1.1), "recall": best * share * 0.9, "f1": best * share}
    own = {"map50": best * share, "map50_95": best * share * 0.6}
    if task == "classify":
        own = {"top1": best * share, "top5": min(1.0, best * share * 1.2)}
    metrics = {k: round(v, 4) for k, v in (own | both).items()}
    told = metrics if task == "detect" else both
    rows = [
        {"name": n, **{k: round(v * (1 - 0.1 * (j % 8)), 4) for k, v in told.items()}, "images": 20, "labels": 40 + j}
        for j, n in enumerate(classes)
    ]
    return {
        "kind": "epoch", "t": round(t, 3), "epoch": epoch, "split": "val", "train": loss,
        "val": {k: v and v * 1.1 for k, v in loss.items()}, "metrics": metrics, "per_class": rows, "lr": 0.001,
        "seconds": {"train": 10.0, "val": 1.0, "checkpoint": 0.1}, "best": True,
        "confidence": 0.312 if task == "detect" else None,
    }  # fmt: skip


def confused(classes: tuple[str, ...], task: str, best: float = 0.8) -> Event:
    """Confusion and curves of a result: neighbours are taken for each other, and some objects are missed."""
    size, detect = len(classes), task == "detect"
    matrix = [[0] * (size + detect) for _ in range(size + detect)]
    for i in range(size):
        wrong = round((40 + i) * (1 - best + 0.05 * (i % 4))) if size > 1 else 0
        matrix[i][i], matrix[i][(i + 1) % size] = 40 + i - wrong, wrong - wrong // 2
        matrix[i][-1 if detect else i - 1] += wrong // 2
        if detect:
            matrix[size][i] = 3 * i + 1
    labels = [*classes, "background"] if detect else list(classes)
    place = {"confidence": 0.312, "iou": 0.5} if detect else {"confidence": None, "iou": None}
    x = [i / 100 for i in range(101)]
    rows = [{"name": n, "precision": [1 - v**3 for v in x], "f1": [3 * v * (1 - v) / (i + 1) for v in x]} for i, n in
            enumerate(classes)]  # fmt: skip
    curves = {"x": x, "mean": {k: rows[0][k] for k in ("precision", "f1")}, "per_class": rows}
    return {"confusion": {"labels": labels, "matrix": matrix, **place}, "curves": curves if detect else None}


def ending(events: list[Event], state: str, **error: str) -> list[Event]:
    """The last words: results for a training that is done, the error for one that failed."""
    t = events[-1]["t"] + 1
    last = next((e for e in reversed(events) if e["kind"] == "epoch"), None)
    found: list[Event] = []
    if state == "done" and last:
        found.append({"kind": "stage", "t": t, "stage": "testing"})
        plan = next(e for e in events if e["kind"] == "plan")
        for split in ("val", "test") if plan["test_images"] else ("val",):
            found.append({
                "kind": "result", "t": t + 1, "split": split, "metrics": last["metrics"],
                "per_class": last["per_class"], "weights": "weights/best.pt", "images": 80,
                "confidence": last["confidence"], **confused(tuple(plan["classes"]), plan["task"]),
            })  # fmt: skip
    if error:
        found.append({"kind": "error", "t": t, **error})
    return [*found, {"kind": "end", "t": t + 2, "state": state}]


def write(version: Version, events: list[Event]) -> None:
    """Append to the version's log."""
    with version.events.open("a") as f:
        f.writelines(json.dumps(e, ensure_ascii=False) + "\n" for e in events)


def version(
    workspace: Workspace, events: list[Event] = (), *, project: str = "default", label: Any = None, **spec: Any
) -> Version:  # type: ignore[assignment]
    """A version with that log; `label` is name, tags, memo."""
    settings = parse({"dataset": "shapes", "epochs": 10, **spec})
    found = workspace.project(project, create=True).create(settings, parse_label(label or {}))
    write(found, list(events))
    return found


NO_MEMORY = {
    "code": "OUT_OF_MEMORY",
    "message": "The GPU has no memory left for batches of 64 images of 640 px.",
    "hint": "Train again with a smaller batch size or image size, or on another GPU.",
}


def in_state(workspace: Workspace, state: str, **options: Any) -> Version:
    """A version in one of the states that need no running process: draft, done, stopped, failed, lost."""
    spec = options.pop("spec", {})
    label = options.pop("label", None)
    if state == "draft":
        return version(workspace, label=label, **spec)
    whole = state == "done"
    events = training(until=None if whole else options.pop("until", 107), **options)
    if state == "failed":
        events += ending(events, "failed", **NO_MEMORY)
    elif state != "lost":
        events += ending(events, state)
    made = version(workspace, events, label=label, **spec)
    if state == "lost":
        made.lock.touch()
        os.utime(made.lock, (events[0]["t"], events[0]["t"]))
    if whole:
        made.best_weights.parent.mkdir(exist_ok=True)
        made.best_weights.write_bytes(b"weights")
    return made


@contextmanager
def held(version: Version) -> Iterator[None]:
    """As if the version were running: its lock is held by this very process."""
    with version.lock.open("ab") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        os.utime(version.lock, (1e9, 1e9))  # taken before the log's first word
        yield


def shapes(workspace: Workspace, folder: Path, name: str = "shapes", images: int = 10, size: int = 32) -> Path:
    """A drawn data set, registered."""
    demo.draw(folder, images=images, size=size, val=0.2)
    registry.add(workspace.ensure().path, folder, name)
    return folder
