"""The terminal driver: Textual's own, with fewer bytes going out and nothing coming in that can stop it.

Kept apart from `terminal` because it needs Textual, and `terminal.prepare_environment` must run before Textual is
imported. `DOJANG_PLAIN_DRIVER=1` turns the cell diff off (to tell whether a fault on the screen is its doing); the
input side stays.
"""

from __future__ import annotations

import os
import re
import selectors
from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from textual import events
from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from tui.celldiff import CellDiff
from tui.widgets.symbols import PLAIN, ascii_only

if TYPE_CHECKING:
    from textual.app import App

HANGUP_CODE = 129
_SUBFIELDS = re.compile(r":[\d:]*(?=[;u~A-Z])")


class SafeParser(XTermParser):
    """Textual's parser dies on key reports in kitty's long form (`CSI 97::98;5u`), and the application with it."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        for attempt in (sequence, _SUBFIELDS.sub("", sequence)):
            try:
                return list(super()._sequence_to_key_events(attempt, alt=alt))
            except (ValueError, OverflowError):
                continue
        return []


class Outlet:
    """The terminal's end to write to, which may go away at any moment.

    Textual's thread that writes dies of the first error, and the application then waits forever for it to take more.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._gone = file, False

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                return self._file.write(text)
            except (OSError, ValueError):
                self._gone = True
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._file.flush()
            except (OSError, ValueError):
                self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class DiffDriver(LinuxDriver):
    """Sends only cells that changed; survives invalid bytes, odd keys and a terminal that goes away."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        self._diff = None if os.environ.get("DOJANG_PLAIN_DRIVER", "") not in ("", "0") else CellDiff()
        self._shown_size: tuple[int, int] | None = None
        self._doubt = True
        super().__init__(app, **options)
        if self._file is not None:
            self._file = Outlet(self._file)  # type: ignore[assignment]

    def invalidate(self) -> None:
        """Trust nothing about what the terminal shows. May be called from any thread."""
        self._doubt = True

    def write(self, data: str) -> None:
        if ascii_only():
            data = data.translate(PLAIN)
        if self._diff is None:
            super().write(data)
            return
        size = self._terminal_size()
        if self._doubt or size != self._shown_size:
            self._doubt, self._shown_size = False, size
            self._diff.invalidate()
        if sent := self._diff.feed(data, size):
            super().write(sent)

    def send(self, data: str) -> None:
        """Past the memory of cells: for what touches none and leaves the cursor where it was, as pictures do."""
        super().write(data)

    def _terminal_size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(2 if self._file is None else self._file.fileno())
        except (OSError, ValueError):
            return (0, 0)
        return columns, rows

    def process_message(self, message: Message) -> None:
        """Runs in the input thread. Ctrl+L redraws everywhere, also over dialogs, so it is taken here."""
        if isinstance(message, (events.Resize, events.AppFocus)):
            self.invalidate()
        elif isinstance(message, events.Key) and message.key == "ctrl+l":
            self._loop.call_soon_threadsafe(heal, self._app)
            return
        super().process_message(message)

    def run_input_thread(self) -> None:
        """As in Textual, but undecodable bytes become U+FFFD, and the end of the input ends the application."""
        parser = SafeParser(self._debug)
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                for _ in selector.select(0.1):
                    data = self._read()
                    if not data:
                        self._loop.call_soon_threadsafe(self._hang_up)
                        return
                    for event in parser.feed(decode(data)):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)
        try:
            for _ in parser.feed(""):
                pass
        except (EOFError, ParseError):
            pass

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, 4096)
        except OSError:  # EIO: the terminal is gone
            return b""

    def _hang_up(self) -> None:
        self._app.exit(return_code=HANGUP_CODE)


def heal(app: App[Any]) -> None:
    """Paint the whole screen again, whatever the terminal shows now: after foreign output, or after `fg`."""
    driver = app._driver
    if isinstance(driver, DiffDriver):
        driver.invalidate()
    if app._running and not app._closed:
        app.screen.refresh(layout=True)
        app.refresh()
