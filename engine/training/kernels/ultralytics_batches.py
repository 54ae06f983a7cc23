"""Batches as ultralytics' models take them: cut into parts, scaled, and the heaviest there can be."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from engine.training.data import Sample
from engine.training.randomness import SIDE, mix
from engine.training.session import Batch

STRIDE = 32  # of every model in the catalog
BY_LABEL = ("cls", "bboxes", "batch_idx")  # one row a label; everything else has one an image
GREY = 114  # what ultralytics fills empty places with


def sides(image_size: int, share: float) -> tuple[int, int]:
    """Smallest and largest side, in pixels, that images are scaled to when `multi_scale` is `share`."""
    low, end = _draws(image_size, share)
    return low // STRIDE * STRIDE, (end - 1) // STRIDE * STRIDE


def _draws(image_size: int, share: float) -> tuple[int, int]:
    """What upstream draws a side from, before it is rounded down to the stride: from, and up to but without."""
    return max(STRIDE, int(image_size * (1.0 - share))), int(image_size * (1.0 + share) + STRIDE)


def side(image_size: int, share: float, seed: int, epoch: int, step: int) -> int:
    """The side of the images of one step: drawn from counters, so that a resumed training draws the same."""
    low, end = _draws(image_size, share)
    return (low + mix(seed, epoch, step, SIDE) % (end - low)) // STRIDE * STRIDE


def upstream_side(image_size: int, share: float) -> int:
    """The same from Python's generator, draw for draw as upstream."""
    import random

    return random.randrange(*_draws(image_size, share)) // STRIDE * STRIDE


def scaled(images: Tensor, longer: int) -> Tensor:
    """`images` (N, 3, H, W) with a longer side of `longer` pixels, both sides multiples of the stride."""
    factor = longer / max(images.shape[2:])
    if factor == 1:
        return images
    size = [math.ceil(length * factor / STRIDE) * STRIDE for length in images.shape[2:]]
    return nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def split(batch: Batch, parts: int) -> list[Batch]:
    """`batch` cut into `parts` nearly equal runs of images, or as many as it has images; labels go with theirs."""
    images = int(batch["img"].shape[0])
    parts = max(1, min(parts, images))
    bounds = [images * i // parts for i in range(parts + 1)]
    return [_run(batch, begin, end, images) for begin, end in pairwise(bounds)]


def _run(batch: Batch, begin: int, end: int, images: int) -> Batch:
    owner = batch["batch_idx"]
    mine = (owner >= begin) & (owner < end)
    cut: dict[str, Any] = {}
    for key, value in batch.items():
        if key in BY_LABEL:
            cut[key] = value[mine] - begin if key == "batch_idx" else value[mine]
        else:
            sized = isinstance(value, (Tensor, list, tuple)) and len(value) == images
            cut[key] = value[begin:end] if sized else value
    return cut


def densest(samples: list[Sample], count: int, image_size: int, mosaic: bool) -> Batch:
    """The heaviest batch that `samples` can give: `count` times the labels of the fullest images, on grey.

    What an image shows takes no memory, what it holds does. A mosaic holds the labels of four images.
    """
    fullest = sorted(samples, key=lambda s: -len(s.boxes))
    count = min(count, len(fullest))
    labels: list[Tensor] = []
    for place in range(count):
        if mosaic:
            four = [fullest[(place * 4 + i) % len(fullest)] for i in range(4)]
            labels.append(torch.cat([_quarter(s, i) for i, s in enumerate(four)]))
        else:
            labels.append(_rows(fullest[place]))
    rows = torch.cat(labels)
    owner = torch.repeat_interleave(torch.arange(count), torch.tensor([len(r) for r in labels]))
    return {
        "img": torch.full((count, 3, image_size, image_size), GREY, dtype=torch.uint8),
        "cls": rows[:, :1],
        "bboxes": rows[:, 1:],
        "batch_idx": owner.float(),
    }


def _rows(sample: Sample) -> Tensor:
    return torch.tensor(sample.boxes, dtype=torch.float32).reshape(-1, 5)


def _quarter(sample: Sample, place: int) -> Tensor:
    """The labels (class, x, y, w, h) of one image as a quarter of a mosaic."""
    rows = _rows(sample)
    rows[:, 1:] /= 2
    rows[:, 1] += place % 2 / 2
    rows[:, 2] += place // 2 / 2
    return rows
