"""What a dataset is made of: plain frozen values that the screens, the wizard and the worker all read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Split = Literal["train", "val", "test"]
Part = Literal["train", "val", "test", ""]  # "" is still to be divided
Severity = Literal["error", "warning", "info"]
Format = Literal["yolo", "voc", "coco", "labelme", "imagefolder", "csv"]
Task = Literal["detect", "classify"]
SplitSource = Literal["existing", "made"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
FORMATS: dict[Format, str] = {  # as people call them
    "yolo": "Ultralytics YOLO",
    "voc": "Pascal VOC",
    "coco": "COCO",
    "labelme": "labelme",
    "imagefolder": "a folder per class",
    "csv": "a table of images and labels",
}

Progress = Callable[[int, int], None]
"""Called with (done, total) images; total is 0 while they are still being looked for. Raise from it to cancel."""


class Box(NamedTuple):
    """A class index, and centre and size as parts of the image's width and height. Never rounded.

    A named tuple and not a dataclass: a dataset holds hundreds of thousands, and these are made and sorted fastest.
    """

    cls: int
    cx: float
    cy: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Item:
    """One usable image. `labelled` says that its annotation was read: one without objects is labelled background.

    A set to detect in has `boxes`, one to classify a `label`; the other of the two stays empty.
    """

    path: str  # relative to the dataset's root, with "/", when inside it; else absolute
    split: Split
    width: int  # pixels as shown, so after the EXIF rotation
    height: int
    boxes: tuple[Box, ...]
    labelled: bool
    bytes: int = 0  # size of the image file
    label: int | None = None  # class of the whole image

    @property
    def classes(self) -> frozenset[int]:
        """The classes that the image shows; empty for background and for what nobody labelled."""
        return frozenset(box.cls for box in self.boxes) if self.label is None else frozenset((self.label,))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found wrong while reading, and where. `error` means that something was left out because of it."""

    severity: Severity
    code: str  # stable, for scripts
    message: str
    file: str  # like Item.path
    object: int | None = None  # number of the object in the file, from 1
    image: str = ""  # Item.path of the image that it is about, where `file` is its annotation
    other: str = ""  # Item.path of a second image that has to do with it

    @property
    def where(self) -> str:
        """File and object in words; empty for what is about the whole set."""
        return f"{self.file}, object {self.object}" if self.object else self.file

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "file": self.file,
            "object": self.object,
            "image": self.image,
            "other": self.other,
        }


@dataclass(frozen=True, slots=True)
class SplitCounts:
    images: int = 0
    labelled: int = 0
    labels: int = 0  # boxes; of a set to classify, labelled images
    per_class: dict[str, int] = field(default_factory=dict)  # the same by class name, every class present


@dataclass(frozen=True, slots=True)
class Counts:
    images: int
    labelled: int
    unlabelled: int
    labels: int  # boxes; of a set to classify, labelled images
    per_class: dict[str, int]
    per_split: dict[Split, SplitCounts]

    @classmethod
    def of(cls, items: Iterable[Item], classes: tuple[str, ...]) -> Counts:
        images = dict.fromkeys(SPLITS, 0)
        labelled = dict.fromkeys(SPLITS, 0)
        labels = {split: [0] * len(classes) for split in SPLITS}
        for item in items:
            images[item.split] += 1
            labelled[item.split] += item.labelled
            for box in item.boxes:
                labels[item.split][box.cls] += 1
            if item.label is not None:
                labels[item.split][item.label] += 1
        return cls.from_splits(classes, {s: (images[s], labelled[s], labels[s]) for s in SPLITS})

    @classmethod
    def from_splits(cls, classes: tuple[str, ...], splits: dict[Split, tuple[int, int, list[int]]]) -> Counts:
        """Sum up from each split's images, labelled images and labels by class in the order of `classes`."""
        per_split = {
            split: SplitCounts(images, labelled, sum(labels), dict(zip(classes, labels, strict=True)))
            for split, (images, labelled, labels) in splits.items()
        }
        parts = per_split.values()
        images, labelled = sum(p.images for p in parts), sum(p.labelled for p in parts)
        per_class = {name: sum(p.per_class[name] for p in parts) for name in classes}
        return cls(images, labelled, images - labelled, sum(p.labels for p in parts), per_class, per_split)

    def to_json(self) -> dict[str, Any]:
        per_split = {
            split: {"images": c.images, "labelled": c.labelled, "labels": c.labels, "per_class": c.per_class}
            for split, c in self.per_split.items()
        }
        return {
            "images": self.images,
            "labelled": self.labelled,
            "unlabelled": self.unlabelled,
            "labels": self.labels,
            "per_class": self.per_class,
            "per_split": per_split,
        }


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered folder, as it was when it was added. The folder stays the user's: it is read, never written."""

    name: str
    root: Path
    format: Format
    task: Task
    classes: tuple[str, ...]
    added: str  # ISO 8601, UTC
    split_source: SplitSource
    split: dict[str, Any]  # {"from": …} of an existing one, {"ratios": [train, val, test], "seed": …} of a made one
    hash: str  # sha256 of everything that training sees but the pixels
    counts: Counts
    findings: dict[Severity, int]  # how many of each severity; registry.findings() has them in full

    def image(self, item: Item) -> Path:
        """Where the item's image is."""
        return self.root / item.path

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "root": str(self.root),
            "format": self.format,
            "task": self.task,
            "classes": list(self.classes),
            "added": self.added,
            "split_source": self.split_source,
            "split": self.split,
            "hash": self.hash,
            **self.counts.to_json(),
            "findings": dict(self.findings),
        }
