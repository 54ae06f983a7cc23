"""A whole external kernel in one file: learns the mean colours of each class and names an image by the nearest.

It knows nothing of dojang but its contract: one JSON file in, JSON lines out. PIL is for reading images.
"""

from __future__ import annotations

import csv
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

Features = list[float]


def say(kind: str, **fields: Any) -> None:
    """One event: a JSON object on a line of its own, sent at once."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


class Kernel:
    def __init__(self, brief: dict[str, Any]) -> None:
        self.brief, self.settings, self.options = brief, brief["settings"], brief["options"]
        self.classes: list[str] = brief["dataset"]["classes"]
        self.rate = self.settings["lr"] or 0.05
        self.images: dict[str, list[tuple[Features, int]]] = {"train": [], "val": [], "test": []}
        self.means: list[Features] = []
        self.best, self.best_epoch = -1.0, 0

    def read_images(self) -> None:
        with open(self.brief["dataset"]["manifest"], encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        for done, row in enumerate(rows, 1):
            if row["label"] is not None:
                self.images[row["split"]].append((self.features(row["path"]), row["label"]))
            say("progress", what="preprocessing", done=done, total=len(rows))

    def features(self, path: str) -> Features:
        """Mean red, green and blue of each cell, 0 … 1, and their spread if asked for."""
        from PIL import Image, ImageStat

        size, grid = self.settings["image_size"], self.options["grid"]
        with Image.open(path) as image:
            small = image.convert("RGB").resize((size, size))
        edges = [round(i * size / grid) for i in range(grid + 1)]
        found: Features = []
        for y in range(grid):
            for x in range(grid):
                cell = ImageStat.Stat(small.crop((edges[x], edges[y], edges[x + 1], edges[y + 1])))
                found += [v / 255 for v in cell.mean]
                found += [v / 255 for v in cell.stddev] if self.options["spread"] else []
        return found

    def begin(self) -> tuple[int, int]:
        """Random means, or those of the checkpoint; the epochs and steps done so far."""
        checkpoint = self.brief["checkpoint"]
        if checkpoint:
            state = json.loads(Path(checkpoint["path"]).read_text())
            self.means, self.best, self.best_epoch = state["means"], state["best"], state["best_epoch"]
            return checkpoint["epoch"], checkpoint["step"]
        chance = random.Random(self.settings["seed"])
        length = len(self.images["train"][0][0])
        self.means = [[chance.random() for _ in range(length)] for _ in self.classes]
        return 0, 0

    def train(self) -> str:
        batch = self.settings["batch_size"] or 16
        per_epoch = max(1, math.ceil(len(self.images["train"]) / batch))
        epochs = self.settings["epochs"]
        done, step = self.begin()
        count = len(self.means) * len(self.means[0])
        say("plan", epochs=epochs, steps_per_epoch=per_epoch, parameters=count, lr=self.rate, loss_names=["distance"])
        for epoch in range(done + 1, epochs + 1):
            order = list(self.images["train"])
            random.Random(f"{self.settings['seed']} {epoch}").shuffle(order)
            started, losses = time.monotonic(), []
            for i in range(per_epoch):
                losses.append(self.learn(order[i * batch : (i + 1) * batch]))
                step += 1
                say("step", epoch=epoch, step=step, i=i + 1, loss={"distance": losses[-1]}, lr=self.rate)
                time.sleep(self.options["pause"])
                if self.asked() in ("stop", "pause"):
                    return "stopped"  # the last whole epoch's checkpoint is gone on from
            self.finish_epoch(epoch, step, sum(losses) / len(losses), time.monotonic() - started)
            patience = self.settings["patience"]
            if self.asked() == "finish" or (patience and epoch - self.best_epoch >= patience):
                break
        return "done"

    def learn(self, batch: list[tuple[Features, int]]) -> float:
        """Draw each image's class towards it; the mean squared distance before."""
        total = 0.0
        for features, label in batch:
            mean = self.means[label]
            total += distance(features, mean)
            self.means[label] = [m + self.rate * (f - m) for f, m in zip(features, mean, strict=True)]
        return total / max(1, len(batch))

    def finish_epoch(self, epoch: int, step: int, loss: float, seconds: float) -> None:
        metrics, per_class, val_loss, _ = self.evaluate("val")
        better = metrics["top1"] > self.best
        if better:
            self.best, self.best_epoch = metrics["top1"], epoch
            (Path(self.brief["weights"]) / "best.json").write_text(json.dumps(self.means))
        self.chart(epoch)
        name = f"epoch-{epoch % 2}.json"
        state = {"means": self.means, "best": self.best, "best_epoch": self.best_epoch}
        temporary = Path(self.brief["checkpoints"]) / f".{name}"
        temporary.write_text(json.dumps(state))
        temporary.replace(temporary.with_name(name))
        losses = {"train": {"distance": loss}, "val": {"distance": val_loss}}
        say(
            "epoch",
            epoch=epoch,
            metrics=metrics,
            per_class=per_class,
            best=better,
            seconds={"train": seconds},
            **losses,
        )
        say("checkpoint", name=name, epoch=epoch, step=step)

    def chart(self, epoch: int) -> None:
        """A chart of our own: how far each class lies from its nearest neighbour."""
        path = Path(self.brief["metrics"]) / "distances.csv"
        rows = list(csv.reader(path.open())) if path.exists() else [["epoch", *self.classes]]
        nearest = [
            min((distance(a, b) for j, b in enumerate(self.means) if j != i), default=0.0)
            for i, a in enumerate(self.means)
        ]
        rows = [rows[0], *(r for r in rows[1:] if int(r[0]) < epoch), [epoch, *(round(n, 6) for n in nearest)]]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def evaluate(self, split: str) -> tuple[dict[str, float], list[dict[str, Any]], float, list[list[int]]]:
        """Metrics, metrics by class, loss and confusion on a split."""
        size = len(self.classes)
        matrix = [[0] * size for _ in range(size)]
        five, loss, images = 0, 0.0, self.images[split]
        for features, label in images:
            ranked = sorted(range(size), key=lambda c: distance(features, self.means[c]))
            matrix[label][ranked[0]] += 1
            five += label in ranked[:5]
            loss += distance(features, self.means[label])
        rows = []
        for c, name in enumerate(self.classes):
            right, said, there = matrix[c][c], sum(r[c] for r in matrix), sum(matrix[c])
            precision, recall = right / said if said else 0.0, right / there if there else 0.0
            f1 = 2 * precision * recall / (precision + recall) if right else 0.0
            counts = {"tp": right, "fp": said - right, "fn": there - right, "labels": there}
            rows.append({"name": name, "precision": precision, "recall": recall, "f1": f1, **counts})
        total = max(1, len(images))
        means = {key: sum(r[key] for r in rows) / size for key in ("precision", "recall", "f1")}
        metrics = {"top1": sum(matrix[c][c] for c in range(size)) / total, "top5": five / total, **means}
        return metrics, rows, loss / total, matrix

    def report(self) -> None:
        """The best means on val, and on test, which nothing was chosen by."""
        self.means = json.loads((Path(self.brief["weights"]) / "best.json").read_text())
        for split in ("val", "test"):
            if self.images[split]:
                metrics, per_class, _, matrix = self.evaluate(split)
                confusion = {"labels": self.classes, "matrix": matrix}
                told = {"metrics": metrics, "per_class": per_class, "confusion": confusion}
                say("result", split=split, weights="best.json", images=len(self.images[split]), **told)

    def asked(self) -> str | None:
        try:
            return json.loads(Path(self.brief["control"]).read_text())["request"]
        except (OSError, ValueError, KeyError):
            return None


def distance(a: Features, b: Features) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def main(path: str) -> None:
    kernel = Kernel(json.loads(Path(path).read_text()))
    print("reading images,", len(kernel.classes), "classes")  # what is no JSON is a line of the log
    kernel.read_images()
    state = kernel.train()
    if state == "done":
        kernel.report()
    say("end", state=state)


if __name__ == "__main__":
    main(sys.argv[1])
