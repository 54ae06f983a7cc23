"""The mirror: what a server logs stands here byte for byte, once, whatever is lost, repeated or killed in between."""

from __future__ import annotations

import fcntl
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from engine.events import read_all
from engine.servers import elsewhere, fetching, mirror
from engine.servers.elsewhere import Place
from engine.servers.link import Link, local
from engine.servers.link_errors import NotThere
from engine.versions import Version, Workspace
from tests import logs
from tests.played import until
from tests.servers.far import cut


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    with Link(local, root=str(tmp_path / "far")) as made:
        yield made


@pytest.fixture
def run(link: Link, tmp_path: Path, place: Place) -> Path:
    """The run's folder there."""
    link.call("ping")
    made = tmp_path / "far" / "runs" / place.rid
    made.mkdir(parents=True)
    return made


LINES = [json.dumps({"kind": "step", "t": i, "step": i}).encode() + b"\n" for i in range(1, 200)]
WHOLE = b"".join(LINES)


def test_pieces_that_overlap_leave_no_gap_and_no_double(version: Version) -> None:
    dice = random.Random(0)
    while elsewhere.offset(version) != len(WHOLE):
        at = dice.randrange(len(WHOLE))
        data = WHOLE[at : at + dice.randrange(3000)]
        before = version.events.read_bytes() if version.events.exists() else b""
        elsewhere.append_events(version, at, data)
        after = version.events.read_bytes() if version.events.exists() else b""
        assert after.startswith(before) and WHOLE.startswith(after)
    assert version.events.read_bytes() == WHOLE


def test_our_own_lines_stand_between_and_cost_no_byte(version: Version) -> None:
    """Also where a crash left either of them half written."""
    mine = [b'{"kind": "log", "t": 1, "text": "one"}\n', b'{"kind": "log", "t": 2, "te', b""]
    ends = [len(b"".join(LINES[:n])) for n in (10, 20, 30)]
    at = 0
    for own, end in zip(mine, ends, strict=True):
        elsewhere.append_events(version, at, WHOLE[at:end])
        at = end
        elsewhere.take_log(version)
        elsewhere.take_log(version)  # asked twice, as after a kill
        assert elsewhere.offset(version) is None
        assert elsewhere.append_events(version, at, WHOLE[at:]) is None
        with version.events.open("ab") as f:
            f.write(own)
        elsewhere.give_log(version)
        elsewhere.give_log(version)
        assert elsewhere.offset(version) == at
    elsewhere.append_events(version, at, WHOLE[at:])
    first, second, _ = ends
    expected = WHOLE[:first] + mine[0] + WHOLE[first:second] + mine[1] + b"\n" + WHOLE[second:]
    assert version.events.read_bytes() == expected and elsewhere.offset(version) == len(WHOLE)
    assert len(logs.only(read_all(version.events), "step")) == len(LINES)


def test_two_who_mirror_at_once_are_one(version: Version, place: Place, link: Link, run: Path) -> None:
    mirrors = [mirror.Mirror(version, place, link) for _ in range(2)]
    threads = [threading.Thread(target=m.run) for m in mirrors]
    with (run / "lock").open("w"), (run / "events.jsonl").open("ab", buffering=0) as log:
        for thread in threads:
            thread.start()
        for line in LINES:
            log.write(line)
            time.sleep(0.002)
        until(lambda: version.events.exists() and version.events.stat().st_size == len(WHOLE))
    for m, thread in zip(mirrors, threads, strict=True):
        m.stop()
        thread.join(10)
    assert version.events.read_bytes() == WHOLE


@pytest.mark.parametrize("seed", range(3))
def test_links_break_at_any_byte(version: Version, place: Place, link: Link, run: Path, seed: int) -> None:
    dice = random.Random(seed)
    m = mirror.Mirror(version, place, link)
    thread = threading.Thread(target=m.run)
    thread.start()
    at, cuts = 0, 0
    with (run / "events.jsonl").open("ab", buffering=0) as log, (run / "train.log").open("ab", buffering=0) as out:
        while at < len(WHOLE):  # in pieces that end anywhere, as a full disk leaves them
            end = min(len(WHOLE), at + dice.randrange(1, 600))
            log.write(WHOLE[at:end])
            out.write(WHOLE[at:end])
            at = end
            time.sleep(0.01)
            if cuts < 2 and dice.random() < 0.08:
                cuts += cut()
    until(lambda: version.events.exists() and version.events.stat().st_size == len(WHOLE), 30)
    m.stop()
    thread.join(10)
    m.round()
    m._log()
    assert version.events.read_bytes() == WHOLE == version.train_log.read_bytes()
    assert [e["step"] for e in read_all(version.events)] == list(range(1, 200))


def test_a_run_that_is_gone_there_is_said_so_and_loses_nothing(
    version: Version, place: Place, link: Link, run: Path
) -> None:
    elsewhere.append_events(version, 0, WHOLE)
    elsewhere.heard(version, "running", attempt=1)
    run.rmdir()
    m = mirror.Mirror(version, place, link)
    m.round()
    assert m.whole and elsewhere.known(version).state == "absent"
    assert version.state(version.progress()) == "lost" and version.events.read_bytes() == WHOLE
    assert "no longer has it" in version.summary()["error"]["message"]


def test_a_run_that_waits_says_why(version: Version, place: Place, link: Link, run: Path) -> None:
    elsewhere.heard(version, "starting", attempt=1)
    (run / "waiting.json").write_text(json.dumps({"reason": "waits behind 2", "ahead": 2}))
    m = mirror.Mirror(version, place, link)
    m._small()
    assert version.state(version.progress()) == "queued" and version.waiting()["ahead"] == 2
    assert version.summary()["waiting"]["reason"] == "waits behind 2"
    (run / "waiting.json").write_bytes(b"\x00not json")
    m._small()
    assert version.waiting()["ahead"] == 2
    (run / "waiting.json").unlink()
    m._small()
    assert version.state(version.progress()) == "preparing"


def test_what_is_read_of_our_own_files_may_be_anything(version: Version) -> None:
    for text in ("", "[", "3", '{"state": 7, "at": "x", "attempt": []}', '{"state": "happy"}', '{"at": true}'):
        (version.path / elsewhere.REMOTE).write_text(text)
        assert elsewhere.known(version) == elsewhere.Known()
        assert version.state(version.progress()) == "draft"
    (version.path / elsewhere.MIRROR).write_text('{"remote": "x", "local": null}')
    assert elsewhere.offset(version) is None


@pytest.mark.parametrize("ahead", [10_800.0, -10_800.0])
def test_a_clock_that_goes_otherwise_there(version: Version, place: Place, link: Link, run: Path, ahead: float) -> None:
    """Elapsed time is that of the run, whatever our clock says."""
    m = mirror.Mirror(version, place, link)
    thread = threading.Thread(target=m.run)
    (run / "owner.json").write_text('{"attempt": 1}')
    began = time.time() + ahead

    def say(log: BinaryIO, **event: object) -> None:
        log.write(json.dumps({**event, "t": time.time() + ahead}).encode() + b"\n")
        time.sleep(0.3)

    with (run / "lock").open("w") as lock, (run / "events.jsonl").open("ab", buffering=0) as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        say(log, kind="start", attempt=1, resumed=None, versions={})
        say(log, kind="stage", stage="training")
        until(lambda: version.progress().stage == "training")
        until(lambda: abs(elsewhere.known(version).skew - ahead) < 1)
        progress = version.progress()
        assert abs(progress.elapsed(version.now()) - (time.time() + ahead - began)) < 1
        m.stop()
    thread.join(10)


def test_weights_come_home_whole(version: Version, place: Place, link: Link, run: Path) -> None:
    (run / "weights").mkdir()
    data = random.Random(0).randbytes(3 * fetching.PIECE + 17)
    (run / "weights" / "best.pt").write_bytes(data)

    class Enough(Exception):
        pass

    def enough(done: int, total: int) -> None:
        if done > fetching.PIECE:
            raise Enough

    with pytest.raises(Enough):
        fetching.fetch(version, place, link, tick=enough)
    (part,) = version.best_weights.parent.iterdir()
    had = part.stat().st_size
    assert 0 < had < len(data) and not version.best_weights.exists()
    ticks: list[int] = []
    cut()
    assert fetching.fetch(version, place, link, tick=lambda done, total: ticks.append(done)) == [version.best_weights]
    assert ticks[0] > had and version.best_weights.read_bytes() == data
    assert list(version.best_weights.parent.iterdir()) == [version.best_weights]
    part.write_bytes(b"x" * len(data))  # spoilt: not taken for it
    version.best_weights.unlink()
    with pytest.raises(mirror.DojangError) as caught:
        fetching.fetch(version, place, link)
    assert caught.value.code == "CHANGED" and not version.best_weights.exists()
    fetching.fetch(version, place, link)
    assert version.best_weights.read_bytes() == data


def test_no_weights_are_no_weights(version: Version, place: Place, link: Link, run: Path) -> None:
    with pytest.raises(NotThere):
        fetching.fetch(version, place, link)


def test_a_server_that_does_not_answer_delays_nobody_for_long(
    workspace: Workspace, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known is shown as of when it was heard, and who did not answer is named."""
    import socket

    from engine.servers import boxes
    from tui import words

    elsewhere.heard(version, "running", attempt=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        boxes.add(workspace.path, boxes.make({"name": "box", "host": "127.0.0.1", "port": silent.getsockname()[1]}))
        began = time.monotonic()
        (trouble,) = mirror.catch_up([version], 0.5)
        assert time.monotonic() - began < 4 and "box" in trouble.message and trouble.code == "TIMEOUT"
    row = version.summary()
    assert row["state"] == "preparing" and words.as_of(row) == ""
    assert words.as_of({**row, "as_of": time.time() - 90}).startswith(", as of ")


def test_while_the_app_is_open_every_training_comes_home(
    workspace: Workspace, shapes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those started meanwhile; what was closed is taken up where it was."""
    from engine.servers import anywhere
    from engine.servers.watching import link_state, watching
    from tests.servers.far import Far, settled

    monkeypatch.setattr(mirror, "SCAN_SECONDS", 0.1)
    monkeypatch.setattr("engine.servers.watching.LOOK_SECONDS", 0.05)
    far = Far(workspace, tmp_path)
    versions = [far.version(shapes, memo="wait") for _ in range(2)]
    try:
        anywhere.start(versions[0])
        with watching(workspace):
            until(lambda: versions[0].progress().step > 3)
            anywhere.start(versions[1])
            until(lambda: versions[1].progress().step > 3)
            state = link_state(versions[1])
            assert state is not None and state.name == "up"
        assert link_state(versions[1]) is None
        for version in versions:
            settled(version)
            anywhere.request(version, "finish")
        with watching(workspace):
            until(lambda: not any(v.alive() for v in versions))
            until(lambda: all(elsewhere.known(v).fetched for v in versions))
        assert [v.summary()["state"] for v in versions] == ["done", "done"]
    finally:
        far.end()
