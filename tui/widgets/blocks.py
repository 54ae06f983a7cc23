"""A picture as cells of text: four pixels and two colours in each. Frames and names are drawn over it by `frames`.

All in numpy, so that a whole screen takes some milliseconds and can be made in a thread. What a terminal cannot do is
made up for by what it can: few colours by mixing neighbours, none by shades of dots, no blocks by coloured spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui import terminal
from tui.widgets.symbols import ascii_only

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Pixels = np.ndarray[Any, Any]

Kind = Literal["truth", "predicted", "found"]
QUADRANTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"  # bit 0 is upper left, 1 upper right, 2 lower left, 3 lower right
RAMP = " .:-=+*#%@"  # for terminals with neither blocks nor colours
ASPECT = 0.5  # width of a cell by its height
STEP = 8  # colours are rounded to it: neighbours become equal, which a slow link has to carry only once
LIGHT = (299, 587, 114)  # share of red, green and blue in how light a colour looks, out of 1000
# Told apart on any photograph, by a light and a dark ground, and by most people who see fewer colours.
COLOURS = (
    0x4EC9F0, 0xFFD166, 0xEF6F8E, 0x7BD88F, 0xC49BFF, 0xFF9F5A,
    0x5AE0C8, 0xF7A8D8, 0xB8D44A, 0x8FB4FF, 0xE0B088, 0xD0D0D0,
)  # fmt: skip
# What 16 colours are taken to be; Rich sends each of these as the number of its place.
SIXTEEN = (
    0x000000, 0xAA0000, 0x00AA00, 0xAA5500, 0x0000AA, 0xAA00AA, 0x00AAAA, 0xAAAAAA,
    0x555555, 0xFF5555, 0x55FF55, 0xFFFF55, 0x5555FF, 0xFF55FF, 0x55FFFF, 0xFFFFFF,
)  # fmt: skip
OF_SIXTEEN = (14, 11, 9, 10, 13, 3, 6, 5, 2, 12, 1, 7)  # the colours of classes where there are no more
CUBE = (0, 95, 135, 175, 215, 255)  # of the 256 colours: six levels of each of three, and 24 greys
VIVID = 1.25  # how much stronger colours are made for them: tints would all end as grey


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


class Look(NamedTuple):
    """What the terminal can show. `light` is its ground, which counts where there are no colours."""

    colours: int = terminal.TRUE_COLOUR
    plain: bool = False  # ASCII only
    light: bool = False

    @classmethod
    def here(cls, light: bool = False) -> Look:
        return cls(terminal.colour_count(), ascii_only(), light)


@dataclass
class Cells:
    """A picture in cells: the code of each sign and its two colours, arrays of (rows, columns)."""

    signs: Pixels
    ink: Pixels  # 0xRRGGBB
    ground: Pixels
    wide: dict[tuple[int, int], str]  # signs of two cells, by the first one's row and column


def colour_of(number: int, look: Look = Look()) -> int:  # noqa: B008  (it cannot be changed)
    """The colour of a class, 0xRRGGBB."""
    place = number % len(COLOURS)
    return SIXTEEN[OF_SIXTEEN[place]] if look.colours <= 16 else COLOURS[place]


def fitted(size: tuple[int, int], room: tuple[int, int], aspect: float = ASPECT) -> tuple[int, int]:
    """Columns and rows that a picture of `size` pixels takes in `room`, its proportions kept."""
    width, height = max(1, size[0]), max(1, size[1])
    rows = min(room[1], round(room[0] * aspect * height / width))
    columns = min(room[0], round(max(1, rows) * width / height / aspect))
    return max(1, columns), max(1, rows)


def cells(image: Image, view: View, room: tuple[int, int], look: Look) -> Cells:
    """What `view` of `image` (RGB) comes to in `room` columns and rows."""
    width, height = image.size
    box = (view.left * width, view.top * height, view.right * width, view.bottom * height)
    size = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    columns, rows = fitted(size, room)
    across, down = (1, 1) if look.plain else (1, 2) if 2 < look.colours <= 16 else (2, 2)
    small = _small(image, box, columns * across, rows * down)
    if look.colours <= 2:
        return _shades(small, look)
    if look.colours <= 256:
        small = _mixed(small) if look.colours <= 16 else _vivid(small)
    import numpy as np

    pixels = np.asarray(small)
    if look.plain or look.colours <= 16:
        ink, ground = (_packed(pixels[i :: 1 if look.plain else 2]) for i in (0, 0 if look.plain else 1))
        signs: Pixels = np.full(ink.shape, ord(" " if look.plain else "▀"), np.uint32)
        return Cells(signs, ink, ground, {})
    return _quadrants(pixels.astype(np.int32), columns, rows)


def _small(image: Image, box: tuple[float, float, float, float], columns: int, rows: int) -> Image:
    from PIL import Image as pil

    shrinks = box[2] - box[0] >= columns and box[3] - box[1] >= rows
    return image.resize((columns, rows), pil.Resampling.BOX if shrinks else pil.Resampling.BICUBIC, box=box)


def _quadrants(pixels: Pixels, columns: int, rows: int) -> Cells:
    """Each cell's four pixels in two groups, by light, and each group in its mean colour."""
    import numpy as np

    four = pixels.reshape(rows, 2, columns, 2, 3).transpose(0, 2, 1, 3, 4).reshape(rows, columns, 4, 3)
    light = four @ np.array(LIGHT)
    over = light > ((light.max(2) + light.min(2)) // 2)[..., None]
    count = over.sum(2)
    ink = (four * over[..., None]).sum(2) // np.maximum(count, 1)[..., None]
    ground = (four * ~over[..., None]).sum(2) // np.maximum(4 - count, 1)[..., None]
    ink[count == 0] = ground[count == 0]
    ink, ground = (colour // STEP * STEP + STEP // 2 for colour in (ink, ground))
    which = (over * np.array([1, 2, 4, 8])).sum(2)
    which[(ink == ground).all(2)] = 0
    signs = np.array([ord(c) for c in QUADRANTS], np.uint32)[which]
    return Cells(signs, _packed(ink), _packed(ground), {})


def _stretched(image: Image) -> Image:
    """Light and dark drawn apart: few steps are too few for a pale photograph."""
    from PIL import ImageOps

    return ImageOps.autocontrast(image, cutoff=1, preserve_tone=True)


def _vivid(image: Image) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Color(image).enhance(VIVID)


def _mixed(image: Image) -> Image:
    """The image in 16 colours, what is lost at one pixel made good at its neighbours."""
    from PIL import Image as pil

    palette = pil.new("P", (1, 1))
    palette.putpalette([part for colour in SIXTEEN for part in (colour >> 16, colour >> 8 & 255, colour & 255)])
    return _stretched(image).quantize(palette=palette, dither=pil.Dither.FLOYDSTEINBERG).convert("RGB")


def _shades(image: Image, look: Look) -> Cells:
    """Without colours: dots, thick where it is light, or letters."""
    import numpy as np

    grey = _stretched(image).convert("L")
    if look.plain:
        light = np.asarray(grey).astype(np.int32)
        ramp = RAMP[::-1] if look.light else RAMP
        signs = np.array([ord(c) for c in ramp], np.uint32)[light * (len(RAMP) - 1) // 255]
    else:
        dots = np.asarray(grey.convert("1")) != look.light
        four = dots.reshape(dots.shape[0] // 2, 2, dots.shape[1] // 2, 2).transpose(0, 2, 1, 3)
        which = (four.reshape(*four.shape[:2], 4) * np.array([1, 2, 4, 8])).sum(2)
        signs = np.array([ord(c) for c in QUADRANTS], np.uint32)[which]
    none = np.zeros(signs.shape, np.uint32)
    return Cells(signs, none, none.copy(), {})


def _packed(colour: Pixels) -> Pixels:
    import numpy as np

    parts: Pixels = np.clip(colour, 0, 255).astype(np.uint32)
    found: Pixels = (parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2]
    return found


def _parts(packed: Pixels) -> Pixels:
    import numpy as np

    found: Pixels = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.int32)
    return found


def few(packed: Pixels) -> Pixels:
    """The nearest of the 240 colours that all terminals of 256 agree on, spelled so that Rich sends just that one.

    Rich takes grey for one of 25 even steps, which the terminals' greys are not quite.
    """
    import numpy as np

    parts = _parts(packed)
    cube = np.array(CUBE)[(parts[..., None] > np.array([47, 115, 155, 195, 235])).sum(-1)]
    step = np.clip((parts @ np.array(LIGHT) // 1000 - 3) // 10, 0, 23)[..., None]
    weight = np.array([2, 4, 3])
    better = ((step * 10 + 8 - parts) ** 2 @ weight) < ((cube - parts) ** 2 @ weight)
    flat = (cube.min(-1) == cube.max(-1)) & (cube[..., 0] > 0) & (cube[..., 0] < 255)
    return _packed(np.where((better | flat)[..., None], (step + 1) * 51 // 5, cube))


def sixteen(packed: Pixels) -> Pixels:
    """The nearest of 16 colours."""
    import numpy as np

    known = _parts(np.array(SIXTEEN, np.uint32))
    away = ((_parts(packed)[..., None, :] - known) ** 2) @ np.array([2, 4, 3])
    found: Pixels = np.array(SIXTEEN, np.uint32)[away.argmin(-1)]
    return found


def dimmed(colour: Any, share: float) -> Any:
    """Colours (an int, or an array of them) with `share` of their light."""
    factor = int(share * 256)
    red, green, blue = (((colour >> shift & 255) * factor) >> 8 for shift in (16, 8, 0))
    return (red << 16) | (green << 8) | blue


def strips(picture: Cells, look: Look) -> list[Strip]:
    """The picture as lines that a widget can return."""
    import numpy as np

    rows, columns = picture.signs.shape
    ink, ground = picture.ink, picture.ground
    if 2 < look.colours <= 256:
        ink, ground = (sixteen if look.colours <= 16 else few)(np.stack([ink, ground]))
    key = (ink.astype(np.uint64) << np.uint64(24)) | ground
    wide: dict[int, list[int]] = {}
    for row, column in picture.wide:
        wide.setdefault(row, []).append(column)
    found = []
    for y in range(rows):
        line = picture.signs[y].astype("<u4").tobytes().decode("utf-32-le")
        starts = [0, *(np.flatnonzero(np.diff(key[y])) + 1).tolist(), columns]
        inks, grounds = ink[y].tolist(), ground[y].tolist()
        segments = []
        for start, end in pairwise(starts):
            text = line[start:end]
            for column in wide.get(y, ()):  # its second cell says nothing of its own
                if start <= column < end:
                    at = column - start
                    text = text[: at + 1] + "\0" + text[at + 2 :]
            style = _style(inks[start], grounds[start]) if look.colours > 2 else REVERSE if grounds[start] else BARE
            segments.append(Segment(text.replace("\0", ""), style))
        found.append(Strip(segments, columns))
    return found


REVERSE, BARE = Style(reverse=True), Style()  # where there are no colours; filters want a style in any case


@lru_cache(maxsize=16384)
def _style(ink: int, ground: int) -> Style:
    return Style.from_color(_colour(ink), _colour(ground))


@lru_cache(maxsize=16384)
def _colour(value: int) -> Color:
    return Color.from_rgb(value >> 16, value >> 8 & 255, value & 255)
