"""Killed without warning again and again, a training ends with the bits of one that was left alone.

`python -m tests.training.test_kills 20` does it twenty times for each kernel; the test does it a few times.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from engine import demo
from engine.datasets import add
from engine.events import Event, follow
from engine.spec import parse, parse_label
from engine.versions import Version, Workspace
from tests.training.conftest import same, start
from tests.training.test_resume import state_of

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {"threads": 1, "epochs": 3, "batch_size": 8, "save_minutes": 0.0005, "nominal_batch_size": 16}
KERNELS: dict[str, dict[str, Any]] = {
    "yolov8n": {"image_size": 64, "close_mosaic": 1, "workers": 2},
    "efficientdet_d0": {"image_size": 128, "close_mosaic": 1},
    "resnet18": {"image_size": 64, "workers": 2},
    "vgg16": {"image_size": 32, "freeze": "features"},
}


def lay_down(workspace: Workspace, model: str) -> Version:
    spec = parse(
        {
            "dataset": "folders" if model in ("resnet18", "vgg16") else "shapes",
            "model": model,
            **COMMON,
            **KERNELS[model],
        }
    )
    return workspace.project("default", create=True).create(spec, parse_label({}))


def draw(folder: Path) -> Workspace:
    """A workspace with a small set for detectors and one for classifiers."""
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, demo.draw(folder / "shapes", images=40, size=64, val=0.2), "shapes")
    folders = folder / "folders"
    for split, count in (("train", 24), ("val", 8)):
        for name, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            _images(folders / split / name, color, count)
    add(workspace.path, folders, "folders")
    return workspace


def _images(folder: Path, color: tuple[int, int, int], count: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    rng = random.Random(folder.name)
    for number in range(count):
        image = Image.new("RGB", (48, 40), color)
        for _ in range(60):
            image.putpixel((rng.randrange(48), rng.randrange(40)), tuple(rng.randrange(256) for _ in range(3)))
        image.save(folder / f"{number:02}.png")


def finish(version: Version) -> float:
    """Train to the end; seconds that it took."""
    started = time.monotonic()
    process = start(version)
    assert process.wait(300) == 0, version.train_log.read_text()[-3000:]
    return time.monotonic() - started


def kill_once(version: Version, after: float) -> bool:
    """Start or go on, and kill `after` seconds from the first sign of training; False when it ended before."""
    offset = version.events.stat().st_size if version.events.exists() else 0
    process = start(version)
    seen: list[Event] = []
    while not any(e["kind"] == "stage" and e["stage"] in ("preprocessing", "training", "testing") for e in seen):
        if process.poll() is not None:
            return False
        time.sleep(0.005)
        more, offset = follow(version.events, offset)
        seen += more
    time.sleep(after)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def kills(workspace: Workspace, model: str, times: int, seed: int) -> int:
    """Kill a training of `model` at `times` random moments; how many versions that took. All end like an unbroken one."""
    unbroken = lay_down(workspace, model)
    # Without the seconds that python and torch take to load
    span = max(0.5, finish(unbroken) - 4.0)
    expected, rng = state_of(unbroken), random.Random(seed)
    done = versions = 0
    while done < times:
        version, versions = lay_down(workspace, model), versions + 1
        for _ in range(8):
            if done < times and kill_once(version, rng.uniform(0, span)):
                done += 1
            else:
                break
        if version.progress().ended != "done":
            finish(version)
        found = state_of(version)
        different = [k for k in expected if not same(found[k], expected[k])]
        assert not different, f"{model}: {different} differ after {done} kills"
        assert version.progress().ended == "done"
    return versions


@pytest.mark.parametrize("model", KERNELS)
def test_killed_at_random(tmp_path: Path, model: str) -> None:
    kills(draw(tmp_path), model, 2, seed=len(model))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for name in sys.argv[2:] or KERNELS:
            folder = Path(place) / name
            folder.mkdir()
            print(
                name, "killed", sys.argv[1], "times over", kills(draw(folder), name, int(sys.argv[1]), 1), "trainings"
            )
