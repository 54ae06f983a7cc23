"""The check: one of each kind is planted and found, at its place; a clean set is left in peace."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import datasets
from engine.datasets import doctor
from engine.datasets.doctor import Check, check, last_check
from engine.datasets.kinds import KINDS, UNKNOWN
from engine.errors import DojangError
from tests.datasets.make import folders, image_bytes, picture, picture_bytes, put, snapshot, voc, xml
from tests.datasets.test_voc import BCCD

CAT = "0 0.5 0.5 0.5 0.5\n"
DOG = "1 0.4 0.4 0.3 0.3\n"
YAML = "train: images/train\nval: images/val\ntest: images/test\nnames: [cat, dog]\n"
Where = set[tuple[str, str, int | None]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set with nothing wrong: 30 images to learn from, 25 to judge by."""
    root = tmp_path / "pets"
    for i in range(55):
        add(root, f"{'train' if i < 30 else 'val'}/{i:02d}", picture_bytes(i))
    put(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def add(root: Path, key: str, image: bytes, text: str | None = CAT + DOG, suffix: str = "jpg") -> Path:
    if text is not None:
        put(root / "labels" / f"{key}.txt", text)
    return put(root / "images" / f"{key}.{suffix}", image)


def run(workspace: Path, root: Path, image_size: int = 640) -> tuple[Check, Where]:
    datasets.add(workspace, root, "set")
    result = check(workspace, "set", image_size)
    return result, places(result)


def places(result: Check) -> Where:
    return {(f.code, f.file, f.object) for f in result.findings}


def test_a_clean_set_is_left_in_peace(workspace: Path, root: Path) -> None:
    before = snapshot(root)
    result, found = run(workspace, root)
    assert found == set() and result.groups == ()
    assert (result.images, result.image_size, result.counts) == (55, 640, {"error": 0, "warning": 0, "info": 0})
    assert snapshot(root) == before


def test_bccd_s_real_defects(workspace: Path) -> None:
    for root in [BCCD] if BCCD.is_dir() else []:  # not in a bare checkout
        result, found = run(workspace, root)
        assert {g.code: (g.severity, g.count) for g in result.groups} == {
            "zero_area": ("error", 2), "double_box": ("warning", 7), "imbalance": ("warning", 2), "leak_alike": ("warning", 1),
        }  # fmt: skip
        assert ("zero_area", "Annotations/BloodImage_00338.xml", 13) in found
        assert ("leak_alike", "JPEGImages/BloodImage_00037.jpg", None) in found, "the same field, in another focus"


def test_one_of_each_kind_on_an_image(workspace: Path, root: Path) -> None:
    image = picture_bytes(100)
    add(root, "train/cut", picture_bytes(101, (300, 200))[:-3000])
    add(root, "train/empty", b"")
    add(root, "train/bare", picture_bytes(102), None)
    put(root / "labels/train/lonely.txt", CAT)
    add(root, "train/class", picture_bytes(103), CAT + "7 0.5 0.5 0.1 0.1\n")
    add(root, "train/zero", picture_bytes(104), CAT + "0 0.5 0.5 0 0.1\n")
    add(root, "train/frame", picture_bytes(105), CAT + "1 0.02 0.5 0.2 0.2\n")
    add(root, "train/twice", picture_bytes(106), CAT + CAT)
    add(root, "train/double", picture_bytes(107), CAT + "1 0.51 0.5 0.5 0.5\n")
    add(root, "train/tiny", picture_bytes(108, (640, 480)), CAT + "1 0.2 0.2 0.01 0.01\n")
    add(root, "train/line", picture_bytes(109, (640, 480)), CAT + "1 0.2 0.5 0.02 0.9\n")
    add(root, "train/whole", picture_bytes(110), "0 0.5 0.5 1 1\n")
    add(
        root,
        "train/crowd",
        picture_bytes(111),
        "".join(f"0 {x / 20} {y / 20} .04 .04\n" for x in range(1, 18) for y in range(1, 19)),
    )
    add(root, "train/long", picture_bytes(112, (400, 50)))
    add(root, "train/blank", image_bytes(), CAT)
    dark = Image.fromarray(np.asarray(picture(113).convert("L"), np.uint16) * 13)  # 12 bits in 16
    dark.save(add(root, "train/dark", b"", suffix="png"))
    add(root, "val/leak", picture_bytes(3))
    picture(4).resize((128, 96)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        add(root, "val/alike", b"", suffix="png")
    )
    add(root, "train/copy", image)
    add(root, "train/copy2", image)
    add(root, "train/other", picture_bytes(5), CAT)
    result, found = run(workspace, root)
    assert found == {
        ("corrupt_image", "images/train/cut.jpg", None),
        ("empty_image", "images/train/empty.jpg", None),
        ("no_label", "images/train/bare.jpg", None),
        ("label_without_image", "labels/train/lonely.txt", None),
        ("bad_class", "labels/train/class.txt", 2),
        ("zero_area", "labels/train/zero.txt", 2),
        ("out_of_frame", "labels/train/frame.txt", 2),
        ("duplicate", "labels/train/twice.txt", 2),
        ("double_box", "images/train/double.jpg", 2),
        ("tiny_box", "images/train/tiny.jpg", 2),
        ("odd_box_shape", "images/train/line.jpg", 2),
        ("whole_image_box", "images/train/whole.jpg", 1),
        ("crowded_image", "images/train/crowd.jpg", None),
        ("odd_image_shape", "images/train/long.jpg", None),
        ("blank_image", "images/train/blank.jpg", None),
        ("dark_image", "images/train/dark.png", None),
        ("leak", "images/val/leak.jpg", None),
        ("leak_alike", "images/val/alike.png", None),
        ("same_image", "images/train/copy2.jpg", None),
        ("same_image", "images/train/other.jpg", None),
        ("contradiction", "images/train/other.jpg", None),
        ("mixed_sizes", "", None),
    }
    others = {f.code: f.other for f in result.findings if f.other}
    assert others["leak"] == "images/train/03.jpg" and others["leak_alike"] == "images/train/04.jpg"
    assert result.counts["error"] == 5


def test_tiny_is_a_matter_of_the_image_size(workspace: Path, root: Path) -> None:
    add(root, "train/tiny", picture_bytes(108, (640, 480)), CAT + "1 0.2 0.2 0.01 0.01\n")
    datasets.add(workspace, root, "set")
    assert "tiny_box" in {code for code, _, _ in places(check(workspace, "set", 640))}
    assert "tiny_box" not in {code for code, _, _ in places(check(workspace, "set", 1280))}
    for wrong in (0, 31, 10_000):
        with pytest.raises(DojangError) as error:
            check(workspace, "set", wrong)
        assert error.value.code == "BAD_SIZE"


def test_classes_and_splits(workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    rows = {
        "train": ["0 .5 .5 .5 .5\n"] * 60 + ["2 .5 .5 .5 .5\n"] * 3,
        "val": ["0 .5 .5 .5 .5\n"] * 3,
        "test": ["3 .5 .5 .5 .5\n"],
    }
    for split, texts in rows.items():
        for i, text in enumerate(texts):
            add(root, f"{split}/{i}", picture_bytes(100 * len(split) + i), text)
    put(root / "data.yaml", YAML.replace("[cat, dog]", "[a, never, rare, d]"))
    result, _ = run(workspace, root)
    assert {(f.severity, f.code, f.message.partition(" ")[0]) for f in result.findings} == {
        ("warning", "class_unused", "never"),
        ("error", "class_not_in_train", "d"),
        ("warning", "class_few", "rare"),
        ("warning", "imbalance", "rare"),
        ("warning", "imbalance", "d"),
        ("warning", "class_not_judged", "a"),
        ("warning", "class_not_judged", "rare"),
        ("warning", "class_not_judged", "d"),
        ("warning", "small_split", "val"),
        ("warning", "small_split", "test"),
    }


def test_a_set_to_classify(workspace: Path, tmp_path: Path) -> None:
    root = folders(tmp_path / "bees", dict.fromkeys(("train/a", "train/b", "val/a", "val/b"), 25))
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i))
    put(root / "val/a/leak.jpg", picture_bytes(0))
    put(root / "train/b/wrong.jpg", picture_bytes(1))
    result, found = run(workspace, root)
    assert found == {
        ("leak", "val/a/leak.jpg", None), ("same_image", "train/b/wrong.jpg", None), ("contradiction", "train/b/wrong.jpg", None),
    }  # fmt: skip
    assert {g.code: g.severity for g in result.groups}["contradiction"] == "error"
    assert result.charts["images_per_class"] == {"a": 51, "b": 51} and "box_size" not in result.charts


def test_what_has_changed_since_is_found(workspace: Path, root: Path) -> None:
    datasets.add(workspace, root, "set")
    (root / "images/train/00.jpg").unlink()
    put(root / "images/train/01.jpg", picture_bytes(500, (80, 60)))
    put(root / "images/train/02.jpg", picture_bytes(2)[:-300])
    put(root / "images/train/03.jpg", b"")
    found = places(check(workspace, "set"))
    assert found == {
        ("missing_image", "images/train/00.jpg", None),
        ("changed_image", "images/train/01.jpg", None),
        ("corrupt_image", "images/train/02.jpg", None),
        ("corrupt_image", "images/train/03.jpg", None),
    }
    shutil.rmtree(root)
    with pytest.raises(DojangError) as error:
        check(workspace, "set")
    assert error.value.code == "DATASET_GONE"


def test_the_result_is_kept_for_the_screens(workspace: Path, root: Path) -> None:
    put(root / "images/val/leak.jpg", picture_bytes(3))
    datasets.add(workspace, root, "set")
    assert last_check(workspace, "set") is None
    result = check(workspace, "set", 320)
    assert last_check(workspace, "set") == result and result.image_size == 320
    assert json.loads(json.dumps(result.to_json()))["counts"] == {"error": 1, "warning": 0, "info": 1}
    path = workspace / "datasets/set/check.json"
    for damaged in ('{"version":2}', "[]", "", '{"version":99}', path.read_text().replace(result.hash, "other")):
        put(path, damaged)
        assert last_check(workspace, "set") is None
    datasets.remove(workspace, "set")
    with pytest.raises(DojangError):
        last_check(workspace, "set")


def test_cancelling_keeps_the_last_result(workspace: Path, root: Path) -> None:
    datasets.add(workspace, root, "set")
    result = check(workspace, "set")

    class Cancelled(Exception):
        pass

    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 20:
            raise Cancelled

    with pytest.raises(Cancelled):
        check(workspace, "set", progress=stop)
    assert seen == [(16, 55), (32, 55)]
    assert last_check(workspace, "set") == result
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dojang-check")]


def test_millions_of_findings_are_counted_and_a_few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = doctor._Tally()
    tally.add(datasets.Finding("warning", "tiny_box", "", f"{i // 4}.jpg", i % 4 + 1) for i in range(30_000))
    (group,) = tally.groups()
    assert (group.count, group.files, len(group.findings)) == (30_000, 7500, doctor.MOST_LISTED)


def test_charts(workspace: Path, root: Path) -> None:
    add(root, "train/many", picture_bytes(200, (640, 480)), "".join(f"0 .5 .5 {i / 40} .1\n" for i in range(1, 31)))
    add(root, "train/none", picture_bytes(201), "")
    charts = run(workspace, root)[0].charts
    assert charts["boxes_per_image"] == [1, 0, 55, *[0] * 17, 1]
    assert sum(charts["box_size"]["counts"]) == sum(charts["box_shape"]["counts"]) == 140
    assert charts["image_sizes"] == [[64, 48, 56], [640, 480, 1]] and charts["other_image_sizes"] == 0
    assert charts["image_shape"]["counts"] == [0, 0, 0, 0, 0, 57, 0, 0, 0], "4:3"
    assert charts["images_per_class"] == {"cat": 56, "dog": 55}


def test_the_chart_of_sizes_and_what_is_called_tiny_agree(workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "tall"
    for i in range(4):  # 640 pixels high: 7.9 and 8.1 pixels a side
        rows = f"0 .5 .5 {7.9 / 320} {7.9 / 640}\n1 .5 .2 {8.1 / 320} {8.1 / 640}\n"
        add(root, f"{'train' if i < 2 else 'val'}/{i}", picture_bytes(i, (320, 640)), rows)
    put(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    result, _ = run(workspace, root)
    assert result.charts["box_size"]["counts"][:2] == [4, 4]
    assert next(g.count for g in result.groups if g.code == "tiny_box") == 4


@pytest.mark.parametrize("name", ["f.csv", "f.tsv", "f.json"])
def test_the_list_is_written(tmp_path: Path, workspace: Path, root: Path, name: str) -> None:
    put(root / "labels/train/00.txt", CAT + DOG + "9 .5 .5 .5 .5\n")
    result, _ = run(workspace, root)
    doctor.save_findings(result, tmp_path / name)
    text = (tmp_path / name).read_text()
    rows = (
        json.loads(text)
        if name.endswith("json")
        else list(csv.DictReader(text.splitlines(), delimiter="\t" if "tsv" in name else ","))
    )
    (row,) = rows
    assert (row["code"], row["file"], str(row["object"])) == ("bad_class", "labels/train/00.txt", "3")
    assert row["image"] == "images/train/00.jpg"


@pytest.mark.parametrize("name", ["f.xlsx", "f", "none/f.csv"])
def test_a_list_that_cannot_be_written_is_refused_before_the_check(tmp_path: Path, name: str) -> None:
    with pytest.raises(DojangError):
        doctor.check_place(tmp_path / name)


def codes_in(folder: Path) -> Iterable[str]:
    for path in folder.glob("*.py"):
        text = path.read_text()
        yield from re.findall(r'(?:Finding|Defect)\(\s*"(?:error|warning|info)", "(\w+)"', text)
        yield from re.findall(r'(?:BadImage|Unreadable)\("(\w+)"', text)
        yield from re.findall(r'labels\.drop\([^"]*"(\w+)"', text)


def test_every_kind_is_explained() -> None:
    used = set(codes_in(Path(doctor.__file__).parent))
    assert len(used) > 50 and used <= KINDS.keys()
    assert all(all(kind) and kind != UNKNOWN for kind in KINDS.values())


def test_a_voc_finding_leads_to_its_image(workspace: Path, tmp_path: Path) -> None:
    root = voc(tmp_path / "cells", {f"{i}": xml([("cat", (1, 1, 30, 20))]) for i in range(4)})
    put(root / "Annotations/2.xml", xml([("cat", (1, 1, 1, 1)), ("cat", (1, 1, 30, 20))]))
    result, _ = run(workspace, root)
    assert [f.image for f in result.findings if f.code == "zero_area"] == ["JPEGImages/2.jpg"]
