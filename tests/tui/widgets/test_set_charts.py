"""Classes by split, and histograms: what is drawn is what was counted, in every width, in any script."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Size

from tui.widgets.class_bars import ENDS, ClassBars
from tui.widgets.histogram import EIGHTHS, Histogram
from tui.widgets.lines import Line, line_width

COUNTS = {
    "train": {"자동차": 265, "red light": 36, "bus": 2},
    "val": {"자동차": 81, "red light": 0, "bus": 5},
    "test": {},
}


class ChartsApp(App[None]):
    def compose(self) -> ComposeResult:
        yield ClassBars()
        yield Histogram()


def text(lines: list[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


@pytest.mark.parametrize("width", [30, 60, 80, 160])
async def test_classes_by_split(width: int) -> None:
    async with ChartsApp().run_test():
        bars = ClassBars()
        bars.show("objects by class", COUNTS, "a note")
        lines = bars.paint(width, 40)
    rows = text(lines)
    assert len(rows) == bars.get_content_height(Size(width, 1), Size(width, 1), width) == 6
    assert "test" not in rows[2], "a split without labels is left out"
    assert [row.split()[-1 if width < 50 else -2] for row in rows[3:]] == ["346", "36", "7"], "the most frequent first"
    assert all(line_width(line) <= width for line in lines) or width < 50
    roles = dict(lines[4])
    assert roles[next(part for part in roles if part.strip() == "–")] == "warning", "val has none of it"


async def test_a_bar_is_as_long_as_its_count_and_what_is_there_is_seen() -> None:
    counts = {"train": {"a": 1000, "b": 500, "c": 1, "d": 0}, "val": {"a": 1000, "b": 0, "c": 0, "d": 0}}
    async with ChartsApp().run_test():
        bars = ClassBars()
        bars.show("t", counts)
        rows = text(bars.paint(100, 40))[2:]
    longest = [sum(map(row.count, "━╍")) for row in rows]
    assert longest[0] == 100 - cell_len(rows[0].partition("━")[0]), "to the edge"
    assert longest[0] / 4 == pytest.approx(longest[1], abs=1)
    assert longest[2:] == [1, 0]
    assert abs(rows[0].count("━") - rows[0].count("╍")) <= 1


async def test_of_very_many_classes_both_ends_are_shown() -> None:
    async with ChartsApp().run_test():
        bars = ClassBars()
        bars.show("t", {"train": {f"c{i}": i + 1 for i in range(1000)}})
        rows = text(bars.paint(80, 200))
    assert len(rows) == 2 * ENDS + 3
    assert rows[2].startswith("c999") and rows[-1].startswith("c0 ") and "… 920 classes between" in rows[2 + ENDS]


@pytest.mark.parametrize("width", [40, 72, 150])
@pytest.mark.parametrize("count", [1, 9, 21])
async def test_columns_stand_in_proportion_under_their_numbers(width: int, count: int) -> None:
    counts = [100 * (i + 1) // count for i in range(count)]
    async with ChartsApp().run_test():
        chart = Histogram()
        chart.show("a title", [str(i) for i in range(count)], counts, "a note")
        lines = chart.paint(width, 12)
    rows = text(lines)
    assert rows[0].startswith("a title") and rows[1].startswith("a note") and len(rows) == 12
    assert all(line_width(line) <= width for line in lines)
    heights = [
        sum(EIGHTHS.index(row[x]) for row in rows[2:10] if x < len(row) and row[x] in EIGHTHS) for x in range(width)
    ]
    tops = [h for x, h in enumerate(heights) if h and (x == 0 or heights[x - 1] != h)]
    assert tops == sorted(tops) and (len(tops) == count or count > 9), "no holes, and none out of place"
    assert "100" in "".join(rows[2:])
    assert rows[-1].split()[0] == "0"


async def test_nothing_and_no_room() -> None:
    async with ChartsApp().run_test():
        chart = Histogram()
        chart.show("t", ["a", "b"], [0, 0])
        assert text(chart.paint(40, 12))[1] == "nothing to count"
        chart.show("t", [str(i) for i in range(60)], [1] * 60)
        assert text(chart.paint(40, 12))[1] == "no room to draw it"
