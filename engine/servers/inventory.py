"""What a machine has to train with: processor, memory, disk, GPUs and who uses them. Stdlib only, Python 3.8 and later."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterable  # noqa: UP035 - Python 3.8

GPU_QUERY = "index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu,driver_version"
TIMEOUT = 10.0
NO_DRIVER = "No NVIDIA driver here: training runs on the CPU."
NO_GPU = "The NVIDIA driver answers, but sees no GPU."


@dataclass(frozen=True)
class Gpu:
    """One GPU. Memory in GiB; `users` says who computes on it: “name (pid, GiB)”."""

    index: int
    uuid: str
    name: str
    memory_total: float
    memory_used: float
    utilization: int | None
    temperature: int | None
    driver: str
    users: tuple[str, ...] = ()

    @property
    def memory_free(self) -> float:
        return self.memory_total - self.memory_used


@dataclass(frozen=True)
class Machine:
    """A machine at one moment. Sizes in GiB. `gpu_note` says in words why no GPU is listed."""

    host: str
    system: str
    processor: str
    cores: int
    load: float | None
    memory_total: float
    memory_free: float
    disk_free: float
    disk_path: str
    gpus: tuple[Gpu, ...] = field(default_factory=tuple)
    gpu_note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def machine(workspace: Path) -> Machine:
    """This machine, now. Takes as long as `nvidia-smi` does, 10 s at most: call it off the screen's thread."""
    gpus, note = gpus_now()
    total, free = _memory()
    place = workspace
    while not place.exists() and place != place.parent:
        place = place.parent
    return Machine(
        host=socket.gethostname(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        memory_total=total,
        memory_free=free,
        disk_free=round(shutil.disk_usage(place).free / 2**30, 1),
        disk_path=str(place),
        gpus=gpus,
        gpu_note=note,
    )


def gpus_now() -> tuple[tuple[Gpu, ...], str]:
    """Every NVIDIA GPU, or none and why in plain words."""
    try:
        out = _smi(f"--query-gpu={GPU_QUERY}")
    except FileNotFoundError:
        return (), NO_DRIVER
    except subprocess.TimeoutExpired:
        return (
            (),
            f"nvidia-smi did not answer within {TIMEOUT:.0f} s: the driver hangs; a restart of the machine helps.",
        )
    except subprocess.CalledProcessError as e:
        return (), _driver_fault(e.stdout or "")
    except OSError as e:
        return (), f"nvidia-smi cannot be run: {e.strerror}."
    users = _users()
    found = [g for line in out.splitlines() if (g := _gpu(line, users))]
    return tuple(found), "" if found else NO_GPU


def has_none(note: str) -> bool:
    """Whether `note` says that there is no GPU, and not that the driver cannot tell."""
    return note in (NO_DRIVER, NO_GPU)


def others(gpus: Iterable[Gpu]) -> dict[str, str]:
    """By UUID, who computes on each GPU in use, in words.

    From within a container the processes of others are not seen, only the memory that they take.
    """
    found = {g.uuid: ", ".join(g.users) for g in gpus if g.users}
    unseen = {g.uuid: g for g in gpus if not g.users and g.memory_used > g.memory_total / 2}
    return {**{uuid: f"someone unseen ({g.memory_used:.1f} GiB)" for uuid, g in unseen.items()}, **found}


def _smi(query: str) -> str:
    """What nvidia-smi prints. A driver that hangs may keep it from dying even when killed: then it is left behind."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        threading.Thread(target=process.communicate, daemon=True).start()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out)
    return out


def _driver_fault(text: str) -> str:
    if "version mismatch" in text:
        return "The NVIDIA driver was updated under a running one: restart the machine."
    if "couldn't communicate" in text:
        return "The NVIDIA driver does not answer: it is not loaded, or not for this kernel."
    if "No devices were found" in text:
        return NO_GPU
    first = next((line for line in text.splitlines() if line.strip()), "no words")
    return f"nvidia-smi failed: {''.join(c for c in first if c.isprintable())[:120]}"


def _gpu(line: str, users: dict[str, list[str]]) -> Gpu | None:
    parts = [p.strip() for p in line.split(",")]
    if len(parts) != 8:
        return None
    try:
        total, used = float(parts[3]) / 1024, float(parts[4]) / 1024
        index = int(parts[0])
    except ValueError:
        return None
    return Gpu(
        index, parts[1], parts[2], round(total, 1), round(used, 1), _whole(parts[5]), _whole(parts[6]), parts[7],
        tuple(users.get(parts[1], ())),
    )  # fmt: skip


def _whole(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None


def _users() -> dict[str, list[str]]:
    """GPU uuid → who computes on it."""
    found: dict[str, list[str]] = {}
    try:
        out = _smi("--query-compute-apps=gpu_uuid,pid,used_memory")
    except (OSError, subprocess.SubprocessError):
        return found
    for line in out.splitlines():
        parts = [p.strip() for p in line.split(",")]
        if len(parts) != 3 or not parts[1].isdigit():
            continue
        memory = _whole(parts[2])
        size = f", {memory / 1024:.1f} GiB" if memory is not None else ""
        found.setdefault(parts[0], []).append(f"{_owner(int(parts[1]))} ({parts[1]}{size})")
    return found


def _owner(pid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
    except (OSError, KeyError, ImportError):
        return "someone"


def _memory() -> tuple[float, float]:
    """Total and available memory, GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        values = {k: int(v.split()[0]) for k, _, v in (line.partition(":") for line in lines)}
        return round(values["MemTotal"] / 2**20, 1), round(values["MemAvailable"] / 2**20, 1)
    except (OSError, KeyError, ValueError, IndexError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        return round(total, 1), round(total, 1)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
