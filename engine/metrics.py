"""What is measured, by task: the one list from which events are read and every table, chart and sentence is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MOST_CLASSES = 200  # of a confusion matrix in the log: 200² counts are some 100 KB, a line there may have 1 MiB
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number between 0 and 1. `title` heads a column, `name` stands before a value, `brief` and `help` explain."""

    key: str
    title: str
    name: str
    brief: str
    help: str
    column: bool = True  # of the list of versions


DETECT = (
    Metric(
        "map50", "mAP50", "mAP50", "right class, half overlap", "average precision, boxes that overlap by half count"
    ),
    Metric(
        "map50_95",
        "50-95",
        "mAP50-95",
        "the same, tighter boxes",
        "the same over overlaps of 50 to 95 %: tight boxes",
    ),
    Metric("precision", "P", "precision", "boxes drawn that are right", "of the boxes it draws, how many are right"),
    Metric("recall", "R", "recall", "objects there that it finds", "of the objects that are there, how many it finds"),
    Metric("f1", "F1", "F1", "precision with recall", "precision and recall in one: high only if both are", False),
)
CLASSIFY = (
    Metric("top1", "top-1", "top-1", "first guess is right", "accuracy: how often its first guess is right"),
    Metric(
        "top5", "top-5", "top-5", "right within five guesses", "how often the truth is among its five likeliest classes"
    ),
    Metric(
        "precision",
        "P",
        "precision",
        "named so and right",
        "of the images it calls a class, how many are: mean of classes",
    ),
    Metric(
        "recall", "R", "recall", "of a class and named so", "of a class's images, how many it finds: mean of classes"
    ),
    Metric("f1", "F1", "F1", "precision with recall", "precision and recall in one, by class: mean of classes", False),
)
TASKS = {"detect": DETECT, "classify": CLASSIFY}
KEYS = tuple(dict.fromkeys(m.key for m in (*DETECT[:2], *CLASSIFY)))
"""Every metric there is, in the order in which tables of both tasks show them."""


def of(task: str) -> tuple[Metric, ...]:
    """The metrics of a task; of detection where the task is not known."""
    return TASKS.get(task, DETECT)


def headline(task: str) -> Metric:
    """The metric that stands for the task on one line: mAP50, or top-1."""
    return of(task)[0]


def weighed(task: str) -> str:
    """The metric by class that tells the weak classes of a task from the strong ones."""
    return "f1" if task == "classify" else "map50"


def columns(tasks: Collection[str]) -> list[Metric]:
    """The columns of a table that holds versions of `tasks`; of detection where it holds none."""
    found = {m.key: m for task in reversed(TASKS) if task in tasks for m in TASKS[task] if m.column}
    return [found[key] for key in KEYS if key in found] or columns(["detect"])


def task_of(names: Iterable[str]) -> str:
    """The task whose metrics these are; empty where they tell nothing."""
    there = set(names)
    return next((task for task, metrics in TASKS.items() if metrics[0].key in there), "")


def confusion(
    labels: Sequence[str],
    matrix: Sequence[Sequence[int]],
    confidence: float | None = None,
    iou: float | None = None,
    most: int = MOST_CLASSES,
) -> dict[str, Any]:
    """A confusion matrix as `result` events hold it: a row for each truth, a column for each prediction.

    `matrix[t][p]` counts the objects (images, of a classifier) of class `labels[t]` that were taken for `labels[p]`.
    Detectors have one label more, the background: its row counts boxes where nothing is, its column what was missed,
    and both only above `confidence` and with overlap above `iou`. Of more than `most` labels the rows and columns
    with the most mistakes stay; the others are added up in one more, so that the sums remain true.
    """
    if len(labels) > most:
        labels, matrix = _folded(labels, matrix, most)
    return {"labels": list(labels), "matrix": [list(row) for row in matrix], "confidence": confidence, "iou": iou}


def _folded(labels: Sequence[str], matrix: Sequence[Sequence[int]], most: int) -> tuple[list[str], list[list[int]]]:
    size = len(labels)
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    wrong = [sum(matrix[i]) + columns[i] - 2 * matrix[i][i] for i in range(size)]
    kept = sorted(sorted(range(size), key=lambda i: -wrong[i])[: most - 1])
    place = dict.fromkeys(range(size), most - 1) | {i: n for n, i in enumerate(kept)}
    small = [[0] * most for _ in range(most)]
    for t, row in enumerate(matrix):
        into = small[place[t]]
        for p, count in enumerate(row):
            if count:
                into[place[p]] += count
    return [*(labels[i] for i in kept), OTHERS], small


def read_confusion(value: Any) -> dict[str, Any] | None:
    """What `confusion` made, from a log that may come from elsewhere; None unless it is whole."""
    if not isinstance(value, dict):
        return None
    labels, matrix = value.get("labels"), value.get("matrix")
    if not isinstance(labels, list) or not isinstance(matrix, list) or not labels or len(matrix) != len(labels):
        return None
    for row in matrix:
        if not isinstance(row, list) or len(row) != len(labels) or not all(map(_is_count, row)):
            return None
    said = {key: value[key] if _is_share(value.get(key)) else None for key in ("confidence", "iou")}
    return {"labels": [str(label) for label in labels], "matrix": matrix, **said}


def read_curves(value: Any) -> dict[str, Any] | None:
    """Curves of a `result`, from a log that may come from elsewhere; None unless they are whole."""
    if not isinstance(value, dict) or not _is_line(value.get("x")):
        return None
    length = len(value["x"])
    rows = value.get("per_class")
    lines = [value.get("mean"), *(rows if isinstance(rows, list) else [])]
    for line in lines:
        if not isinstance(line, dict):
            return None
        if not all(_is_line(line.get(key)) and len(line[key]) == length for key in ("precision", "f1")):
            return None
    mean, *each = ({"name": str(r.get("name", "")), "precision": r["precision"], "f1": r["f1"]} for r in lines if r)
    return {"x": value["x"], "mean": {k: mean[k] for k in ("precision", "f1")}, "per_class": each}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_line(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_share, value))
