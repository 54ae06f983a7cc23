"""The data set commands: what scripts get, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import datasets
from tests.datasets.make import folders, picture_bytes, put, yolo
from tui.cli import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return yolo(tmp_path / "pets")


class Result:
    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = main(["dataset", *words, "--workspace", str(tmp_path / "workspace")])
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def test_a_format_may_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folders(tmp_path / "pets", {"cat": 3, "dog": 3})
    put(root / "labels.csv", "cat/cat_00.jpg,dog\n")
    found = Result(tmp_path, capsys, "add", str(root), "--format", "imagefolder", "--json").json
    assert (found["format"], found["task"], found["per_class"]["cat"]) == ("imagefolder", "classify", 3)
    wrong = Result(tmp_path, capsys, "add", str(root), "--name", "b", "--format", "coco")
    assert wrong.code == 2 and "COCO" in wrong.err


def test_export(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Result(tmp_path, capsys, "add", str(root))
    told = Result(tmp_path, capsys, "export", "pets", str(tmp_path / "coco"), "--format", "coco")
    assert told.code == 0 and "5 images and 5 labels" in told.out
    found = Result(tmp_path, capsys, "export", "pets", str(tmp_path / "voc"), "--format", "voc", "--link", "--json")
    assert found.json["same"] and (tmp_path / "voc/JPEGImages/train/0.jpg").is_symlink()
    assert (
        datasets.add(tmp_path / "other", tmp_path / "coco").hash == datasets.load(tmp_path / "workspace", "pets").hash
    )
    assert Result(tmp_path, capsys, "export", "pets", str(tmp_path / "coco"), "--format", "yolo").code == 2
    assert Result(tmp_path, capsys, "export", "none", str(tmp_path / "new"), "--format", "yolo").code == 3


def test_check(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i))
    Result(tmp_path, capsys, "add", str(root))
    clean = Result(tmp_path, capsys, "check", "pets", "--json")
    assert clean.code == 1 and clean.json["counts"]["error"] == 1, "val has a class that train does not show"
    put(root / "labels/train/0.txt", "0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n\n7 .5 .5 .1 .1\n")
    put(root / "labels/train/1.txt", "0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n")
    Result(tmp_path, capsys, "remove", "pets")
    Result(tmp_path, capsys, "add", str(root))
    told = Result(tmp_path, capsys, "check", "pets", "--image-size", "320", "--export", str(tmp_path / "f.csv"))
    assert told.code == 1 and "labels/train/0.txt, object 3" in told.out and "for 320 px" in told.out
    assert "bad_class" in (tmp_path / "f.csv").read_text()
    put(root / "labels/train/0.txt", "0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n")
    Result(tmp_path, capsys, "remove", "pets")
    Result(tmp_path, capsys, "add", str(root))
    assert Result(tmp_path, capsys, "check", "pets").code == 0, "warnings are no errors"
    assert Result(tmp_path, capsys, "check", "pets", "--image-size", "1").code == 2
    assert Result(tmp_path, capsys, "check", "pets", "--export", "x.doc").code == 2
    assert Result(tmp_path, capsys, "check", "none").code == 3
