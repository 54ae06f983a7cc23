"""The app's figures: start, memory, keys, link, a long log. `python -m tests.bench.app [--live]`."""

from __future__ import annotations

import fcntl
import os
import select
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from engine.spec import Label, Spec
from engine.versions import Version, Workspace
from tests.bench.make import workspace, write
from tests.bench.terminal import Terminal

APP = [sys.executable, "-m", "tui.cli"]


def start(path: Path, runs: int = 11) -> tuple[float, float]:
    """Median seconds from process start to the first frame that shows a version, and MB resident then."""
    times, memory = [], 0.0
    for _ in range(runs):
        terminal = Terminal([*APP, "--workspace", str(path)])
        terminal.read(10, until=b"V_199")
        times.append(time.perf_counter() - terminal.started)
        terminal.read(1.5, quiet=0.5)
        memory = max(memory, terminal.resident())
        terminal.close()
    return statistics.median(times[1:]), memory


def long_log(path: Path) -> float:
    """Seconds from Enter on a version with 100 000 step events until its summary stands there whole."""
    version = Workspace(path).project().create(Spec(dataset="cells", epochs=100), Label(name="long"))
    write(version, 100, 1000, done=True)
    terminal = Terminal([*APP, "--workspace", str(path)])
    terminal.read(20, until=b"long")
    terminal.read(3, quiet=0.7)
    begun = time.perf_counter()
    terminal.send(b"\r")
    terminal.read(20, until=b"weights")
    seconds = time.perf_counter() - begun
    terminal.close()
    return seconds


class Live:
    """A run that goes on: its lock held, its log fed at 4 steps a second, as a training would."""

    def __init__(self, path: Path, rate: float = 4.0) -> None:
        self.version: Version = (
            Workspace(path).project(create=True).create(Spec(dataset="cells", epochs=50), Label(name="live"))
        )
        write(self.version, 50, 128, done=False)
        lines = self.version.events.read_text().splitlines(keepends=True)
        half = len(lines) // 2
        self.version.events.write_text("".join(lines[:half]))
        self._rest, self._rate = lines[half:], rate
        self._lock = self.version.lock.open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        with self.version.events.open("a") as log:
            for line in self._rest:
                if self._over.wait(1 / self._rate):
                    return
                log.write(line)
                log.flush()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._lock.close()


def live(
    path: Path, seconds: float = 20.0, keys: int = 60, environment: dict[str, str] | None = None
) -> tuple[float, float, float]:
    """kB/s of the live screen while nobody types, then median and 95th percentile milliseconds from key to paint."""
    run = Live(path)
    terminal = Terminal([*APP, "--workspace", str(path)], environment=environment)
    terminal.read(10, until=b"live")
    terminal.read(2, quiet=0.5)
    terminal.send(b"\r")
    terminal.read(5)
    before = terminal.total
    terminal.read(seconds)
    rate = (terminal.total - before) / seconds / 1000
    times = [_key_to_paint(terminal, KEYS[i % len(KEYS)]) for i in range(keys)]
    terminal.close()
    run.close()
    ordered = sorted(times)
    return rate, statistics.median(times), ordered[int(len(ordered) * 0.95)]


# The live screen's own keys: to the log and through the views, charts, log scale, zoom. Each changes what is shown.
KEYS = (b"\t", b"\t", b"\t", b"\t", b"g", b"b", b"z", b"z")


def _key_to_paint(terminal: Terminal, key: bytes) -> float:
    """Milliseconds until the first byte that the key brings about; it is pressed in a moment of silence."""
    terminal.read(1.0, quiet=0.12)
    begun = time.perf_counter()
    terminal.send(key)
    select.select([terminal.fd], [], [], 2.0)
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        workspace(path, 200)
        seconds, memory = start(path)
        print(f"start to first frame with 200 versions   {seconds:.3f} s   (goal 0.35)")
        print(f"resident                                 {memory:.0f} MB  (goal 90)")
        print(f"a log of 100 000 steps opens in          {long_log(path):.2f} s   (goal 1.5)")
    for name, environment in (("cell-diff driver", {}), ("plain driver", {"DOJANG_PLAIN_DRIVER": "1"})):
        with tempfile.TemporaryDirectory() as folder:
            rate, median, high = live(Path(folder), environment=environment)
            print(
                f"live screen, 120x40, {name:<18}  {rate:.1f} kB/s (goal 12)   key to paint {median:.1f} ms, p95 {high:.1f} ms (goal 20)"
            )
    print(f"load while measuring {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
