"""What dojang must know of the terminal it was started in, and what it has to put right there.

    problem = prepare_environment()      # before anything imports textual; print it and leave if not None
    App(driver_class=driver_class())     # cell diff and hardened input; Textual's own where there is no tty driver
    install_fixes(app)                   # from on_mount

Whether the terminal is light or dark is a setting. Asking it (OSC 11) was left out: an answer that comes late, as on a
slow link it does, would be typed into whatever has the focus. `COLORFGBG`, where a terminal sets it, is taken as a hint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.app import App
    from textual.driver import Driver

ESCAPE_DELAY = "250"
TRUE_COLOUR = 1 << 24
_TRUE_COLOUR_TERMS = ("kitty", "alacritty", "ghostty", "wezterm", "foot", "direct")
_NO_COLOUR_TERMS = ("vt100", "vt102", "vt220", "vt320", "unknown")
_LIGHT_ANSI = (7, 15)


def prepare_environment(environment: MutableMapping[str, str] | None = None) -> str | None:
    """Set what Textual reads at import, and say why the screens cannot be shown here, or None when they can."""
    environment = os.environ if environment is None else environment
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        # A key's bytes may come in two packets; with less patience F5 becomes Escape and "[15~".
        environment.setdefault("ESCDELAY", ESCAPE_DELAY)
    for name in ("COLUMNS", "LINES"):  # exported by some shells, they would hide the true size, and every later one
        environment.pop(name, None)
    if not (_is_terminal(sys.__stdin__) and _is_terminal(sys.__stderr__)):
        return (
            "The screens of dojang need a terminal, and the input or output of this command is not one.\n"
            "Over ssh, add -t: ssh -t HOST dojang. In a script, use the commands: dojang --help"
        )
    term = environment.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        return (
            f"The screens of dojang cannot be drawn in this terminal (TERM is {term or 'not set'}).\n"
            "Set TERM to what you use, for example TERM=xterm-256color, or use the commands: dojang --help"
        )
    return None


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except (OSError, ValueError):
        return False


def colour_count(environment: Mapping[str, str] | None = None) -> int:
    """How many colours will really be sent: 2 (none wanted or none there), 16, 256 or 16 777 216."""
    environment = os.environ if environment is None else environment
    term = environment.get("TERM", "").strip().lower()
    if environment.get("NO_COLOR") or term.startswith(_NO_COLOUR_TERMS):
        return 2
    if environment.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return TRUE_COLOUR
    if any(name in term for name in _TRUE_COLOUR_TERMS):
        return TRUE_COLOUR if "direct" in term else 256
    return 256 if "256color" in term else 16


def is_light(environment: Mapping[str, str] | None = None) -> bool | None:
    """What `COLORFGBG` says of the background; None when it says nothing."""
    environment = os.environ if environment is None else environment
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return int(background) in _LIGHT_ANSI if background.isdecimal() else None


def driver_class() -> type[Driver] | None:
    """The driver to give to `App(driver_class=…)`; None (Textual's choice) where there is no such terminal."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from tui.driver import DiffDriver

    return DiffDriver


def install_fixes(app: App[Any]) -> None:
    """Leave the terminal as it was on SIGTERM and SIGHUP, and repaint after Ctrl+Z and `fg`. Call from `on_mount`."""
    import asyncio
    import signal

    from tui.driver import heal

    def resumed(_: object) -> None:
        app.set_timer(0.05, lambda: heal(app))

    def leave(number: int) -> None:
        app.exit(return_code=128 + number)

    app.app_resume_signal.subscribe(app, resumed)
    if app.is_headless:
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        try:
            loop.add_signal_handler(number, leave, number)
        except (NotImplementedError, RuntimeError, ValueError):
            return  # not in the main thread: whoever runs the loop there answers for its signals
