"""Labels by class and split: a row for each class, the most frequent first, its bar in the colours of the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from textual.geometry import Size

from tui.widgets.lines import Line, LineWidget, Piece
from tui.widgets.symbols import ascii_only, fit, sign

NAME = 24  # cells
NUMBER = 7
ENDS = 40  # classes shown of the most frequent and as many of the rarest; those between are counted
FILLS = (("━", "="), ("╍", "-"), ("┅", "."))  # of the splits, so that they differ without colours
ROLES = ("chart-1", "chart-2", "chart-3")


class ClassBars(LineWidget):
    """`show` what is counted, by split and class; a class that a split with labels does not have stands out."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = self._note = ""
        self._splits: list[str] = []
        self._rows: list[tuple[str, list[int]]] = []
        self._left_out = 0

    def show(self, title: str, counts: Mapping[str, Mapping[str, int]], note: str = "") -> None:
        """`counts` gives for each split those of its classes; a split without any is left out."""
        self._title, self._note = title, note
        self._splits = [split for split, found in counts.items() if any(found.values())]
        names = list(dict.fromkeys(name for found in counts.values() for name in found))
        rows = [(name, [counts[split].get(name, 0) for split in self._splits]) for name in names]
        rows.sort(key=lambda row: -sum(row[1]))
        self._left_out = max(0, len(rows) - 2 * ENDS)
        self._rows = rows if not self._left_out else rows[:ENDS] + rows[-ENDS:]
        self.refresh(layout=True)
        self.repaint()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows) + 2 + bool(self._note) + bool(self._left_out)

    def paint(self, width: int, height: int) -> list[Line]:
        head: list[Line] = [((fit(self._title, width), "title"),)]
        if self._note:
            head.append(((fit(self._note, width), "muted"),))
        most = max((sum(counts) for _, counts in self._rows), default=0)
        names = min(max((cell_len(name) for name, _ in self._rows), default=0), NAME, max(8, width // 4))
        columns = [*self._splits, "all"] if len(self._splits) > 1 else ["all"]
        room = width - names - len(columns) * (NUMBER + 1) - 2
        rows = [self._row(name, counts, names, room, most) for name, counts in self._rows]
        if self._left_out:
            rows.insert(ENDS, ((f"… {self._left_out} classes between", "muted"),))
        return [*head, self._legend(names, columns), *rows]

    def _legend(self, names: int, columns: Sequence[str]) -> Line:
        pieces: list[Piece] = [(" " * names, "")]
        for number, column in enumerate(columns):
            role = ROLES[number] if column != "all" else "muted"
            mark = f"{self._fill(number)} " if column != "all" else ""
            pieces.append((" " + fit(f"{mark}{column}", NUMBER, "right"), role))
        return tuple(pieces)

    def _row(self, name: str, counts: Sequence[int], names: int, room: int, most: int) -> Line:
        pieces: list[Piece] = [(fit(name, names), "")]
        for number, count in enumerate(counts if len(counts) > 1 else ()):
            text, role = (
                (f"{count}", "") if count else (sign("–"), "error" if self._splits[number] == "train" else "warning")
            )
            pieces.append((" " + fit(text, NUMBER, "right"), role))
        total = sum(counts)
        pieces.append((" " + fit(f"{total}", NUMBER, "right"), "" if total else "error"))
        return (*pieces, ("  ", ""), *self._bar(counts, room, most))

    def _bar(self, counts: Sequence[int], room: int, most: int) -> list[Piece]:
        """One part after the other, each ending where its sum does, so that their rounding does not add up."""
        pieces: list[Piece] = []
        drawn = before = 0
        for number, count in enumerate(counts):
            before += count
            end = max(round(before / most * room), 1) if before and room > 0 else 0
            pieces.append((self._fill(number) * (end - drawn), ROLES[number]))
            drawn = max(drawn, end)
        return pieces

    @staticmethod
    def _fill(number: int) -> str:
        return FILLS[number][ascii_only()]
