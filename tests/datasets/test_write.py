"""Written and read back: the same set in every format, and the user's folder never touched."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import datasets
from engine.datasets import Box, Counts, Dataset, Item
from engine.datasets.classes import clean_class
from engine.datasets.layout import lay_out
from engine.datasets.store import content_hash
from engine.datasets.write import export, write
from engine.errors import DojangError
from tests.datasets.make import coco, folders, image_bytes, put, snapshot, yolo
from tests.datasets.test_boxes import spans, stays_inside
from tests.datasets.test_voc import BCCD, twin

FORMATS = ("yolo", "coco", "voc")


@pytest.mark.parametrize("root", [None, *([BCCD] if BCCD.is_dir() else [])])
def test_bccd_goes_through_every_format_and_stays_the_same(tmp_path: Path, root: Path | None) -> None:
    workspace, root = tmp_path / "workspace", root or twin(tmp_path / "cells")
    before = snapshot(root)
    first = datasets.add(workspace, root, "voc")
    boxes = [item.boxes for item in sorted(datasets.items(workspace, "voc"), key=lambda i: (i.split, i.path))]
    for format in FORMATS:
        written = export(workspace, "voc", tmp_path / format, format, images="link")
        assert written.same and (written.images, written.labels) == (first.counts.images, first.counts.labels)
        again = datasets.add(workspace, tmp_path / format, f"as-{format}")
        assert again.format == format and again.hash == first.hash
        assert (again.classes, again.counts, again.findings["error"]) == (first.classes, first.counts, 0)
        items = sorted(datasets.items(workspace, again.name), key=lambda i: (i.split, i.path))
        assert [item.boxes for item in items] == boxes, "to the last bit"
        for other in FORMATS if root != BCCD else ():
            export(workspace, again.name, tmp_path / f"{format}-{other}", other, images="link")
            third = datasets.add(workspace, tmp_path / f"{format}-{other}")
            assert third.hash == first.hash
    assert snapshot(root) == before


# Anything that a file system holds and a person may have called a picture
stems = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda text: len(unicodedata.normalize("NFD", text).encode()) < 150
)
parents = st.sampled_from(
    ["", "a", "a/b", "a-b", "images/x", "그림", unicodedata.normalize("NFD", "그림"), "a/images/b", " c "]
)
names = st.tuples(parents, stems, st.sampled_from([".jpg", ".JPEG", ".png"])).map(
    lambda t: f"{t[0]}/{t[1]}{t[2]}".lstrip("/")
)
class_names = st.text(min_size=1, max_size=20).map(clean_class).filter(bool)
boxes = st.builds(lambda cls, x, y: Box(cls, x[0], y[0], x[1], y[1]), st.integers(0, 2), spans(), spans()).filter(
    lambda box: box.w > 1e-9 and box.h > 1e-9 and stays_inside(box.cx, box.w) and stays_inside(box.cy, box.h)
)
sets = st.tuples(
    st.lists(class_names, min_size=3, max_size=3, unique=True),
    st.dictionaries(names, st.tuples(st.sampled_from(datasets.SPLITS), st.lists(boxes, max_size=3, unique=True)), min_size=1, max_size=6),
)  # fmt: skip


def made(root: Path, classes: list[str], images: dict[str, tuple[str, list[Box]]]) -> tuple[Dataset, list[Item]]:
    """A dataset laid down without a reader, of images whose names may be anything."""
    items = []
    whole = [Box(0, 0.5, 0.5, 1.0, 1.0)]
    for number, (path, (split, found)) in enumerate(
        [("t.jpg", ("train", whole)), ("v.jpg", ("val", whole)), *images.items()]
    ):
        size = (20 + number, 30)
        data = image_bytes(*size, "PNG" if path.endswith("png") else "JPEG")
        put(root / path, data)
        items.append(Item(path, split, *size, tuple(found), True, len(data)))  # type: ignore[arg-type]
    names = tuple(classes)
    hash = content_hash(names, items)
    counts = Counts.of(items, names)
    return Dataset("set", root, "voc", "detect", names, "", "existing", {}, hash, counts, {}), items


@given(sets, st.sampled_from(FORMATS))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, drawn: Any, format: Any) -> None:
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    dataset, items = made(tmp_path / "root", *drawn)
    written = write(dataset, items, tmp_path / "out", format)
    again = datasets.add(tmp_path / "workspace", tmp_path / "out", "set")
    found = datasets.items(tmp_path / "workspace", "set")
    assert again.classes == dataset.classes and again.findings["error"] == 0
    assert sorted(item.boxes for item in found) == sorted(item.boxes for item in items)
    assert sorted(item.bytes for item in found) == sorted(item.bytes for item in items)
    assert (again.hash == dataset.hash) == (not written.renamed) == written.same


def item(path: str, split: str = "train", *found: Box) -> Item:
    return Item(path, split, 40, 30, found, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("by_split", [True, False])
@given(
    paths=st.dictionaries(
        names | names.map(lambda name: f"/data/{name}"), st.sampled_from(datasets.SPLITS), max_size=12
    )
)
def test_places_are_apart_and_in_order(by_split: bool, paths: dict[str, str]) -> None:
    items = [item(path, split) for path, split in paths.items()]
    places = lay_out(items, by_split)
    assert places.keys() == paths.keys()
    for split in datasets.SPLITS if by_split else [None]:
        mine = [place for path, place in places.items() if split in (None, paths[path])]
        assert len({unicodedata.normalize("NFC", place.rpartition(".")[0]).casefold() for place in mine}) == len(mine)


@pytest.mark.parametrize(
    ("paths", "places"),
    [
        (["images/train/a.jpg", "images/train/b.jpg"], ["a.jpg", "b.jpg"]),
        (["a.jpg", "x/b.jpg"], ["a.jpg", "x/b.jpg"]),
        (["one/a.jpg", "two/a.jpg"], ["one/a.jpg", "two/a.jpg"]),
        (["one/a.jpg", "one/a.png"], ["0000001/a.jpg", "0000002/a.png"]),
        (["/data/a.jpg", "b.jpg"], ["0000001/a.jpg", "0000002/b.jpg"]),
        (["x/images/a.jpg", "y/b.jpg"], ["0000001/a.jpg", "0000002/b.jpg"]),
    ],
)
def test_where_images_go(paths: list[str], places: list[str]) -> None:
    assert list(lay_out([item(path) for path in paths], True).values()) == places


def codes(workspace: Path, name: str, folder: Path, format: str = "yolo") -> str:
    with pytest.raises(DojangError) as error:
        export(workspace, name, folder, format)  # type: ignore[arg-type]
    assert error.value.hint
    return error.value.code


def test_nothing_is_written_over_or_into_the_user_s_folder(tmp_path: Path) -> None:
    workspace, root = tmp_path / "workspace", yolo(tmp_path / "data" / "pets")
    datasets.add(workspace, root)
    before = snapshot(tmp_path / "data")
    put(tmp_path / "mine" / "notes.txt", "mine")
    put(tmp_path / "file", "mine")
    (tmp_path / "link").symlink_to(root)
    for folder in (root, root / "export", tmp_path / "data", tmp_path / "link" / "x"):
        assert codes(workspace, "pets", folder) == "BAD_FOLDER"
    for folder in (tmp_path / "mine", tmp_path / "file"):
        assert codes(workspace, "pets", folder) == "EXISTS"
    assert codes(workspace, "pets", tmp_path / "new", "labelme") == "BAD_FORMAT"
    assert codes(workspace, "none", tmp_path / "new") == "NOT_FOUND"
    datasets.add(workspace, folders(tmp_path / "bees", {"a": 2, "b": 2}))
    assert codes(workspace, "bees", tmp_path / "new") == "BAD_TASK"
    assert snapshot(tmp_path / "data") == before and not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert export(workspace, "pets", tmp_path / "empty", "yolo").same


@pytest.mark.parametrize("images", ["copy", "link"])
def test_copies_stand_alone_and_links_do_not(tmp_path: Path, images: str) -> None:
    workspace, root = tmp_path / "workspace", yolo(tmp_path / "pets")
    datasets.add(workspace, root)
    export(workspace, "pets", tmp_path / "out", "coco", images=images)  # type: ignore[arg-type]
    path = tmp_path / "out/images/train/0.jpg"
    assert path.is_symlink() == (images == "link")
    assert path.read_bytes() == (root / "images/train/0.jpg").read_bytes()
    assert (root / "images/train/0.jpg").stat().st_nlink == 1, "no hard link: nothing done to it may reach the user's"


def test_cancelling_and_a_lost_image_leave_nothing(tmp_path: Path) -> None:
    workspace, root = tmp_path / "workspace", yolo(tmp_path / "pets")
    datasets.add(workspace, root)

    class Cancelled(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        export(workspace, "pets", tmp_path / "new/folder/out", "yolo", progress=stop)
    put(root / "images/train/1.jpg", image_bytes() + b"\0")
    assert codes(workspace, "pets", tmp_path / "new/folder/out") == "DATA_CHANGED"
    (root / "images/train/1.jpg").unlink()
    assert codes(workspace, "pets", tmp_path / "new/folder/out") == "MISSING_IMAGE"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pets", "workspace"]


def test_a_full_disk_is_seen_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "workspace"
    datasets.add(workspace, yolo(tmp_path / "pets"))
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert codes(workspace, "pets", tmp_path / "out") == "DISK_FULL"
    assert export(workspace, "pets", tmp_path / "out", "yolo", images="link").images == 5


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    rows = {
        "train/0": "0 0.05 0.5 0.2 0.2\n",
        "train/1": "0 0 0 1 0 1 1 0 1\n0 0 0 1 0 1 1\n",
        "val/2": "1 .5 .5 .5 .5\n",
    }
    rows |= {"train/3": None, "train/4": "rubbish\n", "train/5": ""}  # type: ignore[dict-item]
    first = datasets.add(workspace, yolo(tmp_path / "pets", rows))  # type: ignore[arg-type]
    for format, cut in (("yolo", 0), ("coco", 1), ("voc", 1)):
        written = export(workspace, "pets", tmp_path / format, format)  # type: ignore[arg-type]
        assert not written.same and (written.cut, written.merged) == (cut, 1)
        assert written.left_out == (format != "voc")
        again = datasets.add(workspace, tmp_path / format, format)
        items = {Path(one.path).stem: one for one in datasets.items(workspace, format)}
        assert again.hash != first.hash
        assert items["5"].labelled and items["3"].labelled, "what YOLO took for background is said to be background"
        assert ("4" in items) == (format == "voc")
        if format == "voc":
            assert not items["4"].labelled, "nobody has read what is on it"


def test_unlabelled_images_never_become_background(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    root = twin(tmp_path / "cells")
    (root / "Annotations/cell_04.xml").unlink()
    first = datasets.add(workspace, root)
    for format in FORMATS:
        written = export(workspace, "cells", tmp_path / format, format)  # type: ignore[arg-type]
        again = datasets.add(workspace, tmp_path / format, format)
        assert (written.left_out, again.counts.images) == ((0, 9) if format == "voc" else (1, 8))
        assert (again.hash == first.hash) == (format == "voc") == written.same


def test_what_yolo_takes_for_background_stays_background(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    rows = {"train/0": "0 .5 .5 .2 .2\n", "train/1": None, "val/2": "1 .5 .5 .5 .5\n"}
    first = datasets.add(workspace, yolo(tmp_path / "pets", rows))  # type: ignore[arg-type]
    for format in FORMATS:
        assert export(workspace, "pets", tmp_path / format, format).same  # type: ignore[arg-type]
        assert datasets.add(workspace, tmp_path / format, format).hash == first.hash
    put(tmp_path / "pets/labels/train/1.txt", "rubbish\n")
    assert datasets.add(workspace, tmp_path / "pets", "other").hash != first.hash, "it is not used any more"


def test_images_from_everywhere_and_names_twice(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    yolo(tmp_path / "other")
    root = yolo(
        tmp_path / "set", {"train/0": "0 .5 .5 .5 .5\n", "train/1": "1 .25 .5 .5 .5\n", "val/0": "0 .5 .5 .5 .25\n"}
    )
    put(root / "images/train/0.png", image_bytes(kind="PNG"))
    put(
        root / "data.yaml",
        f"train: [images/train, {tmp_path}/other/images/train]\nval: images/val\nnames: [cat, dog]\n",
    )
    first = datasets.add(workspace, root)
    assert codes(workspace, "set", tmp_path / "other/images/train/new") == "BAD_FOLDER"
    for format in FORMATS:
        assert export(workspace, "set", tmp_path / format, format).same  # type: ignore[arg-type]
        assert datasets.add(workspace, tmp_path / format, format).hash == first.hash


def test_what_others_need_is_there(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    root = tmp_path / "set"
    for split in ("train", "val"):
        coco(root / f"{split}.json", {f"{split}.jpg": [(1, [1, 2, 3, 4.5])]}, folder=root / "images")
    datasets.add(workspace, root)
    export(workspace, "set", tmp_path / "coco", "coco")
    (annotation,) = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())["annotations"]
    assert annotation == {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4.5], "area": 13.5, "segmentation": [], "iscrowd": 0,
    }  # fmt: skip
    export(workspace, "set", tmp_path / "voc", "voc")
    assert (tmp_path / "voc/ImageSets/Main/trainval.txt").read_text() == "train\nval\n"
    export(workspace, "set", tmp_path / "yolo", "yolo")
    assert (
        (tmp_path / "yolo/data.yaml").read_text().startswith("train: images/train\nval: images/val\nnames:\n  0: cat\n")
    )


def test_file_modes_are_a_new_file_s(tmp_path: Path) -> None:
    workspace, root = tmp_path / "workspace", yolo(tmp_path / "pets")
    for path in (root / "images").rglob("*.jpg"):
        path.chmod(0o400)
    datasets.add(workspace, root)
    export(workspace, "pets", tmp_path / "out", "voc")
    assert (tmp_path / "out/JPEGImages/train/0.jpg").stat().st_mode & 0o200
