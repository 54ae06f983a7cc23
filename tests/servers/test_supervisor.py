"""What a supervisor owes its run: it starts once, ends whole, and leaves word of how."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import read as read_control
from engine.events import read_all
from engine.servers import supervisor
from engine.versions import Version
from tests.logs import only
from tests.played import ROOT, until
from tests.servers.box import Box, alive

HERE = Path(supervisor.__file__).parent


def pythons() -> list[str]:
    """This one, and the oldest other of this machine that supervisors are written for."""
    for path in [
        *(shutil.which(f"python3.{n}") for n in (8, 9, 10)),
        *Path.home().glob(".pyenv/versions/3.8*/bin/python"),
    ]:
        if path and not subprocess.run([path, "-c", "import fcntl"], capture_output=True).returncode:
            return [sys.executable, str(path)]
    return [sys.executable]


FAMILY = """
import os, sys, time
def child(apart):
    if not os.fork():
        if apart:
            os.setsid()
            if os.fork():
                os._exit(0)
        with open(sys.argv[1] + "/family", "a") as f:
            f.write(f"{os.getpid()} ")
        time.sleep(60)
child(False)
child(True)
child(True)
while not os.path.exists(sys.argv[1] + "/family") or len(open(sys.argv[1] + "/family").read().split()) < 3:
    time.sleep(0.01)
if len(sys.argv) > 2:
    time.sleep(60)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.clear()


def exit_of(run: Path) -> dict[str, Any]:
    until((run / "exit.json").exists)
    found: dict[str, Any] = json.loads((run / "exit.json").read_text())
    return found


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, "{run}", *words]


def test_all_that_a_worker_leaves_behind_ends_with_it(box: Box) -> None:
    """Also what has a session of its own, as torchrun's workers have, and what was forked twice."""
    run = box.submit("one", argv=python(FAMILY), queue=False)
    assert exit_of(run)["code"] == 0
    family = [int(p) for p in (run / "family").read_text().split()]
    assert len(family) == 3 and not [p for p in family if alive(p)]


def test_a_killed_worker_takes_its_family_along(box: Box) -> None:
    run = box.submit("one", argv=python(FAMILY, "stay"), queue=False)
    until(lambda: (run / "family").exists() and len((run / "family").read_text().split()) == 3)
    worker = next(p for p in box.processes("one") if os.getsid(p) == p and p != box.supervisor_of("one"))
    os.kill(worker, signal.SIGKILL)
    told = exit_of(run)
    assert told["code"] == -9 and "signal 9" in told["reason"] and told["asked"] is False
    assert not [p for p in map(int, (run / "family").read_text().split()) if alive(p)]


def test_sigterm_asks_then_signals_then_kills(box: Box) -> None:
    stubborn = "trap 'echo term >> $0/signals' TERM; touch $0/ready; while :; do sleep 0.02; done"
    run = box.submit("one", argv=["/bin/sh", "-c", stubborn, "{run}"], queue=False, processes=2)
    (run / "control.json").write_text('{"request": null, "settings": {"epochs": 9}}')
    until((run / "ready").exists)
    above = box.supervisor_of("one")
    os.kill(above, signal.SIGTERM)
    until(lambda: read_control(run / "control.json") == {"request": "stop", "settings": {"epochs": 9}})
    assert not (run / "signals").exists()  # torchrun would kill its workers
    os.kill(above, signal.SIGTERM)
    until((run / "signals").exists)
    os.kill(above, signal.SIGTERM)
    assert exit_of(run) | {"ended": 0} == {
        "code": -9, "reason": supervisor.reason(-9), "ended": 0, "asked": True, "limited": False
    }  # fmt: skip


def test_a_time_limit_asks_and_then_ends_it(box: Box) -> None:
    run = box.submit("one", queue=False, limit=0.2, grace=0.1, processes=2)
    told = exit_of(run)
    assert told["limited"] and "time limit of 0.0 h" in told["reason"] and told["code"] == -15
    assert read_control(run / "control.json")["request"] == "stop"


def test_the_limit_counts_from_the_start_not_from_the_wait(box: Box) -> None:
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    run = box.submit("second", 0.05, gpus=2, limit=5)
    until(lambda: box.reason("second") == "waits for 2 GPUs; none free")
    box.go("first")
    assert exit_of(run)["limited"] is False and exit_of(run)["code"] == 0


def test_it_beats_while_it_waits_and_while_it_trains(box: Box) -> None:
    box.submit("first", gpus=2)
    waits = box.submit("second", gpus=2)
    for run in (box.run_dir("first"), waits):
        until((run / "heartbeat").exists)
        os.utime(run / "heartbeat", (1, 1))
        until(lambda run=run: (run / "heartbeat").stat().st_mtime > 1)


def test_a_stop_while_it_waits_is_the_end_of_it(box: Box) -> None:
    box.submit("first", gpus=2)
    for name, end in (("asked", "file"), ("signalled", "signal")):
        run = box.submit(name, gpus=1)
        until(lambda name=name: "none free" in box.reason(name))
        if end == "file":
            (run / "control.json").write_text('{"request": "stop"}')
        else:
            os.kill(box.supervisor_of(name), signal.SIGTERM)
        until(lambda name=name: not box.held(name))
        assert not (run / "waiting.json").exists() and not (run / "exit.json").exists()
    assert box.view().waiting == ()


def test_a_spec_changed_while_it_waited_is_not_trained(box: Box) -> None:
    box.submit("first", gpus=2)
    run = box.run_dir("second")
    run.mkdir(parents=True)
    (run / "spec.toml").write_text("epochs = 3\n")
    (run / "events.jsonl").write_text('{"kind": "torn')
    box.submit("second", gpus=1, frozen={"spec.toml": hashlib.sha256(b"epochs = 3\n").hexdigest()})
    (run / "spec.toml").write_text("epochs = 4\n")
    box.go("first")
    until(lambda: not box.held("second"))
    error, end = read_all(run / "events.jsonl")
    assert error["code"] == "SPEC_CHANGED" and "resume" in error["hint"] and end["state"] == "failed"
    assert box.started() == ["first"] and not (run / "waiting.json").exists()
    assert box.view().leases == {}


@pytest.mark.parametrize("changed", [True, False])
def test_other_code_than_was_submitted_is_told_of(box: Box, changed: bool) -> None:
    code = box.folder / "code"
    code.mkdir()
    (code / "a.py").write_text("1")
    frozen = {"folder": str(code), "sha256": supervisor.fingerprint(code)}
    box.submit("first", gpus=2)
    run = box.submit("second", 0, gpus=1, code=frozen)
    if changed:
        (code / "a.py").write_text("2")
    box.go("first")
    assert exit_of(run)["code"] == 0
    told = only(read_all(run / "events.jsonl"), "log")
    assert [e["level"] for e in told] == (["warning"] if changed else [])


def test_nobody_supervises_twice(box: Box) -> None:
    run = box.submit("one", queue=False)
    second = box.supervisor([str(run)])
    assert second.returncode == supervisor.RUNNING and "running already" in second.stderr


@pytest.mark.parametrize(
    "job",
    ["", "[]", "{}", '{"argv": "ls"}', '{"argv": []}', '{"argv": ["a"], "gpus": -1}', '{"argv": ["a"], "first": "0"}',
     '{"argv": ["a"], "limit": "x"}', '{"argv": ["a"], "processes": 0}'],
)  # fmt: skip
@pytest.mark.parametrize("stay", [False, True])
def test_what_is_no_job_is_refused(box: Box, job: str, stay: bool) -> None:
    run = box.run_dir("one")
    run.mkdir(parents=True)
    (run / "job.json").write_text(job)
    done = box.supervisor([*(["--stay"] if stay else []), str(run)])
    assert done.returncode == supervisor.NO_JOB and "cannot be run" in done.stderr
    assert (run / "exit.json").exists() == stay


def test_a_program_that_is_not_there_is_told(box: Box) -> None:
    run = box.submit("one", argv=["/nowhere/python"], gpus=1)
    assert exit_of(run)["code"] == 127 and "No such file" in exit_of(run)["reason"]
    until(lambda: not box.held("one"))
    assert box.view().leases == {} and not (run / "waiting.json").exists()


def test_a_queue_that_cannot_be_is_told(box: Box) -> None:
    (box.folder / "queue").write_text("")
    run = box.run_dir("one")
    run.mkdir(parents=True)
    (run / "job.json").write_text('{"argv": ["true"]}')
    done = box.supervisor([str(run)])
    assert done.returncode == supervisor.NO_QUEUE and "no place in the queue" in done.stderr
    assert not box.held("one")


def test_its_worker_has_no_login_and_no_descriptors_of_strangers(box: Box) -> None:
    code = "import os, json, sys; json.dump([dict(os.environ), sorted(os.listdir('/proc/self/fd'), key=int)], open(sys.argv[1] + '/seen', 'w'))"
    run = box.submit("one", argv=python(code), gpus=1, env={"SSH_AUTH_SOCK": "/agent", "LANG": "C"})
    assert exit_of(run)["code"] == 0
    environment, descriptors = json.loads((run / "seen").read_text())
    assert "SSH_AUTH_SOCK" not in environment and environment["LANG"] == "C"
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-00000000"
    assert (
        len(descriptors) == 6 and environment["DOJANG_LOCK_FD"] in descriptors
    )  # 0 1 2, lock, lease, the listing's own


# A copy that was sent somewhere


def test_it_is_written_for_old_pythons_and_their_library_alone() -> None:
    own = {name.removesuffix(".py") for name in supervisor.NEIGHBOURS}
    for name in supervisor.NEIGHBOURS:
        tree = ast.parse((HERE / name).read_text(), feature_version=(3, 8))
        wanted = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        wanted |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        ours = {m.removeprefix("engine.servers").strip(".") for m in wanted if m.startswith("engine")}
        assert ours <= {*own, ""}, name
        assert {m.partition(".")[0] for m in wanted if not m.startswith("engine")} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("program", pythons())
@pytest.mark.parametrize("stay", [False, True])
def test_a_lone_copy_does_the_same(box: Box, program: str, stay: bool) -> None:
    copy = box.folder / "sent"
    copy.mkdir()
    for name in supervisor.NEIGHBOURS:
        shutil.copy(HERE / name, copy / name)
    del box.environment["PYTHONPATH"]
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    run = box.run_dir("second")
    run.mkdir(parents=True)
    argv = ["/bin/sh", str(box.folder / "worker.sh"), "{run}", "0", str(box.log)]
    (run / "job.json").write_text(json.dumps({"argv": argv, "title": "second", "poll": 0.02, "gpus": 2}))
    words = [program, str(copy / "supervisor.py"), *(["--stay"] if stay else []), str(run)]
    with subprocess.Popen(words, env=box.environment, cwd="/", start_new_session=True) as process:
        until(lambda: box.reason("second") == "waits for 2 GPUs; none free")
        assert (process.poll() is None) == stay
        box.go("first")
        until(lambda: box.started() == ["first", "second"])
        assert process.wait(20) == 0
    assert exit_of(run)["code"] == 0


# torchrun


@pytest.fixture
def together(box: Box, request: pytest.FixtureRequest) -> Version:
    """A version that two processes are to train, over and over."""
    from engine import demo
    from engine.datasets import add
    from engine.versions import Workspace
    from tests.training.conftest import tiny

    workspace = Workspace(box.folder / "workspace").ensure()
    add(workspace.path, demo.draw(box.folder / "shapes", images=16, size=64, val=0.25), "shapes")
    return tiny(workspace, epochs=500, gpus=2, nominal_batch_size=16, warmup_epochs=0.0, mosaic=0.0)


def train_together(box: Box, version: Version) -> list[int]:
    """Start it; every process of it once it takes steps."""
    argv = supervisor.command(Path("{run}"), 2)
    version.job.write_text(json.dumps({"argv": argv, "processes": 2, "queue": False}))
    box.environment["OMP_NUM_THREADS"] = "1"
    assert box.supervisor([str(version.path)]).returncode == 0
    until(lambda: version.progress().step >= 2, 120)
    found = [int(e) for e in os.listdir("/proc") if e.isdigit() and str(version.path) in words_of(int(e))]
    assert len(found) == 4, [words_of(p) for p in found]  # supervisor, torchrun, two workers
    return found


def words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
def test_a_stop_of_several_processes_leaves_none_and_a_checkpoint(box: Box, together: Version) -> None:
    family = train_together(box, together)
    above = next(p for p in family if "supervisor" in words_of(p))
    os.kill(above, signal.SIGTERM)
    until(lambda: not together.alive(), 60)
    assert together.progress().ended == "stopped" and together.state_file.exists()
    assert exit_of(together.path)["code"] == 0 and not [p for p in family if alive(p)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank", "torchrun"])
def test_the_death_of_one_leaves_none(box: Box, together: Version, victim: str) -> None:
    family = train_together(box, together)
    torchrun = next(p for p in family if "torch.distributed.run" in words_of(p))
    ranks = [p for p in family if "torch.distributed.run" not in words_of(p) and "supervisor" not in words_of(p)]
    os.kill(torchrun if victim == "torchrun" else ranks[1], signal.SIGKILL)
    until(lambda: not together.alive(), 90)
    assert not [p for p in family if alive(p)] and exit_of(together.path)["reason"]
    assert together.state(together.progress()) in ("lost", "failed")


def test_a_fingerprint_is_of_code_alone(tmp_path: Path) -> None:
    """The fingerprint is of every line, and of nothing else."""
    for name, text in (("a.py", "1"), ("b/c.py", "2"), ("d.txt", "3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = supervisor.fingerprint(tmp_path)
    (tmp_path / "d.txt").write_text("4")
    assert supervisor.fingerprint(tmp_path) == before
    (tmp_path / "b" / "c.py").write_text("4")
    assert supervisor.fingerprint(tmp_path) != before
    assert supervisor.fingerprint(ROOT / "engine") == supervisor.fingerprint(ROOT / "engine")
