"""What a training needs is brought to a server: an environment, our code, the data; each by content, each only once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.datasets import recipes, registry
from engine.datasets.model import Box, Item
from engine.errors import DojangError
from engine.files import write_toml
from engine.servers import boxes, builder, environment, prepare, shipping
from engine.servers.environment import Far as Server
from engine.servers.link import Link, local
from engine.servers.shipping import Content
from engine.versions import Version, Workspace
from tests.played import until
from tests.servers.far import Far, cut


class Told:
    """Who is told; what was said, noted and drawn."""

    key = "prepare-test"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.noted: list[str] = []
        self.bars: list[tuple[int, int, str]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def note(self, text: str) -> None:
        self.noted.append(text)

    def bar(self, done: int, total: int, unit: str) -> None:
        self.bars.append((done, total, unit))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "far"


@pytest.fixture
def link(root: Path) -> Iterator[Link]:
    with Link(local, root=str(root)) as made:
        yield made


@pytest.fixture
def server(link: Link) -> Server:
    return prepare.look(link)


def blob(root: Path, content: Content) -> Path:
    return root / "blobs" / content.digest[:2] / content.digest


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / name
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


# Contents


def test_only_what_is_missing_is_sent(link: Link, root: Path, tmp_path: Path) -> None:
    made = {}
    for i in range(300):
        path = tmp_path / f"{i}"
        path.write_bytes(os.urandom(100 + i))
        content = Content.at(path)
        made[content.digest] = content
    empty = Content.of(b"")
    made[empty.digest] = empty
    ticks: list[tuple[int, int]] = []
    sent = shipping.send(link, made, lambda done, total: ticks.append((done, total)))
    assert (sent.files, sent.bytes) == (301, sum(c.size for c in made.values()))
    assert ticks[-1] == (sent.bytes, sent.bytes) and sorted(ticks) == ticks
    assert all(blob(root, c).stat().st_size == c.size for c in made.values())
    assert shipping.send(link, made).files == 0


def test_a_large_file_goes_on_where_it_broke_off(link: Link, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(5 * shipping.PIECE // 2))
    content = Content.at(path)

    def enough(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shipping.send(link, {content.digest: content}, enough)
    until(lambda: shipping.missing(link, [content.digest])[1])
    ticks: list[int] = []
    shipping.send(link, {content.digest: content}, lambda done, total: ticks.append(total))
    assert ticks[0] < content.size
    assert blob(root, content).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("seed", range(5))
def test_links_break_while_it_is_sent(link: Link, root: Path, tmp_path: Path, seed: int) -> None:
    """Whatever is lost on the way, each byte arrives."""
    dice = random.Random(seed)
    made = {}
    for i in range(60):
        path = tmp_path / f"{i}"
        path.write_bytes(dice.randbytes(dice.choice((10, 30_000, 400_000, 9_000_000 if i < 3 else 5))))
        content = Content.at(path)
        made[content.digest] = content
    at, lost = sorted(dice.uniform(0.0, 0.9) for _ in range(2)), list[int]()

    def vandal(done: int, total: int) -> None:
        if at and total and done / total >= at[0]:
            at.pop(0)
            lost.append(cut())

    shipping.send(link, made, vandal)
    assert not at and sum(lost)
    for content in made.values():
        assert isinstance(content.source, Path) and blob(root, content).read_bytes() == content.source.read_bytes()


def test_a_file_that_changes_meanwhile_is_named(link: Link, tmp_path: Path) -> None:
    path = tmp_path / "moving.jpg"
    path.write_bytes(b"a" * 100)
    content = Content.at(path)
    path.write_bytes(b"b" * 100)
    with pytest.raises(DojangError) as caught:
        shipping.send(link, {content.digest: content})
    assert caught.value.code == "DATA_CHANGED" and "moving.jpg" in caught.value.message


def test_our_code_is_whole_there_and_runs(link: Link, server: Server) -> None:
    told = Told()
    code = prepare.send_code(link, told)
    again = Told()
    assert prepare.send_code(link, again) == code and told.said and not again.said
    environ = {**os.environ, "PYTHONPATH": code}
    asked = [sys.executable, "-P", "-c", "import engine.worker; print(engine.__file__)"]
    done = subprocess.run(asked, cwd="/", env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{code}/engine/__init__.py"


# Data


def test_images_from_outside_of_their_set_get_a_place_there() -> None:
    paths = ["a/b.jpg", "/mnt/세포/c.jpg", "../d.jpg", "e\\f.jpg", "g/../h.jpg"]
    items = [Item(p, "train", 1, 1, (Box(0, 0.5, 0.5, 1, 1),), True, 1) for p in paths]
    assert prepare.there_names(items) == [
        "a/b.jpg",
        "elsewhere/0000001/c.jpg",
        "elsewhere/0000002/d.jpg",
        "elsewhere/0000003/e\\f.jpg",
        "elsewhere/0000004/h.jpg",
    ]


def prepared(version: Version, far: Far) -> tuple[prepare.Ready, Told]:
    told = Told()
    with Link(local, root=str(far.root)) as link:
        return prepare.prepare(link, far.box, version, "runs/x", told), told


def test_data_there_are_those_here(workspace: Workspace, tmp_path: Path, shapes: str) -> None:
    far = Far(workspace, tmp_path)
    ready, told = prepared(far.version(shapes), far)
    home = tmp_path / "home" / "datasets" / shapes
    home.mkdir(parents=True)
    for path, content in ready.contents.items():
        folder, _, name = path.rpartition("/")
        assert folder == f"home/datasets/{shapes}"
        (home / name).write_bytes(blob(far.root, content).read_bytes())
    there, here = registry.load(home.parents[1], shapes), registry.load(workspace.path, shapes)
    assert there.hash == here.hash and there.root.is_relative_to(far.root)
    assert registry.items(home.parents[1], shapes) == registry.items(workspace.path, shapes)
    for item in registry.items(workspace.path, shapes):
        assert there.image(item).read_bytes() == here.image(item).read_bytes()
    assert any(unit == "bytes" for _, _, unit in told.bars)


def test_a_version_of_a_set_goes_with_its_recipe(workspace: Workspace, tmp_path: Path, shapes: str) -> None:
    from engine.datasets.recipe import Recipe

    made = recipes.draft(workspace.path, Recipe(sources=(shapes,), resize="letterbox", size=64))
    name = recipes.create(workspace.path, shapes, made).name
    far = Far(workspace, tmp_path)
    ready, _ = prepared(far.version(name), far)
    assert {p.rpartition("/")[2] for p in ready.contents} >= {"recipe.toml", "digests.bin", "items.bin"}


def test_data_that_lie_there_already_are_looked_at(workspace: Workspace, tmp_path: Path, shapes: str) -> None:
    far = Far(workspace, tmp_path)
    version = far.version(shapes)
    dataset = registry.load(workspace.path, shapes)
    box = boxes.make({**far.box.to_json(), "data": {shapes: str(dataset.root)}})
    told = Told()
    with Link(local, root=str(far.root)) as link:
        ready = prepare.prepare(link, box, version, "runs/x", told)
        assert any(f"in {dataset.root} on the server" in text for text in told.said)
        assert not any("images of" in text and "Sent" in text for text in told.said)
        toml = blob(far.root, ready.contents[f"home/datasets/{shapes}/dataset.toml"]).read_text()
        assert str(dataset.root) in toml
        other = tmp_path / "other"
        (other / "images").mkdir(parents=True)
        with pytest.raises(DojangError) as caught:
            prepare.prepare(
                link, boxes.make({**box.to_json(), "data": {shapes: str(other)}}), version, "runs/x", Told()
            )
        assert caught.value.code == "DATA_CHANGED" and "10 of 10" in caught.value.message


def test_a_sample_of_their_contents_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"same size")
    listing = tmp_path / "list.json"
    digest = shipping.digest_of(b"same size")
    listing.write_text(json.dumps({"a.jpg": [digest, 9]}))
    assert builder.main(["data", str(listing), str(tmp_path)]) == 0
    (tmp_path / "a.jpg").write_bytes(b"some size")
    assert builder.main(["data", str(listing), str(tmp_path)]) == 1
    assert "DATA_CHANGED" in capsys.readouterr().out


def test_what_would_come_first_is_told_beforehand(workspace: Workspace, tmp_path: Path, shapes: str) -> None:
    far = Far(workspace, tmp_path)
    version = far.version(shapes)
    images = [i.bytes for i in registry.items(workspace.path, shapes)]
    unbuilt = boxes.make({**far.box.to_json(), "python": ""})
    with Link(local, root=str(far.root)) as link:
        found = prepare.outlook(link, unbuilt, workspace, version.spec())
        assert (found.environment, found.files, found.bytes) == (True, len(images), sum(images))
        prepare.prepare(link, far.box, version, "runs/x", Told())
        link.call("make", path="envs/cpu-1234")
        assert prepare.outlook(link, unbuilt, workspace, version.spec()) == prepare.Outlook(False, 0, 0)
        there = boxes.make({**far.box.to_json(), "data": {shapes: "/mnt/shapes"}})
        assert prepare.outlook(link, there, workspace, version.spec()) == prepare.Outlook(False, 0, 0)


def test_data_that_changed_here_are_not_sent(workspace: Workspace, tmp_path: Path, shapes: str) -> None:
    far = Far(workspace, tmp_path)
    version = far.version(shapes)
    write_toml(version.spec_file, {**version.spec_data(), "dataset_hash": "0" * 64})
    with pytest.raises(DojangError) as caught:
        prepared(version, far)
    assert caught.value.code == "DATA_CHANGED"


# Environments


@pytest.mark.parametrize(
    ("driver", "kind"),
    [
        ("580.65.06", "cu130"),
        ("570.86", "cu128"),
        ("535.104.05", "cu126"),
        ("525.60.13", "cu126"),
        ("470.82.01", "cu118"),
    ],
)
def test_torch_is_chosen_for_the_driver(driver: str, kind: str) -> None:
    assert environment.wheel_kind((driver, "1.0")) == kind
    assert environment.wheel_kind(()) == "cpu"


@pytest.mark.parametrize("driver", ["418.39", "", "\x1b[31mN/A"])
def test_a_driver_that_is_too_old_is_said_so(driver: str) -> None:
    with pytest.raises(DojangError) as caught:
        environment.wheel_kind((driver,))
    assert caught.value.code == "DRIVER_TOO_OLD" and "\x1b" not in caught.value.message


def test_the_environment_is_named_by_all_that_it_depends_on() -> None:
    base: dict[str, Any] = {"root": "/r", "home": "/h", "executable": "/p", "python": (3, 8), "disk_free": 1.0}
    plain = Server(**base, arch="x86_64", glibc="2.36", drivers=())
    gpu = Server(**base, arch="x86_64", glibc="2.36", drivers=("550.54",))
    arm = Server(**base, arch="aarch64", glibc="2.36", drivers=())
    wanted = [
        environment.wanted(plain),
        environment.wanted(gpu),
        environment.wanted(arm),
        environment.wanted(plain, "/w"),
    ]
    assert len({w.id for w in wanted}) == 4 and environment.wanted(plain) == wanted[0]
    assert [w.kind for w in wanted] == ["cpu", "cu126", "cpu", ""]
    assert {r.partition(">")[0] for r in wanted[0].first} == {"torch", "torchvision"}
    assert not any("textual" in r or "plotext" in r for r in wanted[0].rest) and any(
        "effdet" in r for r in wanted[0].rest
    )


def test_a_python_is_judged_by_what_its_model_needs() -> None:
    whole = {"python": [3, 11, 2], "versions": {"torch": "2.7.1+cu126", "ultralytics": "8.4.200"}, "missing": []}
    assert environment.unfit(whole, "ultralytics") == []
    assert environment.unfit({**whole, "missing": ["effdet", "timm"]}, "ultralytics") == []
    assert environment.unfit({**whole, "missing": ["effdet", "timm"]}, "effdet") == ["effdet, timm missing"]
    old = {**whole, "python": [3, 8, 1], "versions": {"torch": "1.13", "ultralytics": "8.1.0"}}
    assert len(environment.unfit(old, "ultralytics")) == 3
    assert "ImportError" in environment.unfit({**whole, "broken": {"torch": "ImportError: x"}}, "effdet")[0]


@pytest.mark.parametrize(
    ("have", "requirement", "fits"),
    [
        ("8.4.200", "ultralytics>=8.4.190,<8.5", True),
        ("8.5.0", "ultralytics>=8.4.190,<8.5", False),
        ("2.6.0+cu124", "torch>=2.6", True),
        ("2.5.1", "torch>=2.6", False),
        ("2.10", "torch>=2.6", True),
        ("0.4.1", "effdet>=0.4.1,<0.5", True),
    ],
)
def test_versions_are_compared_as_numbers(have: str, requirement: str, fits: bool) -> None:
    assert environment.satisfies(have, requirement) is fits


def test_what_the_agent_tells_may_be_anything() -> None:
    found = Server.of({"python": ["x", 3], "root": 7}, {"gpus": "none", "disk_free": None})
    assert found.drivers == () and found.disk_free == 0.0 and found.root == "7"


SPEC: dict[str, Any] = {"first": ["torch>=2.6"], "rest": ["other"], "kind": "cpu", "least": 1, "inodes": 1}


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **spec: Any) -> tuple[int, dict[str, Any]]:
    """Have an environment made with what is in `folder` as the only programs; its code and its last words."""
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(folder))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(builder.__file__).parent)!r})\n"
        "sys.path.remove(sys.path[0]); import importlib.util as u\n"
        f"s = u.spec_from_file_location('b', {builder.__file__!r}); b = u.module_from_spec(s); s.loader.exec_module(b)\n"
        "sys.exit(b.main(sys.argv[1:]))"
    )
    words = json.dumps({**SPEC, "target": str(folder / "env"), "verify": False, **spec})
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, "make", words], capture_output=True, text=True, check=False
    )
    told = [json.loads(line[len(builder.MARK) :]) for line in done.stdout.splitlines() if line.startswith(builder.MARK)]
    assert told, done.stderr
    return done.returncode, told[-1]


UV = """
[ "$1" = --version ] && exit 0
case "$*" in *--help) echo "--torch-backend KIND"; exit 0;; esac
echo "$*" >> "$HOME/calls"
if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; exit 0; fi
"""
OLD_UV = """
[ "$1" = --version ] && exit 0
echo "$*" >> "$HOME/calls"
if [ "$1" = venv ]; then
    for last; do :; done; mkdir -p "$last/bin"
    printf '#!/bin/sh\necho "python $*" >> "$HOME/calls"\n' > "$last/bin/python"
    printf '#!/bin/sh\necho "new $*" >> "$HOME/calls"\n' > "$last/bin/uv"
    chmod +x "$last/bin/python" "$last/bin/uv"
fi
"""


def test_uv_makes_it_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    script(folder, "uv", UV)
    assert made(folder, monkeypatch) == (0, {"done": True, "new": True})
    calls = (folder / "calls").read_text().splitlines()
    python = f"{folder}/env-new/bin/python"
    assert calls == [
        f"venv --relocatable --python >=3.11,<3.14 {folder}/env-new",
        f"pip install --python {python} --torch-backend cpu torch>=2.6",
        f"pip install --python {python} other",
    ]
    assert (folder / "env" / builder.WHOLE).exists() and not (folder / "env-new").exists()
    assert made(folder, monkeypatch) == (0, {"done": True, "new": False})
    assert (folder / "calls").read_text().splitlines() == calls


def test_where_uv_is_too_old_to_know_what_torch_is_built_for_a_new_one_comes_into_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    script(folder, "uv", OLD_UV)
    assert made(folder, monkeypatch) == (0, {"done": True, "new": True})
    python = f"{folder}/env-new/bin/python"
    calls = [c for c in (folder / "calls").read_text().splitlines() if "--help" not in c]
    assert calls[1:] == [
        "python -m pip install --no-input uv",
        f"new pip install --python {python} --torch-backend cpu torch>=2.6",
        f"new pip install --python {python} other",
    ]


def test_one_that_broke_off_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    script(folder, "uv", UV + "exit 3")
    assert made(folder, monkeypatch)[1]["error"]["code"] == "ENV_FAILED"
    assert not (folder / "env").exists()
    (folder / "env" / "bin").mkdir(parents=True)  # without its mark it is none
    script(folder, "uv", UV)
    assert made(folder, monkeypatch) == (0, {"done": True, "new": True})


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("error: Failed to fetch: https://packages.invalid/torch/ (dns error)", "NO_INTERNET"),
        ("Temporary failure in name resolution", "NO_INTERNET"),
        ("OSError: [Errno 28] No space left on device", "DISK_FULL"),
        ("ERROR: No matching distribution found for torch", "WHEEL_MISSING"),
        ("something else", "ENV_FAILED"),
    ],
)
def test_why_it_cannot_be_made_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: str
) -> None:
    folder = tmp_path / "bin"
    script(folder, "uv", f'{UV}echo "{words}"; exit 1')
    returned, told = made(folder, monkeypatch)
    assert returned == 1 and told["error"]["code"] == code


def test_room_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    script(folder, "uv", UV)
    _, told = made(folder, monkeypatch, least=10**18)
    assert told["error"]["code"] == "DISK_FULL" and "GiB free" in told["error"]["message"]
    assert not (folder / "calls").exists()


def test_without_uv_a_new_enough_python_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    for name in builder.PYTHONS:
        script(folder, name, "exit 1")
    assert made(folder, monkeypatch)[1]["error"]["code"] == "PYTHON_TOO_OLD"


def wheel(folder: Path, name: str) -> None:
    """A package of one line, as small as wheels get."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as f:
        f.writestr(f"{name}.py", "here = True\n")
        f.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        f.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        f.writestr(f"{info}/RECORD", "")


def test_a_real_environment_comes_from_wheels_alone(
    link: Link, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """venv and pip are real; there is no network in it."""
    wheels = tmp_path / "wheels"
    wheel(wheels, "tinyfirst")
    wheel(wheels, "tinyrest")
    box = boxes.make({"name": "b", "root": "/x", "wheels": str(wheels)})
    said: list[str] = []
    place = environment._wheels(link, box, said.append)
    assert "Sent 2 wheels" in said[0] and len(list(Path(place).iterdir())) == 2
    spec = {**SPEC, "first": ["tinyfirst"], "rest": ["tinyrest"], "kind": "", "wheels": place}
    spec |= {"target": f"{server.root}/envs/tiny", "verify": False}
    code = prepare.send_code(link, Told())
    notes: list[str] = []
    told = environment.aside(
        link, sys.executable, code, ["make", json.dumps(spec)], key="k", limit=300.0, note=notes.append, hold="envs/t.lock"
    )  # fmt: skip
    assert told == {"done": True, "new": True}
    python = f"{server.root}/envs/tiny/bin/python"
    done = subprocess.run(
        [python, "-c", "import tinyfirst, tinyrest; print(tinyrest.here)"], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"True"


@pytest.mark.slow  # what was made is tried out: it loads torch
def test_a_server_without_uv_is_sent_ours(
    link: Link, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is played: it notes what it is asked for, and what it makes runs this very Python."""
    calls = tmp_path / "calls"
    own = script(
        tmp_path / "here", "uv",
        f"""[ "$1" = --version ] && exit 0
case "$*" in *--help) echo "--torch-backend KIND"; exit 0;; esac
echo "$*" >> {calls}
if [ "$1" = venv ]; then
    for last; do :; done; mkdir -p "$last/bin"
    printf '#!/bin/sh\nexec {sys.executable} "$@"\n' > "$last/bin/python"; chmod +x "$last/bin/python"
fi""",
    )  # fmt: skip
    monkeypatch.setattr(environment, "_own_uv", lambda far: own)
    monkeypatch.setattr(builder, "UV_PLACES", ())
    box, code, said = boxes.make({"name": "b", "root": "/x"}), prepare.send_code(link, Told()), list[str]()
    for _ in range(2):
        python = environment.ensure(link, server, box, code, "ultralytics", said.append, "k", lambda text: None)
    assert Path(python).exists() and sum("Sending uv" in text for text in said) == 1
    told = calls.read_text().splitlines()
    assert told[0].startswith("venv") and any("--torch-backend cpu" in call and "torch" in call for call in told)
    assert said.count("The environment is ready.") == 1


def test_no_wheel_is_an_error_of_ours(link: Link, tmp_path: Path) -> None:
    with pytest.raises(DojangError) as caught:
        environment._wheels(link, boxes.make({"name": "b", "wheels": str(tmp_path)}), lambda text: None)
    assert caught.value.code == "WHEEL_MISSING"


def test_a_command_there_ends_when_it_is_asked_to(link: Link, server: Server, tmp_path: Path) -> None:
    python = script(tmp_path, "python", "sleep 60")
    failed: list[str] = []

    def run() -> None:
        try:
            environment.aside(link, str(python), "/x", ["look"], key="k1", limit=60.0, note=lambda t: None)
        except DojangError as e:
            failed.append(e.code)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: link.call("interrupt", key="k1")["running"])
    until(lambda: not link.call("interrupt", key="k1")["running"])
    thread.join(15)
    assert failed == ["INTERRUPTED"]
