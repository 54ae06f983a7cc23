"""The images of a data set, by keys: large with their objects, close, filtered, and as a grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as pil

from engine.datasets import add
from engine.versions import Workspace
from tests.tui.conftest import Open, Person
from tui.screens.gallery import ImagesScreen, open_images
from tui.widgets.picture import Picture
from tui.widgets.thumbnails import Thumbnails


@pytest.fixture
def cells(workspace: Workspace, tmp_path: Path) -> str:
    """Four images, 세포 and blot in them, one of which is damaged after it was registered."""
    root = tmp_path / "cells"
    for split, numbers in (("train", (0, 1, 2)), ("val", (3,))):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True, exist_ok=True)
        for n in numbers:
            image = pil.new("RGB", (200, 120), (30, 30, 30))
            image.paste((220, 40, 40), (20, 20, 80, 80))
            image.save(root / "images" / split / f"사진{n}.png")
            rows = "0 0.25 0.4167 0.3 0.5\n" + ("1 0.8 0.5 0.1 0.2\n" if n == 1 else "")
            (root / "labels" / split / f"사진{n}.txt").write_text(rows)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [세포, blot]\n")
    add(workspace.path, root, "cells")
    (root / "images" / "train" / "사진2.png").write_bytes(b"\x89PNG no more")
    return "cells"


async def opened_on(person: Person, name: str, **how: object) -> ImagesScreen:
    open_images(person.app, name, **how)  # type: ignore[arg-type]
    await person.until(lambda: isinstance(person.app.screen, ImagesScreen))
    screen = person.app.screen
    assert isinstance(screen, ImagesScreen)
    return screen


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_an_image_and_its_objects(workspace: Workspace, cells: str, opened: Open, size: tuple[int, int]) -> None:
    async with opened(workspace, size) as person:
        screen = await opened_on(person, cells)
        await person.sees("사진0.png", "200×120 px", "1 object", "60×60", "1 of 4", "train", "┐", "└")
        assert "blot" not in person.text
        await person.press("right")
        await person.sees("사진1.png", "2 objects", "2 of 4", "blot")
        await person.press("down")
        await person.sees("┗")  # one object in full light
        await person.press("z")
        picture = screen.query_one(Picture)
        await person.until(lambda: picture.zoomed)
        await person.press("escape")
        await person.until(lambda: not picture.zoomed)
        await person.press("escape")
        await person.until(lambda: "┗" not in person.text)
        await person.press("right")
        await person.sees("사진2.png", "cannot be shown")
        await person.press("right")
        await person.sees("사진3.png", "4 of 4", "val")
        await person.press("right", "escape")
        await person.until(lambda: not isinstance(person.app.screen, ImagesScreen))


async def test_words_narrow_and_the_grid_opens(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (120, 40)) as person:
        screen = await opened_on(person, cells)
        await person.sees("1 of 4")
        await person.press("slash", *"blot", "enter")
        await person.sees("1 of 1 (of 4)", "사진1.png")
        await person.press("escape")
        await person.sees("2 of 4", "사진1.png")
        await person.press("tab")
        await person.sees("train 2", "val 1", "▌사진1", "cannot be shown")
        grid = screen.query_one(Thumbnails)
        assert grid.cursor == 1
        await person.press("right", "right", "enter")
        await person.sees("사진3.png", "4 of 4")


async def test_at_a_finding(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (120, 40)) as person:
        path = "images/train/사진1.png"
        await opened_on(person, cells, paths=[path], at=path, object=2, title="zero area")
        await person.sees("zero area", "1 of 1", "┗", "blot")


async def test_a_set_that_is_gone_is_told(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        open_images(person.app, "nothing")
        await person.sees("nothing")
        assert not isinstance(person.app.screen, ImagesScreen)


async def test_from_the_data_sets_screen(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await person.press("2")
        await person.sees("cells", "images")
        await person.press("i")
        await person.sees("사진0.png")
