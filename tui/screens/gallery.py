"""The images of a data set: a grid of them, and each one large with its objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.images import BadImage
from engine.datasets.model import Dataset, Finding, Item
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.widgets.blocks import Mark, colour_of
from tui.widgets.filter import Filter
from tui.widgets.picture import Picture
from tui.widgets.symbols import sign
from tui.widgets.table import Column, Row, Table
from tui.widgets.thumbnails import WIDTH, Thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image
    from textual.app import App

SIDE = 1600  # pixels of an image that is shown large
SMALL = 96  # of one in the grid
FEW = 8  # objects, up to which a small picture has frames: more would hide it
OBJECTS = (
    Column("name", "object", width=8, flex=1, priority=9),
    Column("size", "px", width=9, align="right", priority=5),
)


def open_images(
    app: App[Any],
    dataset: str,
    *,
    paths: Sequence[str] | None = None,
    at: str = "",
    object: int | None = None,
    title: str = "",
) -> None:
    """Show the images of a registered data set, or those `paths` of it, from `at` on; `object` (1…) of it in full light.

    Tells the person where the set cannot be read.
    """
    try:
        screen = ImagesScreen(app, dataset, paths=paths, at=at, object=object, title=title)
    except (DojangError, OSError) as e:
        hint = e.hint if isinstance(e, DojangError) else ""
        app.notify(hint or str(e), title=str(e) if hint else "", severity="error", markup=False)
        return
    app.push_screen(screen)


class ObjectTable(Table):
    """The objects of the image; left and right are the screen's."""


class ImagesScreen(Page):
    """One image large with its objects beside it, or a grid of them all."""

    HELP_TEXT = (
        "The images of a data set with what is labelled in them. Arrows left and right go from image to image, up and down "
        "from object to object; z looks closely. Tab changes between one image and the grid. "
        "/ narrows by words: parts of file names, splits, classes, and codes of findings, all of which must fit."
    )
    CSS = """
    ImagesScreen #one { height: 1fr; }
    ImagesScreen #side { width: 26; padding: 0 0 0 1; }
    ImagesScreen.wide #side { width: 38; }
    ImagesScreen #about { height: auto; margin-bottom: 1; }
    ImagesScreen #legend { height: auto; color: $foreground-muted; }
    ImagesScreen #grid { display: none; margin: 0 1; }
    ImagesScreen.many #grid { display: block; }
    ImagesScreen.many #one { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="out of the close look, then back"),
        Binding("left", "turn(-1)", "previous", show=False, tooltip="previous image", priority=True),
        Binding("right", "turn(1)", "next", tooltip="next image", priority=True),
        Binding("tab", "grid", "grid", tooltip="one image, or a grid of them", priority=True),
        bind("z", "zoom", "close look", help="close to the object, and the whole again"),
        bind("b", "boxes", "boxes", help="hide the frames, and show them again"),
        Binding("slash", "search", "search", tooltip="by file, split, class, or code of a finding"),
        Binding("shift+left", "pan(-1,0)", "pan", show=False, tooltip="move the close look"),
        Binding("shift+right", "pan(1,0)", "pan", show=False, tooltip="move the close look"),
        Binding("shift+up", "pan(0,-1)", "pan", show=False, tooltip="move the close look"),
        Binding("shift+down", "pan(0,1)", "pan", show=False, tooltip="move the close look"),
    ]

    def __init__(
        self,
        app: App[Any],
        dataset: str,
        *,
        paths: Sequence[str] | None = None,
        at: str = "",
        object: int | None = None,
        title: str = "",
    ) -> None:
        super().__init__()
        from tui.app import DojangApp

        assert isinstance(app, DojangApp)
        workspace = app.workspace.path
        self.dataset: Dataset = registry.load(workspace, dataset)
        self.items = registry.open_items(workspace, dataset)
        self._said: dict[str, list[Finding]] = {}
        for finding in registry.findings(workspace, dataset):
            self._said.setdefault(finding.image or finding.file, []).append(finding)
        self._workspace, self._what = workspace, title
        wanted = None if paths is None else set(paths)
        self._among: Sequence[int] = range(len(self.items))
        if wanted is not None:
            self._among = [i for i, item in enumerate(self.items) if item.path in wanted]
        self._shown: Sequence[int] = self._among  # after the filter
        self._at = 0
        if at:
            self._at = next((n for n, i in enumerate(self._shown) if self.items[i].path == at), 0)
        self._object = object - 1 if object else None
        self._bare = False  # without frames
        self._images: dict[int, Image | str] = {}  # the one in sight and its neighbours

    def body(self) -> Iterator[Widget]:
        yield Filter(placeholder="words: part of a file name, train, val, test, a class", id="search")
        with Horizontal(id="one"):
            yield Picture(id="picture")
            with Vertical(id="side"):
                yield Static(id="about")
                yield ObjectTable(OBJECTS, empty="no objects", show_header=True, id="objects")
                yield Static(id="legend")
        yield Thumbnails(self._thumbnail, id="grid")

    def on_mount(self) -> None:
        self.query_one(ObjectTable).focus()
        self._turned()

    @property
    def item(self) -> Item | None:
        return self.items[self._shown[self._at]] if self._at < len(self._shown) else None

    # One image

    def _turned(self) -> None:
        """Another image is to be shown: its words at once, its pixels once they are read."""
        item = self.item
        count = f"{self._at + 1} of {len(self._shown)}" if item else "none"
        of_all = f" (of {len(self._among)})" if len(self._shown) != len(self._among) else ""
        left = [("dojang", "current"), (f"  {self._what or words.clean(self.dataset.name)}", "title")]
        right = [(f"{item.split}   ", "muted")] if item else []
        self.title_bar.show(left, [*right, (count + of_all, "muted")])
        table = self.query_one(ObjectTable)
        if item is None:
            table.set_rows([])
            self.query_one("#about", Static).update("")
            self.query_one("#legend", Static).update("")
            self.query_one(Picture).say("No image fits.")
            return
        self.query_one("#about", Static).update(self._about(item))
        table.set_rows([self._row(item, i) for i in range(len(item.boxes))])
        if self._object is not None and self._object < len(item.boxes):
            table.move_to(str(self._object))
        self.query_one("#legend", Static).update(self._legend(item))
        self._read(self._at)

    def _about(self, item: Item) -> Content:
        path = PurePosixPath(item.path)
        lines = [
            Content.styled(words.clean(path.name), "bold"),
            Content.styled(words.clean(str(path.parent)), "$foreground-muted"),
            Content(f"{item.width} × {item.height} px · {item.split}"),
        ]
        if item.label is not None:
            lines.append(Content.assemble((sign("●") + " ", hexed(item.label)), self.dataset.classes[item.label]))
        elif not item.labelled:
            lines.append(Content.styled("not labelled", "$warning"))
        else:
            lines.append(Content(words.plural(len(item.boxes), "object")))
        for finding in self._said.get(item.path, [])[:3]:
            style = {"error": "$error", "warning": "$warning"}.get(finding.severity, "$foreground-muted")
            lines.append(Content.styled(words.clean(finding.message), style))
        return Content("\n").join(lines)

    def _row(self, item: Item, number: int) -> Row:
        box = item.boxes[number]
        name = Content.assemble((sign("●") + " ", hexed(box.cls)), words.clean(self.dataset.classes[box.cls]))
        return Row(str(number), {"name": name, "size": f"{box.w * item.width:.0f}×{box.h * item.height:.0f}"})

    def _legend(self, item: Item) -> str:
        if len(item.boxes) < 2:
            return ""
        counts: dict[int, int] = {}
        for box in item.boxes:
            counts[box.cls] = counts.get(box.cls, 0) + 1
        return "  ".join(f"{words.clean(self.dataset.classes[c])} {n}" for c, n in sorted(counts.items()))

    def marks(self, item: Item) -> list[Mark]:
        names = self.dataset.classes
        return [Mark((b.cx, b.cy, b.w, b.h), words.clean(names[b.cls]), b.cls) for b in item.boxes]

    @work(thread=True, exclusive=True, group="images")
    def _read(self, at: int) -> None:
        """Decode the image in sight, then those beside it."""
        worker = get_current_worker()
        for place in (at, at + 1, at - 1):
            if worker.is_cancelled or not 0 <= place < len(self._shown):
                continue
            number = self._shown[place]
            found = self._images.get(number) or self._load(number, SIDE)
            self.app.call_from_thread(self._keep, number, found, at)

    def _load(self, number: int, side: int) -> Image | str:
        from engine.datasets import preview

        try:
            return preview.load(self.dataset.image(self.items[number]), side)
        except BadImage as e:
            return e.message

    def _keep(self, number: int, found: Image | str, at: int) -> None:
        near = {self._shown[n] for n in range(self._at - 1, self._at + 2) if 0 <= n < len(self._shown)}
        self._images = {n: image for n, image in self._images.items() if n in near}
        if number in near:
            self._images[number] = found
        if at == self._at and number == self._shown[at]:
            self._put()

    def _put(self) -> None:
        item = self.item
        found = self._images.get(self._shown[self._at]) if item else None
        try:
            picture = self.query_one(Picture)
        except NoMatches:  # the screen was closed meanwhile
            return
        if item is None or found is None:
            return
        if isinstance(found, str):
            picture.say(found)
        else:
            bare = self._bare and self._object is None
            picture.show(found, [] if bare else self.marks(item), self._object)

    @on(Table.Highlighted)
    def _highlighted(self, event: Table.Highlighted) -> None:
        if event.key is not None and self._object is not None and int(event.key) != self._object:
            self._object = int(event.key)
            self._put()

    def action_object(self, by: int) -> None:
        """From object to object; before the first one the whole image is in full light."""
        item = self.item
        if item and item.boxes:
            self._object = 0 if self._object is None else (self._object + by) % len(item.boxes)
            self.query_one(ObjectTable).move_to(str(self._object))
            self._put()

    def on_key(self, event: Any) -> None:
        if event.key in ("up", "down") and not self.has_class("many") and self._object is None:
            event.stop()
            self.action_object(1)

    @on(Table.Selected)
    def _selected(self, event: Table.Selected) -> None:
        self._object = int(event.key)
        self.action_zoom()

    def action_turn(self, by: int) -> None:
        if self.has_class("many"):
            self.query_one(Thumbnails).action_move(by)
        elif 0 <= self._at + by < len(self._shown):
            self._at, self._object = self._at + by, None
            self._turned()

    def action_zoom(self) -> None:
        picture = self.query_one(Picture)
        if picture.zoomed:
            picture.zoom(None)
            return
        if self._object is None:
            self.action_object(1)
        self._put()
        picture.zoom(self._object)

    def action_boxes(self) -> None:
        self._bare = not self._bare
        self._object = None if self._bare else self._object
        self._put()

    def action_pan(self, across: int, down: int) -> None:
        self.query_one(Picture).pan(across, down)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        typing = self.is_mounted and self.query_one(Filter).has_focus
        if action in ("turn", "grid") and typing:
            return False
        if action in ("zoom", "pan", "boxes"):
            return self.is_mounted and not self.has_class("many") and bool(self.item and self.item.boxes)
        return True

    # The grid

    def _thumbnail(self, number: int) -> tuple[Image | None, Sequence[Mark], str]:
        """For the grid, in its thread."""
        shown = self._shown
        if number >= len(shown):
            return None, (), ""
        item = self.items[shown[number]]
        found = self._load(shown[number], SMALL)
        count = self.dataset.classes[item.label] if item.label is not None else len(item.boxes)
        stem = words.clean(PurePosixPath(item.path).stem)
        told = words.clean(f"{item.split} {count} ")
        room = WIDTH - 1 - cell_len(told)
        caption = told + (stem if cell_len(stem) <= room else sign("…") + stem[-max(1, room - 1) :])
        marks = self.marks(item) if len(item.boxes) <= FEW else []
        return (None, (), caption) if isinstance(found, str) else (found, marks, caption)

    def action_grid(self) -> None:
        self.toggle_class("many")
        grid = self.query_one(Thumbnails)
        if self.has_class("many"):
            grid.set_count(len(self._shown), self._at)
            grid.focus()
        else:
            self._at, self._object = grid.cursor, None
            self.query_one(ObjectTable).focus()
            self._turned()
        self.refresh_bindings()

    @on(Thumbnails.Selected)
    def _opened(self) -> None:
        self.action_grid()

    @on(Thumbnails.Highlighted)
    def _moved(self, event: Thumbnails.Highlighted) -> None:
        item = self.items[self._shown[event.number]]
        self.title_bar.show(
            [("dojang", "current"), (f"  {self._what or words.clean(self.dataset.name)}", "title")],
            [(f"{item.split}   ", "muted"), (f"{event.number + 1} of {len(self._shown)}", "muted")],
        )

    # Which images

    def action_search(self) -> None:
        self.query_one(Filter).open()

    @on(Filter.Changed)
    def _typed(self, event: Filter.Changed) -> None:
        self._narrow(event.value)

    @work(thread=True, exclusive=True, group="narrow")
    def _narrow(self, text: str) -> None:
        """Which images fit all words: in a thread, for there may be very many."""
        worker, wanted = get_current_worker(), text.lower().split()
        names = [name.lower() for name in self.dataset.classes]
        found: Sequence[int] = self._among
        if wanted:
            found = []
            for i in self._among:
                if worker.is_cancelled:
                    return
                item = self.items[i]
                said = " ".join(finding.code for finding in self._said.get(item.path, []))
                held = " ".join(names[c] for c in item.classes)
                told = f"{item.path.lower()} {item.split} {held} {said}"
                if all(word in told for word in wanted):
                    found.append(i)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._narrowed, found)

    def _narrowed(self, found: Sequence[int]) -> None:
        here = self._shown[self._at] if self._at < len(self._shown) else None
        self._shown = found
        self._at = next((n for n, i in enumerate(found) if i == here), 0)
        self._object = None
        if self.has_class("many"):
            self.query_one(Thumbnails).set_count(len(found), self._at)
        self._turned()

    def action_back(self) -> None:
        picture = self.query_one(Picture)
        if picture.zoomed and not self.has_class("many"):
            picture.zoom(None)
        elif self._object is not None and not self.has_class("many"):
            self._object = None
            self._put()
        elif self.query_one(Filter).value:
            self.query_one(Filter).action_clear()
        else:
            self.dismiss(None)


def hexed(number: int) -> str:
    """The colour of a class, as styles spell it."""
    return f"#{colour_of(number):06x}"
