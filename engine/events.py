"""The event log: the one interface between a training and everyone who looks at it.

One JSON object a line in `events.jsonl`, `kind` first, one writer, append only. Live view, re-attach, history and
compare are all "replay the log", so a reader must survive a torn last line and a writer must mend one.

| kind | fields |
|---|---|
| start | attempt (1, 2, …), pid, host, versions {name: version}, resumed null or {epoch, step}: log after that step is void |
| stage | stage: preparing, preprocessing, training, testing |
| plan | epochs, steps_per_epoch, batch_size, image_size, train_images, val_images, test_images, classes, device, threads, |
|      | workers, amp, optimizer, lr, momentum, warmup_steps, parameters, weights (said plainly), loss_names |
| progress | what (preparing, preprocessing, val, test), done, total; of preparing a server also unit (bytes, images) and |
|          | rate (of those, per s, or null) |
| step | epoch (1…), step (1… over the whole training), i (1… in the epoch), n (steps averaged), loss {name: mean}, lr, |
|      | img_s (images/s), memory (GiB or null) |
| epoch | epoch, split ("val"), train {loss}, val {loss}, metrics, per_class, confidence, lr, seconds {train, val, |
|       | checkpoint}, best (bool) |
| result | split (val or test), metrics, per_class, confidence, confusion, curves, weights, images: the best weights, |
|        | evaluated after training |
| checkpoint | name, epoch, step |
| control | request (stop, finish): what a person asked and the worker saw |
| log | level (info, warning), text |
| error | code, message, hint |
| rollback | code, text, epoch, step (log after that step is void), lr_scale, parts (pieces of a batch): gone back to save it |
| requeue | reason: Slurm has it wait for its next turn, or starts it again; the end before it does not count |
| end | state: done, stopped, paused, failed |

Every event also has `t`: seconds since the Unix epoch.

| of an evaluation | by task: detect, classify |
|---|---|
| metrics | detect {map50, map50_95, precision, recall, f1}; classify {top1, top5, precision, recall, f1}; null: no labels |
| per_class | [{name, precision, recall, f1, tp, fp, fn, labels}], and of detectors map50, map50_95 and images too |
| confidence | of detectors: the threshold at which precision, recall, f1, tp, fp and fn are quoted, 0 … 1; else null |
| confusion | {labels [name], matrix, confidence, iou}: matrix[t][p] of class labels[t] (row: truth) were taken for |
|           | labels[p] (column: prediction); of detectors the last label is the background: its column is what was |
|           | missed, its row what was drawn where nothing is |
| curves | of detectors {x, mean, per_class [{name, …}]}, each with precision by recall x and f1 by confidence x, 101 points |
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from engine.errors import DojangError
from engine.files import disk_error

Event = dict[str, Any]
URGENT = frozenset({"start", "stage", "plan", "epoch", "result", "checkpoint", "control", "error", "requeue", "end"})
MAX_LINE = 1 << 20
CHUNK = 1 << 22
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # NaN is not JSON, yet some write it


class EventLog:
    """The single writer of one version's log. One `write` a record; fsync at most once a second, at once when urgent."""

    def __init__(self, path: Path, sync_seconds: float = 1.0) -> None:
        self.path, self.sync_seconds = path, sync_seconds
        try:
            self._torn = path.exists() and _ends_torn(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise disk_error(e, path) from e
        self._synced = 0.0

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event. Raises DojangError(DISK_FULL, …) when it did not reach the file whole."""
        line = json.dumps(finite({"kind": kind, "t": round(time.time(), 3), **fields}), ensure_ascii=False)
        data = (b"\n" if self._torn else b"") + line.encode("utf-8", "replace") + b"\n"
        try:
            written = os.write(self._fd, data)
            self._torn = written != len(data)
            if self._torn:  # a short write is how a full disk shows first: the next record starts on its own line
                raise OSError(28, os.strerror(28))
            if kind in URGENT or time.monotonic() - self._synced > self.sync_seconds:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
                self._synced = time.monotonic()
        except OSError as e:
            raise disk_error(e, self.path) from e

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as f:
        size = f.seek(0, os.SEEK_END)
        if size == 0:
            return False
        f.seek(size - 1)
        return f.read(1) != b"\n"


def finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they are written as null, which charts leave out and tables show as a dash."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def follow(path: Path, offset: int = 0, *, skip_steps: bool = False, limit: int = CHUNK) -> tuple[list[Event], int]:
    """Read the whole events after byte `offset`; return them and the offset to go on from.

    At most about `limit` bytes a call (call again until the offset stands still), so that a screen stays responsive.
    A last line without its newline is left for the next call; a line that is not a JSON object is passed over.
    `skip_steps` leaves out step and progress events without parsing them: a list of versions needs none of them.
    A log that shrank (its version was started afresh) is read from the start; one that cannot be read now, perhaps
    because its disk is away, may be later.
    """
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(offset if offset <= size else 0)
            offset = f.tell()
            data = f.read(limit)
            if len(data) == limit and b"\n" not in data:
                return [], offset + len(data)  # absurd line: pass over it piecewise
    except FileNotFoundError:
        return [], 0
    except OSError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return _parse(data[:end], skip_steps), offset + end


def _parse(data: bytes, skip_steps: bool) -> list[Event]:
    events: list[Event] = []
    decode = _DECODER.decode
    for line in data.split(b"\n"):
        if not line or len(line) > MAX_LINE:
            continue
        if skip_steps and line.startswith((b'{"kind": "step"', b'{"kind": "progress"')):
            continue
        try:
            event = decode(line.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            events.append(event)
    return events


def read_all(path: Path, *, skip_steps: bool = False) -> list[Event]:
    """Every whole event of a log."""
    events: list[Event] = []
    offset = 0
    while True:
        batch, new = follow(path, offset, skip_steps=skip_steps)
        events += batch
        if new == offset:
            return events
        offset = new


__all__ = ["DojangError", "Event", "EventLog", "finite", "follow", "read_all"]
