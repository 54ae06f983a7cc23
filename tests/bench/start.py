"""How soon the first step is taken, against `YOLO(...).train`; and what events, checkpoints and control cost a step.

    python -m tests.bench.start            the middle one of 3 interleaved rounds

Both sides begin as a new process on the same drawn images; the clock runs from its start to the end of the first step.
The cost is the time within the log, the control file and the checkpoints, as a share of the training steps' own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
UPSTREAM = """
import sys, time
from ultralytics import YOLO
def first(trainer):
    import os
    with open(sys.argv[2] + "/first", "w") as file:
        file.write(str(time.time()))
    os._exit(0)
yolo = YOLO("yolov8n.yaml")
yolo.add_callback("on_train_batch_end", first)
yolo.train(data=sys.argv[1], imgsz=320, batch=16, epochs=20, device="cpu", project=sys.argv[2], name="upstream")
"""
SETTINGS: dict[str, Any] = {"model": "yolov8n", "image_size": 320, "batch_size": 16, "epochs": 20, "device": "cpu"}


def _version(folder: Path, data: Path, **changes: Any) -> Any:
    from engine.datasets import add
    from engine.spec import parse, parse_label
    from engine.versions import Workspace

    workspace = Workspace(folder / "workspace").ensure()
    if not (workspace.path / "datasets" / "bench").exists():
        add(workspace.path, data, "bench")
    spec = parse({"dataset": "bench", **SETTINGS, **changes})
    return workspace.project("bench", create=True).create(spec, parse_label({}))


def ours(folder: Path, data: Path) -> float:
    """Seconds from the start of our worker to its first step."""
    from engine.events import read_all

    version = _version(folder, data)
    began = time.time()
    process = subprocess.Popen([sys.executable, "-m", "engine", str(version.path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(0.01)
            steps = [e for e in read_all(version.events) if e["kind"] == "step"]
            if steps:
                return float(steps[0]["t"]) - began
    finally:
        process.kill()
        process.wait()
    raise SystemExit(version.events.read_text()[-2000:])


def upstream(folder: Path, data: Path) -> float:
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    began = time.time()
    command = [sys.executable, "-c", UPSTREAM, str(data), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    first = folder / "first"
    if not first.exists():
        raise SystemExit(done.stderr[-2000:])
    seconds = float(first.read_text()) - began
    first.unlink()
    return seconds


def cost(folder: Path, data: Path) -> tuple[float, float]:
    """Seconds of two epochs' training steps, and those of them that went into what a step says, hears and keeps."""
    from engine import worker
    from engine.events import EventLog
    from engine.training.keeper import Keeper
    from engine.training.loop import Loop
    from engine.training.progress import Requests

    spent = {"steps": 0.0, "besides": 0.0}

    def timed(owner: Any, name: str, into: str) -> None:
        plain = getattr(owner, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return plain(*arguments, **named)
            finally:
                spent[into] += time.perf_counter() - started

        setattr(owner, name, wrapper)

    timed(Loop, "_train_epoch", "steps")
    timed(EventLog, "append", "besides")
    timed(Requests, "poll", "besides")
    timed(Keeper, "save", "besides")
    version = _version(folder, data, epochs=2)
    if worker.run(version.path):
        raise SystemExit("the training failed")
    return spent["steps"], spent["besides"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from engine import demo

    with tempfile.TemporaryDirectory(prefix="dojang-bench-") as name:
        folder = Path(name)
        data = demo.draw(folder / "set", images=128, size=320, val=0.25)
        rounds = []
        for number in range(options.rounds):
            rounds.append((ours(folder, data), upstream(folder, data)))
            print(f"round {number + 1}  dojang {rounds[-1][0]:6.2f} s   upstream {rounds[-1][1]:6.2f} s", flush=True)
        ratio = statistics.median(a / b for a, b in rounds)
        print(f"start to first step: {ratio:.2f} of upstream's")
        steps, besides = cost(folder, data)
        print(f"events, control and checkpoints: {besides:.3f} s of {steps:.1f} s in steps: {besides / steps:.2%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
