"""`dojang demo`: a data set drawn on the spot and a training on it, live where there is a terminal to draw on."""

from __future__ import annotations

import json
import os
import sys

from engine import launch
from engine.datasets import registry
from engine.demo import draw
from engine.errors import NotFound
from engine.servers import local
from engine.spec import parse_label
from engine.versions import Version, Workspace

DATASET = "shapes"
PROJECT = "demo"
# What learns the shapes within two minutes on two cores: mAP50 passes 0.5 in the first third and ends above 0.8.
SETTINGS = {
    "dataset": DATASET, "model": "yolov8n", "image_size": 160, "batch_size": 16, "epochs": 18,
    "optimizer": "AdamW", "lr": 0.002, "warmup_epochs": 1.0, "close_mosaic": 5,
}  # fmt: skip


def run(workspace: Workspace, epochs: int | None, as_json: bool) -> int:
    """Draw, register, start; then show it live, or print its progress where no terminal is attached."""
    _dataset(workspace)
    data = {**SETTINGS, **({"epochs": epochs} if epochs else {})}
    label = parse_label({"name": "demo", "tags": ["demo"], "memo": "shapes drawn by dojang demo"})
    workspace.use(PROJECT)
    version = launch.create(workspace, data, label, PROJECT)
    local.start(version)
    if sys.stdin.isatty() and sys.stdout.isatty() and not as_json and os.environ.get("TERM", "dumb") != "dumb":
        from tui.start import open_app

        return open_app(workspace.path, open_version=version.reference)
    return _print(version, as_json)


def _dataset(workspace: Workspace) -> None:
    try:
        registry.load(workspace.path, DATASET)
        return
    except NotFound:
        pass
    folder = workspace.path / "demo" / DATASET
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draw(folder)
    registry.add(workspace.path, folder, DATASET)


def _print(version: Version, as_json: bool) -> int:
    from tui.commands import follow_version
    from tui.lines import describe

    code = follow_version(version, as_json)
    found = version.summary()
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write("\n" + "\n".join(list(describe({**found, "spec": {}}))).rstrip() + "\n")
    return code
