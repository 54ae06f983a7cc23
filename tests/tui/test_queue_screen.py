"""The queue with keys: who goes first, who is held, who is taken out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.servers import queue
from engine.versions import Version, Workspace
from tests.played import until
from tests.servers.box import Box, played
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.screens.dialogs import Confirm
from tui.screens.queue import QueueScreen
from tui.screens.version import VersionScreen


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_environment: None) -> Iterator[Box]:
    with played(tmp_path, monkeypatch) as found:
        yield found


def put(box: Box, workspace: Workspace, name: str, **job: Any) -> Version:
    version = made.version(workspace, label={"name": name})
    argv = ["/bin/sh", str(box.folder / "worker.sh"), "{run}", "until", str(box.log)]
    version.job.write_text(json.dumps({"argv": argv, "title": version.reference, "poll": 0.02, **job}))
    assert box.supervisor([str(version.path)]).returncode == 0
    return version


@pytest.fixture
def three(box: Box, workspace: Workspace) -> list[Version]:
    """V_0 on both GPUs; V_1 and V_2 wait."""
    first = put(box, workspace, "밤 사진", gpus=2)
    until(lambda: box.started() == ["V_0"])
    versions = [first, put(box, workspace, "one", gpus=1), put(box, workspace, "two", gpus=2)]
    until(lambda: "behind 1" in versions[2].waiting()["reason"])
    return versions


def order(box: Box) -> list[str]:
    return [w.title.rpartition("/")[2] for w in queue.look(box.place).waiting]


async def on_queue(person: Person) -> QueueScreen:
    await person.press("4")
    await person.until(lambda: isinstance(person.app.screen, QueueScreen))
    assert isinstance(person.app.screen, QueueScreen)
    return person.app.screen


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_what_trains_and_what_waits(
    box: Box, three: list[Version], workspace: Workspace, opened: Open, size: tuple[int, int]
) -> None:
    async with opened(workspace, size) as person:
        await on_queue(person)
        await person.sees("GPU 0", "● V_0 밤 사진", "GPU 1", "1  ◌ V_1 one", "2  ◌ V_2 two", "1 training", "2 queued")
        await person.sees("V_1 one waits for 1 GPU; none free. It has waited")
        await person.until(lambda: "K earlier" not in person.footer and "J later" in person.footer)
        await person.press("down")
        await person.sees("V_2 two waits for 2 GPUs; none free; behind 1 training")
        await person.until(lambda: "K earlier" in person.footer and "J later" not in person.footer)
        await person.until(lambda: "start anyway" not in person.footer)


async def test_moved_held_and_let_go(box: Box, three: list[Version], workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (120, 30)) as person:
        screen = await on_queue(person)
        await person.sees("1  ◌ V_1 one")
        await person.press("J")
        await person.sees("1  ◌ V_2 two", "2  ◌ V_1 one")
        assert order(box) == ["V_2", "V_1"] and screen.selected and screen.selected.title.endswith("V_1")
        await person.press("b")
        await person.sees("1  ◌ V_1 one")
        await person.press("p")
        await person.sees("1  ‖ V_1 one", "is held: others go first", "p release")
        await person.press("p")
        await person.sees("1  ◌ V_1 one", "p hold")
        assert not queue.read_wishes(box.place)["held"]


async def test_taken_out_after_a_yes(box: Box, three: list[Version], workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await on_queue(person)
        await person.sees("1  ◌ V_1 one")
        for answer, left in (("n", ["V_1", "V_2"]), ("y", ["V_2"])):
            await person.press("s")
            await person.until(lambda: isinstance(person.app.screen, Confirm))
            await person.press(answer)
            await person.until(lambda left=left: order(box) == left)
        await person.sees("1  ◌ V_2 two")
        assert three[1].state(three[1].progress()) == "draft"


async def test_start_where_others_compute(box: Box, workspace: Workspace, opened: Open) -> None:
    box.apps.write_text("GPU-00000001, 1, 70000\n")
    version = put(box, workspace, "both", gpus=2)
    async with opened(workspace, (120, 30)) as person:
        await on_queue(person)
        await person.sees("others: root (1, 68.4 GiB)", "a start anyway", "others compute there")
        await person.press("a")
        await person.sees("● V_0 both", "Nobody waits.")
        assert box.started() == [version.id]


async def test_enter_opens_from_either_list(box: Box, three: list[Version], workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await on_queue(person)
        await person.sees("1  ◌ V_1 one", "● V_0")
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, VersionScreen))
        await person.sees("V_1 one", "◌ queued", "It waits for 1 GPU; none free. It starts by itself")
        await person.until(lambda: "f finish" not in person.footer and "s stop" in person.footer)
        await person.press("escape", "shift+tab")
        await person.until(lambda: "s take out" not in person.footer)
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, VersionScreen))
        assert person.app.screen.version.id == "V_0"


async def test_stopping_a_queued_one_from_the_list_says_what_it_does(
    box: Box, three: list[Version], workspace: Workspace, opened: Open
) -> None:
    async with opened(workspace, (120, 30)) as person:
        await person.sees("◌ queued, no. 2", "◌ queued, next", "◌ 2 queued", "● 1 running")
        await person.press("s")
        await person.sees("Take V_2 out of the queue?")
        await person.press("y")
        await person.sees("○ draft")
        await person.press("q")
        await person.until(lambda: person.app._exit)
        told = "default/V_0 goes on training. default/V_1 starts in its turn. Come back with: dojang"
        assert person.app.return_value == told


async def test_a_queue_that_cannot_be_changed_says_so(
    box: Box, three: list[Version], workspace: Workspace, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(queue, "PATIENCE", 0.05)
    async with opened(workspace, (120, 30)) as person:
        await on_queue(person)
        await person.sees("1  ◌ V_1 one")
        with (Path(box.place) / "lock").open("w") as stuck:
            fcntl.flock(stuck, fcntl.LOCK_EX)
            await person.press("p")
            await person.sees("cannot be changed", "a process of yours hangs")


async def test_without_gpus_it_says_what_it_is_for(workspace: Workspace, opened: Open, tmp_path: Path) -> None:
    version = made.version(workspace, made.training(until=50))
    with made.held(version):
        async with opened(workspace, (80, 24)) as person:
            await on_queue(person)
            await person.sees("beside", "● V_0", "Nobody waits.", "A training that needs GPUs waits here")
