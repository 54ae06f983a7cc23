"""How much of what is left to chance is played: all of it with DOJANG_THOROUGH=1, else a part, so that a run stays short."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("DOJANG_THOROUGH"))


def part_of(seeds: range, few: int) -> range:
    return seeds if THOROUGH else seeds[:few]


__all__ = ["THOROUGH", "part_of"]
