"""servers.toml: what a person adds is checked before anything is ever run with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import DojangError, Invalid, NotFound
from engine.servers import boxes
from engine.versions import Workspace
from tui.cli import main

GOOD: dict[str, Any] = {"name": "gpu1", "host": "gpu1.lab", "user": "kim", "port": 2222}


def wrong(**given: Any) -> set[str]:
    return {p.field for p in boxes.problems({**GOOD, **given})}


def test_a_server_is_kept_and_found_again(workspace: Workspace) -> None:
    box = boxes.make({**GOOD, "root": "/data/kim", "python": "~/envs/t/bin/python", "data": {"세포": "/mnt/cells"}})
    boxes.add(workspace.path, box)
    assert boxes.get(workspace.path, "gpu1") == box
    assert boxes.listed(workspace.path) == ([box], [])
    assert boxes.remove(workspace.path, "gpu1") == box
    assert boxes.listed(workspace.path) == ([], [])


def test_a_name_is_given_once_unless_it_is_replaced(workspace: Workspace) -> None:
    boxes.add(workspace.path, boxes.make(GOOD))
    with pytest.raises(DojangError) as caught:
        boxes.add(workspace.path, boxes.make({**GOOD, "host": "other"}))
    assert caught.value.code == "EXISTS" and boxes.get(workspace.path, "gpu1").host == "gpu1.lab"
    boxes.add(workspace.path, boxes.make({**GOOD, "host": "other"}), replace=True)
    assert boxes.get(workspace.path, "gpu1").host == "other"


def test_user_and_host_may_be_said_together() -> None:
    box = boxes.make({"name": "a", "host": "kim@box.lab"})
    assert (box.user, box.host, box.where) == ("kim", "box.lab", "kim@box.lab")


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch x", "a b", "a;id", "a$(id)", "`id`", "a\nb", "a'b", "a\0b", "-", " box", "é", "a" * 300, 7],
)
def test_no_host_can_be_taken_for_an_option_or_a_command(host: Any) -> None:
    assert wrong(host=host) == {"host"}
    with pytest.raises(Invalid):
        boxes.make({**GOOD, "host": host})


@pytest.mark.parametrize("user", ["-l", "a b", "$(id)", "-oX=y", "a\nb", "a;b"])
def test_no_user_can_be_taken_for_an_option(user: str) -> None:
    assert wrong(user=user) == {"user"}
    with pytest.raises(Invalid):
        boxes.make({"name": "a", "host": f"{user}@box"})


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "../x", "local", "Here", "x" * 33, "a\n", "~"])
def test_names_that_cannot_be(name: str) -> None:
    assert "name" in wrong(name=name)


@pytest.mark.parametrize(
    "path",
    ["relative", "/a/../b", "~root/x", "/a:b", "/a{run}", "/a\nb", "/a'b", "/$HOME", "/a`b", 3, "/" + "x" * 2000],
)
def test_paths_there_are_whole_and_plain(path: Any) -> None:
    assert wrong(root=path) == {"root"} and wrong(python=path) == {"python"} and wrong(data={"x": path}) == {"data"}


@pytest.mark.parametrize("port", [-1, 65536, "22", True, 1.5])
def test_ports_are_ports(port: Any) -> None:
    assert wrong(port=port) == {"port"}


def test_every_problem_is_told_at_once() -> None:
    assert wrong(host="-x", user="-y", port=0.5, colour="red") == {"host", "user", "port", "colour"}


def test_a_broken_entry_costs_only_itself(workspace: Workspace) -> None:
    boxes.add(workspace.path, boxes.make(GOOD))
    file = workspace.path / boxes.FILE
    file.write_text(file.read_text() + '\n[evil]\nhost = "-oProxyCommand=x"\n[odd]\nhost = 3\n')
    found, troubles = boxes.listed(workspace.path)
    assert [b.name for b in found] == ["gpu1"] and len(troubles) == 2
    with pytest.raises(DojangError) as caught:
        boxes.get(workspace.path, "evil")
    assert caught.value.code == "BAD_FILE" and "host" in caught.value.message
    assert boxes.remove(workspace.path, "evil").name == "evil"


def test_a_file_that_is_no_toml_is_said_so(workspace: Workspace) -> None:
    (workspace.path / boxes.FILE).write_text("[a\n")
    with pytest.raises(DojangError) as caught:
        boxes.listed(workspace.path)
    assert caught.value.code == "BAD_FILE"


def test_who_asks_for_a_server_that_is_not_hears_which_are(workspace: Workspace) -> None:
    boxes.add(workspace.path, boxes.make(GOOD))
    with pytest.raises(NotFound) as caught:
        boxes.get(workspace.path, "gpu9")
    assert "gpu1" in caught.value.hint


def test_commands(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--workspace", str(workspace.path)]
    assert (
        main(["server", "add", "gpu1", "--host", "kim@box", "--port", "2222", "--data", "cells=/mnt/cells", *at]) == 0
    )
    assert "kim@box:2222" in capsys.readouterr().out
    assert main(["server", "add", "gpu1", *at]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["server", "list", "--json", *at]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["user"], row["host"], row["versions"]) == ("gpu1", "kim", "box", 0)
    assert main(["server", "show", "gpu1", *at]) == 0
    assert "cells lies there in /mnt/cells" in capsys.readouterr().out
    assert main(["server", "add", "x", "--host", "-oProxyCommand=id", *at]) == 2
    assert main(["server", "remove", "gpu1", *at]) == 0
    assert main(["server", "remove", "gpu1", *at]) == 3
