"""The log survives what happens to files: torn ends, full disks, garbage, readers at any moment."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DojangError
from engine.events import EventLog, follow, read_all


def test_every_event_comes_back(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        log.append("step", step=1, loss={"box": 1.5})
        log.append("log", level="info", text="한글 “quoted”\nline")
    first, second = read_all(tmp_path / "e")
    assert (first["kind"], first["step"], first["loss"]) == ("step", 1, {"box": 1.5})
    assert second["text"] == "한글 “quoted”\nline"
    assert (tmp_path / "e").read_bytes().count(b"\n") == 2


def test_not_a_number_is_written_as_null(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        log.append("step", loss={"a": float("nan"), "b": float("inf"), "c": [1.0, float("-inf")]})
    assert json.loads((tmp_path / "e").read_text())["loss"] == {"a": None, "b": None, "c": [1.0, None]}


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b'{"kind": "step", "step": 1}\n{"kind": "st')
    events, offset = follow(path)
    assert [e["step"] for e in events] == [1]
    with path.open("ab") as f:
        f.write(b'ep", "step": 2}\n')
    events, _ = follow(path, offset)
    assert [e["step"] for e in events] == [2]


def test_the_next_writer_mends_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b'{"kind": "step", "step": 1}\n{"kind": "st')
    with EventLog(path) as log:
        log.append("step", step=2)
    assert [e["step"] for e in read_all(path)] == [1, 2]


def test_a_full_disk_says_so_and_the_next_record_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path / "e")
    log.append("step", step=1)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    with pytest.raises(DojangError) as caught:
        log.append("step", step=2)
    assert caught.value.code == "DISK_FULL" and "space" in caught.value.hint
    monkeypatch.setattr(os, "write", real)
    log.append("step", step=3)
    log.close()
    assert [e["step"] for e in read_all(tmp_path / "e")] == [1, 3]


@pytest.mark.parametrize(
    "line", [b"[]", b"null", b'{"no": "kind"}', b'{"kind": 3}', b"\xff\xfe", b"[" * 100_000, b"x" * (2 << 20)]
)
def test_garbage_between_events_is_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e"
    path.write_bytes(b'{"kind": "a"}\n' + line + b'\n{"kind": "b"}\n')
    assert [e["kind"] for e in read_all(path)] == ["a", "b"]


def test_a_missing_or_shrunk_log_is_read_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "e"
    assert follow(path, 99) == ([], 0)
    path.write_bytes(b'{"kind": "a"}\n')
    assert follow(path, 500)[0] == read_all(path)


def test_steps_can_be_left_out(tmp_path: Path) -> None:
    with EventLog(tmp_path / "e") as log:
        for kind in ("start", "step", "progress", "epoch", "step", "end"):
            log.append(kind)
    assert [e["kind"] for e in read_all(tmp_path / "e", skip_steps=True)] == ["start", "epoch", "end"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=12), st.integers(0, 2**32))
def test_reading_while_it_grows_misses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], seed: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "e"
    data = b"".join(json.dumps({"kind": "log", "text": t}).encode() + b"\n" for t in texts)
    rng, seen, offset, cut = random.Random(seed), [], 0, 0
    while cut < len(data):
        cut = min(len(data), cut + rng.randint(1, 40))
        path.write_bytes(data[:cut])
        events, offset = follow(path, offset)
        seen += [e["text"] for e in events]
    assert seen == texts
