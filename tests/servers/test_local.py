"""A run on this machine: nothing that happens to whoever started it touches it, and its end is always known.

The worker is played by a script; the supervisor, the lock and the launch are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import control
from engine.errors import DojangError
from engine.servers import local, supervisor
from engine.versions import Version, Workspace
from tests import logs

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
    while not version.control.exists():
        time.sleep(0.01)
    log.append("end", state="stopped")
"""


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def pids(version: Version) -> list[int]:
    """Every process whose command line names the run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(version.path).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def version(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Version]:
    """A version whose worker is SLEEPER: an `engine` package found first, that hands all else to the real one."""
    fake = tmp_path / "fake"
    (fake / "engine").mkdir(parents=True)
    real = Path(supervisor.__file__).parents[1]
    (fake / "engine" / "__init__.py").write_text(f"__path__.append({str(real)!r})")
    (fake / "engine" / "__main__.py").write_text(SLEEPER)
    environment = local._environment()
    monkeypatch.setattr(local, "_environment", lambda: {**environment, "PYTHONPATH": str(fake)})
    made = logs.version(workspace)
    yield made
    for pid in pids(made):
        os.kill(pid, signal.SIGKILL)


def worker_of(version: Version) -> int:
    until(lambda: logs.only(__import__("engine.events", fromlist=["read_all"]).read_all(version.events), "start"))
    return int(json.loads(version.events.read_text().splitlines()[0])["pid"])


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
    until(lambda: not pids(version))  # its own children end with it


def test_nobody_starts_it_twice(version: Version) -> None:
    local.start(version)
    with pytest.raises(DojangError) as caught:
        local.start(version)
    assert caught.value.code == "RUNNING"


def test_a_killed_worker_is_lost_with_a_reason(version: Version) -> None:
    local.start(version)
    os.kill(worker_of(version), signal.SIGKILL)
    until(lambda: not version.alive())
    row = version.summary()
    assert row["state"] == "lost" and "signal 9" in row["error"]["message"] and "resume" in row["error"]["hint"]
    until(lambda: not pids(version))


def test_the_lock_holds_while_only_the_worker_lives(version: Version) -> None:
    local.start(version)
    worker = worker_of(version)
    parent = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    time.sleep(0.2)
    assert version.alive() and version.state(version.progress()) == "training"
    local.request(version, "stop")
    until(lambda: version.state(version.progress()) == "stopped")


def test_a_terminal_that_goes_takes_nothing_along(version: Version) -> None:
    """The launcher in a session of its own with a controlling terminal, which then hangs up."""
    import pty

    code = f"""
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
    time.sleep(0.2)
    os.kill(worker, 0)
    assert version.alive()


def test_a_request_to_what_does_not_run_is_refused(version: Version) -> None:
    with pytest.raises(DojangError) as caught:
        local.request(version, "stop")
    assert caught.value.code == "NOT_RUNNING" and not version.control.exists()


def test_sigterm_to_the_supervisor_reaches_the_worker(version: Version) -> None:
    local.start(version)
    worker = worker_of(version)
    parent = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(parent, signal.SIGTERM)
    until(lambda: not version.alive())
    assert "signal 15" in version.exit_reason()


def test_an_old_wish_does_not_stop_a_new_start(version: Version) -> None:
    control.send(version.control, "stop")
    local.start(version)
    worker_of(version)
    assert version.alive() and not version.control.exists()


def test_nothing_is_left_open_or_unburied(version: Version) -> None:
    before = len(os.listdir("/proc/self/fd"))
    local.start(version)
    worker_of(version)
    assert len(os.listdir("/proc/self/fd")) == before
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    assert (
        not children.exists()
        or str(version.path)
        not in subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True, check=False
        ).stdout
    )


@pytest.mark.parametrize(
    ("code", "word"), [(0, ""), (-9, "memory"), (-11, "native"), (-15, "signal 15"), (3, "code 3")]
)
def test_every_end_has_words(code: int, word: str) -> None:
    assert word in supervisor.reason(code)
    assert bool(supervisor.reason(code)) == (code != 0)
