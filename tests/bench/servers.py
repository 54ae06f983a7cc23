"""What a server costs: python -m tests.bench.servers [ROUND_TRIP_MS]. Needs an sshd; all of it over real ssh on loopback.

Figures are medians, over a proxy that delays by the round trip (default: both 0 and 40 ms).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine import demo
from engine.datasets import registry
from engine.servers import anywhere, boxes, shipping, ssh
from engine.servers.fleet import Fleet
from engine.servers.link import Link
from engine.servers.shipping import Content
from engine.servers.watching import watching
from engine.versions import Workspace
from tests.played import until
from tests.servers.far import Far
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd

SERVERS = 8
FILES, FILE_BYTES = 5000, 30_000
EVENT = {"kind": "step", "epoch": 3, "step": 1234, "losses": {"box": 1.234, "cls": 0.81, "dfl": 1.1}, "lr": 0.0091}


def median(times: int, work: Callable[[], object]) -> float:
    """In ms."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def connect(target: ssh.Target, root: Path) -> None:
    with Link(lambda: ssh.open(target), root=str(root)) as link:
        link.call("hello")


def line(name: str, value: str) -> None:
    print(f"  {name:<44} {value}", flush=True)


def one_server(target: ssh.Target, root: Path, proxy: Proxy) -> None:
    line("connect and first answer", f"{median(5, lambda: connect(target, root)):.0f} ms")
    with Link(lambda: ssh.open(target), root=str(root)) as link:
        link.call("hello")
        run = root / "runs" / "bench"
        run.mkdir(parents=True, exist_ok=True)
        (run / "events.jsonl").write_text("")
        line("status, link up", f"{median(50, lambda: link.call('status', rids=['bench'])):.2f} ms")
        line("probe, link up", f"{median(10, lambda: link.call('probe')):.1f} ms")
        streamed(link, run)
        live(link, run, proxy)
        pushed(link)


def streamed(link: Link, run: Path) -> None:
    """A log that is there already, as after a night away."""
    text = json.dumps({**EVENT, "t": time.time()}) + "\n"
    count = 300_000
    (run / "events.jsonl").write_text(text * count)
    began, at = time.perf_counter(), 0
    while True:
        data = link.call("read", rid="bench", stream="events", offset=at, limit=1 << 20, wait=0.0).body
        at += len(data)
        if not data:
            break
    took = time.perf_counter() - began
    line(f"{count:,} events caught up with", f"{count / took / 1e6:.2f} M/s, {at / took / 1e6:.0f} MB/s")


def live(link: Link, run: Path, proxy: Proxy) -> None:
    """A run that writes 10 events a second, watched for 5 s: how late they come, and what goes over the link."""
    path = run / "events.jsonl"
    path.write_text("")
    ended = threading.Event()

    def write() -> None:
        with path.open("a") as f:
            while not ended.wait(0.1):
                f.write(json.dumps({**EVENT, "t": time.time()}) + "\n")
                f.flush()

    threading.Thread(target=write, daemon=True).start()
    late, at, end = [], 0, time.monotonic() + 5
    before = sum(proxy.moved.values())
    while time.monotonic() < end:
        data = link.call("read", rid="bench", stream="events", offset=at, limit=1 << 20, wait=2.0).body
        at += len(data)
        if data:
            late.append((time.time() - json.loads(data.splitlines()[-1])["t"]) * 1000)
    ended.set()
    line("an event's way to the screen's log, median", f"{statistics.median(late):.0f} ms")
    over = sum(proxy.moved.values()) - before
    line(
        "a live run of 10 events a second", f"{at / 5 / 1000:.1f} kB/s of log, {over / 5 / 1000:.1f} kB/s over the link"
    )


def pushed(link: Link) -> None:
    contents = {}
    for number in range(FILES):
        each = Content.of(number.to_bytes(4, "big") + os.urandom(FILE_BYTES - 4))
        contents[each.digest] = each
    began = time.perf_counter()
    sent = shipping.send(link, contents)
    took = time.perf_counter() - began
    line(f"{FILES:,} files of {FILE_BYTES // 1000} kB pushed", f"{took:.2f} s, {sent.bytes / took / 1e6:.0f} MB/s")
    began = time.perf_counter()
    shipping.send(link, contents)
    line("the same again: nothing to send", f"{time.perf_counter() - began:.2f} s")


def fleet(config: str, folder: Path) -> None:
    """Eight servers from nothing to seen, then how long one look at all of them takes."""
    os.environ["DOJANG_SSH_CONFIG"] = config
    workspace = Workspace(folder / "workspace").ensure()
    for number in range(SERVERS):
        data = {"name": f"s{number}", "host": "box", "root": str(folder / f"root{number}")}
        boxes.add(workspace.path, boxes.make(data))
    found = Fleet(workspace)
    began = time.perf_counter()
    found.attend()

    def seen() -> int:
        return sum(1 for s in found.sights() if s.name and s.machine)

    while seen() < SERVERS:
        time.sleep(0.005)
    line(f"{SERVERS} servers, from not connected to seen", f"{(time.perf_counter() - began) * 1000:.0f} ms")
    links = [link for number in range(SERVERS) if (link := found.link(f"s{number}"))]

    def probe_all() -> None:
        threads = [threading.Thread(target=lambda link=link: link.call("probe")) for link in links]  # type: ignore[misc]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    line(f"{SERVERS} servers probed, links up", f"{median(10, probe_all):.0f} ms")
    found.close()


def attached(config: str, folder: Path) -> None:
    """A training that goes on, come back to: from opening the workspace to its newest events."""
    os.environ["DOJANG_SSH_CONFIG"] = config
    workspace = Workspace(folder / "workspace").ensure()
    demo.draw(folder / "pictures", images=10, size=32, val=0.2)
    registry.add(workspace.path, folder / "pictures", "shapes")
    far = Far(workspace, folder, "box")
    version = far.version("shapes", "wait")
    try:
        anywhere.start(version)
        took, began = [], time.perf_counter()
        with watching(workspace):
            until(lambda: version.progress().step > 0, 60)
        line("from yes to the first live step (played)", f"{time.perf_counter() - began:.1f} s")
        for _ in range(3):
            time.sleep(1)
            size, began = version.events.stat().st_size, time.perf_counter()
            with watching(workspace):
                until(lambda size=size: version.events.stat().st_size > size, 60)  # type: ignore[misc]
            took.append((time.perf_counter() - began) * 1000)
        line("coming back to it, to its newest events", f"{statistics.median(took):.0f} ms")
    finally:
        far.end()


def main(argv: list[str]) -> None:
    trips = [float(a) for a in argv] or [0.0, 40.0]
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as temp, Sshd(Path(temp) / "sshd") as sshd:
        for trip in trips:
            print(f"round trip {trip:g} ms", flush=True)
            with Proxy(sshd.port, delay=trip / 2000) as proxy:
                folder = Path(temp) / f"at{trip:g}"
                target = sshd.target(proxy.port)
                one_server(target, folder / "one", proxy)
                fleet(target.config, folder / "many")
                attached(target.config, folder / "back")


if __name__ == "__main__":
    main(sys.argv[1:])
