"""Versions: the same everywhere, in proportion, copies together, classes changed, kept for good."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

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


def test_what_is_wrong_with_pixels_is_told_at_once() -> None:
    wrong = {
        "sources": "a", "resize": "stretch", "size": 8, "hue": 0.7, "saturation": 0.4, "grey": True, "rotation": 181,
        "mosaic": 1.5, "crop": float("nan"), "copies": True,
    }  # fmt: skip
    told = {p.field: p.message for p in problems(wrong)}
    assert set(told) == {"size", "hue", "saturation", "rotation", "mosaic", "crop", "copies"}
    assert told["size"] == "must be 32 – 4 096, not 8" and "grey" in told["saturation"]
    assert [p.field for p in problems({"sources": "a", "resize": "zoom"})] == ["resize"]
    assert [p.field for p in problems({"sources": "a", "flip_vertical": 0.5})] == ["copies"]
    assert [p.field for p in problems({"sources": "a", "copies": 2})] == ["copies"]
    assert not problems({"sources": "a", "size": 7}), "without a resize there is no size"


def test_settings_without_effect_are_not_hashed() -> None:
    def hashed(**more: Any) -> str:
        return parse({"sources": "a", **more}).hashed()

    plain = hashed()
    assert not {"resize", "size", "grey", "copies", "mosaic"} & set(json.loads(plain))
    assert plain == hashed(size=320) == hashed(tags="x")
    assert len({plain, hashed(grey=True), hashed(resize="crop"), hashed(resize="crop", size=64)}) == 4
    copied = {"copies": 2, "flip_vertical": 0.5}
    assert len({plain, hashed(**copied), hashed(**copied | {"copies": 3}), hashed(**copied, blur=1)}) == 4
    assert hashed(split="existing", seed=1) == hashed(split="existing")
    assert hashed(split="existing", seed=1, **copied) != hashed(split="existing", **copied)


def test_a_version_without_pixels_hashes_as_it_always_did(tmp_path: Path, root: Path) -> None:
    told = {
        "apart": [], "drop": [], "empty": "keep", "group": False, "ratio": [80.0, 10.0, 10.0], "rename": {},
        "seed": 0, "split": "ratio", "stratify": True,
    }  # fmt: skip
    assert json.loads(parse({"sources": "pets"}).hashed()) == told


def test_copies_count_for_an_epoch_and_not_for_the_set(tmp_path: Path, root: Path) -> None:
    w = tmp_path / "w"
    datasets.add(w, root, "pets")
    made = recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets", "copies": 3, "flip_vertical": 1})))
    assert made.counts.per_split["train"].images == 32 and recipes.train_images(w, made) == 128
    assert recipes.train_images(w, datasets.load(w, "pets")) == 36


def test_images_of_several_have_no_one_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(6):
            put(tmp_path / "set" / name / f"{i}.jpg", picture_bytes(i + 10 * len(name) + (name == "cat")))
    datasets.add(tmp_path / "w", tmp_path / "set", "set")
    wrong = {"sources": "set", "copies": 1, "mosaic": 0.5, "mixup": 0.5}
    with pytest.raises(Invalid) as e:
        recipes.draft(tmp_path / "w", parse(wrong))
    assert [p.field for p in e.value.problems] == ["mosaic", "mixup"]
    assert recipes.draft(tmp_path / "w", parse({"sources": "set", "copies": 1, "blur": 2}))


def test_a_number_is_remembered_however_the_version_is_removed(tmp_path: Path, root: Path) -> None:
    w = tmp_path / "w"
    datasets.add(w, root, "pets")
    for _ in range(2):
        recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets"})))
    datasets.remove(w, "pets@2")
    assert recipes.create(w, "pets", recipes.draft(w, parse({"sources": "pets"}))).name == "pets@3"


def test_stratified_shares_are_close_where_the_own_split_is_not(tmp_path: Path) -> None:
    """Like blood cells: one class has nine objects of ten, and the set's own split is uneven."""
    rng = random.Random(3)
    rows = {}
    for i in range(360):
        counts = (rng.randrange(4, 20), int(rng.random() < 0.9), rng.randrange(3) if i < 300 else 0)
        lines = "".join(f"{c} .5 .5 .1 .1\n" for c, count in enumerate(counts) for _ in range(count))
        rows[f"{'val' if i >= 300 else 'train'}/{i:03d}"] = lines
    root = yolo(tmp_path / "cells", rows, "train: images/train\nval: images/val\nnames: [red, white, platelets]\n")
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i, (24, 18)))
    for machine in ("one", "two"):
        datasets.add(tmp_path / machine, root, "cells")
    own = recipes.draft(tmp_path / "one", parse({"sources": "cells", "split": "existing"}))
    made = recipes.draft(tmp_path / "one", parse({"sources": "cells"}))
    assert own.deviation > 3 and made.deviation < 1
    assert {s: c.images for s, c in made.counts.per_split.items()} == {"train": 288, "val": 36, "test": 36}
    assert recipes.draft(tmp_path / "two", parse({"sources": "cells"})).items == made.items


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
