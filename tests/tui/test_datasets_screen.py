"""Data sets: adding by typing and browsing, what is shown, forgetting."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from engine import demo
from engine.datasets import registry
from engine.versions import Workspace
from tests.datasets.make import snapshot, voc, xml
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.screens.datasets import DatasetsScreen
from tui.screens.dialogs import Note
from tui.screens.paths import PathDialog, Tree, complete
from tui.screens.wizard import WizardScreen


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A Pascal VOC set with a box of no area."""
    return voc(
        tmp_path / "voc",
        {
            f"{i}": xml([("cat", (1, 1, 9, 9)), ("dog", (5, 5, 5, 5))] if i == 3 else [("cat", (1, 1, 9, 9))])
            for i in range(12)
        },
    )


async def add(person: Person, path: Path | str, name: str = "") -> None:
    await person.press("a")
    assert isinstance(person.app.screen, PathDialog)
    await person.type(str(path))
    if name:
        person.app.screen.query_one("#name").focus()
        await person.type(name)
    await person.press("enter")


async def test_adding_by_typing_shows_counts_and_defects(workspace: Workspace, broken: Path, opened: Open) -> None:
    before = snapshot(broken)
    async with opened(workspace) as person:
        await person.press("2")
        await person.sees("No data set yet", "a  add a folder of images with labels")
        assert not {"enter", "x", "n"} & footer_keys(person)
        await add(person, broken, "고양이")
        await person.sees("1 error in “고양이”", "Not now")
        await person.press("n")
        await person.sees("고양이", "1 error", "12 images")
        await person.sees("has no area", "object 2", "split made here")
        assert {"enter", "x", "n"} <= footer_keys(person)
    assert snapshot(broken) == before


def footer_keys(person: Person) -> set[str]:
    return {part.split()[0] for part in person.footer.split("  ") if part.strip()}


async def test_details_open_where_there_is_no_room_beside(workspace: Workspace, broken: Path, opened: Open) -> None:
    registry.add(workspace.path, broken, "cats")
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await person.sees("cats", "1 error")
        await person.press("enter")
        assert isinstance(person.app.screen, Note)
        await person.press("end")
        await person.sees("has no area")
        await person.press("escape")
        assert isinstance(person.app.screen, DatasetsScreen)


@pytest.mark.parametrize(
    ("typed", "said"),
    [("/nowhere/at/all", "There is nothing at that path."), ("", "Type the path, or browse to it.")],
)
async def test_a_path_that_is_not_there(workspace: Workspace, opened: Open, typed: str, said: str) -> None:
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await add(person, typed)
        await person.sees(said)
        assert isinstance(person.app.screen, PathDialog)


async def test_a_folder_that_is_no_data_set_leads_back_with_what_was_typed(
    workspace: Workspace, tmp_path: Path, opened: Open
) -> None:
    (tmp_path / "empty").mkdir()
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await add(person, tmp_path / "empty", "a-name")
        await person.sees("esc goes back")
        await person.press("escape")
        assert isinstance(person.app.screen, PathDialog)
        assert person.app.screen.query_one("#path", Input).value == str(tmp_path / "empty")
        assert person.app.screen.query_one("#name", Input).value == "a-name"
        await person.press("escape")
        assert isinstance(person.app.screen, DatasetsScreen)
    assert not registry.list_datasets(workspace.path)


async def test_browsing_with_arrows(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    demo.draw(tmp_path / "many" / "pictures", images=10, size=32)
    (tmp_path / "many" / "other").mkdir()
    (tmp_path / "many" / ".hidden").mkdir()
    async with opened(workspace, (80, 24)) as person:
        await person.press("2", "a")
        await person.type(f"{tmp_path}/many/")
        await person.sees("▸ other/", "▸ pictures/")
        assert ".hidden" not in person.text
        await person.press("down")
        assert isinstance(person.app.focused, Tree)
        await person.press("up")
        assert not isinstance(person.app.focused, Tree)
        await person.press("down", "down", "down", "right")
        await person.sees("data.yaml")
        await person.press("left", "enter")
        await person.sees("enter again takes this one")
        await person.press("enter")
        await person.sees("pictures", "10 images")


async def test_tab_completes_shows_the_choices_and_goes_on(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    for name in ("cars-day", "cars-night"):
        (tmp_path / name).mkdir()
    async with opened(workspace, (80, 24)) as person:
        await person.press("2", "a")
        box = person.app.screen.query_one("#path")
        await person.type(f"{tmp_path}/c")
        await person.press("tab")
        assert box.value == f"{tmp_path}/cars-"  # type: ignore[attr-defined]
        await person.press("tab")
        await person.sees("cars-day/  cars-night/")
        await person.press("tab")
        assert person.app.focused is not None and person.app.focused.id == "name"


def test_completion(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    assert complete(f"{tmp_path}/o") == (f"{tmp_path}/one/", ["one/"])
    assert complete(f"{tmp_path}/x") == (f"{tmp_path}/x", [])
    assert complete("") == ("", [])
    assert complete("~")[0] in ("~", "~/")


async def test_a_name_that_is_taken(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    folder = made.shapes(workspace, tmp_path / "shapes")
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await add(person, folder)
        await person.sees("already exists")


async def test_forgetting_asks_and_leaves_the_folder(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    folder = made.shapes(workspace, tmp_path / "shapes")
    before = snapshot(folder)
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await person.sees("shapes")
        await person.press("x")
        await person.sees("Forget “shapes”?", "is not touched")
        await person.press("n")
        assert registry.list_datasets(workspace.path)
        await person.press("x", "y")
        await person.sees("No data set yet")
    assert not registry.list_datasets(workspace.path) and snapshot(folder) == before


async def test_training_with_the_set_one_is_on(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    folder = made.shapes(workspace, tmp_path / "shapes")
    registry.add(workspace.path, folder, "second")
    async with opened(workspace) as person:
        await person.press("2")
        await person.sees("second")
        await person.press("down", "n")
        assert isinstance(person.app.screen, WizardScreen)
        assert person.app.screen.data["dataset"] == "shapes"


async def test_search_by_class(workspace: Workspace, tmp_path: Path, broken: Path, opened: Open) -> None:
    made.shapes(workspace, tmp_path / "shapes")
    registry.add(workspace.path, broken, "pets")
    async with opened(workspace, (80, 24)) as person:
        await person.press("2", "slash")
        await person.type("circle")
        await person.until(lambda: "pets" not in person.text and "shapes" in person.text)
        await person.press("escape")
        await person.sees("pets", "shapes")
