"""A server's queue, looked at and changed from here: the queue's own few files run there, at the end of the link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import DojangError
from engine.servers import shipping
from engine.servers.inventory import Gpu
from engine.servers.link import Link
from engine.servers.link_errors import plain
from engine.servers.shipping import Content
from engine.servers.turns import Lease, Request, View, Waiting

FILES = ("queue.py", "turns.py", "inventory.py")
MOST = 1000  # of anything that a server lists
LARGEST = 4 << 20  # bytes of an answer
GONE, STUCK = 3, 4  # what `queue` returns
TIMEOUT = 30.0


class FarQueue:
    """The queue at the end of a link. Each call is one round trip once its files are there."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._code = ""

    def look(self) -> tuple[View, tuple[Gpu, ...]]:
        """Raises LinkError, DojangError(QUEUE_UNREAD)."""
        return self._run("look")

    def change(self, ticket: str, what: str) -> View:
        """As `queue.change`. Raises LinkError, DojangError(NOT_QUEUED), (QUEUE_STUCK)."""
        return self._run(what, ticket)[0]

    def _run(self, *words: str) -> tuple[View, tuple[Gpu, ...]]:
        facts = self._link.call("hello", timeout=TIMEOUT) if not self._link.facts else self._link.facts
        if not self._code:
            self._code = _send(self._link)
        parts: list[bytes] = []

        def take(part: bytes) -> None:
            if sum(map(len, parts)) <= LARGEST:
                parts.append(part)

        argv = [str(facts["executable"]), "-s", "-m", "engine.servers.queue", *words]
        reply = self._link.call(
            "run", argv=argv, env={"PYTHONPATH": self._code}, limit=20.0, timeout=TIMEOUT, on_part=take
        )
        said = b"".join(parts).decode("utf-8", "replace")
        if reply.get("code") == GONE:
            raise DojangError("It does not wait any more.", code="NOT_QUEUED")
        if reply.get("code"):
            code = "QUEUE_STUCK" if reply.get("code") == STUCK else "QUEUE_UNREAD"
            self._code = ""  # should somebody have cleared the folder away, it is sent anew
            raise DojangError(f"The server's queue cannot be used: {plain(said[-300:])}", code=code, hint="Try again.")
        try:
            told = json.loads(said[said.index("{") :])
            gpus = [gpu_of(each) for each in _list(told["gpus"])]
            return view_of(told["view"]), tuple(g for g in gpus if g)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise DojangError("The server's queue cannot be read.", code="QUEUE_UNREAD", hint="Try again.") from e


def _send(link: Link) -> str:
    here = Path(__file__).parent
    files = {"engine/__init__.py": Content.of(b""), "engine/servers/__init__.py": Content.of(b"")}
    files.update({f"engine/servers/{name}": Content.of((here / name).read_bytes()) for name in FILES})
    shipping.send(link, shipping.by_digest(files))
    return shipping.lay(link, shipping.tree_name("queue", files), files)


# What a server tells may be anything


def view_of(told: Any) -> View:
    """Raises ValueError, KeyError, TypeError, AttributeError for what is no view."""
    leases = {str(name)[:100]: _lease(each) for name, each in list(told["leases"].items())[:MOST]}
    waiting = tuple(_waiting(each) for each in _list(told["waiting"]))
    others = {str(k)[:100]: plain(str(v)) for k, v in list(told["others"].items())[:MOST]}
    return View(tuple(str(u)[:100] for u in _list(told["uuids"])), leases, waiting, others)


def _lease(told: Any) -> Lease:
    name, title, run_dir = (plain(str(told[key]), 1000) for key in ("name", "title", "run_dir"))
    return Lease(name, title, run_dir, int(told["pid"]), float(told["since"]))


def _waiting(told: Any) -> Waiting:
    asked = told["request"]
    first, visible = asked["first"], asked["visible"]
    request = Request(
        int(asked["count"]), int(first) if first is not None else None, str(visible) if visible is not None else None
    )
    ticket = str(told["id"])
    if not ticket.isdecimal() or len(ticket) > 40:
        raise ValueError(ticket)
    return Waiting(
        ticket, plain(str(told["title"])), plain(str(told["run_dir"]), 1000), int(told["pid"]), float(told["since"]),
        request, told["held"] is True, told["regardless"] is True, told["cancelled"] is True,
        tuple(str(c)[:100] for c in _list(told["choices"])), int(told["ahead"]), int(told["free"]), plain(str(told["reason"])),
    )  # fmt: skip


def gpu_of(told: Any) -> Gpu | None:
    """A GPU as an agent or a queue tells of it; None for what is none."""
    try:
        use, heat = told.get("utilization"), told.get("temperature")
        return Gpu(
            int(told["index"]), str(told["uuid"])[:100], plain(str(told["name"]), 80), float(told["memory_total"]),
            float(told["memory_used"]), int(use) if use is not None else None, int(heat) if heat is not None else None,
            plain(str(told.get("driver", "")), 40), tuple(plain(str(u), 80) for u in _list(told.get("users", []))[:64]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _list(value: Any) -> list[Any]:
    return list(value)[:MOST] if isinstance(value, (list, tuple)) else []


__all__ = ["FarQueue", "gpu_of", "view_of"]
