"""The learning rate finder, for real: in its own process, on a model that is thrown away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine import find
from engine.datasets import add
from engine.errors import DojangError
from engine.spec import Spec, parse
from engine.versions import Workspace
from tests.training.conftest import ROOT, Create

SMALL = {"dataset": "shapes", "image_size": 64, "batch_size": 8, "threads": 1, "workers": 0, "device": "cpu"}


@pytest.fixture
def ready(workspace: Workspace, shapes: Path) -> Workspace:
    add(workspace.path, shapes, "shapes")
    return workspace


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether the process ends in that time; one that nobody has waited for yet counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def everything(folder: Path) -> dict[str, int]:
    """Every file outside the cache, with its time of change."""
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and "cache" not in p.relative_to(folder).parts
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model": "yolov8n"},
        {"model": "yolov8n", "optimizer": "SGD", "amp": "bf16", "exact_resume": False, "workers": 1},
        {"model": "efficientdet_d0", "image_size": 128, "batch_size": 4},
        {"model": "yolov8n", "epochs": 1, "close_mosaic": 1, "batch_size": 0},
    ],
    ids=["yolo", "yolo, upstream's order", "effdet", "fewer epochs than the sweep"],
)
def test_a_sweep_on_the_training_s_own_session(ready: Workspace, changes: dict[str, object]) -> None:
    spec = parse({**SMALL, **changes})
    before = everything(ready.path)
    sweep = find.Sweep()
    for message in find.Finder(ready, spec, low=1e-6, steps=24).messages():
        sweep.take(message)
    assert sweep.end and sweep.plan["device"] == "cpu" and sweep.plan["batch_size"] == spec.images_per_step
    assert 20 <= len(sweep.rates) <= 24
    assert sweep.rates[0] == pytest.approx(1e-6) and sorted(sweep.rates) == sweep.rates
    assert sweep.suggestion or sweep.reason
    assert everything(ready.path) == before


@pytest.mark.slow
def test_classifiers_too(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    from PIL import Image

    for split in ("train", "val"):
        for kind, colour in (("개미", "red"), ("bee", "blue")):
            (folder / split / kind).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (64, 64), colour).save(folder / split / kind / f"{i}.png")
    add(workspace.path, folder, "kinds")
    spec = parse({**SMALL, "dataset": "kinds", "model": "resnet18"})
    messages = list(find.Finder(workspace, spec, steps=20).messages())
    assert messages[-1]["kind"] == "end", messages[-1]


@pytest.mark.slow
def test_the_loss_of_the_first_step_is_that_of_the_training(create: Create) -> None:
    """Same model, same batch, same loss: the sweep trains what the training would train."""
    from tests.training.conftest import of_kind, train

    version = create(warmup_epochs=0, epochs=1, batch_size=24, close_mosaic=0)
    sweep = find.Sweep()
    for message in find.Finder(version.workspace, version.spec(), steps=20).messages():
        sweep.take(message)
    steps = of_kind(train(version), "step")
    assert sweep.losses[0] == pytest.approx(sum(steps[0]["loss"].values()), rel=1e-4)


def test_cancelling_ends_the_process_at_once(ready: Workspace) -> None:
    finder = find.Finder(ready, parse(SMALL))
    threading.Timer(0.3, finder.cancel).start()
    assert all(m["kind"] != "error" for m in finder.messages())  # and no complaint that it died
    assert gone(finder.pid)


def test_a_process_that_dies_is_told(ready: Workspace) -> None:
    finder = find.Finder(ready, parse(SMALL))
    threading.Timer(0.3, os.kill, (finder.pid, signal.SIGKILL)).start()
    with pytest.raises(DojangError, match="without a result") as e:
        list(finder.messages())
    assert str(ready.cache / "lr-find.log") in e.value.hint


def test_it_ends_with_whoever_started_it(ready: Workspace) -> None:
    code = f"""
import os, signal, sys, time
from pathlib import Path
from engine import find
from engine.spec import parse
from engine.versions import Workspace
finder = find.Finder(Workspace(Path({str(ready.path)!r})), parse({SMALL!r}))
for message in finder.messages():
    print(finder.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_what_is_missing_is_said_in_plain_words(ready: Workspace) -> None:
    finder = find.Finder(ready, parse({**SMALL, "weights": "pretrained", "download": True}))
    sweep = find.Sweep()
    with pytest.raises(DojangError) as e:
        for message in finder.messages():
            sweep.take(message)
    assert e.value.code == "MISSING_WEIGHTS" and gone(finder.pid)


def test_a_sweep_needs_sensible_limits(ready: Workspace) -> None:
    for low, high, steps in ((0.0, 1.0, 100), (1.0, 0.1, 100), (1e-7, float("inf"), 100), (1e-7, 1.0, 5)):
        with pytest.raises(DojangError, match=r"swept|sweep"):
            find.Finder(ready, Spec(dataset="shapes"), low, high, steps)
