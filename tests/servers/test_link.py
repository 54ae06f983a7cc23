"""A link through everything that networks do: nothing starts twice, every byte arrives, nothing is left lying about."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from engine.servers import ssh
from engine.servers.agent import digest_of
from engine.servers.link import Link, LinkState, Pace, Request, local
from engine.servers.link_errors import (
    Closed,
    Conflict,
    Denied,
    LinkError,
    LinkLost,
    NoPython,
    ProtocolMismatch,
    Refused,
    Timeout,
    Unreachable,
)
from engine.servers.transport import Transport
from tests.played import until
from tests.servers.proxy import Agents, Proxy, Wire
from tests.servers.sshd import Sshd
from tests.thorough import part_of

QUICK = Pace(pauses=(0.01, 0.05), every=0.1, frozen=0.6, greeting=10.0)
STEPS = 200
AT_ONCE = 12  # journeys
RUN = f"""
echo started >> "$0/starts"
echo '{{"kind": "start"}}' >> "$0/events.jsonl"
i=0
while [ $i -lt {STEPS} ]; do echo '{{"kind": "step", "step": '$i'}}' >> "$0/events.jsonl"; i=$((i+1)); done
trap 'echo ended >> "$0/ends"; exit 0' TERM
[ "$1" = long ] && while :; do sleep 0.05; done
echo '{{"kind": "end", "state": "done"}}' >> "$0/events.jsonl"
"""


@pytest.fixture
def agents() -> Iterator[Agents]:
    with Agents() as found:
        yield found


@pytest.fixture
def proxy(agents: Agents) -> Iterator[Proxy]:
    with Proxy(agents.port) as found:
        yield found


@pytest.fixture
def link(proxy: Proxy, tmp_path: Path) -> Iterator[Link]:
    with Link(lambda: Wire(proxy.port), root=str(tmp_path / "root"), pace=QUICK) as found:
        yield found


def submit(link: Link, rid: str, *words: str) -> bool:
    return bool(link.call("submit", rid=rid, argv=["sh", "-c", RUN, "{run}", *words], timeout=60)["started"])


def events(link: Link, rid: str) -> bytes:
    """The whole log, as a screen reads it: from where it stands, until the run is over and no more comes."""
    found = b""
    while True:
        over = link.call("status", rids=[rid], timeout=60)["runs"][rid]["state"] not in ("starting", "running")
        body = link.call("read", rid=rid, offset=len(found), limit=700, wait=0.5, timeout=60).body
        found += body
        if over and not body:
            return found


def whole_log() -> bytes:
    steps = [f'{{"kind": "step", "step": {i}}}' for i in range(STEPS)]
    return "\n".join(['{"kind": "start"}', *steps, '{"kind": "end", "state": "done"}', ""]).encode()


def put_all(link: Link, contents: list[bytes], piece: int = 1 << 15) -> None:
    """As a data set is sent: what is missing, in pieces, gone on with where it stood."""
    for _ in range(20):
        found = link.call("have", body=json.dumps([digest_of(c) for c in contents]).encode(), timeout=60)
        todo = [c for c in contents if digest_of(c) in found["missing"]]
        if not todo:
            return
        with suppress(Conflict):
            list(link.stream(pieces(todo, found["parts"], piece), timeout=60))
    raise AssertionError("it is never whole")


def pieces(contents: list[bytes], parts: dict[str, int], piece: int) -> Iterator[Request]:
    for each in contents:
        digest = digest_of(each)
        for at in range(parts.get(digest, 0), max(1, len(each)), piece):
            yield Request("put", {"digest": digest, "size": len(each), "offset": at}, each[at : at + piece])


def leftovers(root: Path) -> list[str]:
    return [p.name for folder in ("tmp", "parts") for p in (root / folder).iterdir()]


# Faults at every step, by seed

Fault = Callable[[random.Random, Proxy], None]


def trouble(seed: random.Random, proxy: Proxy, over: threading.Event) -> None:
    """Something happens to the network again and again until a few things have."""
    for _ in range(seed.randint(1, 4)):
        kind = seed.choice(("up", "up", "down", "drop", "freeze", "delay", "slow"))
        if kind in ("up", "down"):
            proxy.cut_after(int(10 ** seed.uniform(1, 5.7)), up=kind == "up")
        elif kind == "drop":
            proxy.drop()
        elif kind == "freeze":
            proxy.freeze()
            over.wait(seed.uniform(0.05, 1.5))
            proxy.thaw()
        elif kind == "delay":
            proxy.delay = seed.uniform(0, 0.03)
        else:
            proxy.rate = seed.choice((0.0, 400_000.0, 3_000_000.0))
        if over.wait(seed.uniform(0.02, 0.5)):
            break
    proxy.thaw()
    proxy.rate = 0.0


def journey(seed: int, proxy: Proxy, root: Path, open: Callable[[], Transport]) -> None:
    """Push, lay down, submit, follow, cancel, fetch, while the network misbehaves; then see what became of it all."""
    dice = random.Random(seed)
    contents = [dice.randbytes(dice.choice((0, 1, 30_000, 30_000, 200_000))) for _ in range(12)]
    over = threading.Event()
    shaking = threading.Thread(target=trouble, args=(random.Random(seed + 1), proxy, over))
    with Link(open, root=str(root), pace=QUICK) as link:
        shaking.start()
        try:
            patiently(link, lambda: link.call("hello", timeout=60))
            put_all(link, contents)
            manifest = {f"images/{i}.jpg": [digest_of(c), len(c)] for i, c in enumerate(contents)}
            link.call("materialise", name="set-1", body=json.dumps(manifest).encode(), timeout=60)
            submit(link, "short")
            submit(link, "long", "long")
            assert events(link, "short") == whole_log()
            until(lambda: (root / "runs" / "long" / "starts").exists())
            link.call("cancel", rid="long", timeout=60)
            until(lambda: link.call("status", rids=["long"], timeout=60)["runs"]["long"]["state"] == "lost")
            home = b"".join(r.body for r in link.stream(fetched(len(contents[2])), timeout=60))
        finally:
            over.set()
            shaking.join()
    assert home == contents[2]
    for i, each in enumerate(contents):
        assert (root / "data" / "set-1" / "images" / f"{i}.jpg").read_bytes() == each
    for rid in ("short", "long"):
        assert (root / "runs" / rid / "starts").read_text() == "started\n", "it was started twice, or never"
    assert (root / "runs" / "long" / "ends").read_text() == "ended\n"
    assert not leftovers(root)
    assert not [p for p in (root / "runs").rglob("*") if "launch" in p.name or p.name.endswith(".tmp")]


def patiently(link: Link, what: Callable[[], object]) -> None:
    """As a person does who adds a server over a bad line: before it was ever up, nobody waits in vain."""
    for _ in range(50):
        try:
            what()
            return
        except LinkError as e:
            assert e.retry, e
            time.sleep(0.05)
    raise AssertionError("it never came up")


def fetched(size: int) -> Iterator[Request]:
    for at in range(0, size, 10_000):
        yield Request("get", {"path": "data/set-1/images/2.jpg", "offset": at, "limit": 10_000})


def journeys(seeds: range, port: int, folder: Path, open: Callable[[int], Callable[[], Transport]]) -> None:
    """Each through a proxy of its own. They are mostly waiting, so many are under way at once."""
    with ExitStack() as proxies, ThreadPoolExecutor(AT_ONCE) as pool:
        through = {seed: proxies.enter_context(Proxy(port)) for seed in seeds}
        ways = {seed: open(proxy.port) for seed, proxy in through.items()}
        begun = {seed: pool.submit(journey, seed, through[seed], folder / str(seed), ways[seed]) for seed in seeds}
        failed = {seed: error for seed, each in begun.items() if (error := each.exception())}
    assert not failed


def test_whatever_the_network_does_all_arrives_once(agents: Agents, tmp_path: Path) -> None:
    journeys(range(32), agents.port, tmp_path, lambda port: partial(Wire, port))
    until(lambda: not agents.living())


@pytest.mark.parametrize(
    "seeds", [range(1000, 1008), pytest.param(part_of(range(2000, 2192), 64), marks=pytest.mark.slow)]
)
def test_the_same_over_ssh(seeds: range, sshd: Sshd, tmp_path: Path) -> None:
    journeys(seeds, sshd.port, tmp_path, lambda port: partial(ssh.open, sshd.target(port)))


# State, calls, errors


def test_it_tells_its_state_and_comes_back(link: Link, proxy: Proxy) -> None:
    seen: list[LinkState] = []
    link.call("hello")
    stop = link.listen(seen.append)
    assert link.state.name == "up" and link.state.round_trip is not None and link.facts["proto"] == 1
    proxy.refuse = True
    proxy.drop()
    until(lambda: link.state.name == "reconnecting" and link.state.error is not None)
    assert "link to the server was lost" in str(link.state.error)
    proxy.refuse = False
    until(lambda: link.state.name == "up")
    assert link.state.error is None and time.time() - link.state.since < 60
    assert next(s.name for s in seen) == "reconnecting" and seen[-1].name == "up"
    stop()
    told = len(seen)
    proxy.drop()
    until(lambda: link.state.name == "up" and link.call("ping") is not None)
    assert len(seen) == told


def test_a_frozen_link_is_noticed_and_a_call_goes_on_after_it(link: Link, proxy: Proxy) -> None:
    link.call("hello")
    proxy.freeze()
    began = time.monotonic()
    answer: list[object] = []
    asking = threading.Thread(target=lambda: answer.append(link.call("list", kind="runs", timeout=30)["names"]))
    asking.start()
    until(lambda: link.state.name == "reconnecting")
    assert time.monotonic() - began < QUICK.frozen + 1.0
    proxy.drop()
    proxy.thaw()
    asking.join(20)
    assert answer == [{}]


def test_an_ordinary_link_notices_within_13_seconds() -> None:
    pace = Pace()
    assert pace.frozen + min(1.0, pace.every / 4) <= 13 and pace.every * 2 < pace.frozen


def test_a_slow_link_that_moves_is_not_called_frozen(proxy: Proxy, tmp_path: Path) -> None:
    """A large upload fills every buffer: the signs of life wait behind it for longer than a frozen link is given."""
    pace = Pace(pauses=(0.01,), every=0.1, frozen=0.6)
    with Link(lambda: Wire(proxy.port), root=str(tmp_path / "root"), pace=pace) as link:
        link.call("hello")
        proxy.rate = 2_000_000.0
        body = os.urandom(4 << 20)
        link.call("put", digest=digest_of(body), size=len(body), offset=0, body=body, timeout=60)
    assert proxy.connections == 1


def test_small_calls_overtake_a_large_push(link: Link, proxy: Proxy) -> None:
    proxy.rate = 8_000_000.0
    link.call("hello")
    contents = [os.urandom(100_000) for _ in range(160)]
    pushing = threading.Thread(target=put_all, args=(link, contents))
    pushing.start()
    took = []
    while pushing.is_alive():
        began = time.monotonic()
        link.call("status", rids=[])
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    assert len(took) >= 3 and sorted(took)[len(took) // 2] < 1.5, took


def test_a_small_call_goes_before_large_ones_that_wait(agents: Agents, tmp_path: Path) -> None:
    gate, done = threading.Event(), list[str]()

    def open() -> Transport:
        gate.wait(20)
        return Wire(agents.port)

    with Link(open, root=str(tmp_path / "root"), pace=QUICK) as link:

        def call(op: str, body: bytes = b"", **told: object) -> None:
            link.call(op, body=body, timeout=60, **told)
            done.append(op)

        bodies = [os.urandom(4 << 20) for _ in range(4)]
        threads = [
            threading.Thread(target=call, args=("put", b), kwargs={"digest": digest_of(b), "size": len(b)})
            for b in bodies
        ]
        for each in threads:
            each.start()
        until(lambda: len(link._large) == 4)
        threads.append(threading.Thread(target=call, args=("ping",)))
        threads[-1].start()
        until(lambda: link._small or len(link._large) == 5)
        gate.set()
        for each in threads:
            each.join()
    assert done[0] == "ping", done


def test_many_threads_call_at_once(link: Link) -> None:
    def ask(n: int) -> None:
        for i in range(20):
            data = f"{n} {i}".encode()
            link.call("place", path=f"tmp/{n}-{i}", body=data)
            wrong[n] += link.call("get", path=f"tmp/{n}-{i}").body != data

    wrong = [0] * 8
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == [0] * 8


def test_a_read_that_waits_holds_up_nobody(link: Link, tmp_path: Path) -> None:
    submit(link, "one", "long")
    until(lambda: link.call("status", rids=["one"])["runs"]["one"]["events"] > 0)
    have = link.call("status", rids=["one"])["runs"]["one"]["events"]
    until(lambda: link.call("status", rids=["one"])["runs"]["one"]["events"] == len(whole_log()) - 33)
    have = len(whole_log()) - 33
    came: list[bytes] = []
    waiting = [
        threading.Thread(target=lambda: came.append(link.call("read", rid="one", offset=have, wait=20).body))
        for _ in range(20)
    ]
    for each in waiting:
        each.start()
    began = time.monotonic()
    for _ in range(10):
        link.call("ping")
    assert time.monotonic() - began < 2
    with (tmp_path / "root" / "runs" / "one" / "events.jsonl").open("ab") as f:
        f.write(b"more\n")
    for each in waiting:
        each.join(10)
    assert came == [b"more\n"] * 20
    link.call("cancel", rid="one", force=True)


def test_a_run_is_not_repeated_after_a_loss(link: Link, proxy: Proxy, tmp_path: Path) -> None:
    link.call("hello")
    failed: list[LinkError] = []

    def run() -> None:
        try:
            link.call("run", argv=["sh", "-c", f"echo x >> {tmp_path}/ran; sleep 30"], timeout=30)
        except LinkError as e:
            failed.append(e)

    running = threading.Thread(target=run)
    running.start()
    until((tmp_path / "ran").exists)
    proxy.drop()
    running.join(10)
    assert isinstance(failed[0], LinkLost) and "unknown" in (LinkLost.__doc__ or "")
    link.call("hello")
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_call_has_its_time_and_no_more(link: Link, proxy: Proxy) -> None:
    link.call("hello")
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises((Timeout, LinkLost)):
        link.call("hello", timeout=0.3)
    assert time.monotonic() - began < 2
    proxy.thaw()


def test_before_it_was_ever_up_nobody_waits_in_vain(tmp_path: Path) -> None:
    began = time.monotonic()
    with Link(lambda: Wire(1), root=str(tmp_path), pace=Pace(pauses=(30,)), name="box") as link:
        with pytest.raises(Unreachable) as caught:
            link.call("hello")
        assert caught.value.message.startswith("box: ") and caught.value.retry
        assert link.state.name == "connecting"
        with pytest.raises(Unreachable):  # nor does who asks before the next attempt is due
            link.call("hello")
        link.retry()
        with pytest.raises(Unreachable):
            link.call("hello")
    assert time.monotonic() - began < 5


def test_what_only_a_person_can_mend_puts_it_down_until_they_say_so(agents: Agents, tmp_path: Path) -> None:
    refusals = [Denied("no such key")]

    def open() -> Transport:
        if refusals:
            raise refusals[0]
        return Wire(agents.port)

    with Link(open, root=str(tmp_path / "root"), pace=QUICK) as link:
        until(lambda: link.state.name == "down")
        for _ in range(2):
            with pytest.raises(Denied) as caught:
                link.call("hello")
            assert "no such key" in caught.value.message
        time.sleep(0.2)
        assert link.state.name == "down"
        refusals.clear()
        link.retry()
        until(lambda: link.state.name == "up")
        link.call("hello")


def test_closed_it_ends_every_call(link: Link, agents: Agents) -> None:
    link.call("hello")
    submit(link, "one")
    until(lambda: link.call("status", rids=["one"])["runs"]["one"]["state"] == "done")
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            link.call("read", rid="one", offset=10**6, wait=30, timeout=40)
            link.call("read", rid="one", offset=len(whole_log()), wait=30, timeout=40)
        except LinkError as e:
            failed.append(e)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    link.close()
    waiting.join(5)
    assert isinstance(failed[0], Closed)
    with pytest.raises(Closed):
        link.call("hello")
    until(lambda: not agents.living())


def test_a_refusal_says_why(link: Link) -> None:
    with pytest.raises(Refused, match="no operation"):
        link.call("format_disk")
    with pytest.raises(Refused):
        link.call("status", rids=["ok"], unheard_of=1)


@pytest.mark.parametrize(
    ("noise", "error"),
    [
        (b"", None),
        (b"Welcome to gpu1\r\n\x1b[2J" + bytes(range(256)) * 4, None),
        (b"\0\0dojang agen", None),
        (b"x" * (1 << 21), LinkError),
    ],
)
def test_what_a_login_prints_first_is_passed_over(noise: bytes, error: type[LinkError] | None, tmp_path: Path) -> None:
    from engine.servers.transport import BOOT_CODE, Pipe

    (tmp_path / "noise").write_bytes(noise)
    script = f'cat {tmp_path}/noise; exec {sys.executable} -I -u -X utf8 -c "$0"'
    with Link(
        lambda: Pipe(["sh", "-c", script, BOOT_CODE], lambda code, said, stage: LinkLost(said)),
        root=str(tmp_path / "root"),
        pace=QUICK,
    ) as link:
        if error:
            with pytest.raises(error):
                link.call("hello")
        else:
            assert link.call("hello")["proto"] == 1


def test_noise_in_between_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    """A start file of a shell may leave something running that prints later."""
    from engine.servers.transport import BOOT_CODE, Pipe

    script = f'(while [ ! -e {tmp_path}/now ]; do sleep 0.02; done; echo noise; rm {tmp_path}/now) & exec {sys.executable} -I -u -X utf8 -c "$0"'
    opened: list[Pipe] = []

    def open() -> Pipe:
        opened.append(Pipe(["sh", "-c", script, BOOT_CODE], lambda code, said, stage: LinkLost(said)))
        return opened[-1]

    with Link(open, root=str(tmp_path / "root"), pace=QUICK) as link:
        link.call("hello")
        seen: list[LinkState] = []
        link.listen(seen.append)
        (tmp_path / "now").touch()
        until(lambda: any(isinstance(s.error, ProtocolMismatch) for s in seen))
        until(lambda: link.state.name == "up")
        assert link.call("hello")["proto"] == 1 and len(opened) > 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_agent_that_is_killed_or_halted_is_replaced(number: int, tmp_path: Path) -> None:
    opened: list[int] = []

    def open() -> Transport:
        found = local()
        opened.append(found.pid)
        return found

    with Link(open, root=str(tmp_path / "root"), pace=QUICK) as link:
        submit(link, "one", "long")
        os.kill(opened[0], number)
        until(lambda: len(opened) > 1)
        until(lambda: link.state.name == "up")
        assert link.call("status", rids=["one"])["runs"]["one"]["state"] == "running"
        assert not submit(link, "one", "long")
        link.call("cancel", rid="one")
        until(lambda: link.call("status", rids=["one"])["runs"]["one"]["state"] == "lost")
    assert (tmp_path / "root" / "runs" / "one" / "starts").read_text() == "started\n"


def test_an_agent_that_is_killed_before_its_first_word_is_tried_again(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/once ] && exec {sys.executable} "$@"\ntouch {tmp_path}/once\nkill -9 $$\n'
    )
    python.chmod(0o755)
    with Link(lambda: local(str(python)), root=str(tmp_path / "root"), pace=QUICK) as link:
        patiently(link, lambda: link.call("hello"))


def test_a_python_too_old_or_none_is_said(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(f'#!/bin/sh\nshift 4\nexec {sys.executable} -I -c "import sys; sys.version_info=(3, 6, 9); $2"\n')
    old.chmod(0o755)
    for python, words in ((str(old), "3.6, too old"), (str(tmp_path / "none"), "No such file")):
        with Link(lambda: local(python), root=str(tmp_path / "root"), pace=QUICK) as link:  # noqa: B023
            with pytest.raises(NoPython, match=words):
                link.call("hello", timeout=10)
            assert link.state.name == "down"


def test_a_link_leaves_nothing_open_and_nobody_behind(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        with Link(local, root=str(tmp_path / "root")) as link:
            link.call("hello")
    assert (descriptors(), threading.active_count()) == (before, threads)
    found = subprocess.run(["ps", "-o", "stat=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    assert "Z" not in found
