"""A dataset's items in one file of columns, so that opening a hundred thousand of them reads none until one is asked for.

A line of JSON says what follows: one block per column, in the machine's own byte order, each beginning on a multiple of
eight bytes. A checksum over the blocks tells a damaged file from a sound one before anything in it is believed.
"""

from __future__ import annotations

import json
import mmap
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from engine.datasets.model import SPLITS, Box, Item
from engine.errors import DojangError
from engine.files import write_bytes

VERSION = 2
HEADER_LIMIT = 4096  # bytes
HINT = "Remove the dataset and add it again; your images are not affected."
# One value an image, but `names` (all paths, one after the other) and those of boxes. -1 is no label.
COLUMNS: dict[str, Any] = {  # the kind of number is array's and memoryview's
    "ends": "Q",  # where each path ends in `names`
    "names": "B",
    "split": "B",
    "width": "I",
    "height": "I",
    "labelled": "B",
    "bytes": "Q",
    "label": "i",
    "boxes": "Q",  # how many boxes there are up to and with this image
    "box_class": "I",
    "box_place": "d",  # cx, cy, w, h
}


class Items(Sequence[Item]):
    """Every item of a dataset, by path. Items are made when asked for, so a large set costs nothing to open."""

    def __init__(self, columns: dict[str, memoryview]) -> None:
        self._columns = columns
        self._names, self._ends = columns["names"], columns["ends"]
        self._boxes, self._class, self._place = columns["boxes"], columns["box_class"], columns["box_place"]

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, key: int) -> Item: ...
    @overload
    def __getitem__(self, key: slice) -> list[Item]: ...
    def __getitem__(self, key: int | slice) -> Item | list[Item]:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        i = key + len(self) if key < 0 else key
        if not 0 <= i < len(self):
            raise IndexError(key)
        c = self._columns
        label = c["label"][i]
        return Item(
            path=bytes(self._names[self._ends[i - 1] if i else 0 : self._ends[i]]).decode(),
            split=SPLITS[c["split"][i]],
            width=c["width"][i],
            height=c["height"][i],
            boxes=self._boxes_of(self._boxes[i - 1] if i else 0, self._boxes[i]),
            labelled=bool(c["labelled"][i]),
            bytes=c["bytes"][i],
            label=None if label < 0 else label,
        )

    def __iter__(self) -> Iterator[Item]:
        c = self._columns
        names, start, first = bytes(self._names), 0, 0
        rest = zip(c["split"], c["width"], c["height"], c["labelled"], c["bytes"], c["label"], strict=True)
        for end, last, (split, width, height, labelled, size, label) in zip(self._ends, self._boxes, rest, strict=True):
            boxes, path = self._boxes_of(first, last), names[start:end].decode()
            start, first = end, last
            yield Item(
                path, SPLITS[split], width, height, boxes, bool(labelled), size, None if label < 0 else label
            )  # fmt: skip

    def _boxes_of(self, first: int, last: int) -> tuple[Box, ...]:
        place = self._place[4 * first : 4 * last].tolist()
        classes = self._class[first:last]
        return tuple(map(Box, classes, place[0::4], place[1::4], place[2::4], place[3::4]))


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Store the items, in their order."""
    columns: dict[str, array[Any]] = {name: array(kind) for name, kind in COLUMNS.items()}
    names = bytearray()
    for item in items:
        names += item.path.encode()
        row = (len(names), SPLITS.index(item.split), item.width, item.height, item.labelled, item.bytes)
        for name, value in zip(("ends", "split", "width", "height", "labelled", "bytes"), row, strict=True):
            columns[name].append(value)
        columns["label"].append(-1 if item.label is None else item.label)
        for box in item.boxes:
            columns["box_class"].append(box.cls)
            columns["box_place"].extend(box[1:])
        columns["boxes"].append(len(columns["box_class"]))
    columns["names"].frombytes(bytes(names))
    blocks = [_padded(column.tobytes()) for column in columns.values()]
    check = 0
    for block in blocks:
        check = zlib.crc32(block, check)
    lengths = {name: len(column) for name, column in columns.items()}
    header = {"version": VERSION, "byteorder": sys.byteorder, "crc32": check, "lengths": lengths}
    write_bytes(path, b"".join([_padded(json.dumps(header).encode() + b"\n", b" "), *blocks]))


def read_items(path: Path) -> Items:
    """Open what `write_items` stored; DojangError if the file is missing, damaged or of another version."""
    try:
        with path.open("rb") as f:
            line = f.readline(HEADER_LIMIT)
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        return Items(_columns(json.loads(line), data[len(_padded(line, b" ")) :]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DojangError(f"{path} cannot be read: {e}.", code="BAD_FILE", hint=HINT) from e


def _columns(header: dict[str, Any], data: memoryview) -> dict[str, memoryview]:
    if header["version"] != VERSION or header["byteorder"] != sys.byteorder:
        raise ValueError("it was written by another version of dojang, or on another kind of machine")
    columns, at = {}, 0
    for name, kind in COLUMNS.items():
        length = header["lengths"][name] * array(kind).itemsize
        columns[name] = data[at : at + length].cast(kind)
        at += length + -length % 8
    if at != len(data) or zlib.crc32(data) != header["crc32"]:
        raise ValueError("it is damaged")
    return columns


def _padded(block: bytes, filler: bytes = b"\0") -> bytes:
    """The block, made a multiple of eight bytes long."""
    return block + filler * (-len(block) % 8)
