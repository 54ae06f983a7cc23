"""A run as a job of Slurm's: near its time limit it is saved and put back into Slurm's queue, where it goes on exactly.

Slurm signals its supervisor in time (USR1). Once the worker has saved and ended, the log says `requeue`, and Slurm is
told to. Also where Slurm takes a node away from it (TERM), it starts it again by itself; a person is never needed.

Stdlib only, Python 3.8 and later.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping  # noqa: UP035 - Python 3.8

MARGIN = 120.0  # seconds that are left when Slurm signals
LAST = 0.2  # of those, what is kept for ending it by force and for Slurm
IDLE = "requeues.json"  # how many times in a row it was put back without having saved anything new
MOST = 3
ASKING = 20.0  # seconds that scontrol may take
BY = "slurm"
REFUSED = "Slurm did not take it back into its queue"
TOO_SHORT = "Its time limit ended it {} times in a row before it could save anything new."
LONGER = "Give its server's entry a longer time, or a larger margin."

Say = Callable[..., None]


class Job:
    """What Slurm wants of one run. `say` appends to its log."""

    def __init__(self, run_dir: Path, told: Mapping[str, Any], say: Say) -> None:
        self.run_dir, self._say = run_dir, say
        self.margin = float(told.get("margin") or MARGIN)
        self.began = 0.0
        self._leaving: float | None = None
        self._overdue = False

    @property
    def control(self) -> Path:
        return self.run_dir / "control.json"

    def begin(self) -> None:
        """Slurm has started it, perhaps again: what was asked of the worker by Slurm's sake is done with."""
        self.began = time.time()
        if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
            return
        told = read(self.control)
        if told.get("request") in ("stop", "pause"):
            settings = told.get("settings")
            replace(self.control, {"request": None, "settings": settings if isinstance(settings, dict) else {}})
        if last_word(self.run_dir) not in ("", "requeue"):
            self._say("requeue", reason="Slurm took its node and starts it again.")

    def asked(self) -> str:
        """What a person asks of it now; nothing that was for Slurm's sake."""
        told = read(self.control)
        return "" if told.get("by") == BY else str(told.get("request") or "")

    def leave(self) -> None:
        """Its time limit is near: have the worker save and end, unless a person already has it end."""
        if self._leaving is not None or self.asked() in ("stop", "pause"):
            return
        self._leaving = time.monotonic()
        settings = read(self.control).get("settings")
        told = {"request": "pause", "settings": settings if isinstance(settings, dict) else {}, "at": time.time()}
        replace(self.control, dict(told, by=BY))

    @property
    def overdue(self) -> bool:
        """Whether it saves for so long that it must be ended now: once."""
        if self._overdue or self._leaving is None:
            return False
        self._overdue = time.monotonic() - self._leaving > self.margin * (1 - LAST)
        return self._overdue

    def after(self, again: Callable[[], bool] = lambda: False) -> bool:
        """The worker has ended: whether the run was put back into Slurm's queue. `again`: whether to try no more."""
        if self._leaving is None or self.asked() in ("stop", "pause"):
            return False
        word = last_word(self.run_dir)
        if word in ("done", "failed"):
            return False
        idle = 0 if self._saved() else int(read(self.run_dir / IDLE).get("idle") or 0) + 1
        replace(self.run_dir / IDLE, {"idle": idle})
        if idle >= MOST:
            self._say("error", code="TIME_LIMIT", message=TOO_SHORT.format(idle), hint=LONGER)
            self._say("end", state="failed")
            return False
        self._say("requeue", reason="Its time limit in Slurm came near; it was saved and waits for its next turn.")
        why = self._requeue(again)
        if why:
            self._say("log", level="warning", text=f"{REFUSED}: {why} Resume it to go on.")
            self._say("end", state="paused")
        return not why

    def _saved(self) -> bool:
        """Whether there is a checkpoint of this attempt."""
        with contextlib.suppress(OSError):
            begun = (self.run_dir / "owner.json").stat().st_mtime
            return any(p.stat().st_mtime >= begun for p in (self.run_dir / "checkpoints").iterdir())
        return False

    def _requeue(self, again: Callable[[], bool]) -> str:
        """What keeps Slurm from it; empty once it has agreed. Tried until the time is up."""
        left = self.margin - (time.monotonic() - (self._leaving or 0.0))
        end = time.monotonic() + max(ASKING, left)
        command = ["scontrol", "requeue", os.environ.get("SLURM_JOB_ID", "")]
        while True:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=ASKING
                )
                said = " ".join(done.stdout.decode("utf-8", "replace").split())[:300]
                if not done.returncode:
                    return ""
                if "disabled" in said or "denied" in said.lower() or "Invalid job" in said:
                    return said
            except subprocess.TimeoutExpired:
                said = "scontrol does not answer."
            except OSError as e:
                return f"scontrol cannot be run: {e.strerror or e}."
            if again() or time.monotonic() > end:
                return said
            time.sleep(1.0)


def last_word(run_dir: Path) -> str:
    """How the log says that the run ended, `requeue` where Slurm is to go on; empty while an attempt is under way."""
    try:
        with (run_dir / "events.jsonl").open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - (64 << 10)))
            lines = f.read().split(b"\n")
    except OSError:
        return ""
    for line in reversed(lines):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("kind") in ("start", "end", "requeue"):
                return {"end": str(event.get("state", "")), "start": ""}.get(str(event["kind"]), "requeue")
    return ""


def read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= 64_000 else {}
    except (OSError, ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def replace(path: Path, value: Any) -> None:
    """Write a small file, whole or not at all."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temp.write_text(json.dumps(value))
        temp.replace(path)
