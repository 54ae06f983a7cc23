"""Images that belong together: the same file twice, and near-identical looks, so that no split tears them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.datasets.looks import ALIKE, COARSE, POSSIBLE, SIDE, unit_vectors

if TYPE_CHECKING:
    import numpy

BLOCK = 1024  # images compared with as many at once
PAIRS = 65_536  # close pairs looked at more closely at once


class Unions:
    """Which numbers are one group, as pairs are told; the smallest number of each stands for it."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, i: int) -> int:
        while self._above[i] != i:
            self._above[i] = self._above[self._above[i]]
            i = self._above[i]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.root(i), self.root(j)))
        self._above[high] = low

    def roots(self) -> list[int]:
        return [self.root(i) for i in range(len(self._above))]


def same_files(digests: Sequence[bytes]) -> Unions:
    """Groups of the same file."""
    groups, first = Unions(len(digests)), dict[bytes, int]()
    for i, digest in enumerate(digests):
        groups.join(first.setdefault(digest, i), i)
    return groups


def join_alike(groups: Unions, looks: Sequence[bytes], tick: Callable[[int, int], None] | None = None) -> None:
    """Join images that look alike in any of eight orientations; those without a look stay alone.

    Every image is compared with every other, on a coarse grid first, blocks at a time: memory does not grow with the
    square of their number. `tick` is called with blocks done and in all.
    """
    import numpy as np

    seen = [i for i, look in enumerate(looks) if look]
    # of one group one look is enough where the files are the same
    seen = list({groups.root(i): i for i in reversed(seen)}.values())[::-1]
    if not seen:
        return
    shown = [looks[i] for i in seen]
    rough = np.concatenate([unit_vectors(shown[at : at + BLOCK], COARSE) for at in range(0, len(shown), BLOCK)])
    blocks = range(0, len(shown), BLOCK)
    for number, start in enumerate(blocks, 1):
        part = shown[start : start + BLOCK]
        for way in range(8):
            turned = unit_vectors(part, COARSE, way)
            for at in range(start, len(shown), BLOCK):  # the eight orientations undo each other: half is enough
                rows, columns = np.nonzero(turned @ rough[at : at + BLOCK].T >= POSSIBLE)
                _join_close(groups, seen, shown, rows + start, columns + at, way)
        if tick:
            tick(number, len(blocks))


def _join_close(
    groups: Unions,
    seen: list[int],
    shown: list[bytes],
    rows: numpy.ndarray[Any, Any],
    columns: numpy.ndarray[Any, Any],
    way: int,
) -> None:
    import numpy as np

    apart = np.array([groups.root(i) for i in seen]) if len(rows) > PAIRS else None
    keep = rows < columns if apart is None else (rows < columns) & (apart[rows] != apart[columns])
    pairs = np.stack((rows[keep], columns[keep]), 1)
    for at in range(0, len(pairs), PAIRS // (SIDE * 4)):
        some = [
            (i, j)
            for i, j in pairs[at : at + PAIRS // (SIDE * 4)].tolist()
            if groups.root(seen[i]) != groups.root(seen[j])
        ]
        if some:
            left = unit_vectors([shown[i] for i, _ in some], SIDE, way)
            right = unit_vectors([shown[j] for _, j in some], SIDE)
            for (i, j), alike in zip(some, ((left * right).sum(1) >= ALIKE).tolist(), strict=True):
                if alike:
                    groups.join(seen[i], seen[j])
