"""`dojang weights`, as a person and a script call it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import catalog, weights, weights_files
from engine.versions import Workspace
from tests.training.test_weights import FILE, MODEL, Server, place, server  # noqa: F401  (fixtures)
from tui.cli import main

Call = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def call(place: Workspace, capsys: Any) -> Call:  # noqa: F811
    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--workspace", str(place.path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def answering(monkeypatch: Any, text: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(text))


def test_list_tells_of_every_model(call: Call, place: Workspace) -> None:  # noqa: F811
    (place.weights / MODEL.pretrained).write_bytes(FILE)
    (place.weights / "mine.pt").write_bytes(FILE)
    code, out, _ = call("weights", "list")
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(catalog.MODELS) + 4
    here = next(line for line in lines if line.startswith("yolov8n "))
    assert str(place.weights / MODEL.pretrained) in here and "1000 KiB" in here
    assert any("f153e0cf" in line and "not here" in line for line in lines)
    assert lines[-1].split()[1] == "mine.pt"
    found = json.loads(call("weights", "list", "--json")[1])
    row = next(r for r in found["public"] if r["models"] == ["yolov8n"])
    assert row["how"] == "found" and row["size"] == len(FILE) and row["sha256"] is None
    assert [r["file"] for r in found["others"]] == ["mine.pt"]


def test_fetch_asks_first(call: Call, server: Server, place: Workspace, monkeypatch: Any) -> None:  # noqa: F811
    answering(monkeypatch, "n\n")
    code, _, err = call("weights", "fetch", "yolov8n")
    assert code == 1 and not server.ranges and weights.find(MODEL, place) is None
    assert f"{server.url}/v1/yolov8n.pt (1000 KiB)" in err and str(place.weights) in err and "[y/N]" in err
    answering(monkeypatch, "y\n")
    code, out, _ = call("weights", "fetch", "yolov8n")
    assert code == 0 and hashlib.sha256(FILE).hexdigest() in out and "none is published" in out
    assert "here already" in call("weights", "fetch", "yolov8n")[1] and len(server.ranges) == 1


def test_a_script_must_say_yes(call: Call, server: Server, monkeypatch: Any) -> None:  # noqa: F811
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, _, err = call("weights", "fetch", "yolov8n")
    assert code == 2 and "not confirmed" in err and "--yes" in err and not server.ranges
    answering(monkeypatch, "y\n")
    code, _, err = call("weights", "fetch", "yolov8n", "--json")  # there is no asking in JSON
    assert code == 2 and json.loads(err)["error"]["code"] == "NOT_CONFIRMED" and not server.ranges
    code, out, err = call("weights", "fetch", "yolov8n", "--yes", "--json")
    (row,) = json.loads(out)
    assert code == 0 and not err and row["how"] == "fetched" and row["sha256"] == hashlib.sha256(FILE).hexdigest()


def test_a_bar_on_a_terminal(call: Call, server: Server, monkeypatch: Any) -> None:  # noqa: F811
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert call("weights", "fetch", "yolov8n", "--yes")[0] == 0
    assert "100 %" in screen.getvalue() and "MiB/s" in screen.getvalue() and "█" in screen.getvalue()


def test_interrupted_it_says_what_is_kept(call: Call, server: Server, place: Workspace, monkeypatch: Any) -> None:  # noqa: F811
    copy = weights._copy

    def broken(answer: Any, file: Any, *more: Any) -> bool:
        file.write(answer.read(300_000))
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "_copy", broken)
    code, _, err = call("weights", "fetch", "yolov8n", "--yes")
    assert code == 130 and "goes on from there" in err
    monkeypatch.setattr(weights, "_copy", copy)
    assert call("weights", "fetch", "yolov8n", "--yes")[0] == 0
    assert server.ranges[-1] == "bytes=300000-" and (place.weights / "yolov8n.pt").read_bytes() == FILE


def test_what_fails_is_said_plainly(call: Call, server: Server, place: Workspace, monkeypatch: Any) -> None:  # noqa: F811
    code, _, err = call("weights", "fetch", "yolov8s", "--yes")
    assert code == 2 and "404" in err and "yolov8s.pt" in err and str(place.weights) in err and "scratch" in err
    monkeypatch.setenv("DOJANG_WEIGHTS_URL", "http://127.0.0.1:9")
    code, _, err = call("weights", "fetch", "yolov8s", "--yes")
    assert code == 2 and "could not be reached" in err and "yolov8s.pt" in err
    code, _, err = call("weights", "fetch", "yolov8q", "--yes")
    assert code == 3 and "There is no model" in err


def examined(monkeypatch: Any, *fits: str) -> None:
    """What the process that looks files through would answer."""
    answer = {"format": "zip", "tensors": 3, "numbers": 9, "classes": ["ant", "bee"], "fits": [[f, 1.0] for f in fits]}
    monkeypatch.setattr(weights_files, "examine", lambda path: answer)


def test_import_keeps_a_copy_and_says_what_it_is(
    call: Call,
    place: Workspace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    examined(monkeypatch, "yolov8n", "yolov8s")
    file = tmp_path / "ants.pt"
    file.write_bytes(FILE)
    code, out, _ = call("weights", "import", str(file))
    assert code == 0 and "fits yolov8n, yolov8s, 2 classes" in out and "--weights ants.pt" in out
    assert (place.weights / "ants.pt").read_bytes() == FILE
    (row,) = json.loads(call("weights", "list", "--json")[1])["others"]
    assert row["how"] == "imported" and row["models"] == ["yolov8n", "yolov8s"] and row["classes"] == ["ant", "bee"]
    assert row["sha256"] == hashlib.sha256(FILE).hexdigest() and row["source"] == str(file)
    assert call("weights", "import", str(file))[0] == 0  # the very same once more
    file.write_bytes(FILE + b"other")
    code, _, err = call("weights", "import", str(file))
    assert code == 2 and "another ants.pt" in err and "--name" in err
    assert call("weights", "import", str(file), "--name", "bees")[0] == 0 and (place.weights / "bees.pt").exists()


def test_import_refuses_what_does_not_fit(call: Call, place: Workspace, tmp_path: Path, monkeypatch: Any) -> None:  # noqa: F811
    file = tmp_path / "ants.pt"
    file.write_bytes(FILE)
    examined(monkeypatch, "yolov8n")
    code, _, err = call("weights", "import", str(file), "--model", "yolov8s")
    assert code == 2 and "does not fit yolov8s: it fits yolov8n" in err
    code, _, err = call("weights", "import", str(file), "--name", "yolov8s.pt")
    assert code == 2 and "public weights of yolov8s" in err
    examined(monkeypatch, "efficientdet_d0")
    code, _, err = call("weights", "import", str(file), "--name", "tf_efficientdet_d0_34-f153e0cf.pth")
    assert code == 2 and "another SHA-256" in err
    examined(monkeypatch)
    code, _, err = call("weights", "import", str(file))
    assert code == 2 and "does not fit any model" in err
    for name in ("../out", "../out.pt", "a/b", ""):
        examined(monkeypatch, "yolov8n")
        code, _, err = call("weights", "import", str(file), "--name", name or "\x07")
        assert code == 2 and "cannot be a file name" in err
    assert not list(place.weights.iterdir()) and not list(tmp_path.glob("*.out*"))


def test_import_really_looks(call: Call, place: Workspace, tmp_path: Path) -> None:  # noqa: F811
    """In a process of its own; this one, like the app, never has torch to do it."""
    torch = pytest.importorskip("torch")
    import os

    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": Runs()}, tmp_path / "bad.pt")
    code, _, err = call("weights", "import", str(tmp_path / "bad.pt"), "--json")
    error = json.loads(err)["error"]
    assert code == 2 and error["code"] == "UNSAFE_FILE" and "posix.mkdir" in error["message"]
    assert not (tmp_path / "ran").exists() and not list(place.weights.iterdir())
    assert (
        json.loads(call("weights", "import", str(tmp_path / "none.pt"), "--json")[2])["error"]["code"]
        == "MISSING_WEIGHTS"
    )


def test_train_takes_weights(call: Call) -> None:
    _, _, err = call("train", "--dataset", "none", "--weights", "/nowhere.pt", "--json")
    problems = {p["field"]: p["message"] for p in json.loads(err)["error"]["problems"]}
    assert "/nowhere.pt" in problems["weights"]
