"""Made splits: right sizes, every class everywhere, and the same on every machine."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.datasets.model import Box, Item
from engine.datasets.split import make_split, settle
from engine.errors import DojangError


def item(path: str, *classes: int, labelled: bool = True) -> Item:
    return Item(path, "train", 40, 30, tuple(Box(cls, 0.5, 0.5, 0.1, 0.1) for cls in classes), labelled)


def sizes(items: list[Item]) -> tuple[int, int, int]:
    count = Counter(one.split for one in items)
    return count["train"], count["val"], count["test"]


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (2, 1, 0)), (5, (4, 1, 0)), (9, (7, 1, 1)), (10, (8, 1, 1)), (364, (291, 37, 36))],
)  # fmt: skip
def test_sizes(total: int, expected: tuple[int, int, int]) -> None:
    assert sizes(make_split([item(f"{i}.jpg", 0) for i in range(total)])) == expected


def test_classes_are_spread_in_proportion_and_rare_ones_everywhere() -> None:
    rng = random.Random(3)
    items = []
    for i in range(1000):
        classes = {0} if rng.random() < 0.9 else set()
        classes |= {1} if rng.random() < 0.3 else set()
        classes |= {2} if i % 50 == 0 else set()
        items.append(item(f"images/{i}.jpg", *classes))
    made = make_split(items)
    assert sizes(made) == (800, 100, 100)
    for cls in (0, 1, 2):
        count = Counter(one.split for one in made if any(box.cls == cls for box in one.boxes))
        total = sum(count.values())
        assert abs(count["train"] - 0.8 * total) <= 2
        assert abs(count["val"] - 0.1 * total) <= 2 and abs(count["test"] - 0.1 * total) <= 2
        assert min(count["val"], count["test"]) > 0
    background = Counter(one.split for one in made if not one.boxes)
    assert abs(background["val"] - 0.1 * sum(background.values())) <= 2


def test_the_order_and_the_form_of_names_do_not_matter_but_the_seed_does() -> None:
    items = [item(f"그림/{i:03d}.jpg", i % 3, i % 7) for i in range(100)]
    made = {one.path: one.split for one in make_split(items)}
    shuffled = random.Random(0).sample(items, len(items))
    assert {one.path: one.split for one in make_split(shuffled)} == made
    apart = [item(unicodedata.normalize("NFD", one.path), *(box.cls for box in one.boxes)) for one in items]
    assert [one.split for one in make_split(apart)] == [made[one.path] for one in items]
    assert {one.path: one.split for one in make_split(items, seed=1)} != made


def test_a_known_split_stays_as_it_is() -> None:
    made = make_split([item(f"{i}.jpg", i % 2) for i in range(12)], seed=7)
    assert "".join(one.split[1] for one in made) == "rrrrrrrearrr", "every split made so far would change"


def test_unlabelled_images_do_not_shift_the_ratio_of_labelled_ones() -> None:
    items = [item(f"l{i}.jpg", 0) for i in range(50)] + [item(f"u{i}.jpg", labelled=False) for i in range(30)]
    made = make_split(items)
    assert sizes(made[:50]) == (40, 5, 5) and sizes(made[50:]) == (24, 3, 3)
    assert [one.path for one in made] == [one.path for one in items]


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 5), max_size=3), st.booleans()), max_size=60),
    st.tuples(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0, 100)),
    st.integers(0, 2**32),
)
def test_every_image_gets_one_split_and_train_and_val_get_some(
    images: list[tuple[set[int], bool]], ratios: tuple[float, float, float], seed: int
) -> None:
    items = [item(f"{i}.jpg", *(classes if known else ()), labelled=known) for i, (classes, known) in enumerate(images)]
    made = make_split(items, ratios, seed)
    assert [one.path for one in made] == [one.path for one in items]
    labelled = [one for one in made if one.labelled]
    if len(labelled) >= 2:
        assert min(sizes(labelled)[:2]) >= 1
    share = ratios[2] / sum(ratios) * len(labelled)
    assert sizes(labelled)[2] <= share + 1


@pytest.mark.parametrize(
    "ratios", [(80, 10), (0, 50, 50), (100, 0, 0), (80, -1, 10), (float("nan"), 1, 1), (1, 2, 3, 4)]
)
def test_ratios_that_make_no_split_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(DojangError) as error:
        make_split([], ratios)
    assert error.value.code == "BAD_RATIOS"


def test_settle_lets_nothing_teach_and_judge() -> None:
    lists = {"train": ["a", "b", "c"], "val": ["c", "d"], "test": ["d", "e"]}
    findings: list = []
    assert settle(lists, str, "lists", findings) == {"a": "train", "b": "train", "c": "val", "d": "test", "e": "test"}
    assert sorted(f.file for f in findings) == ["c", "d"]
    findings.clear()
    assert settle({"train": ["a"], "val": ["a"], "test": ["a"]}, str, "lists", findings) == {"a": ""}
    assert [f.code for f in findings] == ["test_is_val", "val_is_train"]
