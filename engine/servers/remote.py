"""A server over a link: start, stop and resume a version's training there. `local` is the same for this machine.

Starting it takes a process here that prepares the server, `python -m engine.servers.remote RUN_DIR LOCK_FD MODE`: it
holds the version's lock, tells how it goes on in the version's own log, and ends as soon as the server has accepted the
run. From then on nothing here is needed for it; `mirror` brings its log.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import control
from engine.control import Control
from engine.errors import DojangError, Invalid, Problem
from engine.events import EventLog
from engine.servers import boxes, elsewhere, links, local, prepare, slurm
from engine.servers.boxes import Box
from engine.servers.elsewhere import Known, Place
from engine.servers.link import Link
from engine.servers.link_errors import LinkError
from engine.servers.local import Mode
from engine.versions import Version

BAR_SECONDS = 0.25  # between two events of a bar
RATE_SECONDS = 3.0  # over which its rate is taken
LONGEST_PAUSE = 30.0  # seconds between two tries to reach the server
REQUESTS = ("stop", "pause", "finish")
START_TIMEOUT = 30.0
PATIENCE = 8.0  # seconds that a person waits for a request to reach the server


def where(version: Version) -> tuple[Box, Place]:
    """The server that a version trains on, and its place there. Raises NotFound when the server was forgotten."""
    place = elsewhere.place_of(version)
    if place is None:
        raise DojangError(f"{version.reference} trains on this machine.", code="BAD_VALUE")
    return boxes.get(version.workspace.path, place.server), place


def start(version: Version, mode: Mode = "auto") -> None:
    """Have the server prepared and the version trained there; returns at once, what goes on is its own process.

    Raises DojangError(RUNNING) when it runs, waits or is prepared already, NotFound when the server was forgotten.
    """
    from engine.servers import mirror

    where(version)
    mirror.catch_up([version])  # what an earlier attempt wrote comes before what this one will
    if elsewhere.known(version).live:
        raise _running(version)
    with local.hold(version) as lock:
        if elsewhere.known(version).live:  # whoever prepared it has just ended
            raise _running(version)
        log = os.open(version.path / elsewhere.PREPARE_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        command = [sys.executable, "-P", "-m", "engine.servers.remote", str(version.path), str(lock.fileno()), mode]
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock.fileno()], cwd="/",
                env=local._environment(), start_new_session=True, timeout=START_TIMEOUT, check=True,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as e:
            hint = f"See {version.path / elsewhere.PREPARE_LOG}"
            raise DojangError(f"Preparing the server could not be started: {e}", code="START_FAILED", hint=hint) from e
        finally:
            os.close(log)


def _running(version: Version) -> DojangError:
    hint = f"Watch it: dojang follow {version.reference}"
    return DojangError(f"{version.reference} is running already.", code="RUNNING", hint=hint)


def resume(version: Version, mode: Mode = "auto") -> None:
    """Go on from the last checkpoint there, or with preparing the server. Raises DojangError when it is done."""
    from engine.servers import mirror

    mirror.catch_up([version])
    progress = version.progress(skip_steps=True)
    if version.state(progress) == "done":
        hint = f"For more epochs: dojang extend {version.reference} {progress.epochs_total * 2 or 100}"
        raise DojangError(f"{version.reference} is done.", code="DONE", hint=hint)
    start(version, mode)


def change(version: Version, **settings: float) -> None:
    """As `local.change`: at once where it runs, else when it is resumed. Raises LinkError when it cannot be told."""
    local.check_epochs(version, settings)
    wrong = [Problem(name, said) for name, v in settings.items() if (said := control.problem(name, str(v)))]
    if wrong:
        raise Invalid(wrong)
    if elsewhere.known(version).live:
        _ask(version, None, settings)
    control.send(version.control, None, **settings)


def request(version: Version, what: control.Request) -> None:
    """Ask it to stop, pause or finish, wherever it is by now. Raises DojangError(NOT_RUNNING), or LinkError: not told."""
    state = version.state(version.progress(skip_steps=True))
    if not version.alive():
        raise DojangError(f"{version.reference} is not running: it is {state}.", code="NOT_RUNNING")
    if state == "queued" and what != "stop":
        hint = f"Take it out: dojang stop {version.reference}"
        raise DojangError(f"{version.reference} has not begun: it waits in the queue.", code="NOT_RUNNING", hint=hint)
    if elsewhere.preparing(version):
        control.send(version.control, what)
    else:
        _ask(version, what, {})
        if state == "queued" and _slurm_has_it(version):  # nobody there reads its control file yet
            cancel(version)


def _slurm_has_it(version: Version) -> bool:
    place = elsewhere.place_of(version)
    return bool(place and place.partition)


def _ask(version: Version, what: control.Request | None, settings: control.Settings) -> None:
    box, place = where(version)
    with links.shared(box, place.root) as link:
        _leave(link, place, what, {**control.read(version.control)["settings"], **settings})


def _leave(link: Link, place: Place, what: control.Request | None, settings: control.Settings) -> None:
    """Write the run's control file there; what was asked of it before stays."""
    before = _asked(
        link.call("read", rid=place.rid, stream="control.json", limit=control.LARGEST, timeout=PATIENCE).body
    )
    told = {"request": what or before["request"], "settings": {**before["settings"], **settings}, "at": time.time()}
    link.call("write", rid=place.rid, name="control.json", body=json.dumps(told).encode(), timeout=PATIENCE)


def _asked(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = {}
    found = found if isinstance(found, dict) else {}
    given = found.get("settings")
    given = given if isinstance(given, dict) else {}
    settings = {n: v for n, v in given.items() if isinstance(v, (int, float)) and not control.problem(n, str(v))}
    return {"request": found.get("request") if found.get("request") in REQUESTS else None, "settings": settings}


def cancel(version: Version, force: bool = False) -> None:
    """End its processes there: asked to by signal, or with `force` killed."""
    box, place = where(version)
    with links.shared(box, place.root) as link:
        link.call("cancel", rid=place.rid, force=force, timeout=60.0)


def wait(version: Version, seconds: float) -> str:
    """Wait until the version no longer runs, at most `seconds`; return its state then."""
    from engine.servers import mirror

    end = time.monotonic() + seconds
    with mirror.following(version):
        while version.alive() and time.monotonic() < end:
            time.sleep(0.05)
    return version.state(version.progress(skip_steps=True))


# The process that prepares the server


class Stopped(Exception):
    """A person wants it no longer, or not now."""


class Teller:
    """Writes how preparing goes on into the version's log, and hears what is asked meanwhile. See `prepare.Telling`."""

    def __init__(self, log: EventLog, asked: Control, key: str) -> None:
        self.key = key
        self._log, self._asked = log, asked
        self._bar_at, self._marks = 0.0, list[tuple[float, int]]()

    def check(self) -> None:
        """Raises Stopped."""
        if self._asked.poll() is not None:
            raise Stopped

    @property
    def ended(self) -> str:
        """How it is called that it was stopped."""
        return "paused" if self._asked.poll() == "pause" else "stopped"

    def say(self, text: str) -> None:
        self.check()
        self._marks.clear()
        self._log.append("log", level="info", text=text)

    def note(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def bar(self, done: int, total: int, unit: str) -> None:
        self.check()
        now = time.monotonic()
        if not done or (self._marks and done < self._marks[-1][1]):
            self._marks.clear()
        self._marks = [m for m in self._marks if now - m[0] < RATE_SECONDS] + [(now, done)]
        if now - self._bar_at < BAR_SECONDS and done < total:
            return
        self._bar_at = now
        began, before = self._marks[0]
        rate = (done - before) / (now - began) if now > began else None
        self._log.append("progress", what="preparing", done=done, total=total, unit=unit, rate=rate)


class Preparer:
    """Prepares the server and submits, again and again until it is accepted, refused or no longer wanted."""

    def __init__(self, version: Version, mode: Mode, log: EventLog) -> None:
        self.version, self.mode, self.log = version, mode, log
        self.box, self.place = where(version)
        self.entry = slurm.entry_of(self.box, self.place.partition) if self.place.partition else None
        self.asked = Control(version.control)
        self.telling = Teller(log, self.asked, f"prepare-{os.getpid()}-{time.time_ns():x}")
        self._submitted = 0

    def run(self) -> None:
        """Raises Stopped, DojangError."""
        with links.shared(self.box, self.place.root) as link:
            done = threading.Event()
            threading.Thread(target=self._heed, args=(link, done), daemon=True).start()
            try:
                self._until_accepted(link)
            finally:
                done.set()

    def _until_accepted(self, link: Link) -> None:
        pause = 1.0
        while True:
            try:
                self._once(link)
                return
            except LinkError as e:
                if not e.retry:
                    raise
                self.log.append("log", level="warning", text=f"{e.message} It is tried again.")
            end = time.monotonic() + pause
            while time.monotonic() < end:
                self.telling.check()
                time.sleep(0.1)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _heed(self, link: Link, done: threading.Event) -> None:
        """A command that runs there ends as soon as somebody asks for that here."""
        asked = Control(self.version.control)
        while not done.wait(0.5):
            if asked.poll() is not None:
                try:
                    link.call("interrupt", key=self.telling.key, timeout=5.0)
                except LinkError:
                    continue

    def _once(self, link: Link) -> None:
        rid = self.place.rid
        found = elsewhere.answered(link.call("status", rids=[rid])["runs"], rid)
        heard = elsewhere.known(self.version)
        begun = found.live and found.attempt  # without an attempt it may never have got that far: asked for again
        if begun or found.attempt > max(heard.attempt, self._submitted - 1):
            self._accepted(link, found)  # the word of it was lost, or somebody else started it
            return
        absent = found.state == "absent"
        ready = prepare.prepare(
            link, self.box, self.version, f"runs/{rid}", self.telling, again=not absent and bool(heard.attempt),
            driver=self._driver(),
        )  # fmt: skip
        self.telling.say(f"Submitting to {self.box.name}" + (f"/{self.entry.name}" if self.entry else ""))
        attempt = found.attempt + 1
        self._submitted = attempt
        elsewhere.submitting(self.version, absent)
        reply = link.call("submit", rid=rid, attempt=attempt, timeout=90.0, **self._submission(ready))
        self._accepted(link, elsewhere.answered({rid: reply["run"]}, rid))

    def _driver(self) -> str:
        """That of Slurm's nodes, for which the login node may have no GPU to ask."""
        return self.entry.driver if self.entry and slurm.gpus_needed(self.entry, self.version.spec()) else ""

    def _submission(self, ready: prepare.Ready) -> dict[str, Any]:
        job, settings = job_of(self.version, ready, self.mode), control.read(self.version.control)["settings"]
        submission: dict[str, Any] = {}
        if self.entry:
            submission["slurm"] = {**slurm.submission(self.entry, self.version.spec()), "python": ready.python}
            job |= {"queue": False, "first": None, "slurm": {"margin": self.entry.margin}}
        asked = {"request": None, "settings": settings, "at": time.time()}
        texts = {**ready.texts, "job.json": json.dumps(job), "control.json": json.dumps(asked)}
        return {
            **submission,
            "argv": [ready.python, "-P", "-m", "engine.servers.supervisor", "--stay", "{run}", "{lock}"],
            "env": {"PYTHONPATH": ready.code, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
            "files": texts,
            "blobs": {path: each.digest for path, each in ready.contents.items()},
        }

    def _accepted(self, link: Link, found: Known) -> None:
        if elsewhere.offset(self.version) is None:
            elsewhere.accepted(self.version, found.state, found.attempt)
            self.log.append("log", level="info", text=f"{self.box.name} has accepted it as {self.place.rid}")
            elsewhere.give_log(self.version)  # nothing of ours is written from here on
        asked = self.asked.poll()
        if asked is not None:  # too late to stop preparing
            _leave(link, self.place, asked, {})


def job_of(version: Version, ready: prepare.Ready, mode: Mode) -> dict[str, Any]:
    """What the supervisor there is to do: see `supervisor`."""
    spec = version.spec()
    gpus, first = local.needed(spec)
    worker = [ready.python, "-P", "-m", "engine.servers.there", "{run}"]
    if spec.gpus > 1:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(spec.gpus)]
        worker = [ready.python, "-P", "-m", *torchrun, "--module", "engine.servers.there", "{run}"]
    return {
        "argv": worker,
        "title": version.reference,
        "processes": spec.gpus,
        "queue": mode == "queue" or (mode == "auto" and gpus > 0),
        "gpus": gpus,
        "first": first,
        "fallback": "turn" if mode == "queue" else "cpu",
        "frozen": {"spec.toml": hashlib.sha256(ready.texts["spec.toml"].encode()).hexdigest()},
    }


def _prepare(version: Version, mode: Mode) -> None:
    """Until the server has accepted the run; whatever happens short of a kill, the log says how it ended."""
    before = version.progress()
    elsewhere.take_log(version)
    with EventLog(version.events) as log:
        resumed = {"epoch": before.epochs_done + 1, "step": before.step} if before.step or before.epochs_done else None
        identity = {"attempt": before.attempt + 1, "pid": os.getpid(), "host": socket.gethostname(), "versions": {}}
        log.append("start", **identity, resumed=resumed)
        log.append("stage", stage="preparing")
        try:
            preparer = Preparer(version, mode, log)
            preparer.run()
        except Stopped:
            log.append("end", state=preparer.telling.ended)
        except DojangError as e:
            traceback.print_exc()
            ended = Control(version.control).poll() if e.code == "INTERRUPTED" else None
            if ended is None:
                log.append("error", code=e.code, message=e.message, hint=e.hint)
            log.append("end", state="failed" if ended is None else "paused" if ended == "pause" else "stopped")
        except Exception as e:
            traceback.print_exc()
            message = f"Preparing the server failed: {type(e).__name__}: {e}"
            hint = f"The whole traceback is in {version.path / elsewhere.PREPARE_LOG}"
            log.append("error", code="INTERNAL", message=message, hint=hint)
            log.append("end", state="failed")


def main(argv: Sequence[str]) -> int:
    """Go on apart from whoever started us; the inherited lock is held until this process ends."""
    from engine.worker import version_at

    if os.fork():
        os._exit(0)
    _prepare(version_at(Path(argv[0])), argv[2] if argv[2] in ("queue", "now") else "auto")  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)

__all__ = ["cancel", "change", "request", "resume", "start", "wait", "where"]
