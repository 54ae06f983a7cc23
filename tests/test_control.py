"""What a person asks reaches the worker, whole, once, and cheaply."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.control import Control, send


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.json"


def test_nothing_is_asked_until_it_is(path: Path) -> None:
    control = Control(path)
    assert control.poll() is None
    send(path, "finish")
    assert control.poll() == "finish" == control.poll()


def test_a_stop_outdoes_a_finish_and_is_not_taken_back(path: Path) -> None:
    control = Control(path)
    for asked, heard in (("finish", "finish"), ("stop", "stop"), ("finish", "stop")):
        send(path, asked)  # type: ignore[arg-type]
        assert control.poll() == heard


def test_two_wishes_of_one_instant_are_both_heard(path: Path) -> None:
    control = Control(path)
    send(path, "finish")
    moment = path.stat().st_mtime_ns
    assert control.poll() == "finish"
    send(path, "stop")
    os.utime(path, ns=(moment, moment))
    assert control.poll() == "stop"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"request": "explode"}', b'{"request": ["stop"]}', b"\xff"])
def test_garbage_asks_nothing_and_hides_no_later_wish(path: Path, content: bytes) -> None:
    control = Control(path)
    path.write_bytes(content)
    assert control.poll() is None
    send(path, "stop")
    assert control.poll() == "stop"


def test_what_was_asked_stays_asked_when_the_file_goes(path: Path) -> None:
    control = Control(path)
    send(path, "stop")
    assert control.poll() == "stop"
    path.unlink()
    assert control.poll() == "stop"


def test_a_poll_reads_the_file_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(path)
    send(path, "finish")
    control.poll()

    def read(_: Path) -> bytes:
        raise AssertionError("it was read again")

    monkeypatch.setattr(Path, "read_bytes", read)
    assert [control.poll() for _ in range(3)] == ["finish"] * 3
