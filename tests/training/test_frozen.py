"""What never changes is written once, shared with the average, and asked for when a training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import DojangError
from engine.training import checkpoint, frozen
from engine.training.optim import Average
from tests.training.conftest import ending, train
from tests.training.test_classifier_training import PACKED, lay_down, version_of
from tests.training.test_resume import state_of, stop_at_step


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 2))
    model[0].requires_grad_(False)
    return model


def test_the_average_shares_what_never_changes() -> None:
    model = half_frozen()
    average = Average(model, lambda _: 0.5)
    assert average.model[0].weight is model[0].weight and average.model[1].weight is not model[1].weight
    before = model[1].weight.detach().clone()
    with torch.no_grad():
        model[1].weight += 1
    average.update(model)
    assert torch.allclose(average.model[1].weight, before + 0.5)


def test_kept_once_and_given_back(tmp_path: Path) -> None:
    model = half_frozen()
    apart = frozen.names(model)
    assert apart == {"0.weight", "0.bias"}
    digest = frozen.keep(tmp_path, model, apart)
    written = (tmp_path / frozen.NAME).stat().st_mtime_ns
    assert frozen.keep(tmp_path, model, apart) == digest and (tmp_path / frozen.NAME).stat().st_mtime_ns == written
    left = frozen.without(model.state_dict(), apart)
    state: dict[str, Any] = {"frozen": digest, "model": dict(left), "average": dict(left)}
    frozen.fill(state, tmp_path)
    assert state["model"].keys() == state["average"].keys() == model.state_dict().keys()

    with torch.no_grad():
        model[0].bias += 1
    assert frozen.keep(tmp_path, model, apart) != digest, "another model's are replaced"
    with pytest.raises(DojangError, match="another checkpoint") as e:
        frozen.fill(state, tmp_path)
    assert e.value.code == "NO_CHECKPOINT"


def test_a_few_frozen_numbers_stay_in_the_checkpoint() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    assert frozen.names(model) == set()


@pytest.mark.slow
def test_a_training_without_its_frozen_weights_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    workspace = lay_down(tmp_path)
    version = version_of(workspace, **PACKED)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 4)
        assert ending(train(version)) == "stopped"
    state = state_of(version)
    assert "model.features.0.0.weight" not in state["model"] and "model.classifier.3.weight" in state["model"]
    path = version.checkpoints / frozen.NAME
    assert checkpoint.size_of(checkpoint.read(path)) > frozen.WORTH
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    version.control.unlink()
    assert ending(train(version)).startswith("failed: NO_CHECKPOINT")
    path.write_bytes(whole)
    assert ending(train(version)) == "done"
