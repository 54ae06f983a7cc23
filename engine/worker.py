"""The worker: trains one version from first word to last. Runs as `python -m engine RUN_DIR`, or within a caller."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import external_run, plugins
from engine.control import Control, send
from engine.errors import DojangError
from engine.events import EventLog
from engine.files import write_json
from engine.processes import end_with_parent
from engine.progress import Progress
from engine.spec import Spec
from engine.versions import Version, Workspace

FAILED = ".failed.json"  # why a process failed that trains beside the first
PATIENCE = 2.0  # seconds that this has to appear once the first hears that another is gone


@dataclass(frozen=True)
class Job:
    """All that the training code is given: what to train, where to write, whom to tell, whom to obey.

    `resumed` is where the checkpoint to go on from stands, or None for a fresh start; `before` is what earlier
    attempts logged.
    """

    spec: Spec
    version: Version
    log: EventLog
    control: Control
    resume: bool
    before: Progress


class Silent(EventLog):
    """The log of a process that trains beside the first one: that one says it all."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FAILED

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def append(self, kind: str, **fields: Any) -> None:
        """Of all of it only why it failed is kept, for the first process to tell."""
        if kind == "error":
            write_json(self.path, {**fields, "group": os.getppid()})


def version_at(run_dir: Path) -> Version:
    """The version whose run directory this is: WORKSPACE/projects/PROJECT/V_n."""
    run_dir = run_dir.absolute()
    return Version(Workspace(run_dir.parents[2]).project(run_dir.parent.name), run_dir.name)


def run(run_dir: Path) -> int:
    """Train the version in `run_dir`. Returns 0 when it ended done, stopped or paused, 1 when it failed.

    Whatever happens short of a kill, the log gets a last word: `end`, with an `error` before it on failure.
    """
    version = version_at(run_dir)
    before = version.progress(skip_steps=True)
    control = Control(version.control)
    with EventLog(version.events) if not int(os.environ.get("RANK") or 0) else Silent(version.path) as log:
        try:
            ended = _train(version, before, control, log)
        except DojangError as e:
            traceback.print_exc()
            return _fail(log, *_first_cause(version, log, e))
        except MemoryError:
            traceback.print_exc()
            return _fail(log, "OOM_HOST", "The machine ran out of memory.", "Lower batch_size, image_size or workers.")
        except KeyboardInterrupt:
            return _fail(log, "INTERRUPTED", "The training was interrupted.", f"dojang resume {version.reference}")
        except Exception as e:
            traceback.print_exc()
            text = f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else 'no message'}"
            hint = f"The whole traceback is in its log: dojang log {version.reference}"
            return _fail(log, "INTERNAL", f"The training failed: {text}", hint)
        log.append("end", state=ended)
        return 0


def _train(version: Version, before: Progress, control: Control, log: EventLog) -> str:
    plugins.look_in(version.workspace.path)
    spec = version.spec()
    program = plugins.program_of(spec.model)
    if program:
        resume = external_run.resumable(version, program)
    else:
        resume = version.state_file.exists() or version.state_file.with_name("state.previous.pt").exists()
    if not resume:
        log.append("start", **_identity(before.attempt + 1), resumed=None)
        log.append("stage", stage="preparing")
    if program:
        return external_run.train(Job(spec, version, log, control, resume, before), program)
    from engine.training.run import train

    return train(Job(spec, version, log, control, resume, before))


def announce(job: Job, epoch: int, step: int) -> None:
    """First word of an attempt that goes on from a checkpoint: `step` steps are done, `epoch` (1…) is the one it is in."""
    job.log.append("start", **_identity(job.before.attempt + 1), resumed={"epoch": epoch, "step": step})
    job.log.append("stage", stage="preparing")


def _identity(attempt: int) -> dict[str, object]:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as package_version

    found = {"python": platform.python_version()}
    for name in ("dojang", "torch", "ultralytics", "effdet"):
        try:
            found[name] = package_version(name)
        except PackageNotFoundError:
            continue
    return {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname(), "versions": found}


def _first_cause(version: Version, log: EventLog, e: DojangError) -> tuple[str, str, str]:
    """Code, message and hint; where another of the processes that train together failed first, those that it had."""
    if e.code == "RANK_LOST" and not isinstance(log, Silent):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError, ValueError, AttributeError):
                told = json.loads((version.path / FAILED).read_bytes())
                if told.get("group") == os.getppid() and told.get("code") != "RANK_LOST":
                    return str(told["code"]), str(told.get("message") or ""), str(told.get("hint") or "")
            time.sleep(0.05)
    return e.code, e.message, e.hint


def _fail(log: EventLog, code: str, message: str, hint: str) -> int:
    try:
        log.append("error", code=code, message=message, hint=hint)
        log.append("end", state="failed")
    except DojangError:
        traceback.print_exc()  # the disk that failed the training may fail its last word too: the supervisor's record is left
    return 1


def main(argv: list[str]) -> int:
    """`python -m engine RUN_DIR`: SIGTERM means stop, as the person's own stop does."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m engine RUN_DIR\n")
        return 2
    return run_in_terminal(Path(argv[0]), interrupt=False)


def run_in_terminal(run_dir: Path, *, interrupt: bool = True) -> int:
    """`run` in the main thread, with SIGTERM, and Ctrl+C if `interrupt`, meaning stop; a second Ctrl+C interrupts."""
    control_path = version_at(run_dir).control

    def on_signal(number: int, _frame: object) -> None:
        # first of all: whoever signals again, such as a supervisor and Slurm, would have it written within its writing
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN)
        send(control_path, "stop")

    processes = _processes(run_dir)
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        return _together(run_dir, processes)
    if "WORLD_SIZE" in os.environ:
        end_with_parent()
    signal.signal(signal.SIGTERM, on_signal)
    if interrupt:
        signal.signal(signal.SIGINT, on_signal)
    return run(run_dir)


def _processes(run_dir: Path) -> int:
    try:
        from engine import plugins

        version = version_at(run_dir)
        plugins.look_in(version.workspace.path)
        return plugins.processes(version.spec())
    except DojangError:
        return 1  # `run` says what is wrong with it


def _together(run_dir: Path, processes: int) -> int:
    """Several processes for one training, started from a terminal; Ctrl+C reaches them all as a stop."""
    from engine.servers.supervisor import command

    home = str(Path(__file__).parent.parent)
    path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
    child = subprocess.Popen(
        command(run_dir, processes), env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
    control_path = version_at(run_dir).control
    signal.signal(signal.SIGINT, lambda *_: send(control_path, "stop"))
    signal.signal(signal.SIGTERM, lambda *_: send(control_path, "stop"))
    return child.wait()


__all__ = ["Job", "announce", "main", "run", "run_in_terminal", "version_at"]
