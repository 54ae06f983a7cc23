"""The images of a data set, by keys: large with their objects, close, filtered, and as a grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as pil

from engine.datasets import add
from engine.datasets.model import Box, Finding, Item
from engine.versions import Workspace
from tests.tui.conftest import Open, Person
from tui.screens.gallery import ImagesScreen, open_images
from tui.widgets.narrowing import Narrowing, Query, choices
from tui.widgets.objects import ObjectList
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


async def test_arrows_move_a_close_look(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        screen = await opened_on(person, cells)
        await person.sees("사진0.png", "┐")
        picture = screen.query_one(Picture)
        await person.press("down", "enter")  # the first object, close
        await person.until(lambda: picture.close == 0)
        before = picture._view
        await person.press("right")
        await person.until(lambda: picture._view.left > before.left)
        assert "1 of 4" in person.text  # not the next image
        await person.press("right_square_bracket")
        await person.sees("2 of 4")
        assert not picture.zoomed
        await person.press("down", "z", "j")
        await person.until(lambda: picture.close == 1)  # the look goes from object to object
        await person.press("z", "right")
        await person.sees("3 of 4", "cannot be shown")
        await person.press("z")  # nothing to look at
        assert not picture.zoomed


async def test_the_list_and_the_picture_agree(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (120, 40)) as person:
        screen = await opened_on(person, cells, at="images/train/사진1.png")
        await person.sees("2 of 4", "all", "60×60", "20×24", "세포 1", "blot 1", "┐")
        objects = screen.query_one(ObjectList)
        assert objects.chosen is None and "┗" not in person.text
        await person.press("down", "down")
        await person.sees("┗")
        assert objects.chosen == 1
        await person.press("b")  # frames go, and nothing is looked at any more
        await person.until(lambda: not any(sign in person.text for sign in "┗┘"))
        assert objects.chosen is None
        await person.press("b")
        await person.sees("┘")


async def test_only_what_there_is(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await opened_on(person, cells)
        await person.sees("1 of 4")
        await person.press("o")
        await person.sees("Only", "train", "3 images", "val", "1 image", "세포", "blot")
        await person.press("down", "down", "enter")
        await person.sees("1 of 1 (of 4)", "사진3.png", "split:val")
        await person.press("slash", "end", *" blot", "enter")
        await person.sees("0 of 4", "No image fits.")
        await person.press("escape")
        await person.sees("of 4", "┐")


async def test_a_filter_in_the_grid_goes_back_to_the_grid(workspace: Workspace, cells: str, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        screen = await opened_on(person, cells)
        await person.sees("1 of 4")
        await person.press("tab", "slash", *"사진3", "enter")
        await person.sees("1 of 1 (of 4)")
        assert isinstance(screen.focused, Thumbnails)
        await person.press("enter")
        await person.sees("사진3.png", "1 object")
        assert not screen.many


async def test_images_with_one_class_each(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    for split in ("train", "val"):
        for name in ("개미", "bees"):
            folder = tmp_path / "insects" / split / name
            folder.mkdir(parents=True)
            pil.new("RGB", (60, 90), (200, 180, 40)).save(folder / "a.jpg")
    add(workspace.path, tmp_path / "insects", "insects")
    async with opened(workspace, (80, 24)) as person:
        screen = await opened_on(person, "insects")
        await person.sees("a.jpg", "60×90 px", "1 of 4", "● bees")
        assert "no objects" not in person.text
        picture = screen.query_one(Picture)
        await person.until(lambda: picture._strips)
        await person.press("z", "down")
        assert picture.zoomed and picture._view.top > 0.28  # the middle, and then lower
        await person.press("escape", "tab")
        await person.sees("train 개미", "val bees")


async def test_more_pixels_for_a_close_look(workspace: Workspace, tmp_path: Path, opened: Open) -> None:
    root = tmp_path / "large"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for n in range(2):
        pil.new("RGB", (8000, 400), (200, 180, 40)).save(root / "images" / f"{n}.jpg")
        (root / "labels" / f"{n}.txt").write_text("0 0.5 0.5 0.01 0.2\n")
    (root / "data.yaml").write_text("train: images\nnames: [cell]\n")
    add(workspace.path, root, "large")
    async with opened(workspace, (80, 24)) as person:
        screen = await opened_on(person, "large")
        await person.sees("8000×400 px", "cell")
        picture = screen.query_one(Picture)
        await person.until(lambda: picture._image is not None)
        assert picture._image is not None and picture._image.width < 3500
        await person.press("down", "z")
        await person.until(lambda: picture._image is not None and picture._image.width > 3500)
        assert picture.close == 0


# Which images fit


def item(path: str, split: str = "train", *classes: int) -> Item:
    return Item(path, split, 10, 10, tuple(Box(c, 0.5, 0.5, 0.1, 0.1) for c in classes), True)  # type: ignore[arg-type]


ITEMS = [
    item("a/x1.png", "train", 0),
    item("a/val.png", "train", 0, 1),
    item("b/세포.png", "val", 1),
    item("b/none.png"),
]
SAID = {"b/세포.png": [Finding("warning", "tiny_box", "It is tiny.", "b/세포.png", 1)]}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", [0, 1, 2, 3]),
        ("a/", [0, 1]),
        ("val", [1, 2]),  # a name or a split
        ("split:val", [2]),
        ("SPLIT:train red", [0, 1]),
        ('class:"red cell"', [0, 1]),
        ('class:"red', []),
        ("class:white", [1, 2]),
        ("class:none", [3]),
        ("class:white split:train", [1]),
        ("found:any", [2]),
        ("found:tiny_box", [2]),
        ("found:other", []),
        ("tiny", [2]),
        ("\u1109\u1166\u1111\u1169", [2]),  # 세포 in loose syllables
        ("split:", []),
    ],
)
def test_what_was_typed(text: str, fits: list[int]) -> None:
    narrowing = Narrowing(("Red cell", "White"), SAID, Query.of(text))
    assert [n for n, one in enumerate(ITEMS) if narrowing.fits(one)] == fits


def test_every_choice_fits_as_many_as_it_says() -> None:
    classes = ("Red cell", "White")
    found = choices(classes, ITEMS, SAID)
    assert [word for _, word, _ in found] == ["all", "train", "val", "Red cell", "White", "nothing in it", "anything found", "tiny box"]  # fmt: skip
    for typed, _, note in found:
        narrowing = Narrowing(classes, SAID, Query.of(typed))
        assert note.startswith(f"{sum(map(narrowing.fits, ITEMS))} image")
