"""Small real trainings: a drawn data set, a workspace, and a way to train in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything imports torch: what the worker sets for itself, and one folder for what ultralytics writes.
os.environ.update(
    YOLO_CONFIG_DIR=tempfile.mkdtemp(prefix="dojang-test-"),
    YOLO_OFFLINE="1",
    YOLO_AUTOINSTALL="0",
    YOLO_VERBOSE="0",
    ULTRALYTICS_SAFE_LOAD="1",
    OMP_WAIT_POLICY="PASSIVE",
)

import pytest

from engine import demo, worker
from engine.datasets import add
from engine.events import Event, read_all
from engine.spec import parse, parse_label
from engine.versions import Version, Workspace

ROOT = Path(__file__).parents[2]
SHAPES = {"images": 32, "size": 64, "val": 0.25}
TINY = {"image_size": 64, "batch_size": 8, "epochs": 3, "threads": 1, "warmup_epochs": 1.0, "close_mosaic": 1}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """data.yaml of 24 training and 8 val images of 64 px."""
    return demo.draw(tmp_path / "shapes", **SHAPES)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


Create = Callable[..., Version]


@pytest.fixture
def create(workspace: Workspace, shapes: Path) -> Create:
    """Lay down a version that trains on `shapes`; keywords change the tiny spec."""

    def make(**changes: Any) -> Version:
        if not (workspace.path / "datasets" / "shapes").exists():
            add(workspace.path, shapes, "shapes")
        return tiny(workspace, **changes)

    return make


def tiny(workspace: Workspace, **changes: Any) -> Version:
    """A version on the data set `shapes` whose training takes a second or two."""
    spec = parse({"dataset": "shapes", **TINY, **changes})
    return workspace.project("default", create=True).create(spec, parse_label({}))


def train(version: Version) -> list[Event]:
    """Train within this process; the events of this attempt."""
    before = len(read_all(version.events))
    worker.run(version.path)
    return read_all(version.events)[before:]


def start(version: Version, lock: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """Train in a process of its own, as the supervisor does; it inherits `lock`, the descriptor of the run's lock."""
    if lock is not None:
        environment["DOJANG_LOCK_FD"] = str(lock)
    with version.train_log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "engine", str(version.path)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[] if lock is None else [lock],
            start_new_session=True,
        )


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [e for e in events if e["kind"] == kind]


def ending(events: list[Event]) -> str:
    """How it ended; with the error's words, so that a failing test says why."""
    errors = of_kind(events, "error")
    return (
        f"{events[-1].get('state')}: {errors[-1]['code']}: {errors[-1]['message']}" if errors else events[-1]["state"]
    )


def same(a: Any, b: Any) -> bool:
    """Whether two states hold the same bits."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
