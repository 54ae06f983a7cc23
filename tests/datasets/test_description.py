"""data.yaml: what it may say, and that nothing in it can hang, run or surprise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.datasets import description
from engine.datasets.description import load_description
from engine.errors import DojangError
from tests.datasets.make import put

BASE = "train: images/train\n"


def fault(tmp_path: Path, text: str | bytes) -> str:
    path = put(tmp_path / "data.yaml", text)
    with pytest.raises(DojangError) as error:
        load_description(path)
    assert error.value.code == "BAD_DATA_YAML" and error.value.hint
    assert str(path) in error.value.message
    return error.value.message


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("names: [cat, dog]\nnc: 2", ("cat", "dog")),
        ("names: {1: dog, 0: cat}", ("cat", "dog")),
        ("names: {'0': cat, '1': dog}", ("cat", "dog")),
        ("names:\n  0: ' 고양이 '\n", ("고양이",)),
        ("names: [\u1100\u1161]", ("가",)),
        ("names: [1, 2.5]", ("1", "2.5")),
        ("nc: 2", ("class_0", "class_1")),
        ("nc: '2'", ("class_0", "class_1")),
    ],
)
def test_classes(tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
    assert load_description(put(tmp_path / "data.yaml", BASE + names)).classes == classes


def test_places_and_what_is_ignored(tmp_path: Path) -> None:
    text = (
        "path: ../sets/x\ntrain: [images/a, ' images/b ']\nvalidation: images/c\ntest:\nnames: [x]\nkpt_shape: [17, 3]\n"
        "download: |\n  import os; os.mkdir('made')\nactivation: exit()\n"
    )
    description = load_description(put(tmp_path / "data.yaml", "\ufeff" + text))
    assert description.base == "../sets/x"
    assert description.places == {"train": ("images/a", "images/b"), "val": ("images/c",), "test": ()}
    assert description.keypoints == 51
    assert [p.name for p in tmp_path.iterdir()] == ["data.yaml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("just text", "key: value"),
        ("- a\n- b\n", "key: value"),
        ("train: [unclosed", "not valid YAML"),
        (BASE + "names: [a]\nx: !!python/object/apply:os.system ['touch made']", "not valid YAML"),
        (BASE + "names: [a]\nx: !!timestamp never", "cannot be read"),
        ("names: [a]", "`train` is missing"),
        ("train: 3\nnames: [a]", "`train` has to be"),
        ("train: [images, 3]\nnames: [a]", "`train` has to be"),
        (BASE + "val: {a: b}\nnames: [a]", "`val` has to be"),
        (BASE + "path: [a]\nnames: [a]", "`path` has to be"),
        (BASE, "`names` is missing"),
        (BASE + "names: []", "at least one class"),
        (BASE + "names: cat", "at least one class"),
        (BASE + "names: [cat, cat]", "'cat' twice"),
        (BASE + "names: [cat, '']", "class 1"),
        (BASE + "names: [cat, [dog]]", "class 1"),
        (BASE + 'names: [cat, "\\e[2Jdog"]', "class 1"),
        (BASE + "names: {0: cat, 2: dog}", "0 to 1"),
        (BASE + "names: {a: cat}", "0 to 0"),
        (BASE + "names: [a]\nnc: 2", "`nc` says 2"),
        (BASE + "nc: 1.5", "`nc` has to be"),
        (BASE + "nc: 1000000000000", "`nc` has to be"),
        (BASE + "nc: .inf", "`nc` has to be"),
        (BASE + "nc: yes", "`nc` has to be"),
        (BASE.encode() + "names: [고양이]".encode("euc-kr"), "not UTF-8"),
        ("x: " + "[" * 100_000, "nested"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in fault(tmp_path, text)
    assert [p.name for p in tmp_path.iterdir()] == ["data.yaml"]


def bomb(merge: bool) -> str:
    lines = ["a0: &a0 {k0: v}"]
    for i in range(1, 12):
        many = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} {{<<: [{many}], k{i}: v}}" if merge else f"a{i}: &a{i} [{many}]")
    return "\n".join(lines) + "\n" + BASE + "names: [a]\n"


@pytest.mark.parametrize("text", [bomb(True), bomb(False), "a: &a [*a]\n" + BASE + "names: [a]"])
def test_alias_bombs_are_refused_quickly(tmp_path: Path, text: str) -> None:
    start = time.monotonic()
    assert "unfolds" in fault(tmp_path, text)
    assert time.monotonic() - start < 1


def test_ordinary_aliases_are_fine(tmp_path: Path) -> None:
    text = "common: &c images/train\ntrain: *c\nnames: [a]\n"
    assert load_description(put(tmp_path / "data.yaml", text)).places["train"] == ("images/train",)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    assert "at most" in fault(tmp_path, b"#" * (5 << 20))


def test_what_holds_too_much_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "NODE_LIMIT", 1000)
    composed = 0
    compose = yaml.SafeLoader.compose_node

    def count(*arguments: Any) -> Any:
        nonlocal composed
        composed += 1
        return compose(*arguments)

    monkeypatch.setattr(yaml.SafeLoader, "compose_node", count)
    with pytest.raises(DojangError, match="more than 1,000 values"):
        load_description(put(tmp_path / "data.yaml", "train: x\nnames: [" + "[]," * 5000 + "]"))
    assert composed <= 1001
