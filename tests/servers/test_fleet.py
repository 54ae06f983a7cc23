"""Every server at a glance: what is seen of each, also while others hang, and what a server that lies can do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DojangError
from engine.servers import boxes
from engine.servers.far_queue import FarQueue, gpu_of, view_of
from engine.servers.fleet import HERE, Fleet, Sight, machine_of
from engine.servers.link import Link, local
from engine.versions import Workspace
from tests.played import until
from tests.servers.box import Box, played
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd
from tui.cli import main


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """This machine with two GPUs: a server that is a folder of it has them too."""
    with played(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def fleet(workspace: Workspace) -> Iterator[Fleet]:
    found = Fleet(workspace)
    yield found
    found.close()


def add(workspace: Workspace, **told: Any) -> None:
    boxes.add(workspace.path, boxes.make(told))


def seen(fleet: Fleet, name: str) -> Sight | None:
    one = fleet.sight(name)
    return one if one and one.view is not None else None


def test_gpus_free_and_taken_and_who_waits(box: Box, workspace: Workspace, fleet: Fleet, tmp_path: Path) -> None:
    add(workspace, name="room", root=str(tmp_path / "far"))
    box.submit("first", gpus=1)
    until(lambda: box.started() == ["first"])
    box.submit("second", gpus=2)
    fleet.attend()
    until(lambda: (one := seen(fleet, "room")) is not None and len(one.view.waiting if one.view else ()) == 1)
    for name in (HERE, "room"):
        one = fleet.sight(name)
        assert one and one.machine and one.view and one.up
        assert len(one.machine.gpus) == 2 and one.free_gpus == 1
        assert [w.title for w in one.view.waiting] == ["second"] and "none" not in one.view.waiting[0].reason
        assert [lease.title for lease in one.view.leases.values()] == ["first"]
    assert [s.name for s in fleet.sights()] == [HERE, "room"]


def test_a_servers_queue_is_changed_from_here(box: Box, tmp_path: Path) -> None:
    box.submit("first", gpus=2)
    until(lambda: box.started() == ["first"])
    box.submit("second", gpus=1)
    until(lambda: box.waiting("second") is not None)
    with Link(local, root=str(tmp_path / "far")) as link:
        there = FarQueue(link)
        view, gpus = there.look()
        ticket = view.waiting[0].id
        assert len(gpus) == 2 and view.waiting[0].title == "second"
        assert there.change(ticket, "hold").waiting[0].held
        assert not there.change(ticket, "release").waiting[0].held
        there.change(ticket, "cancel")
        until(lambda: not box.held("second"))
        with pytest.raises(DojangError) as caught:
            there.change(ticket, "hold")
        assert caught.value.code == "NOT_QUEUED"
        with pytest.raises(DojangError) as caught:
            there.change("--help", "hold")
        assert caught.value.code in ("NOT_QUEUED", "QUEUE_UNREAD")


def test_a_servers_queue_by_commands(
    box: Box, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(workspace, name="room", root=str(tmp_path / "far"))
    for name in ("first", "second", "third"):
        box.submit(name, gpus=2)
        until(lambda: box.started() == ["first"])
    until(lambda: box.waiting("third") is not None)

    def dojang(*words: str) -> str:
        assert main(["--workspace", str(workspace.path), "queue", *words, "--server", "room"]) == 0
        return capsys.readouterr().out

    assert "second" in dojang() and "first" in dojang("list")
    assert "third, second" in dojang("move", "#2", "first")
    assert "is held" in dojang("hold", "1")
    assert [w["held"] for w in json.loads(dojang("list", "--json"))["waiting"]] == [True, False]
    assert main(["--workspace", str(workspace.path), "queue", "hold", "9", "--server", "room"]) == 3


def test_servers_come_and_go(workspace: Workspace, fleet: Fleet, tmp_path: Path) -> None:
    fleet.attend()
    until(lambda: [s.name for s in fleet.sights()] == [HERE])
    add(workspace, name="one", root=str(tmp_path / "one"))
    fleet.renew()
    assert [s.name for s in fleet.sights()] == [HERE, "one"]
    until(lambda: seen(fleet, "one") is not None)
    boxes.remove(workspace.path, "one")
    (workspace.path / boxes.FILE).write_text('[bad]\nhost = "-oProxyCommand=x"\n')
    until(lambda: [s.name for s in fleet.sights()] == [HERE])
    assert "-oProxyCommand" not in str(fleet.troubles[0]) and "host" in str(fleet.troubles[0])


def test_one_that_is_frozen_delays_no_other(
    workspace: Workspace, fleet: Fleet, tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(sshd.port)
    monkeypatch.setenv("DOJANG_SSH_CONFIG", sshd.target(proxy.port).config)
    add(workspace, name="far", host="box", root=str(tmp_path / "far"))
    add(workspace, name="near", root=str(tmp_path / "near"))
    fleet.attend()
    until(lambda: seen(fleet, "far") is not None and seen(fleet, "near") is not None)
    proxy.freeze()
    frozen_at = time.time()
    until(lambda: all((s := fleet.sight(name)) is not None and s.at > frozen_at for name in ("near", HERE)), 30)
    far = fleet.sight("far")
    assert far and far.at < frozen_at + 1 and far.machine, "what was seen last stays"


# A server may tell anything


def test_what_makes_no_sense_is_told_and_not_shown() -> None:
    with pytest.raises(DojangError):
        machine_of({"cores": "many"})
    found = machine_of({"host": "a\x1b[31mb\n" * 100, "gpus": [None, 7, {"index": "x"}, {"uuid": "u"}], "load": None})
    assert "\x1b" not in found.host and len(found.host) <= 80 and found.gpus == () and found.cores == 1
    assert len(machine_of({"gpus": [{"index": i, "uuid": i, "name": "g", "memory_total": 1, "memory_used": 0} for i in range(999)]}).gpus) == 64  # fmt: skip


@pytest.mark.parametrize("told", [None, 7, [], {}, {"leases": [], "waiting": [], "others": {}, "uuids": []}])
def test_a_queue_that_is_none(told: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        view_of(told)


def test_a_ticket_is_a_number() -> None:
    waiting = {
        "id": "../../x", "title": "t", "run_dir": "r", "pid": 1, "since": 0.0, "held": False, "regardless": False,
        "cancelled": False, "choices": [], "ahead": 0, "free": 0, "reason": "\x1b]0;x\x07 waits",
        "request": {"count": 1, "first": None, "visible": None},
    }  # fmt: skip
    told = {"leases": {}, "waiting": [waiting], "others": {}, "uuids": ["GPU-1"]}
    with pytest.raises(ValueError, match=r"x"):
        view_of(told)
    view = view_of({**told, "waiting": [{**waiting, "id": "0" * 20}]})
    assert "\x1b" not in view.waiting[0].reason and view.uuids == ("GPU-1",)
    assert gpu_of({"index": 1, "uuid": "u", "name": "n", "memory_total": float("inf"), "memory_used": 0}) is not None
