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
        self._path, self._seen = path, (0, 0)
        self._request: Request | None = None

    def poll(self) -> Request | None:
        """What is asked for now, or None. A stop once seen is not taken back."""
        try:
            status = self._path.stat()
        except OSError:
            return self._request
        changed = status.st_mtime_ns, status.st_ino  # times tick coarsely; every request is a new file
        if changed != self._seen:
            self._seen = changed
            try:
                asked = json.loads(self._path.read_bytes()).get("request")
            except (OSError, ValueError, AttributeError):
                return self._request
            if asked in ("stop", "finish") and self._request != "stop":
                self._request = asked
        return self._request
