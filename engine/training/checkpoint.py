"""`state.pt`: everything a training needs to go on exactly, whole or not at all, and never trusted blindly.

The file is an ordinary torch file of tensors and plain values, so `torch.load(…, weights_only=True)` reads it and
nothing in it can run. It carries a digest of itself. Two generations are kept: should the newer be damaged, the older
one counts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from engine.errors import DojangError
from engine.files import disk_error, sync_folder

FORMAT = 1
MARGIN = 1 << 20  # bytes beyond the tensors: names, counters, the archive itself
State = dict[str, Any]


def save(path: Path, state: State) -> None:
    """Write `state`, keeping what `path` held as the older generation. Raises DojangError(DISK_FULL, …); both stay then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, size_of(state) + MARGIN)
    save_alone(path, state, keep=previous(path))


def save_alone(path: Path, state: State, keep: Path | None = None) -> None:
    """Write `state` with its digest; `keep` is what an older file is renamed to. Raises DojangError(DISK_FULL, …)."""
    whole = {"format": FORMAT, "digest": digest(state), "state": state}
    replace_file(path, lambda file: torch.save(whole, file), keep=keep)


def previous(path: Path) -> Path:
    """Where the generation before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half written."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def load(path: Path) -> tuple[State | None, list[str]]:
    """The newest readable generation, on the CPU, and what was wrong with those passed over.

    A damaged file is set aside under another name, so that it can never push out a sound one.
    """
    problems: list[str] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return read(candidate), problems
        except (MemoryError, PermissionError):
            raise
        except Exception as e:  # a damaged archive raises whatever its reader stumbles over
            if "allocate memory" in str(e):
                raise
            words = " ".join(str(e).split())[:200] or type(e).__name__
            problems.append(f"{candidate.name} cannot be used: {words}")
            candidate.replace(candidate.with_name(f"{candidate.stem}.unreadable{candidate.suffix}"))
    return None, problems


def read(path: Path) -> State:
    """What `save` wrote, on the CPU. Raises whatever a damaged file makes its reader stumble over."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("state"), dict):
        raise ValueError("it is not a checkpoint of this program")
    state: State = found["state"]
    if found.get("digest") != digest(state):
        raise ValueError("its contents do not match its digest")
    return state


def digest(value: Any) -> str:
    """SHA-256 over every tensor's type, shape and bytes, and every plain value, in order."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        sha.update(f"{flat.dtype}{tuple(flat.shape)}".encode())
        sha.update(flat.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        sha.update(b"{%d" % len(value))
        for key, item in value.items():
            sha.update(repr(key).encode())
            _feed(sha, item)
    elif isinstance(value, (list, tuple)):
        sha.update(b"[%d" % len(value))
        for item in value:
            _feed(sha, item)
    else:
        assert value is None or isinstance(value, (bool, int, float, str)), type(value)
        sha.update(repr(value).encode())


def size_of(value: Any) -> int:
    """Bytes of all tensors within."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(size_of, items))


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot be ended: a disk filled to the last byte would fail everything else on it too."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DojangError(
            f"No space left for a checkpoint in {folder}: it needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free.",
            code="DISK_FULL",
            hint="Free some space, then resume: the last good checkpoint was kept.",
        )


class _Witness:
    """Passes writes on and remembers why one failed: torch's writer reports only that it did."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as e:
            self.error = self.error or e
            raise

    def flush(self) -> None:
        self.file.flush()


def replace_file(path: Path, write: Callable[[Any], None], keep: Path | None = None) -> None:
    """Replace `path` by what `write` puts into the file it is given; `keep` is what the old one is renamed to.

    Temp file, fsync, rename. Raises DojangError(DISK_FULL, …) and leaves the old file when it cannot be done.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    witness = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("wb") as file:
            witness = _Witness(file)
            write(witness)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(keep)
        temp.replace(path)
    except BaseException as e:
        cause = (witness and witness.error) or (e if isinstance(e, OSError) else None)
        temp.unlink(missing_ok=True)
        if cause is None:
            raise
        if cause.errno == errno.EFBIG:  # a quota on file sizes: to the person it is a full disk
            cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise disk_error(cause, path) from e
    sync_folder(path.parent)
