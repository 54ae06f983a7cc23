"""How often each of a few things is there: a column for each, placed and framed by plotext."""

from __future__ import annotations

from collections.abc import Sequence

from tui.widgets.lines import Line, LineWidget
from tui.widgets.plot import Mark, Place, frame
from tui.widgets.symbols import ascii_only, fit

EIGHTHS = " ▁▂▃▄▅▆▇█"
GUTTER = 7
WIDEST = 12  # cells of a column and the gap after it


class Histogram(LineWidget):
    """Columns under a title, a label below and, where there is room, the count above each; else counts at the axis."""

    DEFAULT_CSS = "Histogram { width: 1fr; height: 11; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title, self._labels, self._counts = "", [""], [0]
        self._note = ""

    def show(self, title: str, labels: Sequence[str], counts: Sequence[int], note: str = "") -> None:
        """Draw `counts`, each over its label of one-cell characters; `note` says in words what to see in it."""
        assert len(labels) == len(counts)
        self._title, self._labels, self._counts, self._note = title, list(labels), list(counts), note
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        head: list[Line] = [((fit(self._title, width), "title"),)]
        if self._note:
            head.append(((fit(self._note, width), "muted"),))
        most, rows = max(self._counts, default=0), height - len(head) - 2
        if not most:
            return [*head, (("nothing to count", "muted"),)]
        numbers = [f"{count}" if count else "" for count in self._counts]
        gutter = 2
        each = min(WIDEST, (width - gutter - 1) // len(self._counts))
        above = each > max(map(len, numbers)) and rows > 3
        if not above:
            gutter = GUTTER
            each = min(WIDEST, (width - gutter - 1) // len(self._counts))
        if not each or rows < 2:
            return [*head, (("no room to draw it", "muted"),)]
        marks = self._columns(each, rows - above, most)
        if above:
            marks |= self._numbers(each, rows - 1, most, numbers)
        every = -(-max(len(label) + 1 for label in self._labels) // each)
        xs = [((i + 0.5) * each - 1, label) for i, label in enumerate(self._labels) if i % every == 0]
        ys = [(0, "0")] if above else [(0, "0"), (rows - 1, f"{most}")]
        return [*head, *frame(marks, (each * len(self._counts), rows), xs, ys, gutter, "")]

    def _columns(self, each: int, rows: int, most: int) -> dict[Place, Mark]:
        marks: dict[Place, Mark] = {}
        for i, count in enumerate(self._counts):
            eighths = height_of(count, most, rows)
            for row in range(-(-eighths // 8)):
                sign = "#" if ascii_only() else EIGHTHS[min(8, eighths - row * 8)]
                for column in range(max(1, each - 1)):
                    marks[i * each + column, row] = Mark(sign, "chart-1")
        return marks

    def _numbers(self, each: int, rows: int, most: int, numbers: Sequence[str]) -> dict[Place, Mark]:
        marks: dict[Place, Mark] = {}
        for i, (count, text) in enumerate(zip(self._counts, numbers, strict=True)):
            row, left = -(-height_of(count, most, rows) // 8), i * each + (each - 1 - len(text)) // 2
            marks |= {(left + column, row): Mark(digit, "axis") for column, digit in enumerate(text)}
        return marks


def height_of(count: int, most: int, rows: int) -> int:
    """In eighths of a row; what is there at all can be seen."""
    return max(1, round(count / most * rows * 8)) if count else 0
