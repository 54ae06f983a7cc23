"""Start, stop and resume a version wherever it trains: on this machine, or on the server that it was put on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

from engine import control
from engine.errors import DojangError
from engine.servers import local
from engine.servers.link_errors import LinkError
from engine.servers.local import Mode
from engine.versions import Version

if TYPE_CHECKING:
    from engine.servers.mirror import Mirror

MOMENT = 2.0  # seconds without a link that nobody need be told of


def _of(version: Version) -> ModuleType:
    if not version.server:
        return local
    from engine.servers import remote

    return remote


def start(version: Version, **how: Mode) -> None:
    """See `local.start`, `remote.start`; `mode` may be given."""
    _of(version).start(version, **how)


def resume(version: Version, **how: Mode) -> None:
    """Go on from the last checkpoint, or from the beginning where there is none. Raises DojangError when it is done."""
    _of(version).resume(version, **how)


def change(version: Version, **settings: float) -> None:
    """Change `epochs`, `patience` or `lr_scale` of a version: at once when it runs, else when it is resumed."""
    _of(version).change(version, **settings)


def extend(version: Version, epochs: int) -> None:
    """Let a version have `epochs` in all, and go on training it if it does not run."""
    change(version, epochs=epochs)
    if not version.alive():
        start(version)


def request(version: Version, what: control.Request) -> None:
    """Ask a running version to stop, pause or finish. Raises DojangError(NOT_RUNNING) when nothing runs."""
    _of(version).request(version, what)


def wait(version: Version, seconds: float) -> str:
    """Wait until the version no longer runs, at most `seconds`; return its state then."""
    return str(_of(version).wait(version, seconds))


def watched(version: Version) -> AbstractContextManager[Mirror | None]:
    """Within it, what is new of the version is in its run directory: mirrored in a thread, where it trains on a server."""
    if not version.server:
        return nullcontext(None)
    from engine.servers import mirror

    return mirror.following(version)


def link_words(mirror: Mirror | None) -> str:
    """What keeps a mirror from hearing its server, for longer than a moment; empty where nothing does."""
    if mirror is None:
        return ""
    state = mirror.link.state
    if state.name == "up":
        return mirror.trouble.message if mirror.trouble and not isinstance(mirror.trouble, LinkError) else ""
    if time.time() - state.since < MOMENT:
        return ""
    return (
        f"{state.name} since {time.strftime('%H:%M:%S', time.localtime(state.since))}: {state.error.message}"
        if state.error
        else ""
    )


def catch_up(versions: Sequence[Version], seconds: float = 5.0) -> list[DojangError]:
    """Hear once of those that train on servers, for at most so long; what could not be heard. See `mirror.catch_up`."""
    if not any(version.server for version in versions):
        return []
    from engine.servers import mirror

    return mirror.catch_up(versions, seconds)


__all__ = ["catch_up", "change", "extend", "link_words", "request", "resume", "start", "wait", "watched"]
