"""Home: every version of a project, which is better, and what it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine import metrics
from engine.errors import DojangError
from engine.servers.watching import link_states
from engine.versions import LIVE, Folds, Trashed, Version, summaries
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Ask, Confirm, Pick
from tui.screens.steer import RESTS, ask_change, go_on, pause
from tui.widgets.chrome import state_piece
from tui.widgets.filter import Filter
from tui.widgets.links import link_piece
from tui.widgets.table import Cell, Column, Row, Table

BEFORE = [
    Column("version", "version", width=16, flex=6, priority=10),
    Column("state", "state", width=16, flex=1, priority=9),
]
PRIORITIES = {"map50": 8, "top1": 8, "map50_95": 7, "top5": 7}
AFTER = [
    Column("model", "model", width=9, priority=6),
    Column("dataset", "data", width=10, flex=1, priority=4),
    Column("took", "took", width=8, align="right", priority=3),
    Column("tags", "tags", width=10, flex=2, priority=2),
    Column("created", "created", width=16, priority=1),
]
Order = tuple[str, Callable[[dict[str, Any]], Any], bool]


def columns(tasks: Collection[str]) -> list[Column]:
    """The columns of a list that holds versions of these tasks."""
    measured = [
        Column(m.key, m.title, width=6 if len(m.title) > 1 else 5, align="right", priority=PRIORITIES.get(m.key, 5))
        for m in metrics.columns(tasks)
    ]
    return [*BEFORE, *measured, *AFTER]


def by_metric(key: str) -> Callable[[dict[str, Any]], float]:
    """What a row is sorted by; what was not measured comes last."""
    return lambda row: -1.0 if (value := row["metrics"].get(key)) is None else float(value)


ORDERS: dict[str, Order] = {
    "created": ("newest first", lambda r: r["created"], True),
    **{m.key: (f"{m.name}, best first", by_metric(m.key), True) for task in metrics.TASKS for m in metrics.of(task)},
    "version": ("name", lambda r: r["name"].lower(), False),
    "state": ("state", lambda r: r["state"], False),
    "model": ("model", lambda r: r["model"], False),
    "dataset": ("data set", lambda r: r["dataset"], False),
    "took": ("time taken", lambda r: r["elapsed"], True),
}
EMPTY = "No version yet.\n\nn  train the first one\n2  see or add data sets"
REFRESH = 1.0


class VersionsScreen(Page):
    """The list at the left, what is selected at the right; the right side folds away where it is narrow."""

    SECTION = "Versions"
    HELP_TEXT = (
        "Every training is a version. The metrics are those on the val split: of the best weights so far. "
        "A running training goes on when you leave. Deleted versions go to the trash: u brings the last one back."
    )
    CSS = """
    VersionsScreen #detail { width: 42; padding: 0 1; border-left: vkey $panel; display: none; }
    VersionsScreen.wide #detail { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("n", "new", "new", help="new training"),
        Binding("enter", "open", "open", tooltip="open the version"),
        bind("r", "rename", "rename", help="give it a name"),
        bind("t", "tags", "tags", help="edit tags and memo"),
        bind("s", "stop", "stop", help="stop it: finish the step, save; it can go on later"),
        bind("f", "finish", "finish", help="finish now: evaluate and keep the best as a done version"),
        bind("p", "pause", "pause", help="save and leave the machine to others; p again goes on from there"),
        bind("p", "resume", "go on", help="go on from its last checkpoint"),
        bind("plus", "change", "more", show=False, help="more or fewer epochs, patience, learning rate"),
        bind("x", "delete", "delete", help="move it to the trash"),
        bind("u", "undo", "undo", help="bring the last deleted version back"),
        Binding("slash", "filter", "filter", tooltip="filter as you type: name, tag, model, data, state"),
        bind("o", "order", "sort", help="choose the order"),
        bind("w", "project", "project", show=False, help="choose or make a project"),
        bind("y", "copy", "copy", show=False, help="copy the command that opens this version"),
        Binding("escape", "unfilter", "all", show=False, tooltip="show all again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self._filter, self._order, self._folds = "", "created", Folds()

    def body(self) -> Iterator[Widget]:
        yield Filter(placeholder="filter: name, tag, model, data set or state", id="filter")
        with Horizontal():
            yield Table(columns(()), empty=EMPTY, id="versions")
            with VerticalScroll(id="detail", can_focus=False):
                yield Static("", id="facts", markup=False)

    def compose(self) -> ComposeResult:
        yield from super().compose()

    def on_mount(self) -> None:
        self.set_interval(REFRESH, self._poll)
        self.table.focus()

    def on_screen_resume(self) -> None:
        self.load()

    @property
    def table(self) -> Table:
        return self.query_one("#versions", Table)

    # Reading

    def load(self) -> None:
        """Read the list now, on this thread: from the cache it takes milliseconds, and the first frame shows it."""
        project = self.dojang.workspace.project()
        found = project.versions()
        if any(v.alive() for v in found) or len(found) > 2000:
            self._show([r for r in self.rows if r["project"] == project.name])
            self._read()
        else:
            self._show(summaries(found, self._folds))

    def _poll(self) -> None:
        if self.app.screen is self:
            self._read()

    @work(thread=True, exclusive=True, group="list")
    def _read(self) -> None:
        worker = get_current_worker()
        rows = summaries(self.dojang.workspace.project().versions(), self._folds)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show, rows)

    # Showing

    def _show(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        _, key, descending = ORDERS[self._order]
        ordered = sorted((r for r in rows if matches(r, self._filter)), key=key, reverse=descending)
        shown = columns({r["task"] for r in rows})
        if shown != self.table.columns:
            self.table.set_columns(shown)
        self.table.sorted_by(self._order if self._order != "created" else "created", descending=descending)
        self.table.set_rows([Row(r["version"], cells(r)) for r in ordered])
        self._head()
        self._detail()

    def _head(self) -> None:
        states = [r["state"] for r in self.rows]
        counts = (
            *([("queued", states.count("queued"), "queued")] if "queued" in states else []),
            ("training", sum(s in LIVE and s != "queued" for s in states), "running"),
            ("done", states.count("done"), "done"),
            ("failed", sum(s in ("failed", "lost") for s in states), "failed"),
        )
        right: list[tuple[str, str]] = []
        for state, count, word in counts:
            piece = state_piece(state, f"{count} {word}")
            right += [("   " if right else "", ""), piece if count else (piece[0], "muted")]
        for server, link in sorted(link_states().items()):
            right += [("   ", ""), link_piece(link, server)]
        name = self.dojang.workspace.current_project
        filtered = f"   filter “{self._filter}”" if self._filter else ""
        self.title_bar.show([("dojang", "current"), (f"  {name}", "title"), (filtered, "muted")], right)

    @on(Table.Highlighted)
    def _detail(self) -> None:
        row = self.selected
        self.query_one("#facts", Static).update(Content("") if row is None else facts(row))
        self.refresh_bindings()

    @property
    def selected(self) -> dict[str, Any] | None:
        key = self.table.cursor_key
        return next((r for r in self.rows if r["version"] == key), None)

    @property
    def version(self) -> Version | None:
        row = self.selected
        return Version(self.dojang.workspace.project(row["project"]), row["version"]) if row else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys work now: only what fits the selected version's state."""
        row = self.selected if self.is_mounted else None
        state = row["state"] if row else ""
        if action in ("stop", "finish", "pause"):
            return state in LIVE and (action == "stop" or state != "queued")
        if action == "resume":
            return state in RESTS
        if action in ("open", "rename", "tags", "copy", "change"):
            return row is not None
        if action == "delete":
            return row is not None and state not in LIVE
        if action == "undo":
            return bool(self.dojang.workspace.trash())
        if action == "unfilter":
            return bool(self._filter)
        return True

    # Doing

    def action_new(self) -> None:
        from tui.screens.wizard import WizardScreen

        self.app.push_screen(WizardScreen())

    @on(Table.Selected)
    def action_open(self) -> None:
        if self.version:
            self.dojang.open_version(self.version.reference)

    @work
    async def action_rename(self) -> None:
        version, row = self.version, self.selected
        if version and row and await rename(self, version, row["name"]):
            self.load()

    @work
    async def action_tags(self) -> None:
        version = self.version
        if version and await edit_label(self, version):
            self.load()

    @work
    async def action_stop(self) -> None:
        if self.version and await ask_stop(self, self.version, "stop"):
            self.load()

    @work
    async def action_finish(self) -> None:
        if self.version and await ask_stop(self, self.version, "finish"):
            self.load()

    def action_pause(self) -> None:
        if self.version:
            pause(self, self.version)

    def action_resume(self) -> None:
        version = self.version
        if version and go_on(self, version):
            self.dojang.open_version(version.reference)

    @work
    async def action_change(self) -> None:
        version, row = self.version, self.selected
        if version and row and await ask_change(self, version, version.progress(skip_steps=True), row["state"]):
            self.load()

    @work
    async def action_delete(self) -> None:
        version, row = self.version, self.selected
        if not version or not row:
            return
        text = f"Delete {describe(row)}?\n\nIt goes to the trash with its weights and curves; u brings it back."
        if await self.app.push_screen_wait(Confirm("Delete", text, yes="Delete", careful=True)):
            try:
                version.delete()
                self.notify(f"{version.id} is in the trash. u brings it back.", markup=False)
            except DojangError as e:
                self.complain(e)
            self.load()

    def action_undo(self) -> None:
        trash = [t for t in self.dojang.workspace.trash() if t.project == self.dojang.workspace.current_project]
        newest: Trashed | None = trash[0] if trash else None
        if newest:
            try:
                version = newest.restore()
            except DojangError as e:
                self.complain(e)
                return
            self.load()
            self.table.move_to(version.id)
            self.notify(f"{version.id} is back.", markup=False)

    def action_filter(self) -> None:
        self.query_one(Filter).open()

    def action_unfilter(self) -> None:
        self.query_one(Filter).action_clear()

    @on(Filter.Changed)
    def _typed(self, event: Filter.Changed) -> None:
        self._filter = event.value.strip()
        self._show(self.rows)

    @work
    async def action_order(self) -> None:
        tasks = {r["task"] for r in self.rows} or {"detect"}
        other = set(metrics.KEYS) - {m.key for task in tasks for m in metrics.of(task)}
        options = [(key, word, "") for key, (word, _, _) in ORDERS.items() if key not in other]
        chosen = await self.app.push_screen_wait(Pick("Sort by", options, self._order))
        if chosen:
            self._order = chosen
            self._show(self.rows)

    @on(Table.HeaderSelected)
    def _header(self, event: Table.HeaderSelected) -> None:
        if event.column in ORDERS:
            self._order = event.column
            self._show(self.rows)

    @work
    async def action_project(self) -> None:
        workspace = self.dojang.workspace
        names = workspace.projects() or [workspace.current_project]
        options = [(n, n, words.plural(len(workspace.project(n).versions()), "version")) for n in names]
        chosen: str | None = await self.app.push_screen_wait(
            Pick("Project", [*options, ("\0", "new project …", "")], workspace.current_project)
        )
        if chosen == "\0":
            answer = await self.app.push_screen_wait(
                Ask("New project", [("name", "Name", "", "")], project_problem, ok="Make")
            )
            chosen = answer["name"] if answer else None
        if chosen:
            try:
                workspace.use(chosen)
                self.rows = []
                self.load()
            except DojangError as e:
                self.complain(e)

    def action_copy(self) -> None:
        if self.version:
            self.app.copy_to_clipboard(f"dojang show {self.version.reference}")
            self.notify(f"Copied: dojang show {self.version.reference}", markup=False)


def project_problem(values: dict[str, str]) -> dict[str, str]:
    from engine.versions import clean_name

    try:
        clean_name(values["name"], "project name")
    except DojangError as e:
        return {"name": e.hint if values["name"].strip() else "give it a name"}
    return {}


def matches(row: dict[str, Any], text: str) -> bool:
    """Every word must occur somewhere in the row."""
    whole = " ".join(
        [row["version"], row["name"], row["model"], row["dataset"], row["state"], *row["tags"], row["memo"]]
    ).lower()
    return all(word in whole for word in text.lower().split())


def describe(row: dict[str, Any]) -> str:
    return row["version"] if row["name"] == row["version"] else f"{row['version']} “{row['name']}”"


def cells(row: dict[str, Any]) -> dict[str, Cell]:
    """One row of the table."""
    from tui.widgets.symbols import state_badge

    named = row["name"] if row["name"] != row["version"] else ""
    return {
        "version": f"{row['version']} {named}".strip(),
        "state": state_badge(row["state"], words.state(row)),
        "model": row["model"],
        "dataset": row["dataset"],
        **{key: words.metric(value) for key, value in row["metrics"].items()},
        "took": words.duration(elapsed(row)) if row["elapsed"] or row["state"] in LIVE else words.DASH,
        "tags": " ".join(row["tags"]),
        "created": words.when(row["created"]),
    }


def elapsed(row: dict[str, Any]) -> float:
    """Seconds worked on; counted up to now while it runs."""
    if row["state"] in LIVE and row["attempt_started"]:
        return float(row["spent_before"] + max(0.0, time.time() - row["attempt_started"]))
    return float(row["elapsed"])


def facts(row: dict[str, Any]) -> Content:
    """The right side: what one wants to know of a version at a glance."""
    from tui.widgets.symbols import state_badge

    lines: list[Content] = [
        Content.styled(describe(row), "bold"),
        Content(""),
        state_badge(row["state"], words.state(row)),
    ]
    if row["epochs"]:
        left = (
            f", {words.duration(row['remaining'])} left" if row["state"] == "training" and row.get("remaining") else ""
        )
        lines.append(Content(f"epoch {row['epochs_done']} of {row['epochs']}, {words.duration(elapsed(row))}{left}"))
    if row.get("waiting"):
        lines += [Content(""), Content(f"It {words.clean(row['waiting']['reason'])}.")]
    if row["error"] and row["state"] in ("failed", "lost"):
        lines += [Content(""), Content.styled(row["error"]["message"], "$error"), Content(row["error"]["hint"])]
    lines += [
        Content(""),
        Content.styled("on val" + (", best epoch so far" if row["state"] in LIVE else ""), "$foreground-muted"),
    ]
    for m in metrics.of(row["task"]):
        test = (row.get("test_metrics") or {}).get(m.key)
        extra = f"    test {words.metric(test)}" if test is not None else ""
        lines.append(Content(f"{m.name:<10} {words.metric(row['metrics'].get(m.key))}{extra}"))
    if row["confidence"] is not None:
        lines.append(Content.styled(f"P, R, F1 at confidence {row['confidence']:.3f}", "$foreground-muted"))
    lines += [Content(""), Content(f"{row['model']} on {row['dataset']}")]
    if row["tags"]:
        lines.append(Content("tags  " + ", ".join(row["tags"])))
    if row["memo"]:
        lines.append(Content("memo  " + row["memo"]))
    lines.append(Content.styled(f"created {words.when(row['created'])}", "$foreground-muted"))
    return Content("\n").join(lines)


# Asked in the same way from the list and from the version's own screen


async def rename(page: Page, version: Version, now: str) -> bool:
    """Ask for another name; True when it changed."""
    shown = "" if now == version.id else now
    fields = [("name", "Name", shown, f"empty: {version.id}")]
    return await _relabel(page, version, Ask(f"Rename {version.id}", fields, label_problems))


async def edit_label(page: Page, version: Version) -> bool:
    """Ask for tags and memo; True when they changed."""
    label = version.label_data()
    fields = [
        ("tags", "Tags, with commas between", ", ".join(label.get("tags", [])), "night, augmented"),
        ("memo", "Memo", str(label.get("memo", "")), "what you want to remember"),
    ]
    return await _relabel(page, version, Ask(f"Tags and memo of {version.id}", fields, label_problems))


async def _relabel(page: Page, version: Version, dialog: Ask) -> bool:
    answer = await page.app.push_screen_wait(dialog)
    if not answer:
        return False
    try:
        version.relabel(**answer)
    except DojangError as e:
        page.complain(e)
        return False
    return True


def label_problems(values: dict[str, str]) -> dict[str, str]:
    from engine.spec import Label, problems

    return {p.field: p.message for p in problems(dict(values), Label)}


async def ask_stop(page: Page, version: Version, request: str) -> bool:
    """Ask, then stop or finish; True when asked for."""
    from engine.servers import anywhere

    queued = version.state(version.progress(skip_steps=True)) == "queued"
    if queued:
        text = f"Take {version.id} out of the queue?\n\nIt loses its place. You can start it again later."
        dialog = Confirm("Take out", text, yes="Take out")
    elif request == "stop":
        text = f"Stop {version.id}? It finishes the step it is in and saves everything.\n\nYou can go on later, from exactly there."
        dialog = Confirm("Stop", text, yes="Stop")
    else:
        text = f"Finish {version.id} now? It evaluates and keeps the best weights as a done version.\n\nThe epochs left are given up."
        dialog = Confirm("Finish now", text, yes="Finish")
    if not await page.app.push_screen_wait(dialog):
        return False
    try:
        anywhere.request(version, "stop" if request == "stop" else "finish")
        done = "is taken out of the queue" if queued else f"was asked to {request}"
        page.notify(f"{version.id} {done}.", markup=False)
    except DojangError as e:
        page.complain(e)
        return False
    return True
