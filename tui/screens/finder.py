"""The learning rate finder, live: the curve grows as the sweep goes on, and one rate of it is taken over."""

from __future__ import annotations

import bisect
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from engine import find
from engine import sweep as sweeps
from engine.errors import DojangError
from engine.spec import Spec
from engine.versions import Workspace
from tui import words
from tui.screens.dialogs import Dialog
from tui.widgets.sweep import SweepChart


class FinderDialog(Dialog[float]):
    """Runs a sweep for `spec`; closes with the rate that was chosen. Closing ends the sweep."""

    DEFAULT_CSS = """
    FinderDialog > Vertical { width: 110; height: 90%; max-height: 34; }
    FinderDialog #sweep { height: 1fr; margin-top: 1; }
    FinderDialog #said { height: auto; min-height: 2; margin-top: 1; }
    FinderDialog #keys { height: 1; color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "accept", "use it", priority=True),
        Binding("left", "move(-1)", "lower", priority=True),
        Binding("right", "move(1)", "higher", priority=True),
        Binding("home", "suggested", "as suggested", priority=True),
    ]

    def __init__(self, workspace: Workspace, spec: Spec) -> None:
        super().__init__()
        self._workspace, self._spec = workspace, spec
        self._sweep = find.Sweep()
        self._finder: find.Finder | None = None
        self._closed = False
        self._at: int | None = None  # place of the chosen rate in the sweep
        self._status = "starting …"
        self._error: DojangError | None = None

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = f"Learning rate finder: {self._spec.model} on {words.clean(self._spec.dataset)}"
            yield SweepChart(id="sweep")
            yield Static("", id="said", markup=False)
            yield Static("", id="keys", markup=False)

    def on_mount(self) -> None:
        self._show()
        self._run()

    @work(thread=True, group="finder", exit_on_error=False)
    def _run(self) -> None:
        """Start the sweep and listen to it; this thread must live as long as the process it starts."""
        try:
            self._finder = find.Finder(self._workspace, self._spec)
            if self._closed:
                self._finder.cancel()
            for message in self._finder.messages():
                if not self._closed:
                    self.app.call_from_thread(self._take, message)
        except DojangError as e:
            if not self._closed:
                self.app.call_from_thread(self._fail, e)

    def on_unmount(self) -> None:
        self._closed = True
        if self._finder:
            self._finder.cancel()

    def _take(self, message: find.Message) -> None:
        try:
            self._sweep.take(message)
        except DojangError as e:
            self._fail(e)
            return
        kind = message["kind"]
        if kind == "progress":
            self._status = f"checking {message['done']} of {message['total']} images"
        elif kind == "stage":
            self._status = "loading libraries …"
        elif kind == "plan":
            self._status = f"building is done; first step on {message['device']} …"
        elif kind == "point":
            self._status = (
                f"step {message['step']} of {self._sweep.plan.get('steps')}, "
                f"lr {words.number(message['lr'])}, loss {words.number(message['smooth'])}"
            )
        elif kind == "end" and self._at is None:
            self.action_suggested()
        self._show()

    def _fail(self, error: DojangError) -> None:
        self._error = error
        self._show()

    @property
    def chosen(self) -> float | None:
        return None if self._at is None else self._sweep.rates[self._at]

    @property
    def _going(self) -> bool:
        return self._sweep.end is None and self._error is None

    def action_suggested(self) -> None:
        """To the rate that the finder suggests."""
        if self._sweep.suggestion:
            self._at = self._nearest(self._sweep.suggestion)
            self._show()

    def _nearest(self, rate: float) -> int:
        rates = self._sweep.rates
        place = bisect.bisect_left(rates, rate)
        near = [i for i in (place - 1, place) if 0 <= i < len(rates)]
        return min(near, key=lambda i: abs(rates[i] / rate - 1))

    def action_move(self, by: int) -> None:
        """Along the curve by hand."""
        count = len(self._sweep.rates)
        if count:
            here = count - 1 if self._at is None else self._at + by
            self._at = min(max(here, 0), count - 1)
            self._show()

    def action_accept(self) -> None:
        value = self._value()
        if value is None:
            self.app.bell()
        else:
            self.dismiss(value)

    def _value(self) -> float | None:
        """What Enter takes over: two digits of the chosen rate."""
        return None if self.chosen is None or self._error else float(f"{self.chosen:.1e}")

    def _show(self) -> None:
        if not self.is_attached:
            return
        found = self._sweep
        limits = (found.plan.get("low", sweeps.LOW), found.plan.get("high", sweeps.HIGH))
        empty = "" if self._error else "the curve comes with the first steps"
        self.query_one(SweepChart).show((found.rates, found.losses, found.smoothed), limits, self.chosen, empty)
        self.query_one("#said", Static).update(self._said())
        use = f"enter use {words.number(self._value())}   " if self._value() else ""
        move = "← → along the curve   " if found.rates and not self._error else ""
        self.query_one("#keys", Static).update(f"{use}{move}esc {'stop and close' if self._going else 'close'}")

    def _said(self) -> Content:
        if self._error:
            return Content.assemble((self._error.message, "$error"), "\n", self._error.hint)
        end = self._sweep.end
        if end is None:
            kept = "A model of its own is trained for a moment and thrown away."
            return Content.assemble(self._status, "\n", (kept, "$foreground-muted"))
        if end["suggestion"] is None:
            return Content.assemble(
                (end["reason"], "$warning"), "\n", ("Nothing was kept of the sweep.", "$foreground-muted")
            )
        ended = ", then it diverges" if end["ended"] == "diverged" else ""
        note = f"It is lowest at {words.number(end['lowest'])}{ended}. Nothing was kept of the sweep."
        return Content.assemble(
            "The loss falls fastest at ",
            (words.number(end["suggestion"]), "bold $accent"),
            ".\n",
            (note, "$foreground-muted"),
        )
