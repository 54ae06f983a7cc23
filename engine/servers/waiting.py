"""A run's wait for its turn: its ticket, what it says of why it waits, and what it is given in the end.

Stdlib only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Mapping  # noqa: UP035 - Python 3.8

from engine.servers import inventory, queue
from engine.servers.turns import Request, Waiting, may_take

POLL = 1.0  # seconds between two looks at the queue
FRESH = 0.5  # looks for which the driver's word of who computes is as of now
LOOK = 4.0  # looks between two questions to the driver while others are in the way, or it cannot tell


class Stopped(Exception):
    """It will not begin. Without arguments a person wants that; else it failed: code, message, hint."""


class Wait:
    """One run in the queue. `job` as in `supervisor`; `beat` is called at every look."""

    def __init__(self, run_dir: Path, job: Mapping[str, Any]) -> None:
        self.run_dir = run_dir
        self.where = queue.place()
        self.uuids: list[str] = []
        self._gpus, self._first = int(job.get("gpus", 1)), job.get("first")
        self._title, self._fallback = str(job.get("title") or run_dir.name), job.get("fallback")
        self._poll = float(job.get("poll", POLL))
        self._ticket: queue.Ticket | None = None
        self._others: dict[str, str] = {}
        self._looked, self._told, self._reason = float("-inf"), "", ""

    @property
    def file(self) -> Path:
        """Why it waits, for whoever looks at the run."""
        return self.run_dir / "waiting.json"

    @property
    def request(self) -> Request:
        """What it needs of this machine."""
        return Request(self._gpus, self._first, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def join(self) -> None:
        """Take a place at the end of the queue. Raises OSError."""
        self._ticket = queue.join(self.where, self._title, str(self.run_dir), self.request)
        self._tell("looks for a free GPU" if self._gpus else "waits for its turn on the CPU")

    def leave(self) -> None:
        """Give the place up."""
        if self._ticket is not None:
            queue.leave(self._ticket)
            self._ticket = None
        self.over()

    def over(self) -> None:
        """It waits no longer."""
        with contextlib.suppress(OSError):
            self.file.unlink()

    def wait(self, beat: Callable[[], None]) -> queue.Grant | None:
        """Until it is this run's turn: its GPUs; None where this machine has none. Raises Stopped; so may `beat`."""
        assert self._ticket is not None
        with contextlib.suppress(OSError):
            queue.tell(self._ticket, self.request)  # who waits is another process than who joined
        while self._ticket is not None:
            beat()
            try:
                grant = self._try(self._ticket)
                if grant or self._ticket is None:
                    return grant
            except queue.Left:
                raise Stopped from None
            except OSError as e:
                self._tell(f"waits: the queue at {self.where} cannot be used ({e.strerror or e})")
            time.sleep(self._poll * (0.5 + random.random()))
        return None

    def at_once(self) -> tuple[queue.Grant | None, str]:
        """Go in now or not at all: its GPUs, None where there are none, and why it would have to wait if it would.

        Raises OSError, Stopped, queue.Left.
        """
        self.join()
        try:
            assert self._ticket is not None
            grant = self._try(self._ticket)
            return grant, self._reason if grant is None and self._ticket is not None else ""
        finally:
            self.leave()

    def visible(self, grant: queue.Grant | None) -> str | None:
        """CUDA_VISIBLE_DEVICES for whoever trains on what was got; None: as it is.

        Who wants a certain GPU sees all of them, so that its number means the same to him.
        """
        if grant is None or not self._gpus:
            return None
        return ",".join(grant.names if self._first is None else self.request.pool(self.uuids))

    def _try(self, ticket: queue.Ticket) -> queue.Grant | None:
        """One look at the queue; what was got, if it is the run's turn. Raises queue.Left, OSError, Stopped."""
        if not queue.holds(ticket):  # somebody cleared the folder: at the end of the queue again
            os.close(ticket.fd)
            self._ticket = None
            self._ticket = ticket = queue.join(self.where, self._title, str(self.run_dir), self.request)
        if self._gpus and not self.uuids:
            again = time.monotonic() - self._looked > LOOK * self._poll
            if not again or not self._see(ticket):
                return None
        mine = self._mine(ticket, self._others)
        if mine is None:
            return None
        if len(mine.choices) < mine.request.need:
            raise Stopped(*self._impossible())
        grant = None
        if mine.cancelled or (not mine.held and self._could_go(ticket)):
            grant = queue.take(self.where, ticket, self.uuids, self._others)
            if grant:
                self._ticket = None
                return grant
            mine = self._mine(ticket, self._others) or mine
        self._tell(mine.reason, ahead=mine.ahead, free=mine.free, held=mine.held)
        return None

    def _mine(self, ticket: queue.Ticket, others: Mapping[str, str]) -> Waiting | None:
        view = queue.look(self.where, self.uuids, others)
        return next((w for w in view.waiting if w.id == ticket.id), None)

    def _could_go(self, ticket: queue.Ticket) -> bool:
        """Whether nothing of dojang's own is in the way; by then the driver has said who else computes."""
        view = queue.look(self.where, self.uuids, self._others)
        mine = next((w for w in view.waiting if w.id == ticket.id), None)
        if mine is None or len(may_take(replace(view, others={}), mine)) < mine.request.need:
            return False
        age = time.monotonic() - self._looked
        if not self._gpus or age < FRESH * self._poll:
            return True
        by_others = len(may_take(view, mine)) < mine.request.need
        return (not by_others or age > LOOK * self._poll) and self._see(ticket)

    def _see(self, ticket: queue.Ticket) -> bool:
        """Ask the driver; whether there are GPUs to wait for."""
        gpus, note = inventory.gpus_now()
        self._looked = time.monotonic()
        if inventory.has_none(note) or (gpus and not self.request.pool([g.uuid for g in gpus])):
            self._without_gpus(ticket)
            return False
        if not gpus:
            self._tell(f"waits: {note}")
            return False
        self.uuids, self._others = [g.uuid for g in gpus], inventory.others(gpus)
        return True

    def _without_gpus(self, ticket: queue.Ticket) -> None:
        """There is none to wait for: go on without, or wait for a turn on the CPU where that was asked for."""
        if self._fallback == "turn":
            self._gpus = 0
            queue.tell(ticket, self.request)
        else:
            self._ticket = None
            queue.leave(ticket)

    def _impossible(self) -> tuple[str, str, str]:
        request = self.request
        there = len(request.pool(self.uuids))
        what = f"{request.count} GPUs" if request.first is None else f"GPU {request.first + request.count - 1}"
        only = "one GPU, number 0" if there == 1 else f"{there} GPUs, numbers 0 to {there - 1}"
        return (
            "NO_GPU",
            f"It needs {what}; what it may use here is {only}.",
            "Train it anew with fewer, or with others.",
        )

    def _tell(self, words: str, **more: Any) -> None:
        """Say why it waits, when that has changed."""
        self._reason = words
        id_ = self._ticket.id if self._ticket else ""
        told = json.dumps({"id": id_, "reason": words, **more})
        if told == self._told:
            return
        self._told = told
        temp = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        try:
            temp.write_text(told)
            temp.replace(self.file)
        except OSError:
            with contextlib.suppress(OSError):
                temp.unlink()
