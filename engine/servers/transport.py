"""What a link speaks through: a child process's three pipes. What it carries: frames, as the agent describes them."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from engine.servers import agent, batch
from engine.servers.link_errors import LinkError, LinkLost, NoBanner, NoPython, ProtocolMismatch, Refused

Stage = Literal["opening", "greeting", "up"]
"""How far a connection had come: no sign of the agent yet, its banner seen, its hello answered."""

NOISE = 1 << 20  # bytes that a login may print before the agent's banner
TAIL = 8192  # bytes of a child's complaints that are kept
PIPE_SIZE = 1 << 20
WAIT = 1.0  # s for a child to end by itself once its pipes have

# The program's only text that a shell ever parses: fixed, and the same for sh, bash, zsh, fish and tcsh.
BOOT_CODE = (
    "import sys,zlib;v=sys.version_info;"
    'v<(3,8) and sys.exit("dojang: this python3 is %d.%d, too old"%v[:2]);'
    "i=sys.stdin.buffer;code=zlib.decompress(i.read(int(i.readline())));"
    'exec(compile(code,"dojang","exec"))'
)
JOINED = """\
import sys, types
for name in ("engine", "engine.servers", "engine.servers.batch"):
    sys.modules[name] = types.ModuleType(name)
batch = sys.modules["engine.servers"].batch = sys.modules["engine.servers.batch"]
exec(compile({}, "batch", "exec"), batch.__dict__)
exec(compile({}, "agent", "exec"), globals())
"""
BOOT = f"exec python3 -I -u -X utf8 -c '{BOOT_CODE}'"


class Frame(NamedTuple):
    header: dict[str, Any]
    body: bytes


class Transport(Protocol):
    """Where a link's bytes go and come from. Its descriptors do not block."""

    @property
    def reader(self) -> int: ...

    @property
    def writer(self) -> int: ...

    @property
    def complaints(self) -> int:
        """Where it tells people what is wrong; -1 where it does not."""

    @property
    def asking(self) -> bool:
        """Whether it waits for a person now, so that no time counts."""

    def complained(self, data: bytes) -> None:
        """What was read from `complaints`."""

    def failure(self, stage: Stage) -> LinkError:
        """Why it ended, once its bytes have."""

    def close(self, patience: float = 0.0) -> None:
        """End it: by itself within `patience` seconds, else by force. May be called again."""


Explain = Callable[[int | None, str, Stage], LinkError]
"""Exit code (None: it still runs), its last complaints, and the stage → what went wrong."""


class Pipe:
    """A child process at the far end of whose pipes the agent is to answer."""

    def __init__(
        self,
        argv: Sequence[str],
        explain: Explain,
        env: Mapping[str, str] | None = None,
        asking: Callable[[], bool] = lambda: False,
        cleanup: Callable[[], None] = lambda: None,
    ) -> None:
        self._explain, self._asking, self._cleanup = explain, asking, cleanup
        self._tail = b""
        self._closed = False
        pipe = subprocess.PIPE
        # a session of its own: no terminal that it could write on or ask at, and one group to end
        self._child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
        assert self._child.stdin and self._child.stdout and self._child.stderr
        self.writer, self.reader = self._child.stdin.fileno(), self._child.stdout.fileno()
        self.complaints = self._child.stderr.fileno()
        for fd in (self.writer, self.reader, self.complaints):
            os.set_blocking(fd, False)
        if sys.platform == "linux":
            for fd in (self.writer, self.reader):
                with suppress(OSError):
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def asking(self) -> bool:
        return self._asking()

    def complained(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL:]

    def failure(self, stage: Stage) -> LinkError:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(WAIT)
        with suppress(OSError):
            while data := os.read(self.complaints, TAIL):
                self.complained(data)
        return self._explain(self._child.poll(), self._tail.decode("utf-8", "replace"), stage)

    def close(self, patience: float = 0.0) -> None:
        if self._closed:
            return
        self._closed = True
        child = self._child
        assert child.stdin and child.stdout and child.stderr
        with suppress(OSError):
            child.stdin.close()
        for seconds, number in ((patience, signal.SIGTERM), (0.3, signal.SIGKILL)):
            try:
                child.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                with suppress(OSError):
                    os.killpg(child.pid, number)
        child.wait()
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)  # what it started, such as a jump host's ssh
        child.stdout.close()
        child.stderr.close()
        self._cleanup()


def local(python: str = sys.executable) -> Pipe:
    """The agent as a child of this process, on this machine."""

    def explain(code: int | None, said: str, stage: Stage) -> LinkError:
        if code is not None and code < 0:  # nothing that it said or not tells what it was
            return LinkLost(f"the agent was ended by signal {-code}")
        if stage == "opening":
            return too_old(said) or NoBanner(said.strip().rpartition("\n")[2] or f"it ended with code {code}")
        return LinkLost(f"the agent ended with code {code}" if code is not None else "")

    try:
        return Pipe([python, "-I", "-u", "-X", "utf8", "-c", BOOT_CODE], explain)
    except OSError as e:
        raise NoPython(f"{python}: {e.strerror or e}") from e


def too_old(said: str) -> LinkError | None:
    """The error if that is what a Python complains of."""
    return NoPython(said.strip().rpartition("dojang: ")[2]) if "dojang: this python3 is" in said else None


@functools.cache
def greeting() -> tuple[bytes, str]:
    """The agent as it is sent, what it imports of ours ahead of it, and its sha256, which it tells back."""
    texts = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (batch, agent)]
    code = JOINED.format(*map(repr, texts)).encode()
    packed = zlib.compress(code, 9)
    return b"%d\n" % len(packed) + packed, hashlib.sha256(code).hexdigest()


def packed(header: Mapping[str, Any], body: bytes) -> bytes:
    """Prefix and header of a frame; its body follows as it is. Raises Refused for more than the agent takes."""
    text = json.dumps(header).encode()
    if len(text) > agent.LARGEST_HEADER or len(body) > agent.LARGEST_BODY:
        raise Refused("it is more than can be sent at once")
    return agent.PREFIX.pack(agent.MAGIC, len(text), len(body)) + text


class Frames:
    """Cuts what arrives into frames, past whatever a login printed before them."""

    def __init__(self) -> None:
        self.greeted = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises NoBanner, ProtocolMismatch."""
        self._buffer += data
        if not self.greeted and not self._greet():
            return []
        found: list[Frame] = []
        at = 0
        while (end := self._cut(at, found)) > at:
            at = end
        del self._buffer[:at]
        return found

    def _greet(self) -> bool:
        at = self._buffer.find(agent.BANNER)
        if at < 0:
            if len(self._buffer) > NOISE:
                raise NoBanner("it printed more than a login may")
            return False
        del self._buffer[: at + len(agent.BANNER)]
        self.greeted = True
        return True

    def _cut(self, at: int, found: list[Frame]) -> int:
        """Where the frame that begins at `at` ends; `at` itself if it is not whole yet."""
        size = agent.PREFIX.size
        if len(self._buffer) - at < size:
            return at
        magic, header_size, body_size = agent.PREFIX.unpack_from(self._buffer, at)
        if magic != agent.MAGIC or header_size > agent.LARGEST_HEADER or body_size > agent.LARGEST_BODY:
            raise ProtocolMismatch("something else was printed in between")
        start = int(at + size + header_size)
        end = start + int(body_size)
        if len(self._buffer) < end:
            return at
        try:
            header = json.loads(bytes(self._buffer[at + size : start]))
        except (ValueError, RecursionError) as e:
            raise ProtocolMismatch("a reply is no JSON") from e
        if not isinstance(header, dict):
            raise ProtocolMismatch("a reply is no table")
        found.append(Frame(header, bytes(self._buffer[start:end])))
        return end


__all__ = [
    "BOOT",
    "BOOT_CODE",
    "Frame",
    "Frames",
    "Pipe",
    "Stage",
    "Transport",
    "greeting",
    "local",
    "packed",
    "too_old",
]
