"""Servers with keys: added, looked at, trusted; chosen for a training; their queues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Button

from engine.servers import boxes, elsewhere
from engine.servers.boxes import Box as Server
from engine.servers.watching import watching
from engine.versions import Workspace
from tests.played import until
from tests.servers.box import Box, played
from tests.servers.conftest import own_runtime, sshd  # noqa: F401
from tests.servers.far import Far, settled
from tests.servers.sshd import Sshd, keygen
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.screens.dialogs import Confirm
from tui.screens.server_check import Check
from tui.screens.version import VersionScreen
from tui.screens.wizard import WizardScreen


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_environment: None) -> Iterator[Box]:
    with played(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def room(workspace: Workspace, tmp_path: Path) -> Server:
    """A server that is a folder of this machine."""
    made = boxes.make({"name": "room", "root": str(tmp_path / "far")})
    boxes.add(workspace.path, made)
    return made


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_every_server_in_a_table(
    box: Box, room: Server, workspace: Workspace, opened: Open, size: tuple[int, int]
) -> None:
    boxes.add(workspace.path, boxes.make({"name": "away", "host": "away.invalid"}))
    box.submit("cells/V_7", gpus=1)
    until(lambda: box.started() == ["V_7"])
    async with opened(workspace, size) as person:
        await person.press("3")
        await person.sees("this machine", "here", "room", "up", "1 of 2", "away", "1 of 2 servers up")
        await person.press("home", "down")
        await person.sees("── away", "cannot be reached")
        await person.press("down")
        await person.sees("── room", "GPU 0", "GPU 1", "H200: cells/V_7 since", "H200: free", "34 °C")
        await person.until(lambda: "x remove" in person.footer)
        await person.press("home")
        await person.until(lambda: "x remove" not in person.footer)


async def test_a_server_is_added_by_its_alias_and_its_key_trusted(
    workspace: Workspace,
    opened: Open,
    sshd: Sshd,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DOJANG_SSH_CONFIG", sshd.target(known="").config)
    async with opened(workspace, (80, 24)) as person:
        await person.press("3")
        await person.sees("this machine", "here")
        await person.press("a")
        await person.sees("Add a server", "box", "another host", "a folder of this machine")
        await person.press("enter")
        await person.sees("Name here", "Folder there")
        await person.press("tab", "tab", "tab")
        await person.type(str(tmp_path / "far there"))
        await person.press("enter")
        await person.sees("✗ login", "host key is not known yet")
        await person.until(lambda: person.app.focused is not None and person.app.focused.id == "trust")
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, Confirm))
        assert sshd.fingerprint() in person.text
        await person.press("enter")  # “No” has the focus
        await person.until(lambda: isinstance(person.app.screen, Check) and person.app.focused is not None)
        person.app.screen.query_one("#trust", Button).press()
        await person.until(lambda: isinstance(person.app.screen, Confirm))
        await person.press("y")
        await person.sees("✓ login", "✓ disk", "Trainings can run there.")
        await person.press("escape")
        await person.sees("box", "↑ up")
    assert boxes.get(workspace.path, "box").root == str(tmp_path / "far there")


async def test_a_key_that_changed_cannot_be_accepted(
    workspace: Workspace,
    opened: Open,
    sshd: Sshd,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    key = " ".join(keygen(tmp_path / "other").with_suffix(".pub").read_text().split()[:2])
    other = f"[127.0.0.1]:{sshd.port} {key}\n"
    monkeypatch.setenv("DOJANG_SSH_CONFIG", sshd.target(known=other).config)
    boxes.add(workspace.path, boxes.make({"name": "box", "host": "box"}))
    async with opened(workspace, (100, 30)) as person:
        await person.press("3")
        await person.sees("box")
        await person.press("down", "enter")
        await person.sees("✗ login", "not the one known", "ssh-keygen -R")
        await person.until(lambda: person.app.focused is not None and person.app.focused.id == "again")
        shown = {str(b.id) for b in person.app.screen.query("Button") if b.display}
        assert shown == {"again", "close"}


async def test_what_cannot_be_a_server_is_said_as_it_is_typed(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (100, 36)) as person:
        await person.press("3")
        await person.sees("here")
        await person.press("a")
        await person.until(lambda: "Add a server" in person.text)
        if "another host" in person.text:  # whoever runs this has aliases of their own
            await person.type("another")
            await person.press("enter")
        await person.sees("Name here")
        await person.type("gpu 1")
        await person.press("tab")
        await person.type("-oProxyCommand=touch x")
        await person.sees("digits and . _ -", "not beginning with -")
        assert person.app.screen.query_one("#ok").disabled
        await person.press("enter", "escape")
        await person.sees("Servers", "this machine")
    assert not (workspace.path / boxes.FILE).exists()


async def test_one_is_forgotten_after_a_yes(room: Server, workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (120, 30)) as person:
        await person.press("3")
        await person.sees("room")
        await person.press("down", "x")
        await person.sees("Forget room?")
        await person.press("n")
        assert boxes.get(workspace.path, "room")
        await person.press("x")
        await person.sees("Forget room?")
        await person.press("y")
        await person.until(lambda: "room" not in person.text.replace("Forget room", ""))
    assert boxes.listed(workspace.path)[0] == []


@pytest.fixture
def far(workspace: Workspace, tmp_path: Path, plain_environment: None) -> Iterator[Far]:
    found = Far(workspace, tmp_path)
    yield found
    found.end()


@pytest.mark.usefixtures("shapes")
@pytest.mark.parametrize("size", [(80, 24), (140, 44)])
async def test_a_training_on_a_server_through_the_wizard(
    far: Far, workspace: Workspace, opened: Open, size: tuple[int, int]
) -> None:
    async with opened(workspace, size) as person:
        with watching(workspace):
            await through_the_wizard(person, workspace)
    version = workspace.version("V_0")
    assert elsewhere.place_of(version) is not None
    settled(version)


async def through_the_wizard(person: Person, workspace: Workspace) -> None:
    await person.press("3")
    await person.sees("box", "up")
    await person.press("down", "n")
    await person.until(lambda: isinstance(person.app.screen, WizardScreen))
    await person.press("ctrl+n")
    await person.sees("Epochs")
    await person.press("ctrl+n")
    await person.sees("● Server", "✓ box, auto", "to copy")
    await person.press("up")
    await person.sees("✓ this machine, CPU")
    await person.press("down")
    await person.sees("✓ box, auto", "to copy")
    await person.press("enter")
    await person.sees("● Confirm")
    for text in ("box, auto", "Before that", "--server"):
        while text not in person.text:
            await person.press("down")
    await person.press("ctrl+n")
    await person.sees("for 100 epochs on box")
    await person.press("y")
    await person.until(lambda: isinstance(person.app.screen, VersionScreen))
    version = workspace.version("V_0")
    await person.until(lambda: version.state(version.progress()) in ("training", "testing", "done"))


async def test_a_servers_queue(box: Box, room: Server, workspace: Workspace, opened: Open) -> None:
    first, second = made.version(workspace, label={"name": "one"}), made.version(workspace, label={"name": "two"})
    for version, gpus in ((first, 2), (second, 1)):
        argv = ["/bin/sh", str(box.folder / "worker.sh"), "{run}", "until", str(box.log)]
        version.job.write_text(json.dumps({"argv": argv, "title": version.reference, "poll": 0.02, "gpus": gpus}))
        assert box.supervisor([str(version.path)]).returncode == 0
        until(lambda: box.started() == ["V_0"])
    async with opened(workspace, (120, 30)) as person:
        await person.press("4")
        await person.sees("this machine", "● V_0 one", "1  ◌ V_1 two")
        await person.until(lambda: "] server" in person.footer)
        await person.press("right_square_bracket")
        await person.sees("Queue  room", "GPU 0", "1  ◌")
        await person.press("p")
        await person.until(lambda: bool((w := box.view().waiting) and w[0].held))
        await person.sees("is held")
        await person.press("left_square_bracket")
        await person.sees("Queue  this machine", "● V_0 one")


async def test_a_server_that_does_not_answer_holds_nothing_up(workspace: Workspace, opened: Open) -> None:
    boxes.add(workspace.path, boxes.make({"name": "away", "host": "away.invalid"}))
    async with opened(workspace, (100, 30)) as person:
        await person.press("4")
        await person.until(lambda: "] server" in person.footer)
        await person.press("right_square_bracket")
        await person.sees("Queue  away", "cannot be reached")
        await person.press("3")
        await person.sees("not reached since")
