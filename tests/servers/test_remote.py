"""A version trains on a server: once, whatever happens to links and processes here, and all of it comes home."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import DojangError
from engine.events import read_all
from engine.servers import anywhere, boxes, elsewhere, mirror, remote
from engine.versions import Version, Workspace
from tests import logs
from tests.played import pids, until
from tests.servers.far import Far, agents, cut, cut_those_of, settled, wait_for
from tests.thorough import part_of
from tui.cli import main


@pytest.fixture(params=["pipe", pytest.param("ssh", marks=pytest.mark.slow)])
def far(
    workspace: Workspace, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Far]:
    if request.param == "ssh":
        monkeypatch.setenv("DOJANG_SSH_CONFIG", request.getfixturevalue("sshd").target().config)
    made = Far(workspace, tmp_path, "box" if request.param == "ssh" else "")
    yield made
    made.end()


def state(version: Version) -> str:
    return version.state(version.progress())


def own(version: Version) -> bytes:
    """Lines of the log here that are not the server's: each stretch of them begins with our start and ends accepted."""
    lines = version.events.read_bytes().splitlines(keepends=True)
    found, mine = b"", False
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # one that a full disk cut short
            continue
        mine = mine or (event["kind"] == "start" and event["versions"] == {})
        found += line if mine else b""
        mine = mine and not ("has accepted it" in event.get("text", "") or event["kind"] == "end")
    return found


def mirrored(version: Version, far: Far) -> bool:
    """Whether what is here without our own lines is the server's log, byte for byte."""
    here, ours = version.events.read_bytes(), own(version)
    rest = here
    for line in ours.splitlines(keepends=True):
        before, _, after = rest.partition(line)
        rest = before + after
    return rest == (far.run(version) / "events.jsonl").read_bytes()


def test_it_trains_there_and_comes_home(far: Far, shapes: str) -> None:
    version = far.version(shapes)
    assert version.server == "box" and state(version) == "draft" and not version.alive()
    anywhere.start(version)
    assert version.alive() and state(version) == "preparing"
    assert anywhere.wait(version, 60) == "done"
    assert not version.alive() and mirrored(version, far)
    assert version.best_weights.read_bytes() == b"weights"
    assert version.train_log.read_bytes() == (far.run(version) / "train.log").read_bytes() == b"hello\n"
    row = version.summary()
    assert (row["state"], row["server"], row["as_of"], row["error"]) == ("done", "box", None, None)
    assert row["metrics"]["map50"] == 0.9
    with pytest.raises(DojangError) as caught:
        anywhere.resume(version)
    assert caught.value.code == "DONE"


def test_what_is_there_is_not_sent_again(far: Far, shapes: str) -> None:
    first, second = far.version(shapes), far.version(shapes)
    for version in (first, second):
        anywhere.start(version)
        assert anywhere.wait(version, 60) == "done"
    texts = [e["text"] for e in logs.only(read_all(first.events), "log")]
    again = [e["text"] for e in logs.only(read_all(second.events), "log")]
    assert any("Sent our own code" in t for t in texts) and any("Sent images" in t for t in texts)
    assert not any("Sent" in t for t in again)


def test_nothing_of_what_is_sent_names_a_place_here(far: Far, shapes: str, tmp_path: Path) -> None:
    version = far.version(shapes)
    weights = tmp_path / "my weights.pt"
    weights.write_bytes(b"x" * 1000)
    spec = version.spec().model_copy(update={"weights": str(weights)})
    (version.path / "spec.toml").write_text((version.path / "spec.toml").read_text())
    from engine.files import write_toml
    from engine.spec import to_toml

    write_toml(version.spec_file, to_toml(spec))
    anywhere.start(version)
    assert anywhere.wait(version, 60) == "done"
    run = far.run(version)
    for name in ("spec.toml", "job.json", "home/datasets/shapes/dataset.toml"):
        text = (run / name).read_text()
        assert str(far.workspace.path) not in text and str(weights) not in text and "pictures" not in text
    assert (run / "home/weights/my weights.pt").read_bytes() == weights.read_bytes()
    assert str(run / "home/weights/my weights.pt") in (run / "spec.toml").read_text()


def test_a_lost_link_changes_nothing_but_when_it_is_heard(far: Far, shapes: str) -> None:
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    with mirror.following(version):
        wait_for(version, "training")
        for _ in range(5):
            size = version.events.stat().st_size
            until(lambda: cut() == 1)  # as soon as there is one again
            assert version.alive()
            until(lambda size=size: version.events.stat().st_size > size)  # type: ignore[misc]
        anywhere.request(version, "finish")
        wait_for(version, "done")
        until(lambda: not version.alive())
    assert mirrored(version, far)
    steps = [e["step"] for e in logs.only(read_all(version.events), "step")]
    assert steps == list(range(1, len(steps) + 1))


def test_it_is_stopped_and_goes_on(far: Far, shapes: str) -> None:
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    with anywhere.watched(version):
        wait_for(version, "training")
    anywhere.request(version, "stop")
    assert anywhere.wait(version, 30) == "stopped"
    with pytest.raises(DojangError) as caught:
        anywhere.request(version, "stop")
    assert caught.value.code == "NOT_RUNNING"
    before = version.progress()
    anywhere.resume(version)
    assert state(version) == "preparing"
    with anywhere.watched(version):
        until(lambda: version.progress().step > before.step)
        anywhere.request(version, "finish")
        wait_for(version, "done")
        until(lambda: not version.alive())
    progress = version.progress()
    assert mirrored(version, far) and progress.attempt == 2
    steps = [int(x) for x in progress.step_series["box"].xs]
    assert steps == list(range(1, len(steps) + 1))


def test_settings_reach_a_training_that_runs(far: Far, shapes: str) -> None:
    version = far.version(shapes, memo="wait")
    anywhere.change(version, patience=7)
    anywhere.start(version)
    settled(version)
    asked = far.run(version) / "control.json"
    assert json.loads(asked.read_text())["settings"] == {"patience": 7}
    anywhere.change(version, epochs=9)
    assert json.loads(asked.read_text())["settings"] == {"patience": 7, "epochs": 9}
    with pytest.raises(DojangError):
        anywhere.change(version, epochs=-1)


def test_it_is_stopped_while_the_server_is_prepared(far: Far, shapes: str) -> None:
    python = Path(far.box.python)
    python.write_text(f"#!/bin/sh\nsleep 60\n{python.read_text()}")
    version = far.version(shapes)
    anywhere.start(version)
    until(lambda: b"Sent our own code" in version.events.read_bytes() if version.events.exists() else False)
    anywhere.request(version, "stop")
    wait_for(version, "stopped", seconds=20)
    settled(version)
    assert not far.run(version).exists()
    python.write_text(python.read_text().replace("sleep 60\n", ""))
    anywhere.resume(version)
    assert anywhere.wait(version, 60) == "done"


def test_what_cannot_be_prepared_says_why_and_goes_on_once_mended(far: Far, shapes: str, tmp_path: Path) -> None:
    version = far.version(shapes)
    pictures = tmp_path / "pictures"
    shutil.move(pictures, tmp_path / "away")
    anywhere.start(version)
    wait_for(version, "failed")
    settled(version)
    assert version.summary()["error"]["code"] == "DATASET_GONE"
    shutil.move(tmp_path / "away", pictures)
    anywhere.resume(version)
    assert anywhere.wait(version, 60) == "done"


def test_a_python_that_cannot_train_is_refused(far: Far, shapes: str) -> None:
    boxes.add(far.workspace.path, boxes.make({**far.box.to_json(), "python": "/nowhere/python"}), replace=True)
    version = far.version(shapes)
    anywhere.start(version)
    wait_for(version, "failed")
    error = version.summary()["error"]
    assert error["code"] == "ENV_UNFIT" and "/nowhere/python" in error["message"]


def test_who_prepared_it_is_killed(far: Far, shapes: str) -> None:
    python = Path(far.box.python)
    python.write_text(f"#!/bin/sh\nsleep 60\n{python.read_text()}")
    version = far.version(shapes)
    anywhere.start(version)
    until(lambda: b"Sent our own code" in version.events.read_bytes() if version.events.exists() else False)
    for pid in pids(version.path):
        os.kill(pid, signal.SIGKILL)
    settled(version)
    assert state(version) == "lost" and "prepared box" in version.summary()["error"]["message"]
    python.write_text(python.read_text().replace("sleep 60\n", ""))
    anywhere.resume(version)
    assert anywhere.wait(version, 60) == "done"


def test_who_submitted_it_never_hears_that_it_was_accepted(far: Far, shapes: str) -> None:
    """Killed in between: the run is found there, and not begun a second time."""
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    until(lambda: (far.run(version) / "events.jsonl").exists())
    elsewhere.take_log(version)  # as if killed before it was noted
    elsewhere.submitting(version, anew=True)
    (version.path / elsewhere.REMOTE).unlink()
    assert state(version) == "lost"
    mirror.catch_up([version])
    assert version.alive()
    anywhere.request(version, "finish")
    assert anywhere.wait(version, 30) == "done"
    starts = logs.only(read_all(far.run(version) / "events.jsonl"), "start")
    assert len(starts) == 1


@pytest.mark.parametrize("seeds", [range(4), pytest.param(part_of(range(4, 40), 12), marks=pytest.mark.slow)])
def test_links_of_who_prepares_break_at_any_moment(far: Far, shapes: str, seeds: range) -> None:
    """However often: each is begun once, and everything is there. Four at a time, who send the same to one server."""
    versions = {seed: far.version(shapes) for seed in seeds}
    with ThreadPoolExecutor(4) as pool:
        begun = {seed: pool.submit(broken_links, far, versions[seed], random.Random(seed)) for seed in seeds}
        failed = {seed: error for seed, each in begun.items() if (error := each.exception())}
    assert not failed
    assert not list((far.root / "parts").iterdir())


def broken_links(far: Far, version: Version, dice: random.Random) -> None:
    anywhere.start(version)
    for moment in [dice.uniform(0.1, 0.6) for _ in range(3)]:  # once it is up: a link that never was is not tried again
        until(lambda: agents(pids(version.path) or [0]) or not elsewhere.preparing(version), 30)
        time.sleep(moment)
        cut_those_of(version)
    settled(version)
    assert anywhere.wait(version, 60) == "done", version.summary()["error"]
    assert len(logs.only(read_all(far.run(version) / "events.jsonl"), "start")) == 1
    assert mirrored(version, far) and version.best_weights.exists()


def test_several_submissions_start_one(far: Far, shapes: str) -> None:
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    with pytest.raises(DojangError) as caught:
        anywhere.start(version)
    assert caught.value.code == "RUNNING"
    settled(version)
    with pytest.raises(DojangError) as caught:
        anywhere.start(version)
    assert caught.value.code == "RUNNING"
    with pytest.raises(DojangError) as caught:
        version.delete()
    assert caught.value.code == "RUNNING"
    remote.cancel(version, force=True)
    assert anywhere.wait(version, 30) == "lost"
    assert "dojang resume" in version.summary()["error"]["hint"]


def test_a_server_that_was_wiped(far: Far, shapes: str) -> None:
    version = far.version(shapes)
    anywhere.start(version)
    assert anywhere.wait(version, 60) == "done"
    shutil.rmtree(far.run(version))
    anywhere.extend(version, 2)
    assert anywhere.wait(version, 60) == "done"
    assert len(logs.only(read_all(far.run(version) / "events.jsonl"), "start")) == 1
    assert version.progress().ended == "done"


def test_nobody_asks_about_a_forgotten_server(far: Far, shapes: str) -> None:
    version = far.version(shapes)
    boxes.remove(far.workspace.path, "box")
    with pytest.raises(DojangError) as caught:
        anywhere.start(version)
    assert caught.value.code == "NOT_FOUND" and state(version) == "draft"


def test_a_place_that_cannot_be_read_is_not_guessed(far: Far, shapes: str) -> None:
    version = far.version(shapes)
    (version.path / elsewhere.SERVER).write_text('server = "box"\nrid = "../x"\nroot = "/"\n')
    assert version.server == "?" and version.summary()["server"] == "?"
    with pytest.raises(DojangError):
        anywhere.start(version)


def test_commands(far: Far, shapes: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--workspace", str(far.workspace.path)]
    assert (
        main(["train", "--dataset", shapes, "--set", "epochs=1", "--set", "weights=scratch", "--server", "none", *at])
        == 3
    )
    capsys.readouterr()
    asked = ["--set", "epochs=1", "--set", "weights=scratch", "--server", "box"]
    assert main(["train", "--dataset", shapes, *asked, "--follow", *at]) == 0
    told = capsys.readouterr().out
    assert "── preparing" in told and "has accepted it" in told and "best" in told
    assert main(["list", "--json", *at]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["server"]) == ("done", "box")
    version = far.workspace.version("V_0")
    version.best_weights.unlink()
    assert main(["fetch", "V_0", *at]) == 0
    assert version.best_weights.exists()
    assert main(["server", "check", "box", *at]) == 0
    assert "logout: what runs goes on" in capsys.readouterr().out
    assert main(["server", "remove", "box", *at]) == 0


def test_a_training_that_runs_is_listed_as_of_when_it_was_heard(
    far: Far, shapes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = far.version(shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    at = ["--workspace", str(far.workspace.path)]
    assert main(["list", "--json", *at]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] in ("preparing", "training") and time.time() - row["as_of"] < 20
    assert main(["server", "remove", "box", *at]) == 4
    assert main(["stop", "V_0", *at]) == 0
    assert "is stopped" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pipe", "ssh"])
def test_a_real_training_there_gives_the_very_weights_of_one_here(
    workspace: Workspace, shapes: str, tmp_path: Path, how: str, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With the link killed while the server is prepared, while it trains, and while weights come home."""
    import hashlib
    import sys

    import torch

    from engine import launch
    from engine.spec import Label

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    host = ""
    if how == "ssh":
        monkeypatch.setenv("DOJANG_SSH_CONFIG", request.getfixturevalue("sshd").target().config)
        host = "box"
    box = boxes.make({"name": "box", "host": host, "root": str(tmp_path / "far"), "python": sys.executable})
    boxes.add(workspace.path, box)
    data = {"dataset": shapes, "model": "yolov8n", "epochs": "2", "image_size": "64", "batch_size": "4"}
    data |= {"weights": "scratch", "device": "cpu", "workers": "0", "threads": "1"}
    here = launch.create(workspace, data, Label())
    anywhere.start(here)
    assert anywhere.wait(here, 200) == "done"
    there = launch.create(workspace, data, Label(), server="box")
    anywhere.start(there)
    cuts = 0
    with mirror.following(there) as follower:
        for stage in ("preprocessing", "training"):
            wait_for(there, stage, "testing", "done", seconds=200)
            cuts += cut()
        until(lambda: follower is not None and follower.whole, 200)
    assert state(there) == "done" and cuts, there.summary()["error"]
    (place,) = (tmp_path / "far" / "runs").iterdir()
    digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (there.best_weights, place / "weights" / "best.pt")]
    assert digests[0] == digests[1]
    one, other = (torch.load(v.best_weights, weights_only=False)["model"].state_dict() for v in (here, there))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert here.progress().metrics() == there.progress().metrics()
    losses = [v.progress().epoch_series["train/box_loss"].ys for v in (here, there)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
