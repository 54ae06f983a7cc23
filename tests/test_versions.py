"""Versions: numbered once, found again, told apart, thrown away and brought back; their state is never stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import DojangError, Invalid, NotFound
from engine.events import EventLog
from engine.versions import Folds, Version, Workspace, clean_name, show, summaries
from tests import logs

CREATE = """
import sys
from pathlib import Path
from engine.spec import Label, Spec
from engine.versions import Workspace
project = Workspace(Path(sys.argv[1])).project(create=True)
print(*[project.create(Spec(dataset="d"), Label()).id for _ in range(5)])
"""


def state(version: Version) -> str:
    return version.state(version.progress())


def test_eight_processes_at_once_number_their_versions_apart(workspace: Workspace) -> None:
    command = [sys.executable, "-c", CREATE, str(workspace.path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    names = [name for p in started for name in p.communicate(timeout=60)[0].split()]
    assert sorted(names, key=lambda n: int(n[2:])) == [f"V_{i}" for i in range(40)]
    found = workspace.project().versions()
    assert len(found) == 40 and all((v.path / "spec.toml").exists() for v in found)
    assert not list(workspace.project().path.glob(".new*"))


def test_a_number_is_never_used_again(workspace: Workspace) -> None:
    logs.version(workspace)
    second = logs.version(workspace)
    second.delete()
    assert logs.version(workspace).id == "V_2"


def test_deleted_comes_back_with_everything(workspace: Workspace) -> None:
    version = logs.finished(logs.version(workspace, "kept"))
    before = {p.name: p.read_bytes() for p in version.path.iterdir()}
    version.delete()
    assert not version.path.exists() and workspace.project().versions() == []
    (trashed,) = workspace.trash()
    back = trashed.restore()
    assert back.id == version.id and {p.name: p.read_bytes() for p in back.path.iterdir()} == before
    assert workspace.trash() == []


def test_a_taken_place_is_not_overwritten_by_a_restore(workspace: Workspace) -> None:
    version = logs.version(workspace, "old")
    trashed = version.delete()
    version.path.mkdir()
    (version.path / "mine").write_text("x")
    back = trashed.restore()
    assert back.id == "V_1" and (version.path / "mine").exists()


def test_a_running_version_is_not_deleted(workspace: Workspace) -> None:
    version = logs.version(workspace)
    with logs.running(version), pytest.raises(DojangError) as caught:
        version.delete()
    assert caught.value.code == "RUNNING" and version.path.exists()


def test_state_follows_from_log_and_lock(workspace: Workspace) -> None:
    version = logs.version(workspace)
    assert state(version) == "draft"
    with logs.running(version) as log:
        assert state(version) == "preparing"
        logs.begin(log)
        assert state(version) == "training"
        log.append("stage", stage="testing")
        assert state(version) == "testing"
    assert state(version) == "lost"
    with EventLog(version.events) as log:
        log.append("end", state="stopped")
    assert state(version) == "stopped"


def test_a_resumed_run_is_not_what_its_last_word_was(workspace: Workspace) -> None:
    version = logs.version(workspace)
    with EventLog(version.events) as log:
        logs.begin(log)
        log.append("end", state="failed")
    assert state(version) == "failed"
    time.sleep(0.01)
    with logs.running(version):
        os.utime(version.lock)
        assert state(version) == "preparing"


def test_lost_says_what_to_do(workspace: Workspace) -> None:
    version = logs.version(workspace)
    with EventLog(version.events) as log:
        logs.begin(log)
    version.exit_record.write_text(json.dumps({"code": -9, "reason": "It was killed (signal 9)."}))
    row = version.summary()
    assert row["state"] == "lost" and "killed" in row["error"]["message"]
    assert f"dojang resume {version.reference}" in row["error"]["hint"]


@pytest.mark.parametrize(
    ("reference", "found"), [("V_0", 0), ("v_1", 1), ("default/V_1", 1), ("baseline", 1), ("default/baseline", 1)]
)
def test_a_version_is_found_by_number_or_name(workspace: Workspace, reference: str, found: int) -> None:
    made = [logs.version(workspace, "first"), logs.version(workspace, "baseline")]
    assert workspace.version(reference) == made[found]


def test_what_cannot_be_found_says_so(workspace: Workspace) -> None:
    for wanted in ("V_7", "nobody", "other/V_0"):
        with pytest.raises(NotFound):
            workspace.version(wanted)
    logs.version(workspace, "twin"), logs.version(workspace, "twin")
    with pytest.raises(DojangError) as caught:
        workspace.version("twin")
    assert caught.value.code == "AMBIGUOUS" and "V_0" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "-rf", "a\nb", "a\x1b[2J", "x" * 65, "_", "\0"])
def test_names_that_could_do_harm_are_refused(name: str) -> None:
    with pytest.raises(DojangError):
        clean_name(name)


def test_korean_names_are_composed() -> None:
    assert clean_name("세포") == "세포"  # from the decomposed form that macOS hands out


def test_labels_are_checked_as_a_whole(workspace: Workspace) -> None:
    version = logs.version(workspace)
    with pytest.raises(Invalid) as caught:
        version.relabel(name="x" * 65, tags=["y" * 21])
    assert {p.field for p in caught.value.problems} == {"name", "tags"}
    version.relabel(name="이름", tags="night, aug", memo="한 줄")
    assert version.summary()["name"] == "이름" and version.summary()["tags"] == ["night", "aug"]
    assert version.label_data()["created"]


def test_a_summary_is_remembered_until_something_changes(workspace: Workspace) -> None:
    version = logs.finished(logs.version(workspace))
    assert version.summary()["metrics"]["map50"] == 0.8
    cache = workspace.cache / "summaries.json"
    known = json.loads(cache.read_text())
    known[version.reference]["row"]["model"] = "from the cache"
    cache.write_text(json.dumps(known))
    assert version.summary()["model"] == "from the cache"
    version.relabel(name="changed")
    assert version.summary()["model"] == "yolov8n" and version.summary()["name"] == "changed"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"default/V_0": 3}', '{"default/V_0": {"signature": []}}'])
def test_a_broken_cache_only_costs_time(workspace: Workspace, content: str) -> None:
    version = logs.finished(logs.version(workspace))
    (workspace.cache / "summaries.json").write_text(content)
    assert version.summary()["state"] == "done"


def test_one_broken_version_does_not_hide_the_others(workspace: Workspace) -> None:
    made = [logs.finished(logs.version(workspace)) for _ in range(4)]
    (made[0].path / "spec.toml").write_text("= broken")
    (made[1].path / "version.toml").write_bytes(b"\xff\xfe")
    made[2].events.write_bytes(b"\x00garbage\n{}\n")
    rows = summaries(workspace.project().versions())
    assert [r["version"] for r in rows] == ["V_3", "V_2", "V_1", "V_0"]
    assert [r["state"] for r in rows] == ["done", "draft", "done", "done"]


def test_a_running_log_is_folded_as_it_grows(workspace: Workspace) -> None:
    version, folds = logs.version(workspace), Folds()
    with logs.running(version) as log:
        logs.begin(log)
        logs.steps(log, 1, 5)
        assert summaries([version], folds)[0]["fraction"] == 0.25
        logs.steps(log, 6, 10)
        row = summaries([version], folds)[0]
    assert row["fraction"] == 0.5 and row["state"] == "training"


def test_show_has_what_scripts_rely_on(workspace: Workspace) -> None:
    found = show(logs.finished(logs.version(workspace, "x")))
    needed = "version name project state stage spec metrics epochs_done epochs split run_dir weights error"
    assert set(needed.split()) <= set(found)
    assert set(found["metrics"]) == {"map50", "map50_95", "precision", "recall"}
    assert found["spec"]["dataset"] == "shapes" and found["split"] == "val"


def test_a_workspace_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DojangError) as caught:
        Workspace(tmp_path / "file").ensure()
    assert str(tmp_path) in caught.value.message


def test_projects(workspace: Workspace) -> None:
    workspace.use("세포 연구")
    assert workspace.current_project == "세포 연구" and workspace.projects() == ["세포 연구"]
    assert logs.version(workspace).reference == "세포 연구/V_0"
