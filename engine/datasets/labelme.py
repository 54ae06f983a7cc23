"""labelme: a JSON file beside each image. The copy of the image that it may hold is never decoded."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from engine.datasets.boxes import box_in_pixels
from engine.datasets.classes import clean_class, listed_classes
from engine.datasets.files import Unreadable, images_below, inside, is_file, named, nfc, read_bytes, relative, walk
from engine.datasets.formats import MOST_OBJECTS, TOO_MANY, Defect, Entry, Labels, Source
from engine.datasets.images import is_image
from engine.datasets.jsonstream import is_number, load
from engine.datasets.model import SPLITS, Box, Finding, Progress, Split
from engine.datasets.parts import split_above
from engine.datasets.split import settle

FILE_LIMIT = 64 << 20  # bytes; most of it the image, written out as text
HEAD = 1 << 16  # bytes of a file that show whether it is labelme's
KEYS = (b'"imagePath"', b'"imageData"', b'"shape_type"')
LOOKED_AT = 200  # files of a folder that are looked at to recognise it


def has_annotations(folder: Path) -> bool:
    """Whether one of the folder's first JSON files is labelme's."""
    files = (path for path in walk(str(folder), [], folder) if path.lower().endswith(".json"))
    return any(_is_labelme(path) for path in islice(files, LOOKED_AT))


def _is_labelme(path: str) -> bool:
    try:
        with Path(path).open("rb") as f:
            head = f.read(HEAD)
    except OSError:
        return False
    return b'"shapes"' in head and any(key in head for key in KEYS)


def read_labelme(root: Path, progress: Progress | None = None) -> Source:
    """List the images and their annotations: those of the same name, else those that say whose they are."""
    findings: list[Finding] = []
    images = images_below(str(root), findings, root, progress)
    files = sorted(path for path in walk(str(root), [], root, progress) if path.lower().endswith(".json"))
    labels = {nfc(path.rpartition(".")[0]): path for path in files}
    partner = {nfc(image): labels.pop(nfc(image.rpartition(".")[0]), None) for image in images}
    for path in labels.values():
        image = _image_of(path, root, findings)
        if image and not partner.get(nfc(image)):
            partner[nfc(image)] = path
        elif image:
            message = f"{relative(image, root)} has another annotation already, so this one is left out."
            findings.append(Finding("warning", "same_name", message, relative(path, root)))
    lists: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for image in images:
        lists[split_above(image, root) or "train"].append(image)
    lists["train"] = lists["train"] or [image for image in images if image not in set(lists["test"])] or images
    parts = settle(lists, partial(relative, root=root), "folders", findings)
    entries = [Entry(image, partner[nfc(image)], parts[image]) for image in sorted(parts, key=nfc)]
    listed = listed_classes(root, findings)
    return Source(root, "labelme", None, parse_shapes, entries, findings, "folders", limit=FILE_LIMIT, listed=listed)


def _image_of(path: str, root: Path, findings: list[Finding]) -> str | None:
    """The image that an annotation says it is of; None, and a finding, if there is none of that name."""
    file = relative(path, root)
    try:
        data = load(read_bytes(path, FILE_LIMIT))
    except Unreadable as e:
        findings.append(Finding("error", e.code, e.message, file))
        return None
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        return None  # some other program's
    text = data.get("imagePath")
    where = named(text, [Path(path).parent], root, moved=True) if isinstance(text, str) and is_image(text) else None
    if where and is_file(where) and inside(where, root):
        return where
    message = f"There is no image for this annotation: it says {str(text)[:200]!r}."
    findings.append(Finding("warning", "label_without_image", message, file))
    return None


def parse_shapes(data: bytes, size: tuple[int, int]) -> Labels:
    """Objects of one annotation, for an image of `size` (width, height) in pixels; Unreadable if it is not labelme's.

    A rectangle is a box, a polygon the box around it; other shapes are left out and noted.
    """
    found = load(data)
    shapes = found.get("shapes") if isinstance(found, dict) else None
    if not isinstance(shapes, list):
        raise Unreadable("bad_labelme", "The file has no list of `shapes`, so it is not labelme's.")
    if len(shapes) > MOST_OBJECTS:
        raise Unreadable("too_large", TOO_MANY)
    labels = Labels()
    written = (found.get("imageWidth"), found.get("imageHeight"))
    if all(isinstance(side, int) and side > 0 for side in written) and written != size:
        message = f"It says {written[0]}×{written[1]} pixels, the image has {size[0]}×{size[1]}: its boxes may be off."
        labels.note(Defect("warning", "size_mismatch", message))
    names: dict[str, int] = {}
    seen: set[tuple[str, tuple[float, ...]]] = set()
    for number, shape in enumerate(shapes, 1):
        if (found_box := _box(shape, number, names, size, labels)) is None:
            continue
        name, box = found_box
        if (name, box[1:]) in seen:
            labels.drop(number, "duplicate", f"This {name} is the same as one before it.", "warning", unread=False)
        else:
            seen.add((name, box[1:]))
            labels.boxes.append(box)
    labels.names = list(names)
    return labels


def _box(
    shape: Any, number: int, names: dict[str, int], size: tuple[int, int], labels: Labels
) -> tuple[str, Box] | None:
    """One shape's name and box, or None and a defect."""
    text = shape.get("label") if isinstance(shape, dict) else None
    name = clean_class(text) if isinstance(text, str) else None
    if name is None:
        labels.drop(number, "bad_class", "The shape has no usable label.")
        return None
    kind = shape.get("shape_type") or "polygon"  # the first versions had no other
    points = shape.get("points")
    if kind not in ("rectangle", "polygon"):
        message = f"This {name} is a {str(kind)[:40]}; only rectangles and polygons become boxes."
        labels.drop(number, "other_shape", message, "info", unread=False)
        return None
    if not isinstance(points, list) or len(points) < 2 or not all(map(_is_point, points)):
        labels.drop(number, "malformed", f"The points of this {name} are not pairs of numbers.")
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    corners = (min(xs), min(ys), max(xs), max(ys))
    box = box_in_pixels(corners, names.setdefault(name, len(names)), name, number, size, labels)
    return (name, box) if box else None


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
