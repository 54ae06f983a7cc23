"""Weights of a run on a server, brought home: what broke off goes on, and only what is whole appears under its name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import DojangError
from engine.files import disk_error, sync_folder
from engine.servers.elsewhere import Place
from engine.servers.link import Link, Request
from engine.servers.link_errors import NotThere
from engine.versions import Version

PIECE = 4 << 20
LARGEST = 1 << 40  # bytes of one file
FOLDERS = ("weights", "checkpoints")
LOCK = "fetch.lock"
DIGEST = re.compile(r"[0-9a-f]{32}")
Tick = Callable[[int, int], None]
"""Called with bytes done and in all. Raise from it to stop; what came is kept."""


def fetch(
    version: Version,
    place: Place,
    link: Link,
    names: Sequence[str] = ("weights/best.pt",),
    tick: Tick = lambda done, total: None,
) -> list[Path]:
    """Bring these files of the run's folder here, where they are not yet; those that exist there.

    Each is compared by digest with what lies on the server. Raises NotThere when none of them exists, LinkError,
    DojangError(DISK_FULL, CHANGED).
    """
    wanted: list[tuple[str, int, str]] = []
    for folder in dict.fromkeys(name.partition("/")[0] for name in names):
        assert folder in FOLDERS
        found = link.call("tree", path=f"runs/{place.rid}/{folder}", digests=True, timeout=600.0)["files"]
        for name in names:
            above, _, rest = name.partition("/")
            if above == folder and isinstance(found, dict) and rest in found:
                wanted.append((name, *_announced(version, name, found[rest])))
    if not wanted:
        raise NotThere("the run has no such file")
    total = sum(size for _, size, _ in wanted)
    done, brought = 0, []
    for name, size, digest in wanted:
        brought.append(_one(version, place, link, (name, size, digest), lambda n, d=done: tick(d + n, total)))  # type: ignore[misc]
        done += size
    return brought


def _announced(version: Version, name: str, told: Any) -> tuple[int, str]:
    """Size and digest, as far as a server's word can be one. Raises DojangError(CHANGED)."""
    size, digest = (told[0], told[2]) if isinstance(told, list) and len(told) == 3 else (None, None)
    sound = isinstance(digest, str) and DIGEST.fullmatch(digest)
    if not sound or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST:
        raise _not_as_announced(version, name)
    return size, str(digest)


def _not_as_announced(version: Version, name: str) -> DojangError:
    message = f"{name} of {version.reference} is not what the server announced."
    return DojangError(message, code="CHANGED", hint="Fetch it again.")


def _one(version: Version, place: Place, link: Link, wanted: tuple[str, int, str], tick: Callable[[int], None]) -> Path:
    name, size, digest = wanted
    target = version.path / name
    part = target.with_name(f".{target.name}.{digest}.part")
    try:
        target.parent.mkdir(exist_ok=True)
        with _alone(version.path / LOCK):  # another process of this workspace may be at it too
            if target.exists() and target.stat().st_size == size and _digest(target) == digest:
                return target
            have = part.stat().st_size if part.exists() else 0
            if have > size:
                part.unlink()
                have = 0
            _room(target, size - have)
            with part.open("ab") as file:
                _receive(version, link, file, _requests(place, name, have, size), tick)
            if _digest(part) != digest:
                part.unlink()
                raise _not_as_announced(version, name)
            part.replace(target)
            sync_folder(target.parent)
            for other in target.parent.glob(f".{target.name}.*.part"):
                other.unlink(missing_ok=True)
    except OSError as e:
        raise disk_error(e, target) from e
    return target


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _room(target: Path, size: int) -> None:
    """A server may announce what it likes. Raises OSError where there is no room for it."""
    seen = os.statvfs(target.parent)
    if seen.f_bavail * seen.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _receive(
    version: Version, link: Link, file: BinaryIO, requests: Iterable[Request], tick: Callable[[int], None]
) -> None:
    asked: deque[Request] = deque()

    def noted() -> Iterator[Request]:
        for each in requests:
            asked.append(each)
            yield each

    for reply in link.stream(noted()):
        request = asked.popleft()
        if len(reply.body) != request.arguments["limit"]:  # it became shorter meanwhile, or never was as long
            raise _not_as_announced(version, request.arguments["path"].partition("/")[2].partition("/")[2])
        file.write(reply.body)
        tick(file.tell())
    file.flush()
    os.fsync(file.fileno())


def _requests(place: Place, name: str, have: int, size: int) -> Iterator[Request]:
    for offset in range(have, size, PIECE):
        limit = min(PIECE, size - offset)
        yield Request("get", {"path": f"runs/{place.rid}/{name}", "offset": offset, "limit": limit}, b"")


def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as f:
        while piece := f.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


__all__ = ["fetch"]
