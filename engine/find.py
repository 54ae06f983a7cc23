"""The learning rate finder as a child process: started, listened to and ended without loading what it needs itself."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import engine
from engine import plugins, sweep
from engine.errors import DojangError
from engine.files import disk_error
from engine.spec import Spec
from engine.versions import Workspace

MODULE = "engine.training.finder"
END_SECONDS = 3.0
Message = dict[str, Any]


@dataclass
class Sweep:
    """What is known of a sweep so far: the plan, and rate, loss and smoothed loss of every step."""

    plan: Message = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    end: Message | None = None

    def take(self, message: Message) -> None:
        """Add one message. Raises DojangError when the finder says that it failed."""
        kind = message.get("kind")
        if kind == "plan":
            self.plan = message
        elif kind == "point":
            self.rates.append(float(message["lr"]))
            self.losses.append(float(message["loss"]))
            self.smoothed.append(float(message["smooth"]))
        elif kind == "end":
            self.end = message
        elif kind == "error":
            raise DojangError(message["message"], code=message["code"], hint=message["hint"])

    @property
    def suggestion(self) -> float | None:
        return self.end.get("suggestion") if self.end else None

    @property
    def reason(self) -> str:
        """Why there is no suggestion; empty when there is one."""
        return str(self.end.get("reason", "")) if self.end else ""

    def to_json(self) -> dict[str, Any]:
        points = zip(self.rates, self.losses, self.smoothed, strict=True)
        return {
            **{k: v for k, v in self.plan.items() if k != "kind"},
            **{k: v for k, v in (self.end or {}).items() if k != "kind"},
            "points": [{"lr": r, "loss": v, "smooth": s} for r, v, s in points],
        }


class Finder:
    """A sweep in a process of its own. Iterate over `messages` to the end, or `cancel` it from anywhere."""

    def __init__(
        self,
        workspace: Workspace,
        spec: Spec,
        low: float = sweep.LOW,
        high: float = sweep.HIGH,
        steps: int = sweep.STEPS,
    ) -> None:
        """Start it. The thread that does so must live as long as the sweep: on Linux the child ends with it."""
        check(low, high, steps)
        if plugins.program_of(spec.model):
            hint = "It has a loop of its own: set the rate by hand."
            raise DojangError(f"{spec.model} is trained by another program.", code="NO_FINDER", hint=hint)
        self.log = workspace.ensure().cache / "lr-find.log"
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(),
                    cwd="/",
                    start_new_session=True,  # ctrl+c is ours to answer
                )
        except OSError as e:
            raise disk_error(e, self.log) from e
        self.cancelled = False
        request = {
            "workspace": str(workspace.path),
            "spec": spec.model_dump(),
            "low": low,
            "high": high,
            "steps": steps,
        }
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died already: messages() says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def messages(self) -> Iterator[Message]:
        """Everything it says, as it says it. Raises DojangError when it ends without a last word, unless cancelled."""
        assert self._process.stdout is not None
        last = ""
        try:
            for line in self._process.stdout:
                message = _message(line)
                if message:
                    last = str(message["kind"])
                    yield message
        finally:
            self.close()
            self._process.stdout.close()
        if last not in ("end", "error") and not self.cancelled:
            raise DojangError(
                "The learning rate finder ended without a result.", code="FINDER_DIED", hint=f"See {self.log}"
            )

    def cancel(self) -> None:
        """End it now."""
        self.cancelled = True
        self.close()

    def close(self) -> None:
        """End the process if it still runs, and wait for it."""
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check(low: float, high: float, steps: int) -> None:
    """Raises DojangError(BAD_VALUE) for a sweep that cannot be."""
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high <= 100):
        raise DojangError(
            f"Rates from {low:g} to {high:g} cannot be swept.", code="BAD_VALUE", hint="0 < from < to ≤ 100."
        )
    if not sweep.LEAST_STEPS <= steps <= sweep.MOST_STEPS:
        raise DojangError(
            f"{steps} steps make no sweep.", code="BAD_VALUE", hint=f"{sweep.LEAST_STEPS} – {sweep.MOST_STEPS} do."
        )


def _message(line: bytes) -> Message | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("kind"), str) else None


def _environment() -> dict[str, str]:
    """Ours, able to import this very package."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("SSH_", "TEXTUAL"))}
    home = Path(engine.__file__).parent.parent
    if home.name not in ("site-packages", "dist-packages"):
        keep["PYTHONPATH"] = os.pathsep.join(p for p in (str(home), keep.get("PYTHONPATH", "")) if p)
    return keep
