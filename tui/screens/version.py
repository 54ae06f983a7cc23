"""One version: live while it runs, its results when it is done. Everything comes from its event log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Click
from textual.widget import Widget
from textual.widgets import ContentSwitcher, Static
from textual.worker import get_current_worker

from engine import events, metrics
from engine.errors import DojangError
from engine.progress import STAGES, Progress, Series
from engine.servers.watching import link_state
from engine.versions import LIVE, Version, lost_error, task_of
from tui import words
from tui.keys import bind
from tui.metrics_files import FileCharts
from tui.screens import curves
from tui.screens.base import Page
from tui.screens.steer import RESTS, ask_change, go_on, pause
from tui.screens.summary import settings_text, summary_text
from tui.screens.versions import ask_stop, edit_label, rename
from tui.widgets.bars import Bar, Metric, MetricBars, ProgressBars, Stage, StageLine
from tui.widgets.chrome import state_piece
from tui.widgets.confusion import Confusion
from tui.widgets.facts import Fact, Facts
from tui.widgets.lines import Line, LineWidget, Piece, line_width
from tui.widgets.links import link_piece
from tui.widgets.symbols import fit, sign

VIEWS = ("Curves", "Summary", "Confusion", "Settings", "Log")
POLL = 0.25
BATCH = 1 << 19
ROLES = {
    "map50": "chart-1", "map50_95": "chart-1", "top1": "chart-1", "top5": "chart-1",
    "precision": "chart-2", "recall": "chart-3", "f1": "chart-4",
}  # fmt: skip
STAGE_WORDS = {"preparing": "preparing server"}


class Numbers(LineWidget):
    """The current losses by name, learning rate, speed and memory, in one line."""

    DEFAULT_CSS = "Numbers { height: 1; padding: 0 1; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._pieces: list[tuple[str, str, str]] = []

    def show(self, progress: Progress) -> None:
        found = []
        for name, value in progress.losses.items():
            found.append(
                (
                    words.loss(name),
                    f"{value:.3f}" if value is not None else "nan",
                    trend(progress.step_series.get(name)),
                )
            )
        if progress.lr is not None:
            found.append(("lr", words.number(progress.lr), ""))
        if progress.images_per_second:
            found.append(("", f"{progress.images_per_second:.0f} img/s", ""))
        if progress.memory:
            found.append(("memory", f"{progress.memory:.1f} GiB", ""))
        self._pieces = found
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        for gap in (3, 2, 1):
            line = self._line(gap)
            if line_width(line) <= width:
                break
        return [line]

    def _line(self, gap: int) -> Line:
        pieces: list[Piece] = []
        for name, value, arrow in self._pieces:
            pieces += [
                (" " * gap if pieces else "", ""),
                (f"{name} " if name else "", "muted"),
                (f"{value:>5}", ""),
                (f" {arrow}" if arrow else "", "muted"),
            ]
        return tuple(pieces)


class Views(LineWidget):
    """The views of a version; Tab walks them."""

    DEFAULT_CSS = "Views { height: 1; padding: 0 1; }"
    current = VIEWS[0]

    def show(self, current: str) -> None:
        self.current = current
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        pieces: list[Piece] = []
        for name in VIEWS:
            pieces += [(name, "current" if name == self.current else "muted"), ("   ", "")]
        return [(*pieces, (sign("─") * max(0, width - sum(len(t) for t, _ in pieces)), "track"))]

    def on_click(self, event: Click) -> None:
        left = 0
        for name in VIEWS:
            right = left + len(name) + 3
            if left <= event.x - self.gutter.left < right and isinstance(self.screen, VersionScreen):
                self.screen.show_view(name)
            left = right


class LogPane(LineWidget):
    """The last lines of what happened, newest at the bottom."""

    DEFAULT_CSS = "LogPane { height: 4; padding: 0 1; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._log: list[tuple[float, str, str]] = []

    def show(self, log: list[tuple[float, str, str]]) -> None:
        self._log = log[-200:]
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = []
        for moment, level, text in self._log[-height:]:
            at = time.strftime("%H:%M:%S", time.localtime(moment))
            role = {"error": "error", "warning": "warning"}.get(level, "")
            lines.append(((f"{at}  ", "muted"), (fit(words.clean(text), max(0, width - 10)), role)))
        return lines


class Classes(LineWidget):
    """How good each class is on val after the last epoch, and which of them are falling."""

    DEFAULT_CSS = "Classes { height: 4; width: 44; padding: 0 1; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._rows: list[tuple[str, float | None, float | None]] = []
        self._metric = ""

    def show(self, progress: Progress) -> None:
        """The weakest first: they are what one looks for."""
        key = metrics.weighed(progress.task)
        self._metric = next(m.name for m in metrics.of(progress.task) if m.key == key)
        judged = (e["per_class"] for e in reversed(progress.epochs) if e.get("per_class"))
        now: list[dict[str, Any]] = next(judged, [])
        then = {r.get("name"): r.get(key) for r in next(judged, now)}
        self._rows = sorted(
            ((str(r.get("name")), r.get(key), then.get(r.get("name"))) for r in now), key=lambda r: r[1] or 0.0
        )
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        if not self._rows:
            return []
        lines: list[Line] = [((f"{self._metric} on val by class, weakest first", "muted"),)]
        for name, value, before in self._rows[: height - 1]:
            falling = value is not None and before is not None and value < before - 0.02
            note = (f" {sign('↓')} falling", "warning") if falling else ("", "")
            lines.append(((fit(words.clean(name), 18), ""), (f"{words.metric(value):>7}", ""), note))
        return lines


class VersionScreen(Page):
    HELP_TITLE = "A version"
    HELP_TEXT = (
        "Curves: losses and metrics as the training goes. Summary: the metrics of the best weights, on val and test apart, "
        "and by class. Confusion: what it takes for what. Settings: what it was trained with, locked. Log: what happened. "
        "Leaving costs the training nothing: it goes on, also when the terminal closes."
    )
    CSS = """
    VersionScreen #stages { padding: 0 1; }
    VersionScreen #bars { padding: 0 1; }
    VersionScreen #trouble { display: none; height: auto; padding: 0 1; margin: 1 0 0 0; color: $error; }
    VersionScreen #trouble.shown { display: block; }
    VersionScreen ContentSwitcher { height: 1fr; }
    VersionScreen #view-Curves { height: 1fr; }
    VersionScreen VerticalScroll { padding: 0 1; }
    VersionScreen #metrics { height: auto; margin-top: 1; }
    VersionScreen .text { height: auto; }
    VersionScreen #below { height: 4; }
    VersionScreen.short #below, VersionScreen.short LogPane { height: 2; }
    VersionScreen.narrow Classes { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (100, "wide")]
    VERTICAL_BREAKPOINTS = [(0, "short"), (30, "tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="back to the list; the training goes on"),
        Binding("tab", "view(1)", "next view", tooltip="Curves, Summary, Confusion, Settings, Log"),
        Binding("shift+tab", "view(-1)", "view before", show=False, tooltip="the view before"),
        bind("s", "stop", "stop", help="finish the step, save, stop; it can go on later"),
        bind("f", "finish", "finish", help="finish now: evaluate and keep the best as a done version"),
        bind("p", "pause", "pause", help="save and leave the machine to others; p again goes on from there"),
        bind("p", "resume", "go on", help="go on from the last checkpoint"),
        bind("plus", "change", "more", help="more or fewer epochs, patience, learning rate: now, or after it is done"),
        bind("g", "charts", "charts", help="the next charts"),
        bind("z", "zoom", "zoom", help="one chart over the whole room, or both again"),
        bind("b", "log_scale", "log scale", help="y axis in powers of ten"),
        bind("v", "smooth", "smooth", help="more smoothing, up to 0.9, then none"),
        bind("l", "log", "log", help="what happened and what the worker printed"),
        bind("r", "rename", "rename", show=False, help="give it a name"),
        bind("t", "tags", "tags", show=False, help="edit tags and memo"),
        bind("y", "copy", "command", show=False, help="copy the command that follows this version"),
    ]

    def __init__(self, version: Version) -> None:
        super().__init__()
        self.version = version
        self.progress = Progress()
        self.state = ""
        self._label = version.label_data()
        self._own_charts = FileCharts(version.path / "metrics")
        self._settled = False

    def body(self) -> Iterator[Widget]:
        yield StageLine(id="stages")
        yield ProgressBars(id="bars", across=True)
        yield Numbers(id="numbers")
        yield Static("", id="trouble", markup=False)
        yield Views(id="views")
        with ContentSwitcher(initial="view-Curves"):
            with Vertical(id="view-Curves"):
                yield curves.Curves(id="curves")
                with Horizontal(id="below"):
                    yield LogPane(id="log")
                    yield Classes(id="classes")
            with VerticalScroll(id="view-Summary"):
                yield MetricBars(id="metrics")
                yield Facts(id="summary", classes="text")
            yield Confusion(id="view-Confusion")
            with VerticalScroll(id="view-Settings"):
                yield Facts(id="settings", classes="text")
            with VerticalScroll(id="view-Log"):
                yield Facts(id="whole-log", classes="text")

    def on_mount(self) -> None:
        preferences = self.dojang.preferences
        self.curves.set_looks(preferences.marker, preferences.smoothing)
        self.curves.files = self._own_charts
        self._follow()
        self.set_interval(1.0, self._tick)
        self._tick()

    @property
    def curves(self) -> curves.Curves:
        return self.query_one("#curves", curves.Curves)

    # Following the log

    @work(thread=True, group="follow", exclusive=True)
    def _follow(self) -> None:
        """Read what is new and hand it over; a long log comes in pieces, so that the screen stays quick."""
        worker = get_current_worker()
        offset = 0
        while not worker.is_cancelled and self.app.is_running:
            batch, new = events.follow(self.version.events, offset, limit=BATCH)
            if new < offset:
                self.app.call_from_thread(self._begin_again)
            if batch:
                self.app.call_from_thread(self._take, batch)
            if new == offset:
                self._worker_settled()
                if self._own_charts.look():
                    self.app.call_from_thread(self._take, [])
                time.sleep(POLL)
            offset = new

    def _worker_settled(self) -> None:
        if not self._settled:
            self._settled = True
            self.app.call_from_thread(self._opened)

    def _begin_again(self) -> None:
        self.progress = Progress()

    def _take(self, batch: list[events.Event]) -> None:
        if not self.is_mounted:
            return
        self.progress.apply(batch)
        if self._settled:
            self._draw()

    def _opened(self) -> None:
        """The whole log is in: choose the view a person wants first."""
        if self.is_mounted:
            self._tick()
            self._draw()
            self.show_view("Summary" if self.progress.ended == "done" else "Curves")

    def _tick(self) -> None:
        """What changes with the clock or with the lock: state, elapsed, remaining."""
        before, self.state = self.state, self.version.state(self.progress)
        self._head()
        if before != self.state:
            self._draw()
        elif self.state == "queued":
            self._trouble()
        if before != self.state:
            self.refresh_bindings()
            if before in LIVE and self.state not in LIVE:
                self._ended()

    def _ended(self) -> None:
        if self.state == "done":
            head = metrics.headline(self.progress.task)
            value = words.metric(self.progress.metrics()[head.key])
            self.notify(
                f"{head.name} on val {value}. Tab shows the summary.", title=f"{self.version.id} is done", markup=False
            )
        self.app.bell()

    # Showing

    def _draw(self) -> None:
        p = self.progress
        self.query_one("#stages", StageLine).show(stages(p, self.state))
        self.query_one("#bars", ProgressBars).show(bars(p))
        self.query_one("#numbers", Numbers).show(p)
        self.query_one("#log", LogPane).show(p.log)
        self.query_one("#classes", Classes).show(p)
        self.curves.show(p)
        self._trouble()
        self._head()
        view = self.query_one(ContentSwitcher).current
        if view != "view-Curves":
            self._fill(str(view).removeprefix("view-"))

    def _head(self) -> None:
        p, now = self.progress, time.time()
        spec_model = str(p.plan.get("model") or self.spec_data().get("model", ""))
        name = str(self._label.get("name") or "")
        left: list[Piece] = [
            ("dojang", "current"),
            (f"  {self.version.id}", "title"),
            (f" {name}" if name else "", "title"),
        ]
        facts = (self.spec_data().get("dataset", ""), spec_model, self.version.server, p.plan.get("device", ""))
        left.append((f"  {' · '.join(words.clean(str(f)) for f in facts if f)}", "muted"))
        live = self.state in LIVE
        word = f"training {p.fraction * 100:.0f} %" if self.state == "training" else self.state
        right = [
            state_piece(self.state or "draft", word),
            (f"   {words.duration(p.elapsed(now if live else None))}", ""),
        ]
        remaining = p.remaining(now)
        if live and self.state == "training":
            right.append(
                (
                    f"   {words.duration(remaining)} left" if remaining is not None else "   time left: computing",
                    "muted",
                )
            )
        if live and self.version.server and (link := link_state(self.version)):
            right += [("   ", ""), link_piece(link)]
        self.title_bar.show(left, right)

    def spec_data(self) -> dict[str, Any]:
        if not hasattr(self, "_spec"):
            try:
                self._spec = self.version.spec_data()
            except (OSError, DojangError):
                self._spec = {}
        return self._spec

    def _trouble(self) -> None:
        """The failure in plain words and what to do, above everything else."""
        place = self.query_one("#trouble", Static)
        error = (
            self.progress.error
            if self.state in ("failed", "stopped")
            else lost_error(self.version)
            if self.state == "lost"
            else None
        )
        waits = self.version.waiting()["reason"] if self.state == "queued" else ""
        place.set_class(error is not None or bool(waits), "shown")
        if waits:
            text = f"It {words.clean(waits)}. It starts by itself; 4 shows the queue."
            place.update(Content.styled(text, "$foreground"))
        if error:
            place.update(Content.assemble(words.clean(error["message"]), "\n", (error["hint"], "$foreground")))

    def show_view(self, name: str) -> None:
        self.query_one(ContentSwitcher).current = f"view-{name}"
        self.query_one("#views", Views).show(name)
        if name == "Curves":
            self.set_focus(None)
        else:
            self._fill(name)
            self.query_one(f"#view-{name}").focus()
        self.refresh_bindings()

    def _fill(self, view: str) -> None:
        p = self.progress
        if view == "Summary":
            task = p.task or task_of(self.version.model())
            found, wide = p.metrics(task), self.size.width >= 110
            self.query_one("#metrics", MetricBars).show(
                [Metric(m.name, found[m.key], m.help if wide else m.brief, ROLES[m.key]) for m in metrics.of(task)]
            )
            self.query_one("#summary", Facts).show(summary_text(self.version, p, self.state))
        elif view == "Confusion":
            self.query_one(Confusion).show(p.results, self._no_confusion())
        elif view == "Settings":
            self.query_one("#settings", Facts).show(settings_text(self.version, p))
        elif view == "Log":
            place = self.query_one("#view-Log", VerticalScroll)
            at_end = place.max_scroll_y - place.scroll_y < 2
            self.query_one("#whole-log", Facts).show(self._log_text())
            if at_end:  # the newest line stays in sight, unless one has gone up to read
                self.call_after_refresh(place.scroll_end, animate=False)

    def _no_confusion(self) -> str:
        if self.state in LIVE:
            return "It comes with the evaluation of the best weights, at the end of the training."
        return "None was counted: that is done at the end of a training, of the best weights."

    def _log_text(self) -> list[Fact]:
        lines: list[Fact] = []
        for t, level, text in self.progress.log:
            style = {"error": "$error", "warning": "$warning"}.get(level, "")
            at = time.strftime("%m-%d %H:%M:%S  ", time.localtime(t))
            lines.append((Content.assemble((at, "$foreground-muted"), (words.clean(text), style)), len(at)))
        lines += [
            Content(""),
            Content.styled(f"what the worker printed: {self.version.train_log}", "$foreground-muted"),
        ]
        printed = tail(self.version.train_log) or ["nothing yet" if self.state in LIVE else "nothing"]
        return [*lines, *(Content(words.clean(line)) for line in printed)]

    # Doing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("stop", "finish", "pause"):
            return self.state in LIVE and (action == "stop" or self.state != "queued")
        if action == "resume":
            return self.state in RESTS
        if action == "log":
            return self.is_mounted and self.query_one(ContentSwitcher).current != "view-Log"
        if action in ("charts", "zoom", "log_scale", "smooth"):
            there = self.is_mounted and self.query_one(ContentSwitcher).current == "view-Curves"
            return there and (action != "zoom" or self.curves.can_zoom)
        return True

    def action_back(self) -> None:
        self.dismiss()

    def action_view(self, by: int) -> None:
        here = VIEWS.index(self.query_one("#views", Views).current)
        self.show_view(VIEWS[(here + by) % len(VIEWS)])

    def action_log(self) -> None:
        self.show_view("Log")

    def action_charts(self) -> None:
        self.curves.next_charts(self.progress)

    def action_zoom(self) -> None:
        self.curves.zoom(self.progress)

    def action_log_scale(self) -> None:
        self.curves.toggle_log_scale()

    def action_smooth(self) -> None:
        self.dojang.prefer(smoothing=self.curves.next_smoothing())

    @work
    async def action_stop(self) -> None:
        await ask_stop(self, self.version, "stop")

    @work
    async def action_finish(self) -> None:
        await ask_stop(self, self.version, "finish")

    def action_pause(self) -> None:
        pause(self, self.version)

    def action_resume(self) -> None:
        go_on(self, self.version)
        self._tick()

    @work
    async def action_change(self) -> None:
        if await ask_change(self, self.version, self.progress, self.state):
            self._tick()

    @work
    async def action_rename(self) -> None:
        if await rename(self, self.version, str(self._label.get("name") or self.version.id)):
            self._relabelled()

    @work
    async def action_tags(self) -> None:
        if await edit_label(self, self.version):
            self._relabelled()

    def _relabelled(self) -> None:
        self._label = self.version.label_data()
        self._head()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(f"dojang follow {self.version.reference}")
        self.notify(f"Copied: dojang follow {self.version.reference}", markup=False)


def stages(p: Progress, state: str) -> list[Stage]:
    """The stage line: what is done, where it is, what is to come; where it failed, if it did."""
    here = len(STAGES) if p.ended == "done" else STAGES.index(p.stage) if p.stage in STAGES else -1
    now = {"failed": "failed", "lost": "failed", "stopped": "paused", "paused": "paused"}.get(state, "current")
    found = []
    for i, name in enumerate(STAGES):
        found.append(Stage(STAGE_WORDS.get(name, name), "done" if i < here else now if i == here else "todo"))
    return found


def bars(p: Progress) -> list[Bar]:
    """Epochs, steps of this epoch, and val steps; before the training the stage's own."""
    if p.stage in ("preparing", "preprocessing"):
        done, total = p.bars.get(p.stage, (None, None))
        unit, rate = p.pace.get(p.stage, ("", None))
        if unit == "bytes" and done is not None and total:
            told = f"{rate / 1e6:.1f} MB/s" if rate else None
            label = f"{STAGE_WORDS.get(p.stage, p.stage)}, MB"
            return [Bar(label, round(done / 1e6, 1), round(total / 1e6, 1), text=told)]
        return [Bar(STAGE_WORDS.get(p.stage, p.stage), done, total)]
    per = int(p.plan.get("steps_per_epoch") or 0)
    found = [
        Bar("epoch", p.epoch or p.epochs_done, p.epochs_total or None, text=""),
        Bar("step", p.step_in_epoch, per or None, text=""),
    ]
    if p.ended:
        return found[:1] if p.ended == "done" else found
    what = "test" if p.stage == "testing" and "test" in p.bars else "val"
    done, total = p.bars.get(what, (None, None))
    found.append(Bar(what, done, total, text=""))
    return found


def trend(series: Series | None) -> str:
    """An arrow when the last tenth of the curve differs clearly from the tenth before; empty while it does not."""
    if series is None or len(series) < 20:
        return ""
    n = max(5, len(series) // 10)
    ys = series.ys
    last, before = sum(ys[-n:]) / n, sum(ys[-2 * n : -n]) / n
    if last != last or before != before:  # not a number: a diverged loss has no trend
        return ""
    change = (last - before) / (abs(before) or 1.0)
    return sign("↓") if change < -0.01 else sign("↑") if change > 0.01 else ""


def tail(path: Any, limit: int = 1 << 15) -> list[str]:
    """The last lines of a text file that may be large."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, 2)
            f.seek(max(0, size - limit))
            return list(f.read().decode("utf-8", "replace").splitlines()[-200:])
    except OSError:
        return []
