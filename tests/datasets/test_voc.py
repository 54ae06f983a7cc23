"""Pascal VOC folders through `add`: a miniature twin of BCCD with its defects always, BCCD itself where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import Dataset, Item
from tests.datasets.make import Corners, image_bytes, put, snapshot, voc, xml

BCCD = Path(__file__).parents[2].parent / "shared" / "data" / "bccd"
CAT: tuple[str, Corners] = ("cat", (4, 3, 20, 18))


def add(tmp_path: Path, root: Path) -> tuple[Dataset, dict[str, Item], set[tuple[str, str, int | None]]]:
    dataset = datasets.add(tmp_path / "workspace", root, "set")
    found = datasets.findings(tmp_path / "workspace", "set")
    items = {Path(item.path).stem: item for item in datasets.items(tmp_path / "workspace", "set")}
    return dataset, items, {(f.code, f.file, f.object) for f in found}


def twin(root: Path) -> Path:
    """BCCD in small: three kinds of cells, given splits, and two boxes without area."""
    cells: list[tuple[str, Corners]] = [("RBC", (1, 1, 9, 9)), ("RBC", (11, 1, 19, 9)), ("WBC", (20, 10, 38, 28))]
    annotations: dict[str, str | None] = {f"cell_{i:02d}": xml(cells) for i in range(9)}
    annotations["cell_03"] = xml([*cells, ("Platelets", (30, 1, 34, 5)), ("RBC", (39, 29, 39, 29))])
    annotations["cell_07"] = xml([("RBC", (18, 12, 18, 12)), *cells])
    stems = sorted(annotations)
    lists = {"train": stems[:5], "val": stems[5:7], "trainval": stems[:7], "test": stems[7:]}
    return voc(root, annotations, lists)


def test_the_twin_of_bccd(tmp_path: Path) -> None:
    root = twin(tmp_path / "cells")
    before = snapshot(root)
    dataset, items, found = add(tmp_path, root)
    assert snapshot(root) == before
    assert (dataset.format, dataset.split_source, dataset.split) == ("voc", "existing", {"from": "ImageSets/Main"})
    assert dataset.classes == ("RBC", "WBC", "Platelets")
    assert [c.images for c in dataset.counts.per_split.values()] == [5, 2, 2]
    assert dataset.counts.per_class == {"RBC": 18, "WBC": 9, "Platelets": 1}
    assert dataset.counts.per_split["test"].per_class == {"RBC": 4, "WBC": 2, "Platelets": 0}
    assert found == {("zero_area", "Annotations/cell_03.xml", 5), ("zero_area", "Annotations/cell_07.xml", 1)}
    assert items["cell_03"].boxes[3] == (2, 32 / 40, 3 / 30, 4 / 40, 4 / 30)


def test_bccd(tmp_path: Path) -> None:
    for root in [BCCD] if BCCD.is_dir() else []:  # not in a bare checkout
        before = snapshot(root)
        dataset, _, found = add(tmp_path, root)
        assert snapshot(root) == before
        assert [c.images for c in dataset.counts.per_split.values()] == [205, 87, 72]
        assert set(dataset.classes) == {"RBC", "WBC", "Platelets"}
        assert dataset.counts.per_class == {"RBC": 4153, "WBC": 372, "Platelets": 361}
        assert found == {
            ("zero_area", "Annotations/BloodImage_00338.xml", 13),
            ("zero_area", "Annotations/BloodImage_00343.xml", 4),
        }


def test_without_lists_a_split_is_made(tmp_path: Path) -> None:
    dataset, _, found = add(tmp_path, voc(tmp_path / "set", {f"i{i:02d}": xml([CAT]) for i in range(20)}))
    assert (dataset.split_source, dataset.split) == ("made", {"ratios": [80.0, 10.0, 10.0], "seed": 0})
    assert [c.images for c in dataset.counts.per_split.values()] == [16, 2, 2]
    assert not found


@pytest.mark.parametrize("names", [("trainval",), ("train",), ("trainval", "train"), ("val",)])
def test_with_less_than_train_and_val_the_rest_is_divided(tmp_path: Path, names: tuple[str, ...]) -> None:
    stems = [f"i{i:02d}" for i in range(21)]
    lists = dict.fromkeys(names, stems[:18]) | {"test": stems[18:20]}
    dataset, items, found = add(tmp_path, voc(tmp_path / "set", {stem: xml([CAT]) for stem in stems}, lists))
    assert [c.images for c in dataset.counts.per_split.values()] == [16, 2, 2]
    assert {stem for stem, item in items.items() if item.split == "test"} == set(stems[18:20])
    assert found == {("not_in_split", "JPEGImages/i20.jpg", None)}


def test_val_and_train_are_disjoint_whatever_the_lists_say(tmp_path: Path) -> None:
    annotations: dict[str, str | None] = {f"i{i}": xml([CAT]) for i in range(6)}
    lists = {"train": ["i0", "i1", "i2", "i3"], "val": ["i3", "i4"], "test": ["i4", "i5", "i0"]}
    _, items, found = add(tmp_path, voc(tmp_path / "set", annotations, lists))
    assert {stem: item.split for stem, item in items.items()} == {
        "i0": "test", "i1": "train", "i2": "train", "i3": "val", "i4": "test", "i5": "test",
    }  # fmt: skip
    assert found == {("in_two_splits", f"JPEGImages/i{i}", None) for i in (0, 3, 4)}


@pytest.mark.parametrize("empty", [None, xml([])])
def test_a_split_whose_val_has_no_object_is_divided_anew(tmp_path: Path, empty: str | None) -> None:
    annotations: dict[str, str | None] = {f"i{i}": xml([CAT]) for i in range(10)} | {"bare": empty}
    dataset, _, found = add(tmp_path, voc(tmp_path / "set", annotations, {"train": list(annotations), "val": ["bare"]}))
    assert dataset.split_source == "made" and dataset.counts.per_split["val"].labelled == 1
    assert ("split_without_objects", "ImageSets/Main", None) in found


def test_what_is_missing_broken_or_left_over_is_reported(tmp_path: Path) -> None:
    annotations: dict[str, str | None] = {f"i{i}": xml([CAT]) for i in range(5)}
    annotations |= {"bad": "<annotation>", "evil": "<!DOCTYPE a><annotation/>", "bare": None, "none": xml([])}
    root = voc(tmp_path / "set", annotations)
    put(root / "Annotations" / "lonely.xml", xml([CAT]))
    put(root / "JPEGImages" / "i0.png", image_bytes(kind="PNG"))
    dataset, items, found = add(tmp_path, root)
    assert found == {
        ("bad_xml", "Annotations/bad.xml", None),
        ("unsafe_xml", "Annotations/evil.xml", None),
        ("no_label", "JPEGImages/bare.jpg", None),
        ("label_without_image", "Annotations/lonely.xml", None),
        ("same_name", "JPEGImages/i0.png", None),
    }
    assert set(items) == {"i0", "i1", "i2", "i3", "i4", "bare", "none"}
    assert items["none"].labelled and not items["bare"].labelled
    assert (dataset.counts.labelled, dataset.counts.unlabelled) == (6, 1)


def test_lists_of_file_names_and_of_missing_images(tmp_path: Path) -> None:
    lists = {"train": ["i0.jpg", "i1.jpg", "gone"], "val": ["i2.jpg"]}
    dataset, _, found = add(tmp_path, voc(tmp_path / "set", {f"i{i}": xml([CAT]) for i in range(3)}, lists))
    assert [c.images for c in dataset.counts.per_split.values()] == [2, 1, 0]
    assert found == {("missing_image", "JPEGImages/gone", None)}


def test_boxes_are_measured_in_the_image_as_shown(tmp_path: Path) -> None:
    root = voc(tmp_path / "set", {f"i{i}": xml([("cat", (0, 0, 15, 20))], (30, 40)) for i in range(2)})
    for path in (root / "JPEGImages").iterdir():
        put(path, image_bytes(40, 30, orientation=6))
    _, items, found = add(tmp_path, root)
    assert (items["i0"].width, items["i0"].height) == (30, 40)
    assert items["i0"].boxes == ((0, 0.25, 0.25, 0.5, 0.5),) and not found
