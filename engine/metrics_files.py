"""Charts that a training draws itself: every CSV in RUN/metrics whose first column is x, each further one a curve.

Whatever trains may write them, at any time, so nothing of them is trusted: a file that is no plain file is never opened
for long, a table that is too large is thinned, a cell that is no number is a gap, and a file is read on from where it was
left as long as it only grows.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine import plainfile
from engine.progress import NAN, Series

MOST_FILES = 24
MOST_CURVES = 16  # of a file: more cannot be told apart
MOST_POINTS = 20_000  # of a curve; then every other one is dropped
MOST_CELL = 64  # characters of a number or a name
MOST_LINE = 1 << 16
CHUNK = 1 << 18  # bytes read of a file at a time, so that a screen can look in between
SETTLED = 2.0  # seconds after which a last line without an end is taken as it stands
_PROBE = 256


@dataclass
class Table:
    """One file as curves. `x` is the first column's name; curves are by the names of the others."""

    name: str
    x: str = ""
    curves: dict[str, Series] = field(default_factory=dict)
    stride: int = 1  # every so manieth row is kept

    @property
    def drawable(self) -> bool:
        """Whether there is a row."""
        return any(len(c) for c in self.curves.values())

    def copy(self) -> Table:
        """The same, for another thread to draw while this one is added to."""
        curves = {}
        for name, curve in self.curves.items():
            curves[name] = Series()
            curves[name].xs, curves[name].ys = curve.xs[:], curve.ys[:]
        return Table(self.name, self.x, curves, self.stride)


@dataclass
class _File:
    """How far a file was read, and what it began with: another beginning is another file."""

    table: Table
    inode: int = 0
    offset: int = 0
    head: bytes = b""
    rest: bytes = b""
    row: int = 0
    signature: tuple[int, int, bool] = (0, 0, False)


class MetricsFiles:
    """The CSV files of one folder, read as they grow. `look` belongs in a thread: disks may be slow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, _File] = {}
        self._shown: tuple[Table, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """What the last `look` found, by name; only files with something to draw."""
        return self._shown

    def look(self, now: float) -> bool:
        """Read on, at most CHUNK bytes a file; whether anything changed. `now`: seconds since the Unix epoch."""
        try:
            names = sorted(e.name for e in os.scandir(self.folder) if e.name.lower().endswith(".csv"))[:MOST_FILES]
        except OSError:
            names = []
        changed = [name for name in names if self._read(name, now)]
        gone = self._files.keys() - set(names)
        for name in gone:
            del self._files[name]
        if changed or gone:
            before = {t.name: t for t in self._shown}
            kept = [(name, f.table) for name, f in sorted(self._files.items()) if f.table.drawable]
            self._shown = tuple(t.copy() if name in changed else before.get(t.name, t.copy()) for name, t in kept)
        return bool(changed or gone)

    def _read(self, name: str, now: float) -> bool:
        file = self._files.get(name)
        try:
            stream = plainfile.opened(self.folder / name)
        except OSError:
            return self._files.pop(name, None) is not None
        with stream:
            status = os.fstat(stream.fileno())
            settled = now - status.st_mtime > SETTLED
            signature = (status.st_size, status.st_mtime_ns, settled)
            if file and signature == file.signature and file.offset >= status.st_size:
                return False
            head = stream.read(_PROBE)
            if (
                file is None
                or file.inode != status.st_ino
                or status.st_size < file.offset
                or not _same(head, file.head)
            ):
                file = self._files[name] = _File(Table(_clean(name[:-4])), status.st_ino)
            stream.seek(file.offset)
            data = stream.read(CHUNK)
        file.head = head if len(head) > len(file.head) else file.head
        file.offset += len(data)
        file.signature = signature
        _take(file, data, last=settled and file.offset >= status.st_size)
        return True


def _same(now: bytes, before: bytes) -> bool:
    return now.startswith(before) if len(now) >= len(before) else before.startswith(now)


def _take(file: _File, data: bytes, last: bool) -> None:
    """Add the rows in `data` to the table. A row without an end waits for it, unless none will come."""
    *lines, rest = (file.rest + data).replace(b"\r\n", b"\n").split(b"\n")
    if last and rest:
        lines, rest = [*lines, rest], b""
    file.rest = rest if len(rest) <= MOST_LINE else b""
    for cells in _rows(line for line in lines if 0 < len(line) <= MOST_LINE):
        if not file.table.x:
            _header(file.table, cells)
        else:
            _row(file, cells)


def _rows(lines: Iterator[bytes]) -> Iterator[list[str]]:
    for line in lines:
        try:
            cells = next(csv.reader([line.decode("utf-8", "replace").lstrip("\ufeff").replace("\0", "")]), [])
        except csv.Error:
            continue
        if any(cell.strip() for cell in cells):
            yield cells


def _header(table: Table, cells: list[str]) -> None:
    table.x = _clean(cells[0]) or "x"
    for i, cell in enumerate(cells[1 : MOST_CURVES + 1], 1):
        name = _clean(cell) or f"column {i + 1}"
        table.curves.setdefault(name if name not in table.curves else f"{name} ({i + 1})", Series())


def _row(file: _File, cells: list[str]) -> None:
    """One row; one whose x is no number, or does not rise, is left out: a curve runs to the right."""
    table, x = file.table, _number(cells[0])
    curves = list(table.curves.values())
    if math.isnan(x) or not curves or (len(curves[0]) and x <= curves[0].xs[-1]):
        return
    file.row += 1
    if file.row % table.stride:
        return
    for i, curve in enumerate(curves, 1):
        curve.add(x, _number(cells[i]) if i < len(cells) else NAN)
    if len(curves[0]) >= MOST_POINTS:
        table.stride *= 2
        for curve in curves:
            curve.xs, curve.ys = curve.xs[::2], curve.ys[::2]


def _number(cell: str) -> float:
    """A finite number, else a gap."""
    try:
        value = float(cell) if len(cell) <= MOST_CELL else NAN
    except ValueError:
        return NAN
    return value if math.isfinite(value) and abs(value) < 1e300 else NAN


def _clean(text: str) -> str:
    return "".join(c for c in text.strip() if c.isprintable())[:MOST_CELL]
