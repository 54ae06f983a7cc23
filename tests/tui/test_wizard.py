"""New training, by keys alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from textual.widgets import Button, TextArea

from engine import demo, find, sweep
from engine.errors import DojangError
from engine.servers import local
from engine.spec import Spec
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
    from engine.spec import Spec, parse, property_of
    from tui.screens.settings_step import does_nothing

    async with opened(workspace, (120, 90)) as person:
        await settings_step(person)
        await fill(person, "tags", "night")
        await fill(person, "lr", "0.01")
        await person.press("ctrl+n")
        await person.sees("this machine, auto")
        await person.press("enter")
        await person.sees("● Confirm")
        plain = parse({"dataset": "any"}).model_dump()
        for name in Spec.model_fields:
            if name != "dataset_hash" and not does_nothing(name, plain, "ultralytics"):
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
        fields = person.app.screen.query_one(Form).fields
        plain = [f"edit-{f.field}" for f in fields if f.display and not f.info.get("advanced")]
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
        await person.sees("Set 1 setting back to the default: Weight decay?")
        await person.press("y")
        await person.until(lambda: not wizard(person).query_one("#next", Button).disabled)


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


# What stands in the form


def shown(person: Person) -> list[str]:
    """Names of the fields that are not hidden, with the advanced ones."""
    return [f.field for f in person.app.screen.query_one(Form).fields if f.display]


async def choose(person: Person, name: str, value: str) -> None:
    person.app.screen.query_one(f"#edit-{name}", Choice).value = value
    await person.rest()


@pytest.mark.usefixtures("shapes", "started")
async def test_only_what_does_something_is_shown(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        assert not {"step_gamma", "cycle_epochs", "rise_share", "dropout", "anchor_scale", "options"} & set(
            shown(person)
        )
        assert {"final_lr_ratio", "warmup_epochs", "dfl_loss"} <= set(shown(person))
        await choose(person, "schedule", "step")
        assert {"step_gamma", "step_every", "warmup_epochs"} <= set(shown(person))
        assert "final_lr_ratio" not in shown(person)
        await person.sees("Step factor", "Step every")
        await choose(person, "schedule", "one-cycle")
        assert "rise_share" in shown(person) and not {"step_gamma", "warmup_epochs"} & set(shown(person))

        await fill(person, "rise_share", "0.5")
        await choose(person, "schedule", "cyclic")
        assert {"rise_share", "cycle_epochs", "cycle_low_ratio"} <= set(shown(person))  # changed: not hidden
        await choose(person, "model", "efficientdet_d0")
        assert "anchor_scale" in shown(person) and "dfl_loss" not in shown(person)


@pytest.mark.usefixtures("shapes", "started")
async def test_a_changed_setting_of_another_family_is_shown_with_its_mistake(
    workspace: Workspace, opened: Open
) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f6")
        await fill(person, "dfl_loss", "2")
        await choose(person, "model", "efficientdet_d0")
        assert "dfl_loss" in shown(person)
        await person.sees("DFL loss: does nothing for efficientdet_d0")
        await person.press("ctrl+r")
        await person.until(lambda: "dfl_loss" not in shown(person))
        assert not wizard(person).problems


@pytest.mark.usefixtures("shapes", "started")
async def test_the_image_size_follows_the_model_until_it_is_changed(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await choose(person, "model", "efficientdet_d0")
        assert wizard(person).data["image_size"] == "512"
        await choose(person, "model", "yolov8n")
        assert wizard(person).data["image_size"] == "640"
        await fill(person, "image_size", "256")
        await choose(person, "model", "efficientdet_d0")
        assert wizard(person).data["image_size"] == "256"
        await person.sees("● changed (512)")


@pytest.mark.usefixtures("shapes", "started")
async def test_what_is_changed_is_counted_and_goes_back_by_one_or_all(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await fill(person, "epochs", "9")
        await fill(person, "batch_size", "0")
        await fill(person, "lr", "0.01")
        await person.sees(
            "── Training  ● 2 changed", "── Learning rate  ● 1 changed", "yolov8n · 3 changed", "● as many as fit"
        )
        await person.press("ctrl+r")
        await person.sees("yolov8n · 2 changed", "auto: 0.001429, AdamW")
        await person.press("f7")
        await person.sees("Set 2 settings back to the default: Epochs, Batch size?")
        await person.press("n")
        assert wizard(person).data["epochs"] == "9"
        await person.press("f7", "y")
        await person.until(lambda: wizard(person).data["epochs"] == "100")
        assert "changed" not in person.text
        await person.press("f7")
        await person.sees("Every setting is at its default.")


@pytest.mark.usefixtures("shapes", "started")
async def test_blocks_to_freeze_are_asked_for(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f6")
        await person.sees("comes to none")
        person.app.screen.query_one("#edit-freeze").focus()
        await person.press("enter")
        await person.sees("some blocks …")
        await person.press("end", "enter")
        await person.sees("Freeze some blocks")
        await person.type("last")
        await person.sees("must be auto, none, features")
        await person.type("-3")
        await person.press("enter")
        await person.until(lambda: wizard(person).data["freeze"] == "last-3")
        await person.sees("last-3 ▾")
        assert "freeze" not in wizard(person).problems


@pytest.mark.usefixtures("started")
async def test_a_data_set_of_classes_is_offered_classifiers_alone(
    workspace: Workspace, tmp_path: Path, opened: Open
) -> None:
    from PIL import Image

    from engine import catalog
    from engine.datasets import registry

    for split in ("train", "val"):
        for kind in ("개미", "bee"):
            (tmp_path / "kinds" / split / kind).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (32, 32), "red").save(tmp_path / "kinds" / split / kind / f"{i}.png")
    registry.add(workspace.path, tmp_path / "kinds", "kinds")
    async with opened(workspace) as person:
        await person.press("n")
        await person.sees("kinds", "classify")
        await person.press("enter")
        await person.sees("● Settings", "resnet18")
        options = person.app.screen.query_one("#edit-model", Choice).options
        assert {catalog.find(name).task for name, *_ in options} == {"classify"}
        assert wizard(person).data["image_size"] == "224" and not wizard(person).problems
        assert "changed" not in person.text
        await fill(person, "epochs", "3")
        await person.press("f7", "y")
        await person.until(lambda: wizard(person).data["epochs"] == "100")
        assert wizard(person).data["model"] == "resnet18"
        await person.press("ctrl+n")
        await person.sees("this machine, auto")
        await person.press("ctrl+n")
        await person.sees("● Confirm", "dojang train --dataset kinds --model resnet18")


@pytest.mark.usefixtures("shapes", "started")
async def test_a_small_screen_shows_the_learning_rate_in_a_line(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        await fill(person, "lr", "0.01")
        await person.sees("lr by epoch ", " 0 → ")


# Presets


@pytest.mark.usefixtures("shapes", "started")
async def test_settings_are_kept_and_used_again(workspace: Workspace, opened: Open) -> None:
    from engine import presets

    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        await fill(person, "epochs", "9")
        await fill(person, "lr", "0.01")
        await person.press("f3")
        await person.sees("quick look", "built in", "enter use")
        await person.press("s")
        await person.type("밤 사진")
        await person.press("enter")
        await person.sees("yours", "Epochs 9, Learning rate 0.01", "x remove")
        assert presets.load(workspace, "밤 사진").settings["epochs"] == 9
        await person.press("escape", "f7", "y")
        await person.until(lambda: wizard(person).data["epochs"] == "100")
        await person.press("f3", "enter")
        await person.sees("The settings of “밤 사진” are used.")
        await person.until(lambda: wizard(person).data["epochs"] == "9")
        assert (wizard(person).data["lr"], wizard(person).data["dataset"]) == ("0.01", "shapes")

        await person.press("f3", "x")
        await person.sees("Remove the preset “밤 사진”?")
        await person.press("y")
        await person.until(lambda: not presets.own_names(workspace))


@pytest.mark.usefixtures("shapes", "started")
async def test_what_of_a_preset_does_not_fit_is_said(workspace: Workspace, opened: Open) -> None:
    from engine import presets

    presets.folder(workspace).mkdir()
    file = presets.folder(workspace) / "a.toml"
    file.write_text('epochs = 8\nlr = -1\nanchor_scale = 2.0\nmodel = "resnet18"\n')
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f3", "enter")
        await person.sees("Used from “a”, but for:", "Learning rate must", "Anchor scale does")
        await person.until(lambda: wizard(person).data["epochs"] == "8")
        assert not wizard(person).problems and wizard(person).data["model"] == "yolov8n"


@pytest.mark.usefixtures("shapes", "started")
async def test_the_settings_of_a_version_are_copied(workspace: Workspace, opened: Open) -> None:
    made.version(workspace, label={"name": "야간"}, epochs=77, model="efficientdet_d0", image_size=256)
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f3", "c")
        await person.sees("Copy settings from", "default/V_0", "야간")
        await person.press("enter")
        await person.until(lambda: wizard(person).data["epochs"] == "77")
        data = wizard(person).data
        assert (data["model"], data["image_size"], data["dataset"]) == ("efficientdet_d0", "256", "shapes")
        assert wizard(person).label.get("name", "") == ""


# The raw text


def editor(person: Person) -> Any:
    return person.app.screen.query_one(TextArea)


@pytest.mark.usefixtures("shapes", "started")
async def test_the_whole_spec_as_text(workspace: Workspace, opened: Open) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await fill(person, "epochs", "9")
        await person.press("f4")
        await person.sees("The spec as TOML", "epochs = 9", "# lr =   empty: chosen for the optimizer", "not changed")
        text = editor(person).text.replace("epochs = 9\n", "epochs = 12\nlr = 0.02\n", 1)
        editor(person).load_text(text)
        await person.sees("no mistake")
        await person.press("f4")
        await person.sees("The spec as JSON", '"epochs": 12', '"momentum": null')
        await person.press("ctrl+s")
        await person.until(lambda: isinstance(person.app.screen, WizardScreen))
        await person.until(lambda: wizard(person).data["epochs"] == "12")
        assert wizard(person).data["lr"] == "0.02" and not wizard(person).problems


@pytest.mark.usefixtures("shapes", "started")
async def test_mistakes_in_the_text_are_said_with_their_line_and_keep_it_from_being_used(
    workspace: Workspace, opened: Open
) -> None:
    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        await person.press("f4")
        editor(person).load_text('dataset = "shapes"\nepochs = = 3\n')
        await person.sees("line 2, column 10: Invalid value")
        await person.press("ctrl+s", "f4")
        await person.sees("Mend the text first", "The spec as TOML")
        editor(person).load_text('dataset = "shapes"\n\nepochs = 0\nepoch = 3\n')
        await person.sees(
            "line 3: epochs must be 1 – 10 000, not 0", "line 4: epoch is not a setting; did you mean epochs?"
        )
        await person.press("f5")
        assert editor(person).cursor_location[0] == 2
        await person.press("escape")
        await person.sees("Close without taking over what you changed?")
        await person.press("n")
        assert editor(person).text.endswith("epoch = 3\n")
        await person.press("escape", "y")
        assert isinstance(person.app.screen, WizardScreen) and wizard(person).data["epochs"] == "100"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "x" * 40_000,
        "lr = " + "9" * 6000,
        'dataset = "\x1b[2J"',
        "lr = nan\nepochs = 1e400\n",
        "options = 3\nlr = {a = 1}\nmodel = []\n",
        "lr = 2026-01-01\n",
        "\u202eabc",
        "[[epochs]]\n",
    ],
)
@pytest.mark.parametrize("form", ["toml", "json"])
def test_no_text_makes_the_reader_fail(workspace: Workspace, text: str, form: Any) -> None:
    from tui.screens.raw import findings

    _, wrong = findings(workspace, text, form)
    assert wrong and all(f.text.isprintable() for f in wrong)


@pytest.mark.usefixtures("shapes", "started")
async def test_what_is_pasted_is_cleaned_and_has_an_end(workspace: Workspace, opened: Open) -> None:
    from textual import events

    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f4")
        editor(person).load_text("")
        editor(person).post_message(events.Paste("epochs = 3\r\n\x1b[2J\x00seed\t= 4\u202e"))
        await person.until(lambda: editor(person).text == "epochs = 3\n[2Jseed\t= 4")
        editor(person).post_message(events.Paste("x" * 50_000))
        await person.sees("That is too long")
        assert len(editor(person).text) < 100


# The finder, with a process that only pretends to train


class Pretended:
    """Says what a sweep says, and waits in the middle until it is let go on."""

    made: ClassVar[list[Pretended]] = []

    def __init__(self, workspace: Workspace, spec: Spec) -> None:
        self.spec, self.go_on, self.cancelled = spec, threading.Event(), False
        Pretended.made.append(self)

    def messages(self) -> Iterator[dict[str, Any]]:
        rates = sweep.rates(1e-7, 1, 60)
        losses = [8 - 4 / (1 + math.exp(-4 * (math.log10(r) + 3))) for r in rates]
        yield {"kind": "progress", "what": "preprocessing", "done": 10, "total": 10}
        yield {"kind": "plan", "optimizer": "SGD", "device": "cpu", "low": 1e-7, "high": 1.0, "steps": 60}
        for i, (rate, smooth) in enumerate(zip(rates, sweep.smooth(losses), strict=True)):
            if i == 30:
                self.go_on.wait(30)
            if self.cancelled:
                return
            yield {"kind": "point", "step": i + 1, "lr": rate, "loss": losses[i], "smooth": smooth}
        found = sweep.suggest(rates, losses)
        yield {
            "kind": "end", "suggestion": found.lr, "lowest": found.lowest, "reason": found.reason, "ended": "complete",
        }  # fmt: skip

    def cancel(self) -> None:
        self.cancelled = True
        self.go_on.set()


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    monkeypatch.setattr(find, "Finder", Pretended)
    monkeypatch.setattr(Pretended, "made", [])
    return Pretended.made


@pytest.mark.usefixtures("shapes", "started")
async def test_f2_finds_a_rate_and_enter_takes_it_over(
    workspace: Workspace, opened: Open, pretended: list[Pretended]
) -> None:
    async with opened(workspace, (80, 24)) as person:
        await settings_step(person)
        await fill(person, "lr", "0.5")
        await person.press("f2")
        await person.sees("Learning rate finder: yolov8n on shapes", "step 30 of 60", "esc stop and close", "1e-3")
        assert pretended[0].spec.lr is None
        pretended[0].go_on.set()
        await person.sees("The loss falls fastest at", "Nothing was kept", "enter use")
        suggested = person.app.screen._value()  # type: ignore[attr-defined]
        assert 5e-4 < suggested < 2e-3
        await person.press("right", "right")
        assert person.app.screen._value() > suggested  # type: ignore[attr-defined]
        await person.press("home", "left")
        lower = person.app.screen._value()  # type: ignore[attr-defined]
        assert lower < suggested
        await person.press("enter")
        await person.until(lambda: wizard(person).data["lr"] == f"{lower:g}")
        assert wizard(person).data["warmup_epochs"] == "3"


@pytest.mark.usefixtures("shapes", "started")
async def test_esc_ends_the_sweep_and_changes_nothing(
    workspace: Workspace, opened: Open, pretended: list[Pretended]
) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await person.press("f2")
        await person.sees("step 30 of 60")
        await person.press("escape")
        await person.until(lambda: pretended[0].cancelled)
        assert isinstance(person.app.screen, WizardScreen) and wizard(person).data["lr"] is None


@pytest.mark.usefixtures("shapes", "started")
async def test_a_mistake_is_to_be_mended_before_the_finder_runs(
    workspace: Workspace, opened: Open, pretended: list[Pretended]
) -> None:
    async with opened(workspace) as person:
        await settings_step(person)
        await fill(person, "epochs", "0")
        await person.press("f2")
        await person.sees("Mend what is wrong with the settings first.")
        assert not pretended
