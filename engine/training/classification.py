"""How good a classifier is: accuracy, precision, recall and F1, counted once for every kernel that classifies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine import metrics
from engine.training.session import Evaluation

GUESSES = 5


class Tally:
    """Counts right and wrong answers, batch by batch; nothing waits for a GPU before `verdict`."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._truths: list[Tensor] = []
        self._guesses: list[Tensor] = []
        self._among: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """One batch: `logits` (n, classes) of any float type and scale, `labels` (n) the numbers of the true classes.

        Only the order within a row counts. What is not a number ranks last.
        """
        assert logits.shape == (len(labels), len(self.classes)), (logits.shape, labels.shape, len(self.classes))
        scores = logits.detach().float().nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
        best = scores.topk(min(GUESSES, len(self.classes)), dim=1).indices
        self._truths.append(labels.detach())
        self._guesses.append(best[:, 0])
        self._among.append((best == labels[:, None]).any(1))

    def verdict(self, split: str, images: int, losses: dict[str, float]) -> Evaluation:
        """What all batches come to, rounded to five places.

        Precision, recall and F1 are the means over the classes that the split has labels of, each class counting the
        same however many images it has; a class that was never named has a precision of 0. Without a single label
        every metric is None. `fitness`, by which the best weights are chosen, is top-1.
        """
        matrix = self._matrix()
        rows = [_row(name, number, matrix) for number, name in enumerate(self.classes)]
        judged = [row for row in rows if row["labels"]]
        total = int(matrix.sum())
        right, among = int(matrix.diagonal().sum()), sum(int(a.sum()) for a in self._among)
        found: dict[str, float | None] = dict.fromkeys(m.key for m in metrics.CLASSIFY)
        if total:
            found |= {"top1": right / total, "top5": among / total}
            found |= {key: sum(row[key] for row in judged) / len(judged) for key in ("precision", "recall", "f1")}
        return Evaluation(
            split=split,
            images=images,
            metrics={key: None if value is None else round(value, 5) for key, value in found.items()},
            per_class=[{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
            fitness=round(right / total, 5) if total else 0.0,
            losses={name: round(value, 5) for name, value in losses.items()},
            confusion=metrics.confusion(self.classes, matrix.tolist()),
        )

    def _matrix(self) -> Tensor:
        """How often each class (row) was taken for each (column)."""
        size = len(self.classes)
        if not self._truths:
            return torch.zeros(size, size, dtype=torch.int64)
        pairs = torch.cat(self._truths).long() * size + torch.cat(self._guesses)
        return torch.bincount(pairs.cpu(), minlength=size * size).view(size, size)


def _row(name: str, number: int, matrix: Tensor) -> dict[str, Any]:
    """One class: images of it named so (tp), of others named so (fp), of it named otherwise (fn)."""
    tp = int(matrix[number, number])
    fp, fn = int(matrix[:, number].sum()) - tp, int(matrix[number].sum()) - tp
    row: dict[str, Any] = {"name": name, "precision": None, "recall": None, "f1": None}
    if tp + fn:  # without labels there is nothing to be right about
        row |= {
            "precision": tp / (tp + fp) if tp + fp else 0.0,
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
        }
    return row | {"tp": tp, "fp": fp, "fn": fn, "labels": tp + fn}
