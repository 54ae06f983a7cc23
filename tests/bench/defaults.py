"""A whole training with everybody's defaults: wall time from the command to the last word, and how good it became.

    python -m tests.bench.defaults FOLDER                three seeds, one after the other, on a data set of yours
    python -m tests.bench.defaults FOLDER --seeds 0 --epochs 2

Upstream is a process that calls `YOLO(model.yaml).train(data, epochs, imgsz, batch)` and nothing else; ours is
`dojang train` with the same four words. Both read the same YOLO copy of the data set, each from a folder of its own, and
start without any cache. mAP50 is each one's own last figure on val for its best weights. A ratio of 1.5 and a
difference of at most 0.02 on the average are what we promise.
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

from tests.bench.loop import ROOT

FASTER, SAME = 1.5, 0.02
UPSTREAM = """
import json, sys
from ultralytics import YOLO
model, data, folder, *rest = sys.argv[1:]
epochs, imgsz, batch, seed = map(int, rest)
found = YOLO(model + ".yaml").train(
    data=data, epochs=epochs, imgsz=imgsz, batch=batch, seed=seed, project=folder, name="run")
print(json.dumps(found.box.map50))
"""


def run_upstream(options: argparse.Namespace, data: Path, folder: Path, seed: int) -> float:
    """mAP50 on val of upstream's best weights."""
    settings = [str(n) for n in (options.epochs, options.size, options.batch, seed)]
    own = {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    command = [sys.executable, "-c", UPSTREAM, options.model, str(data), str(folder), *settings]
    return float(_call(command, own).strip().splitlines()[-1])


def run_ours(options: argparse.Namespace, data: Path, folder: Path, seed: int) -> float:
    """mAP50 on val of our best weights."""
    workspace = folder / "workspace"
    dojang = [
        sys.executable,
        "-c",
        "import sys; from tui.cli import main; sys.exit(main())",
        "--workspace",
        str(workspace),
    ]
    _call([*dojang, "dataset", "add", str(data), "--name", "bench"])
    begun = time.perf_counter()
    words = {"epochs": options.epochs, "image_size": options.size, "batch_size": options.batch, "seed": seed}
    given = [part for name, value in words.items() for part in ("--set", f"{name}={value}")]
    _call([*dojang, "train", "--dataset", "bench", "--model", options.model, *given, "--foreground"])
    options.seconds = time.perf_counter() - begun
    shown: Any = json.loads(_call([*dojang, "show", "V_0", "--json"]))
    return float(shown["metrics"]["map50"])


def copied(source: Path, folder: Path) -> Path:
    """The `data.yaml` of a YOLO copy of any data set."""
    from engine.datasets import registry
    from engine.datasets.write import export

    registry.add(folder / "reading", source, "source")
    export(folder / "reading", "source", folder / "set", "yolo")
    return folder / "set" / "data.yaml"


def _call(command: list[str], extra: dict[str, str] | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= extra or {}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1:4]}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="yolov8n")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    rows: list[tuple[float, float, float, float]] = []
    for seed in options.seeds:
        row: list[float] = []
        for run in (run_upstream, run_ours):
            with tempfile.TemporaryDirectory(prefix="dojang-bench-") as name:
                data = copied(options.folder, Path(name))
                begun = time.perf_counter()
                score = run(options, data, Path(name), seed)
                seconds = time.perf_counter() - begun
                row += [getattr(options, "seconds", seconds) if run is run_ours else seconds, score]
        rows.append((row[0], row[1], row[2], row[3]))
        print(
            f"seed {seed}  upstream {row[0]:6.0f} s  mAP50 {row[1]:.3f}   dojang {row[2]:6.0f} s  mAP50 {row[3]:.3f}"
            f"   {row[0] / row[2]:.2f} x",
            flush=True,
        )
    ratio = statistics.median(a / c for a, _, c, _ in rows)
    gap = statistics.mean(d for *_, d in rows) - statistics.mean(b for _, b, *_ in rows)
    met = ratio >= FASTER and abs(gap) <= SAME
    print(f"\nthe middle ratio {ratio:.2f}, mAP50 {gap:+.3f} on the average: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
