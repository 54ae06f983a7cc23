"""Runs as jobs of a real Slurm: submitted once, shown as they stand, ended as asked, and gone on with by themselves."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import launch
from engine.errors import DojangError, Invalid, NotFound
from engine.events import read_all
from engine.servers import anywhere, boxes, elsewhere, entries, mirror, slurm_job
from engine.servers import slurm as slurm_module
from engine.servers.link import Link, local
from engine.servers.link_errors import Conflict, ImpossibleRequest, NoSlurm, Refused, SchedulerDown
from engine.spec import Label
from engine.versions import Version, Workspace
from tests import logs
from tests.played import until
from tests.servers.far import Far, settled, wait_for
from tests.servers.slurm import Slurm
from tests.servers.sshd import Sshd
from tui.cli import main

pytestmark = pytest.mark.xdist_group("slurm")  # one at a time: it takes the machine's cores
GPU = ["--partition=gpu", "--gres=gpu:1"]


@pytest.fixture(scope="module")
def running() -> Iterator[Slurm]:
    """Fails, never skips, where there is none."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    made = Slurm(folder)
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(running: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    monkeypatch.setenv("SLURM_CONF", str(running.conf))
    yield running
    if "slurmctld" not in running._children:
        running.start_controller()
    running.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def link(slurm: Slurm, root: Path) -> Iterator[Link]:
    with Link(local, root=str(root)) as found:
        yield found


def status(link: Link, rid: str = "one") -> dict[str, Any]:
    return dict(link.call("status", rids=[rid], timeout=30)["runs"][rid])


def state(link: Link, rid: str = "one") -> str:
    return str(status(link, rid)["state"])


def submit(link: Link, script: str, rid: str = "one", options: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A run whose supervisor is played by a line of shell; `$0` is its folder."""
    told = {"options": GPU if options is None else options, "margin": 50}
    argv = ["env", "--default-signal=TERM,USR1", "sh", "-c", script, "{run}"]
    return dict(link.call("submit", rid=rid, argv=argv, slurm=told, timeout=90, **more)["run"])


def say(kind: str, **fields: Any) -> str:
    return "echo '" + json.dumps({"kind": kind, **fields}) + "' >> $0/events.jsonl; "


LIVES = say("start") + "while :; do sleep 0.05; done"
COUNTS = "echo $SLURM_JOB_ID >> $0/../../count; "


# Submitting


def test_a_job_is_begun_once_and_says_how_it_ended(link: Link, slurm: Slurm, root: Path) -> None:
    script = COUNTS + say("start") + 'echo "$CUDA_VISIBLE_DEVICES" > $0/gpus; echo $LD; ' + say("end", state="done")
    found = submit(link, script, env={"LD": "{run}/x"}, files={"spec.toml": "x"})
    assert found["state"] in ("queued", "starting", "running", "done") and found["job"]
    for _ in range(3):  # answers that were lost
        submit(link, script, env={"LD": "{run}/x"}, files={"spec.toml": "x"})
    until(lambda: state(link) == "done")
    run = root / "runs" / "one"
    assert (run / "gpus").read_text().strip() in ("0", "1") and (run / "spec.toml").read_text() == "x"
    assert (run / "train.log").read_text() == f"{run}/x\n"
    assert (root / "count").read_text().split() == [str(found["job"])]
    with pytest.raises(Conflict):
        submit(link, "true")  # something else by the same name


def test_asked_by_many_at_once_it_starts_once(link: Link, slurm: Slurm, root: Path) -> None:
    threads = [threading.Thread(target=submit, args=(link, COUNTS + LIVES)) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    until(lambda: state(link) == "running")
    assert len(slurm.jobs()) == 1 and len((root / "count").read_text().split()) == 1


def test_an_agent_that_died_before_it_kept_the_number_finds_the_job(link: Link, slurm: Slurm, root: Path) -> None:
    submit(link, COUNTS + LIVES)
    kept = root / "runs" / "one" / "slurm.json"
    told = json.loads(kept.read_text())
    kept.write_text(json.dumps({**told, "job": 0}))
    found = submit(link, COUNTS + LIVES)
    assert found["job"] == told["job"] == json.loads(kept.read_text())["job"]
    kept.write_text(json.dumps({**told, "job": 0}))
    until(lambda: state(link) == "running")
    assert status(link)["attempt"] == 1 and len(slurm.jobs()) == 1


def test_of_two_jobs_of_one_attempt_the_second_does_nothing(link: Link, slurm: Slurm, root: Path) -> None:
    """As where sbatch was thought not to have been heard."""
    submit(link, COUNTS + say("start") + "until [ -e $0/go ]; do sleep 0.05; done; " + say("end", state="done"))
    run = root / "runs" / "one"
    until(lambda: state(link) == "running")
    name = json.loads((run / "slurm.json").read_text())["name"]
    second = slurm.asked(
        "sbatch",
        "--parsable",
        f"--job-name={name}",
        "--dependency=singleton",
        f"--output={run}/second",
        str(run / "job.sh"),
    )
    assert second.strip().isdigit()
    (run / "go").touch()
    until(lambda: not slurm.jobs(), 60)
    assert len((root / "count").read_text().split()) == 1 and state(link) == "done"
    assert (run / "second").read_text() == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--partition=nowhere"], "nvalid partition"),
        (["--partition=gpu", "--gres=gpu:9"], "not available"),
        (["--partition=gpu", "--bogus"], "unrecognized option"),
    ],
)
def test_what_cannot_be_is_said_in_slurms_words_and_leaves_nothing(
    link: Link, root: Path, options: list[str], words: str
) -> None:
    with pytest.raises(ImpossibleRequest) as caught:
        submit(link, LIVES, options=options)
    assert words in str(caught.value) and not caught.value.retry
    assert state(link) == "absent" and not list((root / "runs").iterdir())
    submit(link, LIVES)
    until(lambda: state(link) == "running")


def test_a_later_attempt_that_is_refused_leaves_the_earlier_as_it_was(link: Link, root: Path) -> None:
    submit(link, say("start") + say("end", state="stopped"))
    until(lambda: state(link) == "stopped")
    with pytest.raises(ImpossibleRequest):
        submit(link, LIVES, options=["--partition=nowhere"], attempt=2)
    assert (state(link), status(link)["attempt"]) == ("stopped", 1)
    submit(link, LIVES, attempt=2)
    until(lambda: state(link) == "running")
    assert status(link)["attempt"] == 2
    with pytest.raises(Conflict):
        submit(link, LIVES, attempt=3)


@pytest.mark.parametrize(
    "options",
    ["--x", ["x"], ["-p"], ["--x\n#SBATCH"], ["--x=\0"], ["--x y"], [3], ["script.sh"], ["--"], ["--x=" + "y" * 400]],
)
def test_what_is_no_option_reaches_no_sbatch(link: Link, options: Any) -> None:
    with pytest.raises(Refused):
        link.call("submit", rid="one", argv=["true"], slurm={"options": options, "margin": 50})
    assert state(link) == "absent"


def test_without_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tools))
    with Link(local, root=str(tmp_path / "bare")) as bare:
        with pytest.raises(NoSlurm):
            submit(bare, LIVES)
        assert state(bare) == "absent"
    monkeypatch.undo()


# How it stands


def test_a_pending_job_says_why_and_is_cancelled(link: Link, slurm: Slurm, root: Path) -> None:
    submit(link, LIVES, options=[*GPU, "--hold"])
    until(lambda: "scontrol release" in status(link)["reason"])
    assert state(link) == "queued"
    waiting = json.loads((root / "runs" / "one" / "waiting.json").read_text())
    assert waiting["reason"].startswith("waits in Slurm's partition gpu: you hold it")
    with pytest.raises(Conflict):
        link.call("remove", kind="runs", id="one")
    link.call("cancel", rid="one", token="a", timeout=60)
    until(lambda: state(link) == "stopped")
    assert not (root / "runs" / "one" / "waiting.json").exists() and not slurm.jobs()
    assert link.call("remove", kind="runs", id="one")["removed"]


def test_a_running_job_is_asked_to_end_or_killed(link: Link, slurm: Slurm, root: Path) -> None:
    polite = say("start") + "trap '" + say("end", state="stopped").replace("'", "'\\''") + "exit' TERM; "
    polite += "while :; do sleep 0.05; done"
    submit(link, polite)
    submit(link, LIVES, rid="two")
    until(lambda: state(link) == state(link, "two") == "running")
    link.call("cancel", rid="one", timeout=60)
    link.call("cancel", rid="two", force=True, timeout=60)
    until(lambda: state(link) == "stopped" and state(link, "two") == "stopped", 30)
    assert json.loads((root / "runs" / "one" / "control.json").read_text())["request"] == "stop"
    assert "cancelled in Slurm" in status(link, "two")["reason"]


def test_cancelled_by_others_it_is_stopped_not_lost(link: Link, slurm: Slurm) -> None:
    found = submit(link, LIVES)
    until(lambda: state(link) == "running")
    slurm.asked("scancel", str(found["job"]))
    until(lambda: state(link) == "stopped", 30)


def test_killed_without_a_word_it_is_lost_with_what_slurm_says(link: Link, slurm: Slurm, root: Path) -> None:
    submit(link, say("start") + "exit 3")
    submit(link, "true", rid="two")
    until(lambda: state(link) == state(link, "two") == "lost", 30)
    assert "FAILED" in status(link)["reason"]
    assert "COMPLETED" in status(link, "two")["reason"]


def test_what_cannot_be_started_has_failed_with_a_reason(link: Link, slurm: Slurm, root: Path) -> None:
    gone = root / "gone"
    link.call("ping")
    gone.symlink_to(sys.executable)
    link.call(
        "submit", rid="one", argv=[str(gone), "-c", "1"], slurm={"options": [*GPU, "--hold"], "margin": 50}, timeout=60
    )
    run = root / "runs" / "one"
    told = json.loads((run / ".batch.json").read_text())
    (run / ".batch.json").write_text(json.dumps({**told, "argv": ["/nowhere/python"]}))
    slurm.asked("scontrol", "release", str(status(link)["job"]))
    until(lambda: state(link) == "failed", 30)
    assert "/nowhere/python could not be started" in status(link)["reason"]


def test_while_its_job_is_listed_a_run_on_another_machine_is_not_lost(link: Link, slurm: Slurm, root: Path) -> None:
    """Where locks are not seen across machines its heart's beat counts, and without one what squeue says."""
    submit(link, LIVES)
    run = root / "runs" / "one"
    until(lambda: state(link) == "running")
    owner = json.loads((run / "owner.json").read_text())
    (run / "owner.json").write_text(json.dumps({**owner, "boot": "another", "host": "node7"}))
    (run / "lock").unlink()
    (run / "heartbeat").touch()
    assert state(link) == "running"
    os.utime(run / "heartbeat", (1, 1))
    assert state(link) == "silent" and "Slurm says that it runs" in status(link)["reason"]


def test_with_its_controller_stopped_nothing_changes(link: Link, slurm: Slurm, root: Path) -> None:
    submit(link, LIVES)
    until(lambda: state(link) == "running")
    submit(link, LIVES, rid="two", options=[*GPU, "--hold"])
    until(lambda: state(link, "two") == "queued")
    submit(link, say("start") + say("end", state="stopped"), rid="three")
    until(lambda: state(link, "three") == "stopped")
    slurm.freeze(True)
    try:
        time.sleep(5.1)  # what was heard before no longer counts
        began = time.monotonic()
        assert state(link) == "running" and time.monotonic() - began < 1
        assert state(link, "two") == "queued" and time.monotonic() - began < 5
        assert "Slurm does not answer" in status(link, "two")["reason"]
        began = time.monotonic()
        link.call("ping")
        assert state(link) == "running" and time.monotonic() - began < 1
        assert state(link, "three") == "stopped"
    finally:
        slurm.freeze(False)
    until(lambda: "you hold it" in status(link, "two")["reason"], 30)


def test_with_its_controller_gone_it_is_submitted_once_it_is_back(link: Link, slurm: Slurm, root: Path) -> None:
    box = boxes.make({"name": "box", "slurm": [{"partition": "gpu"}]})
    found: list[slurm_module.Partition] = []
    looking = threading.Thread(target=lambda: found.extend(slurm_module.partitions(link, box)))
    slurm.stop_controller()
    looking.start()
    with pytest.raises(SchedulerDown) as caught:
        submit(link, COUNTS + LIVES)
    assert caught.value.retry and state(link) == "lost"  # so that it is submitted again
    looking.join(20)
    assert "Slurm does not answer" in found[0].words
    slurm.start_controller()
    submit(link, COUNTS + LIVES)
    until(lambda: state(link) == "running", 30)
    assert len(slurm.jobs()) == 1 and len((root / "count").read_text().split()) == 1


def test_an_old_job_that_slurm_forgot_is_told_by_its_own_files(link: Link, slurm: Slurm, root: Path) -> None:
    for rid, word in (("one", say("end", state="paused")), ("two", "")):
        submit(link, say("start") + word, rid=rid)
    until(lambda: (state(link), state(link, "two")) == ("paused", "lost"), 30)
    for rid in ("one", "two"):
        kept = root / "runs" / rid / "slurm.json"
        told = {k: v for k, v in json.loads(kept.read_text()).items() if k != "over"}
        (root / "runs" / rid / "owner.json").write_text(json.dumps({"attempt": 1, "job": "99999", "boot": "x"}))
        (root / "runs" / rid / "events.jsonl").touch()
        kept.write_text(json.dumps({**told, "job": 99999}))
    assert state(link) == "paused"
    assert state(link, "two") == "lost" and "no longer knows" in status(link, "two")["reason"]


# On the node


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[slurm_job.Job, Path]:
    """A run in the midst of its attempt; scontrol is played, and says what stands in the file beside it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {tmp_path}/says\n[ ! -s {tmp_path}/says ]\n'
    )
    (tools / "scontrol").chmod(0o755)
    (tmp_path / "says").touch()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "owner.json").write_text("{}")
    log = run / "events.jsonl"

    def write(kind: str, **fields: Any) -> None:
        with log.open("a") as f:
            f.write(json.dumps({"kind": kind, **fields}) + "\n")

    write("start", attempt=1)
    return slurm_job.Job(run, {"margin": 20}, write), run


def words_of(run: Path) -> list[str]:
    return [str(e.get("state") or e["kind"]) for e in read_all(run / "events.jsonl")]


def test_signalled_it_is_paused_and_put_back(job: tuple[slurm_job.Job, Path], tmp_path: Path) -> None:
    one, run = job
    (run / "control.json").write_text('{"request": null, "settings": {"epochs": 9}}')
    one.leave()
    told = json.loads((run / "control.json").read_text())
    assert (told["request"], told["settings"], one.asked()) == ("pause", {"epochs": 9}, "")
    (run / "checkpoints" / "state.pt").touch()
    assert one.after() and (tmp_path / "asked").read_text() == "requeue 7\n" and words_of(run) == ["start", "requeue"]


@pytest.mark.parametrize("request_", ["stop", "pause"])
def test_what_a_person_wants_goes_before(job: tuple[slurm_job.Job, Path], tmp_path: Path, request_: str) -> None:
    one, run = job
    (run / "control.json").write_text(json.dumps({"request": request_}))
    one.leave()
    assert json.loads((run / "control.json").read_text()) == {"request": request_} and not one.after()
    (run / "control.json").unlink()
    one.leave()
    (run / "control.json").write_text(json.dumps({"request": request_}))  # meanwhile
    assert not one.after() and not (tmp_path / "asked").exists()


@pytest.mark.parametrize("word", ["done", "failed"])
def test_what_is_over_is_not_put_back(job: tuple[slurm_job.Job, Path], tmp_path: Path, word: str) -> None:
    one, run = job
    one.leave()
    with (run / "events.jsonl").open("a") as f:
        f.write(json.dumps({"kind": "end", "state": word}) + "\n")
    assert not one.after() and not (tmp_path / "asked").exists()


def test_what_slurm_does_not_take_back_is_paused(job: tuple[slurm_job.Job, Path], tmp_path: Path) -> None:
    one, run = job
    (tmp_path / "says").write_text("Requested operation is presently disabled")
    one.leave()
    assert not one.after() and words_of(run) == ["start", "requeue", "log", "paused"]


def test_a_time_limit_too_short_for_anything_ends_it(job: tuple[slurm_job.Job, Path]) -> None:
    """Else it would go round for ever."""
    one, run = job
    one.leave()
    os.utime(run / "owner.json", (4e9, 4e9))
    (run / "checkpoints" / "state.pt").touch()
    assert [one.after(), one.after(), one.after()] == [True, True, False]
    assert words_of(run) == ["start", "requeue", "requeue", "error", "failed"]


def test_who_saves_too_long_is_ended_in_time(job: tuple[slurm_job.Job, Path]) -> None:
    one, _ = job
    assert not one.overdue
    one.leave()
    assert not one.overdue
    one.margin = 0.0
    until(lambda: one.overdue)
    assert not one.overdue


def test_started_again_it_forgets_what_slurm_asked(
    job: tuple[slurm_job.Job, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, run = job
    (run / "control.json").write_text('{"request": "stop", "settings": {"epochs": 9}}')
    one.begin()
    assert one.asked() == "stop"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    one.begin()
    assert one.asked() == "" and json.loads((run / "control.json").read_text())["settings"] == {"epochs": 9}


# What is written of it


def wrong(**entry: Any) -> str:
    return entries.problem([{"partition": "gpu", **entry}])


@pytest.mark.parametrize(
    "entry",
    [
        {"partition": ""}, {"partition": "-gpu"}, {"partition": "a b"}, {"partition": "a\n#SBATCH --wrap=id"},
        {"partition": "a,b"}, {"name": "a/b"}, {"qos": "x y"}, {"account": "--x"}, {"account": 3},
        {"gres": "gpu:a100:4"}, {"gres": "gpu,x"}, {"gres": "-gpu"}, {"time": "tomorrow"}, {"time": "1:2:3:4"},
        {"time": -5}, {"time": "1"}, {"time": True}, {"cpus": -1}, {"cpus": "8"}, {"memory": "32 G"}, {"memory": "G"},
        {"nodes": 2}, {"margin": 0}, {"margin": 100000}, {"constraint": "a b"}, {"constraint": "a;b"},
        {"driver": "new"}, {"unknown": 1}, {"lines": "--exclusive"}, {"lines": ["exclusive"]}, {"lines": ["-p x"]},
        {"lines": ["--exclusive\n#SBATCH --wrap=id"]}, {"lines": ["--output=/x"]}, {"lines": ["--outp=/x"]},
        {"lines": ["--job-name=x"]}, {"lines": ["--j=x"]}, {"lines": ["--signal=B:TERM@5"]}, {"lines": ["--no-requeue"]},
        {"lines": ["--requeue"]}, {"lines": ["--open-mode=truncate"]}, {"lines": ["--array=1-9"]}, {"lines": ["--arr=1-9"]},
        {"lines": ["--wrap=id"]}, {"lines": ["--wait"]}, {"lines": ["--nodes=4"]}, {"lines": ["--time=9"]},
        {"lines": ["--test-only"]}, {"lines": ["--export=NONE"]}, {"lines": ["--clusters=x"]}, {"lines": [7]},
        {"lines": ["--gres gpu:8"]}, {"lines": ["--"]}, {"lines": ["--exclusive", "--dependency=afterok:1"]},
    ],
)  # fmt: skip
def test_what_an_entry_cannot_be(entry: dict[str, Any]) -> None:
    assert wrong(**entry)
    with pytest.raises(Invalid):
        boxes.make({"name": "cluster", "slurm": [{"partition": "gpu", **entry}]})


@pytest.mark.parametrize("value", ["gpu", {"partition": "gpu"}, 3, [3], [{"partition": "a"}, {"partition": "a"}]])
def test_what_entries_cannot_be(value: Any) -> None:
    assert entries.problem(value)


def test_entries_are_kept_and_say_what_sbatch_is_told(workspace: Workspace) -> None:
    more = {"partition": "big", "name": "four", "gres": "gpu:a100", "time": 600, "cpus": 16, "memory": "64G"}
    more |= {"qos": "high", "account": "lab", "constraint": "ib&a100", "lines": ["--exclusive", "--mail-type END,FAIL"]}
    box = boxes.make({"name": "cluster", "host": "login", "slurm": [{"partition": "gpu"}, more]})
    boxes.add(workspace.path, box)
    assert boxes.get(workspace.path, "cluster") == box
    first, second = box.slurm
    assert list(entries.options(first, 2, 2)) == ["--partition=gpu", "--cpus-per-task=8", "--gres=gpu:2"]
    assert list(entries.options(second, 0, 1)) == [
        "--partition=big", "--qos=high", "--account=lab", "--time=600", "--constraint=ib&a100", "--mem=64G",
        "--cpus-per-task=16", "--exclusive", "--mail-type=END,FAIL",
    ]  # fmt: skip
    assert "--gres=gpu:a100:4" in entries.options(second, 4, 4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-0", 86400),
        ("1-02:03", 93780),
        ("1-02:03:04", 93784),
        ("x", 0),
    ],
)
def test_times_as_sbatch_reads_them(text: str, seconds: int) -> None:
    assert entries.seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "gres", "count"),
    [
        ("gpu:a100:4(S:0-1),gpu:v100:2", "gpu", 6), ("gpu:a100:4(S:0-1),gpu:v100:2", "gpu:v100", 2),
        ("gpu:fake:0(IDX:N/A)", "gpu", 0), ("gpu:a100:2(IDX:0,3),shard:4", "gpu", 2), ("(null)", "gpu", 0),
        ("gpu:8", "gpu", 8), ("gpu", "gpu", 1), ("gpu:8", "none", 0), ("gpu:x:y", "gpu", 0),
    ],
)  # fmt: skip
def test_gpus_as_sinfo_tells_them(text: str, gres: str, count: int) -> None:
    assert slurm_module.gpus_of(text, gres) == count


# Versions


@pytest.fixture
def far(slurm: Slurm, workspace: Workspace, tmp_path: Path) -> Iterator[Far]:
    made = Far(workspace, tmp_path)
    ways = [
        {"partition": "gpu", "cpus": 1, "time": 10}, {"partition": "closed", "cpus": 1},
        {"partition": "gpu", "name": "many", "gres": "gpu:none", "cpus": 1}, {"partition": "nowhere", "cpus": 1},
    ]  # fmt: skip
    made.box = boxes.make({**made.box.to_json(), "slurm": ways})
    boxes.add(workspace.path, made.box, replace=True)
    yield made
    slurm.clear()
    made.end()


def draft(far: Far, dataset: str, entry: str = "gpu", memo: str = "") -> Version:
    version = far.version(dataset, memo)
    elsewhere.put_on(version, f"box/{entry}", far.box.root)
    return version


def seen(version: Version) -> str:
    return version.state(version.progress())


def here(version: Version) -> list[str]:
    return [str(e["kind"]) for e in read_all(version.events)]


def test_partitions_as_they_are_now(far: Far, slurm: Slurm) -> None:
    with Link(local, root=far.box.root) as link:
        submit(link, LIVES, options=[*GPU])
        until(lambda: state(link) == "running")
        submit(link, LIVES, rid="two", options=[*GPU, "--hold"])
        gpu, closed, many, nowhere = slurm_module.partitions(link, far.box)
        assert (gpu.state, gpu.gpus_free, gpu.gpus_total, gpu.waiting) == ("up", 1, 2, 1)
        assert gpu.words == "1 of 2 GPUs free, 0 of 1 nodes idle, 1 job waits, at most 10 min"
        assert closed.state == "down" and closed.words.startswith("down: ") and many.gpus_total == 0
        assert "no partition “nowhere”" in nowhere.words


def test_a_version_trains_through_slurm_and_comes_home(far: Far, shapes: str) -> None:
    version = draft(far, shapes)
    anywhere.start(version)
    assert anywhere.wait(version, 60) == "done"
    assert version.server == "box" and version.best_weights.read_bytes() == b"weights"
    assert here(version).count("start") == 2  # of preparing the server, and of training


def test_a_version_waits_is_taken_out_and_resumed(far: Far, slurm: Slurm, shapes: str) -> None:
    version = draft(far, shapes, "closed")
    anywhere.start(version)
    settled(version)
    until(lambda: (mirror.catch_up([version]), seen(version) == "queued" and version.waiting()["reason"])[1], 30)
    assert "partition is down" in version.summary()["waiting"]["reason"]
    with pytest.raises(DojangError) as caught:
        anywhere.request(version, "pause")
    assert caught.value.code == "NOT_RUNNING"
    anywhere.request(version, "stop")
    assert anywhere.wait(version, 30) == "stopped" and not slurm.jobs()
    elsewhere.put_on(version, "box/gpu", far.box.root)
    anywhere.resume(version)
    assert anywhere.wait(version, 60) == "done"


def test_a_version_is_stopped_and_goes_on(far: Far, slurm: Slurm, shapes: str) -> None:
    version = draft(far, shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    with mirror.following(version):
        wait_for(version, "training")
        anywhere.request(version, "stop")
        wait_for(version, "stopped")
        until(lambda: not version.alive())
    anywhere.extend(version, 2)
    settled(version)
    with mirror.following(version):
        wait_for(version, "training")
        anywhere.request(version, "finish")
        wait_for(version, "done")
    starts = logs.only(read_all(far.run(version) / "events.jsonl"), "start")
    assert len(starts) == 2 and starts[1]["resumed"]


def test_near_its_time_limit_it_is_saved_waits_and_goes_on(far: Far, slurm: Slurm, shapes: str) -> None:
    """Slurm's signal, sent by hand; nobody else does anything."""
    version = draft(far, shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    shown = []
    with mirror.following(version):
        wait_for(version, "training")
        ((job, _, _),) = slurm.jobs()
        slurm.asked("scancel", "--batch", "--signal=USR1", str(job))
        log = far.run(version) / "events.jsonl"
        until(lambda: len(logs.only(read_all(log), "start")) == 2 or shown.append(seen(version)), 60)  # type: ignore[func-returns-value]
        wait_for(version, "training")
        assert "queued" in shown and not {"stopped", "paused", "failed", "lost"} & set(shown), shown
        anywhere.request(version, "finish")
        wait_for(version, "done")
    kinds = [e["kind"] for e in read_all(log) if e["kind"] in ("start", "end", "requeue")]
    assert kinds == ["start", "end", "requeue", "start", "end"]
    assert logs.only(read_all(log), "start")[1]["resumed"]["step"] > 0
    steps = [e["step"] for e in logs.only(read_all(log), "step")]
    assert steps == list(range(1, len(steps) + 1))


def test_a_node_taken_away_is_given_back_without_a_person(far: Far, slurm: Slurm, shapes: str) -> None:
    """A job that Slurm itself puts back, as for one of higher rank."""
    version = draft(far, shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    with mirror.following(version) as follower:
        wait_for(version, "training")
        ((job, _, _),) = slurm.jobs()
        slurm.asked("scontrol", "requeue", str(job))
        log = far.run(version) / "events.jsonl"
        until(lambda: len(logs.only(read_all(log), "start")) == 2, 60)
        assert follower is not None and not follower.whole
        wait_for(version, "training")
    steps = [e["step"] for e in logs.only(read_all(log), "step")]
    assert steps == sorted(set(steps))


def test_a_refused_version_says_slurms_words_and_trains_once_mended(far: Far, shapes: str) -> None:
    version = draft(far, shapes, "nowhere")
    anywhere.start(version)
    wait_for(version, "failed")
    settled(version)
    error = version.summary()["error"]
    assert error["code"] == "IMPOSSIBLE_REQUEST" and "nvalid partition" in error["message"]
    elsewhere.put_on(version, "box/gpu", far.box.root)
    anywhere.resume(version)
    assert anywhere.wait(version, 60) == "done"


def test_what_slurm_cannot_be_asked_for_is_refused_before(far: Far, shapes: str) -> None:
    data = {"dataset": shapes, "weights": "scratch", "epochs": "1"}
    with pytest.raises(NotFound) as caught:
        launch.create(far.workspace, data, Label(), server="box/none")
    assert "box/gpu" in caught.value.hint
    with pytest.raises(DojangError) as refused:
        launch.create(far.workspace, {**data, "device": "cuda:1"}, Label(), server="box/gpu")
    assert refused.value.code == "BAD_SPEC" and not far.workspace.project().versions()


def test_commands(far: Far, slurm: Slurm, shapes: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--workspace", str(far.workspace.path)]
    ways = ["--slurm", "partition=gpu,cpus=1,gres=none,line=--mail-type=END,FAIL,line=--nice=5,time=1-00:00:00"]
    ways += ["--slurm", "partition=closed,margin=30"]
    plain = ["server", "add", "box", "--folder", "--root", far.box.root, "--python", far.box.python, "--replace"]
    assert main([*plain, *ways, *at]) == 0
    box = boxes.get(far.workspace.path, "box")
    assert box.slurm[0].lines == ("--mail-type=END,FAIL", "--nice=5") and box.slurm[1].margin == 30
    assert main([*plain, "--slurm", "partition=a,nonsense", *at]) == 2
    assert main([*plain, "--slurm", "partition=a,line=--array=1-5", *at]) == 2
    capsys.readouterr()
    assert main(["server", "show", "box", *at]) == 0
    assert "Slurm, as box/gpu: " in capsys.readouterr().out
    assert main(["server", "check", "box", *at]) == 1  # one of them is down
    told = capsys.readouterr().out
    assert "ok Slurm gpu" in told.replace("ok  ", "ok ") and "!! Slurm closed: down: " in told
    asked = ["--set", "epochs=1", "--set", "weights=scratch", "--server", "box/gpu"]
    assert main(["train", "--dataset", shapes, *asked, "--follow", *at]) == 0
    assert main(["train", "--dataset", shapes, *asked[:-1], "box/other", *at]) == 3


@pytest.mark.slow
def test_slurms_own_signal_comes_before_the_time_limit(far: Far, slurm: Slurm, shapes: str) -> None:
    """Of a minute, the least that Slurm grants."""
    way = {"partition": "gpu", "cpus": 1, "time": 1, "margin": 50}
    boxes.add(far.workspace.path, boxes.make({**far.box.to_json(), "slurm": [way]}), replace=True)
    version = draft(far, shapes, memo="wait")
    anywhere.start(version)
    settled(version)
    log = far.run(version) / "events.jsonl"
    with mirror.following(version):
        until(lambda: len(logs.only(read_all(log), "start")) == 2, 120)
        wait_for(version, "training")
        anywhere.request(version, "finish")
        wait_for(version, "done")
    assert logs.only(read_all(log), "requeue")[0]["reason"].startswith("Its time limit in Slurm came near")


@pytest.mark.slow
def test_requeued_it_has_the_very_weights_of_one_that_was_not(
    slurm: Slurm, workspace: Workspace, shapes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ssh, as a login node is reached; signalled in the midst of an epoch."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = {"dataset": shapes, "model": "yolov8n", "epochs": "6", "image_size": "64", "batch_size": "4"}
    data |= {"weights": "scratch", "device": "cpu", "workers": "0", "threads": "1"}
    with Sshd(tmp_path / "sshd", f"SetEnv SLURM_CONF={slurm.conf}") as sshd:
        monkeypatch.setenv("DOJANG_SSH_CONFIG", sshd.target().config)
        way = {"partition": "gpu", "cpus": 1, "time": 30}
        told = {"name": "cluster", "host": "box", "root": str(tmp_path / "far"), "python": sys.executable}
        boxes.add(workspace.path, boxes.make({**told, "slurm": [way]}))
        there = launch.create(workspace, data, Label(), server="cluster/gpu")
        anywhere.start(there)
        settled(there)
        place = elsewhere.place_of(there)
        assert place
        log = tmp_path / "far" / "runs" / place.rid / "events.jsonl"
        with mirror.following(there):
            until(lambda: log.exists() and len(logs.only(read_all(log), "step")) >= 3, 120)
            ((job, _, _),) = slurm.jobs()
            slurm.asked("scancel", "--batch", "--signal=USR1", str(job))
            here_ = launch.create(workspace, data, Label())  # meanwhile, never disturbed
            anywhere.start(here_)
            assert anywhere.wait(here_, 200) == "done"
            wait_for(there, "done", "failed", "stopped", "paused", "lost", seconds=200)
        assert anywhere.wait(there, 60) == "done", there.summary()["error"]
    kinds = [e["kind"] for e in read_all(log) if e["kind"] in ("start", "requeue")]
    assert kinds == ["start", "requeue", "start"]
    one, other = (torch.load(v.best_weights, weights_only=False)["model"].state_dict() for v in (here_, there))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert here_.progress().metrics() == there.progress().metrics()
