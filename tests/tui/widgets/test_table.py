"""The table: what is drawn, where the cursor is, and that it only looks at what is on screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.content import Content

from tui.widgets.symbols import fit, state_badge
from tui.widgets.table import Column, Row, Table

COLUMNS = [
    Column("name", "version", 10, flex=1, priority=9),
    Column("state", "state", 12, priority=8),
    Column("map", "mAP50", 6, align="right", priority=7),
    Column("data", "data", 8, priority=2),
    Column("took", "took", 6, align="right", priority=3),
]


def rows(count: int, **changes: str) -> list[Row]:
    cells = {"state": "done", "map": "0.500", "data": "cells", "took": "1:00h", **changes}
    return [Row(f"V_{i}", {"name": f"V_{i} 데이터", **cells}) for i in range(count)]


class TableApp(App[None]):
    def __init__(self, content: Sequence[Row] = ()) -> None:
        super().__init__()
        self.table = Table(COLUMNS, empty="Nothing yet\nPress n")
        self.content = content
        self.messages: list[tuple[str, str | None]] = []

    def compose(self) -> ComposeResult:
        yield self.table

    def on_mount(self) -> None:
        self.table.set_rows(self.content)
        self.table.focus()

    def on_table_highlighted(self, event: Table.Highlighted) -> None:
        self.messages.append(("highlighted", event.key))

    def on_table_selected(self, event: Table.Selected) -> None:
        self.messages.append(("selected", event.key))

    def on_table_header_selected(self, event: Table.HeaderSelected) -> None:
        self.messages.append(("header", event.column))


def drawn(table: Table) -> list[str]:
    return [table.render_line(y).text for y in range(table.size.height)]


def header(table: Table) -> list[str]:
    return table.render_line(0).text.split()


async def test_columns_drop_by_priority_and_lines_fill_the_width() -> None:
    app = TableApp(rows(50))
    expected = {
        80: ["version", "state", "mAP50", "data", "took"],
        50: ["version", "state", "mAP50", "took"],
        40: ["version", "state", "mAP50"],
        27: ["version", "state"],
        14: ["version"],
    }
    async with app.run_test(size=(80, 12)) as pilot:
        for width, titles in expected.items():
            await pilot.resize_terminal(width, 12)
            await pilot.pause()
            assert header(app.table) == titles
            room = app.table.scrollable_content_region.width
            assert {cell_len(line) for line in drawn(app.table)} == {room}


async def test_keys_move_scroll_and_select() -> None:
    app = TableApp(rows(100))
    async with app.run_test(size=(80, 11)) as pilot:
        for keys, key in (
            (["down", "j"], "V_2"), (["k"], "V_1"), (["pagedown"], "V_10"), (["end"], "V_99"), (["down"], "V_99"),
            (["pageup"], "V_90"), (["home"], "V_0"), (["up"], "V_0"),
        ):  # fmt: skip
            await pilot.press(*keys)
            assert app.table.cursor_key == key
            assert any(f"{key} " in line for line in drawn(app.table)[1:])
        await pilot.press("enter")
        assert app.messages[-1] == ("selected", "V_0")
        assert app.messages[0] == ("highlighted", "V_0") or app.messages[0] == ("highlighted", "V_1")


async def test_cursor_stays_on_its_key_when_rows_change() -> None:
    app = TableApp(rows(100))
    async with app.run_test(size=(80, 11)) as pilot:
        app.table.move_to("V_60")
        await pilot.pause()
        offset = app.table.scroll_offset.y
        app.messages.clear()
        app.table.set_rows([Row("new", {"name": "new"}), *rows(100)])
        await pilot.pause()
        assert app.table.cursor_key == "V_60" and app.table.scroll_offset.y in (offset, offset + 1)
        assert app.messages == []
        app.table.set_rows([row for row in rows(100) if row.key != "V_60"])
        await pilot.pause()
        assert app.table.cursor_key == "V_62" and app.messages == [("highlighted", "V_62")]
        app.table.set_rows([])
        await pilot.pause()
        assert app.table.cursor_key is None and app.messages[-1] == ("highlighted", None)
        app.table.set_rows(rows(3))
        assert app.table.cursor_key == "V_0"


async def test_one_changed_row_repaints_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    app = TableApp(rows(100))
    async with app.run_test(size=(80, 11)) as pilot:
        await pilot.pause()
        asked: list[Any] = []
        monkeypatch.setattr(app.table, "refresh", lambda *regions, **_: asked.append(regions))
        app.table.update_row(Row("V_3", {"name": "renamed"}))
        app.table.update_row(Row("V_3", {"name": "renamed"}))
        app.table.update_row(Row("V_90", {"name": "out of sight"}))
        app.table.update_row(Row("nobody", {}))
        assert [(region.y, region.height) for (region,) in asked] == [(4, 1)]
        assert "renamed" in drawn(app.table)[4]


async def test_marks_sorting_and_empty_text() -> None:
    app = TableApp(rows(5))
    async with app.run_test(size=(80, 11)) as pilot:
        app.table.toggle_mark()
        app.table.toggle_mark("V_2")
        assert app.table.marked == {"V_0", "V_2"}
        assert [line[1] for line in drawn(app.table)[1:4]] == ["*", " ", "*"]
        app.table.sorted_by("map", descending=True)
        assert "↓mAP50" in drawn(app.table)[0]
        app.table.sorted_by("name")
        assert "version↑" in drawn(app.table)[0]
        app.table.set_rows([])
        await pilot.pause()
        assert [line.strip() for line in drawn(app.table)[1:] if line.strip()] == ["Nothing yet", "Press n"]
        await pilot.press("down", "enter", "end", "pagedown")
        assert not [m for m in app.messages if m[0] == "selected"]


async def test_mouse() -> None:
    app = TableApp(rows(30))
    async with app.run_test(size=(80, 11)) as pilot:
        await pilot.click(app.table, offset=(10, 3))
        assert app.table.cursor_key == "V_2" and not [m for m in app.messages if m[0] == "selected"]
        await pilot.click(app.table, offset=(10, 3))
        assert app.messages[-1] == ("selected", "V_2")
        x = drawn(app.table)[0].index("mAP50")
        await pilot.click(app.table, offset=(x, 0))
        assert app.messages[-1] == ("header", "map")


async def test_cells_may_be_styled_wide_and_dirty() -> None:
    cells = {"name": "아주 긴 데이터 세트 이름입니다 끝", "state": state_badge("training", "학습 중입니다 오래"), "map": Content("한글한글한"),
             "data": "a\x1b[2J\nb"}  # fmt: skip
    app = TableApp([Row("a", cells)])  # type: ignore[arg-type]
    async with app.run_test(size=(60, 6)):
        line = drawn(app.table)[1]
        assert cell_len(line) == 60
        assert "● 학습 중입…" in line and "한글…" in line
        assert "\x1b" not in line and "\n" not in line


class Counting(Sequence[Row]):
    """A million rows that are made when looked at."""

    def __init__(self, count: int) -> None:
        self.count, self.looked = count, 0

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        assert isinstance(index, int)
        self.looked += 1
        if index >= self.count:
            raise IndexError
        return Row(str(index), {"name": f"row {index}"})

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(self.count))


async def test_a_million_rows_are_not_looked_at() -> None:
    many = Counting(1_000_000)
    app = TableApp(many)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("end", "pageup", "up", "pagedown")
        assert app.table.cursor_key == "999998"
        assert many.looked < 1000


@pytest.mark.parametrize("width", range(14))
@pytest.mark.parametrize("text", ["", "abc", "데이터 세트", "a데b이", "e\u0301e\u0301e\u0301", "●●●●●●"])
def test_fit_is_exact(text: str, width: int) -> None:
    for align in ("left", "right", "center"):
        assert cell_len(fit(text, width, align)) == width
