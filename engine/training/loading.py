"""The processes that load images: how they start, and how they end with the training whatever ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset

from engine.processes import end_with_parent

if TYPE_CHECKING:
    import torch


def context() -> Any:
    """How processes are started. Forked ones share the labels of a large data set instead of each getting a copy."""
    return multiprocessing.get_context("fork") if sys.platform == "linux" else None


def loader(data: Dataset[Any], workers: int, prefetch: int, device: torch.device, **how: Any) -> DataLoader[Any]:
    """Batches of `data` for `device`, `prefetch` of them ahead in each process; `how` as for torch's own."""
    return DataLoader(
        data,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=begin,
        multiprocessing_context=context() if workers else None,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        **how,
    )


def end(stream: Any, loaders: Iterable[DataLoader[Any]]) -> None:
    """End the processes behind an iterator and behind loaders that keep theirs, now.

    Left to the garbage collector, which an exception's traceback delays, each of them takes five seconds to end.
    """
    for iterator in (stream, *(loader._iterator for loader in loaders)):
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


def begin(_worker: int) -> None:
    """First thing in each process.

    It lets go of the run's lock, which would otherwise look held after the training is gone; forgets the training's
    signal handlers, of which SIGTERM's would write a stop request; and asks the kernel to end it with the training.
    """
    lock = os.environ.get("DOJANG_LOCK_FD", "")
    if lock.isdigit():
        try:
            os.close(int(lock))
        except OSError:
            pass
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if os.getppid() == 1:  # it died before we asked
        os._exit(1)
