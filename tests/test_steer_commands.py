"""`pause`, `change` and `extend`: what they write, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import control
from engine.servers import local
from engine.versions import Workspace
from tests import logs
from tests.test_cli import Run, run  # noqa: F401


def test_settings_wait_for_a_version_that_does_not_run(run: Run, workspace: Workspace) -> None:  # noqa: F811
    version = logs.version(workspace)
    assert run("change", "V_0", "patience=9", "lr_scale=0.5").code == 0
    assert control.read(version.control)["settings"] == {"patience": 9, "lr_scale": 0.5}


@pytest.mark.parametrize("given", ["epochs=0", "epochs=2.5", "lr_scale=-1", "seed=3", "epochs", "lr_scale=nan", "=3"])
def test_what_cannot_be_is_refused(run: Run, workspace: Workspace, given: str) -> None:  # noqa: F811
    version = logs.version(workspace)
    assert run("change", "V_0", given).code == 2
    assert not version.control.exists()


def test_less_than_is_done_is_refused(run: Run, workspace: Workspace) -> None:  # noqa: F811
    logs.finished(logs.version(workspace))
    assert run("extend", "V_0", "2", json_too=False).code == 4
    assert "--finish" in run.err


def test_extending_starts_what_is_done(run: Run, workspace: Workspace, monkeypatch: Any) -> None:  # noqa: F811
    version = logs.version(workspace)
    logs.finished(version)
    started: list[Path] = []
    monkeypatch.setattr(local, "start", lambda v: started.append(v.path))
    assert run("extend", "V_0", "12").code == 0
    assert started == [version.path] and control.read(version.control)["settings"] == {"epochs": 12}


def test_pausing_what_does_not_run(run: Run, workspace: Workspace) -> None:  # noqa: F811
    logs.version(workspace)
    assert run("pause", "V_0").code == 4
