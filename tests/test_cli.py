"""The commands, as scripts and as clumsy people use them."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.servers import local
from engine.versions import Version, Workspace
from tests import logs
from tests.conftest import read_only
from tests.played import end_all, environment, until
from tui.cli import main

ROOT = Path(__file__).parents[1]
DOJANG = (sys.executable, "-P", "-m", "tui.cli")


@pytest.fixture
def dataset(shapes: str) -> str:
    return shapes


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


def test_none_empties_what_may_be_empty_and_is_a_word_elsewhere(
    run: Run, dataset: str, started: list[Version], tmp_path: Path
) -> None:
    (tmp_path / "spec.toml").write_text("lr = 0.5\n")
    command = ("train", str(tmp_path / "spec.toml"), "--dataset", dataset, "--model", "yolov8n")
    assert run(*command, "--set", "freeze=none", "--set", "lr=none").code == 0
    assert (started[0].spec().freeze, started[0].spec().lr) == ("none", None)


def test_three_mistakes_are_told_together(run: Run, dataset: str, started: list[Version]) -> None:
    run("train", "--dataset", dataset, "--model", "yolo", "--set", "epochs=0", "--set", "lr=fast")
    assert run.code == 2 and run.out == ""
    assert {p["field"] for p in run.error["problems"]} == {"model", "epochs", "lr"}
    run("train", "--dataset", "nope", "--set", "epochs=0", json_too=False)
    assert run.code == 2 and "dataset:" in run.err and "epochs:" in run.err
    assert started == [] and run._workspace.projects() == []


def test_mistakes_in_settings_and_labels_are_told_together(run: Run, tmp_path: Path, started: list[Version]) -> None:
    (tmp_path / "spec.toml").write_text('epochs = 0\n[version]\nproject = "../x"\ncreated = 2020-01-01')
    run("train", str(tmp_path / "spec.toml"), "--set", "foo", "--tag", "x" * 21, "--set", "batchsize=3")
    told = {p["field"]: p["message"] for p in run.error["problems"]}
    assert set(told) == {"dataset", "epochs", "project", "created", "--set", "tags", "batchsize"}
    assert "batch_size" in told["batchsize"] and run.code == 2 and started == []
    (tmp_path / "spec.toml").write_text("version = 3\n")
    assert "version" in {p["field"] for p in run("train", str(tmp_path / "spec.toml")).error["problems"]}


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


def test_what_is_no_spec_file_is_told(run: Run, tmp_path: Path) -> None:
    for path, words in ((tmp_path, "directory"), (tmp_path / "none.toml", "No such file")):
        assert run("train", str(path)).code == 2 and words in run.error["message"] and run.error["hint"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "Did you mean train?"),
        (["dataset", "ad", "x"], "Did you mean add?"),
        (["show"], "required: V"),
        (["list", "--bogus"], "--bogus"),
        (["train", "--foreground", "--detach"], "not allowed"),
        (["dataset", "add", "x", "--seed", "three"], "three"),
        (["dataset"], "required: ACTION"),
    ],
)
def test_wrong_usage_is_an_error_like_any_other(run: Run, words: list[str], told: str) -> None:
    assert run(*words).code == 2 and run.out == ""
    assert run.error["code"] == "USAGE" and told in run.error["message"] and "usage: dojang" in run.error["hint"]
    assert run(*words, json_too=False).code == 2 and told in run.err and run.err.startswith("dojang: ")


def test_json_may_be_asked_for_anywhere(run: Run) -> None:
    for words in (["--json", "list"], ["dataset", "--json", "list"], ["dataset", "list", "--json"]):
        assert run(*words, json_too=False).json == []
    assert run().code == 2 and run.error["code"] == "USAGE"


def test_weights_that_are_nowhere_are_named(run: Run, dataset: str, started: list[Version]) -> None:
    run("train", "--dataset", dataset, "--set", "weights=pretrained")
    (problem,) = run.error["problems"]
    assert problem["field"] == "weights"
    assert all(w in problem["message"] for w in ("yolov8n.pt", "weights", "download=true", "scratch"))


def test_list_and_show(run: Run, workspace: Workspace) -> None:
    logs.finished(logs.version(workspace, "first"))
    (row,) = run("list").json
    shown = run("show", "V_0").json
    assert shown.pop("spec")["dataset"] == "shapes" and shown.pop("results")["val"]["images"] == 8 and shown == row
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


def test_follow_says_what_it_did_not_see_done(run: Run, workspace: Workspace) -> None:
    version = logs.version(workspace)
    assert run("follow", "V_0").code == 1 and run.error["code"] == "DRAFT"
    assert f"dojang resume {version.reference}" in run.error["hint"]
    with logs.EventLog(version.events) as log:
        logs.begin(log)
        log.append("end", state="stopped")
    assert run("follow", "V_0", json_too=False).code == 1 and "Go on: dojang resume" in run.err


def test_nothing_from_a_file_reaches_the_terminal_raw(run: Run, workspace: Workspace) -> None:
    evil = "\x1b[2J\x07\u202e"
    version = logs.finished(logs.version(workspace))
    (version.path / "version.toml").write_text(
        f"name = {json.dumps(evil)}\ntags = [{json.dumps(evil)}]\nmemo = {json.dumps(evil)}"
    )
    with logs.EventLog(version.events) as log:
        log.append("log", level="info", text=evil)
        log.append("error", code=evil, message=evil, hint=evil)
        log.append("end", state="failed")
    version.train_log.write_text(f"{evil}\n")
    for words in (["list"], ["show", "V_0"], ["follow", "V_0"], ["log", "V_0"], ["show", evil], ["restore", evil]):
        run(*words, json_too=False)
        assert not set(evil) & set("\x1b\x07\u202e") & set(run.out + run.err), words


def test_a_project_that_is_not_there_is_told(run: Run, workspace: Workspace) -> None:
    logs.version(workspace)
    assert run("list", "--project", "defualt").code == 3 and "default" in run.error["hint"]
    assert run("list", "--project", "../x").code == 2
    assert len(run("list", "--project", "default").json) == len(run("list", "--all").json) == 1


def test_a_workspace_that_makes_no_sense_is_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for given, code in (("", 2), ("~nobody-of-that-name/x", 2), (str(tmp_path / "file"), 5)):
        assert main(["list", "--json", "--workspace", given]) == code
        assert json.loads(capsys.readouterr().err)["error"]["message"]
    monkeypatch.setenv("DOJANG_WORKSPACE", "~nobody-of-that-name")
    assert main(["list"]) == 2 and "nobody-of-that-name" in capsys.readouterr().err
    (run._workspace.path / "workspace.toml").write_text("= broken")
    assert run("list").code == 2 and run.error["code"] == "BAD_FILE"


def test_a_workspace_that_may_only_be_read_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path / "w").ensure()
    logs.finished(logs.version(workspace))
    with read_only(workspace.path):
        for words, code in (
            (["list"], 0), (["show", "V_0"], 0), (["rename", "V_0", "x"], 5), (["delete", "V_0", "--yes"], 5),
            (["project", "use", "x"], 5), (["dataset", "add", str(tmp_path)], 2),
        ):  # fmt: skip
            assert main([*words, "--json", "--workspace", str(workspace.path)]) == code, words
            out, err = capsys.readouterr()
            assert json.loads(err)["error"]["message"] if code else json.loads(out)


def test_a_demo_of_no_epochs_draws_nothing(run: Run, workspace: Workspace) -> None:
    for epochs in ("0", "-1"):
        assert run("demo", "--epochs", epochs).code == 2 and run.error["problems"][0]["field"] == "epochs"
    assert run("list", "--all").json == [] and run("dataset", "list").json == []


def test_every_command_is_documented(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    names = set(re.findall(r"^    (\w+)  ", out, re.MULTILINE))
    assert names >= {"dataset", "train", "list", "show", "follow", "stop", "resume", "rename", "delete", "restore"}
    assert "exit codes: 0 fine" in out


def test_deleting_asks_first(run: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version = logs.version(workspace)
    for answer, gone in (("\n", False), ("no\n", False), ("", False), ("y\n", True)):
        monkeypatch.setattr(sys, "stdin", Answer(answer))
        assert run("delete", "V_0", json_too=False).code == (0 if gone else 1)
        assert "[y/N]" in run.err and version.path.exists() != gone


class Answer(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rename_edit_delete_restore(run: Run, workspace: Workspace) -> None:
    logs.finished(logs.version(workspace))
    assert run("rename", "V_0", "이름").json["name"] == "이름"
    assert run("edit", "이름", "--tags", "a,b", "--memo", "m").json["tags"] == ["a", "b"]
    assert run("rename", "V_0", "x" * 65).code == 2 and run.error["code"] == "BAD_LABEL"
    assert "trained" not in run("rename", "V_0", "V_9", json_too=False).err
    assert run("edit", "V_0").code == 2
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
    options = {"stdin": subprocess.DEVNULL, "cwd": ROOT, "timeout": 60, **options}
    return subprocess.run([*DOJANG, *words], capture_output=True, text=True, **options)


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}, {"TERM": ""}])
def test_no_terminal_no_app(environment: dict[str, str]) -> None:
    done = program(env={**os.environ, **environment})
    assert done.returncode == 2 and "terminal" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_leaves_is_no_error(workspace: Workspace) -> None:
    for _ in range(30):
        logs.finished(logs.version(workspace))
    for words, seen in ((["list", "--json"], "[\n"), (["follow", "V_0"], "attempt 1 on box\n")):
        command = (
            shlex.join([*DOJANG, *words, "--workspace", str(workspace.path)]) + " | head -1; echo ${PIPESTATUS[0]}"
        )
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.stderr, done.stdout) == ("", f"{seen}0\n")
    gone = program("list", "--workspace", str(workspace.path), preexec_fn=lambda: os.close(1))
    assert (gone.returncode, gone.stderr) == (0, "")


def test_a_terminal_that_is_not_utf_8_gets_question_marks(workspace: Workspace) -> None:
    logs.version(workspace, "이름")
    for encoding in ("ascii", "latin-1"):
        done = program("list", "--workspace", str(workspace.path), env={**os.environ, "PYTHONIOENCODING": encoding})
        assert done.returncode == 0 and "??" in done.stdout and done.stderr == ""


def test_a_folder_that_is_gone_stops_only_what_needs_it(workspace: Workspace, tmp_path: Path) -> None:
    def away() -> None:
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    for words, code in ((["--workspace", "here"], 2), (["--workspace", str(workspace.path)], 0)):
        (tmp_path / "gone").mkdir()
        done = program(*words, "list", cwd=None, preexec_fn=away, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == code and "Traceback" not in done.stderr


class Played:
    """Real commands in processes of their own; their trainings are played."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace = workspace
        self.environment = {**environment(folder), "DOJANG_WORKSPACE": str(workspace.path)}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return program(*words, env=self.environment)

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*DOJANG, *words], env=self.environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def played(workspace: Workspace, shapes: str, tmp_path: Path) -> Iterator[Played]:
    yield Played(workspace, tmp_path / "fake")
    end_all(workspace.path / "projects")


@pytest.mark.parametrize("way", ["--follow", "--foreground"])
def test_a_training_is_told_to_its_end(played: Played, way: str) -> None:
    done = played("train", "--dataset", "shapes", way)
    assert done.returncode == 0 and done.stderr == ""
    assert "epoch 1/1 on val: mAP50 0.900" in done.stdout and done.stdout.count("── done after") == 1
    lines = played("train", "--dataset", "shapes", way, "--json").stdout.splitlines()
    assert [json.loads(lines[i])["kind"] for i in (0, -1)] == ["start", "end"]
    assert [e["step"] for e in map(json.loads, lines) if e["kind"] == "step"] == list(range(1, 11))


@pytest.mark.parametrize("way", ["--follow", "--foreground"])
def test_a_failed_training_fails_its_command(played: Played, way: str) -> None:
    done = played("train", "--dataset", "shapes", "--memo", "fail", way)
    assert done.returncode == 1 and "smaller batch size" in done.stderr
    done = played("train", "--dataset", "shapes", "--memo", "fail", way, "--json")
    assert done.returncode == 1 and '"OUT_OF_MEMORY"' in done.stderr.splitlines()[-1]
    assert json.loads(done.stderr.splitlines()[-1])["error"]["hint"]


def test_from_start_over_stop_and_resume_to_done(played: Played) -> None:
    made = json.loads(played("train", "--dataset", "shapes", "--memo", "wait", "--json").stdout)
    version = played.workspace.version(made["version"])
    assert made["run_dir"] == str(version.path)
    until(lambda: version.progress().step)
    stopped = played("stop", "V_0", "--json")
    assert stopped.returncode == 0 and json.loads(stopped.stdout)["state"] == "stopped"
    assert played("follow", "V_0").returncode == 1
    assert played("resume", "V_0").returncode == 0
    assert played("resume", "V_0", "--json").returncode == 4 and played("delete", "V_0", "--yes").returncode == 4
    until(lambda: version.progress().attempt == 2)
    finished = played("stop", "V_0", "--finish")
    assert finished.returncode == 0 and "is done" in finished.stdout
    found = json.loads(played("show", "V_0", "--json").stdout)
    assert (found["state"], found["metrics"]["map50"], found["error"]) == ("done", 0.9, None)
    assert Path(found["weights"]).exists() and found["spec"]["epochs"] == 100


def test_the_demo_draws_trains_and_tells(played: Played) -> None:
    done = played("demo", "--epochs", "1")
    assert done.returncode == 0 and done.stderr == ""
    assert "epoch 1/1 on val" in done.stdout
    assert "demo/V_0 “demo”: done" in done.stdout and "val:  mAP50 0.900" in done.stdout
    *lines, last = played("demo", "--epochs", "1", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["kind"] == "end" and json.loads(last)["version"] == "V_1"


def test_asking_does_not_wait_unless_it_should(played: Played) -> None:
    played("train", "--dataset", "shapes", "--memo", "wait")
    version = played.workspace.version("V_0")
    until(lambda: version.progress().step)
    asked = played("stop", "V_0", "--no-wait", "--json")
    assert json.loads(asked.stdout)["state"] == "asked"
    until(lambda: not version.alive())
    assert version.summary()["state"] == "stopped" and played("stop", "V_0").returncode == 4
    printed = json.loads(played("log", "V_0", "--json").stdout)
    assert printed["path"] == str(version.train_log) and isinstance(printed["text"], str)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl+C as in a terminal: what a shell starts in the background is told to ignore it, and so is what that starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_leaves_what_is_followed_running_and_stops_the_foreground(played: Played) -> None:
    for number, (way, state) in enumerate((("--follow", "training"), ("--foreground", "stopped"))):
        watcher = played.start("train", "--dataset", "shapes", "--memo", "wait", way)
        until(lambda number=number: played.workspace.project().versions()[number:] and played.workspace.version(f"V_{number}").progress().step)  # fmt: skip
        watcher.send_signal(signal.SIGINT)
        out, err = watcher.communicate(timeout=30)
        assert "Traceback" not in out + err
        version = played.workspace.version(f"V_{number}")
        assert version.summary()["state"] == state
        assert watcher.returncode == {"training": 130, "stopped": 1}[state]
        assert f"dojang {'stop' if state == 'training' else 'resume'} {version.reference}" in err


def test_a_watcher_that_is_no_longer_read_ends(played: Played) -> None:
    played("train", "--dataset", "shapes", "--memo", "wait")
    watcher = played.start("follow", "V_0")
    assert watcher.stdout and watcher.stderr
    assert watcher.stdout.readline().startswith("attempt 1")
    watcher.stdout.close()
    until(lambda: watcher.poll() is not None or played("edit", "V_0", "--tags", "x").returncode)
    assert (watcher.returncode, watcher.stderr.read()) == (0, "")
    watcher.stderr.close()
    assert played.workspace.version("V_0").alive()


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
