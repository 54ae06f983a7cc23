"""state.pt: whole or not at all, and never trusted blindly."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from engine.errors import DojangError
from engine.training import checkpoint


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    weights = torch.randn(64, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    counters = {"epoch": number, "best": None, "rate": 0.1, "done": False, "betas": (0.9, 0.999)}
    return {"position": counters, "model": {"w": weights, "n": torch.tensor(number)}, "half": weights.bfloat16()}


def same(a: Any, b: Any) -> bool:
    return checkpoint.digest(a) == checkpoint.digest(b)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save(path, state(1))
    found, problems = checkpoint.load(path)
    assert same(found, state(1)) and not problems
    assert torch.equal(torch.load(path, weights_only=True)["state"]["model"]["w"], state(1)["model"]["w"])


def test_digest_sees_every_bit() -> None:
    other = state(1)
    other["model"]["w"][5, 0, 0, 0] = torch.nextafter(other["model"]["w"][5, 0, 0, 0], torch.tensor(9.0))
    assert not same(other, state(1))
    assert not same({"a": 1}, {"a": True}) and not same({"a": torch.zeros(4)}, {"a": torch.zeros(2, 2)})


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other", "gone"])
def test_the_older_generation_counts_when_the_newer_is_damaged(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save(path, state(1))
    checkpoint.save(path, state(2))
    damage(path, harm)
    found, problems = checkpoint.load(path)
    assert same(found, state(1))
    assert (len(problems) == 1 and "state.pt" in problems[0]) or harm == "gone"

    checkpoint.save(path, state(3))  # what was damaged must not push out what is sound
    damage(path, "gone")
    again, _ = checkpoint.load(path)
    assert again is None or same(again, state(1))


def damage(path: Path, harm: str) -> None:
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "other":
        torch.save({"format": 1, "state": {}}, path)
    else:
        at = data.index(state(2)["model"]["w"].permute(0, 2, 3, 1).contiguous().numpy().tobytes()) + 100
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_nothing_readable_is_said_and_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(b"PK\x03\x04 nonsense")
    checkpoint.previous(path).write_bytes(b"")
    found, problems = checkpoint.load(path)
    assert found is None and len(problems) == 2
    assert not path.exists() and (tmp_path / "state.unreadable.pt").exists()


class Payload(NamedTuple):
    marker: str

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_state_runs_nothing(tmp_path: Path) -> None:
    path, marker = tmp_path / "state.pt", tmp_path / "ran"
    torch.save({"format": 1, "digest": "", "state": {"position": Payload(str(marker))}}, path)
    found, problems = checkpoint.load(path)
    assert found is None and problems and not marker.exists()


def test_a_disk_that_fills_up_costs_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "state.pt"
    checkpoint.save(path, state(1))
    checkpoint.save(path, state(2))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._Witness, "write", _fail_late)
        with pytest.raises(DojangError) as caught:
            checkpoint.save(path, state(3))
    assert caught.value.code == "DISK_FULL" and caught.value.hint
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def _fail_late(witness: Any, data: Any) -> int:
    """Write what fits, then fail, as a full disk does."""
    if witness.file.tell() > 2000:
        witness.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise witness.error
    return witness.file.write(data)


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "state.pt"
    checkpoint.save(path, state(1))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DojangError) as caught:
            checkpoint.save(path, state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.code == "DISK_FULL"
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_space_is_asked_for_first(tmp_path: Path, monkeypatch: Any) -> None:
    import shutil

    path = tmp_path / "state.pt"
    checkpoint.save(path, state(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10, 10))  # type: ignore[attr-defined]
    with pytest.raises(DojangError, match="MB are free") as caught:
        checkpoint.save(path, state(2))
    assert caught.value.code == "DISK_FULL"
    found, _ = checkpoint.load(path)
    assert same(found, state(1))
