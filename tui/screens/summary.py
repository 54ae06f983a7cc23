"""A version in words: its results by split and class, what to do next, and the settings it was trained with."""

from __future__ import annotations

from typing import Any

from textual.content import Content

from engine import metrics
from engine.errors import DojangError
from engine.progress import Progress
from engine.versions import LIVE, Version, task_of
from tui import words
from tui.widgets.facts import Fact, head, row
from tui.widgets.symbols import fit, sign

WEAK = 0.5


def summary_text(version: Version, p: Progress, state: str) -> list[Fact]:
    """Everything a finished (or running) version has to say for itself."""
    task = p.task or task_of(version.model())
    lines: list[Fact] = [Content(""), Content.styled(_source(p, state), "$foreground-muted")]
    lines += _threshold(p.confidence())
    test = p.results.get("test")
    if test:
        lines += [Content(""), Content.styled("test split, held out, evaluated once", "bold")]
        lines.append(
            Content("   ".join(f"{m.name} {words.metric(test['metrics'].get(m.key))}" for m in metrics.of(task)))
        )
        lines += _threshold(p.confidence("test"))
    lines += _classes("val, by class", p.per_class(), task)
    if test:
        lines += _classes("test, by class", test.get("per_class") or [], task)
    lines += [Content(""), Content.styled("weights, best on val", "bold")]
    kept = version.best_weights.exists()
    lines.append(Content(str(version.best_weights) if kept else "none yet: kept after the first evaluation"))
    if p.plan.get("weights"):
        lines.append(Content.styled(f"started from {p.plan['weights']}", "$foreground-muted"))
    steps = [(Content(f"{sign('→')} {t}"), 2) for t in _next(version, p, state)]
    return [*lines, Content(""), Content.styled("next", "bold"), *steps]


def _source(p: Progress, state: str) -> str:
    if "val" in p.results:
        best = f" of epoch {p.best['epoch']}" if p.best else ""
        return f"val split: the best weights{best}, evaluated at the end"
    if p.best:
        return f"val split: epoch {p.best['epoch']}, the best so far"
    return "val split: the first evaluation comes after the first epoch" if state in LIVE else "no evaluation was made"


def _threshold(confidence: float | None) -> list[Content]:
    """Where a detector's precision, recall and F1 hold: without it they say nothing."""
    if confidence is None:
        return []
    text = f"precision, recall, F1: of boxes from confidence {confidence:.3f} on, where F1 is best"
    return [Content.styled(text, "$foreground-muted")]


def _classes(title: str, rows: list[dict[str, Any]], task: str) -> list[Content]:
    """Each class with what is measured of it, the weakest first."""
    if not rows:
        return []
    measured = [m for m in metrics.of(task) if any(m.key in r for r in rows)]
    counted = [n for n in ("images", "labels") if any(n in r for r in rows)]
    head = f"{'':<18}" + "".join(f"{t:>8}" for t in (*(m.title for m in measured), *counted))
    weighed = metrics.weighed(task)
    lines = [Content(""), Content.styled(title, "bold"), Content.styled(head, "$foreground-muted")]
    for found in sorted(rows, key=lambda r: r.get(weighed) or 0.0):
        values = "".join(f"{words.metric(found.get(m.key)):>8}" for m in measured)
        counts = "".join(f"{words.DASH if found.get(n) is None else found[n]:>8}" for n in counted)
        lines.append(Content(f"{fit(words.clean(str(found.get('name', ''))), 18)}{values}{counts}"))
    return lines


def _next(version: Version, p: Progress, state: str) -> list[str]:
    """What a person would think of next."""
    if state in LIVE:
        return ["s stops it, f finishes it now with the best weights; leaving this screen costs it nothing"]
    if state in ("stopped", "paused", "lost", "failed", "draft"):
        how = "goes on from the last checkpoint" if version.state_file.exists() else "starts it, from the beginning"
        return [f"p {how} (dojang resume {version.reference})"]
    found = [f"use the weights: {version.best_weights}"]
    task = p.task
    head, weighed = metrics.headline(task), metrics.weighed(task)
    values = p.metrics()
    value = values[head.key]
    if value is not None and value < WEAK:
        judged = sorted((r for r in p.per_class() if r.get(weighed) is not None), key=lambda r: float(r[weighed]))
        weak = [str(r["name"]) for r in judged if r[weighed] < WEAK][:3]
        found.insert(
            0,
            f"{head.name} is low"
            + (f", most of all for {', '.join(weak)}" if weak else "")
            + ": look at those images and labels, train longer, or start from pretrained weights",
        )
    if p.best and p.epochs and p.best["epoch"] == p.epochs[-1]["epoch"]:
        found.insert(0, "the last epoch was the best: more epochs will likely help")
    return found


def settings_text(version: Version, p: Progress) -> list[Fact]:
    """The spec, locked, and what “auto” came to."""
    from engine import catalog
    from engine.spec import Spec, default_of, property_of
    from tui.screens.settings_step import does_nothing

    try:
        data = version.spec_data()
    except FileNotFoundError:
        return [Content("Its spec.toml is missing.")]
    except (OSError, DojangError) as e:
        return [Content(str(e))]
    lines: list[Fact] = [Content.styled("locked: what this version was trained with", "$foreground-muted")]
    section = ""
    try:
        kernel = catalog.find(str(data.get("model", ""))).kernel
    except DojangError:
        kernel = ""
    for name in Spec.model_fields:
        info = property_of(name)
        if (name not in data or data[name] == default_of(name)) and does_nothing(name, data, kernel):
            continue
        if info["section"] != section:
            section = str(info["section"])
            lines += [Content(""), head(section)]
        value = data.get(name, default_of(name))
        changed = name not in ("dataset", "dataset_hash") and value != default_of(name)
        if name == "dataset_hash":
            value = str(value)[:12]
        shown = words.setting(value) + (f" {info['unit']}" if info.get("unit") and value is not None else "")
        mark = f"{sign('●')} changed (default {words.setting(default_of(name))})" if changed else ""
        lines.append(row(str(info["title"]), shown, mark))
    if p.plan:
        lines += [Content(""), head("What it came to")]
        for key, value in p.plan.items():
            if key not in ("kind", "t"):
                shown = ", ".join(map(str, value)) if isinstance(value, list) else words.setting(value)
                lines.append(row(key.replace("_", " "), words.clean(shown)))
    return lines
