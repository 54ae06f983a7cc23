"""The supervisor: waits for a run's turn, starts its worker, and holds the run's lock and its GPUs until it is over.

    python -m engine.servers.supervisor [--stay] RUN_DIR [LOCK_FD]
    python supervisor.py [--stay] RUN_DIR [LOCK_FD]           a copy that was sent somewhere, with its NEIGHBOURS

Stdlib only, Python 3.8 and later. It returns 0 once the run is accepted: by then its lock is held and, where it has to
wait, its place in the queue is taken; what goes on is a process of its own that belongs to nobody's session. Else it
says on stderr what is wrong and returns 2 (no sound job), 3 (no place in the queue) or 4 (it is running already).
LOCK_FD is an inherited `flock` of RUN_DIR/lock, already held; the worker inherits it too, so that it is free only once
both are gone. With --stay it is this very process that supervises, for a caller that stepped away from everybody itself;
what is wrong then stands in exit.json. RUN_DIR/job.json says what to run:

    argv       the worker's command; {run} in it is RUN_DIR
    title      what people call the run
    processes  how many processes share the training (default 1): several are stopped by their control file alone
    queue      true: wait for a turn (default); false: start at once
    gpus       how many GPUs it takes, 0 for none (default 1); first: from this number on (default: any)
    fallback   where there is no GPU: "cpu" starts it (default), "turn" has it wait for its turn on the CPU
    frozen     {file in RUN_DIR: its sha256}: what may not change while it waits
    code       {"folder", "sha256"}: what trains it; said in the log when it changed while it waited
    limit      seconds that it may run; grace: seconds that it then has to save and end
    poll       seconds between two looks at the queue
    slurm      {"margin"}: it is a job of Slurm's; see `slurm_job`

What it leaves in RUN_DIR: waiting.json while it waits (why, and behind how many), `heartbeat` touched every two seconds,
exit.json once the worker has ended. What the worker and it print goes to train.log.
"""

from __future__ import annotations

import os
import sys

if not __package__:  # a lone copy: its neighbours are a package to it, and `queue` stays the standard library's
    import types

    _HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _HERE]
    for _name in ("engine", "engine.servers"):
        _made = types.ModuleType(_name)
        _made.__path__ = [_HERE]
        sys.modules[_name] = _made

import contextlib
import fcntl
import hashlib
import json
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Mapping, NoReturn, Sequence  # noqa: UP035 - Python 3.8

from engine.servers import offspring, slurm_job
from engine.servers.queue import LARGEST, Grant
from engine.servers.waiting import Stopped, Wait

NEIGHBOURS = (*("supervisor.py", "slurm_job.py", "waiting.py", "queue.py", "turns.py", "offspring.py", "inventory.py"),)
BEAT = 2.0
RESERVE, ROOM = ".exit.room", 4096  # bytes
GRACE = 300.0
LAST_GRACE = 30.0
NEVER = float("inf")
NO_JOB, NO_QUEUE, RUNNING = 2, 3, 4


def reason(code: int, limited: float = 0) -> str:
    """How the worker ended, in words; empty when it ended by itself without complaint."""
    if limited:
        return f"It reached its time limit of {limited / 3600:.1f} h."
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "It was killed (signal 9): by hand, or by the system because memory ran out."
    if code == -signal.SIGSEGV:
        return "It crashed in native code (signal 11)."
    if code < 0:
        return f"It was ended by signal {-code}."
    return f"It ended with exit code {code}."


def record(run_dir: Path, code: int, words: str | None = None, **more: Any) -> None:
    """Leave `exit.json`, whole or not at all; on a full disk in the room that `reserve` kept for it."""
    words = reason(code) if words is None else words
    if code and _full(run_dir):
        words = f"{words} No space is left on its disk.".lstrip()
    told = {"code": code, "reason": words, "ended": time.time(), **more}
    kept, target = run_dir / RESERVE, run_dir / "exit.json"
    with contextlib.suppress(OSError):
        if not _replace(target, told):
            with kept.open("r+b") as f:  # over what is there, which takes no new room
                f.write(json.dumps(told).encode().ljust(ROOM))
            kept.replace(target)
        kept.unlink()


def reserve(run_dir: Path) -> None:
    """Room for the last record: whoever fills the disk must not keep it from being told."""
    with contextlib.suppress(OSError):
        (run_dir / RESERVE).write_bytes(b" " * ROOM)


def _full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 1 << 16 or (disk.f_files > 0 and not disk.f_favail)


def command(run_dir: Path, processes: int) -> list[str]:
    """What trains the version in `run_dir`: our worker, under torchrun where several processes share its batches."""
    if processes <= 1:
        return [sys.executable, "-P", "-m", "engine", str(run_dir)]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, "-P", "-m", *torchrun, "--module", "engine", str(run_dir)]


def fingerprint(folder: Path) -> str:
    """One name for every line of Python in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        try:
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
        except OSError:
            continue
    return digest.hexdigest()


class Supervisor:
    """One run, from its place in the queue to its worker's end."""

    def __init__(self, run_dir: Path, job: Mapping[str, Any], lock: int, stay: bool = False) -> None:
        self.run_dir, self.job, self.lock, self.stay = run_dir, job, lock, stay
        self.wait = Wait(run_dir, job)
        told = job.get("slurm")
        self.slurm = slurm_job.Job(run_dir, told, self._event) if isinstance(told, dict) else None
        self._person = False  # whether it was a person who asked for its end
        self.worker: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def join(self) -> None:
        """Take a place in the queue, if the job is to have its turn. Raises OSError."""
        if self.job.get("queue", True):
            self.wait.join()

    def supervise(self) -> int:
        """Wait, train, and tell how it ended. The worker's exit code; 0 where there was none."""
        wake = self._listen()
        offspring.adopt()
        grant = None
        try:
            if self.job.get("queue", True):
                grant = self.wait.wait(self._beat_waiting)
                self._beat_waiting()
                self._check_frozen()
        except Stopped as e:
            if e.args:
                code, message, hint = e.args
                self._event("error", code=code, message=message, hint=hint)
                self._event("end", state="failed")
            elif self.stay:  # whoever looks at it from elsewhere has its log alone to tell a stop from a death
                paused = _read(self.run_dir / "control.json").get("request") == "pause"
                self._event("end", state="paused" if paused else "stopped")
            self.wait.leave()
            return 0
        return self._train(grant, wake)

    def _beat_waiting(self) -> None:
        """Raises Stopped when somebody asked for the end of it. To finish is the worker's, once it has its turn."""
        _touch(self.run_dir / "heartbeat")
        if self._asked or _read(self.run_dir / "control.json").get("request") in ("stop", "pause"):
            raise Stopped

    def _check_frozen(self) -> None:
        """What was submitted is what runs: a changed file ends it, other code is told of. Raises Stopped."""
        for name, before in _dict(self.job.get("frozen")).items():
            try:
                now = hashlib.sha256((self.run_dir / name).read_bytes()).hexdigest()
            except OSError:
                now = ""
            if now != before:
                raise Stopped(
                    "SPEC_CHANGED",
                    f"{name} was changed while the training waited, so it was not started.",
                    "If it is as you want it now, start it with resume; else put it back first.",
                )
        code = _dict(self.job.get("code"))
        if code and fingerprint(Path(str(code.get("folder")))) != code.get("sha256"):
            self._event(
                "log", level="warning", text="dojang changed while this waited: it trains with the code of now."
            )

    def _train(self, grant: Grant | None, wake: int) -> int:
        with contextlib.suppress(OSError):
            (self.run_dir / "exit.json").unlink()
        reserve(self.run_dir)
        if self.slurm:
            self.slurm.begin()
        try:
            worker = self.worker = self._start(grant)
        except OSError as e:
            record(self.run_dir, 127, f"It could not be started: {e.strerror or e}.")
            return 127
        finally:
            self.wait.over()
        if self._asked:  # in the moment in which there was nobody to tell
            self._press(1)
        limited = self._attend(worker, wake, grant)
        offspring.signal_group(worker.pid, signal.SIGKILL)  # what the worker started ends with it
        offspring.sweep()
        code = int(worker.returncode)
        more: dict[str, Any] = {"person": self._person} if self.slurm else {}
        record(self.run_dir, code, reason(code, limited), asked=bool(self._asked), limited=bool(limited), **more)
        if self.slurm:
            self.slurm.after(lambda: bool(self._asked))
        return code

    def _start(self, grant: Grant | None) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SSH_")}
        environment["DOJANG_LOCK_FD"] = str(self.lock)
        seen = self.wait.visible(grant)
        if seen is not None:
            environment["CUDA_VISIBLE_DEVICES"] = seen
        return subprocess.Popen(
            [word.replace("{run}", str(self.run_dir)) for word in self.job["argv"]],
            stdin=subprocess.DEVNULL,
            pass_fds=[self.lock, *(grant.fds if grant else ())],
            env=environment,
            cwd=self.job.get("cwd") or "/",
            start_new_session=True,
        )

    def _attend(self, worker: subprocess.Popen[bytes], wake: int, grant: Grant | None) -> float:
        """Beat until the worker has ended, and see to its time limit. The limit, if that ended it; else 0."""
        limit, began, pressed, touched = float(self.job.get("limit") or 0), time.monotonic(), 0, 0.0
        grace = float(self.job.get("grace", GRACE))
        while worker.poll() is None:
            now = time.monotonic()
            _touch(self.run_dir / "heartbeat")
            if now - touched > 3600:  # whoever cleans up temporary folders sees that these are in use
                touched = now
                for fd in grant.fds if grant else ():
                    os.utime(fd)
            if self.slurm:
                self._person = self._person or (not self._asked and self.slurm.asked() in ("stop", "pause"))
                if self.slurm.overdue:
                    offspring.signal_group(worker.pid, signal.SIGKILL)
            over = now - began - limit if limit else -1.0
            if over > (0, grace, grace + LAST_GRACE, NEVER)[pressed]:
                pressed += 1
                self._press(pressed)
            offspring.bury(worker.pid)
            select.select([wake], [], [], min(BEAT, max(0.01, -over)) if limit and over < 0 else BEAT)
            _drain(wake)
        return limit if pressed else 0.0

    def _listen(self) -> int:
        """Signals from here on; what is returned can be read as soon as there was one."""
        read, write = os.pipe()
        for fd in (read, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self.slurm:
            signal.signal(signal.SIGUSR1, lambda *_: self.slurm.leave() if self.slurm else None)
        return read

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._asked += 1
        self._press(self._asked)

    def _press(self, times: int) -> None:
        """Ask the worker to end: first to save and stop, then SIGTERM, then SIGKILL.

        Several processes hear of a stop by the control file alone: torchrun answers a signal by killing them.
        """
        worker = self.worker
        if worker is None:
            return
        if times == 1:
            _ask_to_stop(self.run_dir / "control.json")
        if times > 2:
            offspring.signal_group(worker.pid, signal.SIGKILL)
        elif times == 2 or int(self.job.get("processes", 1)) <= 1:
            with contextlib.suppress(OSError):
                worker.send_signal(signal.SIGTERM)

    def _event(self, kind: str, **fields: Any) -> None:
        """Append to the log as a worker does: one write, on a line of its own."""
        line = json.dumps({"kind": kind, "t": round(time.time(), 3), **fields}, ensure_ascii=False)
        with contextlib.suppress(OSError):
            fd = os.open(self.run_dir / "events.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(fd).st_size
                torn = size and os.pread(fd, 1, size - 1) != b"\n"
                os.write(fd, (b"\n" if torn else b"") + line.encode() + b"\n")
            finally:
                os.close(fd)


def _ask_to_stop(control: Path) -> None:
    """Write a stop request; what else was asked of the training stays."""
    settings = _dict(_read(control).get("settings"))
    _replace(control, {"request": "stop", "settings": settings, "at": time.time()})


def _drain(pipe: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(pipe, 512):
            pass


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.touch()


def _replace(path: Path, value: Any) -> bool:
    """Write a small file, whole or not at all; whether it was."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(json.dumps(value))
        temp.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temp.unlink()
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        return _dict(json.loads(path.read_bytes())) if path.stat().st_size <= LARGEST else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sound(job: Mapping[str, Any]) -> str:
    """What is wrong with a job; empty where nothing is."""
    argv = job.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(a, str) for a in argv):
        return "argv must be a list of words"
    for name, low, high in (("gpus", 0, 64), ("first", 0, 64), ("processes", 1, 64)):
        value = job.get(name)
        if value is not None and (not isinstance(value, int) or not low <= value <= high):
            return f"{name} must be a whole number, {low} to {high}"
    for name in ("limit", "grace", "poll"):
        value = job.get(name)
        if value is not None and (not isinstance(value, (int, float)) or value < 0):
            return f"{name} must be a number of seconds"
    return ""


def _claim(run_dir: Path) -> int | None:
    """The run's lock, held; None when somebody else holds it."""
    fd = os.open(run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()} {time.time():.3f}\n".encode())
    return fd


def _detach(run_dir: Path) -> None:
    """A session of its own, and no descriptor of whoever started us."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(run_dir / "train.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    for fd in (null, log):
        if fd > 2:
            os.close(fd)
    os.chdir("/")


def main(argv: Sequence[str]) -> int:
    """Accept a run or say why not; go on apart from whoever started us, whose exit or hang-up then does not matter."""
    stay, places = "--stay" in argv, [a for a in argv if a != "--stay"]
    run_dir = Path(os.path.abspath(places[0]))
    job = _read(run_dir / "job.json")
    wrong = sound(job)
    if wrong:
        return _refuse(run_dir, stay, NO_JOB, f"{run_dir / 'job.json'} cannot be run: {wrong}.")
    lock = int(places[1]) if len(places) > 1 else _claim(run_dir)
    if lock is None:
        return _refuse(run_dir, False, RUNNING, f"{run_dir.name} is running already.")
    run = Supervisor(run_dir, job, lock, stay)
    try:
        run.join()
    except OSError as e:
        words = f"There is no place in the queue at {run.wait.where}: {e.strerror or e}. DOJANG_QUEUE can name another."
        return _refuse(run_dir, stay, NO_QUEUE, words)
    if stay or not os.fork():
        _go_on(run, None if stay else run_dir)
    os._exit(0)


def _refuse(run_dir: Path, stay: bool, code: int, words: str) -> int:
    sys.stderr.write(f"{words}\n")
    if stay:
        record(run_dir, code, words, launched=False)
    return code


def _go_on(run: Supervisor, apart: Path | None) -> NoReturn:
    try:
        if apart:
            _detach(apart)
        code = run.supervise()
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
