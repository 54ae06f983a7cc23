"""labelme folders through `add`: shapes into boxes, and images that lie elsewhere."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine import datasets
from engine.datasets import Dataset, Finding, Item
from engine.datasets.files import Unreadable
from engine.datasets.labelme import parse_shapes
from tests.datasets.make import image_bytes, labelme, put, shape

CAT = shape("cat", (4, 3), (20, 18))


def add(tmp_path: Path, root: Path) -> tuple[Dataset, dict[str, Item], list[Finding]]:
    workspace = tmp_path / "workspace"
    dataset = datasets.add(workspace, root, "set")
    return dataset, {item.path: item for item in datasets.items(workspace, "set")}, datasets.findings(workspace, "set")


def where(found: list[Finding]) -> set[tuple[str, str, int | None]]:
    return {(finding.code, finding.file, finding.object) for finding in found}


def test_a_folder_of_images_and_annotations(tmp_path: Path) -> None:
    root = tmp_path / "set"
    dog = shape("dog", (1, 1), (9.5, 2), (5, 8.25), kind="polygon")
    for i in range(10):
        labelme(root / f"{i}.json", shape("cat", (20, 18), (4, 3)), dog)
    put(root / "package.json", '{"name": "other"}')
    dataset, items, found = add(tmp_path, root)
    assert (dataset.format, dataset.task, dataset.classes) == ("labelme", "detect", ("cat", "dog"))
    assert [c.images for c in dataset.counts.per_split.values()] == [8, 1, 1]
    assert items["0.jpg"].boxes == (
        (0, 12 / 40, 10.5 / 30, 16 / 40, 15 / 30),
        (1, 5.25 / 40, 4.625 / 30, 8.5 / 40, 7.25 / 30),
    )
    assert not found


def test_splits_and_images_in_folders_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i, split in enumerate(("Training", "Training", "Validation", "Test")):
        put(root / split / "images" / f"photo{i}.jpg", image_bytes())
        labelme(root / split / "labels" / f"{i}.json", CAT, image=f"../images/photo{i}.jpg")
    _, items, found = add(tmp_path, root)
    assert {path: (item.split, len(item.boxes)) for path, item in items.items()} == {
        "Training/images/photo0.jpg": ("train", 1), "Training/images/photo1.jpg": ("train", 1),
        "Validation/images/photo2.jpg": ("val", 1), "Test/images/photo3.jpg": ("test", 1),
    }  # fmt: skip
    assert not found


def test_a_class_list_counts_when_it_has_all_names(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(3):
        labelme(root / f"{i}.json", CAT)
    put(root / "labels.txt", "__ignore__\n_background_\ndog\ncat\n")
    assert add(tmp_path, root)[0].classes == ("dog", "cat")
    put(root / "labels.txt", "dog\n")
    assert add(tmp_path / "again", root)[0].classes == ("cat",)


def test_annotations_whose_image_is_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(3):
        labelme(root / f"{i}.json", CAT)
    put(tmp_path / "secret.jpg", image_bytes())
    labelme(root / "out.json", CAT, image="../secret.jpg")
    labelme(root / "gone.json", CAT, image="C:\\photos\\gone.jpg")
    labelme(root / "second.json", CAT, image="0.jpg")
    put(root / "kept.jpg", image_bytes())
    labelme(root / "moved.json", CAT, image="C:\\photos\\kept.jpg")
    put(root / "broken.json", '{"shapes": [')
    _, items, found = add(tmp_path, root)
    assert sorted(items) == ["0.jpg", "1.jpg", "2.jpg", "kept.jpg"] and items["kept.jpg"].boxes
    assert where(found) == {
        ("label_without_image", "out.json", None),
        ("label_without_image", "gone.json", None),
        ("same_name", "second.json", None),
        ("bad_json", "broken.json", None),
    }


@pytest.mark.parametrize(
    ("found", "defect"),
    [
        (shape("cat", (9, 9), (9, 20)), ("error", "zero_area", 2)),
        (shape("cat", (90, 9), (99, 20)), ("error", "out_of_frame", 2)),
        (shape("cat", (30, 9), (99, 20)), ("warning", "out_of_frame", 2)),
        (shape("cat", (1, 9), kind="point"), ("info", "other_shape", 2)),
        (shape("cat", (1, 9), (3, 4), kind="circle"), ("info", "other_shape", 2)),
        (shape("cat", (1, 9)), ("error", "malformed", 2)),
        (shape("cat", ("a", 9), (4, 5)), ("error", "malformed", 2)),
        (shape("cat", (float("nan"), 9), (4, 5)), ("error", "malformed", 2)),
        (shape("cat", (True, 9), (4, 5)), ("error", "malformed", 2)),
        ({"label": "cat"}, ("error", "malformed", 2)),
        ({"label": "cat", "points": [1, 2]}, ("error", "malformed", 2)),
        (shape("", (1, 9), (4, 5)), ("error", "bad_class", 2)),
        (shape("dog", (1, 1), (5, 5)), ("warning", "duplicate", 2)),
        ("a string", ("error", "bad_class", 2)),
    ],
)
def test_a_defective_shape_is_named(found: Any, defect: tuple[str, str, int]) -> None:
    data = json.dumps({"shapes": [shape("dog", (1, 1), (5, 5)), found]}).encode()
    labels = parse_shapes(data, (40, 30))
    assert [(d.severity, d.code, d.object) for d in labels.defects] == [defect]
    assert len(labels.boxes) == (2 if defect == ("warning", "out_of_frame", 2) else 1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shapes": 3}', '{"shapes": ' + "[" * 100_000, "nul", "\xff"])
def test_what_is_not_labelme_s_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_shapes(text.encode("latin-1"), (40, 30))


def test_image_data_is_never_decoded(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(2):
        labelme(root / f"{i}.json", CAT, imageData=base64.b64encode(os.urandom(200_000)).decode())
    labelme(root / "2.json", CAT, imageData="not base64 at all", imageHeight=31)
    _, items, found = add(tmp_path, root)
    assert all(item.boxes for item in items.values())
    assert where(found) == {("size_mismatch", "2.json", None)}
