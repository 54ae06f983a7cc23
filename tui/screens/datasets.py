"""Data sets: what is registered, what it holds, what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.model import FORMATS, SPLITS, Dataset, Finding
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Confirm, Note, Wait
from tui.screens.paths import PathDialog
from tui.widgets.facts import Fact, Facts
from tui.widgets.filter import Filter
from tui.widgets.table import Cell, Column, Row, Table

COLUMNS = (
    Column("name", "data set", width=14, flex=2, priority=9),
    Column("task", "task", width=8, priority=5),
    Column("images", "images", width=7, align="right", priority=8),
    Column("labels", "labels", width=7, align="right", priority=7),
    Column("classes", "classes", width=7, align="right", priority=6),
    Column("findings", "found", width=12, priority=6),
    Column("added", "added", width=16, priority=4),
    Column("root", "folder", width=20, flex=3, priority=2),
)
SHOWN = 400


class DatasetsScreen(Page):
    SECTION = "Data sets"
    HELP_TEXT = (
        "A data set is a folder of yours: images with labels, in any of the common formats. "
        "It is only ever read: nothing is written into it or beside it. Defects found while reading are listed with file and object."
    )
    CSS = """
    DatasetsScreen #detail { width: 54; padding: 0 1; border-left: vkey $panel; display: none; }
    DatasetsScreen.wide #detail { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("a", "add", "add", help="register a folder"),
        Binding("enter", "open", "details", tooltip="counts by split and class, and everything that was found"),
        bind("d", "doctor", "doctor", help="look for what would spoil a training"),
        bind(
            "v", "versions", "versions", help="fixed recipes over it: split, classes, preprocessing, augmented copies"
        ),
        bind("i", "images", "images", help="look at its images with what is labelled in them"),
        bind("n", "train", "train with it", help="new training with this data set"),
        bind("x", "remove", "forget", help="forget the set; its folder is not touched"),
        Binding("slash", "search", "search", tooltip="search by name or class"),
        Binding("escape", "clear", "all", show=False, tooltip="show all again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.sets: dict[str, Dataset] = {}

    def body(self) -> Iterator[Widget]:
        yield Filter(placeholder="search by name or class", id="search")
        with Horizontal():
            empty = "No data set yet.\n\na  add a folder of images with labels"
            yield Table(COLUMNS, empty=empty, id="sets")
            with VerticalScroll(id="detail", can_focus=False):
                yield Facts(id="facts")

    def on_mount(self) -> None:
        self.table.focus()

    def on_screen_resume(self) -> None:
        self.load()

    @property
    def table(self) -> Table:
        return self.query_one("#sets", Table)

    @property
    def selected(self) -> Dataset | None:
        return self.sets.get(self.table.cursor_key or "")

    def load(self) -> None:
        path = self.dojang.workspace.path
        self.sets = {d.name: d for d in reversed(registry.list_datasets(path))}
        text = self.query_one(Filter).value.lower()
        shown = [d for d in self.sets.values() if text in f"{d.name} {' '.join(d.classes)}".lower()]
        self.table.set_rows([Row(d.name, cells(d)) for d in shown])
        total = sum(d.counts.images for d in self.sets.values())
        right = [(words.plural(len(self.sets), "data set"), "muted"), (f"   {words.plural(total, 'image')}", "muted")]
        self.title_bar.show([("dojang", "current"), ("  Data sets", "title")], right)
        for name, problem in registry.broken(path):
            self.notify(problem.hint, title=f"{name}: {problem.message}", severity="warning", markup=False)
        self._detail()
        self.refresh_bindings()

    @on(Table.Highlighted)
    def _detail(self) -> None:
        found = self.selected
        self.query_one(Facts).show(self._facts(found) if found else [])

    def _facts(self, found: Dataset) -> list[Fact]:
        return about(found, registry.findings(self.dojang.workspace.path, found.name)[:SHOWN])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("open", "remove", "train", "images", "doctor", "versions"):
            return self.is_mounted and self.selected is not None
        if action == "clear":
            return self.is_mounted and bool(self.query_one(Filter).value)
        return True

    @work
    async def action_add(self) -> None:
        name = await add_dataset(self)
        if name:
            self.load()
            self.table.move_to(name)
            await self._offer_doctor(name)

    async def _offer_doctor(self, name: str) -> None:
        """Where things were left out in reading, more may be wrong; the doctor decodes every image and measures all."""
        errors = self.sets[name].findings.get("error", 0) if name in self.sets else 0
        if not errors:
            return
        text = f"{words.plural(errors, 'error')} in “{name}”: what they are about is left out of the set.\n\nThe doctor lists them with what to do, and looks at every image and label."
        if await self.app.push_screen_wait(Confirm("Doctor", text, yes="Look", no="Not now")):
            from tui.screens.doctor import DoctorScreen

            self.app.push_screen(DoctorScreen(name))

    @on(Table.Selected)
    def action_open(self) -> None:
        found = self.selected
        if found:
            self.app.push_screen(Note("Data set", self._facts(found)))

    def action_doctor(self) -> None:
        from tui.screens.doctor import DoctorScreen

        if self.selected:
            self.app.push_screen(DoctorScreen(self.selected.name))

    def action_versions(self) -> None:
        from tui.screens.dataset_versions import DatasetVersionsScreen

        if self.selected:
            self.app.push_screen(DatasetVersionsScreen(self.selected.name))

    def action_images(self) -> None:
        from tui.screens.gallery import open_images

        if self.selected:
            open_images(self.app, self.selected.name)

    def action_train(self) -> None:
        from tui.screens.wizard import WizardScreen

        if self.selected:
            self.app.push_screen(WizardScreen(dataset=self.selected.name))

    @work
    async def action_remove(self) -> None:
        found = self.selected
        if not found:
            return
        text = f"Forget “{found.name}”?\n\nIts folder {found.root} is not touched. Versions trained on it keep their results."
        if await self.app.push_screen_wait(Confirm("Forget", text, yes="Forget", careful=True)):
            try:
                registry.remove(self.dojang.workspace.path, found.name)
            except DojangError as e:
                self.complain(e)
            self.load()

    def action_search(self) -> None:
        self.query_one(Filter).open()

    def action_clear(self) -> None:
        self.query_one(Filter).action_clear()

    @on(Filter.Changed)
    def _typed(self) -> None:
        self.load()


def cells(d: Dataset) -> dict[str, Cell]:
    errors, warnings = d.findings.get("error", 0), d.findings.get("warning", 0)
    found = words.plural(errors, "error") if errors else words.plural(warnings, "warning") if warnings else "nothing"
    style = "$error" if errors else "$warning" if warnings else "$foreground-muted"
    return {
        "name": d.name,
        "task": d.task,
        "images": str(d.counts.images),
        "labels": str(d.counts.labels) if d.counts.labels else Content.styled("0", "$error"),
        "classes": str(len(d.classes)),
        "findings": Content.styled(found, style),
        "added": words.when(d.added),
        "root": str(d.root),
    }


def about(d: Dataset, findings: list[Finding] | None = None) -> list[Fact]:
    """A data set in words: counts by split and class, where it is, what was found."""
    c = d.counts
    splits = [s for s in SPLITS if c.per_split[s].images]
    lines: list[Fact] = [
        Content.styled(d.name, "bold"),
        Content(f"{d.task}, {FORMATS[d.format]}"),
        Content(f"{words.plural(c.images, 'image')}, {words.plural(c.labels, 'label')}"),
    ]
    if c.unlabelled:
        lines.append(Content.styled(f"{words.plural(c.unlabelled, 'image')} without labels", "$error"))
    lines += [
        Content(""),
        Content.styled(f"{'':<16}" + "".join(f"{s:>8}" for s in splits) + f"{'all':>8}", "$foreground-muted"),
    ]
    lines.append(Content(f"{'images':<16}" + "".join(f"{c.per_split[s].images:>8}" for s in splits) + f"{c.images:>8}"))
    from tui.widgets.symbols import fit

    for name in d.classes[:40]:
        row = "".join(f"{c.per_split[s].per_class.get(name, 0):>8}" for s in splits)
        lines.append(Content(f"{fit(words.clean(name), 16)}{row}{c.per_class.get(name, 0):>8}"))
    if len(d.classes) > 40:
        lines.append(Content(f"… and {len(d.classes) - 40} more classes"))
    own = d.split_source == "existing"
    made = (
        f"split made here by {as_shares(d.split)}, seed {d.split.get('seed', 0)}"
        if "ratios" in d.split
        else "split made here"
    )
    lines += [
        Content(""),
        Content.styled("the set's own split" if own else made, "$foreground-muted"),
    ]
    lines.append(Content.styled(str(d.root), "$foreground-muted"))
    if findings:
        lines += [
            Content(""),
            Content.styled(f"found while reading ({words.plural(len(findings), 'finding')})", "bold"),
        ]
        for f in findings:
            style = {"error": "$error", "warning": "$warning"}.get(f.severity, "$foreground-muted")
            where = f"{f.file}, object {f.object}" if f.object else f.file
            lines.append((Content.assemble((f"{f.severity}  ", style), words.clean(where)), 2))
            lines.append((Content(f"  {words.clean(f.message)}"), 2))
    return lines


def as_shares(split: Mapping[str, Any]) -> str:
    """The shares of a split as they are typed: 80/10/10."""
    try:
        return "/".join(f"{float(share):g}" for share in split["ratios"])
    except (TypeError, ValueError):
        return "shares"


async def add_dataset(page: Page) -> str | None:
    """Ask for a folder, read it with a bar that can be stopped, register it; its name, or None.

    A folder that cannot be used, or whose reading was stopped, leads back to the question with what was typed.
    """
    path = name = ""
    while True:
        dialog = PathDialog(
            "Add a data set",
            "a folder, or of the YAML, JSON, CSV or TSV that describes it",
            files=registry.DESCRIPTIONS,
            path=path,
            name=name,
        )
        answer = await page.app.push_screen_wait(dialog)
        if not answer:
            return None
        path, name = answer
        workspace = page.dojang.workspace.ensure().path
        added = await page.app.push_screen_wait(Reading(Path(path).expanduser(), name or None, workspace))
        if added:
            return added


class Reading(Wait):
    """Reads a folder in a thread; Esc stops it and leaves nothing behind."""

    def __init__(self, path: Path, name: str | None, workspace: Path) -> None:
        super().__init__(f"Reading {path}")
        self._path, self._wanted, self._workspace = path, name, workspace

    def on_mount(self) -> None:
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        worker = get_current_worker()
        told = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if worker.is_cancelled:
                raise DojangError("Reading was stopped.", code="CANCELLED")
            if time.monotonic() - told > 0.1:
                told = time.monotonic()
                self.app.call_from_thread(self.tell, done, total)

        try:
            found = registry.add(self._workspace, self._path, self._wanted, progress=progress)
        except DojangError as e:
            if not worker.is_cancelled:
                self.app.call_from_thread(self.fail, e)
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self.dismiss, found.name)
