"""The one widget that shows an image: its pixels as blocks of text, its objects as frames with names.

    picture.show(image, marks)               an image (PIL, RGB) and what is in it
    picture.show(image, marks, focus=3)      with one object in full light
    picture.zoom(3), picture.zoom(None)      close to an object, and the whole again
    picture.say("The image is damaged.")     words in its place

It is drawn in a thread: however large the image, no key waits. Until a new one is ready the old one stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual import work
from textual.app import RenderResult
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.worker import get_current_worker

from tui import terminal
from tui.widgets.blocks import Mark, View, Way, cells, overlay, strips
from tui.widgets.palette import Palette
from tui.widgets.symbols import ascii_only, fit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mark", "Picture", "View"]

AROUND = 0.6  # of an object's size, on each side of it, when it is looked at closely
LEAST = 0.04  # of the picture, that is shown at the least
PAN = 0.2  # of the view, with each press of a key


class Picture(Widget):
    """An image with its objects."""

    DEFAULT_CSS = "Picture { width: 1fr; height: 1fr; min-height: 3; }"

    class Drawn(Message):
        """What was asked for last is on the screen now; `seconds` it took to draw."""

        def __init__(self, picture: Picture, seconds: float) -> None:
            super().__init__()
            self.picture, self.seconds = picture, seconds

        @property
        def control(self) -> Picture:
            return self.picture

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.palette = Palette(self)
        self._image: Image | None = None
        self._marks: Sequence[Mark] = ()
        self._focus: int | None = None
        self._close: int | None = None  # the object that is looked at closely
        self._view = View()
        self._words = ""
        self._strips: list[Strip] = []

    def show(self, image: Image | None, marks: Sequence[Mark] = (), focus: int | None = None) -> None:
        """Show another image, whole, or the same one with other marks and another focus in the view it has."""
        if image is not self._image:
            self._view, self._close = View(), None
        self._image, self._marks, self._words = image, marks, ""
        self._focus = focus if focus is not None and 0 <= focus < len(marks) else None
        if self._close is not None and self._focus is not None and self._close != self._focus:
            self._close = self._focus
            self._view = self._around(self._focus)
        self._again()

    def say(self, words: str) -> None:
        """Show words in place of an image."""
        self._image, self._marks, self._words, self._strips = None, (), words, []
        self.refresh()

    @property
    def zoomed(self) -> bool:
        return self._view != View()

    def zoom(self, number: int | None) -> None:
        """Close to object `number`; None shows the whole again."""
        inside = number is not None and 0 <= number < len(self._marks)
        self._close = number if inside else None
        self._view = self._around(number) if inside and number is not None else View()
        self._again()

    def pan(self, across: int, down: int) -> None:
        """Move the view by a part of itself, as far as there is picture."""
        wide, high = self._view.right - self._view.left, self._view.bottom - self._view.top
        left = min(max(self._view.left + across * PAN * wide, 0.0), 1 - wide)
        top = min(max(self._view.top + down * PAN * high, 0.0), 1 - high)
        self._view = View(left, top, left + wide, top + high)
        self._again()

    def _around(self, number: int) -> View:
        """A view around an object, of the proportions of this widget as far as the picture has room."""
        assert self._image is not None
        cx, cy, w, h = self._marks[number].box
        width, height = self._image.size
        columns, rows = max(1, self.size.width), max(1, self.size.height)
        across = max(w * (1 + 2 * AROUND), LEAST) * width
        down = max(h * (1 + 2 * AROUND), LEAST) * height
        shape = columns / (2 * rows)  # width by height of what there is room for
        across, down = max(across, down * shape), max(down, across / shape)
        wide, high = min(1.0, across / width), min(1.0, down / height)
        left = min(max(cx - wide / 2, 0.0), 1 - wide)
        top = min(max(cy - high / 2, 0.0), 1 - high)
        return View(left, top, left + wide, top + high)

    # Drawing

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.refresh())

    def on_resize(self) -> None:
        if self._close is not None and self._image is not None:
            self._view = self._around(self._close)
        self._again()

    def _again(self) -> None:
        if self._image is None:
            self._strips = []
            self.refresh()
        elif self.is_mounted and self.size.width and self.size.height:
            self._draw(self._image, self._marks, self._focus, self._view, self.size)

    @work(thread=True, exclusive=True, group="picture")
    def _draw(self, image: Image, marks: Sequence[Mark], focus: int | None, view: View, size: Size) -> None:
        worker, begun = get_current_worker(), time.perf_counter()
        few = terminal.colour_count() <= 2
        plain = ascii_only()
        way: Way = "ramp" if plain or few else "quadrants"
        picture = cells(image, view, (size.width, size.height), way)
        overlay(picture, marks, view, focus, plain)
        made = strips(picture, colours=not few)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._put, made, time.perf_counter() - begun)

    def _put(self, made: list[Strip], seconds: float) -> None:
        """Show what was drawn; only lines that differ are painted."""
        before, self._strips = self._strips, made
        if len(before) != len(made):
            self.refresh()
        else:
            above = max(0, (self.size.height - len(made)) // 2)
            changed = [y for y, line in enumerate(made) if line != before[y]]
            if changed:
                self.refresh(*(Region(0, above + y, self.size.width, 1) for y in changed))
        self.post_message(self.Drawn(self, seconds))

    def render(self) -> RenderResult:
        return ""

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        blank = self.palette[""]
        if self._words:
            lines = self._words.splitlines() or [""]
            at = y - max(0, (height - len(lines)) // 2)
            text = fit(lines[at], width, "center") if 0 <= at < len(lines) else " " * width
            return Strip([Segment(text, self.palette["muted"])], width)
        at = y - max(0, (height - len(self._strips)) // 2)
        if not 0 <= at < len(self._strips):
            return Strip([Segment(" " * width, blank)], width)
        line = self._strips[at]
        left = max(0, (width - line.cell_length) // 2)
        return Strip([Segment(" " * left, blank), *line]).adjust_cell_length(width, blank)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()
