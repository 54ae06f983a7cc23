"""What every test gets: no settings of this machine, and no way out of it."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from engine.versions import Workspace

settings.register_profile("dojang", deadline=None)  # on a busy machine the time of one example says nothing
settings.load_profile("dojang")
LARGEST_SHARED = 1 << 30  # bytes of a /dev/shm that is filled up where no disk can be mounted
LOCAL = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that the person running the tests has set leaks in, and nothing of theirs is written."""
    for name in list(os.environ):
        if name.startswith(("TEXTUAL", "DOJANG_")):
            monkeypatch.delenv(name)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("DOJANG_WORKSPACE", str(elsewhere))
    monkeypatch.setenv("DOJANG_QUEUE", str(elsewhere / "queue"))


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


@pytest.fixture
def shapes(workspace: Workspace, tmp_path: Path) -> str:
    """The name of a tiny registered data set: 8 images to train on, 2 to validate."""
    from engine import demo
    from engine.datasets import registry

    demo.draw(tmp_path / "pictures", images=10, size=48)
    return registry.add(workspace.path, tmp_path / "pictures", "shapes").name


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in `folder` can be written by this thread, not even when it is root's."""
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for each in folders:
        each.chmod(0o555)
    try:
        with nullcontext() if os.geteuid() else _without_override():
            yield
    finally:
        for each in folders:
            each.chmod(0o755)


@contextmanager
def disk_of(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk with so much room, all of which can be filled: one of its own where that can be mounted, else what filling
    up a small /dev/shm leaves, as containers have it.
    """
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    folder.mkdir()
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    shared = Path("/dev/shm")
    room = shutil.disk_usage(shared).free if shared.is_dir() else 0
    if not megabytes << 20 < room <= LARGEST_SHARED:
        pytest.skip(f"no small disk can be had: {done.stderr.strip()}")
    with tempfile.TemporaryDirectory(dir=shared) as temp:
        (Path(temp) / "filler").write_bytes(bytes(room - (megabytes << 20)))
        folder.rmdir()
        folder.symlink_to(Path(temp) / "disk", target_is_directory=True)
        (Path(temp) / "disk").mkdir()
        yield Path(temp) / "disk"


@contextmanager
def _without_override() -> Iterator[None]:
    """Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities 1 and 2) is held by modes like anyone."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    held, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    assert libc.capget(header, held) == 0
    less[:] = [held[0] & ~0b110, *held[1:]]
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
