"""Keys: what the footer, the help and the palette say is what works, everywhere, also in a small terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from engine.versions import Workspace
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.app import DojangApp
from tui.keys import HANGUL, display
from tui.screens.dialogs import MOVING, Ask, Confirm, Help, Note, Pick
from tui.screens.paths import PathDialog
from tui.screens.version import Views
from tui.widgets.chrome import KeyBar, Sections, action_of, typed, working_bindings

Way = Callable[[Person], Awaitable[None]]


def keys(*pressed: str, sees: str = "") -> Way:
    async def go(person: Person) -> None:
        for key in pressed:
            await person.press(key)
        if sees:
            await person.sees(sees)

    return go


async def settings_step(person: Person) -> None:
    await person.press("n")
    await person.sees("● Data set", "shapes")
    await person.press("enter")
    await person.sees("● Settings")


def step(*more: str, sees: str) -> Way:
    async def go(person: Person) -> None:
        await settings_step(person)
        for number, key in enumerate(more):
            await person.press(key)
            if key == "ctrl+n" and not number:
                await person.sees("this machine, auto")
        await person.sees(sees)

    return go


async def open_live(person: Person) -> None:
    person.app.open_version("V_2")
    await person.sees("● training")


async def open_done(person: Person) -> None:
    person.app.open_version("V_0")
    await person.sees("val, by class")


SCREENS: dict[str, Way] = {
    "versions, running": keys(sees="● training"),
    "versions, stopped": keys("down", sees="■ stopped"),
    "versions, done": keys("down", "down", sees="✓ done"),
    "versions, filter": keys("slash", sees="filter: name"),
    "data sets": keys("2", sees="shapes"),
    "data sets, search": keys("2", "slash", sees="search by name"),
    "servers": keys("3", sees="GiB free at"),
    "queue": keys("4", sees="Nobody waits."),
    "settings": keys("5", sees="Theme"),
    "wizard, data set": keys("n", sees="● Data set"),
    "wizard, a choice": step(sees="Epochs"),
    "wizard, an input": step("down", "down", sees="Epochs"),
    "wizard, server": step("ctrl+n", sees="● Server"),
    "wizard, confirm": step("ctrl+n", "ctrl+n", sees="● Confirm"),
    "version, live": open_live,
    "version, summary": open_done,
}
DIALOGS: dict[str, tuple[type, Way]] = {
    "add data set": (PathDialog, keys("2", "a")),
    "details": (Note, keys("2", "enter")),
    "rename": (Ask, keys("r")),
    "tags": (Ask, keys("t")),
    "delete": (Confirm, keys("down", "x")),
    "stop": (Confirm, keys("s")),
    "sort": (Pick, keys("o")),
    "project": (Pick, keys("w")),
    "theme": (Pick, keys("5", "enter")),
    "help": (Help, keys("question_mark")),
    "model": (Pick, step("enter", sees="yolov8x")),
    "about a setting": (Note, step("f1", sees="About this setting")),
}


@pytest.fixture
def full(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A data set; V_0 done, V_1 stopped, V_2 to be held as running."""
    made.shapes(workspace, tmp_path / "shapes")
    made.in_state(workspace, "done", start=1e9)
    made.in_state(workspace, "stopped", start=1.1e9)
    made.version(workspace, made.training(until=50))
    return workspace


@asynccontextmanager
async def at(full: Workspace, opened: Open, way: Way, size: tuple[int, int]) -> AsyncIterator[Person]:
    with made.held(full.version("V_2")):
        async with opened(full, size) as person:
            await person.sees("● training")
            await way(person)
            yield person


# What only moves about, or edits the text that one is typing.
MOVES = {
    "move", "page", "edge", "select", "focus_next", "focus_previous", "step", "scroll_up", "scroll_down", "scroll_home",
    "scroll_end", "page_up", "page_down", "scroll_left", "scroll_right", "page_left", "page_right", "cursor_left",
    "cursor_right", "home", "end", "delete_left", "delete_right", "delete_right_word", "delete_left_word",
    "delete_left_all", "delete_right_all", "cut", "copy", "paste", "select_all", "submit", "copy_text", "press",
}  # fmt: skip
CANDIDATES = [
    *"abcdefghijklmnopqrstuvwxyz0123456789", "slash", "question_mark", "plus", "space", "enter", "escape", "tab", "shift+tab",
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "backspace", "delete",
    *(f"f{n}" for n in range(1, 13)), *(f"ctrl+{c}" for c in "abcdefgknopqrstuvwxyz"),
]  # fmt: skip


async def press_only(app: DojangApp, key: str) -> None:
    """What Textual does with a key: bindings that come first, then what has the focus, then the other bindings."""
    if not await app._check_bindings(key, priority=True) and not typed(app.screen, key):
        await app._check_bindings(key)


@pytest.mark.parametrize("name", SCREENS)
async def test_footer_help_and_palette_list_what_works(
    name: str, full: Workspace, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def only_note(self: DojangApp, target: Any, action: str, parameters: Any) -> bool:
        done.append(action)
        return True

    async with at(full, opened, SCREENS[name], (120, 40)) as person:
        app, screen = person.app, person.app.screen
        bindings = working_bindings(screen)
        listed = {b.key: action_of(b)[0] for b in bindings}
        said = screen.query_one(KeyBar)
        footer = dict([*said.keys(), *said.always()])
        assert footer.keys() <= {display(k) for k in listed} | {"f1"}

        offered = {command.title.lower() for command in app.get_system_commands(screen)}
        for binding in working_bindings(screen, by_name=True):
            assert binding.action == "command_palette" or binding.description.lower() in offered

        active = screen.active_bindings
        for binding in bindings:
            if binding.key in HANGUL:
                assert active[HANGUL[binding.key]].binding.action == binding.action

        monkeypatch.setattr(DojangApp, "_dispatch_action", only_note)
        for key in CANDIDATES:
            done.clear()
            await press_only(app, key)
            works = done[0] if done else ""
            if key in listed:
                assert works == listed[key] or (key == "enter" and works == "select"), key
            else:
                assert works in MOVES or works in listed.values() or not works, (key, works)


async def test_the_palette_does_what_it_says(full: Workspace, opened: Open) -> None:
    async with at(full, opened, SCREENS["versions, done"], (80, 24)) as person:
        await person.press("ctrl+p")
        await person.type("rename")
        await person.until(lambda: "give it a name" in person.text)
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, Ask))


async def test_help_tells_the_keys_and_closes_by_them(full: Workspace, opened: Open) -> None:
    async with at(full, opened, SCREENS["versions, stopped"], (80, 24)) as person:
        bindings = working_bindings(person.app.screen)
        for close in ("escape", "question_mark", "enter", "q"):
            await person.press("question_mark")
            assert isinstance(person.app.screen, Help), close
            await person.press(close)
            assert not isinstance(person.app.screen, Help), close
        await person.press("f1")
        shown = person.app.screen.query_one("#keys").render().plain.splitlines()  # type: ignore[attr-defined]
        assert [line.split()[0] for line in shown] == [display(b.key) for b in bindings] + [key for key, _ in MOVING]


@pytest.mark.parametrize("name", SCREENS)
async def test_in_a_small_terminal_nothing_is_outside_and_tab_goes_round(
    name: str, full: Workspace, opened: Open
) -> None:
    async with at(full, opened, SCREENS[name], (80, 24)) as person:
        inside(person)
        assert person.footer.strip() and len(person.lines) == 24
        if not name.startswith("version,"):
            await goes_round(person)


@pytest.mark.parametrize("name", DIALOGS)
async def test_dialogs_fit_a_small_terminal_and_close_with_esc(name: str, full: Workspace, opened: Open) -> None:
    kind, way = DIALOGS[name]
    async with at(full, opened, way, (80, 24)) as person:
        await person.until(lambda: isinstance(person.app.screen, kind))
        below = person.app.screen_stack[-2]
        inside(person)
        await goes_round(person)
        await person.press("escape")
        await person.until(lambda: person.app.screen is below)


def inside(person: Person) -> None:
    """No widget sticks out, but for what can be scrolled to."""
    screen = person.app.screen
    for widget in screen.query("*"):
        scrolls = any(
            p.max_scroll_y or p.is_scrollable
            for p in widget.ancestors
            if p is not screen and hasattr(p, "max_scroll_y")
        )
        if widget.display and all(p.display for p in widget.ancestors_with_self) and not scrolls and widget.region:
            assert screen.region.contains_region(widget.region), widget


async def goes_round(person: Person) -> None:
    """Tab leads through every part that takes the focus, each in sight, and back to where it began; so does Shift+Tab."""
    screen = person.app.screen
    await person.until(lambda: screen.focused)
    for key in ("tab", "shift+tab"):
        first, seen = person.app.focused, []
        for _ in range(60):
            await person.press(key)
            assert person.app.focused is not None
            seen.append(person.app.focused)
            await person.until(lambda now=seen[-1]: screen.region.contains_region(now.region), 2)
            if seen[-1] is first:
                break
        assert seen[-1] is first, key
        assert {w.id for w in seen} == {w.id for w in screen.focus_chain}


async def test_digits_and_letters_in_a_filter_are_text(full: Workspace, opened: Open) -> None:
    async with at(full, opened, SCREENS["versions, filter"], (80, 24)) as person:
        await person.type("n1q?25/x")
        box = person.app.focused
        assert isinstance(box, Input) and box.value == "n1q?25/x"


async def test_clicks_on_sections_and_buttons(full: Workspace, opened: Open) -> None:
    async with at(full, opened, SCREENS["versions, stopped"], (80, 24)) as person:
        await person.press("x")
        await person.pilot.click("#no")
        await person.until(lambda: not isinstance(person.app.screen, Confirm))
        for section in ("Servers", "Queue", "Settings", "Data sets", "Versions"):
            await person.pilot.click(Sections, offset=(person.lines[1].index(section), 0))
            await person.until(lambda wanted=section: wanted == person.app.screen.SECTION)
        person.app.open_version("V_0")
        await person.sees("val, by class")
        for view, shown in (("Log", "epoch 10: mAP50 val"), ("Curves", "train loss"), ("Summary", "val, by class")):
            row = next(y for y, line in enumerate(person.lines) if "Curves   Summary" in line)
            await person.pilot.click(Views, offset=(person.lines[row].index(view), 0))
            await person.sees(shown)
