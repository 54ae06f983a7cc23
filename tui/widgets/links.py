"""How a link to a server stands, in a sign, words and a colour."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.content import Content

from tui.widgets.symbols import ascii_only

if TYPE_CHECKING:
    from engine.servers.link import LinkState

LOOKS = {
    "up": ("↑", "^", "$success"),
    "connecting": ("◌", ":", "$foreground-muted"),
    "reconnecting": ("◐", "~", "$warning"),
    "down": ("✗", "x", "$error"),
}
LONG = 12 * 3600.0


def shown_name(server: str) -> str:
    """A server as people call it; this machine has no name among them."""
    return server or "this machine"


def since(moment: float) -> str:
    """The time of day, with its date where that is not today's."""
    form = "%H:%M:%S" if time.time() - moment < LONG else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(moment))


def link_words(state: LinkState | None) -> str:
    """`up 12 ms`, `reconnecting since 12:04:11`, or `here` for this machine."""
    if state is None:
        return "here"
    if state.name == "up":
        return f"up {state.round_trip:.0f} ms" if state.round_trip is not None else "up"
    if state.name == "connecting" and time.time() - state.since < 1:
        return "connecting"
    name = "not reached" if state.name == "connecting" and state.error else state.name
    return f"{name} since {since(state.since)}"


def link_piece(state: LinkState | None, text: str | None = None) -> tuple[str, str]:
    """Sign and words, and the role of their colour, for a line of pieces."""
    signs, plain, colour = LOOKS[state.name] if state else ("●", "*", "$foreground-muted")
    shown = link_words(state) if text is None else text
    return f"{plain if ascii_only() else signs} {shown}".rstrip(), colour.removeprefix("$").removeprefix("foreground-")


def link_badge(state: LinkState | None) -> Content:
    """The same as a cell of a table."""
    text, role = link_piece(state)
    return Content.styled(text, "$foreground-muted" if role == "muted" else f"${role}")


__all__ = ["link_badge", "link_piece", "link_words", "shown_name", "since"]
