"""The check that finds what would spoil a training: every image decoded, every label measured, copies found."""

from __future__ import annotations

import csv
import io
import json
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.datasets import registry
from engine.datasets.files import is_folder, there
from engine.datasets.kinds import Kind, kind
from engine.datasets.looks import Seen, nearest, see
from engine.datasets.measures import charts, measure_items, measure_set
from engine.datasets.model import SEVERITIES, SPLITS, Dataset, Finding, Item, Progress, Severity, Split
from engine.errors import DojangError
from engine.files import write_bytes, write_json

FILE = "check.json"
VERSION = 2
IMAGE_SIZES = (32, 4096)
CHUNK = 16  # images a thread looks at between two calls of progress
BLANK = 8  # spread of grey, out of 255, of an image of one colour
DARK = 24  # grey, out of 255
MOST_LISTED = 10_000  # findings kept of a kind; their number is kept in any case
COLUMNS = ("severity", "code", "file", "object", "message", "image", "other")  # of an exported table
JUDGES: tuple[Split, ...] = ("test", "val")


@dataclass(frozen=True, slots=True)
class Group:
    """All findings of one kind and severity."""

    severity: Severity
    code: str
    count: int
    files: int  # that they are about
    findings: tuple[Finding, ...]  # the first of them

    @property
    def kind(self) -> Kind:
        return kind(self.code)

    def to_json(self) -> dict[str, Any]:
        found = [finding.to_json() for finding in self.findings]
        head = {"severity": self.severity, "code": self.code, "count": self.count, "files": self.files}
        return head | self.kind._asdict() | {"findings": found}

    def to_row(self) -> list[Any]:
        """As it is kept: quick to read again, and without what the code says."""
        found = [[f.message, f.file, f.object, f.image, f.other] for f in self.findings]
        return [self.severity, self.code, self.count, self.files, found]

    @classmethod
    def from_row(cls, row: list[Any]) -> Group:
        severity, code, count, files, found = row
        return cls(severity, code, count, files, tuple(Finding(severity, code, *rest) for rest in found))


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found, and what it was run on."""

    dataset: str
    hash: str
    image_size: int
    checked: str  # ISO 8601, UTC
    seconds: float
    images: int
    groups: tuple[Group, ...]  # worst first
    charts: dict[str, Any]
    unlisted: int = 0  # findings made when the set was added, beyond those that were kept

    @property
    def counts(self) -> dict[Severity, int]:
        return {severity: sum(g.count for g in self.groups if g.severity == severity) for severity in SEVERITIES}

    @property
    def findings(self) -> list[Finding]:
        return [finding for group in self.groups for finding in group.findings]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "dataset": self.dataset,
            "hash": self.hash,
            "image_size": self.image_size,
            "checked": self.checked,
            "seconds": self.seconds,
            "images": self.images,
            "counts": self.counts,
            "unlisted": self.unlisted,
            "groups": [group.to_json() for group in self.groups],
            "charts": self.charts,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Check:
        """What was kept of a check."""
        groups = tuple(map(Group.from_row, data["groups"]))
        same = ("dataset", "hash", "image_size", "checked", "seconds", "images", "charts", "unlisted")
        return cls(groups=groups, **{key: data[key] for key in same})


def check(workspace: Path, name: str, image_size: int = 640, progress: Progress | None = None) -> Check:
    """Check the registered dataset `name` as it would be trained at `image_size`; the result is kept with it.

    DojangError if it is gone. Raise from `progress` to cancel: the result of an earlier check stays.
    """
    if not IMAGE_SIZES[0] <= image_size <= IMAGE_SIZES[1]:
        hint = f"Give one from {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]}."
        raise DojangError(f"{image_size} is no image size to train at.", code="BAD_SIZE", hint=hint)
    begun = time.monotonic()
    dataset, items = registry.load(workspace, name), registry.open_items(workspace, name)
    registry.require(dataset)
    known = registry.findings(workspace, name)
    tally = _Tally()
    for found in (known, measure_set(dataset, items), measure_items(items, image_size)):
        tally.add(found)
    seen, faults = _see_all(dataset, items, progress)
    tally.add(faults)
    tally.add(_compare(items, seen, progress))
    result = Check(
        dataset=dataset.name,
        hash=dataset.hash,
        image_size=image_size,
        checked=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=round(time.monotonic() - begun, 2),
        images=len(items),
        groups=tally.groups(),
        charts=charts(dataset, items),
        unlisted=sum(dataset.findings.values()) - len(known),
    )
    rows = [group.to_row() for group in result.groups]
    write_json(registry.home(workspace, name) / FILE, result.to_json() | {"groups": rows})
    return result


def last_check(workspace: Path, name: str) -> Check | None:
    """The result of the last check of the dataset as it is registered now; None if there is none to be read."""
    path = registry.home(workspace, name) / FILE
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != VERSION or data["hash"] != registry.load(workspace, name).hash:
            return None
        return Check.from_json(data)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Tally:
    """Counts findings by severity and kind, and keeps the first of each: there may be millions."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
        self._count: Counter[tuple[Severity, str]] = Counter()
        self._files: Counter[tuple[Severity, str]] = Counter()
        self._last: dict[tuple[Severity, str], str] = {}

    def add(self, found: Iterable[Finding]) -> None:
        """Count `found`, in which findings of one file follow upon each other."""
        for finding in found:
            key, file = (finding.severity, finding.code), finding.image or finding.file
            self._count[key] += 1
            self._files[key] += file not in ("", self._last.get(key))
            self._last[key] = file
            if self._count[key] <= MOST_LISTED:
                self._kept[key].append(finding)

    def groups(self) -> tuple[Group, ...]:
        """The worst and most frequent first; within a kind in the order that they came in."""
        order = sorted(self._count, key=lambda key: (SEVERITIES.index(key[0]), -self._count[key], key[1]))
        return tuple(Group(*key, self._count[key], self._files[key], tuple(self._kept[key])) for key in order)


def _see_all(dataset: Dataset, items: Sequence[Item], progress: Progress | None) -> tuple[list[Seen], list[Finding]]:
    """Decode every image, several at once: decoding holds no lock of Python's."""

    def look(start: int) -> list[tuple[Seen, Finding | None]]:
        return [_see(dataset, item) for item in items[start : start + CHUNK]]

    seen: list[Seen] = []
    found: list[Finding] = []
    pool = ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), thread_name_prefix="dojang-check")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on large images and odd EXIF
            for part in pool.map(look, range(0, len(items), CHUNK)):
                for one, finding in part:
                    seen.append(one)
                    found += [finding] if finding else []
                if progress:
                    progress(len(seen), len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return seen, found


def _see(dataset: Dataset, item: Item) -> tuple[Seen, Finding | None]:
    path = dataset.image(item)
    try:
        size, seen = path.stat().st_size, see(path, item.width * item.height)
    except FileNotFoundError:
        return Seen(), Finding("error", "missing_image", "The image is gone.", item.path)
    except OSError as e:
        return Seen(), Finding("error", "unreadable_image", f"The image cannot be read: {e.strerror or e}.", item.path)
    if seen.fault:
        return seen, Finding("error", "corrupt_image", f"The image is damaged: {seen.fault}.", item.path)
    if size != item.bytes:
        message = f"It has {size:,} bytes; when it was added it had {item.bytes:,}."
        return seen, Finding("error", "changed_image", message, item.path)
    what = f", with {len(item.boxes)} boxes on it" if item.boxes else ""
    if seen.lightest - seen.darkest <= BLANK:
        message = f"All of it is one grey, {seen.darkest} of 255{what}."
        return seen, Finding("warning", "blank_image", message, item.path)
    if seen.lightest <= DARK:
        return seen, Finding("warning", "dark_image", f"Its lightest grey is {seen.lightest} of 255{what}.", item.path)
    return seen, None


def _compare(items: Sequence[Item], seen: list[Seen], progress: Progress | None) -> list[Finding]:
    """Findings of images that are the same, or nearly, as others."""

    def tick() -> None:
        if progress:
            progress(len(items), len(items))

    found: list[Finding] = []
    copies: dict[bytes, list[int]] = defaultdict(list)
    for i, one in enumerate(seen):
        if one.digest:
            copies[one.digest].append(i)
    rank = {split: r for r, split in enumerate(SPLITS)}
    told: set[int] = set()
    for same in copies.values():
        first, *others = sorted(same, key=lambda i: (rank[items[i].split], i))
        for i in others:
            told.add(i)
            found.append(_copy(items[first], items[i]))
            found += _contradiction(items[first], items[i])
    for judge in JUDGES:
        judges = [i for i, item in enumerate(items) if item.split == judge and seen[i].look and i not in told]
        teachers = [i for i, item in enumerate(items) if rank[item.split] < rank[judge] and seen[i].look]
        if judges and teachers:
            close = nearest([seen[i].look for i in judges], [seen[i].look for i in teachers], tick)
            for i, hit in zip(judges, close, strict=True):
                if hit:
                    found.append(_alike(items[teachers[hit[0]]], items[i], hit[1]))
    return found


def _copy(first: Item, other: Item) -> Finding:
    if first.split == other.split:
        message = f"It is the same file as {first.path}, both in {first.split}."
        return Finding("info", "same_image", message, other.path, other=first.path)
    message = f"This {other.split} image is the same file as {first.path} in {first.split}."
    return Finding("error", "leak", message, other.path, other=first.path)


def _alike(first: Item, other: Item, upright: bool) -> Finding:
    how = "looks like" if upright else "is mirrored or turned but looks like"
    message = f"This {other.split} image {how} {first.path} in {first.split}."
    return Finding("warning", "leak_alike", message, other.path, other=first.path)


def _contradiction(first: Item, other: Item) -> list[Finding]:
    if not (first.labelled and other.labelled):
        return []
    if first.label == other.label and sorted(first.boxes) == sorted(other.boxes):
        return []
    message = f"It is the same file as {first.path}, whose labels differ."
    return [
        Finding("warning" if first.label is None else "error", "contradiction", message, other.path, other=first.path)
    ]


def check_place(path: Path) -> None:
    """Refuse, before a long check, a file that `save_findings` could not write."""
    if path.suffix.lower() not in (".csv", ".tsv", ".json"):
        hint = "Call it .csv, .tsv or .json."
        raise DojangError(f"The name {path} does not say what to write.", code="BAD_FORMAT", hint=hint)
    if not is_folder(path.absolute().parent):
        raise DojangError(f"There is no folder {path.absolute().parent}.", code="NOT_FOUND", hint="Make it first.")
    if there(path):  # it may be an annotation of the user's
        raise DojangError(f"{path} is there already.", code="EXISTS", hint="Choose a new name, or delete it first.")


def save_findings(result: Check, path: Path) -> None:
    """Write the list of findings as its name says: .json, .csv or .tsv."""
    check_place(path)
    rows = [finding.to_json() for finding in result.findings]
    if path.suffix.lower() == ".json":
        return write_bytes(path, json.dumps(rows, ensure_ascii=False, indent=1).encode())
    text = io.StringIO()
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    table = csv.DictWriter(text, COLUMNS, delimiter=mark, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return write_bytes(path, text.getvalue().encode())
