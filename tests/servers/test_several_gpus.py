"""Several processes share a training on a server, through torchrun: it trains, stops, and dies as a whole."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import launch, worker
from engine.errors import DojangError
from engine.events import read_all
from engine.servers import anywhere, boxes, elsewhere, mirror
from engine.spec import Label
from engine.versions import Version, Workspace
from tests import logs
from tests.played import end_all, pids, until
from tests.servers.box import alive
from tests.servers.far import settled

TINY = {
    "model": "yolov8n", "image_size": "64", "batch_size": "4", "nominal_batch_size": "4", "weights": "scratch", "device": "cpu",
    "workers": "0", "threads": "1", "gpus": "2", "warmup_epochs": "0", "mosaic": "0",
}  # fmt: skip


@pytest.fixture
def root(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the server `box`, whose Python is this one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path / "far"
    end_all(tmp_path / "far")
    end_all(workspace.path)


def add(workspace: Workspace, root: Path, host: str = "") -> None:
    box = boxes.make({"name": "box", "host": host, "root": str(root), "python": sys.executable})
    boxes.add(workspace.path, box)


def run_of(version: Version, root: Path) -> Path:
    place = elsewhere.place_of(version)
    assert place
    return root / "runs" / place.rid


def family(version: Version, root: Path) -> dict[str, list[int]]:
    """The processes of a run there, by what they are."""
    found: dict[str, list[int]] = {"supervisor": [], "torchrun": [], "rank": []}
    for pid in pids(run_of(version, root)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        kind = "supervisor" if b"servers.supervisor" in words else "torchrun" if b"distributed.run" in words else "rank"
        found[kind].append(pid)
    return found


def steps(version: Version) -> list[int]:
    """Those of its last attempt."""
    found: list[int] = []
    for event in read_all(version.events):
        found = [] if event["kind"] == "start" else [*found, event["step"]] if event["kind"] == "step" else found
    return found


def trains(version: Version, root: Path) -> dict[str, list[int]]:
    """Its processes, once it took steps."""
    until(lambda: len(steps(version)) > 2 or not version.alive(), 120)
    found = family(version, root)
    assert {kind: len(those) for kind, those in found.items()} == {"supervisor": 1, "torchrun": 1, "rank": 2}, (
        version.summary()["error"]
    )
    return found


def gone(version: Version, root: Path, before: dict[str, list[int]]) -> bool:
    return not pids(run_of(version, root)) and not any(alive(p) for those in before.values() for p in those)


@pytest.mark.slow
def test_stopped_gone_on_with_and_killed(workspace: Workspace, shapes: str, root: Path) -> None:
    add(workspace, root)
    version = launch.create(workspace, {**TINY, "dataset": shapes, "epochs": "500"}, Label(), server="box")
    anywhere.start(version)
    with mirror.following(version):
        those = trains(version, root)
        assert logs.only(read_all(version.events), "plan")[0]["processes"] == 2
        anywhere.request(version, "stop")
        until(lambda: version.state(version.progress()) == "stopped", 60)
        until(lambda: gone(version, root, those))
        assert (run_of(version, root) / "checkpoints" / "state.pt").exists()
        stopped_at = version.progress().step

    anywhere.resume(version)
    settled(version)
    with mirror.following(version):
        those = trains(version, root)
        assert steps(version)[0] == stopped_at + 1
        os.kill(those["rank"][1], signal.SIGKILL)
        until(lambda: not version.alive(), 90)
        until(lambda: gone(version, root, those))
    error = version.summary()["error"]
    assert version.state(version.progress()) == "failed" and error["code"] == "RANK_LOST", error
    assert error["message"] == "One of the processes that trained together ended." and "dojang resume" in error["hint"]

    anywhere.resume(version)
    settled(version)
    with mirror.following(version):
        those = trains(version, root)
        os.kill(those["torchrun"][0], signal.SIGKILL)
        until(lambda: not version.alive(), 90)
        until(lambda: gone(version, root, those))
    error = version.summary()["error"]
    assert version.state(version.progress()) == "lost" and "It was killed (signal 9)" in error["message"], error
    starts = logs.only(read_all(run_of(version, root) / "events.jsonl"), "start")
    assert [s["attempt"] for s in starts] == [1, 2, 3] and [bool(s["resumed"]) for s in starts] == [False, True, True]


@pytest.mark.slow
def test_over_ssh_to_its_end(
    workspace: Workspace, shapes: str, root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOJANG_SSH_CONFIG", request.getfixturevalue("sshd").target().config)
    add(workspace, root, "box")
    version = launch.create(workspace, {**TINY, "dataset": shapes, "epochs": "1"}, Label(), server="box")
    anywhere.start(version)
    assert anywhere.wait(version, 200) == "done", version.summary()["error"]
    assert version.best_weights.exists() and not pids(run_of(version, root))


def test_of_several_the_first_cause_is_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process only hears that another is gone; why, that one has left behind."""
    version = logs.version(workspace)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    lost = DojangError("One of the processes that trained together ended.", code="RANK_LOST", hint="See its log.")
    memory = DojangError("GPU 1 has no memory left.", code="OUT_OF_MEMORY", hint="Take a smaller batch size.")

    def told(*failures: tuple[int, Exception]) -> tuple[str, str]:
        for rank, failure in failures:

            def train(*_: object, failure: Exception = failure) -> str:
                raise failure

            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setattr(worker, "_train", train)
            assert worker.run(version.path) == 1
        error = logs.only(read_all(version.events), "error")[-1]
        return error["code"], error["hint"]

    assert told((1, lost), (0, lost)) == ("RANK_LOST", "See its log.")
    assert told((1, memory), (0, lost)) == ("OUT_OF_MEMORY", "Take a smaller batch size.")
    whole = f"The whole traceback is in its log: dojang log {version.reference}"
    assert told((1, RuntimeError("boom")), (0, lost)) == ("INTERNAL", whole)
    (version.path / worker.FAILED).write_text('{"group": 1, "code": "OLD"}')
    assert told((0, lost)) == ("RANK_LOST", "See its log.")
    assert len(logs.only(read_all(version.events), "end")) == 4
