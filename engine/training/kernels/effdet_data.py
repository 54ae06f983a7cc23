"""Images and labels as EfficientDet wants them: square, and each object matched to the anchors that learn it.

Loading, caching and augmentation are those of the YOLO kernel, so that a setting means the same for both.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from ultralytics.data.augment import Compose, LetterBox

from engine.training.kernels.effdet_model import Design, anchor_count, configuration, level_sizes
from engine.training.kernels.ultralytics_data import ManifestDataset
from engine.training.session import Batch

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
    """Puts samples together to a batch and says, for each anchor, what it is to predict.

    Only the few anchors that match an object travel; `dense` spreads them out on the device.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self._labeler: Any = None

    def __call__(self, samples: list[dict[str, Any]]) -> Batch:
        batch = ManifestDataset.collate_fn(samples)
        size, anchors = self.design.image_size, anchor_count(self.labeler.config)
        places, labels, codes, counts = [], [], [], []
        for number in range(len(samples)):
            rows = batch["batch_idx"] == number
            boxes, classes = library_boxes(batch["bboxes"][rows], batch["cls"][rows], size)
            levels, offsets, _ = self.labeler.label_anchors(boxes, classes)
            label = torch.cat([level.flatten() for level in levels])
            offset = torch.cat([level.reshape(-1, 4) for level in offsets])
            place = (label >= 0).nonzero().squeeze(1)
            places.append(place + number * anchors)
            labels.append(label[place])
            codes.append(offset[place])
            counts.append(len(place))
        batch["places"], batch["labels"], batch["codes"] = torch.cat(places), torch.cat(labels), torch.cat(codes)
        batch["counts"] = torch.tensor(counts, dtype=torch.float32)
        batch["content"] = torch.tensor([content(shape, size) for shape in batch["ori_shape"]], dtype=torch.float32)
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


def dense(batch: Batch, config: Any) -> dict[str, Any]:
    """What effdet's loss wants: for each level the class (from 0; -1 is none) and box code of every anchor."""
    images, anchors = len(batch["counts"]), anchor_count(config)
    labels = torch.full((images * anchors,), -1, dtype=torch.long, device=batch["places"].device)
    codes = torch.zeros(images * anchors, 4, device=labels.device)
    labels[batch["places"]] = batch["labels"]
    codes[batch["places"]] = batch["codes"]
    each = config.num_scales * len(config.aspect_ratios)
    found: dict[str, Any] = {"label_num_positives": batch["counts"]}
    sizes = level_sizes(config)
    parts = [size**2 * each for size in sizes]
    levels = zip(sizes, labels.view(images, -1).split(parts, 1), codes.view(images, -1, 4).split(parts, 1), strict=True)
    for number, (size, label, code) in enumerate(levels):
        found[f"label_cls_{number}"] = label.reshape(images, size, size, -1)
        found[f"label_bbox_{number}"] = code.reshape(images, size, size, -1)
    return found


def detections(rows: Tensor, lowest: float) -> list[dict[str, Tensor]]:
    """effdet's detections (images, most, 6), padded with zeros, as the evaluator takes them: one dict an image.

    `bboxes` are x, y, x, y in pixels of the square; `cls` counts from 0.
    """
    found = []
    for row in rows:
        kept = row[(row[:, 4] > lowest) & (row[:, 5] > 0)]
        found.append({"bboxes": kept[:, :4], "conf": kept[:, 4], "cls": kept[:, 5] - 1, "extra": kept[:, 6:]})
    return found
