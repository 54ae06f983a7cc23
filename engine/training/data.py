"""What a training is fed: the registered items, checked against what is really there now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from engine import catalog
from engine.datasets import SPLITS, Box, Dataset, Item, findings, items, load, packs, store, verify
from engine.datasets.packfile import Pack
from engine.errors import DojangError
from engine.spec import Spec

NAMED = 10  # files that an error lists
VARIATIONS = (  # settings of a spec that vary images anew each time they are seen
    *("mosaic", "mixup", "hue", "saturation", "brightness", "rotation", "translate", "scale"),
    *("flip_horizontal", "flip_vertical"),
)


class Packed(NamedTuple):
    """Where the pixels of a sample are, when not in its file."""

    pack: Pack
    place: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a split. Sizes in pixels as shown; `boxes` as parts of the image; `label` its class, to classify.

    Its pixels are read by `engine.training.pixels`: those of the file are others where it is `packed`.
    """

    path: str  # absolute; of a varied copy, the file that it was made from
    height: int
    width: int
    boxes: tuple[Box, ...]
    label: int | None = None
    packed: Packed | None = None


@dataclass(frozen=True)
class Material:
    """The data set as it is trained on. `notes` are worth telling the person, `facts` worth writing down."""

    dataset: Dataset
    samples: dict[str, list[Sample]]  # by split
    notes: list[str]
    facts: list[str] = field(default_factory=list)
    copies: int = 0  # varied ones of each training image, among the samples
    pack: Pack | None = None  # that pixels are taken from

    @property
    def images(self) -> dict[str, int]:
        return {split: len(found) for split, found in self.samples.items()}

    def close(self) -> None:
        """The pixels are no longer needed, for now: the pack may be dropped, or made again."""
        if self.pack:
            self.pack.let_go()

    def governs(self, spec: Spec) -> Spec:
        """`spec` as this material is to be trained with: where images were varied beforehand, they are not again."""
        return spec.model_copy(update=dict.fromkeys(VARIATIONS, 0.0)) if self.copies else spec


def gather(spec: Spec, workspace: Path, tick: Callable[[int, int], bool]) -> Material | None:
    """The samples of each split; None when `tick` (called with images done and in all) says to stop.

    Where the set is a version whose recipe makes pixels, they are made now, or found from an earlier training. Raises
    DojangError: NOT_FOUND, DATA_CHANGED when the set is not the one the spec was made for, DATASET_GONE, BAD_DATASET
    naming the files that are missing, or DISK_FULL.
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
    made = packs.source(workspace, spec.dataset)
    every = list(made.items) if made else items(workspace, spec.dataset)
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
    if made is None:
        return _sort(dataset, every, workspace, changed)
    pack = packs.take(workspace, made, tick)
    return None if pack is None else _unpacked(made, pack)


def _unpacked(made: packs.Source, pack: Pack) -> Material:
    """Each image where it was packed, or else its file; after it its copies."""
    layout = packs.Layout(made)
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for i, item in enumerate(made.items):
        samples[item.split] += _samples_of(made, pack, layout, i)
    facts = [f"Images are taken as the data set's version shapes them: {pack.bytes / 1e6:,.1f} MB in {pack.folder}."]
    if layout.copies:
        facts.append(
            f"The version holds {layout.copies} varied {'copy' if layout.copies == 1 else 'copies'} of each training "
            f"image, so images are not varied again while training: {', '.join(VARIATIONS)} are off."
        )
    return Material(made.dataset, samples, [], facts, layout.copies, pack)


def _samples_of(made: packs.Source, pack: Pack, layout: packs.Layout, i: int) -> Iterator[Sample]:
    item = made.items[i]
    path = str(made.dataset.image(item))
    if not layout.kept:
        yield Sample(path, item.height, item.width, item.boxes, item.label)
    for place in layout.places(i, item):
        entry = pack.entries[place]
        yield Sample(path, entry.height, entry.width, entry.boxes, entry.label, Packed(pack, place))


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
