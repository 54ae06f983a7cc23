"""The second step of a new training: model, training, learning rate and all the rest, from the declared spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from engine import catalog, launch, plugins, presets, weights
from engine.catalog import Model
from engine.errors import DojangError, Problem
from engine.presets import Preset
from engine.spec import Label, Spec, default_of, problems, property_of
from tui import words
from tui.rates import Rates
from tui.screens.steps import Step
from tui.widgets.chart import Chart, sparkline
from tui.widgets.form import Choice, Field, Form, as_text, help_of
from tui.widgets.symbols import fit

if TYPE_CHECKING:
    from tui.screens.wizard import WizardScreen

HIDDEN = ("dataset", "dataset_hash", "download", "device")
OTHER = "\0other"
PREVIEW_AFTER = 0.15  # seconds without a key
RATES = "Learning rate"
FREEZE = (
    ("none", "all layers learn"),
    ("features", "the backbone is frozen"),
    ("but-last", "the last layer alone learns"),
)


class SettingsStep(Step):
    """2: the form made from the spec. What does nothing for the chosen model or schedule is not shown."""

    DEFAULT_CSS = """
    SettingsStep #form { width: 1fr; }
    SettingsStep #preview { height: 12; }
    SettingsStep #help { height: auto; margin-top: 1; }
    """
    _field: Field | None = None
    _soon: Timer | None = None
    _sketch = ""

    def __init__(self, wizard: WizardScreen, *, id: str) -> None:
        super().__init__(wizard, id=id)
        self._model = catalog.find(default_of("model"))

    def compose(self) -> Iterator[Widget]:
        names = [n for n in Spec.model_fields if n not in HIDDEN]
        options = {
            "model": model_options(self._model.task),
            "weights": self._weight_options(self._model),
            "freeze": self._freeze_options("auto"),
        }
        with Horizontal():
            yield Form([(Label, tuple(Label.model_fields)), (Spec, names)], {}, options, id="form")
            with VerticalScroll(id="side", can_focus=False):
                yield Chart(empty="the learning rate shows here", id="preview")
                yield Static("", id="help", markup=False)
        yield Static("", id="line", markup=False)

    @property
    def form(self) -> Form:
        return self.query_one("#form", Form)

    def _choice(self, name: str) -> Choice:
        return self.form.query_one(f"#edit-{name}", Choice)

    def enter(self) -> None:
        project = self.wizard.dojang.workspace.project()
        self.form.placeholder("name", f"V_{project.next_id()}")
        chosen = catalog.find(str(self.wizard.data.get("model", self._model.name)))
        self.form.defaults["model"] = first_model(chosen.task)
        self._put_model(chosen.name)
        self._changed()
        (self._field.editor if self._field else self._choice("model")).focus()

    # What may be chosen

    def _weight_options(self, model: Model) -> list[tuple[str, str, str]]:
        here = weights.find(model, self.wizard.dojang.workspace) if self.is_attached else None
        note = f"{model.pretrained} is here" if here else f"fetches {model.pretrained}"
        options = [("scratch", "scratch", "random weights"), ("pretrained", "pretrained", note)]
        chosen = str(self.wizard.data.get("weights", "scratch"))
        if chosen not in ("scratch", "pretrained", OTHER):
            options.append((chosen, chosen, "a file of yours"))
        return [*options, (OTHER, "a file …", "weights of your own")]

    def _freeze_options(self, chosen: str) -> list[tuple[str, str, str]]:
        comes_to = settled_freeze(self.wizard.data)
        options = [("auto", "auto", f"comes to {comes_to}" if comes_to else "")]
        options += [(word, word, note) for word, note in FREEZE]
        if chosen not in ("auto", *dict(FREEZE), OTHER):
            options.append((chosen, chosen, "blocks"))
        return [*options, (OTHER, "some blocks …", "the first N are frozen, or all but the last N")]

    def _offer(self, values: Mapping[str, Any]) -> None:
        self._choice("weights").set_options(self._weight_options(self._model))
        self._choice("freeze").set_options(self._freeze_options(str(values["freeze"])))

    @work
    async def _ask_file(self) -> None:
        from tui.screens.paths import PathDialog

        answer = await self.app.push_screen_wait(PathDialog("Weights of your own", "a .pt file", files=(".pt",)))
        self.wizard.answer(weights=answer[0] if answer else self.wizard.data.get("weights", "scratch"))
        self.form.set_value("weights", self.wizard.data["weights"])

    @work
    async def _ask_blocks(self) -> None:
        from tui.screens.dialogs import Ask

        def check(given: dict[str, str]) -> dict[str, str]:
            wrong = [p for p in problems({"dataset": "any", "freeze": given["freeze"].strip()}) if p.field == "freeze"]
            return {"freeze": wrong[0].message} if wrong else {}

        before = str(self.wizard.data.get("freeze", "auto"))
        help = "10: the first ten are frozen; last-3: the last three learn"
        field = ("freeze", "Which blocks", before if before[-1:].isdigit() else "", help)
        answer = await self.app.push_screen_wait(Ask("Freeze some blocks", [field], check, ok="Use"))
        self.form.set_value("freeze", answer["freeze"].strip() if answer else before)

    # What was typed

    @on(Form.Changed)
    def _changed(self) -> None:
        values = self.form.values()
        for name, ask in (("weights", self._ask_file), ("freeze", self._ask_blocks)):
            if values[name] == OTHER:
                ask()
                values[name] = self.wizard.data.get(name, default_of(name))
        model = catalog.find(values["model"])
        if model.name != self._model.name:
            self._take_model(model)
            values = {**values, "image_size": self.form.values()["image_size"]}
        found = weights.find(model, self.wizard.dojang.workspace)
        values["download"] = values["weights"] == "pretrained" and found is None
        self.wizard.answer(**values)
        self.form.leave_out(self._idle(values))
        self._offer(values)
        self.form.tell(self.wizard.problems)
        self._explain()
        if self._soon:
            self._soon.stop()
        self._soon = self.set_timer(PREVIEW_AFTER, self._preview)

    def _take_model(self, model: Model) -> None:
        """Another model: an image size that nobody changed becomes its own."""
        size = self.form.field_of("image_size")
        untouched = size.editor.value.strip() == self.form.default(size)
        self._model = model
        self.form.defaults["image_size"] = str(model.image_size)
        if untouched:
            size.editor.value = str(model.image_size)

    def _idle(self, values: Mapping[str, Any]) -> set[str]:
        """Fields that do nothing with this model and schedule, and that nobody changed."""
        changed = {*self.form.changed(Spec), *self.wizard.problems}
        return {n for n in Spec.model_fields if n not in changed and does_nothing(n, values, self._model.kernel)}

    def count_changed(self) -> int:
        return len(self.form.changed(Spec)) if self.is_mounted else 0

    # What it comes to

    def _preview(self) -> None:
        """The learning rate as it will be, drawn from the very function that the loop uses."""
        own = {
            n: m for n, m in self.wizard.problems.items() if n in Spec.model_fields and n not in ("dataset", "weights")
        }
        if own or not self.wizard.data.get("dataset"):
            return
        spec = self.wizard.spec()
        try:
            plan = launch.plan(
                self.wizard.dojang.workspace, spec, self.wizard.machine, self.wizard.server, self.wizard.view
            )
        except DojangError:
            return
        rates = Rates(spec, plan.optimizer, plan.lr, plan.steps_per_epoch)
        chart = self.query_one("#preview", Chart)
        if chart.log_scale != rates.log_scale:
            chart.log_scale = rates.log_scale
        chart.show(rates.series(), x_range=(0, spec.epochs), title="lr by epoch", y_format=words.number)
        self._sketch = sketch(rates)
        self._say_autos(plan)
        self.note = f"{words.plural(plan.steps, 'step')}, {plan.steps_per_epoch} an epoch" + (
            f"; {words.about(plan.seconds)}" if plan.seconds else ""
        )
        self.note += f"; about {plan.memory:.1f} GiB" if plan.memory else ""
        self.wizard.say()
        self._explain()

    def _say_autos(self, plan: launch.Plan) -> None:
        """What empty fields come to, in their place."""
        form, spec = self.form, plan.spec
        form.placeholder("lr", f"auto: {words.number(plan.lr)}, {plan.optimizer}")
        form.placeholder("momentum", f"auto: {plan.momentum:g}")
        form.placeholder("final_lr", f"auto: {words.number(plan.lr * spec.final_lr_ratio)}")
        form.placeholder("warmup_bias_lr", f"auto: {words.number(spec.warmup_lr)}")
        for field in form.fields:
            own = field.info.get("by_kernel", {}).get(self._model.kernel)
            if own is not None:
                form.placeholder(field.field, f"auto: {own:g}")

    @on(Form.Focused)
    def _entered(self, event: Form.Focused) -> None:
        self._field = event.field
        self._explain()

    def _explain(self) -> None:
        """About the field one is in: what is wrong with it, in full, and what it is for."""
        if self._field is None:
            return
        info, wrong = self._field.info, self.wizard.problems.get(self._field.field, "")
        wrong = f"{info['title']} {wrong}" if wrong else ""
        self.query_one("#help", Static).update(
            Content.assemble((f"{wrong}\n\n" if wrong else "", "$error"), self._help())
        )
        short = f"{info['title']}: {info['description']}"
        line = self.query_one("#line", Static)
        if wrong:
            line.update(Content.styled(wrong, "$error"))
        elif info["section"] == RATES and self._sketch and line.content_size.width:
            width = line.content_size.width
            line.update(Content.assemble(fit(short, width), "\n", (fit(self._sketch, width), "$accent")))
        else:
            line.update(short)

    def _help(self) -> Content:
        assert self._field is not None
        return help_of(self._field, self.form.default(self._field))

    def field_help(self) -> None:
        from tui.screens.dialogs import Note

        if self._field:
            self.app.push_screen(Note("About this setting", [self._help()]))

    def toggle_advanced(self) -> None:
        self.form.show_all = not self.form.show_all

    # Back to the defaults

    def reset_field(self) -> None:
        if self._field:
            self.form.reset([self._field.field])

    @work
    async def reset(self) -> None:
        """All settings back to their defaults, after a yes: name, tags and memo stay."""
        from tui.screens.dialogs import Confirm

        names = self.form.changed(Spec)
        if not names:
            self.notify("Every setting is at its default.")
            return
        titles = ", ".join(str(property_of(n)["title"]) for n in names)
        text = f"Set {words.plural(len(names), 'setting')} back to the default: {titles}?"
        if await self.app.push_screen_wait(Confirm("Defaults", text, yes="Set back")):
            if "model" in names:
                self._put_model(self.form.defaults["model"])
            self.form.reset(names)

    def _put(self, settings: Mapping[str, Any]) -> None:
        """Values into the form; the model first, because the image size follows it where nobody says another."""
        texts = {n: as_text(v) for n, v in settings.items() if n not in HIDDEN}
        if "model" in texts:
            self._put_model(texts["model"])
        for name in ("weights", "freeze"):  # a file or blocks of one's own are offered once they are chosen
            if name in texts:
                self.wizard.data[name] = texts[name]
        for name, text in texts.items():
            self.form.set_value(name, text)

    def _put_model(self, name: str) -> None:
        model = catalog.find(name)
        self._choice("model").set_options(model_options(model.task))
        self.form.set_value("model", model.name)
        if model.name != self._model.name:
            self._take_model(model)

    # Presets, the finder, the raw text

    def current(self) -> dict[str, Any] | None:
        """The settings whole and sound, as a preset keeps them; None while something is wrong with them."""
        wrong = [p for p in problems(self.wizard.data) if p.field != "dataset"]
        return None if wrong else presets.kept(self.wizard.spec().model_dump())

    @work
    async def presets(self) -> None:
        from tui.screens.presets import PresetDialog

        chosen = await self.app.push_screen_wait(PresetDialog(self.wizard.dojang.workspace, self.current()))
        if chosen:
            self.use(chosen)

    def use(self, preset: Preset) -> None:
        """Take a preset over as far as it fits, and say what does not."""
        settings, wrong = dict(preset.settings), list(preset.wrong)
        model = settings.get("model")
        if model is not None and catalog.find(str(model)).task != self._model.task:
            wrong.append(Problem("model", f"learns to {catalog.find(str(settings.pop('model'))).task}"))
        answers = {k: v for k, v in self.wizard.data.items() if k != "download"}
        merged, misfits = presets.applied(settings, {"dataset": "any", **answers})
        dropped = {p.field for p in misfits}
        self._put({n: merged[n] for n in settings if n not in dropped})
        wrong += misfits
        name = words.clean(preset.name)
        if wrong:
            lines = [f"{property_of(p.field).get('title') or p.field} {p.message}" for p in wrong[:5]]
            text = words.clean("; ".join(lines)) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            self.notify(text, title=f"Used from “{name}”, but for:", severity="warning", timeout=12, markup=False)
        else:
            self.notify(f"The settings of “{name}” are used.", markup=False)

    @work
    async def find_rate(self) -> None:
        """Sweep over learning rates with these settings, and take the chosen one over."""
        from tui.screens.finder import FinderDialog

        wrong = [n for n in self.wizard.problems if n in Spec.model_fields and n != "lr"]
        if wrong:
            self.form.reveal(wrong[0]) if wrong[0] not in HIDDEN else None
            self.notify("Mend what is wrong with the settings first.", severity="warning")
            return
        spec = self.wizard.spec(lr=None)
        rate = await self.app.push_screen_wait(FinderDialog(self.wizard.dojang.workspace, spec))
        if rate is not None:
            self.form.set_value("lr", rate)
            self.form.reveal("lr")

    @work
    async def edit_raw(self) -> None:
        """The whole spec as text."""
        from tui.screens.raw import RawDialog

        data = await self.app.push_screen_wait(RawDialog(self.wizard.dojang.workspace, self.wizard.settled()))
        if data is None:
            return
        self.wizard.choose(str(data.get("dataset", self.wizard.data["dataset"])), str(data.get("model", "")))
        self.wizard.answer(device=data.get("device", default_of("device")))
        whole = {n: data.get(n, default_of(n)) for n in Spec.model_fields if n not in HIDDEN}
        if "image_size" not in data:
            whole["image_size"] = catalog.find(str(whole["model"])).image_size
        self._put(whole)

    def owns(self, problems: Mapping[str, str]) -> Iterable[str]:
        return [n for n in problems if n not in ("dataset", "device")]

    def show_problem(self) -> None:
        for name in self.owns(self.wizard.problems):
            self.form.reveal("weights" if name == "download" else name)
            return


def does_nothing(name: str, values: Mapping[str, Any], kernel: str) -> bool:
    """Whether a setting has no effect: other families have it, or it belongs to a choice that was not made."""
    info = property_of(name)
    kernels = info.get("kernels")
    if kernels and kernel in catalog.BUILT_IN and kernel not in kernels:
        return True
    if name == "options":
        return not plugins.options_of(kernel).properties
    said = {"yes": "true", "no": "false"}
    return any(
        said.get(text := str(values.get(other)).lower(), text) not in wanted
        for other, wanted in info.get("when", {}).items()
    )


def settled_freeze(data: Mapping[str, Any]) -> str:
    """What “auto” comes to with these answers; empty while something is wrong with them."""
    given = {k: data[k] for k in ("model", "weights") if k in data}
    wanted = {"dataset": "any", **given, "freeze": "auto"}
    return "" if problems(wanted) else Spec.model_validate(wanted).settled_freeze


def sketch(rates: Rates) -> str:
    """The learning rate in one line."""
    curve = sparkline([r["lr"] for r in rates.rows(120)], 24)
    last, (_, peak) = rates.head(rates.steps - 1), rates.peak()
    ends = f"{words.number(rates.head(0))} → {words.number(peak)} → {words.number(last)}"
    backbone = f", backbone × {rates.spec.backbone_lr_ratio:g}" if rates.has_backbone else ""
    return f"lr by epoch {curve} {ends}{backbone}"


def model_options(task: str) -> list[tuple[str, str, str]]:
    """The models that learn a task, with what one chooses by."""
    found = [m for m in catalog.models().values() if m.task == task]
    return [(m.name, m.name, f"{m.parameters:.1f} M · {m.image_size} px") for m in found]


def first_model(task: str) -> str:
    """The model to begin with for a task: small, quick and well known; the spec's own default where there is none."""
    usual = str(default_of("model")) if task == "detect" else "resnet18"
    names = [m.name for m in catalog.models().values() if m.task == task]
    return usual if usual in names else next(iter(names), str(default_of("model")))


__all__ = ["SettingsStep", "does_nothing", "first_model", "model_options"]
