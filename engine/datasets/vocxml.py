"""One Pascal VOC annotation, read by an XML parser that refuses everything an annotation does not need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from engine.datasets.boxes import box_in_pixels
from engine.datasets.classes import clean_class
from engine.datasets.files import Unreadable
from engine.datasets.formats import MOST_OBJECTS, TOO_MANY, Defect, Labels

DEEPEST = 50  # levels of XML
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class _Object:
    name: str = ""
    corners: dict[str, str] = field(default_factory=dict)


def parse_annotation(data: bytes, size: tuple[int, int]) -> Labels:
    """Objects of one annotation, for an image of `size` (width, height) in pixels; Unreadable if it is not XML.

    Corners are pixel edges, so a box is xmax - xmin wide. What reaches out of the image is cut off at its edge.
    Objects marked `difficult` count like any other.
    """
    written, objects = _read(data)
    labels = Labels()
    names: dict[str, int] = {}
    if all(written) and written != size:
        message = f"It says {written[0]}×{written[1]} pixels, the image has {size[0]}×{size[1]}: its boxes may be off."
        labels.note(Defect("warning", "size_mismatch", message))
    seen: set[tuple[str, ...]] = set()
    for number, thing in enumerate(objects, 1):
        name = clean_class(thing.name)
        if name is None:
            labels.drop(number, "bad_class", "The object has no usable name.")
        elif box := box_in_pixels(_corners(thing), names.setdefault(name, len(names)), name, number, size, labels):
            key = (name, *map(str, box[1:]))
            if key in seen:
                labels.drop(number, "duplicate", f"This {name} is the same as one before it.", "warning", unread=False)
            else:
                seen.add(key)
                labels.boxes.append(box)
    labels.names = list(names)
    return labels


def _corners(thing: _Object) -> list[str]:
    return [thing.corners.get(corner, "") for corner in CORNERS]


def _read(data: bytes) -> tuple[tuple[int, int], list[_Object]]:
    """The size that the annotation states (0, 0 when it does not) and its objects, in order."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as e:
        raise Unreadable("bad_xml", f"The annotation is not XML: {e}.") from e
    except (ValueError, LookupError) as e:  # an encoding that expat does not know
        raise Unreadable("bad_encoding", f"The annotation's encoding cannot be read: {e}.") from e
    try:
        return (int(float(reader.size["width"])), int(float(reader.size["height"]))), reader.objects
    except (KeyError, ValueError, OverflowError):
        return (0, 0), reader.objects


class _Reader:
    """Collects the few values that matter by their path, so that a person's parts do not count as objects."""

    def __init__(self) -> None:
        self.size: dict[str, str] = {}
        self.objects: list[_Object] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def doctype(self, *_: object) -> NoReturn:
        raise Unreadable("unsafe_xml", "The annotation declares a document type or entities, which can be harmful.")

    def start(self, tag: str, _: dict[str, str]) -> None:
        self._path.append(tag)
        self._text.clear()
        if len(self._path) > DEEPEST:
            raise Unreadable("unsafe_xml", f"The annotation is nested more than {DEEPEST} levels deep.")
        if len(self._path) == 2 and tag == "object":
            if len(self.objects) == MOST_OBJECTS:
                raise Unreadable("too_large", TOO_MANY)
            self.objects.append(_Object())

    def text(self, data: str) -> None:
        self._text.append(data)

    def end(self, tag: str) -> None:
        value = "".join(self._text).strip()
        self._text.clear()
        match self._path[1:]:
            case ["size", _]:
                self.size[tag] = value
            case ["object", "name"]:
                self.objects[-1].name = value
            case ["object", "bndbox", _]:
                self.objects[-1].corners[tag] = value
        self._path.pop()
