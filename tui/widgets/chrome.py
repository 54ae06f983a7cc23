"""What frames every screen: the title line, the sections, and the keys that work here, now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from textual.actions import parse
from textual.binding import Binding
from textual.dom import DOMNode
from textual.events import Click
from textual.screen import Screen

from tui.keys import HANGUL, display
from tui.widgets.lines import Line, LineWidget, Piece, line_width
from tui.widgets.symbols import ascii_only, fit, sign, state_look

GAP = "  "


def state_piece(state: str, text: str) -> Piece:
    """A state's sign and `text`, in its colour."""
    look = state_look(state)
    style = look.style.removeprefix("$").removeprefix("foreground-")
    return f"{look.ascii if ascii_only() else look.sign} {text}", style


class TitleBar(LineWidget):
    """Where am I, at the left; what runs, at the right. The left gives way first."""

    DEFAULT_CSS = "TitleBar { height: 1; background: $panel; padding: 0 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._left: Line = ()
        self._right: Line = ()

    def show(self, left: Sequence[Piece], right: Sequence[Piece] = ()) -> None:
        self._left, self._right = tuple(left), tuple(right)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        right = self._right
        while right and line_width(right) + 12 > width:
            right = right[1:]
        room = width - line_width(right) - (2 if right else 0)
        left: list[Piece] = []
        for text, role in self._left:
            if room <= 0:
                break
            text = text if cell_len(text) <= room else fit(text, room)
            room -= cell_len(text)
            left.append((text, role))
        return [(*left, (" " * (room + (2 if right else 0)), ""), *right)]


class Sections(LineWidget):
    """The places one can go to, with their digits; where one is stands out."""

    DEFAULT_CSS = "Sections { height: 1; padding: 0 1; }"

    def __init__(self, names: Sequence[tuple[str, str]], current: str) -> None:
        super().__init__()
        self._names, self._current = names, current

    def paint(self, width: int, height: int) -> list[Line]:
        pieces: list[Piece] = []
        for digit, name in self._names:
            here = name == self._current
            pieces += [(f"{digit} ", "muted"), (name, "current" if here else ""), (GAP + " ", "")]
        left = width - line_width(tuple(pieces))
        return [(*pieces, (sign("─") * max(0, left), "track"))]

    async def on_click(self, event: Click) -> None:
        left = 0
        for digit, name in self._names:
            right = left + cell_len(f"{digit} {name}{GAP} ")
            if left <= event.x - self.gutter.left < right:
                await self.app.run_action(f"go({name!r})")
            left = right


class KeyBar(LineWidget):
    """The footer: every key that works on this screen now, as many as fit; help and palette always stand at the right."""

    DEFAULT_CSS = "KeyBar { height: 1; dock: bottom; background: $panel; padding: 0 1; }"

    def on_mount(self) -> None:
        super().on_mount()
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, _screen: Screen[Any]) -> None:
        self.call_after_refresh(self.repaint)

    def paint(self, width: int, height: int) -> list[Line]:
        right: list[Piece] = []
        for key, word in self.always():
            right += [(GAP if right else "", ""), (key, "accent"), (f" {word}", "muted")]
        room = width - line_width(tuple(right)) - 1
        left: list[Piece] = []
        for key, word in self.keys():
            size = cell_len(key) + 1 + cell_len(word) + len(GAP)
            if size > room:
                break
            room -= size
            left += [(key, "accent"), (f" {word}", ""), (GAP, "")]
        return [(*left, (" " * (room + 1), ""), *right)]

    def always(self) -> list[tuple[str, str]]:
        """Help and palette. Where `?` would be typed, F1 helps."""
        helps = ["?"] if not typed(self.screen, "question_mark") else []
        active = self.screen.active_bindings.get("f1")
        if not helps and active and active.enabled and active.binding.action == "help":
            helps = ["f1"]
        return [*((key, "help") for key in helps), ("^p", "palette")]

    def keys(self) -> list[tuple[str, str]]:
        """Key and word of every shown action."""
        return [(display(b.key), b.description) for b in working_bindings(self.screen) if b.show]


def typed(screen: Screen[Any], key: str) -> bool:
    """Whether what has the focus would take the key as a letter."""
    focused = screen.focused
    character = " " if key == "space" else display(key)
    return focused is not None and focused.check_consume_key(key, character if len(character) == 1 else None)


def working_bindings(screen: Screen[Any], *, by_name: bool = False) -> list[Binding]:
    """Every binding that works on `screen` now, one an action and one a key: the screen's own first, in its order.

    A list inside the screen has its own Enter; what the screen says of that key is what a person wants to read, unless
    what has the focus says something of it itself. Keys that only move about say nothing, and are left out. `by_name`
    also gives the actions whose key is a letter that would be typed now.
    """
    found: dict[str, Binding] = {}
    keys: set[str] = set(HANGUL.values())
    own = [b for b in declared(screen) if by_name or b.priority or not typed(screen, b.key)]
    first = {b.action: b for b in reversed(declared(screen.focused)) if b.show} if screen.focused else {}
    told = {b.key: b for b in first.values()}
    others = [
        a.binding
        for a in screen.active_bindings.values()
        if a.enabled
        and not a.binding.system
        and (a.binding.show or a.binding.tooltip)
        and (by_name or a.binding.priority or a.node is screen.focused or not typed(screen, a.binding.key))
    ]
    for binding in [*(told.pop(b.key, b) for b in own), *told.values(), *others]:
        if binding.key in keys or binding.action in found or not binding.description:
            continue
        keys.add(binding.key)
        found[binding.action] = binding
    return list(found.values())


def declared(node: DOMNode) -> list[Binding]:
    """What the class of `node` itself binds, in its order, as far as it works now."""
    found = [b for given in type(node).BINDINGS for b in Binding.make_bindings([given])]
    return [b for b in found if (b.show or b.tooltip) and node.check_action(*action_of(b))]


def action_of(binding: Binding) -> tuple[str, tuple[Any, ...]]:
    """The action's bare name and parameters, as `check_action` wants them."""
    _, name, parameters = parse(binding.action)
    return name, parameters
