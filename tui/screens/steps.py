"""The steps of a new training but the settings. Each shows a part of the wizard's answers and hands back what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget

from engine import catalog, launch
from engine.datasets import registry
from engine.datasets.model import SPLITS
from engine.errors import DojangError
from engine.spec import Label, Spec, changed, default_of, parse_label, property_of
from tui import words
from tui.widgets.facts import Fact, Facts, head, row
from tui.widgets.filter import Filter
from tui.widgets.symbols import sign
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from tui.screens.wizard import WizardScreen


class Step(Vertical):
    """One step. `owns` names the problems that keep one from leaving it."""

    note = ""

    def __init__(self, wizard: WizardScreen, *, id: str) -> None:
        super().__init__(id=id)
        self.wizard = wizard

    def enter(self) -> None:
        """The step comes into view."""

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return ()

    def show_problem(self) -> None:
        """Lead the person to what is wrong."""

    def field_help(self) -> None: ...

    def toggle_advanced(self) -> None: ...

    def reset(self) -> object: ...

    def reset_field(self) -> None: ...

    def find_rate(self) -> object: ...

    def presets(self) -> object: ...

    def edit_raw(self) -> object: ...

    def add_dataset(self) -> None: ...

    def search(self) -> None: ...


class DatasetStep(Step):
    """1: which data set."""

    note = "enter chooses a data set"
    COLUMNS = (
        Column("name", "data set", width=14, flex=2, priority=9),
        Column("task", "task", width=8, priority=5),
        Column("images", "images", width=7, align="right", priority=8),
        Column("labels", "labels", width=7, align="right", priority=7),
        Column("classes", "classes", width=12, flex=2, priority=6),
        Column("added", "added", width=16, priority=4),
    )

    def compose(self) -> Iterator[Widget]:
        yield Filter(placeholder="search by name or class", id="search")
        with Horizontal():
            yield Table(self.COLUMNS, empty="No data set yet.\n\na  add a folder of images with labels", id="sets")
            yield Facts(id="about")

    @property
    def table(self) -> Table:
        return self.query_one("#sets", Table)

    def enter(self) -> None:
        self.load()
        self.table.focus()

    def load(self) -> None:
        self.sets = {d.name: d for d in reversed(registry.list_datasets(self.wizard.dojang.workspace.path))}
        text = self.query_one(Filter).value.lower()
        rows = [
            Row(
                d.name,
                {
                    "name": (f"{sign('✓')} " if d.name == self.wizard.data.get("dataset") else "") + d.name,
                    "task": d.task,
                    "images": str(d.counts.images),
                    "labels": str(d.counts.labels) if d.counts.labels else Content.styled("0", "$error"),
                    "classes": f"{len(d.classes)}: {', '.join(d.classes)}",
                    "added": words.when(d.added),
                },
            )
            for d in self.sets.values()
            if text in f"{d.name} {' '.join(d.classes)}".lower()
        ]
        self.table.set_rows(rows)
        chosen = self.wizard.data.get("dataset")
        if chosen in self.sets:
            self.table.move_to(str(chosen))
        elif self.sets and not chosen:
            self._take(self.table.cursor_key)
        self._about()

    @on(Table.Highlighted)
    def _moved(self, event: Table.Highlighted) -> None:
        self._take(event.key)
        self._about()

    def _take(self, key: str | None) -> None:
        if key:
            self.wizard.choose(key)

    @on(Table.Selected)
    def _chosen(self, event: Table.Selected) -> None:
        self._take(event.key)
        self.wizard.action_next()

    def _about(self) -> None:
        from tui.screens.datasets import about

        found = self.sets.get(self.table.cursor_key or "")
        self.query_one("#about", Facts).show(about(found) if found else [])

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return [n for n in problems if n == "dataset"]

    def add_dataset(self) -> None:
        self._add()

    @work
    async def _add(self) -> None:
        from tui.screens.datasets import add_dataset

        name = await add_dataset(self.wizard)
        if name:
            self.wizard.choose(name)
            self.load()

    def search(self) -> None:
        self.query_one(Filter).open()

    @on(Filter.Changed)
    def _typed(self) -> None:
        self.load()


class ConfirmStep(Step):
    """4: everything, once more."""

    note = "nothing has been written or started yet"

    def compose(self) -> Iterator[Widget]:
        with VerticalScroll(id="all"), Container(id="columns"):
            yield Facts(id="outcome")
            yield Facts(id="settings")

    def enter(self) -> None:
        wizard = self.wizard
        workspace = wizard.dojang.workspace
        try:
            plan = launch.plan(workspace, wizard.spec(), wizard.machine, wizard.server, wizard.view)
        except DojangError as e:
            wizard.complain(e)
            return
        project = workspace.project()
        folder = project.path / f"V_{project.next_id()}"
        label = parse_label(wizard.label)
        command = launch.command(plan.spec, label, project.name, wizard.server)
        outcome, settings = everything(plan, label, str(folder), command, wizard.server, wizard.first)
        self.query_one("#outcome", Facts).show(outcome)
        self.query_one("#settings", Facts).show(settings)
        self.query_one("#all").focus()

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return list(problems)


def everything(
    plan: launch.Plan, label: Label, folder: str, command: str, server: str = "", first: str = ""
) -> tuple[list[Fact], list[Fact]]:
    """All that is about to happen: warnings, data, outcome and command; and every setting, the changed ones marked.

    `first` is what has to come before a training on `server`.
    """
    spec, counts = plan.spec, plan.dataset.counts
    out: list[Fact] = []
    if plan.warnings:
        out.append(head("Worth a second look"))
        out += [(Content.styled(f"! {w}", "$warning"), 2) for w in plan.warnings]
        out.append(Content(""))
    memory = f"; about {plan.memory:.1f} GiB" if plan.memory else ""
    pace = (
        f"{words.about(plan.seconds)}, at the pace of {plan.pace_from}"
        if plan.seconds
        else "not known before the first epoch"
    )
    out += [
        head("Data"),
        row("Data set", spec.dataset),
        row("Folder", str(plan.dataset.root)),
        row("Images", ", ".join(f"{n} {counts.per_split[n].images}" for n in SPLITS)),
        row("Labels", f"{counts.labels}; {words.plural(counts.unlabelled, 'image')} without"),
        row("Classes", ", ".join(words.clean(c) for c in plan.dataset.classes)),
        Content(""),
        head("Name and tags"),
        row("Name", label.name or "its number"),
        row("Tags", ", ".join(label.tags) or words.DASH),
        row("Memo", label.memo or words.DASH),
        Content(""),
        head("What comes of it"),
        row("Start from", plan.weights),
        row("Optimizer", f"{plan.optimizer}, learning rate {words.number(plan.lr)}, momentum {plan.momentum:g}"),
        row("Steps", f"{plan.steps}, {plan.steps_per_epoch} an epoch" + memory),
        row("Time", pace),
        row("Server", f"{server or 'this machine'}, {spec.device}"),
        *([row("Before that", first)] if first else []),
        row("Starts", plan.starts or ("at once" if not server else "as soon as the server is ready")),
        row("Writes into", folder),
        Content(""),
        head("The same as a command"),
        (Content(command), 2),
    ]
    return out, all_settings(plan)


def all_settings(plan: launch.Plan) -> list[Fact]:
    """Every setting by section; the changed ones say what the default is, and “auto” what it comes to."""
    from tui.screens.settings_step import does_nothing

    spec, section = plan.spec, ""
    rows: list[Fact] = []
    differs = set(changed(spec))
    comes_to = {"lr": words.number(plan.lr), "momentum": f"{plan.momentum:g}", "warmup_bias_lr": f"{spec.warmup_lr:g}"}
    for name in Spec.model_fields:
        idle = name not in differs and does_nothing(name, spec.model_dump(), catalog.find(spec.model).kernel)
        if name in ("dataset", "dataset_hash") or idle:
            continue
        info, value = property_of(name), getattr(spec, name)
        if info["section"] != section:
            section = str(info["section"])
            rows += [*([Content("")] if rows else []), head(section)]
        if value is None and "by_kernel" in info:
            comes_to[name] = f"{spec.settled(name):g}"
        auto = f"{comes_to[name]} (auto)" if name in comes_to else f"auto: {info['auto']}" if info["auto"] else "auto"
        shown = auto if value is None else words.setting(value)
        unit = f" {info['unit']}" if info.get("unit") and value is not None else ""
        default = words.setting(default_of(name))
        mark = f"{sign('●')} changed (default {default})" if name in differs else ""
        rows.append(row(str(info["title"]), shown + unit, mark))
    return rows
