"""Questions that ssh has for a person, brought into this process: over a socket that only this account can open.

ssh runs a small program for each question; that hands the question here and the answer back. Nothing is kept of either.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.servers.link_errors import SshConfig

Ask = Callable[[str, str], str | None]
"""Kind of question (host-key, password, passphrase, code) and its text → the answer, or None: nobody answers.

Called in threads of its own, and again whenever a lost link logs in anew."""

LONGEST_SOCKET = 90  # characters that ssh can take for its socket's path
LONGEST = 8192
ASKED_IN = "DOJANG_ASKPASS"
HELPER = (
    "import os,socket,sys;"
    f's=socket.socket(socket.AF_UNIX);s.connect(os.environ["{ASKED_IN}"]);'
    's.sendall(os.fsencode(" ".join(sys.argv[1:])));s.shutdown(1);'
    'f=s.makefile("rb");ok=f.read(1)==b"+";sys.stdout.buffer.write(f.read()+b"\\n" if ok else b"");'
    "sys.stdout.flush();os._exit(not ok)"
)


def runtime() -> Path:
    """This account's own short-lived folder, that nobody else can read. Raises SshConfig when there is none."""
    places = [Path(f"/tmp/dojang-{os.getuid()}")]  # noqa: S108 - checked below, and short enough for a socket
    if told := os.environ.get("XDG_RUNTIME_DIR"):
        places.insert(0, Path(told) / "dojang")
    for place in places:
        if place.is_absolute() and len(os.fsencode(place)) + 41 <= LONGEST_SOCKET and _private(place):
            return place
    raise SshConfig(f"{places[-1]} is not a private folder of yours", hint=f"Remove {places[-1]}, then try again.")


def _private(place: Path) -> bool:
    try:
        with suppress(FileExistsError):
            place.mkdir(0o700)
        seen = place.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
            return False
        if seen.st_mode & 0o077:
            place.chmod(0o700)
        return os.access(place, os.W_OK)
    except OSError:
        return False


def helper() -> str:
    """The path of the program that ssh runs for a question. Raises SshConfig where no folder allows programs."""
    text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -c {shlex.quote(HELPER)} "$@"\n'
    name = f"ask-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dojang"
    for place in (runtime(), cache):
        path = place / name
        with suppress(OSError):
            place.mkdir(0o700, parents=True, exist_ok=True)
            if not path.exists() or path.read_text() != text:
                fd, temp = tempfile.mkstemp(dir=place)
                with open(fd, "w") as f:
                    f.write(text)
                os.chmod(temp, 0o700)
                os.replace(temp, path)
            if os.access(path, os.X_OK):  # not where the folder's disk is mounted without programs
                return str(path)
    raise SshConfig("there is no folder in which ssh may run a program of ours")


def kind_of(text: str) -> str:
    """What a question of ssh is about."""
    lower = text.lower()
    if "continue connecting" in lower or "fingerprint" in lower:
        return "host-key"
    if "passphrase" in lower or "pin for" in lower:
        return "passphrase"
    return "password" if lower.rstrip().endswith("password:") else "code"


class Asker:
    """Answers ssh's questions by `ask` while it is open. `asking`: whether somebody is being asked now."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._now = 0
        fd, path = tempfile.mkstemp(prefix="a", dir=runtime())
        os.close(fd)
        os.unlink(path)
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="askpass", daemon=True).start()

    @property
    def asking(self) -> bool:
        return self._now > 0

    def environment(self) -> dict[str, str]:
        """What ssh needs in its environment to ask here, whatever terminal it might find."""
        return {"SSH_ASKPASS": helper(), "SSH_ASKPASS_REQUIRE": "force", ASKED_IN: self.path}

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(OSError):
            os.unlink(self.path)

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(asked,), daemon=True).start()

    def _answer(self, asked: socket.socket) -> None:
        self._now += 1
        try:
            with asked:
                text = b""
                while len(text) < LONGEST and (data := asked.recv(LONGEST)):
                    text += data
                words = text.decode("utf-8", "replace")
                answer = self._ask(kind_of(words), words)
                asked.sendall(b"-" if answer is None else b"+" + answer.encode())
        except OSError:
            pass
        finally:
            self._now -= 1


__all__ = ["Ask", "Asker", "helper", "kind_of", "runtime"]
