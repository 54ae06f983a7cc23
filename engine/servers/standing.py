"""This machine's queue as people see it: what trains on which GPU, what waits, why, and about how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import launch
from engine.datasets import registry
from engine.errors import DojangError, NotFound
from engine.servers import elsewhere, inventory, queue
from engine.servers.elsewhere import Place
from engine.servers.inventory import Gpu
from engine.servers.turns import CPU, Lease, View, Waiting, forecast
from engine.versions import VERSION_ID, Folds, Version, Workspace


@dataclass(frozen=True)
class Standing:
    """The queue at one moment. Seconds, by run directory (`left`) and by ticket (`starts`); None where unknown.

    `beside` trains outside of the queue: on the CPU, or because somebody wanted it at once. `names` says by run directory
    what people call each.
    """

    view: View
    gpus: tuple[Gpu, ...]
    note: str
    left: dict[str, float | None]
    starts: dict[str, float | None]
    beside: tuple[Lease, ...]
    names: dict[str, str]

    @property
    def training(self) -> list[tuple[str, Gpu | None, Lease | None]]:
        """Name, GPU and who trains on it, for each GPU and then for what trains without one."""
        found: list[tuple[str, Gpu | None, Lease | None]] = []
        for gpu in self.gpus:
            found.append((f"GPU {gpu.index}", gpu, self.view.leases.get(gpu.uuid)))
        known = {g.uuid for g in self.gpus}
        others = [lease for name, lease in self.view.leases.items() if name not in known]
        found += [("CPU" if lease.name == CPU else lease.name, None, lease) for lease in others]
        return [*found, *(("beside", None, lease) for lease in self.beside)]

    def to_json(self) -> dict[str, Any]:
        """For scripts; times in seconds."""
        running = [
            {
                "on": name,
                "uuid": gpu.uuid if gpu else None,
                "version": lease.title if lease else None,
                "run_dir": lease.run_dir if lease else None,
                "since": lease.since if lease else None,
                "remaining": self.left.get(lease.run_dir) if lease else None,
                "others": self.view.others.get(gpu.uuid) if gpu else None,
            }
            for name, gpu, lease in self.training
        ]
        waiting = [
            {
                "position": i,
                "version": w.title,
                "run_dir": w.run_dir,
                "gpus": w.request.count,
                "first": w.request.first,
                "since": w.since,
                "held": w.held,
                "regardless": w.regardless,
                "ahead": w.ahead,
                "free": w.free,
                "reason": w.reason,
                "starts_in": self.starts.get(w.id),
            }
            for i, w in enumerate(self.view.waiting, 1)
        ]
        return {"running": running, "waiting": waiting, "note": self.note}


class Watch:
    """Looks at the queue again and again; remembers what it read of logs, and what takes long to estimate.

    With a `server`, the queue is that server's, and what was seen of it is handed to `standing`.
    """

    def __init__(self, workspace: Workspace, server: str = "") -> None:
        self._workspace, self._server = workspace, server
        self._folds = Folds()
        self._takes: dict[str, float | None] = {}

    def look(self, *, estimate: bool = True) -> Standing:
        """This machine's queue now. Takes as long as nvidia-smi does: call it off the screen's thread.

        With `estimate` the logs of what trains are read, of which the first time may take seconds.
        """
        gpus, note = inventory.gpus_now()
        view = queue.look(queue.place(), [g.uuid for g in gpus], inventory.others(gpus))
        return self.standing(view, gpus, note, estimate=estimate)

    def standing(self, view: View, gpus: Sequence[Gpu], note: str, *, estimate: bool = True) -> Standing:
        """What such a queue is to people: names, and times as far as they are known."""
        own = self._own()
        beside = self._beside(view, own)
        left: dict[str, float | None] = {}
        if estimate:
            trains = (*view.leases.values(), *beside)
            left = {one.run_dir: self._left(own(one.run_dir)) for one in trains}
            new = {w.run_dir for w in view.waiting} - set(self._takes)
            self._takes.update({run_dir: self._duration(own(run_dir)) for run_dir in new})
        told = {one.run_dir: one.title for one in (*view.leases.values(), *beside)}
        told.update((one.run_dir, one.title) for one in view.waiting)
        names = {run_dir: self._name(own(run_dir), title) for run_dir, title in told.items()}
        return Standing(view, tuple(gpus), note, left, forecast(view, left, self._takes), beside, names)

    def _own(self) -> Callable[[str], Version | None]:
        """What finds the version of a run directory: by its path here, by its name on a server."""
        if not self._server:
            return version_of
        found = {place.rid: version for version, place in self._there()}
        return lambda run_dir: found.get(run_dir.rstrip("/").rpartition("/")[2])

    def _there(self) -> list[tuple[Version, Place]]:
        workspace, found = self._workspace, []
        for version in (v for name in workspace.projects() for v in workspace.project(name).versions()):
            place = elsewhere.place_of(version) if version.server == self._server else None
            if place:
                found.append((version, place))
        return found

    def version_of(self, run_dir: str) -> Version | None:
        """The version that this is the run directory of, if it is one of this workspace, or lies on this machine."""
        return self._own()(run_dir)

    def _name(self, version: Version | None, title: str) -> str:
        """`V_3 baseline`, with its project or workspace where that is not the current one."""
        if version is None:
            return title or "a training"
        name = str(version.label_data().get("name") or "")
        own = version.workspace.path == self._workspace.path
        short = version.id if own and version.project.name == self._workspace.current_project else version.reference
        whole = f"{short} {name}".strip()
        return whole if own else f"{whole} (in {version.workspace.path})"

    def _beside(self, view: View, own: Callable[[str], Version | None]) -> tuple[Lease, ...]:
        known = {lease.run_dir for lease in view.leases.values()} | {w.run_dir for w in view.waiting}
        if self._server:
            queued = [version for run_dir in known if (version := own(run_dir))]
            running = [(v, p) for v, p in self._there() if v.alive() and v not in queued]
            return tuple(Lease("", v.reference, f"runs/{p.rid}") for v, p in running if not v.waiting_file.exists())
        versions = [self._workspace.version(reference) for reference in self._workspace.running()]
        others = [v for v in versions if str(v.path) not in known]
        return tuple(Lease("", v.reference, str(v.path), since=_changed(v.lock)) for v in others)

    def _left(self, version: Version | None) -> float | None:
        return self._folds.of(version).remaining(version.now()) if version else None

    def _duration(self, version: Version | None) -> float | None:
        """Of one that waits: what is not behind it yet, at the pace of the last alike."""
        try:
            if version is None:
                return None
            spec = version.spec()
            dataset = registry.load(version.workspace.path, spec.dataset)
            seconds, _ = launch.duration(version.workspace, spec, dataset, version.server)
        except (DojangError, OSError):
            return None
        return seconds and seconds * (1 - version.progress(skip_steps=True).epochs_done / max(1, spec.epochs))


def version_of(run_dir: str) -> Version | None:
    """The version whose run directory this is, in whatever workspace; None for what is no version's."""
    path = Path(run_dir)
    if not path.is_absolute() or len(path.parts) < 4 or not VERSION_ID.fullmatch(path.name) or not path.is_dir():
        return None
    try:
        return Version(Workspace(path.parents[2]).project(path.parent.name), path.name)
    except DojangError:
        return None


def waiting_one(workspace: Workspace, wanted: str, found: Sequence[Waiting] | None = None, server: str = "") -> Waiting:
    """The one that waits under a version's name, or in a place such as `#2`, here or among those `found` on a server.

    Raises NotFound, DojangError(NOT_QUEUED).
    """
    found = queue.look(queue.place()).waiting if found is None else found
    place = wanted.strip().removeprefix("#")
    if place.isdecimal():
        if 0 < int(place) <= len(found):
            return found[int(place) - 1]
        raise NotFound(f"There is no place {place[:9]} in the queue: {len(found)} wait.", hint="See: dojang queue")
    version, watch = workspace.version(wanted), Watch(workspace, server)
    for one in found:
        own = watch.version_of(one.run_dir)
        if own is not None and own.path == version.path:
            return one
    state = version.state(version.progress(skip_steps=True))
    raise DojangError(f"{version.reference} does not wait in the queue: it is {state}.", code="NOT_QUEUED")


def change(one: Waiting, what: str) -> None:
    """`hold`, `release`, `start` regardless of who else computes, `cancel`, or a move: up, down, first, last.

    Raises DojangError(NOT_QUEUED) when it left meanwhile, and QUEUE_STUCK.
    """
    where = queue.place()
    try:
        queue.change(where, one.id, what)
    except KeyError as e:
        raise DojangError(f"{one.title} does not wait any more.", code="NOT_QUEUED") from e
    except OSError as e:
        hint = "Try again; if it stays so, a process of yours hangs with the queue's lock."
        raise DojangError(
            f"The queue at {where} cannot be changed: {e.strerror}.", code="QUEUE_STUCK", hint=hint
        ) from e


def _changed(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


__all__ = ["Standing", "Watch", "change", "version_of", "waiting_one"]
