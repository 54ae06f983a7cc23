"""The processes below this one: adopt them, bury them, end them all. Stdlib only, Python 3.8 and later."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt() -> None:
    """Have whatever our children leave behind become ours. Elsewhere than on Linux: no."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Of this process; none where there is no /proc."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(entry))
    return found


def bury(but: int) -> None:
    """Take leave of adopted processes that have ended; `but`, whose exit code somebody waits for, is left alone."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in (0, but):
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def signal_group(group: int, number: int) -> None:
    """To every process of a group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def sweep(seconds: float = 10.0) -> int:
    """End every process below this one; how many are left because not even SIGKILL ends them.

    torchrun gives each of its workers a session of its own, which no signal to a group reaches; adopted, they are ours.
    """
    end = time.monotonic() + seconds
    while True:
        found = children()
        if not found or time.monotonic() > end:
            return len(found)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.005)
