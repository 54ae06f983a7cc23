"""The doctor: what is wrong with a data set, what that does to a training, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.model import SPLITS, Dataset, Finding, Severity
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Ask, Wait
from tui.widgets.facts import Fact, Facts
from tui.widgets.filter import Filter
from tui.widgets.histogram import Histogram
from tui.widgets.symbols import fit, sign
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
PLACES = (
    Column("file", "file", width=24, flex=2, priority=9),
    Column("object", "object", width=6, align="right", priority=7),
    Column("split", "split", width=5, priority=6),
    Column("message", "what", width=24, flex=3, priority=8),
)
NAMED = 12  # files at the side
IMBALANCED = 10  # times as many of the commonest class as of the rarest
CHARTS = ("classes", "objects", "box-size", "box-shape")


class DoctorScreen(Page):
    """The kinds of findings, worst first; what the selected one means; and charts of the set."""

    HELP_TITLE = "Doctor"
    HELP_TEXT = (
        "Every image is decoded and every label measured, as a training at the chosen image size would see them. "
        "The worst stands first; beside it, what it does to a training and what to do. Nothing of yours is changed. "
        "Enter lists the files, and from there opens an image at what was found."
    )
    CSS = """
    DoctorScreen #side { width: 2fr; padding: 0 1; border-left: vkey $panel; }
    DoctorScreen #kinds { width: 3fr; }
    DoctorScreen.narrow #one { layout: vertical; }
    DoctorScreen.narrow #kinds { width: 1fr; height: 2fr; }
    DoctorScreen.narrow #side { width: 1fr; height: 3fr; border-left: none; border-top: hkey $panel; }
    DoctorScreen #charts { display: none; padding: 0 1; }
    DoctorScreen.drawn #charts { display: block; }
    DoctorScreen.drawn #one { display: none; }
    DoctorScreen Histogram { margin-bottom: 1; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (110, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="back to the data sets"),
        Binding("enter", "open", "list", tooltip="every file of this kind"),
        bind("d", "check", "check anew", help="look at every image again"),
        Binding("tab", "charts", "charts", tooltip="classes, boxes and sizes as charts", priority=True),
        bind("w", "export", "write list", help="write every finding into a CSV or JSON file"),
        bind("v", "size", "image size", help="the size that tiny boxes are judged at"),
    ]

    def __init__(self, dataset: str) -> None:
        super().__init__()
        self.name_of_set = dataset
        self.check: Check | None = None
        self.image_size = 640

    def body(self) -> Iterator[Widget]:
        with Horizontal(id="one"):
            yield Table(KINDS, empty="Nothing was found. This set is sound.", id="kinds")
            with VerticalScroll(id="side", can_focus=False):
                yield Facts(id="facts")
        with VerticalScroll(id="charts"):
            for name in CHARTS:
                yield Histogram(id=name)

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
        found = self.check
        right: list[tuple[str, str]] = []
        rows: list[Row] = []
        if found:
            counts = [(s, n) for s, n in found.counts.items() if n]
            for severity, count in counts:
                role = {"error": "error", "warning": "warning"}.get(severity, "muted")
                told = f"{count} info" if severity == "info" else words.plural(count, severity)
                right.append((f"{told}   ", role))
            right.append((f"at {found.image_size} px, {words.when(found.checked)}", "muted"))
            rows = [group_row(str(n), group) for n, group in enumerate(found.groups)]
        name = words.clean(self.name_of_set)
        self.title_bar.show([("dojang", "current"), ("  Doctor", "title"), (f"  {name}", "muted")], right)
        table = self.query_one(Table)
        table.set_empty("Nothing was found: this set is sound." if found else "not looked at yet")
        table.set_rows(rows)
        self._detail()
        self._draw()
        self.refresh_bindings()

    @property
    def group(self) -> Group | None:
        key = self.query_one(Table).cursor_key
        return self.check.groups[int(key)] if self.check and key is not None else None

    @on(Table.Highlighted)
    def _detail(self) -> None:
        group = self.group
        self.query_one(Facts).show(about(group) if group else sound(self.check))

    def _draw(self) -> None:
        """The charts, as far as the set has what they show."""
        if not self.check:
            return
        drawn = self.check.charts
        labels = drawn["labels_per_class"]
        totals = {name: sum(labels[s].get(name, 0) for s in SPLITS) for name in self.dataset.classes}
        most, least = max(totals.values(), default=0), min(totals.values(), default=0)
        note = (
            f"the commonest has {most / least:.0f} times as many as the rarest"
            if least and most > IMBALANCED * least
            else ""
        )
        names = [fit(words.clean(name), 11).strip() for name in totals]
        what = "objects by class" if self.dataset.task == "detect" else "images by class"
        self.query_one("#classes", Histogram).show(what, names, list(totals.values()), note)
        for key in CHARTS[1:]:
            self.query_one(f"#{key}").display = "box_size" in drawn
        if "box_size" in drawn:
            counts = drawn["boxes_per_image"]
            last = max((i for i, n in enumerate(counts) if n), default=0)
            tags = [str(i) for i in range(last + 1)]
            if last == len(counts) - 1:
                tags[-1] += "+"
            self.query_one("#objects", Histogram).show("objects in an image", tags, counts[: last + 1])
            edges = drawn["box_size"]["edges"]
            sides = [f"<{edge * self.check.image_size:.0f}" for edge in edges[1:]]
            title = f"size of boxes, side in px at {self.check.image_size}"
            self.query_one("#box-size", Histogram).show(title, sides, drawn["box_size"]["counts"])
            shapes = [f"<{edge:g}" if edge else "more" for edge in drawn["box_shape"]["edges"][1:]]
            counts = drawn["box_shape"]["counts"]
            self.query_one("#box-shape", Histogram).show("shape of boxes, width by height", shapes, counts)

    # What one can do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "open":
            return self.is_mounted and not self.has_class("drawn") and self.group is not None
        if action in ("export", "charts"):
            return self.check is not None
        return True

    def action_back(self) -> None:
        if self.has_class("drawn"):
            self.action_charts()
        else:
            self.dismiss(None)

    def action_charts(self) -> None:
        self.toggle_class("drawn")
        self.query_one("#charts" if self.has_class("drawn") else Table).focus()
        self.refresh_bindings()

    @work
    async def action_check(self) -> None:
        done = await self.app.push_screen_wait(Checking(self.name_of_set, self.dojang.workspace.path, self.image_size))
        if done:
            from engine.datasets import doctor

            self.check = doctor.last_check(self.dojang.workspace.path, self.name_of_set)
            self._show()

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
        fields = [("path", "A new file, .csv or .json", str(Path.cwd() / f"{safe}-findings.csv"), "")]

        def wrong(values: dict[str, str]) -> dict[str, str]:
            try:
                doctor.check_place(Path(values["path"]).expanduser())
            except DojangError as e:
                return {"path": f"{e.message} {e.hint}".strip()}
            return {}

        answer = await self.app.push_screen_wait(Ask("Write the list", fields, wrong, ok="Write"))
        if answer:
            try:
                doctor.save_findings(found, Path(answer["path"]).expanduser())
            except DojangError as e:
                self.complain(e)
                return
            self.notify(f"{words.plural(len(found.findings), 'finding')} written to {answer['path']}", markup=False)

    @on(Table.Selected)
    def action_open(self) -> None:
        if self.group:
            self.app.push_screen(FindingsScreen(self.dataset, self.group))


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


class FindingsScreen(Page):
    """Every finding of one kind; Enter opens the image where it was found."""

    HELP_TITLE = "Findings"
    HELP_TEXT = (
        "Every place where this was found. Enter shows the image with its labels, the object in question in full light."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="all again, then back to the kinds"),
        Binding("enter", "open", "image", tooltip="the image, at this finding"),
        Binding("slash", "search", "search", tooltip="by file, split, or words of the message"),
    ]

    def __init__(self, dataset: Dataset, group: Group) -> None:
        super().__init__()
        self.dataset, self.found = dataset, group
        self._splits: dict[str, str] = {}

    def body(self) -> Iterator[Widget]:
        yield Filter(placeholder="by file, split, or words of the message", id="search")
        yield Table(PLACES, empty="Nothing fits.", id="places")

    def on_mount(self) -> None:
        self.query_one(Table).focus()
        wanted = {f.image or f.file for f in self.found.findings}
        path = self.dojang.workspace.path
        self._splits = {
            item.path: item.split for item in registry.open_items(path, self.dataset.name) if item.path in wanted
        }
        self._list("")

    def _list(self, text: str) -> None:
        shown = [(n, f) for n, f in enumerate(self.found.findings) if self._fits(f, text.lower().split())]
        self.query_one(Table).set_rows([self._row(n, f) for n, f in shown])
        left = (
            f"{len(shown)} of {self.found.count}"
            if len(shown) != self.found.count
            else words.plural(len(shown), "finding")
        )
        head = [
            ("dojang", "current"),
            (f"  {self.found.kind.title}", "title"),
            (f"  {words.clean(self.dataset.name)}", "muted"),
        ]
        self.title_bar.show(head, [(left, "muted")])

    def _fits(self, finding: Finding, wanted: Sequence[str]) -> bool:
        told = f"{finding.file} {finding.image} {finding.message} {self._split(finding)}".lower()
        return all(word in told for word in wanted)

    def _split(self, finding: Finding) -> str:
        return self._splits.get(finding.image or finding.file, "")

    def _row(self, number: int, finding: Finding) -> Row:
        cells: dict[str, Any] = {
            "file": words.clean(finding.file) or "the whole set",
            "object": str(finding.object or ""),
            "split": self._split(finding),
            "message": words.clean(finding.message),
        }
        return Row(str(number), cells)

    @on(Filter.Changed)
    def _typed(self, event: Filter.Changed) -> None:
        self._list(event.value)

    def action_search(self) -> None:
        self.query_one(Filter).open()

    def action_back(self) -> None:
        if self.query_one(Filter).value:
            self.query_one(Filter).action_clear()
        else:
            self.dismiss(None)

    @on(Table.Selected)
    def action_open(self) -> None:
        from tui.screens.gallery import open_images

        key = self.query_one(Table).cursor_key
        if key is None:
            return
        finding = self.found.findings[int(key)]
        path = finding.image or finding.file
        if path not in self._splits:
            self.notify("That image was left out of the set: there is nothing to show of it.", markup=False)
            return
        paths = [p for p in (path, finding.other) if p]
        others = [f.image or f.file for f in self.found.findings if not f.other] if not finding.other else []
        # objects are numbered as in the annotation, of which some may be left out, unless the image itself is named
        number = finding.object if finding.file == path else None
        title = self.found.kind.title
        open_images(self.app, self.dataset.name, paths=[*paths, *others], at=path, object=number, title=title)
