"""How many images fit: the arithmetic, and the measuring on a GPU that is played by counting."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import DojangError
from engine.training import memory

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "images", "gpus", "expected"),
    [
        (10, 1000, 1, 16),  # 8 GiB usable, less 1.5 fixed and 0.36 of moments: 12 … of half a GiB each
        (24, 1000, 1, 32),
        (24, 1000, 4, 128),
        (24, 20, 1, 16),
        (139, 100_000, 1, 216),
        (1000, 100_000, 1, 256),
        (2.5, 1000, 1, 1),
    ],
)
def test_what_fits(free: float, images: int, gpus: int, expected: int) -> None:
    low, high = int(2.5 * GIB), int(3.5 * GIB)  # half a GiB an image, 1.5 for everything else
    size, text = memory.choose(low, high, int(free * GIB), 30_000_000, images, gpus)
    each = 0.5 * size / gpus + 1.5 + 0.336
    assert size % gpus == 0 and (size == gpus or each <= free * memory.USED)
    assert size <= expected and size >= expected // 2 and "0.50 GiB" in text


def test_not_even_the_smallest(monkeypatch: Any) -> None:
    import torch

    def fails(*_: Any) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(memory, "peak", fails)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (GIB, 2 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: 0)
    from engine.training.environment import Precision

    with pytest.raises(DojangError) as caught:
        memory.fitting_batch(None, Precision("off", torch.device("cpu")), 10, 1)  # type: ignore[arg-type]
    assert caught.value.code == "OOM_GPU" and "1.0 GiB" in caught.value.message
