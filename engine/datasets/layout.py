"""Where each image of a written dataset goes: names and order stay, so that it reads back as the same set."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

from engine.datasets.files import nfc
from engine.datasets.model import SPLITS, Item


def lay_out(items: Sequence[Item], by_split: bool) -> dict[str, str]:
    """For each item's path, its place below the folder of images; `by_split` says that each split has one of its own.

    The folders in which all images of a split lie fall away, those further down stay. Where that would put two images
    in one place, or two whose names differ by their suffix alone, or change their order, they go into numbered folders
    instead. Files are called as they were, but for names that could not be read back.
    """
    ordered = sorted(items, key=lambda item: (SPLITS.index(item.split), nfc(item.path)))
    groups = [[item for item in ordered if item.split == split] for split in SPLITS] if by_split else [ordered]
    return {path: place for group in groups for path, place in (_kept(group) or _numbered(group)).items()}


def _kept(items: list[Item]) -> dict[str, str] | None:
    """Each path below the folder that all share, unless that would not do."""
    folders = [item.path.rpartition("/")[0] for item in items]
    if len({folder.startswith("/") for folder in folders}) > 1:
        return None
    top = os.path.commonpath(folders) if folders and all(folders) else ""
    places = {
        item.path: _joined(folder[len(top) :].strip("/"), item.path)
        for item, folder in zip(items, folders, strict=True)
    }
    by_split: dict[str, list[str]] = {}
    for item in items:
        by_split.setdefault(item.split, []).append(nfc(places[item.path]))
    if len({_key(place) for place in places.values()}) < len(items):
        return None
    if any(found != sorted(found) for found in by_split.values()):
        return None
    return None if any(map(_misleads, places.values())) else places


def _numbered(items: list[Item]) -> dict[str, str]:
    """Each file in a numbered folder; a new one is begun wherever the order or two like names call for it."""
    places: dict[str, str] = {}
    run, parent, last, keys = 0, None, "", set[str]()
    for item in items:
        folder, name = item.path.rpartition("/")[0], renamed(item.path)
        if folder != parent or nfc(name) < last or _key(name) in keys:
            run, keys = run + 1, set()
        parent, last = folder, nfc(name)
        keys.add(_key(name))
        places[item.path] = f"{run:07d}/{name}"
    return places


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{renamed(path)}" if folder else renamed(path)


def _key(place: str) -> str:
    """What an image shares with its annotation, as file systems that ignore case see it."""
    return nfc(place.rpartition(".")[0]).casefold()


def _misleads(place: str) -> bool:
    """Whether a folder on the way would be passed over, or taken for that of images to which labels belong elsewhere."""
    return any(part.startswith(".") or part.strip() != part or part == "images" for part in place.split("/")[:-1])


def renamed(path: str) -> str:
    """The file's name, changed only if a list or a folder could not hold it: hidden, framed by blanks, with controls."""
    stem, _, suffix = path.rpartition("/")[2].rpartition(".")
    stem = "".join("_" if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in stem).strip()
    return f"{'_' if stem.startswith('.') or not stem else ''}{stem}.{suffix}"
