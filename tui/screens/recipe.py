"""A new version of a data set: which images, how divided, which classes, and what is done to the pixels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.model import SPLITS, Dataset
from engine.datasets.recipe import AUGMENTATIONS, Recipe, parse, problems, unsuited
from engine.errors import DojangError, Invalid
from engine.spec import property_of
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Ask, Confirm, Dialog, Note
from tui.widgets.facts import Fact, Facts, head
from tui.widgets.form import Form, help_of
from tui.widgets.split_bar import SplitBar
from tui.widgets.symbols import fit, sign
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from engine.datasets.recipes import Draft

HIDDEN = ("rename", "drop")  # the table of classes sets them
NAME = 12  # cells of a class's name
AFTER = 0.25  # seconds of rest in typing before it is counted anew


class RecipeScreen(Page):
    """The form at the left, what it comes to at the right; ^n makes the version."""

    HELP_TITLE = "New version of a data set"
    HELP_TEXT = (
        "A version is a fixed recipe over data sets: split, classes, preprocessing, augmentation. What it comes to is "
        "counted while you choose. Augmentation makes copies of training images only; val and test keep their pixels. "
        "Your files are read, never changed, and a version cannot be changed once it is made."
    )
    CSS = """
    RecipeScreen #left { width: 3fr; }
    RecipeScreen #side { width: 2fr; padding: 0 1; border-left: vkey $panel; display: none; }
    RecipeScreen.wide #side { display: block; }
    RecipeScreen #form { height: 1fr; }
    RecipeScreen Field > Line, RecipeScreen Field > Choice { width: 30; }
    RecipeScreen #line { height: auto; max-height: 3; padding: 0 1; color: $foreground-muted; }
    RecipeScreen #help { height: auto; margin-top: 1; color: $foreground-muted; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (110, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="leave without making it"),
        Binding("ctrl+n", "make", "make it", tooltip="a last look, then make the version"),
        Binding("f1", "explain", "explain", tooltip="what the setting is for"),
        Binding("f2", "classes", "classes", tooltip="rename, merge or drop classes"),
        Binding("f3", "preview", "preview", tooltip="images as they are, and as a training gets them"),
        Binding("f4", "counts", "counts", tooltip="images and objects of each split"),
    ]

    def __init__(self, dataset: str) -> None:
        super().__init__()
        self.base = dataset.partition("@")[0]
        self.data: dict[str, Any] = {"sources": [dataset]}
        self.rename: dict[str, str] = {}
        self.drop: list[str] = []
        self.draft: Draft | None = None
        self.problems: dict[str, str] = {}
        self._said = ""
        self._soon: Timer | None = None
        self._newest = 0  # of the drafts asked for

    def body(self) -> Iterator[Widget]:
        names = [n for n in Recipe.model_fields if n not in HIDDEN]
        sets = [d.name for d in registry.list_datasets(self.dojang.workspace.path)]
        apart = [("", "none", "a share of the sources"), *((name, name, "") for name in sets)]
        start = {"sources": self.data["sources"], "ratio": "80/10/10", "size": 640}
        with Horizontal():
            with VerticalScroll(id="left", can_focus=False):
                yield SplitBar((80.0, 10.0, 10.0), id="bar")
                yield Form([(Recipe, names)], start, {"val": apart, "test": apart}, id="form")
            with VerticalScroll(id="side", can_focus=False):
                yield Facts(id="facts")
                yield Static("", id="help", markup=False)
        yield Static("", id="line", markup=False)

    def on_mount(self) -> None:
        self.form.defaults["ratio"] = "80/10/10"
        self.form.defaults["sources"] = self.data["sources"][0]
        head = [("dojang", "current"), ("  New version", "title"), (f"  of {words.clean(self.base)}", "muted")]
        self.title_bar.show(head)
        self._changed()
        self.query_one(SplitBar).focus()

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    # What was chosen

    @on(SplitBar.Changed)
    def _slid(self, event: SplitBar.Changed) -> None:
        self.form.set_value("ratio", "/".join(f"{share:g}" for share in event.ratio))

    @on(Form.Changed)
    def _changed(self) -> None:
        values = self.form.values()
        self.data = {**values, "rename": self.rename, "drop": self.drop}
        found = problems(self.data)
        self.problems = {p.field: p.message for p in found}
        if not found:
            recipe = parse(self.data)
            self.query_one(SplitBar).show(recipe.ratio)
            task = self._learns(recipe)
            self.problems = {p.field: p.message for p in unsuited(recipe, task)} if task else {}
        self.query_one(SplitBar).display = str(values.get("split")) == "ratio"
        self.form.leave_out(self._idle(values))
        self.form.tell(self.problems)
        self._say("")
        if self._soon:
            self._soon.stop()
        self._soon = self.set_timer(AFTER, self._count)

    def _learns(self, recipe: Recipe) -> Any:
        try:
            return registry.load(self.dojang.workspace.path, recipe.sources[0]).task
        except DojangError:
            return None

    def _idle(self, values: Mapping[str, Any]) -> set[str]:
        """Settings that do nothing with what was chosen."""
        idle = set() if values["split"] == "ratio" else {"ratio", "stratify", "group"}
        if values["resize"] == "none":
            idle.add("size")
        return idle - set(self.problems)

    def _count(self) -> None:
        if self.problems:
            self._show()
            return
        self._newest += 1
        self._draft(parse(self.data), self._newest)

    @work(thread=True, exclusive=True, group="draft")
    def _draft(self, recipe: Recipe, number: int) -> None:
        """What it comes to; the last answer stays until there is a new one."""
        from engine.datasets import recipes

        worker, told = get_current_worker(), 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if worker.is_cancelled:
                raise DojangError("Another count was asked for.", code="CANCELLED")
            if time.monotonic() - told > 0.2:
                told = time.monotonic()
                self.app.call_from_thread(self._say, f"reading {done} of {total} images" if total else "reading")

        try:
            found = recipes.draft(self.dojang.workspace.path, recipe, progress)
        except DojangError as e:
            if not worker.is_cancelled:
                self.app.call_from_thread(self._failed, e, number)
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._drafted, found, number)

    def _drafted(self, found: Draft, number: int) -> None:
        if number == self._newest and self.is_attached:
            self.draft = found
            self._say("")
            self._show()

    def _failed(self, error: DojangError, number: int) -> None:
        if number != self._newest or not self.is_attached:
            return
        self.draft = None
        if isinstance(error, Invalid):
            self.problems = {p.field: p.message for p in error.problems}
            self.form.tell(self.problems)
        self._say(f"{error.message} {error.hint}".strip(), "$error")
        self._show()

    def _say(self, text: str, style: str = "") -> None:
        self._said = text
        wrong = next((f"{property_of(n, Recipe)['title']} {m}" for n, m in self.problems.items()), "")
        shown = (
            Content.styled(text or wrong, style or ("$error" if wrong and not text else "")) if text or wrong else ""
        )
        if not shown and self.draft:
            shown = Content(short(self.draft))
        self.query_one("#line", Static).update(shown)

    def _show(self) -> None:
        self.query_one(Facts).show(comes_to(self.draft) if self.draft and not self.problems else [])
        self.refresh_bindings()

    @on(Form.Focused)
    def _entered(self, event: Form.Focused) -> None:
        self._field = event.field
        self.query_one("#help", Static).update(help_of(event.field, self.form.default(event.field), "recipe.toml"))
        if not self.problems and not self._said:
            self._say("")

    # What one can do

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("make", "classes", "preview", "counts"):
            return self.draft is not None and not self.problems
        return True

    def action_explain(self) -> None:
        field = getattr(self, "_field", None)
        if field:
            self.app.push_screen(Note("About this setting", [help_of(field, self.form.default(field), "recipe.toml")]))

    def action_counts(self) -> None:
        if self.draft:
            self.app.push_screen(Note("What it comes to", comes_to(self.draft)))

    @work
    async def action_back(self) -> None:
        same = not (self.form.changed(Recipe) or self.rename or self.drop)
        question = Confirm("Leave", "Leave without making this version?", yes="Leave")
        if same or await self.app.push_screen_wait(question):
            self.dismiss(None)

    @work
    async def action_classes(self) -> None:
        sets = [registry.load(self.dojang.workspace.path, name) for name in parse(self.data).sources]
        answer = await self.app.push_screen_wait(Classes(sets, self.rename, self.drop))
        if answer is not None:
            self.rename, self.drop = answer
            self._changed()

    def action_preview(self) -> None:
        from tui.screens.preview import PreviewScreen

        if self.draft:
            self.app.push_screen(PreviewScreen(self.draft))

    @work
    async def action_make(self) -> None:
        """A last look, then make it, and offer to train with it."""
        from engine.datasets import recipes

        made = self.draft
        if made is None or self.problems:
            return
        number = max([registry.last_number(self.dojang.workspace.path, self.base), *self._numbers()]) + 1
        text = f"Make {self.base}@{number}?\n\n{short(made)}\n\nIt cannot be changed afterwards."
        if not await self.app.push_screen_wait(Confirm("New version", text, yes="Make it")):
            return
        try:
            dataset = recipes.create(self.dojang.workspace.path, self.base, made)
        except DojangError as e:
            self.complain(e)
            return
        self.dismiss(None)
        self.notify(f"{dataset.name} is made. n trains with it.", markup=False)

    def _numbers(self) -> list[int]:
        from engine.datasets import recipes

        found = recipes.versions(self.dojang.workspace.path, self.base)
        return [int(d.name.rpartition("@")[2]) for d in found] or [0]


def short(made: Draft) -> str:
    """What a draft comes to, in a line."""
    counts, recipe = made.counts, made.recipe
    parts = [f"{s} {counts.per_split[s].images}" for s in SPLITS if counts.per_split[s].images]
    if recipe.copies:
        whole = counts.per_split["train"].images * (1 + recipe.copies)
        parts[0] = f"train {counts.per_split['train'].images} × {1 + recipe.copies} = {whole}"
    told = " · ".join(parts).replace("·", sign("·"))
    pixels = pack_bytes(made)
    return told + (f"; prepared pixels take {words.size(pixels)} on disk" if pixels else "")


def pack_bytes(made: Draft) -> int:
    """What the prepared pixels will take on disk; 0 where a training reads the files themselves."""
    recipe = made.recipe
    if not recipe.makes_pixels:
        return 0
    total = 0
    for item in made.items:
        area = recipe.size**2 if recipe.resize != "none" else item.width * item.height
        times = 1 + recipe.copies if item.split == "train" else 1
        total += 3 * area * (times if recipe.preprocessed else times - 1)
    return total


def comes_to(made: Draft) -> list[Fact]:
    """Images and objects of each split, and how even the classes are."""
    counts = made.counts
    splits = [s for s in SPLITS if counts.per_split[s].images]
    titles = "".join(f"{s:>8}" for s in splits) + f"{'all':>8}"
    lines: list[Fact] = [head("What it comes to"), Content.styled(f"{'':<{NAME}}{titles}", "$foreground-muted")]
    images = "".join(f"{counts.per_split[s].images:>8}" for s in splits)
    lines.append(Content(f"{'images':<{NAME}}{images}{counts.images:>8}"))
    if made.recipe.copies:
        whole = counts.per_split["train"].images * made.recipe.copies
        lines.append(Content(f"{'copies':<{NAME}}{whole:>8}"))
    for name in made.classes[:30]:
        per = "".join(f"{counts.per_split[s].per_class.get(name, 0):>8}" for s in splits)
        lines.append(Content(f"{fit(words.clean(name), NAME)}{per}{counts.per_class.get(name, 0):>8}"))
    if len(made.classes) > 30:
        lines.append(Content(f"and {len(made.classes) - 30} more classes"))
    lines.append(Content(""))
    lines.append(
        Content.styled(f"shares of classes differ by at most {made.deviation:.1f} points", "$foreground-muted")
    )
    for count, text in (
        (made.unlabelled, "without labels: left out"),
        (made.emptied, "lost all objects"),
    ):
        if count:
            lines.append(Content.styled(f"{words.plural(count, 'image')} {text}", "$warning"))
    if made.groups:
        lines.append(Content(f"{words.plural(made.groups, 'group')} of alike images kept together"))
    pixels = pack_bytes(made)
    if pixels:
        lines.append(Content(f"prepared pixels: {words.size(pixels)} on disk, made when first trained with"))
    if made.recipe.copies:
        lines += [Content(""), *done(made.recipe)]
    return lines


def done(recipe: Recipe) -> list[Fact]:
    """What is done to copies, a line each."""
    names = [name for name in AUGMENTATIONS if getattr(recipe, name)]
    rows: list[Fact] = [Content.styled("copies of training images are", "$foreground-muted")]
    for name in names:
        info = property_of(name, Recipe)
        unit = str(info.get("unit", ""))
        rows.append(Content(f"  {info['title']}: {getattr(recipe, name):g} {unit}".rstrip()))
    return rows


class ClassTable(Table):
    pass


class Classes(Dialog[tuple[dict[str, str], list[str]]]):
    """Every class with its count: renamed, merged by giving two one name, or dropped."""

    DEFAULT_CSS = "Classes ClassTable { height: 16; max-height: 60vh; }"
    COLUMNS = (
        Column("name", "class", width=12, flex=1, priority=9),
        Column("labels", "objects", width=8, align="right", priority=7),
        Column("becomes", "becomes", width=14, flex=1, priority=8),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("r", "rename", "rename", help="give it another name; two with one name are merged"),
        bind("x", "drop", "drop", help="leave its objects out, or take them in again"),
        Binding("ctrl+n", "use", "use"),
    ]

    def __init__(self, sets: list[Dataset], rename: Mapping[str, str], drop: list[str]) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}
        for one in sets:
            for name in one.classes:
                self._counts[name] = self._counts.get(name, 0) + one.counts.per_class.get(name, 0)
        self._rename = {k: v for k, v in rename.items() if k in self._counts}
        self._drop = [name for name in drop if name in self._counts]

    def compose(self) -> Any:
        from textual.containers import Vertical

        with Vertical() as box:
            box.border_title = "Classes"
            yield ClassTable(self.COLUMNS, id="classes")
            yield Static("enter, r rename or merge   x drop   ^n use these   esc as before", classes="note")

    def on_mount(self) -> None:
        self._fill()
        self.query_one(Table).focus()

    def _fill(self) -> None:
        rows = []
        for name, count in self._counts.items():
            becomes: Content | str = ""
            if name in self._drop:
                becomes = Content.styled(f"{sign('✗')} dropped", "$warning")
            elif name in self._rename:
                merged = [o for o in self._counts if o != name and self._rename.get(o, o) == self._rename[name]]
                becomes = Content.styled(words.clean(self._rename[name]) + (" (merged)" if merged else ""), "$accent")
            rows.append(Row(name, {"name": words.clean(name), "labels": str(count), "becomes": becomes}))
        self.query_one(Table).set_rows(rows)

    @on(Table.Selected)
    @work
    async def action_rename(self) -> None:
        name = self.query_one(Table).cursor_key
        if name is None:
            return
        shown = self._rename.get(name, name)
        fields = [("name", f"New name of {words.clean(name)}", shown, "the name of another class merges the two")]

        def wrong(values: dict[str, str]) -> dict[str, str]:
            text = values["name"].strip()
            fits = text and len(text) <= 256 and text.isprintable()
            return {} if fits else {"name": "1 to 256 printable characters"}

        answer = await self.app.push_screen_wait(Ask("Rename", fields, wrong, ok="Rename"))
        if answer:
            text = answer["name"].strip()
            self._drop = [other for other in self._drop if other != name]
            self._rename.pop(name, None)
            if text != name:
                self._rename[name] = text
            self._fill()

    def action_drop(self) -> None:
        name = self.query_one(Table).cursor_key
        if name is None:
            return
        if name in self._drop:
            self._drop.remove(name)
        else:
            self._rename.pop(name, None)
            self._drop.append(name)
        self._fill()

    def action_use(self) -> None:
        self.dismiss((self._rename, self._drop))
