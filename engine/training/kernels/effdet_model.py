"""EfficientDet as effdet builds it, for any number of classes and any legal size, and anchors that fit the data."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine import catalog
from engine.training.data import Sample
from engine.training.kernels.effdet_loss import Focus, box_loss, class_loss, flat

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library still scripts parts of itself, which torch announces the end of
    from effdet import EfficientDet, get_efficientdet_config
    from effdet.bench import DetBenchTrain, _batch_detection, _post_process

    from engine.training.kernels.effdet_fast import quicken

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # that are tried on the data
MATCHED = 0.5  # overlap from which on an anchor learns an object
MARGIN = 0.02  # share of the boxes that a more usual scale may miss
SAMPLE = 4000  # boxes of each class that are looked at
NORM_MOMENTUM = 0.1  # as the backbone's: the library's 0.01 lags behind a few hundred steps; the average evens it out
CALM = 0.1  # of how the library begins the last layers: their first gradients stay in Adam's memory for long
MOST_CANDIDATES = 5000  # predictions before overlapping ones are removed: the library's own number


@dataclass(frozen=True)
class Design:
    """All that decides a model's tensors and what they mean. Sizes in pixels; `found` is how many objects an image may have."""

    model: str
    classes: int
    image_size: int
    anchor_scale: float
    found: int = 100


def configuration(design: Design) -> Any:
    """effdet's configuration of it."""
    config = get_efficientdet_config(catalog.find(design.model).config)
    config.image_size = (design.image_size, design.image_size)
    config.num_classes = design.classes
    config.anchor_scale = design.anchor_scale
    config.norm_kwargs = {"eps": config.norm_kwargs["eps"], "momentum": NORM_MOMENTUM}
    config.max_det_per_image = design.found
    # The library picks so many predictions without asking whether there are that many.
    config.max_detection_points = min(MOST_CANDIDATES, anchor_count(config, useful_levels(config)) * design.classes)
    return config


class Bench(DetBenchTrain):
    """The model with its loss and, in evaluation, its detections.

    Targets are matched to anchors where images are loaded (`effdet_data`), not in here, where that would wait for the
    GPU once an image. Levels whose anchors fit into no image detect nothing: of a small image they see a point or four,
    never hold an object in training, and some images drive them to certainty.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, create_labeler=False)
        self.levels = useful_levels(self.config)
        self.useful_anchors = anchor_count(self.config, self.levels)
        config = self.config
        self.focus = Focus(config.alpha, config.gamma, config.delta)

    def forward(self, images: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`class_loss` and `box_loss` of normalised `images` (n, 3, size, size) against `batch`, by `effdet_data.Targets`.

        In evaluation also `detections`, for which `batch` has `content` (n, 2), the width and height in pixels that an
        image fills of the square: (n, found, 6) of x, y, x, y in pixels of the square, score, class from 1; zeros at the end.
        """
        classes, boxes = self.model(images)
        found = {
            "class_loss": class_loss(flat(classes, self.num_classes), batch, self.focus),
            "box_loss": box_loss(flat(boxes, 4), batch, self.focus),
        }
        if not self.training:
            found["detections"] = self.detect(classes, boxes, batch["content"])
        return found

    def detect(self, classes: list[Tensor], boxes: list[Tensor], sizes: Tensor) -> Tensor:
        """Detections from what the model gives for each level."""
        picked = _post_process(classes, boxes, self.levels, self.num_classes, self.max_detection_points)
        anchors = self.anchors.boxes[: self.useful_anchors]
        score, box, index, number = picked
        scale = torch.ones(len(sizes), device=sizes.device)
        most = self.max_det_per_image
        return _batch_detection(len(sizes), score, box, anchors, index, number, scale, sizes, most, self.soft_nms)


def build(design: Design) -> Bench:
    """The model with random weights. Nothing is fetched."""
    model = EfficientDet(configuration(design), pretrained_backbone=False)
    for head in (model.class_net, model.box_net):
        head.predict.conv_pw.weight.data *= CALM
    quicken(model)
    return Bench(model)


def useful_levels(config: Any) -> int:
    """How many levels, from the finest, have anchors that could overlap an object by half."""
    area = config.image_size[0] * config.image_size[1]
    anchors = [(config.anchor_scale * 2**level) ** 2 for level in range(config.min_level, config.max_level + 1)]
    return max(1, sum(anchor * MATCHED <= area for anchor in anchors))


def level_sizes(config: Any) -> list[int]:
    """Height, and width, of each level's grid, finest first."""
    return [math.ceil(config.image_size[0] / 2**level) for level in range(config.min_level, config.max_level + 1)]


def anchor_count(config: Any, levels: int | None = None) -> int:
    """Anchors of one image, of the finest `levels` or of all."""
    return sum(size**2 for size in level_sizes(config)[:levels]) * config.num_scales * len(config.aspect_ratios)


def stock_anchor_scale(model: str) -> float:
    """What the library, and so the public weights, have."""
    return float(get_efficientdet_config(catalog.find(model).config).anchor_scale)


def fitting_anchor_scale(samples: Sequence[Sample], image_size: int, stock: float) -> float:
    """The largest scale, up to `stock`, whose anchors match nearly as many of the boxes as those of any scale do.

    Each class counts alike, as it does in the metrics: a rare class of small objects must not be given up for a common
    one of large ones. Largest, because larger anchors are more per object; measured on 128 px, 2 instead of 4 raised
    mAP50 from 0.68 to 0.87.
    """
    kinds = _boxes(samples, image_size)
    if not kinds:
        return stock
    config = get_efficientdet_config()
    tried = [s for s in SCALES if s < stock] + [stock]
    share = {
        s: float(np.mean([(_best_overlaps(found, s, image_size, config) >= MATCHED).mean() for found in kinds]))
        for s in tried
    }
    return max(s for s in tried if share[s] >= max(share.values()) - MARGIN)


def _boxes(samples: Sequence[Sample], image_size: int) -> list[np.ndarray]:
    """Centre and size (n, 4) of boxes, evenly picked, in pixels of the scaled image: for each class that has any."""
    kinds = defaultdict(list)
    for s in samples:
        gain = image_size / max(s.width, s.height)
        for b in s.boxes:
            kinds[b.cls].append(
                (b.cx * s.width * gain, b.cy * s.height * gain, b.w * s.width * gain, b.h * s.height * gain)
            )
    picked = (np.array(rows[:: max(1, len(rows) // SAMPLE)], dtype=np.float64) for _, rows in sorted(kinds.items()))
    found = [boxes[(boxes[:, 2:] >= 1).all(1)] for boxes in picked]
    return [boxes for boxes in found if len(boxes)]


def _best_overlaps(boxes: np.ndarray, scale: float, image_size: int, config: Any) -> np.ndarray:
    """Overlap (n) of each box with the best of the anchors around it: those whose grid point is nearest its centre."""
    best = np.zeros(len(boxes))
    area = boxes[:, 2:].prod(1)
    for level in range(config.min_level, config.max_level + 1):
        stride = 2**level
        points = (np.floor(boxes[:, :2].clip(0, image_size - 1) / stride) + 0.5) * stride
        shift = np.abs(boxes[:, :2] - points)
        for octave in range(config.num_scales):
            for aspect in config.aspect_ratios:
                anchor = np.array(aspect) * scale * stride * 2 ** (octave / config.num_scales)
                right = np.minimum(boxes[:, 2:] / 2, shift + anchor / 2)
                left = np.maximum(-boxes[:, 2:] / 2, shift - anchor / 2)
                shared = (right - left).clip(0).prod(1)
                best = np.maximum(best, shared / (area + anchor.prod() - shared))
    return best
