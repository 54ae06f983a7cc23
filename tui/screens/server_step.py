"""Step 3 of a new training: where it trains, on how many GPUs, and what comes before it starts there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import get_current_worker

from engine import launch
from engine.errors import DojangError
from engine.servers.fleet import HERE, Sight
from engine.servers.inventory import Gpu, Machine
from tui import words
from tui.screens.steps import Step
from tui.widgets.facts import Fact, Facts, head, row
from tui.widgets.links import link_badge
from tui.widgets.symbols import sign
from tui.widgets.table import Cell, Column, Row, Table

if TYPE_CHECKING:
    from engine.servers.prepare import Outlook

REFRESH = 0.5
GPU_ENVIRONMENT, CPU_ENVIRONMENT = 6e9, 2e9  # bytes that an environment takes, about


@dataclass(frozen=True)
class Choice:
    """A place to train: `server` as `launch.create` takes it, `device` for the spec, and the cells of its row."""

    server: str
    device: str
    cells: Mapping[str, Cell]

    @property
    def key(self) -> str:
        return f"{self.server}\0{self.device}"


class ServerStep(Step):
    """3: where it trains."""

    note = "enter chooses"
    DEFAULT_CSS = """
    ServerStep #servers { height: auto; max-height: 60%; min-height: 4; }
    ServerStep #what { height: 1fr; margin-top: 1; }
    ServerStep Facts { padding: 0 1; height: auto; }
    """
    COLUMNS = (
        Column("name", "server", width=22, flex=1, priority=9),
        Column("link", "link", width=12, flex=1, priority=4),
        Column("what", "what", width=23, flex=2, priority=8),
        Column("free", "memory free", width=18, align="right", priority=7),
        Column("load", "use", width=6, align="right", priority=6),
        Column("users", "used by", width=18, flex=2, priority=5),
    )

    def compose(self) -> Iterator[Widget]:
        yield Table(self.COLUMNS, empty="looking …", id="servers")
        with VerticalScroll(id="what", can_focus=False):
            yield Facts(id="facts")

    def on_mount(self) -> None:
        self._choices: dict[str, Choice] = {}
        self._sights: dict[str, Sight] = {}
        self._first: dict[tuple[str, str], str] = {}  # by server and data set: what comes before, as far as known
        self._asking: set[tuple[str, str]] = set()
        self._timer = self.set_interval(REFRESH, self._show, pause=True)

    def enter(self) -> None:
        self.wizard.dojang.fleet.attend()
        self._timer.resume()
        self.query_one(Table).focus()
        self._first.clear()  # settings may have changed since
        self._show()

    @property
    def _chosen_key(self) -> str:
        return f"{self.wizard.server}\0{self.wizard.data.get('device', 'auto')}"

    def _show(self) -> None:
        """The servers as they are now."""
        if self.wizard.current != 2 or self.app.screen is not self.wizard:
            return
        fleet = self.wizard.dojang.fleet
        self._sights = {s.name: s for s in fleet.sights()}
        found = [choice for sight in self._sights.values() for choice in choices(sight)]
        self._choices = {choice.key: choice for choice in found}
        table, chosen = self.query_one(Table), self._chosen_key
        if found and chosen not in self._choices:
            if self.wizard.server.partition("/")[0] not in self._sights:
                self.wizard.server = ""
            chosen = next((c.key for c in found if c.server == self.wizard.server), found[0].key)
            self._choose(self._choices[chosen])
        rows = []
        for choice in found:
            cells = dict(choice.cells)
            cells["name"] = f"{sign('✓')} {cells['name']}" if choice.key == chosen else cells["name"]
            rows.append(Row(choice.key, cells))
        first_time = not table.row_count
        table.set_rows(rows)
        table.styles.height = len(rows) + 1
        if first_time and rows:
            table.move_to(chosen)
        self._take_sight()
        self._facts()

    @on(Table.Highlighted)
    def _moved(self, event: Table.Highlighted) -> None:
        choice = self._choices.get(event.key or "")
        if choice and self.wizard.current == 2 and choice.key != self._chosen_key:
            self._choose(choice)
            self._show()

    @on(Table.Selected)
    def _chosen(self, event: Table.Selected) -> None:
        if event.key in self._choices:
            self._choose(self._choices[event.key])
            self.wizard.action_next()

    def _choose(self, choice: Choice) -> None:
        self.wizard.server = choice.server
        self.wizard.answer(device=choice.device)
        self._take_sight()
        self.wizard.refresh_bindings()

    def _take_sight(self) -> None:
        """What the confirmation says of the server is what is seen here."""
        wizard, one = self.wizard, self._sight
        wizard.machine = one.machine if one and "/" not in wizard.server else None
        wizard.view = one.view if one and "/" not in wizard.server else None
        wizard.first = self._first.get(self._asked, "")

    @property
    def _sight(self) -> Sight | None:
        return self._sights.get(self.wizard.server.partition("/")[0])

    @property
    def _asked(self) -> tuple[str, str]:
        return self.wizard.server, str(self.wizard.data.get("dataset", ""))

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return [n for n in problems if n in ("device", "gpus")]

    def look_again(self) -> None:
        self._first.pop(self._asked, None)
        self.wizard.dojang.fleet.look_again(self._asked[0].partition("/")[0])

    # How many GPUs

    def limits(self) -> tuple[int, int]:
        """The fewest and the most GPUs that this model can use there."""
        least, most = launch.gpu_limits(str(self.wizard.settled()["model"]))
        one = self._sight
        partition = self.wizard.server.partition("/")[2]
        there = len(one.machine.gpus) if one and one.machine and not partition else 0
        if one and partition:
            there = max((p.gpus_total for p in one.partitions if p.name == partition), default=0)
        return least, min(most, max(there, least))

    @property
    def may_share(self) -> bool:
        """Whether there are several GPUs to share a training there."""
        return self.limits()[1] > 1 and self.wizard.data.get("device") != "cpu"

    def change_gpus(self, by: int) -> None:
        least, most = self.limits()
        now = self._gpus
        wanted = min(max(now + by, least), most)
        if not self.may_share or wanted == now:
            self.app.bell()
            return
        self.wizard.answer(gpus=wanted)
        self._show()

    @property
    def _gpus(self) -> int:
        try:
            return int(self.wizard.settled()["gpus"])
        except (TypeError, ValueError):
            return 1

    # What would happen

    def _facts(self) -> None:
        wizard, one = self.wizard, self._sight
        if one is None:
            return
        lines: list[Fact] = [head("What would happen")]
        if one.link and one.link.name != "up":
            trouble = one.trouble
            said = f"{trouble.message} {trouble.hint}" if trouble else "It is being reached."
            lines.append(row("Link", Content.styled(words.clean(said), "$warning")))
            lines.append(row("", "You may start all the same: it is prepared as soon as it can be reached."))
        if self.may_share:
            lines.append(row("GPUs", f"{self._gpus} of {self.limits()[1]}", "+ and - change it"))
        lines.append(row("Starts", self._starts()))
        if wizard.server:
            lines.append(row("Before that", self._before()))
        partition = next((p for p in one.partitions if p.name == wizard.server.partition("/")[2]), None)
        if partition:
            lines.append(row("Slurm", partition.words))
        if one.machine and not partition:  # of Slurm's it is the login node alone
            lines += [Content(""), *machine_facts(one.machine)]
        if one.versions:
            lines.append(row("Training there", ", ".join(one.versions)))
        self.query_one("#facts", Facts).show(lines)

    def _starts(self) -> str:
        wizard = self.wizard
        try:
            spec = wizard.spec()
            if "/" in wizard.server:
                return "when Slurm gives it its turn"
            plan = launch.plan(wizard.dojang.workspace, spec, wizard.machine, wizard.server, wizard.view)
        except DojangError as e:
            return str(e.message)
        return plan.starts or "as soon as the server is ready"

    def _before(self) -> str:
        """What has to be made and copied; asked of the server in a thread, once."""
        known = self._first.get(self._asked)
        if known is None and self._asked not in self._asking and self._sight and self._sight.up:
            self._asking.add(self._asked)
            self._look_ahead(*self._asked)
        return known or "looking at what is there …"

    @work(thread=True, group="outlook")
    def _look_ahead(self, server: str, dataset: str) -> None:
        from engine.servers import prepare, slurm

        name, _, entry = server.partition("/")
        one, link, spec = self._sights[name], self.wizard.dojang.fleet.link(name), self.wizard.spec()
        said = ""
        try:
            if link and one.box:
                way = slurm.entry_of(one.box, entry) if entry else None
                gpus = bool(slurm.gpus_needed(way, spec)) if way else bool(one.machine and one.machine.gpus)
                driver = way.driver if way and gpus else ""
                said = outlook_words(prepare.outlook(link, one.box, self.wizard.dojang.workspace, spec, driver), gpus)
        except DojangError as e:
            said = e.message
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._learned, (server, dataset), said)

    def _learned(self, asked: tuple[str, str], said: str) -> None:
        self._asking.discard(asked)
        if said:
            self._first[asked] = said
        self._show()


def outlook_words(seen: Outlook, gpus: bool) -> str:
    """“an environment is made there, about 6.0 GB; 364 images to copy, 120 MB”."""
    parts = []
    if seen.environment:
        parts.append(f"an environment is made there, about {words.size(GPU_ENVIRONMENT if gpus else CPU_ENVIRONMENT)}")
    if seen.files:
        parts.append(f"{words.plural(seen.files, 'image')} to copy, {words.size(seen.bytes)}")
    return "; ".join(parts) or "nothing: all of it is there"


def choices(sight: Sight) -> list[Choice]:
    """What a version can train on there: whatever is best, and each part of it."""
    if sight.machine is None:
        name = sight.name or "this machine"
        what = words.clean(sight.trouble.message) if sight.trouble else "looking …"
        return [Choice(sight.name, "auto", {"name": name, "link": link_badge(sight.link), "what": what})]
    found = [
        Choice(sight.name, device, {"link": link_badge(sight.link), **cells})
        for device, cells in devices(sight.machine, sight.name or "this machine")
    ]
    if sight.name != HERE and not sight.machine.gpus:
        found = found[:1]  # auto is the CPU
    for p in sight.partitions:
        cells: dict[str, Cell] = {"name": f"{sight.name}/{p.name}", "link": link_badge(sight.link), "what": p.words}
        found.append(Choice(f"{sight.name}/{p.name}", "auto", cells))
    return found


def devices(found: Machine, where: str) -> list[tuple[str, dict[str, str]]]:
    """What a version can train on there: key for the spec, and the cells of its row."""
    cpu = {
        "name": f"{where}, CPU",
        "what": f"{words.plural(found.cores, 'core')}, {found.processor}",
        "free": f"{found.memory_free:.1f} of {found.memory_total:.1f} GiB",
        "load": f"{found.load:g}" if found.load is not None else words.DASH,
        "users": "",
    }
    best = max(found.gpus, key=lambda g: g.memory_free, default=None)
    auto = {
        **cpu,
        "name": f"{where}, auto",
        "what": f"the free-est GPU: {best.name}" if best else "the CPU: there is no GPU",
        **(gpu_cells(best) if best else {}),
    }
    gpus = [
        (f"cuda:{g.index}", {"name": f"{where}, GPU {g.index}", "what": g.name, **gpu_cells(g)}) for g in found.gpus
    ]
    return [("auto", auto), ("cpu", cpu), *gpus]


def gpu_cells(gpu: Gpu) -> dict[str, str]:
    """How much of a GPU is free, and who uses it."""
    return {
        "free": f"{gpu.memory_free:.1f} of {gpu.memory_total:.1f} GiB",
        "load": f"{gpu.utilization} %" if gpu.utilization is not None else words.DASH,
        "users": ", ".join(gpu.users) or "nobody",
    }


def machine_facts(found: Machine) -> list[Fact]:
    """A machine in a few lines."""
    lines = [
        row("Machine", f"{found.host}: {found.system}, {found.processor}, {words.plural(found.cores, 'core')}, load {found.load}"),
        row("Memory", f"{found.memory_free:.1f} of {found.memory_total:.1f} GiB free"),
        row("Disk", f"{found.disk_free:.1f} GiB free at {found.disk_path}"),
    ]  # fmt: skip
    return [*lines, row("GPUs", found.gpu_note)] if found.gpu_note else lines


__all__ = ["Choice", "ServerStep", "choices", "machine_facts", "outlook_words"]
