"""While the app is open, what servers tell of their trainings comes home: in threads, once there is a server at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.versions import Version, Workspace

if TYPE_CHECKING:
    from engine.servers.link import LinkState
    from engine.servers.mirror import Watch

SERVERS = "servers.toml"
LOOK_SECONDS = 1.0

_watch: Watch | None = None


@contextmanager
def watching(workspace: Workspace) -> Iterator[None]:
    """Mirror this workspace's versions within it. Costs nothing, not even an import, while no server was added."""
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(workspace, ended), name="dojang-watching", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)


def _run(workspace: Workspace, ended: threading.Event) -> None:
    global _watch
    while not (workspace.path / SERVERS).exists():
        if ended.wait(LOOK_SECONDS):
            return
    from engine.servers.mirror import Watch

    _watch = Watch(workspace)
    _watch.start()
    ended.wait()
    _watch.close()
    _watch = None


def link_state(version: Version) -> LinkState | None:
    """How the link is through which a version is mirrored now; None for one that is not."""
    watch = _watch
    mirror = watch.mirror(version) if watch else None
    return mirror.link.state if mirror else None


def link_states() -> dict[str, LinkState]:
    """The same by server, for all that are mirrored now."""
    return _watch.links() if _watch else {}


__all__ = ["link_state", "link_states", "watching"]
