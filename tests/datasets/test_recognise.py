"""Which format a folder is taken for, and what is said when it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import datasets
from engine.datasets.coco import annotation_files
from engine.datasets.model import FORMATS
from engine.datasets.parts import MOST_FILES, split_of
from engine.datasets.recognise import NEEDS, open_source
from engine.datasets.table import tables
from engine.errors import DojangError
from tests.datasets.make import coco, folders, image_bytes, labelme, put, shape, voc, xml, yolo

CAT = shape("cat", (4, 3), (20, 18))


def make(root: Path, format: str) -> Path:
    """A small set of that format."""
    if format == "yolo":
        return yolo(root)
    if format == "voc":
        return voc(root, {f"{i}": xml([("cat", (1, 1, 9, 9))]) for i in range(4)})
    if format == "coco":
        coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 8, 8])] for i in range(4)}, folder=root / "data")
    elif format == "labelme":
        for i in range(4):
            labelme(root / f"{i}.json", CAT)
    elif format == "imagefolder":
        folders(root, {"cat": 3, "dog": 3})
    else:
        for i in range(4):
            put(root / f"{i}.jpg", image_bytes())
        put(root / "labels.csv", "".join(f"{i}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(4)))
    return root


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_recognised_and_may_be_given(tmp_path: Path, format: str) -> None:
    root = make(tmp_path / "set", format)
    assert open_source(root).format == format
    assert datasets.add(tmp_path / "w", root, format=format).format == format  # type: ignore[arg-type]
    for other in FORMATS:
        if other != format:
            with pytest.raises(DojangError) as error:
                open_source(root, format=other)
            assert error.value.code == "NOT_A_DATASET" and NEEDS[other] in error.value.hint


def test_what_is_said_in_so_many_words_comes_first_but_another_may_be_given(tmp_path: Path) -> None:
    root = make(make(make(tmp_path / "set", "imagefolder"), "csv"), "coco")
    assert open_source(root).format == "coco"
    assert open_source(root, format="imagefolder").format == "imagefolder"
    assert open_source(root, format="csv").format == "csv"


def test_a_file_for_each_image_is_not_opened_to_see_if_it_is_about_all(tmp_path: Path) -> None:
    for i in range(MOST_FILES + 1):
        coco(tmp_path / f"{i:03d}.json", {})
        put(tmp_path / f"{i:03d}.csv", "path,label\n")
    assert annotation_files(tmp_path) == tables(tmp_path) == []
    (tmp_path / "000.json").unlink()
    assert len(annotation_files(tmp_path)) == MOST_FILES


def test_a_format_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DojangError) as error:
        open_source(tmp_path, format="tfrecord")  # type: ignore[arg-type]
    assert error.value.code == "BAD_FORMAT" and "coco" in error.value.hint


def test_a_file_that_is_no_dataset(tmp_path: Path) -> None:
    for name in ("set.zip", "notes.json", "photo.jpg"):
        with pytest.raises(DojangError) as error:
            open_source(put(tmp_path / name, '{"a": 1}'))
        assert error.value.code == "NOT_A_DATASET"


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    root = make(tmp_path / "set", "imagefolder")
    (root / "cat/again").symlink_to(root)
    (root / "self").symlink_to("self")
    assert datasets.add(tmp_path / "w", root).counts.images == 6


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Train2017", "train"), ("training_set", "train"), ("TRAINSET", "train"), ("01-train", "train"),
        ("valid", "val"), ("Validation data", "val"), ("dev", "val"), ("검증", "val"),
        ("test", "test"), ("testing", "test"), ("test_images", "test"),
        ("trains", None), ("contest", None), ("train_val", None), ("test results", None), ("cat", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_file_may_say_more_than_its_split() -> None:
    assert split_of("instances_val2017", alone=False) == "val"
    assert split_of("instances_trainval", alone=False) is None
    assert split_of("captions_train_val", alone=False) is None
