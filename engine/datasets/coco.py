"""COCO detection sets: JSON files that hold the annotations of many images each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from engine.datasets.boxes import box_in_pixels
from engine.datasets.classes import clean_class
from engine.datasets.description import CLASS_LIMIT
from engine.datasets.files import (
    BEAT,
    MOST_IMAGES,
    OUTSIDE,
    Unreadable,
    images_below,
    inside,
    is_file,
    is_folder,
    named,
    nfc,
    relative,
    sayable,
)
from engine.datasets.formats import MOST_OBJECTS, TOO_MANY, Defect, Entry, Labels, Source
from engine.datasets.images import is_image
from engine.datasets.jsonstream import is_number, stream
from engine.datasets.model import SPLITS, Box, Finding, Progress, Split
from engine.datasets.parts import by_split, few, split_of, subfolders
from engine.datasets.split import settle
from engine.errors import DojangError

HEAD = 1 << 16  # bytes of a file that show whether it is COCO's
KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
OTHERS = ("captions", "panoptic", "stuff", "image_info", "person_keypoints")  # COCO's own files without detections
PLACES = ("images", "data", "JPEGImages", "imgs")  # where images lie when they lie beside the annotations
MOST = 10**18  # an id beyond it is none
MOST_ANNOTATIONS = 30_000_000  # of one file; each takes some forty bytes
SAMPLE = 50  # images that decide which folder a file's names are relative to
HINT = "A COCO file has the arrays `images`, `annotations` and `categories`."


class Told(NamedTuple):
    """What a file says of one image. A row is `category number x y w h`, or `! number message` where it is defective.

    Rows are one text, a line each: as many values would take five times the memory.
    """

    classes: list[int | None]  # by the row's category; None is one that the file does not list
    rows: bytearray
    size: tuple[int, int]  # (0, 0) when it does not say


@dataclass(slots=True)
class _Image:
    name: str
    size: tuple[int, int]
    rows: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _File:
    """One annotation file. `images` are by their ids, `seen` numbers the category ids that annotations use."""

    path: Path
    split: Split | None
    images: dict[int | str, _Image] = field(default_factory=dict)
    categories: dict[int | str, str] = field(default_factory=dict)
    seen: dict[int | str, int] = field(default_factory=dict)
    wrong: Labels = field(default_factory=Labels)


def annotation_files(path: Path) -> list[Path]:
    """COCO's files: `path` itself, or those in the folder, in its `annotations`, or in the folders of its splits."""
    if is_file(path):
        return [path] if path.suffix.lower() == ".json" and _is_coco(path) else []
    folders = subfolders(path)
    places = [path, *(f for f in folders if f.name.lower() in ("annotations", "annotation") or split_of(f.name))]
    found = [file for place in places for file in few(place, ".json")]
    told = [file for file in found if not file.name.lower().startswith(OTHERS) and _is_coco(file)]
    return [file for file in told if file.name.lower().startswith("instances")] or told


def _is_coco(path: Path) -> bool:
    try:
        if not is_file(path):
            return False
        with path.open("rb") as f:
            head = f.read(HEAD)
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and bool(KEYS.search(head)) and b'"shapes"' not in head


def read_coco(path: Path, progress: Progress | None = None) -> Source:
    """List what the annotation files at `path` name, each file a split by its own name or its folder's."""
    paths = annotation_files(path)
    root = path if is_folder(path) else _root(path)
    findings: list[Finding] = []
    files = [_read(file, split, root, findings, progress) for file, split in by_split(paths, root, findings)]
    classes: dict[str, int] = {}
    entries: dict[str, Entry] = {}
    lists: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for file in files:
        mine = _Place(file, root, _classes(file, classes, root, findings))
        for where, told in mine.images(findings, progress):
            lists[file.split or "train"].append(where)
            if where not in entries:
                entries[where] = Entry(where, str(file.path), "", told)
            elif entries[where].label == str(file.path):
                entries[where].given.rows.extend(told.rows)
                message = "It is listed twice: what is said of it in both places is taken together."
                findings.append(Finding("warning", "listed_twice", message, relative(where, root)))
    if not classes:
        raise DojangError(f"{paths[0]} names no category.", code="BAD_COCO", hint=HINT)
    lists["train"] = lists["train"] or [w for w in entries if w not in set(lists["test"])] or list(entries)
    parts = settle(lists, partial(relative, root=root), ", ".join(relative(p, root) for p in paths), findings)
    _note_unlisted(entries, root, findings, progress)
    listed = [replace(entries[where], part=parts[where]) for where in sorted(parts, key=nfc)]
    split_from = ", ".join(relative(file.path, root) for file in files)
    return Source(root, "coco", tuple(classes), partial(parse_told, names=tuple(classes)), listed, findings, split_from)


def _root(path: Path) -> Path:
    """The dataset's folder, when one of its files is given."""
    return path.parent.parent if path.parent.name.lower() in ("annotations", "annotation") else path.parent


def _read(path: Path, split: Split | None, root: Path, findings: list[Finding], progress: Progress | None) -> _File:
    """Read one annotation file, whose arrays may come in any order. DojangError if it is not COCO's."""
    file, crowds, boxes = _File(path, split), 0, dict[int | str, bytearray]()
    try:
        for count, (key, number, element) in enumerate(stream(path)):
            if count % BEAT == 0:
                _bound(file, boxes, number if key == "annotations" else 0)
                if progress:
                    progress(0, 0)
            if key == "annotations":
                crowds += _annotation(element, number, file, boxes)
            elif key == "images":
                _image(element, number, file)
            elif key == "categories":
                _category(element, number, file)
    except Unreadable as e:
        raise DojangError(f"{path}: {e.message}", code="BAD_COCO", hint=HINT) from e
    for image, rows in boxes.items():
        if image in file.images:
            file.images[image].rows = rows
        elif rows:
            number = int(rows[: rows.index(b"\n")].split()[1])
            said = repr(image) if isinstance(image, str) else image
            _wrong(file, number, "label_without_image", f"image_id {said!s:.80} is not among the images.")
    for defect in file.wrong.defects:
        findings.append(Finding(defect.severity, defect.code, defect.message, relative(path, root), defect.object))
    if crowds:
        message = f"{crowds} crowd annotations are left out: they mark areas, not objects."
        findings.append(Finding("info", "crowd", message, relative(path, root)))
    return file


def _bound(file: _File, boxes: Mapping[int | str, bytearray], annotations: int) -> None:
    """Refuse what no set has and no memory holds."""
    for what, found, most in (
        ("images", max(len(file.images), len(boxes)), MOST_IMAGES),
        ("categories", max(len(file.categories), len(file.seen)), CLASS_LIMIT),
        ("annotations", annotations, MOST_ANNOTATIONS),
    ):
        if found > most:
            hint = "Divide it into several files, each a data set of its own."
            message = f"{file.path} has more than {most:,} {what}."
            raise DojangError(message, code="TOO_LARGE", hint=hint)


def _wrong(file: _File, number: int, code: str, message: str) -> None:
    file.wrong.note(Defect("error", code, message, number))


def _key(value: Any) -> int | str | None:
    """An id: a whole number, however it is written, or text. None if it is neither."""
    if isinstance(value, Decimal) and is_number(value) and abs(value) < MOST and value == int(value):
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _image(element: Any, number: int, file: _File) -> None:
    name = element.get("file_name") if isinstance(element, dict) else None
    key = _key(element.get("id")) if isinstance(element, dict) else None
    if key is None or not isinstance(name, str) or not is_image(name):
        _wrong(file, number, "malformed", f"Element {number} of `images` needs an id and the file_name of an image.")
    elif key in file.images:
        _wrong(file, number, "malformed", f"Element {number} of `images` has the id {key} of another one.")
    else:
        width, height = element.get("width"), element.get("height")
        known = all(isinstance(side, int) and not isinstance(side, bool) for side in (width, height))
        file.images[key] = _Image(name, (width, height) if known else (0, 0))


def _category(element: Any, number: int, file: _File) -> None:
    key = _key(element.get("id")) if isinstance(element, dict) else None
    name = element.get("name") if isinstance(element, dict) else None
    clean = clean_class(name) if isinstance(name, str) else None
    if key is None or clean is None:
        _wrong(file, number, "bad_class", f"Element {number} of `categories` needs an id and a usable name.")
    elif key in file.categories:
        _wrong(file, number, "bad_class", f"Element {number} of `categories` has the id {key} of another one.")
    else:
        file.categories[key] = clean


def _annotation(element: Any, number: int, file: _File, boxes: dict[int | str, bytearray]) -> bool:
    """Keep one annotation as a row of text, the smallest form that loses nothing. True for a crowd, which is not kept."""
    image = _key(element.get("image_id")) if isinstance(element, dict) else None
    if image is None:
        _wrong(file, number, "malformed", f"Element {number} of `annotations` has no image_id.")
        return False
    if element.get("iscrowd") in (1, True):
        boxes.setdefault(image, bytearray())
        return True
    category, bbox = _key(element.get("category_id")), element.get("bbox")
    if category is None:
        row = f"! {number} has no category_id."
    elif not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        row = f"! {number} has no `bbox` of four numbers."
    else:
        row = " ".join(map(str, (file.seen.setdefault(category, len(file.seen)), number, *bbox)))
    boxes.setdefault(image, bytearray()).extend(f"{row}\n".encode())
    return False


def _classes(file: _File, classes: dict[str, int], root: Path, findings: list[Finding]) -> list[int | None]:
    """Number the file's categories, by id, among those of the files before it; the class of each that it uses."""
    ids = list(file.categories)
    if all(isinstance(key, int) for key in ids):
        ids.sort()  # type: ignore[type-var]
    mine: dict[str, int | str] = {}
    for key in ids:
        name = file.categories[key]
        classes.setdefault(name, len(classes))
        if mine.setdefault(name, key) != key:
            message = f"The categories {mine[name]} and {key} have the same name, {name}: they are taken for one."
            findings.append(Finding("warning", "bad_class", message, relative(file.path, root)))
    return [classes[file.categories[key]] if key in file.categories else None for key in file.seen]


class _Place:
    """Finds the images of one file: names are relative to a folder that COCO does not write down."""

    def __init__(self, file: _File, root: Path, classes: list[int | None]) -> None:
        self.file, self.root, self.classes = file, root, classes
        own = [f for place in (root, *(root / name for name in PLACES)) for f in subfolders(place)]
        mine = [f for f in own if file.split and (f.name == file.path.stem or split_of(f.name) == file.split)]
        bases = [f for f in (file.path.parent, *mine, *(root / name for name in PLACES), root) if is_folder(f)]
        sample = [image.name for image in list(file.images.values())[:SAMPLE]]
        hits = {base: sum(is_file(base / name) for name in sample) for base in dict.fromkeys(bases)}
        self.bases = sorted(hits, key=lambda base: -hits[base])

    def images(self, findings: list[Finding], progress: Progress | None) -> Iterator[tuple[str, Told]]:
        """Where each image is, or would be, and what is said of it."""
        for count, image in enumerate(self.file.images.values()):
            if progress and count % BEAT == 0:
                progress(0, 0)
            where = named(image.name, self.bases, self.root, moved=True)
            if where is None:
                message = OUTSIDE.format(image.name[:200])
                findings.append(Finding("error", "outside_folder", message, relative(self.file.path, self.root)))
            elif sayable(where, findings, self.root):
                yield where, Told(self.classes, image.rows, image.size)


def _note_unlisted(entries: dict[str, Entry], root: Path, findings: list[Finding], progress: Progress | None) -> None:
    """Note images that lie among the listed ones and are in no file."""
    listed = {nfc(where) for where in entries}
    folders = sorted({str(Path(where).parent) for where in entries})
    tops = [folder for folder in folders if not any(inside(folder, other) for other in folders)]
    for folder in tops:
        for image in images_below(folder, findings, root, progress) if is_folder(folder) else ():
            if nfc(image) not in listed:
                message = "No annotation file names this image, so it is left out."
                findings.append(Finding("info", "not_in_split", message, relative(image, root)))


def parse_told(told: Told, size: tuple[int, int], names: tuple[str, ...]) -> Labels:
    """The objects of one image of `size` (width, height) in pixels. COCO's boxes are left, top, width and height."""
    if told.rows.count(b"\n") > MOST_OBJECTS:
        raise Unreadable("too_large", TOO_MANY)
    labels = Labels()
    if all(told.size) and told.size != size:
        message = (
            f"It says {told.size[0]}×{told.size[1]} pixels, the image has {size[0]}×{size[1]}: its boxes may be off."
        )
        labels.note(Defect("warning", "size_mismatch", message))
    seen: set[Box] = set()
    for row in told.rows.decode().splitlines():
        first, number, *rest = row.split(" ")
        if first == "!":
            labels.drop(int(number), "malformed", f"The object {' '.join(rest)}")
            continue
        cls = told.classes[int(first)]
        if cls is None:
            labels.drop(int(number), "bad_class", "The object's category_id is not among the categories.")
            continue
        left, top, width, height = map(Decimal, rest)
        corners = (left, top, left + width, top + height)
        box = box_in_pixels(corners, cls, names[cls], int(number), size, labels)
        if box in seen:
            message = f"This {names[cls]} is the same as one before it."
            labels.drop(int(number), "duplicate", message, "warning", unread=False)
        elif box:
            seen.add(box)
            labels.boxes.append(box)
    return labels
