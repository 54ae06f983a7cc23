"""`dojang queue`: what trains here, what waits in which order and why, and how people change that."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tui import words
from tui.commands import _json, _out, _table, _workspace

if TYPE_CHECKING:
    from engine.servers.far_queue import FarQueue
    from engine.servers.standing import Standing
    from engine.servers.turns import Waiting
    from engine.versions import Workspace

Arguments = argparse.Namespace
DONE = {
    "hold": "is held: others go first. Let it go on: dojang queue release {}",
    "release": "is no longer held.",
    "start": "starts in its turn, whoever else computes on its GPUs.",
    "cancel": "is taken out of the queue. Nothing saved is lost; start it again: dojang resume {}",
}


def _server(a: Arguments) -> str:
    """Whose queue is meant; empty for this machine's."""
    return str(getattr(a, "server", ""))


@contextmanager
def _far(workspace: Workspace, server: str) -> Iterator[FarQueue]:
    from engine.servers import boxes, links
    from engine.servers.far_queue import FarQueue

    with links.shared(boxes.get(workspace.path, server)) as link:
        yield FarQueue(link)


def queue_list(a: Arguments) -> None:
    from engine.servers.standing import Watch

    workspace, server = _workspace(a), _server(a)
    watch = Watch(workspace, server)
    if server:
        with _far(workspace, server) as queue:
            view, gpus = queue.look()
        standing = watch.standing(view, gpus, "")
    else:
        standing = watch.look()
    if a.json:
        return _json(standing.to_json())
    return _show(standing)


def _show(standing: Standing) -> None:
    now = time.time()
    rows = []
    for name, gpu, lease in standing.training:
        others = standing.view.others.get(gpu.uuid, "") if gpu else ""
        left = standing.left.get(lease.run_dir) if lease else None
        rows.append(
            [
                name if name != "beside" else "outside",
                standing.names[lease.run_dir] if lease else f"others: {others}" if others else "free",
                words.duration(now - lease.since) if lease and lease.since else words.DASH,
                words.duration(left),
            ]
        )
    if rows:
        _table(["on", "trains", "since", "left"], rows, frozenset({2, 3}))
    else:
        _out(f"Nothing trains here. {standing.note}".strip())
    if not standing.view.waiting:
        return _out("\nNobody waits." if rows else "Nobody waits.")
    _out()
    table = [
        [f"#{i}", standing.names[w.run_dir], words.plural(w.request.count, "GPU") if w.request.count else "CPU", starts(standing, w.id), w.reason]
        for i, w in enumerate(standing.view.waiting, 1)
    ]  # fmt: skip
    return _table(["", "waits", "needs", "starts in", "why"], table, frozenset({2}))


def starts(standing: Standing, ticket: str) -> str:
    """In how long one may start, roughly, or a dash."""
    seconds = standing.starts.get(ticket)
    return words.DASH if seconds is None else "a moment" if seconds < 5 else words.about(seconds)


def queue_change(a: Arguments) -> None:
    """hold, release, start, cancel."""
    one, _ = _changed(a, a.action)
    if a.json:
        return _json({"version": one.title, "action": a.action})
    return _out(f"{one.title} {DONE[a.action].format(one.title)}")


def queue_move(a: Arguments) -> None:
    """One place up or down, or to an end."""
    one, waiting = _changed(a, a.to)
    order = [w.title for w in waiting]
    if a.json:
        return _json({"version": one.title, "action": "move", "to": a.to, "order": order})
    return _out(f"The order now: {', '.join(order) or 'nobody waits'}.")


def _changed(a: Arguments, what: str) -> tuple[Waiting, Sequence[Waiting]]:
    """The one that was meant, changed, and who waits then."""
    from engine.servers import queue, standing

    workspace, server = _workspace(a), _server(a)
    if server:
        with _far(workspace, server) as there:
            one = standing.waiting_one(workspace, a.version, there.look()[0].waiting, server)
            return one, there.change(one.id, what).waiting
    one = standing.waiting_one(workspace, a.version)
    standing.change(one, what)
    return one, queue.look(queue.place()).waiting
