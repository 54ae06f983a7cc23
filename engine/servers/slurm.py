"""Slurm on a server, from here: what its partitions have free, and what a training is submitted with.

What happens there is in `batch` (on the login node) and `slurm_job` (on the node that trains).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import DojangError, NotFound
from engine.servers import entries, local
from engine.servers.boxes import Box
from engine.servers.entries import NONE, Entry
from engine.servers.link import Link
from engine.servers.link_errors import NoSlurm, SchedulerDown, plain

if TYPE_CHECKING:
    from engine.spec import Spec

TIMEOUT = 25.0  # s: Slurm's own programs have 10 each
USABLE = frozenset({"idle", "mixed", "allocated", "completing", "mix", "alloc", "comp"})
FLAGS = "*~#!%$@^-+"


@dataclass(frozen=True)
class Partition:
    """One entry of a server's, as it is now. `state`: up, down, or empty where Slurm did not tell: `trouble` says why.

    GPUs count where nodes can be used; `waiting` are pending jobs, everybody's that may be seen.
    """

    name: str
    partition: str
    state: str = ""
    gpus_free: int = 0
    gpus_total: int = 0
    nodes_idle: int = 0
    nodes_total: int = 0
    waiting: int = 0
    time_limit: str = ""
    trouble: str = ""

    @property
    def words(self) -> str:
        """All of it in a line."""
        if self.trouble:
            return self.trouble
        gpus = f"{self.gpus_free} of {self.gpus_total} GPUs free, " if self.gpus_total else ""
        nodes = f"{self.nodes_idle} of {self.nodes_total} nodes idle"
        waits = f", {self.waiting} {'job waits' if self.waiting == 1 else 'jobs wait'}" if self.waiting else ""
        minutes = " min" if self.time_limit.isdecimal() else ""
        limit = f", at most {self.time_limit}{minutes}" if self.time_limit else ""
        return f"{'' if self.state == 'up' else 'down: '}{gpus}{nodes}{waits}{limit}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def partitions(link: Link, box: Box) -> list[Partition]:
    """Every entry of a server's, in one round trip. Raises LinkError for the link's own troubles, not for Slurm's."""
    if not box.slurm:
        return []
    wanted = sorted({e.partition for e in box.slurm})
    try:
        found = dict(link.call("slurm", partitions=wanted, timeout=TIMEOUT))
    except (NoSlurm, SchedulerDown) as e:
        return [Partition(e_.name, e_.partition, trouble=f"{e.sentence} ({e.cause})") for e_ in box.slurm]
    rows = [_row(row) for row in found.get("rows") or () if isinstance(row, list)]
    waiting = found.get("waiting")
    counts = waiting if isinstance(waiting, dict) else {}
    return [_partition(e, [r for r in rows if r and r["name"] == e.partition], counts) for e in box.slurm]


def _row(parts: list[Any]) -> dict[str, str]:
    names = ("name", "state", "gres", "used", "nodes", "limit", "available")
    if len(parts) != len(names):
        return {}
    told = dict(zip(names, (plain(str(p), 300) for p in parts), strict=True))
    return {**told, "name": told["name"].rstrip("*")}


def _partition(entry: Entry, rows: list[dict[str, str]], waiting: dict[str, Any]) -> Partition:
    if not rows:
        return Partition(entry.name, entry.partition, trouble=f"Slurm knows no partition “{entry.partition}” there.")
    total = free = idle = nodes = 0
    for row in rows:
        count = int(row["nodes"]) if row["nodes"].isdecimal() else 0
        state = row["state"].lower()
        nodes += count
        if state.rstrip(FLAGS) not in USABLE or "*" in state:
            continue
        idle += count if state.rstrip(FLAGS) == "idle" else 0
        have, used = (gpus_of(row[what], entry.gres) for what in ("gres", "used"))
        total += count * have
        free += count * max(0, have - used)
    pending = waiting.get(entry.partition)
    return Partition(
        name=entry.name,
        partition=entry.partition,
        state="up" if rows[0]["available"] == "up" else "down",
        gpus_free=free,
        gpus_total=total,
        nodes_idle=idle,
        nodes_total=nodes,
        waiting=pending if isinstance(pending, int) else 0,
        time_limit=entry.time or ("" if rows[0]["limit"] == "infinite" else rows[0]["limit"]),
    )


def gpus_of(text: str, gres: str) -> int:
    """How many of `gres` a node has, as sinfo tells: `gpu:a100:4(S:0-1),gpu:v100:2`, or `gpu:a100:1(IDX:0)`."""
    kind, _, model = gres.partition(":")
    count = 0
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        words = part.split(":")
        if words[0] != kind or gres == NONE or (model and (len(words) < 3 or words[1] != model)):
            continue
        number = words[-1] if len(words) > 1 else "1"
        count += int(number) if number.isdecimal() else 0
    return count


def entry_of(box: Box, name: str) -> Entry:
    """The entry of that name. Raises NotFound."""
    found = next((e for e in box.slurm if e.name == name), None)
    if found is None:
        names = ", ".join(f"{box.name}/{e.name}" for e in box.slurm)
        hint = (
            f"There are: {names}." if names else f"Add one: dojang server add {box.name} --replace --slurm partition=P"
        )
        raise NotFound(f"“{box.name}” has no Slurm entry “{entries.shown(name)}”.", hint=hint)
    return found


def gpus_needed(entry: Entry, spec: Spec) -> int:
    """How many GPUs a training asks Slurm for. Raises DojangError(BAD_SPEC)."""
    gpus, first = local.needed(spec)
    if first is not None:
        raise DojangError(
            f"Slurm chooses the GPU itself, so {spec.device} cannot be asked for there.",
            code="BAD_SPEC",
            hint="Train with device=auto.",
        )
    return 0 if entry.gres == NONE else gpus


def submission(entry: Entry, spec: Spec) -> dict[str, Any]:
    """What the agent's submit takes as `slurm`. Raises DojangError(BAD_SPEC)."""
    wanted: Sequence[str] = entries.options(entry, gpus_needed(entry, spec), spec.gpus)
    return {"options": list(wanted), "margin": entry.margin}


__all__ = ["Partition", "entry_of", "gpus_needed", "partitions", "submission"]
