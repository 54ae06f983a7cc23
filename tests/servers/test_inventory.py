"""What nvidia-smi says, and does not say, in plain words. A script plays it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.servers import inventory

GOOD = """#!/bin/sh
case "$1" in
*gpu=*) echo '0, GPU-a, NVIDIA H200, 143771, 11264, 96, 61, 570.1'; echo '1, GPU-b, NVIDIA H200, 143771, 0, 0, 30, 570.1';;
*) echo "GPU-a, $PPID, 11200"; echo "GPU-a, notapid, 3";;
esac
"""


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_gpus_with_who_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, GOOD)
    found = inventory.machine(tmp_path)
    a, b = found.gpus
    assert (a.index, a.name, a.memory_total, a.memory_used, a.utilization) == (0, "NVIDIA H200", 140.4, 11.0, 96)
    assert a.memory_free == pytest.approx(129.4) and len(a.users) == 1 and "10.9 GiB" in a.users[0]
    assert b.users == () and found.gpu_note == ""
    assert found.cores >= 1 and found.memory_total > 0 and found.disk_free > 0


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "restart the machine",
        ),
        ('#!/bin/sh\necho "couldn\'t communicate with the NVIDIA driver" >&2; exit 9', "does not answer"),
        ("#!/bin/sh\necho 'No devices were found'; exit 6", "sees no GPU"),
        ("#!/bin/sh\nexit 0", "sees no GPU"),
        ("#!/bin/sh\nprintf 'a,b\\n\\033[2Jx, y, z, , , , ,\\n'", "sees no GPU"),
        ("#!/bin/sh\nprintf '\\033[31mstrange\\n'; exit 1", "nvidia-smi failed: [31mstrange"),
    ],
)
def test_a_driver_in_trouble_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    play(tmp_path, monkeypatch, script)
    gpus, note = inventory.gpus_now()
    assert gpus == () and words in note


def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what it started, which holds its output open."""
    play(tmp_path, monkeypatch, "#!/bin/sh\nsleep 30; sleep 31")
    monkeypatch.setattr(inventory, "TIMEOUT", 0.2)
    began = time.monotonic()
    assert "did not answer" in inventory.gpus_now()[1]
    assert time.monotonic() - began < 10


def test_a_driver_that_not_even_a_kill_ends_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, "#!/bin/sh\nexec sleep 30")
    monkeypatch.setattr(inventory, "TIMEOUT", 0.2)
    killed: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda pid, _: killed.append(pid))
        assert "did not answer" in inventory.gpus_now()[1]
    os.killpg(killed[0], 9)


def test_a_program_that_cannot_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(tmp_path, monkeypatch, "\x00not a program")
    assert "cannot be run" in inventory.gpus_now()[1]


def test_no_driver_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "CPU" in inventory.gpus_now()[1]


def test_who_else_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are seen, and memory that somebody unseen takes: half of a GPU is no desktop's."""
    script = GOOD.replace("143771, 0, 0", "143771, 90000, 0").replace(
        "0, GPU-a", "2, GPU-c, NVIDIA H200, 143771, 700, 0, 30, 570.1'; echo '0, GPU-a"
    )
    play(tmp_path, monkeypatch, script)
    found = inventory.others(inventory.gpus_now()[0])
    assert set(found) == {"GPU-a", "GPU-b"}
    assert "10.9 GiB" in found["GPU-a"] and found["GPU-b"] == "someone unseen (87.9 GiB)"


@pytest.mark.parametrize(("mode", "none"), [("none", True), ("mismatch", False), ("comm", False)])
def test_no_gpu_is_not_a_driver_that_cannot_tell(monkeypatch: pytest.MonkeyPatch, mode: str, none: bool) -> None:
    from tests.servers.box import FAKES

    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GPU", mode)
    gpus, note = inventory.gpus_now()
    assert not gpus and inventory.has_none(note) == none
