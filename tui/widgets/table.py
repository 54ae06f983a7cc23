"""A list that stays quick at a million rows, because only the lines on screen are ever looked at.

    table = Table([Column("version", "version", flex=1, width=12), Column("map", "mAP50", width=5, align="right")])
    table.set_rows([Row("V_7", {"version": "V_7 augmented", "map": "0.781"}), …])    # cursor and scroll stay
    table.update_row(Row("V_7", …))                                                    # repaints that line only
    table.cursor_key, table.move_to("V_7"), table.toggle_mark(), table.marked, table.sorted_by("map", descending=True)

Messages: `Table.Highlighted(key)` when the cursor moved to another row, `Table.Selected(key)` on Enter or on a click on
the row the cursor is already on (so that one click looks and two open), `Table.HeaderSelected(column)` on a click on a
heading. A column with `flex` takes the room that is left, its `width` being the least it bears; when the widths do not
fit, the column of lowest `priority` goes first, the rightmost of equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.widgets.columns import GAP, Cell, Column, Row, cell_segments, fit_columns, ink
from tui.widgets.palette import Palette
from tui.widgets.symbols import fit, sign

__all__ = ["Cell", "Column", "Row", "Table"]

GUTTER = 2  # the cursor's bar and the mark


class Table(ScrollView, can_focus=True):
    """A virtual list with a cursor, marks and a heading."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header", "table--cursor", "table--cursor-blurred",
    }  # fmt: skip
    DEFAULT_CSS = """
    Table {
        height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1;
        &:ansi > .table--cursor { background: ansi_default; color: ansi_default; text-style: reverse; }
        &:ansi > .table--cursor-blurred { background: ansi_default; color: ansi_default; text-style: bold; }
    }
    Table > .table--header { color: $foreground-muted; text-style: bold; }
    Table > .table--cursor { background: $block-cursor-background; color: $block-cursor-foreground;
        text-style: $block-cursor-text-style; }
    Table > .table--cursor-blurred { background: $block-cursor-blurred-background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "select", "Open", show=False),
    ]

    class Highlighted(Message):
        """The cursor is on another row (`key` is None when the list became empty)."""

        def __init__(self, table: Table, key: str | None) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> Table:
            return self.table

    class Selected(Message):
        """The person wants to open this row."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> Table:
            return self.table

    class HeaderSelected(Message):
        """A heading was clicked; `column` is the column's key."""

        def __init__(self, table: Table, column: str) -> None:
            super().__init__()
            self.table, self.column = table, column

        @property
        def control(self) -> Table:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column] = (),
        *,
        empty: str | Content = "Nothing here yet",
        show_header: bool = True,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.palette = Palette(self)
        self.columns: list[Column] = list(columns)
        self.show_header = show_header
        self.marked: set[str] = set()
        self._empty = empty
        self._rows: Sequence[Row] = ()
        self._changed: dict[str, Row] = {}
        self._index: dict[str, int] | None = None
        self._cursor = 0
        self._sort: tuple[str, bool] | None = None
        self._layout_key: tuple[int, int] = (-1, -1)
        self._sized: list[tuple[Column, int]] = []

    # What it shows

    def set_columns(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)
        self._layout_key = (-1, -1)
        self.refresh()

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these rows (any sequence, also a lazy one). The cursor stays on its key, or else on its place.

        Marks stay too, also those of rows that a filter hides: who deletes a row takes its key out of `marked`.
        """
        before = self.cursor_key
        in_view = self._visible(self._cursor)
        self._rows, self._index, self._changed = rows, None, {}
        self._cursor = self._find_near(before, self._cursor)
        self._measure()
        if in_view:
            self._bring_into_view()
        self.refresh()
        if self.cursor_key != before:
            self.post_message(self.Highlighted(self, self.cursor_key))

    def update_row(self, row: Row) -> None:
        """Replace the row of that key and repaint its line; a key that is not in the list is ignored."""
        index = self._find(row.key)
        if index is not None and self._row(index) != row:
            self._changed[row.key] = row
            self._refresh_row(index)

    def set_empty(self, text: str | Content) -> None:
        """What stands there when there are no rows: say what this list is for and which key fills it."""
        self._empty = text
        if not self._rows:
            self.refresh()

    def sorted_by(self, column: str | None, *, descending: bool = False) -> None:
        """Show by which column the rows are sorted; the sorting itself is the caller's."""
        self._sort = None if column is None else (column, descending)
        self.refresh()

    # Where the cursor is

    @property
    def row_count(self) -> int:
        return len(self._rows)

    @property
    def cursor_index(self) -> int:
        return self._cursor

    @property
    def cursor_key(self) -> str | None:
        return self._rows[self._cursor].key if self._cursor < len(self._rows) else None

    def row(self, key: str) -> Row | None:
        index = self._find(key)
        return None if index is None else self._row(index)

    def move_to(self, key: str) -> bool:
        """Put the cursor on that key; False when it is not in the list."""
        index = self._find(key)
        if index is not None:
            self._move(index)
        return index is not None

    def toggle_mark(self, key: str | None = None) -> None:
        """Mark or unmark the row of `key`, else the one under the cursor."""
        key = self.cursor_key if key is None else key
        index = None if key is None else self._find(key)
        if key is None or index is None:
            return
        self.marked.symmetric_difference_update({key})
        self._refresh_row(index)

    def clear_marks(self) -> None:
        self.marked.clear()
        self.refresh()

    # Keys and mouse

    def action_move(self, step: int) -> None:
        self._move(self._cursor + step)

    def action_page(self, step: int) -> None:
        self._move(self._cursor + step * max(self._page - 1, 1))

    def action_edge(self, last: int) -> None:
        self._move(len(self._rows) - 1 if last else 0)

    def action_select(self) -> None:
        if (key := self.cursor_key) is not None:
            self.post_message(self.Selected(self, key))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if self.show_header and offset.y == 0:
            self._click_header(offset.x)
            return
        index = offset.y - self._top + self.scroll_offset.y
        if not 0 <= index < len(self._rows):
            return
        if index == self._cursor:
            self.action_select()
        else:
            self._move(index)

    def _click_header(self, x: int) -> None:
        left = GUTTER
        for column, width in self._columns_for(self._room.width):
            if left <= x < left + width + GAP:
                self.post_message(self.HeaderSelected(self, column.key))
                return
            left += width + GAP

    def on_focus(self) -> None:
        self._refresh_row(self._cursor)

    def on_blur(self) -> None:
        self._refresh_row(self._cursor)

    def on_resize(self) -> None:
        self._measure()
        self._bring_into_view()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._restyle)
        self._measure()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()

    def _restyle(self, _theme: Any) -> None:
        self.palette.clear()
        self.refresh()

    # Where things are

    @property
    def _room(self) -> Size:
        """What is left beside the scrollbar."""
        return self.scrollable_content_region.size

    @property
    def _top(self) -> int:
        return 1 if self.show_header else 0

    @property
    def _page(self) -> int:
        return max(self._room.height - self._top, 1)

    def _measure(self) -> None:
        self.virtual_size = Size(self._room.width, len(self._rows) + self._top)

    def _row(self, index: int) -> Row:
        row = self._rows[index]
        return self._changed.get(row.key, row) if self._changed else row

    def _find(self, key: str) -> int | None:
        if self._index is None:
            self._index = {row.key: index for index, row in enumerate(self._rows)}
        return self._index.get(key)

    def _find_near(self, key: str | None, index: int) -> int:
        """The index of `key`, looked for first where it was: most updates leave the order alone."""
        if not self._rows:
            return 0
        if index < len(self._rows) and self._rows[index].key == key:
            return index
        found = None if key is None else self._find(key)
        return found if found is not None else min(index, len(self._rows) - 1)

    def _visible(self, index: int) -> bool:
        return 0 <= index - self.scroll_offset.y < self._page

    def _move(self, index: int) -> None:
        index = max(min(index, len(self._rows) - 1), 0)
        if index == self._cursor or not self._rows:
            return
        before, self._cursor = self._cursor, index
        self._refresh_row(before)
        self._refresh_row(index)
        self._bring_into_view()
        self.post_message(self.Highlighted(self, self.cursor_key))

    def _bring_into_view(self) -> None:
        top = self.scroll_offset.y
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True)
        elif self._cursor >= top + self._page:
            self.scroll_to(y=self._cursor - self._page + 1, animate=False, force=True)

    def _refresh_row(self, index: int) -> None:
        y = index - self.scroll_offset.y + self._top
        if self._top <= y < self._room.height:
            self.refresh(Region(0, y, self.size.width, 1))

    # Drawing

    def _columns_for(self, width: int) -> list[tuple[Column, int]]:
        key = (width, len(self.columns))
        if key != self._layout_key:
            self._layout_key = key
            self._sized = fit_columns(self.columns, max(width - GUTTER, 1))
        return self._sized

    def render_line(self, y: int) -> Strip:
        width = self._room.width
        if self.show_header and y == 0:
            return self._header(width)
        if not self._rows:
            return self._empty_line(y - self._top, width)
        index = y - self._top + self.scroll_offset.y
        if index >= len(self._rows):
            return Strip.blank(width, self.palette[""])
        return self._row_line(index, width)

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--header")
        segments = [Segment(" " * GUTTER, style)]
        for column, size in self._columns_for(width):
            title = column.title
            if self._sort is not None and self._sort[0] == column.key:
                arrow = sign("↓" if self._sort[1] else "↑")
                title = f"{arrow}{title}" if column.align == "right" else f"{title}{arrow}"
            segments.append(Segment(fit(title, size, column.align) + " " * GAP, style))
        return Strip(segments).adjust_cell_length(width, style)

    def _row_line(self, index: int, width: int) -> Strip:
        row = self._row(index)
        base, coloured = self._row_style(index)
        marked = row.key in self.marked
        bar = self.palette["accent" if self.has_focus else "muted"]
        cursor = sign("▌") if index == self._cursor else " "
        bar_style = base + RichStyle(color=bar.color, dim=bar.dim) if coloured else base
        segments = [Segment(cursor, bar_style), Segment("*" if marked else " ", bar_style)]
        style = base + RichStyle(bold=True) if marked else base
        for number, (column, size) in enumerate(self._columns_for(width)):
            if number:
                segments.append(Segment(" " * GAP, style))
            cell = row.cells.get(column.key, "")
            segments.extend(cell_segments(cell, size, column.align, style, coloured))
        return Strip(segments).adjust_cell_length(width, base)

    def _row_style(self, index: int) -> tuple[RichStyle, bool]:
        """The style of a row, and whether its cells keep their own colours (not on a reversed line in 16 colours)."""
        if index != self._cursor:
            return self.palette[""], True
        if self.has_focus:
            return self.get_component_rich_style("table--cursor"), not self.app.current_theme.ansi
        return self.get_component_rich_style("table--cursor-blurred"), True

    def _empty_line(self, y: int, width: int) -> Strip:
        lines = (self._empty if isinstance(self._empty, Content) else Content(self._empty)).split("\n")
        top = max((self._page - len(lines)) // 3, 0)
        if not top <= y < top + len(lines):
            return Strip.blank(width, self.palette[""])
        line = lines[y - top]
        left = max((width - line.cell_length) // 2, 0)
        muted = self.palette["muted"]
        segments = [
            Segment(" " * left, muted),
            *(Segment(s.text, muted + ink(s.style)) for s in line.render_segments()),
        ]
        return Strip(segments).adjust_cell_length(width, muted)
