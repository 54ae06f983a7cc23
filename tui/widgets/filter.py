"""The line that narrows a list while one types."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from tui.widgets.table import Table


class Filter(Input):
    """Out of sight while it is empty and not being typed into. Enter or ↓ goes to the list, Esc shows all again."""

    DEFAULT_CSS = """
    Filter { display: none; border: none; height: 1; padding: 0 1; background: $surface; }
    Filter:focus { border: none; background: $surface; }
    Filter.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "to_list", "to the list", tooltip="to the list, as far as it is left"),
        Binding("escape", "clear", "show all", tooltip="show all again"),
    ]

    def open(self) -> None:
        self.add_class("open")
        self.focus()

    @property
    def is_open(self) -> bool:
        return self.has_class("open")

    def action_to_list(self) -> None:
        self.set_class(bool(self.value), "open")
        assert self.parent is not None
        self.parent.query_one(Table).focus()

    def action_clear(self) -> None:
        self.value = ""
        self.action_to_list()


__all__ = ["Filter"]
