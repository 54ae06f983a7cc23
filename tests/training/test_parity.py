"""Our loop against ultralytics' own trainer: the same seed and settings must give the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.datasets import add
from engine.spec import parse, parse_label
from engine.versions import Workspace
from tests.training.conftest import ending, of_kind, same, train

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 3, "batch": 8, "imgsz": 64, "nbs": 16, "seed": 3, "close_mosaic": 1, "warmup_epochs": 1.0}
OURS = {"batch": "batch_size", "imgsz": "image_size", "nbs": "nominal_batch_size", "lr0": "lr", "warmup_bias_lr": "warmup_bias_lr"}


def upstream(model: str, data: Path, folder: Path, **settings: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Steps (losses, learning rates, momenta), epochs (losses, metrics, rates) and the final metrics of upstream."""
    from ultralytics import YOLO

    steps: list[Any] = []
    epochs: list[Any] = []

    def step_end(trainer: Any) -> None:
        groups = trainer.optimizer.param_groups
        losses = [float(v) for v in trainer.loss_items.values()]
        steps.append((losses, [g["lr"] for g in groups], [g.get("momentum") for g in groups]))

    def epoch_end(trainer: Any) -> None:
        if len(epochs) < settings["epochs"]:
            losses = {k: round(float(v), 5) for k, v in trainer.tloss.items()}
            epochs.append((losses, dict(trainer.metrics), trainer.fitness))

    yolo = YOLO(f"{model}.yaml")
    yolo.add_callback("on_train_batch_end", step_end)
    yolo.add_callback("on_fit_epoch_end", epoch_end)
    yolo.train(data=str(data), device="cpu", workers=0, plots=False, project=str(folder), name="upstream", **settings)
    return steps, epochs, dict(yolo.trainer.metrics)


def metrics_of(event: dict[str, Any]) -> dict[str, float]:
    names = {"map50": "mAP50", "map50_95": "mAP50-95", "precision": "precision", "recall": "recall"}
    return {f"metrics/{theirs}(B)": event["metrics"][ours] for ours, theirs in names.items()}


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("yolov8n", {"optimizer": "auto"}),
        ("yolov8n", {"optimizer": "SGD", "lr0": 0.02, "warmup_bias_lr": 0.1, "cos_lr": True}),
        ("yolov5n", {"optimizer": "auto"}),
    ],
)
def test_every_bit_is_upstreams(
    model: str, settings: dict[str, Any], shapes: Path, workspace: Workspace, tmp_path: Path, monkeypatch: Any
) -> None:
    import torch
    from ultralytics.utils import NUM_THREADS

    from engine.training.loop import Loop

    copy = shutil.copytree(shapes.parent, tmp_path / "upstream-set") / shapes.name  # upstream writes beside its data
    settings = {**SETTINGS, **settings}
    their_steps, their_epochs, their_final = upstream(model, copy, tmp_path / "runs", **settings)

    values = {OURS.get(k, k): v for k, v in settings.items() if k != "cos_lr"}
    values["schedule"] = "cosine" if settings.get("cos_lr") else "linear"
    add(workspace.path, shapes, "shapes")
    spec = parse({"dataset": "shapes", "model": model, "threads": NUM_THREADS, "exact_resume": False, **values})
    version = workspace.project("default", create=True).create(spec, parse_label({}))
    our_steps = []
    step = Loop._step

    def recorded(self: Loop, batch: Any) -> None:
        sums = []
        add_up = self.meter.add
        self.meter.add = lambda parts, n: (sums.append(parts.tolist()), add_up(parts, n))  # type: ignore[method-assign]
        step(self, batch)
        self.meter.add = add_up  # type: ignore[method-assign]
        groups = self.optimizer.param_groups
        our_steps.append((sums[0], [g["lr"] for g in groups], [g.get("momentum") for g in groups]))

    monkeypatch.setattr(Loop, "_step", recorded)
    events = train(version)

    assert ending(events) == "done"
    assert our_steps == their_steps
    epochs = of_kind(events, "epoch")
    assert len(epochs) == len(their_epochs) == 3
    for ours, (losses, metrics, _) in zip(epochs, their_epochs, strict=True):
        assert ours["train"] == losses
        assert {f"val/{k}": v for k, v in ours["val"].items()} | metrics_of(ours) == metrics
    (result,) = of_kind(events, "result")
    assert metrics_of(result) == {k: round(float(v), 5) for k, v in their_final.items() if k.startswith("metrics/")}

    theirs = tmp_path / "runs" / "upstream" / "weights"
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(p / name, weights_only=False)["model"] for p in (version.path / "weights", theirs))
        assert same(dict(a.state_dict()), dict(b.state_dict())), name
