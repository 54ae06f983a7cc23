"""A dataset's three files: dataset.toml for people and lists, index.json and findings.json for programs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from engine.datasets.files import nfc
from engine.datasets.model import SEVERITIES, SPLITS, Box, Counts, Dataset, Finding, Item, Severity
from engine.errors import DojangError
from engine.files import read_toml, write_json, write_toml

DATASET, INDEX, FINDINGS = "dataset.toml", "index.json", "findings.json"
VERSION = 1
MOST_FINDINGS = 20_000  # stored; dataset.toml still counts them all
HINT = "Remove the dataset and add it again; your images are not affected."


def content_hash(classes: tuple[str, ...], items: list[Item]) -> str:
    """sha256 of the classes and of each item's relative path, split, size in pixels and bytes, and boxes.

    Neither the place nor the time count, nor how names are composed: the same set hashes alike on every machine.
    """
    digest = hashlib.sha256(json.dumps(classes, ensure_ascii=False).encode())
    for row in sorted(([nfc(item.path), *_row(item)[1:]] for item in items), key=lambda row: str(row[0])):
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()


def count_findings(findings: list[Finding]) -> dict[Severity, int]:
    counts = Counter(finding.severity for finding in findings)
    return {severity: counts[severity] for severity in SEVERITIES}


def write(folder: Path, dataset: Dataset, items: list[Item], findings: list[Finding]) -> None:
    rows = [[f.severity, f.code, f.message, f.file, f.object] for f in findings[:MOST_FINDINGS]]
    write_json(folder / INDEX, {"version": VERSION, "items": [_row(item) for item in items]})
    write_json(folder / FINDINGS, {"version": VERSION, "findings": rows})
    write_toml(folder / DATASET, _to_toml(dataset))


def read_items(folder: Path) -> list[Item]:
    return [
        Item(path, split, width, height, tuple(Box(*box) for box in boxes), bool(labelled), size)
        for path, split, width, height, labelled, size, boxes in _rows(folder / INDEX, "items", 7)
    ]


def read_findings(folder: Path) -> list[Finding]:
    return [Finding(*row) for row in _rows(folder / FINDINGS, "findings", 5)]


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


def _row(item: Item) -> list[Any]:
    return [item.path, item.split, item.width, item.height, int(item.labelled), item.bytes, item.boxes]


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
