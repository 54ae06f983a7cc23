"""One data set in four formats: same hash, and to the last bit the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.datasets import add, load
from engine.datasets.write import export
from engine.training import checkpoint
from engine.versions import Workspace
from tests.training.conftest import ending, of_kind, same, tiny, train

pytestmark = pytest.mark.slow


def test_the_format_of_a_data_set_changes_nothing(workspace: Workspace, shapes: Path, tmp_path: Path) -> None:
    add(workspace.path, shapes, "yolo")
    names = ["yolo"]
    for format in ("coco", "voc", "yolo"):
        names.append(f"{names[-1]}-{format}")
        export(workspace.path, names[-2], tmp_path / names[-1], format)  # type: ignore[arg-type]
        assert add(workspace.path, tmp_path / names[-1], names[-1]).hash == load(workspace.path, "yolo").hash
    seen: list[Any] = []
    for name in names:
        version = tiny(workspace, dataset=name, epochs=2)
        events = train(version)
        assert ending(events) == "done"
        epochs = [(event["train"], event["val"], event["metrics"]) for event in of_kind(events, "epoch")]
        seen.append((epochs, checkpoint.load(version.path / "checkpoints" / "state.pt")[0]["model"]))
    for epochs, model in seen[1:]:
        assert epochs == seen[0][0]
        assert same(model, seen[0][1])
