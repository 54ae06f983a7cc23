"""What is worth a second look before the start."""

from __future__ import annotations

from typing import Any

import pytest

from engine import spec
from engine.spec import advice


def told(train_images: int = 4000, **given: Any) -> str:
    made = spec.parse({"dataset": "d", **given})
    return "\n".join(advice(made, 3, 1000, train_images))


@pytest.mark.parametrize("model", ["yolov8n", "efficientdet_d0", "resnet18"])
@pytest.mark.parametrize("weights", ["scratch", "pretrained"])
def test_nothing_is_said_of_what_was_chosen_by_itself(model: str, weights: str) -> None:
    assert told(model=model, weights=weights) == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"optimizer": "AdamW", "lr": 0.01}, "high for AdamW"),
        ({"optimizer": "RMSProp", "lr": 0.05}, "high for RMSProp"),
        ({"optimizer": "AdamW", "lr": 0.005, "weights": "pretrained"}, "1e-5 … 1e-4 with AdamW"),
        ({"optimizer": "SGD", "lr": 0.05, "weights": "pretrained"}, "0.001 … 0.01 with SGD"),
        ({"optimizer": "Adam", "lr": 2e-5}, "low for Adam from random weights"),
        ({"schedule": "step", "epochs": 20}, "The rate never falls: 30 epochs to the first step, and 20 in all"),
        ({"schedule": "cyclic", "epochs": 8}, "within its first cycle"),
        ({"lr": 0.001, "final_lr": 0.01}, "it will climb"),
        ({"warmup_steps": 25_000, "epochs": 50}, "Warm-up is as long"),
        ({"backbone_lr_ratio": 0.1}, "only learns later"),
        ({"backbone_lr_ratio": 0.1, "freeze": "features", "weights": "pretrained"}, "does nothing"),
        ({"freeze": "10"}, "keep their random weights"),
        ({"model": "vgg16"}, "keep their random weights"),
    ],
)
def test_what_it_warns_of(given: dict[str, Any], words: str) -> None:
    assert words in told(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "AdamW", "lr": 1e-4, "weights": "pretrained"},
        {"schedule": "one-cycle", "epochs": 3, "warmup_epochs": 3},
        {"patience": 500},
        {"schedule": "step", "epochs": 100},
        {"backbone_lr_ratio": 0.1, "weights": "pretrained"},
    ],
)
def test_what_is_harmless_is_not_mentioned(given: dict[str, Any]) -> None:
    assert told(**given) == ""


def test_a_rate_of_ones_own_grows_with_the_batch_as_its_optimizer_wants() -> None:
    """64 images are YOLO's usual update; smaller batches are added up to it."""
    assert "about 0.04 does the same here: with SGD the rate grows with the batch" in told(
        optimizer="SGD", lr=0.01, batch_size=256
    )
    assert "about 0.002 does the same" in told(optimizer="AdamW", lr=0.001, batch_size=256)
    assert told(optimizer="SGD", lr=0.01, batch_size=16) == ""
    assert told(optimizer="SGD", lr=0.04, batch_size=256) == ""  # done already
    assert told(batch_size=256) == ""  # the rate is ours
