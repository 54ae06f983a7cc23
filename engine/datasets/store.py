"""A dataset's three files: dataset.toml for people and lists, items.bin and findings.json for programs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from engine.datasets.files import nfc
from engine.datasets.index import HINT, VERSION, Items, read_items, write_items
from engine.datasets.model import SEVERITIES, SPLITS, Counts, Dataset, Finding, Format, Item, Severity
from engine.errors import DojangError
from engine.files import read_toml, write_json, write_toml

DATASET, ITEMS, FINDINGS = "dataset.toml", "items.bin", "findings.json"
MOST_FINDINGS = 20_000  # stored; dataset.toml still counts them all


def background(format: Format, items: Iterable[Item], findings: Iterable[Finding]) -> frozenset[str]:
    """Paths of the images that nobody labelled and that still count, as background: to YOLO a missing file means that.

    One whose labels are all unreadable does not, nor does any in the other formats.
    """
    if format != "yolo":
        return frozenset()
    unreadable = {finding.image or finding.file for finding in findings if finding.severity == "error"}
    return frozenset(item.path for item in items if not item.labelled and item.path not in unreadable)


def content_hash(classes: tuple[str, ...], items: Iterable[Item], background: Collection[str] = ()) -> str:
    """sha256 of what a training sees but the pixels: classes, and by split the images in their order with their labels.

    Of an image count its file's name, its size in pixels and bytes, whether it is used, as labelled ones and those in
    `background` are, and its labels to the last bit. The folders that
    it lies in count only through the order, by path, that they give: they differ between formats and say nothing that a
    training sees. Neither the place nor the time count, nor how names are composed. So the same set hashes alike
    on every machine, and in every format that it is written to without loss.
    """
    digest = hashlib.sha256(json.dumps(classes, ensure_ascii=False).encode())
    for item in sorted(items, key=lambda item: (SPLITS.index(item.split), nfc(item.path))):
        name, used = nfc(item.path).rpartition("/")[2], item.labelled or item.path in background
        labels = item.boxes if item.label is None else item.label
        row = [item.split, name, item.width, item.height, item.bytes, int(used), labels]
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()


def count_findings(findings: list[Finding]) -> dict[Severity, int]:
    counts = Counter(finding.severity for finding in findings)
    return {severity: counts[severity] for severity in SEVERITIES}


def write(folder: Path, dataset: Dataset, items: list[Item], findings: list[Finding]) -> None:
    rows = [[f.severity, f.code, f.message, f.file, f.object, f.image] for f in findings[:MOST_FINDINGS]]
    write_items(folder / ITEMS, items)
    write_json(folder / FINDINGS, {"version": VERSION, "findings": rows})
    write_toml(folder / DATASET, _to_toml(dataset))


def open_items(folder: Path) -> Items:
    return read_items(folder / ITEMS)


def read_findings(folder: Path) -> list[Finding]:
    return [Finding(*row) for row in _rows(folder / FINDINGS, "findings", 6)]


def read_dataset(folder: Path) -> Dataset:
    """The dataset in `folder`; DojangError if its file is missing or broken."""
    path = folder / DATASET
    try:
        return _from_toml(read_toml(path))
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="BAD_FILE", hint=HINT) from e
    except DojangError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise DojangError(f"{path} is not a dataset's: {e!r}.", code="BAD_FILE", hint=HINT) from e


def _rows(path: Path, key: str, width: int) -> list[list[Any]]:
    try:
        data = json.loads(path.read_bytes())
        rows: list[list[Any]] = data[key]
        if any(len(row) != width for row in rows):
            raise ValueError("a row is too short or too long")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DojangError(f"{path} cannot be read: {e}.", code="BAD_FILE", hint=HINT) from e
    return rows


def _to_toml(dataset: Dataset) -> dict[str, Any]:
    """Counts by class are lists in the order of `classes`: with a thousand classes, tables would be slow to read."""
    return {
        "version": VERSION,
        "name": dataset.name,
        "root": str(dataset.root),
        "format": dataset.format,
        "task": dataset.task,
        "added": dataset.added,
        "hash": dataset.hash,
        "classes": list(dataset.classes),
        "findings": dict(dataset.findings),
        "split": {"source": dataset.split_source, **dataset.split},
        "counts": {
            split: {"images": c.images, "labelled": c.labelled, "per_class": list(c.per_class.values())}
            for split, c in dataset.counts.per_split.items()
        },
    }


def _from_toml(data: dict[str, Any]) -> Dataset:
    if data["version"] > VERSION:
        raise DojangError("It was written by a newer dojang.", code="NEWER_FILE", hint="Upgrade dojang.")
    classes = tuple(data["classes"])
    splits = {s: (c["images"], c["labelled"], c["per_class"]) for s in SPLITS for c in [data["counts"][s]]}
    split = dict(data["split"])
    return Dataset(
        name=data["name"],
        root=Path(data["root"]),
        format=data["format"],
        task=data["task"],
        classes=classes,
        added=data["added"],
        split_source=split.pop("source"),
        split=split,
        hash=data["hash"],
        counts=Counts.from_splits(classes, splits),
        findings={severity: data["findings"][severity] for severity in SEVERITIES},
    )
