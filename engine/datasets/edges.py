"""Boxes under a change of the picture: into a part of a larger one, cut out, turned. All as parts of width and height."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from engine.datasets.model import Box

REMAINS = 0.2  # of a box's area; where less is left after a cut, nobody knows the object any more


class Edges(NamedTuple):
    """A rectangle, in pixels or as parts of a picture."""

    left: float
    top: float
    right: float
    bottom: float

    def parts(self, width: int, height: int) -> Edges:
        """The same, from pixels of a picture of that size to parts of it."""
        return Edges(self.left / width, self.top / height, self.right / width, self.bottom / height)


WHOLE = Edges(0.0, 0.0, 1.0, 1.0)


def inside(boxes: Iterable[Box], place: Edges) -> tuple[Box, ...]:
    """The boxes of a picture that becomes the part `place` of another, as parts of that one."""
    wide, high = place.right - place.left, place.bottom - place.top
    return tuple(Box(b.cls, place.left + b.cx * wide, place.top + b.cy * high, b.w * wide, b.h * high) for b in boxes)


def framed(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The boxes without what reaches out of the picture; a set may hold such, and what nobody sees is not lost by a cut."""
    return cut(boxes, WHOLE, 0.0)


def cut(boxes: Iterable[Box], window: Edges, remains: float = REMAINS) -> tuple[Box, ...]:
    """The boxes of a picture of which the part `window` is left, as parts of that; cut off at its edges.

    Those of which nothing, or less than `remains` of the area, is left are dropped.
    """
    kept = []
    wide, high = window.right - window.left, window.bottom - window.top
    for box in boxes:
        left, right = max(box.cx - box.w / 2, window.left), min(box.cx + box.w / 2, window.right)
        top, bottom = max(box.cy - box.h / 2, window.top), min(box.cy + box.h / 2, window.bottom)
        if right <= left or bottom <= top or (right - left) * (bottom - top) < remains * box.w * box.h:
            continue
        centre = ((left + right) / 2 - window.left) / wide, ((top + bottom) / 2 - window.top) / high
        kept.append(Box(box.cls, *centre, (right - left) / wide, (bottom - top) / high))
    return tuple(kept)


def turned(boxes: Iterable[Box], angle: float, width: int, height: int) -> tuple[Box, ...]:
    """The boxes that hold the corners of those of a picture (its size in pixels) turned clockwise about its middle.

    They may reach out of the picture: `cut` them.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    found = []
    for box in boxes:
        sides = (-0.5, 0.5)
        corners = [(box.cx + i * box.w - 0.5, box.cy + j * box.h - 0.5) for i in sides for j in sides]
        away = [(x * width, y * height) for x, y in corners]
        across = [(cosine * x - sine * y) / width + 0.5 for x, y in away]
        down = [(sine * x + cosine * y) / height + 0.5 for x, y in away]
        centre = ((min(across) + max(across)) / 2, (min(down) + max(down)) / 2)
        found.append(Box(box.cls, *centre, max(across) - min(across), max(down) - min(down)))
    return tuple(found)
