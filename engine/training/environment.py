"""What the libraries must find around them before they are imported, and what this machine computes with."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import DojangError
from engine.files import disk_error

if TYPE_CHECKING:
    import torch

    from engine.spec import Spec

GIB = 2**30


def prepare(cache: Path, threads: int | None) -> None:
    """Set what ultralytics and torch read once, at import: folders inside our cache, no network, no code from files."""
    count = str(threads or cores())
    own = {
        "YOLO_CONFIG_DIR": str(cache / "ultralytics"),
        "MPLCONFIGDIR": str(cache / "matplotlib"),
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "0",
        "YOLO_VERBOSE": "0",
        "ULTRALYTICS_SAFE_LOAD": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that cuda:N is the GPU that nvidia-smi calls N
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }
    os.environ.update(own)
    # Threads that wait by spinning stall each other for seconds as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        for name in ("YOLO_CONFIG_DIR", "MPLCONFIGDIR"):
            Path(own[name]).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise disk_error(e, cache) from e


def cores() -> int:
    """CPU cores that this process may really use: a container's quota counts, not the host's number."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for text in _limits("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            found = min(found, max(1, int(quota) // int(period)))
    return found


def free_memory() -> int:
    """Bytes that this process may still take, by the machine's count and its container's."""
    import psutil

    found = int(psutil.virtual_memory().available)
    for limit, used in zip(_limits("memory.max"), _limits("memory.current"), strict=False):
        if limit.isdigit() and used.isdigit():
            found = min(found, max(0, int(limit) - int(used)))
    return found


def _limits(name: str) -> list[str]:
    """What the control groups around this process say, outermost first; nothing where there are none (cgroup v2)."""
    root = Path("/sys/fs/cgroup")
    try:
        inner = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2].strip("/")
    except (OSError, IndexError):
        inner = ""
    found = []
    for folder in dict.fromkeys((root, root / inner)):
        try:
            found.append((folder / name).read_text().strip())
        except OSError:
            continue
    return found


def choose_device(wanted: str, processes: int = 1, number: int = 0) -> torch.device:
    """The device that the spec asks for; of several `processes` each its own GPU, from that one on, by `number`.

    Raises DojangError(BAD_DEVICE) saying which there are when it is not there.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto" and processes == 1:
        return torch.device("cuda", _most_free()) if count else torch.device("cpu")
    device = torch.device("cuda:0" if wanted == "auto" and count else "cpu" if wanted == "auto" else wanted)
    if device.type == "cuda":
        device = torch.device("cuda", (device.index or 0) + number)
    wanted = str(device)
    there = {"cpu": True, "cuda": (device.index or 0) < count, "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        names = ["cpu", *(f"cuda:{i}" for i in range(count)), *(["mps"] if there["mps"] else [])]
        raise DojangError(
            f"This machine has no {wanted}.",
            code="BAD_DEVICE",
            hint=f"Set device to auto or one of {', '.join(names)}.",
        )
    return device


def _most_free() -> int:
    """Index, as torch counts, of the GPU with the most free memory.

    The driver is asked first: asking through torch would leave half a GiB of context behind on every GPU.
    """
    import torch

    from engine.servers.inventory import gpus_now

    count = torch.cuda.device_count()
    if count == 1:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    names = [name.strip() for name in visible.split(",")]
    gpus = gpus_now()[0]
    free = [next((g.memory_free for g in gpus if name in (str(g.index), g.uuid)), None) for name in names[:count]]
    known = [f if f is not None else torch.cuda.mem_get_info(i)[0] / GIB for i, f in enumerate(free)]
    return known.index(max(known))


def device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def use(device: torch.device, threads: int, deterministic: bool = True) -> None:
    """Make `device` current and settle how torch computes on it.

    On a GPU the same seed gives the same training only with deterministic kernels; on a CPU they change no bit and
    cost an eighth of the time, so they stay off there.
    """
    import torch

    torch.set_num_threads(threads)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(on_gpu and deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = on_gpu and deterministic
    torch.utils.deterministic.fill_uninitialized_memory = not on_gpu


def memory(device: torch.device) -> float | None:
    """GiB that the training holds: reserved on the GPU, else the resident memory of this process; None if unknown."""
    import torch

    if device.type == "cuda":
        return round(torch.cuda.memory_reserved(device) / GIB, 3)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / GIB, 3)


def free(device: torch.device) -> None:
    """Give back memory that nothing uses any more."""
    import gc

    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def worker_count(spec: Spec, device: torch.device) -> int:
    """Processes that load images. On a CPU they would only take cores from the training itself."""
    if spec.workers is not None:
        return spec.workers
    return 0 if device.type == "cpu" else min(8, cores())


@dataclass(frozen=True)
class Precision:
    """How wide the arithmetic of training steps is: "off" is 32 bits throughout."""

    name: Literal["off", "fp16", "bf16"]
    device: torch.device

    @property
    def scaled(self) -> bool:
        """Whether gradients need scaling, lest small ones vanish: only 16-bit floats with a short exponent do."""
        return self.name == "fp16"

    @property
    def channels_last(self) -> bool:
        """Whether images are laid out channel by channel last: faster on CUDA, and on a CPU with bf16 (1.8×)."""
        return self.device.type == "cuda" or (self.device.type == "cpu" and self.name == "bf16")

    def autocast(self) -> AbstractContextManager[object]:
        import torch

        dtype = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}[self.name]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`wanted` as the spec spells it. Raises DojangError(BAD_DEVICE) for what the device cannot do."""
    import torch

    if wanted == "auto":
        return Precision("fp16" if device.type == "cuda" else "off", device)
    hint = "Set amp to auto or off."
    if wanted == "fp16" and device.type != "cuda":
        raise DojangError(f"16-bit floats (fp16) need a CUDA GPU, not {device.type}.", code="BAD_DEVICE", hint=hint)
    if wanted == "bf16" and device.type == "mps":
        raise DojangError("bf16 is for CUDA and the CPU, not mps.", code="BAD_DEVICE", hint=hint)
    if wanted == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DojangError(f"{device_name(device)} has no bf16.", code="BAD_DEVICE", hint=hint)
    return Precision("fp16" if wanted == "fp16" else "bf16" if wanted == "bf16" else "off", device)
