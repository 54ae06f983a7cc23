"""Failures of the libraries, in plain words with what to do. The traceback goes to the log all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.errors import DojangError
from engine.files import disk_error
from engine.training.data import missing_images
from engine.training.session import DamagedPack, UnreadableImage
from engine.worker import Job

GPU_MEMORY = (
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine",
)
ALLOCATION = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
HOST_MEMORY = (*ALLOCATION, "is killed by signal: Killed")
HOST_TEXT = "The machine ran out of memory."
HOST_HINT = "Lower workers and resume; or train a new version with a lower batch_size or image_size."
SHARED_MEMORY = ("killed by signal: Bus error", "unable to write to file </torch", "No space left on device (28)")
PEERS = ("Connection closed by peer", "Connection reset by peer", "NCCL error", "ncclRemoteError", "Broken pipe")
LOST = ("CUDA error", "CUDNN_STATUS", "NVML", "device-side assert", "unspecified launch failure")


class ShortOfMemory(Exception):
    """A step did not fit into memory. The training can go on with smaller pieces of a batch."""

    def __init__(self, text: str, on_gpu: bool) -> None:
        super().__init__(text)
        self.on_gpu = on_gpu


def short_of_memory(e: Exception) -> ShortOfMemory | None:
    """`e` as a want of memory that smaller pieces may cure, or None when it is something else."""
    on_gpu = isinstance(e, torch.OutOfMemoryError) or any(sign in str(e) for sign in GPU_MEMORY)
    if not (on_gpu and isinstance(e, RuntimeError)) and not (
        isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and any(sign in str(e) for sign in ALLOCATION))
    ):
        return None
    found = ShortOfMemory(str(e), on_gpu)
    found.__cause__ = e.with_traceback(None)  # its frames would keep what did not fit alive
    return found


def memory_error(job: Job, on_gpu: bool) -> DojangError:
    """What to tell the person once smaller pieces are not to be had."""
    return _gpu_memory(job) if on_gpu else DojangError(HOST_TEXT, code="OOM_HOST", hint=HOST_HINT)


@contextmanager
def explained(job: Job) -> Iterator[None]:
    """Turn what torch and the operating system raise into DojangError, where a person can do something about it."""
    try:
        yield
    except UnreadableImage as e:
        raise missing_images(job.spec.dataset, [_own_text(e)]) from e
    except DamagedPack as e:
        raise DojangError(
            f"The prepared images in {_own_text(e)} are damaged on the disk.",
            code="BAD_FILE",
            hint=f"Resume: they are made again. Nothing else is lost. dojang resume {job.version.reference}",
        ) from e
    except torch.OutOfMemoryError as e:
        raise _gpu_memory(job) from e
    except RuntimeError as e:
        found = _runtime(job, str(e))
        if found is None:
            raise
        raise found from e
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_error(e, Path(e.filename or job.version.path)) from e


def _own_text(e: Exception) -> str:
    """What `e` said. From a loading process it arrives wrapped in that process's traceback."""
    return str(e).strip().rpartition(f"{type(e).__name__}: ")[2].splitlines()[0]


def _runtime(job: Job, text: str) -> DojangError | None:
    def says(signs: tuple[str, ...]) -> bool:
        return any(sign in text for sign in signs)

    if says(GPU_MEMORY):
        return _gpu_memory(job)
    if says(SHARED_MEMORY):
        return DojangError(
            "The processes that load images ran out of shared memory (/dev/shm).",
            code="OOM_HOST",
            hint="Give the container more (docker run --shm-size=8g) or set workers to 0, then resume.",
        )
    if says(HOST_MEMORY):
        return DojangError(
            HOST_TEXT,
            code="OOM_HOST",
            hint=HOST_HINT,
        )
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and says(PEERS):
        return DojangError(
            "One of the processes that trained together ended.",
            code="RANK_LOST",
            hint=f"Its last words: dojang log {job.version.reference}. Go on: dojang resume {job.version.reference}",
        )
    if says(LOST):
        return DojangError(
            f"The GPU failed: {text.strip().splitlines()[0][:200]}",
            code="DEVICE_LOST",
            hint=f"Go on from the last checkpoint: dojang resume {job.version.reference}",
        )
    return None


def _gpu_memory(job: Job) -> DojangError:
    spec = job.spec
    half = f"batch_size {spec.batch_size // 2}" if spec.batch_size > 1 else "a smaller model"
    return DojangError(
        f"The GPU ran out of memory with batch_size {spec.batch_size} at image_size {spec.image_size}.",
        code="OOM_GPU",
        hint=f"Train a new version with {half} or a lower image_size, or free the GPU of what else runs on it and resume.",
    )
