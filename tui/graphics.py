"""Real pixels, in terminals that draw them: kitty's graphics protocol, which others speak too.

A terminal is asked once, before the screens open, and only where its name says that it will answer: an answer that comes
late would be typed into whatever has the focus. tmux and screen pass no pictures on, so there nobody is asked.
"""

from __future__ import annotations

import base64
import io
import os
import re
import select
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

    from tui.widgets.blocks import Cells, Look, Mark, View

SPEAKERS = ("kitty", "ghostty", "wezterm")
TIMEOUT = 1.0  # seconds; such a terminal answers after one round trip
PIECE = 4096  # characters of a picture in one message, as the protocol has it
QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c"
COLOURS = 240  # of a picture sent: half the bytes of one in full colour, and nobody sees it at this size
HOLE = COLOURS  # the number of the colour that lets the text below shine through
LINE = 2  # pixels of a frame
BOX_DRAWING = range(0x2500, 0x25FF)  # signs that frames are made of


class Cell(NamedTuple):
    """Pixels of one character cell."""

    width: int
    height: int


def may_draw(environment: Mapping[str, str]) -> bool:
    """Whether the terminal's name says that it draws pictures and will answer when asked."""
    if environment.get("TMUX") or environment.get("STY") or environment.get("TERM", "").startswith(("tmux", "screen")):
        return False
    told = [environment.get(name, "").lower() for name in ("TERM", "TERM_PROGRAM")]
    return any(speaker in text for text in told for speaker in SPEAKERS)


def ask(timeout: float = TIMEOUT) -> Cell | None:
    """The size of a cell where the terminal draws pictures, else None. Call it before anything else reads the input."""
    if sys.platform == "win32" or not may_draw(os.environ):
        return None
    import termios
    import tty

    try:
        source, target = sys.__stdin__.fileno(), sys.__stderr__.fileno()  # type: ignore[union-attr]
        before = termios.tcgetattr(source)
    except (AttributeError, OSError, ValueError, termios.error):
        return None
    try:
        tty.setcbreak(source)
        os.write(target, QUESTION.encode())
        return read_answer(_listen(source, timeout))
    except (OSError, termios.error):
        return None
    finally:
        termios.tcsetattr(source, termios.TCSAFLUSH, before)  # what came meanwhile is dropped, not typed


def _listen(source: int, timeout: float) -> str:
    """What the terminal says up to its name, which it gives last."""
    end, heard = time.monotonic() + timeout, b""
    while (left := end - time.monotonic()) > 0 and len(heard) < 1000:
        if not select.select([source], [], [], left)[0]:
            break
        more = os.read(source, 1000)
        heard += more
        if not more or re.search(rb"\x1b\[\?[\d;]*c", heard):
            break
    return heard.decode("ascii", "replace")


def read_answer(text: str) -> Cell | None:
    """The cell's size, where the answer says both that pictures are drawn and how large a cell is."""
    size = re.search(r"\x1b\[6;(\d{1,3});(\d{1,3})t", text)
    if "\x1b_Gi=31;OK" not in text or not size:
        return None
    height, width = int(size[1]), int(size[2])
    return Cell(width, height) if width > 1 and height > 1 else None


def placed(number: int, png: bytes, at: tuple[int, int], room: tuple[int, int]) -> str:
    """What to send so that picture `number` stands at column, row `at` (from 0) in `room` columns and rows.

    The cursor is where it was afterwards.
    """
    data = base64.b64encode(png).decode()
    pieces = [data[i : i + PIECE] for i in range(0, len(data), PIECE)]
    head = f"a=T,f=100,i={number},p=1,q=2,C=1,c={room[0]},r={room[1]},"
    sent = "".join(
        f"\x1b_G{'' if i else head}m={int(i < len(pieces) - 1)};{piece}\x1b\\" for i, piece in enumerate(pieces)
    )
    return f"\x1b7\x1b[{at[1] + 1};{at[0] + 1}H{sent}\x1b8"


def removed(number: int) -> str:
    """What to send so that picture `number` goes."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


def drawn(
    image: Image, view: View, room: tuple[int, int], cell: Cell, marks: Sequence[Mark], focus: int | None, look: Look
) -> tuple[bytes, Cells]:
    """`view` of `image` as PNG with frames in it, as large as `room` columns and rows allow; and the names as cells.

    Names stay letters, for no font here has all of the world's; the picture has holes where they stand.
    """
    from PIL import Image as pil
    from PIL import ImageDraw

    from tui.widgets import blocks, frames

    width, height = image.size
    box = (view.left * width, view.top * height, view.right * width, view.bottom * height)
    part = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    columns, rows = blocks.fitted(part, room, cell.width / cell.height)
    size = columns * cell.width, rows * cell.height
    shown = image.resize(size, pil.Resampling.BILINEAR, box=box)
    edges = [_edges(mark, view, size) for mark in marks]
    if focus is not None:
        left, top, right, bottom = (round(v) for v in edges[focus])
        inside = shown.crop((left, top, right, bottom))
        shown = shown.point(lambda value: int(value * frames.DIM))
        shown.paste(inside, (left, top))
    pen = ImageDraw.Draw(shown)
    for i in sorted(range(len(marks)), key=lambda i: (i == focus, -marks[i].box[2] * marks[i].box[3])):
        colour = blocks.colour_of(marks[i].number, look)
        away = focus is not None and i != focus
        shade = blocks.dimmed(colour, frames.SLIGHT) if away else colour
        pen.rectangle(edges[i], outline=_rgb(shade), width=LINE + (i == focus))
    text = _names(columns, rows, marks, view, focus, look)
    fewer = shown.quantize(COLOURS, dither=pil.Dither.NONE)
    palette = (fewer.getpalette() or [])[: 3 * COLOURS]
    fewer.putpalette(palette + [0] * (3 * (HOLE + 1) - len(palette)))
    pen = ImageDraw.Draw(fewer)
    for row, column in zip(*text.signs.nonzero(), strict=True):
        left, top = int(column) * cell.width, int(row) * cell.height
        pen.rectangle((left, top, left + cell.width - 1, top + cell.height - 1), fill=HOLE)
    file = io.BytesIO()
    fewer.save(file, "PNG", transparency=HOLE)
    return file.getvalue(), text


def _names(columns: int, rows: int, marks: Sequence[Mark], view: View, focus: int | None, look: Look) -> Cells:
    """The names alone, where they have room; the sign of every other cell is 0."""
    import numpy as np

    from tui.widgets import blocks, frames

    empty: np.ndarray[Any, Any] = np.zeros((rows, columns), np.uint32)
    text = blocks.Cells(empty.copy(), empty.copy(), empty.copy(), {})
    frames.overlay(text, marks, view, focus, look)
    frame = (text.signs >= BOX_DRAWING.start) & (text.signs < BOX_DRAWING.stop)
    text.signs[frame] = text.ground[frame] = text.ink[frame] = 0
    for row, column in text.wide:  # the second half of a wide sign is a part of its name
        text.signs[row, column + 1] = ord(" ")
    return text


def _edges(mark: Mark, view: View, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an object's frame in pixels; of one that lies outside, outside."""
    cx, cy, w, h = (min(max(part, -10.0), 10.0) if part == part else 0.0 for part in mark.box)
    across, down = size[0] / (view.right - view.left), size[1] / (view.bottom - view.top)
    left, top = (cx - w / 2 - view.left) * across, (cy - h / 2 - view.top) * down
    return left, top, max(left, left + w * across - 1), max(top, top + h * down - 1)


def _rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255
