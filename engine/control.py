"""What a person asks of a running training, and how the worker hears of it: `control.json`, polled between steps.

The file holds `request` (stop, pause, finish, or null) and `settings`: what may change while it runs. Settings are
absolute values, so that hearing them twice changes nothing, and stay in the file until the training has ended.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

from engine import files
from engine.errors import Invalid, Problem

Request = Literal["stop", "pause", "finish"]
Settings = dict[str, float]
LIMITS: dict[str, tuple[float, float]] = {"epochs": (1, 10_000), "patience": (0, 10_000), "lr_scale": (1e-4, 1e3)}
WHOLE = ("epochs", "patience")
LARGEST = 64_000  # bytes; more is not ours


def send(path: Path, request: Request | None = None, **settings: float) -> None:
    """Ask for `request`, and for `settings` from here on. The worker reads it after the step it is in.

    `lr_scale` multiplies every learning rate. Raises Invalid for a setting that cannot be.
    """
    wrong = [Problem(name, _limits_text(name)) for name, value in settings.items() if _sound(name, value) is None]
    if wrong:
        raise Invalid(wrong)
    before = read(path)
    merged = {**before["settings"], **settings}
    files.write_json(path, {"request": request or before["request"], "settings": merged, "at": time.time()})


def withdraw(path: Path) -> None:
    """Before an attempt begins: what was asked of the last one is done with; settings go on."""
    settings = read(path)["settings"]
    if settings:
        files.write_json(path, {"request": None, "settings": settings, "at": time.time()})
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """`request` and `settings` as they stand in the file; whatever cannot be is left out."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= LARGEST else {}
    except (OSError, ValueError, RecursionError):
        found = {}
    found = found if isinstance(found, dict) else {}
    asked, given = found.get("request"), found.get("settings")
    settings = {n: _sound(n, v) for n, v in given.items()} if isinstance(given, dict) else {}
    return {
        "request": asked if asked in ("stop", "pause", "finish") else None,
        "settings": {n: v for n, v in settings.items() if v is not None},
    }


def _sound(name: str, value: Any) -> float | None:
    """The value of a setting if it can be one."""
    if name not in LIMITS or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    low, high = LIMITS[name]
    if not low <= value <= high or (name in WHOLE and value != int(value)):
        return None
    return int(value) if name in WHOLE else float(value)


def problem(name: str, text: str) -> str:
    """What is wrong with a setting as a person typed it; empty when it can be."""
    try:
        value: float = float(text)
    except ValueError:
        return _limits_text(name)
    return "" if _sound(name, value) is not None else _limits_text(name)


def _limits_text(name: str) -> str:
    if name not in LIMITS:
        return f"cannot be changed while it runs; {', '.join(LIMITS)} can"
    low, high = LIMITS[name]
    return f"must be {'a whole number, ' if name in WHOLE else ''}{low:g} – {high:g}"


class Control:
    """The worker's side. A poll costs one `stat`; the file is read only when it changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, (0, 0)
        self._request: Request | None = None
        self.settings: Settings = {}

    def poll(self) -> Request | None:
        """What is asked for now, or None. A stop once seen is not taken back; `settings` are up to date after it."""
        try:
            status = self._path.stat()
        except OSError:
            return self._request
        changed = status.st_mtime_ns, status.st_ino  # times tick coarsely; every request is a new file
        if changed != self._seen:
            self._seen = changed
            found = read(self._path)
            self.settings = found["settings"] or self.settings
            if found["request"] and self._request not in ("stop", "pause"):
                self._request = found["request"]
        return self._request
