"""Learning rates: ultralytics' own, as pure functions of the step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schedule import Schedule, ScheduleName, of, warmup_steps
from engine.spec import parse

NAMES = get_args(ScheduleName)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.data())
def test_warm_up_is_a_straight_line_to_the_last_bit(
    steps: int, start: float, target: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps + 5))
    schedule = Schedule(target, 10, 100, warmup_steps=steps)
    assert schedule.ramp(step, start, target) == float(np.interp(step, [0, steps], [start, target]))


@given(st.integers(1, 500), st.floats(0, 1), st.data())
def test_epochs_follow_ultralytics_formulas_to_the_last_bit(epochs: int, lrf: float, data: st.DataObject) -> None:
    """Trainer._setup_scheduler: one_cycle(1, lrf, epochs) and the straight line."""
    x = data.draw(st.integers(0, epochs))
    cosine = max((1 - math.cos(x * math.pi / epochs)) / 2, 0) * (lrf - 1) + 1
    linear = max(1 - x / epochs, 0) * (1.0 - lrf) + lrf
    assert Schedule(1.0, epochs, 1, "cosine", lrf).factor(x) == cosine
    assert Schedule(1.0, epochs, 1, "linear", lrf).factor(x) == linear
    assert Schedule(1.0, epochs, 1, "constant", lrf).factor(x) == 1.0


BY_EPOCH = ("linear", "cosine", "constant", "step")


@pytest.mark.parametrize("name", BY_EPOCH)
def test_a_whole_training_as_ultralytics_does_it(name: ScheduleName) -> None:
    """Trainer._do_train: by step during warm-up, towards the rate of the epoch it is in; by epoch after."""
    schedule = Schedule(0.01, 20, 7, name, 0.05, warmup_lr=0.002, warmup_steps=21, step_every=6)
    for step in range(20 * 7):
        target = 0.01 * schedule.factor(step // 7 * 7)
        expected = float(np.interp(step, [0, 21], [0.002, target])) if step <= 21 else target
        assert schedule.at(step) == expected


@pytest.mark.parametrize("name", BY_EPOCH)
def test_schedules_fall_to_their_final_rate(name: ScheduleName) -> None:
    schedule = Schedule(0.01, 100, 10, name, 0.01, step_gamma=0.1, step_every=50)
    rates = [schedule.at(s) for s in range(1000)]
    assert rates[0] == 0.01 and all(b <= a for a, b in pairwise(rates))
    assert rates[-1] == 0.01 * schedule.factor(999)
    assert schedule.factor(1000) == pytest.approx(1.0 if name == "constant" else 0.01)


def test_step_falls_at_its_epochs() -> None:
    schedule = Schedule(1.0, 9, 4, "step", step_gamma=0.5, step_every=3)
    assert [schedule.at(e * 4) for e in range(9)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert schedule.at(11) == 1 and schedule.at(12) == 0.5


def test_cyclic_goes_down_and_up_in_straight_lines() -> None:
    schedule = Schedule(1.0, 100, 10, "cyclic", warmup_steps=20, cycle_epochs=4, cycle_low_ratio=0.2)
    assert schedule.at(20) == 1.0 and schedule.at(40) == pytest.approx(0.2) and schedule.at(60) == 1.0
    assert schedule.at(30) == pytest.approx(0.6) == schedule.at(50)


def test_one_cycle_climbs_then_falls_to_its_very_last_step() -> None:
    schedule = Schedule(1.0, 10, 10, "one-cycle", 0.01, warmup_lr=0.04, rise_share=0.3)
    rates = [schedule.at(s) for s in range(100)]
    assert rates[0] == 0.04 and rates[30] == 1.0 == max(rates) and rates[99] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(rates[:31])) and all(a > b for a, b in pairwise(rates[30:]))


@given(st.sampled_from(NAMES), st.integers(1, 60), st.integers(1, 40), st.floats(1e-6, 1), st.floats(0, 1), st.data())
def test_a_rate_never_leaves_its_bounds(
    name: ScheduleName, epochs: int, steps: int, lr: float, start: float, data: st.DataObject
) -> None:
    schedule = Schedule(lr, epochs, steps, name, warmup_lr=start, warmup_steps=data.draw(st.integers(0, 50)))
    rate = schedule.at(data.draw(st.integers(0, epochs * steps)))
    assert 0 <= rate <= max(lr, start) * (1 + 1e-9)


def test_a_spec_says_its_schedule() -> None:
    found = of(
        parse({"dataset": "x", "epochs": 10, "final_lr": 0.0005, "warmup_steps": 7, "schedule": "cosine"}), 0.01, 20
    )
    assert (found.final_ratio, found.warmup_steps, found.name) == (0.05, 7, "cosine")
    assert of(parse({"dataset": "x", "schedule": "one-cycle"}), 0.01, 20).warmup_steps == 0
    longer = of(parse({"dataset": "x", "epochs": 10}), 0.01, 20, epochs=30, scale=0.5)
    assert longer.epochs == 30 and longer.at(600) == pytest.approx(0.5 * 0.01 * 0.01)


def test_the_first_step_has_the_warm_up_rate() -> None:
    schedule = Schedule(0.01, 10, 10, warmup_lr=0.002, warmup_steps=30)
    assert schedule.at(0) == 0.002 and schedule.at(30) == 0.01 * schedule.factor(30)
    assert schedule.rate(0, 0.02, 0.1) == 0.1 and schedule.rate(31, 0.02, 0.1) == 2 * schedule.at(31)


def test_without_warm_up_it_begins_at_the_full_rate() -> None:
    assert Schedule(0.01, 10, 10, warmup_lr=0.5).at(0) == 0.01


@pytest.mark.parametrize(
    ("epochs_of_warm_up", "epochs", "per_epoch", "steps"),
    [(3, 10, 5, 15), (3, 2, 5, 5), (0, 10, 5, 0), (3, 1, 5, 0), (0.5, 10, 5, 2), (1000, 3, 4, 8), (0.01, 10, 5, 0)],
)
def test_the_last_epoch_is_left_to_the_schedule(
    epochs_of_warm_up: float, epochs: int, per_epoch: int, steps: int
) -> None:
    assert warmup_steps(epochs_of_warm_up, epochs, per_epoch) == steps
