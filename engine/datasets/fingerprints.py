"""What tells images apart wherever they lie: a digest of each file and, where asked for, its look. Kept in the cache.

Reading a hundred thousand files again for every version would take minutes, so both are remembered for as long as a
file's size and time of change stay as they were.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.datasets.looks import SIDE, regular, see
from engine.datasets.model import Dataset, Item, Progress
from engine.errors import DojangError
from engine.files import write_bytes

if TYPE_CHECKING:
    import numpy

DIGEST = 16  # bytes
KIND = "fingerprints"
CHUNK = 32  # files a thread reads between two calls of progress
PIECE = 1 << 20
NAMED = 10  # files that an error lists


class Print(NamedTuple):
    """Of one file. `look` is empty until it was asked for, and of what could not be decoded."""

    digest: bytes
    look: bytes = b""


@dataclass(frozen=True, slots=True)
class _Known:
    """As stored: one row an image, in the order of the set's items."""

    stamps: numpy.ndarray[Any, Any]  # (images, 2): bytes, nanoseconds of the last change; -1 where unknown
    digests: numpy.ndarray[Any, Any]  # (images, DIGEST)
    looks: numpy.ndarray[Any, Any]  # (images, SIDE²), or (0, SIDE²) where none was taken


def take(
    workspace: Path, dataset: Dataset, items: Sequence[Item], looks: bool = False, progress: Progress | None = None
) -> list[Print]:
    """The fingerprint of every item. DojangError if an image is gone, unreadable, or not the one registered."""
    import numpy as np

    place = _place(workspace, dataset)
    stamps = np.array([_stamp(dataset, item) for item in items], np.int64).reshape(len(items), 2)
    _require_sound(dataset, items, stamps[:, 0].tolist())
    known = _read(place, len(items))
    fresh = (known.stamps == stamps).all(1)
    if looks and not len(known.looks):
        fresh[:] = False
    digests = known.digests.copy()
    seen = known.looks.copy() if len(known.looks) else np.zeros((len(items) if looks else 0, SIDE * SIDE), np.uint8)
    stale = np.flatnonzero(~fresh).tolist()
    for i, one in _read_all(dataset, items, stale, len(seen) > 0, progress):
        digests[i] = np.frombuffer(one.digest, np.uint8)
        if len(seen):
            seen[i] = np.frombuffer(one.look, np.uint8) if one.look else 0
    if stale:
        _write(place, _Known(stamps, digests, seen))
    raw, shown = digests.tobytes(), seen.tobytes() if looks else b""
    area = SIDE * SIDE
    return [Print(raw[i * DIGEST : (i + 1) * DIGEST], shown[i * area : (i + 1) * area]) for i in range(len(items))]


def digest_of(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def _place(workspace: Path, dataset: Dataset) -> Path:
    root = hashlib.sha256(os.fsencode(dataset.root)).hexdigest()[:8]
    return workspace / "cache" / KIND / f"{dataset.hash[:16]}-{root}.npz"


def _stamp(dataset: Dataset, item: Item) -> tuple[int, int]:
    try:
        status = dataset.image(item).stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _require_sound(dataset: Dataset, items: Sequence[Item], sizes: list[int]) -> None:
    gone = [item.path for item, size in zip(items, sizes, strict=True) if size < 0]
    if gone:
        raise DojangError(
            f"{len(gone)} images of {dataset.name} are gone or unreadable:\n{_some(gone)}",
            code="MISSING_IMAGE",
            hint="Put them back, or add the folder as a new data set.",
        )
    changed = [item.path for item, size in zip(items, sizes, strict=True) if size != item.bytes]
    if changed:
        raise DojangError(
            f"{len(changed)} images of {dataset.name} have another size in bytes than when it was added:\n{_some(changed)}",
            code="DATA_CHANGED",
            hint="Add the folder again, so that labels are known to belong to their images.",
        )


def _some(paths: list[str]) -> str:
    return "\n".join(paths[:NAMED]) + (f"\n… and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


def _read_all(
    dataset: Dataset, items: Sequence[Item], wanted: list[int], looks: bool, progress: Progress | None
) -> Iterable[tuple[int, Print]]:
    def read(start: int) -> list[tuple[int, Print]]:
        return [(i, _look(dataset, items[i], looks)) for i in wanted[start : start + CHUNK]]

    pool = ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), thread_name_prefix="dojang-fingerprints")
    done = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on large images and odd EXIF
            for part in pool.map(read, range(0, len(wanted), CHUNK)):
                yield from part
                done += len(part)
                if progress:
                    progress(done, len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)


def _look(dataset: Dataset, item: Item, looks: bool) -> Print:
    path = dataset.image(item)
    try:
        if looks:
            seen = see(path, item.width * item.height)
            return Print(seen.digest, seen.look)
        digest = hashlib.blake2b(digest_size=DIGEST)
        regular(path)
        with path.open("rb") as f:
            while piece := f.read(PIECE):
                digest.update(piece)
        return Print(digest.digest())
    except OSError as e:
        message = f"{path} cannot be read: {e.strerror or e}."
        raise DojangError(message, code="UNREADABLE", hint="Check its rights and the disk.") from e


def _read(place: Path, count: int) -> _Known:
    """What is known of the set; nothing where the file is missing, damaged or of another set."""
    import numpy as np

    with (
        suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(place, allow_pickle=False) as kept,
    ):
        found = _Known(kept["stamps"], kept["digests"], kept["looks"])
        shapes = (found.stamps.shape, found.digests.shape, found.looks.shape)
        if shapes[:2] == ((count, 2), (count, DIGEST)) and shapes[2] in ((count, SIDE * SIDE), (0, SIDE * SIDE)):
            return found
    return _Known(
        np.full((count, 2), -1, np.int64), np.zeros((count, DIGEST), np.uint8), np.zeros((0, SIDE * SIDE), np.uint8)
    )


def _write(place: Path, known: _Known) -> None:
    import numpy as np

    out = io.BytesIO()
    np.savez(out, stamps=known.stamps, digests=known.digests, looks=known.looks)
    with suppress(OSError, DojangError):  # a cache that cannot be kept only costs time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, out.getvalue())
