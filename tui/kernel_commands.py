"""`dojang kernel`: families of models from outside. Installed packages are listed; declared programs are looked after."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from engine import catalog, external, plugins
from engine.errors import DojangError
from engine.external import Declaration
from tui import words
from tui.cli import workspace_path
from tui.commands import _json, _out, _table

Arguments = argparse.Namespace


def kernel_list(a: Arguments) -> None:
    """Every kernel, what it trains, and whether it can."""
    place = _place(a)
    rows = [*_built_in(), *_packages(), *_programs(place)]
    if a.json:
        return _json(rows)
    table = [
        [r["kernel"], r["from"], r["task"], _some(r["models"]), _some(list(r["options"])), r["state"]] for r in rows
    ]
    _table(["kernel", "from", "task", "models", "own settings", "state"], table)
    for row in rows:
        if row["trouble"]:
            _out(words.clean(f"{row['kernel']}: {row['trouble']}"))
    return None


def kernel_add(a: Arguments) -> int:
    """Show what a declaration would run, ask, and take it into the workspace."""
    source = Path(a.file).expanduser().absolute()
    made = external.read(source)
    if not _consent(made, a, f"Add the kernel {made.name} and let it run as you?"):
        return 1
    added = external.add(_place(a, make=True), source)
    _tell(a, added, f"{added.name} is added: {_some([m.name for m in added.models])} can be trained.")
    return 0


def kernel_accept(a: Arguments) -> int:
    """Let a declaration run that is in the workspace already, or was changed there."""
    made = external.find(_place(a), a.name)
    if not _consent(made, a, f"Let the kernel {made.name} run as you?"):
        return 1
    again = external.find(_place(a), a.name)
    if again.digest != made.digest:
        raise DojangError(f"{made.path} changed while you were asked.", code="BAD_KERNEL", hint="Look at it again.")
    _tell(a, external.accept(again), f"{made.name} is accepted.")
    return 0


def kernel_remove(a: Arguments) -> None:
    place = _place(a)
    where = external.remove(place, a.name)
    if a.json:
        return _json({"removed": a.name, "moved_to": str(where)})
    return _out(f"{a.name} is removed; its declaration lies in {where} now. Its program was not touched.")


def kernel_check(a: Arguments) -> int:
    """What is wrong with one kernel or a file, or with all of them; 1 if anything is."""
    place = _place(a)
    if a.name and a.name.endswith(".toml"):
        found = [_program(external.read(Path(a.name).expanduser().absolute()))]
        found[0]["state"] = "not added"
    else:
        found = [r for r in (*_packages(), *_programs(place)) if a.name in (None, r["kernel"])]
        if a.name and not found:
            external.find(place, a.name)
    wrong = [r for r in found if r["trouble"] or r["state"] == "not accepted"]
    if a.json:
        _json(found)
    else:
        for row in found:
            _out(words.clean(f"{row['kernel']}: {row['trouble'] or row['state']}"))
        if not found:
            _out("There is no kernel but dojang's own.")
    return 1 if wrong else 0


def trouble_lines() -> list[str]:
    """What is wrong with kernels from outside, one line each, for whoever lists models."""
    return [words.clean(f"{name}: {text}") for name, text in plugins.troubles().items()]


def _place(a: Arguments, make: bool = False) -> Path:
    from engine.versions import Workspace

    workspace = Workspace(workspace_path(a))
    plugins.look_in(workspace.path)
    return (workspace.ensure() if make else workspace).path


def _consent(made: Declaration, a: Arguments, question: str) -> bool:
    """Show what would run, and ask. Raises DojangError(NOT_CONFIRMED) where nobody can be asked."""
    lines = [
        f"{made.name} learns to {made.task}: {_some([m.name for m in made.models])}",
        f"declared in {made.path}",
        "starts, without a shell:",
        f"  {shlex.join(made.command_line())}",
        *(f"gives it the file {path}" for path in made.files().values()),
        *(f"careful: {text}" for text in made.troubles()),
    ]
    sys.stderr.write("".join(f"{words.clean(line)}\n" for line in lines))
    if a.yes:
        return True
    if not sys.stdin.isatty():
        raise DojangError(f"{made.name} was not confirmed.", code="NOT_CONFIRMED", hint="Add --yes.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(a: Arguments, made: Declaration, text: str) -> None:
    _json(_program(made)) if a.json else _out(words.clean(text))


def _row(
    name: str, source: str, models: list[str], task: str, options: dict[str, Any], state: str, trouble: str
) -> dict[str, Any]:
    return {
        "kernel": name,
        "from": source,
        "task": task,
        "models": models,
        "options": options,
        "state": state,
        "trouble": trouble,
    }


def _built_in() -> list[dict[str, Any]]:
    rows = []
    for name in catalog.BUILT_IN:
        models = [m for m in catalog.MODELS.values() if m.kernel == name]
        if models:
            rows.append(_row(name, "dojang", [m.name for m in models], _tasks(models), {}, "ready", ""))
    return rows


def _packages() -> list[dict[str, Any]]:
    every, troubles, rows = plugins.models().values(), plugins.troubles(), []
    for name in plugins.kernels():
        models = [m for m in every if m.kernel == name]
        options = dict(plugins.options_of(name).properties)
        rows.append(
            _row(name, "a package", [m.name for m in models], _tasks(models), options, "ready", troubles.get(name, ""))
        )
    broken = [n for n in plugins.package_troubles() if n not in plugins.kernels()]
    return [*rows, *(_row(n, "a package", [], "", {}, "broken", troubles[n]) for n in broken)]


def _programs(workspace: Path) -> list[dict[str, Any]]:
    found, broken = external.declarations(workspace)
    troubles = plugins.troubles()
    rows = [_program(one, troubles.get(one.name, "")) for one in found]
    return [*rows, *(_row(name, "a program", [], "", {}, "broken", e.message) for name, e in broken.items())]


def _program(made: Declaration, trouble: str = "") -> dict[str, Any]:
    state = "ready" if made.accepted else "not accepted"
    wrong = "; ".join(t for t in (trouble, *made.troubles()) if t)
    if not made.accepted and not wrong:
        wrong = f"not accepted: dojang kernel accept {made.name}"
    row = _row(
        made.name, "a program", [m.name for m in made.models], made.task, dict(made.options.properties), state, wrong
    )
    return {**row, "command": list(made.command), "path": str(made.path), "operations": sorted(made.operations)}


def _tasks(models: list[Any]) -> str:
    return ", ".join(sorted({m.task for m in models}))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or words.DASH
