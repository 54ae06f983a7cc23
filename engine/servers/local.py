"""This machine as a server: start, stop and resume a version's worker so that it outlives whoever asked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import engine
from engine import control, files, plugins
from engine.errors import DojangError
from engine.servers import supervisor, waiting
from engine.versions import Version

if TYPE_CHECKING:
    from engine.spec import Spec

START_TIMEOUT = 30.0
PROBE_SECONDS = 0.3  # longer than anybody holds the lock to see whether it is held
Mode = Literal["auto", "queue", "now"]


def start(version: Version, mode: Mode = "auto") -> None:
    """Launch the version's worker under a supervisor of its own session; return once its lock is surely held.

    Where it trains on GPUs it waits for its turn there, in the queue of this machine; `queue` has one for the CPU wait
    too, `now` has none wait. Raises DojangError(RUNNING) when it runs or waits already. Its output goes to `train.log`,
    its input is null.
    """
    lock = _submitted(version, mode)
    try:
        subprocess.run(
            [sys.executable, "-P", "-m", "engine.servers.supervisor", str(version.path), str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[lock],
            env=_environment(),
            cwd="/",
            start_new_session=True,
            timeout=START_TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as e:
        said = (e.stderr or b"").decode(errors="replace").strip().splitlines()
        raise _not_started(version, said[-1] if said else f"it ended with code {e.returncode}") from e
    except (subprocess.SubprocessError, OSError) as e:
        raise _not_started(version, str(e)) from e
    finally:
        os.close(lock)


def stay(version: Version, mode: Mode = "auto") -> str:
    """As `start`, but return only once the training has ended: its state then. For containers and schedulers.

    SIGTERM and SIGINT have it saved and ended, so that a later call goes on.
    """
    lock = _submitted(version, mode)
    words = [sys.executable, "-P", "-m", "engine.servers.supervisor", "--stay", str(version.path), str(lock)]
    try:
        with version.train_log.open("ab") as log:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock], env=_environment(), cwd="/",
                start_new_session=True,
            )  # fmt: skip
    except OSError as e:
        raise _not_started(version, str(e)) from e
    finally:
        os.close(lock)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    child.wait()
    return version.state(version.progress(skip_steps=True))


def _submitted(version: Version, mode: Mode) -> int:
    """The version's lock, held, with the job laid down. Raises DojangError."""
    try:
        lock = os.open(version.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise files.disk_error(e, version.path) from e
    try:
        _claim(version, lock)
        control.withdraw(version.control)
        version.waiting_file.unlink(missing_ok=True)
        files.write_json(version.job, job(version, mode))
        return lock
    except OSError as e:
        os.close(lock)
        raise files.disk_error(e, version.path) from e
    except DojangError:
        os.close(lock)
        raise


def _not_started(version: Version, why: str) -> DojangError:
    return DojangError(f"The worker could not be started: {why}", code="START_FAILED", hint=f"See {version.train_log}")


def job(version: Version, mode: Mode = "auto") -> dict[str, Any]:
    """What the supervisor is to do, frozen as of now: see `supervisor`."""
    try:
        spec = version.spec()
        processes = plugins.processes(spec)
        gpus, first = needed(spec)
    except DojangError:  # which the worker will say
        processes, gpus, first = 1, 0, None
    if not shutil.which("nvidia-smi") or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        gpus, first = 0, None
    folder = Path(engine.__file__).parent
    return {
        "argv": supervisor.command(version.path, processes),
        "title": version.reference,
        "processes": processes,
        "queue": mode == "queue" or (mode == "auto" and gpus > 0),
        "gpus": gpus,
        "first": first,
        "fallback": "turn" if mode == "queue" else "cpu",
        "frozen": {"spec.toml": hashlib.sha256(version.spec_file.read_bytes()).hexdigest()},
        "code": {"folder": str(folder), "sha256": supervisor.fingerprint(folder)},
    }


def needed(spec: Spec) -> tuple[int, int | None]:
    """How many GPUs a training takes where there are any, and from which number on, None for any. 0: it takes none."""
    program = plugins.program_of(spec.model)
    if spec.device in ("cpu", "mps") or (program and not program.gpus[1]):
        return 0, None
    return spec.gpus, int(spec.device.removeprefix("cuda:")) if spec.device.startswith("cuda:") else None


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


def take_gpus(version: Version, mode: Mode = "auto") -> None:
    """For a training in this very process: what it needs is this process's as long as that lives, and all that it sees.

    Nobody waits here: raises DojangError(BUSY) where it would have to, NO_GPU. With `now` it goes without asking.
    """
    wanted = job(version, mode)
    if not wanted["queue"]:
        return
    turn = waiting.Wait(version.path, wanted)
    try:
        grant, reason = turn.at_once()
    except waiting.Stopped as e:
        code, message, hint = e.args
        raise DojangError(message, code=code, hint=hint) from e
    if reason:
        hint = f"Have it wait for its turn: dojang resume {version.reference}. With --now it goes beside what trains there."
        raise DojangError(f"{version.reference} cannot start at once: it {reason}.", code="BUSY", hint=hint)
    seen = turn.visible(grant)
    if seen is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen


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


def resume(version: Version, **how: Mode) -> None:
    """Go on from the last checkpoint, or from the beginning where there is none. Raises DojangError when it is done.

    `mode` as for `start`.
    """
    progress = version.progress(skip_steps=True)
    if version.state(progress) == "done":
        hint = f"For more epochs: dojang extend {version.reference} {progress.epochs_total * 2 or 100}"
        raise DojangError(f"{version.reference} is done.", code="DONE", hint=hint)
    start(version, **how)


def change(version: Version, **settings: float) -> None:
    """Change `epochs`, `patience` or `lr_scale` of a version: at once when it runs, else when it is resumed.

    Raises Invalid, and DojangError(DONE) when fewer epochs are asked for than are done already.
    """
    check_epochs(version, settings)
    control.send(version.control, None, **settings)


def check_epochs(version: Version, settings: Mapping[str, float]) -> None:
    """Raises DojangError(DONE) where fewer epochs are asked for than are behind it."""
    done = version.progress(skip_steps=True).epochs_done
    if "epochs" in settings and settings["epochs"] < done:
        hint = f"To end it now: dojang stop {version.reference} --finish"
        raise DojangError(f"{version.reference} has {done} epochs behind it already.", code="DONE", hint=hint)


def request(version: Version, what: control.Request) -> None:
    """Ask a running version to stop, pause or finish. Raises DojangError(NOT_RUNNING) when nothing runs.

    One that waits in the queue is taken out of it by a stop; there is nothing in it yet to pause or to finish.
    """
    state = version.state(version.progress(skip_steps=True))
    if not version.alive():
        raise DojangError(f"{version.reference} is not running: it is {state}.", code="NOT_RUNNING")
    if state == "queued" and what != "stop":
        hint = (
            f"Let others go first: dojang queue hold {version.reference}. Take it out: dojang stop {version.reference}"
        )
        raise DojangError(f"{version.reference} has not begun: it waits in the queue.", code="NOT_RUNNING", hint=hint)
    control.send(version.control, what)


def wait(version: Version, seconds: float) -> str:
    """Wait until the version no longer runs, at most `seconds`; return its state then."""
    end = time.monotonic() + seconds
    while version.alive() and time.monotonic() < end:
        time.sleep(0.05)
    return version.state(version.progress(skip_steps=True))


__all__ = [
    "Mode",
    "change",
    "check_epochs",
    "hold",
    "job",
    "needed",
    "request",
    "resume",
    "start",
    "stay",
    "take_gpus",
    "wait",
]
