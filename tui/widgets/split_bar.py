"""Train, val and test as one bar with two handles."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from tui.widgets.lines import Line, LineWidget
from tui.widgets.symbols import ascii_only, sign

STEP = 1.0  # per cent of a press


class SplitBar(LineWidget, can_focus=True):
    """← → move the handle between train and val, shift with them the one between val and test."""

    DEFAULT_CSS = """
    SplitBar { height: 2; padding: 0 1; }
    SplitBar:focus { background: $block-cursor-blurred-background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "first(-1)", "train | val", tooltip="the handle between train and val"),
        Binding("right", "first(1)", "train | val", show=False, tooltip="the handle between train and val"),
        Binding("shift+left", "second(-1)", "val | test", tooltip="the handle between val and test"),
        Binding("shift+right", "second(1)", "val | test", show=False, tooltip="the handle between val and test"),
        Binding("up", "app.focus_previous", "up", show=False),
        Binding("down,enter", "app.focus_next", "down", show=False),
    ]

    class Changed(Message):
        def __init__(self, ratio: tuple[float, float, float]) -> None:
            super().__init__()
            self.ratio = ratio

    def __init__(self, ratio: tuple[float, float, float], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ratio = ratio

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Shares of train, val and test, 100 in all."""
        return self._ratio

    def show(self, ratio: tuple[float, float, float]) -> None:
        """Any three numbers; they are brought to 100 in all."""
        whole = sum(ratio) or 1.0
        self._ratio = (100 * ratio[0] / whole, 100 * ratio[1] / whole, 100 * ratio[2] / whole)
        self.repaint()

    def action_first(self, by: int) -> None:
        train, val, test = self._ratio
        moved = min(max(round(train) + by * STEP, 1.0), train + val)
        self._take((moved, train + val - moved, test))

    def action_second(self, by: int) -> None:
        train, val, test = self._ratio
        moved = min(max(round(val) + by * STEP, 0.0), val + test)
        self._take((train, moved, val + test - moved))

    def _take(self, ratio: tuple[float, float, float]) -> None:
        if ratio != self._ratio:
            self._ratio = ratio
            self.repaint()
            self.post_message(self.Changed(ratio))

    def paint(self, width: int, height: int) -> list[Line]:
        room = max(3, width - 2)
        train = round(self._ratio[0] / 100 * room)
        val = round(self._ratio[1] / 100 * room)
        full, light, faint = ("#", "=", "-") if ascii_only() else ("█", "▓", "░")
        handle = ("|", "current")
        line: Line = (
            (full * train, "chart-1"),
            handle,
            (light * val, "chart-2"),
            handle,
            (faint * max(0, room - train - val), "chart-3"),
        )
        told = f"  {sign('·')}  ".join(
            f"{name} {share:g} %" for name, share in zip(("train", "val", "test"), self._ratio, strict=True)
        )
        return [line, ((told, "muted"),)]
