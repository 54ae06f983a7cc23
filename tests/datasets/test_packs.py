"""Packs: whole or taken up where they stop, the same bytes whatever happens, shared, and never dropped while in use."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import datasets
from engine.datasets import cached, packfile, packs, recipes, registry
from engine.datasets.packfile import INDEX, PIXELS, WHOLE, Damaged, Pack
from engine.datasets.recipe import parse
from engine.datasets.shaping import Pool, augmented, original, prepared
from engine.errors import DojangError
from tests.datasets.make import picture_bytes, put, snapshot, yolo

LOOKS = {"resize": "letterbox", "size": 48, "copies": 2, "flip_horizontal": 0.5, "rotation": 20, "mosaic": 0.5}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return laid(tmp_path)


def laid(folder: Path) -> Path:
    rows = {f"{'val' if i > 35 else 'train'}/{i:02d}": f"{i % 2} .4 .5 .3 .4\n" for i in range(40)}
    root = yolo(folder / "set", rows)
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i, (60 + i, 50)))
    datasets.add(folder / "w", root, "set")
    return folder / "w"


def made(workspace: Path, **looks: Any) -> packs.Source:
    drawn = recipes.draft(workspace, parse({"sources": "set", "split": "existing", **(looks or LOOKS)}))
    found = packs.source(workspace, recipes.create(workspace, "set", drawn).name)
    assert found
    return found


def keep_on(done: int, total: int) -> bool:
    return True


def taken(workspace: Path, source: packs.Source) -> Pack:
    found = packs.take(workspace, source, keep_on)
    assert found
    return found


def bytes_of(workspace: Path, source: packs.Source) -> tuple[bytes, bytes]:
    folder = packs.folder_of(workspace) / source.name
    return (folder / PIXELS).read_bytes(), (folder / INDEX).read_bytes()


def test_it_holds_what_the_preview_shows(workspace: Path) -> None:
    source = made(workspace)
    before = snapshot(source.dataset.root)
    pack, layout = taken(workspace, source), packs.Layout(source)
    pool = Pool(source.dataset, source.items, source.digests)
    index = {pool.item(i).path: i for i in range(len(pool))}
    for i, item in enumerate(source.items):
        places = layout.places(i, item)
        assert len(places) == (3 if item.split == "train" else 1)
        shown = [prepared(source.recipe, original(source.dataset, item))]
        shown += [augmented(source.recipe, pool, index[item.path], copy) for copy in range(1, len(places))]
        for place, one in zip(places, shown, strict=True):
            assert np.array_equal(pack.pixels(place)[..., ::-1], one.pixels)
            assert (pack.entries[place].boxes, pack.entries[place].label) == (one.boxes, one.label)
    assert layout.images == len(pack.entries) == 36 * 3 + 4 and layout.bytes == pack.bytes
    assert snapshot(source.dataset.root) == before


def test_augmentation_changes_no_pixel_of_val_and_test(workspace: Path) -> None:
    def judges(**looks: Any) -> dict[str, tuple[bytes, Any]]:
        source = made(workspace, resize="crop", size=40, **looks)
        pack, layout = taken(workspace, source), packs.Layout(source)
        rows = ((i, item) for i, item in enumerate(source.items) if item.split != "train")
        places = {item.path: layout.places(i, item) for i, item in rows}
        assert all(len(found) == 1 for found in places.values())
        return {path: (pack.pixels(p[0]).tobytes(), pack.entries[p[0]].boxes) for path, p in places.items()}

    assert judges() == judges(copies=3, **{k: v for k, v in LOOKS.items() if k not in ("resize", "size", "copies")})


def test_without_preprocessing_only_copies_are_made(workspace: Path) -> None:
    source = made(workspace, copies=1, flip_horizontal=1.0)
    pack, layout = taken(workspace, source), packs.Layout(source)
    assert len(pack.entries) == 36
    for i, item in enumerate(source.items):
        places = layout.places(i, item)
        assert len(places) == (item.split == "train")
        for place in places:
            whole = original(source.dataset, item)
            assert np.array_equal(pack.pixels(place)[:, ::-1, ::-1], whole.pixels)


def test_the_same_bytes_from_another_folder_and_the_same_pack_for_the_same_version(tmp_path: Path) -> None:
    one, two = laid(tmp_path / "one"), laid(tmp_path / "two")
    (tmp_path / "two" / "set").rename(tmp_path / "two" / "moved")
    registry.remove(two, "set")
    datasets.add(two, tmp_path / "two" / "moved", "set")
    first, second = made(one), made(two)
    assert first.name == second.name
    taken(one, first)
    taken(two, second)
    assert bytes_of(one, first) == bytes_of(two, second)
    again = made(one)
    assert again.dataset.name != first.dataset.name and again.name == first.name
    seen: list[int] = []
    assert packs.take(one, again, lambda done, total: bool(seen.append(done)) or True) and not seen


BUILD = """
import sys, time
from pathlib import Path
from engine.datasets import packs
w = Path(sys.argv[1])
def slow(done, total):
    print(done, flush=True)
    time.sleep(0.002)
    return True
pack = packs.take(w, packs.source(w, sys.argv[2]), slow)
print("whole", flush=True)
sys.stdin.read()
"""


def building(workspace: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(workspace), name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        stream.close()


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    while (said := process.stdout.readline().strip()) != line:
        assert said, "it ended"


def test_killed_anywhere_it_ends_with_the_bytes_of_one_left_alone(tmp_path: Path) -> None:
    one, two = laid(tmp_path / "one"), laid(tmp_path / "two")
    expected = made(one)
    taken(one, expected)
    source, rng = made(two), random.Random(4)
    begun: list[str] = []
    for attempt in range(5):
        process = building(two, source.dataset.name)
        assert process.stdout
        said = [process.stdout.readline().strip()]
        begun += said
        for _ in range(90 if attempt == 2 else rng.randrange(5, 50)):  # images more; once surely beyond a written run
            if said[-1] != "whole":
                said.append(process.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.01))
        end(process)
    assert begun[0] == "0" and set(begun) - {"0"}, "none was taken up"
    taken(two, source)
    assert bytes_of(two, source) == bytes_of(one, expected)


def test_stopped_it_keeps_the_runs_that_were_written(workspace: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(packfile, "RUN", 8)
    source = made(workspace)
    assert packs.take(workspace, source, lambda done, total: done < 20) is None
    begun: list[int] = []
    assert packs.take(workspace, source, lambda done, total: bool(begun.append(done)) or True)
    assert begun[0] == 16 and begun[-1] == 112


@pytest.mark.parametrize("file", [PIXELS, INDEX])
def test_a_torn_tail_is_cut_off(workspace: Path, monkeypatch: Any, file: str) -> None:
    monkeypatch.setattr(packfile, "RUN", 8)
    source = made(workspace)
    taken(workspace, source)
    whole, folder = bytes_of(workspace, source), packs.folder_of(workspace) / source.name
    for torn in (whole[file == INDEX][:-300], whole[file == INDEX][:-300] + bytes(300), b""):
        (folder / WHOLE).unlink()
        (folder / file).write_bytes(torn)
        taken(workspace, source)
        assert bytes_of(workspace, source) == whole


def test_what_the_disk_spoilt_is_noticed_and_made_again(workspace: Path) -> None:
    source = made(workspace)
    pack = taken(workspace, source)
    whole, folder = bytes_of(workspace, source), packs.folder_of(workspace) / source.name
    with (folder / PIXELS).open("r+b") as file:
        file.seek(pack.entries[5].at + 7)
        file.write(b"\x00\xff\x00")
    again = taken(workspace, source)
    again.pixels(4)
    with pytest.raises(Damaged, match=source.name):
        again.pixels(5)
    del pack, again
    assert np.array_equal(taken(workspace, source).pixels(5), taken(workspace, source).pixels(5))
    assert bytes_of(workspace, source) == whole


def test_two_processes_make_it_once(workspace: Path) -> None:
    source = made(workspace)
    first, second = building(workspace, source.dataset.name), building(workspace, source.dataset.name)
    try:
        for process in (first, second):
            wait_for(process, "whole")
        folder = packs.folder_of(workspace) / source.name
        with pytest.raises(DojangError) as e:
            cached.drop(cached.find(workspace, source.name))
        assert e.value.code == "RUNNING" and folder.is_dir()
        assert cached.find(workspace, source.dataset.name).in_use
    finally:
        end(first)
        end(second)
    found = bytes_of(workspace, source)
    cached.drop(cached.find(workspace, source.name[:8]))
    assert not folder.exists() and not list(packs.folder_of(workspace).iterdir())
    taken(workspace, source)
    assert bytes_of(workspace, source) == found


def test_who_waits_can_leave(workspace: Path) -> None:
    source = made(workspace)
    process = building(workspace, source.dataset.name)
    try:
        wait_for(process, "0")
        os.kill(process.pid, signal.SIGSTOP)
        looks: list[tuple[int, int]] = []
        assert (
            packs.take(workspace, source, lambda done, total: bool(looks.append((done, total))) or len(looks) < 3)
            is None
        )
        assert all(total == 112 for _, total in looks)
    finally:
        end(process)


def test_no_room_is_said_before(workspace: Path, monkeypatch: Any) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 5_000_000))
    source = made(workspace)
    with pytest.raises(DojangError, match=r"need 0\.0 GB.* 0\.0 GB free") as e:
        packs.take(workspace, source, keep_on)
    assert e.value.code == "DISK_FULL" and "dojang cache" in e.value.hint


def test_an_image_that_is_gone_broken_or_another_is_named(workspace: Path) -> None:
    source = made(workspace, resize="stretch", size=32)
    path = source.dataset.image(source.items[3])
    content = path.read_bytes()
    path.unlink()
    for spoilt, code in ((None, "BAD_DATASET"), (picture_bytes(99), "DATA_CHANGED")):
        if spoilt:
            path.write_bytes(spoilt)
        with pytest.raises(DojangError, match=path.name) as e:
            packs.take(workspace, source, keep_on)
        assert e.value.code == code
    path.write_bytes(content)
    assert packs.take(workspace, source, keep_on)


def test_sets_and_versions_without_pixels_have_none(workspace: Path) -> None:
    plain = recipes.create(workspace, "set", recipes.draft(workspace, parse({"sources": "set"})))
    assert packs.source(workspace, "set") is None and packs.source(workspace, plain.name) is None


def test_read_from_several_threads(workspace: Path) -> None:
    pack = taken(workspace, made(workspace))
    expected = [pack.pixels(i).tobytes() for i in range(len(pack.entries))]
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(i for i in range(len(expected)) if pack.pixels(i).tobytes() != expected[i])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
