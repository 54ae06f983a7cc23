"""The queue as people see it, from `dojang queue`: what trains where, what waits, and how that is changed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import launch
from engine.servers import local, queue, standing
from engine.servers.inventory import machine
from engine.spec import parse
from engine.versions import Version, Workspace
from tests import logs
from tests.played import until
from tests.servers.box import Box, played
from tests.tui import made
from tui.cli import main

Say = Callable[..., str]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """Two GPUs; this very process sees them as well."""
    with played(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def say(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: str, code: int = 0) -> str:
        assert main([*words, "--workspace", str(workspace.path)]) == code
        told = capsys.readouterr()
        return told.out + told.err

    return run


def put(box: Box, version: Version, **job: Any) -> Version:
    """Have a version train, or wait, with a worker that goes on until it is let go."""
    argv = ["/bin/sh", str(box.folder / "worker.sh"), "{run}", "until", str(box.log)]
    version.job.write_text(json.dumps({"argv": argv, "title": version.reference, "poll": 0.02, **job}))
    assert box.supervisor([str(version.path)]).returncode == 0
    return version


@pytest.fixture
def four(box: Box, workspace: Workspace) -> list[Version]:
    """V_0 trains on both GPUs; V_1 (one), V_2 (two) and V_3 (the second one) wait."""
    versions = [logs.version(workspace, name) for name in ("base", "one", "two", "pinned")]
    put(box, versions[0], gpus=2)
    until(lambda: box.started() == ["V_0"])
    for version, job in zip(versions[1:], ({"gpus": 1}, {"gpus": 2}, {"gpus": 1, "first": 1}), strict=True):
        put(box, version, **job)
    until(lambda: "behind 2" in versions[3].waiting()["reason"])
    return versions


def test_what_trains_and_what_waits(four: list[Version], say: Say, box: Box) -> None:
    text = say("queue")
    assert [line.split()[:3] for line in text.splitlines()[1:3]] == [["GPU", "0", "V_0"], ["GPU", "1", "V_0"]]
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("#")}
    assert list(rows) == ["V_1", "V_2", "V_3"] and "waits for GPU 1; none free; behind 2 trainings" in rows["V_3"]
    found = json.loads(say("queue", "--json"))
    assert [r["version"] for r in found["running"]] == ["default/V_0"] * 2
    assert [(w["position"], w["version"], w["gpus"], w["first"], w["ahead"]) for w in found["waiting"]] == [
        (1, "default/V_1", 1, None, 0),
        (2, "default/V_2", 2, None, 1),
        (3, "default/V_3", 1, 1, 2),
    ]
    states = {r["version"]: r["state"] for r in json.loads(say("list", "--json"))}
    assert {v for v, s in states.items() if s == "queued"} == {"V_1", "V_2", "V_3"}
    assert "queued, next" in say("list") and "queued, no. 3" in say("list")
    assert "it waits for 1 GPU; none free" in say("show", "V_1")


def test_moved_held_and_taken_out(four: list[Version], say: Say, box: Box) -> None:
    assert say("queue", "move", "two", "first").strip() == "The order now: default/V_2, default/V_1, default/V_3."
    assert "is held" in say("queue", "hold", "1") and "starts in its turn" in say("queue", "start", "V_3")
    waiting = json.loads(say("queue", "--json"))["waiting"]
    assert [(w["version"], w["held"], w["regardless"]) for w in waiting] == [
        ("default/V_2", True, False),
        ("default/V_1", False, False),
        ("default/V_3", False, True),
    ]
    say("queue", "release", "V_2")
    assert "taken out" in say("queue", "cancel", "V_2")
    until(lambda: not four[2].alive())
    assert "taken out of the queue" in say("stop", "V_1")
    assert four[1].state(four[1].progress()) == "draft"
    assert [w.title for w in queue.look(box.place).waiting] == ["default/V_3"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("hold", "V_0"), 4, "does not wait in the queue"),
        (("cancel", "9"), 3, "3 wait"),
        (("cancel", "0"), 3, "3 wait"),
        (("move", "V_9", "up"), 3, "no version"),
        (("move", "V_1", "sideways"), 2, "sideways"),
    ],
)
def test_what_cannot_be(four: list[Version], say: Say, words: tuple[str, ...], code: int, told: str) -> None:
    assert told in say("queue", *words, code=code)


def test_one_that_left_meanwhile_is_an_error_of_ours(four: list[Version], box: Box) -> None:
    one = standing.waiting_one(four[1].workspace, "V_1")
    standing.change(one, "cancel")
    until(lambda: not four[1].alive())
    for what in ("hold", "up", "cancel"):
        with pytest.raises(standing.DojangError, match="does not wait any more"):
            standing.change(one, what)


def test_estimates_rest_on_what_trains_and_on_the_last_alike(box: Box, workspace: Workspace, shapes: str) -> None:
    logs.finished(logs.version(workspace))  # 40 images of 64 px: 1.6 s an epoch
    running = put(box, logs.version(workspace), gpus=2)
    until(lambda: box.started() == ["V_1"])
    first, second = (put(box, logs.version(workspace, epochs=10, image_size=64), gpus=2) for _ in range(2))
    until(lambda: "behind" in second.waiting()["reason"])
    watch = standing.Watch(workspace)
    assert set(watch.look().starts.values()) == {None}
    made.write(running, made.training(epochs=100, per_epoch=10, until=30, pace=1.0))
    found = watch.look()
    starts = [found.starts[w.id] for w in found.view.waiting]
    assert starts[0] == pytest.approx(970, abs=30) and starts[0] == found.left[str(running.path)]
    assert starts[1] == pytest.approx(starts[0] + 10 * 8 * 1.6 / 40)
    assert watch._duration(standing.version_of(str(box.folder))) is None and first.alive()


def test_nobody_else_and_nothing(box: Box, say: Say, monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    assert "free" in say("queue") and "Nobody waits." in say("queue")
    monkeypatch.setenv("FAKE_GPU", "none")
    assert "sees no GPU" in say("queue")
    version = logs.version(workspace)
    with logs.running(version):
        assert "outside" in say("queue") and version.id in say("queue")


@pytest.mark.parametrize(
    ("spec", "starts"),
    [({}, "at once"), ({"device": "cpu"}, "at once"), ({"gpus": 3}, "never: this machine has 2 GPUs for it")],
)
def test_the_plan_says_when_it_starts(
    box: Box, workspace: Workspace, shapes: str, spec: dict[str, Any], starts: str
) -> None:
    plan = launch.plan(workspace, parse({"dataset": shapes, **spec}), machine(workspace.path))
    assert plan.starts == starts
    assert any(starts in w for w in plan.warnings) == starts.startswith("never")


def test_the_plan_says_behind_whom_it_waits(four: list[Version], workspace: Workspace, shapes: str) -> None:
    plan = launch.plan(workspace, parse({"dataset": shapes}), machine(workspace.path))
    assert plan.starts == "waits for 1 GPU; none free; behind 3 trainings"
    assert not any("slower" in w for w in plan.warnings)


def test_who_follows_one_that_waits_is_told_why(four: list[Version], say: Say, box: Box) -> None:
    one = standing.waiting_one(four[1].workspace, "V_1")
    threading.Timer(0.5, standing.change, (one, "cancel")).start()
    told = say("follow", "V_1", code=1)
    assert "── queued: waits for 1 GPU; none free" in told and "is draft" in told


def test_resumed_it_is_queued_and_says_so(four: list[Version], say: Say, box: Box) -> None:
    say("stop", "V_1")
    assert "is queued: it looks for a free GPU" in say("resume", "V_1")
    assert json.loads(say("stop", "V_1", "--json"))["state"] == "draft"


def test_in_the_foreground_it_goes_at_once_or_not_at_all(
    box: Box, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    mine, other = logs.version(workspace), logs.version(workspace, device="cuda:1")
    local.take_gpus(mine)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-00000000"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    local.take_gpus(other)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-00000000,GPU-00000001"
    view = queue.look(box.place, ("GPU-00000000", "GPU-00000001"))
    assert [lease.title for lease in view.leases.values()] == [mine.reference, other.reference]
    third = logs.version(workspace)
    with pytest.raises(standing.DojangError, match="waits for 1 GPU; none free") as caught:
        local.take_gpus(third)
    assert caught.value.code == "BUSY" and queue.look(box.place).waiting == () and not third.waiting_file.exists()
    local.take_gpus(third, "now")
    with pytest.raises(standing.DojangError, match="needs 3 GPUs"):
        local.take_gpus(logs.version(workspace, gpus=3))
    monkeypatch.setenv("FAKE_GPU", "none")
    local.take_gpus(third)
    for lease in Path("/proc/self/fd").iterdir():
        if str(lease.resolve()).startswith(f"{box.place}/leases"):
            os.close(int(lease.name))
