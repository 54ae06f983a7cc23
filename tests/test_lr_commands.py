"""`dojang lr-plot` and `dojang lr-find`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import find, sweep
from engine.errors import DojangError
from engine.spec import parse, parse_label
from engine.versions import Workspace
from tui.cli import main
from tui.rates import Rates


@pytest.fixture
def spec(workspace: Workspace, shapes: str, tmp_path: Path) -> str:
    """A spec.toml: 8 images in batches of 4, so two steps an epoch."""
    assert workspace
    place = tmp_path / "spec.toml"
    place.write_text(f'dataset = "{shapes}"\nbatch_size = 4\nepochs = 20\nlr = 0.01\nwarmup_epochs = 3\n')
    return str(place)


Run = Any


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--workspace", str(workspace.path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_plot_says_start_peak_end_and_warm_up(run: Run, spec: str) -> None:
    code, out, _ = run("lr-plot", spec, "--set", "warmup_lr=0.001", "--set", "warmup_bias_lr=0.1")
    assert code == 0
    assert "linear with AdamW, 40 steps: 20 epochs of 2" in out
    assert "warm-up: 6 steps (3 epochs) from 0.001" in out
    assert "biases: start at 0.1" in out
    assert "start 0.001, peak 0.008515 at step 6 (epoch 4), end 6.0e-4" in out


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "step", "cyclic", "one-cycle"])
def test_every_schedule_is_the_loops_own(run: Run, spec: str, schedule: str) -> None:
    from engine import schedule as schedules

    changes = {"schedule": schedule, "step_every": "4", "cycle_epochs": "5", "backbone_lr_ratio": "0.1"}
    code, out, _ = run("lr-plot", spec, "--json", *(f"--set={k}={v}" for k, v in changes.items()))
    found = json.loads(out)
    made = parse({"dataset": "d", "batch_size": 4, "epochs": 20, "lr": 0.01, **changes})
    expected = schedules.of(made, 0.01, 2)
    assert code == 0 and len(found["points"]) == found["steps"] == 40
    for point in found["points"]:
        assert point["lr"] == expected.at(point["step"])
        assert point["backbone_lr"] == pytest.approx(point["lr"] * 0.1)
    assert found["peak"] == max(p["lr"] for p in found["points"])


def test_a_version_is_plotted_too(run: Run, workspace: Workspace, shapes: str) -> None:
    made = parse({"dataset": shapes, "epochs": 5, "lr": 0.5, "optimizer": "SGD"})
    workspace.project("default", create=True).create(made, parse_label({"name": "밤"}))
    code, out, _ = run("lr-plot", "밤", "--set", "schedule=constant", "--set", "warmup_epochs=0")
    assert code == 0
    assert "default/V_0: constant with SGD" in out and "no warm-up" in out
    assert run("lr-plot", "V_9")[0] == 3


def test_without_its_data_set_it_asks_for_steps_and_a_rate(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "s.toml"
    place.write_text('dataset = "elsewhere"\nepochs = 4\n')
    code, _, err = run("lr-plot", str(place))
    assert code == 3 and "--steps N" in err
    code, _, err = run("lr-plot", str(place), "--steps", "10")
    assert code == 3 and "--set lr=" in err
    code, out, _ = run("lr-plot", str(place), "--steps", "10", "--set", "lr=0.01")
    assert code == 0 and "40 steps: 4 epochs of 10" in out
    assert run("lr-plot", str(place), "--steps", "0", "--set", "lr=0.01")[0] == 2


def test_what_is_wrong_with_the_spec_is_said(run: Run, spec: str) -> None:
    code, _, err = run("lr-plot", spec, "--set", "schedule=zigzag", "--set", "nonsense")
    assert code == 2 and "KEY=VALUE" in err
    code, _, err = run("lr-plot", spec, "--set", "schedule=zigzag")
    assert code == 2 and "must be one of linear" in err


def test_on_a_terminal_it_is_drawn_with_both_axes(run: Run, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui import drawing

    monkeypatch.setattr(drawing, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("DOJANG_ASCII", "0")
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, _ = run("lr-plot", spec, "--set", "backbone_lr_ratio=0.5")
    lines = out.splitlines()
    epochs, steps = (next(line for line in lines if line.lstrip().startswith(w)) for w in ("epoch", "step "))
    assert code == 0 and "backbone: 0.5 × the head's" in out
    assert epochs.split()[1:2] == ["0"] and epochs.split()[-1] == "20"
    assert steps.split()[1:2] == ["0"] and max(map(len, lines)) <= 80 and "\x1b" not in out
    assert any("⠀" <= c <= "⣿" for c in out)


@pytest.mark.parametrize("schedule", ["step", "cyclic", "one-cycle"])
def test_the_drawn_curve_keeps_its_turning_points(schedule: str) -> None:
    made = parse({"dataset": "d", "epochs": 300, "lr": 0.01, "schedule": schedule})
    rates = Rates(made, "SGD", 0.01, 500)
    steps = rates.drawn_steps()
    assert len(steps) < 700 and steps == sorted(set(steps)) and steps[-1] == 149_999
    assert rates.peak()[1] == pytest.approx(0.01)


# The finder, with a process that only pretends to train


class Pretended:
    """Says what a sweep says."""

    made: list[Pretended] = []
    falls = True
    error = ""

    def __init__(self, workspace: Workspace, spec: Any, low: float, high: float, steps: int) -> None:
        find.check(low, high, steps)
        self.spec, self.low, self.high, self.steps, self.closed = spec, low, high, steps, False
        Pretended.made.append(self)

    def messages(self) -> Iterator[dict[str, Any]]:
        rates = sweep.rates(self.low, self.high, self.steps)
        losses = [8 - 4 / (1 + math.exp(-4 * (math.log10(r) + 3))) if self.falls else 8.0 for r in rates]
        yield {"kind": "stage", "stage": "preparing"}
        yield {"kind": "plan", "optimizer": "SGD", "batch_size": 4, "device": "cpu", "low": self.low, "high": self.high}
        for i, (rate, loss, smooth) in enumerate(zip(rates, losses, sweep.smooth(losses), strict=True)):
            yield {"kind": "point", "step": i + 1, "lr": rate, "loss": loss, "smooth": smooth}
        if self.error:
            yield {"kind": "error", "code": "OOM", "message": self.error, "hint": "Lower batch_size."}
            return
        found = sweep.suggest(rates, losses)
        yield {
            "kind": "end", "suggestion": found.lr, "lowest": found.lowest, "reason": found.reason, "ended": "complete",
        }  # fmt: skip

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> type[Pretended]:
    monkeypatch.setattr(find, "Finder", Pretended)
    monkeypatch.setattr(Pretended, "made", [])
    return Pretended


def test_the_finder_suggests_a_rate(run: Run, spec: str, pretended: type[Pretended]) -> None:
    code, out, _ = run("lr-find", spec, "--set", "optimizer=SGD", "--from", "1e-6", "--steps", "60")
    assert code == 0
    assert "60 steps of SGD with batches of 4 on cpu; nothing was kept" in out
    assert "Use it: --set lr=0.00" in out
    made = pretended.made[0]
    assert (made.spec.optimizer, made.low, made.high, made.steps, made.closed) == ("SGD", 1e-6, 1.0, 60, True)


def test_the_finder_as_json(run: Run, spec: str, pretended: type[Pretended]) -> None:
    assert pretended.falls
    code, out, _ = run("lr-find", spec, "--json")
    found = json.loads(out)
    assert code == 0 and len(found["points"]) == 100
    assert found["suggestion"] == pytest.approx(1e-3, rel=0.5)


def test_no_suggestion_is_no_success(
    run: Run, spec: str, pretended: type[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended, "falls", False)
    code, out, _ = run("lr-find", spec)
    assert code == 1 and "hardly moves" in out and "Use it" not in out


def test_a_failing_sweep_says_why(
    run: Run, spec: str, pretended: type[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretended, "error", "There is not enough memory.")
    code, _, err = run("lr-find", spec)
    assert code == 2 and "not enough memory" in err and "Lower batch_size" in err
    assert pretended.made[0].closed


@pytest.mark.parametrize("given", [("--from", "0"), ("--from", "1"), ("--to", "nan"), ("--steps", "3")])
@pytest.mark.usefixtures("pretended")
def test_a_sweep_that_cannot_be_is_refused(run: Run, spec: str, given: tuple[str, str]) -> None:
    assert run("lr-find", spec, *given)[0] == 2


def test_the_finder_checks_like_a_training(run: Run, pretended: type[Pretended]) -> None:
    code, _, err = run("lr-find", "--dataset", "nowhere", "--set", "epochs=0")
    assert code == 2 and "epochs" in err and "nowhere" in err and not pretended.made


def test_an_error_among_the_messages_is_raised() -> None:
    with pytest.raises(DojangError, match="no memory"):
        find.Sweep().take({"kind": "error", "code": "OOM", "message": "no memory", "hint": ""})
