"""New training, by keys alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Button

from engine import demo
from engine.errors import DojangError
from engine.servers import local
from engine.versions import Version, Workspace
from tests.tui import made
from tests.tui.conftest import Open, Person
from tui.screens.dialogs import Confirm, Note, Pick
from tui.screens.paths import PathDialog
from tui.screens.version import VersionScreen
from tui.screens.versions import VersionsScreen
from tui.screens.wizard import WizardScreen
from tui.widgets.facts import Facts
from tui.widgets.form import Choice, Form


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """What would have been started."""
    found: list[Version] = []
    monkeypatch.setattr(local, "start", found.append)
    return found


@pytest.fixture
def shapes(workspace: Workspace, tmp_path: Path) -> Path:
    return made.shapes(workspace, tmp_path / "shapes")


def wizard(person: Person) -> WizardScreen:
    assert isinstance(person.app.screen, WizardScreen)
    return person.app.screen


async def go_to(person: Person, name: str) -> None:
    """Walk down the form to a field."""
    for _ in range(60):
        if person.app.focused is not None and person.app.focused.id == f"edit-{name}":
            return
        await person.press("down")
    raise AssertionError(f"no way down to {name}")


async def fill(person: Person, name: str, text: str, *, walk: bool = False) -> None:
    """Type a value; `walk` goes to the field by keys, as one test must and the others need not."""
    if walk:
        await go_to(person, name)
    else:
        person.app.screen.query_one(f"#edit-{name}").focus()
        await person.rest()
    await person.press("ctrl+u")
    await person.type(text)


async def settings_step(person: Person) -> None:
    await person.press("n")
    await person.sees("shapes", "Continue")
    await person.press("enter")
    await person.sees("Epochs")


async def test_from_an_empty_workspace_to_a_started_version_by_keys_alone(
    workspace: Workspace, tmp_path: Path, opened: Open, started: list[Version]
) -> None:
    demo.draw(tmp_path / "pictures", images=10, size=32, val=0.2)
    async with opened(workspace, (80, 24)) as person:
        await person.sees("No version yet", "n  train the first one")
        await person.press("n")
        await person.sees("No data set yet", "choose a data set, or add one with a")
        assert person.app.screen.query_one("#next", Button).disabled

        await person.press("a")
        await person.type(str(tmp_path / "pict"))
        await person.press("tab")
        assert isinstance(person.app.screen, PathDialog)
        assert person.app.focused is not None
        assert person.app.focused.value == str(tmp_path / "pictures") + "/"  # type: ignore[attr-defined]
        await person.press("enter")
        await person.until(lambda: isinstance(person.app.screen, WizardScreen) and wizard(person).data["dataset"])
        await person.sees("pictures", "detect")

        await person.press("enter")
        await person.sees("● Settings")
        await fill(person, "epochs", "3", walk=True)
        await fill(person, "image_size", "64", walk=True)
        await person.press("ctrl+n")
        await person.sees("● Server", "this machine, auto")
        await person.press("down", "enter")
        await person.sees("● Confirm", "nothing has been written or started yet")
        assert not (workspace.path / "projects" / "default").exists()
        await person.press("enter")
        await person.sees("Train yolov8n on “pictures” for 3 epochs")
        await person.press("n")
        assert not started
        await person.press("ctrl+n", "y")
        await person.until(lambda: isinstance(person.app.screen, VersionScreen))

    assert [v.reference for v in started] == ["default/V_0"]
    spec = started[0].spec()
    assert (spec.dataset, spec.epochs, spec.image_size, spec.device) == ("pictures", 3, 64, "cpu")
    assert spec.dataset_hash


@pytest.mark.usefixtures("shapes", "started")
async def test_a_value_out_of_range_keeps_one_from_going_on_and_says_why(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await fill(person, "epochs", "0")
        await person.sees("Cannot continue: Epochs: must be 1 – 10 000, not 0")
        next_ = person.app.screen.query_one("#next", Button)
        assert next_.disabled
        await person.press("ctrl+n")
        assert wizard(person).current == 1
        assert person.app.focused is not None and person.app.focused.id == "edit-epochs"

        await fill(person, "epochs", "many")
        await person.sees("must be a whole number, 1 – 10 000, not 'many'")
        await fill(person, "image_size", "100")
        await person.sees("Image size must be a multiple of 32", "such as 96")
        await fill(person, "image_size", "96")
        await fill(person, "epochs", "7")
        assert not next_.disabled
        await person.sees("● changed (100)")


@pytest.mark.usefixtures("shapes", "started")
async def test_f1_explains_the_setting_one_is_in(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        await go_to(person, "epochs")
        assert "f1 explain" in person.footer
        await person.press("f1")
        assert isinstance(person.app.screen, Note)
        await person.sees(
            "Too small: the model stops before", "Range: 1 – 10 000", "Default: 100", "In spec.toml: epochs"
        )
        await person.press("escape")
        assert wizard(person).current == 1


@pytest.mark.usefixtures("shapes", "started")
async def test_values_stay_whichever_way_one_goes(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("up", "up", "up")
        assert person.app.focused is not None and person.app.focused.id == "edit-name"
        await person.type("한글 이름 1")
        await fill(person, "tags", "night, aug")
        await fill(person, "epochs", "9")
        await person.press("ctrl+n")
        await person.sees("● Server", "this machine, auto")
        await person.press("ctrl+n")
        await person.sees("● Confirm")
        await person.press("escape", "escape")
        await person.sees("● Settings", "한글 이름 1")
        form = person.app.screen.query_one(Form)
        assert (form.values()["epochs"], form.values()["name"], form.values()["tags"]) == (
            "9",
            "한글 이름 1",
            "night, aug",
        )
        await person.press("ctrl+n", "ctrl+t")
        await person.sees("● Data set")
        await person.press("ctrl+n", "ctrl+n")
        await person.sees("● Server", "this machine, auto")
        await person.press("ctrl+n")
        await person.sees("● Confirm", "한글 이름 1", "night, aug")


@pytest.mark.usefixtures("shapes", "started")
async def test_the_confirmation_shows_every_value_marks_changes_and_gives_the_command(
    workspace: Workspace, opened: Open, shapes: Path
) -> None:
    from engine.spec import Spec, property_of

    async with opened(workspace, (120, 90)) as person:
        await settings_step(person)
        await fill(person, "tags", "night")
        await fill(person, "lr", "0.01")
        await person.press("ctrl+n")
        await person.sees("this machine, auto")
        await person.press("enter")
        await person.sees("● Confirm")
        for name in Spec.model_fields:
            if name != "dataset_hash":
                await person.sees(str(property_of(name)["title"]))
        await person.sees(
            "● changed (default auto)",
            "train 8, val 2, test 0",
            "not known before the first epoch",
            "no test split",
            "dojang train --dataset shapes --model yolov8n",
            "--tag night",
            "lr=0.01",
        )
        assert person.text.count("● changed") == 1
        folder = workspace.path / "projects" / "default" / "V_0"
        facts = person.app.screen.query_one("#outcome", Facts)._facts
        assert any(isinstance(f, tuple) and f[0].plain == f"{'Writes into':<24}{folder}" for f in facts)


@pytest.mark.usefixtures("shapes")
async def test_a_start_that_fails_says_so_and_keeps_everything(
    workspace: Workspace, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(version: Version) -> None:
        raise DojangError("The worker could not be started.", code="START_FAILED", hint="See train.log")

    monkeypatch.setattr(local, "start", refuse)
    async with opened(workspace) as person:
        await settings_step(person)
        await fill(person, "epochs", "9")
        await person.press("ctrl+n")
        await person.sees("this machine, auto")
        await person.press("ctrl+n")
        await person.sees("● Confirm")
        await person.press("enter", "y")
        await person.sees("The worker could not be started.", "See train.log")
        assert wizard(person).data["epochs"] == "9"


@pytest.mark.usefixtures("shapes", "started")
async def test_letters_and_digits_typed_into_fields_are_text(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("up")
        await person.press("n", "q", "1", "2", "5", "question_mark", "slash", "y", "ㅜ", "space", "x")
        assert person.app.screen.query_one(Form).values()["memo"] == "nq125?/yㅜ x"
        assert wizard(person).current == 1


@pytest.mark.usefixtures("shapes", "started")
async def test_arrows_walk_the_whole_form_and_choices_open(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        focused = person.app.focused
        assert isinstance(focused, Choice) and focused.id == "edit-model"
        await person.press("right")
        assert focused.value == "yolov8s"
        await person.press("left", "enter")
        assert isinstance(person.app.screen, Pick)
        await person.type("8x")
        await person.press("enter")
        assert focused.value == "yolov8x" and wizard(person).data["model"] == "yolov8x"

        seen = []
        for _ in range(60):
            await person.press("down")
            assert person.app.focused is not None
            seen.append(person.app.focused.id)
            if seen[-1] == "next":
                break
        plain = [f"edit-{f.field}" for f in person.app.screen.query_one(Form).fields if not f.info.get("advanced")]
        assert [s for s in seen if str(s).startswith("edit-")] == plain[plain.index("edit-model") + 1 :]
        await go_to(person, "seed")
        await person.press("f6")
        await go_to(person, "flip_vertical")
        assert person.app.focused is not None
        assert person.app.screen.region.contains_region(person.app.focused.region)


@pytest.mark.usefixtures("shapes", "started")
async def test_hidden_changes_are_told_and_a_hidden_problem_is_shown(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f6")
        await fill(person, "weight_decay", "5")
        await person.press("f6")
        await person.sees(" more, 1 changed", "Weight decay: must be")
        await person.press("ctrl+n")
        await person.until(lambda: person.app.focused and person.app.focused.id == "edit-weight_decay")
        await person.press("f7")
        await person.until(lambda: not person.app.screen.query_one("#next", Button).disabled)


@pytest.mark.usefixtures("shapes", "started")
async def test_leaving_asks_only_when_something_would_be_lost(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("escape", "escape")
        assert isinstance(person.app.screen, VersionsScreen)

        await settings_step(person)
        await fill(person, "epochs", "9")
        await person.press("escape")
        for way_out in ("escape", "2", "q"):
            await person.press(way_out)
            assert isinstance(person.app.screen, Confirm), way_out
            assert person.app.focused is not None and person.app.focused.id == "no"
            await person.press("enter")
            assert wizard(person).data["epochs"] == "9"
        await person.press("escape", "y")
        assert isinstance(person.app.screen, VersionsScreen)


@pytest.mark.usefixtures("started")
async def test_search_narrows_the_data_sets(workspace: Workspace, shapes: Path, opened: Open) -> None:
    from engine.datasets import registry

    registry.add(workspace.path, shapes, "동그라미")
    async with opened(workspace, (80, 24)) as person:
        await person.press("n")
        await person.sees("shapes", "동그라미")
        await person.press("slash")
        await person.type("sha")
        await person.until(lambda: "동그라미" not in "\n".join(person.lines[2:]))
        assert "enter to the list" in person.footer and "esc show all" in person.footer
        await person.press("escape")
        await person.sees("동그라미")
        assert wizard(person).current == 0


@pytest.mark.usefixtures("shapes", "started")
async def test_pretrained_weights_that_are_not_here_are_said_plainly(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (120, 60)) as person:
        await settings_step(person)
        await go_to(person, "weights")
        await person.press("right")
        await person.sees("fetches yolov8n")
        await person.press("ctrl+n")
        await person.sees("this machine, auto")
        await person.press("ctrl+n")
        await person.sees("downloaded first into")
