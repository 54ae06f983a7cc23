"""How much sooner a VGG16 with frozen features is trained than by the plain loop, which computes them in every epoch.

    python -m tests.bench.classify FOLDER              a folder with train/CLASS/*.jpg and val/CLASS/*.jpg
    python -m tests.bench.classify FOLDER --size 64 --epochs 5
    python -m tests.bench.classify FOLDER --seeds 0 1 2    as often, each with other weights and another order
    python -m tests.bench.classify                     small pictures drawn by code, at 64 px

Each side is a process of its own, timed from its start to its end: imports, features, epochs with an evaluation each,
files. Both begin from one file of weights, learn the last layer alone, and use the same threads, batches and rate. The
plain loop is what the library's tutorials show: 32-bit floats, images cropped and mirrored at random.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TARGET = 8.0
BATCH, LR = 16, 1e-3


def draw(folder: Path, images: int, size: int, val: float = 0.25) -> Path:
    """Draw `images` pictures of red discs and of blue squares, about `size` pixels a side, in a folder for each class."""
    from PIL import Image, ImageDraw

    for number in range(images):
        dice = random.Random(number)
        disc, ground = number % 2, tuple(dice.randrange(256) for _ in range(3))
        warm, other = dice.randrange(180, 256), dice.randrange(120)
        fill = (warm, other, other) if disc else (other, other, warm)
        width, height = size + dice.randrange(size // 2), size + dice.randrange(size // 4)
        picture = Image.new("RGB", (width, height), ground)
        side = dice.uniform(0.4, 0.8) * min(width, height)
        left, top = (width - side) * dice.uniform(0.3, 0.7), (height - side) * dice.uniform(0.3, 0.7)
        pen, frame = ImageDraw.Draw(picture), (left, top, left + side, top + side)
        (pen.ellipse if disc else pen.rectangle)(frame, fill=fill)
        place = folder / ("val" if number >= images * (1 - val) else "train") / ("disc" if disc else "square")
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:05d}.jpg", quality=90)
    return folder


def write_weights(path: Path, seed: int) -> None:
    """VGG16 with seeded random numbers in the shape of the public weights, which are not at hand everywhere."""
    import torch
    from torchvision.models import get_model

    torch.manual_seed(seed)
    torch.save(get_model("vgg16", weights=None).state_dict(), path)


def run_plain(options: argparse.Namespace) -> float:
    """The plain loop; its best top-1 on val."""
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    from torchvision.models import get_model

    tensor = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    cut: list[Any] = [transforms.RandomResizedCrop(options.size, scale=(0.3, 1.0)), transforms.RandomHorizontalFlip()]
    judged: list[Any] = [transforms.Resize(round(options.size / 0.875)), transforms.CenterCrop(options.size)]
    sets = {
        "train": datasets.ImageFolder(options.folder / "train", transforms.Compose([*cut, *tensor])),
        "val": datasets.ImageFolder(options.folder / "val", transforms.Compose([*judged, *tensor])),
    }
    torch.manual_seed(options.seed)
    loaders = {name: DataLoader(data, BATCH, shuffle=name == "train") for name, data in sets.items()}
    model = get_model("vgg16", weights=None)
    model.load_state_dict(torch.load(options.weights, weights_only=True))
    model.requires_grad_(False)
    model.classifier[6] = torch.nn.Linear(4096, len(sets["train"].classes))
    optimizer = torch.optim.AdamW(model.classifier[6].parameters(), LR, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, options.epochs)
    best = 0.0
    for _ in range(options.epochs):
        model.train()
        for images, labels in loaders["train"]:
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loaders["val"])
        best = max(best, right / len(sets["val"]))
    torch.save(model.state_dict(), options.weights.with_name("plain.pt"))
    return best


def run_ours(options: argparse.Namespace) -> float:
    """dojang with its defaults; the best top-1 on val."""
    from engine import worker
    from engine.datasets import add
    from engine.spec import parse, parse_label
    from engine.versions import Workspace

    with tempfile.TemporaryDirectory(prefix="dojang-bench-", dir=options.weights.parent) as name:
        workspace = Workspace(Path(name)).ensure()
        add(workspace.path, options.folder, "bench")
        given = {"dataset": "bench", "model": "vgg16", "weights": str(options.weights), "image_size": options.size}
        common = {
            "epochs": options.epochs,
            "batch_size": BATCH,
            "lr": LR,
            "device": "cpu",
            "patience": 0,
            "seed": options.seed,
        }
        spec = parse({**given, **common})
        version = workspace.project("bench", create=True).create(spec, parse_label({}))
        if worker.run(version.path):
            raise SystemExit(version.events.read_text()[-1000:])
        return max(float(e["metrics"]["top1"]) for e in version.progress().epochs)


SIDES = {"plain loop": run_plain, "dojang": run_ours}


def measure(side: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and the best top-1 on val, of one side in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.classify", str(options.folder), "--one", side]
    command += ["--weights", str(options.weights), "--size", str(options.size), "--epochs", str(options.epochs)]
    command += ["--seed", str(options.seed)]
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return seconds, json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, help="224, or 64 for drawn pictures")
    parser.add_argument("--threads", type=int, help="of both sides; all cores otherwise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(SIDES[options.one](options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="dojang-bench-") as name:
        options.size = options.size or (224 if options.folder else 64)
        drawn = options.folder is None  # so few that the start takes most of the time
        options.folder = (options.folder or draw(Path(name) / "drawn", 96, 80)).absolute()
        options.weights = Path(name) / "vgg16.pth"
        rounds = []
        for seed in options.seeds:
            options.seed = seed
            write_weights(options.weights, options.seed)
            rounds.append({side: measure(side, options) for side in SIDES})
            for side, (seconds, accuracy) in rounds[-1].items():
                print(f"seed {options.seed}  {side:12}{seconds:9.1f} s   top-1, val {accuracy:.3f}", flush=True)
    ratio = statistics.median(r["plain loop"][0] / r["dojang"][0] for r in rounds)
    gap = statistics.mean(r["dojang"][1] - r["plain loop"][1] for r in rounds)
    met = ratio >= TARGET
    print(f"\n{ratio:.1f} times as fast; at least {TARGET:g}: {'yes' if met else 'NO'}; top-1 {100 * gap:+.1f} points")
    return 0 if met or drawn else 1


if __name__ == "__main__":
    raise SystemExit(main())
