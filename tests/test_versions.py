"""Versions: numbered once, found again, told apart, thrown away and brought back; their state is never stored."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from engine import control, events
from engine.errors import DojangError, Invalid, NotFound
from engine.events import EventLog
from engine.servers import local
from engine.versions import Folds, Version, Workspace, clean_name, show, summaries
from tests import logs
from tests.conftest import read_only

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


def test_the_trash_has_the_last_deleted_first(workspace: Workspace) -> None:
    made = [logs.version(workspace) for _ in range(4)]
    order = [made[i].delete().version for i in (2, 0, 3, 1)]
    assert [t.version for t in workspace.trash()] == order[::-1]


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


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("spec.toml", b"epochs = 'many'\nmodel = 3\ndevice = []"),
        ("spec.toml", None),
        ("version.toml", b"name = 3\ntags = 4\nmemo = [1]\ncreated = 5"),
        ("version.toml", b"tags = [1, {}]"),
        ("version.toml", None),
        ("exit.json", b"[]"),
        ("events.jsonl", b'{"kind": "plan", "epochs": 1e999, "steps_per_epoch": []}\n{"kind": "epoch", "epoch": 1, "metrics": 3}\n'),
        ("events.jsonl", b'{"kind": "result", "split": "val", "metrics": null}\n{"kind": "end"}\n'),
        ("events.jsonl", b'{"kind": "epoch", "epoch": 1, "seconds": {"train": "long"}}\n'),
        ("events.jsonl", None),
    ],
)  # fmt: skip
def test_a_version_with_a_broken_file_is_listed_and_shown(
    workspace: Workspace, file: str, content: bytes | None
) -> None:
    version = logs.version(workspace)
    with EventLog(version.events) as log:
        logs.begin(log)
    (version.path / file).unlink(missing_ok=True)
    if content is None:
        (version.path / file).mkdir()
    else:
        (version.path / file).write_bytes(content)
    (row,) = summaries(workspace.project().versions())
    assert row["state"] in ("lost", "draft") and json.dumps(show(version), allow_nan=False)


def test_a_spec_that_is_gone_is_told(workspace: Workspace) -> None:
    version = logs.finished(logs.version(workspace))
    (version.path / "spec.toml").unlink()
    found = show(version)
    assert found["spec"] == {} and found["error"]["code"] == "BAD_FILE" and found["metrics"]["map50"] == 0.8


def test_what_is_no_version_is_not_listed(workspace: Workspace) -> None:
    logs.version(workspace)
    place = workspace.project().path
    (place / "V_7").write_text("a file")
    for name in ("V_00", "V_x", "V_٣", "notes", ".new-1"):
        (place / name).mkdir()
    assert [v.id for v in workspace.project().versions()] == ["V_0"]
    with pytest.raises(NotFound):
        workspace.version("V_00")


@pytest.mark.parametrize(
    "content",
    ['project = "../.."\nversion = "V_0"\ndeleted = ""', 'project = "default"\nversion = "../x"\ndeleted = ""', "="],
)
def test_the_trash_is_not_led_astray(workspace: Workspace, content: str) -> None:
    (workspace.path / "trash" / "x").mkdir()
    (workspace.path / "trash" / "x" / "trash.toml").write_text(content)
    (workspace.path / "trash" / "a file").write_text("")
    assert workspace.trash() == []
    assert logs.version(workspace).id == "V_0"


def test_what_is_in_the_trash_is_said_to_be_there(workspace: Workspace) -> None:
    logs.version(workspace).delete()
    with pytest.raises(NotFound) as caught:
        workspace.version("v_0")
    assert "dojang restore default/V_0" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        workspace.version("typo/V_0")
    assert "default" in caught.value.hint


def test_a_broken_label_is_not_written_over(workspace: Workspace) -> None:
    version = logs.version(workspace)
    (version.path / "version.toml").write_text('memo = "precious" oops')
    with pytest.raises(DojangError) as caught:
        version.relabel(name="new")
    assert caught.value.code == "BAD_FILE" and "precious" in (version.path / "version.toml").read_text()


def test_a_number_is_no_name(workspace: Workspace) -> None:
    version = logs.version(workspace)
    with pytest.raises(Invalid):
        version.relabel(name="v_7")
    assert version.relabel(name="V_0").name == "" and version.summary()["name"] == "V_0"


def test_a_name_is_found_however_its_letters_are_made(workspace: Workspace) -> None:
    version = logs.version(workspace)
    version.relabel(name=unicodedata.normalize("NFD", "기준"))
    for form in ("NFC", "NFD"):
        assert workspace.version(unicodedata.normalize(form, "기준")) == version


@pytest.mark.parametrize("name", ["세포", "ก็ได้", "हिन्दी", "Ünï 2.0_b-c", "漢" * 64])
def test_projects_are_named_in_any_script(workspace: Workspace, name: str) -> None:
    workspace.project(name, create=True)
    assert workspace.projects() == [name]
    version = logs.version(workspace)
    workspace.use(name)
    assert Version(workspace.project(name), "V_0").reference == f"{name}/V_0" and version.project.name == "default"
    trashed = logs.version(workspace).delete()
    assert trashed.project == name and trashed.restore().project.name == name


@pytest.mark.parametrize("name", ["𠀀" * 64, "\ud800", "a\u202eb"])
def test_names_no_disk_or_terminal_can_take_are_refused(name: str) -> None:
    with pytest.raises(DojangError):
        clean_name(name)


def test_many_versions_are_listed_without_reading_their_logs(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = workspace.project(create=True)
    for number in range(200):
        made = project.path / f"V_{number}"
        made.mkdir()
        (made / "spec.toml").write_text('dataset = "d"')
        (made / "events.jsonl").write_text(
            '{"kind": "start", "t": 1, "attempt": 1}\n{"kind": "end", "state": "done"}\n'
        )
    rows = summaries(project.versions())

    def read(*_: object, **__: object) -> list[object]:
        raise AssertionError("a log was read")

    monkeypatch.setattr(events, "read_all", read)
    assert summaries(project.versions()) == rows
    assert [r["version"] for r in rows] == [f"V_{n}" for n in range(199, -1, -1)]


def test_two_apps_see_the_same(workspace: Workspace) -> None:
    """The second is another process: it lists, renames and deletes what the first made."""
    version, second = logs.finished(logs.version(workspace)), logs.version(workspace)
    code = f"""
from pathlib import Path
from engine.versions import Workspace, summaries
workspace = Workspace(Path({str(workspace.path)!r}))
print(summaries(workspace.project().versions())[1]["metrics"]["map50"])
workspace.version("V_0").relabel(name="theirs")
workspace.version("V_1").delete()
"""
    assert version.summary()["name"] == "V_0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) == 0.8
    assert version.summary()["name"] == "theirs" and not second.path.exists()
    with pytest.raises(DojangError):
        second.delete()
    with pytest.raises(DojangError):
        second.relabel(name="too late")


def test_a_full_disk_leaves_what_was_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version = logs.version(workspace, "before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for change in (lambda: version.relabel(name="after"), lambda: logs.version(workspace), version.delete):
        with pytest.raises(DojangError) as caught:
            change()
        assert caught.value.code == "DISK_FULL"
    assert version.label_data()["name"] == "before"
    assert [p.name for p in workspace.project().path.iterdir() if p.is_dir()] == ["V_0"]
    assert sorted(p.name for p in version.path.iterdir()) == ["spec.toml", "version.toml"]


def test_a_workspace_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w").ensure()
    version = logs.finished(logs.version(workspace))
    trashed = logs.version(workspace).delete()
    with read_only(workspace.path):
        assert summaries(workspace.project().versions())[0]["state"] == "done"
        for change in (
            lambda: version.relabel(name="new"),
            lambda: logs.version(workspace),
            lambda: workspace.use("other"),
            lambda: local.start(version),
            lambda: local.hold(version),
            lambda: control.send(version.control, "stop"),
            version.delete,
            trashed.restore,
            Workspace(tmp_path / "w" / "new").ensure,
        ):
            with pytest.raises(DojangError) as caught:
                change()
            assert caught.value.code == "READ_ONLY" and str(tmp_path) in caught.value.message
    assert sorted(p.name for p in version.path.iterdir()) == ["events.jsonl", "spec.toml", "version.toml"]


def test_show_has_what_scripts_rely_on(workspace: Workspace) -> None:
    found = show(logs.finished(logs.version(workspace, "x")))
    needed = "version name project state stage spec metrics epochs_done epochs split run_dir weights error"
    assert set(needed.split()) <= set(found)
    assert set(found["metrics"]) == {"map50", "map50_95", "precision", "recall", "f1"} and found["task"] == "detect"
    assert set(found["results"]) == {"val"} and found["results"]["val"]["metrics"] == found["metrics"]
    assert set(found["results"]["val"]) >= {"per_class", "confidence", "confusion", "curves"}
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
