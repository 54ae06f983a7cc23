"""A machine with GPUs for tests: nvidia-smi is played, so is what trains; supervisors, locks and the queue are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.servers import inventory, queue
from engine.servers.turns import View, Waiting
from tests.played import ROOT, end_all, until

FAKES = Path(__file__).parent / "fakebin"
SUPERVISOR = [sys.executable, "-P", "-m", "engine.servers.supervisor"]
WORKER = """
say() { echo "$1 $(basename "$RUN") ${CUDA_VISIBLE_DEVICES:-none}" >> "$LOG"; }
RUN=$1 SECONDS_TO_GO=$2 LOG=$3
say start
if [ "$SECONDS_TO_GO" = until ]; then
    while [ ! -e "$RUN/go" ]; do sleep 0.02; done
else
    sleep "$SECONDS_TO_GO"
fi
say end
"""


class Box:
    """Submits runs as a machine's users do; `story` is what their workers did, in order."""

    def __init__(self, folder: Path, gpus: int = 2) -> None:
        self.folder, self.place = folder, str(folder / "queue")
        self.apps, self.used, self.log = folder / "apps", folder / "used", folder / "story"
        self.log.touch()
        (folder / "worker.sh").write_text(WORKER)
        self.environment = {
            **{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"},
            "PATH": f"{FAKES}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DOJANG_QUEUE": self.place,
            "FAKE_GPUS": str(gpus),
            "FAKE_APPS": str(self.apps),
            "FAKE_USED": str(self.used),
        }

    def run_dir(self, name: str) -> Path:
        return self.folder / "runs" / name

    def submit(self, name: str, seconds: float | str = "until", *, env: Any = None, **job: Any) -> Path:
        """Hand a run to its supervisor, which has accepted it on return."""
        run = self.run_dir(name)
        run.mkdir(parents=True, exist_ok=True)
        argv = ["/bin/sh", str(self.folder / "worker.sh"), "{run}", str(seconds), str(self.log)]
        (run / "job.json").write_text(json.dumps({"argv": argv, "title": name, "poll": 0.02, **job}))
        done = self.supervisor([str(run)], env=env)
        assert done.returncode == 0, done.stderr
        return run

    def supervisor(
        self, arguments: list[str], program: list[str] = SUPERVISOR, env: Any = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *arguments],
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            start_new_session=True,
            timeout=60,
        )

    @property
    def story(self) -> list[str]:
        return self.log.read_text().splitlines()

    def started(self) -> list[str]:
        """Names in the order in which their workers began."""
        return [line.split()[1] for line in self.story if line.startswith("start")]

    def go(self, *names: str) -> None:
        """Let workers end."""
        for name in names:
            (self.run_dir(name) / "go").touch()

    def held(self, name: str) -> bool:
        return queue._locked(str(self.run_dir(name) / "lock"))

    def view(self) -> View:
        uuids = [f"GPU-0000000{i}" for i in range(int(self.environment["FAKE_GPUS"]))]
        return queue.look(self.place, uuids, inventory.others(()))

    def waiting(self, name: str) -> Waiting | None:
        return next((w for w in self.view().waiting if w.title == name), None)

    def reason(self, name: str) -> str:
        with suppress(OSError):
            return str(json.loads((self.run_dir(name) / "waiting.json").read_text())["reason"])
        return ""

    def supervisor_of(self, name: str) -> int:
        """The process that supervises a run: the one whose command line ends with its folder."""
        return next(p for p in self.processes(name) if b"supervisor" in Path(f"/proc/{p}/cmdline").read_bytes())

    def worker_of(self, name: str) -> int:
        return next(p for p in self.processes(name) if b"worker.sh" in Path(f"/proc/{p}/cmdline").read_bytes())

    def processes(self, name: str) -> list[int]:
        found, folder = [], os.fsencode(self.run_dir(name))
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and folder in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry))
        return found

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))

    def clear(self) -> None:
        end_all(self.folder)


@contextmanager
def played(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """A Box that this very process takes for its machine."""
    found = Box(folder)
    for name in ("PATH", "DOJANG_QUEUE", "FAKE_GPUS", "FAKE_APPS", "FAKE_USED"):
        monkeypatch.setenv(name, found.environment[name])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield found
    found.clear()


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but unburied does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def overlaps(story: list[str]) -> list[str]:
    """GPUs on which two trained at once; each line of a story is “start|end name uuids”."""
    busy: dict[str, str] = {}
    found = []
    for line in story:
        what, name, uuids = line.split()
        for uuid in uuids.split(","):
            if what == "start" and uuid in busy:
                found.append(f"{uuid}: {busy[uuid]} and {name}")
            busy[uuid] = name
            if what == "end":
                del busy[uuid]
    return found
