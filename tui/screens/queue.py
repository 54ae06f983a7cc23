"""Queue: what trains on which GPU of a machine, what waits for its turn and why, and who goes first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine.errors import DojangError
from engine.servers.inventory import Gpu
from engine.servers.standing import Standing, Watch, change
from engine.servers.turns import Lease, Waiting
from engine.servers.watching import SERVERS
from tui import words
from tui.keys import bind
from tui.queue_commands import starts
from tui.screens.base import Page
from tui.screens.dialogs import Confirm
from tui.widgets.chrome import state_piece
from tui.widgets.facts import head
from tui.widgets.lines import Piece
from tui.widgets.links import link_piece, shown_name
from tui.widgets.symbols import state_badge
from tui.widgets.table import Cell, Column, Row, Table

TRAINING = [
    Column("on", "on", width=7, priority=9),
    Column("trains", "trains", width=24, flex=3, priority=10),
    Column("since", "since", width=8, align="right", priority=6),
    Column("left", "left", width=8, align="right", priority=8),
    Column("memory", "memory used", width=16, align="right", priority=5),
    Column("use", "use", width=5, align="right", priority=4),
    Column("gpu", "GPU", width=12, flex=1, priority=3),
]
WAITING = [
    Column("place", "", width=3, align="right", priority=9),
    Column("version", "waits", width=18, flex=2, priority=10),
    Column("needs", "needs", width=6, priority=7),
    Column("starts", "starts in", width=12, align="right", priority=8),
    Column("why", "why", width=16, flex=3, priority=6),
]
EMPTY = "Nobody waits.\n\nA training that needs GPUs waits here until they are free."
REFRESH = 2.0
DONE = {
    "hold": "is held",
    "release": "waits again",
    "start": "starts in its turn",
    "cancel": "is taken out of the queue",
}


class QueueScreen(Page):
    SECTION = "Queue"
    HELP_TEXT = (
        "First come, first served: a training waits behind every earlier one that could use the same GPUs. One that is "
        "held lets others go first. A GPU on which somebody else computes counts as taken; `a` has a training start "
        "there all the same. What waits starts by itself, also when you quit or log out. Tab goes from one list to the other; "
        "[ and ] go from one server's queue to the next."
    )
    CSS = """
    QueueScreen #training { height: 3; max-height: 50%; margin-top: 1; }
    QueueScreen #between { height: 1; margin: 1 1 0 1; }
    QueueScreen #why { height: 2; padding: 0 2; color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "open", tooltip="open the version"),
        bind("p", "hold", "hold", help="let others go first; p again lets it go on"),
        bind("p", "release", "release", help="no longer hold it"),
        bind("s", "cancel", "take out", help="take it out of the queue"),
        Binding("K,shift+up", "move('up')", "earlier", tooltip="one place earlier"),
        Binding("J,shift+down", "move('down')", "later", tooltip="one place later"),
        bind("b", "move('first')", "first", help="to the beginning of the queue"),
        bind("a", "start", "start anyway", help="start it in its turn, whoever else computes on its GPUs"),
        Binding("left_square_bracket", "other(-1)", "server", tooltip="the queue of the server before"),
        Binding("right_square_bracket", "other(1)", "server", tooltip="the queue of the next server"),
        bind("n", "new", "new", show=False, help="new training"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.standing: Standing | None = None
        self.server = ""  # whose queue it is; empty: this machine's
        self._servers = [""]
        self._watch: Watch | None = None

    def body(self) -> Iterator[Widget]:
        yield Table(TRAINING, empty="looking at this machine …", id="training")
        yield Static(head("waiting, in order"), id="between", markup=False)
        yield Table(WAITING, empty="", id="waiting")
        yield Static("", id="why", markup=False)

    def on_mount(self) -> None:
        self._watch = Watch(self.dojang.workspace)
        self.title_bar.show(self._title())
        self.set_interval(REFRESH, self._poll)
        self.waiting.focus()

    @property
    def training(self) -> Table:
        return self.query_one("#training", Table)

    @property
    def waiting(self) -> Table:
        return self.query_one("#waiting", Table)

    # Reading

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if (self.dojang.workspace.path / SERVERS).exists():
            self.dojang.fleet.attend()
        self._look()

    def on_screen_suspend(self) -> None:
        super().on_screen_suspend()
        self.dojang.fleet.leave()

    def action_other(self, by: int) -> None:
        """Go to another server's queue."""
        at = self._servers.index(self.server) if self.server in self._servers else 0
        self.server = self._servers[(at + by) % len(self._servers)]
        self._watch, self.standing = Watch(self.dojang.workspace, self.server), None
        self.training.set_rows([])
        self.waiting.set_rows([])
        self.training.set_empty(f"looking at {shown_name(self.server)} …")
        self.waiting.set_empty("")
        self.title_bar.show(self._title())
        self._explain()
        self._look()

    def _poll(self) -> None:
        if self.app.screen is self:
            self._look()

    @work(thread=True, exclusive=True, group="queue")
    def _look(self) -> None:
        worker, watch, server = get_current_worker(), self._watch, self.server
        self._servers = [s.name for s in self.dojang.fleet.sights()] or [""]
        for estimate in (False, True) if self.standing is None else (True,):
            found = self._seen(watch, server, estimate) if watch else None
            if found and not worker.is_cancelled:
                self.app.call_from_thread(self._show, found)

    def _seen(self, watch: Watch, server: str, estimate: bool) -> Standing | None:
        """The queue as it is, or a server's as it was seen last; None while it was not."""
        if not server:
            return watch.look(estimate=estimate)
        one = self.dojang.fleet.sight(server)
        if one is None or one.machine is None or one.view is None:
            self.app.call_from_thread(self._unseen, one.trouble if one else None)
            return None
        return watch.standing(one.view, one.machine.gpus, one.machine.gpu_note, estimate=estimate)

    # Showing

    def _unseen(self, trouble: DojangError | None) -> None:
        """Why a server's queue is not there to be seen."""
        if trouble and self.is_mounted and self.standing is None:
            self.training.set_empty("Its queue cannot be seen now.")
            self.query_one("#why", Static).update(words.clean(f"{trouble.message} {trouble.hint}"))

    def _show(self, found: Standing) -> None:
        if not self.is_mounted:
            return
        self.standing = found
        rows = found.training
        self.training.set_empty(found.note or "Nothing trains here.")
        self.training.styles.height = max(2, len(rows) + 1)
        self.training.set_rows([Row(str(i), training_cells(found, *row)) for i, row in enumerate(rows)])
        self.waiting.set_empty(EMPTY)
        self.waiting.set_rows([Row(w.id, waiting_cells(found, i, w)) for i, w in enumerate(found.view.waiting, 1)])
        trains = len({lease.run_dir for _, _, lease in rows if lease})
        queued = len(found.view.waiting)
        right = [state_piece("training", f"{trains} training"), ("   ", ""), state_piece("queued", f"{queued} queued")]
        right[0] = right[0] if trains else (right[0][0], "muted")
        self.title_bar.show(self._title(), right)
        self._explain()

    def _title(self) -> list[Piece]:
        parts: list[Piece] = [("dojang", "current"), ("  Queue", "title")]
        if len(self._servers) > 1 or self.server:
            parts.append((f"  {shown_name(self.server)}", ""))
        one = self.dojang.fleet.sight(self.server) if self.server else None
        if one and not one.up:
            parts += [("  ", ""), link_piece(one.link)]
        return parts

    @on(Table.Highlighted)
    def _explain(self) -> None:
        one, found = self.selected, self.standing
        text = Content("")
        if one and found:
            since = words.duration(time.time() - one.since) if one.since else words.DASH
            when = "" if found.starts.get(one.id) is None else f"; starts in: {starts(found, one.id)}"
            text = Content(f"{found.names[one.run_dir]} {one.reason}. It has waited {since}{when}.")
        self.query_one("#why", Static).update(text)
        self.refresh_bindings()

    @property
    def selected(self) -> Waiting | None:
        """The one that waits under the cursor."""
        key = self.waiting.cursor_key
        return next((w for w in self.standing.view.waiting if w.id == key), None) if self.standing else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "other":
            return len(self._servers) > 1
        if action not in ("open", "hold", "release", "move", "cancel", "start"):
            return True
        if not self.is_mounted or self.standing is None:
            return False
        if action == "open" and self.focused is self.training:
            return bool(self._run_dir())
        one = self.selected if self.focused is self.waiting else None
        if one is None:
            return False
        if action in ("hold", "release"):
            return one.held == (action == "release")
        if action == "start":
            return not one.regardless and any(name in self.standing.view.others for name in one.choices)
        if action == "move":
            at = self.standing.view.waiting.index(one)
            return at < len(self.standing.view.waiting) - 1 if parameters == ("down",) else at > 0
        return True

    def on_descendant_focus(self) -> None:
        self.refresh_bindings()

    # Doing

    def _run_dir(self) -> str:
        """Of what the cursor is on, in the list that has the focus."""
        if self.focused is not self.training:
            return self.selected.run_dir if self.selected else ""
        key, rows = self.training.cursor_key, self.standing.training if self.standing else []
        lease = rows[int(key)][2] if key and int(key) < len(rows) else None
        return lease.run_dir if lease else ""

    @on(Table.Selected)
    def action_open(self) -> None:
        from tui.screens.version import VersionScreen

        run_dir = self._run_dir()
        version = self._watch.version_of(run_dir) if run_dir and self._watch else None
        if version:
            self.app.push_screen(VersionScreen(version))
        elif run_dir:
            self.notify(f"It is no version of a workspace here: {run_dir}", markup=False)

    def action_hold(self) -> None:
        self._change("hold")

    def action_release(self) -> None:
        self._change("release")

    def action_start(self) -> None:
        self._change("start")

    def action_move(self, to: str) -> None:
        self._change(to)

    @work
    async def action_cancel(self) -> None:
        one = self.selected
        if one is None:
            return
        text = f"Take {one.title} out of the queue?\n\nIt loses its place. You can start it again later."
        if await self.app.push_screen_wait(Confirm("Take out", text, yes="Take out")):
            self._change("cancel", one)

    def _change(self, what: str, one: Waiting | None = None) -> None:
        one = one or self.selected
        if one is None:
            return
        if self.server:
            self._change_there(what, one, self.server)
            return
        try:
            change(one, what)
        except DojangError as e:
            self.complain(e)
        else:
            self._changed(what, one)

    @work(thread=True, group="change")
    def _change_there(self, what: str, one: Waiting, server: str) -> None:
        from engine.servers.far_queue import FarQueue

        link = self.dojang.fleet.link(server)
        try:
            if link:
                FarQueue(link).change(one.id, what)
                self.dojang.fleet.look_again(server)
        except DojangError as e:
            self.app.call_from_thread(self.complain, e)
        else:
            self.app.call_from_thread(self._changed, what, one)

    def _changed(self, what: str, one: Waiting) -> None:
        if what in DONE:
            self.notify(f"{one.title} {DONE[what]}.", markup=False)
        self._look()

    def action_new(self) -> None:
        from tui.screens.wizard import WizardScreen

        self.app.push_screen(WizardScreen())


def training_cells(found: Standing, name: str, gpu: Gpu | None, lease: Lease | None) -> dict[str, Cell]:
    """One GPU and who trains on it, or one training that has none."""
    others = found.view.others.get(gpu.uuid, "") if gpu else ""
    who: Cell = state_badge("training", found.names[lease.run_dir]) if lease else f"others: {others}"
    if not lease and not others:
        who = Content.styled("free", "$foreground-muted")
    use = f"{gpu.utilization} %" if gpu and gpu.utilization is not None else ""
    return {
        "on": name,
        "trains": who,
        "since": words.duration(time.time() - lease.since) if lease and lease.since else "",
        "left": words.duration(found.left.get(lease.run_dir)) if lease else "",
        "memory": f"{gpu.memory_used:.1f}/{gpu.memory_total:.1f} GiB" if gpu else "",
        "use": use,
        "gpu": gpu.name if gpu else "no GPU of the queue's",
    }


def waiting_cells(found: Standing, place: int, one: Waiting) -> dict[str, Cell]:
    needs = words.plural(one.request.count, "GPU") if one.request.count else "CPU"
    return {
        "place": str(place),
        "version": state_badge("paused" if one.held else "queued", found.names[one.run_dir]),
        "needs": needs,
        "starts": starts(found, one.id),
        "why": one.reason,
    }


__all__ = ["QueueScreen"]
