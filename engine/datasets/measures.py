"""What labels, sizes and splits say about a dataset before any image is opened: findings and figures for charts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.datasets.model import SPLITS, Box, Dataset, Finding, Item

TINY = 8.0  # pixels a side, at the chosen image size: a cell of the finest grid of the models here
LONG_BOX = 20.0  # sides as 20 to 1
LONG_IMAGE = 3.0
DOUBLE = 0.85  # intersection over union
WHOLE = 0.98  # of the image's area
CROWD = 300  # objects; what evaluation counts of one image
RARE = 10.0  # times fewer than the most frequent class
FEW = 20  # labels in train
SMALL = 20  # labelled images that a split judges by
MIXED = 4.0  # largest to smallest of longer sides
SIZE_EDGES = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # the first is TINY at an image size of 640
SHAPE_EDGES = (0.0, 0.125, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 8.0, math.inf)
MOST_COUNTED = 20  # boxes an image told apart in the chart; sizes of images listed


def measure_items(items: Iterable[Item], image_size: int) -> Iterator[Finding]:
    """Findings about single images and boxes; an object's number is its place among the item's boxes, from 1."""
    for item in items:
        ratio = max(item.width, item.height) / min(item.width, item.height)
        if ratio > LONG_IMAGE:
            message = f"The image is {item.width}×{item.height} pixels, {ratio:.1f} times as long as wide."
            yield Finding("info", "odd_image_shape", message, item.path)
        if len(item.boxes) > CROWD:
            yield Finding("warning", "crowded_image", f"{len(item.boxes)} objects are on the image.", item.path)
        yield from _measure_boxes(item, image_size)


def _measure_boxes(item: Item, image_size: int) -> Iterator[Finding]:
    scale = image_size / max(item.width, item.height)
    for number, box in enumerate(item.boxes, 1):
        width, height = box.w * item.width, box.h * item.height
        if math.sqrt(width * height) * scale < TINY:
            small = f"{width * scale:.2g}×{height * scale:.2g}"
            message = f"The box has {width:.3g}×{height:.3g} pixels, at {image_size} that is {small}."
            yield Finding("warning", "tiny_box", message, item.path, number)
        if max(width, height) > LONG_BOX * min(width, height):
            yield Finding(
                "warning", "odd_box_shape", f"The box has {width:.3g}×{height:.3g} pixels.", item.path, number
            )
        if box.w * box.h > WHOLE:
            message = f"The box covers {min(1.0, box.w * box.h):.0%} of the image."
            yield Finding("info", "whole_image_box", message, item.path, number)
    if len(item.boxes) <= CROWD:
        for first, second, share in _doubles(item.boxes):
            message = f"The box and box {first} share {share:.0%} of what they cover together."
            yield Finding("warning", "double_box", message, item.path, second)


def _doubles(boxes: Sequence[Box]) -> Iterator[tuple[int, int, float]]:
    """Pairs of boxes that are nearly the same, by number, with their intersection over union."""
    for j, b in enumerate(boxes):
        for i in range(j):
            a = boxes[i]
            if abs(a.cx - b.cx) < b.w and abs(a.cy - b.cy) < b.h:
                across = min(a.cx + a.w / 2, b.cx + b.w / 2) - max(a.cx - a.w / 2, b.cx - b.w / 2)
                down = min(a.cy + a.h / 2, b.cy + b.h / 2) - max(a.cy - a.h / 2, b.cy - b.h / 2)
                both = max(0.0, across) * max(0.0, down)
                share = both / (a.w * a.h + b.w * b.h - both)
                if share >= DOUBLE:
                    yield i + 1, j + 1, share


def measure_set(dataset: Dataset, items: Sequence[Item]) -> list[Finding]:
    """Findings about the set as a whole: classes, splits, sizes. Their `file` is empty."""
    return [*_classes(dataset), *_splits(dataset), *_sizes(items)]


def _classes(dataset: Dataset) -> list[Finding]:
    found: list[Finding] = []
    counts, per_split = dataset.counts.per_class, dataset.counts.per_split
    most = max(counts, key=lambda name: counts[name])
    for name, count in counts.items():
        train = per_split["train"].per_class[name]
        if not count:
            found.append(Finding("warning", "class_unused", f"{name} has no label in any split.", ""))
            continue
        if not train:
            found.append(
                Finding("error", "class_not_in_train", f"{name} has {count} labels, none of them in train.", "")
            )
        elif train < FEW:
            found.append(Finding("warning", "class_few", f"{name} has {train} labels in train.", ""))
        if counts[most] >= RARE * count:
            message = f"{name} has {count:,} labels, {most} {counts[most]:,}: {counts[most] / count:.1f} times as many."
            found.append(Finding("warning", "imbalance", message, ""))
        for split in ("val", "test"):
            part = per_split[split]  # type: ignore[index]
            if part.labelled and not part.per_class[name]:
                found.append(Finding("warning", "class_not_judged", f"{name} has no label in {split}.", ""))
    return found


def _splits(dataset: Dataset) -> list[Finding]:
    parts = ((split, dataset.counts.per_split[split].labelled) for split in SPLITS if split != "train")
    return [
        Finding("warning", "small_split", f"{split} has {labelled} labelled images.", "")
        for split, labelled in parts
        if 0 < labelled < SMALL
    ]


def _sizes(items: Sequence[Item]) -> list[Finding]:
    sizes = Counter((item.width, item.height) for item in items)
    small, large = min(sizes, key=max), max(sizes, key=max)
    if max(large) < MIXED * max(small):
        return []
    message = f"{len(sizes)} sizes, from {small[0]}×{small[1]} to {large[0]}×{large[1]} pixels."
    return [Finding("info", "mixed_sizes", message, "")]


def charts(dataset: Dataset, items: Iterable[Item]) -> dict[str, Any]:
    """Figures to draw: `edges` are one more than `counts`, whose last may reach to infinity (null)."""
    sizes = [0] * (len(SIZE_EDGES) - 1)
    shapes = [0] * (len(SHAPE_EDGES) - 1)
    frames = [0] * (len(SHAPE_EDGES) - 1)
    boxes: Counter[int] = Counter()
    images: Counter[tuple[int, int]] = Counter()
    per_class = [0] * len(dataset.classes)
    for item in items:
        images[item.width, item.height] += 1
        frames[_bin(item.width / item.height, SHAPE_EDGES)] += 1
        longer = max(item.width, item.height)
        boxes[min(len(item.boxes), MOST_COUNTED)] += item.labelled
        for cls in item.classes:
            per_class[cls] += 1
        for box in item.boxes:
            sizes[_bin(math.sqrt(box.w * item.width * box.h * item.height) / longer, SIZE_EDGES)] += 1
            shapes[_bin(box.w * item.width / (box.h * item.height), SHAPE_EDGES)] += 1
    ratios = [None if math.isinf(edge) else edge for edge in SHAPE_EDGES]
    found: dict[str, Any] = {
        "images_per_class": dict(zip(dataset.classes, per_class, strict=True)),
        "labels_per_class": {split: dataset.counts.per_split[split].per_class for split in SPLITS},
        "image_sizes": [[*size, count] for size, count in images.most_common(MOST_COUNTED)],
        "other_image_sizes": sum(images.values()) - sum(count for _, count in images.most_common(MOST_COUNTED)),
        # width to height
        "image_shape": {"edges": ratios, "counts": frames},
    }
    if dataset.task == "detect":
        found |= {
            # side of a square of the same area, as a part of the image's longer side
            "box_size": {"edges": list(SIZE_EDGES), "counts": sizes},
            # width to height in pixels
            "box_shape": {"edges": ratios, "counts": shapes},
            # labelled images with 0, 1, 2, … boxes; the last with that many or more
            "boxes_per_image": [boxes[n] for n in range(MOST_COUNTED + 1)],
        }
    return found


def _bin(value: float, edges: Sequence[float]) -> int:
    return next((i for i in range(len(edges) - 2) if value < edges[i + 1]), len(edges) - 2)
