"""EfficientDet's conventions: boxes, squares, anchors, files and settings. Nothing is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine import catalog, weights
from engine.datasets import Box
from engine.errors import DojangError
from engine.spec import changed, parse, problems, resolved_optimizer
from engine.training.data import Sample
from engine.training.kernels import effdet_weights
from engine.training.kernels.effdet_data import SquareDataset, Targets, content, detections, library_boxes
from engine.training.kernels.effdet_model import (
    Design,
    anchor_count,
    build,
    configuration,
    fitting_anchor_scale,
    level_sizes,
    stock_anchor_scale,
    useful_levels,
)
from engine.training.kernels.ultralytics_data import arguments
from engine.training.kernels.ultralytics_metrics import Judge
from engine.versions import Workspace

D0 = Design("efficientdet_d0", 3, 128, 2.0)
NAMES = ("circle", "square", "triangle")
Draw = Callable[..., Sample]


def drawn(folder: Path, width: int, height: int, *boxes: Box) -> Sample:
    """An image of a size in pixels, white within its boxes, as a sample."""
    image = np.zeros((height, width, 3), np.uint8)
    for b in boxes:
        left, top = round((b.cx - b.w / 2) * width), round((b.cy - b.h / 2) * height)
        image[top : top + round(b.h * height), left : left + round(b.w * width)] = 255
    path = folder / f"{len(list(folder.iterdir())):03d}.png"
    cv2.imwrite(str(path), image)
    return Sample(str(path), height, width, boxes)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    return partial(drawn, tmp_path)


def dataset(samples: list[Sample], size: int = 128) -> SquareDataset:
    """As the kernel opens the val split."""
    names = dict(enumerate(NAMES))
    settings = {"task": "detect", "imgsz": size, "batch_size": 2, "augment": False, "rect": False}
    data = {"nc": len(NAMES), "names": names, "channels": 3}
    return SquareDataset(samples, None, 0, data=data, hyp=_args(samples), **settings)


# Boxes and squares


def test_boxes_are_y_x_y_x_in_pixels_and_classes_begin_at_one() -> None:
    boxes = torch.tensor([[0.5, 0.25, 0.5, 0.125], [0.99, 0.5, 0.2, 0.2], [0.5, 0.5, 0.001, 0.5]])
    corners, classes = library_boxes(boxes, torch.tensor([[0.0], [2.0], [1.0]]), 128)
    assert corners[0].tolist() == [24, 32, 40, 96]
    assert corners[1, 3] == 128  # cut at the edge
    assert classes.tolist() == [1, 3]  # the third is a fraction of a pixel wide
    none, nothing = library_boxes(torch.zeros(0, 4), torch.zeros(0, 1), 128)
    assert none.shape == (0, 4) and nothing.shape == (0,)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (64, 64), (301, 77)])
def test_an_image_lies_in_the_top_left_corner_and_its_boxes_with_it(draw: Draw, width: int, height: int) -> None:
    sample = draw(width, height, Box(1, 0.7, 0.4, 0.4, 0.5))
    item = dataset([sample])[0]
    assert item["img"].shape == (3, 128, 128)
    filled = content((height, width), 128)
    assert max(filled) == 128
    image = item["img"].numpy()
    assert (image[:, filled[1] :] == 114).all() and (image[:, :, filled[0] :] == 114).all()
    top, left, bottom, right = library_boxes(item["bboxes"], item["cls"], 128)[0][0].tolist()
    white = np.argwhere(image[0, : filled[1], : filled[0]] > 127)
    assert np.abs(white.min(0) - (top, left)).max() <= 1 and np.abs(white.max(0) + 1 - (bottom, right)).max() <= 1


# Levels


def test_levels_too_coarse_for_any_object_detect_nothing() -> None:
    assert [useful_levels(configuration(replace(D0, anchor_scale=s))) for s in (1.0, 2.0, 3.0, 4.0)] == [5, 4, 3, 3]
    assert useful_levels(configuration(Design("efficientdet_d0", 3, 512, 4.0))) == 5
    assert useful_levels(configuration(Design("efficientdet_d7", 3, 1536, 5.0))) == 5
    model = build(D0).eval()
    classes = [torch.full((1, 27, n, n), -10.0) for n in (16, 8, 4, 2, 1)]
    boxes = [torch.zeros(1, 36, n, n) for n in (16, 8, 4, 2, 1)]
    classes[4] += 20
    assert model.detect(classes, boxes, torch.tensor([[128.0, 128.0]]))[..., 4].max() < 0.001
    classes[3] += 20
    assert model.detect(classes, boxes, torch.tensor([[128.0, 128.0]]))[..., 4].max() > 0.99


def library_targets(batch: dict[str, Any], config: Any) -> dict[str, Any]:
    """What effdet's own loss wants: for each level the class (from 0; -1 is none) and box code of every anchor."""
    images, anchors, sizes = len(batch["img"]), anchor_count(config), level_sizes(config)
    labels = torch.full((images * anchors,), -1, dtype=torch.long)
    codes = torch.zeros(images * anchors, 4)
    labels[batch["places"]], codes[batch["places"]] = batch["labels"], batch["codes"]
    parts = [size**2 * 9 for size in sizes]
    levels = zip(sizes, labels.view(images, -1).split(parts, 1), codes.view(images, -1, 4).split(parts, 1), strict=True)
    found: dict[str, Any] = {"label_num_positives": batch["positives"]}
    for number, (size, label, code) in enumerate(levels):
        found[f"label_cls_{number}"] = label.reshape(images, size, size, -1)
        found[f"label_bbox_{number}"] = code.reshape(images, size, size, -1)
    return found


class Oracle(torch.nn.Module):
    """Predicts what `batch`, from `Targets`, says."""

    def __init__(self, inner: torch.nn.Module, batch: dict[str, Any], classes: int) -> None:
        super().__init__()
        self.config, self.target, self.classes = inner.config, library_targets(batch, inner.config), classes

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        labels = [self.target[f"label_cls_{i}"] for i in range(5)]
        sure = [
            torch.nn.functional.one_hot(label + 1, self.classes + 1)[..., 1:].flatten(3) * 20.0 - 10 for label in labels
        ]
        codes = [self.target[f"label_bbox_{i}"] for i in range(5)]
        return [s.permute(0, 3, 1, 2) for s in sure], [c.permute(0, 3, 1, 2) for c in codes]


def test_there_and_back_a_perfect_model_is_judged_perfect(draw: Draw, tmp_path: Path) -> None:
    """Labels to anchors to detections to metrics: an axis, an offset or a class mixed up anywhere would show."""
    samples = [
        draw(200, 100, Box(0, 0.2, 0.4, 0.2, 0.5), Box(2, 0.7, 0.5, 0.3, 0.8)),
        draw(90, 160, Box(1, 0.5, 0.2, 0.6, 0.2)),
        draw(64, 64),
    ]
    data = dataset(samples)
    loader = torch.utils.data.DataLoader(data, 3, collate_fn=Targets(D0))
    batch = next(iter(loader))
    model = build(D0).eval()
    model.model = Oracle(model.model, batch, 3)
    found = model(batch["img"].float(), batch)
    judge = Judge(loader, tmp_path, args=_args(samples))
    judge.device, judge.data = torch.device("cpu"), {}
    judge.init_metrics(SimpleNamespace(names=dict(enumerate(NAMES))))
    judge.update_metrics(detections(found["detections"], 0.001), batch)
    verdict = judge.verdict("val", 3, NAMES, {})
    assert verdict.metrics["map50"] > 0.99 and verdict.metrics["map50_95"] > 0.98
    assert [row["labels"] for row in verdict.per_class] == [1, 1, 1]


def _args(samples: list[Sample]) -> Any:
    spec = parse({"dataset": "x", "model": "efficientdet_d0", "image_size": 128})
    material: Any = SimpleNamespace(samples={"train": samples, "val": samples})
    return arguments(spec, material)


def test_padding_is_no_detection() -> None:
    rows = torch.zeros(1, 5, 6)
    rows[0, 0] = torch.tensor([1.0, 2, 3, 4, 0.9, 3])
    rows[0, 1] = torch.tensor([1.0, 2, 3, 4, 0.0001, 1])
    (found,) = detections(rows, 0.001)
    assert (
        found["bboxes"].tolist() == [[1, 2, 3, 4]] and found["cls"].tolist() == [2] and found["extra"].shape == (1, 0)
    )


# Anchors


def test_anchors_fit_the_boxes() -> None:
    def samples(part: float) -> list[Sample]:
        boxes = tuple(Box(0, x, y, part, part) for x in (0.3, 0.55, 0.8) for y in (0.31, 0.62, 0.77))
        return [Sample("x", 400, 400, boxes)]

    assert fitting_anchor_scale(samples(0.05), 256, 4.0) <= 2
    assert fitting_anchor_scale(samples(0.3), 512, 4.0) == 4
    assert fitting_anchor_scale(samples(0.3), 1536, 5.0) == 5
    assert fitting_anchor_scale([Sample("x", 400, 400, ())], 512, 4.0) == 4
    many, few = [Box(0, 0.5, 0.5, 0.16, 0.16)] * 20, [Box(1, 0.515, 0.515, 0.05, 0.05)]
    rare = [Sample("x", 400, 400, (*many, *few))]
    assert fitting_anchor_scale(rare, 256, 4.0) <= 2 < fitting_anchor_scale(samples(0.16), 256, 4.0)
    assert (stock_anchor_scale("efficientdet_d0"), stock_anchor_scale("efficientdet_d7")) == (4, 5)


def test_no_more_predictions_are_picked_than_there_are() -> None:
    config = configuration(Design("efficientdet_d0", 1, 128, 4.0))
    assert config.max_detection_points == anchor_count(config, useful_levels(config)) < 5000
    assert configuration(Design("efficientdet_d0", 80, 512, 4.0)).max_detection_points == 5000


def test_the_catalog_is_the_librarys() -> None:
    from effdet import get_efficientdet_config

    entries = [m for m in catalog.MODELS.values() if m.kernel == "effdet"]
    assert [m.name for m in entries] == [f"efficientdet_d{n}" for n in range(8)]
    for model in entries:
        config = get_efficientdet_config(model.config)
        assert config.url.endswith(f"/{model.pretrained}") and weights.address(model) == config.url
        assert tuple(config.image_size) == (model.image_size, model.image_size)
        assert model.stride == 2**config.max_level


# Settings


def test_settings_that_a_model_does_not_have_are_problems() -> None:
    def wrong(**changes: Any) -> dict[str, str]:
        return {p.field: p.message for p in problems({"dataset": "x", **changes})}

    found = wrong(model="efficientdet_d0", dfl_loss=2.0, exact_resume=False, image_size=320)
    assert set(found) == {"dfl_loss", "exact_resume", "image_size"}
    assert "multiple of 128" in found["image_size"] and "256" in found["image_size"]
    assert "efficientdet_d0" in found["dfl_loss"] and "1.5" in found["dfl_loss"]
    assert set(wrong(anchor_scale=2.0)) == {"anchor_scale"}
    assert not wrong(model="efficientdet_d6", image_size=1408, anchor_scale=2.5)


def test_what_a_model_takes_by_itself() -> None:
    spec = parse({"dataset": "x", "model": "efficientdet_d3"})
    assert spec.image_size == 896 and changed(spec) == ["model"]
    assert (spec.settled("box_loss"), spec.settled("class_loss"), spec.settled("nominal_batch_size")) == (50, 1, 8)
    assert parse({"dataset": "x", "model": "efficientdet_d3", "box_loss": 20}).settled("box_loss") == 20
    assert resolved_optimizer(spec, 3, 100_000) == ("AdamW", 0.002, 0.9)
    tuned = parse({"dataset": "x", "model": "efficientdet_d3", "weights": "pretrained", "batch_size": 64})
    assert resolved_optimizer(tuned, 3, 100) == ("AdamW", 0.0008, 0.9)
    assert parse({"dataset": "x"}).settled("box_loss") == 7.5 and parse({"dataset": "x"}).image_size == 640


# Files


def test_a_file_of_ours_is_plain_and_whole(tmp_path: Path) -> None:
    model, path = build(D0), tmp_path / "weights" / "best.pt"
    effdet_weights.write(model, path, D0, NAMES)
    plain = torch.load(path, weights_only=True)
    assert (plain["kernel"], plain["model"], plain["classes"]) == ("effdet", "efficientdet_d0", list(NAMES))
    assert (plain["image_size"], plain["anchor_scale"]) == (128, 2.0)
    again = effdet_weights.rebuild(path)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_public_weights_give_all_but_what_tells_classes_apart(tmp_path: Path, zipped: bool) -> None:
    donor, path = build(Design("efficientdet_d0", 90, 512, 4.0)), tmp_path / "tf_efficientdet_d0_34-f153e0cf.pth"
    torch.save(donor.model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert weights._is_model(path)
    model = build(D0)
    before = model.model.state_dict()["class_net.predict.conv_pw.weight"].clone()
    text = effdet_weights.transfer(model, effdet_weights.read(path), path, "efficientdet_d0", NAMES)
    own = model.model.state_dict()
    head = [k for k in own if k.startswith(effdet_weights.HEAD)]
    assert text == f"{path.name}: {len(own) - len(head)} of {len(own)} tensors" and head
    assert torch.equal(own["class_net.predict.conv_pw.weight"], before)
    assert all(torch.equal(v, donor.model.state_dict()[k]) for k, v in own.items() if k not in head)


def test_weights_of_the_same_classes_give_everything(tmp_path: Path) -> None:
    donor, path = build(D0), tmp_path / "best.pt"
    effdet_weights.write(donor, path, D0, NAMES)
    found = effdet_weights.read(path)
    model = build(D0)
    count = len(model.model.state_dict())
    assert f"{count} of {count}" in effdet_weights.transfer(model, found, path, "efficientdet_d0", NAMES)
    others = effdet_weights.transfer(build(D0), found, path, "efficientdet_d0", ("a", "b", "c"))
    assert f"{count} of {count}" not in others


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_is_refused_unopened(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save({"state_dict": Hostile(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DojangError) as caught:
        effdet_weights.read(path)
    assert caught.value.code == "UNSAFE_FILE" and "mkdir" in caught.value.message and not mark.exists()


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content_, code in ((b"nonsense" * 100, "BAD_WEIGHTS"), (b"", "BAD_WEIGHTS"), (None, "MISSING_WEIGHTS")):
        path.unlink(missing_ok=True)
        if content_ is not None:
            path.write_bytes(content_)
        with pytest.raises(DojangError) as caught:
            effdet_weights.read(path)
        assert caught.value.code == code
    torch.save({"layer": torch.zeros(3)}, path)
    with pytest.raises(DojangError, match="Nothing in") as caught:
        effdet_weights.transfer(build(D0), effdet_weights.read(path), path, "efficientdet_d0", NAMES)
    with pytest.raises(DojangError) as caught:
        effdet_weights.rebuild(path)
    assert caught.value.code == "BAD_WEIGHTS"


def test_public_weights_are_looked_for_by_their_own_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).ensure()
    error = weights.missing(catalog.find("efficientdet_d1"), workspace)
    assert "tf_efficientdet_d1_40-a30f94af.pth" in error.message and str(workspace.weights) in error.hint
