"""`dojang weights`: which files of weights there are, fetching public ones, taking in others."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine import catalog, weights, weights_files
from engine.catalog import Model
from engine.errors import DojangError
from engine.versions import Workspace
from engine.weights_files import Held
from tui import words
from tui.cli import workspace_path
from tui.commands import _json, _out, _table

Arguments = argparse.Namespace
DIGITS = 12  # of a SHA-256, in a table
REFRESH = 0.1  # seconds between two drawings of the bar
BAR = 24  # cells
TITLES = ["model", "file", "size", "SHA-256", "where"]


def show_list(a: Arguments) -> None:
    workspace = Workspace(workspace_path(a))
    public, others = weights_files.public(workspace), weights_files.others(workspace)
    if a.json:
        return _json({"public": [h.to_json() for h in public], "others": [h.to_json() for h in others]})
    _table(TITLES, [_row(held) for held in public], frozenset({2}))
    _out()
    if others:
        _table(["fits", *TITLES[1:]], [_row(held) for held in others], frozenset({2}))
    else:
        _out("No other file. Take one in: dojang weights import FILE")
    return None


def _row(held: Held) -> list[str]:
    """One line of a table: what it is for, called, how large, and where it lies."""
    models = ", ".join(held.models[:3]) + (" …" if len(held.models) > 3 else "") or words.DASH
    digest = held.sha256[:DIGITS] if held.sha256 else words.DASH
    size = _size(held.size) if held.size else words.DASH
    return [models, held.file, size, digest, held.path or "not here"]


def _size(count: int) -> str:
    """“6.2 MiB”."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def fetch(a: Arguments) -> int:
    """Download what is not here yet, after saying from where, how much and to where."""
    workspace = Workspace(workspace_path(a))
    models = list({model.name: model for model in map(catalog.find, a.models)}.values())
    here = {model.name: path for model in models if (path := weights.find(model, workspace))}
    wanted = [model for model in models if model.name not in here]
    if not a.json:
        for name, path in here.items():
            _out(f"The weights of {name} are here already: {path}")
    if wanted and not _agreed(a, wanted, workspace):
        return 1
    for model in wanted:
        path = _fetch_one(model, workspace, quiet=a.json or not sys.stderr.isatty())
        here[model.name] = path
        if not a.json:
            known = (
                "as its name says" if weights.known_digest(model.pretrained) else "noted; none is published to compare"
            )
            _out(f"{path}: {_size(path.stat().st_size)}, SHA-256 {weights.noted(path)['sha256']} ({known})")
    if a.json:
        held = {h.models[0]: h for h in weights_files.public(workspace)}
        _json([held[model.name].to_json() for model in models])
    return 0


def _agreed(a: Arguments, models: list[Model], workspace: Workspace) -> bool:
    """Say what would be fetched, and ask. Raises DojangError(NOT_CONFIRMED) where nobody can be asked."""
    if not a.yes and (a.json or not sys.stdin.isatty()):
        names = ", ".join(model.pretrained for model in models)
        raise DojangError(f"Fetching {names} was not confirmed.", code="NOT_CONFIRMED", hint="Add --yes.")
    if a.json:
        return True
    for model in models:
        size = weights.size(model)
        much = _size(size) if size else "size unknown"
        sys.stderr.write(f"{model.name}: {weights.address(model)} ({much})\n")
    sys.stderr.write(f"into {workspace.weights}\n")
    if a.yes:
        return True
    sys.stderr.write("Fetch? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _fetch_one(model: Model, workspace: Workspace, quiet: bool) -> Path:
    """One file, with a bar where somebody sees it. What came is kept when it is interrupted."""
    bar = _bar(model.pretrained)
    try:
        path = weights.fetch(model, workspace, (lambda _done, _total: True) if quiet else bar)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nStopped. What has come is kept: dojang weights fetch {model.name} goes on from there.\n")
        raise
    finally:
        if not quiet:
            sys.stderr.write("\n")
    assert path is not None  # nothing here cancels
    return path


def _bar(name: str) -> Callable[[int, int], bool]:
    """Draws how far a download is, on one line of stderr: share, bytes and speed."""
    began, shown, first = time.monotonic(), 0.0, -1

    def tick(done: int, total: int) -> bool:
        nonlocal shown, first
        first = done if first < 0 else first
        now = time.monotonic()
        if now - shown >= REFRESH or done == total:
            shown = now
            share = done / total if total else 0.0
            full = "█" * int(share * BAR)
            much = f"{done / 2**20:.1f} of {_size(total)}" if total else _size(done)
            speed = (done - first) / max(now - began, 1e-3) / 2**20
            sys.stderr.write(f"\r{name} {full:·<{BAR}} {share * 100:3.0f} %  {much}  {speed:.1f} MiB/s\x1b[K")
            sys.stderr.flush()
        return True

    return tick


def take(a: Arguments) -> None:
    """Look a foreign file through and keep a copy."""
    workspace = Workspace(workspace_path(a))
    held = weights_files.take(Path(a.file).expanduser(), workspace, a.model or "", a.name or "")
    if a.json:
        return _json(held.to_json())
    classes = f", {words.plural(len(held.classes), 'class', 'classes')}" if held.classes else ""
    _out(f"{held.file} fits {', '.join(held.models)}{classes}. It is kept as {held.path}")
    name = weights_files.public_name(held.file)
    used = "--set weights=pretrained" if name else f"--weights {held.file}"
    return _out(f"Train from it: dojang train --dataset NAME --model {name or held.models[0]} {used}")
