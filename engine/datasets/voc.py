"""Pascal VOC: JPEGImages, Annotations, and ImageSets/Main when somebody has already made a split."""

from __future__ import annotations

from pathlib import Path

from engine.datasets.classes import listed_classes
from engine.datasets.files import Unreadable, images_below, is_file, nfc, read_lines, relative, walk
from engine.datasets.formats import Entry, Source
from engine.datasets.images import is_image
from engine.datasets.model import Finding, Part, Progress, Split
from engine.datasets.split import settle
from engine.datasets.vocxml import parse_annotation


def read_voc(root: Path, progress: Progress | None = None) -> Source:
    """List a VOC folder. Without train and val lists, whatever the others do not claim for test is to be divided."""
    findings: list[Finding] = []
    images: dict[str, str] = {}
    for path in images_below(str(root / "JPEGImages"), findings, root, progress):
        first = images.setdefault(_key(path, root / "JPEGImages"), path)
        if first != path:
            message = f"It would share its annotation with {relative(first, root)}, so it is left out."
            findings.append(Finding("warning", "same_name", message, relative(path, root)))
    files = walk(str(root / "Annotations"), findings, root, progress)
    labels = {_key(path, root / "Annotations"): path for path in files if path.lower().endswith(".xml")}
    lists = _lists(root / "ImageSets" / "Main", root, findings)
    if not lists["train"]:
        held_back = set(lists["test"])
        lists["train"] = [key for key in images if key not in held_back] or list(images)
    parts = settle(lists, "JPEGImages/{}".format, "ImageSets/Main", findings)
    for key in sorted(labels.keys() - images.keys() - parts.keys()):
        message = "There is no image for this annotation."
        findings.append(Finding("warning", "label_without_image", message, relative(labels[key], root)))
    entries = _entries(root, images, labels, parts, findings)
    listed = listed_classes(root, findings)
    return Source(root, "voc", None, parse_annotation, entries, findings, "ImageSets/Main", listed=listed)


def _key(path: str, base: Path) -> str:
    """What an image and its annotation have in common: the path below their folder, without the suffix."""
    return nfc(relative(path, base).rpartition(".")[0])


def _entries(
    root: Path, images: dict[str, str], labels: dict[str, str], parts: dict[str, Part], findings: list[Finding]
) -> list[Entry]:
    entries = []
    for key, part in parts.items():
        if key in images:
            entries.append(Entry(images[key], labels.get(key), part))
        else:
            message = "ImageSets/Main lists this image, but it is not there."
            findings.append(Finding("error", "missing_image", message, f"JPEGImages/{key}"))
    for key in sorted(images.keys() - parts.keys()):
        message = "No list in ImageSets/Main names this image, so it is left out."
        findings.append(Finding("info", "not_in_split", message, relative(images[key], root)))
    return entries


def _lists(folder: Path, root: Path, findings: list[Finding]) -> dict[Split, list[str]]:
    """The keys of each split. Unless both train and val have a list, all of theirs are one lot, as train."""
    train, val, both, test = (
        _keys(folder / f"{name}.txt", root, findings) for name in ("train", "val", "trainval", "test")
    )
    if not train or not val:
        train, val = list(dict.fromkeys(both + train + val)), []
    return {"train": train, "val": val, "test": test}


def _keys(path: Path, root: Path, findings: list[Finding]) -> list[str]:
    """The images a list names, one a line, each once."""
    if not is_file(path):
        return []
    try:
        lines = list(read_lines(path))
    except Unreadable as e:
        findings.append(Finding("error", e.code, e.message, relative(path, root)))
        return []
    keys = (nfc(line.strip()) for line in lines)
    return list(dict.fromkeys(key.rpartition(".")[0] if is_image(key) else key for key in keys if key))
