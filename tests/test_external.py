"""Programs of any language as kernels: declared, accepted, trained with for real, and trusted with nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from engine import catalog, control, external, launch, plugins, worker
from engine.datasets import registry
from engine.errors import DojangError, Invalid
from engine.events import Event, read_all
from engine.external_events import Heard, Refused
from engine.external_process import Lines
from engine.servers import local
from engine.spec import changed, parse, parse_label, problems
from engine.versions import Version, Workspace
from tui.cli import main

EXAMPLE = Path(__file__).parent / "external_kernel" / "mean-colour.toml"
COLOURS = {"apple": (200, 60, 50), "leaf": (70, 160, 60), "sky": (90, 140, 220)}


@pytest.fixture(autouse=True)
def own_consents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(plugins, "_workspace", None)


@pytest.fixture
def place(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace with a set of drawn pictures in three classes."""
    from PIL import Image

    chance = random.Random(7)
    for split, count in (("train", 12), ("val", 6), ("test", 4)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "coloured" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                tone = tuple(min(255, max(0, c + chance.randint(-60, 60))) for c in colour)
                image = Image.new("RGB", (24, 24), tone)
                image.putpixel((i, i), (0, 0, 0))
                image.save(folder / f"{i}.png")
    registry.add(workspace.path, tmp_path / "coloured", "colours")
    plugins.look_in(workspace.path)
    return workspace


@pytest.fixture
def example(place: Workspace) -> Workspace:
    external.add(place.path, EXAMPLE)
    return place


Make = Callable[..., Version]


@pytest.fixture
def scripted(place: Workspace, tmp_path: Path) -> Make:
    """Lay down a version whose kernel is the given Python; keywords change its declaration."""

    def make(script: str, **changes: Any) -> Version:
        program = tmp_path / "kernel.py"
        program.write_text("import json, os, signal, sys, time\nbrief = json.load(open(sys.argv[1]))\n" + SAY + script)
        table = {
            "name": "scripted",
            "task": "classify",
            "command": ["{python}", str(program), "{spec}"],
            "models": [{"name": "scripted"}],
            "stop_seconds": 0.5,
            **changes,
        }
        (tmp_path / "scripted.toml").write_text(tomli_w.dumps(table))
        external.add(place.path, tmp_path / "scripted.toml")
        return launch.create(place, {"dataset": "colours", "model": "scripted", "epochs": 3}, parse_label({}))

    return make


SAY = """
def say(kind, **fields):
    print(json.dumps({"kind": kind, **fields}), flush=True)
def learn(epochs=3):
    for epoch in range(1, epochs + 1):
        say("step", epoch=epoch, step=epoch, loss={"loss": 1 / epoch})
        say("epoch", epoch=epoch, metrics={"top1": 0.5}, best=True)
"""


def create(place: Workspace, **settings: Any) -> Version:
    given = {"dataset": "colours", "model": "mean-colour", "epochs": 5, "batch_size": 6, **settings}
    return launch.create(place, given, parse_label({}))


def train(version: Version) -> list[Event]:
    """Train within this process; the events of this attempt."""
    before = len(read_all(version.events))
    worker.run(version.path)
    return read_all(version.events)[before:]


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [e for e in events if e["kind"] == kind]


def texts(events: list[Event]) -> str:
    return "\n".join(e["text"] for e in of_kind(events, "log"))


def until(true: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


# The example, whole


def test_the_example_learns_from_real_images_in_a_worker_of_its_own(example: Workspace) -> None:
    version = create(example, options={"grid": 3})
    local.start(version)
    assert local.wait(version, 60) == "done"
    events = read_all(version.events)
    (plan,) = of_kind(events, "plan")
    assert (plan["epochs"], plan["train_images"], plan["val_images"], plan["test_images"]) == (5, 36, 18, 12)
    assert plan["classes"] == sorted(COLOURS) and plan["steps_per_epoch"] == 6 and plan["parameters"] == 3 * 3 * 3 * 3
    epochs = of_kind(events, "epoch")
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4, 5]
    assert epochs[-1]["train"]["distance"] < epochs[0]["train"]["distance"] / 2
    results = {e["split"]: e for e in of_kind(events, "result")}
    assert results["val"]["metrics"]["top1"] > 0.8 and results["test"]["metrics"]["top1"] > 0.8
    assert sum(map(sum, results["test"]["confusion"]["matrix"])) == 12
    assert [e["stage"] for e in of_kind(events, "stage")] == ["preparing", "preprocessing", "training", "testing"]
    assert "reading images, 3 classes" in texts(events) and events[-1] == {**events[-1], "kind": "end", "state": "done"}
    assert version.summary()["metrics"]["top1"] == results["val"]["metrics"]["top1"]
    assert json.loads((version.path / "weights" / "best.json").read_text())


def test_the_worker_loads_no_torch_for_it(example: Workspace) -> None:
    version = create(example, epochs=1)
    script = "import sys; from engine.worker import run; from pathlib import Path\n"
    script += f"assert run(Path({str(version.path)!r})) == 0; assert not {{'torch', 'PIL', 'numpy'}} & set(sys.modules)"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, timeout=60)


def test_it_is_given_all_that_it_needs(example: Workspace) -> None:
    version = create(example, options={"grid": 1}, lr=0.01)
    train(version)
    brief = json.loads((version.path / "kernel" / "spec.json").read_text())
    assert brief["operation"] == "train" and brief["contract"] == 1 and brief["checkpoint"] is None
    assert brief["options"] == {"grid": 1, "spread": False, "pause": 0.0} and brief["settings"]["lr"] == 0.01
    assert Path(brief["etc_path"]["README.txt"]).is_file()
    rows = [json.loads(line) for line in Path(brief["dataset"]["manifest"]).read_text().splitlines()]
    assert len(rows) == 66 and all(Path(r["path"]).is_file() and r["width"] == 24 for r in rows)
    assert {(r["class"], r["label"]) for r in rows} == {(c, i) for i, c in enumerate(sorted(COLOURS))}
    assert {s: sum(r["split"] == s for r in rows) for s in ("train", "val", "test")} == brief["dataset"]["images"]


def test_a_stopped_training_goes_on_and_ends_as_the_unbroken_one(example: Workspace) -> None:
    whole = create(example)
    train(whole)
    broken = create(example, options={"pause": 0.05})
    local.start(broken)
    until(lambda: len(broken.progress().epochs) >= 2)
    local.request(broken, "stop")
    assert local.wait(broken, 30) == "stopped"
    done = broken.progress().epochs_done
    assert 2 <= done < 5
    local.resume(broken)
    assert local.wait(broken, 60) == "done"
    start = of_kind(read_all(broken.events), "start")[-1]
    assert start["resumed"]["epoch"] >= done and start["attempt"] == 2
    assert [e["epoch"] for e in broken.progress().epochs] == [1, 2, 3, 4, 5]
    for name in ("epoch-1.json",):  # the last checkpoint: the same means, so the same training
        one, other = (json.loads((v.checkpoints / name).read_text()) for v in (whole, broken))
        assert one["means"] == other["means"]


def test_its_processes_end_with_the_worker(scripted: Make, tmp_path: Path) -> None:
    version = scripted(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'pids')!r} + '.part', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(tmp_path / 'pids')!r} + '.part', {str(tmp_path / 'pids')!r})\n"
        "time.sleep(600)\n"
    )
    local.start(version)
    until((tmp_path / "pids").exists)
    pids = [int(p) for p in (tmp_path / "pids").read_text().split()]
    (start,) = of_kind(read_all(version.events), "start")
    os.kill(start["pid"], signal.SIGKILL)
    until(lambda: not any(map(running, pids)))
    until(lambda: not version.alive())
    assert version.summary()["state"] == "lost"


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# Ends that are none


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("learn()", "ended without a last word"),
        ("learn(); say('end', state='done'); sys.exit(3)", "said “done” and then ended with exit code 3"),
        ("sys.stderr.write('no such colour\\n'); sys.exit(7)", "ended with exit code 7 without a last word"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by signal 11 without a last word"),
        ("say('end', state='failed')", "said “failed” and then ended"),
    ],
)
def test_an_end_without_a_sound_last_word_is_a_failure(scripted: Make, script: str, says: str) -> None:
    version = scripted(script)
    events = train(version)
    (error,) = of_kind(events, "error")
    assert error["code"] == "KERNEL_FAILED" and says in error["message"] and str(version.train_log) in error["hint"]
    assert ("no such colour" in error["hint"]) == ("colour" in script)
    assert events[-1]["state"] == "failed"


def test_its_own_word_on_a_failure_is_passed_on_and_nothing_after_it(scripted: Make) -> None:
    version = scripted("say('error', code='NO_RED', message='There is no red.', hint='Add some.'); learn()")
    events = train(version)
    (error,) = of_kind(events, "error")
    assert (error["code"], error["message"], error["hint"]) == ("NO_RED", "There is no red.", "Add some.")
    assert not of_kind(events, "epoch") and events[-1]["state"] == "failed"


def test_a_program_that_is_not_there_says_so(scripted: Make, tmp_path: Path) -> None:
    program = tmp_path / "nothing-here"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    version = scripted("learn()", command=[str(program), "{spec}"])
    program.unlink()
    (error,) = of_kind(train(version), "error")
    assert error["code"] == "KERNEL_MISSING" and "nothing-here" in error["message"]


# Stopping


def test_one_that_does_not_obey_is_ended_by_signal(scripted: Make) -> None:
    version = scripted("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nlearn(2)\ntime.sleep(600)")
    local.start(version)
    until(lambda: version.progress().epochs)
    began = time.monotonic()
    local.request(version, "stop")
    assert local.wait(version, 30) == "stopped" and time.monotonic() - began < 8
    events = read_all(version.events)
    assert "without a last word after it was asked to stop" in texts(events)
    assert "cannot go on from where it stopped" in texts(events)
    assert of_kind(events, "control")[0]["request"] == "stop"


def test_one_that_ignores_even_that_is_killed(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.external_process.TERM_SECONDS", 0.3)
    version = scripted("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlearn(1)\ntime.sleep(600)")
    control.send(version.control, "stop")
    began = time.monotonic()
    assert train(version)[-1]["state"] == "stopped" and time.monotonic() - began < 10


def test_one_that_does_not_exit_after_its_last_word_is_done(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.external_process.LINGER_SECONDS", 0.3)
    events = train(scripted("learn()\nsay('end', state='done')\ntime.sleep(600)"))
    assert events[-1]["state"] == "done" and "did not exit" in texts(events)


def test_without_resume_it_begins_anew_and_finds_nothing_of_the_last_attempt(scripted: Make) -> None:
    version = scripted(
        "path = brief['metrics'] + '/own.csv'\n"
        "assert not os.path.exists(path), path\n"
        "open(path, 'w').write('epoch,a\\n1,2\\n')\n"
        "open(brief['checkpoints'] + '/one', 'w').write('x')\n"
        "learn(1)\nsay('checkpoint', name='one', epoch=1, step=1)\n"
    )
    train(version)
    again = train(version)
    assert again[0] == {**again[0], "attempt": 2, "resumed": None} and "without a last word" in again[-2]["message"]


# Hostile output


def test_what_is_no_event_is_left_out_and_told(scripted: Make) -> None:
    version = scripted(
        "learn(1)\n"
        "say('start', attempt=9)\n"
        "say('epoch', epoch=1)\n"
        "say('epoch', epoch=2, metrics={'top1': 17})\n"
        "say('step', epoch=2, step='x')\n"
        "say('step', epoch=2, step=0)\n"
        "say('checkpoint', name='../../spec.toml')\n"
        "say('checkpoint', name='none.pt')\n"
        "print('{' * 5000)\n"
        "print('\\x1b[31mred\\x1b[0m')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()\n"
        "say('step', epoch=2, step=2, loss={'loss': float('nan')}, t=5, lr=1e999)\n"
        "say('end', state='done', t=1)\n"
    )
    events = train(version)
    assert events[-1]["kind"] == "end" and events[-1]["state"] == "done" and events[-1]["t"] > 1e9
    assert (
        len(of_kind(events, "start")) == 1 and len(of_kind(events, "epoch")) == 1 and not of_kind(events, "checkpoint")
    )
    step = of_kind(events, "step")[-1]
    assert step["step"] == 2 and step["loss"] == {"loss": None} and step["lr"] is None and step["t"] > 1e9
    told = texts(events)
    assert told.count("Left out") == 7 and "must lie between 0 and 1" in told and "\nred" in told and "\x1b" not in told
    assert version.summary()["state"] == "done"


def test_a_flood_fills_neither_memory_nor_disk(scripted: Make) -> None:
    import resource

    version = scripted(
        "out = sys.stdout.buffer\n"
        "out.write(b'x' * (64 << 20) + b'\\n')\n"
        "for i in range(200): out.write((b'a line of a log that says nothing at all\\n') * 2500)\n"
        "for i in range(1, 50001): print(json.dumps({'kind': 'step', 'epoch': 1, 'step': i, 'loss': {'a': 1.0 + i % 2}}))\n"
        "sys.stderr.write('e' * (32 << 20))\n"
        "sys.stdout.flush()\nsay('end', state='done')\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    events = train(version)
    assert events[-1]["state"] == "done", events[-2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB
    assert version.events.stat().st_size < 1 << 20 and version.train_log.stat().st_size < 20 << 20
    steps = of_kind(events, "step")
    assert sum(e["n"] for e in steps) == 50_000 and steps[-1]["step"] == 50_000
    assert all(1.0 <= e["loss"]["a"] <= 2.0 for e in steps)
    assert "more lines of the kernel's log are not shown" in texts(events) and "more than 256 KiB" in texts(events)


def test_events_may_come_in_a_file(scripted: Make) -> None:
    version = scripted(
        'print(\'{"kind": "end", "state": "failed"}\', flush=True)  # stdout is but a log then\n'
        "out = open(brief['events'], 'a')\n"
        "for e in range(1, 4): out.write(json.dumps({'kind': 'epoch', 'epoch': e, 'metrics': {'top1': e / 4}}) + '\\n')\n"
        "out.write(json.dumps({'kind': 'end', 'state': 'done'}))\n",
        events="file",
    )
    events = train(version)
    assert events[-1]["state"] == "done" and [e["metrics"]["top1"] for e in of_kind(events, "epoch")] == [
        0.25,
        0.5,
        0.75,
    ]


def test_lines_are_cut_in_bounded_memory() -> None:
    lines = Lines()
    assert list(lines.feed(b"a\nb\r10 %\r")) == [b"a", b"b", b"10 %"]
    assert list(lines.feed(b"x" * (1 << 18) + b"y")) == [] and lines.too_long == 1
    assert list(lines.feed(b"more" * 1000)) == [] and lines.too_long == 1
    assert list(lines.feed(b"\nwhole\nrest")) == [b"whole"] and list(lines.last()) == [b"rest"]


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "plan", "epochs": "many"},
        {"kind": "plan", "epochs": True},
        {"kind": "progress", "what": "lunch", "done": 1, "total": 2},
        {"kind": "progress", "what": "val", "done": -1, "total": 2},
        {"kind": "step", "epoch": 1, "step": 10**400},
        {"kind": "step", "epoch": 1, "step": 1, "loss": [1]},
        {"kind": "step", "epoch": 1, "step": 1, "loss": {str(i): 1 for i in range(65)}},
        {"kind": "epoch", "epoch": 1, "best": "yes"},
        {"kind": "epoch", "epoch": 1, "per_class": [1]},
        {"kind": "result", "split": "train"},
        {"kind": "end", "state": "great"},
        {"kind": "checkpoint", "name": ".."},
        {"kind": "checkpoint", "name": "a", "epoch": 9, "step": 9},
        {"kind": "control", "request": "stop"},
        {"kind": "x" * 1000},
    ],
)
def test_each_event_is_checked(line: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        Heard({"epochs": 3, "steps_per_epoch": 4}).take(json.dumps(line).encode())


# Declarations and consent


def test_what_nobody_accepted_is_listed_and_not_run(example: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place := external.folder_of(example.path)).mkdir(exist_ok=True)
    path = place / "mean-colour.toml"
    version = create(example)
    path.write_text(path.read_text() + "\n# changed\n")
    assert "mean-colour" in catalog.models() and not external.find(example.path, "mean-colour").accepted
    (error,) = of_kind(train(version), "error")
    assert error["code"] == "KERNEL_NOT_ACCEPTED" and "dojang kernel accept mean-colour" in error["hint"]
    assert not (version.path / "kernel" / "spec.json").exists()
    assert main(["kernel", "accept", "mean-colour", "--workspace", str(example.path)]) == 2  # nobody can be asked
    assert "mean_colour.py" in capsys.readouterr().err and not external.find(example.path, "mean-colour").accepted
    assert main(["kernel", "accept", "mean-colour", "--yes", "--workspace", str(example.path)]) == 0
    assert train(version)[-1]["state"] == "done"


def test_a_workspace_brings_no_consent_with_it(example: Workspace, tmp_path: Path) -> None:
    example.path.rename(tmp_path / "moved")
    assert not external.find(tmp_path / "moved", "mean-colour").accepted


def test_the_commands(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--workspace", str(place.path)])
        out = capsys.readouterr()
        return code, out.out, out.err

    code, out, err = run("kernel", "add", str(EXAMPLE), "--yes", "--json")
    assert code == 0 and json.loads(out)["state"] == "ready" and "mean_colour.py" in err
    assert run("kernel", "add", str(EXAMPLE), "--yes")[0] == 2
    code, out, _ = run("kernel", "list", "--json")
    row = next(r for r in json.loads(out) if r["kernel"] == "mean-colour")
    assert row["from"] == "a program" and row["options"]["grid"]["maximum"] == 8 and row["trouble"] == ""
    assert run("kernel", "check")[0] == 0 and run("kernel", "check", "none")[0] == 3
    (external.folder_of(place.path) / "broken.toml").write_text("name = 3\nnonsense")
    code, out, _ = run("kernel", "check")
    assert code == 1 and "broken" in out and "not valid TOML" in out
    code, out, err = run("models")
    assert code == 0 and "mean-colour" in out and "broken" in err
    assert run("kernel", "remove", "broken")[0] == run("kernel", "remove", "mean-colour")[0] == 0
    assert run("kernel", "remove", "../../spec")[0] == 3
    assert "mean-colour" not in catalog.models() and EXAMPLE.exists()


GOOD: dict[str, Any] = {
    "name": "good",
    "task": "classify",
    "command": ["{python}", "{folder}/x.py", "{spec}"],
    "models": [{"name": "good-1"}],
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../up"}, "name"),
        ({"name": "effdet"}, "name"),
        ({"task": "dream"}, "task"),
        ({"annotation": "box"}, "annotation"),
        ({"command": "rm -rf /"}, "command"),
        ({"command": []}, "command"),
        ({"command": ["sub/x", "{spec}"]}, "whole path"),
        ({"command": ["x", "{secret}", "{spec}"]}, "{secret} means nothing"),
        ({"command": ["x"]}, "{spec}"),
        ({"command": ["x\u001b[2J", "{spec}"]}, "printable"),
        ({"models": []}, "models"),
        ({"models": [{"name": "yolov8n"}]}, "dojang's own"),
        ({"models": [{"name": "a b"}]}, "cannot be a name"),
        ({"models": [{"name": "a", "image_size": 1}]}, "image_size"),
        ({"models": [{"name": "a", "pretrained": "../x"}]}, "pretrained"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"models": [{"name": "a", "sise": 1}]}, "sise"),
        ({"gpus": {"minimum": 3, "maximum": 1}}, "gpus"),
        ({"gpus": 1}, "gpus"),
        ({"operations": ["dance"]}, "operations"),
        ({"stop_seconds": "soon"}, "stop_seconds"),
        ({"etc_path": ["a/x", "b/x"]}, "same name"),
        ({"comand": []}, "did you mean command"),
        ({"options": {"properties": {"x": {"type": "array"}}}}, "type must be one of"),
        ({"options": {"properties": {"x": {"type": "string", "pattern": "("}}}}, "'pattern' is not understood"),
        ({"options": {"properties": {"x": {"type": "integer", "default": 2.5}}}}, "default"),
        ({"options": {"properties": {"x": {"type": "integer", "minimum": 9, "maximum": 1}}}}, "above"),
        ({"options": {"properties": {}, "additionalProperties": True}}, "additionalProperties"),
        ({"options": {"properties": {}, "required": ["y"]}}, "required"),
    ],
)
def test_a_bad_declaration_is_refused_in_plain_words(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "good.toml"
    path.write_text(tomli_w.dumps(GOOD))
    assert external.read(path).models[0].name == "good-1"
    path.write_text(tomli_w.dumps({**GOOD, **change}))
    with pytest.raises(DojangError) as caught:
        external.read(path)
    assert caught.value.code == "BAD_KERNEL" and says in caught.value.message


def test_a_file_that_is_no_declaration_at_all(tmp_path: Path) -> None:
    files = {
        "deep.toml": b"a = " + b"[" * 100_000,
        "large.toml": b"#" * (1 << 19),
        "binary.toml": bytes(range(256)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in (*files, "pipe.toml", "folder.toml", "none.toml"):
        with pytest.raises(DojangError) as caught:
            external.read(tmp_path / name)
        assert caught.value.code == "BAD_KERNEL", name


# In the spec


def test_only_a_set_of_its_task_is_trained_on(example: Workspace, shapes: str) -> None:
    (problem,) = launch.check(example, {"dataset": shapes, "model": "mean-colour"})
    assert problem.field == "dataset" and "classify" in problem.message
    assert launch.check(example, {"dataset": "colours", "model": "mean-colour"}) == []


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        ({"options": {"grid": 9}}, "options", "1 – 8"),
        ({"options": {"grid": "two"}}, "options", "a whole number"),
        ({"options": {"gird": 2}}, "options", "did you mean grid"),
        ({"options": {"spread": 3}}, "options", "true or false"),
        ({"options": "grid"}, "options", "name = value"),
        ({"options": [1]}, "options", "table"),
        ({"mosaic": 0.5}, "mosaic", "does nothing"),
        ({"optimizer": "SGD"}, "optimizer", "does nothing"),
        ({"gpus": 2}, "gpus", "1 – 1"),
        ({"weights": "pretrained"}, "weights", "no pretrained"),
        ({"download": True}, "download", "does nothing"),
    ],
)
def test_its_settings_are_checked_as_declared(
    example: Workspace, settings: dict[str, Any], field: str, says: str
) -> None:
    (problem,) = problems({"dataset": "colours", "model": "mean-colour", **settings})
    assert problem.field == field and says in problem.message


def test_options_come_as_text_too_and_are_kept_whole(example: Workspace) -> None:
    spec = parse({"dataset": "colours", "model": "mean-colour", "options": "grid = 4, spread = yes"})
    assert spec.options == {"grid": 4, "spread": True, "pause": 0.0} and spec.image_size == 32
    assert changed(spec) == ["model", "options"]
    version = create(example, options={"grid": "5"})
    assert version.spec().options["grid"] == 5 and version.spec_data()["options"]["spread"] is False
    (problem,) = problems({"dataset": "x", "options": {"grid": 2}})
    assert problem.field == "options"
    with pytest.raises(Invalid):
        create(example, options={"grid": 0})


def test_a_program_that_cannot_start_is_known_before_the_start(example: Workspace) -> None:
    assert plugins.unready("mean-colour") == plugins.unready("yolov8n") == ""
    path = external.folder_of(example.path) / "mean-colour.toml"
    path.write_text(path.read_text().replace("README.txt", "gone.txt"))
    assert "dojang kernel accept mean-colour" in plugins.unready("mean-colour")
    external.accept(external.find(example.path, "mean-colour"))
    assert "gone.txt is not there" in plugins.unready("mean-colour")


def test_one_that_needs_gpus_says_so_where_there_are_none(scripted: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from engine.servers import inventory

    here = inventory.machine
    monkeypatch.setattr(inventory, "machine", lambda place: replace(here(place), gpus=[]))
    version = scripted("learn(); say('end', state='done')", gpus={"minimum": 1, "maximum": 1})
    (error,) = of_kind(train(version), "error")
    assert error["code"] == "NO_GPU" and not (version.path / "kernel").exists()


def test_it_sees_to_its_gpus_itself(scripted: Make) -> None:
    version = scripted("", gpus={"minimum": 0, "maximum": 4})
    spec = parse({**version.spec_data(), "gpus": 3, "device": "cuda:1"})
    assert plugins.processes(spec) == 1 and plugins.processes(parse({"dataset": "d", "gpus": 3})) == 3
    (problem,) = problems({**version.spec_data(), "gpus": 5})
    assert problem.field == "gpus"


def test_options_are_set_on_the_command_line(example: Workspace) -> None:
    words = ["train", "--dataset", "colours", "--model", "mean-colour", "--set", "options.grid=3", "--set", "epochs=2"]
    assert main([*words, "--foreground", "--json", "--workspace", str(example.path)]) == 0
    assert example.version("V_0").spec().options["grid"] == 3
    assert main([*words, "--set", "options.grid=99", "--workspace", str(example.path)]) == 2
