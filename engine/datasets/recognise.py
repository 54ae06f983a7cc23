"""Recognising what a folder holds, and handing it to the reader of that format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.datasets.coco import annotation_files, read_coco
from engine.datasets.files import from_user, is_file, is_folder, require_folder
from engine.datasets.formats import Source
from engine.datasets.imagefolder import layout, read_folders
from engine.datasets.labelme import has_annotations, read_labelme
from engine.datasets.model import FORMATS, Format, Progress
from engine.datasets.table import read_table, tables
from engine.datasets.voc import read_voc
from engine.datasets.yolo import read_yolo
from engine.errors import DojangError

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_SUFFIXES = (".yaml", ".yml")
LOOKED_FOR = (
    "an Ultralytics data.yaml, Pascal VOC's JPEGImages and Annotations folders, JSON files of COCO or labelme, "
    "a folder of images per class, or a CSV or TSV of images and labels"
)
NEEDS: dict[Format, str] = {
    "yolo": "a data.yaml (train, val, names)",
    "voc": "the folders JPEGImages and Annotations",
    "coco": "a JSON file with images, annotations and categories, in the folder, in `annotations` or beside the images",
    "labelme": "JSON files with `shapes`, one an image",
    "imagefolder": "two or more folders of images, one per class, or such folders in train, val and test",
    "csv": "a .csv or .tsv file of images and labels",
}
MOST_CHILDREN = 50  # folders looked into for a dataset one level down
Reader = Callable[[Path, Progress | None], Source]


def open_source(path: Path, progress: Progress | None = None, format: Format | None = None) -> Source:
    """List the dataset at `path`: a folder, or the file that describes it. DojangError if it is none.

    Its format is recognised unless given.
    """
    path = from_user(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        hint = "Rename the folder."
        raise DojangError("The folder's name is not valid UTF-8.", code="BAD_PATH", hint=hint) from None
    if format is not None and format not in FORMATS:
        hint = f"There are: {', '.join(FORMATS)}."
        raise DojangError(f"{format[:40]!r} is not a format.", code="BAD_FORMAT", hint=hint)
    if not is_file(path):
        require_folder(path)
    for name, find, read in FINDERS:
        if format in (None, name) and (found := find(path)):
            return read(found, progress)
    if format:
        hint = f"It has to have {NEEDS[format]}. Without a format given, dojang finds it out by itself."
        raise DojangError(f"{path} does not hold {FORMATS[format]}.", code="NOT_A_DATASET", hint=hint)
    raise _no_file(path) if is_file(path) else _no_dataset(path)


def _described(path: Path) -> Path | None:
    """The data.yaml: `path` itself, or what is called so in it."""
    if is_file(path):
        return path if path.suffix.lower() in YAML_SUFFIXES else None
    return next((path / name for name in YAML_NAMES if is_file(path / name)), None)


def _lone_yaml(folder: Path) -> Path | None:
    """The folder's own YAML file when there is just one; several are for the person to choose from."""
    if not is_folder(folder):
        return None
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in YAML_SUFFIXES and is_file(p))
    if len(found) > 1:
        names = ", ".join(p.name for p in found[:5])
        hint = f"Give the path of the one that describes the dataset: {names}."
        raise DojangError(f"{folder} has several YAML files.", code="AMBIGUOUS", hint=hint)
    return found[0] if found else None


def _voc(path: Path) -> Path | None:
    return path if is_folder(path / "JPEGImages") and is_folder(path / "Annotations") else None


def _coco(path: Path) -> Path | None:
    return path if annotation_files(path) else None


def _labelme(path: Path) -> Path | None:
    return path if is_folder(path) and has_annotations(path) else None


def _folders(path: Path) -> Path | None:
    return path if is_folder(path) and layout(path) else None


def _table(path: Path) -> Path | None:
    return path if tables(path) else None


# In this order: what is said in so many words comes before what is only a likeness.
FINDERS: tuple[tuple[Format, Callable[[Path], Path | None], Reader], ...] = (
    ("yolo", _described, read_yolo),
    ("voc", _voc, read_voc),
    ("coco", _coco, read_coco),
    ("yolo", _lone_yaml, read_yolo),
    ("labelme", _labelme, read_labelme),
    ("imagefolder", _folders, read_folders),
    ("csv", _table, read_table),
)


def _no_file(path: Path) -> DojangError:
    hint = "Give the folder, or its data.yaml, COCO JSON, CSV or TSV. An archive has to be unpacked first."
    return DojangError(f"{path} is a file, not a dataset.", code="NOT_A_DATASET", hint=hint)


def _no_dataset(folder: Path) -> DojangError:
    """Say what was looked for, and where it may be instead: one level down is where archives put it."""
    children = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not children:
        return DojangError(f"{folder} is empty.", code="NOT_A_DATASET", hint=f"Looked for {LOOKED_FOR}.")
    inner = next((p for p in children[:MOST_CHILDREN] if is_folder(p) and _is_dataset(p)), None)
    if inner:
        hint = f"Did you mean {inner}?"
    elif is_folder(folder / "images") and is_folder(folder / "labels"):
        hint = "It has images and labels: add a data.yaml that names train, val and the classes."
    else:
        hint = "Check the path, or describe the images with a data.yaml (train, val, names)."
    message = f"{folder} is not a dataset that dojang knows: looked for {LOOKED_FOR}."
    return DojangError(message, code="NOT_A_DATASET", hint=hint)


def _is_dataset(folder: Path) -> bool:
    try:
        return any(find(folder) for _, find, _ in FINDERS)
    except (DojangError, OSError):
        return False
