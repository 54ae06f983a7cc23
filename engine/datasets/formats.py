"""Recognising what a folder holds. A format turns it into a `Source`: which images, which annotations, which split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.datasets.files import from_user, is_file, is_folder, require_folder
from engine.datasets.model import Box, Finding, Format, Part, Progress, Severity
from engine.errors import DojangError

LOOKED_FOR = "an Ultralytics data.yaml, or Pascal VOC's JPEGImages and Annotations folders"
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_SUFFIXES = (".yaml", ".yml")
MOST_DEFECTS = 50  # of one file, reported one by one; a file of another kind would flood the findings


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to read."""

    image: str  # absolute path
    label: str | None  # absolute path where its annotation would be; None if it has none
    part: Part


@dataclass(frozen=True, slots=True)
class Defect:
    """A finding before the file's name is known."""

    severity: Severity
    code: str
    message: str
    object: int | None = None


@dataclass(slots=True)
class Labels:
    """What one annotation says. `boxes[i].cls` counts in the dataset's classes, or in `names` when those are given."""

    boxes: list[Box] = field(default_factory=list)
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
    """A folder as its format describes it, before any image or annotation has been opened."""

    root: Path
    format: Format
    classes: tuple[str, ...] | None  # None: whatever names the annotations use
    parse: Callable[[bytes, tuple[int, int]], Labels]  # bytes of an annotation, (width, height) of its image
    entries: list[Entry]
    findings: list[Finding]
    split_from: str  # what the existing split comes from, for people


def open_source(path: Path, progress: Progress | None = None) -> Source:
    """Recognise the dataset at `path` (a folder, or a data.yaml) and list it; DojangError if it is none."""
    path = from_user(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        hint = "Rename the folder."
        raise DojangError("The folder's name is not valid UTF-8.", code="BAD_PATH", hint=hint) from None
    if path.suffix.lower() in YAML_SUFFIXES and is_file(path):
        return _yolo(path, progress)
    if is_file(path):
        hint = "Give the folder, or its data.yaml. An archive has to be unpacked first."
        raise DojangError(f"{path} is a file, not a dataset.", code="NOT_A_DATASET", hint=hint)
    require_folder(path)
    if description := _described(path):
        return _yolo(description, progress)
    if is_folder(path / "JPEGImages") and is_folder(path / "Annotations"):
        from engine.datasets.voc import read_voc

        return read_voc(path, progress)
    if description := _lone_yaml(path):
        return _yolo(description, progress)
    raise _no_dataset(path)


def _yolo(path: Path, progress: Progress | None) -> Source:
    from engine.datasets.yolo import read_yolo

    return read_yolo(path, progress)


def _described(folder: Path) -> Path | None:
    return next((folder / name for name in YAML_NAMES if is_file(folder / name)), None)


def _lone_yaml(folder: Path) -> Path | None:
    """The folder's own YAML file when there is just one; several are for the person to choose from."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in YAML_SUFFIXES and is_file(p))
    if len(found) > 1:
        names = ", ".join(p.name for p in found[:5])
        hint = f"Give the path of the one that describes the dataset: {names}."
        raise DojangError(f"{folder} has several YAML files.", code="AMBIGUOUS", hint=hint)
    return found[0] if found else None


def _no_dataset(folder: Path) -> DojangError:
    """Say what was looked for, and where it may be instead: one level down is where archives put it."""
    children = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not children:
        return DojangError(f"{folder} is empty.", code="NOT_A_DATASET", hint=f"Looked for {LOOKED_FOR}.")
    inner = [p for p in children if is_folder(p) and (_described(p) or is_folder(p / "JPEGImages"))]
    if inner:
        hint = f"Did you mean {inner[0]}?"
    elif is_folder(folder / "images") and is_folder(folder / "labels"):
        hint = "It has images and labels: add a data.yaml that names train, val and the classes."
    else:
        hint = "Check the path, or describe the images with a data.yaml (train, val, names)."
    message = f"{folder} is not a dataset that dojang knows: looked for {LOOKED_FOR}."
    return DojangError(message, code="NOT_A_DATASET", hint=hint)
