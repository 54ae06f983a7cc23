"""Datasets: the user's folders of images and labels, read and checked once, registered in the workspace."""

from __future__ import annotations

from engine.datasets.index import Items
from engine.datasets.model import (
    FORMATS,
    SPLITS,
    Box,
    Counts,
    Dataset,
    Finding,
    Format,
    Item,
    Progress,
    Split,
    SplitCounts,
    Task,
)
from engine.datasets.registry import (
    add,
    broken,
    check_name,
    default_name,
    findings,
    items,
    list_datasets,
    load,
    open_items,
    remove,
    verify,
)

__all__ = [
    "FORMATS",
    "SPLITS",
    "Box",
    "Counts",
    "Dataset",
    "Finding",
    "Format",
    "Item",
    "Items",
    "Progress",
    "Split",
    "SplitCounts",
    "Task",
    "add",
    "broken",
    "check_name",
    "default_name",
    "findings",
    "items",
    "list_datasets",
    "load",
    "open_items",
    "remove",
    "verify",
]
