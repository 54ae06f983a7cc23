"""`dojang dataset version`: made, listed, shown, compared, deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
