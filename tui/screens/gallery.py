"""The images of a data set: a grid of them, and each one large with its objects."""

from __future__ import annotations

import unicodedata
from asyncio import to_thread
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine.datasets import registry
from engine.datasets.files import nfc
from engine.datasets.images import BadImage
from engine.datasets.model import Dataset, Finding, Item
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Pick
from tui.widgets.blocks import Mark
from tui.widgets.filter import Filter
from tui.widgets.lines import Piece
from tui.widgets.narrowing import Narrowing, Query, choices
from tui.widgets.objects import ObjectList
from tui.widgets.picture import Picture
from tui.widgets.symbols import sign
from tui.widgets.table import Table
from tui.widgets.thumbnails import Thumb, Thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image
    from textual.app import App

SIDE = 1600  # pixels of an image that is shown whole; rarely more than twice as many are kept
SHARP = 3000  # of one that is looked at closely
SMALL = 96  # of one in the grid
FEW = 8  # objects, up to which a small picture has frames: more would hide it
SAID = 3  # findings of an image that are told beside it
LEGEND = 4  # classes counted there


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


class ImageFilter(Filter):
    """Goes back to the grid, where that is what is seen."""

    def action_to_list(self) -> None:
        self.set_class(bool(self.value), "open")
        screen = self.screen
        assert isinstance(screen, ImagesScreen)
        screen.settle()


class ImagesScreen(Page):
    """One image large with its objects beside it, or a grid of them all."""

    HELP_TITLE = "Images"
    HELP_TEXT = (
        "The images of a data set with what is labelled in them. Arrows left and right go from image to image, up and down "
        "from object to object; z looks closely, and then the arrows move the picture. Tab changes between one image and "
        'the grid. / narrows by words, which may be split:val, class:"red cell" or found:any; o offers what there is.'
    )
    CSS = """
    ImagesScreen #one { height: 1fr; }
    ImagesScreen #side { width: 27; padding: 0 1; }
    ImagesScreen.wide #side { width: 38; }
    ImagesScreen #about { height: auto; margin-bottom: 1; }
    ImagesScreen #legend { height: auto; }
    ImagesScreen #grid { display: none; margin: 0 1; }
    ImagesScreen.many #grid { display: block; }
    ImagesScreen.many #one { display: none; }
    """
    AUTO_FOCUS = ""  # without a list of objects nothing has the focus, least of all the line to search in
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (116, "wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="out of the close look, then back"),
        Binding("left", "pan(-1,0)", "move", show=False, priority=True),
        Binding("right", "pan(1,0)", "move", show=False, priority=True),
        Binding("up", "pan(0,-1)", "move", show=False, priority=True),
        Binding("down", "pan(0,1)", "move", show=False, tooltip="arrows move the close look", priority=True),
        Binding("left", "turn(-1)", "previous", show=False, tooltip="previous image", priority=True),
        Binding("right", "turn(1)", "next", tooltip="next image", priority=True),
        Binding(
            "left_square_bracket", "other(-1)", "previous", show=False, tooltip="previous image, also in a close look"
        ),
        Binding("right_square_bracket", "other(1)", "next", show=False, tooltip="next image, also in a close look"),
        Binding("tab", "grid", "grid", tooltip="one image, or a grid of them", priority=True),
        bind("z", "zoom", "closer", help="close to the object, and the whole again"),
        bind("o", "only", "only", help="only a split, a class, or what was found"),
        Binding("slash", "search", "search", tooltip="by parts of the file name, split, class, finding"),
        bind("b", "boxes", "boxes", help="hide the frames, and show them again"),
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
        self._what = title or words.clean(self.dataset.name)
        self._among: Sequence[int] = range(len(self.items))
        if paths is not None:
            self._among = sorted({i for i in map(self._index, paths) if i is not None})
        self._shown: Sequence[int] = self._among  # after the filter
        first = self._index(at) if at else None
        self._at = self._among.index(first) if first is not None and first in self._among else 0
        self._object = object - 1 if object else None
        self._bare = False  # without frames
        self._images: dict[int, Image | str] = {}  # the one in sight and its neighbours; words in place of damaged ones

    def _index(self, path: str) -> int | None:
        """Where the image of that path is; items lie in the order of their composed paths."""
        at = bisect_left(self.items, nfc(path), key=lambda item: nfc(item.path))
        while at < len(self.items) and nfc(self.items[at].path) == nfc(path):
            if self.items[at].path == path:
                return at
            at += 1
        return None

    def body(self) -> Iterator[Widget]:
        yield ImageFilter(placeholder="part of a file name, train, val, a class, a finding", id="search")
        with Horizontal(id="one"):
            yield Picture(id="picture")
            with Vertical(id="side"):
                yield Static(id="about", markup=False)
                yield ObjectList(id="objects")
                yield Static(id="legend", markup=False)
        yield Thumbnails(self._thumbnail, id="grid")

    def on_mount(self) -> None:
        self.settle()
        self._turned()

    def settle(self) -> None:
        """The keys go to what is seen."""
        objects = self.query_one(ObjectList)
        objects.display = self.dataset.task == "detect"
        if self.many:
            self.query_one(Thumbnails).focus()
        else:
            self.set_focus(objects if objects.display else None)

    @property
    def many(self) -> bool:
        """Whether the grid is seen."""
        return self.has_class("many")

    @property
    def item(self) -> Item | None:
        return self.items[self._shown[self._at]] if self._at < len(self._shown) else None

    # One image

    def _turned(self) -> None:
        """Another image is to be shown: its words at once, its pixels once they are read."""
        item, objects = self.item, self.query_one(ObjectList)
        self._head(item, self._at)
        if item is None:
            objects.show((), (0, 0))
            for name in ("#about", "#legend"):
                self.query_one(name, Static).update("")
            self.query_one(Picture).say("No image fits.\n\nesc  all images")
            return
        if self._object is not None and self._object >= len(item.boxes):
            self._object = None
        self.query_one("#about", Static).update(self._about(item))
        objects.show(self.marks(item), (item.width, item.height), self._object)
        self.query_one("#legend", Static).update(self._legend(item))
        if not self.many:
            self._read(self._at)
        self.refresh_bindings()

    def _head(self, item: Item | None, at: int) -> None:
        """File, split, size, objects, and which of how many."""
        left: list[Piece] = [("dojang", "current"), (f"  {self._what}", "title")]
        right: list[Piece] = []
        if item:
            left.append((f"  {composed(PurePosixPath(item.path).name)}", ""))
            right = [(item.split, "muted"), (f"  {item.width}×{item.height} px", "muted")]
            if item.label is None:
                right.append((f"  {words.plural(len(item.boxes), 'object')}", "muted"))
        count = f"{at + 1} of {len(self._shown)}" if item else f"0 of {len(self._among)}"
        of_all = f" (of {len(self._among)})" if item and len(self._shown) != len(self._among) else ""
        self.title_bar.show(left, [*right, (f"   {count}{of_all}", "")])

    def _about(self, item: Item) -> Content:
        path = PurePosixPath(item.path)
        lines = [Content.styled(composed(str(path.parent)), "$foreground-muted")] if str(path.parent) != "." else []
        if cell_len(composed(path.name)) > max(20, self.size.width - 60):  # too long for the title line
            lines.insert(0, Content(composed(path.name)))
        if item.label is not None:
            colour = self.query_one(ObjectList).colour(item.label)
            lines.append(Content.assemble((sign("●") + " ", colour), composed(self.dataset.classes[item.label])))
        elif not item.labelled:
            lines.append(Content.styled("not labelled", "$warning"))
        for finding in self._said.get(item.path, [])[:SAID]:
            style = {"error": "$error", "warning": "$warning"}.get(finding.severity, "$foreground-muted")
            lines.append(Content.styled(words.clean(finding.message), style))
        return Content("\n").join(lines)

    def _legend(self, item: Item) -> Content:
        """How many of which class, where there are several."""
        counts: dict[int, int] = {}
        for box in item.boxes:
            counts[box.cls] = counts.get(box.cls, 0) + 1
        if len(counts) < 2:
            return Content("")
        most = sorted(counts.items(), key=lambda row: -row[1])
        objects = self.query_one(ObjectList)
        lines = [
            Content.assemble(
                (f"{sign('●')} ", objects.colour(c)), (f"{composed(self.dataset.classes[c])} {n}", "$foreground-muted")
            )
            for c, n in most[:LEGEND]
        ]
        if len(most) > LEGEND:
            lines.append(Content.styled(f"and {len(most) - LEGEND} more classes", "$foreground-muted"))
        return Content("\n").join(lines)

    def marks(self, item: Item) -> list[Mark]:
        names = self.dataset.classes
        return [Mark((b.cx, b.cy, b.w, b.h), composed(names[b.cls]), b.cls) for b in item.boxes]

    @work(thread=True, exclusive=True, group="images")
    def _read(self, at: int) -> None:
        """Decode the image in sight, then those beside it."""
        worker, shown = get_current_worker(), self._shown
        for place in (at, at + 1, at - 1):
            if worker.is_cancelled:
                return
            if 0 <= place < len(shown):
                found = self._images.get(shown[place]) or self._load(shown[place], SIDE)
                self.app.call_from_thread(self._keep, shown[place], found)

    @work(thread=True, exclusive=True, group="sharp")
    def _sharpen(self, number: int) -> None:
        """More pixels of the image that is looked at closely."""
        found = self._load(number, SHARP)
        if not get_current_worker().is_cancelled and not isinstance(found, str):
            self.app.call_from_thread(self._sharpened, number, found)

    def _sharpened(self, number: int, found: Image) -> None:
        if self.is_attached and self._at < len(self._shown) and number == self._shown[self._at]:
            self._images[number] = found
            self.query_one(Picture).sharpen(found)

    def _load(self, number: int, side: int) -> Image | str:
        """The image, or why it cannot be shown. In a thread."""
        from engine.datasets import preview

        try:
            return preview.load(self.dataset.image(self.items[number]), side)
        except BadImage as e:
            return e.message

    def _keep(self, number: int, found: Image | str) -> None:
        near = {self._shown[n] for n in range(self._at - 1, self._at + 2) if 0 <= n < len(self._shown)}
        self._images = {n: image for n, image in self._images.items() if n in near}
        if number in near:
            self._images[number] = found
            if number == self._shown[self._at]:
                self._put()

    def _put(self) -> None:
        """Show the image, if it is there by now."""
        item = self.item
        found = self._images.get(self._shown[self._at]) if item else None
        if item is None or found is None or not self.is_attached:
            return
        picture = self.query_one(Picture)
        if isinstance(found, str):
            picture.say(found)
        else:
            bare = self._bare and self._object is None
            picture.show(found, [] if bare else self.marks(item), self._object)

    @on(Table.Highlighted)
    def _chosen(self) -> None:
        chosen, picture = self.query_one(ObjectList).chosen, self.query_one(Picture)
        if chosen != self._object:
            self._object = chosen
            self._put()
            if chosen is None and picture.close is not None:
                self._whole()

    @on(Table.Selected)
    def _selected(self) -> None:
        if not self.query_one(Picture).zoomed:
            self.action_zoom()

    def action_turn(self, by: int) -> None:
        self.action_other(by)

    def action_other(self, by: int) -> None:
        if self.many:
            self.query_one(Thumbnails).action_move(by)
        elif 0 <= self._at + by < len(self._shown):
            self._at, self._object = self._at + by, None
            self._turned()

    def action_zoom(self) -> None:
        picture, item = self.query_one(Picture), self.item
        if picture.zoomed:
            self._whole()
            return
        found = self._images.get(self._shown[self._at]) if item else None
        if item and found and not isinstance(found, str):
            if self._object is None:
                picture.closer()
            else:
                self._put()
                picture.zoom(self._object)
            if max(item.width, item.height) > 1.2 * max(found.size):
                self._sharpen(self._shown[self._at])
        self.refresh_bindings()

    def _whole(self) -> None:
        self.query_one(Picture).zoom(None)
        self.refresh_bindings()

    def action_boxes(self) -> None:
        self._bare = not self._bare
        if self._bare and self._object is not None:
            self.query_one(ObjectList).action_edge(0)  # to all of them
        else:
            self._put()

    def action_pan(self, across: int, down: int) -> None:
        self.query_one(Picture).pan(across, down)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not self.is_mounted:
            return False
        typing = self.query_one(Filter).has_focus
        if action in ("turn", "grid") and typing:
            return False
        if action == "pan":
            return not self.many and not typing and self.query_one(Picture).zoomed
        if action == "zoom":
            return not self.many and self.item is not None
        if action == "boxes":
            return not self.many and bool(self.item and self.item.boxes)
        return True

    # The grid

    def _thumbnail(self, number: int) -> Thumb:
        """For the grid, in its thread."""
        shown = self._shown
        if number >= len(shown):  # narrowed meanwhile
            return Thumb(None, (), "", "")
        item = self.items[shown[number]]
        found = self._load(shown[number], SMALL)
        what = composed(self.dataset.classes[item.label]) if item.label is not None else str(len(item.boxes))
        name = composed(PurePosixPath(item.path).stem)
        image = None if isinstance(found, str) else found
        return Thumb(image, self.marks(item) if len(item.boxes) <= FEW else (), name, f"{item.split} {what}")

    def action_grid(self) -> None:
        self.toggle_class("many")
        grid = self.query_one(Thumbnails)
        if self.many:
            grid.set_count(len(self._shown), self._at)
        else:
            self._at, self._object = grid.cursor, None
            self._turned()
        self.settle()
        self.refresh_bindings()

    @on(Thumbnails.Selected)
    def _opened(self) -> None:
        self.action_grid()

    @on(Thumbnails.Highlighted)
    def _moved(self, event: Thumbnails.Highlighted) -> None:
        if self.many and event.number < len(self._shown):
            self._head(self.items[self._shown[event.number]], event.number)

    # Which images

    def action_search(self) -> None:
        self.query_one(Filter).open()

    @work
    async def action_only(self) -> None:
        among = self.items if isinstance(self._among, range) else (self.items[i] for i in self._among)
        options = await to_thread(choices, self.dataset.classes, among, self._said)
        field = self.query_one(Filter)
        chosen = await self.app.push_screen_wait(Pick("Only", options, field.value))
        if chosen is not None:
            field.value = chosen
            field.set_class(bool(chosen), "open")

    @on(Filter.Changed)
    def _typed(self, event: Filter.Changed) -> None:
        self._narrow(event.value)

    @work(thread=True, exclusive=True, group="narrow")
    def _narrow(self, text: str) -> None:
        """Which images fit: in a thread, for there may be very many."""
        worker, query = get_current_worker(), Query.of(text)
        found: Sequence[int] = self._among
        if not query.empty:
            narrowing, found = Narrowing(self.dataset.classes, self._said, query), []
            for i in self._among:
                if worker.is_cancelled:
                    return
                if narrowing.fits(self.items[i]):
                    found.append(i)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._narrowed, found)

    def _narrowed(self, found: Sequence[int]) -> None:
        if not self.is_attached:
            return
        grid = self.query_one(Thumbnails)
        at = grid.cursor if self.many else self._at
        here = self._shown[at] if at < len(self._shown) else -1
        nearest = bisect_left(found, here)
        same = nearest < len(found) and found[nearest] == here
        self._shown, self._at = found, min(nearest, max(0, len(found) - 1))
        self._object = self._object if same else None
        grid.set_count(len(found), self._at)
        self._turned()

    def action_back(self) -> None:
        field = self.query_one(Filter)
        if not self.many and self.query_one(Picture).zoomed:
            self._whole()
        elif not self.many and self._object is not None:
            self.query_one(ObjectList).action_edge(0)  # to all of them
        elif field.value:
            field.action_clear()
        else:
            self.dismiss(None)


def composed(text: str) -> str:
    """A name from outside, fit for a terminal; Korean of macOS in whole syllables."""
    return unicodedata.normalize("NFC", words.clean(text))
