"""Features of frozen layers, computed once and kept in one file that is mapped into memory.

What a file holds is in its name: a digest of everything that the features depend on, so that a training that is gone on
with finds them again, and one that differs in anything never takes another's. The file carries a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.files import disk_error, sync_folder
from engine.training.data import Sample
from engine.training.kernels.torchvision_data import Recipe, Views

FORMAT = 1
HEADER = 4096  # bytes; the rows begin there, on a page of their own
KEPT = 8  # files at most; the ones longest unused go first
ABANDONED = 86_400  # seconds after which a half-written file is nobody's any more
MARGIN = 1 << 30  # bytes that stay free on the disk
DTYPES = {"off": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Between = Callable[[int, int], bool]


@dataclass(frozen=True)
class Shape:
    """`rows` of numbers of `dtype` (a name of torch's), each of the shape `row`."""

    rows: int
    row: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.row, dtype=np.int64)) * self.type.itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def type(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found


class Damaged(Exception):
    """A file of features that cannot be used. The text says why."""


class Pack:
    """Features on disk, row by row."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path, self.shape = path, shape
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        flat = np.frombuffer(mapped, np.uint8, shape.bytes, HEADER)
        self._rows = flat.reshape(shape.rows, shape.row_bytes)

    def rows(self, numbers: list[int]) -> Tensor:
        """The features of these rows (n, …), copied."""
        found = torch.from_numpy(self._rows[numbers])
        return found.view(self.shape.type).view(len(numbers), *self.shape.row)


def key(parts: dict[str, Any], recipe: Recipe, views: Views, samples: Iterable[Sample]) -> str:
    """The name of what is computed from all this; files by their size and time of change too, packs by their name."""
    sha = hashlib.sha256()
    known = {**parts, "format": FORMAT, "views": views.count, "image_size": recipe.image_size}
    if views.count > 1:  # else nothing is varied
        known |= {"recipe": asdict(recipe), "seed": views.seed}
    sha.update(json.dumps(known, sort_keys=True).encode())
    for sample in samples:
        if sample.packed:
            sha.update(f"{sample.packed.pack.folder.name}\0{sample.packed.place}\n".encode())
            continue
        status = os.stat(sample.path)
        sha.update(f"{sample.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return sha.hexdigest()[:32]


def find(folder: Path, name: str, shape: Shape) -> Pack | None:
    """The pack of that name; None where there is none. Raises Damaged, and then it is gone."""
    path = _path(folder, name)
    if not path.exists():
        return None
    try:
        _check(path, shape)
        os.utime(path)
        return Pack(path, shape)
    except (OSError, ValueError, KeyError, TypeError) as e:
        path.unlink(missing_ok=True)
        raise Damaged(str(e)) from e


def _check(path: Path, shape: Shape) -> None:
    """Raises ValueError with the reason, KeyError, TypeError or OSError when the file is not whole."""
    with path.open("rb") as file:
        header = json.loads(file.read(HEADER).rstrip(b"\0"))
        if header["format"] != FORMAT or Shape(header["rows"], tuple(header["row"]), header["dtype"]) != shape:
            raise ValueError("it holds something else")
        if path.stat().st_size != HEADER + shape.bytes:
            raise ValueError("it is cut short")
        if hashlib.file_digest(file, "sha256").hexdigest() != header["digest"]:
            raise ValueError("its contents do not match its digest")


def room(folder: Path, shape: Shape) -> bool:
    """Whether the disk has room for such a pack, and some to spare."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free > shape.bytes + HEADER + MARGIN


def write(folder: Path, name: str, shape: Shape, batches: Iterable[Tensor], between: Between) -> Pack | None:
    """Write what `batches` give (n, …), until all rows are there; None when `between` (rows done, in all) stops it.

    The file appears whole or not at all. Raises DojangError(DISK_FULL, …).
    """
    path = _path(folder, name)
    temp = folder / f".{name}.{os.getpid()}.tmp"
    done, sha = 0, hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temp.open("wb") as file:
            file.write(bytes(HEADER))
            for batch in batches:
                flat = batch.to("cpu", shape.type).contiguous().view(torch.uint8).numpy()
                sha.update(flat)
                file.write(flat)
                done += len(batch)
                if not between(done, shape.rows):
                    return None
            assert done == shape.rows, (done, shape)
            file.seek(0)
            file.write(json.dumps({"format": FORMAT, **asdict(shape), "digest": sha.hexdigest()}).encode())
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
        sync_folder(folder)
    except OSError as e:
        raise disk_error(e, path) from e
    finally:
        temp.unlink(missing_ok=True)
    _tidy(folder, path)
    return Pack(path, shape)


def _tidy(folder: Path, newest: Path) -> None:
    """Remove what has not been used for longest, and what killed trainings left half written. Mapped files stay usable."""
    now = time.time()
    for temp in folder.glob(".*.tmp"):
        if now - temp.stat().st_mtime > ABANDONED:
            temp.unlink(missing_ok=True)
    packs = sorted((p for p in folder.glob("*.features") if p != newest), key=lambda p: p.stat().st_mtime)
    for path in packs[: max(0, len(packs) + 1 - KEPT)]:
        path.unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.features"
