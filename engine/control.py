"""What a person asks of a running training, and how the worker hears of it: `control.json`, polled between steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal

from engine import files

Request = Literal["stop", "finish"]


def send(path: Path, request: Request) -> None:
    """Ask for `request`. The worker reads it after the step it is in."""
    files.write_json(path, {"request": request, "at": time.time()})


class Control:
    """The worker's side. A poll costs one `stat`; the file is read only when it changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0
        self._request: Request | None = None

    def signal_stop(self) -> None:
        """As if a stop had been asked for; used for SIGTERM."""
        self._request = "stop"

    def poll(self) -> Request | None:
        """What is asked for now, or None. A stop once seen is not taken back."""
        try:
            changed = self._path.stat().st_mtime_ns
        except OSError:
            return self._request
        if changed != self._seen:
            self._seen = changed
            try:
                asked = json.loads(self._path.read_bytes()).get("request")
            except (OSError, ValueError, AttributeError):
                return self._request
            if asked in ("stop", "finish") and self._request != "stop":
                self._request = asked
        return self._request
