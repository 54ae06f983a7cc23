"""What a training says and leaves behind, and how it ends."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import demo
from engine.control import send
from engine.datasets import add
from engine.versions import Version, Workspace
from tests.training.conftest import Create, ending, of_kind, tiny, train
from tests.training.test_resume import stop_at_step

pytestmark = pytest.mark.slow


def judged_as(monkeypatch: Any, *fitness: float) -> None:
    """Let the evaluations during training find these values, one after the other."""
    from engine.training.kernels.ultralytics import Detector

    evaluate, values = Detector.evaluate, list(fitness)

    def found(self: Detector, *arguments: Any) -> Any:
        evaluation = evaluate(self, *arguments)
        return replace(evaluation, fitness=values.pop(0)) if evaluation and values else evaluation

    monkeypatch.setattr(Detector, "evaluate", found)


def test_what_it_says(create: Create) -> None:
    version = create(seed=5, workers=2)
    events = train(version)
    assert ending(events) == "done"
    assert [e["stage"] for e in of_kind(events, "stage")] == ["preparing", "preprocessing", "training", "testing"]
    (plan,) = of_kind(events, "plan")
    assert (plan["epochs"], plan["steps_per_epoch"], plan["train_images"], plan["val_images"]) == (3, 3, 24, 8)
    assert plan["classes"] == ["circle", "square", "triangle"] and plan["loss_names"][0] == "box_loss"
    assert plan["optimizer"] == "AdamW" and plan["device"] == "cpu" and plan["weights"] == "random weights"
    assert plan["parameters"] == pytest.approx(3.01e6, rel=0.01)
    steps = of_kind(events, "step")
    assert steps[-1]["step"] == 9 and steps[-1]["epoch"] == 3 and steps[-1]["i"] == 3
    assert sum(e["n"] for e in steps) == 9
    assert set(steps[0]["loss"]) == set(plan["loss_names"]) and steps[0]["memory"] > 0 and steps[-1]["img_s"] > 0
    epochs = of_kind(events, "epoch")
    assert [e["epoch"] for e in epochs] == [1, 2, 3] and set(epochs[0]["seconds"]) == {"train", "val", "checkpoint"}
    assert set(epochs[0]["metrics"]) == {"map50", "map50_95", "precision", "recall", "f1"}
    assert [c["name"] for c in epochs[0]["per_class"]] == ["circle", "square", "triangle"]
    assert [(e["epoch"], e["step"]) for e in of_kind(events, "checkpoint")] == [(1, 0), (2, 3), (3, 6), (4, 9)]
    (result,) = of_kind(events, "result")
    assert (result["split"], result["images"], result["weights"]) == ("val", 8, "best.pt")

    assert not multiprocessing.active_children()
    progress = version.progress()
    assert progress.fraction == 1.0 and progress.epochs_done == 3 and progress.metrics() == result["metrics"]
    names = sorted(str(p.relative_to(version.path)) for p in version.path.rglob("*") if p.is_file())
    assert names == [
        "checkpoints/state.pt",
        "events.jsonl",
        "spec.toml",
        "version.toml",
        "weights/best.pt",
        "weights/last.pt",
    ]


def test_weights_are_ultralytics_own(create: Create, shapes: Path) -> None:
    from ultralytics import YOLO

    version = create(epochs=1)
    train(version)
    model = YOLO(str(version.best_weights))
    assert model.names == {0: "circle", 1: "square", 2: "triangle"}
    image = next((shapes.parent / "images" / "val").iterdir())
    assert len(model.predict(str(image), imgsz=64, verbose=False, save=False)) == 1


def test_test_split_is_reported_apart(workspace: Workspace, shapes: Path, tmp_path: Path) -> None:
    held_back = demo.draw(tmp_path / "held-back", images=12, size=64, seed=9, val=0.5)
    shapes.write_text(shapes.read_text() + f"test: {held_back.parent / 'images' / 'val'}\n")
    add(workspace.path, shapes, "shapes")
    version = tiny(workspace, epochs=1)
    events = train(version)
    assert ending(events) == "done"
    assert [(r["split"], r["images"]) for r in of_kind(events, "result")] == [("val", 8), ("test", 6)]
    assert all(e["split"] == "val" for e in of_kind(events, "epoch"))


def test_finish_keeps_the_best_as_done(create: Create, monkeypatch: Any) -> None:
    version = create(epochs=40)
    stop_at_step(monkeypatch, version, 5, "finish")
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "step")[-1]["step"] == 5
    assert [e["epoch"] for e in of_kind(events, "epoch")] == [1, 2]
    assert of_kind(events, "result") and of_kind(events, "control")[0]["request"] == "finish"
    assert version.progress().epochs_done == 2 < version.progress().epochs_total
    assert version.best_weights.exists() and version.last_weights.exists()


def test_finish_before_the_first_step_still_has_a_best(create: Create) -> None:
    version = create(epochs=40)
    send(version.control, "finish")
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "step")[-1]["step"] == 1 and version.best_weights.exists()


def test_patience_runs_out_even_if_nothing_was_ever_found(create: Create, monkeypatch: Any) -> None:
    version = create(epochs=40, patience=2)
    judged_as(monkeypatch, *[0.0] * 40)
    events = train(version)
    assert ending(events) == "done"
    assert len(of_kind(events, "epoch")) == 3
    assert any("Stopped early" in e["text"] for e in of_kind(events, "log"))


def test_the_best_epoch_is_kept(create: Create, monkeypatch: Any) -> None:
    import torch

    version = create(epochs=4)
    judged_as(monkeypatch, 0.1, 0.4, 0.3, 0.2)
    kept = []
    from engine.training.kernels.ultralytics import Detector

    export = Detector.export

    def noted(self: Detector, model: Any, path: Path) -> None:
        export(self, model, path)
        kept.append((path.name, torch.load(path, weights_only=False)["model"].state_dict()["model.0.conv.weight"]))

    monkeypatch.setattr(Detector, "export", noted)
    events = train(version)
    assert [e["best"] for e in of_kind(events, "epoch")] == [True, True, False, False]
    assert [name for name, _ in kept] == ["best.pt", "best.pt", "last.pt"]
    best = torch.load(version.best_weights, weights_only=False)["model"].state_dict()["model.0.conv.weight"]
    assert torch.equal(best, kept[1][1]) and not torch.equal(best, kept[2][1])


def test_bf16_trains_and_goes_on(create: Create, monkeypatch: Any) -> None:
    version = create(amp="bf16")
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 4)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    events = train(version)
    assert ending(events) == "done" and of_kind(events, "plan")[0]["amp"] == "bf16"


@pytest.mark.parametrize(
    ("changes", "code"), [({"device": "cuda:99"}, "BAD_DEVICE"), ({"device": "cpu", "amp": "fp16"}, "BAD_DEVICE")]
)
def test_a_device_that_is_not_there(create: Create, changes: dict[str, Any], code: str) -> None:
    version = create(**changes)
    events = train(version)
    assert ending(events).startswith(f"failed: {code}")
    assert of_kind(events, "error")[0]["hint"]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "NAdam", "RAdam", "RMSProp"])
def test_every_optimizer_steps(create: Create, optimizer: str) -> None:
    version: Version = create(optimizer=optimizer, epochs=1, lr=1e-4)
    assert ending(train(version)) == "done"


def test_musgd_has_upstreams_groups() -> None:
    """“auto” takes MuSGD beyond 10 000 updates: too long to train here, so its groups are compared."""
    from types import SimpleNamespace

    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.nn.tasks import DetectionModel

    from engine.training import optim

    model = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    holder = SimpleNamespace(args=SimpleNamespace(lr0=0.01), data={"nc": 3})
    theirs = BaseTrainer.build_optimizer(holder, model, "auto", iterations=20_000, decay=0.0005)
    boosted = {id(p) for p in model.model[-1].cv3.parameters()}
    ours = optim.build(model, "MuSGD", 0.01, 0.9, 0.0005, boosted, set(), 1.0)
    assert type(ours) is type(theirs) and len(ours.param_groups) == len(theirs.param_groups)
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in a["params"]] == [id(p) for p in b["params"]]
        for key in ("lr", "momentum", "weight_decay", "nesterov"):
            assert a[key] == b[key], key
        assert bool(a.get("use_muon")) == bool(b.get("use_muon"))
    assert (ours.muon, ours.sgd) == (theirs.muon, theirs.sgd)


def test_warmup_lr_is_every_groups(create: Create, monkeypatch: Any) -> None:
    from engine.training.loop import Loop

    version = create(optimizer="SGD", lr=0.01, warmup_lr=0.004, epochs=2, warmup_epochs=1.0)
    rates = []
    step = Loop._step

    def noted(self: Loop, batch: Any) -> None:
        step(self, batch)
        rates.append([g["lr"] for g in self.optimizer.param_groups])

    monkeypatch.setattr(Loop, "_step", noted)
    events = train(version)
    assert rates[0] == [0.004] * 3 and rates[0][0] < rates[1][0] < rates[2][0]
    assert of_kind(events, "step")[0]["lr"] in [r[0] for r in rates]
