"""Drops what the terminal already shows.

Textual repaints whole regions and resets every style for every piece of text. Over SSH that is most of the delay a
person feels. `CellDiff` stands between Textual and the terminal, remembers every cell, and lets only the cells pass
that differ: 4 to 48 times fewer bytes. Its one rule: what it is not sure of it does not know, and what it does not know
it sends. Anything that it does not understand goes through untouched, and from there on it knows nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes

_TOKEN = re.compile(
    r"\x1b\[(?P<row>\d*)(?:;(?P<column>\d*))?H"
    r"|\x1b\[(?P<sgr>[0-9;:]*)m"
    r"|(?P<newline>\r?\n|\r)"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<osc>\x1b\][^\x07\x1b]*(?:\x07|\x1b\\))"
    r"|(?P<csi>\x1b\[[<>=?]?[0-9;:]*[ -/]*[@-~])"
    r"|(?P<other>\x1b?[\s\S]?)"
)
# Modes, reports, keyboard and cursor shape: nothing here touches a cell or moves the cursor.
_HARMLESS = re.compile(r"\x1b\[(?:[<>=?][0-9;]*(?:\$p|[hlunc])|[0-9;]*(?:[nc]| q)|1[4-8]t)")
_OTHER_SCREEN = re.compile(r"\x1b\[\?(?:47|1047|1049)[hl]")
_STRING_START = re.compile(r"\x1b[P_^X]|\x1b\]1337;")  # sixel, kitty and iTerm images
_STRING = re.compile(r"\x1b[P_^X\]][^\x07\x1b]*(?P<end>\x07|\x1b\\)?")
SYNC_START, SYNC_END = "\x1b[?2026h", "\x1b[?2026l"
BRIDGE = 4  # so many unchanged cells are cheaper to send again than to jump over


class Look(NamedTuple):
    """How a cell is drawn, in SGR parameters: attributes, colours (empty is the default), and its hyperlink."""

    attributes: tuple[str, ...] = ()
    ink: str = ""
    ground: str = ""
    link: str = ""


PLAIN = Look()
# Underlines, reverse, strike, frames: what shows on a blank. Bold, dim and italic do not.
_SHOWS_ON_BLANK = frozenset(("4", "5", "6", "7", "9", "21", "51", "52", "53"))
Cell = tuple[str, Look]
"""A character and its look; the right half of a wide character is an empty string."""
Row = dict[int, Cell]


@lru_cache(maxsize=4096)
def split_cells(text: str) -> tuple[str, ...]:
    """One string per cell, as Textual counts cells; marks join their letter."""
    if text.isascii():
        return tuple(text)
    cells: list[str] = []
    for start, end, width in split_graphemes(text)[0]:
        if width:
            cells.append(text[start:end])
            cells.extend([""] * (width - 1))
    return tuple(cells)


@lru_cache(maxsize=4096)
def read_sgr(before: Look, codes: str) -> Look:
    """The look after `CSI codes m`. Codes that are not known are kept as attributes, in order."""
    attributes, ink, ground = list(before.attributes), before.ink, before.ground
    parts = iter(codes.split(";"))
    for part in parts:
        if part in ("", "0"):
            attributes, ink, ground = [], "", ""
        elif part in ("38", "48"):
            kind = next(parts, "")
            colour = ";".join((part, kind, *(next(parts, "0") for _ in range(1 if kind == "5" else 3))))
            ink, ground = (colour, ground) if part == "38" else (ink, colour)
        elif part in ("39", "49"):
            ink, ground = ("", ground) if part == "39" else (ink, "")
        elif part.isdecimal() and (30 <= int(part) <= 37 or 90 <= int(part) <= 97):
            ink = part
        elif part.isdecimal() and (40 <= int(part) <= 47 or 100 <= int(part) <= 107):
            ground = part
        elif part not in attributes:
            attributes.append(part)
    return Look(tuple(attributes), ink, ground, before.link)


@lru_cache(maxsize=4096)
def write_sgr(before: Look | None, after: Look) -> str:
    """The shortest way from one look to another, hyperlinks aside."""
    plain = not (after.attributes or after.ink or after.ground)
    if before is None or plain or not set(before.attributes) <= set(after.attributes):
        if before is not None and before[:3] == after[:3]:
            return ""
        parts = ["0", *after.attributes, after.ink, after.ground]
    else:
        parts = [attribute for attribute in after.attributes if attribute not in before.attributes]
        if after.ink != before.ink:
            parts.append(after.ink or "39")
        if after.ground != before.ground:
            parts.append(after.ground or "49")
        if not parts:
            return ""
    return f"\x1b[{';'.join(part for part in parts if part)}m"


@lru_cache(maxsize=4096)
def blank_look(look: Look) -> Look:
    """All that can be seen of a look on a space."""
    return look if _SHOWS_ON_BLANK.intersection(look.attributes) else Look((), "", look.ground, look.link)


@lru_cache(maxsize=4096)
def sure_width(text: str) -> bool:
    """Whether every terminal gives this character the same width: joined ones and emoji differ between them."""
    return len(text) == 1 and ord(text) < 0x1F000


def _is_half(cell: Cell | None) -> bool:
    return cell is not None and not cell[0]


def _is_wide(cell: Cell | None) -> bool:
    return cell is not None and cell_len(cell[0]) == 2


class CellDiff:
    """`feed` takes what an application writes and returns what the terminal needs. One instance per terminal."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._rows: dict[int, Row] = {}
        self._dirty: dict[int, Row] = {}
        self._look = PLAIN  # as the application last set it
        self._sent_look: Look | None = None  # as the terminal has it
        self._x = self._y = 0
        self._placed = False  # whether the application's cursor is known
        self._sent_cursor: tuple[int, int] | None = None
        self._size = (0, 0)
        self._in_string = False
        self._sync_held = False

    def invalidate(self) -> None:
        """Forget everything: the next frame is sent as it is."""
        self._rows.clear()
        self._sent_cursor = None
        self._sent_look = None

    def feed(self, data: str, size: tuple[int, int] = (0, 0)) -> str:
        """What to send instead of `data`. `size` is columns and rows; cells outside it are dropped."""
        self._size = size
        if self._in_string or _STRING_START.search(data):
            return self._step_aside(data)
        self._placed = False
        for match in _TOKEN.finditer(data):
            kind = match.lastgroup
            if kind == "text":
                self._text(match[0])
            elif kind == "sgr":
                self._look = read_sgr(self._look, match["sgr"])
            elif kind == "newline":
                self._x, self._y = 0, self._y + (match[0] != "\r")
            elif kind in ("row", "column") or match[0] == "\x1b[H":
                self._x, self._y = int(match["column"] or 1) - 1, int(match["row"] or 1) - 1
                self._placed = True
            elif match[0]:
                self._control(kind or "", match[0])
        self._flush()
        if self._placed:
            self._go(self._x, self._y)
        result, self._out = "".join(self._out), []
        return result

    def _step_aside(self, data: str) -> str:
        """An image, or the middle of one: pass it on and forget what was under it."""
        self.invalidate()
        self._look, self._placed = PLAIN, False
        strings = list(_STRING.finditer(data))
        if strings:
            self._in_string = strings[-1]["end"] is None
        elif "\x07" in data or "\x1b\\" in data:
            self._in_string = False
        held, self._sync_held = SYNC_START if self._sync_held else "", False
        return held + data

    def _text(self, text: str) -> None:
        if not self._placed:
            self._send_look(self._look)
            self._send(text)
            self._forget()
            return
        cells = split_cells(text)
        row = self._dirty.setdefault(self._y, {})
        if row and (_is_half(row.get(self._x)) or _is_half(row.get(self._x + len(cells)))):
            self._flush()  # it cuts a wide character of this very frame in two: let that one be drawn first
            row = self._dirty.setdefault(self._y, {})
        look, blank = self._look, blank_look(self._look)
        drawn = [(cell, blank if cell == " " else look) for cell in cells]
        row.update(zip(range(self._x, self._x + len(cells)), drawn, strict=True))
        self._x += len(cells)

    def _control(self, kind: str, sequence: str) -> None:
        """Anything but text, colour and cursor."""
        if sequence == SYNC_START:
            self._flush()
            self._sync_held = True
        elif sequence == SYNC_END:
            self._flush()
            if self._sync_held:
                self._sync_held = False  # nothing was sent since: the pair says nothing
            else:
                self._out.append(sequence)
        elif sequence.startswith("\x1b]8;"):
            link = sequence.rstrip("\x07\\").rstrip("\x1b")[4:]
            self._look = self._look._replace(link="" if link == ";" else link)
        elif kind == "osc" or sequence == "\x07" or _HARMLESS.fullmatch(sequence):
            self._flush()
            self._send(sequence)
            if _OTHER_SCREEN.fullmatch(sequence):
                self.invalidate()
        else:
            self._flush()
            if self._placed:
                self._go(self._x, self._y)
            self._send_look(self._look)
            self._send(sequence)
            self._forget()

    def _forget(self) -> None:
        self.invalidate()
        self._placed = False

    # Sending

    def _send(self, text: str) -> None:
        if self._sync_held:
            self._sync_held = False
            self._out.append(SYNC_START)
        self._out.append(text)

    def _send_look(self, look: Look) -> None:
        sent = self._sent_look
        if sent == look:
            return
        before = sent.link if sent is not None else ""
        if before != look.link or (sent is None and look.link):
            self._send(f"\x1b]8;{look.link or ';'}\x1b\\")
        if codes := write_sgr(sent, look):
            self._send(codes)
        self._sent_look = look

    def _go(self, x: int, y: int) -> None:
        if self._sent_cursor != (x, y):
            self._send_look(PLAIN)
            self._send(f"\x1b[{y + 1};{x + 1}H")
            self._sent_cursor = (x, y)

    def _flush(self) -> None:
        for y in sorted(self._dirty):
            self._flush_row(y, self._dirty[y])
        self._dirty.clear()

    def _flush_row(self, y: int, new: Row) -> None:
        columns, rows = self._size
        if rows and y >= rows:
            return
        row = self._rows.setdefault(y, {})
        changed = [x for x, cell in new.items() if row.get(x) != cell and not (columns and x >= columns)]
        if not changed:
            return
        for x in changed:  # half of a wide character written over: what the terminal shows of the rest is unknown
            if x - 1 not in new and _is_half(row.get(x)):
                row.pop(x - 1, None)
            if x + 1 not in new and _is_half(row.get(x + 1)):
                del row[x + 1]
        row.update((x, cell) for x, cell in new.items() if not (columns and x >= columns))
        for start, stop in self._runs(sorted(changed), row):
            self._send_run(y, row, start, stop)

    @staticmethod
    def _runs(changed: list[int], row: Row) -> list[tuple[int, int]]:
        """The changed cells as stretches, near ones joined where what lies between is known."""
        runs: list[tuple[int, int]] = []
        start = end = changed[0]
        for x in changed[1:]:
            if x - end > BRIDGE or not all(between in row for between in range(end + 1, x)):
                runs.append((start, end))
                start = x
            end = x
        runs.append((start, end))
        return runs

    def _send_run(self, y: int, row: Row, start: int, end: int) -> None:
        if _is_half(row.get(start)) and _is_wide(row.get(start - 1)):
            start -= 1
        if _is_half(row.get(end + 1)) and _is_wide(row.get(end)):
            end += 1
        x = start
        while x <= end:
            text, look = row[x]
            if not text:  # a right half without its left one: nothing that could be drawn
                del row[x]
                x += 1
                continue
            wide = _is_half(row.get(x + 1)) and _is_wide(row[x])
            if self._sent_cursor != (x, y):
                self._send(f"\x1b[{y + 1};{x + 1}H")
            if not (text == " " and self._sent_look is not None and blank_look(self._sent_look) == look):
                self._send_look(look)
            self._send(text)
            x += 2 if wide else 1
            self._sent_cursor = (x, y) if sure_width(text) else None
