"""Frames and names over a picture of cells.

They are cells and not pixels: at the size of a terminal a line of pixels eats the picture, and letters of pixels cannot
be read. Frames first, large ones below; then the names, each in the first row near its frame that is free.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from rich.cells import cell_len

from tui.widgets.blocks import LIGHT, Cells, Kind, Look, Mark, View, colour_of, dimmed
from tui.widgets.symbols import cut

DIM = 0.45  # how much of its light a picture keeps around the one object that is looked at
SLIGHT = 0.45  # the same of the frames that are not looked at
BEHIND, TINT = 0.46, 0.15  # what a frame lies on: so much of the picture, and so much of the frame's colour
CROWD = 12  # objects, above which a name is no wider than its frame
FRAMES: dict[Kind, str] = {"truth": "┌─┐│└┘", "predicted": "╭╌╮╎╰╯", "found": "┏━┓┃┗┛"}
HEAVY: dict[Kind, str] = {"truth": "┏━┓┃┗┛", "predicted": "┏╍┓╏┗┛", "found": "┏━┓┃┗┛"}  # of what is looked at
PLAIN: dict[Kind, str] = {"truth": "+-+|++", "predicted": "+.+:++", "found": "#=#H##"}


class Place(NamedTuple):
    """A frame in cells, its last row and column included; an edge outside of the view is not drawn."""

    left: int
    top: int
    right: int
    bottom: int
    edges: tuple[bool, bool, bool, bool]  # left, top, right, bottom: whether they are in sight


def overlay(picture: Cells, marks: Sequence[Mark], view: View, focus: int | None, look: Look) -> None:
    """Draw `marks` over `picture`; with a `focus` that one alone in full light and with its name."""
    shape = picture.signs.shape
    places = [_place(mark, view, shape) for mark in marks]
    order = sorted(range(len(marks)), key=lambda i: -marks[i].box[2] * marks[i].box[3])
    lit = places[focus] if focus is not None else None
    if focus is not None:
        _darken(picture, lit)
        before = [array.copy() for array in (picture.signs, picture.ink, picture.ground)]
        order.remove(focus)
    mean = dimmed(picture.ink, 0.5) + dimmed(picture.ground, 0.5)
    for i in order:
        colour, frame = colour_of(marks[i].number, look), (PLAIN if look.plain else FRAMES)[marks[i].kind]
        colour = colour if focus is None else dimmed(colour, SLIGHT)
        _frame(picture, places[i], frame, colour, mean if focus is not None else _behind(mean, colour, look))
    if focus is not None:
        if lit:  # what others drew over the one object goes
            inside = slice(lit.top, lit.bottom + 1), slice(lit.left, lit.right + 1)
            for now, then in zip((picture.signs, picture.ink, picture.ground), before, strict=True):
                now[inside] = then[inside]
        colour, frame = colour_of(marks[focus].number, look), (PLAIN if look.plain else HEAVY)[marks[focus].kind]
        _frame(picture, lit, frame, colour, _behind(mean, colour, look))
        order = [focus]
    taken: set[tuple[int, int]] = set()
    for i in reversed(order):
        if place := places[i]:
            _name(picture, place, marks[i], colour_of(marks[i].number, look), taken, len(order) > CROWD)


def _behind(mean: Any, colour: int, look: Look) -> Any:
    return dimmed(mean, 0.0) if look.colours <= 16 else dimmed(mean, BEHIND) + dimmed(colour, TINT)


def _darken(picture: Cells, but: Place | None) -> None:
    for name in ("ink", "ground"):
        before = getattr(picture, name)
        after = dimmed(before, DIM)
        if but:
            inside = slice(but.top, but.bottom + 1), slice(but.left, but.right + 1)
            after[inside] = before[inside]
        setattr(picture, name, after)


def _place(mark: Mark, view: View, shape: tuple[int, ...]) -> Place | None:
    rows, columns = shape
    cx, cy, w, h = mark.box
    if not all(map(isfinite, mark.box)):
        return None
    across, down = view.right - view.left, view.bottom - view.top
    left, right = (cx - w / 2 - view.left) / across, (cx + w / 2 - view.left) / across
    top, bottom = (cy - h / 2 - view.top) / down, (cy + h / 2 - view.top) / down
    if right <= 0 or bottom <= 0 or left >= 1 or top >= 1:
        return None
    slack = 1e-6
    edges = (left >= -slack, top >= -slack, right <= 1 + slack, bottom <= 1 + slack)
    first = max(0, min(columns - 1, int(left * columns))), max(0, min(rows - 1, int(top * rows)))
    last = min(columns - 1, int(right * columns - slack)), min(rows - 1, int(bottom * rows - slack))
    return Place(*first, max(first[0], last[0]), max(first[1], last[1]), edges)


def _frame(picture: Cells, place: Place | None, signs: str, colour: int, ground: Any) -> None:
    if place is None:
        return
    left, top, right, bottom, (has_left, has_top, has_right, has_bottom) = place

    def put(row: int, column: int, sign: str) -> None:
        picture.signs[row, column] = ord(sign)
        picture.ink[row, column] = colour
        picture.ground[row, column] = ground[row, column]

    if right - left < 2 or bottom - top < 1:  # too small for a frame
        if right == left and bottom == top:
            put(top, left, "o" if signs.isascii() else "■")
        else:
            for row, column, sign in ((top, left, signs[0]), (top, right, signs[2]), (bottom, left, signs[4])):
                put(row, column, sign if bottom > top else signs[1])
            put(bottom, right, signs[5] if bottom > top else signs[1])
        return
    for column in range(left, right + 1):
        if has_top:
            put(top, column, signs[1])
        if has_bottom:
            put(bottom, column, signs[1])
    for row in range(top, bottom + 1):
        if has_left:
            put(row, left, signs[3])
        if has_right:
            put(row, right, signs[3])
    for here, row, column, sign in (
        (has_top and has_left, top, left, signs[0]),
        (has_top and has_right, top, right, signs[2]),
        (has_bottom and has_left, bottom, left, signs[4]),
        (has_bottom and has_right, bottom, right, signs[5]),
    ):
        if here:
            put(row, column, sign)


def _name(picture: Cells, place: Place, mark: Mark, colour: int, taken: set[tuple[int, int]], crowd: bool) -> None:
    """Write a mark's name where there is room: on the frame's upper edge, else near it. In a crowd no wider than it."""
    rows, columns = picture.signs.shape
    room = min(columns, place.right - place.left + 1) if crowd else columns
    full, name = (unicodedata.normalize("NFC", text) for text in (mark.label, mark.name))
    text = full if cell_len(full) <= room else cut(name, room)
    width = cell_len(text)
    if width < 2 or (crowd and width < min(3, cell_len(name))):
        return
    for row, column in (
        (place.top, place.left),
        (place.top - 1, place.left),
        (place.bottom, place.left),
        (place.bottom + 1, place.left),
        (place.top + 1, place.left + 1),
    ):
        column = max(0, min(column, columns - width))
        around = {(row, column + i) for i in range(-1, width + 1)}  # two names side by side would read as one
        if 0 <= row < rows and not around & taken:
            taken |= {(row, column + i) for i in range(width)}
            _write(picture, row, column, text, colour)
            return


def _write(picture: Cells, row: int, column: int, text: str, colour: int) -> None:
    light = sum(share * (colour >> shift & 255) for share, shift in zip(LIGHT, (16, 8, 0), strict=True)) // 1000
    for character in text:
        width = cell_len(character)
        if not width:
            continue
        picture.wide.pop((row, column - 1), None)
        picture.wide.pop((row, column), None)
        for i in range(width):
            picture.ink[row, column + i] = 0x101418 if light > 120 else 0xFFFFFF
            picture.ground[row, column + i] = colour
        picture.signs[row, column] = ord(character)
        if width == 2:
            picture.wide[(row, column)] = character
        column += width
