"""Settings: how the app looks. Kept in the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.preferences import IMAGES, MARKERS
from tui.screens.base import Page
from tui.screens.dialogs import Pick
from tui.widgets.table import Column, Row, Table

COLUMNS = (
    Column("name", "setting", width=17),
    Column("value", "value", width=15),
    Column("help", "", width=30, flex=1),
)


class SettingsScreen(Page):
    SECTION = "Settings"
    HELP_TEXT = (
        "How the app looks. Enter changes the setting you are on. Everything is kept in this workspace's settings.toml."
    )
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "change", "change", tooltip="change this setting")]

    def body(self) -> Iterator[Widget]:
        yield Table(COLUMNS, id="settings")

    def on_screen_resume(self) -> None:
        self._show()
        self.query_one(Table).focus()

    def _show(self) -> None:
        p = self.dojang.preferences
        self.title_bar.show(
            [("dojang", "current"), ("  Settings", "title")], [(str(self.dojang.workspace.path), "muted")]
        )
        rows = [
            ("theme", "Theme", self.app.theme, "colours; also in the palette"),
            ("marker", "Curves drawn with", p.marker, "braille is finest; others for plain fonts"),
            ("smoothing", "Smoothing", f"{p.smoothing:g}", "of curves by step; 0 shows raw values"),
            ("images", "Images", p.images, "pixels where the terminal has them; or blocks (restart)"),
            (
                "mouse",
                "Mouse",
                "yes" if p.mouse else "no",
                "no: your terminal selects text (restart)",
            ),
        ]
        self.query_one(Table).set_rows([Row(k, {"name": n, "value": v, "help": h}) for k, n, v, h in rows])

    @on(Table.Selected)
    @work
    async def action_change(self) -> None:
        key = self.query_one(Table).cursor_key or "theme"
        options = {
            "theme": sorted(self.app.available_themes),
            "marker": list(MARKERS),
            "images": list(IMAGES),
            "smoothing": ["0", "0.3", "0.6", "0.8", "0.9", "0.95"],
            "mouse": ["yes", "no"],
        }[key]
        now = {"theme": self.app.theme, "mouse": "yes" if self.dojang.preferences.mouse else "no"}
        current = now.get(key, str(getattr(self.dojang.preferences, key)))
        chosen = await self.app.push_screen_wait(Pick(key.capitalize(), [(o, o, "") for o in options], current))
        if chosen is None:
            return
        if key == "theme":
            self.app.theme = chosen
        else:
            self.dojang.prefer(
                **{key: float(chosen) if key == "smoothing" else chosen == "yes" if key == "mouse" else chosen}
            )
        self._show()
