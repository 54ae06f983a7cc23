"""A picture as cells of text: four pixels and two colours in each, frames and names drawn over it as text.

Frames are cells and not pixels: at the size of a terminal a line of pixels eats the picture, and letters of pixels cannot
be read. All in numpy, so that a whole screen takes some milliseconds and can be made in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.widgets.symbols import cut

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Way = Literal["quadrants", "ramp"]
Kind = Literal["truth", "predicted", "found"]
QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"  # bit 0 is upper left, 1 upper right, 2 lower left, 3 lower right
RAMP = " .:-=+*#%@"  # darkest first, for terminals without such signs or without colours
ASPECT = 0.5  # width of a cell by its height
STEP = 8  # colours are rounded to it: neighbours become equal, which a slow link has to carry only once
DIM = 0.45  # how much of its light a picture keeps around the one object that is looked at
SLIGHT = 0.35  # the same of the frames that are not looked at
BEHIND = 0.6  # how much light the picture keeps behind a frame: less is a bar, more has no contrast
FRAMES: dict[Kind, str] = {"truth": "┌─┐│└┘", "predicted": "╭╌╮╎╰╯", "found": "┏━┓┃┗┛"}
PLAIN_FRAME = "+-+|++"
# Told apart on any photograph, by a light and a dark ground, and by most people who see fewer colours.
COLOURS = (
    0x4EC9F0, 0xFFD166, 0xEF6F8E, 0x7BD88F, 0xC49BFF, 0xFF9F5A,
    0x5AE0C8, 0xF7A8D8, 0xB8D44A, 0x8FB4FF, 0xE0B088, 0xD0D0D0,
)  # fmt: skip
PRIMARY = ("bright_cyan", "bright_yellow", "bright_red", "bright_green", "bright_magenta", "bright_blue")


class Mark(NamedTuple):
    """An object in a picture: centre and size as parts of it, its class by name and number."""

    box: tuple[float, float, float, float]  # cx, cy, w, h
    name: str
    number: int
    confidence: float | None = None
    kind: Kind = "truth"

    @property
    def label(self) -> str:
        return self.name if self.confidence is None else f"{self.name} {self.confidence:.2f}"


class View(NamedTuple):
    """The part of a picture that is shown, as parts of its width and height."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0


@dataclass
class Cells:
    """A picture in cells: the code of each sign and its two colours, arrays of (rows, columns)."""

    signs: np.ndarray[Any, Any]
    ink: np.ndarray[Any, Any]  # 0xRRGGBB
    ground: np.ndarray[Any, Any]
    wide: dict[tuple[int, int], str]  # signs of two cells, by the first one's row and column


def colour_of(number: int) -> int:
    """The colour of a class, 0xRRGGBB."""
    return COLOURS[number % len(COLOURS)]


def fitted(size: tuple[int, int], room: tuple[int, int], aspect: float = ASPECT) -> tuple[int, int]:
    """Columns and rows that a picture of `size` pixels takes in `room`, its proportions kept."""
    width, height = max(1, size[0]), max(1, size[1])
    rows = min(room[1], round(room[0] * aspect * height / width))
    columns = min(room[0], round(max(1, rows) * width / height / aspect))
    return max(1, columns), max(1, rows)


def cells(image: Image, view: View, room: tuple[int, int], way: Way) -> Cells:
    """What `view` of `image` (RGB) comes to in `room` columns and rows."""
    width, height = image.size
    box = (view.left * width, view.top * height, view.right * width, view.bottom * height)
    size = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    columns, rows = fitted(size, room)
    return _ramp(image, box, columns, rows) if way == "ramp" else _quadrants(image, box, columns, rows)


def _small(image: Image, box: tuple[float, float, float, float], columns: int, rows: int) -> np.ndarray[Any, Any]:
    import numpy as np
    from PIL import Image as pil

    shrinks = box[2] - box[0] > columns
    way = pil.Resampling.BOX if shrinks else pil.Resampling.BICUBIC
    small: np.ndarray[Any, Any] = np.asarray(image.resize((columns, rows), way, box=box)).astype(np.int32)
    return small


def _quadrants(image: Image, box: tuple[float, float, float, float], columns: int, rows: int) -> Cells:
    """Each cell's four pixels in two groups, by light, and each group in its mean colour."""
    import numpy as np

    pixels = _small(image, box, columns * 2, rows * 2)
    four = pixels.reshape(rows, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4).reshape(rows, columns, 4, 3)
    light = four @ np.array([299, 587, 114])
    over = light > ((light.max(2) + light.min(2)) // 2)[..., None]
    count = over.sum(2)
    ink = (four * over[..., None]).sum(2) // np.maximum(count, 1)[..., None]
    ground = (four * ~over[..., None]).sum(2) // np.maximum(4 - count, 1)[..., None]
    ink[count == 0] = ground[count == 0]
    ink, ground = (np.minimum(colour // STEP * STEP + STEP // 2, 255) for colour in (ink, ground))
    which = (over * np.array([1, 2, 4, 8])).sum(2)
    which[(ink == ground).all(2)] = 0
    signs = np.array([ord(c) for c in QUADRANTS], np.uint32)[which]
    return Cells(signs, _packed(ink), _packed(ground), {})


def _ramp(image: Image, box: tuple[float, float, float, float], columns: int, rows: int) -> Cells:
    import numpy as np

    pixels = _small(image, box, columns, rows)
    light = pixels @ np.array([299, 587, 114]) // 1000
    signs = np.array([ord(c) for c in RAMP], np.uint32)[light * (len(RAMP) - 1) // 255]
    return Cells(signs, _packed(pixels // STEP * STEP), np.zeros((rows, columns), np.uint32), {})


def _packed(colour: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    parts: np.ndarray[Any, Any] = colour.astype(np.uint32)
    found: np.ndarray[Any, Any] = (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]
    return found


def dimmed(colour: Any, share: float) -> Any:
    """Colours (an int, or an array of them) with `share` of their light."""
    factor = int(share * 256)
    red, green, blue = (((colour >> shift & 255) * factor) >> 8 for shift in (16, 8, 0))
    return (red << 16) | (green << 8) | blue


def overlay(picture: Cells, marks: Sequence[Mark], view: View, focus: int | None, plain: bool = False) -> None:
    """Draw frames and names over `picture`; the one of `focus` alone in full light. Small ones lie on top."""
    if focus is not None:
        lit = _place(marks[focus], view, picture.signs.shape)
        for name in ("ink", "ground"):
            before = getattr(picture, name)
            after = dimmed(before, DIM)
            if lit:
                inside = slice(lit.top, lit.bottom + 1), slice(lit.left, lit.right + 1)
                after[inside] = before[inside]
            setattr(picture, name, after)
    order = sorted(range(len(marks)), key=lambda i: (i == focus, -marks[i].box[2] * marks[i].box[3]))
    drawn = []
    mean = dimmed(picture.ink, 0.5) + dimmed(picture.ground, 0.5)
    behind = dimmed(mean, BEHIND)
    for i in order:
        place = _place(marks[i], view, picture.signs.shape)
        if place:
            away = focus is not None and i != focus
            colour = dimmed(colour_of(marks[i].number), SLIGHT) if away else colour_of(marks[i].number)
            signs = PLAIN_FRAME if plain else FRAMES["found" if i == focus else marks[i].kind]
            _frame(picture, place, signs, colour, mean if away else behind)
            if not away:
                drawn.append((place, marks[i]))
    taken: set[tuple[int, int]] = set()
    crowd = len(drawn) > 12
    for place, mark in reversed(drawn):
        _name(picture, place, mark, taken, crowd)


class Place(NamedTuple):
    """A frame in cells, its last row and column included; an edge outside of the view is not drawn."""

    left: int
    top: int
    right: int
    bottom: int
    edges: tuple[bool, bool, bool, bool]  # left, top, right, bottom: whether they are in sight


def _place(mark: Mark, view: View, shape: tuple[int, ...]) -> Place | None:
    rows, columns = shape
    cx, cy, w, h = mark.box
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


def _frame(picture: Cells, place: Place, signs: str, colour: int, ground: Any) -> None:
    left, top, right, bottom, (has_left, has_top, has_right, has_bottom) = place

    def put(row: int, column: int, sign: str) -> None:
        picture.signs[row, column] = ord(sign)
        picture.ink[row, column] = colour
        picture.ground[row, column] = ground[row, column]

    if right - left < 2 or bottom - top < 1:  # too small for a frame
        if right == left and bottom == top:
            put(top, left, "■" if signs != PLAIN_FRAME else "o")
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


def _name(picture: Cells, place: Place, mark: Mark, taken: set[tuple[int, int]], crowd: bool) -> None:
    """Write a mark's name where there is room: on the frame's upper edge, else near it. In a crowd no wider than it."""
    rows, columns = picture.signs.shape
    room = min(columns, place.right - place.left + 1) if crowd else columns
    text = mark.label if cell_len(mark.label) <= room else cut(mark.name, room)
    width = cell_len(text)
    if width < 2 or (crowd and width < min(3, cell_len(mark.name))):
        return
    for row, column in (
        (place.top, place.left),
        (place.top - 1, place.left),
        (place.bottom, place.left),
        (place.bottom + 1, place.left),
        (place.top + 1, place.left + 1),
    ):
        column = max(0, min(column, columns - width))
        spots = {(row, column + i) for i in range(width)}
        if 0 <= row < rows and not spots & taken:
            taken |= spots
            _write(picture, row, column, text, colour_of(mark.number))
            return


def _write(picture: Cells, row: int, column: int, text: str, colour: int) -> None:
    light = (299 * (colour >> 16) + 587 * (colour >> 8 & 255) + 114 * (colour & 255)) // 1000
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


def strips(picture: Cells, colours: bool = True) -> list[Strip]:
    """The picture as lines that a widget can return; without `colours` the signs alone."""
    import numpy as np

    rows, columns = picture.signs.shape
    key = (picture.ink.astype(np.uint64) << np.uint64(24)) | picture.ground
    found = []
    for y in range(rows):
        line = picture.signs[y].astype("<u4").tobytes().decode("utf-32-le")
        starts = [0, *(np.flatnonzero(np.diff(key[y])) + 1).tolist(), columns]
        inks, grounds = picture.ink[y].tolist(), picture.ground[y].tolist()
        wide = [column for row, column in picture.wide if row == y]
        segments = []
        for start, end in pairwise(starts):
            text = line[start:end]
            for column in wide:  # its second cell says nothing of its own
                if start <= column < end:
                    at = column - start
                    text = text[: at + 1] + "\0" + text[at + 2 :]
            style = _style(inks[start], grounds[start]) if colours else None
            segments.append(Segment(text.replace("\0", ""), style))
        found.append(Strip(segments, columns))
    return found


@lru_cache(maxsize=65536)
def _style(ink: int, ground: int) -> Style:
    return Style.from_color(_colour(ink), _colour(ground))


@lru_cache(maxsize=65536)
def _colour(value: int) -> Color:
    return Color.from_rgb(value >> 16, value >> 8 & 255, value & 255)
