"""Folders of classes through `add`: any spelling of splits, none at all, and what is no set of classes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import Dataset, Item
from engine.errors import DojangError
from tests.datasets.make import folders, image_bytes, put, snapshot

HYMENOPTERA = Path(__file__).parents[2].parent / "shared" / "data" / "hymenoptera"


def add(tmp_path: Path, root: Path) -> tuple[Dataset, dict[str, Item], set[tuple[str, str, str]]]:
    workspace = tmp_path / "workspace"
    dataset = datasets.add(workspace, root, "set")
    found = {(f.severity, f.code, f.file) for f in datasets.findings(workspace, "set")}
    return dataset, {item.path: item for item in datasets.items(workspace, "set")}, found


def test_ants_and_bees(tmp_path: Path) -> None:
    for root in [HYMENOPTERA] if HYMENOPTERA.is_dir() else []:  # not in a bare checkout
        before = snapshot(root)
        dataset, items, found = add(tmp_path, root)
        assert snapshot(root) == before
        assert (dataset.format, dataset.task, dataset.classes) == ("imagefolder", "classify", ("ants", "bees"))
        assert dataset.split_source == "existing"
        assert [c.per_class for c in dataset.counts.per_split.values()] == [
            {"ants": 122, "bees": 121}, {"ants": 70, "bees": 83}, {"ants": 0, "bees": 0},
        ]  # fmt: skip
        assert (dataset.counts.images, dataset.counts.labels) == (396, 396)
        assert all(item.boxes == () and item.label == ("bees" in item.path) for item in items.values())
        assert not found


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("training_set", "validation_set", "test_set"),
        ("Train", "Valid", "Testing"),
        ("1.Training", "2.Validation", "3.Test"),
        ("train_images", "val_images", "test_images"),
        ("TrainSet", "dev", "TestSet"),
        ("학습", "검증", "시험"),
        (unicodedata.normalize("NFD", "훈련데이터"), "검증", "평가"),
    ],
)
def test_spellings_of_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    sizes = {f"{train}/a": 3, f"{train}/b": 2, f"{val}/a": 1, f"{val}/b": 1, f"{test}/a": 1}
    dataset, _, found = add(tmp_path, folders(tmp_path / "set", sizes))
    assert dataset.classes == ("a", "b") and not found
    assert [c.per_class for c in dataset.counts.per_split.values()] == [
        {"a": 3, "b": 2},
        {"a": 1, "b": 1},
        {"a": 1, "b": 0},
    ]


def test_without_splits_one_is_made_by_class(tmp_path: Path) -> None:
    dataset, _, found = add(tmp_path, folders(tmp_path / "set", {"cat": 50, "dog": 30, "emu": 20}))
    assert (dataset.split_source, dataset.split) == ("made", {"ratios": [80.0, 10.0, 10.0], "seed": 0})
    assert [list(c.per_class.values()) for c in dataset.counts.per_split.values()] == [
        [40, 24, 16],
        [5, 3, 2],
        [5, 3, 2],
    ]
    assert not found


def test_without_val_it_is_made_from_train_and_test_stays(tmp_path: Path) -> None:
    sizes = {"training_set/cat": 20, "training_set/dog": 20, "test_set/cat": 5, "test_set/dog": 5}
    dataset, items, _ = add(tmp_path, folders(tmp_path / "set", sizes))
    assert [list(c.per_class.values()) for c in dataset.counts.per_split.values()] == [[18, 18], [2, 2], [5, 5]]
    assert dataset.split == {"ratios": [80.0, 10.0, 0.0], "seed": 0, "test_from": "folders"}
    assert all(item.split == "test" for path, item in items.items() if path.startswith("test_set"))


@pytest.mark.parametrize("test", ["test", "test/test"])
def test_a_test_without_labels_comes_along(tmp_path: Path, test: str) -> None:
    sizes = {"train/cat": 5, "train/dog": 5, "val/cat": 2, "val/dog": 2, test: 3}
    dataset, items, found = add(tmp_path, folders(tmp_path / "set", sizes))
    assert dataset.classes == ("cat", "dog")
    assert (dataset.counts.labelled, dataset.counts.unlabelled, dataset.counts.labels) == (14, 3, 14)
    assert {path for _, _, path in found} == {path for path, item in items.items() if item.label is None}


def test_a_folder_beside_the_splits_is_left_out_and_said(tmp_path: Path) -> None:
    sizes = {"train/cat": 5, "train/dog": 5, "val/cat": 2, "val/dog": 2, "more": 3}
    dataset, _, found = add(tmp_path, folders(tmp_path / "set", sizes))
    assert dataset.counts.images == 14 and found == {("warning", "not_in_split", "more")}


def test_classes_called_like_splits_and_nested_folders(tmp_path: Path) -> None:
    dataset, _, _ = add(tmp_path, folders(tmp_path / "set", {"train": 4, "plane/small": 2, "plane/large": 3}))
    assert dataset.classes == ("plane", "train")
    assert dataset.counts.per_class == {"plane": 5, "train": 4}


def test_korean_classes_in_either_form_are_one(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "고양이")
    sizes = {f"train/{apart}": 2, "train/개": 2, "val/고양이": 1, "val/개": 1}
    dataset, _, _ = add(tmp_path, folders(tmp_path / "set", sizes))
    assert dataset.classes == ("개", "고양이") and dataset.counts.per_class == {"개": 3, "고양이": 3}


@pytest.mark.parametrize(
    "sizes",
    [
        {"cats": 3},
        {"train/cats": 3, "val/cats": 1},
        {"images/train": 3, "images/val": 2},
        {"images": 3, "labels": 3},
        {"JPEGImages": 3, "masks": 3},
        {"train": 3},
    ],
)
def test_what_is_no_set_of_classes(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(DojangError) as error:
        add(tmp_path, folders(tmp_path / "set", sizes))
    assert error.value.code == "NOT_A_DATASET"


def test_a_set_one_level_down_is_pointed_out(tmp_path: Path) -> None:
    root = folders(tmp_path / "archive/animals", {"cat": 2, "dog": 2}).parent
    put(root / "README.md", "hello")
    with pytest.raises(DojangError) as error:
        add(tmp_path, root)
    assert "Did you mean" in error.value.hint and "animals" in error.value.hint


def test_broken_images_and_bad_names_are_found(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"cat": 3, "dog": 3, "a\nb": 1})
    put(root / "cat/broken.jpg", image_bytes()[:-90])
    put(root / "cat/empty.jpg", b"")
    (root / "cat/loop").symlink_to(root)
    dataset, _, found = add(tmp_path, root)
    assert dataset.counts.per_class == {"cat": 3, "dog": 3}
    assert found == {
        ("error", "bad_class", "a\nb"),
        ("info", "no_label", "a\nb/a\nb_00.jpg"),
        ("error", "corrupt_image", "cat/broken.jpg"),
        ("error", "empty_image", "cat/empty.jpg"),
    }


def test_the_hash_is_of_names_labels_and_splits(tmp_path: Path) -> None:
    sizes = {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1}
    first = add(tmp_path / "1", folders(tmp_path / "one", sizes))[0].hash
    other = {key.replace("train", "Training"): count for key, count in sizes.items()}
    root = folders(tmp_path / "two", other)
    for path in (root / "Training").rglob("*.jpg"):
        path.rename(path.with_name(path.name.replace("Training", "train")))
    assert add(tmp_path / "2", root)[0].hash == first
    next((root / "val/cat").iterdir()).rename(root / "val/dog/moved.jpg")
    assert add(tmp_path / "3", root)[0].hash != first
