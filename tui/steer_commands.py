"""Commands that change a training while it runs, or after: pause, change, extend."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from engine.errors import Invalid, Problem
from engine.versions import Version

Arguments = argparse.Namespace


def _version(a: Arguments) -> Version:
    from tui import commands

    return commands._workspace(a).version(a.version)


def _answer(a: Arguments, version: Version, text: str, **more: Any) -> None:
    if a.json:
        text = json.dumps({"version": version.id, "project": version.project.name, **more}, ensure_ascii=False)
    sys.stdout.write(text + "\n")


def pause(a: Arguments) -> None:
    """Leave the machine to others: the state is kept, the process ends, `resume` goes on exactly."""
    from engine.servers import anywhere

    version = _version(a)
    anywhere.request(version, "pause")
    state = "asked" if a.no_wait else anywhere.wait(version, 3600)
    text = "was asked to pause" if state == "asked" else f"is {state}"
    _answer(a, version, f"{version.reference} {text}. Go on: dojang resume {version.reference}", state=state)


def change(a: Arguments) -> None:
    """New `epochs`, `patience` or `lr_scale`, at once or when it is resumed."""
    from engine.servers import anywhere

    version = _version(a)
    settings = dict(_pair(text) for text in a.settings)
    anywhere.change(version, **settings)
    when = "from the next step on" if version.alive() else "once it goes on"
    said = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    _answer(a, version, f"{version.reference}: {said}, {when}.", settings=settings)


def extend(a: Arguments) -> None:
    """So many epochs in all; a version that is done or stopped goes on."""
    from engine.servers import anywhere

    version = _version(a)
    ran = version.alive()
    anywhere.extend(version, a.epochs)
    how = "goes on to" if not ran else "now runs to"
    follow = f"Watch it: dojang follow {version.reference}"
    _answer(a, version, f"{version.reference} {how} epoch {a.epochs}. {follow}", epochs=a.epochs)


def _pair(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name.strip(), float(value)
    except ValueError:
        raise Invalid([Problem(name.strip() or "setting", f"must be NAME=NUMBER, not {text!r}")]) from None
