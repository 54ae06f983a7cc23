"""The commands, as scripts and as clumsy people use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.servers import local
from engine.versions import Version, Workspace
from tests import logs
from tui.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def dataset(workspace: Workspace, tmp_path: Path) -> str:
    from engine.datasets import registry
    from engine.demo import draw

    draw(tmp_path / "pictures", images=10, size=48)
    return registry.add(workspace.path, tmp_path / "pictures", "shapes").name


class Run:
    """A command in this process: its exit code, what it printed, and that as JSON."""

    def __init__(self, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
        self._workspace, self._capsys = workspace, capsys

    def __call__(self, *words: str, json_too: bool = True) -> Run:
        given = ["--workspace", str(self._workspace.path), *words, *(["--json"] if json_too else [])]
        self.code = main(given)
        self.out, self.err = self._capsys.readouterr()
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(workspace, capsys)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    found: list[Version] = []
    monkeypatch.setattr(local, "start", found.append)
    return found


def test_a_training_is_started_with_what_was_said(run: Run, dataset: str, started: list[Version]) -> None:
    run(
        "train",
        "--dataset",
        dataset,
        "--model",
        "yolov5s",
        "--name",
        "n",
        "--tag",
        "a",
        "--tag",
        "b",
        "--set",
        "epochs=3",
        "--set",
        "lr=0.01",
    )
    assert run.code == 0 and run.json["version"] == "V_0"
    spec = started[0].spec()
    assert (spec.model, spec.epochs, spec.lr, spec.dataset) == ("yolov5s", 3, 0.01, dataset)
    assert len(spec.dataset_hash) == 64
    assert started[0].label_data()["tags"] == ["a", "b"]


def test_three_mistakes_are_told_together(run: Run, dataset: str, started: list[Version]) -> None:
    run("train", "--dataset", dataset, "--model", "yolo", "--set", "epochs=0", "--set", "lr=fast")
    assert run.code == 2 and run.out == ""
    assert {p["field"] for p in run.error["problems"]} == {"model", "epochs", "lr"}
    run("train", "--dataset", "nope", "--set", "epochs=0", json_too=False)
    assert run.code == 2 and "dataset:" in run.err and "epochs:" in run.err
    assert started == [] and run._workspace.projects() == []


def test_a_spec_file_with_options_beside_it(run: Run, dataset: str, started: list[Version], tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(
        f'dataset = "{dataset}"\nepochs = 5\nmodel = "yolov8s"\n[version]\nname = "file"\ntags = ["x"]\nproject = "p"\n'
    )
    assert run("train", str(tmp_path / "spec.toml"), "--set", "epochs=7").code == 0
    assert started[0].reference == "p/V_0" and started[0].spec().epochs == 7 and started[0].spec().model == "yolov8s"
    assert started[0].label_data()["name"] == "file"


@pytest.mark.parametrize("content", [b"= 3", b"\xff\xfe\x00", b"dataset = [1]", b"[version]\nname = 3\n"])
def test_a_broken_spec_file_is_told(run: Run, tmp_path: Path, content: bytes, started: list[Version]) -> None:
    (tmp_path / "spec.toml").write_bytes(content)
    assert run("train", str(tmp_path / "spec.toml")).code == 2
    assert run.error["message"] or run.error["problems"]
    assert run("train", str(tmp_path / "none.toml")).code == 2


def test_weights_that_are_nowhere_are_named(run: Run, dataset: str, started: list[Version]) -> None:
    run("train", "--dataset", dataset, "--set", "weights=pretrained")
    (problem,) = run.error["problems"]
    assert problem["field"] == "weights"
    assert all(w in problem["message"] for w in ("yolov8n.pt", "weights", "download=true", "scratch"))


def test_list_and_show(run: Run, workspace: Workspace) -> None:
    logs.finished(logs.version(workspace, "first"))
    (row,) = run("list").json
    shown = run("show", "V_0").json
    assert shown.pop("spec")["dataset"] == "shapes" and shown == row
    assert row["metrics"] == logs.metrics(0.8) and row["epochs_done"] == row["epochs"] == 4
    text = run("list", json_too=False).out
    assert "mAP50 val" in text and "0.800" in text and "first" in text
    assert "map50" not in run("show", "first", json_too=False).out and "0.800" in run.out


def test_exit_codes(run: Run, workspace: Workspace, tmp_path: Path) -> None:
    version = logs.finished(logs.version(workspace))
    assert run("show", "V_9").code == 3 and run.error["code"] == "NOT_FOUND"
    assert run("stop", "V_0").code == 4 and run("resume", "V_0").code == 4
    with logs.running(version):
        assert run("delete", "V_0", "--yes").code == 4 and run.error["code"] == "RUNNING"
    assert run("delete", "V_0").code == 2 and version.path.exists()
    (tmp_path / "file").write_text("")
    assert main(["--workspace", str(tmp_path / "file"), "project", "use", "x"]) == 5


def test_follow_ends_with_the_verdict(run: Run, workspace: Workspace) -> None:
    logs.finished(logs.version(workspace))
    assert run("follow", "V_0", json_too=False).code == 0
    assert "epoch 4/4 on val: mAP50 0.800" in run.out and "── done" in run.out
    lost = logs.version(workspace)
    with logs.EventLog(lost.events) as log:
        logs.begin(log)
    assert run("follow", "V_1", json_too=False).code == 1 and "resume" in run.err
    lines = run("follow", "V_0").out.splitlines()
    assert all(json.loads(line)["kind"] for line in lines)


def test_rename_edit_delete_restore(run: Run, workspace: Workspace) -> None:
    logs.finished(logs.version(workspace))
    assert run("rename", "V_0", "이름").json["name"] == "이름"
    assert run("edit", "이름", "--tags", "a,b", "--memo", "m").json["tags"] == ["a", "b"]
    assert run("rename", "V_0", "x" * 65).code == 2
    assert run("delete", "V_0", "--yes").code == 0 and run("list").json == []
    assert [t["version"] for t in run("trash").json] == ["V_0"]
    assert run("restore", "V_0").code == 0 and run("list").json[0]["name"] == "이름"
    assert run("restore", "V_0").code == 3


def test_data_sets(run: Run, dataset: str, tmp_path: Path) -> None:
    found = run("dataset", "show", dataset).json
    assert found["images"] == 10 and found["per_split"]["train"]["images"] == 8 and found["findings"] == []
    assert [d["name"] for d in run("dataset", "list").json] == [dataset]
    assert run("dataset", "add", str(tmp_path / "pictures"), "--name", dataset).code == 2
    assert run("dataset", "add", str(tmp_path / "nothing")).code in (2, 3)
    assert run("dataset", "add", str(tmp_path / "pictures"), "--split", "80").code == 2
    assert run("dataset", "remove", dataset).code == 0 and (tmp_path / "pictures" / "data.yaml").exists()


def test_models_schema_server_projects(run: Run) -> None:
    assert {m["name"] for m in run("models").json} >= {f"yolov{v}{s}" for v in "58" for s in "nsmlx"}
    assert "epochs" in run("schema").json["properties"]
    assert run("server").json["cores"] >= 1
    assert run("project", "use", "cells").json == {"project": "cells"}
    assert run("project", "list").json == [{"project": "cells", "current": True, "versions": 0}]
    for words in (["models"], ["server"], ["project", "list"], ["trash"], ["list"], ["dataset", "list"]):
        assert run(*words, json_too=False).code == 0 and run.out


def program(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tui.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


def test_no_terminal_no_app() -> None:
    done = program(stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "terminal" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(workspace: Workspace) -> None:
    for _ in range(30):
        logs.finished(logs.version(workspace))
    command = f"{sys.executable} -m tui.cli list --json --workspace {workspace.path} | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout == "[\n"


def test_the_workspace_may_stand_anywhere(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.version(workspace)
    for given in (["list", "--workspace", str(workspace.path)], ["--workspace", str(workspace.path), "list"]):
        assert main([*given, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 1
    monkeypatch.setenv("DOJANG_WORKSPACE", str(workspace.path))
    assert main(["list", "--json"]) == 0 and len(json.loads(capsys.readouterr().out)) == 1
    assert os.environ["DOJANG_WORKSPACE"]
