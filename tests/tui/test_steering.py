"""Pausing, going on, and changing a training, with keys."""

from __future__ import annotations

import pytest
from textual.widgets import Input

from engine import control
from engine.servers import local
from engine.versions import Version, Workspace
from tests.tui import made
from tests.tui.conftest import Open
from tui.screens.dialogs import Ask


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(local, "start", lambda version: found.append(version.reference))
    return found


async def test_p_pauses_what_runs(workspace: Workspace, opened: Open) -> None:
    version = made.version(workspace, made.training(until=60))
    with made.held(version):
        async with opened(workspace, (120, 30), open_version=version.reference) as person:
            await person.sees("p pause")
            await person.press("p")
            await person.until(lambda: control.read(version.control)["request"] == "pause")


async def test_p_goes_on_with_what_is_paused(workspace: Workspace, opened: Open, started: list[str]) -> None:
    version = made.in_state(workspace, "paused")
    async with opened(workspace, (120, 30), open_version=version.reference) as person:
        await person.sees("‖ paused", "p go on")
        await person.press("p")
        await person.until(lambda: started == [version.reference])


async def test_more_epochs_after_it_is_done(workspace: Workspace, opened: Open, started: list[str]) -> None:
    version = made.in_state(workspace, "done")
    async with opened(workspace, (80, 24), open_version=version.reference) as person:
        await person.press("plus")
        await person.until(lambda: isinstance(person.app.screen, Ask))
        field = person.app.screen.query_one("#ask-epochs", Input)
        field.value = "2"
        await person.press("enter")
        await person.sees("are done already")
        field.value = "500"
        await person.press("enter")
        await person.until(lambda: started == [version.reference])
    assert control.read(version.control)["settings"] == {"epochs": 500}


async def test_a_new_rate_while_it_runs(workspace: Workspace, opened: Open, started: list[str]) -> None:
    version: Version = made.version(workspace, made.training(until=60))
    with made.held(version):
        async with opened(workspace, (80, 24), open_version=version.reference) as person:
            await person.press("plus")
            await person.until(lambda: isinstance(person.app.screen, Ask))
            person.app.screen.query_one("#ask-lr_scale", Input).value = "fast"
            await person.sees("must be 0.0001")
            person.app.screen.query_one("#ask-lr_scale", Input).value = "0.5"
            await person.press("enter")
            await person.until(lambda: control.read(version.control)["settings"] == {"lr_scale": 0.5})
    assert not started
