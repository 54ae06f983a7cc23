"""A run on this machine: nothing that happens to whoever started it touches it, and its end is always known.

The worker is played by a script; the supervisor, the lock and the launch are the real ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine import control
from engine.errors import DojangError
from engine.events import read_all
from engine.servers import local, supervisor
from engine.versions import Version, Workspace
from tests import logs
from tests.played import end_all, engine_with, environment, pids, until
from tests.servers.box import FAKES

SLEEPER = """
import os, sys, time
from engine.events import EventLog
from engine.worker import version_at
from pathlib import Path
version = version_at(Path(sys.argv[1]))
print("worker says hello", sys.stdin.read() == "", flush=True)
with EventLog(version.events) as log:
    log.append("start", attempt=1, pid=os.getpid(), host="h", versions={}, resumed=None)
    log.append("stage", stage="training")
    if not os.fork():
        time.sleep(60)
        os._exit(0)
    while not version.control.exists():
        time.sleep(0.01)
    log.append("end", state="stopped")
"""


@pytest.fixture
def version(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Version]:
    """A version whose worker is SLEEPER."""
    fake, environment = engine_with(tmp_path / "fake", "__main__.py", SLEEPER), local._environment()
    monkeypatch.setattr(local, "_environment", lambda: {**environment, "PYTHONPATH": str(fake)})
    made = logs.version(workspace)
    yield made
    end_all(made.path)


@pytest.fixture
def trained(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Version]:
    """A version whose worker is the real one; its training is played and goes on until something is asked."""
    played = environment(tmp_path / "fake")["PYTHONPATH"]
    real = local._environment()
    monkeypatch.setattr(local, "_environment", lambda: {**real, "PYTHONPATH": played})
    made = logs.version(workspace)
    made.relabel(memo="wait")
    yield made
    end_all(made.path)


def worker_of(version: Version) -> int:
    until(lambda: logs.only(read_all(version.events), "start"))
    return int(read_all(version.events)[0]["pid"])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def supervisor_of(version: Version) -> int:
    return parent(worker_of(version))


def children() -> set[int]:
    """Of this process, dead but unburied ones too."""
    found = set()
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and parent(int(entry)) == os.getpid():
                found.add(int(entry))
    return found


def state(version: Version) -> str:
    return version.state(version.progress())


def test_it_runs_apart_and_ends_with_a_word(version: Version) -> None:
    local.start(version)
    assert version.alive()
    worker = worker_of(version)
    assert os.getsid(worker) == worker != os.getsid(0)
    assert os.readlink(f"/proc/{worker}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{worker}/fd/1") == str(version.train_log)
    local.request(version, "stop")
    assert local.wait(version, 10) == "stopped"
    assert "worker says hello True" in version.train_log.read_text()
    until(version.exit_record.exists)
    assert json.loads(version.exit_record.read_text())["code"] == 0
    until(lambda: not pids(version.path))  # its own children end with it


def test_nobody_starts_it_twice(version: Version) -> None:
    local.start(version)
    with pytest.raises(DojangError) as caught:
        local.start(version)
    assert caught.value.code == "RUNNING"


def test_of_two_who_start_it_at_once_one_does(version: Version) -> None:
    outcomes: list[str] = []

    def start() -> None:
        try:
            local.start(version)
            outcomes.append("started")
        except DojangError as e:
            outcomes.append(e.code)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["RUNNING", "RUNNING", "RUNNING", "started"]
    worker_of(version)
    assert len(logs.only(read_all(version.events), "start")) == 1


def test_a_killed_worker_is_lost_with_a_reason(version: Version) -> None:
    local.start(version)
    os.kill(worker_of(version), signal.SIGKILL)
    until(lambda: not version.alive())
    row = version.summary()
    assert row["state"] == "lost" and "signal 9" in row["error"]["message"] and "resume" in row["error"]["hint"]
    until(lambda: not pids(version.path))


def test_the_lock_holds_while_only_the_worker_lives(version: Version) -> None:
    local.start(version)
    worker = worker_of(version)
    supervisor = supervisor_of(version)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: supervisor not in pids(version.path))
    assert worker in pids(version.path) and version.alive()
    until(lambda: state(version) == "training")
    local.request(version, "stop")
    until(lambda: state(version) == "stopped")


def test_with_both_gone_it_is_lost(version: Version) -> None:
    local.start(version)
    worker = worker_of(version)
    group = os.getpgid(worker)
    os.kill(supervisor_of(version), signal.SIGKILL)
    os.killpg(group, signal.SIGKILL)
    until(lambda: not version.alive())
    assert state(version) == "lost" and "restarted" in version.summary()["error"]["message"]


def test_a_terminal_that_goes_takes_nothing_along(version: Version) -> None:
    """The launcher in a session of its own with a controlling terminal, which then hangs up."""
    import pty

    code = f"""
import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
import sys; sys.path.insert(0, {str(Path(supervisor.__file__).parents[2])!r})
from pathlib import Path
from engine.servers import local
from engine.worker import version_at
environment = {local._environment()!r}
local._environment = lambda: environment
local.start(version_at(Path({str(version.path)!r})))
print("started", flush=True)
import time; time.sleep(60)
"""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    seen = b""
    while b"started" not in seen:
        seen += os.read(fd, 4096)
    worker = worker_of(version)
    os.close(fd)
    os.waitpid(pid, 0)
    assert os.readlink(f"/proc/{worker}/fd/0") == "/dev/null" and version.alive()


def test_a_request_to_what_does_not_run_is_refused(version: Version) -> None:
    with pytest.raises(DojangError) as caught:
        local.request(version, "stop")
    assert caught.value.code == "NOT_RUNNING" and not version.control.exists()


def test_sigterm_to_the_supervisor_is_a_stop(trained: Version) -> None:
    local.start(trained)
    until(lambda: trained.progress().step > 3)
    os.kill(supervisor_of(trained), signal.SIGTERM)
    assert local.wait(trained, 20) == "stopped"
    assert json.loads(trained.exit_record.read_text())["code"] == 0
    assert trained.state_file.exists() and trained.progress().requests == ["stop"]


def test_stopped_it_goes_on_where_it_was(trained: Version) -> None:
    local.start(trained)
    until(lambda: trained.progress().step > 3)
    local.request(trained, "stop")
    assert local.wait(trained, 20) == "stopped"
    reached = trained.progress().step
    local.resume(trained)
    assert state(trained) in ("preparing", "training")
    until(lambda: trained.progress().attempt == 2 and trained.progress().step > reached)
    local.request(trained, "finish")
    assert local.wait(trained, 20) == "done"
    steps = list(trained.progress().step_series["box"].xs)
    assert steps == list(range(1, len(steps) + 1))
    with pytest.raises(DojangError) as caught:
        local.resume(trained)
    assert caught.value.code == "DONE"


def test_for_a_container_it_stays_saves_when_told_to_end_and_goes_on(trained: Version, tmp_path: Path) -> None:
    """The command of a container: killed by SIGTERM it fails, started again it goes on, and done it stays done."""
    words = ["-c", "import sys; from tui.cli import main; sys.exit(main())", "--workspace", str(trained.workspace.path)]
    told = {**os.environ, "PYTHONPATH": local._environment()["PYTHONPATH"]}

    def run() -> subprocess.Popen[str]:
        line = [sys.executable, "-P", *words, "resume", trained.reference, "--stay"]
        return subprocess.Popen(line, env=told, stdout=subprocess.PIPE, text=True)

    first = run()
    until(lambda: trained.state(trained.progress()) == "training")
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=60)
    assert (first.returncode, "is stopped" in out) == (1, True)
    trained.relabel(memo="")
    for _ in range(2):
        again = run()
        out, _ = again.communicate(timeout=60)
        assert (again.returncode, "is done" in out) == (0, True)
    assert trained.progress().attempt == 2


@pytest.mark.parametrize(("memo", "code"), [("fail", "OUT_OF_MEMORY"), ("crash", "INTERNAL")])
def test_a_failure_has_a_code_and_says_what_to_do(trained: Version, memo: str, code: str) -> None:
    trained.relabel(memo=memo)
    local.start(trained)
    assert local.wait(trained, 20) == "failed"
    error = trained.summary()["error"]
    assert error["code"] == code and error["message"] and error["hint"]
    assert "Traceback" in trained.train_log.read_text() and "Traceback" not in error["message"]


def test_it_starts_from_a_folder_that_is_gone(
    trained: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    local.start(trained)
    until(lambda: trained.progress().step)
    monkeypatch.chdir(tmp_path)


def test_a_look_at_the_lock_does_not_hinder_a_start(trained: Version) -> None:
    """`alive` takes the lock for an instant, and every open app does so every second."""
    trained.lock.touch()
    with trained.lock.open() as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (probe, fcntl.LOCK_UN)).start()
        local.start(trained)
    until(lambda: trained.progress().step)


def test_a_worker_that_cannot_be_started_says_so(trained: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DojangError) as caught:
        local.start(trained)
    assert caught.value.code == "START_FAILED" and "train.log" in caught.value.hint
    assert not trained.alive() and state(trained) == "draft"


def test_a_full_disk_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    supervisor.record(tmp_path, -9)
    assert list(tmp_path.iterdir()) == []


def test_an_old_wish_does_not_stop_a_new_start(version: Version) -> None:
    control.send(version.control, "stop")
    local.start(version)
    worker_of(version)
    assert version.alive() and not version.control.exists()


def test_nothing_is_left_open_or_unburied(version: Version) -> None:
    before = sorted(os.listdir("/proc/self/fd")), children()
    local.start(version)
    worker_of(version)
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


@pytest.mark.parametrize(
    ("code", "word"), [(0, ""), (-9, "memory"), (-11, "native"), (-15, "signal 15"), (3, "code 3")]
)
def test_every_end_has_words(code: int, word: str) -> None:
    assert word in supervisor.reason(code)
    assert bool(supervisor.reason(code)) == (code != 0)


# In the queue


@pytest.fixture
def gpus(workspace: Workspace, trained: Version, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Version]]:
    """Three versions that each want one of two GPUs; the first is `trained`."""
    real = local.job
    monkeypatch.setattr(local, "job", lambda *given: {**real(*given), "poll": 0.02})
    monkeypatch.setenv("PATH", f"{FAKES}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    played = local._environment

    def here() -> dict[str, str]:
        return {**played(), **{k: os.environ[k] for k in ("PATH", "DOJANG_QUEUE")}}

    monkeypatch.setattr(local, "_environment", here)
    others = [logs.version(workspace), logs.version(workspace)]
    for version in others:
        version.relabel(memo="wait")
    yield [trained, *others]
    for version in others:
        end_all(version.path)


def steps(version: Version) -> bool:
    return state(version) == "training" and version.progress().step > 3


def fill(versions: list[Version]) -> Version:
    """Start all; the last one has to wait."""
    for version in versions:
        local.start(version)
    until(lambda: all(map(steps, versions[:-1])))
    return versions[-1]


def test_the_third_of_two_gpus_waits_and_starts_by_itself(gpus: list[Version]) -> None:
    third = fill(gpus)
    until(
        lambda: (
            third.summary()["waiting"] == {"reason": "waits for 1 GPU; none free", "ahead": 0, "free": 0, "held": False}
        )
    )
    assert state(third) == "queued" and third.workspace.queued() == [third.reference]
    assert third.reference not in third.workspace.running()
    local.request(gpus[0], "stop")
    until(lambda: steps(third))
    assert third.summary()["waiting"] is None and third.workspace.queued() == []


def test_a_stop_takes_it_out_and_it_is_what_it_was(gpus: list[Version]) -> None:
    third = fill(gpus)
    for before in ("draft", "stopped"):
        for what in ("pause", "finish"):
            with pytest.raises(DojangError, match="has not begun"):
                local.request(third, what)
        with pytest.raises(DojangError, match="waits in the queue"):
            third.delete()
        local.request(third, "stop")
        assert local.wait(third, 20) == before
        if before == "draft":
            local.start(third, "now")
            until(lambda: steps(third))
            local.request(third, "stop")
            assert local.wait(third, 20) == "stopped"
            local.resume(third)
            assert state(third) == "queued"


def test_killed_while_it_waited_it_is_lost_and_can_wait_again(gpus: list[Version]) -> None:
    third = fill(gpus)
    (waits,) = pids(third.path)
    os.kill(waits, signal.SIGKILL)
    until(lambda: not third.alive())
    row = third.summary()
    assert row["state"] == "lost" and "waited in the queue" in row["error"]["message"]
    assert f"dojang resume {third.reference}" in row["error"]["hint"]
    local.resume(third)
    assert state(third) == "queued" and third.summary()["error"] is None


def test_a_spec_changed_by_hand_while_it_waited_is_refused(gpus: list[Version]) -> None:
    third = fill(gpus)
    text = third.spec_file.read_text()
    third.spec_file.write_text(text.replace("epochs = 4", "epochs = 400"))
    local.request(gpus[0], "stop")
    until(lambda: not third.alive())
    row = third.summary()
    assert (row["state"], row["error"]["code"]) == ("failed", "SPEC_CHANGED") and third.progress().step == 0
    local.resume(third)  # as it is now is as it is wanted
    until(lambda: steps(third))


def test_without_gpus_nobody_waits_but_who_asks_to(
    trained: Version, gpus: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != str(FAKES)))
    for version in gpus:
        local.start(version)
    until(lambda: all(map(steps, gpus)))
    assert not Path(os.environ["DOJANG_QUEUE"]).exists()
    for version in gpus[:2]:
        local.request(version, "stop")
        local.wait(version, 20)
        local.resume(version, mode="queue")
    until(lambda: steps(gpus[0]))
    assert gpus[1].waiting()["reason"] == "waits for its turn on the CPU" and state(gpus[1]) == "queued"
    local.request(gpus[0], "stop")
    until(lambda: steps(gpus[1]))


@pytest.mark.parametrize(
    ("spec", "needs"),
    [({}, (1, None)), ({"gpus": 2}, (2, None)), ({"device": "cuda:1", "gpus": 2}, (2, 1)), ({"device": "cpu", "gpus": 2}, (0, None))],
)  # fmt: skip
def test_what_a_spec_needs(workspace: Workspace, spec: dict[str, object], needs: tuple[int, int | None]) -> None:
    made = logs.version(workspace, **spec)
    assert local.needed(made.spec()) == needs


def test_a_job_is_frozen_as_of_now(trained: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(FAKES))
    job = local.job(trained)
    assert supervisor.sound(job) == "" and job["queue"] and job["gpus"] == 1
    assert local.job(trained, "now")["queue"] is False
    trained.spec_file.write_text("nonsense = [")
    broken = local.job(trained)
    assert broken["frozen"] != job["frozen"] and broken["queue"] is False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.job(trained)["queue"] is False
