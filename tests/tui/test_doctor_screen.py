"""The doctor by keys: kinds, what they mean, the list of places, the image, the charts, the written list."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from engine import demo
from engine.datasets import add, doctor, load, open_items
from engine.datasets.model import Finding
from engine.versions import Workspace
from tests.datasets.make import coco, picture_bytes, put
from tests.tui.conftest import Open
from tui.screens.doctor import Checking, DoctorScreen
from tui.screens.findings import FindingsScreen, Place, Places
from tui.screens.gallery import ImagesScreen
from tui.widgets.narrowing import Query
from tui.widgets.set_charts import balance, share


@pytest.fixture
def spoilt(workspace: Workspace, tmp_path: Path) -> str:
    """Drawn images, one of them in two splits, with a box without area and one drawn twice."""
    data = demo.draw(tmp_path / "shapes", images=16, size=64, val=0.25)
    root = data.parent
    train, val = (sorted((root / "images" / split).iterdir()) for split in ("train", "val"))
    shutil.copy(train[0], root / "images" / "val" / f"copy{train[0].suffix}")
    shutil.copy(root / "labels" / "train" / f"{train[0].stem}.txt", root / "labels" / "val" / "copy.txt")
    label = root / "labels" / "train" / f"{train[1].stem}.txt"
    first = label.read_text().splitlines()[0]
    label.write_text(f"{label.read_text().rstrip()}\n{first}\n0 0.5 0.5 0 0\n")
    assert val
    add(workspace.path, data, "shapes")
    return "shapes"


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_what_is_wrong_is_told_worst_first(
    workspace: Workspace, spoilt: str, opened: Open, size: tuple[int, int]
) -> None:
    async with opened(workspace, size) as person:
        await person.press("2")
        await person.sees("shapes")
        await person.press("d")
        await person.sees("Doctor", "error", "in two splits", "what it does to a training", "at 640 px")
        lines = [line for line in person.lines if " error" in line or " warning" in line or " info" in line][1:]
        severities = [next(w for w in ("error", "warning", "info") if w in line) for line in lines]
        assert severities == sorted(severities, key=["error", "warning", "info"].index)
        await person.press("g")
        await person.sees("objects by class and split", "train", "objects in an image")
        await person.press("end")
        await person.sees("all images have one size", "64×64")
        await person.press("tab")
        await person.until(lambda: "objects by class" not in person.text)
        await person.press("escape")
        await person.until(lambda: not isinstance(person.app.screen, DoctorScreen))


async def test_from_a_finding_to_its_image(workspace: Workspace, spoilt: str, opened: Open) -> None:
    doctor.check(workspace.path, spoilt)
    found = doctor.last_check(workspace.path, spoilt)
    assert found is not None
    twice = next(n for n, group in enumerate(found.groups) if group.code == "duplicate")
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(spoilt))
        await person.sees("Doctor", found.groups[twice].kind.title)
        await person.press(*["down"] * twice, "enter")
        await person.sees("1 finding", "train")
        await person.press("slash", *"nothing")
        await person.sees("Nothing fits.")
        await person.press("escape", "enter")
        await person.until(lambda: isinstance(person.app.screen, ImagesScreen))
        await person.sees(found.groups[twice].kind.title, "1 of 1")


async def test_the_list_is_written_and_never_over_a_file(
    workspace: Workspace, spoilt: str, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    doctor.check(workspace.path, spoilt)
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(spoilt))
        await person.sees("Doctor", "error")
        await person.press("w")
        await person.sees("Write the list")
        await person.press("enter")
        place = tmp_path / "shapes-findings.csv"
        await person.until(place.exists)
        assert place.read_text().startswith("severity,code,file")


async def test_a_sound_set_is_called_sound(workspace: Workspace, opened: Open, tmp_path: Path) -> None:
    from PIL import Image as pil

    for split, count in (("train", 24), ("val", 12)):
        for name, at in (("left", 8), ("right", 40)):
            for n in range(count):
                image = pil.effect_noise((64, 64), 40 + n + at).convert("RGB")
                place = tmp_path / "sound" / split / name
                place.mkdir(parents=True, exist_ok=True)
                image.save(place / f"{n}.png")
    add(workspace.path, tmp_path / "sound", "sound")
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen("sound"))
        await person.sees("Nothing was found", "72 images decoded")


@pytest.fixture
def street(workspace: Workspace, tmp_path: Path) -> str:
    """Tiny boxes of two classes in two splits, a leak, a damaged image, and a name in Korean."""
    root = tmp_path / "street"
    for i in range(40):
        key = f"{'train' if i < 20 else 'val'}/{i:02d}"
        put(root / f"images/{key}.jpg", picture_bytes(i, (320, 240)))
        put(root / f"labels/{key}.txt", "0 .5 .5 .3 .3\n")
    for key, cls in (("train/00", 0), ("train/01", 1), ("val/20", 1)):
        put(root / f"labels/{key}.txt", f"0 .5 .5 .3 .3\n{cls} .2 .2 .004 .004\n")
    put(root / "images/val/골목.jpg", picture_bytes(5, (320, 240)))
    put(root / "labels/val/골목.txt", "0 .5 .5 .3 .3\n")
    put(root / "images/train/torn.jpg", picture_bytes(99, (320, 240))[:-2000])
    put(root / "data.yaml", "train: images/train\nval: images/val\nnames: [사람, red light]\n")
    return add(workspace.path, root, "street").name


async def test_narrowed_by_severity_split_and_class(workspace: Workspace, street: str, opened: Open) -> None:
    doctor.check(workspace.path, street)
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(street))
        await person.sees("Damaged images", "Tiny boxes", "The same image in two splits")
        await person.press("slash")
        await person.type("error")
        await person.until(lambda: "Tiny boxes" not in person.text)
        assert "Damaged images" in person.text and "two splits" in person.text
        await person.press("escape")
        await person.sees("Tiny boxes")
        await person.press("slash")
        await person.type('split:val class:"red light"')
        await person.until(lambda: "Damaged images" not in person.text)
        await person.sees("Tiny boxes: 1 in 1 file", "images/val/20.jpg")
        await person.press("enter", "enter")
        await person.until(lambda: isinstance(person.app.screen, FindingsScreen))
        await person.sees("1 of 3", "red light", "images/val/20.jpg, object 2")
        await person.press("escape")
        await person.sees("3 findings", "images/train/00.jpg")
        await person.press("o")
        await person.sees("Only", "사람")
        await person.press("escape", "escape")
        await person.until(lambda: isinstance(person.app.screen, DoctorScreen))
        await person.press("slash")
        await person.type("nothing like it")
        await person.sees("Nothing fits.")
        await person.press("escape", "o")
        await person.sees("Only", "error", "2 findings")
        await person.press("down", "enter")
        await person.until(lambda: "Tiny boxes" not in person.text)


async def test_what_is_not_in_the_set_or_about_all_of_it(workspace: Workspace, street: str, opened: Open) -> None:
    found = doctor.check(workspace.path, street)
    assert [g.code for g in found.groups][:2] == ["corrupt_image", "leak"]
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(street))
        await person.sees("Damaged images")
        await person.press("enter")
        await person.sees("1 finding", "torn.jpg")
        await person.press("enter")
        await person.sees("It is not used, so there is no image to show")
        await person.press("escape", "down", "enter")
        await person.sees("골목.jpg")
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, ImagesScreen))
        await person.sees("2 of 2", "골목.jpg")
        await person.press("left")
        await person.sees("1 of 2", "05.jpg")


async def test_the_last_check_is_shown_at_once_and_another_size_judges_anew(
    workspace: Workspace, street: str, opened: Open
) -> None:
    doctor.check(workspace.path, street)
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(street))
        await person.sees("Tiny boxes", "at 640 px")
        assert not isinstance(person.app.screen, Checking)
        await person.press("v")
        await person.sees("Judge boxes at")
        await person.press(*["backspace"] * 3)
        await person.type("99999")
        await person.sees("a number from 32 to 4096")
        await person.press(*["backspace"] * 5)
        await person.type("4000")
        await person.press("enter")
        await person.sees("at 4000 px")
        await person.until(lambda: "Tiny boxes" not in person.text)
    kept = doctor.last_check(workspace.path, street)
    assert kept is not None and kept.image_size == 4000


async def test_a_check_can_be_stopped_and_the_last_one_stays(
    workspace: Workspace, street: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = doctor.check(workspace.path, street)
    real, go_on = doctor._see, threading.Event()

    def slow(*arguments: Any) -> Any:
        go_on.wait(20)
        return real(*arguments)

    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(street))
        await person.sees("Tiny boxes")
        monkeypatch.setattr(doctor, "_see", slow)
        await person.press("d")
        await person.sees("Looking at every image of street", "esc stops it")
        await person.press("escape")
        await person.until(lambda: isinstance(person.app.screen, DoctorScreen))
        await person.sees("Tiny boxes")
        go_on.set()
        await person.until(lambda: not [t for t in threading.enumerate() if t.name.startswith("dojang-check")])
    assert doctor.last_check(workspace.path, street) == kept


async def test_the_list_is_never_written_over_a_file(workspace: Workspace, street: str, opened: Open) -> None:
    doctor.check(workspace.path, street)
    label = put(workspace.path.parent / "labels.json", "mine")
    async with opened(workspace, (120, 40)) as person:
        person.app.push_screen(DoctorScreen(street))
        await person.sees("Tiny boxes")
        await person.press("w")
        await person.sees("Write the list")
        for typed, said in (
            (str(label), "is there already"),
            ("/x\0/" + "y" * 300 + ".csv", "no folder"),
            ("~none/", "does not say"),
        ):
            person.app.screen.query_one("#ask-path", Input).value = ""
            await person.type(typed)
            await person.sees(said)
            await person.press("enter")
            await person.sees("Write the list")
    assert label.read_text() == "mine"


async def test_errors_in_a_new_set_lead_to_the_doctor(workspace: Workspace, opened: Open, tmp_path: Path) -> None:
    path = coco(
        tmp_path / "labels.json", {"a.jpg": [(1, [1, 1, 5, 5])], "b.jpg": [(99, [1, 1, 5, 5])]}, folder=tmp_path
    )
    async with opened(workspace, (80, 24)) as person:
        await person.press("2", "a")
        await person.type(str(path))
        await person.press("enter")
        await person.sees("1 error in", "Look")
        await person.press("y")
        await person.until(lambda: isinstance(person.app.screen, DoctorScreen))
        await person.sees("Classes that are not in the list")


def test_a_place_is_that_of_the_box_and_not_of_the_row(workspace: Workspace, street: str) -> None:
    """Readers number rows, of which some are left out; the doctor numbers the boxes that are there."""
    items = list(open_items(workspace.path, street))
    image, label = "images/train/01.jpg", "labels/train/01.txt"
    box, row = Finding("warning", "tiny_box", "", image, 2), Finding("error", "bad_class", "", label, 2, image)
    gone = Finding("error", "corrupt_image", "", "images/train/torn.jpg")
    group = doctor.Group("warning", "tiny_box", 3, 1, (box, row, gone))
    places = Places(load(workspace.path, street), items, [group])
    assert places.of(box) == Place("train", "red light", ("사람", "red light"), True) and places.object(box) == 2
    assert places.of(row) == Place("train", "", ("사람", "red light"), True) and places.object(row) is None
    assert places.of(gone) == Place()
    assert places.narrowed(group, Query.of("class:사람")).findings == (row,)
    assert places.narrowed(group, Query.of("found:bad_class torn")).count == 0
    assert places.narrowed(group, Query.of("")) is group


def test_balance_in_words() -> None:
    assert balance({"train": {"a": 100, "b": 9}, "val": {"a": 1, "b": 1}}) == (
        "a has 10.1 times as many as b: the rare ones are found less often."
    )
    assert balance({"train": {"a": 4, "b": 2}, "val": {"a": 2, "b": 1}}) == "a has 2.0 times as many as b."
    told = balance({"train": {"a": 9, "b": 0, "c": 0}, "val": {"a": 0, "b": 9, "c": 0}})
    assert "Not in train: b." in told and "Not in val: a." in told and "Nowhere: c." in told
    assert (share(18, 572), share(1, 661), share(0, 9)) == ("18 of 572 (3 %)", "1 of 661 (under 1 %)", "0 of 9 (0 %)")
