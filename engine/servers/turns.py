"""Whose turn it is: what each training on a machine needs, who has it, why the others wait, and for how long.

Pure: the files are the business of `queue`. Stdlib only, Python 3.8 and later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Mapping, Sequence  # noqa: UP035 - Python 3.8

CPU = "cpu"
NEVER = float("inf")


@dataclass(frozen=True)
class Request:
    """What a training needs: `count` GPUs, any of them or from number `first` on; 0: its turn on the CPU.

    `visible` is what CUDA_VISIBLE_DEVICES said where it was asked for; numbers count within it.
    """

    count: int = 1
    first: int | None = None
    visible: str | None = None

    @property
    def need(self) -> int:
        """How many leases that takes."""
        return max(1, self.count)

    def pool(self, uuids: Sequence[str]) -> tuple[str, ...]:
        """The GPUs that it may see, in the order in which it counts them."""
        if self.visible is None:
            return tuple(uuids)
        found: list[str] = []
        for entry in (e.strip() for e in self.visible.split(",")):
            if entry.isdigit():
                name = uuids[int(entry)] if int(entry) < len(uuids) else ""
            else:
                part_of_one = entry if entry.startswith("MIG-") else ""
                name = next((u for u in uuids if entry and u.startswith(entry)), part_of_one)
            if not name:  # as CUDA does: what follows one that is not there is not seen
                break
            found.append(name)
        return tuple(dict.fromkeys(found))

    def choices(self, uuids: Sequence[str]) -> tuple[str, ...]:
        """The leases of which it takes `need`."""
        if not self.count:
            return (CPU,)
        pool = self.pool(uuids)
        return pool if self.first is None else pool[self.first : self.first + self.count]


@dataclass(frozen=True)
class Waiting:
    """One that waits. `ahead`: how many it waits behind; `free`: how many of the GPUs that it could use are free."""

    id: str
    title: str
    run_dir: str
    pid: int
    since: float
    request: Request
    held: bool = False
    regardless: bool = False
    cancelled: bool = False
    choices: tuple[str, ...] = ()
    ahead: int = 0
    free: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Lease:
    """One GPU (or the CPU) that is trained on. `title` and `run_dir` are empty where its holder left no word."""

    name: str
    title: str = ""
    run_dir: str = ""
    pid: int = 0
    since: float = 0.0


@dataclass(frozen=True)
class View:
    """The whole queue at one moment. `others` says who else computes on a GPU; `uuids` are in nvidia-smi's order."""

    uuids: tuple[str, ...] = ()
    leases: dict[str, Lease] = field(default_factory=dict)
    waiting: tuple[Waiting, ...] = ()
    others: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ahead_of(view: View, mine: Waiting) -> list[Waiting]:
    """Those before it that could use a GPU that it could use too: it waits behind each of them."""
    found = []
    for other in view.waiting:
        if other.id == mine.id:
            break
        if not (other.held or other.cancelled) and set(other.choices) & set(mine.choices):
            found.append(other)
    return found


def may_take(view: View, mine: Waiting) -> list[str]:
    """Its GPUs that nobody has, nobody before it may want, and nobody else computes on."""
    wanted = {name for other in ahead_of(view, mine) for name in other.choices}
    return [name for name in _free(view, mine) if name not in wanted]


def explained(view: View) -> View:
    """The same with the reason of each that waits."""
    return replace(view, waiting=tuple(_explained(view, w) for w in view.waiting))


def outlook(view: View, request: Request) -> str:
    """What would come of asking for a turn now."""
    mine = Waiting("", "", "", 0, 0.0, request, choices=request.choices(view.uuids))
    mine = explained(replace(view, waiting=(*view.waiting, mine))).waiting[-1]
    if len(mine.choices) < request.need:
        there = len(request.pool(view.uuids))
        return f"never: this machine has {there} GPU{'' if there == 1 else 's'} for it"
    return "at once" if len(may_take(view, mine)) >= request.need else mine.reason


def _free(view: View, mine: Waiting) -> list[str]:
    taken = set(view.leases) | (set() if mine.regardless else set(view.others))
    return [name for name in mine.choices if name not in taken]


def _explained(view: View, mine: Waiting) -> Waiting:
    told = replace(mine, ahead=len(ahead_of(view, mine)), free=len(_free(view, mine)))
    return replace(told, reason=_reason(view, told))


def _reason(view: View, mine: Waiting) -> str:
    if mine.cancelled:
        return "is being taken out of the queue"
    if mine.held:
        return "is held: others go first"
    parts = [f"waits for {_needed(mine.request)}"]
    if mine.request.count and mine.choices:
        parts.append(f"{mine.free or 'none'} free")
    used = [view.others[name] for name in mine.choices if name in view.others]
    if used and not mine.regardless and mine.free < mine.request.need:
        parts.append(f"others compute there: {', '.join(used)}")
    if mine.ahead:
        parts.append(f"behind {mine.ahead} {'training' if mine.ahead == 1 else 'trainings'}")
    return "; ".join(parts)


def _needed(request: Request) -> str:
    count, first = request.count, request.first
    if not count:
        return "its turn on the CPU"
    if first is None:
        return f"{count} GPU{'' if count == 1 else 's'}"
    return f"GPU {first}" if count == 1 else f"GPUs {first} to {first + count - 1}"


def forecast(
    view: View, left: Mapping[str, float | None], takes: Mapping[str, float | None]
) -> dict[str, float | None]:
    """In how many seconds each that waits may start, by ticket; None where that cannot be known.

    `left` are the seconds that those who train still need, `takes` those that the waiting ones will, by run directory.
    """
    until = {name: 0.0 for w in view.waiting for name in w.choices}
    until.update({name: _known(left.get(lease.run_dir)) for name, lease in view.leases.items()})
    until.update(dict.fromkeys(view.others, NEVER))
    earliest: dict[str, float] = {}  # before which nobody later may start on that GPU
    found: dict[str, float | None] = {}
    for w in view.waiting:
        found[w.id] = None
        if w.held or w.cancelled or len(w.choices) < w.request.need:
            continue
        first_free = sorted(w.choices, key=lambda name: until[name])[: w.request.need]
        start = max(*(until[n] for n in first_free), *(earliest.get(n, 0.0) for n in w.choices))
        found[w.id] = None if start == NEVER else start
        until.update(dict.fromkeys(first_free, start + _known(takes.get(w.run_dir))))
        earliest.update(dict.fromkeys(w.choices, start))
    return found


def _known(seconds: float | None) -> float:
    return NEVER if seconds is None else max(0.0, seconds)
