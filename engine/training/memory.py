"""How much GPU memory a step takes, measured: how many images fit at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.errors import DojangError
from engine.training import environment
from engine.training.failures import short_of_memory

if TYPE_CHECKING:
    from engine.training.environment import Precision
    from engine.training.session import Session

USED = 0.8  # of the free memory: fragments, libraries' workspaces and denser batches need the rest
LARGEST = 256  # images a GPU: beyond, larger batches learn worse rather than faster
PER_WEIGHT = 4 * 3  # bytes of what is not there before the first update: two moments, and the averaged copy
TRIALS = (2, 4)  # images; their difference is what one image more takes


def fitting_batch(session: Session, precision: Precision, images: int, gpus: int) -> tuple[int, str]:
    """Images a step that fit, over all `gpus`, and what to tell the person.

    Raises DojangError(OOM_GPU) when not even the smallest trial fits.
    """
    device = precision.device
    environment.free(device)
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_allocated(device)
    try:
        low, high = (peak(session, precision, count) for count in TRIALS)
    except Exception as e:
        if short_of_memory(e) is None:
            raise
        raise DojangError(
            f"Not even {TRIALS[-1]} images fit into the {free / environment.GIB:.1f} GiB of memory that are free.",
            code="OOM_GPU",
            hint="Free the GPU, or train a new version with a lower image_size or a smaller model.",
        ) from e
    return choose(low, high, free + held, _weights(session), images, gpus)


def choose(low: int, high: int, free: int, weights: int, images: int, gpus: int) -> tuple[int, str]:
    """The batch for peaks of `low` and `high` bytes at the two `TRIALS`, where `free` bytes are to be had."""
    each = max(1.0, (high - low) / (TRIALS[1] - TRIALS[0]))
    rest = free * USED - (low - each * TRIALS[0]) - weights * PER_WEIGHT
    fitting = int(min(max(rest / each, 1), LARGEST, max(1, images // gpus)))
    step = 8 if fitting >= 16 else 2 if fitting >= 4 else 1
    size = fitting // step * step
    text = (
        f"Batch size {size * gpus}{f' ({size} on each of {gpus} GPUs)' if gpus > 1 else ''}: an image takes about "
        f"{each / environment.GIB:.2f} GiB, {free / environment.GIB:.1f} GiB are free."
    )
    return size * gpus, text


def peak(session: Session, precision: Precision, count: int) -> int:
    """Bytes allocated at most while `count` of the densest images go forward and backward. Nothing is left behind."""
    device, model = precision.device, session.model
    buffers = [b.clone() for b in model.buffers()]
    model.train()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with precision.autocast():
            loss, _ = session.loss(session.densest(count))
        loss.backward()
        return int(torch.cuda.max_memory_allocated(device))
    finally:
        model.zero_grad()
        with torch.no_grad():
            for b, before in zip(model.buffers(), buffers, strict=True):
                b.copy_(before)
        environment.free(device)


def _weights(session: Session) -> int:
    return sum(p.numel() for p in session.model.parameters() if p.requires_grad)
