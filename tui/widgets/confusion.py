"""What a model takes for what: a table of counts, a row for each truth and a column for each prediction.

    Confusion(id="view-Confusion")     .show({"val": result, "test": result}, "none yet")

The counts are always there as numbers; colour only says how large a share of its row a number is. What is wider or
higher than the room is walked with the arrows, while names and totals stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.events import Focus
from textual.geometry import Size

from tui import words
from tui.keys import bind
from tui.widgets.lines import Line, LineWidget, Piece
from tui.widgets.symbols import fit, sign

NOTHING, MISSED = "nothing there", "missed"
LEAST_CELL, MOST_CELL, LEAST_NAME, MOST_NAME = 7, 12, 8, 18
TOTAL, SCORE = 7, 6
FRAME = 4  # lines that always stay: what it is, how to read it, names, totals
MISTAKES = 5
LEVELS = (0.05, 0.2, 0.5)  # shares of a row from which on a cell is stronger
STRENGTHS = ("12%", "24%", "36%", "50%")
ANSI_STRENGTHS = ("", "", "bold ", "reverse ")


class Counts(NamedTuple):
    """A confusion matrix with its sums, ready to be drawn. `background` is the number of the label that is no class."""

    names: list[str]
    matrix: list[list[int]]
    rows: list[int]
    columns: list[int]
    background: int

    @classmethod
    def of(cls, confusion: Mapping[str, Any]) -> Counts:
        matrix: list[list[int]] = confusion["matrix"]
        names = [words.clean(label) for label in confusion["labels"]]
        background = len(names) - 1 if confusion.get("iou") is not None else -1
        return cls(names, matrix, [sum(r) for r in matrix], [sum(c) for c in zip(*matrix, strict=True)], background)

    def share(self, truth: int, guess: int) -> float:
        """A cell's part of its row; of boxes drawn where nothing is, measured by the objects of the class they name."""
        whole = self.rows[guess] if truth == self.background else self.rows[truth]
        count = self.matrix[truth][guess]
        return min(1.0, count / whole) if whole else float(count > 0)

    def mistakes(self) -> list[str]:
        """What goes wrong most often, in words."""
        size = len(self.names)
        wrong = [(self.matrix[t][p], t, p) for t in range(size) for p in range(size) if t != p and self.matrix[t][p]]
        return [self._mistake(*found) for found in sorted(wrong, key=lambda w: (-w[0], w[1:]))[:MISTAKES]]

    def _mistake(self, count: int, truth: int, guess: int) -> str:
        if truth == self.background:
            return f"{self.names[guess]} drawn where nothing is: {count} of {self.columns[guess]} drawn"
        part = f"{count} of {self.rows[truth]} ({count / self.rows[truth] * 100:.0f} %)"
        taken = "missed" if guess == self.background else f"taken for {self.names[guess]}"
        return f"{self.names[truth]} {taken}: {part}"


class Confusion(LineWidget, can_focus=True):
    """The confusion matrix of one split, with precision, recall and F1 of each class at the ends of the rows."""

    DEFAULT_CSS = "Confusion { height: 1fr; padding: 1 1 0 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", show=False),
        Binding("down,j", "move(1, 0)", "Down", show=False),
        Binding("left,h", "move(0, -1)", "Left", show=False),
        Binding("right", "move(0, 1)", "Right", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "move(-100000, -100000)", "First", show=False),
        Binding("end", "move(100000, 100000)", "Last", show=False),
        bind("w", "split", "val or test", help="the other split's confusion"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._results: dict[str, Mapping[str, Any]] = {}
        self._empty = ""
        self._split = "val"
        self._counts: Counts | None = None
        self._mistakes: list[str] = []
        self._top = self._left = 0
        self._page = (1, 1)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return container.height

    def show(self, results: Mapping[str, Mapping[str, Any]], empty: str) -> None:
        """Results by split, as `Progress` holds them; `empty` is said while none has a matrix."""
        self._results = {split: found for split, found in results.items() if found.get("confusion")}
        self._empty = empty
        self._choose(self._split if self._split in self._results else next(iter(self._results), "val"))

    def _choose(self, split: str) -> None:
        self._split = split
        found = self._results.get(split)
        self._counts = Counts.of(found["confusion"]) if found else None
        self._mistakes = self._counts.mistakes() if self._counts else []
        self.repaint()

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return len(self._results) > 1 if action == "split" else True

    def action_split(self) -> None:
        splits = list(self._results)
        self._choose(splits[(splits.index(self._split) + 1) % len(splits)])

    def action_move(self, down: int, right: int) -> None:
        size = len(self._counts.names) if self._counts else 0
        rows, columns = self._page
        self._top = max(0, min(self._top + down, size - rows))
        self._left = max(0, min(self._left + right, size - columns))
        self.repaint()

    def action_page(self, step: int) -> None:
        self.action_move(step * max(1, self._page[0] - 1), 0)

    def on_focus(self, event: Focus) -> None:
        self.screen.refresh_bindings()

    # Drawing

    def paint(self, width: int, height: int) -> list[Line]:
        counts = self._counts
        if counts is None:
            return [((fit(self._empty, width), "muted"),)]
        scores = 3 * SCORE if width >= 70 else 0
        name, cell, columns = self._widths(counts, width - TOTAL - scores)
        size = len(counts.names)
        rows = min(size, max(1, height - FRAME))
        self._page = (rows, columns)
        self._top, self._left = max(0, min(self._top, size - rows)), max(0, min(self._left, size - columns))
        across, down = range(self._left, self._left + columns), range(self._top, self._top + rows)
        lines: list[Line] = [self._caption(counts), self._legend(counts, down, across)]
        lines.append(self._names(counts, across, name, cell, scores))
        lines += [self._row(counts, truth, across, name, cell, scores) for truth in down]
        lines.append(self._totals(counts, across, name, cell, scores))
        if self._mistakes and len(lines) + 2 < height:
            lines += [(), (("wrong most often", "title"),), *(((text, ""),) for text in self._mistakes)]
        return lines

    @staticmethod
    def _widths(counts: Counts, room: int) -> tuple[int, int, int]:
        """Of a row's name and of a cell, and how many cells fit beside the name."""
        longest = max(cell_len(_label(counts, i, row=True)) for i in range(len(counts.names)))
        name = min(max(longest, LEAST_NAME), MOST_NAME) + 1
        size = len(counts.names)
        heads = max(cell_len(_label(counts, i, row=False)) for i in range(size)) + 1
        most = max(len(_short(c)) for c in counts.columns) + 1
        cell = max(LEAST_CELL, most, min(heads, MOST_CELL, (room - name) // size))
        return name, cell, max(1, min(size, (room - name) // cell))

    def _caption(self, counts: Counts) -> Line:
        confusion = self._results[self._split]["confusion"]
        confidence, iou = confusion["confidence"], confusion["iou"]
        size = len(counts.names)
        right = sum(counts.matrix[i][i] for i in range(size))
        total = sum(n for i, n in enumerate(counts.rows) if i != counts.background)
        what = "image" if counts.background < 0 else "object"
        share = f" ({right / total * 100:.0f} %)" if total else ""
        place = ""
        if confidence is not None and iou is not None:
            place = f", from confidence {confidence:.3f}, overlap {iou:.2g} on"
        return (self._split, "title"), (f"  {right} of {words.plural(total, what)} right{share}{place}", "")

    @staticmethod
    def _legend(counts: Counts, down: range, across: range) -> Line:
        text, size = "row: what it is, column: taken for", len(counts.names)
        if len(across) < size or len(down) < size:
            rows, columns = f"{down.start + 1}-{down.stop}", f"{across.start + 1}-{across.stop}"
            text += f"; rows {rows}, columns {columns} of {size}; arrows"
        return ((text, "muted"),)

    @staticmethod
    def _names(counts: Counts, across: range, name: int, cell: int, scores: int) -> Line:
        heads = "".join(fit(_label(counts, i, row=False), cell - 1, "right") + " " for i in across)
        text = f"{'':<{name}}{heads}{'all':>{TOTAL - 1}} "
        return ((text + ("".join(f"{t:>{SCORE}}" for t in ("P", "R", "F1")) if scores else ""), "muted"),)

    def _row(self, counts: Counts, truth: int, across: range, name: int, cell: int, scores: int) -> Line:
        pieces: list[Piece] = [(fit(_label(counts, truth, row=True), name), "")]
        for guess in across:
            count = counts.matrix[truth][guess]
            text = _short(count) if count else sign("·") if truth != guess or truth != counts.background else ""
            role = self._role(truth == guess, counts.share(truth, guess)) if count else "muted"
            pieces.append((f"{text:>{cell - 1}} ", role))
        pieces.append((f"{_short(counts.rows[truth]):>{TOTAL - 1}} ", "muted"))
        if scores and truth != counts.background:
            pieces.append((self._scores(self._class_row(counts.names[truth])), ""))
        return tuple(pieces)

    def _totals(self, counts: Counts, across: range, name: int, cell: int, scores: int) -> Line:
        sums = "".join(f"{_short(counts.columns[i]):>{cell - 1}} " for i in across)
        text = f"{'all':<{name}}{sums}{_short(sum(counts.rows)):>{TOTAL - 1}} "
        mean = self._scores(self._results[self._split].get("metrics") or {}) if scores else ""
        return (text, "muted"), (mean, "title")

    def _class_row(self, name: str) -> Mapping[str, Any]:
        rows = self._results[self._split].get("per_class") or []
        return next((row for row in rows if words.clean(str(row.get("name", ""))) == name), {})

    @staticmethod
    def _scores(values: Mapping[str, Any]) -> str:
        return "".join(f"{words.metric(values.get(key)):>{SCORE}}" for key in ("precision", "recall", "f1"))

    def _role(self, right: bool, share: float) -> str:
        """Green where it is right, red where it is wrong, the stronger the larger its share."""
        level = sum(share >= limit for limit in LEVELS)
        colour = "$success" if right else "$error"
        if self.app.current_theme.ansi:
            return f"{ANSI_STRENGTHS[level]}{colour}"
        return f"on {colour} {STRENGTHS[level]}"


def _label(counts: Counts, number: int, *, row: bool) -> str:
    if number == counts.background:
        return NOTHING if row else MISSED
    return counts.names[number]


def _short(count: int) -> str:
    """At most five characters."""
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 10_000_000 else f"{count / 1e6:.0f}M" if count < 10**10 else "many"
