"""The spec: declared once, every mistake told at once, everything said about every field."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import files, spec
from engine.errors import Invalid
from engine.schedule import Schedule, warmup_steps
from engine.spec import Label, Spec


def test_three_mistakes_are_told_at_once_by_field() -> None:
    with pytest.raises(Invalid) as caught:
        spec.parse({"dataset": "d", "epochs": 0, "lr": "fast", "image_size": 100, "seed": 3})
    told = {p.field: p.message for p in caught.value.problems}
    assert set(told) == {"epochs", "lr", "image_size"}
    assert "1 – 10 000" in told["epochs"] and "'fast'" in told["lr"] and "multiple of 32" in told["image_size"]


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ({}, "dataset", "missing"),
        ({"epoch": 3}, "epoch", "did you mean epochs"),
        ({"model": "yolov8q"}, "model", "Did you mean"),
        ({"optimizer": "sgd!"}, "optimizer", "AdamW"),
        ({"device": "cuda:0; rm -rf /"}, "device", "cuda:N"),
        ({"lr": float("nan")}, "lr", "above 0"),
        ({"lr": float("inf")}, "lr", ""),
        ({"weights": "a\x1b[2J"}, "weights", "control"),
        ({"epochs": 2.5}, "epochs", "whole number"),
        ({"download": "perhaps"}, "download", "true or false"),
        ({"weights": "x" * 5000}, "weights", "4096"),
        ({"batch_size": [1]}, "batch_size", "whole number"),
    ],
)
def test_a_mistake_is_told_in_plain_words(data: dict[str, object], field: str, words: str) -> None:
    told = {p.field: p.message for p in spec.problems({**({"dataset": "d"} if data else {}), **data})}
    assert field in told and words in told[field]


def test_every_field_says_what_it_is() -> None:
    for model in (Spec, Label):
        for name in model.model_fields:
            info = spec.property_of(name, model)
            assert info["title"] and info["section"] and len(info["description"]) > 15, name
            if info.get("type") in ("integer", "number"):
                assert spec.range_text(name, model), name
            if info.get("nullable"):
                assert info["auto"], name


def test_the_schema_is_one() -> None:
    schema = json.loads(json.dumps(spec.schema()))
    assert schema["additionalProperties"] is False and schema["required"] == ["dataset"]
    assert set(schema["properties"]) == set(Spec.model_fields)


def test_it_survives_its_file(tmp_path: Path) -> None:
    given = spec.parse({"dataset": "세포", "lr": 0.003, "schedule": "cosine", "workers": 2})
    files.write_toml(tmp_path / "spec.toml", spec.to_toml(given))
    assert spec.parse(files.read_toml(tmp_path / "spec.toml")) == given
    assert spec.changed(given) == ["lr", "schedule", "workers"]


def test_text_from_a_form_is_as_good_as_numbers() -> None:
    assert spec.parse({"dataset": "d", "epochs": "12", "lr": "1e-3", "download": "yes"}).epochs == 12


@pytest.mark.parametrize(("text", "tags"), [("", ()), ("a, b ,a,,#c", ("a", "b", "c")), ("밤, 증강", ("밤", "증강"))])
def test_tags_are_read_as_they_are_typed(text: str, tags: tuple[str, ...]) -> None:
    assert spec.parse_label({"tags": text}).tags == tags


def test_a_tag_has_twenty_characters() -> None:
    assert spec.problems({"tags": "x" * 20}, Label) == []
    assert "20" in spec.problems({"tags": "x" * 21}, Label)[0].message


@pytest.mark.parametrize(
    ("classes", "steps", "expected"), [(3, 100, ("AdamW", 0.001429, 0.9)), (80, 10_001, ("MuSGD", 0.01, 0.9))]
)
def test_auto_is_what_ultralytics_would_choose(classes: int, steps: int, expected: tuple[str, float, float]) -> None:
    assert spec.resolved_optimizer(Spec(dataset="d"), classes, steps) == expected


def test_a_given_rate_is_kept() -> None:
    assert spec.resolved_optimizer(Spec(dataset="d", lr=0.5), 3, 10)[1] == 0.5
    assert spec.resolved_optimizer(Spec(dataset="d", optimizer="SGD"), 3, 10) == ("SGD", 0.01, 0.937)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"optimizer": "Adam", "lr": 0.02}, "explode"),
        ({"optimizer": "SGD", "lr": 0.5}, "high for SGD"),
        ({"lr": 1e-7}, "so low"),
        ({"weights": "pretrained", "lr": 0.005}, "1e-5"),
        ({"lr": 0.001, "warmup_lr": 0.01}, "fall, not climb"),
        ({"epochs": 2}, "Warm-up is as long"),
        ({"batch_size": 64}, "larger than"),
    ],
)
def test_advice_warns_but_does_not_forbid(given: dict[str, object], words: str) -> None:
    made = spec.parse({"dataset": "d", **given})
    assert any(words in line for line in spec.advice(made, 3, 100, 40))
    assert not any("explode" in line for line in spec.advice(Spec(dataset="d"), 3, 100, 4000))


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.data())
def test_warm_up_is_a_straight_line(steps: int, start: float, target: float, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps))
    schedule = Schedule(target, 10, 100, warmup_steps=steps)
    assert schedule.ramp(step, start, target) == float(np.interp(step, [0, steps], [start, target]))


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_schedules_fall_to_their_final_rate(name: str) -> None:
    schedule = Schedule(0.01, 100, 10, name, 0.01)  # type: ignore[arg-type]
    rates = [schedule.at(s) for s in range(1000)]
    assert rates[0] == 0.01 and all(b <= a for a, b in pairwise(rates))
    assert rates[-1] == pytest.approx(0.01 if name == "constant" else 0.01 * schedule.factor(99))
    assert schedule.factor(100) == pytest.approx(1.0 if name == "constant" else 0.01)


def test_the_first_step_has_the_warm_up_rate() -> None:
    schedule = Schedule(0.01, 10, 10, warmup_lr=0.002, warmup_steps=30)
    assert schedule.at(0) == 0.002 and schedule.at(30) == pytest.approx(0.01 * schedule.factor(3))
    assert [warmup_steps(*a) for a in ((3, 10, 5), (3, 2, 5), (0, 10, 5), (3, 1, 5), (0.5, 10, 5))] == [15, 5, 0, 0, 2]
