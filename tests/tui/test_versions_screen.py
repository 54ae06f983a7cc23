"""Home: the list of versions, and what can be done with each."""

from __future__ import annotations

import pytest

from engine import control
from engine.servers import local
from engine.versions import Version, Workspace
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.screens.dialogs import Ask, Confirm, Pick
from tui.screens.version import VersionScreen
from tui.screens.versions import VersionsScreen
from tui.widgets.table import Table

pytestmark = pytest.mark.usefixtures("several")


@pytest.fixture
def several(workspace: Workspace) -> list[Version]:
    """V_0 done … V_4 draft."""
    return [
        made.in_state(workspace, "done", best=0.6, start=1e9, label={"name": "baseline", "tags": ["night"]}),
        made.in_state(workspace, "done", best=0.9, start=1.1e9, label={"name": "야간 학습", "memo": "low lr"}),
        made.in_state(workspace, "failed", start=1.2e9, spec={"model": "yolov8s"}),
        made.in_state(workspace, "stopped", start=1.3e9),
        made.in_state(workspace, "draft"),
    ]


def home(person: Person) -> VersionsScreen:
    assert isinstance(person.app.screen, VersionsScreen)
    return person.app.screen


def listed(person: Person) -> list[str]:
    table = home(person).query_one(Table)
    return [row.key for row in table._rows]


async def test_the_list_shows_states_metrics_and_counts(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        assert listed(person) == ["V_4", "V_3", "V_2", "V_1", "V_0"]
        await person.sees(
            "0 running", "2 done", "1 failed", "✓ done", "✗ failed: out of", "■ stopped", "○ draft", "야간 학습"
        )
        head = next(line for line in person.lines if "mAP50" in line)
        for column in ("mAP50", "50-95", "P", "R"):
            assert column in head
        await person.press("down", "down")
        await person.sees("The GPU has no memory left", "Train again with a smaller batch")


async def test_counters_follow_what_runs(workspace: Workspace, several: list[Version], opened: Open) -> None:
    made.write(several[4], made.training(until=50))
    async with opened(workspace) as person:
        with made.held(several[4]):
            await person.sees("1 running", "● training 25 %")
            assert {"s stop", "f finish"} <= keys(person) and "x delete" not in keys(person)
        await person.sees("0 running", "2 failed", "? lost")


def keys(person: Person) -> set[str]:
    """The footer's entries."""
    return {part.strip() for part in person.footer.split("  ") if part.strip()}


async def test_the_keys_are_those_that_the_state_allows(workspace: Workspace, opened: Open) -> None:
    allowed = {
        "V_4": {"p go on", "x delete"},
        "V_3": {"p go on", "x delete"},
        "V_2": {"p go on", "x delete"},
        "V_1": {"x delete"},
    }
    changing = {"p go on", "x delete", "s stop", "f finish", "p pause", "u undo"}
    async with opened(workspace, (160, 40)) as person:
        for version, wanted in allowed.items():
            assert home(person).table.cursor_key == version
            await person.until(lambda wanted=wanted: keys(person) & changing == wanted)
            await person.press("down")


async def test_sorting_by_key_and_by_click(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await person.press("o")
        assert isinstance(person.app.screen, Pick)
        await person.type("map50,")
        await person.press("enter")
        assert listed(person) == ["V_1", "V_3", "V_2", "V_0", "V_4"]
        await person.sees("↓mAP50")
        table = home(person).query_one(Table)
        x = person.lines[table.region.y].index("version")
        await person.pilot.click(Table, offset=(x, 0))
        assert listed(person)[-1] == "V_1"


async def test_the_filter_narrows_as_one_types(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await person.press("slash")
        for text, left in (
            ("yolov8s", ["V_2"]),
            ("night base", ["V_0"]),
            ("야간", ["V_1"]),
            ("stop", ["V_3"]),
            ("low", ["V_1"]),
        ):
            await person.press("ctrl+u")
            await person.type(text)
            assert listed(person) == left, text
        assert "enter to the list" in keys(person) and "n new" not in keys(person)
        await person.press("enter")
        assert home(person).table.has_focus and "n new" in keys(person)
        await person.press("escape")
        assert len(listed(person)) == 5 and "low" not in person.text
        await person.press("slash")
        await person.type("nothing like it")
        assert listed(person) == []
        await person.press("escape")


async def test_renaming(workspace: Workspace, several: list[Version], opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await person.press("r")
        assert isinstance(person.app.screen, Ask)
        await person.type("x" * 65)
        await person.sees("must have at most 64 characters")
        await person.press("enter")
        assert isinstance(person.app.screen, Ask)
        await person.press("ctrl+u")
        await person.type("작은 객체 2")
        await person.press("enter")
        await person.sees("V_4 작은 객체 2")
        assert several[4].label_data()["name"] == "작은 객체 2"
        await person.press("r")
        await person.type("never")
        await person.press("escape")
        assert several[4].label_data()["name"] == "작은 객체 2"


async def test_tags_and_memo(workspace: Workspace, several: list[Version], opened: Open) -> None:
    async with opened(workspace) as person:
        await person.press("t")
        await person.type("a tag of more than twenty characters")
        await person.sees("has 36 characters; a tag")
        await person.press("ctrl+u")
        await person.type("#aug, 야간")
        await person.press("tab")
        await person.type("with mosaic")
        await person.press("enter")
        await person.sees("tags  aug, 야간", "memo  with mosaic")
        assert several[4].label_data()["tags"] == ["aug", "야간"]


async def test_delete_asks_and_can_be_undone(workspace: Workspace, several: list[Version], opened: Open) -> None:
    async with opened(workspace, (160, 40)) as person:
        await person.press("down")
        await person.press("x")
        assert isinstance(person.app.screen, Confirm)
        await person.sees("Delete V_3?", "u brings it")
        assert person.app.focused is not None and person.app.focused.id == "no"
        await person.press("enter")
        assert several[3].path.exists()
        await person.press("x", "y")
        await person.until(lambda: not several[3].path.exists())
        await person.until(lambda: listed(person) == ["V_4", "V_2", "V_1", "V_0"])
        assert "u undo" in keys(person)
        await person.press("u")
        await person.until(lambda: "V_3" in listed(person))
        assert several[3].path.exists() and home(person).table.cursor_key == "V_3"
        assert "u undo" not in keys(person)


async def test_stop_and_finish_ask_first(workspace: Workspace, several: list[Version], opened: Open) -> None:
    made.write(several[4], made.training(until=50))
    with made.held(several[4]):
        async with opened(workspace) as person:
            await person.sees("● training")
            heard = control.Control(several[4].control)
            await person.press("f")
            await person.sees("Finish V_4 now?")
            await person.press("n")
            assert heard.poll() is None
            for key, request in (("f", "finish"), ("s", "stop")):
                await person.press(key, "y")
                await person.until(lambda request=request: heard.poll() == request)


async def test_enter_opens_and_esc_comes_back_to_the_same_row(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await person.press("down", "down", "enter")
        assert isinstance(person.app.screen, VersionScreen) and person.app.screen.version.id == "V_2"
        await person.press("escape")
        assert home(person).table.cursor_key == "V_2"
        table = home(person).query_one(Table)
        await person.pilot.click(Table, offset=(5, 4))
        assert table.cursor_key == "V_1"
        await person.pilot.click(Table, offset=(5, 4))
        await person.until(lambda: isinstance(person.app.screen, VersionScreen))


async def test_resume_starts_again_and_opens(
    workspace: Workspace, several: list[Version], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Version] = []
    monkeypatch.setattr(local, "start", started.append)
    async with opened(workspace) as person:
        await person.press("down", "p")
        await person.until(lambda: isinstance(person.app.screen, VersionScreen))
    assert started == [several[3]]


async def test_projects_are_chosen_and_made(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await person.press("w")
        await person.sees("default", "5 versions", "new project")
        await person.press("down", "enter")
        assert isinstance(person.app.screen, Ask)
        await person.type("../up")
        await person.sees("Use letters, digits")
        await person.press("ctrl+u")
        await person.type("차량")
        await person.press("enter")
        await person.sees("No version yet", "차량")
        assert workspace.current_project == "차량"


async def test_sections_by_digit_and_quitting(workspace: Workspace, several: list[Version], opened: Open) -> None:
    made.write(several[4], made.training(until=50))
    with made.held(several[4]):
        async with opened(workspace) as person:
            for key, section in (
                ("2", "Data sets"),
                ("3", "Servers"),
                ("4", "Queue"),
                ("5", "Settings"),
                ("1", "Versions"),
                ("2", "Data sets"),
            ):
                await person.press(key)
                await person.until(lambda s=section: s == person.app.screen.SECTION)
            await person.press("1", "enter")
            await person.until(lambda: isinstance(person.app.screen, VersionScreen))
            await person.press("3")
            await person.until(lambda: person.app.screen.SECTION == "Servers")
            await person.press("1")
            await person.until(lambda: isinstance(person.app.screen, VersionsScreen))
            await person.press("q")
            await person.until(lambda: person.app._exit)
            assert person.app.return_value == "default/V_4 goes on training. Come back with: dojang"


async def test_columns_and_orders_are_those_of_the_tasks_there(workspace: Workspace, opened: Open) -> None:
    def head(person: Person) -> list[str]:
        return next(line for line in person.lines if "version" in line and "state" in line).split()

    async with opened(workspace, (160, 40)) as person:
        assert head(person)[:6] == ["version", "state", "mAP50", "50-95", "P", "R"]
        await person.press("o")
        await person.sees("mAP50, best first", "F1, best first")
        assert "top-1" not in person.text
        await person.press("escape")
        made.in_state(workspace, "done", task="classify", best=0.7, start=1.4e9)
        made.in_state(workspace, "done", task="classify", best=0.8, start=1.5e9)
        await person.sees("V_6")
        assert head(person)[:8] == ["version", "state", "mAP50", "50-95", "top-1", "top-5", "P", "R"]
        await person.press("o", "home", "down", "down", "down", "down", "down", "down", "enter")
        assert home(person)._order == "top1"
        assert listed(person)[:2] == ["V_6", "V_5"]
        await person.press("home")
        await person.sees("top-1      0.785", "top-5      0.942")
