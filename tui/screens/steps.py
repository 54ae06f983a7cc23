"""The steps of a new training but the settings. Each shows a part of the wizard's answers and hands back what was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from engine import catalog, launch
from engine.datasets import registry
from engine.datasets.model import SPLITS
from engine.errors import DojangError
from engine.servers.inventory import Machine, machine
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


class ServerStep(Step):
    """3: where it trains: this machine, on its CPU or one of its GPUs."""

    note = "enter chooses"
    DEFAULT_CSS = """
    ServerStep #servers { height: 1fr; min-height: 5; }
    ServerStep #machine { height: auto; padding: 1 1; }
    """
    COLUMNS = (
        Column("name", "server", width=22, flex=1, priority=9),
        Column("what", "what", width=23, flex=2, priority=8),
        Column("free", "memory free", width=17, align="right", priority=7),
        Column("load", "use", width=6, align="right", priority=6),
        Column("users", "used by", width=18, flex=2, priority=5),
    )

    def compose(self) -> Iterator[Widget]:
        yield Table(self.COLUMNS, empty="looking at this machine …", id="servers")
        yield Static("", id="machine", markup=False)

    def enter(self) -> None:
        self.query_one(Table).focus()
        self._look()

    @work(thread=True, exclusive=True, group="machine")
    def _look(self) -> None:
        found = machine(self.wizard.dojang.workspace.path)
        self.app.call_from_thread(self._show, found)

    def _show(self, found: Machine) -> None:
        self.wizard.machine = found
        chosen = str(self.wizard.data.get("device", "auto"))
        table = self.query_one(Table)
        table.set_rows(
            [Row(key, {k: mark(key == chosen, k, v) for k, v in cells.items()}) for key, cells in devices(found)]
        )
        table.move_to(chosen)
        self.query_one("#machine", Static).update(machine_text(found))

    @on(Table.Highlighted)
    def _moved(self, event: Table.Highlighted) -> None:
        if event.key and self.wizard.current == 2:
            self.wizard.answer(device=event.key)

    @on(Table.Selected)
    def _chosen(self, event: Table.Selected) -> None:
        self.wizard.answer(device=event.key)
        self.wizard.action_next()

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return [n for n in problems if n == "device"]


def mark(chosen: bool, column: str, text: str) -> str:
    return f"{sign('✓')} {text}" if chosen and column == "name" else text


def devices(found: Machine) -> list[tuple[str, dict[str, str]]]:
    """What a version can train on here: key for the spec, and the cells of its row."""
    cpu = {
        "name": "this machine, CPU",
        "what": f"{words.plural(found.cores, 'core')}, {found.processor}",
        "free": f"{found.memory_free:.1f} of {found.memory_total:.1f} GiB",
        "load": f"{found.load:g}" if found.load is not None else words.DASH,
        "users": "",
    }
    best = max(found.gpus, key=lambda g: g.memory_free, default=None)
    auto = {
        **cpu,
        "name": "this machine, auto",
        "what": f"the free-est GPU: {best.name}" if best else "the CPU: there is no GPU",
    }
    rows = [("auto", auto), ("cpu", cpu)]
    for g in found.gpus:
        rows.append(
            (
                f"cuda:{g.index}",
                {
                    "name": f"this machine, GPU {g.index}",
                    "what": g.name,
                    "free": f"{g.memory_free:.1f} of {g.memory_total:.1f} GiB",
                    "load": f"{g.utilization} %" if g.utilization is not None else words.DASH,
                    "users": ", ".join(g.users) or "nobody",
                },
            )
        )
    return rows


def machine_text(found: Machine) -> str:
    """A machine in a few lines."""
    lines = [
        f"{found.host}: {found.system}, {found.processor}, {words.plural(found.cores, 'core')}, load {found.load}",
        f"memory {found.memory_free:.1f} of {found.memory_total:.1f} GiB free; disk {found.disk_free:.1f} GiB free at {found.disk_path}",
    ]
    for g in found.gpus:
        heat = f", {g.temperature} °C" if g.temperature is not None else ""
        lines.append(
            f"GPU {g.index} {g.name}: {g.memory_used:.1f} of {g.memory_total:.1f} GiB used{heat}; "
            f"used by {', '.join(g.users) or 'nobody'}; driver {g.driver}"
        )
    return "\n".join([*lines, found.gpu_note] if found.gpu_note else lines)


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
            plan = launch.plan(workspace, wizard.spec(), wizard.machine)
        except DojangError as e:
            wizard.complain(e)
            return
        project = workspace.project()
        folder = project.path / f"V_{project.next_id()}"
        label = parse_label(wizard.label)
        outcome, settings = everything(plan, label, str(folder), launch.command(plan.spec, label, project.name))
        self.query_one("#outcome", Facts).show(outcome)
        self.query_one("#settings", Facts).show(settings)
        self.query_one("#all").focus()

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return list(problems)


def everything(plan: launch.Plan, label: Label, folder: str, command: str) -> tuple[list[Fact], list[Fact]]:
    """All that is about to happen: warnings, data, outcome and command; and every setting, the changed ones marked."""
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
        row("Server", f"this machine, {spec.device}"),
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
