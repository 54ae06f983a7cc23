"""The doctor by keys: kinds, what they mean, the list of places, the image, the charts, the written list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine import demo
from engine.datasets import add, doctor
from engine.versions import Workspace
from tests.tui.conftest import Open
from tui.screens.doctor import DoctorScreen
from tui.screens.gallery import ImagesScreen


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
        await person.press("tab")
        await person.sees("objects by class", "disc" if "disc" in person.text else "objects by class")
        await person.press("escape")
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
