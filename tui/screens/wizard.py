"""New training: data set → settings → server → confirmation, then a last yes or no."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Button, ContentSwitcher, Static

from engine import catalog, launch, presets
from engine.datasets import registry
from engine.errors import DojangError
from engine.servers.inventory import Machine, machine
from engine.servers.turns import View
from engine.spec import Label, Spec, default_of, parse, parse_label, problems
from engine.versions import Version
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Confirm
from tui.screens.server_step import ServerStep
from tui.screens.settings_step import SettingsStep, first_model
from tui.screens.steps import ConfirmStep, DatasetStep, Step
from tui.widgets.bars import StageLine
from tui.widgets.form import as_text

NAMES = ("Data set", "Settings", "Server", "Confirm")
LABEL_FIELDS = ("name", "tags", "memo")


class WizardScreen(Page):
    """Holds the answers; each step shows a part of them. Values stay, whichever way one goes."""

    HELP_TITLE = "New training"
    HELP_TEXT = (
        "Four steps: the data set, the settings, the server, and a last look at everything. "
        "Nothing is written and nothing starts before you say yes at the end. Values stay when you go back."
    )
    CSS = """
    WizardScreen #stepper { padding: 0 1; margin: 0 0 1 0; }
    WizardScreen ContentSwitcher { height: 1fr; }
    WizardScreen #actions { height: 1; padding: 0 1; }
    WizardScreen #reason { width: 1fr; color: $foreground-muted; text-overflow: ellipsis; text-wrap: nowrap; }
    WizardScreen #reason.bad { color: $warning; }
    WizardScreen #actions Button { margin-left: 1; min-width: 10; }
    WizardScreen #about { width: 50; height: 1fr; padding: 0 1; display: none; border-left: vkey $panel; }
    WizardScreen.wide #about { display: block; }
    WizardScreen #side { width: 33%; min-width: 40; max-width: 64; padding: 0 1; display: none; border-left: vkey $panel; }
    WizardScreen.wide #side { display: block; }
    WizardScreen #line { height: 2; padding: 0 1; color: $foreground-muted; }
    WizardScreen.wide #line { display: none; }
    WizardScreen #columns { layout: vertical; height: auto; padding: 0 1; }
    WizardScreen.wide #columns { layout: horizontal; }
    WizardScreen #columns Facts { height: auto; width: 1fr; padding: 0 3 1 0; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="one step back; from the first, leave"),
        Binding("ctrl+n", "next", "continue", tooltip="go on to the next step"),
        Binding("ctrl+n", "begin", "start", tooltip="start the training, after a last yes or no"),
        Binding("enter", "begin", "start", show=False),
        Binding("down,right", "app.focus_next", "next", show=False),
        Binding("up,left", "app.focus_previous", "previous", show=False),
        Binding("f1", "field_help", "explain", tooltip="the longer help of the setting you are in"),
        Binding("f2", "find_rate", "find lr", tooltip="try learning rates in a short sweep, and take one over"),
        Binding("f3", "presets", "presets", tooltip="use, keep or copy settings under a name"),
        Binding("f4", "raw", "raw", tooltip="all settings as text, TOML or JSON"),
        Binding("f6", "advanced", "advanced", tooltip="show or hide the advanced settings"),
        Binding("ctrl+r", "reset_field", "default", tooltip="set the setting you are in back to its default"),
        Binding("f7", "reset", "all defaults", tooltip="set all settings back to their defaults"),
        Binding("ctrl+t", "first", "first step", tooltip="back to the first step"),
        bind("a", "add_dataset", "add data set", help="register a folder as a data set"),
        Binding("slash", "search", "search", tooltip="search the data sets"),
        bind("y", "copy", "copy command", help="copy the command that does the same"),
        Binding("plus,equals_sign", "more", "more GPUs", tooltip="have one more GPU share the training"),
        Binding("minus", "fewer", "fewer", tooltip="one GPU fewer"),
        Binding("ctrl+r", "again", "try again", tooltip="look at the server now; a link that is down tries again"),
    ]

    def __init__(self, *, dataset: str = "", server: str = "") -> None:
        super().__init__()
        self.data: dict[str, Any] = {"dataset": dataset}
        self.label: dict[str, Any] = {}
        self.problems: dict[str, str] = {}
        self.current = 0
        self.server = server  # empty for this machine; SERVER/PARTITION where Slurm starts it
        self.machine: Machine | None = None  # the server's as last looked at: asking a GPU's driver takes its time
        self.view: View | None = None  # its queue
        self.first = ""  # what has to come before a training there

    def body(self) -> Iterator[Widget]:
        yield StageLine(id="stepper")
        with ContentSwitcher(initial="step-0"):
            for index, step in enumerate((DatasetStep, SettingsStep, ServerStep, ConfirmStep)):
                yield step(self, id=f"step-{index}")
        with Horizontal(id="actions"):
            yield Static("", id="reason", markup=False)
            yield Button("Back", id="back", compact=True)
            yield Button("Continue", id="next", compact=True, variant="primary")

    @work(thread=True, exclusive=True, group="memory")
    def _look_around(self) -> None:
        found = machine(self.dojang.workspace.path)
        if self.is_attached and not self.server:
            self.machine = found

    def on_mount(self) -> None:
        self._look_around()
        self.check()
        self._enter(0)

    @property
    def step(self) -> Step:
        return self.steps[self.current]

    @property
    def steps(self) -> list[Step]:
        return list(self.query(Step))

    # The answers

    def answer(self, **values: Any) -> None:
        """Take answers from a step and say at once what they amount to."""
        for name, value in values.items():
            target = self.label if name in LABEL_FIELDS else self.data
            target[name] = value
        self.check()

    def choose(self, dataset: str, model: str = "") -> None:
        """Take a data set, and `model` or one that learns what the data set is for."""
        chosen = model or str(self.data.get("model", default_of("model")))
        try:
            task = registry.load(self.dojang.workspace.path, dataset).task
            if catalog.find(chosen).task != task and catalog.find(first_model(task)).task == task:
                chosen = first_model(task)
        except DojangError:  # told of the data set itself
            pass
        self.answer(dataset=dataset, model=chosen)

    def check(self) -> None:
        """Find every problem of all answers, and show whether one can go on."""
        found = launch.check(self.dojang.workspace, self.data) + problems(self.label, Label)
        self.problems = {}
        for problem in found:
            self.problems.setdefault(problem.field, problem.message)
        self.say()

    def say(self) -> None:
        """Show whether one can go on, and why not."""
        reason = self.reason()
        place = self.query_one("#reason", Static)
        start = "Cannot continue: " if self.size.width >= 100 else "! "
        place.update(start + reason if reason else self.step.note)
        place.set_class(bool(reason), "bad")
        self.query_one("#next", Button).disabled = bool(reason)
        self._head()

    def reason(self) -> str:
        """Why the next step cannot be entered yet; empty when it can."""
        if self.current == 0 and not self.data.get("dataset"):
            return "choose a data set, or add one with a"
        for name in self.step.owns(self.problems):
            from engine.spec import property_of

            title = property_of(name, Label if name in LABEL_FIELDS else Spec).get("title", name)
            return f"{title}: {self.problems[name]}"
        return ""

    def spec(self, **changes: Any) -> Spec:
        """What all answers amount to. Raises Invalid while something is wrong with them."""
        return parse({**self.data, **changes})

    def settled(self) -> dict[str, Any]:
        """Every setting as a value, also those that nobody touched; what is wrong stands as it was typed."""
        given = {k: v for k, v in self.data.items() if k in Spec.model_fields}
        name = str(given.pop("dataset", ""))
        sound, _ = presets.applied(given, {"dataset": name or "any"})
        wrong = {k: v for k, v in given.items() if k not in sound}
        return {**Spec.model_validate(sound).model_dump(), **wrong, "dataset": name}

    def _head(self) -> None:
        stepper = self.query_one("#stepper", StageLine)
        stepper.show_steps(NAMES, self.current)
        parts = [
            str(self.data[k]) for k in ("dataset", "model") if self.data.get(k) and (k == "dataset" or self.current)
        ]
        count = self.query_one(SettingsStep).count_changed() if self.current else 0
        chosen = " · ".join([*parts, *([f"{count} changed"] if count else [])])
        self.title_bar.show([("dojang", "current"), ("  New training", "title")], [(chosen, "muted")])

    # Walking

    def _enter(self, index: int) -> None:
        self.current = index
        self.query_one(ContentSwitcher).current = f"step-{index}"
        last = index == len(NAMES) - 1
        self.query_one("#next", Button).label = "Start" if last else "Continue"
        self.query_one("#back", Button).label = "Back" if index else "Leave"
        self.check()
        self.step.enter()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("add_dataset", "search"):
            return self.current == 0
        if action in ("field_help", "advanced", "reset", "reset_field", "find_rate", "presets", "raw"):
            return self.current == 1
        if action in ("fewer", "more"):
            return self.current == 2 and self.query_one(ServerStep).may_share
        if action == "again":
            return self.current == 2 and bool(self.server)
        if action == "copy":
            return self.current == 3
        if action in ("next", "begin"):
            return (action == "begin") == (self.current == 3)
        if action == "first":
            return self.current > 0
        return True

    def action_next(self) -> None:
        if self.reason():
            self.app.bell()
            self.step.show_problem()
        elif self.current == len(NAMES) - 1:
            self.start()
        else:
            self._enter(self.current + 1)

    def action_begin(self) -> None:
        self.action_next()

    def action_back(self) -> None:
        if self.current:
            self._enter(self.current - 1)
        else:
            self.leave()

    def action_first(self) -> None:
        self._enter(0)

    @work
    async def leave(self) -> None:
        if await self.may_leave():
            self.dismiss()

    async def may_leave(self) -> bool:
        """What was filled in is only given up after a yes."""
        given = {k: v for k, v in self.data.items() if k not in ("dataset", "download", "device")}
        touched = any(as_text(v) != as_text(default_of(k)) for k, v in given.items()) or any(self.label.values())
        text = "Leave without training? What you filled in is not kept."
        if not touched:
            return True
        return await self.app.push_screen_wait(Confirm("Leave", text, yes="Leave", careful=True)) is True

    @on(Button.Pressed, "#next")
    def _next_pressed(self) -> None:
        self.action_next()

    @on(Button.Pressed, "#back")
    def _back_pressed(self) -> None:
        self.action_back()

    def action_field_help(self) -> None:
        self.step.field_help()

    def action_advanced(self) -> None:
        self.step.toggle_advanced()

    def action_reset(self) -> None:
        self.step.reset()

    def action_reset_field(self) -> None:
        self.step.reset_field()

    def action_find_rate(self) -> None:
        self.step.find_rate()

    def action_presets(self) -> None:
        self.step.presets()

    def action_raw(self) -> None:
        self.step.edit_raw()

    def action_add_dataset(self) -> None:
        self.step.add_dataset()

    def action_search(self) -> None:
        self.step.search()

    def action_more(self) -> None:
        self.query_one(ServerStep).change_gpus(1)

    def action_fewer(self) -> None:
        self.query_one(ServerStep).change_gpus(-1)

    def action_again(self) -> None:
        self.query_one(ServerStep).look_again()

    def on_screen_suspend(self) -> None:
        super().on_screen_suspend()
        self.dojang.fleet.leave()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self.current == 2:
            self.dojang.fleet.attend()

    def action_copy(self) -> None:
        project = self.dojang.workspace.current_project
        text = launch.command(self.spec(), parse_label(self.label), project, self.server)
        self.app.copy_to_clipboard(text)
        self.notify("The command is copied.")

    @work
    async def start(self) -> None:
        """The last yes or no, then the training."""
        spec = self.spec()
        where = self.server or "this machine"
        text = f"Train {spec.model} on “{spec.dataset}” for {spec.epochs} epochs on {where}, with these settings?"
        if not await self.app.push_screen_wait(Confirm("Start", text, yes="Start", no="Not yet")):
            return
        try:
            version = launch.create_and_start(
                self.dojang.workspace,
                self.data,
                parse_label(self.label),
                self.dojang.workspace.current_project,
                self.server,
            )
        except DojangError as e:
            self.complain(e)
            self.check()
            return
        self._show(version)

    def _show(self, version: Version) -> None:
        from tui.screens.version import VersionScreen

        self.app.switch_screen(VersionScreen(version))


__all__ = ["WizardScreen"]
