"""Datasets: the user's folders of images and labels, read and checked once, registered in the workspace."""

from __future__ import annotations

from engine.datasets.model import SPLITS, Box, Counts, Dataset, Finding, Item, Progress, Split, SplitCounts
from engine.datasets.registry import (
    add,
    broken,
    check_name,
    default_name,
    findings,
    items,
    list_datasets,
    load,
    remove,
    verify,
)

__all__ = [
    "SPLITS",
    "Box",
    "Counts",
    "Dataset",
    "Finding",
    "Item",
    "Progress",
    "Split",
    "SplitCounts",
    "add",
    "broken",
    "check_name",
    "default_name",
    "findings",
    "items",
    "list_datasets",
    "load",
    "remove",
    "verify",
]
