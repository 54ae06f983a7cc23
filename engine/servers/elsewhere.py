"""What a version that trains on a server keeps here: where it trains, what was last heard of it, and its mirror's place.

In its run directory, beside the files that every version has:

    server.toml     which server, and under which name (`rid`) and folder it runs there; made with the version; also
                    `partition`, the server's Slurm entry that it is submitted to
    remote.json     what was last heard of it: state, reason, attempt, when (`at`, by our clock)
    mirror.json     how much of `events.jsonl` here is ours (preparing it) and how much is the server's log
    prepare.log     what whoever prepared the server printed
    lock            held while the server is prepared, by the process that does it

`events.jsonl` and `train.log` are the server's, byte for byte and appended only, events by whole lines; ahead of them,
and between two attempts, stand those of preparing the server, which only this machine knows.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import files
from engine.errors import DojangError
from engine.servers.link_errors import plain

if TYPE_CHECKING:
    from engine.progress import Progress
    from engine.versions import Version

SERVER, REMOTE, MIRROR, PREPARE_LOG, MIRROR_LOCK = (
    *("server.toml", "remote.json", "mirror.json", "prepare.log", "mirror.lock"),
)
LIVE = frozenset({"queued", "starting", "running", "silent", "orphan"})
ENDS = frozenset({"done", "stopped", "paused", "failed"})
STATES = LIVE | ENDS | {"lost", "absent"}
RID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MOST_ATTEMPTS = 100_000
NO_SPACE = "No space is left"  # as the supervisor and the agent say it


@dataclass(frozen=True)
class Place:
    """Where a version trains. `root` is the server's folder as the server was described then."""

    server: str
    rid: str
    root: str
    partition: str = ""  # the server's entry of Slurm's that it is submitted to; without one it is started there itself


@dataclass(frozen=True)
class Known:
    """What was last heard of a run on a server; `at` in seconds since 1970 by our clock, 0 if nothing ever was.

    `skew`: seconds that the clock of its events is ahead of ours, where that is worth speaking of.
    """

    state: str = ""
    reason: str = ""
    attempt: int = 0
    at: float = 0.0
    fetched: bool = False
    skew: float = 0.0

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def age(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.at) if self.at else 0.0


def answered(reply: Any, rid: str) -> Known:
    """How a run stands by a server's answer, which may be anything. `at` is now."""
    found = reply.get(rid) if isinstance(reply, dict) else None
    found = found if isinstance(found, dict) else {"state": "absent"}
    state, attempt = found.get("state"), found.get("attempt")
    whole = isinstance(attempt, int) and 0 <= attempt <= MOST_ATTEMPTS
    reason = found.get("reason")
    return Known(
        state if isinstance(state, str) and state in STATES else "lost",
        plain(reason) if isinstance(reason, str) else "",
        int(attempt) if whole and isinstance(attempt, int) else 0,
        time.time(),
    )


def new_rid(version: Version) -> str:
    """A name for its run that no other run has, also of other people's laptops, and that tells which it is."""
    spoken = re.sub(r"[^a-z0-9]+", "-", version.project.name.lower()).strip("-")[:24] or "p"
    return f"{spoken}-{version.id.lower().replace('_', '')}-{secrets.token_hex(6)}"


def put_on(version: Version, server: str, root: str) -> Place:
    """Decide that a version that never ran trains on `server`, or SERVER/ENTRY: through Slurm there."""
    name, _, partition = server.partition("/")
    place = Place(name, new_rid(version), root, partition)
    told = {"server": place.server, "rid": place.rid, "root": place.root}
    files.write_toml(version.path / SERVER, {**told, "partition": partition} if partition else told)
    return place


def place_of(version: Version) -> Place | None:
    """Where it trains; None on this machine. Raises DojangError where that cannot be read: nothing is guessed."""
    path = version.path / SERVER
    try:
        told = files.read_toml(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="UNREADABLE") from e
    server, rid, root = (told.get(name) for name in ("server", "rid", "root"))
    partition = told.get("partition", "")
    texts = all(isinstance(value, str) for value in (server, rid, root, partition))
    if not texts or not RID.fullmatch(str(rid)):
        raise DojangError(f"{path} does not say where it trains.", code="BAD_FILE", hint="Put it back as it was.")
    return Place(str(server), str(rid), str(root), str(partition))


def known(version: Version) -> Known:
    """What was last heard of it."""
    told = _read(version.path / REMOTE)
    state, reason, at, attempt = (told.get(name) for name in ("state", "reason", "at", "attempt"))
    return Known(
        state if isinstance(state, str) and state in STATES else "",
        plain(reason) if isinstance(reason, str) else "",
        attempt if isinstance(attempt, int) else 0,
        _seconds(at),
        told.get("fetched") is True,
        _seconds(told.get("skew")),
    )


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0


def heard_at(version: Version) -> float | None:
    """When it was last heard of, if it ran then; None once it is over and nothing more is to be heard."""
    now = known(version)
    return now.at if now.live else None


def heard(
    version: Version, state: str, reason: str = "", attempt: int = 0, fetched: bool = False, skew: float | None = None
) -> None:
    """Keep what was heard of it just now; a `skew` of None leaves the one that was known."""
    skew = known(version).skew if skew is None else skew
    told = {"state": state, "reason": reason, "attempt": attempt, "at": time.time(), "fetched": fetched, "skew": skew}
    files.write_json(version.path / REMOTE, told)


def preparing(version: Version) -> bool:
    """Whether a process here prepares the server for it."""
    return files.is_locked(version.lock)


def alive(version: Version) -> bool:
    """Whether it runs, is about to, or waits for its turn, as far as is known here."""
    return preparing(version) or known(version).live


def state(version: Version, progress: Progress) -> str:
    """The one word for where it stands: from what the server said last and, where it fits, from its log."""
    if preparing(version):
        return "preparing"
    now = known(version)
    if now.live:
        if now.state == "queued":  # in Slurm's queue, perhaps not for the first time
            return "queued"
        if progress.ended and not (progress.ended in ("stopped", "paused") and _in_slurm(version)):
            return progress.ended  # just heard of: each attempt begins with a word of ours
        if version.waiting_file.exists():
            return "queued"
        return progress.stage if progress.stage in ("preprocessing", "training", "testing") else "preparing"
    if now.state in ENDS:
        return progress.ended or now.state
    if now.state:
        return "lost"
    return progress.ended or ("lost" if progress.attempt else "draft")


def _in_slurm(version: Version) -> bool:
    """Whether Slurm may start it again, so that only the server knows whether it has stopped for good."""
    try:
        place = place_of(version)
    except DojangError:
        return False
    return bool(place and place.partition)


def lost_error(version: Version) -> dict[str, str]:
    """What to say of a run on a server that ended without a last word."""
    now, resume = known(version), f"dojang resume {version.reference}"
    place = place_of(version)
    where = place.server if place else "the server"
    if now.state == "absent":
        message = f"{where} no longer has it: its folder there was removed."
        return {"code": "LOST", "message": message, "hint": f"What was mirrored is here. Start it again: {resume}"}
    if not now.state:
        message = f"Whoever prepared {where} for it is gone: killed, or this machine was restarted."
        return {"code": "LOST", "message": message, "hint": f"What was copied stays there. Go on: {resume}"}
    if version.waiting_file.exists():
        message = f"It waited in {where}'s queue, and what waited for it is gone: killed, or the server was restarted."
        return {"code": "LOST", "message": message, "hint": f"Nothing saved is lost. Let it wait again: {resume}"}
    reason = now.reason or "Its processes are gone: killed, or the server was restarted."
    if NO_SPACE in reason:
        hint = f"Free some space on {where}, then go on from what it saved: {resume}"
        return {"code": "DISK_FULL", "message": f"The training on {where} ended: {reason}", "hint": hint}
    hint = f"What it saved is on {where}. Go on from there: {resume}"
    return {"code": "LOST", "message": f"The training on {where} ended without a last word. {reason}", "hint": hint}


def accepted(version: Version, state: str, attempt: int) -> None:
    """The server has taken this attempt. That one is over is kept only once all of it is here: see `mirror`."""
    heard(version, state if state in LIVE else "starting", attempt=attempt)


# The mirror's place. `mirror.json` is written only when the log changes hands; the rest follows from the file's size,
# so that a crash at any moment leaves nothing to guess.


@contextmanager
def mirror_lock(version: Version) -> Iterator[None]:
    """One at a time appends to the mirrored files."""
    fd = os.open(version.path / MIRROR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def offset(version: Version) -> int | None:
    """How many bytes of the server's events are here; None while the log is ours. Hold the mirror's lock to append."""
    told = _read(version.path / MIRROR)
    remote, local = told.get("remote"), told.get("local")
    if not isinstance(remote, int) or not isinstance(local, int):
        return None
    return remote + max(0, _size(version.events) - local)


def take_log(version: Version) -> None:
    """From here on the log's further lines are ours, until it is given back."""
    with mirror_lock(version):
        remote = offset(version)
        if remote is not None:
            files.write_json(version.path / MIRROR, {"remote": remote})


def submitting(version: Version, anew: bool) -> None:
    """It is about to be submitted, `anew` where the server has no log of it: the one that comes begins at its start.

    Should nobody live to hear whether it was accepted, `unsure` says that it may have been. While the log is ours.
    """
    with mirror_lock(version):
        remote = 0 if anew else _read(version.path / MIRROR).get("remote", 0)
        files.write_json(version.path / MIRROR, {"remote": remote, "submitted": True})


def unsure(version: Version) -> bool:
    """Whether it was submitted, and nobody here knows whether it was accepted."""
    told = _read(version.path / MIRROR)
    return told.get("submitted") is True and "local" not in told


def give_log(version: Version) -> None:
    """From here on they are the server's again."""
    with mirror_lock(version):
        if offset(version) is not None:
            return
        remote = _read(version.path / MIRROR).get("remote", 0)
        size = _size(version.events)
        if size and not _ends_with_newline(version.events, size):
            with version.events.open("ab") as f:  # a line of ours that a full disk cut short
                f.write(b"\n")
            size += 1
        files.write_json(version.path / MIRROR, {"remote": remote if isinstance(remote, int) else 0, "local": size})


def append_events(version: Version, at: int, data: bytes) -> int | None:
    """Append what of `data`, the server's events from byte `at`, is not here yet. How much is here then; see `offset`."""
    with mirror_lock(version):
        have = offset(version)
        if have is None or not at <= have <= at + len(data):
            return have
        _append(version.events, data[have - at :])
        return at + len(data)


def append_log(version: Version, at: int, data: bytes) -> int:
    """The same of what the worker printed, all of which is the server's."""
    with mirror_lock(version):
        have = _size(version.train_log)
        if not at <= have <= at + len(data):
            return have
        _append(version.train_log, data[have - at :])
        return at + len(data)


def _append(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except OSError as e:
        raise files.disk_error(e, path) from e
    finally:
        os.close(fd)


def _ends_with_newline(path: Path, size: int) -> bool:
    with path.open("rb") as f:
        f.seek(size - 1)
        return f.read(1) == b"\n"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size < 64_000 else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["Known", "Place", "alive", "known", "lost_error", "place_of", "preparing", "put_on", "state"]
