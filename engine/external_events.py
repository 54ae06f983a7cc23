"""What an external kernel says, held against what it may say. Its lines come from a program that may do anything.

A line is a JSON object with `kind`, or a line of its log. `t` and `start` are the worker's alone; `end` is the kernel's
last word, heard here and written by the worker. What is wrong is left out and told, a few times in full.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from engine import metrics
from engine.events import Event

LONGEST = 1 << 18  # bytes of one line
LONGEST_TEXT = 2000  # characters of a text
MOST_NAMES = 64  # losses or metrics of an event
MOST_CLASSES = 2000
BIGGEST = 2**53
BARS = ("preparing", "preprocessing", "train", "val", "test")
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
CODE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f]")
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # NaN is not JSON, yet some write it


class Refused(ValueError):
    """An event that is not one. The text says why."""


def text_of(value: Any, longest: int = LONGEST_TEXT) -> str:
    """Text fit for a log: no terminal codes, no control characters, not endless."""
    return _CODES.sub("", str(value)[: longest * 4])[:longest]


class Heard:
    """Reads one kernel's lines in their order. `end` is its last word, `error` what it said went wrong."""

    def __init__(self, plan: dict[str, Any], step: int = 0, epoch: int = 0) -> None:
        self.plan, self.planned = plan, False  # what is known without it; whether it gave its own
        self.step, self.epoch = step, epoch
        self.end = ""
        self.error: dict[str, str] | None = None

    def take(self, line: bytes) -> Event | str | None:
        """The event in a line, or the line as text for the log; None where there is nothing to write. Raises Refused."""
        line = line.strip()
        if not line:
            return None
        if not line.startswith(b"{"):
            return text_of(line.decode("utf-8", "replace"))
        try:
            event = _DECODER.decode(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return text_of(line.decode("utf-8", "replace"))
        kind = event.get("kind")
        if not isinstance(kind, str):
            return text_of(line.decode("utf-8", "replace"))
        if self.end or self.error:
            return None  # its last word is its last word
        handler = _KINDS.get(kind)
        if handler is None:
            raise Refused(f"there is no event of kind {text_of(kind, 40)!r} for a kernel to write")
        found = handler(self, event)
        return {"kind": kind, **found} if found is not None else None

    def _plan(self, e: Event) -> Event | None:
        if self.planned or self.step or self.epoch:
            raise Refused("plan: only once, before the first step")
        known = self.plan
        known["epochs"] = whole(e, "epochs", 1, 1_000_000, known["epochs"])
        known["steps_per_epoch"] = whole(e, "steps_per_epoch", 1, BIGGEST, known["steps_per_epoch"])
        for key in ("optimizer", "device", "device_name", "amp", "weights"):
            if key in e:
                known[key] = text_of(e[key], 200)
        for key in ("lr", "momentum", "parameters", "warmup_steps", "threads", "workers"):
            if key in e:
                known[key] = number(e[key])
        names = e.get("loss_names")
        if isinstance(names, list):
            known["loss_names"] = [text_of(n, 64) for n in names[:MOST_NAMES]]
        self.planned = True
        return dict(known)

    def _progress(self, e: Event) -> Event:
        if e.get("what") not in BARS:
            raise Refused(f"progress: what must be one of {', '.join(BARS)}")
        return {"what": e["what"], "done": whole(e, "done", 0, BIGGEST), "total": whole(e, "total", 0, BIGGEST)}

    def _step(self, e: Event) -> Event:
        step, epoch = whole(e, "step", 1, BIGGEST), whole(e, "epoch", 1, 1_000_000)
        if step <= self.step:
            raise Refused(f"step: {step} comes after {self.step}; steps count up over the whole training")
        if epoch <= self.epoch:
            raise Refused(f"step: epoch {epoch} has ended already")
        i = whole(e, "i", 1, BIGGEST, max(1, step - (epoch - 1) * self.plan["steps_per_epoch"]))
        found = {"epoch": epoch, "step": step, "i": i, "n": whole(e, "n", 1, BIGGEST, 1), "loss": numbers(e, "loss")}
        self.step = step
        return {**found, **{key: number(e.get(key)) for key in ("lr", "img_s", "memory")}}

    def _epoch(self, e: Event) -> Event:
        epoch = whole(e, "epoch", 1, 1_000_000)
        if epoch <= self.epoch:
            raise Refused(f"epoch: {epoch} comes after {self.epoch}")
        found = {key: numbers(e, key) for key in ("train", "val", "seconds")}
        found["seconds"] = {k: v for k, v in found["seconds"].items() if v is not None and 0 <= v < 1e9}
        best = e.get("best", False)
        if not isinstance(best, bool):
            raise Refused("epoch: best must be true or false")
        measured = _evaluation(e)
        self.epoch = epoch
        return {"epoch": epoch, "split": "val", **found, **measured, "lr": number(e.get("lr")), "best": best}

    def _result(self, e: Event) -> Event:
        if e.get("split") not in ("val", "test"):
            raise Refused("result: split must be val or test")
        confusion = metrics.read_confusion(e.get("confusion"))
        if confusion and len(confusion["labels"]) > metrics.MOST_CLASSES:
            confusion = metrics.confusion(**confusion)
        curves = metrics.read_curves(e.get("curves"))
        return {
            "split": e["split"],
            **_evaluation(e),
            "weights": text_of(e.get("weights", ""), 200),
            "images": whole(e, "images", 0, BIGGEST, 0),
            **({"confusion": confusion} if confusion else {}),
            **({"curves": curves} if curves else {}),
        }

    def _log(self, e: Event) -> Event:
        level = e.get("level", "info")
        return {"level": level if level in ("info", "warning") else "info", "text": text_of(e.get("text", ""))}

    def _error(self, e: Event) -> None:
        code = e.get("code")
        self.error = {
            "code": code if isinstance(code, str) and CODE.fullmatch(code) else "KERNEL_FAILED",
            "message": text_of(e.get("message") or "The kernel says that it failed, and not why."),
            "hint": text_of(e.get("hint") or ""),
        }

    def _checkpoint(self, e: Event) -> Event:
        name = e.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name) or "/" in name or name in (".", ".."):
            raise Refused("checkpoint: name must be that of a file in the folder “checkpoints”")
        epoch, step = whole(e, "epoch", 0, 1_000_000, self.epoch), whole(e, "step", 0, BIGGEST, self.step)
        if step > self.step or epoch > self.epoch + 1:
            raise Refused("checkpoint: it cannot be ahead of the steps that were told")
        return {"name": name, "epoch": epoch, "step": step}

    def _end(self, e: Event) -> None:
        if e.get("state") not in ("done", "stopped", "failed"):
            raise Refused("end: state must be done, stopped or failed")
        self.end = str(e["state"])


_KINDS: dict[str, Callable[[Heard, Event], Event | None]] = {
    "plan": Heard._plan,
    "progress": Heard._progress,
    "step": Heard._step,
    "epoch": Heard._epoch,
    "result": Heard._result,
    "log": Heard._log,
    "error": Heard._error,
    "checkpoint": Heard._checkpoint,
    "end": Heard._end,
}


def number(value: Any) -> float | None:
    """A finite number that a chart can draw, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        return None
    return value if math.isfinite(value) else None


def numbers(e: Event, key: str) -> dict[str, float | None]:
    """A table of numbers by name. Raises Refused where it is none."""
    values = e.get(key, {})
    if not isinstance(values, dict) or len(values) > MOST_NAMES or not all(map(NAME.fullmatch, values)):
        raise Refused(f"{e['kind']}: {key} must be a table of at most {MOST_NAMES} numbers by name")
    return {name: number(value) for name, value in values.items()}


def whole(e: Event, key: str, low: int, high: int, default: int | None = None) -> int:
    value = e.get(key, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"{e['kind']}: {key} must be a whole number of at least {low}")
    return value


def _evaluation(e: Event) -> Event:
    """Metrics, whole and by class. Those that dojang knows by name lie between 0 and 1, whoever measured them."""
    found = numbers(e, "metrics")
    wrong = [name for name in metrics.KEYS if (value := found.get(name)) is not None and not 0 <= value <= 1]
    if wrong:
        raise Refused(f"{e['kind']}: {', '.join(wrong)} must lie between 0 and 1")
    rows = e.get("per_class", [])
    if not isinstance(rows, list) or len(rows) > MOST_CLASSES or not all(isinstance(r, dict) for r in rows):
        raise Refused(f"{e['kind']}: per_class must be a list of at most {MOST_CLASSES} tables")
    by_class = [
        {
            "name": text_of(r.get("name", ""), 200),
            **{str(k)[:64]: number(v) for k, v in list(r.items())[:32] if k != "name"},
        }
        for r in rows
    ]
    confidence = number(e.get("confidence"))
    return {"metrics": found, "per_class": by_class, "confidence": confidence}
