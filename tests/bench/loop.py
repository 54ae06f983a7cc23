"""How fast the loop is against `YOLO(...).train` with the same settings, on the same drawn images, in the same run.

    python -m tests.bench.loop                    the table, with the middle one of 3 interleaved rounds
    python -m tests.bench.loop --rounds 1 --size 160

Each measurement is a process of its own, because both sides settle threads and the like at import. images/s counts the
training steps alone, in the middle one of the epochs after the first; “epoch” is a whole one with validation and saving. “per CPU s” is what
other work on the machine does not blur: images for each second that the process really computed, over all its threads.
Each “×” is the ratio to upstream within a round, of which the middle one is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGET = 0.98
VARIANTS: dict[str, dict[str, Any]] = {
    "upstream": {},
    "dojang, upstream's randomness": {"threads": 1, "exact_resume": False},
    "dojang, exact resume": {"threads": 1},
    "dojang, all cores": {},
    "dojang, all cores, bf16": {"amp": "bf16"},
}


class Watch:
    """Wall and processor time between the marks of each epoch: begun, trained, saved."""

    def __init__(self) -> None:
        self.begun = self.trained = self.now()
        self.epochs: list[dict[str, float]] = []

    @staticmethod
    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def begin(self, *_: Any) -> None:
        self.begun = self.now()

    def train(self, *_: Any) -> None:
        self.trained = self.now()

    def end(self, *_: Any) -> None:
        end = self.now()
        train, processor = (b - a for a, b in zip(self.begun, self.trained, strict=True))
        self.epochs.append({"train": train, "processor": processor, "whole": end[0] - self.begun[0]})
        self.begun = end


def run_upstream(data: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    os.environ.update(YOLO_CONFIG_DIR=str(folder), YOLO_OFFLINE="1", YOLO_VERBOSE="0", YOLO_AUTOINSTALL="0")
    from ultralytics import YOLO

    watch = Watch()
    yolo = YOLO(f"{options.model}.yaml")
    yolo.add_callback("on_train_epoch_start", watch.begin)
    yolo.add_callback("on_train_epoch_end", watch.train)
    yolo.add_callback("on_fit_epoch_end", watch.end)
    common = {"epochs": options.epochs, "batch": options.batch, "imgsz": options.size, "device": "cpu", "workers": 0}
    yolo.train(data=str(data), plots=False, project=str(folder), name="upstream", **common)
    return watch.epochs[: options.epochs]  # the last evaluation is called an epoch too


def run_ours(data: Path, folder: Path, options: argparse.Namespace, changes: dict[str, Any]) -> list[dict[str, float]]:
    from engine import worker
    from engine.datasets import add
    from engine.events import EventLog
    from engine.spec import parse, parse_label
    from engine.versions import Workspace

    watch, append = Watch(), EventLog.append

    def noting(self: EventLog, kind: str, **fields: Any) -> None:
        append(self, kind, **fields)
        if fields.get("stage") == "training":
            watch.begin()
        elif kind == "step":  # the last of an epoch is always told
            watch.train()
        elif kind == "epoch":  # its checkpoint is written in the background
            watch.end()

    EventLog.append = noting  # type: ignore[method-assign]
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, data, "bench")
    common = {"epochs": options.epochs, "batch_size": options.batch, "image_size": options.size, "device": "cpu"}
    spec = parse({"dataset": "bench", "model": options.model, **common, **changes})
    version = workspace.project("bench", create=True).create(spec, parse_label({}))
    if worker.run(version.path):
        raise SystemExit(version.events.read_text()[-1000:])
    return watch.epochs


def measure(variant: str, data: Path, options: argparse.Namespace) -> dict[str, float]:
    """images/s and seconds an epoch of one variant, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.loop", "--one", variant, "--data", str(data)]
    for name in ("model", "epochs", "batch", "size", "images"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{variant}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    epochs = json.loads(done.stdout.strip().splitlines()[-1])[1:]
    images = options.images - max(1, round(options.images * 0.25))
    return {
        "img_s": images / statistics.median(e["train"] for e in epochs),
        "cpu": images / statistics.median(e["processor"] for e in epochs),
        "epoch_s": statistics.median(e["whole"] for e in epochs),
    }


def table(rounds: list[dict[str, dict[str, float]]]) -> bool:
    """Print the middle values; whether the target is met where the settings are the same."""
    titles = {"img_s": "images/s", "cpu": "per CPU s", "epoch_s": "s/epoch"}
    print("\n" + " " * 32 + "".join(f"{title:>10}{'×':>7}" for title in titles.values()))
    met = True
    for variant in VARIANTS:
        line = f"{variant:32}"
        for key in titles:
            value = statistics.median(r[variant][key] for r in rounds)
            ratio = statistics.median(r[variant][key] / r["upstream"][key] for r in rounds)
            line += f"{value:10.2f}{ratio:7.3f}"
            if key == "img_s" and "threads" in VARIANTS[variant]:
                met &= ratio >= TARGET
        print(line)
    print(f"\nat least {TARGET} of upstream with the same settings: {'yes' if met else 'NO'}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov8n")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--images", type=int, default=96, help="three quarters of them are for training")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dojang-bench-") as name:
        folder = Path(name)
        if options.one:
            changes = VARIANTS[options.one]
            upstream = options.one == "upstream"
            found = (
                run_upstream(options.data, folder, options)
                if upstream
                else run_ours(options.data, folder, options, changes)
            )
            print(json.dumps(found))
            return 0
        from engine import demo

        data = demo.draw(folder / "set", images=options.images, size=options.size, val=0.25)
        rounds = []
        for number in range(options.rounds):
            rounds.append({})
            for variant in VARIANTS:
                rounds[-1][variant] = measure(variant, data, options)
                print(f"round {number + 1}  {variant:32}{rounds[-1][variant]['img_s']:9.2f} images/s", flush=True)
        return 0 if table(rounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
