"""Which signs the screens may use, and the one way to show the state of a version.

Every sign here is one cell wide by Unicode's own table. Most of them are "East Asian ambiguous": a terminal set to
draw those two cells wide would break the columns, and one without UTF-8 cannot draw them at all. `DOJANG_ASCII=1`
is the way out for both; `DOJANG_ASCII=0` keeps the signs whatever the locale says.
"""

from __future__ import annotations

import codecs
import locale
import os
from functools import lru_cache
from typing import NamedTuple

from rich.cells import cell_len, get_character_cell_size
from textual.content import Content


class StateLook(NamedTuple):
    """How one state is told: by sign, by word and by colour, never by colour alone."""

    sign: str
    ascii: str
    style: str


STATES: dict[str, StateLook] = {
    "draft": StateLook("○", "o", "$foreground-muted"),
    "queued": StateLook("◌", ":", "$foreground-muted"),
    "preparing": StateLook("◐", "~", "$accent"),
    "preprocessing": StateLook("◐", "~", "$accent"),
    "training": StateLook("●", "@", "$accent"),
    "testing": StateLook("◑", "%", "$accent"),
    "done": StateLook("✓", "+", "$success"),
    "paused": StateLook("‖", "=", "$warning"),
    "stopped": StateLook("■", "#", "$warning"),
    "failed": StateLook("✗", "x", "$error"),
    "lost": StateLook("?", "?", "$error"),
}
UNKNOWN = StateLook("?", "?", "$foreground-muted")

# Signs that are no states, with what stands in for them.
SIGNS: dict[str, str] = {
    "…": "~", "↑": "^", "↓": "v", "▌": ">", "━": "=", "─": "-", "╸": "=", "╺": "-",
    "│": "|", "┤": "+", "┬": "+", "┼": "+", "└": "+", "├": "+", "·": ".", "–": "-",
    "●": "*", "✓": "+", "→": ">", "▾": "v", "▸": ">", "›": ">",
}  # fmt: skip

# What else may be on a screen that is not ours to choose: frames, quotation marks. For the driver, as the last resort.
PLAIN = str.maketrans({
    **SIGNS, **dict.fromkeys("╭╮╰╯┌┐┘┏┓┗┛┴", "+"), **dict.fromkeys("═╌", "-"), **dict.fromkeys("┃║╎▎▏▕▊", "|"),
    **dict.fromkeys("“”", '"'), **dict.fromkeys("‘’", "'"), **dict.fromkeys("█▁▂▃▄▅▆▇▀▐", "#"),
    "—": "-", "×": "x", "°": " ", "←": "<", "✗": "x", "○": "o",
})  # fmt: skip


@lru_cache(maxsize=1)
def _locale_is_utf8() -> bool:
    try:
        return codecs.lookup(locale.getencoding()).name == "utf-8"
    except LookupError:
        return False


def ascii_only() -> bool:
    """True when the terminal should be sent nothing but ASCII signs (names that people typed stay as they are)."""
    wish = os.environ.get("DOJANG_ASCII", "").strip().lower()
    if wish:
        return wish not in ("0", "no", "false", "off")
    return not _locale_is_utf8()


def sign(character: str) -> str:
    """`character`, or its stand-in where only ASCII may be sent."""
    return SIGNS.get(character, character) if ascii_only() else character


def state_look(state: str) -> StateLook:
    return STATES.get(state, UNKNOWN)


def state_sign(state: str) -> Content:
    """The coloured sign alone, for a narrow column that stands beside the word."""
    look = state_look(state)
    return Content.styled(look.ascii if ascii_only() else look.sign, look.style)


def state_badge(state: str, word: str | None = None) -> Content:
    """Sign and word, `● training`; `word` replaces the state's own name (a translation, "failed  no memory")."""
    look = state_look(state)
    return Content.styled(f"{look.ascii if ascii_only() else look.sign} {word or state}", look.style)


def fit(text: str, width: int, align: str = "left") -> str:
    """`text` in exactly `width` cells: padded, or cut with `…`. Wide characters are never halved."""
    if width <= 0:
        return ""
    size = cell_len(text)
    if size > width:
        text = cut(text, width - 1) + sign("…")
        size = cell_len(text)
    space = " " * (width - size)
    if align == "right":
        return space + text
    if align == "center":
        half = len(space) // 2
        return space[:half] + text + space[half:]
    return text + space


def cut(text: str, width: int) -> str:
    """The longest beginning of `text` that `width` cells hold."""
    used = 0
    for index, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > width:
            return text[:index]
    return text
