"""Classification sets described by a table: a CSV or TSV with an image and its label a line, maybe its split."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from engine.datasets.classes import clean_class, in_number
from engine.datasets.files import (
    BEAT,
    OUTSIDE,
    Unreadable,
    is_file,
    is_folder,
    named,
    nfc,
    read_lines,
    relative,
    sayable,
)
from engine.datasets.formats import Defect, Entry, Labels, Source
from engine.datasets.imagefolder import label_given
from engine.datasets.images import SUFFIXES, is_image
from engine.datasets.model import SPLITS, Finding, Progress, Split
from engine.datasets.parts import by_split, few, split_of
from engine.datasets.split import settle
from engine.errors import DojangError

SUFFIX = (".csv", ".tsv")
PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_id",
    "img",
    "id",
)
LABELS = ("label", "labels", "class", "class_name", "category", "target", "species", "breed", "name", "y")
PARTS = ("split", "set", "subset", "partition", "part", "dataset", "usage")
LOOKED_AT = 20  # lines that are looked at to recognise a table
FOLDERS = ("images", "image", "imgs", "data")
ABOVE = ("labels", "annotations", "annotation", "splits", "csv")  # folders in a dataset that hold only its tables
HINT = "It needs a line `path,label` for each image; a header, and a column with train, val or test, are optional."


class Columns(NamedTuple):
    """Which column says what, and whether the first line is their names."""

    header: bool
    path: int
    label: int
    split: int | None


def tables(path: Path) -> list[Path]:
    """`path` itself, or the tables in the folder, that name images and labels."""
    if is_file(path):
        try:
            return [path] if path.suffix.lower() in SUFFIX and _columns_of(path) else []
        except Unreadable as e:
            raise DojangError(f"{path}: {e.message}", code="BAD_TABLE", hint=HINT) from e
    return [file for file in few(path, *SUFFIX) if _is_table(file)]


def _is_table(path: Path) -> bool:
    try:
        return _columns_of(path) is not None
    except Unreadable:
        return False


def _columns_of(path: Path) -> Columns | None:
    """The columns by their names, else by what is in most of the first rows; None if they are not image and label."""
    rows = [row for _, row in islice(_lines(path), LOOKED_AT)]
    if not rows:
        return None
    names = [cell.strip().lower() for cell in rows[0]]
    image, label, split = (next((names.index(n) for n in kind if n in names), None) for kind in (PATHS, LABELS, PARTS))
    if image is not None and label is not None:
        return Columns(True, image, label, split)
    header = not any(map(is_image, names))
    width = Counter(map(len, rows)).most_common(1)[0][0]
    body = [row for row in rows[header:] if len(row) == width]
    images, parts = ([i for i in range(width) if _mostly(says, i, body)] for says in (is_image, split_of))
    rest = [i for i in range(width) if i not in images and (width == 2 or i not in parts)]
    if len(images) != 1 or len(rest) != 1 or width > 3:
        return None
    return Columns(header, images[0], rest[0], parts[0] if width == 3 else None)


def _mostly(says: Callable[[str], object], column: int, rows: list[list[str]]) -> bool:
    return 2 * sum(bool(says(row[column].strip())) for row in rows) > len(rows)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The table's rows that are not empty, each with its line; Unreadable where it stops being a table."""
    text = read_lines(path)
    first = next(text, "")
    marks = "\t" if path.suffix.lower() == ".tsv" else ",;\t|"
    reader = csv.reader(chain([first], text), delimiter=max(marks, key=first.count))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as e:
        raise Unreadable("bad_table", f"Line {reader.line_num} is not one of a table: {e}.") from e


def read_table(path: Path, progress: Progress | None = None) -> Source:
    """List the images that the tables at `path` name. Where nothing says its split, one is to be made."""
    files = tables(path)
    root = path if is_folder(path) else path.parent.parent if path.parent.name.lower() in ABOVE else path.parent
    findings: list[Finding] = []
    reader = _Reader(root, findings, progress)
    for file, split in by_split(files, root, findings):
        reader.read(file, split)
    lists = reader.lists()
    source = ", ".join(relative(file, root) for file in files)
    parts = settle(lists, partial(relative, root=root), source, findings)
    classes = in_number(label for label in reader.labels.values() if label is not None)
    index = {name: i for i, name in enumerate(classes)}
    entries = []
    for where in sorted(parts, key=nfc):
        label = reader.labels[where]
        given = None if label is None else index[label]
        entries.append(Entry(where, None if label is None else reader.told[where][0], parts[where], given))
    return Source(root, "csv", classes, label_given, entries, findings, source, task="classify")


class _Reader:
    """Collects what all tables say: each image's label, and which table and line said so first."""

    def __init__(self, root: Path, findings: list[Finding], progress: Progress | None) -> None:
        self.root, self.findings, self.progress = root, findings, progress
        self.labels: dict[str, str | None] = {}
        self.told: dict[str, tuple[str, int]] = {}
        self._in: dict[Split | None, dict[str, None]] = {split: {} for split in (*SPLITS, None)}
        self._suffix = ""

    def read(self, file: Path, split: Split | None) -> None:
        columns, wrong = _columns_of(file), Labels()
        assert columns, "tables() found it"
        places = [file.parent, file.parent / file.stem, *(file.parent / name for name in FOLDERS), self.root]
        bases = [place for place in places if is_folder(place)]
        try:
            for count, (line, row) in enumerate(_lines(file)):
                if self.progress and count % BEAT == 0:
                    self.progress(0, 0)
                if count or not columns.header:
                    self._row(row, line, columns, split, file, bases, wrong)
        except Unreadable as e:
            raise DojangError(f"{file}: {e.message}", code="BAD_TABLE", hint=HINT) from e
        name = relative(file, self.root)
        self.findings += [Finding(d.severity, d.code, d.message, name, d.object) for d in wrong.defects]

    def _row(
        self,
        row: list[str],
        line: int,
        columns: Columns,
        split: Split | None,
        file: Path,
        bases: list[Path],
        wrong: Labels,
    ) -> None:
        if len(row) <= max(columns.path, columns.label):
            wrong.note(Defect("error", "malformed", f"The line has {len(row)} columns, too few.", line))
            return
        text = row[columns.path].strip()
        where = self._where(text, bases)
        if where is None:
            wrong.note(Defect("error", "outside_folder", OUTSIDE.format(text[:200]), line))
            return
        if not is_image(where):
            wrong.note(Defect("error", "malformed", f"{text[:200]!r} does not name an image.", line))
            return
        if not sayable(where, self.findings, self.root):
            return
        if columns.split is not None and columns.split < len(row):
            split = split_of(row[columns.split]) or split
        self._in[split][where] = None
        label = clean_class(row[columns.label])
        if where not in self.labels:
            self.labels[where], self.told[where] = label, (str(file), line)
        elif self.labels[where] == label:
            wrong.note(Defect("warning", "listed_twice", f"The image is listed before, {self._first(where)}.", line))
        else:
            message = f"The image has another label {self._first(where)}, so it counts as unlabelled."
            wrong.note(Defect("error", "two_labels", message, line))
            self.labels[where] = None

    def _first(self, where: str) -> str:
        file, line = self.told[where]
        return f"in line {line} of {relative(file, self.root)}"

    def _where(self, text: str, bases: list[Path]) -> str | None:
        """The image that a cell names, maybe without its suffix, as competitions do."""
        if is_image(text):
            return named(text, bases, self.root, moved=True)
        for suffix in (self._suffix, *sorted(SUFFIXES)) if text else ():
            where = named(text + suffix, bases, self.root) if suffix else None
            if where and is_file(where):
                self._suffix = suffix
                return where
        return text

    def lists(self) -> dict[Split, list[str]]:
        """The images of each split. Those of none are to be divided, unless others say val: then they are left out."""
        lists: dict[Split, list[str]] = {split: list(self._in[split]) for split in SPLITS}
        if lists["val"]:
            for where in self._in[None].keys() - {where for found in lists.values() for where in found}:
                message = "The table says no split for it, while it does for others, so it is left out."
                self.findings.append(Finding("info", "not_in_split", message, relative(where, self.root)))
        else:
            lists["train"] += self._in[None]
        held = set(lists["test"])
        lists["train"] = lists["train"] or [w for w in self.labels if w not in held] or list(self.labels)
        return lists
