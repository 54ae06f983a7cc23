"""The base of every widget here that draws its own lines.

Textual repaints whole regions, and over SSH each repainted cell is paid for. So a `LineWidget` says what its lines
are, in pieces of text with a role, and only the lines that differ from the last ones are painted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from tui.widgets.palette import Palette

Piece: TypeAlias = tuple[str, str]
"""Text and its role (see `palette`)."""
Line: TypeAlias = tuple[Piece, ...]


class LineWidget(Widget):
    """Draws what `paint` returns. Call `repaint` after the data changed; nothing is drawn while it cannot be seen."""

    DEFAULT_CSS = """
    LineWidget { height: auto; width: 1fr; }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self.palette = Palette(self)
        self._lines: list[Line] = []
        self._stale = True

    def paint(self, width: int, height: int) -> Sequence[Line]:
        """The lines of this widget in a room of `width` by `height` cells; missing ones are blank."""
        raise NotImplementedError

    @property
    def seen(self) -> bool:
        """Whether a person could be looking: mounted, with room, on a screen that is shown."""
        if not (self.is_mounted and self.is_attached and self.size and self._screen_shows):
            return False
        return all(node.display for node in self.ancestors_with_self)

    @property
    def _screen_shows(self) -> bool:
        """Whether its screen is the top one, or only dialogs that let it shine through lie over it."""
        for screen in reversed(self.app.screen_stack):
            if screen is self.screen:
                return True
            if screen.styles.background.a == 1:
                break
        return False

    def repaint(self) -> None:
        """Draw again, and send only the lines that changed."""
        if not self.seen:
            self._stale = True
            if self.is_mounted:
                self.refresh()
            return
        before = [] if self._stale else self._lines
        self._draw()
        width = self.size.width
        changed = [y for y, line in enumerate(self._lines) if y >= len(before) or line != before[y]]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def _draw(self) -> None:
        width, height = self.size
        lines = list(self.paint(width, height))[:height]
        lines.extend([()] * (height - len(lines)))
        self._lines = lines
        self._stale = False

    def render_line(self, y: int) -> Strip:
        if self._stale or len(self._lines) != self.size.height:
            self._draw()
        line = self._lines[y] if y < len(self._lines) else ()
        segments = [Segment(text, self.palette[role]) for text, role in line if text]
        return Strip(segments).adjust_cell_length(self.size.width, self.palette[""])

    def restyle(self, _theme: Any = None) -> None:
        """The theme changed: same lines, other colours."""
        self.palette.clear()
        self._stale = True
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.palette.clear()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self.restyle)

    def on_resize(self) -> None:
        self._stale = True
        self.refresh()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width


def line_width(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)
