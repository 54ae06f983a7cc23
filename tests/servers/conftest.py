"""A real sshd for the tests of servers."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.servers import elsewhere
from engine.servers.elsewhere import Place
from engine.versions import Version, Workspace
from tests import logs
from tests.servers.sshd import Sshd


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """One for all tests of a process; fails, never skips, where there is none."""
    folder = Path(tempfile.mkdtemp(prefix="sshd-", dir="/tmp"))  # short: paths of sockets may not be long
    try:
        with Sshd(folder) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No socket of a test lies where those of the person's own connections do."""
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    for path in (folder / "dojang").glob("*"):
        if path.is_socket():  # a connection that a failed test left open
            line = ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "--", "box"]
            subprocess.run(line, capture_output=True, timeout=10, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def version(workspace: Workspace) -> Version:
    """One that trains on a server, to which its log belongs by now."""
    made = logs.version(workspace)
    elsewhere.put_on(made, "box", "/nowhere")
    elsewhere.take_log(made)
    elsewhere.give_log(made)
    return made


@pytest.fixture
def place(version: Version) -> Place:
    found = elsewhere.place_of(version)
    assert found
    return found
