"""What a training would meet on a server, step by step: the link, Python, disk, GPUs, what happens at logout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import DojangError
from engine.servers import environment, links, slurm
from engine.servers.boxes import Box
from engine.servers.environment import GIB, Far
from engine.servers.far_queue import gpu_of
from engine.servers.link import Link
from engine.servers.link_errors import plain

TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing looked at. What is not `fine` keeps a version from training there; `details` is what a `LinkError` has."""

    name: str
    text: str
    fine: bool = True
    hint: str = ""
    code: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def steps(box: Box) -> Iterator[Step]:
    """Each step as it is known; the rest is left out where the server cannot be reached."""
    with links.shared(box) as link:
        try:
            hello, probe = dict(link.call("hello", timeout=TIMEOUT)), dict(link.call("probe", timeout=TIMEOUT))
        except DojangError as e:
            yield Step("login", e.message, False, e.hint, e.code, dict(getattr(e, "details", {})))
            return
        yield from of_answers(box, hello, probe, link)


def of_answers(box: Box, hello: dict[str, Any], probe: dict[str, Any], link: Link | None = None) -> Iterator[Step]:
    """The steps that follow from what the agent told."""
    far = Far.of(hello, probe)
    took = link.state.round_trip if link else None
    quick = f", {took:.0f} ms there and back" if took is not None else ""
    who = plain(f"{hello.get('user', '')}@{hello.get('host', '')}", 80)
    yield Step("login", f"{who}{quick}")
    version = ".".join(map(str, far.python))
    system = plain(str(hello.get("system", "")), 20)
    yield Step("agent", plain(f"Python {version}, {system} {far.arch}, glibc {far.glibc or '?'}", 120))
    yield _disk(box, far)
    yield from _gpus(far, probe)
    yield _logout(hello)
    if box.python:
        yield Step("python", f"{plain(far.path(box.python), 200)}, looked at when a training is prepared")
    if link and box.slurm:
        yield from _slurm(box, link)


def _disk(box: Box, far: Far) -> Step:
    text = f"{far.disk_free:.1f} GiB free at {plain(far.root, 120)}"
    least = environment.LEAST if far.drivers else environment.LEAST_CPU
    if box.python or far.disk_free * GIB >= least:
        return Step("disk", text)
    hint = (
        f"An environment takes about {least / GIB:.0f} GiB, unless one was made already: free some, or name a Python."
    )
    return Step("disk", text, False, hint)


def _gpus(far: Far, probe: dict[str, Any]) -> Iterator[Step]:
    note = plain(str(probe.get("gpu_note") or ""), 200)
    gpus = [g for each in environment.as_list(probe.get("gpus")) if (g := gpu_of(each))]
    if not gpus:
        yield Step("GPU", note or "none", not note or "No NVIDIA driver" in note or "sees no GPU" in note)
        return
    try:
        kind = environment.wheel_kind(far.drivers)
        yield Step("driver", f"{plain(far.drivers[0], 30)}, torch for {kind}")
    except DojangError as e:
        yield Step("driver", e.message, False, e.hint)
    for g in gpus:
        users = plain(", ".join(g.users), 200)
        text = f"{g.name}, {g.memory_free:.1f} of {g.memory_total:.1f} GiB free"
        yield Step(f"GPU {g.index}", text + (f", used by {users}" if users else ""))


def _slurm(box: Box, link: Link) -> Iterator[Step]:
    """What sinfo says of each way to submit there."""
    try:
        found = slurm.partitions(link, box)
    except DojangError as e:
        yield Step("Slurm", e.message, False, e.hint, e.code)
        return
    for p in found:
        fine = p.state == "up" and bool(p.nodes_total)
        yield Step(f"Slurm {p.name}", p.words, fine, "" if fine else "Ask sinfo there, or mend the entry.")


def _logout(hello: dict[str, Any]) -> Step:
    policy = hello.get("kill_policy")
    policy = policy if isinstance(policy, dict) else {}
    if not policy.get("kill_user_processes"):
        return Step("logout", "what runs goes on")
    if policy.get("linger"):
        return Step("logout", "the system ends what a login started; lingering is on, so trainings go on")
    text = "the system ends everything of yours when you log out"
    return Step("logout", text, False, "Run once on the server: loginctl enable-linger")


__all__ = ["Step", "of_answers", "steps"]
