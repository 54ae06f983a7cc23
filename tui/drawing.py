"""Charts for commands: the lines that the screens draw, in colour on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

from tui.widgets.lines import Line

ANSI = {
    "axis": "2",
    "muted": "2",
    "title": "1",
    "accent": "1;36",
    "chart-1": "36",
    "chart-2": "33",
    "chart-1-raw": "2;36",
}
LARGEST = (110, 24)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def room(below: int) -> tuple[int, int]:
    """Columns and rows for a chart with so many lines of text below it."""
    size = shutil.get_terminal_size()
    return max(40, min(size.columns, LARGEST[0])), max(8, min(size.lines - below, LARGEST[1]))


def text(lines: Iterable[Line]) -> str:
    """The lines, in colour unless NO_COLOR is set."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    shown = []
    for line in lines:
        parts = []
        for piece, role in line:
            code = "" if plain or not piece.strip() else ANSI.get(role, "")
            parts.append(f"\x1b[{code}m{piece}\x1b[0m" if code else piece)
        shown.append("".join(parts).rstrip())
    return "\n".join(shown)
