"""From a request to a version: what keeps it from being started, and what it amounts to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from engine import catalog, datasets, launch
from engine.catalog import Model
from engine.errors import DojangError, Invalid
from engine.servers.inventory import machine
from engine.spec import parse, parse_label
from engine.versions import Workspace
from tests import logs
from tests.datasets.make import folders, yolo


def test_a_model_is_not_trained_on_a_set_of_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "workspace").ensure()
    datasets.add(workspace.path, yolo(tmp_path / "boxes"))
    datasets.add(workspace.path, folders(tmp_path / "bees", {f"{s}/{c}": 2 for s in ("train", "val") for c in "ab"}))
    monkeypatch.setitem(
        catalog.MODELS, "namer", Model("namer", "Namer", "torchvision", "classify", 224, 1.0, "", "", "ImageNet")
    )

    def problems(dataset: str, model: str) -> list[str]:
        return [
            p.message for p in launch.check(workspace, {"dataset": dataset, "model": model}) if p.field == "dataset"
        ]

    assert problems("boxes", "yolov8n") == problems("bees", "namer") == []
    (wrong,) = problems("bees", "yolov8n")
    assert "classify" in wrong and "detect" in wrong
    assert len(problems("boxes", "namer")) == 1
    assert "no dataset" in problems("none", "namer")[0]


@pytest.mark.parametrize(
    "weights", ["nowhere.pt", "~nobody-of-that-name/w.pt", "x" * 300 + ".pt", "/", "~", "/proc/1/mem/x"]
)
def test_weights_that_are_no_file_are_a_problem_not_a_crash(workspace: Workspace, shapes: str, weights: str) -> None:
    (problem,) = launch.check(workspace, {"dataset": shapes, "weights": weights})
    assert problem.field == "weights"


def test_a_file_of_weights_is_found_from_wherever_the_worker_runs(
    workspace: Workspace, shapes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.pt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    version = launch.create(workspace, {"dataset": shapes, "weights": "mine.pt"}, parse_label({}))
    assert version.spec().weights == str(tmp_path / "mine.pt")
    assert launch.start_from(workspace, version.spec()).endswith(str(tmp_path / "mine.pt"))


def test_every_problem_is_told_at_once(workspace: Workspace, shapes: str) -> None:
    wrong: dict[str, Any] = {"dataset": "none", "epochs": 0, "weights": "none.pt", "epoch": 3}
    with pytest.raises(Invalid) as caught:
        launch.create(workspace, wrong, parse_label({}))
    assert {p.field for p in caught.value.problems} == set(wrong)
    assert workspace.projects() == []


def test_a_data_set_that_changed_since_is_refused(workspace: Workspace, shapes: str) -> None:
    made = launch.create(workspace, {"dataset": shapes}, parse_label({}))
    again = launch.create(workspace, made.spec_data(), parse_label({}))
    assert again.spec().dataset_hash == made.spec().dataset_hash != ""
    with pytest.raises(Invalid, match="changed"):
        launch.create(workspace, {**made.spec_data(), "dataset_hash": "0" * 64}, parse_label({}))


def test_the_plan_counts_and_warns(workspace: Workspace, shapes: str) -> None:
    plan = launch.plan(workspace, parse({"dataset": shapes, "batch_size": 3, "epochs": 7}))
    assert (plan.steps_per_epoch, plan.steps, plan.optimizer, plan.lr) == (3, 21, "AdamW", 0.001429)
    assert plan.weights == "scratch: random weights" and plan.seconds is None
    assert any("no test split" in w for w in plan.warnings)
    running = logs.version(workspace)
    with logs.running(running):
        plan = launch.plan(workspace, plan.spec)
    assert any(running.reference in w for w in plan.warnings)


def test_an_estimate_rests_on_the_last_alike(workspace: Workspace, shapes: str) -> None:
    spec = parse({"dataset": shapes, "epochs": 10, "image_size": 128})
    logs.finished(logs.version(workspace, model="yolov8s"))
    assert launch.plan(workspace, spec).seconds is None
    alike = logs.finished(logs.version(workspace))  # 40 images of 64 px: 1.6 s an epoch
    plan = launch.plan(workspace, spec)
    assert plan.seconds == pytest.approx(10 * 8 * 1.6 / 40 * 4) and plan.pace_from == alike.reference


def test_the_command_says_what_the_wizard_would_do(workspace: Workspace, shapes: str) -> None:
    from tui.cli import parser
    from tui.commands import _request

    spec = parse({"dataset": shapes, "model": "yolov5s", "lr": 0.003, "download": True, "image_size": 320})
    label = parse_label({"name": "it's 이름", "tags": ["a b", "c"], "memo": "$HOME `x`"})
    words = shlex.split(launch.command(spec, label, "my project"))
    data, told, project, wrong = _request(parser().parse_args(words[1:]))
    assert parse(data) == spec and parse_label(told) == label and project == "my project" and wrong == []


def test_disk_that_runs_low_is_said(workspace: Workspace, shapes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LOW_DISK", 2.0**40)
    assert any("GiB are free" in w for w in launch.plan(workspace, parse({"dataset": shapes})).warnings)


def test_an_unknown_data_set_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(DojangError):
        launch.plan(workspace, parse({"dataset": "none"}))


def test_memory_is_told_of_the_machine_that_was_seen(workspace: Workspace, shapes: str) -> None:
    seen = machine(workspace.path)
    spec = parse({"dataset": shapes, "batch_size": 16, "image_size": 640})
    small, large = (launch.plan(workspace, s, seen).memory for s in (spec, spec.model_copy(update={"batch_size": 64})))
    assert small and large and 2.5 < small < 8 and 3 * (small - 1) < large < 4 * small
    assert launch.plan(workspace, spec).memory is None
    vast = spec.model_copy(update={"batch_size": 4096, "model": "yolov8x"})
    assert any("smaller runs" in w for w in launch.plan(workspace, vast, seen).warnings)
