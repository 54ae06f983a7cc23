"""Figures of large data sets: registering, opening, checking, writing. `python -m tests.bench.datasets [IMAGES]`."""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import datasets

PATTERNS = 200  # pictures that the images are made of; each file says another number in a comment


def draw(root: Path, images: int) -> Path:
    """A YOLO set of `images` JPEGs of 320×240 with 0 to 10 boxes each; every tenth is val."""
    import numpy as np
    from PIL import Image

    rng, numbers = np.random.default_rng(0), random.Random(0)
    patterns = []
    for _ in range(PATTERNS):
        out = io.BytesIO()
        grid = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        grid.resize((320, 240), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
        patterns.append(out.getvalue())
    for folder in ("images", "labels"):
        for split in ("train", "val"):
            (root / folder / split).mkdir(parents=True)
    for i in range(images):
        split, data = "val" if i % 10 == 0 else "train", patterns[i % PATTERNS]
        comment = b"\xff\xfe\x00\x0a%08d" % i
        (root / "images" / split / f"{i:07d}.jpg").write_bytes(data[:2] + comment + data[2:])
        rows = (" ".join(f"{numbers.uniform(0.2, 0.4):.6f}" for _ in range(4)) for _ in range(i % 11))
        (root / "labels" / split / f"{i:07d}.txt").write_text(
            "".join(f"{numbers.randrange(5)} {row}\n" for row in rows)
        )
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c, d, e]\n")
    return root


def in_a_process_of_its_own(work: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Seconds, the process's own peak of memory in MB, and the result: what came before does not count."""
    parent, child = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(child, work, arguments))
    process.start()
    found: tuple[float, float, Any] = parent.recv()
    process.join()
    return found


def _run(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    begun = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - begun
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent, from before the exec
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    pipe.send((seconds, int(peak.split()[1]) / 1024, result))


def register(workspace: Path, root: Path) -> int:
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1

    datasets.add(workspace, root, "large", progress=progress)
    return calls


def open_it(workspace: Path) -> int:
    return datasets.load(workspace, "large").counts.images


def open_some(workspace: Path) -> int:
    items = datasets.open_items(workspace, "large")
    return sum(len(items[i].boxes) for i in range(0, len(items), max(1, len(items) // 100)))


def open_all(workspace: Path) -> int:
    return len(datasets.items(workspace, "large"))


def examine(workspace: Path) -> dict[str, int]:
    from engine.datasets.doctor import check

    return dict(check(workspace, "large").counts)


def write_coco(workspace: Path, folder: Path) -> bool:
    from engine.datasets.write import export

    return export(workspace, "large", folder, "coco", images="link").same


def main(images: int) -> None:
    with tempfile.TemporaryDirectory(prefix="dojang-bench-") as temp:
        root, workspace = draw(Path(temp) / "set", images), Path(temp) / "workspace"
        print(f"{images:,} images of 320×240, {images * 5:,} boxes")
        steps: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
            ("register", register, (workspace, root)),
            ("open: counts", open_it, (workspace,)),
            ("open: 100 items of all", open_some, (workspace,)),
            ("open: every item", open_all, (workspace,)),
            ("check", examine, (workspace,)),
            ("write as COCO, with links", write_coco, (workspace, Path(temp) / "coco")),
        ]
        for name, work, arguments in steps:
            seconds, peak, result = in_a_process_of_its_own(work, *arguments)
            print(f"{name:28} {seconds:8.3f} s  {peak:7.0f} MB  {json.dumps(result)}", flush=True)
        seconds, peak, _ = in_a_process_of_its_own(register_coco, workspace, Path(temp) / "coco")
        print(f"{'register as COCO':28} {seconds:8.3f} s  {peak:7.0f} MB", flush=True)


def register_coco(workspace: Path, folder: Path) -> str:
    return datasets.add(workspace, folder, "coco").hash


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
