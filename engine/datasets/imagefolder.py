"""Classification sets whose folders say it all: one per class, each below its split or all side by side."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

from engine.datasets.classes import clean_class, in_alphabet
from engine.datasets.files import images_below, nfc, relative, walk
from engine.datasets.formats import Entry, Labels, Source
from engine.datasets.images import is_image
from engine.datasets.model import SPLITS, Finding, Part, Progress, Split
from engine.datasets.parts import split_of, subfolders
from engine.datasets.split import settle

# Folders that say that the labels are elsewhere, so that what holds them is no set of classes.
NO_CLASS = {
    "images",
    "labels",
    "annotations",
    "masks",
    "jpegimages",
    "imagesets",
    "segmentationclass",
    "segmentationobject",
}
Layout = dict[Split | None, list[Path]]


def layout(root: Path) -> Layout | None:
    """The folders of each split, or of none; None unless they hold two classes of images or more."""
    folders = subfolders(root)
    splits: Layout = defaultdict(list)
    for folder in folders:
        if (split := split_of(folder.name)) and _class_folders(folder):
            splits[split].append(folder)
    if splits:
        for folder in folders:  # a split without labels comes along
            if (split := split_of(folder.name)) and folder not in splits[split]:
                splits[split].append(folder)
    found: Layout = splits or {None: [root]}
    names = {nfc(c.name).lower() for tops in found.values() for top in tops for c in _class_folders(top)}
    if sum(split_of(name) is not None for name in names) > 1:  # train/ and val/ whose labels are elsewhere
        return None
    return found if len(names) >= 2 and not names & NO_CLASS else None


def _class_folders(folder: Path) -> list[Path]:
    """The folders in `folder` that have an image somewhere in them."""
    return [f for f in subfolders(folder) if any(is_image(path) for path in walk(str(f), [], folder))]


def read_folders(root: Path, progress: Progress | None = None) -> Source:
    """List the images with their folders' names as classes, by alphabet, as torchvision numbers them."""
    findings: list[Finding] = []
    lists: dict[Split, list[str]] = {split: [] for split in SPLITS}
    named: dict[str, str | None] = {}
    found = layout(root) or {}
    _note_others(root, [top for tops in found.values() for top in tops], findings)
    for split, tops in found.items():
        for top in tops:
            for image, name in _images(top, root, findings, progress).items():
                lists[split or "train"].append(image)
                named[image] = name
    lists["train"] = lists["train"] or [i for i in named if i not in set(lists["test"])] or list(named)
    parts: dict[str, Part] = settle(lists, partial(relative, root=root), "folders", findings)
    classes = in_alphabet(name for name in named.values() if name is not None)
    index = {name: i for i, name in enumerate(classes)}
    entries = []
    for image in sorted(parts, key=nfc):
        name = named[image]
        label = image if name is not None else None  # the folder's name is all that there is
        entries.append(Entry(image, label, parts[image], None if name is None else index[name]))
    return Source(root, "imagefolder", classes, label_given, entries, findings, "folders", task="classify")


def _note_others(root: Path, tops: list[Path], findings: list[Finding]) -> None:
    """Note folders of images beside those of the splits."""
    for folder in subfolders(root) if tops != [root] else ():
        if folder not in tops and any(is_image(path) for path in walk(str(folder), [], folder)):
            message = "Its name says no split, while those of other folders do, so it is left out."
            findings.append(Finding("warning", "not_in_split", message, relative(folder, root)))


def _images(top: Path, root: Path, findings: list[Finding], progress: Progress | None) -> dict[str, str | None]:
    """The images below `top` by the class that the folder directly in it names; None for those that lie in none."""
    names: dict[str, str | None] = {}
    for folder in subfolders(top):
        if top != root and split_of(folder.name):  # test/test/1.jpg: an archive's doing, no class
            continue
        names[folder.name] = clean_class(folder.name)
        if names[folder.name] is None:
            message = "The folder's name is no usable class name, so its images have no label."
            findings.append(Finding("error", "bad_class", message, relative(folder, root)))
    images = images_below(str(top), findings, root, progress)
    return {image: names.get(relative(image, top).partition("/")[0]) for image in images}


def label_given(label: int, _: tuple[int, int]) -> Labels:
    return Labels(label=label)
