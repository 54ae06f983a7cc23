"""Versions of a data set by keys: split by handles, classes merged and dropped, copies previewed, made, compared, trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import demo
from engine.datasets import add, recipes, registry
from engine.versions import Workspace
from tests.tui.conftest import Open, Person
from tui.screens.dataset_versions import DatasetVersionsScreen
from tui.screens.preview import PreviewScreen
from tui.screens.recipe import RecipeScreen
from tui.screens.wizard import WizardScreen


@pytest.fixture
def shapes(workspace: Workspace, tmp_path: Path) -> str:
    add(workspace.path, demo.draw(tmp_path / "shapes", images=40, size=64, val=0.25), "shapes")
    return "shapes"


async def new_version(person: Person) -> RecipeScreen:
    await person.press("2")
    await person.sees("shapes")
    await person.press("v")
    await person.sees("No version yet")
    await person.press("a")
    await person.until(lambda: isinstance(person.app.screen, RecipeScreen))
    screen = person.app.screen
    assert isinstance(screen, RecipeScreen)
    await person.until(lambda: screen.draft is not None)
    return screen


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_a_version_by_keys(workspace: Workspace, shapes: str, opened: Open, size: tuple[int, int]) -> None:
    async with opened(workspace, size) as person:
        screen = await new_version(person)
        await person.sees("train 80 %", "train 32")
        await person.press(*["left"] * 20)
        await person.sees("train 60 %", "train 24")
        await person.press("shift+right", "shift+right", "shift+right")
        await person.sees("val 33 %", "test 7 %")
        await person.press("f2")
        await person.sees("Classes", "becomes")
        name = screen.draft.classes[0] if screen.draft else ""
        await person.press("x")
        await person.sees("dropped")
        await person.press("ctrl+n")
        await person.until(lambda: screen.draft is not None and name not in screen.draft.classes)
        await person.press("ctrl+n")
        await person.sees("Make shapes@1?", "cannot be changed")
        await person.press("y")
        await person.until(lambda: isinstance(person.app.screen, DatasetVersionsScreen))
        await person.sees("shapes@1", "as they are")
        made = registry.load(workspace.path, "shapes@1")
        assert name not in made.classes and made.counts.per_split["train"].images == 24
        await person.press("n")
        await person.until(lambda: isinstance(person.app.screen, WizardScreen))
        await person.sees("shapes@1")


async def test_copies_are_previewed_as_they_will_be(workspace: Workspace, shapes: str, opened: Open) -> None:
    async with opened(workspace, (120, 40)) as person:
        screen = await new_version(person)
        screen.form.set_value("flip_horizontal", 1)
        await person.until(lambda: "copies" in screen.problems)  # augmentation without copies does nothing
        screen.form.set_value("copies", 2)
        await person.until(lambda: not screen.problems and screen.draft is not None and screen.draft.recipe.copies == 2)
        await person.sees("32 × 3 = 96", "on disk")
        await person.press("f3")
        await person.until(lambda: isinstance(person.app.screen, PreviewScreen))
        await person.sees("as it is", "copy 1 of 2", "1 of 32 in train", "┘")
        await person.press("down", "down")
        await person.sees("as val and test are too")
        await person.press("right")
        await person.sees("2 of 32")
        await person.press("b")
        await person.until(lambda: "┘" not in person.text)
        await person.press("escape")
        await person.until(lambda: person.app.screen is screen)


async def test_what_is_wrong_stands_beside_its_field(workspace: Workspace, shapes: str, opened: Open) -> None:
    async with opened(workspace, (160, 50)) as person:
        screen = await new_version(person)
        screen.form.set_value("ratio", "80/x")
        await person.sees("three numbers")
        assert not screen.check_action("make", ())
        screen.form.set_value("ratio", "70/20/10")
        await person.sees("train 70 %")
        screen.form.set_value("sources", "shapes, nothing")
        await person.sees("nothing")
        await person.press("escape")
        await person.sees("Leave without making")


async def test_two_versions_are_compared_and_one_is_deleted(workspace: Workspace, shapes: str, opened: Open) -> None:
    for seed in (0, 1):
        made = recipes.draft(workspace.path, recipes.parse({"sources": [shapes], "seed": seed}))
        recipes.create(workspace.path, shapes, made)
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DatasetVersionsScreen(shapes))
        await person.sees("shapes@1", "shapes@2")
        await person.press("space", "space", "c")
        await person.sees("shapes@1 and shapes@2", "Seed: 0", "in another split")
        await person.press("escape", "home", "x")
        await person.sees("Delete shapes@2?")
        await person.press("y")
        await person.until(lambda: "shapes@2" not in person.lines[2] and "1 version" in person.text)
        assert [d.name for d in recipes.versions(workspace.path, shapes)] == ["shapes@1"]
        assert registry.last_number(workspace.path, shapes) == 2  # never given again
