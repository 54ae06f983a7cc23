"""Ultralytics detection sets: where data.yaml's images and their label files are."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from engine.datasets.description import Description, load_description
from engine.datasets.files import (
    OUTSIDE,
    Unreadable,
    absolute,
    existing,
    images_below,
    is_folder,
    named,
    nfc,
    read_lines,
    relative,
    sayable,
    there,
)
from engine.datasets.formats import MOST_DEFECTS, Entry, Source
from engine.datasets.images import is_image
from engine.datasets.model import SPLITS, Finding, Progress, Severity, Split
from engine.datasets.rows import parse_rows
from engine.datasets.split import settle
from engine.errors import DojangError

WILD = re.compile(r"[*?]+|\[[^\]/]+\]")
ONE_OF = re.compile(r"\[(!?)([^\]/]+)\]")
MOST_WILD = 8  # wildcards in a pattern


def read_yolo(path: Path, progress: Progress | None = None) -> Source:
    """List what a data.yaml names. Without val images, or with the same as train's, train is to be divided."""
    description = load_description(path)
    reader = _Reader(description, _root(description), progress)
    images = {split: reader.images(split) for split in SPLITS}
    if not images["train"]:
        looked = ", ".join(str(reader.place(place) or place) for place in description.places["train"])
        hint = "Check `train` in the data.yaml; images end in jpg, jpeg, png, bmp, webp, tif or tiff."
        raise DojangError(f"{path} leads to no training images: looked in {looked}.", code="NO_IMAGES", hint=hint)
    parts = settle(images, partial(relative, root=reader.root), relative(path, reader.root), reader.findings)
    entries = [Entry(image, reader.label(image), parts[image]) for image in sorted(parts, key=nfc)]
    reader.note_orphans(entries)
    parse = partial(parse_rows, classes=len(description.classes), keypoints=description.keypoints)
    return Source(reader.root, "yolo", description.classes, parse, entries, reader.findings, path.name)


def _root(description: Description) -> Path:
    """The folder that the splits are relative to: `path`, or the data.yaml's own when that leads nowhere.

    Sets are moved and `path` stays behind, so the first of the two that has a train place is taken.
    """
    own = description.path.parent
    roots = [Path(absolute(description.base, own)), own] if description.base else [own]
    for root in roots:
        if any(_place(root, place) for place in description.places["train"]):
            return root
    looked = " nor ".join(str(absolute(description.places["train"][0], root)) for root in dict.fromkeys(roots))
    hint = "Correct `path` and `train` in the data.yaml, or put the images there."
    raise DojangError(f"{description.path}: there is no {looked}.", code="NO_IMAGES", hint=hint)


def _place(root: Path, place: str) -> str | None:
    """Where `place` is. Exporters write one `../` too many, and ultralytics forgives it; so it is forgiven here.

    Of a pattern it is the folder that all it may match lies in.
    """
    for text in (place, place.removeprefix("../")):
        if found := existing(absolute(text, root)):
            return found
    if fixed := _fixed(place):
        return existing(absolute(fixed, root))
    return None


def _fixed(place: str) -> str | None:
    """The folders of a pattern such as `images/*/train` before its first wildcard; None if `place` is none.

    One may not lead out of the root, and not have so many wildcards that matching takes for ever.
    """
    parts = place.removeprefix("./").split("/")
    wild = [i for i, part in enumerate(parts) if WILD.search(part)]
    if not wild or place.startswith("/") or ".." in parts or len(WILD.findall(place)) > MOST_WILD:
        return None
    return "/".join(parts[: wild[0]]) or "."


def _matcher(place: str) -> re.Pattern[str]:
    """What matches a path from the root, or the folders that it begins with: `**` any number of them, `*`, `?` and
    `[abc]` parts of one. A set of characters that is none, as [z-a], matches nothing.
    """
    place, parts, at = place.removeprefix("./"), list[str](), 0
    for found in ONE_OF.finditer(place):
        parts += [_any(place[at : found.start()]), f"[{'^/' if found[1] else ''}{_literal(found[2])}]"]
        at = found.end()
    try:
        return re.compile("".join((*parts, _any(place[at:]))) + "(?:/.*)?")
    except re.error:
        return re.compile(r"(?!)")


def _any(text: str) -> str:
    text = re.escape(text).replace(r"\*\*/", "(?:[^/]+/)*").replace(r"\*\*", ".*")
    return text.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def _literal(characters: str) -> str:
    """Characters of a set, in which only the hyphen means something."""
    return re.sub(r"[\\^\[&~|]", r"\\\g<0>", characters)


class _Reader:
    """Lists images, remembering which folders were taken whole and where each folder's labels are."""

    def __init__(self, description: Description, root: Path, progress: Progress | None) -> None:
        self.description, self.root, self.progress = description, root, progress
        self.findings: list[Finding] = []
        self._whole: set[str] = set()
        self._labels: dict[str, str] = {}

    def place(self, place: str) -> str | None:
        return _place(self.root, place)

    def images(self, split: Split) -> list[str]:
        """Absolute paths of a split's images, each once."""
        found: list[str] = []
        for place in self.description.places[split]:
            where = self.place(place)
            if where and _fixed(place) and not existing(absolute(place, self.root)):
                fitting = self._matching(place, where)
                if not fitting:
                    self._note("warning", "missing_split", f"{split} names {place!r}, which no image fits.")
                found += fitting
            elif where is None:
                self._note("warning", "missing_split", f"{split} names {place!r}, which does not exist.")
            elif is_folder(where):
                below = images_below(where, self.findings, self.root, self.progress)
                self._whole.update(str(Path(image).parent) for image in below)
                found += below
            elif is_image(where):
                found.append(where)
            elif where.lower().endswith(".txt"):
                found += self._listed(where)
            else:
                self._note("error", "bad_split", f"{split} names {place!r}: not a folder, image or .txt list.")
        return list(dict.fromkeys(found))

    def _matching(self, place: str, below: str) -> list[str]:
        """Images that a pattern names, or that lie in folders which it names."""
        matches = _matcher(nfc(place)).fullmatch
        images = images_below(below, self.findings, self.root, self.progress)
        found = [image for image in images if matches(nfc(relative(image, self.root)))]
        self._whole.update(str(Path(image).parent) for image in found)
        return found

    def _note(self, severity: Severity, code: str, message: str) -> None:
        self.findings.append(Finding(severity, code, message, relative(self.description.path, self.root)))

    def _listed(self, path: str) -> list[str]:
        """Images that a .txt list names: from the list's folder with `./`, else from the root, or from that folder."""
        try:
            lines = [text for line in read_lines(path) if (text := line.strip())]
        except Unreadable as e:
            self.findings.append(Finding("error", e.code, e.message, relative(path, self.root)))
            return []
        beside = Path(path).parent
        found, outside, other = [], list[str](), 0
        for line in lines:
            if not is_image(line):
                other += 1
                continue
            bases = [beside] if line.startswith("./") else [self.root, beside]
            image = named(line, bases, self.root)
            found += [image] if image else []
            outside += [] if image else [line]
        file = relative(path, self.root)
        for line in outside[:MOST_DEFECTS]:
            self.findings.append(Finding("error", "outside_folder", OUTSIDE.format(line[:200]), file))
        if other:
            message = f"{other} of its lines do not name an image."
            self.findings.append(Finding("warning", "bad_list", message, file))
        return [image for image in found if sayable(image, self.findings, self.root)]

    def label(self, image: str) -> str:
        """Where the image's label file would be."""
        path = Path(image)
        folder = str(path.parent)
        if folder not in self._labels:
            self._labels[folder] = _label_folder(folder)
        return f"{self._labels[folder]}/{path.stem}.txt"

    def note_orphans(self, entries: list[Entry]) -> None:
        """Note label files that no image belongs to, where a folder's images were all taken."""
        expected = {nfc(entry.label) for entry in entries if entry.label}
        for folder in sorted(self._whole):
            labels = Path(self._labels.get(folder) or folder)
            if str(labels) == folder:
                continue
            for path in sorted(labels.glob("*.txt")):
                if nfc(str(path)) not in expected and path.name != "classes.txt":
                    message = "There is no image for this label file."
                    file = relative(path, self.root)
                    self.findings.append(Finding("warning", "label_without_image", message, file))


def _label_folder(folder: str) -> str:
    """Where labels of the images in `folder` are: the last `images` of its path read as `labels`, else beside them."""
    for path in (folder, str(Path(folder).resolve())):
        head, images, tail = f"{path}/".rpartition("/images/")
        if images and there(where := f"{head}/labels/{tail}".rstrip("/")):
            return where
    return folder
