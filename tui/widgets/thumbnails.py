"""A grid of small pictures that stays quick at a hundred thousand of them: only those in sight are ever read.

    grid = Thumbnails(fetch)      fetch(number) -> Thumb, called in a thread
    grid.set_count(205), grid.cursor = 3

Messages: `Thumbnails.Highlighted(number)` when the cursor moved, `Thumbnails.Selected(number)` on Enter or a second click.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events, work
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.theme import Theme
from textual.widget import Widget
from textual.worker import get_current_worker

from tui.widgets.blocks import Look, Mark, View, cells, strips
from tui.widgets.frames import overlay
from tui.widgets.palette import Palette
from tui.widgets.symbols import fit, sign

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT = 600  # drawn pictures
WIDTH, HEIGHT, GAP = 24, 11, 1  # cells of one at the least; its caption and an empty line are below the picture
PICTURE = HEIGHT - 2
HERE = "bold $accent"  # the style of the caption under the cursor
NOT_SHOWN = "cannot be shown"


class Thumb(NamedTuple):
    """What stands for one image. `image` is None where it cannot be read."""

    image: Image | None
    marks: Sequence[Mark]
    name: str
    note: str  # beside the name, which gives way to it


Fetch = Callable[[int], Thumb]


class Thumbnails(Widget, can_focus=True):
    """Small pictures in rows, a cursor among them."""

    DEFAULT_CSS = "Thumbnails { width: 1fr; height: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Left", show=False),
        Binding("right", "move(1)", "Right", show=False),
        Binding("up", "rows(-1)", "Up", show=False),
        Binding("down", "rows(1)", "Down", show=False),
        Binding("pageup", "pages(-1)", "Page up", show=False),
        Binding("pagedown", "pages(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "select", "open", tooltip="this image alone, large"),
    ]

    class Highlighted(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class Selected(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, fetch: Fetch, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.palette = Palette(self)
        self._fetch = fetch
        self._count = self._cursor = self._top = 0  # of `_top`, the first row in sight
        self._drawn: OrderedDict[int, tuple[list[Strip], Thumb]] = OrderedDict()
        self.empty = "No images"

    def set_count(self, count: int, cursor: int = 0) -> None:
        """There are `count` others now; what was drawn is forgotten."""
        self._count, self._drawn, self._top = count, OrderedDict(), 0
        self._cursor = max(0, min(cursor, count - 1))
        self._into_view()

    @property
    def cursor(self) -> int:
        return self._cursor

    @cursor.setter
    def cursor(self, number: int) -> None:
        number = max(0, min(number, self._count - 1))
        if number != self._cursor:
            self._cursor = number
            self.post_message(self.Highlighted(number))
        self._into_view()

    @property
    def across(self) -> int:
        return max(1, (self.size.width + GAP) // (WIDTH + GAP))

    @property
    def _wide(self) -> int:
        """Cells that each one gets, so that all together fill the width."""
        return max(1, (self.size.width + GAP) // self.across - GAP)

    @property
    def _tall(self) -> int:
        return max(1, self.size.height // HEIGHT)

    def _into_view(self) -> None:
        row = self._cursor // self.across
        self._top = min(max(self._top, row - self._tall + 1), row)
        self._top = max(0, min(self._top, (self._count - 1) // self.across))
        self.refresh()
        self._read()

    def on_resize(self) -> None:
        self._drawn.clear()
        self._into_view()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._restyle)

    def _restyle(self, _theme: Theme) -> None:
        self.palette.clear()
        self._drawn.clear()
        self._into_view()

    def on_show(self) -> None:
        self._into_view()

    def action_move(self, by: int) -> None:
        self.cursor = self._cursor + by

    def action_rows(self, by: int) -> None:
        target = self._cursor + by * self.across
        if 0 <= target < self._count:
            self.cursor = target
        elif by > 0 and self._cursor // self.across < (self._count - 1) // self.across:
            self.cursor = self._count - 1

    def action_pages(self, by: int) -> None:
        self.cursor = self._cursor + by * self.across * self._tall

    def action_edge(self, which: int) -> None:
        self.cursor = self._count - 1 if which else 0

    def action_select(self) -> None:
        if self._count:
            self.post_message(self.Selected(self._cursor))

    def on_click(self, event: events.Click) -> None:
        column = event.x // (self._wide + GAP)
        number = (self._top + event.y // HEIGHT) * self.across + column
        if column >= self.across or number >= self._count:
            return
        if number == self._cursor:
            self.action_select()
        self.cursor = number

    def on_mouse_scroll_down(self) -> None:
        self.action_rows(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_rows(-1)

    # Drawing

    @property
    def _in_sight(self) -> range:
        first = self._top * self.across
        rows = -(-self.size.height // HEIGHT)
        return range(first, min(self._count, first + rows * self.across))

    def _read(self) -> None:
        wanted = [number for number in self._in_sight if number not in self._drawn]
        if wanted and self.is_mounted and self.size.height:
            self._draw(wanted, self._wide, Look.here(light=not self.app.current_theme.dark))

    @work(thread=True, exclusive=True, group="thumbnails")
    def _draw(self, wanted: list[int], wide: int, look: Look) -> None:
        worker = get_current_worker()
        for number in wanted:
            if worker.is_cancelled:
                return
            thumb = self._fetch(number)
            made: list[Strip] = []
            if thumb.image is not None:
                picture = cells(thumb.image, View(), (wide, PICTURE), look)
                overlay(picture, [mark._replace(name="", confidence=None) for mark in thumb.marks], View(), None, look)
                made = strips(picture, look)
            if not worker.is_cancelled:
                self.app.call_from_thread(self._put, number, made, thumb)

    def _put(self, number: int, made: list[Strip], thumb: Thumb) -> None:
        self._drawn[number] = made, thumb._replace(image=None)
        while len(self._drawn) > KEPT:
            self._drawn.popitem(last=False)
        row, column = divmod(number, self.across)
        self.refresh(Region(column * (self._wide + GAP), (row - self._top) * HEIGHT, self._wide, HEIGHT))

    def render(self) -> RenderResult:
        return ""

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if not self._count:
            text = fit(self.empty, width, "center") if y == self.size.height // 2 else " " * width
            return Strip([Segment(text, self.palette["muted"])], width)
        row, line = self._top + y // HEIGHT, y % HEIGHT
        parts: list[Segment] = []
        for column in range(self.across):
            number = row * self.across + column
            if number < self._count:
                parts += self._part(number, line)
                parts.append(Segment(" " * GAP, self.palette[""]))
        return Strip(parts).adjust_cell_length(width, self.palette[""])

    def _part(self, number: int, line: int) -> list[Segment]:
        """One line of one picture, or its caption. Pictures stand on their captions."""
        made, thumb = self._drawn.get(number, ([], None))
        blank, wide = self.palette[""], self._wide
        if line == PICTURE:
            return [Segment(self._caption(thumb, number), self.palette[HERE if number == self._cursor else "muted"])]
        if thumb and not made and line == PICTURE // 2:
            return [Segment(fit(NOT_SHOWN, wide, "center"), self.palette["muted"])]
        at = line - (PICTURE - len(made))
        if not 0 <= at < len(made):
            return [Segment(" " * wide, blank)]
        left = (wide - made[at].cell_length) // 2
        right = wide - left - made[at].cell_length
        return [Segment(" " * left, blank), *made[at], Segment(" " * right, blank)]

    def _caption(self, thumb: Thumb | None, number: int) -> str:
        """The name, of which the end tells most, and the note at the right."""
        bar = sign("▌") if number == self._cursor else " "
        if thumb is None:
            return fit(bar + sign("…"), self._wide)
        note = fit(thumb.note, min(cell_len(thumb.note), self._wide // 2))
        room = self._wide - 2 - cell_len(note)
        name = thumb.name
        while name and cell_len(name) > room - (name is not thumb.name):
            name = name[1:]
        return fit(bar + (name if name is thumb.name else sign("…") + name), self._wide - cell_len(note)) + note

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()
