"""A server, a file or a person may say anything: nothing of it is executed, led astray by, or filled memory with."""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.datasets import registry
from engine.errors import DojangError
from engine.events import read_all
from engine.progress import ENDS
from engine.servers import agent, anywhere, boxes, checking, elsewhere, fetching, fleet, mirror, prepare, shipping
from engine.servers.boxes import Box
from engine.servers.elsewhere import Place
from engine.servers.link import Link, Pace, Reply, Request
from engine.servers.link_errors import LinkError, LinkLost, NotThere, ProtocolMismatch
from engine.servers.shipping import Content
from engine.servers.transport import Stage, greeting
from engine.versions import LIVE, Version, Workspace
from tests import logs
from tests.servers.far import Far
from tui import words
from tui.cli import main
from tui.lines import Lines

ESCAPES = "\x1b]0;title\x07\x1b[2J\x1b[31mred\r\n\u202e\u2028\0"
DEEP = json.loads("[" * 500 + "]" * 500)
WEIRD: list[Any] = [
    None, True, -1, 0, 1.5, 10**400, float("nan"), "", "x", ESCAPES, "../../../../tmp/x", [], ["x"], [[]], {}, {"x": []}, DEEP,
]  # fmt: skip
HELLO = {
    "proto": agent.PROTO, "agent_hash": greeting()[1], "python": [3, 11, 2], "executable": "/usr/bin/python3", "arch": "x86_64",
    "glibc": "2.36", "system": "Linux", "boot_id": "b", "user": "kim", "home": "/home/kim", "root": "/home/kim/.dojang",
    "kill_policy": {"kill_user_processes": False, "linger": False}, "host": "gpu1",
}  # fmt: skip
GPU = {
    "index": 0, "uuid": "GPU-0", "name": "A100", "memory_total": 80.0, "memory_used": 1.0, "utilization": 1, "temperature": 40,
    "driver": "570.1", "users": ["kim (1)"],
}  # fmt: skip
PROBE = {
    "host": "gpu1",
    "cores": 8,
    "load": 0.1,
    "memory_total": 64.0,
    "memory_free": 60.0,
    "disk_free": 500.0,
    "gpus": [GPU],
}
STATUS = {"state": "running", "reason": "", "attempt": 1, "events": 0, "log": 0, "quiet": 0.1, "owner": {}}


# What a server answers


class Answers:
    """A link at whose end somebody answers as they like: by operation a reply, or a list of them, the last for ever."""

    name, round_trip = "box", 1.0

    def __init__(self, **by_operation: Any) -> None:
        self.replies = {
            op: iter(itertools.chain(found[:-1], itertools.repeat(found[-1])) if isinstance(found, list) else itertools.repeat(found))
            for op, found in by_operation.items()
        }  # fmt: skip

    def call(self, op: str, **arguments: Any) -> Reply:
        found = next(self.replies[op]) if op in self.replies else Reply({})
        if isinstance(found, LinkError):
            raise found
        if found.body and arguments.get("on_part"):
            arguments["on_part"](found.body)
        return found

    def stream(self, requests: Iterable[Request], **_: Any) -> Iterator[Reply]:
        for each in requests:
            yield self.call(each.op, **each.arguments)


def spoilt(value: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by each of what it must not be."""
    yield from WEIRD
    if isinstance(value, dict):
        for key, part in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in spoilt(part))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in spoilt(part))


def answers_of(op: str, good: dict[str, Any]) -> Iterator[Answers]:
    for values in spoilt(good):
        yield Answers(**{op: Reply(values if isinstance(values, dict) else {"files": values})})


def survived(what: Callable[[], object]) -> None:
    """It works, or says in words what is wrong."""
    try:
        what()
    except DojangError as e:
        assert len(e.message) < 2000 and e.message.replace("\n", " ").isprintable(), e.message


def sound(version: Version) -> None:
    """People and programs can be told of it."""
    row = version.summary()
    assert row["state"] in {*LIVE, *ENDS, "lost", "draft"}
    told = json.dumps(row, allow_nan=False)
    assert len(told) < 20_000
    reason = elsewhere.known(version).reason
    assert len(reason) <= 300 and reason.isprintable()


def test_how_a_run_stands_may_be_told_as_anything(version: Version, place: Place) -> None:
    for runs in spoilt({place.rid: STATUS}):
        answers = Answers(status=Reply({"runs": runs}), read=Reply({}), tree=NotThere())
        survived(lambda answers=answers: mirror.Mirror(version, place, answers)._status())  # type: ignore[misc]
        sound(version)
    survived(lambda: mirror.Mirror(version, place, Answers())._status())  # type: ignore[arg-type]
    huge = {"state": "lost", "reason": ESCAPES * 100_000, "attempt": 1}
    mirror.Mirror(version, place, Answers(status=Reply({"runs": {place.rid: huge}})))._status()  # type: ignore[arg-type]
    sound(version)
    assert version.state(version.progress()) == "lost" and len(elsewhere.known(version).reason) == 300


def event_lines() -> list[bytes]:
    good: list[dict[str, Any]] = [
        {"kind": "start", "t": 1.0, "attempt": 1, "host": "h", "resumed": {"epoch": 1, "step": 1}},
        {"kind": "stage", "t": 1.0, "stage": "training"},
        {"kind": "plan", "t": 1.0, "epochs": 2, "steps_per_epoch": 5, "train_images": 3, "classes": ["a"], "task": "detect"},
        {"kind": "progress", "t": 1.0, "what": "val", "done": 1, "total": 2, "unit": "bytes", "rate": 1.0},
        {"kind": "step", "t": 1.0, "epoch": 1, "step": 1, "i": 1, "loss": {"box": 1.0}, "lr": 0.1, "img_s": 1.0, "memory": 1.0},
        {"kind": "epoch", "t": 1.0, "epoch": 1, "metrics": {"map50": 0.5}, "per_class": [{"name": "a"}], "seconds": {"train": 1.0}, "best": True},
        {"kind": "result", "t": 1.0, "split": "val", "metrics": {"map50": 0.5}, "per_class": [], "weights": "best.pt"},
        {"kind": "rollback", "t": 1.0, "code": "NAN", "text": "x", "epoch": 1, "step": 1},
        {"kind": "control", "t": 1.0, "request": "change", "epochs": 3},
        {"kind": "log", "t": 1.0, "level": "info", "text": "hello"},
        {"kind": "error", "t": 1.0, "code": "X", "message": "m", "hint": "h"},
        {"kind": "end", "t": 1.0, "state": "done"},
    ]  # fmt: skip
    spoilt_ones = [json.dumps(each).encode() for event in good for each in spoilt(event)]
    return (
        [json.dumps(each).encode() for each in good]
        + spoilt_ones
        + [b"\xff\xfe", b"[" * 100_000, b'{"kind": "_init__"}']
    )


@pytest.mark.parametrize("seed", range(3))
def test_events_may_be_anything(version: Version, place: Place, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a server logs, in whatever order: lists, pages and lines show it, and no byte of it reaches a terminal raw."""
    lines = event_lines()
    random.Random(seed).shuffle(lines)
    data = b"\n".join(lines) + b"\n"
    pieces = [Reply({}, data[at : at + mirror.PIECE]) for at in range(0, len(data), mirror.PIECE)]
    answers = Answers(
        read=[*pieces, Reply({}, ESCAPES.encode() * 10), Reply({})], status=Reply({"runs": {place.rid: {**STATUS, "state": "failed"}}})
    )  # fmt: skip
    mirror.Mirror(version, place, answers)._status()  # type: ignore[arg-type]
    assert version.events.read_bytes() == data
    sound(version)
    progress = version.progress()
    assert 0 <= progress.fraction <= 1
    progress.remaining(time.time()), progress.elapsed(time.time())
    lines_of = Lines()
    for event in read_all(version.events):
        assert all(words.clean(line).isprintable() for line in lines_of.of(event))
        p = lines_of.progress
        assert 0 <= p.fraction <= 1 and p.ended in ("", *ENDS)
        p.remaining(time.time()), p.elapsed(time.time()), p.metrics(), p.per_class()
    at = ["--workspace", str(version.workspace.path)]
    capsys.readouterr()
    for command in (["list"], ["show", version.reference], ["log", version.reference], ["follow", version.reference]):
        main([*command, *at])
        told = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in told.out + told.err), command


def test_a_line_without_an_end_is_kept_in_pieces(version: Version, place: Place) -> None:
    piece = Reply({}, b"x" * mirror.PIECE)
    m = mirror.Mirror(version, place, Answers(read=[piece, piece, piece, Reply({})]))  # type: ignore[arg-type]
    while m._events(0.0):
        pass
    assert version.events.stat().st_size == 3 * mirror.PIECE and read_all(version.events) == []


@pytest.mark.parametrize("name", mirror.SMALL)
def test_small_files_may_be_anything(version: Version, place: Place, name: str) -> None:
    good = {"reason": "waits", "ahead": 1, "free": 0, "held": False, "code": 1}
    for value in spoilt(good):
        body = json.dumps(value).encode()
        mirror.Mirror(version, place, Answers(read=Reply({}, body)))._small()  # type: ignore[arg-type]
        sound(version)
        version.waiting(), version.exit_reason()
    (version.path / name).unlink(missing_ok=True)
    huge = Reply({}, b'{"reason": "' + b"x" * 100_000 + b'"}')
    mirror.Mirror(version, place, Answers(read=huge))._small()  # type: ignore[arg-type]
    assert not (version.path / name).exists()


def files_below(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if not p.is_dir()}


def test_weights_may_be_announced_as_anything(version: Version, place: Place, tmp_path: Path) -> None:
    """Only what is as announced appears, under its own name, and nothing elsewhere."""
    body = b"weights"
    good = {"files": {"best.pt": [len(body), 1, agent.digest_of(body)]}}
    before = files_below(tmp_path)
    for answers in answers_of("tree", good):
        answers.replies["get"] = itertools.repeat(Reply({}, body))
        survived(lambda answers=answers: fetching.fetch(version, place, answers))  # type: ignore[misc]
        assert not version.best_weights.exists() or version.best_weights.read_bytes() == body
        version.best_weights.unlink(missing_ok=True)
    for size, sent in (
        (len(body), b"w"),
        (len(body), b"weights and more"),
        (3 << 20, b"weights"),
        (1 << 39, body),
        (7, b"WEIGHTS"),
    ):
        told = Reply({"files": {"best.pt": [size, 1, agent.digest_of(body)]}})
        with pytest.raises(DojangError) as caught:
            fetching.fetch(version, place, Answers(tree=told, get=Reply({}, sent)))  # type: ignore[arg-type]
        assert caught.value.code in ("CHANGED", "DISK_FULL") and caught.value.hint
        assert not version.best_weights.exists()
    own = version.path
    assert all(own in p.parents for p in files_below(tmp_path) - before)
    assert {p.name for p in files_below(own / "weights")} <= {f".best.pt.{agent.digest_of(body)}.part"}


def test_what_a_server_tells_of_itself_may_be_anything() -> None:
    box = Box("box", python="~/python")
    for hello in spoilt(HELLO):
        assert fit_to_show(box, hello if isinstance(hello, dict) else {}, PROBE)
    for probe in spoilt(PROBE):
        told = probe if isinstance(probe, dict) else {}
        assert fit_to_show(box, HELLO, told)
        survived(lambda told=told: fleet.machine_of(told))  # type: ignore[misc]


def fit_to_show(box: Box, hello: dict[str, Any], probe: dict[str, Any]) -> bool:
    steps = list(checking.of_answers(box, hello, probe))
    return all(text.isprintable() and len(text) < 1000 for step in steps for text in (step.name, step.text, step.hint))


def test_what_it_has_already_may_be_told_as_anything() -> None:
    content = Content.of(b"x" * 100)
    for answers in answers_of("have", {"missing": [content.digest], "parts": {content.digest: 5}}):
        answers.replies["put"] = itertools.repeat(Reply({"have": 100, "done": True}))
        survived(lambda answers=answers: quickly(answers, content))  # type: ignore[misc]


def quickly(answers: Answers, content: Content) -> None:
    lacking, parts = shipping.missing(answers, [content.digest])  # type: ignore[arg-type]
    assert set(lacking) <= {content.digest} and all(isinstance(n, int) for n in parts.values())
    shipping._sent(answers, [content] if lacking else [], parts, lambda done: None)  # type: ignore[arg-type]


class Untroubled:
    """Told of preparing, and asked nothing."""

    key = "k"

    def say(self, text: str) -> None:
        assert text.isprintable() and len(text) < 2000, text

    def note(self, text: str) -> None:
        assert text.isprintable()

    def bar(self, done: int, total: int, unit: str) -> None:
        assert 0 <= done <= total


def test_a_server_that_is_prepared_may_answer_anything(workspace: Workspace, shapes: str, tmp_path: Path) -> None:
    version = logs.version(workspace, dataset=shapes)
    box = boxes.make({"name": "box", "python": "/usr/bin/python3", "root": str(tmp_path / "far")})
    mark = prepare.environment.builder.MARK
    look = json.dumps({"python": [3, 12], "missing": [], "versions": {}, "broken": {}})
    good = {
        "hello": HELLO, "probe": PROBE, "have": {"missing": [], "parts": {}}, "materialise": {"path": "/x"}, "list": {"names": {}},
        "run": {"code": 0, "timed_out": False, "interrupted": False},
    }  # fmt: skip
    told = f"{mark}{look}\n".encode()
    before = files_below(tmp_path)

    def prepared(op: str, values: Any, said: bytes) -> None:
        replies = {name: Reply(v, said if name == "run" else b"") for name, v in good.items()}
        replies[op] = Reply(values if isinstance(values, dict) else {}, said if op == "run" else b"")
        answers: Any = Answers(**replies)
        survived(lambda: prepare.prepare(answers, box, version, "runs/x", Untroubled()))

    for op, values in good.items():
        kept = WEIRD if op in ("hello", "probe") else list(spoilt(values))  # the rest of those two: see above
        for other in kept:
            prepared(op, other, told)
    for other in spoilt(json.loads(look)):
        prepared("run", good["run"], f"{ESCAPES}\n{mark}{json.dumps(other)}\n".encode())
    error = {"error": {"code": ESCAPES, "message": ESCAPES * 1000, "hint": [ESCAPES]}}
    prepared("run", good["run"], f"{mark}{json.dumps(error)}\n".encode())
    made = {p for p in files_below(tmp_path) - before if workspace.cache not in p.parents and "datasets" not in p.parts}
    assert not made


# What comes over the link itself


class Liar:
    """A transport at whose other end frames are answered by `reply`, raw."""

    complaints, asking = -1, False

    def __init__(self, reply: Callable[[dict[str, Any]], Iterable[bytes]]) -> None:
        ours, self._theirs = socket.socketpair()
        self.reader, self.writer = os.dup(ours.fileno()), ours.detach()
        os.set_blocking(self.reader, False)
        self._reply, self._closed = reply, False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with self._theirs, self._theirs.makefile("rb") as f:
                f.read(int(f.readline()))
                self._theirs.sendall(agent.BANNER)
                while prefix := f.read(agent.PREFIX.size):
                    _, header, body = agent.PREFIX.unpack(prefix)
                    asked = json.loads(f.read(header))
                    f.read(body)
                    for data in [frame({"id": 0, "values": HELLO})] if asked["id"] == 0 else self._reply(asked):
                        self._theirs.sendall(data)
        except (OSError, ValueError):
            return

    def complained(self, data: bytes) -> None:
        raise AssertionError("it has no complaints")

    def failure(self, stage: Stage) -> LinkError:
        return LinkLost()

    def close(self, patience: float = 0.0) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.reader)
            os.close(self.writer)
            self._thread.join(10)


def frame(header: Any, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return agent.PREFIX.pack(agent.MAGIC, len(text), len(body)) + text + body


PACE = Pace(pauses=(0.01,), every=30.0, frozen=60.0)


def test_more_than_was_asked_for_is_not_taken() -> None:
    body = b"x" * (8 << 20)

    def reply(asked: dict[str, Any]) -> Iterator[bytes]:
        if asked["op"] == "run":
            yield frame({"id": asked["id"], "more": True}, body)
        yield frame({"id": asked["id"], "more": True}, b"unasked")
        yield frame({"id": asked["id"], "values": {}}, body if asked["op"] != "run" else b"")

    heard: list[bytes] = []
    with Link(lambda: Liar(reply), pace=PACE, name="box") as link:
        for op in ("read", "get", "status", "have", "tree"):
            with pytest.raises(ProtocolMismatch, match="more than was asked for"):
                link.call(op, limit=1000)
        assert link.call("run", on_part=heard.append) == {}
        assert heard == [b"unasked"]
        requests = [Request("get", {"path": "x", "limit": 1 << 20})] * 40
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ProtocolMismatch):
            list(link.stream(requests))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


@pytest.mark.parametrize(
    "data",
    [
        b"not a frame at all", agent.PREFIX.pack(agent.MAGIC, 0xFFFFFFFF, 0), agent.PREFIX.pack(agent.MAGIC, 2, 0xFFFFFFFF),
        agent.PREFIX.pack(agent.MAGIC, 2, 0) + b"[]", agent.PREFIX.pack(agent.MAGIC, 4, 0) + b"\xff\xff\xff\xff",
        agent.PREFIX.pack(agent.MAGIC, 200_000, 0) + b"[" * 200_000, frame({"id": 0, "values": {"proto": 99}}),
    ],
)  # fmt: skip
def test_what_is_no_answer_costs_the_connection_alone(data: bytes) -> None:
    """The next one is as good as ever."""
    spoilt_once = iter([data])

    def reply(asked: dict[str, Any]) -> list[bytes]:
        return [next(spoilt_once, frame({"id": asked["id"], "values": {"fine": True}}))]

    with Link(lambda: Liar(reply), pace=PACE) as link:
        assert link.call("status", timeout=20)["fine"] is True


@pytest.mark.parametrize(
    "header",
    [
        {}, {"id": None}, {"id": [1]}, {"id": "1"}, {"id": -1}, {"id": -2}, {"id": 99}, {"id": 1.5}, {"id": {}}, {"id": 99, "more": 1},
        {"id": 0, "values": {**HELLO, "root": 7}},
    ],
)  # fmt: skip
def test_frames_that_nobody_asked_for_are_passed_over(header: Any) -> None:
    def reply(asked: dict[str, Any]) -> list[bytes]:
        return [frame(header, b"x")] * 3 + [frame({"id": asked["id"], "values": {"fine": True}})]

    with Link(lambda: Liar(reply), pace=PACE) as link:
        assert link.call("status", timeout=20)["fine"] is True


@pytest.mark.parametrize(
    "error", [*WEIRD, {"kind": [], "text": {}}, {"kind": "DISK_FULL", "text": ESCAPES * 1000, "details": DEEP}]
)
def test_an_error_may_be_anything(error: Any) -> None:
    def reply(asked: dict[str, Any]) -> list[bytes]:
        return [frame({"id": asked["id"], "error": error})]

    with Link(lambda: Liar(reply), pace=PACE, name="box") as link, pytest.raises(LinkError) as caught:
        link.call("status")
    assert caught.value.message.isprintable() and len(caught.value.message) < 1000


# What people write


def hostile(mark: Path) -> list[str]:
    return [
        f"-oProxyCommand=touch {mark}", f"x -oProxyCommand=touch${{IFS}}{mark}", f"$(touch {mark})", f"`touch {mark}`", f"a;touch {mark}",
        f"a\ntouch {mark}", "-F/etc/passwd", "../../x", "a b", ESCAPES, "x" * 10_000, f"a|touch {mark}", f"a&touch {mark}", "'", '"', "\\",
    ]  # fmt: skip


def test_no_setting_of_a_server_is_a_command(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, and by hand in the file: said to be wrong, shown without harm, and never run."""
    import tomli_w

    mark, at = tmp_path / "mark", ["--workspace", str(workspace.path)]
    for text in hostile(mark):
        for option in ("host", "user", "python", "root"):
            code = main(
                ["server", "add", "good", f"--{option}={text}", *([] if option == "host" else ["--host=h"]), *at]
            )
            assert code == 2, (option, text)
        assert main(["server", "add", "--host=h", *at, "--", text]) == 2
        for told in (
            {"host": text},
            {"host": "h", "user": text},
            {"host": "h", "python": text},
            {"host": "h", "root": text},
            text,
            [text],
        ):
            (workspace.path / boxes.FILE).write_text(tomli_w.dumps({"bad": told, text: {"host": "h"}}))
            found, troubles = boxes.listed(workspace.path)
            assert len(troubles) >= 1 and not [
                box for box in found if text in (box.name, box.host, box.user, box.python)
            ]
            for command in (["list"], ["check", "bad"], ["show", "bad"], ["remove", "bad"], ["remove", text]):
                main(["server", *command[:1], *at, "--", *command[1:]])
            (workspace.path / boxes.FILE).unlink()
    told = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in told.out + told.err)
    assert not mark.exists()


def test_no_server_of_a_version_is_a_command(workspace: Workspace, shapes: str, tmp_path: Path) -> None:
    """Where it trains, as the wizard and scripts choose it, and as somebody wrote it by hand."""
    from engine import launch
    from engine.files import write_toml
    from engine.spec import Label

    mark = tmp_path / "mark"
    for text in hostile(mark):
        with pytest.raises(DojangError):
            launch.create(workspace, {"dataset": shapes, "weights": "scratch", "epochs": "1"}, Label(), server=text)
        version = logs.version(workspace, dataset=shapes)
        for place in ({"server": text, "rid": "x", "root": "~"}, {"server": "box", "rid": text, "root": "~"}):
            write_toml(version.path / elsewhere.SERVER, place)
            for what in (anywhere.start, anywhere.resume):
                with pytest.raises(DojangError):
                    what(version)
            sound(version)
    assert not mark.exists() and not list(workspace.project().path.rglob("prepare.log"))


NAMES = [
    b"-rf.png", b"--help.png", b"two\nlines.png", b"caf\xe9.png", b"$(touch mark).png", b"`touch mark`.png", b"a;touch mark.png",
    b"a'b\"c.png", b"..png", b"...png", b"{run}.png", b"a\\b.png", b"~.png", b" .png", b"\xf0\x9f\x90\xb1.png", b"\x1b[2J.png", b"*.png",
]  # fmt: skip


def test_images_of_any_name_arrive_as_they_are(workspace: Workspace, tmp_path: Path) -> None:
    from engine import demo

    pictures = tmp_path / "pictures"
    demo.draw(pictures, images=len(NAMES) + 4, size=48)
    images = sorted(pictures.rglob("*.png")) or sorted(pictures.rglob("*.jpg"))
    wanted: dict[bytes, bytes] = {}
    for path, name in zip(images, NAMES, strict=False):
        name = name.replace(b".png", os.fsencode(path.suffix))
        label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        new = os.path.join(os.fsencode(path.parent), name)
        if label.exists():
            label.rename(os.fsdecode(os.path.join(os.fsencode(label.parent), name.rpartition(b".")[0] + b".txt")))
        wanted[name] = path.read_bytes()
        os.rename(path, new)
    dataset = registry.add(workspace.path, pictures, "odd").name
    items = {os.fsencode(item.path).rpartition(b"/")[2] for item in registry.items(workspace.path, dataset)}
    far = Far(workspace, tmp_path)
    try:
        version = far.version(dataset)
        anywhere.start(version)
        assert anywhere.wait(version, 60) == "done", version.summary()["error"]
        there = {
            p.rpartition(b"/")[2]: Path(os.fsdecode(p)).read_bytes() for p in below(os.fsencode(far.root / "data"))
        }
        assert {name: there.get(name) for name in wanted if name in items} == {
            n: d for n, d in wanted.items() if n in items
        }
        assert len(items & set(wanted)) >= len(NAMES) - 3, set(wanted) - items
        assert not list(tmp_path.rglob("mark")) and not Path("mark").exists()
    finally:
        far.end()


def below(folder: bytes) -> list[bytes]:
    return [os.path.join(top, name) for top, _, names in os.walk(folder) for name in names]
