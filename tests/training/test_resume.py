"""Stopped or killed anywhere, a training goes on to the very bits of one that was left alone."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import demo
from engine.control import send
from engine.datasets import add
from engine.events import Event, follow
from engine.versions import Version, Workspace
from tests.training.conftest import SHAPES, Create, ending, of_kind, same, start, tiny, train

pytestmark = pytest.mark.slow

ACCUMULATING = {"nominal_batch_size": 16, "batch_size": 8}  # so that gradients are pending at most moments


def state_of(version: Version) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(version.state_file, weights_only=True)["state"]
    return {k: v for k, v in state.items() if k != "spec"}


def stop_at_step(monkeypatch: Any, version: Version, at: int, request: str = "stop") -> None:
    """Ask for it while step `at` (1… over the whole training) is being taken."""
    from engine.training.loop import Loop

    step = Loop._step

    def asking(self: Loop, batch: Any) -> None:
        step(self, batch)
        if self.at.taken == at:
            send(version.control, request)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_step", asking)


def stop_in_evaluation(monkeypatch: Any, version: Version, number: int) -> None:
    """Ask to stop when the `number`-th evaluation of the process begins."""
    from engine.training.kernels.ultralytics import Detector

    evaluate, count = Detector.evaluate, [0]

    def asking(self: Detector, *arguments: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            send(version.control, "stop")
        return evaluate(self, *arguments)

    monkeypatch.setattr(Detector, "evaluate", asking)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: Any) -> Version:
    """The training that was left alone. Loading processes are none of its settings: they must not matter."""
    folder = tmp_path_factory.mktemp("unbroken")
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, demo.draw(folder / "shapes", **SHAPES), "shapes")
    version = tiny(workspace, **ACCUMULATING)
    assert ending(train(version)) == "done"
    return version


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_within_an_epoch(create: Create, unbroken: Version, monkeypatch: Any, workers: int) -> None:
    version = create(workers=workers, **ACCUMULATING)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 5)
        first = train(version)
    assert ending(first) == "stopped"
    assert [e["request"] for e in of_kind(first, "control")] == ["stop"]
    assert of_kind(first, "step")[-1]["step"] == 5
    assert version.last_weights.exists()

    version.control.unlink()
    second = train(version)
    assert ending(second) == "done"
    assert of_kind(second, "start")[0]["resumed"] == {"epoch": 2, "step": 5}
    assert sum(e["n"] for e in of_kind(second, "step")) == 4
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]

    progress = version.progress()
    assert progress.ended == "done" and progress.epochs_done == 3 and progress.attempt == 2
    curve = progress.step_series["box_loss"]
    assert list(curve.xs) == sorted(set(curve.xs)) and curve.xs[-1] == 9
    for a, b in zip(progress.epochs, unbroken.progress().epochs, strict=True):
        assert (a["epoch"], a["train"], a["val"], a["metrics"]) == (b["epoch"], b["train"], b["val"], b["metrics"])


def test_stopped_in_validation_and_again_in_testing(create: Create, unbroken: Version, monkeypatch: Any) -> None:
    version = create(**ACCUMULATING)
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, version, 2)
        first = train(version)
    assert ending(first) == "stopped"
    assert len(of_kind(first, "epoch")) == 1

    version.control.unlink()
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, version, 3)  # two epochs are left, then comes the test
        second = train(version)
    assert ending(second) == "stopped"
    assert of_kind(second, "start")[0]["resumed"] == {"epoch": 2, "step": 6}
    assert [e["epoch"] for e in of_kind(second, "epoch")] == [2, 3]
    assert not of_kind(second, "result")

    version.control.unlink()
    third = train(version)
    assert ending(third) == "done"
    assert not of_kind(third, "step") and len(of_kind(third, "result")) == 1
    assert same(state_of(version), state_of(unbroken))


def test_stopped_before_the_first_step(create: Create) -> None:
    version = create()
    send(version.control, "stop")
    assert ending(train(version)) == "stopped"
    assert not version.state_file.exists()
    version.control.unlink()
    assert ending(train(version)) == "done"


def wait_for(version: Version, wanted: Callable[[list[Event]], bool], process: Any, seconds: float = 90) -> None:
    end, offset, events = time.monotonic() + seconds, 0, list[Event]()
    while not wanted(events):
        assert time.monotonic() < end and process.poll() is None, version.train_log.read_text()
        time.sleep(0.01)
        more, offset = follow(version.events, offset)
        events += more


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def holds(pid: int, lock: Path) -> bool:
    return any(path.resolve() == lock for path in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize(("workers", "step"), [(0, 5), (2, 7)])
def test_killed(create: Create, unbroken: Version, workers: int, step: int) -> None:
    version = create(workers=workers, **ACCUMULATING)
    with version.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(version, lock.fileno())
        wait_for(version, lambda events: any(e["step"] >= step for e in of_kind(events, "step")), process)
    loaders = children(process.pid)
    assert len(loaders) >= workers
    assert holds(process.pid, version.lock) and not any(holds(pid, version.lock) for pid in loaders)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not version.alive()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in loaders) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in loaders if Path(f"/proc/{pid}").exists()], "loading processes outlived the training"

    assert start(version).wait(120) == 0, version.train_log.read_text()
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]
    assert version.progress().ended == "done"


def test_sigterm_stops_as_asked(create: Create) -> None:
    version = create(epochs=50)
    process = start(version)
    wait_for(version, lambda events: len(of_kind(events, "step")) > 1, process)
    process.terminate()
    assert process.wait(60) == 0
    progress = version.progress()
    assert progress.ended == "stopped" and version.state_file.exists()


def test_inexact_resume_goes_on_and_says_so(create: Create, monkeypatch: Any) -> None:
    version = create(exact_resume=False)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 4)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    events = train(version)
    assert ending(events) == "done"
    assert any("another order" in e["text"] for e in of_kind(events, "log"))
    steps = [e["step"] for e in of_kind(events, "step")]
    assert steps[0] > 4 and steps[-1] == 9 and sum(e["n"] for e in of_kind(events, "step")) == 5


def test_changed_settings_are_refused(create: Create, monkeypatch: Any) -> None:
    version = create()
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 2)
        train(version)
    version.control.unlink()
    path = version.path / "spec.toml"
    path.write_text(path.read_text().replace("batch_size = 8", "batch_size = 4"))
    events = train(version)
    assert ending(events).startswith("failed: SPEC_CHANGED") and "batch_size" in ending(events)


def test_a_widened_head_is_built_again(create: Create, workspace: Workspace, monkeypatch: Any) -> None:
    """Weights of 80 classes change the model's shape; the file itself may be gone by the time of the resume."""
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights

    path = workspace.weights / "yolov8n.pt"
    ultralytics_weights.write(DetectionModel("yolov8n.yaml", nc=80, verbose=False), path, {})
    left_alone = create(weights="pretrained")
    events = train(left_alone)
    assert ending(events) == "done"
    assert of_kind(events, "plan")[0]["weights"] == "yolov8n.pt: 349 of 355 tensors"

    version = create(weights="pretrained")
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 4)
        train(version)
    version.control.unlink()
    path.unlink()
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "plan")[0]["weights"] == "yolov8n.pt: 349 of 355 tensors"
    assert same(state_of(version), state_of(left_alone))
