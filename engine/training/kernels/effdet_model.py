"""EfficientDet as effdet builds it, for any number of classes and any legal size, and anchors that fit the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engine import catalog
from engine.training.data import Sample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library still scripts parts of itself, which torch announces the end of
    from effdet import create_model_from_config, get_efficientdet_config

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)  # that are tried on the data
MATCHED = 0.5  # overlap from which on an anchor learns an object
MARGIN = 0.02  # share of the boxes that a more usual scale may miss
SAMPLE = 4000  # boxes that are looked at
NORM_MOMENTUM = 0.1  # as the backbone's: the library's 0.01 lags behind a few hundred steps; the average evens it out
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
    # It picks so many predictions without asking whether there are that many.
    config.max_detection_points = min(MOST_CANDIDATES, anchor_count(config) * design.classes)
    return config


def build(design: Design) -> nn.Module:
    """The model with its loss and its detections, random weights. Nothing is fetched.

    Targets are matched to anchors where images are loaded (`effdet_data`), not in here, where that would wait for the
    GPU once an image.
    """
    return create_model_from_config(
        configuration(design), bench_task="train", bench_labeler=False, pretrained=False, pretrained_backbone=False
    )


def level_sizes(config: Any) -> list[int]:
    """Height, and width, of each level's grid, finest first."""
    return [math.ceil(config.image_size[0] / 2**level) for level in range(config.min_level, config.max_level + 1)]


def anchor_count(config: Any) -> int:
    """Anchors of one image."""
    return sum(size**2 for size in level_sizes(config)) * config.num_scales * len(config.aspect_ratios)


def stock_anchor_scale(model: str) -> float:
    """What the library, and so the public weights, have."""
    return float(get_efficientdet_config(catalog.find(model).config).anchor_scale)


def fitting_anchor_scale(samples: Sequence[Sample], image_size: int, stock: float) -> float:
    """The largest scale, up to `stock`, whose anchors match nearly as many of the boxes as those of any scale do.

    Largest, because larger anchors are more per object; measured on 128 px, 2 instead of 4 raised mAP50 from 0.68 to 0.87.
    """
    boxes = _boxes(samples, image_size)
    if not len(boxes):
        return stock
    config = get_efficientdet_config()
    tried = [s for s in SCALES if s < stock] + [stock]
    share = {s: float((_best_overlaps(boxes, s, image_size, config) >= MATCHED).mean()) for s in tried}
    return max(s for s in tried if share[s] >= max(share.values()) - MARGIN)


def _boxes(samples: Sequence[Sample], image_size: int) -> np.ndarray:
    """Centre and size (n, 4) of boxes, evenly picked, in pixels of the scaled image."""
    rows = [
        (b.cx * s.width * gain, b.cy * s.height * gain, b.w * s.width * gain, b.h * s.height * gain)
        for s in samples
        for gain in (image_size / max(s.width, s.height),)
        for b in s.boxes
    ]
    boxes = np.array(rows[:: max(1, len(rows) // SAMPLE)], dtype=np.float64).reshape(-1, 4)
    return boxes[(boxes[:, 2:] >= 1).all(1)]


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
