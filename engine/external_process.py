"""One external kernel as a process: its output read as it comes, in bounded memory, and its end, however it comes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from engine import external_guard, files, plainfile
from engine.errors import DojangError
from engine.external_events import LONGEST, Heard, text_of

if TYPE_CHECKING:
    from engine.external import Declaration
    from engine.external_writer import Writer
    from engine.worker import Job

POLL_SECONDS = 0.1
CHUNK = 1 << 16
TERM_SECONDS = 10.0  # between SIGTERM and SIGKILL
LINGER_SECONDS = 30.0  # that it may take to exit after its last word
DRAIN_SECONDS = 1.0  # that its output is waited for after its end: something it left behind may hold it open
LAST_LINES = 12
MOST_LOG = 1 << 24  # bytes of its output in train.log


class Lines:
    """Cuts a stream into lines in bounded memory. A line that is too long is left out and counted."""

    def __init__(self) -> None:
        self._rest, self._skipping = b"", False
        self.too_long = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Whole lines, also those that only a carriage return ends, as bars on a terminal do."""
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if self._skipping:
                self._skipping = False
            elif len(line) > LONGEST:
                self.too_long += 1
            else:
                yield line
        if len(rest) > LONGEST:
            self.too_long += not self._skipping
            self._skipping, rest = True, b""
        elif self._skipping:
            rest = b""
        self._rest = rest

    def last(self) -> Iterator[bytes]:
        """What came without an end."""
        if self._rest and not self._skipping:
            yield self._rest
        self._rest = b""


class Process:
    """The guard, the program under it, and the pipes between. Leaving the context ends whatever still runs of them."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
        told_in, told_out = os.pipe()
        life_in, self._life = os.pipe()
        guard = [sys.executable, "-I", "-S", external_guard.__file__, str(life_in), str(told_out), *command]
        try:
            self._process = subprocess.Popen(
                guard,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[life_in, told_out],
                start_new_session=True,
            )
        except OSError as e:
            os.close(told_in)
            os.close(self._life)
            raise DojangError(f"The kernel could not be started: {e.strerror}.", code="KERNEL_FAILED") from e
        finally:
            os.close(life_in)
            os.close(told_out)
        self._told = told_in
        self._log, self._room = log, MOST_LOG
        self._file: IO[bytes] | None = None
        self._exit = b""
        self._ended_at = 0.0
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr, self._file):
            if stream:
                stream.close()
        os.close(self._told)
        os.close(self._life)

    def follow(
        self, job: Job, program: Declaration, heard: Heard, writer: Writer, events: Path | None
    ) -> Literal["done", "stopped", "paused"]:
        """Hear it to its end. Raises DojangError when that was none."""
        asked, deadline, signalled = None, 0.0, 0
        tail = _Tail(events) if events else None
        for source, line in self._lines(writer):
            if line is not None:
                text = (
                    writer.take(line)
                    if source == "stdout" and tail is None
                    else text_of(line.decode("utf-8", "replace"))
                )
                self._note(text, source)
                continue
            for event in tail.read() if tail else ():
                writer.take(event)
            writer.tick()
            asked, deadline = self._obey(job, program, writer, asked, deadline, heard)
            if deadline and time.monotonic() > deadline and signalled < 2:
                self._signal((signal.SIGTERM, signal.SIGKILL)[signalled])
                signalled, deadline = signalled + 1, time.monotonic() + TERM_SECONDS
        for event in tail.rest() if tail else ():
            writer.take(event)
        writer.close()
        return self._verdict(heard, asked, signalled > 0, job, program)

    def _obey(
        self, job: Job, program: Declaration, writer: Writer, asked: str | None, deadline: float, heard: Heard
    ) -> tuple[str | None, float]:
        """What the person asks now, and when patience with the program ends (0: it has none to lose)."""
        now = time.monotonic()
        request = job.control.poll()
        if request and request != asked and asked not in ("stop", "pause"):
            job.log.append("control", request=request)
            asked = request
            if request == "finish" and "finish" not in program.operations:
                text = f"The kernel {program.name} cannot finish early. Stop it instead."
                job.log.append("log", level="warning", text=text)
            elif request in ("stop", "pause"):
                deadline = now + program.stop_seconds
        if (heard.end or heard.error) and not deadline:
            deadline = now + LINGER_SECONDS
        return asked, deadline

    def _lines(self, writer: Writer) -> Iterator[tuple[str, bytes | None]]:
        """Every line of its output with where it came from, and now and then None: time to look around."""
        streams = {"stdout": Lines(), "stderr": Lines()}
        with selectors.DefaultSelector() as selector:
            for name in streams:
                selector.register(getattr(self._process, name), selectors.EVENT_READ, name)
            selector.register(self._told, selectors.EVENT_READ, "told")
            looked = time.monotonic()
            while selector.get_map() and not (self._ended_at and time.monotonic() > self._ended_at + DRAIN_SECONDS):
                for key, _ in selector.select(POLL_SECONDS):
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        selector.unregister(key.fileobj)
                        if key.data == "told":
                            self._ended_at = time.monotonic()
                    elif key.data == "told":
                        self._exit += data[:200]
                    else:
                        lines = streams[key.data]
                        before = lines.too_long
                        yield from ((key.data, line) for line in lines.feed(data))
                        if lines.too_long > before:
                            writer.refuse(f"a line of more than {LONGEST // 1024} KiB")
                if time.monotonic() - looked >= POLL_SECONDS:
                    looked = time.monotonic()
                    yield "", None
            for name, lines in streams.items():
                yield from ((name, line) for line in lines.last())

    def _note(self, text: str | None, source: str) -> None:
        """Keep what it printed: the last lines of stderr at hand, and all of it, up to a bound, in train.log."""
        if not text or not text.strip():
            return
        if source == "stderr":
            self._last.append(text[:300])
        data = text.encode("utf-8", "replace") + b"\n"
        if self._room <= 0:
            return
        self._room -= len(data)
        data = data if self._room > 0 else b"... more was printed; only the first 16 MiB are kept\n"
        try:
            self._file = self._file or self._log.open("ab", buffering=0)
            self._file.write(data)
        except OSError as e:
            raise files.disk_error(e, self._log) from e

    def _signal(self, number: int) -> None:
        """To the whole group: it is ours as long as the guard has not been waited for."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    def _verdict(
        self, heard: Heard, asked: str | None, signalled: bool, job: Job, program: Declaration
    ) -> Literal["done", "stopped", "paused"]:
        """What its end amounts to."""
        if heard.error:
            hint = heard.error["hint"] or f"What it printed is in {self._log}"
            raise DojangError(heard.error["message"], code=heard.error["code"], hint=hint)
        how = self._how()
        if heard.end == "done" and (not how or signalled):
            if signalled and asked not in ("stop", "pause"):
                self._warn(job, "It said that it was done, and then did not exit: it was ended.")
            return "done"
        if asked in ("stop", "pause") and heard.end != "failed":
            if heard.end != "stopped":
                self._warn(job, f"It {how or 'ended'} without a last word after it was asked to stop.")
            return "paused" if asked == "pause" else "stopped"
        if heard.end == "stopped" and not how:
            return "stopped"
        what = f"said “{heard.end}” and then {how or 'ended'}" if heard.end else f"{how or 'ended'} without a last word"
        printed = "It printed last:\n" + "\n".join(self._last) + "\n" if self._last else ""
        raise DojangError(
            f"The kernel {program.name} {what}.",
            code="KERNEL_FAILED",
            hint=f"{printed}All that it printed: {self._log}\nGo on or try again: dojang resume {job.version.reference}",
        )

    def _how(self) -> str:
        """How it ended, in words; empty when by itself and without complaint."""
        text = self._exit.decode("ascii", "replace").strip()
        if text.startswith("!"):
            return f"could not be started ({text[1:].strip()}): it ended"
        try:
            code = int(text)
        except ValueError:
            return "was killed"
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with exit code {code}" if code else ""

    def _warn(self, job: Job, text: str) -> None:
        job.log.append("log", level="warning", text=text)


class _Tail:
    """The lines of a file that the program appends to."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._lines = Lines()

    def read(self, most: int = 1 << 20) -> Iterator[bytes]:
        """What is new, in pieces."""
        try:
            file = plainfile.opened(self._path)
        except OSError:
            return
        with file:
            file.seek(self._offset)
            data = file.read(most)
        self._offset += len(data)
        yield from self._lines.feed(data)

    def rest(self) -> Iterator[bytes]:
        """All that is left once the program is gone."""
        before = -1
        while self._offset != before:
            before = self._offset
            yield from self.read()
        yield from self._lines.last()
