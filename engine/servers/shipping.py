"""Sending contents to a server by their digest: only what is missing there, many at a time, gone on with after a drop."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DojangError
from engine.servers.link import Link, Request
from engine.servers.link_errors import Conflict

PIECE = 1 << 20  # bytes of a file in one request, at most: more gains nothing, and a bar moves seldom
DIGEST = 16  # bytes
ASKED = 20_000  # digests in one question
TRIES, PAUSE = 60, 0.5  # with somebody else who sends the same; seconds between
Tick = Callable[[int, int], None]
"""Called with bytes sent and in all, both of what was missing. Raise from it to stop; what arrived stays."""


@dataclass(frozen=True, slots=True)
class Content:
    """One file to be there: its bytes, or where they lie here."""

    digest: str
    size: int
    source: Path | bytes

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(digest_of(data), len(data), data)

    @classmethod
    def at(cls, path: Path) -> Content:
        """Reads the whole file. Raises DojangError(UNREADABLE)."""
        digest, size = hashlib.blake2b(digest_size=DIGEST), 0
        try:
            with path.open("rb") as f:
                while piece := f.read(1 << 20):
                    digest.update(piece)
                    size += len(piece)
        except OSError as e:
            raise unreadable(path, e) from e
        return cls(digest.hexdigest(), size, path)


@dataclass(frozen=True, slots=True)
class Sent:
    """What it took: files and bytes that were missing, and seconds."""

    files: int
    bytes: int
    seconds: float


def digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST).hexdigest()


def unreadable(path: Path, e: OSError) -> DojangError:
    message = f"{path} cannot be read: {e.strerror or e}."
    return DojangError(message, code="UNREADABLE", hint="Check its rights and the disk, then resume.")


def send(link: Link, contents: Mapping[str, Content], tick: Tick = lambda done, total: None) -> Sent:
    """Have every one of `contents`, by digest, be there. Raises LinkError, and DojangError(DATA_CHANGED) naming a file."""
    began = time.monotonic()
    first: tuple[int, int] | None = None  # files and bytes that were missing when we came
    for _ in range(TRIES):
        wanted, parts = missing(link, list(contents))
        todo = [contents[digest] for digest in wanted]
        left = sum(each.size - min(each.size, parts.get(each.digest, 0)) for each in todo)
        first = first or (len(todo), left)
        total = max(first[1], left)
        tick(total - left, total)
        if _sent(link, todo, parts, lambda n, done=total - left, total=total: tick(min(done + n, total), total)):  # type: ignore[misc]
            return Sent(*first, time.monotonic() - began)
        time.sleep(PAUSE)
    raise Conflict("somebody else sends the same all the time")


def _sent(link: Link, todo: list[Content], parts: Mapping[str, int], tick: Callable[[int], None]) -> bool:
    """Send all of it; False when another sends the same, or a broken link had a piece sent twice: then to look anew."""
    sent, under_way = 0, deque[tuple[Content, int]]()
    try:
        for _ in link.stream(_requests(todo, parts, under_way)):
            sent += under_way.popleft()[1]
            tick(sent)
    except Conflict as e:
        refused = under_way[0][0] if under_way else None
        if refused is None or isinstance(refused.source, bytes):
            raise
        if not e.details.get("have") and Content.at(refused.source).digest != refused.digest:
            message = f"{refused.source} changed while it was copied."
            raise DojangError(message, code="DATA_CHANGED", hint="Leave it as it is, then resume.") from e
        return False
    return True


def missing(link: Link, digests: list[str]) -> tuple[list[str], dict[str, int]]:
    """Which of them the server lacks, and how many bytes of each are there already."""
    lacking: list[str] = []
    parts: dict[str, int] = {}
    for at in range(0, len(digests), ASKED):
        asked = digests[at : at + ASKED]
        reply = link.call("have", body=json.dumps(asked).encode())
        found = reply["missing"] if isinstance(reply["missing"], list) else []
        lacking += [d for d in found if d in asked] if len(found) < 100 else list(set(found) & set(asked))
        told = reply["parts"] if isinstance(reply["parts"], dict) else {}
        parts |= {d: n for d, n in told.items() if isinstance(n, int) and n > 0}
    order = {digest: i for i, digest in enumerate(digests)}
    return sorted(lacking, key=order.__getitem__), parts


def _requests(
    todo: list[Content], parts: Mapping[str, int], under_way: deque[tuple[Content, int]]
) -> Iterator[Request]:
    for each in todo:
        start = parts.get(each.digest, 0)
        start = start if start < each.size else 0
        for offset, piece in _pieces(each, start):
            under_way.append((each, len(piece)))
            yield Request("put", {"digest": each.digest, "size": each.size, "offset": offset}, piece)


def _pieces(content: Content, start: int) -> Iterator[tuple[int, bytes]]:
    """The content from byte `start` on; an empty one is one empty piece."""
    if isinstance(content.source, bytes):
        yield start, content.source[start:]
        return
    try:
        with content.source.open("rb") as f:
            f.seek(start)
            offset = start
            while True:
                piece = f.read(min(PIECE, content.size - offset))
                if not piece and offset > start:
                    return
                yield offset, piece
                offset += len(piece)
                if offset >= content.size or not piece:
                    return
    except OSError as e:
        raise unreadable(content.source, e) from e


def tree_name(prefix: str, files: Mapping[str, Content]) -> str:
    """The name of the folder that holds exactly these files, the same for everybody who sends them."""
    told = json.dumps(sorted((path, each.digest) for path, each in files.items()))
    return f"{prefix}-{digest_of(told.encode())}"


def lay(link: Link, name: str, files: Mapping[str, Content]) -> str:
    """Make data/NAME of contents that are there: links, not copies. The folder's whole path on the server."""
    body = json.dumps({path: [each.digest, each.size] for path, each in files.items()}).encode()
    return str(link.call("materialise", name=name, kind="data", body=body, timeout=600.0)["path"])


def by_digest(files: Mapping[str, Content]) -> dict[str, Content]:
    return {each.digest: each for each in files.values()}


__all__ = ["Content", "Sent", "by_digest", "digest_of", "lay", "missing", "send", "tree_name", "unreadable"]
