"""A real pseudo-terminal for benchmarks: starts a program, notes every byte and when it came."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from pathlib import Path


class Terminal:
    """A program in a pty of `columns` × `rows`. Answers the questions that terminals answer, so nothing waits for them."""

    def __init__(
        self, command: list[str], columns: int = 120, rows: int = 40, environment: dict[str, str] | None = None
    ) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            given = {
                **os.environ,
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
                "LANG": "C.UTF-8",
                **(environment or {}),
            }
            for name in ("TMUX", "SSH_CONNECTION", "SSH_TTY"):
                given.pop(name, None)
            os.execvpe(command[0], command, given)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.total = 0

    def read(self, seconds: float, *, until: bytes = b"", quiet: float = 0.0) -> bytes:
        """What it writes within `seconds`; returns early once `until` was seen, or after `quiet` seconds of silence."""
        end, got, last = time.perf_counter() + seconds, b"", time.perf_counter()
        while (now := time.perf_counter()) < end:
            if quiet and got and now - last > quiet:
                break
            ready, _, _ = select.select([self.fd], [], [], min(end - now, 0.02))
            if not ready:
                continue
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            got, last = got + data, time.perf_counter()
            self.total += len(data)
            if b"\x1b[c" in data:
                os.write(self.fd, b"\x1b[?62;22c")
            if until and until in got:
                break
        return got

    def send(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def resident(self) -> float:
        """Resident memory, MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)
