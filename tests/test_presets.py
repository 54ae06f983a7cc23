"""Presets: settings under a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import catalog, presets
from engine.errors import DojangError, NotFound
from engine.servers import local
from engine.spec import Spec, parse, parse_label, problems
from engine.versions import Version, Workspace
from tui.cli import main

WHOLE = parse({"dataset": "세포", "epochs": 7, "lr": 0.003, "schedule": "step", "device": "cpu"}).model_dump()


def test_what_is_kept_comes_back_as_it_was(workspace: Workspace) -> None:
    made = presets.save(workspace, "밤 사진", WHOLE, about="for the night")
    assert made == presets.load(workspace, "밤 사진") and not made.wrong
    assert made.about == "for the night" and not made.built_in
    assert parse({"dataset": "세포", "device": "cpu", **made.settings}).model_dump() == WHOLE
    assert made.settings["momentum"] is None  # “auto” in the file: TOML has no null
    assert not set(presets.NOT_KEPT) & set(made.settings)


def test_names_in_any_spelling_are_one(workspace: Workspace) -> None:
    presets.save(workspace, "한글", {"epochs": 3})  # decomposed letters
    assert presets.own_names(workspace) == ["한글"]
    assert presets.load(workspace, "한글").settings == {"epochs": 3}


@pytest.mark.parametrize("name", ["", "../away", "a/b", ".hidden", "x" * 65, "a\x00b", "a\nb", "quick look", "~"])
def test_a_name_that_is_no_file_name_of_ours_is_refused(workspace: Workspace, name: str) -> None:
    before = sorted(workspace.path.parent.rglob("*"))
    with pytest.raises(DojangError) as e:
        presets.save(workspace, name, {"epochs": 3})
    assert e.value.code == "BAD_NAME"
    assert sorted(workspace.path.parent.rglob("*")) == before


def test_one_of_that_name_is_only_replaced_when_asked(workspace: Workspace) -> None:
    presets.save(workspace, "a", {"epochs": 3})
    with pytest.raises(DojangError, match="already"):
        presets.save(workspace, "a", {"epochs": 4})
    assert presets.load(workspace, "a").settings == {"epochs": 3}
    assert presets.save(workspace, "a", {"epochs": 4}, replace=True).settings == {"epochs": 4}


def write(workspace: Workspace, name: str, data: bytes) -> Path:
    place = presets.folder(workspace) / f"{name}.toml"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    return place


def test_what_is_wrong_in_a_file_is_said_and_the_rest_is_used(workspace: Workspace) -> None:
    text = (
        'epochs = 9\nlr = -1\nepoch = 3\ndataset = "x"\nschedule = ["a"]\nmomentum = "auto"\nabout = "\\u001b[31mred"\n'
    )
    write(workspace, "mixed", text.encode())
    found = presets.load(workspace, "mixed")
    assert found.settings == {"epochs": 9, "momentum": None}
    assert [p.field for p in found.wrong] == ["lr", "epoch", "dataset", "schedule"]
    assert "did you mean epochs" in found.wrong[1].message
    assert found.about == "[31mred"


def test_what_suits_another_family_is_kept_for_it(workspace: Workspace) -> None:
    write(workspace, "small", b"anchor_scale = 2.0\nlabel_smoothing = 0.1\n")
    found = presets.load(workspace, "small")
    assert not found.wrong and found.settings == {"anchor_scale": 2.0, "label_smoothing": 0.1}
    merged, wrong = presets.applied(found.settings, {"dataset": "d", "model": "yolov8n"})
    assert merged == {"dataset": "d", "model": "yolov8n"}
    assert sorted(p.field for p in wrong) == ["anchor_scale", "label_smoothing"]
    merged, wrong = presets.applied(found.settings, {"dataset": "d", "model": "efficientdet_d0"})
    assert merged["anchor_scale"] == 2.0 and not wrong


@pytest.mark.parametrize(
    "data", [b"epochs = ", b"\xff\xfe", b"x = " + b"[" * 30_000, b"a = 1\n" * 20_000, b"n = " + b"9" * 9000]
)
def test_a_file_that_cannot_be_read_says_so_and_hides_no_other(workspace: Workspace, data: bytes) -> None:
    presets.save(workspace, "good", {"epochs": 3})
    write(workspace, "bad", data)
    try:
        assert presets.load(workspace, "bad").wrong
    except DojangError as e:
        assert e.code == "BAD_FILE" and "bad.toml" in e.message
    found = {p.name: p for p in presets.listing(workspace)}
    assert found["bad"].wrong and not found["bad"].settings
    assert found["good"].settings == {"epochs": 3}


def test_files_that_are_no_presets_are_not_listed(workspace: Workspace) -> None:
    for name in (".x", "quick look", "a\nb"):
        write(workspace, name, b"epochs = 3")
    write(workspace, "x", b"").rename(presets.folder(workspace) / "notes.txt")
    (presets.folder(workspace) / "folder.toml").mkdir()
    assert presets.own_names(workspace) == []


@pytest.mark.parametrize("preset", presets.BUILT_IN.values(), ids=str)
def test_those_built_in_fit_every_family(preset: presets.Preset) -> None:
    assert preset.built_in and preset.about
    for name in {m.kernel: m.name for m in catalog.MODELS.values()}.values():
        assert problems({"dataset": "d", "model": name, **preset.settings}) == []


def test_those_built_in_stay(workspace: Workspace) -> None:
    with pytest.raises(DojangError, match="stays"):
        presets.delete(workspace, "fine-tune")
    with pytest.raises(NotFound, match="nothing"):
        presets.delete(workspace, "nothing")


def test_a_version_lends_its_settings_but_not_its_data_or_name(workspace: Workspace) -> None:
    spec = parse({"dataset": "세포", "epochs": 12, "dataset_hash": "abc"})
    version = workspace.project("default", create=True).create(spec, parse_label({"name": "mine"}))
    found = presets.of_version(version)
    assert found.settings["epochs"] == 12 and set(found.settings) == set(Spec.model_fields) - set(presets.NOT_KEPT)


def test_the_commands(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.toml"
    file.write_text('dataset = "d"\nepochs = 4\n')
    place = ["--workspace", str(workspace.path)]
    assert main(["preset", "save", "night", str(file), "--set", "lr=0.01", *place]) == 0
    assert "Epochs" not in capsys.readouterr().err
    assert main(["preset", "list", "--json", *place]) == 0
    listed = {p["name"]: p for p in json.loads(capsys.readouterr().out)}
    assert listed["night"]["settings"]["lr"] == 0.01 and listed["quick look"]["built_in"]
    assert main(["preset", "show", "night", *place]) == 0
    assert "  epochs = 4\n" in capsys.readouterr().out
    assert main(["preset", "save", "night", str(file), *place]) == 2
    assert "--replace" in capsys.readouterr().err
    assert main(["preset", "delete", "night", *place]) == 0
    assert main(["preset", "show", "night", *place]) == 3


def test_a_training_begins_from_a_preset_and_what_is_given_beside_it_wins(
    workspace: Workspace, shapes: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Version] = []
    monkeypatch.setattr(local, "start", started.append)
    write(workspace, "p", b'epochs = 4\npatience = 3\nlr = "much"\nanchor_scale = 2.0\n')
    given = ["train", "--dataset", shapes, "--preset", "p", "--set", "epochs=6", "--workspace", str(workspace.path)]
    assert main(given) == 0
    spec = started[0].spec()
    assert (spec.epochs, spec.patience, spec.lr, spec.anchor_scale) == (6, 3, None, None)
    told = capsys.readouterr().err
    assert "not used: Learning rate must be a number" in told and "not used: Anchor scale does nothing" in told
    assert main(["train", "--dataset", shapes, "--preset", "q", "--workspace", str(workspace.path)]) == 3
