"""A training told in lines of text: `dojang follow`, `dojang show`, and wherever there is no terminal to draw on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine import metrics
from engine.events import Event
from engine.progress import Progress, number
from tui import words

STEP_SECONDS = 5.0


class Lines:
    """Turns events into lines a person wants to read, steps at most every few seconds."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._last_step = 0.0

    def of(self, event: Event) -> Iterator[str]:
        self.progress.apply([event])
        told = getattr(self, f"_{event['kind']}", None)
        if told:
            try:
                yield from told(event)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # a log may come from elsewhere
                return

    def _start(self, e: Event) -> Iterator[str]:
        resumed = e.get("resumed")
        yield f"attempt {e['attempt']} on {e.get('host', '')}" + (
            f", going on after step {resumed['step']}" if resumed else ""
        )

    def _stage(self, e: Event) -> Iterator[str]:
        yield f"── {e['stage']}"

    def _plan(self, e: Event) -> Iterator[str]:
        yield (
            f"{e.get('train_images')} train and {e.get('val_images')} val images, {e['epochs']} epochs of "
            f"{e['steps_per_epoch']} steps, {e.get('optimizer')} at {words.number(e.get('lr'))}, on {e.get('device')}; weights: {e.get('weights')}"
        )

    def _step(self, e: Event) -> Iterator[str]:
        if e["t"] - self._last_step < STEP_SECONDS:
            return
        self._last_step = e["t"]
        p = self.progress
        losses = "  ".join(f"{words.loss(k)} {words.number(v)}" for k, v in e["loss"].items())
        left = p.remaining()
        yield (
            f"{p.fraction * 100:3.0f} %  epoch {e['epoch']}/{p.epochs_total}  step {e['i']}/{p.plan.get('steps_per_epoch')}  "
            f"{losses}  lr {words.number(e.get('lr'))}  {words.number(e.get('img_s'))} img/s"
            + (f"  {words.duration(left)} left" if left is not None else "")
        )

    def _epoch(self, e: Event) -> Iterator[str]:
        text = f"epoch {e['epoch']}/{self.progress.epochs_total}"
        if e["metrics"]:
            text += f" on val: {metrics_text(e['metrics'], self.progress.task, e.get('confidence'))}"
        yield text + ("  (best so far)" if e.get("best") else "")

    def _result(self, e: Event) -> Iterator[str]:
        yield f"best weights on {e['split']}: {metrics_text(e['metrics'], self.progress.task, e.get('confidence'))}"

    def _control(self, e: Event) -> Iterator[str]:
        yield f"asked to {e['request']}"

    def _log(self, e: Event) -> Iterator[str]:
        yield str(e["text"])

    def _error(self, e: Event) -> Iterator[str]:
        yield f"{e['code']}: {e['message']}"

    def _end(self, e: Event) -> Iterator[str]:
        yield f"── {e['state']} after {words.duration(self.progress.elapsed())}"


def metrics_text(values: dict[str, Any], task: str, confidence: Any = None) -> str:
    """The metrics of a task by name, and the threshold at which precision, recall and F1 of a detector hold."""
    at = number(confidence)
    text = "  ".join(f"{m.name} {words.metric(number(values.get(m.key)))}" for m in metrics.of(task))
    return text + (f" at confidence {at:.3f}" if at is not None else "")


def describe(found: dict[str, Any]) -> Iterator[str]:
    """`dojang show` for people."""
    name = f" “{found['name']}”" if found["name"] != found["version"] else ""
    yield f"{found['project']}/{found['version']}{name}: {words.state(found)}"
    yield f"{found['model']} on {found['dataset']}, epoch {found['epochs_done']} of {found['epochs']}, {words.duration(found['elapsed'])}"
    yield f"val:  {metrics_text(found['metrics'], found['task'], found['confidence'])}"
    if found.get("test_metrics"):
        yield f"test: {metrics_text(found['test_metrics'], found['task'], found['test_confidence'])}"
    if found["tags"] or found["memo"]:
        yield f"tags {' '.join(found['tags']) or words.DASH}; memo {found['memo'] or words.DASH}"
    if found.get("waiting"):
        yield f"it {found['waiting']['reason']}"
    if found["error"] and found["state"] not in ("done", "queued"):
        yield f"{found['error']['code']}: {found['error']['message']}"
        yield from found["error"]["hint"].splitlines()
    yield f"folder  {found['run_dir']}"
    yield f"weights {found['weights'] or 'none yet'}"
    yield ""
    for key, value in found["spec"].items():
        yield f"  {key} = {words.setting(value)}"
