"""A real pseudo-terminal with pyte behind it, to see what a person would see."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

from tests.tui.test_celldiff import Terminal

ROOT = Path(__file__).resolve().parents[2]
QUERIES = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[?2048$p": b"\x1b[?2048;0$y"}


class PseudoTerminal(Terminal):
    """Runs `python SCRIPT ARGUMENTS` in a terminal of its own; `raw` keeps every byte it wrote."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, **environment: str) -> None:
        super().__init__(columns, rows)
        self.raw = b""
        self.closed = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        wanted = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("TEXTUAL", "DOJANG", "TMUX", "SSH_", "NO_COLOR"))
        }
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(sys.executable, [sys.executable, *arguments], {**kept, **wanted, **environment})
        self.modes = termios.tcgetattr(self.master)

    def pump(self, limit: float = 5.0, quiet: float = 0.12, until: str | None = None) -> None:
        """Read until nothing came for `quiet` seconds (and `until` is on the screen), at most `limit` seconds."""
        settle(self, limit=limit, quiet=quiet, until=until)

    def read(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        self.closed = not data
        if data:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self.raw += data
        for query, answer in QUERIES.items():
            if query in data:
                os.write(self.master, answer)
        self.feed(self._decoder.decode(data).replace("\x1b[?2026$p", "").replace("\x1b[?2048$p", ""))

    def type(self, keys: str | bytes) -> None:
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def ended(self, limit: float = 5.0) -> int | None:
        """The exit code (negative for a signal), or None when it is still there after `limit` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if not self.closed:
                self.pump(0.05)
            else:
                time.sleep(0.02)
        return None

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


def settle(*screens: PseudoTerminal, limit: float = 5.0, quiet: float = 0.12, until: str | None = None) -> None:
    """Read from all of them until none has had anything to say for a while."""
    end, last = time.monotonic() + limit, time.monotonic()
    while time.monotonic() < end and not any(screen.closed for screen in screens):
        by_file = {screen.master: screen for screen in screens}
        ready, _, _ = select.select(list(by_file), [], [], 0.02)
        for file in ready:
            by_file[file].read()
            last = time.monotonic()
        silent = time.monotonic() - last > quiet
        if silent and (until is None or all(until in "\n".join(screen.text()) for screen in screens)):
            return
