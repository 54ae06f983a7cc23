"""Whatever dies on a server, or here: the training is not lost, not begun twice, and people read what happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from engine.errors import DojangError
from engine.events import read_all
from engine.servers import anywhere, elsewhere, mirror
from engine.servers.link import Link, Pace, local
from engine.servers.link_errors import DiskFull, LinkError
from engine.versions import Version, Workspace
from tests import logs
from tests.conftest import disk_of
from tests.played import ROOT, pids, until
from tests.servers.box import alive
from tests.servers.far import Far, settled, wait_for
from tests.servers.test_remote import mirrored

FOLLOW = """
import sys
from pathlib import Path
from engine.servers import anywhere
from engine.worker import version_at
version = version_at(Path(sys.argv[1]))
print("ready", flush=True)
anywhere.wait(version, 120)
"""
KILLED = "It was killed (signal 9): by hand, or by the system because memory ran out."
TOGETHER = "It was killed together with its supervisor."
RESTARTED = "The server was restarted."
WAITED = "It waited in box's queue, and what waited for it is gone: killed, or the server was restarted."


@pytest.fixture
def far(workspace: Workspace, tmp_path: Path) -> Iterator[Far]:
    made = Far(workspace, tmp_path)
    yield made
    made.end()


def part(far: Far, version: Version, module: str) -> int:
    """The process of a run that runs this module."""
    words = f"engine.servers.{module}".encode()
    return next(p for p in pids(far.run(version)) if words in Path(f"/proc/{p}/cmdline").read_bytes())


def kill(*victims: int) -> None:
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in victims))


def owned(far: Far, version: Version, **changes: object) -> None:
    path = far.run(version) / "owner.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def starts(far: Far, version: Version) -> int:
    return len(logs.only(read_all(far.run(version) / "events.jsonl"), "start"))


@pytest.mark.slow
def test_every_death_is_told_and_gone_on_from(far: Far, shapes: str) -> None:
    """All at once on one server; then each is resumed, and trained to its end."""

    def both(version: Version) -> None:
        kill(part(far, version, "supervisor"), part(far, version, "there"))

    def worker(version: Version) -> None:
        kill(part(far, version, "there"))
        until(lambda: not pids(far.run(version)))

    def restarted(version: Version) -> None:
        owned(far, version, boot="11111111-2222-3333-4444-555555555555")
        both(version)

    def number_reused(version: Version) -> None:
        owned(far, version, pid=os.getpid(), start=1)  # first: who follows hears of the death at once
        both(version)

    def killed_then_restarted(version: Version) -> None:
        worker(version)
        owned(far, version, boot="11111111-2222-3333-4444-555555555555")

    deaths: dict[Callable[[Version], None], str] = {
        both: TOGETHER, worker: KILLED, restarted: RESTARTED, number_reused: TOGETHER, killed_then_restarted: KILLED,
    }  # fmt: skip
    versions = {death: far.version(shapes, memo="wait") for death in deaths}
    for version in versions.values():
        anywhere.start(version)
    with ExitStack() as followed:
        for version in versions.values():
            followed.enter_context(mirror.following(version))
        for death, version in versions.items():
            wait_for(version, "training")
            death(version)
        for death, version in versions.items():
            wait_for(version, "lost")
            error = version.summary()["error"]
            assert error["message"] == f"The training on box ended without a last word. {deaths[death]}", death.__name__
            assert error["hint"] == f"What it saved is on box. Go on from there: dojang resume {version.reference}"
    for version in versions.values():
        anywhere.resume(version)
    for version in versions.values():
        settled(version)
        anywhere.request(version, "finish")
    for version in versions.values():
        assert anywhere.wait(version, 60) == "done", version.summary()["error"]
        assert starts(far, version) == 2 and mirrored(version, far) and version.best_weights.exists()
        assert elsewhere.known(version).attempt == 2


def test_without_its_supervisor_or_halted_it_goes_on(far: Far, shapes: str) -> None:
    orphan, halted = (far.version(shapes, memo="wait") for _ in range(2))
    for version in (orphan, halted):
        anywhere.start(version)
    with mirror.following(orphan), mirror.following(halted):
        for version in (orphan, halted):
            wait_for(version, "training")
        kill(part(far, orphan, "supervisor"))
        stopped = [part(far, halted, module) for module in ("supervisor", "there")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: elsewhere.known(orphan).state == "orphan")
        assert elsewhere.known(orphan).reason == "Its supervisor is gone; the training itself goes on."
        with Link(local, root=str(far.root)) as link:
            rid = far.run(halted).name
            until(lambda: link.call("status", rids=[rid], silent=0.2)["runs"][rid]["state"] == "silent")
            found = link.call("status", rids=[rid], silent=0.2)["runs"][rid]
            assert found["reason"] == "It was halted by a signal."
        assert all(v.state(v.progress()) == "training" for v in (orphan, halted))
        with pytest.raises(DojangError) as caught:
            anywhere.start(orphan)  # its worker lives
        assert caught.value.code == "RUNNING"
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for version in (orphan, halted):
            anywhere.request(version, "finish")
            wait_for(version, "done")
            until(lambda version=version: elsewhere.known(version).fetched)  # type: ignore[misc]
            assert starts(far, version) == 1 and mirrored(version, far)


@pytest.mark.slow
def test_in_the_queue_there(far: Far, shapes: str) -> None:
    """Taken out of it by a person one is stopped; killed in it one is lost, and both can wait again."""
    first, stopped, killed = (far.version(shapes, memo=memo) for memo in ("wait", "", ""))
    anywhere.start(first, mode="queue")
    with mirror.following(first):
        wait_for(first, "training")
    for version in (stopped, killed):
        anywhere.start(version, mode="queue")
        settled(version)
    with mirror.following(stopped), mirror.following(killed):
        for version in (stopped, killed):
            wait_for(version, "queued")
        kill(part(far, killed, "supervisor"))
        anywhere.request(stopped, "stop")
        wait_for(stopped, "stopped")
        wait_for(killed, "lost")
    assert killed.summary()["error"]["message"] == WAITED and "dojang resume" in killed.summary()["error"]["hint"]
    assert stopped.summary()["error"] is None
    assert starts(far, stopped) == starts(far, killed) == 0
    for version in (stopped, killed):
        anywhere.resume(version)
        settled(version)
    anywhere.request(first, "finish")
    for version in (first, stopped, killed):
        assert anywhere.wait(version, 60) == "done", version.summary()["error"]
        assert starts(far, version) == 1 and mirrored(version, far)


# Who watches


@contextmanager
def watcher(version: Version) -> Iterator[subprocess.Popen[bytes]]:
    """A process that mirrors a version, as an open app does."""
    command = [sys.executable, "-P", "-c", FOLLOW, str(version.path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_apps_of_one_workspace_and_their_deaths_leave_no_gap(far: Far, shapes: str) -> None:
    """Two watch, and are killed again and again: every line is here, once."""
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    for _ in range(3):
        with watcher(version) as one, watcher(version) as other:
            size = version.events.stat().st_size
            until(lambda size=size: version.events.stat().st_size > size + 1000)  # type: ignore[misc]
            one.kill()
            size = version.events.stat().st_size
            until(lambda size=size: version.events.stat().st_size > size + 1000)  # type: ignore[misc]
            other.kill()
    with watcher(version) as one, watcher(version) as other:
        anywhere.request(version, "finish")
        assert anywhere.wait(version, 60) == "done"
        assert one.wait(60) == other.wait(60) == 0
    assert mirrored(version, far) and version.best_weights.read_bytes() == b"weights"
    steps = [e["step"] for e in logs.only(read_all(version.events), "step")]
    assert steps == list(range(1, len(steps) + 1))
    assert not [p for p in version.path.rglob("*") if p.name.endswith(".part")]


def test_two_laptops_command_one_run(far: Far, shapes: str, tmp_path: Path) -> None:
    """What either asks is done once; both hear of it, and neither begins it a second time."""
    mine = far.version(shapes, memo="wait")
    anywhere.start(mine)
    settled(mine)
    shutil.copytree(far.workspace.path, tmp_path / "laptop")
    theirs = Workspace(tmp_path / "laptop").version(mine.reference)
    with mirror.following(mine), mirror.following(theirs):
        wait_for(mine, "training")
        wait_for(theirs, "training")
        with pytest.raises(DojangError) as caught:
            anywhere.start(theirs)
        assert caught.value.code == "RUNNING"
        anywhere.change(theirs, patience=7)
        anywhere.request(mine, "stop")
        wait_for(mine, "stopped")
        wait_for(theirs, "stopped")
    asked = json.loads((far.run(mine) / "control.json").read_text())
    assert asked["request"] == "stop" and asked["settings"] == {"patience": 7}
    for version in (mine, theirs):  # both at once
        anywhere.resume(version)
    for version in (mine, theirs):
        settled(version)
        assert elsewhere.known(version).attempt == 2, version.summary()["error"]
    anywhere.request(theirs, "finish")
    for version in (mine, theirs):
        assert anywhere.wait(version, 60) == "done", version.summary()["error"]
        assert mirrored(version, far) and version.best_weights.read_bytes() == b"weights"
    assert starts(far, mine) == 2


def test_what_the_other_laptop_resumed_is_heard_of(far: Far, shapes: str, tmp_path: Path) -> None:
    mine = far.version(shapes, memo="wait")
    anywhere.start(mine)
    settled(mine)
    shutil.copytree(far.workspace.path, tmp_path / "laptop")
    theirs = Workspace(tmp_path / "laptop").version(mine.reference)
    anywhere.request(mine, "stop")
    assert anywhere.wait(mine, 30) == "stopped"
    mirror.catch_up([theirs])
    anywhere.resume(theirs)
    settled(theirs)
    mirror.catch_up([mine])
    assert mine.alive() and elsewhere.known(mine).attempt == 2
    anywhere.request(mine, "finish")
    for version in (mine, theirs):
        assert anywhere.wait(version, 60) == "done" and mirrored(version, far)


# The disk there is full


@contextmanager
def full(folder: Path, pages: int = 0) -> Iterator[None]:
    """Within it, a disk takes so many pages of 4096 bytes more."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as f:
        while True:
            try:
                f.write(b"\0" * 4096)
            except OSError:
                break
        f.truncate(max(0, f.tell() // 4096 - pages) * 4096)
    try:
        yield
    finally:
        ballast.unlink()


def test_submitted_to_a_full_disk_it_begins_once_or_not_at_all(tmp_path: Path) -> None:
    """With room for none, one, two … of the files that it takes; asked again once there is room, it has begun once."""
    told = {}
    with disk_of(tmp_path / "disk", 1) as disk:
        pace = Pace(pauses=(0.01,), every=0.5, frozen=10.0)
        with Link(local, root=str(disk / "root"), pace=pace) as link:
            link.call("ping")
            for pages in range(12):
                rid, mark = f"run-{pages}", tmp_path / f"mark-{pages}"
                argv = ["sh", "-c", f"echo begun >> {mark}"]
                with full(disk, pages):
                    try:
                        link.call("submit", rid=rid, argv=argv, files={"spec.toml": "x" * 5000})
                        told[pages] = "accepted"
                    except LinkError as e:
                        assert isinstance(e, DiskFull) and "No space is left on the server" in e.message
                        assert "Free some space there" in e.hint
                        told[pages] = "refused"
                link.call("submit", rid=rid, argv=argv, files={"spec.toml": "x" * 5000})
                until(mark.exists)
                until(lambda rid=rid: link.call("status", rids=[rid])["runs"][rid]["state"] == "lost")  # type: ignore[misc]
                assert mark.read_text() == "begun\n"
            assert not list((disk / "root" / "tmp").iterdir())
    assert told[0] == "refused" and told[11] == "accepted"


def test_the_disk_there_is_full_while_it_trains(workspace: Workspace, shapes: str, tmp_path: Path) -> None:
    with disk_of(tmp_path / "disk", 40) as disk:
        far = Far(workspace, tmp_path, root=disk / "far")
        try:
            version = far.version(shapes, memo="wait")
            anywhere.start(version)
            with mirror.following(version):
                wait_for(version, "training")
                with full(disk):
                    wait_for(version, "lost")
            error = version.summary()["error"]
            words = "The training on box ended: It ended with exit code 1. No space is left on its disk."
            assert (error["code"], error["message"]) == ("DISK_FULL", words)
            assert error["hint"].startswith("Free some space on box") and "dojang resume" in error["hint"]
            anywhere.resume(version)
            settled(version)
            anywhere.request(version, "finish")
            assert anywhere.wait(version, 60) == "done" and mirrored(version, far)
            assert starts(far, version) == 2 and version.best_weights.exists()
        finally:
            far.end()


def test_pushed_to_a_full_disk_it_says_so_and_goes_on(workspace: Workspace, shapes: str, tmp_path: Path) -> None:
    with disk_of(tmp_path / "disk", 40) as disk:
        far = Far(workspace, tmp_path, root=disk / "far")
        try:
            version = far.version(shapes)
            with full(disk, 40):
                anywhere.start(version)
                settled(version)
            error = version.summary()["error"]
            assert version.state(version.progress()) == "failed" and error["code"] == "DISK_FULL"
            assert (
                error["message"].startswith("box: No space is left on the server")
                and "Free some space" in error["hint"]
            )
            anywhere.resume(version)
            assert anywhere.wait(version, 60) == "done" and starts(far, version) == 1
        finally:
            far.end()


def test_the_disk_here_is_full_while_it_is_watched(far: Far, shapes: str, tmp_path: Path) -> None:
    """That changes nothing there; what was missed comes once there is room."""
    with disk_of(tmp_path / "small", 4) as disk:
        version = far.version(shapes, memo="wait")
        anywhere.start(version)
        with mirror.following(version):
            wait_for(version, "training")
        shutil.copytree(far.workspace.path, disk / "workspace")
        theirs = Workspace(disk / "workspace").version(version.reference)
        with mirror.following(theirs) as follower:
            assert follower
            until(lambda: theirs.events.stat().st_size > version.events.stat().st_size + 1000)
            with full(disk):
                until(lambda: follower.trouble is not None)
                assert follower.trouble and follower.trouble.code == "DISK_FULL"
                assert theirs.alive()
                time.sleep(0.1)
            anywhere.request(version, "finish")
            until(lambda: follower.whole, 30)
        assert mirrored(theirs, far) and theirs.state(theirs.progress()) == "done"
