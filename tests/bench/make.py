"""Workspaces for benchmarks, laid down by the program's own writers."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from engine.spec import Label, Spec
from engine.versions import Version, Workspace


def finished(version: Version, epochs: int = 20, per_epoch: int = 13) -> None:
    """A whole finished log of a short training."""
    write(version, epochs, per_epoch, done=True)


def write(version: Version, epochs: int, per_epoch: int, *, done: bool) -> None:
    """A log with `epochs` × `per_epoch` step events."""
    t = time.time() - 86_400
    lines: list[dict[str, object]] = [
        {"kind": "start", "t": t, "attempt": 1, "pid": 1, "host": "box", "versions": {}, "resumed": None},
        {"kind": "stage", "t": t, "stage": "preparing"},
        {
            "kind": "plan",
            "t": t,
            "epochs": epochs,
            "steps_per_epoch": per_epoch,
            "batch_size": 16,
            "image_size": 640,
            "train_images": 205,
            "val_images": 87,
            "classes": ["a", "b", "c"],
            "device": "cpu",
            "optimizer": "AdamW",
            "lr": 0.001,
            "weights": "scratch",
            "loss_names": ["box", "cls", "dfl"],
        },
        {"kind": "stage", "t": t, "stage": "training"},
    ]
    for step in range(1, epochs * per_epoch + 1):
        epoch, loss = (step - 1) // per_epoch + 1, math.exp(-step / (epochs * per_epoch) * 2)
        values = {"box": round(1 + loss, 5), "cls": round(2 * loss, 5), "dfl": round(1 + loss / 2, 5)}
        lines.append(
            {
                "kind": "step",
                "t": round(t + step, 3),
                "epoch": epoch,
                "step": step,
                "i": (step - 1) % per_epoch + 1,
                "n": 1,
                "loss": values,
                "lr": 0.001,
                "img_s": 212.5,
                "memory": 11.25,
            }
        )
        if step % per_epoch == 0:
            share = epoch / epochs
            metrics = {"map50": 0.8 * share, "map50_95": 0.5 * share, "precision": 0.7 * share, "recall": 0.9 * share}
            lines.append(
                {
                    "kind": "epoch",
                    "t": t + step,
                    "epoch": epoch,
                    "split": "val",
                    "train": values,
                    "val": values,
                    "metrics": metrics,
                    "per_class": [{"name": n, **metrics, "images": 20, "labels": 40} for n in "abc"],
                    "lr": 0.001,
                    "seconds": {"train": per_epoch, "val": 1.0},
                    "best": True,
                }
            )
    if done:
        lines.append({"kind": "end", "t": t + epochs * per_epoch, "state": "done"})
    version.events.write_text("".join(json.dumps(line) + "\n" for line in lines))


def workspace(path: Path, versions: int) -> Workspace:
    """A workspace with that many finished versions."""
    found = Workspace(path).ensure()
    project = found.project(create=True)
    for i in range(versions):
        label = Label(name=f"run {i}", tags=("night", f"t{i % 7}"))
        finished(project.create(Spec(dataset="cells", epochs=20), label))
    return found
