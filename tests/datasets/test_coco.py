"""COCO files through `add`: where their images are, which split they are, what of them is used and what is refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from engine import datasets
from engine.datasets import Dataset, Finding, Item
from engine.errors import DojangError
from tests.datasets.make import coco, image_bytes, put

BOX = (1, [4, 3, 16, 15])
DOG = (7, [0.5, 1.25, 10.1, 7.7])
Objects = dict[str, list[tuple[int, list[Any]]]]


def names(*numbers: int) -> Objects:
    return {f"{i}.jpg": [BOX, DOG] for i in numbers}


def add(tmp_path: Path, path: Path) -> tuple[Dataset, dict[str, Item], list[Finding]]:
    workspace = tmp_path / "workspace"
    dataset = datasets.add(workspace, path, "set")
    return dataset, {item.path: item for item in datasets.items(workspace, "set")}, datasets.findings(workspace, "set")


def where(found: list[Finding]) -> set[tuple[str, str, int | None]]:
    return {(finding.code, finding.file, finding.object) for finding in found}


def fault(tmp_path: Path, path: Path) -> DojangError:
    with pytest.raises(DojangError) as error:
        datasets.add(tmp_path / "workspace", path, "set")
    assert error.value.hint
    return error.value


def test_coco_s_own_layout(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    coco(root / "annotations/instances_train2017.json", names(0, 1, 2), folder=root / "train2017")
    coco(root / "annotations/instances_val2017.json", names(3), folder=root / "val2017")
    put(root / "annotations/captions_train2017.json", '{"images": [], "annotations": []}')
    dataset, items, found = add(tmp_path, root)
    assert (dataset.format, dataset.task, dataset.classes) == ("coco", "detect", ("cat", "dog"))
    assert {path: item.split for path, item in items.items()} == {
        "train2017/0.jpg": "train", "train2017/1.jpg": "train", "train2017/2.jpg": "train", "val2017/3.jpg": "val",
    }  # fmt: skip
    assert dataset.split_source == "existing"
    box, dog = items["val2017/3.jpg"].boxes
    assert box == (0, 12 / 40, 10.5 / 30, 16 / 40, 15 / 30)
    assert dog == (1, 0.13875, 0.17, 0.2525, 7.7 / 30), "decimals are added as decimals"
    assert not found


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("labels.json", "data"),
        ("annotations.json", "images"),
        ("_annotations.coco.json", "."),
        ("annotations/all.json", "images"),
        ("annotations/all.json", "."),
        ("annotations/all.json", "annotations"),
    ],
)
def test_one_file_wherever_its_images_are(tmp_path: Path, file: str, images: str) -> None:
    root = tmp_path / "set"
    path = coco(root / file, names(*range(10)), folder=root / images)
    for given in (root, path):
        dataset, items, found = add(tmp_path / given.name, given)
        assert dataset.root == root and len(items) == 10 and not found
        assert dataset.split == {"ratios": [80.0, 10.0, 10.0], "seed": 0}


def test_roboflow_s_folders(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, numbers in (("train", (0, 1)), ("valid", (2,)), ("test", (3,))):
        coco(root / split / "_annotations.coco.json", names(*numbers), folder=root / split)
    _, items, found = add(tmp_path, root)
    assert {path: item.split for path, item in items.items()} == {
        "train/0.jpg": "train", "train/1.jpg": "train", "valid/2.jpg": "val", "test/3.jpg": "test",
    }  # fmt: skip
    assert not found


def test_the_same_names_in_every_split_are_different_images(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        coco(root / f"annotations/{split}.json", names(0, 1), folder=root / "images" / split)
    _, items, _ = add(tmp_path, root)
    assert sorted(items) == [f"images/{split}/{i}.jpg" for split in ("train", "val") for i in (0, 1)]


def test_without_val_train_is_divided_and_test_stays(tmp_path: Path) -> None:
    root = tmp_path / "set"
    coco(root / "train.json", names(*range(10)), folder=root / "images")
    coco(root / "test.json", names(10, 11), folder=root / "images")
    dataset, _, _ = add(tmp_path, root)
    assert [c.images for c in dataset.counts.per_split.values()] == [9, 1, 2]
    assert dataset.split == {"ratios": [80.0, 10.0, 0.0], "seed": 0, "test_from": "test.json, train.json"}


def test_several_files_that_say_no_split(tmp_path: Path) -> None:
    root = tmp_path / "set"
    first = coco(root / "a.json", names(0, 1), folder=root)
    coco(root / "b.json", names(1, 2), folder=root)
    error = fault(tmp_path, root)
    assert error.code == "AMBIGUOUS" and "a.json" in error.hint
    assert len(add(tmp_path, first)[1]) == 2
    coco(root / "train.json", names(0, 1), folder=root)
    _, items, found = add(tmp_path / "again", root)
    assert len(items) == 2 and ("not_in_split", "a.json", None) in where(found)


def test_categories_of_any_number_in_any_order_and_of_several_files(tmp_path: Path) -> None:
    root = tmp_path / "set"
    first = {90: "dog", 3: " cat ", 17: "bird"}
    coco(root / "train.json", {"0.jpg": [(90, [1, 1, 5, 5]), (3, [2, 2, 5, 5])]}, first, folder=root)
    coco(root / "val.json", {"1.jpg": [(0, [1, 1, 5, 5]), (1, [3, 3, 5, 5])]}, {0: "dog", 1: "fish"}, folder=root)
    dataset, items, _ = add(tmp_path, root)
    assert dataset.classes == ("cat", "bird", "dog", "fish")
    assert [box.cls for box in items["0.jpg"].boxes] == [2, 0]
    assert [box.cls for box in items["1.jpg"].boxes] == [2, 3]


def edited(root: Path, **arrays: list[Any]) -> Path:
    """A file of two images with more elements in its arrays."""
    path = coco(root / "labels.json", names(0, 1), folder=root)
    data = json.loads(path.read_text())
    return put(
        path, json.dumps({key: value + arrays.get(key, []) if key in arrays else value for key, value in data.items()})
    )


def test_crowds_are_left_out_and_said(tmp_path: Path) -> None:
    crowd = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1, "segmentation": {"counts": "x"}}
    edited(tmp_path / "set", annotations=[crowd, crowd])
    _, items, found = add(tmp_path, tmp_path / "set")
    assert len(items["0.jpg"].boxes) == 2
    assert [(f.severity, f.code) for f in found] == [("info", "crowd")] and "2 crowd" in found[0].message


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, 0, 4]}, "zero_area"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, -3, 4]}, "inverted"),
        ({"image_id": 0, "category_id": 1, "bbox": [50, 5, 3, 4]}, "out_of_frame"),
        ({"image_id": 0, "category_id": 1, "bbox": [30, 5, 30, 4]}, "out_of_frame"),
        ({"image_id": 0, "category_id": 1, "bbox": [4, 3, 16, 15]}, "duplicate"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, 3]}, "malformed"),
        ({"image_id": 0, "category_id": 1, "bbox": "5 5 3 4"}, "malformed"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, 3, True]}, "malformed"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, 3, float("nan")]}, "malformed"),
        ({"image_id": 0, "category_id": 1, "bbox": [5, 5, float("inf"), 3]}, "malformed"),
        ({"image_id": 0, "category_id": 1}, "malformed"),
        ({"image_id": 0, "category_id": 2, "bbox": [5, 5, 3, 4]}, "bad_class"),
        ({"image_id": 0, "category_id": [], "bbox": [5, 5, 3, 4]}, "malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [5, 5, 3, 4]}, "label_without_image"),
        ({"image_id": {}, "category_id": 1, "bbox": [5, 5, 3, 4]}, "malformed"),
        ("a string", "malformed"),
        (None, "malformed"),
    ],
)
def test_a_defective_annotation_is_named(tmp_path: Path, annotation: Any, code: str) -> None:
    edited(tmp_path / "set", annotations=[annotation])
    _, items, found = add(tmp_path, tmp_path / "set")
    assert where(found) == {(code, "labels.json", 5)}
    kept = 3 if (code, found[0].severity) == ("out_of_frame", "warning") else 2
    assert len(items["0.jpg"].boxes) == kept and len(items["1.jpg"].boxes) == 2
    assert found[0].image == ("0.jpg" if code not in ("label_without_image",) and isinstance(annotation, dict)
                              and annotation["image_id"] == 0 else "")  # fmt: skip


@pytest.mark.parametrize(
    ("image", "code", "file"),
    [
        ({"id": 5, "file_name": "gone.jpg", "width": 1, "height": 1}, "missing_image", "gone.jpg"),
        ({"id": 5, "file_name": "../../secret.jpg"}, "outside_folder", "labels.json"),
        ({"id": 5, "file_name": "..\\..\\secret.jpg"}, "outside_folder", "labels.json"),
        ({"id": 5, "file_name": "notes.md"}, "malformed", "labels.json"),
        ({"id": 5, "file_name": 7}, "malformed", "labels.json"),
        ({"id": 0, "file_name": "1.jpg"}, "malformed", "labels.json"),
        ({"id": 5, "file_name": "1.jpg"}, "listed_twice", "1.jpg"),
        ({"file_name": "1.jpg"}, "malformed", "labels.json"),
        ({"id": 5, "file_name": "0.jpg\0"}, "malformed", "labels.json"),
        (17, "malformed", "labels.json"),
    ],
)
def test_a_defective_image_is_named(tmp_path: Path, image: Any, code: str, file: str) -> None:
    edited(tmp_path / "set", images=[image])
    put(tmp_path / "secret.jpg", image_bytes())
    _, items, found = add(tmp_path, tmp_path / "set")
    assert {(f.code, f.file) for f in found} == {(code, file)}
    assert sorted(items) == ["0.jpg", "1.jpg"]


def test_an_image_whose_objects_are_all_unreadable_is_no_background(tmp_path: Path) -> None:
    path = coco(
        tmp_path / "set/labels.json", {**names(0, 1), "2.jpg": [], "3.jpg": [(1, [1])]}, folder=tmp_path / "set"
    )
    _, items, _ = add(tmp_path, path)
    assert items["2.jpg"].labelled and not items["3.jpg"].labelled


def test_images_that_no_file_names_and_another_size(tmp_path: Path) -> None:
    path = coco(tmp_path / "set/labels.json", names(0, 1), size=(400, 300), folder=tmp_path / "set")
    put(tmp_path / "set/left.jpg", image_bytes())
    _, items, found = add(tmp_path, path)
    assert "left.jpg" not in items
    assert where(found) == {("not_in_split", "left.jpg", None), ("size_mismatch", "labels.json", None)}


def test_absolute_names_of_a_set_that_was_moved(tmp_path: Path) -> None:
    root = tmp_path / "set"
    coco(root / "labels.json", {f"/gone/{i}.jpg": [BOX] for i in range(2)})
    for i in range(2):
        put(root / "images" / f"{i}.jpg", image_bytes())
    _, items, found = add(tmp_path, root)
    assert sorted(items) == ["images/0.jpg", "images/1.jpg"] and not found


def test_korean_names_in_either_form(tmp_path: Path) -> None:
    root = tmp_path / "set"
    apart = unicodedata.normalize("NFD", "그림/강아지.jpg")
    put(root / "images" / apart, image_bytes())
    coco(root / "labels.json", {"그림/강아지.jpg": [BOX], "a.jpg": [BOX]}, {1: unicodedata.normalize("NFD", "개")})
    put(root / "images/a.jpg", image_bytes())
    dataset, items, found = add(tmp_path, root)
    assert dataset.classes == ("개",) and not found
    assert {unicodedata.normalize("NFC", path) for path in items} == {"images/그림/강아지.jpg", "images/a.jpg"}


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [',
        '{"images": [], "annotations": [], "categories": []} more',
        '{"images": [,]}',
        '{"images": [], "annotations": ' + "[" * 100_000,
        '{"images": [], "annotations": [' + "9" * 10_000 + "]}",
        '{"images": [], "annotations": [1e99999999999999999999]}',
        '{"images": [{"id": 1, "file_name": "\xff"}]}',
        '{"images": [], "annotations": []}',
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}',
    ],
)
def test_broken_files_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    path = put(tmp_path / "set/labels.json", text.encode("latin-1"))
    error = fault(tmp_path, path)
    assert str(path) in error.message and error.code == "BAD_COCO"
    assert not (tmp_path / "workspace").exists()
