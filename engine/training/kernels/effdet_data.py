"""Images and labels as EfficientDet wants them: square, and each object matched to the anchors that learn it.

Loading, caching and augmentation are those of the YOLO kernel, so that a setting means the same for both.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from ultralytics.data.augment import Compose, LetterBox

from engine.training.kernels.effdet_model import Design, anchor_count, configuration
from engine.training.kernels.ultralytics_data import ManifestDataset
from engine.training.session import Batch

BY_LABEL = ("cls", "bboxes", "batch_idx")  # one row a label
BY_ANCHOR = ("places", "labels", "codes")  # one row an anchor that learns
OF_ALL = ("positives", "images")  # numbers of anchors that learn, and of images; everything else has one an image
SMALLEST = 1.0  # pixels; what is narrower in the scaled image cannot be learned


class SquareDataset(ManifestDataset):
    """Images scaled into the top left corner of a square, the rest filled: the place that the public weights know."""

    def build_transforms(self, hyp: Any) -> Compose:
        transforms = super().build_transforms(hyp)
        for transform in transforms.transforms:
            if isinstance(transform, LetterBox):
                transform.center = False
        return transforms


class Targets:
    """Puts samples together to a batch and says which anchors are to learn an object, and what.

    Only those few travel: `places` counts anchors through the whole batch, image by image, finest level first.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self._labeler: Any = None

    def __call__(self, samples: list[dict[str, Any]]) -> Batch:
        batch = ManifestDataset.collate_fn(samples)
        size = self.design.image_size
        filled = [content(shape, size) for shape in batch["ori_shape"]]
        batch["content"] = torch.tensor(filled, dtype=torch.float32)
        return self.matched(batch)

    def matched(self, batch: Batch) -> Batch:
        """`batch` with what its labels (`batch_idx`, `bboxes`, `cls`) come to: `places`, `labels`, `codes` and numbers."""
        size, anchors = self.design.image_size, anchor_count(self.labeler.config)
        places, labels, codes = [], [], []
        for number in range(len(batch["img"])):
            rows = batch["batch_idx"] == number
            boxes, classes = library_boxes(batch["bboxes"][rows], batch["cls"][rows], size)
            levels, offsets, _ = self.labeler.label_anchors(boxes, classes)
            label = torch.cat([level.flatten() for level in levels])
            offset = torch.cat([level.reshape(-1, 4) for level in offsets])
            place = (label >= 0).nonzero().squeeze(1)
            places.append(place + number * anchors)
            labels.append(label[place])
            codes.append(offset[place])
        batch["places"], batch["labels"], batch["codes"] = torch.cat(places), torch.cat(labels), torch.cat(codes)
        batch["positives"] = torch.tensor(float(len(batch["places"])))
        batch["images"] = len(batch["img"])
        return batch

    @property
    def labeler(self) -> Any:
        """effdet's own matching. Made in the process that uses it: it cannot be sent to another."""
        if self._labeler is None:
            from effdet.anchors import AnchorLabeler, Anchors

            config = configuration(self.design)
            self._labeler = AnchorLabeler(Anchors.from_config(config), self.design.classes)
            self._labeler.config = config
        return self._labeler


def split(batch: Batch, parts: int, anchors: int) -> list[Batch]:
    """`batch`, of `anchors` an image, cut into `parts` nearly equal runs of images, or as many as it has images.

    `positives` and `images` stay those of the whole, by which losses are divided and weighed.
    """
    images = len(batch["img"])
    parts = max(1, min(parts, images))
    bounds = [images * part // parts for part in range(parts + 1)]
    return [_run(batch, begin, end, anchors) for begin, end in pairwise(bounds)]


def _run(batch: Batch, begin: int, end: int, anchors: int) -> Batch:
    """The images from `begin` to before `end`, with what is theirs."""
    cut: dict[str, Any] = {}
    rows = (batch["batch_idx"] >= begin) & (batch["batch_idx"] < end)
    learning = (batch["places"] >= begin * anchors) & (batch["places"] < end * anchors)
    for key, value in batch.items():
        if key in BY_LABEL:
            cut[key] = value[rows]
        elif key in BY_ANCHOR:
            cut[key] = value[learning]
        else:
            cut[key] = value if key in OF_ALL else value[begin:end]
    cut["batch_idx"] = cut["batch_idx"] - begin
    cut["places"] = cut["places"] - begin * anchors
    return cut


def library_boxes(boxes: Tensor, classes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Labels in effdet's convention: corners (n, 4) as y, x, y, x in pixels of the square, and classes (n) from 1.

    `boxes` (n, 4) are centres and sizes as parts of the square of `size` pixels, `classes` (n, 1) count from 0. Boxes are
    cut at the edges; what is left of less than a pixel is dropped.
    """
    centre, half = boxes[:, :2] * size, boxes[:, 2:] * size / 2
    corners = torch.cat([centre - half, centre + half], 1)[:, [1, 0, 3, 2]].float().clamp(0, size)
    keep = ((corners[:, 2:] - corners[:, :2]) >= SMALLEST).all(1)
    return corners[keep], classes[keep].flatten().long() + 1


def content(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Width and height in pixels that an image of `shape` (height, width) fills of the square."""
    gain = size / max(shape)
    return min(math.ceil(shape[1] * gain), size), min(math.ceil(shape[0] * gain), size)


def detections(rows: Tensor, lowest: float) -> list[dict[str, Tensor]]:
    """effdet's detections (images, most, 6), padded with zeros, as the evaluator takes them: one dict an image.

    `bboxes` are x, y, x, y in pixels of the square; `cls` counts from 0.
    """
    found = []
    for row in rows:
        kept = row[(row[:, 4] > lowest) & (row[:, 5] > 0)]
        found.append({"bboxes": kept[:, :4], "conf": kept[:, 4], "cls": kept[:, 5] - 1, "extra": kept[:, 6:]})
    return found
