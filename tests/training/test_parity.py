"""Our loop against ultralytics' own trainer: the same seed and settings must give the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from engine import demo
from engine.datasets import add
from engine.spec import parse, parse_label
from engine.versions import Workspace
from tests.training.conftest import ending, of_kind, same, tiny, train

pytestmark = pytest.mark.slow

SETTINGS = {"epochs": 3, "batch": 8, "imgsz": 64, "nbs": 16, "seed": 3, "close_mosaic": 1, "warmup_epochs": 1.0}
OURS = {
    "batch": "batch_size",
    "imgsz": "image_size",
    "nbs": "nominal_batch_size",
    "lr0": "lr",
    "cls_pw": "class_weights",
}


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

    yolo = YOLO(model)
    yolo.add_callback("on_train_batch_end", step_end)
    yolo.add_callback("on_fit_epoch_end", epoch_end)
    yolo.train(data=str(data), device="cpu", workers=0, plots=False, project=str(folder), name="upstream", **settings)
    return steps, epochs, dict(yolo.trainer.metrics)


def metrics_of(event: dict[str, Any]) -> dict[str, float]:
    names = {"map50": "mAP50", "map50_95": "mAP50-95", "precision": "precision", "recall": "recall"}
    return {f"metrics/{theirs}(B)": event["metrics"][ours] for ours, theirs in names.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> Path:
    """Weights that find something, so that the metrics compared are not all zero."""
    folder = tmp_path_factory.mktemp("trained")
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, demo.draw(folder / "shapes", images=60, size=64), "shapes")
    quick = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "nominal_batch_size": 4}
    version = tiny(workspace, epochs=10, batch_size=4, lr=0.003, **quick)
    assert ending(train(version)) == "done"
    return version.best_weights


@pytest.fixture(scope="module")
def of_eighty_classes(tmp_path_factory: Any) -> Path:
    """Random weights of 80 classes, as the public ones have: they widen the head of what they are loaded into."""
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights

    path: Path = tmp_path_factory.mktemp("eighty") / "yolov8n.pt"
    ultralytics_weights.write(DetectionModel("yolov8n.yaml", nc=80, verbose=False), path, {})
    return path


CASES = {
    "auto": ("yolov8n", None, {"optimizer": "auto"}),
    "sgd": ("yolov8n", None, {"optimizer": "SGD", "lr0": 0.02, "warmup_bias_lr": 0.1, "cos_lr": True}),
    "v5": ("yolov5n", None, {"optimizer": "auto"}),
    "two heads": ("yolo26n", None, {"optimizer": "auto"}),
    "shaped": ("yolov8n", None, {"optimizer": "auto", "multi_scale": 0.5, "cls_pw": 0.5, "freeze": 5}),
    "trained": ("yolov8n", "trained", {"optimizer": "auto", "batch": 4, "nbs": 4}),
    "eighty": ("yolov8n", "of_eighty_classes", {"optimizer": "SGD", "lr0": 0.01, "epochs": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_bit_is_upstreams(
    case: str, shapes: Path, workspace: Workspace, tmp_path: Path, monkeypatch: Any, request: Any
) -> None:
    import torch
    from ultralytics.utils import NUM_THREADS

    from engine.training.loop import Loop

    model, weights, changes = CASES[case]
    settings: dict[str, Any] = {**SETTINGS, "warmup_bias_lr": 0.0, **changes}
    source = str(request.getfixturevalue(weights)) if weights else f"{model}.yaml"
    copy = shutil.copytree(shapes.parent, tmp_path / "upstream-set") / shapes.name  # upstream writes beside its data
    their_steps, their_epochs, their_final = upstream(source, copy, tmp_path / "runs", **settings)

    values = {OURS.get(k, k): v for k, v in settings.items() if k != "cos_lr"}
    values["weights"] = source if weights else "scratch"
    values["schedule"] = "cosine" if settings.get("cos_lr") else "linear"
    values["freeze"] = str(settings.get("freeze", "none"))
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
    assert len(epochs) == len(their_epochs) == settings["epochs"]
    for ours, (losses, metrics, _) in zip(epochs, their_epochs, strict=True):
        assert ours["train"] == losses
        assert {f"val/{k}": v for k, v in ours["val"].items()} | metrics_of(ours) == metrics
    (result,) = of_kind(events, "result")
    assert metrics_of(result) == {k: round(float(v), 5) for k, v in their_final.items() if k.startswith("metrics/")}

    if case == "trained":
        assert result["metrics"]["map50"] > 0.1
    theirs = tmp_path / "runs" / "upstream" / "weights"
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(p / name, weights_only=False)["model"] for p in (version.path / "weights", theirs))
        assert same(dict(a.state_dict()), dict(b.state_dict())), name
