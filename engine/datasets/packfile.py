"""Pixels in one file that is mapped into memory, written run by run so that whoever kills it loses one run at most.

FOLDER/pixels.bin    uint8 of image after image, each (height, width, 3), blue first as OpenCV has it
FOLDER/index.jsonl   a line a run, written once its pixels are on the disk: size, sum, label and boxes of each image
FOLDER/whole.json    there once all runs are, with the sum of the index
FOLDER/damaged       there once a sum was found wrong: what is on the disk is gone through before it is used again
"""

from __future__ import annotations

import io
import json
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.datasets.model import Box
from engine.datasets.shaping import Shown
from engine.files import disk_error, write_json

if TYPE_CHECKING:
    import numpy

PIXELS, INDEX, WHOLE, DAMAGED = "pixels.bin", "index.jsonl", "whole.json", "damaged"
RUN, RUN_BYTES = 32, 64 << 20  # images, or the bytes of fewer, that are written together


class Damaged(Exception):
    """Pixels on the disk are not those that were written. The text is the folder."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One packed image. `at` is where its pixels begin, in bytes."""

    at: int
    height: int
    width: int
    sum: int  # crc32 of its pixels
    label: int | None
    boxes: tuple[Box, ...]

    @property
    def bytes(self) -> int:
        return self.height * self.width * 3


class Pack:
    """The images of a whole pack. Cheap to hand to forked processes, which share its memory.

    `let_go` undoes whatever keeps it from being dropped: to be called when done, and called when it is collected.
    """

    let_go: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, folder: Path, entries: list[Entry]) -> None:
        self.folder, self.entries = folder, entries
        self._sound = bytearray(len(entries))
        with (folder / PIXELS).open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size
            self._map: Any = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.folder, self.entries)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)

    def pixels(self, place: int) -> numpy.ndarray[Any, Any]:
        """Image number `place`, (height, width, 3) uint8, blue first; a copy, to be written into.

        Its sum is checked the first time. Raises Damaged, and then the pack is made again by whoever takes it next.
        """
        import numpy as np

        entry = self.entries[place]
        flat: numpy.ndarray[Any, Any] = np.frombuffer(self._map, np.uint8, entry.bytes, entry.at).copy()
        if not self._sound[place]:
            if zlib.crc32(flat.data) != entry.sum:
                distrust(self.folder)
                raise Damaged(str(self.folder))
            self._sound[place] = 1
        found: numpy.ndarray[Any, Any] = flat.reshape(entry.height, entry.width, 3)
        return found


def distrust(folder: Path) -> None:
    """Have the pack gone through, and made again from the first wrong image on, before it is used again."""
    with suppress(OSError):
        (folder / DAMAGED).touch()
        (folder / WHOLE).unlink(missing_ok=True)


def whole(folder: Path) -> Pack | None:
    """The pack in `folder`; None unless all of it is there. One that is not what it says is distrusted."""
    try:
        told = json.loads((folder / WHOLE).read_bytes())
        index = (folder / INDEX).read_bytes()
        size = (folder / PIXELS).stat().st_size
        if zlib.crc32(index) == told["sum"] and size == told["bytes"]:
            return Pack(folder, [entry for run in _runs(io.BytesIO(index)) for entry in run.entries])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    distrust(folder)
    return None


@dataclass(frozen=True, slots=True)
class _Run:
    entries: list[Entry]
    end: int  # of its line in the index
    pixels: int  # where those of the next one begin


class Writer:
    """Takes up a pack where it stops, and goes on to its end."""

    def __init__(self, folder: Path) -> None:
        """Cut off what was not finished. Raises DojangError(DISK_FULL, …)."""
        self.folder = folder
        self._waiting: list[tuple[numpy.ndarray[Any, Any], Shown]] = []
        self._held = 0  # bytes of it
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._pixels = _opened(folder / PIXELS)
            self._index = _opened(folder / INDEX)
            self._take_up()
        except OSError as e:
            raise disk_error(e, folder) from e

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pixels.close()
        self._index.close()

    def _take_up(self) -> None:
        runs, doubted = list(_runs(self._index)), (self.folder / DAMAGED).exists()
        if doubted:
            good = next((i for i, run in enumerate(runs) if not self._holds(run)), len(runs))
            runs = runs[:good]
        while runs and not self._holds(runs[-1]):
            runs.pop()
        self.done = sum(len(run.entries) for run in runs)
        pixels, index = (runs[-1].pixels, runs[-1].end) if runs else (0, 0)
        for file, end in ((self._pixels, pixels), (self._index, index)):
            file.truncate(end)
            file.seek(end)
        (self.folder / WHOLE).unlink(missing_ok=True)
        (self.folder / DAMAGED).unlink(missing_ok=True)

    def _holds(self, run: _Run) -> bool:
        for entry in run.entries:
            self._pixels.seek(entry.at)
            if zlib.crc32(self._pixels.read(entry.bytes)) != entry.sum:
                return False
        return True

    def add(self, shown: Shown) -> None:
        """The next image. On the disk with the rest of its run; a run is always the same images."""
        import numpy as np

        self._waiting.append((np.ascontiguousarray(shown.pixels[:, :, ::-1]), shown))
        self._held += shown.pixels.nbytes
        if len(self._waiting) == RUN or self._held >= RUN_BYTES:
            self._write()

    def finish(self) -> None:
        """All images were added. Raises DojangError(DISK_FULL, …)."""
        self._write()
        try:
            self._index.seek(0)
            told = {"sum": zlib.crc32(self._index.read()), "bytes": self._pixels.tell()}
        except OSError as e:
            raise disk_error(e, self.folder) from e
        write_json(self.folder / WHOLE, told)

    def _write(self) -> None:
        """Pixels first: what the index names is on the disk."""
        if not self._waiting:
            return
        try:
            rows = []
            for pixels, shown in self._waiting:
                self._pixels.write(pixels.data)
                rows.append([*pixels.shape[:2], zlib.crc32(pixels.data), shown.label, shown.boxes])
            _flush(self._pixels)
            self._index.write(json.dumps(rows, separators=(",", ":")).encode() + b"\n")
            _flush(self._index)
        except OSError as e:
            raise disk_error(e, self.folder) from e
        self.done += len(self._waiting)
        self._waiting, self._held = [], 0


def _opened(path: Path) -> io.BufferedRandom:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _flush(file: io.BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())


def _runs(index: Iterable[bytes]) -> Iterator[_Run]:
    """The runs that the index tells of, up to the first line that is torn."""
    at = end = 0
    for line in index:
        end += len(line)
        try:
            rows = json.loads(line) if line.endswith(b"\n") else None
            entries = []
            for height, width, total, label, boxes in rows or ():
                entries.append(Entry(at, height, width, total, label, tuple(Box(*box) for box in boxes)))
                at += entries[-1].bytes
        except (ValueError, TypeError):
            return
        if not entries:
            return
        yield _Run(entries, end, at)
