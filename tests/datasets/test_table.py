"""Tables of images and labels through `add`: which column is what, where images are, and rows that contradict."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import Dataset, Finding, Item
from engine.errors import DojangError
from tests.datasets.make import image_bytes, put

ROWS = [(f"{i}.jpg", "cat" if i % 2 else "dog") for i in range(10)]


def table(path: Path, rows: list[tuple[str, ...]], mark: str = ",", images: str = "") -> Path:
    for row in rows:
        name = next((cell for cell in row if cell.endswith(".jpg")), None)
        if name and ".." not in name:
            put(path.parent / images / name, image_bytes())
    return put(path, "".join(mark.join(row) + "\n" for row in rows))


def add(tmp_path: Path, path: Path) -> tuple[Dataset, dict[str, Item], list[Finding]]:
    workspace = tmp_path / "workspace"
    dataset = datasets.add(workspace, path, "set")
    return dataset, {item.path: item for item in datasets.items(workspace, "set")}, datasets.findings(workspace, "set")


def where(found: list[Finding]) -> set[tuple[str, str, int | None]]:
    return {(finding.code, finding.file, finding.object) for finding in found}


@pytest.mark.parametrize("header", [None, ("path", "label"), ("Label", "Filename"), ("picture", "what")])
@pytest.mark.parametrize(("name", "mark"), [("labels.csv", ","), ("labels.csv", ";"), ("labels.tsv", "\t")])
@pytest.mark.parametrize("images", ["", "images", "labels"])
def test_path_and_label(tmp_path: Path, header: tuple[str, str] | None, name: str, mark: str, images: str) -> None:
    rows: list[tuple[str, ...]] = [row[::-1] if header == ("Label", "Filename") else row for row in ROWS]
    path = table(tmp_path / "set" / name, ([header] if header else []) + rows, mark, images)
    for given in (path, path.parent):
        dataset, items, found = add(tmp_path / given.name, given)
        assert (dataset.format, dataset.task, dataset.classes) == ("csv", "classify", ("cat", "dog"))
        assert [c.images for c in dataset.counts.per_split.values()] == [8, 1, 1] and not found
        assert items[f"{images}/1.jpg".lstrip("/")].label == 0


def test_a_column_says_the_split(tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["valid"] * 2 + ["Testing", ""]
    path = table(
        tmp_path / "set/labels.csv",
        [("image", "split", "label"), *((n, p, c) for (n, c), p in zip(ROWS, parts, strict=True))],
    )
    dataset, _, found = add(tmp_path, path)
    assert [c.images for c in dataset.counts.per_split.values()] == [6, 2, 1]
    assert where(found) == {("not_in_split", "9.jpg", None)}


def test_three_columns_without_a_header(tmp_path: Path) -> None:
    rows = [("train" if i < 7 else "val", *row) for i, row in enumerate(ROWS)]
    dataset, _, _ = add(tmp_path, table(tmp_path / "set/labels.csv", rows))
    assert [c.images for c in dataset.counts.per_split.values()] == [7, 3, 0]


def test_a_table_for_each_split(tmp_path: Path) -> None:
    root = tmp_path / "set"
    table(root / "train.csv", [("id", "breed"), *((n.removesuffix(".jpg"), c) for n, c in ROWS[:6])])
    table(root / "val.csv", [("id", "breed"), *((n.removesuffix(".jpg"), c) for n, c in ROWS[6:])])
    put(root / "sample_submission.csv", "id,breed\n1,cat\n")
    for name, _ in ROWS:
        put(root / ("train" if int(name[0]) < 6 else "val") / name, image_bytes())
    dataset, items, found = add(tmp_path, root)
    assert [c.images for c in dataset.counts.per_split.values()] == [6, 4, 0]
    assert set(items) == {f"{'train' if int(n[0]) < 6 else 'val'}/{n}" for n, _ in ROWS}
    assert where(found) == {("not_in_split", "sample_submission.csv", None)}


def test_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    dataset, _, _ = add(
        tmp_path, table(tmp_path / "set/labels.csv", [(n, str(i + 1)) for i, (n, _) in enumerate(ROWS)])
    )
    assert dataset.classes == tuple(map(str, range(1, 11)))


def test_rows_that_are_defective_or_contradict_are_named(tmp_path: Path) -> None:
    path = table(tmp_path / "set/labels.csv", ROWS)
    put(tmp_path / "secret.jpg", image_bytes())
    with path.open("a") as f:
        f.write("0.jpg,dog\n1.jpg,dog\nnotes.txt,cat\n../secret.jpg,cat\nshort\ngone.jpg,cat\n2.jpg,\n")
    put(tmp_path / "set/new.jpg", image_bytes())
    with path.open("a") as f:
        f.write('new.jpg,"\x07"\n')
    _, items, found = add(tmp_path, path)
    assert where(found) == {
        ("listed_twice", "labels.csv", 11),
        ("two_labels", "labels.csv", 12),
        ("malformed", "labels.csv", 13),
        ("outside_folder", "labels.csv", 14),
        ("malformed", "labels.csv", 15),
        ("missing_image", "gone.jpg", None),
        ("two_labels", "labels.csv", 17),
        ("no_label", "1.jpg", None),
        ("no_label", "2.jpg", None),
        ("no_label", "new.jpg", None),
    }
    assert items["0.jpg"].label == 1 and items["1.jpg"].label is None


def test_an_image_in_two_splits_judges(tmp_path: Path) -> None:
    rows = [(n, c, "train" if i < 7 else "val") for i, (n, c) in enumerate(ROWS)] + [("0.jpg", "dog", "val")]
    _, items, found = add(tmp_path, table(tmp_path / "set/labels.csv", rows))
    assert items["0.jpg"].split == "val"
    assert ("in_two_splits", "0.jpg", None) in where(found)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c,d\n1,2,3,4\n",
        "x.jpg,y.jpg\n",
        "just words\n",
        "",
        "id,label\xff\n1.jpg,cat\n",
        '"' + "x" * 200_000,
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str) -> None:
    path = put(tmp_path / "set/labels.csv", text.encode("latin-1"))
    for given, codes in ((path, ("NOT_A_DATASET", "BAD_TABLE")), (path.parent, ("NOT_A_DATASET",))):
        with pytest.raises(DojangError) as error:
            add(tmp_path, given)
        assert error.value.code in codes and error.value.hint


@pytest.mark.parametrize("tail", [b"\xff\n", b'x.jpg,"' + b"y" * 200_000])
def test_a_table_that_breaks_off_is_refused_with_its_name(tmp_path: Path, tail: bytes) -> None:
    path = table(tmp_path / "set/labels.csv", ROWS * 5)
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(DojangError) as error:
        add(tmp_path, path)
    assert error.value.code == "BAD_TABLE" and str(path) in error.value.message


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    os.mkfifo(tmp_path / "set/labels.csv")
    with pytest.raises(DojangError):
        add(tmp_path, tmp_path / "set")
