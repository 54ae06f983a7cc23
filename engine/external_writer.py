"""Writes what an external kernel says into the event log, at a pace that neither a disk nor a reader minds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engine import files
from engine.errors import DojangError
from engine.events import Event, EventLog
from engine.external_events import Heard, Refused

STEP_SECONDS = 0.1  # at least, between two step events: those between are averaged
BAR_SECONDS = 0.25
LOG_BURST, LOG_RATE = 100, 5.0  # lines of its log at once, and a second from then on
COMPLAINTS = 10  # that are told in full
MOST_BYTES = 1 << 28  # of everything else that it says


class Bar:
    """Progress of one counted thing, a few events a second."""

    def __init__(self, log: EventLog, what: str) -> None:
        self._log, self._what, self._at = log, what, 0.0

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._at >= BAR_SECONDS:
            self._at = now
            self._log.append("progress", what=self._what, done=done, total=total)


class Writer:
    """Takes one line after the other. Steps are averaged, bars thinned, log lines rationed; the rest is written at once."""

    def __init__(self, log: EventLog, heard: Heard, checkpoints: Path, record: Path) -> None:
        self._log, self._heard = log, heard
        self._checkpoints, self._record = checkpoints, record
        self._step: Event | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._step_at = self._bar_at = self._tokens_at = 0.0
        self._bars: dict[str, Event] = {}
        self._tokens = float(LOG_BURST)
        self._left_out = self._refused = self._bytes = 0
        self._stage = "preprocessing"

    def take(self, line: bytes) -> str | None:
        """Write what is in the line; gives it back as text where it is a line of its log."""
        try:
            found = self._heard.take(line)
        except Refused as e:
            self.refuse(str(e))
            return None
        if isinstance(found, str):
            self._say("info", found)
            return found
        if found is not None:
            self._event(found, len(line))
        return None

    def refuse(self, why: str) -> None:
        """Tell of something that cannot be written, a few times in full."""
        self._refused += 1
        if self._refused <= COMPLAINTS:
            self._say("warning", f"Left out of what the kernel says: {why}")

    def tick(self) -> None:
        """Write what has waited long enough."""
        now = time.monotonic()
        if self._step and now - self._step_at >= STEP_SECONDS:
            self._flush_step()
        if self._bars and now - self._bar_at >= BAR_SECONDS:
            self._flush_bars()

    def close(self) -> None:
        """Write what waits, and how much was left out."""
        self._flush_step()
        self._flush_bars()
        if self._refused > COMPLAINTS:
            text = f"{self._refused - COMPLAINTS} more lines that are no events were left out."
            self._log.append("log", level="warning", text=text)
        if self._left_out:
            text = (
                f"{self._left_out} more lines of the kernel's log are not shown here; see the whole log of the worker."
            )
            self._log.append("log", level="warning", text=text)

    def _event(self, e: Event, size: int) -> None:
        kind = e.pop("kind")
        if kind == "log":
            return self._say(e["level"], e["text"])
        if kind == "progress":
            self._bars[e["what"]] = e
            return self.tick()
        self._bytes += size if kind != "step" else 0
        if self._bytes > MOST_BYTES:
            hint = "It must write one event an epoch, and short ones."
            raise DojangError("The kernel says too much: more than 256 MiB.", code="KERNEL_FAILED", hint=hint)
        if kind != "plan":
            self._begin()
        if kind == "step":
            self._add(e)
            return self.tick()
        self._flush_step()
        if kind == "result":
            self._enter("testing")
        if kind == "checkpoint" and not self._keep(e):
            return None
        self._log.append(kind, **e)
        if kind == "plan":
            self._enter("training")
        return None

    def _begin(self) -> None:
        """A program that said no plan of its own is trained by what is known of it."""
        if self._stage == "preprocessing":
            self._log.append("plan", **self._heard.plan)
            self._heard.planned = True
            self._enter("training")

    def _enter(self, stage: str) -> None:
        if self._stage != stage:
            self._stage = stage
            self._log.append("stage", stage=stage)

    def _add(self, e: Event) -> None:
        """Hold a step back, so that many quick ones become one event with their means."""
        n = e["n"]
        for name, value in e["loss"].items():
            if value is not None:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value * n, count + n)
        before = self._step["n"] if self._step else 0
        self._step = {**e, "n": n + before}

    def _flush_step(self) -> None:
        if self._step is None:
            return
        means = {name: float(f"{total / count:.6g}") for name, (total, count) in self._sums.items() if count}
        losses = {name: means.get(name) for name in self._step["loss"]}
        self._log.append("step", **{**self._step, "loss": losses})
        self._step, self._sums, self._step_at = None, {}, time.monotonic()

    def _flush_bars(self) -> None:
        for e in self._bars.values():
            self._log.append("progress", **e)
        self._bars, self._bar_at = {}, time.monotonic()

    def _keep(self, e: dict[str, Any]) -> bool:
        """Remember a checkpoint as the place to go on from; False when there is no such file."""
        if not (self._checkpoints / e["name"]).exists():
            self.refuse(f"checkpoint: there is no {e['name']} in {self._checkpoints}")
            return False
        files.write_json(self._record, e)
        return True

    def _say(self, level: str, text: str) -> None:
        now = time.monotonic()
        self._tokens = min(float(LOG_BURST), self._tokens + (now - self._tokens_at) * LOG_RATE)
        self._tokens_at = now
        if self._tokens < 1:
            self._left_out += 1
            return
        self._tokens -= 1
        if text.strip():
            self._log.append("log", level=level, text=text)
