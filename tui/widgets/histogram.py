"""How often each of a few things is there: a column for each, placed and framed by plotext."""

from __future__ import annotations

from collections.abc import Sequence

from tui.widgets.lines import Line, LineWidget
from tui.widgets.plot import Mark, Place, frame
from tui.widgets.symbols import ascii_only, fit

EIGHTHS = " ▁▂▃▄▅▆▇█"
GUTTER = 7


class Histogram(LineWidget):
    """Columns with a title above and a label below each; the counts stand at the axis."""

    DEFAULT_CSS = "Histogram { width: 1fr; height: 12; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title, self._labels, self._counts = "", [""], [0]
        self._note = ""

    def show(self, title: str, labels: Sequence[str], counts: Sequence[int], note: str = "") -> None:
        """Draw `counts`, each over its label; `note` says in words what to see in it."""
        assert len(labels) == len(counts)
        self._title, self._labels, self._counts, self._note = title, list(labels), list(counts), note
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        columns, rows = width - GUTTER - 1, height - 4
        most = max(self._counts, default=0)
        head: Line = ((self._title, "title"), (f"  {self._note}", "muted"))
        if not most or columns < len(self._counts) or rows < 2:
            return [head, (("nothing to count", "muted"),)]
        each = min(12, columns // len(self._counts))
        columns = each * len(self._counts)
        marks: dict[Place, Mark] = {}
        for i, count in enumerate(self._counts):
            eighths = max(1, round(count / most * rows * 8)) if count else 0
            for row in range(-(-eighths // 8)):
                part = min(8, eighths - row * 8)
                sign = "#" if ascii_only() else EIGHTHS[part]
                for column in range(max(1, each - 1)):
                    marks[i * each + column, row] = Mark(sign, "chart-1")
        every = -(-max(len(label) + 1 for label in self._labels) // each)
        xs = [((i + 0.5) * each - 1, label) for i, label in enumerate(self._labels) if i % every == 0]
        ys = [(0, "0"), (rows - 1, f"{most}")]
        lines = frame(marks, (columns, rows), xs, ys, GUTTER, "")
        return [tuple((fit(t, width) if len(t) > width else t, r) for t, r in head), *lines]
