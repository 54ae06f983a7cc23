"""A server for tests: a folder of this machine, behind the agent's pipe or a real sshd. Its worker's training is played; all else is real."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.servers import boxes, elsewhere
from engine.servers.boxes import Box
from engine.servers.link import Link, local
from engine.servers.transport import BOOT_CODE
from engine.spec import Label, Spec
from engine.versions import Version, Workspace
from tests.played import TRAINING, end_all, pids, until

OVERLAY = """
import os, sys
__path__ += [p + "/engine" for p in sys.path if os.path.isdir(p + "/engine") and p + "/engine" not in __path__]
"""
PYTHON = """#!/bin/sh
# a Python whose trainings are played, and that need not be tried out
[ "$6" = --import ] && exec {python} "$1" "$2" "$3" "$4" "$5"
PYTHONPATH={overlay}:$PYTHONPATH exec {python} "$@"
"""


class Far:
    """`box` in a workspace's servers.toml. Versions on it train at a step each 5 ms, or as their memo says."""

    def __init__(self, workspace: Workspace, folder: Path, host: str = "", root: Path | None = None) -> None:
        self.workspace, self.root = workspace, root or folder / "far"
        overlay = folder / "overlay"
        (overlay / "engine" / "training").mkdir(parents=True)
        (overlay / "engine" / "__init__.py").write_text(OVERLAY)
        (overlay / "engine" / "training" / "__init__.py").touch()
        (overlay / "engine" / "training" / "run.py").write_text(TRAINING + '\nprint("hello", flush=True)\n')
        python = folder / "python"
        python.write_text(PYTHON.format(python=sys.executable, overlay=overlay))
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        self.box = boxes.make({"name": "box", "host": host, "root": str(self.root), "python": str(python)})
        boxes.add(workspace.path, self.box)

    def version(self, dataset: str, memo: str = "") -> Version:
        """A draft that is to train there."""
        spec = Spec(dataset=dataset, epochs=1)
        made = self.workspace.project(create=True).create(spec, Label(memo=memo))
        elsewhere.put_on(made, self.box.name, self.box.root)
        return made

    def run(self, version: Version) -> Path:
        """Its run's folder there."""
        place = elsewhere.place_of(version)
        assert place
        return self.root / "runs" / place.rid

    def end(self) -> None:
        """Whatever runs there."""
        end_all(self.root)
        end_all(self.workspace.path)


@contextmanager
def linked(box: Box) -> Iterator[Link]:
    with Link(local, root=box.root) as link:
        yield link


def agents(of: Collection[int] = ()) -> list[int]:
    """The agents that these processes talk to, or this very one."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1]) if entry.name.isdigit() else 0
            if parent in (of or (os.getpid(),)) and BOOT_CODE.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def cut() -> int:
    """Lose every link of this process, at whatever byte it is; how many there were."""
    found = agents()
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def cut_those_of(version: Version) -> int:
    """Lose the links of whoever prepares the server for a version; how many there were."""
    preparers = pids(version.path)
    found = agents(preparers) if preparers else []
    for pid in found:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def wait_for(version: Version, *states: str, seconds: float = 60.0) -> None:
    """Until the version, as it is known here, is in one of the states."""
    until(lambda: version.state(version.progress()) in states, seconds)


def settled(version: Version) -> None:
    """Until nobody here prepares the server for it."""
    until(lambda: not elsewhere.preparing(version), 60)
    time.sleep(0)
