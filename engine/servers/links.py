"""One link for each server in this process, shared by whoever uses it and closed after the last of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.servers import link as link_module
from engine.servers.boxes import Box
from engine.servers.link import Link

if TYPE_CHECKING:
    from engine.servers.ssh import Target

_guard = threading.Lock()
_shared: dict[tuple[object, ...], tuple[Link, int]] = {}


def connect(box: Box, root: str = "") -> Link:
    """A link of one's own to the folder `root` there, the server's own unless given; it connects by itself."""
    root = root or box.root
    if not box.host:
        return Link(link_module.local, root=str(Path(root).expanduser()), name=box.name)
    from engine.servers import ssh

    to = target(box)
    return Link(lambda: ssh.open(to), root=root, name=box.name)


def target(box: Box) -> Target:
    """The server as ssh is told of it. Raises SshConfig."""
    from engine.servers import ssh

    return ssh.Target(box.host, box.user, box.port or None)


@contextmanager
def shared(box: Box, root: str = "") -> Iterator[Link]:
    """The link to that folder of the server, together with whoever else in this process uses it."""
    key = (box.host, box.user, box.port, root or box.root)
    with _guard:
        found, users = _shared.get(key, (None, 0))
        link = found or connect(box, root)
        _shared[key] = (link, users + 1)
    try:
        yield link
    finally:
        with _guard:
            users = _shared[key][1] - 1
            if users:
                _shared[key] = (link, users)
            else:
                del _shared[key]
        if not users:
            link.close()


__all__ = ["connect", "shared", "target"]
