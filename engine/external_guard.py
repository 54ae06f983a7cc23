"""Starts an external kernel and ends with it, and everything that it started ends with the worker. Stdlib only.

Runs as `python external_guard.py LIFE TOLD COMMAND…`, as the leader of a session of its own. LIFE is a pipe that closes when
the worker is gone, however it went; then the whole group is killed. When the command has ended, its exit code is
written to TOLD, and what it left running is killed too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(argv: list[str]) -> None:
    life, told, command = int(argv[0]), int(argv[1]), argv[2:]
    # SIGTERM is for the kernel. A handler, and not SIG_IGN: that would be inherited.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)

    def watch() -> None:
        while os.read(life, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as e:
        os.write(told, f"! {e.strerror}".encode())
        return
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    os.write(told, f"{code}\n".encode())
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
