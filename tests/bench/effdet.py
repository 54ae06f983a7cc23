"""How fast EfficientDet-D0 trains against a plain loop around the library, on the same drawn images, in the same run.

    python -m tests.bench.effdet                    the table, with the middle one of 3 interleaved rounds
    python -m tests.bench.effdet --rounds 1 --size 256

The plain loop is what effdet's own documentation leads to: its bench with matching inside, 32 bits, the usual layout,
AdamW, images read, scaled and batched by torch's loader, without any augmentation. Ours has its defaults, with
augmentation, events and checkpoints. Columns as in `tests.bench.loop`: images/s counts training steps alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.loop import ROOT, Watch, run_ours

TARGET = 1.4
MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dojang, 32 bits": {"amp": "off"},
    "dojang, bf16": {"amp": "bf16"},
    "dojang, as it is": {},
}


def run_plain(data: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Epochs of the plain loop."""
    import torch
    from effdet import create_model_from_config, get_efficientdet_config

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = get_efficientdet_config("tf_efficientdet_d0")
    config.image_size, config.num_classes = (options.size, options.size), 3
    keys: dict[str, Any] = {"pretrained": False, "pretrained_backbone": False}
    model = create_model_from_config(config, bench_task="train", bench_labeler=True, **keys)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=5e-4)
    images = sorted((data.parent / "images" / "train").iterdir())
    pairs: Any = [(p, data.parent / "labels" / "train" / f"{p.stem}.txt") for p in images]

    def together(rows: list[tuple[Path, Path]]) -> tuple[Any, dict[str, Any]]:
        read = [_read(image, label, options.size) for image, label in rows]
        return torch.stack([r[0] for r in read]), {"bbox": [r[1] for r in read], "cls": [r[2] for r in read]}

    loader = torch.utils.data.DataLoader(pairs, options.batch, shuffle=True, collate_fn=together)
    mean, spread = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, SPREAD))
    watch = Watch()
    model.train()
    for _ in range(options.epochs):
        watch.begin()
        for batch, target in loader:
            loss = model((batch.float() - mean) / spread, target)["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
        watch.train()
        watch.end()
    return watch.epochs


def _read(image: Path, label: Path, size: int) -> tuple[Any, Any, Any]:
    """Image (3, size, size), boxes (n, 4) as y, x, y, x in pixels, classes (n) from 1."""
    import cv2
    import numpy as np
    import torch

    pixels = cv2.cvtColor(cv2.resize(cv2.imread(str(image)), (size, size)), cv2.COLOR_BGR2RGB)
    rows = np.loadtxt(label, ndmin=2, dtype=np.float32).reshape(-1, 5)
    centre, half = rows[:, 1:3], rows[:, 3:] / 2
    boxes = np.concatenate([centre - half, centre + half], 1)[:, [1, 0, 3, 2]] * size
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(pixels), torch.from_numpy(boxes), torch.from_numpy(rows[:, 0]).long() + 1


def measure(variant: str, data: Path, options: argparse.Namespace) -> dict[str, float]:
    """images/s and seconds an epoch of one variant, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.effdet", "--one", variant, "--data", str(data)]
    for name in ("epochs", "batch", "size", "images", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "PASSIVE"}
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
    """Print the middle values; whether what people get is as fast as it is to be."""
    titles = {"img_s": "images/s", "cpu": "per CPU s"}
    print("\n" + " " * 24 + "".join(f"{title:>10}{'×':>7}" for title in titles.values()))
    ratios = {}
    for variant in VARIANTS:
        line = f"{variant:24}"
        for key in titles:
            value = statistics.median(r[variant][key] for r in rounds)
            ratios[variant, key] = statistics.median(r[variant][key] / r["plain"][key] for r in rounds)
            line += f"{value:10.2f}{ratios[variant, key]:7.3f}"
        print(line)
    met = ratios["dojang, as it is", "img_s"] >= TARGET
    print(f"\nat least {TARGET} times the plain loop: {'yes' if met else 'NO'}")
    return met


def main() -> int:
    from engine.training.environment import cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=32, help="three quarters of them are for training")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dojang-bench-") as name:
        folder = Path(name)
        if options.one:
            options.model = "efficientdet_d0"
            changes = {"threads": options.threads, **VARIANTS[options.one]}
            plain = options.one == "plain"
            print(
                json.dumps(
                    run_plain(options.data, options) if plain else run_ours(options.data, folder, options, changes)
                )
            )
            return 0
        from engine import demo

        data = demo.draw(folder / "set", images=options.images, size=options.size, val=0.25)
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            rounds.append({})
            for variant in VARIANTS:
                rounds[-1][variant] = measure(variant, data, options)
                print(f"round {number + 1}  {variant:24}{rounds[-1][variant]['img_s']:9.2f} images/s", flush=True)
        return 0 if table(rounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
