"""The doctor: what is wrong with a data set, what that does to a training, and what to do about it."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.files import from_user
from engine.datasets.model import Dataset, Severity
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Ask, Wait
from tui.screens.findings import HINT, FindingsScreen, Places, narrow_by_key
from tui.widgets.facts import Fact, Facts
from tui.widgets.filter import Filter
from tui.widgets.narrowing import Query
from tui.widgets.set_charts import SetCharts
from tui.widgets.symbols import sign
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from engine.datasets.doctor import Check, Group

LOOKS: dict[Severity, tuple[str, str]] = {
    "error": ("✗", "$error"),
    "warning": ("▸", "$warning"),
    "info": ("·", "$foreground-muted"),
}
KINDS = (
    Column("severity", "", width=9, priority=8),
    Column("title", "what was found", width=20, flex=3, priority=9),
    Column("count", "count", width=7, align="right", priority=7),
    Column("files", "files", width=7, align="right", priority=6),
)
NAMED = 12  # files at the side


class DoctorScreen(Page):
    """The kinds of findings, worst first; what the selected one means; and charts of the set."""

    HELP_TITLE = "Doctor"
    HELP_TEXT = (
        "Every image is decoded and every label measured, as a training at the chosen image size would see them. "
        "The worst stands first; beside it, what it does to a training and what to do. Nothing of yours is changed. "
        "Enter lists the files, and from there opens an image at what was found. / narrows by words, which may be "
        'error, split:val or class:"red cell"; o offers what there is.'
    )
    CSS = """
    DoctorScreen #side { width: 2fr; padding: 0 1; border-left: vkey $panel; }
    DoctorScreen #kinds { width: 3fr; padding-right: 1; }
    DoctorScreen.narrow #one { layout: vertical; }
    DoctorScreen.narrow #kinds { width: 1fr; height: 2fr; }
    DoctorScreen.narrow #side { width: 1fr; height: 3fr; border-left: none; border-top: hkey $panel; }
    DoctorScreen SetCharts { display: none; }
    DoctorScreen.drawn SetCharts { display: block; }
    DoctorScreen.wide SetCharts Grid { grid-size: 2; }
    DoctorScreen.drawn #one, DoctorScreen.drawn Filter { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (110, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="all again, then back to the data sets"),
        Binding("enter", "open", "list", tooltip="every file of this kind"),
        bind("g", "charts", "charts", help="classes, boxes and sizes as charts, and back"),
        Binding("slash", "search", "search", tooltip="by file, split, class, or words of the message"),
        bind("d", "check", "check anew", help="look at every image again"),
        bind("o", "only", "only", help="only a severity, a split or a class"),
        bind("w", "export", "write list", help="write every finding into a CSV or JSON file"),
        bind("v", "size", "image size", help="the size that tiny boxes are judged at"),
        Binding("tab", "charts", "charts", show=False, tooltip="charts, and back", priority=True),
    ]

    def __init__(self, dataset: str) -> None:
        super().__init__()
        self.name_of_set = dataset
        self.check: Check | None = None
        self.image_size = 640
        self._groups: list[Group] = []  # as far as they fit what was typed
        self._places: Places | None = None

    def body(self) -> Iterator[Widget]:
        yield Filter(placeholder=HINT, id="search")
        with Horizontal(id="one"):
            yield Table(KINDS, id="kinds")
            with VerticalScroll(id="side", can_focus=False):
                yield Facts(id="facts")
        yield SetCharts()

    def on_mount(self) -> None:
        from engine.datasets import doctor

        self.query_one(Table).focus()
        path = self.dojang.workspace.path
        self.dataset: Dataset = registry.load(path, self.name_of_set)
        self.check = doctor.last_check(path, self.name_of_set)
        if self.check:
            self.image_size = self.check.image_size
            self._show()
        else:
            self._show()
            self.action_check()

    def _show(self) -> None:
        found, self._places = self.check, None
        right: list[tuple[str, str]] = []
        if found:
            for severity, count in ((s, n) for s, n in found.counts.items() if n):
                role = {"error": "error", "warning": "warning"}.get(severity, "muted")
                told = f"{count} info" if severity == "info" else words.plural(count, severity)
                right.append((f"{told}   ", role))
            right.append((f"at {found.image_size} px, {words.when(found.checked)}", "muted"))
            self.query_one(SetCharts).show(found, self.dataset)
        name = words.clean(self.name_of_set)
        self.title_bar.show([("dojang", "current"), ("  Doctor", "title"), (f"  {name}", "muted")], right)
        self._list(list(found.groups) if found else [])
        if self.query_one(Filter).value:
            self._narrow()
        self.refresh_bindings()

    def _list(self, groups: list[Group]) -> None:
        self._groups = groups
        table = self.query_one(Table)
        if self.query_one(Filter).value:
            table.set_empty("Nothing fits.\n\nesc  show all again")
        else:
            table.set_empty("Nothing was found: this set is sound." if self.check else "not looked at yet")
        table.set_rows([group_row(f"{group.severity} {group.code}", group) for group in groups])
        self._detail()

    @property
    def group(self) -> Group | None:
        key = self.query_one(Table).cursor_key
        return next((g for g in self._groups if f"{g.severity} {g.code}" == key), None)

    @on(Table.Highlighted)
    def _detail(self) -> None:
        group = self.group
        if group:
            lines = about(group)
        elif self.check and self.check.groups:
            lines = []
        else:
            lines = sound(self.check)
        if self.check and self.check.unlisted:
            more = f"{self.check.unlisted} more were found when the set was added, too many to keep them all."
            lines += [Content(""), Content.styled(more, "$foreground-muted")]
        self.query_one("#facts", Facts).show(lines)
        self.refresh_bindings()

    async def _known(self, check: Check) -> Places:
        """Where the findings are. Looked up once, in a thread: it takes a second on a large set."""
        if self._places is None:
            items = registry.open_items(self.dojang.workspace.path, self.name_of_set)
            self._places = await to_thread(Places, self.dataset, items, check.groups)
        return self._places

    # What one can do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        drawn = self.has_class("drawn")
        if action == "open":
            return self.is_mounted and not drawn and self.group is not None
        if action in ("search", "only"):
            return self.check is not None and bool(self.check.groups) and not drawn
        if action in ("export", "charts"):
            return self.check is not None
        return True

    def action_back(self) -> None:
        if self.has_class("drawn"):
            self.action_charts()
        elif self.query_one(Filter).value:
            self.query_one(Filter).action_clear()
        else:
            self.dismiss(None)

    def action_charts(self) -> None:
        self.toggle_class("drawn")
        self.query_one(SetCharts if self.has_class("drawn") else Table).focus()
        self.refresh_bindings()

    def action_search(self) -> None:
        self.query_one(Filter).open()

    @on(Filter.Changed)
    @work(exclusive=True, group="narrow")
    async def _narrow(self) -> None:
        check = self.check
        if check:
            places = await self._known(check)
            query = Query.of(self.query_one(Filter).value)
            narrowed = (places.narrowed(group, query) for group in check.groups)
            self._list([group for group in narrowed if group.count])

    @work
    async def action_only(self) -> None:
        if self.check:
            places = await self._known(self.check)
            await narrow_by_key(self, places.choices(self.check.groups))

    @work
    async def action_check(self) -> None:
        done = await self.app.push_screen_wait(Checking(self.name_of_set, self.dojang.workspace.path, self.image_size))
        if done:
            from engine.datasets import doctor

            self.check = doctor.last_check(self.dojang.workspace.path, self.name_of_set)
            self._show()
        elif self.check:
            self.image_size = self.check.image_size

    @work
    async def action_size(self) -> None:
        from engine.datasets.doctor import IMAGE_SIZES

        def wrong(values: dict[str, str]) -> dict[str, str]:
            text = values["size"].strip()
            fits = text.isdecimal() and len(text) < 6 and IMAGE_SIZES[0] <= int(text) <= IMAGE_SIZES[1]
            return {} if fits else {"size": f"a number from {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]}"}

        fields = [("size", "Image size of the training, in px", str(self.image_size), "640")]
        answer = await self.app.push_screen_wait(Ask("Judge boxes at", fields, wrong, ok="Check"))
        if answer:
            self.image_size = int(answer["size"])
            self.action_check()

    @work
    async def action_export(self) -> None:
        from engine.datasets import doctor

        found = self.check
        if not found:
            return
        safe = self.name_of_set.replace("@", "-")
        fields = [("path", "A new file, .csv, .tsv or .json", str(Path.cwd() / f"{safe}-findings.csv"), "")]

        def wrong(values: dict[str, str]) -> dict[str, str]:
            try:
                doctor.check_place(from_user(values["path"].strip()))
            except DojangError as e:
                return {"path": f"{e.message} {e.hint}".strip()}
            return {}

        answer = await self.app.push_screen_wait(Ask("Write the list", fields, wrong, ok="Write"))
        if answer:
            path = from_user(answer["path"].strip())
            try:
                doctor.save_findings(found, path)
            except DojangError as e:
                self.complain(e)
                return
            listed, total = len(found.findings), sum(found.counts.values())
            told = words.plural(listed, "finding") if listed == total else f"The first {listed} of {total} findings"
            self.notify(f"{told} written to {path}", markup=False)

    @on(Table.Selected)
    @work(exclusive=True, group="open")
    async def action_open(self) -> None:
        group, check = self.group, self.check
        if group and check:
            whole = next(g for g in check.groups if (g.severity, g.code) == (group.severity, group.code))
            text = self.query_one(Filter).value
            self.app.push_screen(FindingsScreen(self.dataset, whole, await self._known(check), text))


def group_row(key: str, group: Group) -> Row:
    character, style = LOOKS[group.severity]
    return Row(
        key,
        {
            "severity": Content.styled(f"{sign(character)} {group.severity}", style),
            "title": group.kind.title,
            "count": str(group.count),
            "files": str(group.files) if group.files else "",
        },
    )


def about(group: Group) -> list[Fact]:
    """What a kind of finding is, does, and asks for, and where it is."""
    character, style = LOOKS[group.severity]
    where = f" in {words.plural(group.files, 'file')}" if group.files else ""
    lines: list[Fact] = [
        Content.assemble((f"{sign(character)} ", style), (group.kind.title, "bold"), f": {group.count}{where}"),
        Content(""),
        Content.styled("what it does to a training", "$foreground-muted"),
        Content(group.kind.effect),
        Content(""),
        Content.styled("what to do", "$foreground-muted"),
        Content(group.kind.remedy),
        Content(""),
    ]
    for finding in group.findings[:NAMED]:
        if finding.where:
            lines.append((Content(words.clean(finding.where)), 2))
        lines.append((Content.styled(f"  {words.clean(finding.message)}", "$foreground-muted"), 2))
    if group.count > NAMED:
        lines.append(Content.styled(f"and {group.count - NAMED} more: enter lists them", "$foreground-muted"))
    return lines


def sound(check: Check | None) -> list[Fact]:
    if check is None:
        return [Content("Not looked at yet."), Content(""), Content("d  look at every image and label")]
    text = f"{words.plural(check.images, 'image')} decoded and measured in {check.seconds:.0f} s."
    return [Content.styled("Nothing was found.", "$success"), Content(text)]


class Checking(Wait):
    """Looks at every image in threads; Esc stops it, and the result of an earlier check stays."""

    def __init__(self, name: str, workspace: Path, image_size: int) -> None:
        super().__init__(f"Looking at every image of {name}")
        self._wanted, self._workspace, self._side = name, workspace, image_size

    def on_mount(self) -> None:
        self._check()

    @work(thread=True)
    def _check(self) -> None:
        from engine.datasets import doctor

        worker = get_current_worker()
        told = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if worker.is_cancelled:
                raise DojangError("The check was stopped.", code="CANCELLED")
            if time.monotonic() - told > 0.1:
                told = time.monotonic()
                self.app.call_from_thread(self.tell, done, total)

        try:
            doctor.check(self._workspace, self._wanted, self._side, progress)
        except DojangError as e:
            if not worker.is_cancelled:
                self.app.call_from_thread(self.fail, e)
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self.dismiss, "done")
