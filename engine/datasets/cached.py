"""What a workspace's cache holds that takes room: prepared images, features, fingerprints. Any of it can go."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from engine.datasets import fingerprints, packs
from engine.datasets.packfile import WHOLE
from engine.errors import DojangError, NotFound
from engine.files import disk_error

Kind = Literal["images", "features", "fingerprints"]
FEATURES = "features"  # folder that the classifiers' kernel writes
HEADER = 4096  # bytes of such a file that say what it holds
DROPPED = ".dropped"  # end of the name of what is being removed
SHORT = 8  # characters of a name that are enough to tell it, nearly always


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing in the cache. `what` says whose it is; `used` is when it was last, in seconds since 1970."""

    name: str
    kind: Kind
    what: str
    images: int | None  # in it, where that is known
    bytes: int
    used: float
    whole: bool
    in_use: bool
    path: Path

    @property
    def short(self) -> str:
        return self.name[:SHORT]

    def to_json(self) -> dict[str, Any]:
        used = datetime.fromtimestamp(self.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"name": self.name, "kind": self.kind, "what": self.what, "images": self.images, "bytes": self.bytes}
        return told | {"used": used, "whole": self.whole, "in_use": self.in_use, "path": str(self.path)}


def listed(workspace: Path) -> list[Kept]:
    """Everything there is, the longest unused last."""
    return sorted(_found(workspace), key=lambda kept: (-kept.used, kept.name))


def _found(workspace: Path) -> Iterator[Kept]:
    for folder in packs.folder_of(workspace).glob("[!.]*"):
        with suppress(OSError):
            yield _pack(folder)
    for file in (workspace / "cache" / FEATURES).glob("[!.]*.features"):
        with suppress(OSError):
            yield _file(file, "features", "what frozen layers make of images", _rows(file))
    for file in (workspace / "cache" / fingerprints.KIND).glob("[!.]*.npz"):
        with suppress(OSError):
            yield _file(file, "fingerprints", "digests and looks of files", None)


def _pack(folder: Path) -> Kept:
    told, marker = packs.about(folder), folder / WHOLE
    whole = marker.exists()
    taken = sum(file.stat().st_size for file in folder.iterdir())
    used = (marker if whole else folder).stat().st_mtime
    images = told.get("images") if isinstance(told.get("images"), int) else None
    what = str(told.get("dataset", "of an unknown version"))
    return Kept(folder.name, "images", what, images, taken, used, whole, packs.in_use(folder), folder)


def _file(path: Path, kind: Kind, what: str, images: int | None) -> Kept:
    status = path.stat()
    return Kept(path.stem, kind, what, images, status.st_size, status.st_mtime, True, False, path)


def _rows(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(HEADER).rstrip(b"\0"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if isinstance(rows, int) else None


def find(workspace: Path, name: str) -> Kept:
    """What is called `name`, by its beginning, or made for the version of that name. Raises NotFound or AMBIGUOUS."""
    every = listed(workspace)
    found = [
        one for one in every if name and (one.name.startswith(name) or (one.kind == "images" and one.what == name))
    ]
    if not found:
        raise NotFound(f"There is nothing called {name!r} in the cache.", hint="`dojang cache` lists what there is.")
    if len(found) > 1:
        names = ", ".join(one.short for one in found[:5])
        raise DojangError(
            f"{len(found)} things are called {name!r}: {names}.", code="AMBIGUOUS", hint="Say more of it."
        )
    return found[0]


def drop(kept: Kept) -> None:
    """Remove it; whoever needs it makes it again. Raises DojangError(RUNNING) while a training holds it."""
    try:
        if kept.kind == "images":
            _drop_pack(kept)
        else:  # a training that has it mapped keeps it until its end
            kept.path.unlink(missing_ok=True)
    except OSError as e:
        raise disk_error(e, kept.path) from e


def _drop_pack(kept: Kept) -> None:
    aside = kept.path.with_name(f".{kept.name}.{os.getpid()}{DROPPED}")
    lock = packs.open_lock(kept.path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept.path.rename(aside)
    except BlockingIOError:
        raise DojangError(
            f"The prepared images of {kept.what} are in use: a training takes them, or makes them, right now.",
            code="RUNNING",
            hint="`dojang list --all` shows what runs. Drop them once it has ended.",
        ) from None
    finally:
        os.close(lock)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(workspace: Path) -> None:
    """Remove what a killed `drop` left behind."""
    for folder in packs.folder_of(workspace).glob(f".*{DROPPED}"):
        shutil.rmtree(folder, ignore_errors=True)
