"""Servers: everywhere that versions can train, how each is reached, and what it has to train with now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from engine.errors import DojangError
from engine.servers import boxes
from engine.servers.fleet import HERE, Sight
from engine.servers.inventory import Gpu
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Confirm
from tui.widgets.bars import Bar, ProgressBars
from tui.widgets.facts import Fact, Facts, head, row
from tui.widgets.lines import Piece
from tui.widgets.links import link_badge, link_piece, shown_name, since
from tui.widgets.table import Cell, Column, Row, Table

REFRESH = 0.5
COLUMNS = (
    Column("name", "server", width=14, flex=1, priority=10),
    Column("link", "link", width=20, flex=1, priority=9),
    Column("gpus", "GPUs free", width=9, align="right", priority=8),
    Column("memory", "memory free", width=15, align="right", priority=6),
    Column("load", "load", width=9, align="right", priority=4),
    Column("disk", "disk free", width=9, align="right", priority=5),
    Column("queue", "queued", width=6, align="right", priority=7),
    Column("trains", "trains", width=14, flex=2, priority=7),
)


class ServersScreen(Page):
    SECTION = "Servers"
    HELP_TEXT = (
        "Where versions can train: this machine, and every server that you added. Each is looked at every few seconds "
        "while you look; one that does not answer delays no other, and what trains on it goes on. A link that was lost "
        "is made anew by itself."
    )
    CSS = """
    ServersScreen #servers { height: auto; max-height: 50%; min-height: 4; margin-top: 1; }
    ServersScreen #scroll { height: 1fr; margin-top: 1; }
    ServersScreen #bars { margin: 0 1; height: auto; }
    ServersScreen #facts { padding: 0 1; height: auto; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("n", "new", "train here", help="new training on this server"),
        Binding("enter", "check", "check", tooltip="look at it step by step; trust its key, log in"),
        bind("a", "add", "add", help="add a server"),
        Binding("f4", "change", "change", tooltip="change how it is reached, its folder, its Python"),
        bind("x", "remove", "remove", help="forget a server; what lies on it stays"),
        Binding("ctrl+r", "again", "try again", tooltip="look at it now; a link that is down tries again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.sights: list[Sight] = []
        self._told: list[str] = []

    def body(self) -> Iterator[Widget]:
        yield Table(COLUMNS, empty="looking …", id="servers")
        with VerticalScroll(id="scroll", can_focus=False):
            yield Facts(id="facts")
            yield ProgressBars(id="bars")

    def on_mount(self) -> None:
        self.title_bar.show([("dojang", "current"), ("  Servers", "title")])
        self.set_interval(REFRESH, self._poll)
        self.table.focus()

    @property
    def table(self) -> Table:
        return self.query_one("#servers", Table)

    @property
    def selected(self) -> Sight | None:
        key = self.table.cursor_key
        return next((s for s in self.sights if shown_name(s.name) == key), None)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.dojang.fleet.attend()
        self._poll()

    def on_screen_suspend(self) -> None:
        super().on_screen_suspend()
        self.dojang.fleet.leave()

    def _poll(self) -> None:
        if self.app.screen is not self:
            return
        self.sights = self.dojang.fleet.sights()
        self.table.set_rows([Row(shown_name(s.name), cells(s)) for s in self.sights])
        self.table.styles.height = max(2, len(self.sights) + 1)
        others = [s for s in self.sights if s.link]
        up = sum(s.up for s in others)
        right: list[Piece] = [link_piece(None, "1 machine")] if not others else []
        if others:
            right = [(f"{up} of {words.plural(len(others), 'server')} up", "" if up == len(others) else "warning")]
        self.title_bar.show([("dojang", "current"), ("  Servers", "title")], right)
        self._detail()
        self._complain_once()

    def _complain_once(self) -> None:
        told = [str(e) for e in self.dojang.fleet.troubles]
        for error in self.dojang.fleet.troubles:
            if str(error) not in self._told:
                self.complain(error)
        self._told = told

    @on(Table.Highlighted)
    def _detail(self) -> None:
        one = self.selected
        if one is None:
            return
        self.query_one("#facts", Facts).show(facts(one))
        self.query_one("#bars", ProgressBars).show(bars(one))
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("check", "change", "remove", "again"):
            return self.is_mounted and self.selected is not None and self.selected.name != HERE
        return True

    # Doing

    def action_new(self) -> None:
        from tui.screens.wizard import WizardScreen

        one = self.selected
        self.app.push_screen(WizardScreen(server=one.name if one else ""))

    @on(Table.Selected)
    def action_check(self) -> None:
        from tui.screens.server_check import Check

        one = self.selected
        if one and one.box:
            self.app.push_screen(Check(one.box))

    @work
    async def action_add(self) -> None:
        from tui.screens.server_add import add
        from tui.screens.server_check import Check

        box = await add(self)
        if box is not None:
            self._poll()
            self.table.move_to(box.name)
            self.app.push_screen(Check(box))

    @work
    async def action_change(self) -> None:
        from tui.screens.server_add import change

        one = self.selected
        if one and one.box:
            await change(self, one.box)

    @work
    async def action_remove(self) -> None:
        one = self.selected
        if one is None or one.box is None:
            return
        runs = (
            f"\n\n{', '.join(one.versions)} runs there: it goes on, but can no longer be watched."
            if one.versions
            else ""
        )
        text = (
            f"Forget {one.name}? What lies in {one.box.root} there stays, and so do its versions here. "
            f"They can be asked about again once a server of this name is added.{runs}"
        )
        if await self.app.push_screen_wait(Confirm("Remove", text, yes="Forget it", careful=bool(one.versions))):
            try:
                boxes.remove(self.dojang.workspace.path, one.name)
            except DojangError as e:
                self.complain(e)
            self.dojang.fleet.renew()
            self._poll()

    def action_again(self) -> None:
        if self.selected:
            self.dojang.fleet.look_again(self.selected.name)


def cells(one: Sight) -> dict[str, Cell]:
    """A server in a line; what is no longer seen is muted."""
    found = one.machine
    row: dict[str, str] = {
        "gpus": "",
        "memory": "",
        "load": "",
        "disk": "",
        "queue": "",
        "trains": ", ".join(one.versions),
    }
    if found:
        gpus = found.gpus
        free = sum(g.memory_free for g in gpus) if gpus else found.memory_free
        whole = sum(g.memory_total for g in gpus) if gpus else found.memory_total
        row["gpus"] = f"{one.free_gpus} of {len(gpus)}" if gpus else "CPU"
        row["memory"] = f"{free:.0f} of {whole:.0f} GiB"
        row["load"] = f"{found.load:.1f} / {found.cores}" if found.load is not None else ""
        row["disk"] = f"{found.disk_free:.0f} GiB"
    if one.view:
        row["queue"] = str(len(one.view.waiting)) if one.view.waiting else words.DASH
    shown: dict[str, Cell] = {k: v if one.up else Content.styled(v, "$foreground-muted") for k, v in row.items()}
    return {"name": shown_name(one.name), "link": link_badge(one.link), **shown}


def facts(one: Sight) -> list[Fact]:
    """What a line has no room for."""
    lines: list[Fact] = [head(shown_name(one.name))]
    if one.trouble:
        lines += [(Content.styled(words.clean(one.trouble.message), "$error" if not one.up else "$warning"), 2)]
        lines += [(Content.styled(words.clean(one.trouble.hint), "$foreground-muted"), 2)] if one.trouble.hint else []
    if one.box:
        lines.append(row("Reached as", one.box.where + (f", folder {one.box.root}" if one.box.host else "")))
        lines.append(row("Trains with", one.box.python or "an environment that is made there"))
    if one.machine:
        m = one.machine
        lines.append(row("Machine", f"{m.host}: {m.system}, {m.processor}, {words.plural(m.cores, 'core')}"))
        lines.append(row("Disk", f"{m.disk_free:.1f} GiB free at {m.disk_path}"))
        lines += [row(f"GPU {g.index}", who_has(one, g)) for g in m.gpus]
        if m.gpu_note:
            lines.append(row("GPUs", m.gpu_note))
    for p in one.partitions:
        lines.append(row(f"Slurm {p.name}", p.words))
    if one.view and one.view.waiting:
        lines.append(row("Queue", ", ".join(words.clean(w.title) for w in one.view.waiting[:8])))
    if one.versions:
        lines.append(row("Trains there" if one.name else "Trains here", ", ".join(one.versions)))
    if one.at and not one.up:
        lines.append(row("As of", since(one.at)))
    if not one.machine and not one.trouble:
        lines.append(Content.styled("looking …", "$foreground-muted"))
    return lines


def bars(one: Sight) -> list[Bar]:
    """Memory in use, of each GPU and of the machine; how much a GPU computes, and how warm it is."""
    if one.machine is None:
        return []
    rows = []
    for g in one.machine.gpus:
        use = f"  {g.utilization} %" if g.utilization is not None else ""
        heat = f"  {g.temperature} °C" if g.temperature is not None else ""
        rows.append(Bar(f"GPU {g.index}", round(g.memory_used, 1), round(g.memory_total, 1), text=f"GiB{use}{heat}"))
    used = one.machine.memory_total - one.machine.memory_free
    return [*rows, Bar("memory", round(used, 1), round(one.machine.memory_total, 1), text="GiB")]


def who_has(one: Sight, gpu: Gpu) -> str:
    """“NVIDIA H200: cells/V_7 since 0:12”, or who else computes there, or that it is free."""
    lease = one.view.leases.get(gpu.uuid) if one.view else None
    others = one.view.others.get(gpu.uuid, "") if one.view else ", ".join(gpu.users)
    who = f"{lease.title} since {words.duration(time.time() - lease.since)}" if lease else others or "free"
    return words.clean(f"{gpu.name}: {who}")


__all__ = ["ServersScreen"]
