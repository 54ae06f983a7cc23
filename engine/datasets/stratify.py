"""Dividing groups of images so that every split gets its share of every class, the same way on every machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

SWAPS = 40  # at most
LOOKED_AT = 512  # units of a split that a swap is sought among


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that stay together. Units come in the order that the seed draws."""

    size: int  # images
    objects: tuple[tuple[int, int], ...]  # class and how many objects of it

    @property
    def classes(self) -> list[int]:
        return [cls for cls, _ in self.objects] or [-1]


def deal(units: Sequence[Unit], shares: Sequence[float], stratified: bool = True) -> list[int]:
    """The split, 0 to 2, of each unit. Only the units, their order and `shares` (1 in all) decide."""
    total = sum(unit.size for unit in units)
    room = [total * share for share in shares]
    if not stratified:
        return [_take(unit, room) for unit in units]
    waiting: dict[int, dict[int, None]] = defaultdict(dict)
    for i, unit in enumerate(units):
        for cls in unit.classes:
            waiting[cls][i] = None
    lacking = {c: [share * sum(units[i].size for i in found) for share in shares] for c, found in waiting.items()}
    parts = [0] * len(units)
    while waiting:
        rarest = min(waiting, key=lambda c: (len(waiting[c]), c))
        for i in sorted(waiting[rarest], key=lambda i: -units[i].size):  # stable: lots break ties
            open_to = [s for s in range(3) if shares[s]]
            fits = [s for s in open_to if room[s] >= units[i].size - 0.5] or [max(open_to, key=room.__getitem__)]
            best = max(fits, key=lambda s: (lacking[rarest][s], room[s], -s))
            parts[i] = best
            room[best] -= units[i].size
            for cls in units[i].classes:
                lacking[cls][best] -= units[i].size
                del waiting[cls][i]
        waiting = defaultdict(dict, {c: found for c, found in waiting.items() if found})
    _refine(units, shares, parts)
    return parts


def _take(unit: Unit, room: list[float]) -> int:
    best = max(range(3), key=lambda s: (room[s], -s))
    room[best] -= unit.size
    return best


def _refine(units: Sequence[Unit], shares: Sequence[float], parts: list[int]) -> None:
    """Swap units of one size between splits while that brings the numbers of objects closer to their shares."""
    have: list[Counter[int]] = [Counter(), Counter(), Counter()]
    shown: list[Counter[int]] = [Counter(), Counter(), Counter()]  # units that show a class
    members: list[list[int]] = [[], [], []]
    for i, unit in enumerate(units):
        have[parts[i]].update(dict(unit.objects))
        shown[parts[i]].update(cls for cls, _ in unit.objects)
        if len(members[parts[i]]) < LOOKED_AT:
            members[parts[i]].append(i)
    whole = have[0] + have[1] + have[2]

    def gain(i: int, j: int) -> float:
        """How much nearer swapping `i` and `j` brings their splits; nothing where a class would be lost from one."""
        a, b = parts[i], parts[j]
        change = Counter(dict(units[j].objects))
        change.subtract(dict(units[i].objects))
        lost = 0.0
        for cls in sorted(change):
            by = change[cls]
            for s, step, leaving, coming in ((a, by, i, j), (b, -by, j, i)):
                off = have[s][cls] - shares[s] * whole[cls]
                lost += ((off + step) ** 2 - off**2) / shares[s] ** 2
                gone = any(c == cls for c, _ in units[leaving].objects) and all(
                    c != cls for c, _ in units[coming].objects
                )
                if gone and shown[s][cls] == 1:
                    return 0.0
        return -lost

    for turn in range(SWAPS):
        small = 1 + turn % 2
        pairs = [(p, q) for p in range(len(members[small])) for q in range(min(32, len(members[0])))]
        best = (1e-9, -1, -1)
        for p, q in pairs[: 64 * 32]:
            i, j = members[small][(p + turn) % len(members[small])], members[0][(q + 32 * turn) % len(members[0])]
            if units[i].size == units[j].size and units[i].objects != units[j].objects:
                better = gain(i, j)
                best = max(best, (better, i, j), key=lambda found: found[0])
        if best[1] >= 0:
            i, j = best[1:]
            a, b = parts[i], parts[j]
            for s, out, into in ((a, i, j), (b, j, i)):
                have[s].subtract(dict(units[out].objects))
                have[s].update(dict(units[into].objects))
                shown[s].subtract(c for c, _ in units[out].objects)
                shown[s].update(c for c, _ in units[into].objects)
            parts[i], parts[j] = b, a
            members[a][members[a].index(i)], members[b][members[b].index(j)] = j, i
