"""Several processes that train one model come to what one process comes to that takes its batches in pieces."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.control import send
from engine.servers.supervisor import command
from engine.training.world import World
from engine.versions import Version
from tests.training.conftest import ROOT, Create, ending, of_kind, train
from tests.training.test_resume import children, state_of, wait_for

SETTINGS: dict[str, Any] = {"epochs": 2, "nominal_batch_size": 16, "warmup_epochs": 0.0, "lr": 1e-4, "mosaic": 0.0}


def start_together(version: Version) -> subprocess.Popen[bytes]:
    with version.train_log.open("ab") as log:
        return subprocess.Popen(
            command(version.path, 2),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.mark.parametrize(("count", "size"), [(16, 2), (7, 3), (2, 2), (5, 4)])
def test_shares_make_up_the_batch(count: int, size: int) -> None:
    keys = list(range(count))
    shares = [World(rank, size).share(keys) for rank in range(size)]
    assert [k for share in shares for k in share] == keys
    assert all(shares) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_smaller_than_the_world_is_everybodys() -> None:
    assert [list(World(rank, 4).share([7, 8])) for rank in range(4)] == [[7, 8]] * 4
    assert World(0, 4).weight(2) == 0.25 and World(0, 4).weight(4) == 1.0


@pytest.mark.slow
def test_two_processes_and_one_in_pieces_agree(create: Create, monkeypatch: Any) -> None:
    """Same images, same pieces, same sums: what is left is the order in which floats are added, and the running
    statistics of batch normalisation, which one process keeps over both pieces and two over their own."""
    from engine.training.loop import Loop

    single, double = create(**SETTINGS), create(**SETTINGS, gpus=2)
    run = Loop.run

    def in_pieces(self: Loop) -> Any:
        self.course = replace(self.course, parts=2)
        return run(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run", in_pieces)
        assert ending(train(single)) == "done"
    assert start_together(double).wait(180) == 0, double.train_log.read_text()
    one, two = single.progress(), double.progress()
    assert two.ended == "done" and two.plan["processes"] == 2 and two.epochs_done == 2
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], rel=2e-3)
    a, b = state_of(single)["model"], state_of(double)["model"]
    for key in a:
        if key.endswith("weight"):
            assert (a[key] - b[key]).abs().max() < 1e-3, key


@pytest.mark.slow
def test_a_stop_reaches_all_and_goes_on(create: Create) -> None:
    version = create(**{**SETTINGS, "epochs": 30}, gpus=2)
    process = start_together(version)
    wait_for(version, lambda events: any(e["step"] >= 4 for e in of_kind(events, "step")), process)
    send(version.control, "stop")
    assert process.wait(60) == 0
    stopped = version.progress()
    assert stopped.ended == "stopped" and stopped.step < 90
    version.control.unlink()
    send(version.control, epochs=stopped.epochs_done + 1)
    assert start_together(version).wait(180) == 0, version.train_log.read_text()
    assert version.progress().ended == "done"
    steps = version.progress().step_series["box_loss"].xs
    assert list(steps) == sorted(set(steps))


@pytest.mark.slow
def test_the_death_of_one_ends_the_rest_and_can_be_gone_on_from(create: Create) -> None:
    version = create(**{**SETTINGS, "epochs": 30}, gpus=2)
    process = start_together(version)
    wait_for(version, lambda events: len(of_kind(events, "epoch")) >= 1, process)
    ranks = children(process.pid)
    second = next(p for p in ranks if b"RANK=1\0" in Path(f"/proc/{p}/environ").read_bytes())
    os.kill(second, signal.SIGKILL)
    assert process.wait(90) != 0
    assert not [p for p in ranks if Path(f"/proc/{p}").exists()]
    version.control.unlink(missing_ok=True)
    send(version.control, epochs=2)
    assert start_together(version).wait(180) == 0, version.train_log.read_text()
    assert version.progress().ended == "done"
