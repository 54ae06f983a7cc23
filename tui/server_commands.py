"""`dojang server`: the servers that versions train on."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from engine.errors import DojangError, Invalid, Problem
from engine.versions import Workspace
from tui import words

Arguments = argparse.Namespace
SETTINGS = ("host", "user", "port", "root", "python", "wheels")


def _workspace(a: Arguments) -> Workspace:
    from tui import commands

    return commands._workspace(a)


def _out(text: str) -> None:
    sys.stdout.write(words.clean(text) + "\n")


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def server_add(a: Arguments) -> None:
    """Keep a server; nothing is sent to it yet."""
    from engine.servers import boxes, entries

    path = _workspace(a).ensure().path
    data: dict[str, Any] = {name: value for name in SETTINGS if (value := getattr(a, name)) is not None}
    if a.host is None and not a.folder:
        data["host"] = a.name
    if a.wheels:
        from pathlib import Path

        data["wheels"] = str(Path(a.wheels).expanduser().absolute())
    places = dict(_pair(text) for text in a.data)
    ways = [entries.parse(text) for text in a.slurm]
    box = boxes.make({**data, "name": a.name, "data": places, "slurm": ways})
    boxes.add(path, box, replace=a.replace)
    if a.json:
        return _json(box.to_json())
    where = f" is {box.where}" if box.where != box.name else " is added"
    return _out(f"{box.name}{where}. See what is there: dojang server check {box.name}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals:
        raise Invalid([Problem("--data", f"“{text}” is not SET=PATH")], code="BAD_SERVER")
    return name.strip(), path.strip()


def server_list(a: Arguments) -> None:
    from engine.servers import boxes
    from tui.commands import _table

    workspace = _workspace(a)
    found, troubles = boxes.listed(workspace.path)
    for trouble in troubles:
        sys.stderr.write(words.clean(str(trouble)) + "\n")
    counts = _counts(workspace) if found else {}
    if a.json:
        return _json([{**box.to_json(), "versions": counts.get(box.name, 0)} for box in found])
    if not found:
        return _out("No server yet; this machine needs none. Add one: dojang server add NAME")
    rows = [[box.name, box.where, box.root, box.python or "made there", str(counts.get(box.name, 0))] for box in found]
    return _table(["server", "login", "folder", "python", "versions"], rows, frozenset({4}))


def _counts(workspace: Workspace) -> dict[str, int]:
    """How many versions train or trained on each server."""
    found: dict[str, int] = {}
    for name in workspace.projects():
        for version in workspace.project(name).versions():
            if version.server:
                found[version.server] = found.get(version.server, 0) + 1
    return found


def server_show(a: Arguments) -> None:
    """What is written of a server, and the versions on it."""
    from engine.servers import boxes

    workspace = _workspace(a)
    box = boxes.get(workspace.path, a.name)
    there = [v.reference for n in workspace.projects() for v in workspace.project(n).versions() if v.server == box.name]
    if a.json:
        return _json({**box.to_json(), "versions": there})
    _out(f"{box.name}: {box.where}")
    _out(f"folder {box.root}; python {box.python or 'made there'}")
    if box.wheels:
        _out(f"environments are made from the wheels in {box.wheels}")
    for name, path in box.data.items():
        _out(f"{name} lies there in {path}")
    for entry in box.slurm:
        told = ", ".join(f"{k} {', '.join(v) if isinstance(v, list) else v}" for k, v in entry.to_toml().items())
        _out(f"Slurm, as {box.name}/{entry.name}: {told}")
    return _out(f"versions: {', '.join(there) or 'none yet'}")


def server_remove(a: Arguments) -> None:
    """Forget a server. What lies on it stays; versions that trained there can no longer be asked about."""
    from engine.servers import boxes

    workspace = _workspace(a)
    running = [
        v.reference
        for n in workspace.projects()
        for v in workspace.project(n).versions()
        if v.server == a.name and v.alive()
    ]
    if running and not a.force:
        raise DojangError(
            f"{', '.join(running[:5])} {'runs' if len(running) == 1 else 'run'} on {a.name}.",
            code="RUNNING",
            hint="Wait for the end, or stop it. With --force the server is forgotten, and they go on unwatched.",
        )
    box = boxes.remove(workspace.path, a.name)
    if a.json:
        return _json({"removed": box.name})
    return _out(f"{box.name} is forgotten. What lies in {box.root} there stays.")


def server_login(a: Arguments) -> int:
    """ssh itself on this terminal: what is typed is seen by nobody else. What it returns."""
    import subprocess

    from engine.servers import boxes, links, ssh

    box = boxes.get(_workspace(a).path, a.name)
    if not box.host:
        _out(f"{box.name} is a folder of this machine: there is nothing to log in to.")
        return 0
    if not sys.stdin.isatty():
        hint = f"Run it in a terminal: dojang server login {box.name}"
        raise DojangError("A login by hand needs a terminal.", code="NEEDS_INTERACTION", hint=hint)
    to = links.target(box)
    done = subprocess.run(ssh.interactive_command(to), check=False)
    if done.returncode:
        return done.returncode
    _out(f"You are logged in to {box.name}. See what is there: dojang server check {box.name}")
    return 0


def server_check(a: Arguments) -> int:
    """Step by step what a training would meet there; 1 if something keeps it from training."""
    from engine.servers import boxes, checking

    box = boxes.get(_workspace(a).path, a.name)
    found = []
    for step in checking.steps(box):
        found.append(step)
        if not a.json:
            _out(f"{'ok ' if step.fine else '!! '}{step.name}: {step.text}")
            if step.code in ("HOST_KEY_UNKNOWN", "NEEDS_INTERACTION"):
                _out(f"   → dojang server login {box.name}")
            elif step.hint:
                _out(f"   → {step.hint}")
            sys.stdout.flush()
    if a.json:
        _json([step.to_json() for step in found])
    return int(not all(step.fine for step in found))


def require(a: Arguments) -> None:
    """That the server of `dojang train --server` is there, before anything is laid down. Raises LinkError."""
    from engine.servers import boxes, links, slurm

    if a.foreground:
        hint = "Leave --foreground out; --follow prints its progress."
        raise DojangError("A training on a server does not run in this process.", code="USAGE", hint=hint)
    name, _, entry = a.server.partition("/")
    box = boxes.get(_workspace(a).path, name)
    if entry:
        slurm.entry_of(box, entry)
    with links.shared(box) as link:
        link.call("hello", timeout=30.0)


def fetch(a: Arguments) -> None:
    """Bring a version's weights home from its server."""
    from engine.servers import fetching, links, remote

    version = _workspace(a).version(a.version)
    if not version.server:
        raise DojangError(
            f"{version.reference} trains on this machine.", code="BAD_VALUE", hint="Its weights are here."
        )
    names = ["weights/best.pt", "weights/last.pt"] if a.all else ["weights/best.pt"]
    names += ["checkpoints/state.pt", "checkpoints/state.previous.pt"] if a.all else []
    box, place = remote.where(version)
    with links.shared(box, place.root) as link:
        brought = fetching.fetch(version, place, link, names, _tick(a))
    if a.json:
        return _json({"version": version.id, "files": [str(path) for path in brought]})
    for path in brought:
        _out(str(path))
    return None


def _tick(a: Arguments) -> Any:
    """A line on stderr that counts bytes, where somebody is there to see it."""
    if a.json or not sys.stderr.isatty():
        return lambda done, total: None

    def tick(done: int, total: int) -> None:
        ended = "\n" if done >= total else ""
        sys.stderr.write(f"\rfetching {words.size(done)} of {words.size(total)}\x1b[K{ended}")

    return tick
