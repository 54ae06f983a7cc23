"""The app under Pilot: a workspace of its own, keys in, lines of the screen out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from textual import events
from textual.keys import _character_to_key, key_to_character
from textual.pilot import Pilot

from engine.versions import Workspace
from tui.app import DojangApp


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this terminal's own settings leaks in."""
    for name in list(os.environ):
        if name.startswith(("TEXTUAL", "DOJANG", "NO_COLOR", "COLORFGBG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


class Person:
    """Someone at the keyboard, who sees the screen."""

    def __init__(self, app: DojangApp, pilot: Pilot[str | None]) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        """One key after the other, each after what the one before did: Pilot's own way takes 100 ms a key."""
        for key in keys:
            named = {"slash": "/", "plus": "+"}
            self._send(key, named.get(key) or (key if len(key) == 1 else key_to_character(key)))
            await self.rest()

    async def type(self, text: str) -> None:
        """Every character as a key of its own, as fast as they can come."""
        for character in text:
            self._send(_character_to_key(character), character)
        await self.rest()

    def _send(self, key: str, character: str | None) -> None:
        driver = self.app._driver
        assert driver is not None
        event = events.Key(key, character)
        event.set_sender(self.app)
        driver.send_message(event)

    async def rest(self) -> None:
        """Until the app has done what there was to do, its next frame with it; a busy machine gets more time."""
        for _ in range(100):
            before, at = time.process_time(), time.monotonic()
            await asyncio.sleep(0.02)
            if time.process_time() - before < 0.004 and time.monotonic() - at < 0.026:
                return

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, with the screens that shine through from below it."""
        return ["".join(segment.text for segment in strip) for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def footer(self) -> str:
        return self.lines[-1]

    async def until(self, true: Callable[[], Any], limit: float = 40.0) -> None:
        """Wait for something; fail with what stands on the screen when it does not come."""
        end = time.monotonic() + limit
        if true():
            return
        while not true():
            if time.monotonic() > end:
                raise AssertionError("it did not come; on the screen:\n" + self.text)
            await asyncio.sleep(0.05)
        await self.rest()

    async def sees(self, *texts: str, limit: float = 40.0) -> None:
        await self.until(lambda: all(t in self.text for t in texts), limit)


class Open(Protocol):
    def __call__(
        self, workspace: Workspace, size: tuple[int, int] = ..., **options: Any
    ) -> Any: ...  # an async context manager that gives a Person


@pytest.fixture
def opened() -> Open:
    """`async with opened(workspace) as person:` opens the app."""

    @asynccontextmanager
    async def run(workspace: Workspace, size: tuple[int, int] = (120, 40), **options: Any) -> AsyncIterator[Person]:
        app = DojangApp(workspace, **options)
        app.animation_level = "none"
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            yield Person(app, pilot)

    return run
