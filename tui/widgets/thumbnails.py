"""A grid of small pictures that stays quick at a hundred thousand of them: only those in sight are ever read.

    grid = Thumbnails(fetch)      fetch(number) -> (image, marks, caption); called in a thread; None: cannot be shown
    grid.set_count(205), grid.cursor = 3

Messages: `Thumbnails.Highlighted(number)` when the cursor moved, `Thumbnails.Selected(number)` on Enter or a second click.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual import events, work
from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.worker import get_current_worker

from tui import terminal
from tui.widgets.blocks import Mark, View, cells, overlay, strips
from tui.widgets.palette import Palette
from tui.widgets.symbols import ascii_only, fit, sign

if TYPE_CHECKING:
    from PIL.Image import Image

Fetch = Callable[[int], tuple["Image | None", Sequence[Mark], str]]
WIDTH, HEIGHT, GAP = 24, 10, 1  # cells of one, its caption's line included
KEPT = 600  # drawn pictures


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
        self._drawn: OrderedDict[int, tuple[list[Strip], str]] = OrderedDict()
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
    def _tall(self) -> int:
        return max(1, self.size.height // HEIGHT)

    def _into_view(self) -> None:
        row = self._cursor // self.across
        self._top = min(max(self._top, row - self._tall + 1), row)
        self._top = max(0, min(self._top, (self._count - 1) // self.across))
        self.refresh()
        self._read()

    def on_resize(self) -> None:
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
        column = event.x // (WIDTH + GAP)
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
            self._draw(wanted)

    @work(thread=True, exclusive=True, group="thumbnails")
    def _draw(self, wanted: list[int]) -> None:
        worker, few, plain = get_current_worker(), terminal.colour_count() <= 2, ascii_only()
        for number in wanted:
            if worker.is_cancelled:
                return
            image, marks, caption = self._fetch(number)
            made: list[Strip] = []
            if image is not None:
                picture = cells(image, View(), (WIDTH, HEIGHT - 1), "ramp" if plain or few else "quadrants")
                bare = [mark._replace(name="", confidence=None) for mark in marks]
                overlay(picture, bare, View(), None, plain)
                made = strips(picture, colours=not few)
            if not worker.is_cancelled:
                self.app.call_from_thread(self._put, number, made, caption)

    def _put(self, number: int, made: list[Strip], caption: str) -> None:
        self._drawn[number] = made, caption
        while len(self._drawn) > KEPT:
            self._drawn.popitem(last=False)
        self.refresh()

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
        """One line of one picture, or its caption."""
        here = number == self._cursor
        made, caption = self._drawn.get(number, ([], ""))
        if line == HEIGHT - 1:
            bar = sign("▌") if here else " "
            text = fit(f"{bar}{caption or sign('…')}", WIDTH)
            return [Segment(text, self.palette["current" if here else "muted"])]
        blank = self.palette[""]
        at = line - (HEIGHT - 1 - len(made)) // 2
        if not 0 <= at < len(made):
            return [Segment(" " * WIDTH, blank)]
        left = (WIDTH - made[at].cell_length) // 2
        return [
            Segment(" " * left, blank),
            *made[at],
            Segment(" " * (WIDTH - left - made[at].cell_length), blank),
        ]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()
