"""What is said of how good a model is, against sums done by hand and against COCO's own program."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.utils import DEFAULT_CFG

from engine.training.classification import Tally
from engine.training.kernels.ultralytics_metrics import Judge
from engine.training.session import Evaluation
from tests.training.conftest import Create, ending, of_kind, train

SIZE = 100  # pixels; boxes below are in them
Truth = tuple[int, float, float, float, float]  # class, x, y, x, y
Found = tuple[int, float, float, float, float, float]  # and a confidence last


def judge(tmp_path: Path, classes: tuple[str, ...], images: list[tuple[list[Truth], list[Found]]]) -> Evaluation:
    """The detector's evaluator, fed image by image."""
    labels = [{"cls": np.zeros((len(there), 1))} for there, _ in images]
    loader: Any = SimpleNamespace(dataset=SimpleNamespace(labels=labels))
    arguments = SimpleNamespace(**{**vars(DEFAULT_CFG), "task": "detect", "plots": False})
    found = Judge(loader, tmp_path, args=arguments)
    found.device, found.data = torch.device("cpu"), {}
    found.init_metrics(SimpleNamespace(names=dict(enumerate(classes))))
    for number, (there, drawn) in enumerate(images):
        boxes = torch.tensor(drawn, dtype=torch.float32).view(-1, 6)
        boxes = boxes[boxes[:, 5].argsort(descending=True, stable=True)]
        found.update_metrics(
            [{"bboxes": boxes[:, 1:5], "conf": boxes[:, 5], "cls": boxes[:, 0], "extra": boxes[:, 6:]}],
            batch(number, there),
        )
    return found.verdict("val", len(images), classes, {})


def batch(number: int, there: list[Truth]) -> dict[str, Any]:
    """One image as ultralytics' loaders give it."""
    truth = torch.tensor(there, dtype=torch.float32).view(-1, 5)
    x1, y1, x2, y2 = truth[:, 1:].T / SIZE
    return {
        "batch_idx": torch.zeros(len(there)),
        "cls": truth[:, :1],
        "bboxes": torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1),
        "img": torch.zeros(1, 3, SIZE, SIZE),
        "ori_shape": [(SIZE, SIZE)],
        "ratio_pad": [((1.0, 1.0), (0.0, 0.0))],
        "im_file": [f"{number}.png"],
    }


A, B, C, D = ((x, 10.0, x + 20, 50.0) for x in (0.0, 25.0, 50.0, 75.0))  # four places without overlap
CLASSES = ("cat", "dog", "fox", "owl")
# Cats: three, of which two are found, and one is drawn where there is nothing: tp 2, fp 1, fn 1.
# Dogs: two, one found, one taken for a cat; nothing else drawn: tp 1, fp 0, fn 1. That box is the cats' second fp.
# Foxes: one, never drawn: fn 1. Owls: none there, one drawn in an empty image: no metric, fp 1.
HAND: list[tuple[list[Truth], list[Found]]] = [
    ([(0, *A), (0, *B), (1, *C)], [(0, *A, 0.9), (0, *B, 0.9), (1, *C, 0.9), (0, *D, 0.9)]),
    ([(0, *A), (1, *B), (2, *C)], [(0, *B, 0.9)]),
    ([], [(3, *A, 0.9)]),
]


def test_counts_of_a_sum_done_by_hand(tmp_path: Path) -> None:
    verdict = judge(tmp_path, CLASSES, HAND)
    rows = {row["name"]: row for row in verdict.per_class}
    counts = {name: (row["tp"], row["fp"], row["fn"], row["labels"]) for name, row in rows.items()}
    assert counts == {"cat": (2, 2, 1, 3), "dog": (1, 0, 1, 2), "fox": (0, 0, 1, 1), "owl": (0, 1, 0, 0)}
    values = {name: (row["precision"], row["recall"], row["f1"]) for name, row in rows.items()}
    assert values["cat"] == (0.5, pytest.approx(2 / 3, abs=1e-5), pytest.approx(4 / 7, abs=1e-5))
    assert values["dog"] == (1.0, 0.5, pytest.approx(2 / 3, abs=1e-5))
    assert values["fox"] == (0.0, 0.0, 0.0)
    assert values["owl"] == (None, None, None) and rows["owl"]["map50"] is None
    means = {"precision": (0.5 + 1 + 0) / 3, "recall": (2 / 3 + 0.5 + 0) / 3, "f1": (4 / 7 + 2 / 3 + 0) / 3}
    assert {k: verdict.metrics[k] for k in means} == pytest.approx(means, abs=1e-5)


def test_rows_of_the_confusion_are_truths_and_columns_are_predictions(tmp_path: Path) -> None:
    found = judge(tmp_path, CLASSES, HAND).confusion
    assert found and found["labels"] == ["cat", "dog", "fox", "owl", "background"] and found["iou"] == 0.5
    assert found["matrix"] == [
        [2, 0, 0, 0, 1],  # cats: one missed
        [1, 1, 0, 0, 0],  # dogs: one called a cat
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0],  # where nothing is: a cat and an owl
    ]


def test_the_threshold_that_is_said_is_the_one_that_holds(tmp_path: Path) -> None:
    """Right boxes are sure, wrong ones are not: the best threshold lies between, and everything is counted there."""
    images: list[tuple[list[Truth], list[Found]]] = [
        ([(0, *A), (1, *B)], [(0, *A, 0.9), (1, *B, 0.8), (0, *C, 0.2), (1, *D, 0.3)]),
    ] * 3
    verdict = judge(tmp_path, ("cat", "dog"), images)
    assert verdict.confidence is not None and 0.3 < verdict.confidence < 0.8
    assert [(r["tp"], r["fp"], r["fn"]) for r in verdict.per_class] == [(3, 0, 0), (3, 0, 0)]
    assert verdict.confusion and verdict.confusion["confidence"] == verdict.confidence
    assert verdict.confusion["matrix"] == [[3, 0, 0], [0, 3, 0], [0, 0, 0]]
    assert verdict.metrics["f1"] == pytest.approx(1.0, abs=0.03)  # it falls in a straight line from 0.8 to 0.3


def test_half_the_overlap_is_enough_and_less_is_not(tmp_path: Path) -> None:
    """Halves of a box have an overlap of a half with it; of two boxes on one object the second is wrong."""
    half: Found = (0, 0, 10, 20, 29.9, 0.9)
    more: Found = (0, 0, 10, 20, 30.1, 0.9)
    for drawn, counts in (([half], (0, 1, 1)), ([more], (1, 0, 0)), ([more, more], (1, 1, 0))):
        (row,) = judge(tmp_path, ("cat",), [([(0, *A)], drawn)]).per_class
        assert (row["tp"], row["fp"], row["fn"]) == counts


def test_without_a_label_nothing_is_said(tmp_path: Path) -> None:
    verdict = judge(tmp_path, ("cat",), [([], [(0, *A, 0.9)])])
    assert set(verdict.metrics.values()) == {None} and verdict.fitness == 0
    assert verdict.confidence is verdict.confusion is verdict.curves is None


def test_without_a_detection_all_is_nought(tmp_path: Path) -> None:
    verdict = judge(tmp_path, ("cat", "dog"), [([(0, *A)], [])])
    assert verdict.metrics == {"map50": 0, "map50_95": 0, "precision": 0, "recall": 0, "f1": 0}
    assert verdict.confusion and verdict.confusion["matrix"] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_curves_run_from_nought_to_one(tmp_path: Path) -> None:
    curves = judge(tmp_path, CLASSES, HAND).curves
    assert curves and len(curves["x"]) == 101 and (curves["x"][0], curves["x"][-1]) == (0.0, 1.0)
    assert [row["name"] for row in curves["per_class"]] == ["cat", "dog", "fox"]
    for row in (curves["mean"], *curves["per_class"]):
        assert len(row["precision"]) == len(row["f1"]) == 101 and all(0 <= v <= 1 for v in row["f1"])
    dog = curves["per_class"][1]
    assert dog["precision"][:50] == [1.0] * 50 and dog["precision"][-1] == 0.0  # one of two is found, and nothing wrong
    assert dog["f1"][50] == 0.667 and dog["f1"][100] == 0.0


def crowd(seed: int) -> list[tuple[list[Truth], list[Found]]]:
    """Random objects of three classes, most of them found more or less well, some twice, and boxes around nothing."""
    chance = random.Random(seed)
    images = []
    for _ in range(40):
        there: list[Truth] = []
        drawn: list[Found] = []
        for _ in range(chance.randint(0, 8)):
            x, y = chance.uniform(0, 70), chance.uniform(0, 70)
            box = (x, y, x + chance.uniform(8, 30), y + chance.uniform(8, 30))
            number = chance.randrange(3)
            there.append((number, *box))
            for _ in range(chance.choice((0, 1, 1, 1, 2))):
                moved = [v + chance.gauss(0, 1.5) for v in box]
                taken = number if chance.random() < 0.85 else chance.randrange(3)
                drawn.append((taken, *moved, chance.betavariate(4, 2)))  # type: ignore[arg-type]
        for _ in range(chance.randint(0, 4)):
            x, y = chance.uniform(0, 70), chance.uniform(0, 70)
            drawn.append((chance.randrange(3), x, y, x + 20, y + 20, chance.betavariate(2, 3)))
        images.append((there, drawn))
    return images


def coco(images: list[tuple[list[Truth], list[Found]]]) -> tuple[float, float]:
    """mAP50-95 and mAP50 by COCO's own program."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def corner(box: Any) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    truths = [(i, t) for i, (there, _) in enumerate(images) for t in there]
    rows = [(i, f) for i, (_, drawn) in enumerate(images) for f in drawn]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(len(images))],
            "categories": [{"id": n} for n in range(3)],
            "annotations": [
                {"id": n + 1, "image_id": i, "category_id": t[0], "bbox": (b := corner(t[1:])), "area": b[2] * b[3], "iscrowd": 0}
                for n, (i, t) in enumerate(truths)
            ],
        }  # fmt: skip
        truth.createIndex()
        found = truth.loadRes(
            [{"image_id": i, "category_id": f[0], "bbox": corner(f[1:5]), "score": f[5]} for i, f in rows]
        )
        program = COCOeval(truth, found, "bbox")
        program.evaluate()
        program.accumulate()
        program.summarize()
    return float(program.stats[0]), float(program.stats[1])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_cocos(tmp_path: Path, seed: int) -> None:
    """Both average over 101 recalls; ours goes straight from point to point where COCO's takes steps."""
    images = crowd(seed)
    ours = judge(tmp_path, ("a", "b", "c"), images).metrics
    theirs = coco(images)
    assert ours["map50_95"] is not None and 0.1 < theirs[0] < 0.9
    assert ours["map50_95"] == pytest.approx(theirs[0], abs=0.005)
    assert ours["map50"] == pytest.approx(theirs[1], abs=0.005)


@pytest.mark.slow
def test_a_trainings_result_tells_it_all(create: Create) -> None:
    """In the log, and folded from it: every object in a row of the confusion, every class with its counts."""
    version = create(epochs=1)
    events = train(version)
    assert ending(events) == "done" and of_kind(events, "plan")[0]["task"] == "detect"
    (event,) = of_kind(events, "result")
    result = version.progress().results["val"]
    assert result["confusion"] == event["confusion"] and result["curves"] == event["curves"] is not None
    assert 0 <= result["confidence"] <= 1 and result["confusion"]["confidence"] == result["confidence"]
    labels = [row["labels"] for row in result["per_class"]]
    assert [sum(row) for row in result["confusion"]["matrix"]][:-1] == labels and sum(labels) > 0
    assert [row["tp"] + row["fn"] for row in result["per_class"]] == labels
    assert (
        "confusion" not in of_kind(events, "epoch")[0] and of_kind(events, "epoch")[0]["per_class"][0]["f1"] is not None
    )


# Classifiers


def logits(*guesses: int, classes: int) -> torch.Tensor:
    """Rows whose likeliest class is given; the others follow in their order."""
    rows = -torch.arange(classes, dtype=torch.float32).repeat(len(guesses), 1)
    rows[torch.arange(len(guesses)), torch.tensor(guesses)] = 1.0
    return rows


def test_a_classifier_by_hand() -> None:
    """Truth against guess: cat cat, cat cat, cat dog, dog cat, dog dog, fox cat; no owl; nobody is called a fox."""
    tally = Tally(CLASSES)
    tally.add(logits(0, 0, 1, 0, classes=4), torch.tensor([0, 0, 0, 1]))
    tally.add(logits(1, 0, classes=4).half(), torch.tensor([1, 2], dtype=torch.int32))
    found = tally.verdict("val", 6, {"loss": 0.1234567})
    assert found.confusion == {
        "labels": list(CLASSES), "confidence": None, "iou": None,
        "matrix": [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    }  # fmt: skip
    rows = {r["name"]: r for r in found.per_class}
    counts = {name: (r["tp"], r["fp"], r["fn"], r["labels"]) for name, r in rows.items()}
    assert counts == {"cat": (2, 2, 1, 3), "dog": (1, 1, 1, 2), "fox": (0, 0, 1, 1), "owl": (0, 0, 0, 0)}
    assert (rows["cat"]["precision"], rows["cat"]["recall"], rows["cat"]["f1"]) == (0.5, 0.66667, 0.57143)
    assert (rows["dog"]["precision"], rows["dog"]["recall"], rows["dog"]["f1"]) == (0.5, 0.5, 0.5)
    assert (rows["fox"]["precision"], rows["fox"]["recall"], rows["fox"]["f1"]) == (0.0, 0.0, 0.0)
    assert (rows["owl"]["precision"], rows["owl"]["recall"], rows["owl"]["f1"]) == (None, None, None)
    assert found.metrics == {"top1": 0.5, "top5": 1.0, "precision": 0.33333, "recall": 0.38889, "f1": 0.35714}
    assert found.fitness == 0.5 and found.losses == {"loss": 0.12346} and found.images == 6


def test_five_guesses_of_seven_classes() -> None:
    tally = Tally(tuple("abcdefg"))
    tally.add(logits(6, 6, 6, 6, classes=7), torch.tensor([6, 3, 4, 5]))  # guessed: g, a, b, c, d
    found = tally.verdict("test", 4, {})
    assert (found.metrics["top1"], found.metrics["top5"]) == (0.25, 0.5) and found.split == "test"


def test_a_classifier_without_labels_and_without_numbers() -> None:
    empty = Tally(("a", "b")).verdict("val", 0, {})
    assert set(empty.metrics.values()) == {None} and empty.fitness == 0
    assert [row["f1"] for row in empty.per_class] == [None, None]
    tally = Tally(("a", "b"))
    tally.add(torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0]]), torch.tensor([0, 0]))
    assert tally.verdict("val", 2, {}).metrics["top1"] == 0.5  # what is not a number is nobody's first guess
