"""The fold: what a log amounts to, however it is cut up and whatever happened to the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import Event, EventLog, read_all
from engine.progress import Progress
from tests import logs


def fold(events: list[Event]) -> Progress:
    progress = Progress()
    progress.apply(events)
    return progress


@pytest.fixture
def whole(tmp_path: Path) -> list[Event]:
    with EventLog(tmp_path / "e") as log:
        logs.begin(log)
        for number in (1, 2, 3, 4):
            logs.steps(log, number * 5 - 4, number * 5)
            logs.epoch(log, number, [0.1, 0.5, 0.4, 0.3][number - 1], best=number < 3)
        log.append("stage", stage="testing")
        log.append("result", split="val", metrics=logs.metrics(0.55), per_class=[], weights="best.pt", images=8)
        log.append("result", split="test", metrics=logs.metrics(0.45), per_class=[], weights="best.pt", images=8)
        log.append("end", state="done")
    return read_all(tmp_path / "e")


def test_a_finished_training(whole: list[Event]) -> None:
    p = fold(whole)
    assert (p.ended, p.stage, p.fraction, p.epochs_done, p.step) == ("done", "done", 1.0, 4, 20)
    assert list(p.step_series["box"].xs) == list(range(1, 21))
    assert list(p.epoch_series["map50"].ys) == [0.1, 0.5, 0.4, 0.3]
    assert p.metrics()["map50"] == 0.55
    assert p.results["test"]["metrics"]["map50"] == 0.45
    assert p.remaining() is None


PLAN: Event = {"kind": "plan", "t": 1.0, "epochs": 2, "steps_per_epoch": 1}


def measured(**metrics: float) -> Event:
    return {"kind": "epoch", "t": 2.0, "epoch": 1, "metrics": metrics, "best": True}


@pytest.mark.parametrize(
    ("events", "task", "metrics"),
    [
        ([{**PLAN, "task": "classify"}], "classify", ["top1", "top5", "precision", "recall", "f1"]),
        ([PLAN, measured(top1=0.5)], "classify", ["top1", "top5", "precision", "recall", "f1"]),
        ([PLAN, measured(map50=0.5)], "detect", ["map50", "map50_95", "precision", "recall", "f1"]),
        ([{**PLAN, "task": ["x"]}, measured(other=0.5)], "", ["map50", "map50_95", "precision", "recall", "f1"]),
    ],
)
def test_the_task_is_what_the_plan_or_the_metrics_say(events: list[Event], task: str, metrics: list[str]) -> None:
    p = fold(events)
    assert p.task == task and list(p.metrics()) == metrics


def test_a_classifiers_log_speaks_of_its_accuracy() -> None:
    assert fold([PLAN, measured(top1=0.5)]).log[-1][2] == "epoch 1: top-1 val 0.500 → best so far, kept"
    assert list(fold([]).metrics("classify")) == ["top1", "top5", "precision", "recall", "f1"]


def test_a_result_keeps_its_confusion_and_threshold() -> None:
    confusion = {"labels": ["a", "b"], "matrix": [[1, 2], [0, 3]], "confidence": 0.25, "iou": 0.5}
    event = {"kind": "result", "split": "val", "metrics": {"map50": 0.5}, "confidence": 0.25, "confusion": confusion}
    p = fold([event])
    assert p.confidence() == 0.25 and p.results["val"]["confusion"] == confusion and p.results["val"]["curves"] is None


def test_an_epoch_that_was_not_evaluated_hides_none_that_was() -> None:
    rows = [{"name": "a", "map50": 0.25}]
    seen = {**measured(map50=0.25), "per_class": rows, "best": False}
    p = fold([PLAN, seen, {**measured(), "epoch": 2, "best": False}])
    assert p.metrics()["map50"] == 0.25 and p.per_class() == rows and len(p.epoch_series["map50"]) == 1


def test_a_number_beyond_every_float_is_no_number() -> None:
    p = fold([PLAN, measured(map50=10**400, recall=0.5)])
    assert (p.metrics()["map50"], p.metrics()["recall"]) == (None, 0.5) and len(p.epoch_series["map50"]) == 1


def test_before_the_result_the_best_epoch_counts(whole: list[Event]) -> None:
    p = fold([e for e in whole if e["kind"] not in ("result", "end")])
    assert p.best and p.best["epoch"] == 2
    assert p.metrics()["map50"] == 0.5


def test_a_resumed_run_has_no_gap_and_no_double(whole: list[Event], tmp_path: Path) -> None:
    killed = whole[: next(i for i, e in enumerate(whole) if e.get("step") == 14)]  # the checkpoint was after step 12
    with EventLog(tmp_path / "again") as log:
        logs.begin(log, attempt=2, resumed={"epoch": 3, "step": 12})
        logs.steps(log, 13, 15)
        logs.epoch(log, 3, 0.7)
    p = fold(killed + read_all(tmp_path / "again"))
    assert list(p.step_series["box"].xs) == list(range(1, 16))
    assert list(p.step_series["lr"].xs) == list(range(1, 16))
    assert list(p.epoch_series["map50"].ys) == [0.1, 0.5, 0.7]
    assert (p.epochs_done, p.attempt) == (3, 2)


@settings(max_examples=60, deadline=None)
@given(killed_at=st.integers(0, 20), data=st.data())
def test_wherever_it_is_killed_and_resumed_the_curves_are_whole(killed_at: int, data: st.DataObject) -> None:
    """The second attempt goes on after step `saved`: as if nothing had happened, whatever was logged in between."""
    unbroken, per_epoch = list(story(1, 20)), 5
    saved = data.draw(st.integers(0, killed_at))
    start = {"kind": "start", "t": 500.0, "attempt": 2, "resumed": {"epoch": saved // per_epoch + 1, "step": saved}}
    p = fold([*unbroken[:2], *story(1, killed_at), start, *story(saved + 1, 20)])
    q = fold(unbroken)
    for name, series in q.step_series.items():
        assert list(p.step_series[name].xs) == list(series.xs) and list(p.step_series[name].ys) == list(series.ys)
    for name, series in q.epoch_series.items():
        assert list(p.epoch_series[name].xs) == list(series.xs) and list(p.epoch_series[name].ys) == list(series.ys)
    assert (p.step, p.epochs_done, p.best, p.metrics()) == (q.step, q.epochs_done, q.best, q.metrics())


def story(first: int, last: int) -> Iterator[Event]:
    """Steps `first` to `last` of four epochs of five, evaluated after each; the second is the best."""
    if first == 1:
        yield {"kind": "start", "t": 0.0, "attempt": 1}
        yield {"kind": "plan", "t": 0.0, "epochs": 4, "steps_per_epoch": 5}
    for step in range(first, last + 1):
        number = (step - 1) // 5 + 1
        loss = {"box": 1 / step, "cls": 2 / step}
        yield {
            "kind": "step",
            "t": 1.0 * step,
            "epoch": number,
            "step": step,
            "i": (step - 1) % 5 + 1,
            "loss": loss,
            "lr": 0.1,
        }
        if step % 5 == 0:
            found = logs.metrics([0.1, 0.5, 0.4, 0.3][number - 1])
            yield {"kind": "epoch", "t": 1.0 * step, "epoch": number, "metrics": found, "best": number < 3, "lr": 0.1}


def test_the_best_is_forgotten_when_it_is_cut_away() -> None:
    start = {"kind": "start", "t": 500.0, "attempt": 2, "resumed": {"epoch": 2, "step": 8}}
    p = fold([*story(1, 14), start])
    assert p.best and p.best["epoch"] == 1 and p.metrics()["map50"] == 0.1


def test_a_resume_at_an_epochs_end_keeps_that_epoch(whole: list[Event], tmp_path: Path) -> None:
    """A state saved after epoch 2 says: epoch 3, step 10."""
    with EventLog(tmp_path / "again") as log:
        logs.begin(log, attempt=2, resumed={"epoch": 3, "step": 10})
    p = fold(whole[:-5] + read_all(tmp_path / "again"))
    assert p.epochs_done == 2 and p.best and p.best["epoch"] == 2
    assert list(p.step_series["box"].xs) == list(range(1, 11))
    assert not p.results and not p.ended


def test_a_fresh_second_attempt_forgets_the_first(whole: list[Event], tmp_path: Path) -> None:
    with EventLog(tmp_path / "again") as log:
        logs.begin(log, attempt=2)
        logs.steps(log, 1, 2)
    p = fold(whole + read_all(tmp_path / "again"))
    assert list(p.step_series["box"].xs) == [1, 2]
    assert p.epochs == [] and p.best is None and p.metrics()["map50"] is None


def test_time_counts_over_attempts_but_not_between_them() -> None:
    events: list[Event] = [
        {"kind": "start", "t": 100.0, "attempt": 1, "resumed": None},
        {"kind": "end", "t": 160.0, "state": "stopped"},
        {"kind": "start", "t": 1000.0, "attempt": 2, "resumed": {"epoch": 1, "step": 0}},
        {"kind": "stage", "t": 1005.0, "stage": "training"},
    ]
    p = fold(events)
    assert p.elapsed() == 65.0
    assert p.elapsed(now=1010.0) == 70.0


def test_remaining_follows_the_pace_and_counts_down() -> None:
    events: list[Event] = [
        {"kind": "start", "t": 0.0, "attempt": 1},
        {"kind": "plan", "t": 0.0, "epochs": 10, "steps_per_epoch": 10},
        {"kind": "stage", "t": 0.0, "stage": "training"},
        *({"kind": "step", "t": float(s), "epoch": 1, "step": s, "i": s, "loss": {"a": 1.0}} for s in range(1, 6)),
    ]
    p = fold(events)
    assert p.remaining() == pytest.approx(95.0)
    assert p.remaining(now=15.0) == pytest.approx(85.0)
    assert fold(events[:4]).remaining() is None


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "step", "epoch": 1, "step": 9, "i": 4},
        {"kind": "step", "epoch": 1, "step": float("inf"), "i": 4, "loss": {}},
        {"kind": "step", "epoch": 1, "step": 9, "i": 4, "loss": 3},
        {"kind": "epoch", "metrics": {}},
        {"kind": "plan", "epochs": "many", "steps_per_epoch": 5},
        {"kind": "start", "attempt": 2, "t": 9.0, "resumed": [1, 2]},
        {"kind": "unheard of"},
    ],
)
def test_a_malformed_event_changes_no_curve(broken: Event) -> None:
    events = list(story(1, 8))
    p, q = fold([*events[:8], broken, *events[8:]]), fold(events)
    assert list(p.step_series["box"].xs) == list(q.step_series["box"].xs)
    assert (p.step, p.epochs_done, p.epochs_total, p.metrics()) == (q.step, q.epochs_done, q.epochs_total, q.metrics())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_fold_does_not_depend_on_how_the_log_is_cut(data: st.DataObject) -> None:
    again = {"kind": "start", "t": 500.0, "attempt": 2, "resumed": {"epoch": 2, "step": 7}}
    events = [*story(1, 12), again, *story(8, 16)]
    p, rest = Progress(), events
    while rest:
        n = data.draw(st.integers(1, len(rest)))
        p.apply(rest[:n])
        rest = rest[n:]
    q = fold(events)
    assert list(p.step_series["box"].xs) == list(q.step_series["box"].xs)
    assert (p.step, p.epochs_done, p.stage, p.log) == (q.step, q.epochs_done, q.stage, q.log)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["start", "stage", "plan", "progress", "step", "epoch", "result", "error", "end", "log", "x"])},
            optional={k: st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(), st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
                      for k in ("t", "epoch", "step", "i", "loss", "metrics", "attempt", "resumed", "stage", "epochs", "steps_per_epoch", "state", "done", "total", "what", "per_class", "text", "task", "split", "confidence", "confusion", "curves")},
        ),
        max_size=8,
    )
)  # fmt: skip
def test_a_hostile_log_breaks_nothing(events: list[Event]) -> None:
    p = fold(events)
    p.metrics(), p.per_class(), p.remaining(), p.elapsed(), p.fraction, p.steps_total, p.task, p.confidence("test")
