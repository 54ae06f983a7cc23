"""The versions of a data set: what each holds, how two differ, and training with one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget

from engine.datasets import recipes, registry
from engine.datasets.model import SPLITS, Dataset
from engine.datasets.recipe import AUGMENTATIONS, Recipe
from engine.errors import DojangError
from engine.spec import property_of
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Confirm, Note
from tui.widgets.facts import Fact, Facts, head
from tui.widgets.form import as_text
from tui.widgets.symbols import sign
from tui.widgets.table import Cell, Column, Row, Table

COLUMNS = (
    Column("name", "version", width=10, flex=2, priority=9),
    Column("train", "train", width=7, align="right", priority=8),
    Column("val", "val", width=6, align="right", priority=8),
    Column("test", "test", width=6, align="right", priority=7),
    Column("classes", "classes", width=7, align="right", priority=5),
    Column("pixels", "pixels", width=18, flex=2, priority=6),
    Column("tags", "tags", width=8, flex=1, priority=3),
    Column("hash", "hash", width=8, priority=2),
    Column("added", "made", width=11, priority=4),
)


class DatasetVersionsScreen(Page):
    """NAME@1, NAME@2, …: each fixed for good."""

    HELP_TITLE = "Versions of a data set"
    HELP_TEXT = (
        "A version is a fixed recipe over data sets: split, classes, preprocessing, augmentation. Train with it, compare two, "
        "look at its images. The same recipe over the same files has the same hash everywhere."
    )
    CSS = """
    DatasetVersionsScreen #detail { width: 54; padding: 0 1; border-left: vkey $panel; display: none; }
    DatasetVersionsScreen.wide #detail { display: block; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        bind("a", "add", "new version", help="make another version of this data set"),
        Binding("enter", "open", "details", tooltip="recipe, and counts by split and class"),
        bind("n", "train", "train with it", help="new training with this version"),
        Binding("space", "mark", "mark", tooltip="mark for comparing"),
        bind("c", "compare", "compare", help="how two marked versions differ"),
        bind("i", "images", "images", help="look at its images"),
        bind("x", "remove", "delete", help="delete the version; the images stay"),
    ]

    def __init__(self, dataset: str) -> None:
        super().__init__()
        self.base = dataset.partition("@")[0]
        self.sets: dict[str, Dataset] = {}

    def body(self) -> Iterator[Widget]:
        with Horizontal():
            yield Table(
                COLUMNS, empty="No version yet.\n\na  make one: split, classes, preprocessing, copies", id="versions"
            )
            with VerticalScroll(id="detail", can_focus=False):
                yield Facts(id="facts")

    def on_mount(self) -> None:
        self.table.focus()

    def on_screen_resume(self) -> None:
        self.load()

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def selected(self) -> Dataset | None:
        return self.sets.get(self.table.cursor_key or "")

    def load(self) -> None:
        try:
            found = recipes.versions(self.dojang.workspace.path, self.base)
        except DojangError as e:
            self.complain(e)
            found = []
        self.sets = {d.name: d for d in reversed(found)}
        self.table.set_rows([Row(d.name, self._cells(d)) for d in self.sets.values()])
        title = [("dojang", "current"), (f"  {words.clean(self.base)}", "title"), ("  versions", "muted")]
        self.title_bar.show(title, [(words.plural(len(self.sets), "version"), "muted")])
        self._detail()
        self.refresh_bindings()

    def _recipe(self, name: str) -> Recipe | None:
        try:
            return recipes.find_recipe(self.dojang.workspace.path, name)
        except DojangError:
            return None

    def _cells(self, d: Dataset) -> dict[str, Cell]:
        recipe = self._recipe(d.name)
        splits: dict[str, Cell] = {s: str(d.counts.per_split[s].images or "") for s in SPLITS}
        return {
            "name": d.name,
            **splits,
            "classes": str(len(d.classes)),
            "pixels": pixels(recipe) if recipe else "recipe unreadable",
            "tags": ", ".join(recipe.tags) if recipe else "",
            "hash": d.hash[:8],
            "added": words.when(d.added),
        }

    @on(Table.Highlighted)
    def _detail(self) -> None:
        found = self.selected
        self.query_one(Facts).show(self._facts(found) if found else [])

    def _facts(self, found: Dataset) -> list[Fact]:
        from tui.screens.datasets import about

        recipe = self._recipe(found.name)
        lines = about(found)
        if recipe:
            lines += [Content(""), head("Recipe"), *told(recipe)]
        return lines

    # What one can do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("open", "train", "images", "remove", "mark"):
            return self.is_mounted and self.selected is not None
        if action == "compare":
            return self.is_mounted and len(self._marked()) == 2
        return True

    def _marked(self) -> list[str]:
        return [name for name in self.sets if name in self.table.marked]

    def action_add(self) -> None:
        from tui.screens.recipe import RecipeScreen

        self.app.push_screen(RecipeScreen(self.base))

    @on(Table.Selected)
    def action_open(self) -> None:
        if self.selected:
            self.app.push_screen(Note(self.selected.name, self._facts(self.selected)))

    def action_train(self) -> None:
        from tui.screens.wizard import WizardScreen

        if self.selected:
            self.app.push_screen(WizardScreen(dataset=self.selected.name))

    def action_images(self) -> None:
        from tui.screens.gallery import open_images

        if self.selected:
            open_images(self.app, self.selected.name)

    def action_mark(self) -> None:
        if self.table.cursor_key:
            self.table.toggle_mark()
            self.table.action_move(1)
            self.refresh_bindings()

    def action_compare(self) -> None:
        one, other = sorted(self._marked(), key=lambda name: int(name.rpartition("@")[2]))
        try:
            found = recipes.diff(self.dojang.workspace.path, one, other)
        except (DojangError, OSError) as e:
            self.complain(e if isinstance(e, DojangError) else DojangError(str(e), code="UNREADABLE"))
            return
        self.app.push_screen(Note(f"{one} and {other}", differences(one, other, found)))

    @work
    async def action_remove(self) -> None:
        found = self.selected
        if not found:
            return
        text = (
            f"Delete {found.name}?\n\nIts images stay where they are, and trainings keep their results, but no new one can "
            "use it. This cannot be undone, and its number is not given again."
        )
        if await self.app.push_screen_wait(Confirm("Delete version", text, yes="Delete", careful=True)):
            try:
                registry.remove(self.dojang.workspace.path, found.name)
            except DojangError as e:
                self.complain(e)
            self.load()


def pixels(recipe: Recipe) -> str:
    """What is done to images, in a few words."""
    parts = []
    if recipe.resize != "none":
        parts.append(f"{recipe.resize} {recipe.size}")
    if recipe.grey:
        parts.append("grey")
    if recipe.copies:
        parts.append(f"×{1 + recipe.copies} train")
    return ", ".join(parts) or "as they are"


def told(recipe: Recipe) -> list[Fact]:
    """The settings that say something, by name."""
    lines: list[Fact] = []
    for name in Recipe.model_fields:
        value = getattr(recipe, name)
        default = Recipe.model_fields[name].default
        if name in ("split", "ratio", "sources") or value != default:
            if (name == "ratio" and recipe.split != "ratio") or (name in AUGMENTATIONS and not value):
                continue
            info = property_of(name, Recipe)
            shown = "/".join(f"{share:g}" for share in value) if name == "ratio" else as_text(value)
            lines.append((Content(f"{info['title']}: {shown} {info.get('unit') or ''}".rstrip()), 2))
    return lines


def differences(one: str, other: str, found: dict[str, Any]) -> list[Fact]:
    """A diff in words: settings, classes, counts, images."""
    lines: list[Fact] = []
    if found["same"]:
        lines.append(Content.styled("The same images, labels and settings: their hashes are equal.", "$success"))
    arrow = sign("→")
    if found["recipe"]:
        lines.append(head("Recipe"))
        for name, (before, after) in found["recipe"].items():
            title = str(property_of(name, Recipe)["title"])
            lines.append((Content(f"{title}: {as_text(before) or 'none'} {arrow} {as_text(after) or 'none'}"), 2))
    gone, new = found["classes"]["removed"], found["classes"]["added"]
    if gone or new:
        lines += [Content(""), head("Classes")]
        lines += [Content.styled(f"- {words.clean(name)}", "$error") for name in gone]
        lines += [Content.styled(f"+ {words.clean(name)}", "$success") for name in new]
    lines += [Content(""), head("Images")]
    for split in SPLITS:
        before, after = (counts["per_split"][split]["images"] for counts in found["counts"])
        if before or after:
            lines.append(Content(f"{split:<8}{before:>8} {arrow} {after}"))
    left, right = found["only"]
    if left or right:
        lines.append(Content(f"{words.plural(left, 'image')} only in {one}, {right} only in {other}"))
    moved = found["moved"]
    if moved:
        lines.append(Content(f"{words.plural(len(moved), 'image')} in another split:"))
        for row in moved[:20]:
            lines.append((Content(f"  {words.clean(row['image'])}: {row['from']} {arrow} {row['to']}"), 4))
        if len(moved) > 20:
            lines.append(Content(f"  and {len(moved) - 20} more"))
    return lines
