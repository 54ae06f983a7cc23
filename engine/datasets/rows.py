"""One YOLO label file: a row an object, `class cx cy w h` as parts of the image, or a polygon `class x1 y1 x2 y2 …`."""

from __future__ import annotations

import math
from io import StringIO

from engine.datasets.files import Unreadable
from engine.datasets.formats import MOST_OBJECTS, TOO_MANY, Defect, Labels
from engine.datasets.model import Box

TOLERANCE = 0.01  # beyond 0 and 1; what ultralytics lets through
MOST_COLUMNS = 20_001  # a polygon of ten thousand points
COLUMNS = "class, centre x, centre y, width and height, or a class and a polygon of three or more points"


def parse_rows(data: bytes, size: tuple[int, int], classes: int, keypoints: int = 0) -> Labels:
    """Objects of one label file, each number exactly as written; Unreadable if it is not UTF-8 text.

    `classes` is how many there are; `keypoints` how many columns of them follow each box (they are not used here).
    Values may leave 0..1 by 1 %, as in ultralytics; a row beyond that is left out. `size` plays no part.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unreadable("bad_encoding", f"The label file is not UTF-8 text (byte {e.start + 1}).") from e
    labels = Labels()
    seen: set[tuple[float, ...]] = set()
    rows = (columns for line in StringIO(text, newline=None) if (columns := line.split(maxsplit=MOST_COLUMNS)))
    for number, columns in enumerate(rows, 1):
        if number > MOST_OBJECTS:
            raise Unreadable("too_large", TOO_MANY)
        values = _numbers(columns, number, keypoints, labels)
        if values is None or (cls := _class(columns[0], values[0], number, classes, labels)) is None:
            continue
        box = _box(cls, values[1:], number, labels)
        if box is None:
            continue
        if values in seen:
            labels.drop(number, "duplicate", "The row is the same as one before it.", "warning", unread=False)
            continue
        seen.add(values)
        labels.boxes.append(box)
    return labels


def _numbers(columns: list[str], number: int, keypoints: int, labels: Labels) -> tuple[float, ...] | None:
    """The row's numbers without its keypoints, or None and a defect."""
    count = len(columns)
    if count > MOST_COLUMNS:
        labels.drop(number, "malformed", f"The row has more than {MOST_COLUMNS:,} columns.")
        return None
    if keypoints and count == 5 + keypoints:
        columns = columns[:5]
    elif count != 5 and (count < 7 or count % 2 == 0):
        labels.drop(number, "malformed", f"The row has {count} columns; needed are {COLUMNS}.")
        return None
    try:
        return tuple(map(float, columns))
    except ValueError:
        wrong = next(column for column in columns if not _is_number(column))
        labels.drop(number, "malformed", f"{wrong[:40]!r} is not a number.")
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _class(text: str, value: float, number: int, classes: int, labels: Labels) -> int | None:
    if not math.isfinite(value) or value != int(value):
        labels.drop(number, "bad_class", f"Class {text[:40]} is not a whole number.")
    elif not 0 <= value < classes:
        message = f"Class {int(value) if abs(value) < 1e15 else text[:40]} is not in the list of {classes}"
        labels.drop(number, "bad_class", f"{message} (0 to {classes - 1}).")
    else:
        return int(value)
    return None


def _box(cls: int, values: tuple[float, ...], number: int, labels: Labels) -> Box | None:
    """The row's box, or that around its polygon; None and a defect if it cannot be used."""
    wrong = next((v for v in values if not -TOLERANCE <= v <= 1 + TOLERANCE), None)
    if wrong is not None:
        hint = " (are these pixels?)" if wrong > 2 else ""
        labels.drop(number, "out_of_range", f"{wrong:g} is outside 0 to 1{hint}.")
        return None
    if len(values) == 4:
        cx, cy, w, h = values
    else:
        xs, ys = values[0::2], values[1::2]
        w, h = max(xs) - min(xs), max(ys) - min(ys)
        cx, cy = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    if w < 0 or h < 0:
        labels.drop(number, "out_of_range", f"The box has a negative size: {w:g} by {h:g}.")
        return None
    if w == 0 or h == 0:
        labels.drop(number, "zero_area", f"The box has no area: {w:g} by {h:g} at {cx:g}, {cy:g}.", unread=False)
        return None
    beyond = max(w / 2 - cx, h / 2 - cy, cx + w / 2 - 1, cy + h / 2 - 1)
    if beyond > TOLERANCE:
        message = f"The box reaches out of the image by {beyond:.0%} of its side; it is used as written."
        labels.note(Defect("warning", "out_of_frame", message, number))
    return Box(cls, cx, cy, w, h)
