"""The one place that speaks to plotext (5.x): cells in, framed and labelled lines with roles out.

plotext keeps one figure per process; it is cleared before each use, and all drawing is in the one thread of the
screens. Colours go through it as numbers that stand for roles, so that it needs to know nothing of themes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tui.widgets.lines import Line, Piece
from tui.widgets.symbols import SIGNS, ascii_only, fit

AXIS = "axis"
Place: TypeAlias = tuple[int, int]
"""A cell of the plot: column and row, rows counted from below."""
Tick: TypeAlias = tuple[float, str]
"""Where in cells, and what to write there."""
_SGR = re.compile(r"\x1b\[([0-9;]*)m|([^\x1b]+)")
_TO_ASCII = str.maketrans(SIGNS)


class Mark(NamedTuple):
    """What stands in one cell of the plot."""

    character: str
    role: str


def frame(
    marks: Mapping[Place, Mark],
    size: tuple[int, int],
    xs: Sequence[Tick],
    ys: Sequence[Tick],
    gutter: int,
    x_label: str,
) -> list[Line]:
    """A plot of `size` cells with a y axis (labels `gutter` wide), an x axis, and the x axis's name in the corner."""
    import plotext

    columns, rows = size
    names = [AXIS, *sorted({mark.role for mark in marks.values()})]
    numbers = {name: number for number, name in enumerate(names)}
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(gutter + 1 + columns, rows + 2)
    plotext.canvas_color("default")
    plotext.axes_color("default")
    plotext.ticks_color(numbers[AXIS])
    plotext.xaxes(True, False)
    plotext.yaxes(True, False)
    plotext.xlim(0, columns - 1)
    plotext.ylim(0, rows - 1)
    plotext.xticks([place for place, _ in xs], [label for _, label in xs])
    plotext.yticks([place for place, _ in ys], [f"{label:>{gutter}}" for _, label in ys])
    plotext.scatter(
        [column for column, _ in marks],
        [row for _, row in marks],
        marker=[mark.character for mark in marks.values()],
        color=[numbers[mark.role] for mark in marks.values()],
    )
    lines = parse(plotext.build(), names)
    corner: Piece = (fit(x_label, gutter, "right"), AXIS)
    return [*lines[:-1], (corner, *crop_left(lines[-1], gutter))]


def parse(text: str, names: Sequence[str]) -> list[Line]:
    """plotext's text, its colours being indices of `names`, as lines of pieces with roles."""
    if ascii_only():
        text = text.translate(_TO_ASCII)
    lines: list[Line] = []
    for row in text.rstrip("\n").split("\n"):
        pieces: list[Piece] = []
        role = ""
        for code, part in _SGR.findall(row):
            if part:
                pieces.append((part, role))
            else:
                role = names[int(code.rpartition(";")[2])] if code.startswith("38;5;") else ""
        lines.append(tuple(pieces))
    return lines


def crop_left(line: Line, count: int) -> Line:
    """The line without its first `count` cells, all of them one cell wide."""
    pieces: list[Piece] = []
    for text, role in line:
        pieces.append((text[count:], role))
        count = max(count - len(text), 0)
    return tuple(piece for piece in pieces if piece[0])
