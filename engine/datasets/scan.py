"""Reading a whole source: every image's header, every annotation, then classes and split. Writes nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

from engine.datasets.classes import by_frequency
from engine.datasets.files import MOST_IMAGES, Unreadable, existing, nfc, read_bytes, relative, size_of
from engine.datasets.formats import Entry, Labels, Source
from engine.datasets.images import BadImage, ImageSize, measure
from engine.datasets.model import SEVERITIES, Box, Finding, Item, Part, Progress, SplitSource
from engine.datasets.split import make_split
from engine.errors import DojangError

LARGE_FILE = 1 << 20  # bytes of an annotation that is read alone
LARGE = Lock()
CHUNK = 32  # images a thread reads between two calls of progress


@dataclass(slots=True)
class Scan:
    """All that was read, ready to be stored."""

    items: list[Item]  # by path
    classes: tuple[str, ...]
    findings: list[Finding]  # worst first, then by file
    split_source: SplitSource
    split: dict[str, Any]


@dataclass(slots=True)
class _Read:
    """What one entry gave. Without a size it is left out."""

    entry: Entry
    size: ImageSize | None
    labels: Labels | None
    findings: list[Finding]


def scan(source: Source, ratios: Sequence[float], seed: int, progress: Progress | None = None) -> Scan:
    """Read everything that `source` lists; DojangError if nothing of it can be trained on."""
    if len(source.entries) > MOST_IMAGES:
        hint = "Register parts of it as data sets of their own."
        message = f"{source.root} lists {len(source.entries):,} images; at most {MOST_IMAGES:,} are read."
        raise DojangError(message, code="TOO_LARGE", hint=hint)
    reads = _read_all(source, progress)
    findings = [_sayable(f) for f in chain(source.findings, *(read.findings for read in reads))]
    usable = [read for read in reads if read.size is not None]
    if not usable:
        raise _nothing(source, findings, "NO_IMAGES", "has no image that can be used")
    classes = _classes(source, usable) if source.classes is None else source.classes
    index = {name: i for i, name in enumerate(classes)}
    items = [_item(read, index, source.root) for read in usable]
    if not any(item.classes for item in items):
        what = "labelled object" if source.task == "detect" else "labelled image"
        raise _nothing(source, findings, "NO_LABELS", f"has no {what} that can be used")
    parts: list[Part] = [read.entry.part for read in usable]
    items, how, split = _divide(items, parts, source, findings, ratios, seed)
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), nfc(f.file), f.object or 0, f.code))
    return Scan(sorted(items, key=lambda item: nfc(item.path)), classes, findings, how, split)


def _sayable(finding: Finding) -> Finding:
    """JSON may hold halves of characters, which can be neither stored nor shown."""
    message = finding.message.encode("utf-8", "replace").decode()
    return finding if message == finding.message else replace(finding, message=message)


def _read_all(source: Source, progress: Progress | None) -> list[_Read]:
    total, reads = len(source.entries), list[_Read]()
    chunks = [source.entries[i : i + CHUNK] for i in range(0, total, CHUNK)]
    pool = ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), thread_name_prefix="dojang-scan")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on large images and odd EXIF: findings say what matters
            for done in _in_order([pool.submit(_read_chunk, chunk, source) for chunk in chunks]):
                reads += done
                if progress:
                    progress(len(reads), total)
    finally:
        pool.shutdown(cancel_futures=True)
    return reads


def _in_order(futures: list[Future[list[_Read]]]) -> Iterator[list[_Read]]:
    for future in futures:
        yield future.result()


def _read_chunk(entries: list[Entry], source: Source) -> list[_Read]:
    return [_read(entry, source) for entry in entries]


def _read(entry: Entry, source: Source) -> _Read:
    """Measure one image and parse its annotation. An annotation that cannot be read leaves the image out."""
    image = relative(entry.image, source.root)
    read = _Read(entry, None, None, [])
    try:
        size = measure(entry.image)
    except BadImage as e:
        read.findings.append(Finding("error", e.code, e.message, image))
        return read
    if size.note:
        read.findings.append(Finding("warning", *size.note, image))
    label = existing(entry.label) if entry.label and entry.given is None else entry.label
    if label is None:
        read.findings.append(Finding("info", "no_label", "The image has no annotation.", image))
        read.size = size
        return read
    file = relative(label, source.root)
    try:
        read.labels = _parse(source, entry, label, (size.width, size.height))
        read.size = size
    except Unreadable as e:
        read.findings.append(Finding("error", e.code, f"{e.message} Its image is left out.", file, image=image))
        return read
    read.findings += [Finding(d.severity, d.code, d.message, file, d.object, image) for d in read.labels.defects]
    return read


def _parse(source: Source, entry: Entry, label: str, size: tuple[int, int]) -> Labels:
    """What the annotation says; large files one at a time, since text of a few bytes a value unfolds to much more."""
    if entry.given is not None:
        return source.parse(entry.given, size)
    with LARGE if size_of(label) > LARGE_FILE else nullcontext():
        return source.parse(read_bytes(label, source.limit), size)


def _classes(source: Source, usable: list[_Read]) -> tuple[str, ...]:
    """The names beside the annotations, if those used are all among them; else those used, the most frequent first."""
    used = by_frequency(r.labels.names[box.cls] for r in usable if r.labels for box in r.labels.boxes)
    return source.listed if set(used) <= set(source.listed) else used


def _item(read: _Read, index: dict[str, int], root: Path) -> Item:
    """The item, in train for now, with its classes counted as `index` says where they have names."""
    assert read.size is not None
    boxes: tuple[Box, ...] = ()
    label, labelled = None, False
    if read.labels:
        boxes, label, labelled = tuple(read.labels.boxes), read.labels.label, read.labels.told
        if names := read.labels.names:
            boxes = tuple(Box(index[names[box.cls]], *box[1:]) for box in boxes)
    path, size = relative(read.entry.image, root), read.size
    return Item(path, "train", size.width, size.height, boxes, labelled, size.bytes, label)


def _divide(
    items: list[Item], parts: list[Part], source: Source, findings: list[Finding], ratios: Sequence[float], seed: int
) -> tuple[list[Item], SplitSource, dict[str, Any]]:
    """Give every item its split: the existing one when train and val both have something to learn from, else made."""
    if {"train", "val"} <= {part for item, part in zip(items, parts, strict=True) if item.classes}:
        settled = [replace(item, split=part or "train") for item, part in zip(items, parts, strict=True)]
        return settled, "existing", {"from": source.split_from}
    if "val" in parts:
        message = "train or val has no label that can be used, so the two are divided anew."
        findings.append(Finding("warning", "split_without_objects", message, source.split_from))
    kept = [replace(item, split="test") for item, part in zip(items, parts, strict=True) if part == "test"]
    ratios = [*ratios[:2], 0.0 if kept else ratios[2]]
    pool = [item for item, part in zip(items, parts, strict=True) if part != "test"]
    made = make_split(pool, ratios, seed)
    if not any(item.labelled and item.split == "val" for item in made):
        message = "Fewer than two images are labelled: none is left to validate with."
        findings.append(Finding("warning", "too_few", message, source.split_from))
    split: dict[str, Any] = {"ratios": list(ratios), "seed": seed}
    return kept + made, "made", split | ({"test_from": source.split_from} if kept else {})


def _nothing(source: Source, findings: list[Finding], code: str, what: str) -> DojangError:
    """Say that nothing can be used, with the first reasons, since no dataset will be there to look them up in."""
    worst = sorted(findings, key=lambda f: SEVERITIES.index(f.severity))[:3]
    reasons = "\n".join(f"{finding.file}: {finding.message}" for finding in worst)
    count = f"{len(source.entries)} images listed"
    return DojangError(f"{source.root} {what} ({count}).", code=code, hint=reasons or "Check the path.")
