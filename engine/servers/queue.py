"""Who trains when on one machine, without a daemon. Stdlib only, Python 3.8 and later.

Whoever waits is its own supervisor and holds a ticket; whoever trains holds a lease of each GPU that it trains on.
Both are locked files, so that the kernel gives them back whatever happens to their holder:

PLACE/lock              held for the moment in which somebody joins, is let in, or is moved
PLACE/tickets/NUMBER    one for each that waits, locked by it for as long; a dead one is swept by the next who looks
PLACE/leases/NAME       one for each GPU, by UUID, and `cpu`; locked by the supervisor and, inherited, by its worker
PLACE/wishes.json       what people asked for: another order, who is held, who goes regardless of others, who leaves

First come, first served: a training waits behind every earlier one that could use the same GPUs, so that one for four
GPUs is not starved by those for one. A GPU on which somebody else computes counts as taken. The place must be on a
local disk: locks over a network are not reliable.

From elsewhere it is looked at and changed by

    python -m engine.servers.queue look
    python -m engine.servers.queue hold|release|start|cancel|up|down|first|last NUMBER

which prints the queue after that as JSON: {"view": as `View`, "gpus": [as `inventory.Gpu`], "note"}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Iterator, Mapping, Sequence  # noqa: UP035 - Python 3.8

from engine.servers.turns import Lease, Request, View, Waiting, explained, may_take

LARGEST = 64_000  # bytes; more is not ours
PATIENCE = 10.0
WISHES = ("order", "held", "regardless", "cancelled")
MOVES = ("up", "down", "first", "last")
CHANGES = {
    "hold": ("held", True),
    "release": ("held", False),
    "start": ("regardless", True),
    "cancel": ("cancelled", True),
}


class Stuck(OSError):
    """Somebody holds the queue's lock for longer than any honest work takes."""


class Left(Exception):
    """A person took this one out of the queue."""


@dataclass(frozen=True)
class Ticket:
    """A place in the queue; closing `fd` gives it up."""

    id: str
    path: str
    fd: int


@dataclass(frozen=True)
class Grant:
    """Leases that were got, and the descriptors that hold them."""

    names: tuple[str, ...]
    fds: tuple[int, ...]


def place() -> str:
    """Where this machine's queue of this user is: `DOJANG_QUEUE`, else on the local disk, which outlives a logout."""
    chosen = os.environ.get("DOJANG_QUEUE", "")
    return chosen or os.path.join("/var/tmp" if os.path.isdir("/var/tmp") else "/tmp", f"dojang-queue-{os.getuid()}")  # noqa: S108


def prepare(where: str) -> None:
    """Make the place, for this user alone. Raises OSError, also where it is somebody else's."""
    for folder in (where, os.path.join(where, "tickets"), os.path.join(where, "leases")):
        with contextlib.suppress(FileExistsError):
            os.makedirs(folder, 0o700)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(13, "is not a folder that only you can write to", folder)


def join(where: str, title: str, run_dir: str, request: Request) -> Ticket:
    """Take a ticket at the end of the queue. Its descriptor survives a fork and goes to whoever waits."""
    prepare(where)
    with _alone(where):
        tickets = os.path.join(where, "tickets")
        last = max((int(n) for n in _names(tickets)), default=0)
        number = f"{max(time.time_ns(), last + 1):020d}"
        path = os.path.join(tickets, number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            told = {"title": title, "run_dir": run_dir, "pid": os.getpid(), "since": time.time()}
            _write(fd, {**told, "request": asdict(request)})
        except OSError:
            os.unlink(path)
            os.close(fd)
            raise
    return Ticket(number, path, fd)


def tell(ticket: Ticket, request: Request) -> None:
    """Say anew who holds a ticket, this process, and what it needs."""
    _write(ticket.fd, {**_read(ticket.path), "pid": os.getpid(), "request": asdict(request)})


def leave(ticket: Ticket) -> None:
    """Give up a place."""
    with contextlib.suppress(OSError):
        os.unlink(ticket.path)
    os.close(ticket.fd)


def holds(ticket: Ticket) -> bool:
    """Whether the ticket still stands in the queue: someone may have cleared its folder."""
    try:
        return os.stat(ticket.path).st_ino == os.fstat(ticket.fd).st_ino
    except OSError:
        return False


def take(where: str, ticket: Ticket, uuids: Sequence[str], others: Mapping[str, str]) -> Grant | None:
    """Go in if it is this one's turn and its GPUs are free; the ticket is then used up. Raises Left, Stuck, OSError."""
    with _alone(where):
        _sweep(where)
        view = look(where, uuids, others)
        mine = next((w for w in view.waiting if w.id == ticket.id), None)
        if mine is None or mine.held:
            return None
        if mine.cancelled:
            raise Left
        got: list[tuple[str, int]] = []
        for name in may_take(view, mine):
            if len(got) < mine.request.need and (fd := _lease(where, name)) is not None:
                got.append((name, fd))
        if len(got) < mine.request.need:
            for _, fd in got:
                os.close(fd)
            return None
        told = {"title": mine.title, "run_dir": mine.run_dir, "pid": os.getpid(), "since": time.time()}
        for name, fd in got:
            _write(fd, {"name": name, **told})
        leave(ticket)
        return Grant(tuple(n for n, _ in got), tuple(fd for _, fd in got))


def look(where: str, uuids: Sequence[str] = (), others: Mapping[str, str] | None = None) -> View:
    """The queue as it stands: in order, with why each waits. Takes no lock and changes nothing."""
    files = os.path.join(where, "leases")
    held = [_lease_of(os.path.join(files, n)) for n in sorted(_names(files)) if _locked(os.path.join(files, n))]
    leases = {lease.name: lease for lease in held}
    alone = {name: words for name, words in (others or {}).items() if name not in leases}
    wishes = read_wishes(where)
    order = {name: i for i, name in enumerate(wishes["order"])}
    files = os.path.join(where, "tickets")
    live = [n for n in _names(files) if _locked(os.path.join(files, n))]
    live.sort(key=lambda n: (order.get(n, len(order)), n))
    waiting = tuple(_waiting(n, _read(os.path.join(files, n)), wishes, uuids) for n in live)
    return explained(View(tuple(uuids), leases, waiting, alone))


def wish(where: str, id: str, what: str, yes: bool = True) -> None:
    """Have one held, let go regardless of other people's processes, or cancelled. Raises KeyError for one not there."""
    with _alone(where):
        live = [w.id for w in look(where).waiting]
        if id not in live:
            raise KeyError(id)
        wishes = read_wishes(where)
        wishes[what] = [n for n in wishes[what] if n != id] + ([id] if yes else [])
        _keep_wishes(where, wishes, live)


def move(where: str, id: str, to: str) -> None:
    """Move one `up` or `down` a place, or to be `first` or `last`. Raises KeyError for one that is not there."""
    with _alone(where):
        live = [w.id for w in look(where).waiting]
        if id not in live:
            raise KeyError(id)
        at = live.index(id)
        live.remove(id)
        live.insert({"up": max(0, at - 1), "down": at + 1, "first": 0, "last": len(live)}[to], id)
        _keep_wishes(where, {**read_wishes(where), "order": live}, live)


def change(where: str, id: str, what: str) -> None:
    """One of CHANGES or MOVES. Raises KeyError for one that is not there, OSError."""
    if what in MOVES:
        move(where, id, what)
    else:
        wish(where, id, *CHANGES[what])


def read_wishes(where: str) -> dict[str, list[str]]:
    """What people asked for; what is no list of names is left out."""
    found = _read(os.path.join(where, "wishes.json"))
    return {w: [n for n in _list(found.get(w)) if isinstance(n, str)] for w in WISHES}


# Files


@contextlib.contextmanager
def _alone(where: str) -> Iterator[None]:
    """Nobody else joins, goes in or is moved meanwhile. Raises Stuck."""
    fd = os.open(os.path.join(where, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Stuck(11, "is held by a process that does not go on", where) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def _sweep(where: str) -> None:
    """Remove the tickets of those who died while they waited."""
    tickets = os.path.join(where, "tickets")
    for name in _names(tickets):
        path = os.path.join(tickets, name)
        if not _locked(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _lease(where: str, name: str) -> int | None:
    """A held lease's descriptor, which a worker inherits; None when somebody has it."""
    path = os.path.join(where, "leases", _file_name(name))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + 0.1
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > end:  # longer than anybody takes to see whether it is held
                os.close(fd)
                return None
            time.sleep(0.005)


def _file_name(name: str) -> str:
    """A lease's name as a file: UUIDs are plain, and what is not is made so."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"


def _lease_of(path: str) -> Lease:
    told = _read(path)
    name = _text(told, "name") or os.path.basename(path)
    title, run_dir = _text(told, "title"), _text(told, "run_dir")
    return Lease(name, title, run_dir, int(_number(told, "pid")), _number(told, "since"))


def _locked(path: str) -> bool:
    """Whether a live process holds this file's lock. Asked with a shared lock, so that two who ask see the same."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    """Tickets or leases; whatever else lies there is not ours."""
    try:
        found = os.listdir(folder)
    except OSError:
        return []
    if os.path.basename(folder) == "tickets":
        return [n for n in found if len(n) == 20 and n.isdigit()]
    return [n for n in found if not n.startswith(".")]


def _waiting(id: str, told: dict[str, Any], wishes: Mapping[str, Sequence[str]], uuids: Sequence[str]) -> Waiting:
    asked = told.get("request")
    asked = asked if isinstance(asked, dict) else {}
    first, visible = asked.get("first"), asked.get("visible")
    request = Request(
        max(0, int(_number(asked, "count"))),
        first if isinstance(first, int) and first >= 0 else None,
        visible if isinstance(visible, str) else None,
    )
    return Waiting(
        id,
        _text(told, "title"),
        _text(told, "run_dir"),
        int(_number(told, "pid")),
        _number(told, "since"),
        request,
        held=id in wishes["held"],
        regardless=id in wishes["regardless"],
        cancelled=id in wishes["cancelled"],
        choices=request.choices(uuids),
    )


def _keep_wishes(where: str, wishes: Mapping[str, Sequence[str]], live: Sequence[str]) -> None:
    """Write the wishes of those who still wait, whole or not at all."""
    path = os.path.join(where, "wishes.json")
    temp = f"{path}.{os.getpid()}"
    with open(temp, "w", encoding="utf-8") as f:
        json.dump({w: [n for n in names if n in live] for w, names in wishes.items()}, f)
    os.replace(temp, path)


def _write(fd: int, value: dict[str, Any]) -> None:
    """In place: the file is its lock."""
    data = json.dumps(value).encode()
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as f:
            found = json.loads(f.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _number(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    return value if isinstance(value, (int, float)) and abs(value) < 2**53 else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# From elsewhere


def main(argv: Sequence[str]) -> int:
    """See the head of this file. 2: not asked for in that way, 3: that one does not wait, 4: the queue cannot be used."""
    from engine.servers import inventory

    where = place()
    if argv != ["look"] and (len(argv) != 2 or argv[0] not in (*MOVES, *CHANGES)):
        sys.stderr.write(f"look, or one of {', '.join((*CHANGES, *MOVES))} and a number\n")
        return 2
    try:
        if argv != ["look"]:
            change(where, argv[1], argv[0])
    except KeyError:
        sys.stderr.write(f"{argv[1]} does not wait any more\n")
        return 3
    except OSError as e:
        sys.stderr.write(f"The queue at {where} cannot be changed: {e.strerror}\n")
        return 4
    gpus, note = inventory.gpus_now()
    view = look(where, [g.uuid for g in gpus], inventory.others(gpus))
    json.dump({"view": view.to_json(), "gpus": [asdict(g) for g in gpus], "note": note}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
