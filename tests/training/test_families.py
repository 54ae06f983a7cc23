"""Every YOLO of the catalogue trains; what newer families and partial training change holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import catalog, demo
from engine.datasets import add
from engine.errors import DojangError
from engine.training.data import Sample
from engine.versions import Version, Workspace
from tests.training.conftest import Create, ending, of_kind, same, tiny, train
from tests.training.test_resume import state_of, stop_at_step

YOLO = [m.name for m in catalog.MODELS.values() if m.kernel == "ultralytics"]


def test_public_weights_are_called_as_upstream_calls_them() -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    assert len(YOLO) == 39
    assert {catalog.find(name).pretrained for name in YOLO} <= GITHUB_ASSETS_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", YOLO)
def test_every_model_takes_a_step_and_is_evaluated(workspace: Workspace, tmp_path: Path, name: str) -> None:
    from ultralytics.nn.tasks import DetectionModel

    add(workspace.path, demo.draw(tmp_path / "shapes", images=4, size=64, val=0.5), "shapes")
    version = tiny(workspace, model=name, image_size=64, batch_size=2, epochs=1)
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "step")[-1]["step"] == 1 and of_kind(events, "result")
    (plan,) = of_kind(events, "plan")
    fine = "l1_loss" if name.startswith("yolo26") else "dfl_loss"
    assert plan["loss_names"] == ["box_loss", "cls_loss", fine]
    assert set(of_kind(events, "epoch")[0]["val"]) == set(plan["loss_names"])
    model = DetectionModel(catalog.find(name).config, nc=80, verbose=False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(catalog.find(name).parameters, abs=0.005)


TWO_HEADS = {"model": "yolo26n", "nominal_batch_size": 16, "batch_size": 8, "multi_scale": 0.5, "freeze": "3"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_heads_and_many_sizes_resume_exactly(create: Create, monkeypatch: Any, workers: int) -> None:
    """The weight of the heads follows the epoch, the size of the images the step: both on after a stop as if without."""
    unbroken, version = create(**TWO_HEADS), create(workers=workers, **TWO_HEADS)
    assert ending(train(unbroken)) == "done"
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 5)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    assert ending(train(version)) == "done"
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_weights_of_other_classes_widen_both_heads(
    create: Create, workspace: Workspace, monkeypatch: Any, name: str
) -> None:
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights

    path = workspace.weights / f"{name}.pt"
    ultralytics_weights.write(DetectionModel(f"{name}.yaml", nc=80, verbose=False), path, {})
    version = create(model=name, weights="pretrained")
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 4)
        train(version)
    version.control.unlink()
    path.unlink()
    events = train(version)
    assert ending(events) == "done"
    taken, total = of_kind(events, "plan")[0]["weights"].removeprefix(f"{name}.pt: ").split(" tensors")[0].split(" of ")
    assert int(total) - int(taken) == 12  # weights and biases of three levels in two heads: which class is which


def model(name: str = "yolov8n", classes: int = 3) -> Any:
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    made = DetectionModel(f"{name}.yaml", nc=classes, verbose=False)
    made.args = get_cfg()
    return made


FROZEN = {  # by freeze: blocks of which something learns, in a model of 22 blocks and a head
    "none": range(23),
    "features": range(10, 23),
    "5": range(5, 23),
    "last-0": range(22, 23),
    "last-4": range(18, 23),
    "but-last": range(22, 23),
}


@pytest.mark.parametrize("how", FROZEN)
def test_what_is_frozen(how: str) -> None:
    from torch import nn

    from engine.training.kernels.ultralytics_model import freeze

    made = model()
    held = {id(m) for m in freeze(made, how)}
    learning = [name for name, p in made.named_parameters() if p.requires_grad]
    empty = (10, 13, 11, 14, 17, 20)  # blocks that scale or join have nothing to learn
    assert {int(n.split(".")[1]) for n in learning} == set(FROZEN[how]) - set(empty)
    assert not any(".dfl" in name for name in learning)
    if how == "but-last":
        assert sorted(learning) == sorted(
            f"model.22.cv{b}.{i}.2.{p}" for b in "23" for i in range(3) for p in ("weight", "bias")
        )
    for block in made.model:
        for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            assert (id(norm) in held) == (block.i not in FROZEN[how] or how == "but-last")


def test_freezing_more_blocks_than_there_are() -> None:
    from engine.training.kernels.ultralytics_model import freeze

    for how in ("23", "last-23"):
        with pytest.raises(DojangError, match="22 blocks and a head") as caught:
            freeze(model(), how)
        assert caught.value.code == "BAD_SPEC"
    assert len(freeze(model(), "22")) > 0


@pytest.mark.parametrize("name", ["yolo26n", "yolov10n"])
def test_both_heads_belong_to_the_last_layer_and_to_the_classes(name: str) -> None:
    from engine.training.kernels.ultralytics_model import backbone, class_layers, freeze

    made = model(name)
    ids = {id(p): n for n, p in made.named_parameters()}
    assert {ids[i].split(".")[2] for i in class_layers(made)} == {"cv3", "one2one_cv3"}
    freeze(made, "but-last")
    learning = [n for n, p in made.named_parameters() if p.requires_grad]
    assert {n.split(".")[2] for n in learning} == {"cv2", "cv3", "one2one_cv2", "one2one_cv3"} and len(learning) == 24
    assert max(int(ids[id(p)].split(".")[1]) for p in backbone(made).parameters()) == 10


def test_the_weight_of_the_heads_is_upstreams() -> None:
    from engine.training.kernels.ultralytics_model import weigh_heads

    made = model("yolo26n")
    made.args.epochs = 7
    upstream = made.init_criterion()
    for epoch in range(9):
        weigh_heads(made, epoch)
        assert (made.criterion.o2m, made.criterion.o2o) == (upstream.o2m, upstream.o2o)
        upstream.update()
    assert made.criterion.o2m == pytest.approx(0.1)
    weigh_heads(made, 0)
    assert made.criterion.o2m == pytest.approx(0.8)


def samples(*counts: int) -> list[Sample]:
    return [Sample(f"{i}", 64, 64, ((i % 2, 0.5, 0.5, 0.2, 0.2),) * count) for i, count in enumerate(counts)]


def test_class_weights_are_upstreams() -> None:
    import numpy as np
    from ultralytics.models.yolo.detect.train import DetectionTrainer

    from engine.training.kernels.ultralytics_model import class_weights

    found = class_weights(samples(9, 1, 2), classes=3, power=0.5)
    assert found is not None and found.mean().item() == pytest.approx(1)
    trainer = SimpleNamespace(args=SimpleNamespace(cls_pw=0.5))
    theirs = DetectionTrainer.compute_class_weights(trainer, np.array([11.0, 1.0, 0.0], np.float32))
    assert found.numpy() == pytest.approx(theirs / theirs.mean())
    assert class_weights(samples(9, 1), 2, 0.0) is None and class_weights(samples(0), 2, 1.0) is None


def batch(*counts: int) -> dict[str, Any]:
    import torch

    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return {
        "img": torch.arange(len(counts)).view(-1, 1, 1, 1).repeat(1, 3, 4, 4),
        "cls": owner.float().view(-1, 1) * 10,
        "bboxes": torch.rand(len(owner), 4),
        "batch_idx": owner.float(),
        "im_file": tuple(str(i) for i in range(len(counts))),
        "side": 64,
    }


def test_a_batch_in_parts_keeps_labels_with_their_images() -> None:
    import torch

    from engine.training.kernels.ultralytics_batches import split

    whole = batch(2, 0, 3, 1, 4)
    parts = split(whole, 2)
    assert [p["img"].shape[0] for p in parts] == [2, 3]
    assert [p["batch_idx"].tolist() for p in parts] == [[0, 0], [0, 0, 0, 1, 2, 2, 2, 2]]
    assert torch.equal(torch.cat([p["bboxes"] for p in parts]), whole["bboxes"])
    for part in parts:
        first = int(part["img"][0, 0, 0, 0])
        assert (part["cls"].view(-1) / 10 - first).tolist() == part["batch_idx"].tolist()
        assert part["im_file"][0] == str(first) and part["side"] == 64
    assert len(split(whole, 9)) == 5 and len(split(whole, 1)) == 1


def test_the_heaviest_batch() -> None:
    from engine.training.kernels.ultralytics_batches import densest

    plain = densest(samples(1, 7, 3), 2, 96, mosaic=False)
    assert plain["img"].shape == (2, 3, 96, 96) and plain["batch_idx"].tolist() == [0] * 7 + [1] * 3
    mosaic = densest(samples(1, 7, 3), 2, 96, mosaic=True)
    assert mosaic["batch_idx"].tolist() == [0] * 18 + [1] * 14  # 7 3 1 7, then 3 1 7 3
    assert mosaic["bboxes"].min() >= 0 and mosaic["bboxes"].max() <= 1
    assert len(densest(samples(1), 8, 64, mosaic=True)["img"]) == 1
    assert densest(samples(0, 0), 2, 64, mosaic=False)["cls"].shape == (0, 1)


def test_sizes_are_upstreams_and_follow_the_step(monkeypatch: Any) -> None:
    import random

    import torch

    from engine.training.kernels import ultralytics_batches as shapes

    drawn = [shapes.side(320, 0.5, 0, epoch, step) for epoch in range(20) for step in range(50)]
    assert set(drawn) == set(range(160, 481, 32)) and shapes.sides(320, 0.5) == (160, 480)
    assert drawn[60] == shapes.side(320, 0.5, 0, 1, 10) != drawn[61]
    assert shapes.sides(64, 0.9) == (32, 128) and shapes.sides(640, 0.0) == (640, 640)
    random.seed(3)
    ours = [shapes.upstream_side(320, 0.5) for _ in range(9)]
    random.seed(3)
    assert ours == [random.randrange(160, 512) // 32 * 32 for _ in range(9)]
    assert shapes.scaled(torch.zeros(1, 3, 64, 64), 96).shape == (1, 3, 96, 96)
    same_size = torch.zeros(1, 3, 64, 64)
    assert shapes.scaled(same_size, 64) is same_size


@pytest.mark.slow
def test_frozen_blocks_stay_as_they_were(create: Create) -> None:
    """Weights and running statistics both, after training, in the file that is kept."""
    import torch

    from engine.training.kernels import ultralytics_weights

    first = create(epochs=1)
    assert ending(train(first)) == "done"
    start = ultralytics_weights.read(first.best_weights).state_dict()
    version = create(
        epochs=2, weights=str(first.best_weights), freeze="features", backbone_lr_ratio=0.1, class_weights=1.0
    )
    assert ending(train(version)) == "done"
    end = ultralytics_weights.read(version.last_weights).state_dict()
    for name, value in start.items():
        block = int(name.split(".")[1])
        if block < 10 and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, end[name]), name
    assert any(not torch.equal(v, end[n]) for n, v in start.items() if n.startswith("model.22."))
    assert not hasattr(torch.load(version.best_weights, weights_only=False)["model"], "class_weights") or (
        torch.load(version.best_weights, weights_only=False)["model"].class_weights is None
    )


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_mosaic_closes_by_the_new_number_of_epochs(create: Create, monkeypatch: Any, exact: bool) -> None:
    from engine.training.kernels.ultralytics import Detector
    from engine.training.loop import Loop

    seen: list[tuple[int, bool]] = []
    step = Loop._step

    def looking(self: Loop, batch: Any) -> None:
        session: Detector = self.session
        data = session.train_data
        closed = self.at.epoch >= data.counters.closes if data.counters else session._mosaic_closed
        seen.append((self.at.epoch, closed))
        step(self, batch)
        if self.at.taken == 5:  # in the second epoch of three, of which the last is without mosaic
            from engine.control import send

            send(self.job.version.control, epochs=5)

    monkeypatch.setattr(Loop, "_step", looking)
    version: Version = create(epochs=3, close_mosaic=2, exact_resume=exact)
    assert ending(train(version)) == "done"
    assert sorted(set(seen)) == [(0, False), (1, True), (2, False), (3, True), (4, True)]


def test_images_are_in_the_order_of_the_items(tmp_path: Path) -> None:
    """A decomposed name sorts elsewhere than the composed one that the data set knows it by."""
    from engine.training.kernels.ultralytics_data import Counters, ManifestDataset, arguments

    made = [Sample(f"/x/{name}.jpg", 64, 64, ()) for name in ("b", "e\u0301", "z", "a")]
    spec = SimpleNamespace(samples={"train": made, "val": made})
    from engine.spec import parse

    hyp = arguments(parse({"dataset": "d", "image_size": 64}), spec)  # type: ignore[arg-type]
    data = ManifestDataset(
        made, Counters(0, 1), 0, data={"names": {0: "a"}, "channels": 3}, task="detect", imgsz=64, batch_size=2, hyp=hyp
    )
    assert data.im_files == [s.path for s in made]
