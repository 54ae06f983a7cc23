"""The supervisor: holds a run's lock for its whole life, starts the worker, and records how it ended. Stdlib only.

Runs as `python -m engine.servers.supervisor RUN_DIR LOCK_FD PROCESSES`. The lock is an inherited, already held `flock`; the
worker inherits it too, so it is free only once both are gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def reason(code: int) -> str:
    """How the worker ended, in words; empty when it ended by itself without complaint."""
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "It was killed (signal 9): by hand, or by the system because memory ran out."
    if code == -signal.SIGSEGV:
        return "It crashed in native code (signal 11)."
    if code < 0:
        return f"It was ended by signal {-code}."
    return f"It ended with exit code {code}."


def record(run_dir: Path, code: int) -> None:
    """Leave `exit.json`, whole or not at all. A full disk must not keep the lock held: then there is no record."""
    text = json.dumps({"code": code, "reason": reason(code), "ended": time.time()})
    temp = run_dir / ".exit.json.tmp"
    try:
        temp.write_text(text)
        temp.replace(run_dir / "exit.json")
    except OSError:
        temp.unlink(missing_ok=True)


def command(run_dir: Path, processes: int) -> list[str]:
    """What trains the version in `run_dir`: our worker, under torchrun where several processes share its batches."""
    if processes <= 1:
        return [sys.executable, "-P", "-m", "engine", str(run_dir)]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, "-P", "-m", *torchrun, "--module", "engine", str(run_dir)]


def supervise(run_dir: Path, lock_fd: int, processes: int) -> int:
    worker = subprocess.Popen(
        command(run_dir, processes),
        stdin=subprocess.DEVNULL,
        pass_fds=[lock_fd],
        env={**os.environ, "DOJANG_LOCK_FD": str(lock_fd)},
        start_new_session=True,
    )

    def forward(number: int, _frame: object) -> None:
        worker.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    code = worker.wait()
    try:
        os.killpg(worker.pid, signal.SIGKILL)  # what the worker started ends with it
    except (ProcessLookupError, PermissionError):
        pass
    record(run_dir, code)
    return code


def main(argv: list[str]) -> int:
    """Step away from whoever started us, so that nobody's exit, hang-up or missing `wait` matters."""
    if os.fork():
        os._exit(0)
    return supervise(Path(argv[0]), int(argv[1]), int(argv[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
