"""The one widget that shows an image: its pixels as blocks of text, its objects as frames with names.

    picture.show(image, marks)               an image (PIL, RGB) and what is in it
    picture.show(image, marks, focus=3)      with one object in full light
    picture.zoom(3), picture.zoom(None)      close to an object, and the whole again
    picture.sharpen(image)                   the same image, of more pixels, for the view there is
    picture.say("The image is damaged.")     words in its place

Marks of several kinds in one picture get a line below it that says which frame is which.

It is drawn in a thread: however large the image, no key waits. Until a new one is ready the old one stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from math import isfinite
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual import work
from textual.app import RenderResult
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.worker import get_current_worker

from tui import graphics
from tui.widgets.blocks import Kind, Look, Mark, View, cells, strips
from tui.widgets.frames import FRAMES, PLAIN, overlay
from tui.widgets.palette import Palette
from tui.widgets.symbols import ascii_only, fit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mark", "Picture", "View"]

NUMBERS = count(1)  # of pictures, as the terminal knows them
AROUND = 0.6  # of an object's size, on each side of it, when it is looked at closely
MIDDLE = (0.5, 0.5, 0.2, 0.2)  # the box to look at where there is no object
LEAST = 0.04  # of the picture, that is shown at the least
PAN = 0.2  # of the view, with each press of a key
KINDS: dict[Kind, str] = {"truth": "labelled", "predicted": "predicted", "found": "found"}


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
        self._words = self._told = ""
        self._strips: list[Strip] = []
        self._number = next(NUMBERS)
        self._placed = False  # whether the terminal holds pixels of ours

    def show(self, image: Image | None, marks: Sequence[Mark] = (), focus: int | None = None) -> None:
        """Show another image, whole, or the same one with other marks and another focus in the view it has."""
        if image is not self._image:
            self._view, self._close = View(), None
        self._image, self._marks, self._words = image, marks, ""
        self._focus = focus if focus is not None and 0 <= focus < len(marks) else None
        if self._close is not None and self._focus is not None and self._close != self._focus:
            self._close = self._focus
            self._view = self._around(marks[self._focus].box)
        self._again()

    def sharpen(self, image: Image) -> None:
        """The image that is shown, of more pixels."""
        if self._image is not None:
            self._image = image
            self._again()

    def say(self, words: str) -> None:
        """Show words in place of an image."""
        self._image, self._marks, self._words, self._strips = None, (), words, []
        self.away()
        self.refresh()

    @property
    def zoomed(self) -> bool:
        return self._view != View()

    @property
    def close(self) -> int | None:
        """The object that is looked at closely."""
        return self._close

    def zoom(self, number: int | None) -> None:
        """Close to object `number`; None shows the whole again."""
        inside = number is not None and 0 <= number < len(self._marks)
        self._close = number if inside else None
        self._view = self._around(self._marks[number].box) if inside and number is not None else View()
        self._again()

    def closer(self) -> None:
        """Close to the middle of the picture, where there is an image."""
        if self._image is not None:
            self._close, self._view = None, self._around(MIDDLE)
            self._again()

    def pan(self, across: int, down: int) -> None:
        """Move the view by a part of itself, as far as there is picture."""
        wide, high = self._view.right - self._view.left, self._view.bottom - self._view.top
        left = min(max(self._view.left + across * PAN * wide, 0.0), 1 - wide)
        top = min(max(self._view.top + down * PAN * high, 0.0), 1 - high)
        self._view = View(left, top, left + wide, top + high)
        self._again()

    def _around(self, box: Sequence[float]) -> View:
        """A view around a box (cx, cy, w, h), of the proportions of this widget as far as the picture has room."""
        assert self._image is not None
        cx, cy, w, h = (part if isfinite(part) else 0.5 for part in box)
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
        self.app.theme_changed_signal.subscribe(self, lambda _: self._again())

    def on_resize(self) -> None:
        if self._close is not None and self._image is not None:
            self._view = self._around(self._marks[self._close].box)
        self._again()

    def _again(self) -> None:
        if self._image is None:
            self._strips = []
            self.away()
            self.refresh()
        elif self.is_mounted and self.size.width and self.size.height:
            look = Look.here(light=not self.app.current_theme.dark)
            room = Size(self.size.width, max(1, self.size.height - bool(self._legend)))
            self._draw(self._image, self._marks, self._focus, self._view, room, look, self._cell)

    @work(thread=True, exclusive=True, group="picture")
    def _draw(
        self,
        image: Image,
        marks: Sequence[Mark],
        focus: int | None,
        view: View,
        room: Size,
        look: Look,
        cell: graphics.Cell | None,
    ) -> None:
        worker, begun, png = get_current_worker(), time.perf_counter(), b""
        if cell:
            png, picture = graphics.drawn(image, view, (room.width, room.height), cell, marks, focus, look)
            picture.signs[picture.signs == 0] = ord(" ")
        else:
            picture = cells(image, view, (room.width, room.height), look)
            overlay(picture, marks, view, focus, look)
        made = strips(picture, look)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._put, made, time.perf_counter() - begun, png)

    # Pixels, where the terminal draws them

    @property
    def _cell(self) -> graphics.Cell | None:
        return getattr(self.app, "cell", None) if hasattr(self.app._driver, "send") else None

    def _send(self, text: str) -> None:
        send = getattr(self.app._driver, "send", None)
        if send:
            send(text)

    def away(self) -> None:
        """Take the pixels off the screen, as when another screen or a dialog lies over it."""
        if self._placed:
            self._placed = False
            self._send(graphics.removed(self._number))

    def back(self) -> None:
        """Put them there again."""
        if self._cell:
            self._again()

    def on_hide(self) -> None:
        self.away()

    def on_show(self) -> None:
        self.back()

    def on_unmount(self) -> None:
        self.away()

    def _place(self, png: bytes) -> None:
        if not self.is_on_screen or not self.screen.is_current or not self._strips:
            return
        wide, high = self._strips[0].cell_length, len(self._strips)
        at = self.content_region.x + max(0, (self.size.width - wide) // 2), self.content_region.y + self._above
        self._send(graphics.placed(self._number, png, at, (wide, high)))
        self._placed = True

    def _put(self, made: list[Strip], seconds: float, png: bytes) -> None:
        """Show what was drawn; only lines that differ are painted."""
        before, self._strips = self._strips, made
        if len(before) != len(made) or self._legend != self._told:
            self._told = self._legend
            self.refresh()
        else:
            above = self._above
            changed = [y for y, line in enumerate(made) if line != before[y]]
            if changed:
                self.refresh(*(Region(0, above + y, self.size.width, 1) for y in changed))
        if png:
            self._place(png)
        self.post_message(self.Drawn(self, seconds))

    @property
    def _legend(self) -> str:
        """Which frame is which, where there are several."""
        kinds = [kind for kind in KINDS if any(mark.kind == kind for mark in self._marks)]
        frames = PLAIN if ascii_only() else FRAMES
        return "   ".join(f"{frames[kind][1] * 3} {KINDS[kind]}" for kind in kinds) if len(kinds) > 1 else ""

    @property
    def _above(self) -> int:
        """Lines over the picture."""
        return max(0, (self.size.height - bool(self._legend) - len(self._strips)) // 2)

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
        if self._strips and self._legend and y == self._above + len(self._strips):
            return Strip([Segment(fit(self._legend, width, "center"), self.palette["muted"])], width)
        at = y - self._above
        if not 0 <= at < len(self._strips):
            return Strip([Segment(" " * width, blank)], width)
        line = self._strips[at]
        left = max(0, (width - line.cell_length) // 2)
        return Strip([Segment(" " * left, blank), *line]).adjust_cell_length(width, blank)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()
