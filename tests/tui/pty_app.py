"""A small application for the tests in a pseudo-terminal: a list, an input with Korean in it, a chart, a dialog."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from tui import terminal
from tui.themes import register
from tui.widgets.bars import Bar, ProgressBars
from tui.widgets.chart import Chart, Series
from tui.widgets.table import Column, Row, Table


class Ask(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Close")]
    CSS = "Ask { align: center middle; } Label { padding: 1 3; background: $panel; }"

    def compose(self) -> ComposeResult:
        yield Label("삭제할까요? V_7 cannot be brought back")


class Small(App[None]):
    CSS = "Input { border: none; height: 1; } Chart { height: 8; }"
    BINDINGS: ClassVar[list[BindingType]] = [("f2", "ask"), ("f3", "theme"), ("f4", "grow")]

    def compose(self) -> ComposeResult:
        yield ProgressBars()
        yield Input("이름", id="name")
        yield Chart(draws_per_second=1000)
        yield Table([Column("name", "이름", 10, flex=1), Column("value", "value", 8, align="right")])

    def on_mount(self) -> None:
        terminal.install_fixes(self)
        register(self)
        self.theme = "dojang-dark"
        self.query_one(Input).cursor_blink = False
        self.count = 0
        rows = [Row(str(i), {"name": f"데이터 세트 {i}", "value": str(i * 37 % 101)}) for i in range(300)]
        self.query_one(Table).set_rows(rows)
        self.action_grow()

    def action_grow(self) -> None:
        self.count += 3
        values = [abs(i % 17 - 8) / 8 for i in range(self.count)]
        self.query_one(Chart).show([Series("손실", range(self.count), values)], x_range=(0, 100), title="loss")
        self.query_one(ProgressBars).show([Bar("epoch", self.count, 100)])

    def action_ask(self) -> None:
        self.push_screen(Ask())

    def action_theme(self) -> None:
        self.theme = "dojang-light" if self.theme == "dojang-dark" else "dojang-dark"


if __name__ == "__main__":
    app = Small(driver_class=terminal.driver_class())
    app.animation_level = "none"
    app.run()
    raise SystemExit(app.return_code)
