"""Failures of the libraries, in plain words with what to do. The traceback goes to the log all the same."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.errors import DojangError
from engine.files import disk_error
from engine.training.data import missing_images
from engine.training.session import UnreadableImage
from engine.worker import Job

GPU_MEMORY = (
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine",
)
HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "is killed by signal: Killed")
SHARED_MEMORY = ("killed by signal: Bus error", "unable to write to file </torch", "No space left on device (28)")
LOST = ("CUDA error", "CUDNN_STATUS", "NVML", "device-side assert", "unspecified launch failure")


@contextmanager
def explained(job: Job) -> Iterator[None]:
    """Turn what torch and the operating system raise into DojangError, where a person can do something about it."""
    try:
        yield
    except UnreadableImage as e:
        # From a loading process the text arrives wrapped in that process's traceback.
        path = str(e).strip().rpartition(f"{UnreadableImage.__name__}: ")[2].splitlines()[0]
        raise missing_images(job.spec.dataset, [path]) from e
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
            "The machine ran out of memory.",
            code="OOM_HOST",
            hint="Lower workers and resume; or train a new version with a lower batch_size or image_size.",
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
