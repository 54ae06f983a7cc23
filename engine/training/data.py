"""What a training is fed: the registered items, checked against what is really there now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import catalog
from engine.datasets import SPLITS, Box, Dataset, Item, findings, items, load, store, verify
from engine.errors import DojangError
from engine.spec import Spec

NAMED = 10  # files that an error lists


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a split. Sizes in pixels as shown; `boxes` as parts of the image; `label` its class, to classify."""

    path: str  # absolute
    height: int
    width: int
    boxes: tuple[Box, ...]
    label: int | None = None


@dataclass(frozen=True)
class Material:
    """The data set as it is trained on. `notes` are worth telling the person."""

    dataset: Dataset
    samples: dict[str, list[Sample]]  # by split
    notes: list[str]

    @property
    def images(self) -> dict[str, int]:
        return {split: len(found) for split, found in self.samples.items()}


def gather(spec: Spec, workspace: Path, tick: Callable[[int, int], bool]) -> Material | None:
    """The samples of each split; None when `tick` (called with images done and in all) says to stop.

    Raises DojangError: NOT_FOUND, DATA_CHANGED when the set is not the one the spec was made for, DATASET_GONE, or
    BAD_DATASET naming the files that are missing.
    """
    dataset = load(workspace, spec.dataset)
    if spec.dataset_hash and spec.dataset_hash != dataset.hash:
        raise data_changed(spec)
    if dataset.task != catalog.find(spec.model).task:
        raise DojangError(
            f"The data set {spec.dataset} is for {dataset.task}, the model {spec.model} is not.",
            code="BAD_DATASET",
            hint="`dojang models` says what each model does.",
        )
    every = items(workspace, spec.dataset)
    missing, changed = [], 0
    for done, item in enumerate(every):
        if done % 256 == 0 and not tick(done, len(every)):
            return None
        try:
            changed += dataset.image(item).stat().st_size != item.bytes
        except OSError:
            missing.append(item.path)
    if missing:
        verify(workspace, spec.dataset)  # says it better when the whole folder is gone
        raise missing_images(dataset.name, missing)
    tick(len(every), len(every))
    return _sort(dataset, every, workspace, changed)


def data_changed(spec: Spec) -> DojangError:
    return DojangError(
        f"The data set {spec.dataset} is not the one this training was set up with: its contents differ.",
        code="DATA_CHANGED",
        hint="Train a new version on it as it is now.",
    )


def missing_images(name: str, paths: list[str]) -> DojangError:
    """Say which images of the data set cannot be read."""
    shown = "\n".join(paths[:NAMED]) + (f"\n… and {len(paths) - NAMED} more" if len(paths) > NAMED else "")
    return DojangError(
        f"{_images(len(paths))} missing from the data set {name} or unreadable:\n{shown}",
        code="BAD_DATASET",
        hint="Put them back and resume, or add the folder as a new data set and train on that.",
    )


def _sort(dataset: Dataset, every: list[Item], workspace: Path, changed: int) -> Material:
    """Items by split. An image without an annotation is background where the format says so (Ultralytics), else unused."""
    blank: frozenset[str] = frozenset()
    if dataset.format == "yolo" and any(not item.labelled for item in every):
        blank = store.background(dataset.format, every, findings(workspace, dataset.name))
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    background = unused = 0
    for item in every:
        if not item.labelled and item.path not in blank:
            unused += 1
            continue
        background += not item.labelled
        sample = Sample(str(dataset.image(item)), item.height, item.width, item.boxes, item.label)
        samples[item.split].append(sample)
    for split in ("train", "val"):
        if not samples[split]:
            raise DojangError(
                f"The data set {dataset.name} has no labelled images in {split}.",
                code="BAD_DATASET",
                hint="Label some, or add the folder again with a split that gives each part a share.",
            )
    notes = [
        f"{_images(count)} {text}"
        for count, text in (
            (background, "without a label file: taken as background."),
            (unused, "without a usable annotation: left out."),
            (changed, "of another size in bytes than when the data set was added."),
        )
        if count
    ]
    return Material(dataset, samples, notes)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
