"""The agent, as a child of this process: what it proves of runs, keeps of contents, and refuses."""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.servers import agent, batch, inventory
from engine.servers import link as link_module
from engine.servers.agent import digest_of
from engine.servers.link import Link, Pace, local
from engine.servers.link_errors import (
    AgentFault,
    Conflict,
    DiskFull,
    KillPolicy,
    LinkError,
    NotThere,
    ReadOnly,
    Refused,
)
from engine.servers.transport import Pipe, greeting
from tests.conftest import read_only
from tests.played import until
from tests.servers.test_inventory import GOOD, play

SOURCE = Path(agent.__file__).read_text()
PROGRAMS = (agent.LAUNCHER, agent.GUARDIAN, batch.BATCH)
QUICK = Pace(pauses=(0.01,), every=0.2, frozen=5.0, greeting=20.0)
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "A",
    "-rf",
    "a b",
    "a\n",
    "a\0b",
    "x" * 65,
    "$(touch x)",
    ";touch x",
    "ü",
    None,
    3,
    ["a"],
]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "root"
    yield found
    end_all(found)


@pytest.fixture
def link(root: Path) -> Iterator[Link]:
    with Link(local, root=str(root), pace=QUICK) as found:
        yield found


def end_all(root: Path) -> None:
    """Every process that still holds one of the runs' locks."""
    for lock in root.glob("runs/*/lock"):
        for pid in agent.holders(str(lock)):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not agent.is_held(str(lock)))  # noqa: B023


def status(link: Link, rid: str = "one", **more: Any) -> dict[str, Any]:
    return dict(link.call("status", rids=[rid], **more)["runs"][rid])


def start(link: Link, script: str, rid: str = "one", **more: Any) -> dict[str, Any]:
    return dict(link.call("submit", rid=rid, argv=["sh", "-c", script, "{run}"], timeout=60, **more)["run"])


def event(kind: str, **fields: Any) -> str:
    """A line of shell that appends an event."""
    return "echo '" + json.dumps({"kind": kind, **fields}) + "' >> $0/events.jsonl; "


BEGUN = event("start")
LIVES = BEGUN + "while :; do sleep 0.05; done"


# What it is


def test_it_is_python_3_8_and_the_standard_library() -> None:
    beside = Path(batch.__file__).read_text()
    for text in (SOURCE.replace("from engine.servers import batch", ""), beside, *PROGRAMS):
        tree = ast.parse(text, feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(n.split(".")[0] in sys.stdlib_module_names for n in names), names
            assert not isinstance(node, ast.ImportFrom) or not node.level
            if isinstance(node, ast.Attribute):  # of Python 3.9 and newer
                newer = {
                    "removeprefix",
                    "removesuffix",
                    "is_relative_to",
                    "file_digest",
                    "pidfd_open",
                    "cache",
                    "bit_count",
                }
                assert node.attr not in newer, node.attr
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
                assert not node.keywords
    assert "annotations" in SOURCE.split("from __future__ import ", 1)[1].split("\n", 1)[0]


def old_pythons() -> list[str]:
    found = [shutil.which(f"python3.{n}") for n in (8, 9, 10)]
    found += [str(p) for p in Path("~/.pyenv/versions").expanduser().glob("3.[89].*/bin/python3")]
    return [f for f in found if f and not subprocess.run([f, "-c", ""], capture_output=True).returncode]


def test_it_runs_on_what_pythons_there_are(tmp_path: Path) -> None:
    for i, python in enumerate([sys.executable, *old_pythons()]):
        with Link(lambda: local(python), root=str(tmp_path / str(i)), pace=QUICK) as link:  # noqa: B023
            assert tuple(link.call("hello")["python"]) >= (3, 8)
            link.call("probe")
            body = os.urandom(1000)
            link.call("put", digest=digest_of(body), size=1000, body=body)
            link.call("materialise", name="a", body=json.dumps({"x/y": [digest_of(body), 1000]}).encode())
            start(link, BEGUN + event("end", state="done"))
            until(lambda: status(link)["state"] == "done")
            assert link.call("run", argv=["true"])["code"] == 0
            assert link.call("sweep", older=0, contents=True)["removed"] == 0


def test_it_says_who_and_where_it_is(link: Link, root: Path) -> None:
    found = link.call("hello")
    assert found["root"] == str(root) and found["home"] == os.path.expanduser("~")
    assert found["boot_id"] == agent.boot_id() and tuple(found["python"]) == sys.version_info[:3]
    assert found["agent_hash"] == greeting()[1]
    assert set(found["kill_policy"]) == {"kill_user_processes", "linger"}
    assert root.stat().st_mode & 0o777 == 0o700


def test_several_make_its_folder_at_once(tmp_path: Path) -> None:
    """As when the app and who prepares the server connect to a new one."""
    for i in range(30):
        together = threading.Barrier(6)

        def make(path: str = str(tmp_path / str(i) / "a" / "b"), together: threading.Barrier = together) -> str:
            together.wait(10)
            return agent.Root(path).path

        with ThreadPoolExecutor(6) as pool:
            assert len({each.result() for each in [pool.submit(make) for _ in range(6)]}) == 1


def test_of_another_protocol_it_wants_nothing(link: Link) -> None:
    with pytest.raises(LinkError) as caught:
        link.call("hello", proto=99)
    assert caught.value.code == "PROTOCOL_MISMATCH"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with read_only(tmp_path):
        root = agent.Root
        with pytest.raises(OSError, match="denied"):  # in this thread, which is held by modes even if it is root's
            root(str(tmp_path / "root"))
    (tmp_path / "file").touch()
    with Link(local, root=str(tmp_path / "file" / "root"), pace=QUICK) as link, pytest.raises(LinkError) as caught:
        link.call("hello")
    assert isinstance(caught.value, (ReadOnly, NotThere)) and str(tmp_path) in caught.value.message
    assert agent.fault_of(PermissionError(13, "Permission denied", "x")).kind == "READ_ONLY"


# Inventory


@pytest.mark.parametrize(
    "script",
    [
        GOOD,
        "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
        '#!/bin/sh\necho "couldn\'t communicate with the NVIDIA driver" >&2; exit 9',
        "#!/bin/sh\necho 'No devices were found'; exit 6",
        "#!/bin/sh\nexit 0",
        "#!/bin/sh\nprintf 'a,b\\n\\033[2Jx, y, z, , , , ,\\n'",
        "#!/bin/sh\nprintf '\\033[31mstrange\\n'; exit 1",
        "#!/bin/sh\nprintf '\\377\\376, x\\n'; exit 1",
    ],
)
def test_it_sees_what_the_app_sees_of_its_own_machine(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    play(tmp_path / "bin", monkeypatch, script)
    here = inventory.machine(tmp_path).to_json()
    there = agent.Inventory().probe(str(tmp_path))
    assert there["gpu_note"] == here["gpu_note"]
    strip = lambda gpus: [{k: v for k, v in g.items() if k != "users"} for g in gpus]  # noqa: E731
    assert strip(there["gpus"]) == strip(here["gpus"])
    assert [len(g["users"]) for g in there["gpus"]] == [len(g["users"]) for g in here["gpus"]]
    assert set(here) <= set(there) and there["inodes_free"] > 0
    for name in ("cores", "memory_total", "host", "system", "processor", "disk_path"):
        assert there[name] == here[name]


def test_a_driver_that_hangs_delays_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, "#!/bin/sh\nexec sleep 300\n")
    monkeypatch.setattr(agent, "SMI_TIMEOUT", 0.2)
    seen = agent.Inventory()
    began = time.monotonic()
    assert "did not answer" in seen.probe(str(tmp_path))["gpu_note"]
    assert time.monotonic() - began < 3


def test_a_probe_tells_of_runs_too(link: Link) -> None:
    start(link, LIVES)
    until(lambda: link.call("probe", rids=None)["runs"] == {"one": "running"})
    assert link.call("probe", rids=["one", "none"])["runs"] == {"one": "running", "none": "absent"}


# Runs: states, proven


def test_a_run_begins_and_ends(link: Link, root: Path) -> None:
    found = start(link, LIVES.replace("sleep", "[ -e $0/go ] && break; sleep") + "; " + event("end", state="done"))
    assert found["attempt"] == 1 and found["state"] in ("starting", "running")
    until(lambda: status(link)["state"] == "running")
    owner = status(link)["owner"]
    assert os.readlink(f"/proc/{owner['pid']}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{owner['pid']}/fd/1") == str(root / "runs/one/train.log")
    assert os.getsid(owner["pid"]) not in (os.getsid(0), 0)
    environment = Path(f"/proc/{owner['pid']}/environ").read_bytes()
    assert b"SSH_" not in environment.replace(b"\0DOJANG_SSH_", b"")
    (root / "runs/one/go").touch()
    until(lambda: status(link)["state"] == "done")
    assert not [p for p in (root / "runs/one").iterdir() if "launch" in p.name]


@pytest.mark.parametrize("word", ["done", "stopped", "paused", "failed"])
def test_the_last_word_says_how_it_ended(link: Link, word: str) -> None:
    start(link, BEGUN + event("end", state=word) + "exit 3")
    until(lambda: status(link)["state"] == word)


def test_a_last_word_that_is_none_is_not_believed(link: Link) -> None:
    start(link, BEGUN + event("end", state="\x1b[2J") + "exit 0")
    until(lambda: status(link)["state"] == "lost")


def test_what_cannot_be_started_has_failed_with_a_reason(link: Link) -> None:
    link.call("submit", rid="one", argv=["/nowhere/python", "x"])
    until(lambda: status(link)["state"] == "failed")
    assert "/nowhere/python could not be started: No such file" in status(link)["reason"]
    assert "could not be started" in link.call("read", rid="one", stream="log").body.decode()


def test_killed_with_its_supervisor_it_is_lost(link: Link) -> None:
    start(link, LIVES)
    until(lambda: status(link)["state"] == "running")
    os.kill(status(link)["owner"]["pid"], signal.SIGKILL)
    until(lambda: status(link)["state"] == "lost")
    assert "killed" in status(link)["reason"]


def test_the_reason_that_a_supervisor_left_is_told(link: Link, root: Path) -> None:
    start(link, BEGUN + """echo '{"code": -9, "reason": "It ran out of memory."}' > $0/exit.json""")
    until(lambda: status(link)["state"] == "lost")
    assert status(link)["reason"] == "It ran out of memory."


def test_with_its_supervisor_gone_the_worker_is_an_orphan(link: Link) -> None:
    start(link, BEGUN + "sleep 60 & wait")
    until(lambda: status(link)["state"] == "running")
    os.kill(status(link)["owner"]["pid"], signal.SIGKILL)
    until(lambda: status(link)["state"] == "orphan")
    assert "goes on" in status(link)["reason"]
    link.call("cancel", rid="one")
    until(lambda: status(link)["state"] == "lost")


def test_halted_it_is_silent_not_over(link: Link) -> None:
    start(link, LIVES)
    until(lambda: status(link)["state"] == "running")
    os.kill(status(link)["owner"]["pid"], signal.SIGSTOP)
    until(lambda: status(link, silent=0.2)["state"] == "silent")
    assert "halted" in status(link, silent=0.2)["reason"]
    os.kill(status(link)["owner"]["pid"], signal.SIGCONT)
    until(lambda: "No word" in status(link, silent=0.2)["reason"])
    assert status(link)["state"] == "running"


def owned(root: Path, **changes: Any) -> None:
    path = root / "runs/one/owner.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_after_a_restart_of_the_machine_it_is_lost(link: Link, root: Path) -> None:
    start(link, BEGUN)
    until(lambda: status(link)["state"] == "lost")
    owned(root, boot="11111111-2222-3333-4444-555555555555", pid=1)
    assert (status(link)["state"], status(link)["reason"]) == ("lost", "The server was restarted.")


def test_a_number_that_went_to_another_process_is_not_its(link: Link, root: Path) -> None:
    start(link, BEGUN)
    until(lambda: status(link)["state"] == "lost")
    owned(root, pid=os.getpid(), start=1)
    assert status(link)["state"] == "lost"
    link.call("cancel", rid="one", force=True)  # which must not end us
    start(link, BEGUN + "sleep 60 & wait", "two")
    until(lambda: status(link, "two")["state"] == "running")
    path = root / "runs/two/owner.json"
    told = json.loads(path.read_text())
    os.kill(told["pid"], signal.SIGKILL)
    path.write_text(json.dumps({**told, "pid": os.getpid(), "start": told["start"]}))
    until(lambda: status(link, "two")["state"] == "orphan")
    link.call("cancel", rid="two", force=True)
    until(lambda: status(link, "two")["state"] == "lost")


def test_a_dead_process_that_nobody_buries_is_dead() -> None:
    child = subprocess.Popen(["true"])
    until(lambda: agent.process(child.pid)[1] == "Z")
    assert not agent.alive({"pid": child.pid, "start": agent.process(child.pid)[0]})
    child.wait()


def test_never_started_it_is_lost_once_nobody_can_be_at_it(link: Link, root: Path) -> None:
    link.call("hello")
    (root / "runs/one").mkdir()
    assert status(link)["state"] == "starting"
    past = time.time() - 100
    os.utime(root / "runs/one", (past, past))
    assert (status(link)["state"], status(link)["reason"]) == ("lost", "It was never started.")
    assert start(link, BEGUN)["attempt"] == 1  # the same request again heals it


def test_ages_do_not_depend_on_the_agents_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SOURCE.replace("import time\n", "import time\nreal = time.time\ntime.time = lambda: real() + 10800\n", 1)
    assert ahead != SOURCE
    packed = zlib.compress(ahead.encode())
    told = b"%d\n" % len(packed) + packed, hashlib.sha256(ahead.encode()).hexdigest()
    monkeypatch.setattr(link_module, "greeting", lambda: told)
    with Link(local, root=str(root), pace=QUICK) as link:
        start(link, LIVES)
        until(lambda: status(link)["state"] == "running")
        assert status(link)["quiet"] < 60
        link.call("remove", kind="data", id="none")
        assert link.call("sweep", older=3600)["removed"] == 0


# Runs: started once


def test_asked_by_many_at_once_it_starts_once(root: Path) -> None:
    links = [Link(local, root=str(root), pace=QUICK) for _ in range(4)]
    started: list[bool] = []

    def ask(link: Link) -> None:
        argv = ["sh", "-c", 'echo x >> "$0/starts"; sleep 0.3', "{run}"]
        started.extend(bool(link.call("submit", rid="one", argv=argv, timeout=60)["started"]) for _ in range(5))

    threads = [threading.Thread(target=ask, args=(each,)) for each in links]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for each in links:
        each.close()
    assert (root / "runs/one/starts").read_text() == "x\n" and len(started) == 20 and any(started)


def test_a_launcher_that_comes_late_starts_nothing(link: Link, root: Path) -> None:
    """Two agents may each have sent one; the second may find its orders again, laid down while the first set out."""
    run = root / "runs" / "one"
    start(link, "echo x >> $0/starts; " + BEGUN)
    until(lambda: status(link)["state"] == "lost")
    told = {
        "argv": ["sh", "-c", "echo x >> $0/starts", str(run)],
        "env": {},
        "cwd": "/",
        "attempt": 1,
        "boot": "",
        "host": "",
    }
    for orders in (False, True):
        if orders:
            (run / ".launch.json").write_text(json.dumps({**told, "fork": False}))
        subprocess.run([sys.executable, "-I", "-c", agent.LAUNCHER, str(run)], timeout=20, check=True)
    with (run / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (run / ".launch.json").write_text(json.dumps({**told, "fork": False, "attempt": 2}))
        subprocess.run([sys.executable, "-I", "-c", agent.LAUNCHER, str(run)], timeout=20, check=True)
    assert (run / "starts").read_text() == "x\n"


def test_another_run_of_the_same_name_is_refused(link: Link) -> None:
    start(link, LIVES)
    assert start(link, LIVES)["attempt"] == 1
    with pytest.raises(Conflict, match="another run's name"):
        start(link, LIVES + " ")


def test_it_is_resumed_as_another_attempt(link: Link, root: Path) -> None:
    script = BEGUN + "echo $1 >> $0/tries; " + event("end", state="stopped")
    with pytest.raises(NotThere):
        start(link, script, attempt=2)
    start(link, script)
    until(lambda: status(link)["state"] == "stopped")
    again = start(link, BEGUN + "sleep 60", attempt=2)
    assert again["attempt"] == 2
    until(lambda: status(link)["state"] == "running")
    assert start(link, script)["attempt"] == 2  # the first, asked for once more by a link that came back late
    with pytest.raises(Conflict, match="still running"):
        start(link, script, attempt=3)
    link.call("cancel", rid="one", force=True)
    until(lambda: status(link)["state"] == "lost")  # its old last word is not the new attempt's
    assert start(link, script, attempt=3)["attempt"] == 3


def test_an_old_last_word_is_not_a_new_attempts(link: Link) -> None:
    start(link, BEGUN + event("end", state="stopped"))
    until(lambda: status(link)["state"] == "stopped")
    start(link, "sleep 60", attempt=2)  # which has not said a word
    until(lambda: status(link)["state"] in ("starting", "running"))
    link.call("cancel", rid="one", force=True)
    until(lambda: status(link)["state"] == "lost")


def test_what_is_sent_along_lies_there_before_it_starts(link: Link, root: Path) -> None:
    body = b"weights"
    link.call("put", digest=digest_of(body), size=len(body), body=body)
    more = {"files": {"spec.toml": "model = 1\n", "home/a/b.json": "{}"}, "blobs": {"home/w.pt": digest_of(body)}}
    start(link, "cat $0/spec.toml $0/home/a/b.json $0/home/w.pt; echo $HELLO", env={"HELLO": "run={run}"}, **more)
    until(lambda: status(link)["state"] == "lost")
    said = link.call("read", rid="one", stream="log").body.decode()
    assert said == f"model = 1\n{{}}weightsrun={root}/runs/one\n"


def test_cancelled_twice_by_one_call_it_is_asked_once(link: Link, root: Path) -> None:
    start(link, BEGUN + "trap 'echo x >> $0/asked' TERM; while :; do sleep 0.02; done")
    until(lambda: status(link)["state"] == "running")
    for token in ("a", "a", "b"):
        raw_cancel(root, token)
    until(lambda: (root / "runs/one/asked").read_text() == "x\nx\n")
    link.call("cancel", rid="one", force=True)
    until(lambda: status(link)["state"] == "lost")


def raw_cancel(root: Path, token: str) -> None:
    store = agent.Store(agent.Root(str(root)))
    agent.Runs(store.root, store).cancel("one", token=token)
    time.sleep(0.2)


# A logout that kills


@pytest.fixture
def runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> agent.Runs:
    (tmp_path / "bin").mkdir()
    service = tmp_path / "bin" / "systemd-run"
    service.write_text(
        f'#!/bin/sh\necho "$*" > {tmp_path}/asked\nwhile [ "$1" != "${{1#--}}" ]; do shift; done\nsetsid "$@" &\n'
    )
    service.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    store = agent.Store(agent.Root(str(root)))
    return agent.Runs(store.root, store)


def test_where_a_logout_kills_the_service_manager_starts_it(
    runs: agent.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "kill_policy", lambda: {"kill_user_processes": True, "linger": True})
    runs.submit("one", ["sh", "-c", BEGUN + event("end", state="done"), "{run}"])
    until(lambda: runs.status("one")["state"] == "done")
    assert (tmp_path / "asked").read_text().startswith("--user --quiet --collect --unit=dojang-one-")


def test_where_nothing_can_outlive_a_logout_nothing_is_started(
    runs: agent.Runs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "kill_policy", lambda: {"kill_user_processes": True, "linger": False})
    with pytest.raises(agent.Fault) as caught:
        runs.submit("one", ["true"])
    assert caught.value.kind == KillPolicy.kind and not (root / "runs/one").exists()


@pytest.mark.parametrize(("said", "found"), [("b true", True), ("b false", False), ("", None)])
def test_the_kill_policy_is_read(
    said: str, found: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.path.exists
    monkeypatch.setattr(agent.os.path, "exists", lambda p: p == "/run/systemd/system" or real(p))
    (tmp_path / "busctl").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "busctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert agent.kill_policy()["kill_user_processes"] is found


# Contents


def put(link: Link, body: bytes, offset: int = 0, size: int | None = None, digest: str = "") -> dict[str, Any]:
    size = len(body) if size is None else size
    return dict(link.call("put", digest=digest or digest_of(body), size=size, offset=offset, body=body))


def test_contents_arrive_in_pieces_and_go_on_where_they_were(link: Link, root: Path) -> None:
    body = os.urandom(250_000)
    digest = digest_of(body)
    assert put(link, body[:100_000], 0, len(body), digest) == {"have": 100_000, "done": False}
    found = link.call("have", body=json.dumps([digest]).encode())
    assert (found["missing"], found["parts"]) == ([digest], {digest: 100_000})
    with pytest.raises(Conflict) as caught:
        put(link, body[200_000:], 200_000, len(body), digest)
    assert caught.value.details["have"] == 100_000
    assert put(link, body[50_000:150_000], 50_000, len(body), digest)["have"] == 150_000  # sent again in part
    with Link(local, root=str(root), pace=QUICK) as other:
        assert put(other, body[150_000:], 150_000, len(body), digest) == {"have": 250_000, "done": True}
    assert put(link, body[:10], 0, len(body), digest)["done"]
    assert (root / "blobs" / digest[:2] / digest).read_bytes() == body
    assert not list((root / "parts").iterdir()) and not list((root / "tmp").iterdir())


@pytest.mark.parametrize("split", [0, 3])
def test_what_is_not_what_was_announced_is_not_kept(link: Link, root: Path, split: int) -> None:
    digest = digest_of(b"right")
    with pytest.raises(Conflict, match="not what was announced"):
        if split:
            put(link, b"wro", 0, 5, digest)
        put(link, b"wrong"[split:], split, 5, digest)
    assert link.call("have", body=json.dumps([digest]).encode())["missing"] == [digest]
    assert not list((root / "parts").iterdir()) and not list((root / "tmp").iterdir())


def test_a_tree_is_made_of_contents(link: Link, root: Path) -> None:
    a, b = b"a" * 10, b""
    put(link, a), put(link, b)
    tree = {"x/한글.jpg": [digest_of(a), 10], "y": [digest_of(b), 0], "bin/uv": [digest_of(a), 10, 0o755]}
    made = link.call("materialise", name="set-1", body=json.dumps(tree).encode())
    place = Path(made["path"])
    assert made["new"] and (place / "x/한글.jpg").read_bytes() == a and (place / "y").read_bytes() == b
    assert (place / "x/한글.jpg").stat().st_nlink == 2 and os.access(place / "bin/uv", os.X_OK)
    assert not link.call("materialise", name="set-1", body=json.dumps(tree).encode())["new"]
    with pytest.raises(Conflict):
        link.call("materialise", name="set-1", body=json.dumps({"y": tree["y"]}).encode())
    with pytest.raises(NotThere) as caught:
        link.call("materialise", name="set-2", body=json.dumps({"y": ["0" * 32, 3]}).encode())
    assert caught.value.details["missing"] == ["0" * 32] and not (root / "data/set-2").exists()
    seen = link.call("tree", path="data/set-1", digests=True)["files"]
    assert {k: (v[0], v[2]) for k, v in seen.items()} == {k: (v[1], v[0]) for k, v in tree.items()}
    assert link.call("sweep", older=0, contents=True)["removed"] == 0
    assert link.call("remove", kind="data", id="set-1")["removed"] and not place.exists()
    assert link.call("sweep", older=0, contents=True)["removed"] == 2


def test_a_content_cut_short_by_a_crash_is_not_taken_for_whole(link: Link, root: Path) -> None:
    body = b"x" * 100
    digest = digest_of(body)
    put(link, body)
    place = root / "blobs" / digest[:2] / digest
    place.chmod(0o600)
    os.truncate(place, 0)
    tree = json.dumps({"a": [digest, 100]}).encode()
    with pytest.raises(NotThere):
        link.call("materialise", name="set-1", body=tree)
    assert link.call("have", body=json.dumps([digest]).encode())["missing"] == [digest]
    put(link, body)
    assert link.call("materialise", name="set-1", body=tree)["new"]


def test_many_agents_lay_down_one_folder_and_one_of_them_does(link: Link, root: Path) -> None:
    """What one of them has told to be there, none of the others takes for torn and makes again."""
    body = b"x" * 100
    digest = digest_of(body)
    put(link, body)
    tree = json.dumps({f"{i}.jpg": [digest, 100] for i in range(300)}).encode()
    with ExitStack() as open_ones, ThreadPoolExecutor(6) as pool:
        links = [open_ones.enter_context(Link(local, root=str(root), pace=QUICK)) for _ in range(6)]
        for each in links:
            each.call("hello")
        for number in range(15):
            name = f"set-{number}"
            calls = [pool.submit(each.call, "materialise", name=name, body=tree) for each in links]
            told = [call.result(60) for call in calls]
            assert [each["new"] for each in told].count(True) == 1
            assert len(list((root / "data" / name).iterdir())) == 300


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], Pipe]]:
    """An agent whose disk takes about a megabyte: a real one where that can be had, else a limit of the process."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "none", str(folder)], capture_output=True
    ).returncode  # fmt: skip

    def open() -> Pipe:
        if mounted:
            return local()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            return local()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        yield open
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_no_litter(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as open, Link(open, root=str(tmp_path / "disk/root"), pace=QUICK) as link:
        body = os.urandom(3 << 20)
        with pytest.raises(DiskFull) as caught:
            put(link, body)
        assert "No space" in caught.value.message and caught.value.hint
        at = 0
        with pytest.raises(DiskFull):
            for at in range(0, len(body), 300_000):
                put(link, body[at : at + 300_000], at, len(body), digest_of(body))
        part = link.call("have", body=json.dumps([digest_of(body)]).encode())["parts"][digest_of(body)]
        assert part == at  # what came before is kept, and no half of a piece
        small = b"small"
        link.call("sweep", older=0)
        assert put(link, small)["done"]
        start(link, BEGUN + event("end", state="done"))
        until(lambda: status(link)["state"] == "done")
        root = tmp_path / "disk" / "root"
        assert not list((root / "tmp").iterdir()) and not list((root / "parts").iterdir())


def test_what_a_killed_agent_left_goes_with_the_next(root: Path) -> None:
    with Link(local, root=str(root), pace=QUICK) as link:
        link.call("hello")
    boot = (agent.boot_id() or "0" * 8)[:8]
    mine = agent.process(os.getpid())[0]
    for name in (
        f"{boot}-999999999-1-1",
        f"{boot}-{os.getpid()}-1-1",
        f"{boot}-{os.getpid()}-{mine}-1",
        "another-1-1-1",
    ):
        (root / "tmp" / name).mkdir()
    with Link(local, root=str(root), pace=QUICK) as link:
        link.call("hello")
    assert sorted(p.name for p in (root / "tmp").iterdir()) == sorted(
        [f"{boot}-{os.getpid()}-{mine}-1", "another-1-1-1"]
    )


# Files


def test_files_are_read_in_pieces_and_written_whole(link: Link, root: Path) -> None:
    link.call("place", path="envs/e1/ready.json", body=b"0123456789")
    found = link.call("get", path="envs/e1/ready.json", offset=4, limit=3)
    assert found.body == b"456" and found["size"] == 10 and not found["truncated"]
    assert link.call("get", path="envs/e1/ready.json", offset=11)["truncated"]
    link.call("make", path="tmp/build")
    link.call("place", path="tmp/build/x", body=b"x")
    for _ in range(2):  # the second is a repetition after a lost answer
        link.call("move", source="tmp/build", target="envs/e2")
    with pytest.raises(Conflict):
        link.call("move", source="envs/e1", target="envs/e2")
    assert sorted(link.call("list", kind="envs")["names"]) == ["e1", "e2"]
    with pytest.raises(NotThere):
        link.call("get", path="envs/none")


def test_a_log_that_was_begun_anew_is_told(link: Link, root: Path) -> None:
    start(link, BEGUN)
    until(lambda: status(link)["state"] == "lost")
    assert link.call("read", rid="one", offset=1000)["truncated"]
    assert link.call("read", rid="one", stream="control.json").body == b""
    link.call("write", rid="one", body=b"{}")
    assert link.call("read", rid="one", stream="control.json").body == b"{}"
    with pytest.raises(NotThere):
        link.call("write", rid="two", body=b"{}")


def test_a_run_that_lives_is_not_removed(link: Link, root: Path) -> None:
    start(link, LIVES)
    with pytest.raises(Conflict):
        link.call("remove", kind="runs", id="one")
    link.call("cancel", rid="one", force=True)
    until(lambda: status(link)["state"] == "lost")
    assert link.call("remove", kind="runs", id="one")["removed"]
    assert not link.call("remove", kind="runs", id="one")["removed"]
    assert status(link)["state"] == "absent" and not list((root / "tmp").iterdir())


# Commands


def test_a_command_is_heard_as_it_speaks_and_ends_with_all_it_started(link: Link, tmp_path: Path) -> None:
    heard: list[bytes] = []
    script = f"echo one; echo two >&2; sleep 60 & echo $! > {tmp_path}/pid; exit 3"
    found = link.call("run", argv=["sh", "-c", script], on_part=heard.append)
    assert (found["code"], found["timed_out"], b"".join(heard)) == (3, False, b"one\ntwo\n")
    gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> None:
    until(lambda: agent.process(pid)[1] in "ZX")


def test_a_command_has_its_time(link: Link, tmp_path: Path) -> None:
    script = f"trap '' TERM; setsid sleep 60 & echo $! > {tmp_path}/pid; sleep 60"
    found = link.call("run", argv=["sh", "-c", "echo $$; exec sleep 60"], limit=0.3)
    assert found["timed_out"] and found["code"] == -signal.SIGTERM
    found = link.call("run", argv=["sh", "-c", script], limit=0.3, grace=0.3)
    assert found["timed_out"]
    gone(int((tmp_path / "pid").read_text()))


def test_a_command_is_interrupted(link: Link) -> None:
    found: list[Any] = []
    lit = threading.Event()
    running = threading.Thread(
        target=lambda: found.append(
            link.call("run", argv=["sh", "-c", "echo on; sleep 60"], key="build", on_part=lambda _: lit.set())
        )
    )
    running.start()
    assert lit.wait(10)
    with pytest.raises(Conflict, match="key"):
        link.call("run", argv=["true"], key="build")
    assert link.call("interrupt", key="build")["running"]
    running.join(10)
    assert found[0]["interrupted"]
    assert not link.call("interrupt", key="build")["running"]


def test_a_command_ends_with_its_agent(root: Path, tmp_path: Path) -> None:
    opened: list[Pipe] = []

    def open() -> Pipe:
        opened.append(local())
        return opened[-1]

    with Link(open, root=str(root), pace=QUICK) as link:
        script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
        threading.Thread(target=lambda: suppressed(link, script), daemon=True).start()
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(opened[0].pid, signal.SIGKILL)
        gone(int((tmp_path / "pid").read_text()))


def suppressed(link: Link, script: str) -> None:
    with suppress(LinkError):
        link.call("run", argv=["sh", "-c", script])


def test_of_two_that_build_the_same_one_waits_its_turn(link: Link, root: Path) -> None:
    link.call("make", path="envs/e")
    running = threading.Thread(target=lambda: link.call("run", argv=["sh", "-c", "sleep 1.5"], hold="envs/e.lock"))
    running.start()
    until(lambda: (root / "envs/e.lock").exists())
    time.sleep(0.1)
    with Link(local, root=str(root), pace=QUICK) as other:
        with pytest.raises(Conflict):
            other.call("run", argv=["true"], hold="envs/e.lock")
        running.join()
        assert other.call("run", argv=["true"], hold="envs/e.lock")["code"] == 0


def test_a_command_that_is_none_is_said(link: Link) -> None:
    found = link.call("run", argv=["/nowhere/x"])
    assert found["code"] == 127 and "No such file" in found["error"]


# Hostile requests


@pytest.mark.parametrize("rid", HOSTILE)
def test_no_name_leads_anywhere_else(link: Link, root: Path, tmp_path: Path, rid: Any) -> None:
    before = sorted(p for p in tmp_path.rglob("*") if root not in p.parents)
    for op, told in (
        ("submit", {"rid": rid, "argv": ["touch", str(tmp_path / "ran")]}), ("status", {"rids": [rid]}),
        ("cancel", {"rid": rid, "force": True}), ("read", {"rid": rid}), ("write", {"rid": rid}),
        ("remove", {"kind": "runs", "id": rid}), ("remove", {"kind": "data", "id": rid}),
        ("materialise", {"name": rid, "body": b"{}"}), ("run", {"argv": ["true"], "key": rid or "."}),
    ):  # fmt: skip
        with pytest.raises(Refused):
            link.call(op, **told)
    assert not list((root / "runs").iterdir())
    assert sorted(p for p in tmp_path.rglob("*") if root not in p.parents)[: len(before)] == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "../x", "data/../../x", "data//x", "data/./x", "a\0b", "d" * 5000, None]
)
def test_no_path_leads_out(link: Link, path: Any) -> None:
    manifest = json.dumps({path: ["0" * 32, 0]} if path is not None else {"x": None}).encode()
    for op, told in (
        ("get", {"path": path}), ("tree", {"path": path}), ("place", {"path": path, "body": b"x"}), ("make", {"path": path}),
        ("move", {"source": path, "target": "tmp/x"}), ("move", {"source": "tmp/x", "target": path}),
        ("materialise", {"name": "m", "body": manifest}), ("run", {"argv": ["true"], "hold": path or ".."}),
        ("run", {"argv": ["true"], "cwd": path or ".."}),
    ):  # fmt: skip
        with pytest.raises(Refused):
            link.call(op, **told)
    if isinstance(path, str):
        with pytest.raises(Refused):
            link.call("submit", rid="one", argv=["true"], files={path: "x"})


def test_no_link_on_the_disk_leads_out(link: Link, root: Path, tmp_path: Path) -> None:
    link.call("hello")
    (tmp_path / "secret").write_text("secret")
    (root / "data/in").mkdir()
    (root / "data/out").symlink_to(tmp_path)
    (root / "data/file").symlink_to(tmp_path / "secret")
    (root / "data/inner").symlink_to(root / "data/in")
    for op, told in (
        ("get", {"path": "data/out/secret"}), ("get", {"path": "data/file"}), ("tree", {"path": "data/out"}),
        ("place", {"path": "data/out/new", "body": b"x"}), ("make", {"path": "data/out/new"}),
        ("move", {"source": "data/out/secret", "target": "data/taken"}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="out of"):
            link.call(op, **told)
    assert not (tmp_path / "new").exists()
    link.call("remove", kind="data", id="out")
    assert (tmp_path / "secret").exists()
    link.call("place", path="data/inner/x", body=b"x")
    assert link.call("get", path="data/inner/x").body == b"x"


@pytest.mark.parametrize("name", agent.RESERVED)
def test_what_proves_a_run_is_not_written_by_request(link: Link, name: str) -> None:
    link.call("make", path="runs/one")
    for op, told in (
        ("place", {"path": f"runs/one/{name}", "body": b"{}"}), ("move", {"source": "tmp/x", "target": f"runs/one/{name}"}),
        ("submit", {"rid": "one", "argv": ["true"], "files": {name: "{}"}}), ("place", {"path": "blobs/00/0", "body": b""}),
    ):  # fmt: skip
        with pytest.raises(Refused):
            link.call(op, **told)


@pytest.mark.parametrize(
    "told",
    [
        {"argv": []}, {"argv": "rm -rf"}, {"argv": [""]}, {"argv": [1]}, {"argv": ["a\0b"]}, {"argv": ["true"], "env": {"A=B": "x"}},
        {"argv": ["true"], "env": {"A": 1}}, {"argv": ["true"], "env": []}, {"argv": ["true"], "attempt": 0},
        {"argv": ["true"], "attempt": True}, {"argv": ["true"], "files": []}, {"argv": ["true"], "blobs": {"x": "../../etc"}},
        {"argv": ["true"], "surprise": 1},
    ],
)  # fmt: skip
def test_a_strange_submission_starts_nothing(link: Link, root: Path, told: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        link.call("submit", rid="one", **told)
    assert not list((root / "runs").iterdir())


def test_hello_comes_first(tmp_path: Path) -> None:
    class Deaf:
        def read(self, size: int) -> bytes:
            return b""

    read, write = os.pipe()
    found = agent.Agent(Deaf(), write)  # type: ignore[arg-type]
    found._answer({"id": 5, "op": "list", "arguments": {"kind": "runs"}}, b"")
    told = os.read(read, 4096)
    os.close(read), os.close(write)
    assert json.loads(told[agent.PREFIX.size :])["error"]["text"] == "hello comes first"


@pytest.mark.parametrize(
    "frame",
    [
        b"garbage garbage", agent.PREFIX.pack(agent.MAGIC, 1 << 30, 0), agent.PREFIX.pack(agent.MAGIC, 2, 1 << 31),
        agent.PREFIX.pack(agent.MAGIC, 2, 0) + b"[]", agent.PREFIX.pack(agent.MAGIC, 4, 0) + b"\xff\xff\xff\xff",
        agent.PREFIX.pack(agent.MAGIC, 100_000, 0) + b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_frame_ends_the_agent(frame: bytes) -> None:
    from engine.servers.transport import BOOT_CODE

    child = subprocess.run(
        [sys.executable, "-I", "-X", "utf8", "-c", BOOT_CODE],
        input=greeting()[0] + frame,
        capture_output=True,
        timeout=20,
    )
    assert child.returncode == 0 and child.stdout == agent.BANNER and not child.stderr


def test_a_client_that_went_without_a_word_leaves_no_agent(tmp_path: Path) -> None:
    from engine.servers.transport import BOOT_CODE, packed

    child = subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", "-c", BOOT_CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin and child.stdout
    hello = {"id": 0, "op": "hello", "arguments": {"root": str(tmp_path / "root"), "idle": 1.0}}
    child.stdin.write(greeting()[0] + packed(hello, b""))
    child.stdin.flush()
    assert child.wait(10) == 0
    child.stdin.close()
    child.stdout.close()


def test_an_unexpected_failure_is_told_and_ends_nothing(link: Link, root: Path) -> None:
    link.call("hello")
    (root / "runs/one").mkdir()
    (root / "runs/one/events.jsonl").mkdir()
    with pytest.raises((Refused, AgentFault)):
        link.call("read", rid="one")
    assert link.call("ping") is not None
