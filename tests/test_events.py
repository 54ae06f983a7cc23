"""The log survives what happens to files: torn ends, full disks, garbage, readers at any moment."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DojangError
from engine.events import EventLog, follow, read_all
from engine.progress import Progress


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


def test_a_disk_with_no_room_at_all_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with EventLog(tmp_path / "e") as log:
        with monkeypatch.context() as patched, pytest.raises(DojangError) as caught:
            patched.setattr(os, "write", full)
            log.append("step", step=1)
        log.append("step", step=2)
    assert caught.value.code == "DISK_FULL"
    assert [e["step"] for e in read_all(tmp_path / "e")] == [2]


LIMITED = """
import resource, sys
from pathlib import Path
from engine.errors import DojangError
from engine.events import EventLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log, written = EventLog(Path(sys.argv[1])), 0
try:
    while True:
        log.append("step", step=written)
        written += 1
except DojangError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append("end", state="failed")
    print(written)
"""


def test_a_file_that_may_not_grow_loses_the_torn_record_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "e")]
    written = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert written > 5
    found = read_all(tmp_path / "e")
    assert [e["step"] for e in found[:-1]] == list(range(written)) and found[-1]["kind"] == "end"


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    with pytest.raises(DojangError, match="could not be written"):
        EventLog(tmp_path / "e")
    with pytest.raises(DojangError, match="could not be written"):
        EventLog(tmp_path / "nowhere" / "e")


def test_a_log_that_cannot_be_read_now_may_be_later(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    assert follow(tmp_path / "e", 7) == ([], 7)


@pytest.mark.parametrize(
    "line", [b"[]", b"null", b'{"no": "kind"}', b'{"kind": 3}', b"\xff\xfe", b"[" * 100_000, b"x" * (2 << 20)]
)
def test_garbage_between_events_is_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e"
    path.write_bytes(b'{"kind": "a"}\n' + line + b'\n{"kind": "b"}\n')
    assert [e["kind"] for e in read_all(path)] == ["a", "b"]


def test_an_endless_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b'{"kind": "a"}\n' + b"x" * 10_000 + b'\n{"kind": "b"}\n')
    offset, found = 0, []
    for _ in range(40):
        events, offset = follow(path, offset, limit=1000)
        found += [e["kind"] for e in events]
    assert found == ["a", "b"] and offset == path.stat().st_size


def test_what_others_write_for_not_a_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "e").write_text('{"kind": "step", "loss": {"a": NaN, "b": -Infinity}}\n')
    assert read_all(tmp_path / "e")[0]["loss"] == {"a": None, "b": None}


def test_two_readers_do_not_know_of_each_other(tmp_path: Path) -> None:
    seen: tuple[list[int], list[int]] = [], []
    offsets = [0, 0]
    with EventLog(tmp_path / "e") as log:
        for step in range(30):
            log.append("step", step=step)
            for reader in (0, 1) if step % 3 == 0 else (0,):
                events, offsets[reader] = follow(tmp_path / "e", offsets[reader])
                seen[reader].extend(e["step"] for e in events)
    assert seen[0] == list(range(30)) and seen[1] == list(range(28))


def test_a_long_log_comes_in_pieces_a_screen_can_swallow(tmp_path: Path) -> None:
    path = tmp_path / "e"
    line = '{"kind": "step", "t": 1.0, "epoch": 1, "step": %d, "i": 1, "loss": {"box": 1.5}, "lr": 0.01}\n'
    path.write_text("".join(line % step for step in range(1, 100_001)))
    progress, pieces, offset = Progress(), 0, -1
    new = 0
    while new != offset:
        offset = new
        events, new = follow(path, offset)
        progress.apply(events)
        pieces += 1
    assert list(progress.step_series["box"].xs) == list(range(1, 100_001))
    assert pieces > 2 and read_all(path, skip_steps=True) == []


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
        start, cut = cut, min(len(data), cut + rng.randint(1, 60))
        with path.open("ab") as f:
            f.write(data[start:cut])
        events, offset = follow(path, offset)
        seen += [e["text"] for e in events]
    assert seen == texts
