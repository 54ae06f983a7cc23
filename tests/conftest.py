"""What every test gets: no settings of this machine, and no way out of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from engine.versions import Workspace

LOCAL = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that the person running the tests has set leaks in, and nothing of theirs is written."""
    for name in list(os.environ):
        if name.startswith(("TEXTUAL", "DOJANG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOJANG_WORKSPACE", str(tmp_path_factory.mktemp("elsewhere")))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine: a connection to anywhere but loopback fails the test that tried."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else ""
        if isinstance(address, tuple) and not str(host).startswith(LOCAL):
            raise AssertionError(f"a connection to {address} was tried")
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
