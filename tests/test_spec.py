"""The spec: declared once, every mistake told at once, everything said about every field."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import catalog, files, spec
from engine.errors import Invalid
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
        ({"epochs": True}, "epochs", "must not be true"),
        ({"lr": False}, "lr", "must not be false"),
        ({"model": 8}, "model", "text"),
        ({"download": None}, "download", "true or false"),
        ({"seed": 10**400}, "seed", "0 – 2 147 483 647"),
        ({"dataset": "   "}, "dataset", "at least 1"),
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
    assert (schema["type"], schema["additionalProperties"], schema["required"]) == ("object", False, ["dataset"])
    assert set(schema["properties"]) == set(Spec.model_fields)
    known = {"integer", "number", "string", "boolean", "null", "object"}
    for name, info in schema["properties"].items():
        branches = info.get("anyOf", [info])
        assert all(branch["type"] in known for branch in branches), name
        assert ("default" in info) == (name != "dataset"), name


@pytest.mark.parametrize("name", [n for n in Spec.model_fields if spec.range_text(n)])
def test_a_range_ends_where_it_says(name: str) -> None:
    info = spec.property_of(name)
    step = 1 if info["type"] == "integer" else 1e-6
    kernel = info.get("kernels", ["ultralytics"])[0]
    model = next(m for m in catalog.MODELS.values() if m.kernel == kernel)
    low = info.get("minimum", info.get("exclusiveMinimum", 0) + step)
    high = info.get("maximum", info.get("exclusiveMaximum", 0) - step)

    def told(value: float) -> list[str]:
        return [p.message for p in spec.problems({"dataset": "d", "model": model.name, name: value})]

    assert told(low) == told(high) == []
    for value in (low - 2 * step, high + 2 * step):
        (message,) = told(value)
        assert spec.range_text(name) in message


def test_choices_are_what_is_accepted() -> None:
    assert spec.choices("model") == list(catalog.MODELS) and "yolov5n" in spec.choices("model")
    for name in ("optimizer", "schedule", "amp"):
        for choice in spec.choices(name):
            assert spec.problems({"dataset": "d", name: choice}) == []
    for device in ("auto", "cpu", "mps", "cuda:0", "cuda:15"):
        assert spec.problems({"dataset": "d", "device": device}) == []


def test_defaults_are_no_mistake() -> None:
    for name in catalog.MODELS:
        made = spec.parse({"dataset": "d", "model": name})
        assert spec.problems(spec.to_toml(made)) == [] and spec.changed(made) in ([], ["model"])


def test_it_survives_its_file(tmp_path: Path) -> None:
    given = spec.parse({"dataset": "세포", "lr": 0.003, "schedule": "cosine", "workers": 2})
    files.write_toml(tmp_path / "spec.toml", spec.to_toml(given))
    assert spec.parse(files.read_toml(tmp_path / "spec.toml")) == given
    assert spec.changed(given) == ["lr", "schedule", "workers"]


def test_text_from_a_form_is_as_good_as_numbers() -> None:
    assert spec.parse({"dataset": "d", "epochs": "12", "lr": "1e-3", "download": "yes"}).epochs == 12


@pytest.mark.parametrize(
    ("text", "tags"), [("", ()), ("a, b ,a,,#c", ("a", "b", "c")), ("밤, 증강", ("밤", "증강")), (" , ##,#a#", ("a#",))]
)
def test_tags_are_read_as_they_are_typed(text: str, tags: tuple[str, ...]) -> None:
    assert spec.parse_label({"tags": text}).tags == tags


def test_tags_given_one_by_one_are_read_the_same() -> None:
    assert spec.parse_label({"tags": ["a,b", " b ", "#c"]}).tags == ("a", "b", "c")


def test_a_tag_has_twenty_characters() -> None:
    assert spec.problems({"tags": "x" * 20}, Label) == []
    assert "20" in spec.problems({"tags": "x" * 21}, Label)[0].message
    assert spec.problems({"tags": ["a\x07"]}, Label) and spec.problems({"tags": [3]}, Label)
    assert spec.problems({"tags": [str(n) for n in range(21)]}, Label)


@pytest.mark.parametrize(
    ("classes", "steps", "expected"), [(3, 100, ("AdamW", 0.001429, 0.9)), (80, 10_001, ("MuSGD", 0.01, 0.9))]
)
def test_auto_is_what_ultralytics_would_choose(classes: int, steps: int, expected: tuple[str, float, float]) -> None:
    assert spec.resolved_optimizer(Spec(dataset="d"), classes, steps) == expected


@pytest.mark.slow
def test_auto_is_what_ultralytics_does_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    import torch
    from ultralytics.engine.trainer import BaseTrainer

    for classes, updates in product((1, 3, 80), (1, 10_000, 10_001)):
        model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        model.model = model[0]  # where a detector has its layers
        trainer = SimpleNamespace(data={"nc": classes}, args=SimpleNamespace(lr0=0.01), model=model)
        made = BaseTrainer.build_optimizer(trainer, model, name="auto", iterations=updates)
        momentum = {"AdamW": lambda g: g["betas"][0], "MuSGD": lambda g: g["momentum"]}[type(made).__name__]
        expected = type(made).__name__, trainer.args.lr0, momentum(made.param_groups[0])
        assert spec.resolved_optimizer(Spec(dataset="d"), classes, updates) == expected


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
