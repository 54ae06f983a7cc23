"""The agent: answers at the far end of a link. Python 3.8 and its standard library, sent over the link itself with `batch`.

It speaks frames over its standard input and output, many at once, answered as they get ready. All that it keeps lies in
one folder (`~/.dojang`), and nothing that it is sent is executed but the commands of `run` and `submit`.

    blobs/ab/DIGEST   contents by digest      parts/DIGEST   contents on their way
    data/NAME         trees of hard links     envs/ID        environments
    runs/ID           one run: its files, and owner.json, lock, events.jsonl, train.log, control.json, exit.json
    tmp               what is being written; an owner's leftovers go with the next agent

A frame: MAGIC, length of the header, length of the body (both 4 bytes, big endian), header (JSON), body (bytes).
A request's header: id, op, arguments. A reply's: id, and values or error {kind, text, details}; `more` if not the last.
Of its own accord the agent says {"id": -2} now and then while a long request arrives.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import queue
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import IO, TYPE_CHECKING, Any, cast

from engine.servers import batch

PROTO = 1
BANNER = b"\0\0dojang agent\n"
MAGIC = b"\xd0j"
PREFIX = struct.Struct(">2sII")
LARGEST_HEADER = 16 << 20
LARGEST_BODY = 64 << 20
PIECE = 8 << 20  # bytes of a file in one frame, at most
SMALL = 16 << 20  # bytes of a file that is written whole
IDLE = 120.0  # s without a word before the agent takes its client for gone
PULSE = 2.0  # s after which it says that it is still receiving
CHUNK = 1 << 16
POLL = 0.03  # s between looks at files that are waited for
PROBE_SECONDS = 0.5  # longer than anybody holds a lock to see whether it is held
LAYING = 300.0  # s that one waits for somebody else who lays down the same folder
SILENT = 60.0  # s without an event before a run is called silent
STARTING = 30.0  # s a launcher may take before its run is called lost
SMI_TIMEOUT = 10.0
ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ID_OF_PARTITION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KINDS = ("runs", "data", "envs")
RESERVED = (
    "owner.json", "lock", "events.jsonl", "exit.json", ".launch.json", "slurm.json", ".batch.json", ".batch.py", "job.sh",
)  # fmt: skip
ENDS = ("done", "stopped", "paused", "failed")
STREAMS = {"events": "events.jsonl", "log": "train.log"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BARRED = (errno.EROFS, errno.EACCES, errno.EPERM)
GPU_QUERY = "index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu,driver_version"

# Started for each attempt at a run; becomes its supervisor. Whatever is repeated, raced or killed, of all launchers of
# one attempt only the one that holds the lock and finds no mark of it goes on, and it leaves its mark first.
LAUNCHER = r"""
import fcntl, json, os, signal, sys, time
run = sys.argv[1]
try:
    with open(run + "/.launch.json") as f:
        told = json.load(f)
except FileNotFoundError:
    os._exit(0)
if told["fork"] and os.fork():
    os._exit(0)
log = os.open(run + "/train.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
null = os.open(os.devnull, os.O_RDONLY)
for a, b in ((null, 0), (log, 1), (log, 2)):
    os.dup2(a, b)
for fd in (null, log):
    if fd > 2:
        os.close(fd)
lock = os.open(run + "/lock", os.O_RDWR | os.O_CREAT, 0o600)
for _ in range(200):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        time.sleep(0.01)
else:
    os._exit(0)
def written(name, value):
    with open(run + "/." + name, "w") as f:
        json.dump(value, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(run + "/." + name, run + "/" + name)
try:
    with open(run + "/owner.json") as f:
        if json.load(f)["attempt"] >= told["attempt"]:
            os._exit(0)
except (OSError, ValueError, KeyError):
    pass
try:
    os.unlink(run + "/.launch.json")
except OSError:
    os._exit(0)
try:
    os.ftruncate(lock, 0)
    os.write(lock, ("%d %.3f\n" % (os.getpid(), time.time())).encode())
except OSError:
    pass
try:
    with open("/proc/self/stat", "rb") as f:
        start = int(f.read().rpartition(b")")[2].split()[19])
except (OSError, ValueError, IndexError):
    start = 0
written("owner.json", {"pid": os.getpid(), "start": start, "boot": told["boot"], "host": told["host"],
                       "attempt": told["attempt"]})
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.set_inheritable(lock, True)
argv = [a.replace("{lock}", str(lock)) for a in told["argv"]]
try:
    os.chdir(told["cwd"])
    os.execvpe(argv[0], argv, told["env"])
except (OSError, ValueError) as e:
    reason = "%s could not be started: %s." % (argv[0], getattr(e, "strerror", None) or e)
    print(reason, file=sys.stderr, flush=True)
    written("exit.json", {"code": 127, "reason": reason, "ended": time.time(), "launched": False})
os._exit(127)
"""

# Runs one command of `run`. Its standard input is the agent's hand: when that lets go, however, all of it ends.
GUARDIAN = r"""
import json, os, select, signal, subprocess, sys, time
told = json.loads(sys.stdin.buffer.readline())
out = int(sys.argv[1])
try:
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
except Exception:
    pass
look, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
signal.signal(signal.SIGCHLD, lambda *a: None)
def done(**value):
    os.write(out, json.dumps(value).encode())
    os._exit(0)
try:
    child = subprocess.Popen(told["argv"], cwd=told["cwd"], env=told["env"], stdin=subprocess.DEVNULL,
                             stderr=subprocess.STDOUT, start_new_session=True)
except (OSError, ValueError) as e:
    done(error=getattr(e, "strerror", None) or str(e), code=127)
os.close(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
def kill(number):
    try:
        os.killpg(child.pid, number)
    except OSError:
        pass
def sweep():
    for _ in range(50):
        found = []
        try:
            for n in os.listdir("/proc"):
                if n.isdigit():
                    try:
                        with open("/proc/%s/stat" % n, "rb") as f:
                            if int(f.read().rpartition(b")")[2].split()[1]) == os.getpid():
                                found.append(int(n))
                    except (OSError, ValueError, IndexError):
                        pass
        except OSError:
            pass
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            except OSError:
                pass
why, asked = None, 0.0
end = time.monotonic() + told["limit"]
while True:
    if child.poll() is not None:
        break
    now = time.monotonic()
    if why is None and now >= end:
        why, asked = "timed_out", now
        kill(15)
    if why and now - asked > told["grace"]:
        kill(9)
    hands = [look] if why else [look, 0]
    ready = select.select(hands, [], [], min(1.0, max(0.02, end - now)) if why is None else 0.2)[0]
    if look in ready:
        os.read(look, 4096)
    if 0 in ready and why is None:
        why, asked = "interrupted", now
        kill(15)
kill(9)
sweep()
done(code=child.returncode, timed_out=why == "timed_out", interrupted=why == "interrupted")
"""

if TYPE_CHECKING:
    Values = dict[str, Any]  # what a reply holds, as JSON


class Fault(Exception):
    """What goes back instead of an answer. `kind` is one that the other end knows; `details` say what is there."""

    def __init__(self, kind: str, text: str, **details: Any) -> None:
        super().__init__(text)
        self.kind, self.text, self.details = kind, text, details


def fault_of(e: BaseException) -> Fault:
    """Any failure as one that the other end knows."""
    if isinstance(e, Fault):
        return e
    if isinstance(e, batch.Trouble):
        return Fault(e.kind, e.text)
    if isinstance(e, OSError):
        name = f" ({e.filename})" if e.filename else ""
        text = f"{e.strerror or e}{name}"
        number = e.errno or 0
        kind = "DISK_FULL" if number in FULL else "READ_ONLY" if number in BARRED else "AGENT_FAULT"
        if number in (errno.ENOENT, errno.ENOTDIR):
            kind = "NOT_THERE"
        return Fault(kind, text, errno=number)
    return Fault("AGENT_FAULT", f"{type(e).__name__}: {e}")


def refuse(text: str) -> Fault:
    return Fault("REFUSED", text)


def digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: str) -> Any:
    """The hash object of a whole file."""
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as f:
        while True:
            piece = f.read(1 << 20)
            if not piece:
                return found
            found.update(piece)


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            return f.read().strip()
    except OSError:
        return ""


def process(pid: int) -> tuple[int, str]:
    """Start in ticks since boot, and state, of a process; (0, "X") without it. What is dead but unburied is dead."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            parts = f.read().rpartition(b")")[2].split()
        return int(parts[19]), parts[0].decode()
    except (OSError, IndexError, ValueError):
        return 0, "X"


def read_json(path: str) -> dict[str, Any]:
    """What a small file says; empty if it cannot be read."""
    try:
        with open(path, "rb") as f:
            found = json.loads(f.read(1 << 20))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def checked(value: Any, pattern: Any, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise refuse(f"{str(value)[:80]!r} is no {what}")
    return value


def whole(value: Any, low: int, high: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(f"{what} must be a whole number, {low} to {high}")
    return value


def seconds(value: Any, high: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
        raise refuse(f"{what} must be 0 to {high:g} seconds")
    return float(value)


def words(value: Any, what: str) -> list[str]:
    """A command line: texts without a null, the first not empty."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise refuse(f"{what} must be a list of texts")
    if not value[0]:
        raise refuse(f"{what} names no program")
    return value


def variables(value: Any) -> dict[str, str]:
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise refuse("env must be a table")
    for name, text in value.items():
        checked(name, NAME, "name of a variable")
        if not isinstance(text, str) or "\0" in text:
            raise refuse(f"the variable {name} must be a text")
    return value


def steps_of(path: Any) -> list[str]:
    """The parts of a relative path that goes nowhere but down."""
    if not isinstance(path, str) or not 0 < len(path) <= 4000 or "\0" in path:
        raise refuse(f"{str(path)[:80]!r} is no path")
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts):
        raise refuse(f"{path[:80]!r} is no relative path that goes down only")
    return parts


def login_free() -> dict[str, str]:
    """Our environment without what belongs to this login."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SSH_")}


@contextmanager
def locked(path: str, patience: float = PROBE_SECONDS) -> Iterator[int]:
    """Hold `path`'s lock; yields its descriptor, or -1 if somebody else holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + patience
        held = -1
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = fd
                break
            except OSError:
                if time.monotonic() > end:
                    break
                time.sleep(0.01)
        yield held
    finally:
        os.close(fd)


def is_held(path: str) -> bool:
    """Whether a living process holds a run's lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


class Root:
    """The agent's folder: every path that is touched goes through here."""

    def __init__(self, told: str) -> None:
        path = os.path.expanduser(told or "~/.dojang")
        if not os.path.isabs(path) or "\0" in path:
            raise refuse("the folder must be an absolute path, or begin with ~")
        os.makedirs(path, 0o700, exist_ok=True)  # another agent may be making it too
        self.path = os.path.realpath(path)
        if os.stat(self.path).st_uid != os.geteuid():
            raise Fault("READ_ONLY", f"{self.path} belongs to somebody else")
        for name in ("blobs", "parts", "data", "envs", "runs", "tmp"):
            os.makedirs(os.path.join(self.path, name), 0o700, exist_ok=True)
        self._boot = (boot_id() or "0" * 8)[:8]
        self._count = 0
        self._guard = threading.Lock()
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """What agents that were killed left half written. Others of now, and of machines that share this, stay."""
        for name in os.listdir(self.join("tmp")):
            parts = name.split("-")
            if len(parts) == 4 and parts[0] == self._boot and parts[1].isdigit() and parts[2].isdigit():
                start, state = process(int(parts[1]))
                if start != int(parts[2]) or state in "ZX":
                    self.discard(self.join("tmp", name))

    def join(self, *parts: str) -> str:
        return os.path.join(self.path, *parts)

    def temp(self) -> str:
        """A fresh name for what is being written, that tells whose it is."""
        with self._guard:
            self._count += 1
            return self.join("tmp", f"{self._boot}-{os.getpid()}-{process(os.getpid())[0]}-{self._count}")

    def inside(self, path: Any) -> str:
        """`path` under our folder; refuses what a link leads out of it. The last part itself may be a link."""
        parts = steps_of(path)
        folder = os.path.realpath(self.join(*parts[:-1]))
        if folder != self.path and not folder.startswith(self.path + os.sep):
            raise refuse(f"{path[:80]!r} leads out of {self.path}")
        return os.path.join(folder, parts[-1])

    def readable(self, path: Any) -> str:
        """A file under our folder, links followed as long as they stay there."""
        found = os.path.realpath(self.inside(path))
        if not found.startswith(self.path + os.sep):
            raise refuse(f"{str(path)[:80]!r} leads out of {self.path}")
        return found

    def run(self, rid: Any) -> str:
        return self.join("runs", checked(rid, ID, "name of a run"))

    def blob(self, digest: Any) -> str:
        checked(digest, DIGEST, "digest")
        return self.join("blobs", digest[:2], digest)

    def place(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Write a small file whole or not at all."""
        temp = self.temp()
        try:
            with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temp, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp)
            raise

    def discard(self, path: str) -> None:
        """Remove a file or a folder of ours with all that is in it."""
        if os.path.isdir(path) and not os.path.islink(path):
            for folder, _, _ in os.walk(path):
                with suppress(OSError):
                    os.chmod(folder, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.unlink(path)

    def now(self) -> float:
        """Now, by the clock that stamps files here: ages are right whatever our own clock says."""
        path = self.join(".clock")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            os.utime(f.fileno())
            return os.fstat(f.fileno()).st_mtime

    def age(self, path: str) -> float | None:
        try:
            return round(max(0.0, self.now() - os.stat(path).st_mtime), 3)
        except OSError:
            return None


class Store:
    """Contents by digest, and the trees made of them."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._hashes: dict[str, tuple[int, Any]] = {}  # of parts that this agent follows: bytes so far, hash of them

    def have(self, body: bytes) -> Values:
        """Which of the digests in `body` are missing, and how much of each is there already."""
        try:
            asked = json.loads(body)
        except ValueError as e:
            raise refuse("the list of digests is no JSON") from e
        if not isinstance(asked, list):
            raise refuse("the digests must be a list")
        missing = [digest for digest in asked if not os.path.exists(self.root.blob(digest))]
        under_way = set(os.listdir(self.root.join("parts")))
        sizes = {d: size_of(self.root.join("parts", d)) for d in missing if d in under_way}
        whole = {d for d in sizes if os.path.exists(self.root.blob(d))}  # another link has sent it meanwhile
        return {"missing": [d for d in missing if d not in whole], "parts": {d: n for d, n in sizes.items() if n}}

    def put(self, body: bytes, digest: Any = None, size: Any = None, offset: Any = 0) -> Values:
        """One piece of a content. A piece out of turn is a Conflict that says how much there is."""
        path = self.root.blob(digest)
        size = whole(size, 0, 1 << 50, "size")
        offset = whole(offset, 0, size, "offset")
        if len(body) > PIECE or offset + len(body) > size:
            raise refuse("the piece is longer than it may be")
        if os.path.exists(path):
            return {"have": size, "done": True}
        if offset == 0 and len(body) == size:
            if digest_of(body) != digest:
                raise Fault("CONFLICT", "what arrived is not what was announced", have=0)
            temp = self.root.temp()
            self._write(temp, body)
            self._keep(temp, path)
            return {"have": size, "done": True}
        return self._piece(path, digest, size, offset, body)

    def _piece(self, path: str, digest: str, size: int, offset: int, body: bytes) -> Values:
        part = self.root.join("parts", digest)
        with locked(part, 5.0) as held:
            if held < 0:
                raise Fault("CONFLICT", "somebody else is sending it", have=0)
            have = os.fstat(held).st_size
            if have > size:
                os.ftruncate(held, 0)  # not of ours
                have = 0
            if offset > have:
                if not have:
                    os.unlink(part)
                raise Fault("CONFLICT", f"{have} bytes are there, not {offset}", have=have)
            body = body[have - offset :]  # a piece sent again may be there in part
            known = self._hashes.pop(digest, (-1, None))
            running = known[1] if known[0] == have else file_digest(part)
            try:
                written = 0
                while written < len(body):
                    written += os.pwrite(held, body[written:], have + written)
            except OSError:
                os.ftruncate(held, have)
                raise
            running.update(body)
            have += len(body)
            if have < size:
                self._hashes[digest] = (have, running)
                return {"have": have, "done": False}
            if running.hexdigest() != digest:
                os.unlink(part)
                raise Fault("CONFLICT", "what arrived is not what was announced", have=0)
            os.fsync(held)
            self._keep(part, path)
        return {"have": size, "done": True}

    def _write(self, temp: str, body: bytes) -> None:
        try:
            with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as f:
                view = memoryview(body)
                while view:
                    view = view[f.write(view) or 0 :]
        except BaseException:
            with suppress(OSError):
                os.unlink(temp)
            raise

    def _keep(self, source: str, path: str) -> None:
        """Into the store, never to be written again."""
        try:
            os.chmod(source, 0o400)
            try:
                os.replace(source, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
                os.replace(source, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(source)
            raise

    def materialise(self, body: bytes, name: Any = None, kind: Any = "data") -> Values:
        """A folder KIND/NAME of all that `body` lists: {path: [digest, size]}, or [digest, size, mode] for a copy."""
        if kind not in ("data", "envs"):
            raise refuse("only data and envs are made of contents")
        target = self.root.join(kind, checked(name, ID, "name"))
        wanted = self._manifest(body)
        with locked(
            target + ".lock", LAYING
        ) as held:  # a folder whose mark is still to come is not taken for a torn one
            if held < 0:
                raise Fault("CONFLICT", f"somebody else is laying down {kind}/{name}")
            return self._made(target, wanted, f"{kind}/{name}")

    def _made(self, target: str, wanted: dict[str, tuple[str, int, int]], name: str) -> Values:
        mark, seal = target + ".manifest", digest_of(json.dumps(sorted(wanted.items())).encode())
        if os.path.isdir(target):
            if read_json(mark).get("digest") == seal:
                return {"path": target, "files": len(wanted), "new": False}
            if os.path.exists(mark):
                raise Fault("CONFLICT", f"{name} holds something else")
            self.root.discard(target)  # laid down, but its mark was not: made again
        short = [path for path, (digest, size, _) in wanted.items() if not self._whole(digest, size)]
        if short:
            raise Fault(
                "NOT_THERE", f"{len(short)} contents are missing", missing=sorted({wanted[p][0] for p in short})
            )
        temp = self.root.temp()
        try:
            self._lay(temp, wanted)
            sync_all(temp)
            os.rename(temp, target)
        except BaseException:
            self.root.discard(temp)
            raise
        self.root.place(mark, json.dumps({"digest": seal, "files": len(wanted)}).encode())
        return {"path": target, "files": len(wanted), "new": True}

    def _manifest(self, body: bytes) -> dict[str, tuple[str, int, int]]:
        try:
            told = json.loads(body)
        except ValueError as e:
            raise refuse("the manifest is no JSON") from e
        if not isinstance(told, dict):
            raise refuse("the manifest must be a table")
        wanted = {}
        for path, entry in told.items():
            steps_of(path)
            if not isinstance(entry, list) or len(entry) not in (2, 3):
                raise refuse(f"the manifest's entry of {path[:80]!r} is none")
            mode = whole(entry[2], 0, 0o777, "mode") if len(entry) == 3 else -1
            wanted[path] = (checked(entry[0], DIGEST, "digest"), whole(entry[1], 0, 1 << 50, "size"), mode)
        return wanted

    def _whole(self, digest: str, size: int) -> bool:
        """Whether a content is there; one that a crash of the machine has spoilt is removed."""
        path = self.root.blob(digest)
        try:
            if os.stat(path).st_size == size:
                return True
            if file_digest(path).hexdigest() != digest:
                os.unlink(path)
        except OSError:
            pass
        return False

    def _lay(self, folder: str, wanted: dict[str, tuple[str, int, int]]) -> None:
        os.mkdir(folder, 0o700)
        made = {""}
        for path, (digest, _, mode) in wanted.items():
            above = path.rpartition("/")[0]
            if above not in made:
                os.makedirs(os.path.join(folder, above), 0o700, exist_ok=True)
                made.add(above)
            self.lay_one(digest, os.path.join(folder, path), mode)

    def lay_one(self, digest: str, path: str, mode: int = -1) -> None:
        """A link to a content, or a copy where links are refused or other rights are wanted."""
        source = self.root.blob(digest)
        if mode < 0:
            try:
                os.link(source, path)
                return
            except OSError as e:
                if e.errno not in (errno.EMLINK, errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EACCES):
                    raise
        shutil.copyfile(source, path)
        os.chmod(path, 0o400 if mode < 0 else mode)


def sync_all(folder: str) -> None:
    """What was written reaches the disk before it is called whole. Best effort: not every system can."""
    try:
        import ctypes

        fd = os.open(folder, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(fd)
        finally:
            os.close(fd)
    except (OSError, AttributeError, ImportError):
        pass


class Runs:
    """Runs: started once, looked at, asked to end. Nothing of them is kept here: all is in their folders."""

    def __init__(self, root: Root, store: Store) -> None:
        self.root, self.store = root, store
        self.batch = batch.Batch(root)

    def submit(
        self, rid: Any = None, argv: Any = None, env: Any = None, files: Any = None, blobs: Any = None, cwd: Any = "",
        attempt: Any = 1, slurm: Any = None,
    ) -> Values:  # fmt: skip
        """Start an attempt at a run, once, however often and by however many this is asked. See LAUNCHER.

        With `slurm`, {options, margin, python}, a job of Slurm's does: see `batch`.
        """
        run = self.root.run(rid)
        attempt = whole(attempt, 1, 100000, "attempt")
        told = self._told(run, argv, env, cwd, attempt)
        files, blobs = self._files(files, blobs)
        how = [] if slurm else self._how()
        asked = self._asked_of_slurm(slurm) if slurm else {}
        if attempt == 1:
            with suppress(FileExistsError):
                os.mkdir(run, 0o700)
        elif not os.path.isdir(run):
            raise Fault("NOT_THERE", f"there is no run {rid}")
        sealed = [argv, env or {}, files, blobs, cwd, *([asked] if asked else [])]
        seal = digest_of(json.dumps(sealed, sort_keys=True).encode())
        if asked:
            return self._submit_job(rid, run, dict(told, env=variables(env), **asked), (files, blobs, seal))
        if self._begun(read_json(os.path.join(run, "owner.json")), attempt):
            return self._there(rid, run, seal, attempt)
        with locked(os.path.join(run, "lock")) as held:
            owner = read_json(os.path.join(run, "owner.json"))
            if self._begun(owner, attempt):
                return self._there(rid, run, seal, attempt)
            if held < 0:
                if attempt > 1 and not self._launching(run, attempt):
                    raise Fault("CONFLICT", f"{rid} is still running", attempt=owner.get("attempt"))
            else:
                self._lay(run, files, blobs, seal, attempt)
                self.root.place(os.path.join(run, ".launch.json"), json.dumps(told).encode())
        if held >= 0:
            self._launch(run, rid, how)
        self._await(run, attempt)
        return self._there(rid, run, seal, attempt, started=held >= 0)

    def _asked_of_slurm(self, slurm: Any) -> Values:
        try:
            wanted = batch.options(slurm.get("options"))
        except (ValueError, AttributeError) as e:
            raise refuse(str(e)) from e
        margin = whole(slurm.get("margin"), 1, 65535, "margin")
        return {
            "options": wanted,
            "margin": margin,
            "python": words([slurm.get("python") or sys.executable], "python")[0],
        }

    def _submit_job(self, rid: str, run: str, told: Values, laid: tuple[Any, Any, str]) -> Values:
        """The same as a job. What Slurm refuses leaves nothing behind, so that it can be asked for anew."""
        files, blobs, seal = laid
        attempt = told["attempt"]
        told["env"] = {k: v.replace("{run}", run).replace("{root}", self.root.path) for k, v in told["env"].items()}
        with locked(os.path.join(run, ".slurm.lock"), batch.SUBMITTING) as held:
            if held < 0:
                raise Fault("SCHEDULER_DOWN", "somebody else is submitting it and gets no answer")
            before = read_json(os.path.join(run, "slurm.json"))
            job = before
            if before.get("attempt") != attempt:
                job = {"attempt": attempt, "job": 0, "name": f"{batch.OURS}{rid}-{attempt}-{os.urandom(4).hex()}"}
            elif before.get("job") or self.batch.find(run, before, 0.0, batch.TIMEOUT):
                return self._there(rid, run, seal, attempt)
            another = before.get("attempt") not in (None, attempt) and self._alive(rid)
            if another or is_held(os.path.join(run, "lock")):
                raise Fault("CONFLICT", f"{rid} is still running")
            earlier = read_json(os.path.join(run, "submitted.json"))
            self.batch.keep(run, job)
            self._lay(run, files, blobs, seal, attempt)
            try:
                self.batch.submit(run, told, job)
            except batch.Trouble as e:
                if e.kind != "SCHEDULER_DOWN":
                    self._undo(run, attempt, before, earlier)
                raise
        return self._there(rid, run, seal, attempt, started=True)

    def waits(self, rid: Any) -> bool:
        """Whether Slurm has a job of it."""
        return bool(read_json(os.path.join(self.root.run(rid), "slurm.json"))) and self._alive(rid)

    def _alive(self, rid: str) -> bool:
        return self.status(rid)["state"] in ("queued", "starting", "running", "silent", "orphan")

    def _undo(self, run: str, attempt: int, before: Values, earlier: Values) -> None:
        if attempt == 1:
            temp = self.root.temp()
            os.rename(run, temp)
            self.root.discard(temp)
            return
        for name, value in (("slurm.json", before), ("submitted.json", earlier)):
            self.root.place(os.path.join(run, name), json.dumps(value).encode())

    def _told(self, run: str, argv: Any, env: Any, cwd: Any, attempt: int) -> Values:
        places = {"{run}": run, "{root}": self.root.path, "{home}": os.path.expanduser("~")}

        def placed(text: str) -> str:
            for name, path in places.items():
                text = text.replace(name, path)
            return text

        added = {k: placed(v) for k, v in variables(env).items()}
        return {
            "argv": [placed(a) for a in words(argv, "argv")],
            "env": dict(login_free(), **added),
            "cwd": self.root.readable(cwd) if cwd else run,
            "attempt": attempt,
            "boot": boot_id(),
            "host": socket.gethostname(),
            "fork": True,
        }

    def _files(self, files: Any, blobs: Any) -> tuple[dict[str, str], dict[str, str]]:
        files, blobs = {} if files is None else files, {} if blobs is None else blobs
        if not isinstance(files, dict) or not isinstance(blobs, dict):
            raise refuse("files and blobs must be tables")
        for path, text in list(files.items()) + list(blobs.items()):
            if steps_of(path)[0] in RESERVED or not isinstance(text, str):
                raise refuse(f"{path[:80]!r} cannot be sent along")
        for digest in blobs.values():
            if not os.path.exists(self.root.blob(digest)):
                raise Fault("NOT_THERE", "a content of the run is missing", missing=[digest])
        return files, blobs

    def _how(self) -> list[str]:
        """What goes before the launcher, so that a logout does not end what it starts."""
        policy = kill_policy()
        if not policy["kill_user_processes"]:
            return []
        if not policy["linger"] or not shutil.which("systemd-run"):
            raise Fault("KILL_POLICY", "KillUserProcesses=yes in logind.conf, and no lingering for your account")
        return ["systemd-run", "--user", "--quiet", "--collect"]

    @staticmethod
    def _begun(owner: Values, attempt: int) -> bool:
        found = owner.get("attempt")
        return isinstance(found, int) and found >= attempt

    def _launching(self, run: str, attempt: int) -> bool:
        """Whether the lock is held by this attempt's launcher, not yet marked, or by who prepares it."""
        return read_json(os.path.join(run, "submitted.json")).get("attempt") == attempt

    def _lay(self, run: str, files: dict[str, str], blobs: dict[str, str], seal: str, attempt: int) -> None:
        with suppress(OSError):
            os.unlink(os.path.join(run, "exit.json"))
        for path, text in files.items():
            target = self.root.inside(f"runs/{os.path.basename(run)}/{path}")
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            self.root.place(target, text.encode("utf-8", "surrogateescape"))
        for path, digest in blobs.items():
            target = self.root.inside(f"runs/{os.path.basename(run)}/{path}")
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            temp = self.root.temp()
            self.store.lay_one(digest, temp)
            os.replace(temp, target)
            with suppress(OSError):
                os.unlink(temp)  # a link renamed onto another of its own stays
        self.root.place(os.path.join(run, "submitted.json"), json.dumps({"attempt": attempt, "digest": seal}).encode())

    def _launch(self, run: str, rid: str, how: list[str]) -> None:
        command = [sys.executable, "-I", "-X", "utf8", "-c", LAUNCHER, run]
        if how:  # the service manager is its parent: nothing to step away from, and it would take a fork for the end
            told = read_json(os.path.join(run, ".launch.json"))
            self.root.place(os.path.join(run, ".launch.json"), json.dumps(dict(told, fork=False)).encode())
            command = [*how, f"--unit=dojang-{rid}-{time.time_ns()}", *command]
        null = subprocess.DEVNULL
        done = subprocess.run(
            command, stdin=null, stdout=null, stderr=subprocess.PIPE, start_new_session=True, timeout=STARTING,
            cwd="/", check=False,
        )  # fmt: skip
        if done.returncode:
            raise Fault("AGENT_FAULT", "the launcher failed: " + done.stderr.decode("utf-8", "replace")[-300:])

    def _await(self, run: str, attempt: int) -> None:
        """Until the launcher has left its mark."""
        end, alone = time.monotonic() + STARTING, 0
        while time.monotonic() < end and alone < 40:
            if self._begun(read_json(os.path.join(run, "owner.json")), attempt):
                return
            nobody = not os.path.exists(os.path.join(run, ".launch.json")) and not is_held(os.path.join(run, "lock"))
            alone = alone + 1 if nobody else 0  # the launcher is gone, and left no mark: asked again, all begins anew
            time.sleep(0.005)
        raise Fault("DISK_FULL" if no_space(run) else "AGENT_FAULT", "it could not be started")

    def _there(self, rid: str, run: str, seal: str, attempt: int, started: bool = False) -> Values:
        """How it stands. Another content under the same name and attempt is somebody else's run."""
        found = read_json(os.path.join(run, "submitted.json"))
        if found.get("attempt") == attempt and found.get("digest") != seal:
            raise Fault("CONFLICT", f"{rid} is another run's name already")
        return {"started": started, "run": self.status(rid)}

    def status(self, rid: Any, silent: float = SILENT) -> Values:
        """Where one run stands, proven by its lock, its processes and its last word; no clock of ours counts."""
        run = self.root.run(rid)
        if not os.path.isdir(run):
            return {"state": "absent", "reason": ""}
        owner = read_json(os.path.join(run, "owner.json"))
        held = is_held(os.path.join(run, "lock"))
        events = os.path.join(run, "events.jsonl")
        quiet = self.root.age(events)
        base = {
            "owner": owner, "attempt": owner.get("attempt", 0), "events": size_of(events),
            "log": size_of(os.path.join(run, "train.log")), "quiet": quiet,
        }  # fmt: skip
        told = read_json(os.path.join(run, "slurm.json"))
        if told.get("attempt"):
            state, reason = self.batch.stand(
                run, told, owner, lambda: last_word(run), lambda: self._seen_alive(run, owner, held, quiet, silent)
            )
            attempt = told["attempt"] if told.get("job") else base["attempt"]
            return dict(base, state=state, reason=reason, attempt=attempt, job=told.get("job"))
        state, reason = self._living(run, owner, quiet, silent) if held else self._ended(run, owner)
        return dict(base, state=state, reason=reason)

    def _seen_alive(
        self, run: str, owner: Values, held: bool, quiet: float | None, silent: float
    ) -> tuple[str, str] | None:
        """A job's state while its lock is seen to be held or, where it runs on another machine, its heart to beat."""
        if not held:
            beat = self.root.age(os.path.join(run, "heartbeat"))
            if owner.get("boot") == boot_id() or beat is None or beat > batch.BEATS:
                return None
        if quiet is not None and quiet > silent:
            return "silent", f"No word from it for {quiet:.0f} s."
        return ("running" if size_of(os.path.join(run, "events.jsonl")) else "starting"), ""

    def _living(self, run: str, owner: Values, quiet: float | None, silent: float) -> tuple[str, str]:
        if not owner or self._launching_anew(run, owner):
            return "starting", ""
        if owner.get("boot") == boot_id() and not alive(owner):
            return "orphan", "Its supervisor is gone; the training itself goes on."
        quiet = self.root.age(os.path.join(run, "owner.json")) if quiet is None else quiet
        if quiet is not None and quiet > silent:
            held_up = any(process(pid)[1] in "Tt" for pid in holders(os.path.join(run, "lock")))
            return "silent", "It was halted by a signal." if held_up else f"No word from it for {quiet:.0f} s."
        return ("running", "") if size_of(os.path.join(run, "events.jsonl")) else ("starting", "")

    def _launching_anew(self, run: str, owner: Values) -> bool:
        found = read_json(os.path.join(run, "submitted.json")).get("attempt")
        return isinstance(found, int) and found > owner.get("attempt", 0)

    def _ended(self, run: str, owner: Values) -> tuple[str, str]:
        last = read_json(os.path.join(run, "exit.json"))
        if not owner:
            age = self.root.age(run)
            if age is not None and age < STARTING:
                return "starting", ""
            return "lost", "It was never started."
        word = last_word(run)
        if word in ENDS:
            return word, ""
        if last.get("launched") is False:
            return "failed", str(last.get("reason", ""))[:300]
        if last:  # before any restart: an attempt begins by removing the last one's
            return "lost", str(last.get("reason") or "It ended by itself, but wrote no last word.")[:300]
        if owner.get("boot") != boot_id():
            return "lost", "The server was restarted."
        full = " No space is left on its disk." if no_space(run) else ""
        return "lost", "It was killed together with its supervisor." + full

    def cancel(self, rid: Any = None, force: Any = False, token: Any = "") -> Values:
        """Ask a run's supervisor to end it; with `force`, kill all of it. Asked again with the same token: once."""
        run = self.root.run(rid)
        lock, mark = os.path.join(run, "lock"), os.path.join(run, ".cancelled.json")
        told = read_json(os.path.join(run, "slurm.json"))
        if told.get("attempt"):
            if not (token and read_json(mark).get("token") == token):
                self._stop_job(run, told, bool(force))
                self.root.place(mark, json.dumps({"token": token}).encode())
        elif is_held(lock) and not (token and read_json(mark).get("token") == token):
            self._end(run, lock, bool(force))
            self.root.place(mark, json.dumps({"token": token}).encode())
        return {"run": self.status(rid)}

    def _stop_job(self, run: str, told: Values, force: bool) -> None:
        """By its control file, which several processes heed alone, then through Slurm."""
        if not force:
            path = os.path.join(run, "control.json")
            asked = {"request": "stop", "settings": read_json(path).get("settings") or {}, "at": time.time()}
            self.root.place(path, json.dumps(asked).encode())
        self.batch.cancel(run, told, force)

    def _end(self, run: str, lock: str, force: bool) -> None:
        owner = read_json(os.path.join(run, "owner.json"))
        here = owner.get("boot") == boot_id()
        if not force and here and alive(owner):
            os.kill(int(owner["pid"]), signal.SIGTERM)
            return
        found = holders(lock)
        if not found:
            raise Fault("CONFLICT", "it runs on another machine: {}".format(owner.get("host", "?")))
        for _ in range(20):
            for pid in found:
                end_group(pid, signal.SIGKILL if force else signal.SIGTERM)
            if not force or not is_held(lock):
                break
            time.sleep(0.1)
            found = holders(lock)


def size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def no_space(folder: str) -> bool:
    """Whether hardly anything can be written there any more."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 1 << 16 or (disk.f_files > 0 and not disk.f_favail)


def alive(owner: Values) -> bool:
    """Whether the very process that `owner` tells of lives: a number alone may have gone to another."""
    try:
        start, state = process(int(owner["pid"]))
        return start == int(owner["start"]) and state not in "ZX"
    except (KeyError, TypeError, ValueError):
        return False


def last_word(run: str) -> str:
    """The state in the log's last word, if it belongs to the attempt begun last; `requeue` once Slurm is to go on."""
    path = os.path.join(run, "events.jsonl")
    try:
        with open(path, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - (64 << 10)))
            tail = f.read()
        if os.stat(path).st_mtime_ns < os.stat(os.path.join(run, "owner.json")).st_mtime_ns:
            return ""
    except OSError:
        return ""
    for line in reversed(tail[: tail.rfind(b"\n") + 1].split(b"\n")):
        try:
            event = json.loads(line) if line else None
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("kind") in ("start", "end", "requeue"):
            return {"end": str(event.get("state", "")), "start": ""}.get(event["kind"], "requeue")
    return ""


def holders(lock: str) -> list[int]:
    """Every process of ours that holds a run's lock, not those that only look at it."""
    try:
        wanted = os.stat(lock)
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):
                with suppress(OSError):
                    seen = os.stat(f"/proc/{name}/fd/{fd}")
                    if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino) and holds(name, fd):
                        found.append(int(name))
                        break
    return found


def holds(pid: str, fd: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}") as f:
        return any(line.startswith("lock:") and "WRITE" in line for line in f)


def end_group(pid: int, number: int) -> None:
    """Signal a process, and the group that it leads if it does."""
    with suppress(OSError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
            return
    with suppress(OSError):
        os.kill(pid, number)


def kill_policy() -> Values:
    """Whether a logout ends what a login started (None: unknown), and whether lingering is on."""
    try:
        import pwd

        user = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        user = ""
    linger = bool(user) and os.path.exists("/var/lib/systemd/linger/" + user)
    if not os.path.exists("/run/systemd/system") or not shutil.which("busctl"):
        return {"kill_user_processes": False, "linger": linger}
    name = "org.freedesktop.login1"
    command = ["busctl", "get-property", name, "/org/freedesktop/login1", name + ".Manager", "KillUserProcesses"]
    try:
        out = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {"kill_user_processes": None, "linger": linger}
    return {"kill_user_processes": {b"b true": True, b"b false": False}.get(out.strip()), "linger": linger}


class Inventory:
    """What this machine has to train with, in the words that the app uses for its own."""

    def __init__(self) -> None:
        self._hanging: list[subprocess.Popen[bytes]] = []

    def probe(self, root: str) -> Values:
        """One look. Takes as long as nvidia-smi does, about 10 s at most. Sizes in GiB."""
        gpus, note = self._gpus()
        total, free = memory()
        disk = os.statvfs(root)
        return {
            "host": socket.gethostname(),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": cores(),
            "load": round(os.getloadavg()[0], 2),
            "memory_total": total,
            "memory_free": free,
            "disk_free": round(disk.f_bavail * disk.f_frsize / 2**30, 1),
            "disk_path": root,
            "inodes_free": disk.f_favail,
            "gpus": gpus,
            "gpu_note": note,
        }

    def _gpus(self) -> tuple[list[Values], str]:
        self._hanging = [p for p in self._hanging if p.poll() is None]
        hung = (
            f"nvidia-smi did not answer within {SMI_TIMEOUT:.0f} s: the driver hangs; a restart of the machine helps."
        )
        if self._hanging:
            return [], hung
        users: dict[str, list[str]] = {}
        asking = threading.Thread(target=self._users, args=(users,), daemon=True)
        asking.start()
        try:
            code, out = self._smi("--query-gpu=" + GPU_QUERY)
        except FileNotFoundError:
            return [], "No NVIDIA driver here: training runs on the CPU."
        except subprocess.TimeoutExpired:
            return [], hung
        except OSError as e:
            return [], f"nvidia-smi cannot be run: {e.strerror}."
        if code:
            return [], driver_fault(out)
        asking.join(SMI_TIMEOUT)
        found = [g for g in (gpu(line, users) for line in out.splitlines()) if g]
        return found, "" if found else "The NVIDIA driver answers, but sees no GPU."

    def _smi(self, query: str) -> tuple[int, str]:
        """What nvidia-smi says. One that hangs may not even die when killed: then it is left behind, and remembered."""
        child = subprocess.Popen(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            out, _ = child.communicate(timeout=SMI_TIMEOUT)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            try:
                child.communicate(timeout=0.5)
            except subprocess.TimeoutExpired:
                self._hanging.append(child)
            raise
        return child.returncode, out.decode("utf-8", "replace")

    def _users(self, found: dict[str, list[str]]) -> None:
        try:
            code, out = self._smi("--query-compute-apps=gpu_uuid,pid,used_memory")
        except (OSError, subprocess.SubprocessError):
            return
        for line in out.splitlines() if not code else ():
            parts = [p.strip() for p in line.split(",")]
            if len(parts) == 3 and parts[1].isdigit():
                used = number(parts[2])
                size = ", %.1f GiB" % (used / 1024) if used is not None else ""
                found.setdefault(parts[0], []).append(f"{owner_of(parts[1])} ({parts[1]}{size})")


def driver_fault(text: str) -> str:
    if "version mismatch" in text:
        return "The NVIDIA driver was updated under a running one: restart the machine."
    if "couldn't communicate" in text:
        return "The NVIDIA driver does not answer: it is not loaded, or not for this kernel."
    if "No devices were found" in text:
        return "The NVIDIA driver answers, but sees no GPU."
    first = next((line for line in text.splitlines() if line.strip()), "no words")
    return "nvidia-smi failed: " + "".join(c for c in first if c.isprintable())[:120]


def gpu(line: str, users: dict[str, list[str]]) -> Values | None:
    parts = [p.strip() for p in line.split(",")]
    if len(parts) != 8:
        return None
    index, total, used = number(parts[0]), number(parts[3]), number(parts[4])
    if index is None or total is None or used is None:
        return None
    return {
        "index": index, "uuid": parts[1], "name": parts[2], "memory_total": round(total / 1024, 1),
        "memory_used": round(used / 1024, 1), "utilization": number(parts[5]), "temperature": number(parts[6]),
        "driver": parts[7], "users": users.get(parts[1], []),
    }  # fmt: skip


def number(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def owner_of(pid: str) -> str:
    try:
        import pwd

        return pwd.getpwuid(os.stat("/proc/" + pid).st_uid).pw_name
    except (OSError, KeyError, ImportError):
        return "someone"


def memory() -> tuple[float, float]:
    """Total and available memory, GiB."""
    try:
        with open("/proc/meminfo") as f:
            values = {line.partition(":")[0]: line.partition(":")[2] for line in f}
        total, free = (int(values[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
        return round(total, 1), round(free, 1)
    except (OSError, KeyError, ValueError, IndexError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        return round(total, 1), round(total, 1)


def processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Commands:
    """Commands that end with whoever asked for them: for building environments."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._running: dict[str, IO[bytes]] = {}
        self._guard = threading.Lock()

    def run(
        self, part: Callable[[bytes], None], argv: Any = None, cwd: Any = "", env: Any = None, limit: Any = 3600,
        key: Any = "", hold: Any = "", grace: Any = 5.0,
    ) -> Values:  # fmt: skip
        """Run `argv` to its end; `part` gets what it prints as it comes. `hold`: a lock held for as long.

        It has `limit` seconds, and `grace` more from SIGTERM to SIGKILL.
        """
        told = {
            "argv": words(argv, "argv"),
            "cwd": self.root.readable(cwd) if cwd else self.root.path,
            "env": dict(login_free(), **variables(env)),
            "limit": seconds(limit, 7 * 86400.0, "limit"),
            "grace": seconds(grace, 600.0, "grace"),
        }
        key = checked(key, ID, "key") if key else ""
        if not hold:
            return self._guarded(told, key, part, ())
        with locked(self.root.inside(hold)) as held:
            if held < 0:
                raise Fault("CONFLICT", "somebody else is at it now")
            return self._guarded(told, key, part, (held,))

    def interrupt(self, key: Any = "") -> Values:
        """End the command that was given this key."""
        with self._guard:
            hand = self._running.get(checked(key, ID, "key"))
            if hand is not None:
                with suppress(OSError, ValueError):
                    hand.write(b"\n")
                    hand.flush()
            return {"running": hand is not None}

    def _guarded(self, told: Values, key: str, part: Callable[[bytes], None], keep: tuple[int, ...]) -> Values:
        result, tell = os.pipe()
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", "-c", GUARDIAN, str(tell)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(tell, *keep), start_new_session=True,
                cwd="/",
            )  # fmt: skip
        except BaseException:
            os.close(result)
            raise
        finally:
            os.close(tell)
        assert child.stdin and child.stdout
        hand = child.stdin
        try:
            hand.write(json.dumps(told).encode() + b"\n")
            hand.flush()
            if key:
                with self._guard:
                    if key in self._running:
                        raise Fault("CONFLICT", "a command of that key is running")
                    self._running[key] = hand
            said = relay(child.stdout.fileno(), result, part)
        finally:
            with self._guard:
                if key and self._running.get(key) is hand:
                    del self._running[key]
                with suppress(OSError):
                    hand.close()
            os.close(result)
            child.stdout.close()
            child.wait()
        try:
            value = json.loads(said)
        except ValueError:
            raise Fault("AGENT_FAULT", "the command's guardian was killed") from None
        return value if isinstance(value, dict) else {}


def relay(output: int, result: int, part: Callable[[bytes], None]) -> bytes:
    """Pass on what comes from `output` until `result` ends; returns what that said."""
    said, open_ends = b"", [output, result]
    while result in open_ends:
        for fd in select.select(open_ends, [], [])[0]:
            data = os.read(fd, 65536)
            if not data:
                open_ends.remove(fd)
            elif fd == result:
                said += data
            else:
                part(data)
    while output in open_ends and select.select([output], [], [], 0)[0]:
        data = os.read(output, 65536)
        if not data:
            break
        part(data)
    return said


class Files:
    """Files under the agent's folder: read, written whole, listed, removed."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def get(self, path: str, offset: Any, limit: Any) -> tuple[Values, bytes]:
        """Bytes of a file from `offset`. A file shorter than that was begun anew: `truncated`."""
        offset, limit = whole(offset, 0, 1 << 50, "offset"), whole(limit, 0, PIECE, "limit")
        try:
            with open(path, "rb") as f:
                size = os.fstat(f.fileno()).st_size
                f.seek(offset)
                data = f.read(min(limit, max(0, size - offset)))
        except IsADirectoryError as e:
            raise refuse("that is a folder") from e
        return {"offset": offset, "size": size, "truncated": size < offset}, data

    def tree(self, path: Any = None, digests: Any = False) -> Values:
        """Every plain file below `path`: [size, time of change in ns], and its digest if asked for."""
        top = self.root.readable(path)
        if not os.path.isdir(top):
            raise Fault("NOT_THERE", f"there is no folder {path}")
        found: dict[str, list[Any]] = {}
        for folder, _, names in os.walk(top):
            for name in names:
                full = os.path.join(folder, name)
                with suppress(OSError):
                    seen = os.lstat(full)
                    if stat.S_ISREG(seen.st_mode):
                        entry: list[Any] = [seen.st_size, seen.st_mtime_ns]
                        if digests:
                            entry.append(file_digest(full).hexdigest())
                        found[os.path.relpath(full, top)] = entry
        return {"files": found}

    def place(self, body: bytes, path: Any = None) -> Values:
        """Write a small file whole, its folders made."""
        target = self._free(path)
        if len(body) > SMALL:
            raise refuse("the file is too large to be sent in one piece")
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        self.root.place(target, body)
        return {}

    def write(self, body: bytes, rid: Any = None, name: Any = "control.json") -> Values:
        """Leave a message for a run that there is."""
        run = self.root.run(rid)
        if not os.path.isdir(run):
            raise Fault("NOT_THERE", f"there is no run {rid}")
        if name != "control.json" or len(body) > 64000:
            raise refuse("only a short control.json is left for a run")
        self.root.place(os.path.join(run, name), body)
        return {}

    def make(self, path: Any = None) -> Values:
        target = self._free(path)
        os.makedirs(target, 0o700, exist_ok=True)
        return {"path": target}

    def move(self, source: Any = None, target: Any = None) -> Values:
        """Rename; never onto something that is there. Asked again once it is done, it is done."""
        old, new = self._free(source), self._free(target)
        if os.path.lexists(new) and not os.path.lexists(old):
            return {}  # done before, and asked again
        if os.path.lexists(new):
            raise Fault("CONFLICT", f"{target} is there already")
        os.rename(old, new)
        return {}

    def _free(self, path: Any) -> str:
        """A path that may be written: not what proves where a run stands, nor contents by digest."""
        parts = steps_of(path)
        if parts[0] not in ("runs", "data", "envs", "tmp") or (
            parts[0] == "runs" and parts[2:3] and parts[2] in RESERVED
        ):
            raise refuse(f"{str(path)[:80]!r} cannot be written")
        if len(parts) < 2:
            raise refuse(f"{str(path)[:80]!r} cannot be replaced")
        return self.root.inside(path)

    def remove(self, kind: Any = None, id: Any = None) -> Values:
        """Remove a run that is over, a data set or an environment, with all its files."""
        if kind not in KINDS:
            raise refuse(f"{str(kind)[:80]!r} cannot be removed")
        target = self.root.join(kind, checked(id, ID, "name"))
        if not os.path.lexists(target):
            return {"removed": False}
        temp = self.root.temp()
        if kind == "runs":
            with locked(os.path.join(target, "lock")) as held:
                if held < 0:
                    raise Fault("CONFLICT", f"{id} is running")
                os.rename(target, temp)
        else:
            with suppress(OSError):
                os.unlink(target + ".manifest")
            os.rename(target, temp)
        self.root.discard(temp)
        return {"removed": True}

    def list(self, kind: Any = None) -> Values:
        """Name → seconds since its last change."""
        if kind not in KINDS:
            raise refuse(f"{str(kind)[:80]!r} cannot be listed")
        top = self.root.join(kind)
        return {"names": {n: self.root.age(os.path.join(top, n)) for n in sorted(os.listdir(top)) if ID.fullmatch(n)}}

    def sweep(self, older: Any = 86400.0, contents: Any = False) -> Values:
        """Remove what was never finished and has lain for `older` seconds; `contents`: those that nothing uses too."""
        limit = self.root.now() - seconds(older, 1e9, "older")
        places = ["parts", "tmp"]
        if contents:
            places += [os.path.join("blobs", n) for n in os.listdir(self.root.join("blobs"))]
        removed = size = 0
        for place in places:
            for name in os.listdir(self.root.join(place)):
                path = self.root.join(place, name)
                with suppress(OSError):
                    seen = os.lstat(path)
                    if seen.st_mtime > limit or (contents and place.startswith("blobs") and seen.st_nlink > 1):
                        continue
                    removed, size = removed + 1, size + seen.st_size
                    self.root.discard(path)
        return {"removed": removed, "bytes": size}


class Waiting:
    """A read that waits for more bytes."""

    def __init__(self, number: Any, path: str, offset: int, limit: int, end: float) -> None:
        self.number, self.path, self.offset, self.limit, self.end = number, path, offset, limit, end


class Agent:
    """Reads requests, has each done where it hinders no other, and writes replies as they get ready."""

    def __init__(self, source: BufferedReader, sink: int, code: bytes = b"") -> None:
        self.source, self.sink = source, sink
        self.hash = hashlib.sha256(code).hexdigest()
        self._writing = threading.Lock()
        self._bulk: queue.Queue[tuple[Values, bytes]] = queue.Queue(64)
        self._at_once = threading.BoundedSemaphore(64)
        self._waits: list[Waiting] = []
        self._more_waits = threading.Condition()
        self._heard = self._spoke = time.monotonic()
        self._idle, self._pulse = IDLE, PULSE
        self.root: Root | None = None

    def serve(self) -> None:
        """Until the other end is gone."""
        for job in (self._write_contents, self._watch_files, self._watch_silence):
            threading.Thread(target=job, daemon=True).start()
        self._send(BANNER)
        while True:
            frame = self._frame()
            if frame is None:
                return
            request, body = frame
            self._take(request, body)

    def _frame(self) -> tuple[Values, bytes] | None:
        prefix = self.source.read(PREFIX.size)
        self._heard = time.monotonic()
        if len(prefix) < PREFIX.size:
            return None
        magic, header_size, body_size = PREFIX.unpack(prefix)
        if magic != MAGIC or header_size > LARGEST_HEADER or body_size > LARGEST_BODY:
            return None
        header = self.source.read(header_size)
        body = self._body(body_size) if body_size else b""
        self._heard = time.monotonic()
        if len(header) < header_size or len(body) < body_size:
            return None
        try:
            request = json.loads(header)
        except (ValueError, RecursionError):
            return None
        return (request, body) if isinstance(request, dict) else None

    def _body(self, size: int) -> bytes:
        """The next `size` bytes, as many as come; over a slow link that takes a while, and is said."""
        pieces, left = [], size
        while left:
            piece = self.source.read1(min(left, CHUNK))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
            self._heard = time.monotonic()
            if self._heard - self._spoke > self._pulse:
                self._reply({"id": -2}, b"")
        return b"".join(pieces)

    def _take(self, request: Values, body: bytes) -> None:
        op = request.get("op")
        if op in ("hello", "ping"):
            self._answer(request, body)
        elif op == "put":
            self._bulk.put((request, body))  # in their order; a full disk or a slow one holds up nobody else
        else:
            self._at_once.acquire()
            threading.Thread(target=self._apart, args=(request, body), daemon=True).start()

    def _apart(self, request: Values, body: bytes) -> None:
        try:
            self._answer(request, body)
        finally:
            self._at_once.release()

    def _write_contents(self) -> None:
        while True:
            self._answer(*self._bulk.get())

    def _answer(self, request: Values, body: bytes) -> None:
        number = request.get("id")
        try:
            arguments = request.get("arguments") or {}
            operation = getattr(self, "op_{}".format(request.get("op")), None)
            if operation is None or not isinstance(arguments, dict):
                raise refuse("there is no operation {!r}".format(str(request.get("op"))[:80]))
            if self.root is None and request.get("op") not in ("hello", "ping"):
                raise refuse("hello comes first")
            try:
                found = operation(number, body, **arguments)
            except TypeError as e:
                raise refuse(str(e)) from e
            if found is not None:
                values, data = found if isinstance(found, tuple) else (found, b"")
                self._reply({"id": number, "values": values}, data)
        except Exception as e:
            fault = fault_of(e)
            error = {"kind": fault.kind, "text": fault.text, "details": fault.details}
            self._reply({"id": number, "error": error}, b"")

    def _reply(self, header: Values, body: bytes) -> None:
        text = json.dumps(header).encode()
        if len(text) > LARGEST_HEADER:
            text = json.dumps(
                {"id": header.get("id"), "error": {"kind": "REFUSED", "text": "too much to tell"}}
            ).encode()
        self._send(PREFIX.pack(MAGIC, len(text), len(body)) + text + body)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        self._spoke = time.monotonic()
        try:
            with self._writing:
                while view:
                    view = view[os.write(self.sink, view) :]
        except OSError:
            os._exit(0)  # nobody listens any more

    def _watch_files(self) -> None:
        """Answer each read that waits as soon as its file has grown."""
        while True:
            with self._more_waits:
                while not self._waits:
                    self._more_waits.wait()
                waits = list(self._waits)
            now = time.monotonic()
            for one in waits:
                size = size_of(one.path)
                if size != one.offset or now >= one.end:
                    with self._more_waits:
                        self._waits.remove(one)
                    self._answer_wait(one)
            time.sleep(POLL)

    def _answer_wait(self, one: Waiting) -> None:
        try:
            assert self.root
            values, data = self._read(one.path, one.offset, one.limit)
            self._reply({"id": one.number, "values": values}, data)
        except Exception as e:
            fault = fault_of(e)
            self._reply({"id": one.number, "error": {"kind": fault.kind, "text": fault.text}}, b"")

    def _watch_silence(self) -> None:
        """A client that is gone without a word leaves no agent behind."""
        while True:
            time.sleep(1.0)
            if time.monotonic() - self._heard > self._idle:
                os._exit(0)

    # The operations. Each gets the request's number and body, and its arguments by name.

    def op_hello(
        self, number: Any, body: bytes, proto: Any = PROTO, root: Any = "", idle: Any = None, pulse: Any = None
    ) -> Values:
        if proto != PROTO:
            raise Fault("PROTOCOL_MISMATCH", f"protocol {str(proto)[:20]} is asked for, {PROTO} is spoken")
        self._idle = self._idle if idle is None else max(1.0, seconds(idle, 86400.0, "idle"))
        self._pulse = self._pulse if pulse is None else seconds(pulse, 60.0, "pulse")
        if self.root is None:
            root_path = Root(root if isinstance(root, str) else "")
            self.store = Store(root_path)
            self.runs = Runs(root_path, self.store)
            self.files = Files(root_path)
            self.commands = Commands(root_path)
            self.inventory = Inventory()
            self.root = root_path
        return {
            "proto": PROTO,
            "python": list(sys.version_info[:3]),
            "executable": sys.executable,
            "arch": platform.machine(),
            "glibc": platform.libc_ver()[1],
            "system": platform.system(),
            "boot_id": boot_id(),
            "user": owner_of("self"),
            "home": os.path.expanduser("~"),
            "root": self.root.path,
            "kill_policy": kill_policy(),
            "host": socket.gethostname(),
            "agent_hash": self.hash,
        }

    def op_ping(self, number: Any, body: bytes) -> Values:
        return {}

    def op_probe(self, number: Any, body: bytes, rids: Any = ()) -> Values:
        assert self.root
        found = self.inventory.probe(self.root.path)
        names = self.files.list("runs")["names"] if rids is None else rids
        return dict(found, runs={rid: self.runs.status(rid)["state"] for rid in names})

    def op_have(self, number: Any, body: bytes) -> Values:
        return self.store.have(body)

    def op_put(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.store.put(body, **told)

    def op_materialise(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.store.materialise(body, **told)

    def op_get(self, number: Any, body: bytes, path: Any = None, offset: Any = 0, limit: Any = 1 << 20) -> Any:
        assert self.root
        return self.files.get(self.root.readable(path), offset, limit)

    def op_tree(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.tree(**told)

    def op_place(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.place(body, **told)

    def op_make(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.make(**told)

    def op_move(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.move(**told)

    def op_slurm(self, number: Any, body: bytes, partitions: Any = None) -> Values:
        """What Slurm says of partitions: see `batch.Batch.look`."""
        names = words(partitions, "partitions")
        if not all(ID_OF_PARTITION.fullmatch(name) for name in names):
            raise refuse("a partition's name is none")
        return self.runs.batch.look(names)

    def op_remove(self, number: Any, body: bytes, **told: Any) -> Values:
        if told.get("kind") == "runs" and self.runs.waits(told.get("id")):
            raise Fault("CONFLICT", "{} is Slurm's still".format(told["id"]))
        return self.files.remove(**told)

    def op_list(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.list(**told)

    def op_sweep(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.sweep(**told)

    def op_run(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.commands.run(lambda data: self._reply({"id": number, "more": True}, data), **told)

    def op_interrupt(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.commands.interrupt(**told)

    def op_submit(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.runs.submit(**told)

    def op_status(self, number: Any, body: bytes, rids: Any = (), silent: Any = SILENT) -> Values:
        if not isinstance(rids, list):
            raise refuse("rids must be a list")
        return {"runs": {rid: self.runs.status(rid, seconds(silent, 1e6, "silent")) for rid in rids}}

    def op_read(
        self, number: Any, body: bytes, rid: Any = None, stream: Any = "events", offset: Any = 0, limit: Any = 1 << 20,
        wait: Any = 0,
    ) -> Any:  # fmt: skip
        """Bytes of a run's file from `offset`; waits up to `wait` seconds for the first, holding up nobody."""
        assert self.root
        run = self.root.run(rid)
        if not os.path.isdir(run):
            raise Fault("NOT_THERE", f"there is no run {rid}")
        name = STREAMS.get(stream) if isinstance(stream, str) else None
        path = self.root.readable(f"runs/{rid}/{name or stream}")
        whole(offset, 0, 1 << 50, "offset")
        end = time.monotonic() + seconds(wait, 60.0, "wait")
        if wait and size_of(path) == offset:
            with self._more_waits:
                self._waits.append(Waiting(number, path, offset, limit, end))
                self._more_waits.notify()
            return None
        return self._read(path, offset, limit)

    def _read(self, path: str, offset: int, limit: int) -> tuple[Values, bytes]:
        try:
            return self.files.get(path, offset, limit)
        except FileNotFoundError:  # not written yet
            return {"offset": offset, "size": 0, "truncated": offset > 0}, b""

    def op_write(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.files.write(body, **told)

    def op_cancel(self, number: Any, body: bytes, **told: Any) -> Values:
        return self.runs.cancel(**told)


def main(code: bytes = b"") -> None:
    """Serve on our own standard input and output, and let nothing else print there."""
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sink = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    Agent(cast("BufferedReader", sys.stdin.buffer), sink, code).serve()
    os._exit(0)  # threads that wait for a disk or a driver hold nothing up


if __name__ == "__main__":
    main(globals().get("code", b""))
