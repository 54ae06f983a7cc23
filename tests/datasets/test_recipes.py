"""Versions: the same everywhere, in proportion, copies together, classes changed, kept for good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import recipes
from engine.datasets.recipe import parse, problems
from engine.errors import DojangError, Invalid
from tests.datasets.make import picture_bytes, put, snapshot, yolo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = {f"{'val' if i > 35 else 'train'}/{i:02d}": f"{i % 3 // 2} .5 .5 .2 .2\n" for i in range(40)}
    made = yolo(tmp_path / "pets", rows)
    for i, path in enumerate(sorted(made.rglob("*.jpg"))):
        put(path, picture_bytes(i))
    return made


def test_the_same_wherever_it_lies_and_the_folder_is_untouched(tmp_path: Path, root: Path) -> None:
    moved = Path(shutil.copytree(root, tmp_path / "elsewhere/other"))
    before = snapshot(root)
    one, two = tmp_path / "one", tmp_path / "two"
    datasets.add(one, root, "pets")
    datasets.add(two, moved, "other")
    first = recipes.draft(one, parse({"sources": "pets"}))
    second = recipes.draft(two, parse({"sources": "other", "tags": "x"}))
    assert first.hash == second.hash
    assert [item.split for item in first.items] == [item.split for item in second.items]
    assert recipes.draft(one, parse({"sources": "pets", "seed": 1})).hash != first.hash
    assert {s: c.images for s, c in first.counts.per_split.items()} == {"train": 32, "val": 4, "test": 4}
    made = recipes.create(one, "pets", first)
    assert made.name == "pets@1" and datasets.load(one, "pets@1") == made
    assert datasets.items(one, "pets@1") == first.items
    assert snapshot(root) == before


def test_copies_and_what_looks_alike_stay_together(tmp_path: Path, root: Path) -> None:
    images = sorted(root.rglob("*.jpg"))
    for i in (3, 4, 5):
        put(images[i], images[36].read_bytes())
    put(images[6], picture_bytes(7, kind="PNG"))
    datasets.add(tmp_path / "w", root, "pets")
    for seed in range(8):
        made = recipes.draft(tmp_path / "w", parse({"sources": "pets", "group": True, "seed": seed}))
        split = {Path(item.path).stem: item.split for item in made.items}
        assert len({split["03"], split["04"], split["05"], split["36"]}) == 1
        assert split["06"] == split["07"] and made.groups == 2


def test_classes_merged_dropped_and_images_left_empty(tmp_path: Path, root: Path) -> None:
    datasets.add(tmp_path / "w", root, "pets")
    merged = recipes.draft(tmp_path / "w", parse({"sources": "pets", "rename": {"cat": "pet", "dog": "pet"}}))
    assert merged.classes == ("pet",) and merged.counts.per_class == {"pet": 40}
    kept = recipes.draft(tmp_path / "w", parse({"sources": "pets", "drop": "dog"}))
    assert kept.classes == ("cat",) and len(kept.items) == 40 and kept.emptied == 13
    gone = recipes.draft(tmp_path / "w", parse({"sources": "pets", "drop": "dog", "empty": "drop"}))
    assert len(gone.items) == 27
    with pytest.raises(DojangError, match="horse"):
        recipes.draft(tmp_path / "w", parse({"sources": "pets", "drop": "horse"}))


def test_numbers_are_not_given_twice_and_diff_tells_what_moved(tmp_path: Path, root: Path) -> None:
    w = tmp_path / "w"
    datasets.add(w, root, "pets")
    for seed in (0, 1):
        recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets", "seed": seed})))
    told = recipes.diff(w, "pets@1", "pets@2")
    assert told["recipe"] == {"seed": [0, 1]} and told["moved"] and not told["same"] and told["only"] == [0, 0]
    recipes.delete(w, "pets@2")
    kept = recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets", "split": "existing"})))
    assert kept.name == "pets@3" and kept.counts.per_split["val"].images == 4
    assert [one.name for one in recipes.versions(w, "pets")] == ["pets@1", "pets@3"]
    with pytest.raises(DojangError):
        recipes.delete(w, "pets")
    with pytest.raises(DojangError):
        datasets.add(w, root, "mine@1")


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = {"sources": [], "ratio": "8/x", "split": "existing", "group": True, "seed": -1, "colour": 1}
    assert {p.field for p in problems(wrong)} == {"sources", "ratio", "group", "seed", "colour"}
    with pytest.raises(Invalid):
        parse(wrong)


def test_several_sets_and_one_apart_that_judges(tmp_path: Path, root: Path) -> None:
    w, other = tmp_path / "w", yolo(tmp_path / "more", yaml="train: images/train\nval: images/val\nnames: [dog, fox]\n")
    for i, path in enumerate(sorted(other.rglob("*.jpg"))):
        put(path, picture_bytes(100 + i))
    datasets.add(w, root, "pets")
    datasets.add(w, other, "more")
    both = recipes.draft(w, parse({"sources": "pets,more"}))
    assert both.classes == ("cat", "dog", "fox") and both.counts.per_class == {"cat": 27, "dog": 17, "fox": 1}
    apart = recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets", "val": "more"})))
    judges = [item for item in datasets.items(w, apart.name) if item.split == "val"]
    assert len(judges) == 5 and all(apart.image(item).is_file() for item in judges)
    assert not datasets.verify(w, apart.name)
