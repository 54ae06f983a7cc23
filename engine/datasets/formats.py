"""What a format turns a folder into: a `Source`, which says which images, which annotations, which split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.datasets.files import LABEL_LIMIT
from engine.datasets.model import Box, Finding, Format, Part, Severity, Task

MOST_OBJECTS = 50_000  # on one image; each takes a few hundred bytes
TOO_MANY = f"The image has more than {MOST_OBJECTS:,} objects."
MOST_DEFECTS = 50  # of one file, reported one by one; a file of another kind would flood the findings


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to read."""

    image: str  # absolute path
    label: str | None  # absolute path where its annotation would be; None if it has none
    part: Part
    given: Any = None  # what the format has read of the annotation already, out of a file about many images


@dataclass(frozen=True, slots=True)
class Defect:
    """A finding before the file's name is known."""

    severity: Severity
    code: str
    message: str
    object: int | None = None


@dataclass(slots=True)
class Labels:
    """What one annotation says. `boxes[i].cls` counts in the dataset's classes, or in `names` when those are given.

    `label` is the class of an image that has one as a whole.
    """

    boxes: list[Box] = field(default_factory=list)
    label: int | None = None
    names: list[str] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    left_out: int = 0  # objects
    unread: int = 0  # of those, the ones of which not even the class or the place could be read

    def drop(self, number: int, code: str, message: str, severity: Severity = "error", unread: bool = True) -> None:
        """Leave out object `number`. A box without area is read and says nothing; all others are `unread`."""
        self.left_out += 1
        self.unread += unread
        self.note(Defect(severity, code, message, number))

    def note(self, defect: Defect) -> None:
        if len(self.defects) < MOST_DEFECTS:
            self.defects.append(defect)
        elif len(self.defects) == MOST_DEFECTS:
            message = f"More than {MOST_DEFECTS} things are wrong in this file; the others are not listed."
            self.defects.append(Defect("error", "many_defects", message))

    @property
    def told(self) -> bool:
        """Whether the file said anything: one whose objects are all unreadable must not pass for background."""
        return bool(self.boxes) or not self.unread


@dataclass(slots=True)
class Source:
    """A folder as its format describes it, before any image has been opened.

    `parse` gets the bytes of an annotation, or what the entry was `given`, and (width, height) of its image.
    """

    root: Path
    format: Format
    classes: tuple[str, ...] | None  # None: whatever names the annotations use
    parse: Callable[[Any, tuple[int, int]], Labels]
    entries: list[Entry]
    findings: list[Finding]
    split_from: str  # what the existing split comes from, for people
    task: Task = "detect"
    limit: int = LABEL_LIMIT  # bytes of one annotation
    listed: tuple[str, ...] = ()  # names from a list beside the annotations; it counts if it has all that they use
