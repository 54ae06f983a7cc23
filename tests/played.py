"""Workers for tests: an `engine` package found before the real one, that hands on all but the part that is played."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import engine

ROOT = Path(engine.__file__).parents[1]

TRAINING = '''
"""A training without torch: ten quick steps, or what the version's memo asks for."""
import itertools
import time

from engine.errors import DojangError
from engine.worker import announce

METRICS = {"map50": 0.9, "map50_95": 0.5, "precision": 0.8, "recall": 0.7, "f1": 0.75}


def train(job):
    version, say, first = job.version, job.log.append, 1
    memo = version.label_data()["memo"]
    if job.resume:
        first = int(version.state_file.read_text()) + 1
        announce(job, 1, first - 1)
    if memo == "fail":
        raise DojangError("The GPU has no memory left.", code="OUT_OF_MEMORY", hint="Take a smaller batch size.")
    if memo == "crash":
        raise RuntimeError("boom")
    say("plan", epochs=1, steps_per_epoch=10, train_images=8, val_images=2, weights="random weights", lr=0.01)
    say("stage", stage="training")
    for step in itertools.count(first):
        say("step", epoch=1, step=step, i=step, n=1, loss={"box": 1 / step}, lr=0.01, img_s=1.0, memory=None)
        asked = job.control.poll()
        if asked:
            say("control", request=asked)
        if asked in ("stop", "pause"):
            version.checkpoints.mkdir(exist_ok=True)
            version.state_file.write_text(str(step))
            return "stopped" if asked == "stop" else "paused"
        if asked == "finish" or (memo != "wait" and step >= 10):
            break
        time.sleep(0.005)
    say("epoch", epoch=1, split="val", train={}, val={}, metrics=METRICS, per_class=[], lr=0.01, seconds={}, best=True)
    say("stage", stage="testing")
    version.best_weights.parent.mkdir()
    version.best_weights.write_bytes(b"weights")
    say("result", split="val", metrics=METRICS, per_class=[], weights="best.pt", images=2)
    return "done"
'''


def engine_with(folder: Path, part: str, text: str) -> Path:
    """A folder for PYTHONPATH whose `engine` is the real one but for `part`, such as `__main__.py`."""
    place = folder / "engine" / part
    place.parent.mkdir(parents=True)
    (place.parent / "__init__.py").touch()
    (folder / "engine" / "__init__.py").write_text(f"__path__.append({str(ROOT / 'engine')!r})")
    place.write_text(text)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Of a command whose trainings are played; every process that it starts inherits that."""
    path = engine_with(folder, "training/run.py", TRAINING)
    return {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def end_all(run_dir: Path) -> None:
    """Kill whatever runs for it, and what that starts meanwhile."""

    def none_left() -> bool:
        found = pids(run_dir)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    until(none_left)


def pids(run_dir: Path) -> list[int]:
    """Every process whose command line names the run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(run_dir).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
