"""`dojang lr-plot` and `dojang lr-find`: the learning rate seen before the start."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine import launch
from engine.errors import Invalid, NotFound, Problem
from engine.spec import Spec, parse, resolved_optimizer
from engine.versions import Workspace
from tui import drawing, words
from tui.commands import Arguments, _json, _out, _request, _table, _workspace
from tui.rates import Rates

ROWS, JSON_POINTS = 24, 1000


def lr_plot(a: Arguments) -> None:
    """Draw the schedule of a spec or a version."""
    workspace = _workspace(a)
    spec, name = _spec_of(workspace, a.target, a.set)
    rates = _rates(workspace, spec, a.steps)
    if a.json:
        return _json(_plotted(rates))
    _out(f"{words.clean(name)}: {_headline(rates)}")
    if drawing.on_terminal():
        _draw_rates(rates)
    else:
        _list_rates(rates)
    for line in rates.told():
        _out(line)
    return None


def _spec_of(workspace: Workspace, target: str, assignments: list[str]) -> tuple[Spec, str]:
    """The spec in a file, or that of a version, with `--set` on top; and what to call it."""
    is_file = target.endswith(".toml") or Path(target).is_file()
    if is_file:
        data, name = _with_set(target, assignments), Path(target).name
    else:
        version = workspace.version(target)
        data, name = {**version.spec().model_dump(), **_with_set(None, assignments)}, version.reference
    return parse(data), name


def _with_set(path: str | None, assignments: list[str]) -> dict[str, Any]:
    """What `dojang train` would make of a file and `--set`."""
    given = argparse.Namespace(
        spec=path, set=assignments, dataset=None, model=None, name=None, tag=[], memo=None, project=None
    )
    data, _, _, wrong = _request(given)
    if wrong:
        raise Invalid(wrong)
    return data


def _rates(workspace: Workspace, spec: Spec, steps: int | None) -> Rates:
    """With the steps that its data set gives, or with `steps` an epoch where that is not at hand."""
    if steps is not None and not 1 <= steps <= 10_000_000:
        raise Invalid([Problem("--steps", f"must be 1 – 10 000 000, not {steps}")])
    try:
        plan = launch.plan(workspace, spec)
    except NotFound as e:
        if steps is None:
            hint = "Say how many steps an epoch has: --steps N."
            raise NotFound(e.message, hint=f"{e.hint} {hint}".strip()) from e
        name, lr, _ = resolved_optimizer(spec, 0, steps * spec.epochs)
        if spec.lr is None:
            hint = "The data set is not here, and the automatic rate depends on it: add --set lr=…"
            raise NotFound(e.message, hint=hint) from e
        return Rates(spec, name, lr, steps)
    return Rates(spec, plan.optimizer, plan.lr, steps or plan.steps_per_epoch)


def _headline(rates: Rates) -> str:
    spec = rates.spec
    return (
        f"{spec.schedule} with {rates.optimizer}, {words.plural(rates.steps, 'step')}: "
        f"{words.plural(spec.epochs, 'epoch')} of {rates.steps_per_epoch}"
    )


def _plotted(rates: Rates) -> dict[str, Any]:
    spec = rates.spec
    step, peak = rates.peak()
    return {
        "optimizer": rates.optimizer, "schedule": spec.schedule, "lr": rates.lr, "epochs": spec.epochs,
        "steps": rates.steps, "steps_per_epoch": rates.steps_per_epoch, "start": rates.head(0), "peak": peak,
        "peak_step": step, "end": rates.head(rates.steps - 1), "warmup_steps": rates.climbing,
        "warmup_lr": spec.warmup_lr, "warmup_bias_lr": spec.warmup_bias_lr,
        "backbone_lr_ratio": spec.backbone_lr_ratio, "points": rates.rows(JSON_POINTS),
    }  # fmt: skip


def _draw_rates(rates: Rates) -> None:
    """The curve over epochs, and below it the same axis in steps."""
    from tui.widgets.axes import x_ticks
    from tui.widgets.chart import Chart
    from tui.widgets.lines import Line, line_width

    width, height = drawing.room(below=8)
    chart = Chart()
    chart.log_scale = rates.log_scale
    chart.show(
        rates.series(), x_range=(0, rates.spec.epochs), title="learning rate", y_format=words.number, x_label="epoch"
    )
    lines = list(chart.paint(width, height))
    corner = lines[-1][0][0] if lines and lines[-1] else ""
    gutter = len(corner)
    row = [" "] * (width - gutter)
    for column, label in x_ticks(0, rates.steps, width - gutter - 1):
        start = max(0, min(round(column) + 1 - len(label) // 2, len(row) - len(label)))
        row[start : start + len(label)] = label
    steps: Line = ((f"{'step':>{max(0, gutter - 1)}} ", "axis"), ("".join(row), "axis"))
    _out(drawing.text([*lines, steps if line_width(steps) <= width else ()]))


def _list_rates(rates: Rates) -> None:
    """Where there is no terminal to draw on: columns."""
    titles = ["step", "epoch", "lr", *(["backbone"] if rates.has_backbone else [])]
    rows = [
        [str(r["step"]), f"{r['epoch']:.2f}", words.number(r["lr"])]
        + ([words.number(r["backbone_lr"])] if rates.has_backbone else [])
        for r in rates.rows(ROWS)
    ]
    _table(titles, rows, frozenset(range(len(titles))))


# The finder


def lr_find(a: Arguments) -> int:
    """Sweep over learning rates on a model of its own, and say which one to use."""
    from engine import find

    workspace = _workspace(a).ensure()
    data, _, _, wrong = _request(a)
    wrong += launch.check(workspace, data)
    if wrong:
        raise Invalid(wrong)
    finder = find.Finder(workspace, parse(data), a.low, a.high, a.steps)
    sweep = find.Sweep()
    try:
        for message in finder.messages():
            sweep.take(message)
            if not a.json:
                _tell(message, a.steps)
    finally:
        finder.close()
        if sys.stderr.isatty() and not a.json:
            sys.stderr.write("\r\x1b[K")
    if a.json:
        _json(sweep.to_json())
    else:
        _show(sweep, (a.low, a.high))
    return 0 if sweep.suggestion else 1


def _tell(message: dict[str, Any], steps: int) -> None:
    """One line on stderr that shows how far it is, where somebody is there to see it."""
    if not sys.stderr.isatty():
        return
    kind = message["kind"]
    text = {
        "stage": "loading libraries",
        "progress": f"checking {message.get('done')} of {message.get('total')} images",
        "plan": "first step",
        "point": f"step {message.get('step')} of {steps}, lr {words.number(message.get('lr'))}, "
        f"loss {words.number(message.get('smooth'))}",
    }.get(str(kind))
    if text:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def _show(sweep: Any, limits: tuple[float, float]) -> None:
    from tui.widgets.sweep import draw

    plan = sweep.plan
    _out(
        f"{words.plural(len(sweep.rates), 'step')} of {plan['optimizer']} with batches of {plan['batch_size']} "
        f"on {plan['device']}; nothing was kept"
    )
    if drawing.on_terminal():
        size = drawing.room(below=7)
        _out(drawing.text(draw(sweep.rates, sweep.losses, sweep.smoothed, limits, size, sweep.suggestion)))
    else:
        every = max(1, len(sweep.rates) // ROWS)
        rows = [
            [words.number(r), words.number(v), words.number(s)]
            for r, v, s in list(zip(sweep.rates, sweep.losses, sweep.smoothed, strict=True))[::every]
        ]
        _table(["lr", "loss", "smoothed"], rows, frozenset(range(3)))
    if sweep.suggestion is None:
        return _out(sweep.reason)
    ended = " Then it diverged." if sweep.end["ended"] == "diverged" else ""
    steepest, lowest = words.number(sweep.suggestion), words.number(sweep.end["lowest"])
    _out(f"The loss falls fastest at {steepest}, and is lowest at {lowest}.{ended}")
    return _out(f"Use it: --set lr={sweep.suggestion:g}")


__all__ = ["lr_find", "lr_plot"]
