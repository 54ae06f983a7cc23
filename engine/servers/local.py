"""This machine as a server: start, stop and resume a version's worker so that it outlives whoever asked."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import engine
from engine import control, files, plugins
from engine.errors import DojangError
from engine.versions import Version

START_TIMEOUT = 30.0
PROBE_SECONDS = 0.3  # longer than anybody holds the lock to see whether it is held


def start(version: Version) -> None:
    """Launch the version's worker under a supervisor of its own session; return once its lock is surely held.

    Raises DojangError(RUNNING) when it runs already. Its output goes to `train.log`, its input is null.
    """
    try:
        lock = os.open(version.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        output = os.open(version.train_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise files.disk_error(e, version.path) from e
    try:
        _claim(version, lock)
        control.withdraw(version.control)
        version.exit_record.unlink(missing_ok=True)
        subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "engine.servers.supervisor",
                str(version.path),
                str(lock),
                str(_processes(version)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[lock],
            env=_environment(),
            cwd="/",
            start_new_session=True,
            timeout=START_TIMEOUT,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as e:
        raise DojangError(
            f"The worker could not be started: {e}", code="START_FAILED", hint=f"See {version.train_log}"
        ) from e
    finally:
        os.close(output)
        os.close(lock)


def _processes(version: Version) -> int:
    """How many processes train it; 1 where its spec cannot be read, which the worker then says."""
    try:
        return plugins.processes(version.spec())
    except DojangError:
        return 1


def hold(version: Version) -> IO[bytes]:
    """Take the version's lock for a training in this very process; closing the returned file gives it back."""
    try:
        lock = version.lock.open("ab")
    except OSError as e:
        raise files.disk_error(e, version.path) from e
    try:
        _claim(version, lock.fileno())
        control.withdraw(version.control)
        version.exit_record.unlink(missing_ok=True)
    except OSError as e:
        lock.close()
        raise files.disk_error(e, version.path) from e
    except DojangError:
        lock.close()
        raise
    return lock


def _claim(version: Version, lock: int) -> None:
    """Take the run's lock, and date it: whoever reads an older last word in the log knows that it no longer counts."""
    end = time.monotonic() + PROBE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as e:
            if time.monotonic() > end:
                hint = f"Watch it: dojang follow {version.reference}"
                raise DojangError(f"{version.reference} is running already.", code="RUNNING", hint=hint) from e
            time.sleep(0.01)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()} {time.time():.3f}\n".encode())


def _environment() -> dict[str, str]:
    """The worker's environment: ours, able to import this very package, without what belongs to a login."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "TEXTUAL"))}
    home = Path(engine.__file__).parent.parent
    if home.name not in ("site-packages", "dist-packages"):
        keep["PYTHONPATH"] = os.pathsep.join(p for p in (str(home), keep.get("PYTHONPATH", "")) if p)
    keep["PYTHONUNBUFFERED"] = "1"
    return keep


def resume(version: Version) -> None:
    """Go on from the last checkpoint, or from the beginning where there is none. Raises DojangError when it is done."""
    progress = version.progress(skip_steps=True)
    if version.state(progress) == "done":
        hint = f"For more epochs: dojang extend {version.reference} {progress.epochs_total * 2 or 100}"
        raise DojangError(f"{version.reference} is done.", code="DONE", hint=hint)
    start(version)


def change(version: Version, **settings: float) -> None:
    """Change `epochs`, `patience` or `lr_scale` of a version: at once when it runs, else when it is resumed.

    Raises Invalid, and DojangError(DONE) when fewer epochs are asked for than are done already.
    """
    done = version.progress(skip_steps=True).epochs_done
    if "epochs" in settings and settings["epochs"] < done:
        raise DojangError(
            f"{version.reference} has {done} epochs behind it already.",
            code="DONE",
            hint=f"To end it now: dojang stop {version.reference} --finish",
        )
    control.send(version.control, None, **settings)


def extend(version: Version, epochs: int) -> None:
    """Let a version have `epochs` in all, and go on training it if it does not run."""
    change(version, epochs=epochs)
    if not version.alive():
        start(version)


def request(version: Version, what: control.Request) -> None:
    """Ask a running version to stop, pause or finish. Raises DojangError(NOT_RUNNING) when nothing runs."""
    if not version.alive():
        state = version.state(version.progress(skip_steps=True))
        raise DojangError(f"{version.reference} is not running: it is {state}.", code="NOT_RUNNING")
    control.send(version.control, what)


def wait(version: Version, seconds: float) -> str:
    """Wait until the version no longer runs, at most `seconds`; return its state then."""
    end = time.monotonic() + seconds
    while version.alive() and time.monotonic() < end:
        time.sleep(0.05)
    return version.state(version.progress(skip_steps=True))


__all__ = ["change", "extend", "hold", "request", "resume", "start", "wait"]
