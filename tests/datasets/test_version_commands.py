"""`dojang dataset version`: made, listed, shown, compared, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.datasets import packs
from tests.datasets.make import picture_bytes, put, yolo
from tui.cli import main


def test_a_version_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str, code: int = 0) -> Any:
        assert main(["dataset", *words, "--workspace", str(tmp_path / "w"), "--json"]) == code
        out, err = capsys.readouterr()
        return json.loads(err if code else out)

    root = yolo(
        tmp_path / "pets", {f"{'val' if i > 17 else 'train'}/{i:02d}": f"{i % 2} .5 .5 .2 .2\n" for i in range(20)}
    )
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i))
    run("add", str(root))
    preview = run("version", "create", "pets", "--dry-run")
    assert preview["name"] is None and run("version", "list", "pets") == []
    made = run("version", "create", "pets")
    assert made["name"] == "pets@1" and made["hash"] == preview["hash"] and made["per_split"]["val"]["images"] == 2
    merged = run("version", "create", "pets", "--merge", "cat,dog=pet", "--ratio", "50/50/0", "--tag", "half")
    assert merged["per_class"] == {"pet": 20} and merged["per_split"]["val"]["images"] == 10
    assert run("version", "show", "pets@2")["recipe"]["tags"] == ["half"]
    told = run("version", "diff", "pets@1", "pets@2")
    assert told["classes"] == {"removed": ["cat", "dog"], "added": ["pet"]} and told["moved"]
    assert main(["dataset", "version", "diff", "pets@1", "pets@2", "--workspace", str(tmp_path / "w")]) == 0
    assert "ratio" in capsys.readouterr().out
    run("version", "delete", "pets@1")
    assert [one["name"] for one in run("version", "list", "pets")] == ["pets@2"]
    assert run("version", "create", "pets", "--ratio", "8/x", "--seed", "-1", code=2)["error"]["code"] == "BAD_RECIPE"
    assert run("version", "show", "pets", code=3)["error"]["code"] == "NOT_FOUND"


def test_preprocessing_augmentation_and_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str, code: int = 0, told: bool = True) -> Any:
        asked = ["--json"] if told else []
        assert main([*words, "--workspace", str(tmp_path / "w"), *asked]) == code
        out, err = capsys.readouterr()
        return json.loads(err if code else out) if told else out

    root = yolo(tmp_path / "pets", {f"train/{i:02d}": f"{i % 2} .5 .5 .2 .2\n" for i in range(10)})
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i))
    run("dataset", "add", str(root))
    create = ("dataset", "version", "create", "pets")
    run(*create, "--resize", "letterbox", "--size", "64", "--grey", "--copies", "2", "--set", "flip_vertical=0.5")
    recipe = run("dataset", "version", "show", "pets@1")["recipe"]
    assert (recipe["resize"], recipe["size"], recipe["grey"]) == ("letterbox", 64, True)
    assert (recipe["copies"], recipe["flip_vertical"]) == (2, 0.5)
    shown = run("dataset", "version", "show", "pets@1", told=False)
    assert "letterbox to 64 × 64 px, grey" in shown and "an epoch goes through 24" in shown
    assert run(*create, "--size", "64", code=2)["error"]["problems"][0]["field"] == "size"
    wrong = run(*create, "--set", "rotation=200", "--set", "mosic=1", code=2)["error"]["problems"]
    assert {p["field"] for p in wrong} == {"rotation", "mosic"}
    assert run(*create, "--set", "rotation", code=2)["error"]["code"] == "BAD_VALUE"
    assert "mosaic" in run("dataset", "version", "schema")["properties"]

    source = packs.source(tmp_path / "w", "pets@1")
    assert source and packs.take(tmp_path / "w", source, lambda done, total: True)
    (kept,) = (one for one in run("cache")["kept"] if one["kind"] == "images")
    assert (kept["what"], kept["images"], kept["whole"]) == ("pets@1", 26, True)
    assert kept["bytes"] > 26 * 64 * 64 * 3
    listed = run("cache", "list", told=False)
    assert kept["name"][:8] in listed and "pets@1" in listed and "fingerprints" in listed
    assert run("cache", "drop", "nothing", code=3)["error"]["code"] == "NOT_FOUND"
    assert run("cache", "drop", code=2)["error"]["code"] == "USAGE"
    assert run("cache", "drop", "pets@1")["dropped"] == [kept["name"]]
    with _held(tmp_path / "w", source):
        assert run("cache", "drop", "pets@1", code=4)["error"]["code"] == "RUNNING"
        told = run("cache", "drop", "--all")
        assert told["in_use"] == [kept["name"]] and len(told["dropped"]) == 1
    assert run("cache", "drop", "--all")["dropped"] == [kept["name"]]
    assert "empty" in run("cache", told=False)


@contextmanager
def _held(workspace: Path, source: packs.Source) -> Iterator[None]:
    """While a training has it."""
    pack = packs.take(workspace, source, lambda done, total: True)
    yield
    del pack
