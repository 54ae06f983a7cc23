"""What keeps a training from being started."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import catalog, datasets, launch
from engine.catalog import Model
from engine.versions import Workspace
from tests.datasets.make import folders, yolo


def test_a_model_is_not_trained_on_a_set_of_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "workspace").ensure()
    datasets.add(workspace.path, yolo(tmp_path / "boxes"))
    datasets.add(workspace.path, folders(tmp_path / "bees", {f"{s}/{c}": 2 for s in ("train", "val") for c in "ab"}))
    monkeypatch.setitem(
        catalog.MODELS, "namer", Model("namer", "Namer", "torchvision", "classify", 224, 1.0, "", "", "ImageNet")
    )

    def problems(dataset: str, model: str) -> list[str]:
        return [
            p.message for p in launch.check(workspace, {"dataset": dataset, "model": model}) if p.field == "dataset"
        ]

    assert problems("boxes", "yolov8n") == problems("bees", "namer") == []
    (wrong,) = problems("bees", "yolov8n")
    assert "classify" in wrong and "detect" in wrong
    assert len(problems("boxes", "namer")) == 1
    assert "no dataset" in problems("none", "namer")[0]
