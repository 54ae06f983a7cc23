"""What an EfficientDet learns by, against the library's own: targets, losses, gradients; and which layers learn."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import create_conv2d
from torch import nn

from engine.datasets import Box
from engine.errors import DojangError
from engine.training.kernels.effdet_data import Targets, library_boxes, split
from engine.training.kernels.effdet_fast import FpnCombine, quicken
from engine.training.kernels.effdet_freeze import freeze
from engine.training.kernels.effdet_loss import Focus, class_loss
from engine.training.kernels.effdet_model import Design, anchor_count, build, configuration
from tests.training.test_effdet_parts import D0, dataset, drawn, library_targets

SMALL = Design("efficientdet_d0", 3, 128, 1.0)  # whose anchors are all of use


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    """Two images, the second without any object, matched to the anchors of `SMALL`."""
    boxes = Box(0, 0.3, 0.3, 0.3, 0.4), Box(2, 0.7, 0.6, 0.3, 0.3)
    data = dataset([drawn(tmp_path, 128, 96, *boxes), drawn(tmp_path, 64, 64)])
    return Targets(SMALL)([data[0], data[1]])


def pair(design: Design, labeler: bool) -> tuple[Any, Any]:
    """The library's model and ours with the same weights; nothing is left out at random."""
    from effdet import create_model_from_config

    theirs = create_model_from_config(
        configuration(design), bench_task="train", bench_labeler=labeler, pretrained=False, pretrained_backbone=False
    )
    ours = build(design)
    theirs.load_state_dict(ours.state_dict())
    for module in (*theirs.modules(), *ours.modules()):
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return theirs, ours


def test_targets_losses_and_detections_are_the_librarys_own(batch: Any) -> None:
    """Matched where images are loaded, and only what learns is looked at: the results of effdet's own matching and loss."""
    anchors = anchor_count(configuration(SMALL))
    assert batch["positives"] == len(batch["places"]) > 0 and batch["places"].max() < anchors
    theirs, ours = pair(SMALL, labeler=True)
    image = torch.rand(2, 3, 128, 128)
    boxes = [
        library_boxes(batch["bboxes"][batch["batch_idx"] == i], batch["cls"][batch["batch_idx"] == i], 128)
        for i in (0, 1)
    ]
    theirs.eval()
    ours.eval()
    target = {"bbox": [b[0] for b in boxes], "cls": [b[1] for b in boxes]}
    expected = theirs(image, {**target, "img_scale": torch.ones(2), "img_size": batch["content"]})
    found = ours(image, batch)
    assert all(torch.allclose(found[k], expected[k], rtol=1e-4) for k in ("class_loss", "box_loss"))
    assert torch.allclose(found["detections"], expected["detections"], atol=2e-2)  # of a pixel


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_the_librarys_own(batch: Any, smoothing: float) -> None:
    theirs, ours = pair(SMALL, labeler=False)
    ours.focus = replace(ours.focus, smoothing=smoothing)
    theirs.loss_fn.label_smoothing = smoothing
    image = torch.rand(2, 3, 128, 128)
    found = ours.train()(image, batch)
    (found["class_loss"] + 50 * found["box_loss"]).backward()
    theirs.train()(image, library_targets(batch, configuration(SMALL)))["loss"].backward()
    pairs = {
        "gradients": [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)],
        "statistics": [(b, theirs.get_buffer(name)) for name, b in ours.named_buffers() if "running" in name],
    }
    for name, both in pairs.items():
        mine, other = (torch.cat([tensors[i].flatten() for tensors in both]) for i in (0, 1))
        assert (mine - other).norm() < 1e-3 * other.norm(), name


@pytest.mark.parametrize("method", ["fastattn", "attn", "sum"])
def test_feature_maps_are_added_up_as_the_library_does(method: str) -> None:
    """D6 and D7 have sums without weights, which no other test meets."""
    maps = [{"num_chs": 4, "size": (8, 8)}, {"num_chs": 4, "size": (4, 4)}, {"num_chs": 4, "size": (16, 16)}]
    theirs = FpnCombine(maps, 4, (0, 1, 2), (8, 8), pad_type="same", weight_method=method)
    if theirs.edge_weights is not None:
        theirs.edge_weights.data = torch.tensor([0.7, -0.3, 1.9])
    ours = deepcopy(theirs)
    quicken(nn.Sequential(ours))
    inputs = [torch.randn(2, 4, *m["size"]) for m in maps]
    assert type(ours) is not type(theirs)
    assert torch.allclose(ours(inputs), theirs(inputs), rtol=1e-4, atol=1e-5)


def test_gradients_in_16_bits_on_a_cpu_are_those_of_32() -> None:
    """Depthwise convolutions have a backward pass of their own there; with padding on one side only, too."""
    torch.manual_seed(0)
    for size, kernel, stride in ((17, 3, 1), (17, 5, 1), (16, 3, 2), (16, 5, 2), (16, 7, 1)):
        layers = [create_conv2d(8, 8, kernel, stride=stride, padding="same", depthwise=True) for _ in range(2)]
        layers[1].load_state_dict(layers[0].state_dict())
        quicken(nn.Sequential(layers[1]))
        images = [torch.randn(2, 8, size, size).requires_grad_() for _ in range(2)]
        images[1].data.copy_(images[0].data)
        layers[0](images[0]).sin().sum().backward()
        with torch.autocast("cpu", torch.bfloat16):
            found = layers[1](images[1])
        assert found.dtype == torch.bfloat16
        found.float().sin().sum().backward()
        assert type(layers[0]) is not type(layers[1])
        for ours, theirs in ((images[1].grad, images[0].grad), (layers[1].weight.grad, layers[0].weight.grad)):
            assert (ours - theirs).norm() < 0.02 * theirs.norm(), (size, kernel, stride)


def test_a_weight_for_each_class_changes_its_loss_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 50, 3)
    batch = {"places": torch.tensor([3, 60]), "labels": torch.tensor([0, 2]), "positives": torch.tensor(2.0)}
    plain = Focus(0.25, 1.5, 0.1)
    whole = class_loss(logits, batch, plain)
    each = [class_loss(logits, batch, replace(plain, weights=torch.eye(3)[i])) for i in range(3)]
    assert torch.allclose(sum(each), whole)
    assert torch.allclose(class_loss(logits, batch, replace(plain, weights=torch.tensor([2.0, 1, 1]))), whole + each[0])


def test_parts_of_a_batch_have_its_loss_together(tmp_path: Path) -> None:
    """To rounding, where nothing looks across images, as normalisation in training does."""
    boxes = [Box(0, 0.3, 0.3, 0.3, 0.4), Box(2, 0.7, 0.6, 0.3, 0.3), Box(1, 0.5, 0.5, 0.2, 0.2)]
    data = dataset([drawn(tmp_path, 128, 128, *boxes[: i % 4]) for i in range(5)])
    batch = Targets(D0)([data[i] for i in range(5)])
    anchors = anchor_count(configuration(D0))
    model = build(D0).eval()
    whole = model(batch["img"].float(), batch)
    parts = split(batch, 2, anchors)
    assert [len(p["img"]) for p in parts] == [2, 3] and sum(len(p["labels"]) for p in parts) == len(batch["labels"])
    assert all(p["positives"] == batch["positives"] and p["images"] == 5 for p in parts)
    found = [model(p["img"].float(), p) for p in parts]
    for name in ("class_loss", "box_loss"):
        assert torch.allclose(sum(f[name] for f in found), whole[name], rtol=1e-4)
    assert len(split(batch, 99, anchors)) == 5


# Freezing


@pytest.mark.parametrize(
    ("how", "learning", "frozen"),
    [
        ("none", ["backbone.conv_stem", "fpn.resample", "class_net"], []),
        (
            "features",
            ["fpn.resample", "fpn.cell.0", "class_net", "box_net"],
            ["backbone.conv_stem", "backbone.blocks.6"],
        ),
        (
            "but-last",
            ["class_net.predict", "box_net.predict"],
            ["class_net.bn_rep", "box_net.conv_rep", "fpn", "backbone"],
        ),
        ("0", ["backbone.conv_stem"], []),
        ("1", ["backbone.blocks.0"], ["backbone.conv_stem", "backbone.bn1"]),
        ("3", ["backbone.blocks.2"], ["backbone.blocks.0", "backbone.blocks.1"]),
        ("9", ["fpn.cell.1"], ["backbone", "fpn.resample", "fpn.cell.0"]),
        ("last-1", ["fpn.cell.2", "class_net"], ["fpn.cell.1", "fpn.resample", "backbone"]),
        ("last-4", ["fpn.cell.0", "fpn.resample", "backbone.blocks.6"], ["backbone.blocks.5"]),
        ("11", ["class_net", "box_net"], ["backbone", "fpn"]),
    ],
)
def test_what_is_frozen(how: str, learning: list[str], frozen: list[str]) -> None:
    model = build(D0).model
    held = freeze(model, how)
    for name, parameter in model.named_parameters():
        if any(name.startswith(f"{part}.") for part in frozen):
            assert not parameter.requires_grad, name
        if any(name.startswith(f"{part}.") for part in learning):
            assert parameter.requires_grad, name
    model.train()
    for module in held:
        module.eval()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert all(norm.training == norm.weight.requires_grad for norm in norms.values())


@pytest.mark.parametrize("how", ["12", "last-12"])
def test_more_blocks_than_there_are(how: str) -> None:
    with pytest.raises(DojangError, match="11 blocks") as caught:
        freeze(build(D0).model, how)
    assert caught.value.code == "BAD_SPEC" and "11" in caught.value.hint
