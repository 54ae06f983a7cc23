"""One of each kind of finding is planted, and the doctor tells it, with what it does to a training and what to do."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import datasets
from engine.datasets import doctor
from engine.datasets.kinds import KINDS
from tests.datasets.make import coco, image_bytes, labelme, picture, picture_bytes, put, shape, voc, xml, yolo

CAT = ("cat", (4, 3, 20, 18))
ROW = "0 0.5 0.5 0.2 0.2\n"
NAMES = "names: [cat, dog]\n"
Plant = Callable[[Path], Path]


def saved(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def image(data: bytes, key: str = "train/new", suffix: str = ".jpg", rows: str | None = ROW) -> Plant:
    """A YOLO set with one more image."""

    def make(root: Path) -> Path:
        put(yolo(root) / f"images/{key}{suffix}", data)
        if rows is not None:
            put(root / f"labels/{key}.txt", rows)
        return root

    return make


def row(text: str, size: tuple[int, int] = (64, 48)) -> Plant:
    """The same with an image to look at, and a row beside the good one."""
    return image(picture_bytes(50, size), rows=ROW + text)


def yaml(text: str) -> Plant:
    return lambda root: yolo(root, yaml=text + NAMES)


def listed(lines: str) -> Plant:
    def make(root: Path) -> Path:
        put(yolo(root) / "train.txt", "images/train/0.jpg\nimages/train/1.jpg\n" + lines)
        put(root.parent / "secret.jpg", image_bytes())
        return put(root / "data.yaml", "train: train.txt\nval: images/val\n" + NAMES)

    return make


def annotation(text: str) -> Plant:
    return lambda root: voc(root, {"bad": text} | {f"i{i}": xml([CAT]) for i in range(4)})


def shapes(*found: dict[str, Any], **more: Any) -> Plant:
    def make(root: Path) -> Path:
        for i in range(4):
            labelme(root / f"{i}.json", shape("cat", (1, 1), (9, 9)))
        labelme(root / "bad.json", *found, **more)
        return root

    return make


def line(text: str) -> Plant:
    def make(root: Path) -> Path:
        for i in range(6):
            put(root / f"{i}.jpg", picture_bytes(i))
        rows = "".join(f"{i}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(6))
        return put(root / "labels.csv", rows + text)

    return make


def annotations(*more: dict[str, Any]) -> Plant:
    def make(root: Path) -> Path:
        path = coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 5, 5])] for i in range(4)}, folder=root)
        data = json.loads(path.read_text())
        return put(path, json.dumps(data | {"annotations": [*data["annotations"], *more]}))

    return make


def many(counts: dict[str, tuple[int, str]], yaml: str = "train: images/train\nval: images/val\n" + NAMES) -> Plant:
    """So many different images in each split, all of them with those rows."""

    def make(root: Path) -> Path:
        for s, (split, (count, rows)) in enumerate(counts.items()):
            for i in range(count):
                put(root / f"images/{split}/{i}.jpg", picture_bytes(100 * s + i))
                put(root / f"labels/{split}/{i}.txt", rows)
        put(root / "data.yaml", yaml)
        return root

    return make


def also(make: Plant, then: Callable[[Path], object]) -> Plant:
    def both(root: Path) -> Path:
        path = make(root)
        then(root)
        return path

    return both


LEAK, LOOKS = picture(60, (200, 150)), saved(picture(60, (200, 150)), "PNG")
# By code: what makes the set, how bad it is, which file is named
PLANTS: dict[str, tuple[Plant, str, str]] = {
    # Images
    "corrupt_image": (image(b"no image"), "error", "images/train/new.jpg"),
    "empty_image": (image(b""), "error", "images/train/new.jpg"),
    "missing_image": (listed("images/train/gone.jpg\n"), "error", "images/train/gone.jpg"),
    "unreadable_image": (also(yolo, lambda r: os.mkfifo(r / "images/train/p.jpg")), "error", "images/train/p.jpg"),
    "unsupported_image": (image(saved(picture(1).convert("F"), "TIFF"), suffix=".tif"), "error", "images/train/new.tif"),
    "small_image": (image(image_bytes(9, 9)), "error", "images/train/new.jpg"),
    "large_image": (image(saved(Image.new("1", (20_000, 9_000)), "PNG"), suffix=".png"), "error", "images/train/new.png"),
    "bad_file_name": (also(yolo, lambda r: put(r / os.fsdecode(b"images/train/\xff.jpg"), image_bytes())), "error", "images/train/�.jpg"),
    "odd_end": (image(image_bytes() + b"\0\0"), "warning", "images/train/new.jpg"),
    "blank_image": (image(image_bytes()), "warning", "images/train/new.jpg"),
    "dark_image": (image(saved(picture(1).point(lambda v: v // 12), "PNG"), suffix=".png"), "warning", "images/train/new.png"),
    "odd_image_shape": (image(picture_bytes(1, (400, 50))), "info", "images/train/new.jpg"),
    "mixed_sizes": (image(picture_bytes(1, (400, 300))), "info", ""),
    # Labels
    "no_label": (image(picture_bytes(1), rows=None), "info", "images/train/new.jpg"),
    "label_without_image": (also(yolo, lambda r: put(r / "labels/train/alone.txt", ROW)), "warning", "labels/train/alone.txt"),
    "same_name": (
        also(annotation(xml([CAT])), lambda r: put(r / "JPEGImages/i0.png", image_bytes(kind="PNG"))), "warning", "JPEGImages/i0.png",
    ),
    "malformed": (row("0 .5 .5 .2\n"), "error", "labels/train/new.txt"),
    "bad_class": (row("2 .5 .5 .2 .2\n"), "error", "labels/train/new.txt"),
    "out_of_range": (row("0 300 200 50 50\n"), "error", "labels/train/new.txt"),
    "inverted": (annotation(xml([CAT, ("cat", (20, 3, 4, 18))])), "error", "Annotations/bad.xml"),
    "zero_area": (row("1 .5 .5 0 .2\n"), "error", "labels/train/new.txt"),
    "out_of_frame": (row("1 .05 .5 .2 .2\n"), "warning", "labels/train/new.txt"),
    "size_mismatch": (annotation(xml([CAT], (400, 300))), "warning", "Annotations/bad.xml"),
    "duplicate": (row(ROW), "warning", "labels/train/new.txt"),
    "double_box": (row("1 .501 .5 .2 .2\n"), "warning", "images/train/new.jpg"),
    "other_shape": (shapes(shape("cat", (1, 1), kind="point")), "info", "bad.json"),
    "crowd": (annotations({"image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}), "info", "labels.json"),
    "listed_twice": (line("0.jpg,dog\n"), "warning", "labels.csv"),
    "two_labels": (line("0.jpg,cat\n"), "error", "labels.csv"),
    "tiny_box": (row("1 .2 .2 .01 .01\n", (640, 480)), "warning", "images/train/new.jpg"),
    "odd_box_shape": (row("1 .2 .5 .02 .9\n", (640, 480)), "warning", "images/train/new.jpg"),
    "whole_image_box": (row("1 .5 .5 1 1\n"), "info", "images/train/new.jpg"),
    "crowded_image": (
        row("".join(f"0 {x / 20} {y / 20} .04 .04\n" for x in range(1, 18) for y in range(1, 19))), "warning", "images/train/new.jpg",
    ),
    # Splits
    "leak": (also(image(LOOKS, suffix=".png"), lambda r: put(r / "images/val/copy.png", LOOKS)), "error", "images/val/copy.png"),
    "leak_alike": (
        also(image(LOOKS, suffix=".png"), lambda r: LEAK.resize((90, 70)).rotate(180).save(r / "images/val/like.jpg")),
        "warning", "images/val/like.jpg",
    ),
    "same_image": (also(image(LOOKS, suffix=".png"), lambda r: put(r / "images/train/too.png", LOOKS)), "info", "images/train/too.png"),
    "contradiction": (
        also(image(LOOKS, suffix=".png"), lambda r: (put(r / "images/train/z.png", LOOKS), put(r / "labels/train/z.txt", ROW * 2 + "1 .1 .1 .1 .1\n"))),
        "warning", "images/train/z.png",
    ),
    "in_two_splits": (yaml("train: images\nval: images/val\n"), "warning", "images/val/9.jpg"),
    "class_not_in_train": (many({"train": (3, ROW), "val": (3, "1 .5 .5 .3 .3\n")}), "error", ""),
    "class_not_judged": (many({"train": (3, ROW + "1 .5 .5 .3 .3\n"), "val": (3, ROW)}), "warning", ""),
    "class_unused": (many({"train": (3, ROW), "val": (3, ROW)}), "warning", ""),
    "class_few": (many({"train": (3, ROW), "val": (3, ROW)}), "warning", ""),
    "imbalance": (many({"train": (12, ROW), "val": (1, "1 .5 .5 .3 .3\n")}), "warning", ""),
    "small_split": (many({"train": (3, ROW), "val": (19, ROW)}), "warning", ""),
    "split_without_objects": (many({"train": (3, ROW), "val": (3, "")}), "warning", "data.yaml"),
    "too_few": (lambda root: yolo(root, {"train/0": ROW}, "train: images/train\n" + NAMES), "warning", "data.yaml"),
    "test_is_val": (yaml("train: images/train\nval: images/val\ntest: images/val\n"), "warning", "data.yaml"),
    "val_is_train": (yaml("train: images/train\nval: images/train\n"), "warning", "data.yaml"),
    "missing_split": (yaml("train: images/train\nval: images/val\ntest: images/test\n"), "warning", "data.yaml"),
    "bad_split": (yaml("train: images/train\nval: [images/val, data.yaml]\n"), "error", "data.yaml"),
    "not_in_split": (
        also(annotation(xml([CAT])), lambda r: [put(r / f"ImageSets/Main/{n}.txt", f"{i}\n") for n, i in (("train", "i0"), ("val", "i1"))]),
        "info", "JPEGImages/i2.jpg",
    ),
    # Files
    "bad_list": (listed("notes.md\n"), "warning", "train.txt"),
    "outside_folder": (listed("../secret.jpg\n"), "error", "train.txt"),
    "bad_xml": (annotation("<annotation>"), "error", "Annotations/bad.xml"),
    "unsafe_xml": (annotation("<!DOCTYPE a><annotation/>"), "error", "Annotations/bad.xml"),
    "bad_json": (also(shapes(), lambda r: put(r / "bad.json", '{"shapes": [')), "error", "bad.json"),
    "bad_labelme": (also(shapes(), lambda r: put(r / "bad.json", "{}")), "error", "bad.json"),
    "bad_encoding": (also(image(picture_bytes(1)), lambda r: put(r / "labels/train/new.txt", ROW.encode("utf-16"))), "error", "labels/train/new.txt"),
    "too_large": (image(picture_bytes(1), rows=ROW * 50_001), "error", "labels/train/new.txt"),
    "unreadable": (
        also(image(picture_bytes(1), rows=None), lambda r: os.mkfifo(r / "labels/train/new.txt")), "error", "labels/train/new.txt",
    ),
    "many_defects": (row("x\n" * 99), "error", "labels/train/new.txt"),
}  # fmt: skip


def found_by(tmp_path: Path, make: Plant) -> doctor.Check:
    datasets.add(tmp_path / "workspace", make(tmp_path / "set"), "set")
    return doctor.check(tmp_path / "workspace", "set")


@pytest.mark.parametrize("code", PLANTS)
def test_what_is_planted_is_found(tmp_path: Path, code: str) -> None:
    make, severity, file = PLANTS[code]
    result = found_by(tmp_path, make)
    groups = [group for group in result.groups if group.code == code]
    assert [group.severity for group in groups] == [severity], [(g.severity, g.code) for g in result.groups]
    assert file in {finding.file for finding in groups[0].findings}
    told = groups[0].to_json()
    assert told["title"] and told["effect"] and told["remedy"] and told["count"] >= 1


def test_every_kind_is_planted_somewhere() -> None:
    elsewhere = {
        "changed_image",  # test_doctor: what has changed since
        "unreadable_folder",  # below: root may look into any
        "bad_table",  # test_table: such a set is refused as a whole
    }
    assert PLANTS.keys() | elsewhere == KINDS.keys()


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    def make(root: Path) -> Path:
        (yolo(root) / "images/train/closed").mkdir()
        monkeypatch.setattr("engine.datasets.files.os.scandir", scandir)
        return root

    result = found_by(tmp_path, make)
    (finding,) = next(group.findings for group in result.groups if group.code == "unreadable_folder")
    assert (finding.severity, finding.file) == (
        "error",
        "images/train/closed",
    ) and "Permission denied" in finding.message
