"""A training in lines of text, and the words for its numbers."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import EventLog, read_all
from tests import logs
from tui import words
from tui.lines import Lines

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.text(max_size=3), st.floats()), max_size=2),
)  # fmt: skip
KINDS = [
    "start",
    "stage",
    "plan",
    "progress",
    "step",
    "epoch",
    "result",
    "checkpoint",
    "control",
    "log",
    "error",
    "end",
]
FIELDS = [
    "t",
    "attempt",
    "resumed",
    "stage",
    "epochs",
    "steps_per_epoch",
    "lr",
    "epoch",
    "step",
    "i",
    "loss",
    "metrics",
]
FIELDS += [
    "task",
    "confidence",
    "confusion",
    "curves",
    "best",
    "split",
    "text",
    "request",
    "code",
    "message",
    "state",
    "img_s",
]


def told(*events: dict[str, Any]) -> list[str]:
    lines = Lines()
    return [line for event in events for line in lines.of(event)]


def test_a_whole_training_is_told(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        logs.begin(log)
        logs.steps(log, 1, 5)
        logs.epoch(log, 1, 0.5)
        log.append("result", split="test", metrics=logs.metrics(0.25), per_class=[])
        log.append("error", code="DISK_FULL", message="No space left.")
        log.append("end", state="failed")
    lines = told(*read_all(tmp_path / "e"))
    text = "\n".join(lines)
    assert "40 train and 8 val images, 4 epochs of 5 steps" in text and "random weights" in text
    assert "epoch 1/4 on val: mAP50 0.500" in text and "(best so far)" in text
    assert "best weights on test: mAP50 0.250" in text and "DISK_FULL: No space left." in text
    assert lines[-1].startswith("── failed after 0:0")
    assert sum("step " in line and "img/s" in line for line in lines) == 1  # one every few seconds


def test_a_classifier_is_told_in_its_own_metrics_and_a_detector_with_its_threshold() -> None:
    plan = {"kind": "plan", "t": 1.0, "epochs": 2, "steps_per_epoch": 1}
    classify = {"top1": 0.75, "top5": 1.0, "precision": 0.5, "recall": None, "f1": 0.25}
    result = {"kind": "result", "t": 2.0, "split": "val", "per_class": []}
    lines = told({**plan, "task": "classify"}, {**result, "metrics": classify, "confidence": None})
    assert lines[-1] == "best weights on val: top-1 0.750  top-5 1.000  precision 0.500  recall –  F1 0.250"
    lines = told(plan, {**result, "metrics": logs.metrics(0.5), "confidence": 0.3125})
    assert lines[-1].endswith("recall 0.500  F1 0.500 at confidence 0.312")


def test_an_epoch_without_an_evaluation_claims_none() -> None:
    epoch = {"kind": "epoch", "t": 2.0, "epoch": 1, "metrics": {}, "best": False}
    plan = {"kind": "plan", "t": 1.0, "epochs": 2, "steps_per_epoch": 1}
    assert told(plan, epoch)[-1] == "epoch 1/2"


def test_numbers_that_are_unknown_are_dashes(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        log.append("step", epoch=1, step=1, i=1, n=1, loss={"box": float("nan")}, lr=None, img_s=None)
    assert "box –  lr –  – img/s" in told(*read_all(tmp_path / "e"))[0]


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda kind, fields: {"kind": kind, **fields},
                st.one_of(st.sampled_from(KINDS), st.sampled_from(["_init__", "last_step", "_class__", "of", ""])),
                st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8),
            )
        ),
        max_size=5,
    )
)
def test_a_hostile_log_is_told_as_far_as_it_goes(events: list[dict[str, Any]]) -> None:
    assert all(isinstance(line, str) for line in told(*events))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0:00"), (-5, "0:00"), (42.9, "0:42"), (725, "12:05"), (3731, "1:02:11"), (273_600, "3d 04h")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.001, "0.001"),
        (0.00012345, "1.2e-4"),
        (212.54, "212.5"),
        (1e7, "1.0e7"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_times_are_this_machines_own() -> None:
    now = datetime.now().astimezone()
    assert words.when(now.isoformat()) == f"{now:%H:%M}"
    before = now - timedelta(days=3)
    assert words.when(before.isoformat()) == f"{before:%Y-%m-%d %H:%M}"
    assert words.when("yesterday") == "yesterday"


def test_what_comes_from_outside_is_fit_for_a_terminal() -> None:
    assert words.clean("a\x1b[2Jb\r\n\u202e이") == "a [2Jb   이"


def test_counts_read_as_they_are_said() -> None:
    assert [words.plural(n, "image") for n in (0, 1, 12_345)] == ["0 images", "1 image", "12 345 images"]
    assert [words.setting(v) for v in (None, True, 0.5, "x")] == ["auto", "yes", "0.5", "x"]
