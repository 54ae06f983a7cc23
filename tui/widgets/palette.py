"""Roles to styles: widgets name what a thing is, the theme says how that looks.

A role is one of `ROLES`, `chart-1` … `chart-6`, the same with `-raw` (a dimmer kin, for the unsmoothed line), or any
style Textual understands (`bold $accent`). Themes from elsewhere know nothing of charts, so those colours have a
fallback; in ANSI themes every role maps on the terminal's own 16 colours and on bold and dim. (Text is dimmed rather
than grey there, as some palettes hide their grey; a dim curve may be grey, for many terminals do not dim.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style as RichStyle
from textual.color import Color
from textual.errors import TextualError
from textual.style import Style

if TYPE_CHECKING:
    from textual.widget import Widget

ROLES: dict[str, str] = {
    "": "",
    "text": "",
    "title": "bold",
    "muted": "$foreground-muted",
    "axis": "$foreground-muted",
    "track": "$foreground-muted",
    "accent": "$accent",
    "current": "bold $accent",
    "success": "$success",
    "warning": "$warning",
    "error": "$error",
}
ANSI_ROLES: dict[str, str] = {"muted": "dim", "axis": "dim", "track": "dim"}
CHART_COUNT = 6
CHART_FALLBACK = ("accent", "success", "warning", "secondary", "error", "primary")
ANSI_CHART = ("ansi_cyan", "ansi_yellow", "ansi_green", "ansi_magenta", "ansi_red", "ansi_blue")
RAW_STRENGTH = 0.5  # how much of the series' own colour its dim line keeps


class Palette:
    """The styles of one widget; made anew by `clear` when the theme, the focus or the stylesheet changes."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget
        self._styles: dict[str, RichStyle] = {}

    def clear(self) -> None:
        self._styles.clear()

    def __getitem__(self, role: str) -> RichStyle:
        style = self._styles.get(role)
        if style is None:
            style = self._styles[role] = self._make(role)
        return style

    def _make(self, role: str) -> RichStyle:
        base = self._widget.visual_style
        variables = self._widget.app.theme_variables
        ansi = self._widget.app.current_theme.ansi
        if role.startswith("chart-"):
            return self._chart(role, base, variables, ansi)
        text = ROLES.get(role, role)
        if role == "axis" and "chart-dim" in variables:
            text = "$chart-dim"
        if ansi:
            text = ANSI_ROLES.get(role, text)
        return (base + parse(text, variables)).rich_style

    def _chart(self, role: str, base: Style, variables: dict[str, str], ansi: bool) -> RichStyle:
        name, raw = role.removesuffix("-raw"), role.endswith("-raw")
        number = (int(name.rpartition("-")[2]) - 1) % CHART_COUNT if name[-1:].isdigit() else 0
        if ansi:
            return (base + parse("ansi_bright_black" if raw else ANSI_CHART[number], variables)).rich_style
        value = variables.get(name) or variables.get(CHART_FALLBACK[number], "#808080")
        foreground = parse(value, variables).foreground or Color.parse("#808080")
        if raw and base.background is not None and base.background.ansi is None:
            foreground = base.background.blend(foreground, RAW_STRENGTH, alpha=1.0)
        return (base + Style(foreground=foreground)).rich_style


def parse(text: str, variables: dict[str, str]) -> Style:
    """A Textual style; one that a theme spelled wrongly is no style at all, never a crash."""
    if not text:
        return Style()
    try:
        return Style.parse(text, variables)
    except (TextualError, ValueError):
        return Style()
