"""Servers: where versions can train. This machine, its processor, memory, disk and GPUs, and who uses them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from engine.servers.inventory import Machine, machine
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.steps import machine_text
from tui.widgets.bars import Bar, ProgressBars

REFRESH = 3.0


class ServersScreen(Page):
    SECTION = "Servers"
    HELP_TEXT = "Where versions can train: this machine. The figures are read again every few seconds while you look."
    CSS = """
    ServersScreen #bars { margin: 1 1; }
    ServersScreen #text { padding: 0 1; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [bind("n", "new", "new training", help="new training")]

    def body(self) -> Iterator[Widget]:
        yield ProgressBars(id="bars")
        with VerticalScroll(id="scroll"):
            yield Static("looking at this machine …", id="text", markup=False)

    def on_mount(self) -> None:
        self.title_bar.show([("dojang", "current"), ("  Servers", "title")])
        self.set_interval(REFRESH, self._poll)
        self.query_one("#scroll").focus()

    def on_screen_resume(self) -> None:
        self._look()

    def _poll(self) -> None:
        if self.app.screen is self:
            self._look()

    @work(thread=True, exclusive=True, group="machine")
    def _look(self) -> None:
        found = machine(self.dojang.workspace.path)
        self.app.call_from_thread(self._show, found)

    def _show(self, found: Machine) -> None:
        used = found.memory_total - found.memory_free
        rows = [Bar("memory", round(used, 1), found.memory_total, text=f"{found.memory_free:.1f} GiB free")]
        if found.load is not None:
            rows.append(Bar("load", found.load, found.cores, text=words.plural(found.cores, "core")))
        for g in found.gpus:
            rows.append(Bar(f"GPU {g.index}", g.memory_used, g.memory_total, text=f"{g.memory_free:.1f} GiB free"))
        self.query_one("#bars", ProgressBars).show(rows)
        running = self.dojang.workspace.running()
        trains = f"training here: {', '.join(running)}" if running else "nothing of dojang trains here now"
        self.query_one("#text", Static).update(f"{machine_text(found)}\n\n{trains}")

    def action_new(self) -> None:
        from tui.screens.wizard import WizardScreen

        self.app.push_screen(WizardScreen())
