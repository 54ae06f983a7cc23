"""What a person changes about a training while it runs, and after it is done."""

from __future__ import annotations

from typing import Any

import pytest

from engine.control import send
from engine.servers import local
from tests.training.conftest import Create, ending, of_kind, same, train
from tests.training.test_resume import state_of, stop_at_step

pytestmark = pytest.mark.slow


def at_step(monkeypatch: Any, number: int, do: Any) -> None:
    """Call `do` after step `number` (1… over the whole training)."""
    from engine.training.loop import Loop

    step = Loop._step

    def doing(self: Loop, batch: Any) -> Any:
        found = step(self, batch)
        if self.at.taken == number:
            do()
        return found

    monkeypatch.setattr(Loop, "_step", doing)


def test_paused_and_gone_on_is_as_if_never_paused(create: Create, monkeypatch: Any) -> None:
    plain, paused = create(), create()
    assert ending(train(plain)) == "done"
    with monkeypatch.context() as patch:
        stop_at_step(patch, paused, 5, "pause")
        assert ending(train(paused)) == "paused"
    assert paused.state(paused.progress()) == "paused" and not paused.alive()
    local.control.withdraw(paused.control)
    assert ending(train(paused)) == "done"
    assert same(state_of(paused), state_of(plain))


def test_fewer_and_more_epochs_while_it_runs(create: Create, monkeypatch: Any) -> None:
    for wanted in (2, 5):
        version = create(epochs=3)
        with monkeypatch.context() as patch:
            at_step(patch, 4, lambda v=version, w=wanted: send(v.control, epochs=w))
            events = train(version)
        assert ending(events) == "done"
        assert [e["epoch"] for e in of_kind(events, "epoch")] == list(range(1, wanted + 1))
        assert [e.get("epochs") for e in of_kind(events, "control")] == [wanted]
        assert version.progress().epochs_total == wanted and version.progress().fraction == 1.0


def test_more_epochs_after_it_was_done(create: Create) -> None:
    version = create(epochs=2, patience=0)
    assert ending(train(version)) == "done"
    send(version.control, epochs=4)
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "start")[0]["resumed"] == {"epoch": 3, "step": 6}
    assert [e["epoch"] for e in of_kind(events, "epoch")] == [3, 4]
    assert of_kind(events, "plan")[0]["epochs"] == 4
    progress = version.progress()
    assert progress.epochs_done == 4 and progress.ended == "done"
    again = train(version)  # nothing is left: only the tests are run once more
    assert ending(again) == "done" and not of_kind(again, "step")


def test_a_new_rate_and_patience(create: Create, monkeypatch: Any) -> None:
    from engine.training.loop import Loop

    version, rates = (
        create(epochs=3, schedule="constant", warmup_epochs=0.0, optimizer="SGD", lr=0.01, nominal_batch_size=8),
        [],
    )
    update = Loop._update
    monkeypatch.setattr(
        Loop, "_update", lambda self: (rates.append(self.optimizer.param_groups[0]["lr"]), update(self))
    )
    at_step(monkeypatch, 4, lambda: send(version.control, lr_scale=0.1, patience=7))
    events = train(version)
    assert ending(events) == "done"
    (told,) = of_kind(events, "control")
    assert (told["request"], told["lr_scale"], told["patience"]) == ("change", 0.1, 7)
    assert rates[0] == 0.01 and rates[-1] == pytest.approx(0.001)
    lrs = dict(zip(*(getattr(version.progress().step_series["lr"], a) for a in ("xs", "ys")), strict=True))
    assert lrs[9.0] == pytest.approx(0.001)


def test_settings_outlive_a_kill_before_the_next_checkpoint(create: Create, monkeypatch: Any) -> None:
    """What was asked stays in the file, though the attempt that heard it left no trace of it."""
    version = create(epochs=2)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 1)
        train(version)
    send(version.control, epochs=3)
    local.control.withdraw(version.control)
    events = train(version)
    assert ending(events) == "done" and of_kind(events, "epoch")[-1]["epoch"] == 3


def test_one_evaluation_in_three_epochs_and_always_the_last(create: Create) -> None:
    version = create(epochs=7, val_every=3)
    events = train(version)
    assert ending(events) == "done"
    judged = [e["epoch"] for e in of_kind(events, "epoch") if e["metrics"]]
    assert judged == [3, 6, 7]
    progress = version.progress()
    assert progress.best and progress.best["epoch"] in judged and progress.metrics()["map50"] is not None


def test_checkpoints_within_an_epoch(create: Create, monkeypatch: Any) -> None:
    version = create(epochs=1, save_minutes=1e-6, threads=1)
    events = train(version)
    assert ending(events) == "done"
    steps = [e["step"] for e in of_kind(events, "checkpoint")]
    assert steps[0] == 0 and steps[-1] == 3 and {1, 2} & set(steps)


def test_without_averaging_the_last_weights_are_the_models(create: Create) -> None:
    version = create(epochs=1, ema=False)
    assert ending(train(version)) == "done"
    state = state_of(version)
    weights = [k for k in state["model"] if k.endswith((".weight", ".bias"))]
    assert len(weights) > 100 and all(same(state["model"][k], state["average"][k]) for k in weights)
