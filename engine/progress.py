"""Progress: the pure fold of a version's events into what screens and commands show. No clock, no files, no torch."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine import metrics
from engine.events import Event

STAGES = ("preparing", "preprocessing", "training", "testing", "done")
ENDS = ("done", "stopped", "paused", "failed")
NAN = float("nan")
LOG_LINES = 500


def number(value: Any) -> float | None:
    """`value` if it is a number, else None: a log may come from elsewhere, and charts and tables must not care."""
    if isinstance(value, int):  # one too long for a float could be neither drawn nor written
        return value if not isinstance(value, bool) and abs(value) < 2**63 else None
    return value if isinstance(value, float) else None


def count(value: Any) -> int:
    """A number of steps, epochs, bytes. Raises ValueError for one that nothing can be divided by or drawn with."""
    found = int(value)
    if not 0 <= found < 2**53:
        raise ValueError(str(value)[:40])
    return found


def numbers(values: Any) -> dict[str, float | None]:
    """A dictionary of numbers by name; whatever else it holds is None."""
    return {str(k): number(v) for k, v in values.items()} if isinstance(values, dict) else {}


def rows(values: Any) -> list[dict[str, Any]]:
    """Per-class rows: a name, and numbers."""
    found = [r for r in values if isinstance(r, dict)] if isinstance(values, list) else []
    return [{**numbers(r), "name": str(r.get("name", ""))} for r in found]


class Series:
    """One curve: x values that only rise, and their y values. 16 bytes a point."""

    __slots__ = ("xs", "ys")

    def __init__(self) -> None:
        self.xs, self.ys = array("d"), array("d")

    def add(self, x: float, y: float | None) -> None:
        self.xs.append(x)
        self.ys.append(NAN if y is None else y)

    def cut(self, last_x: float) -> None:
        """Forget what lies after `last_x`."""
        keep = bisect_right(self.xs, last_x)
        del self.xs[keep:], self.ys[keep:]

    def __len__(self) -> int:
        return len(self.xs)


@dataclass(slots=True)
class Progress:
    """Everything known of one version's training from its log so far. Feed it with `apply`; it never looks ahead."""

    attempt: int = 0
    stage: str = ""
    ended: str = ""
    error: dict[str, str] | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    attempt_started: float = 0.0
    last_time: float = 0.0
    spent_before: float = 0.0
    stage_times: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    epochs_done: int = 0
    step: int = 0
    step_in_epoch: int = 0
    pace_marks: list[tuple[int, float]] = field(default_factory=list)
    bars: dict[str, tuple[int, int]] = field(default_factory=dict)
    pace: dict[str, tuple[str, float | None]] = field(
        default_factory=dict
    )  # of a bar: what is counted, so many a second
    losses: dict[str, float | None] = field(default_factory=dict)
    lr: float | None = None
    images_per_second: float | None = None
    memory: float | None = None
    step_series: dict[str, Series] = field(default_factory=dict)
    epoch_series: dict[str, Series] = field(default_factory=dict)
    epochs: list[Event] = field(default_factory=list)
    best: Event | None = None
    results: dict[str, Event] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    changes: dict[str, float] = field(default_factory=dict)
    log: list[tuple[float, str, str]] = field(default_factory=list)
    host: str = ""

    def apply(self, events: Iterable[Event]) -> None:
        """Fold in more events. Fields of the wrong type are passed over: a log may come from elsewhere."""
        for event in events:
            handler = _HANDLERS.get(event["kind"])
            if handler is None:
                continue
            try:
                handler(self, event)
                self.last_time = max(self.last_time, number(event.get("t")) or 0.0)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue

    # What screens ask for

    @property
    def epochs_total(self) -> int:
        return int(self.plan.get("epochs") or 0)

    @property
    def steps_total(self) -> int:
        return self.epochs_total * int(self.plan.get("steps_per_epoch") or 0)

    @property
    def fraction(self) -> float:
        """Share of the training done, 0 … 1."""
        if self.ended == "done":
            return 1.0
        return min(1.0, self.step / self.steps_total) if self.steps_total else 0.0

    def elapsed(self, now: float | None = None) -> float:
        """Seconds worked on, over all attempts; `now` while it runs, else up to the last event."""
        if not self.attempt:
            return 0.0
        return self.spent_before + max(0.0, (now or self.last_time) - self.attempt_started)

    def remaining(self, now: float | None = None) -> float | None:
        """Estimated seconds of training left, from the pace of the last two epochs; None until two steps are known.

        Evaluations between epochs count into the pace. Between two events the estimate counts down with `now`.
        """
        if self.stage != "training" or not self.pace_marks or not self.steps_total:
            return None
        step, t = self.pace_marks[-3:][0]
        if self.step - step < 2:
            return None
        left = max(0.0, self.last_time - t) / (self.step - step) * (self.steps_total - self.step)
        return max(0.0, left - max(0.0, (now or self.last_time) - self.last_time))

    @property
    def task(self) -> str:
        """`detect` or `classify`, from the plan or else from what is measured; empty while neither tells."""
        said = self.plan.get("task")
        if isinstance(said, str) and said in metrics.TASKS:
            return said
        return metrics.task_of(self._on_val().get("metrics") or ())

    def metrics(self, task: str = "") -> dict[str, float | None]:
        """Metrics on val: of the best weights once evaluated, else of the best epoch so far.

        Those of `task`, if the log does not tell its own.
        """
        found = self._on_val().get("metrics") or {}
        return {m.key: found.get(m.key) for m in metrics.of(self.task or task)}

    def confidence(self, split: str = "val") -> float | None:
        """The threshold at which a detector's precision, recall and F1 are quoted, for the same weights."""
        source = self._on_val() if split == "val" else self.results.get(split) or {}
        return source.get("confidence")

    def _on_val(self) -> Event:
        """The evaluation that counts by now; an epoch may have had none."""
        return self.results.get("val") or self.best or next((e for e in reversed(self.epochs) if e["metrics"]), {})

    def per_class(self) -> list[dict[str, Any]]:
        """The classes on val, of the same weights as `metrics`."""
        return list(self._on_val().get("per_class") or [])

    # How each kind of event changes what is known

    def _start(self, e: Event) -> None:
        if self.attempt:
            self.spent_before += max(0.0, self.last_time - self.attempt_started)
        self.attempt = count(e["attempt"])
        self.attempt_started = self.last_time = float(e["t"])  # another machine's clock, perhaps, or one that was set
        self.started = self.started or self.attempt_started
        self.ended, self.error, self.stage = "", None, "preparing"
        self.bars.clear()
        self.requests.clear()
        self.stage_times = {"preparing": self.attempt_started}
        self.host = str(e.get("host", ""))
        resumed = e.get("resumed")
        if resumed:
            self._cut(count(resumed["epoch"]), count(resumed["step"]))
        elif self.attempt > 1 or self.step:
            self._cut(0, 0)

    def _cut(self, epoch: int, step: int) -> None:
        """An attempt goes on after `step` (in `epoch`, both 1…): what came later never was."""
        for series in self.step_series.values():
            series.cut(step)
        done = [x for x in self.epochs if x["epoch"] < epoch] if epoch else []
        self.epochs, self.epochs_done = done, len(done)
        for series in self.epoch_series.values():
            series.cut(epoch - 1)
        marked = [x for x in done if x.get("best")]
        self.best = marked[-1] if marked else None
        self.results.clear()
        self.step, self.epoch = step, epoch

    def _stage(self, e: Event) -> None:
        self.stage = str(e["stage"])
        self.stage_times[self.stage] = float(e["t"])
        self._note(e.get("t"), "info", {"preparing": "preparing server"}.get(self.stage, self.stage))
        if self.stage == "training":
            self.pace_marks = [(self.step, float(e["t"]))]

    def _plan(self, e: Event) -> None:
        e = {**e, "epochs": count(e["epochs"]), "steps_per_epoch": count(e["steps_per_epoch"])}
        self.plan = e
        counts = f"{e.get('train_images')} train, {e.get('val_images')} val images"
        text = f"{e['epochs']} epochs of {e['steps_per_epoch']} steps, {counts}; weights: {e.get('weights')}"
        self._note(e.get("t"), "info", text)

    def _progress(self, e: Event) -> None:
        self.bars[str(e["what"])] = (count(e["done"]), count(e["total"]))
        self.pace[str(e["what"])] = (str(e.get("unit") or ""), number(e.get("rate")))

    def _step(self, e: Event) -> None:
        step, epoch, i = count(e["step"]), count(e["epoch"]), count(e["i"])
        loss = numbers(e["loss"])
        self.step, self.epoch, self.step_in_epoch, self.losses = step, epoch, i, loss
        self.lr, self.images_per_second, self.memory = (
            number(e.get("lr")),
            number(e.get("img_s")),
            number(e.get("memory")),
        )
        for name, value in (*loss.items(), ("lr", self.lr)):
            curve = self.step_series.get(name)
            if curve is None:
                curve = self.step_series[name] = Series()
            curve.add(step, value)

    def _epoch(self, e: Event) -> None:
        e = {**e, **{k: numbers(e.get(k)) for k in ("train", "val", "metrics", "seconds")}, "epoch": count(e["epoch"])}
        e |= {k: number(e.get(k)) for k in ("lr", "confidence")} | {"per_class": rows(e.get("per_class"))}
        epoch = e["epoch"]
        self.epochs.append(e)
        self.epochs_done = self.epoch = epoch
        self.bars.pop("val", None)
        self.pace_marks.append((self.step, number(e.get("t")) or 0.0))
        for prefix, values in (("train/", e["train"]), ("val/", e["val"]), ("", e["metrics"]), ("", {"lr": e["lr"]})):
            for name, value in values.items():
                self.epoch_series.setdefault(prefix + name, Series()).add(epoch, value)
        if e.get("best"):
            self.best = e
        head = metrics.headline(self.task)
        value = e["metrics"].get(head.key)
        text = f"epoch {epoch}" + (f": {head.name} val {value:.3f}" if value is not None else "")
        self._note(e.get("t"), "info", text + (" → best so far, kept" if e.get("best") else ""))

    def _result(self, e: Event) -> None:
        found = {**e, "metrics": numbers(e.get("metrics")), "per_class": rows(e.get("per_class"))}
        found |= {"confidence": number(e.get("confidence")), "confusion": metrics.read_confusion(e.get("confusion"))}
        found["curves"] = metrics.read_curves(e.get("curves"))
        self.results[str(e["split"])] = found

    def _rollback(self, e: Event) -> None:
        """Gone back to save it: what came after that step never was."""
        self._cut(count(e["epoch"]), count(e["step"]))
        self.pace_marks = [(self.step, number(e.get("t")) or 0.0)]
        self.losses = {}
        self._note(e.get("t"), "warning", f"back to step {self.step}: {e['text']}")

    def _control(self, e: Event) -> None:
        if e["request"] == "change":
            self._change(e)
            return
        self.requests.append(str(e["request"]))
        self._note(e.get("t"), "info", f"asked to {e['request']}")

    def _change(self, e: Event) -> None:
        """Settings that a person changed while it ran."""
        found = {k: v for k, v in numbers(e).items() if k in ("epochs", "patience", "lr_scale") and v is not None}
        if "epochs" in found:
            self.plan = {**self.plan, "epochs": count(found["epochs"])}
        self.changes.update(found)
        texts = {"epochs": "{:g} epochs", "patience": "patience {:g}", "lr_scale": "learning rates × {:g}"}
        self._note(e.get("t"), "info", f"changed: {', '.join(texts[k].format(v) for k, v in found.items())}")

    def _log(self, e: Event) -> None:
        self._note(e.get("t"), str(e.get("level", "info")), str(e["text"]))

    def _error(self, e: Event) -> None:
        self.error = {k: str(e.get(k) or "") for k in ("code", "message", "hint")}
        self._note(e.get("t"), "error", self.error["message"])

    def _requeue(self, e: Event) -> None:
        """It goes on by itself: what was its last word is none."""
        self.ended, self.stage = "", "preparing"
        self._note(e.get("t"), "info", str(e.get("reason") or "requeued"))

    def _end(self, e: Event) -> None:
        if e["state"] not in ENDS:
            raise ValueError(e["state"])
        self.ended = str(e["state"])
        self._note(e.get("t"), "info", self.ended)
        self.stage = "done" if self.ended == "done" else self.stage
        self.stage_times["end"] = float(e["t"])

    def _note(self, t: Any, level: str, text: str) -> None:
        self.log.append((number(t) or 0.0, level, text))
        if len(self.log) > LOG_LINES:
            del self.log[: -LOG_LINES // 2]


_HANDLERS = {
    "start": Progress._start,
    "stage": Progress._stage,
    "plan": Progress._plan,
    "progress": Progress._progress,
    "step": Progress._step,
    "epoch": Progress._epoch,
    "result": Progress._result,
    "control": Progress._control,
    "rollback": Progress._rollback,
    "log": Progress._log,
    "error": Progress._error,
    "requeue": Progress._requeue,
    "end": Progress._end,
}
