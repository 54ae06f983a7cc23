"""The drawn set: the same every time, quick, clean, and never over anything that is there."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from engine import datasets, demo
from engine.errors import DojangError


def digest(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in paths)).hexdigest()


def test_the_same_arguments_draw_the_same_set(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        demo.draw(tmp_path / name, images=20, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_the_default_set_is_clean_balanced_and_quick_to_draw(tmp_path: Path) -> None:
    start = time.perf_counter()
    path = demo.draw(tmp_path / "shapes")
    assert time.perf_counter() - start < 3
    dataset = datasets.add(tmp_path / "workspace", path.parent)
    assert dataset.name == "shapes" and dataset.split_source == "existing"
    assert [c.images for c in dataset.counts.per_split.values()] == [320, 80, 0]
    assert set(dataset.classes) == set(demo.SHAPES)
    assert min(dataset.counts.per_class.values()) > 0.25 * dataset.counts.labels
    assert dataset.findings == {"error": 0, "warning": 0, "info": 0}
    assert dataset.counts.labelled == 400
    items = datasets.items(tmp_path / "workspace", "shapes")
    assert all(1 <= len(item.boxes) <= 4 and (item.width, item.height) == (160, 160) for item in items)
    for box in (box for item in items for box in item.boxes):
        assert box.cx - box.w / 2 >= 0 and box.cx + box.w / 2 <= 1
        assert box.cy - box.h / 2 >= 0 and box.cy + box.h / 2 <= 1


def test_what_is_there_is_never_drawn_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(DojangError) as error:
        demo.draw(tmp_path / "mine", images=4)
    assert error.value.code == "EXISTS"
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["photo.jpg"]
    (tmp_path / "new").mkdir()
    assert demo.draw(tmp_path / "new", images=4).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "new"]


def test_arguments_are_checked(tmp_path: Path) -> None:
    for wrong in ({"images": 1}, {"size": 8}, {"val": 0.0}, {"val": 1.0}):
        with pytest.raises(DojangError):
            demo.draw(tmp_path / "x", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
