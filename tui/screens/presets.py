"""The window of presets: take one over, keep the settings at hand as one, remove one, or copy from a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine import presets
from engine.errors import DojangError
from engine.presets import Preset
from engine.spec import property_of
from engine.versions import Workspace, clean_name
from tui import words
from tui.keys import bind
from tui.screens.dialogs import Ask, Confirm, Dialog, Pick
from tui.widgets.symbols import cut

MOST_VERSIONS = 200
LONGEST_NAME = 28  # cells


class PresetDialog(Dialog[Preset]):
    """Closes with the preset whose settings are to be used."""

    DEFAULT_CSS = """
    PresetDialog > Vertical { width: 90; }
    PresetDialog OptionList { max-height: 12; text-wrap: nowrap; text-overflow: ellipsis; }
    PresetDialog #about { height: auto; min-height: 3; max-height: 8; color: $foreground-muted; }
    PresetDialog #keys { height: 1; margin-top: 1; color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("s", "save", "keep these settings"),
        bind("c", "copy", "copy from a version"),
        Binding("x,delete", "remove", "remove"),
    ]

    def __init__(self, workspace: Workspace, current: Mapping[str, Any] | None) -> None:
        """`current` are the settings at hand, whole and sound; None while something is wrong with them."""
        super().__init__()
        self._workspace, self._current = workspace, current
        self._found: list[Preset] = []

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Presets"
            yield OptionList(id="options")
            yield Static("", id="about", markup=False)
            yield Static("", id="keys", markup=False)

    def on_mount(self) -> None:
        self._fill()
        self.query_one(OptionList).focus()

    def _fill(self, name: str = "") -> None:
        """List them; put the cursor on `name`."""
        self._found = presets.listing(self._workspace)
        listed = self.query_one(OptionList)
        listed.clear_options()
        wide = min(LONGEST_NAME, max(cell_len(p.name) for p in self._found))
        for preset in self._found:
            shown = cut(preset.name, wide)
            whose = "built in" if preset.built_in else "yours"
            note = f"{' ' * (wide - cell_len(shown) + 2)}{whose:<10}"
            listed.add_option(Option(Content.assemble("  ", shown, (note, "dim"), (brief(preset), "dim"))))
        names = [p.name for p in self._found]
        listed.highlighted = names.index(name) if name in names else 0
        self._explain()

    @property
    def _chosen(self) -> Preset | None:
        place = self.query_one(OptionList).highlighted
        return self._found[place] if place is not None and place < len(self._found) else None

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        preset = self._chosen
        if preset is None:
            return
        wrong = [f"not used: {title(p.field)} {p.message}" for p in preset.wrong[:3]]
        more = [f"and {len(preset.wrong) - 3} more that cannot be used"] if len(preset.wrong) > 3 else []
        text = [Content(words.clean(preset.about or values(preset)))]
        text += [Content.styled(words.clean(line), "$warning") for line in wrong + more]
        self.query_one("#about", Static).update(Content("\n").join(text))
        remove = "" if preset.built_in else "x remove   "
        self.query_one("#keys", Static).update(f"enter use   s keep these   c copy a version's   {remove}esc close")

    @on(OptionList.OptionSelected)
    def _use(self) -> None:
        preset = self._chosen
        if preset and preset.settings:
            self.dismiss(preset)
        else:
            self.app.bell()

    @work
    async def action_save(self) -> None:
        """Keep the settings at hand under a name."""
        if self._current is None:
            self.notify("Mend what is wrong with the settings first.", severity="warning")
            return

        def check(given: dict[str, str]) -> dict[str, str]:
            try:
                name = clean_name(given["name"], "preset name")
            except DojangError as e:
                return {"name": e.hint if given["name"] else ""}
            return {"name": f"“{name}” is built in; choose another name."} if name in presets.BUILT_IN else {}

        chosen = self._chosen
        start = chosen.name if chosen and not chosen.built_in else ""
        fields = (("name", "Name", start, "a name"), ("about", "What it is for", "", "may be empty"))
        answer = await self.app.push_screen_wait(Ask("Keep these settings", fields, check))
        if answer:
            await self._keep(clean_name(answer["name"]), words.clean(answer["about"]).strip())

    async def _keep(self, name: str, about: str) -> None:
        assert self._current is not None
        taken = name in presets.own_names(self._workspace)
        question = Confirm("Replace", f"Replace the preset “{name}”?", yes="Replace", careful=True)
        if taken and not await self.app.push_screen_wait(question):
            return
        try:
            presets.save(self._workspace, name, self._current, about=about, replace=True)
        except DojangError as e:
            self.notify(e.hint, title=e.message, severity="error", markup=False)
            return
        self._fill(name)

    @work
    async def action_remove(self) -> None:
        preset = self._chosen
        if preset is None or preset.built_in:
            self.app.bell()
            return
        question = Confirm("Remove", f"Remove the preset “{preset.name}”? It cannot be brought back.", careful=True)
        if await self.app.push_screen_wait(question):
            try:
                presets.delete(self._workspace, preset.name)
            except DojangError as e:
                self.notify(e.hint, title=e.message, severity="error", markup=False)
            self._fill()

    @work
    async def action_copy(self) -> None:
        """The settings of a version, its data set and name left out."""
        versions = [v for p in self._workspace.projects() for v in self._workspace.project(p).versions()]
        if not versions:
            self.notify("There is no version yet.")
            return
        options = [
            (v.reference, v.reference, words.clean(str(v.label_data().get("name") or "")))
            for v in versions[:MOST_VERSIONS]
        ]
        reference = await self.app.push_screen_wait(Pick("Copy settings from", options))
        if reference is None:
            return
        try:
            self.dismiss(presets.of_version(self._workspace.version(reference)))
        except DojangError as e:
            self.notify(e.hint, title=e.message, severity="error", markup=False)


def title(name: str) -> str:
    return str(property_of(name).get("title") or name)


def values(preset: Preset) -> str:
    """What of it differs from the defaults."""
    shown = [f"{title(n)} {words.setting(preset.settings[n])}" for n in presets.differs(preset.settings)]
    return ", ".join(shown) or "everything at its default"


def brief(preset: Preset) -> str:
    """A preset in a line."""
    if preset.wrong and not preset.settings:
        return "cannot be used"
    return words.clean(values(preset))
