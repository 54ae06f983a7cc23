"""All servers at a glance: each looked at again and again in a thread of its own, so that a frozen one delays no other.

fleet = Fleet(workspace); fleet.attend()        somebody looks: connect, and look every few seconds
fleet.sights()                                  what was seen last, at once: this machine first
fleet.leave(); fleet.close()                    nobody looks any more; the links end
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.errors import DojangError
from engine.servers import boxes, inventory, links, queue
from engine.servers.boxes import Box
from engine.servers.far_queue import FarQueue, gpu_of
from engine.servers.inventory import Machine
from engine.servers.link import Link, LinkState
from engine.servers.link_errors import Closed, LinkError, plain
from engine.servers.turns import View
from engine.versions import Workspace

if TYPE_CHECKING:
    from engine.servers.slurm import Partition

PERIOD = 3.0  # seconds between two looks at one server
SLOW_PERIOD = 15.0  # the same of Slurm's partitions: a cluster's controller serves many
TIMEOUT = 20.0
HERE = ""  # this machine's name among the servers


@dataclass(frozen=True)
class Sight:
    """A server as it was last seen. `name` is empty for this machine, which has no link either.

    `machine` and `view` (its queue) are of `at`, seconds since 1970, and None while it was never seen. `trouble` is what
    keeps it from being looked at now, or its queue from being read.
    """

    name: str
    box: Box | None = None
    link: LinkState | None = None
    machine: Machine | None = None
    view: View | None = None
    at: float = 0.0
    trouble: DojangError | None = None
    partitions: tuple[Partition, ...] = ()
    versions: tuple[str, ...] = field(default=())  # references of those that train or wait there

    @property
    def up(self) -> bool:
        return self.link is None or self.link.name == "up"

    @property
    def free_gpus(self) -> int:
        """GPUs that nobody trains or computes on."""
        if self.machine is None or self.view is None:
            return 0
        taken = set(self.view.leases) | set(self.view.others)
        return sum(g.uuid not in taken for g in self.machine.gpus)


class Fleet:
    """Looks at every server of a workspace while somebody attends; may be asked from any thread."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._guard = threading.Lock()
        self._lookouts: dict[str, _Lookout] = {}
        self._closed = False
        self._attended = threading.Event()
        self._troubles: list[DojangError] = []
        self._versions: dict[str, tuple[str, ...]] = {}
        self._manager: threading.Thread | None = None

    def attend(self) -> None:
        """From now on somebody looks."""
        self._attended.set()
        with self._guard:
            if self._manager is None and not self._closed:
                self._manager = threading.Thread(target=self._manage, name="dojang-fleet", daemon=True)
                self._manager.start()

    def leave(self) -> None:
        """Nobody looks; links stay, so that the next look is quick."""
        self._attended.clear()

    def close(self) -> None:
        with self._guard:
            self._closed = True
            found, self._lookouts = self._lookouts, {}
        self._attended.set()
        for one in found.values():
            one.close()

    def sights(self) -> list[Sight]:
        """This machine, then every server by name. What is not known yet is None."""
        with self._guard:
            found = dict(self._lookouts)
            versions = self._versions
        order = sorted(found, key=lambda name: (name != HERE, name))
        return [replace(found[name].sight(), versions=versions.get(name, ())) for name in order]

    def sight(self, name: str) -> Sight | None:
        return next((s for s in self.sights() if s.name == name), None)

    @property
    def troubles(self) -> list[DojangError]:
        """What is wrong with what is written of the servers."""
        return self._troubles

    def look_again(self, name: str) -> None:
        """Now rather than in a while; a link that is down tries again."""
        with self._guard:
            one = self._lookouts.get(name)
        if one:
            one.look_again()

    def link(self, name: str) -> Link | None:
        with self._guard:
            one = self._lookouts.get(name)
        return one.link if one else None

    def renew(self) -> None:
        """Servers were added, changed or removed: seen at once."""
        self._arrange()

    def _manage(self) -> None:
        while not self._closed:
            self._attended.wait()
            with suppress(OSError, DojangError):
                self._arrange()
                self._count()
            time.sleep(0.5 if self._closed else 1.0)

    def _arrange(self) -> None:
        """A lookout for each server that there is, as it is written now."""
        found, self._troubles = boxes.listed(self._workspace.path)
        wanted: dict[str, Box | None] = {HERE: None, **{box.name: box for box in found}}
        gone: list[_Lookout] = []
        with self._guard:
            if self._closed:
                return
            for name, one in list(self._lookouts.items()):
                if name not in wanted or one.box != wanted[name]:
                    gone.append(self._lookouts.pop(name))
            for name, box in wanted.items():
                if name not in self._lookouts:
                    self._lookouts[name] = _Lookout(self._workspace, box, self._attended)
        for one in gone:
            one.close()

    def _count(self) -> None:
        counted: dict[str, list[str]] = {}
        for project in self._workspace.projects():
            for version in self._workspace.project(project).versions():
                if version.alive():
                    counted.setdefault(version.server, []).append(version.reference)
        self._versions = {name: tuple(reversed(found)) for name, found in counted.items()}


class _Lookout:
    """One server's thread, and what it saw last."""

    def __init__(self, workspace: Workspace, box: Box | None, attended: threading.Event) -> None:
        self.box = box
        self.link: Link | None = None
        self._workspace, self._attended = workspace, attended
        self._held = ExitStack()
        self._again = threading.Event()
        self._ended = False
        self._seen = Sight(box.name if box else HERE, box)
        self._slow_at = float("-inf")
        if box is not None:
            try:
                self.link = self._held.enter_context(links.shared(box))
            except DojangError as e:
                self._seen = replace(self._seen, trouble=e)
                return
        threading.Thread(target=self._run, name=f"dojang-look {self._seen.name}", daemon=True).start()

    def sight(self) -> Sight:
        state = self.link.state if self.link else None
        trouble = self._seen.trouble
        if state and state.name != "up" and state.error:
            trouble = state.error
        return replace(self._seen, link=state, trouble=trouble)

    def look_again(self) -> None:
        if self.link and self.link.state.name != "up":
            self.link.retry()
        self._slow_at = float("-inf")
        self._again.set()

    def close(self) -> None:
        self._ended = True
        self._again.set()
        self._held.close()

    def _run(self) -> None:
        queue_there = FarQueue(self.link) if self.link else None
        while not self._ended:
            self._attended.wait()
            if self._ended:
                return
            try:
                self._look(queue_there)
            except Closed:
                return
            except DojangError as e:
                self._seen = replace(self._seen, trouble=e)
            except OSError as e:
                words = f"It cannot be looked at: {e.strerror or e}."
                self._seen = replace(self._seen, trouble=DojangError(words, code="UNREADABLE"))
            self._again.wait(PERIOD)
            self._again.clear()

    def _look(self, queue_there: FarQueue | None) -> None:
        if self.link is None or queue_there is None:
            here = inventory.machine(self._workspace.path)
            seen = queue.look(queue.place(), [g.uuid for g in here.gpus], inventory.others(here.gpus))
            self._seen = replace(self._seen, machine=here, view=seen, at=time.time(), trouble=None)
            return
        machine = machine_of(dict(self.link.call("probe", timeout=TIMEOUT)))
        self._seen = replace(self._seen, machine=machine, at=time.time())
        view: View | None = self._seen.view
        trouble: DojangError | None = None
        try:
            view = queue_there.look()[0]
        except LinkError:
            raise
        except DojangError as e:
            trouble = e
        self._seen = replace(self._seen, view=view, trouble=trouble)
        if self.box and self.box.slurm and time.monotonic() - self._slow_at > SLOW_PERIOD:
            from engine.servers.slurm import partitions

            found = tuple(partitions(self.link, self.box))
            self._slow_at = time.monotonic()
            self._seen = replace(self._seen, partitions=found)


def machine_of(probe: dict[str, Any]) -> Machine:
    """What an agent tells of its machine, which may be anything. Raises DojangError(BAD_ANSWER)."""
    try:
        gpus = probe.get("gpus")
        load = probe.get("load")
        return Machine(
            host=plain(str(probe.get("host", "")), 80),
            system=plain(str(probe.get("system", "")), 40),
            processor=plain(str(probe.get("processor", "")), 80),
            cores=int(probe.get("cores") or 1),
            load=float(load) if load is not None else None,
            memory_total=float(probe.get("memory_total") or 0),
            memory_free=float(probe.get("memory_free") or 0),
            disk_free=float(probe.get("disk_free") or 0),
            disk_path=plain(str(probe.get("disk_path", "")), 200),
            gpus=tuple(g for each in (gpus if isinstance(gpus, list) else [])[:64] if (g := gpu_of(each))),
            gpu_note=plain(str(probe.get("gpu_note") or ""), 200),
        )
    except (TypeError, ValueError, OverflowError) as e:
        raise DojangError("The server tells nothing of itself that makes sense.", code="BAD_ANSWER") from e


__all__ = ["HERE", "Fleet", "Sight", "machine_of"]
