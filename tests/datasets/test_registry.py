"""The workspace's register: names, storage, two at once, broken entries, cancelling, and never touching the source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import store
from engine.errors import DojangError, NotFound
from tests.datasets.make import image_bytes, put, snapshot, yolo


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return yolo(tmp_path / "pets")


def code(workspace: Path, path: Path | str, name: str | None = None) -> str:
    with pytest.raises(DojangError) as error:
        datasets.add(workspace, path, name)
    assert error.value.hint, "an error says what to do"
    return error.value.code


def test_what_is_stored_is_what_was_read(workspace: Path, root: Path) -> None:
    rows = "0 0.1234567890123456 0.30000000000000004 1e-07 0.5\n1 0.5 0.5 0 0\n"
    put(root / "labels/train/0.txt", rows)
    added = datasets.add(workspace, root)
    assert added.name == "pets"
    assert datasets.load(workspace, "pets") == added
    assert datasets.list_datasets(workspace) == [added]
    box = next(item for item in datasets.items(workspace, "pets") if item.path.endswith("train/0.jpg")).boxes[0]
    assert box == (0, 0.1234567890123456, 0.30000000000000004, 1e-07, 0.5)
    (finding,) = datasets.findings(workspace, "pets")
    assert (finding.severity, finding.code, finding.object) == ("error", "zero_area", 2)
    assert sorted(p.name for p in (workspace / "datasets/pets").iterdir()) == [
        "dataset.toml", "findings.json", "items.bin",
    ]  # fmt: skip


def test_json_for_scripts(workspace: Path, root: Path) -> None:
    data = json.loads(json.dumps(datasets.add(workspace, root).to_json()))
    assert data["root"] == str(root) and data["format"] == "yolo" and data["task"] == "detect"
    assert (data["images"], data["labelled"], data["unlabelled"], data["labels"]) == (5, 5, 0, 5)
    assert data["per_class"] == {"cat": 4, "dog": 1}
    assert data["per_split"]["val"] == {"images": 1, "labelled": 1, "labels": 1, "per_class": {"cat": 0, "dog": 1}}
    assert data["findings"] == {"error": 0, "warning": 0, "info": 0}


def test_the_hash_is_of_the_content_alone(workspace: Path, root: Path, tmp_path: Path) -> None:
    first = datasets.add(workspace, root, "a")
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "moved")
    assert datasets.add(workspace, moved, "b").hash == first.hash
    put(moved / "labels/val/9.txt", "1 0.5 0.5 0.5 0.51\n")
    assert datasets.add(workspace, moved, "c").hash != first.hash
    put(moved / "labels/val/9.txt", "1 0.5 0.5 0.5 0.5\n")
    put(moved / "images/val/9.jpg", image_bytes() + b"\0")
    assert datasets.add(workspace, moved, "d").hash != first.hash


def test_one_folder_may_have_two_names_and_one_name_only_one_folder(workspace: Path, root: Path) -> None:
    datasets.add(workspace, root, "a")
    datasets.add(workspace, root, "b")
    assert [dataset.name for dataset in datasets.list_datasets(workspace)] == ["a", "b"]
    with pytest.raises(DojangError, match="--name") as error:
        datasets.add(workspace, root, "a")
    assert error.value.code == "EXISTS"


@pytest.mark.parametrize("name", ["a", "고양이_v2.1", "Ünïcode", "हिन्दी", "0", "_x", "x" * 64])
def test_good_names(name: str) -> None:
    assert datasets.check_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", ".hidden", "-flag", "a/b", "../up", "a b", "a\nb", "a\0b", "x" * 65, "[red]", "a\\b"]
)
def test_bad_names(workspace: Path, root: Path, name: str) -> None:
    assert code(workspace, root, name) == "BAD_NAME"
    with pytest.raises(NotFound):
        datasets.load(workspace, name)


def test_a_korean_name_is_found_in_either_form(workspace: Path, tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "강아지")
    added = datasets.add(workspace, yolo(tmp_path / apart))
    assert added.name == "강아지"
    assert datasets.load(workspace, apart) == datasets.load(workspace, "강아지") == added
    assert (workspace / "datasets" / "강아지").is_dir()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Pets (2)", "My-Pets--2"), (".hidden", "hidden"), ("---", "dataset"), ("x" * 80, "x" * 64), ("a+b", "a-b")],
)
def test_the_name_comes_from_the_folder(folder: str, name: str) -> None:
    assert datasets.default_name(Path("/data") / folder) == name
    assert datasets.default_name(Path("/data") / folder / "data.yaml") == name
    assert datasets.check_name(name) == name


def test_not_a_dataset(workspace: Path, tmp_path: Path) -> None:
    assert code(workspace, tmp_path / "none") == "NOT_FOUND"
    assert code(workspace, "nul\0byte") == "NOT_FOUND"
    assert code(workspace, "x" * 5000) == "UNREADABLE"
    (tmp_path / "empty").mkdir()
    assert code(workspace, tmp_path / "empty") == "NOT_A_DATASET"
    assert code(workspace, put(tmp_path / "notes" / "readme.txt", "hello")) == "NOT_A_DATASET"
    assert code(workspace, tmp_path / "notes") == "NOT_A_DATASET"
    put(tmp_path / "two" / "a.yaml", "a: b")
    put(tmp_path / "two" / "b.yaml", "a: b")
    assert code(workspace, tmp_path / "two") == "AMBIGUOUS"
    (tmp_path / "voc" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "voc" / "Annotations").mkdir()
    assert code(workspace, tmp_path / "voc") == "NO_IMAGES"
    assert not workspace.exists()


def test_a_dataset_one_level_down_is_pointed_out(workspace: Path, tmp_path: Path) -> None:
    inner = yolo(tmp_path / "archive" / "pets")
    with pytest.raises(DojangError) as error:
        datasets.add(workspace, tmp_path / "archive")
    assert str(inner) in error.value.hint


def test_a_folder_whose_name_is_not_utf8(workspace: Path, tmp_path: Path, root: Path) -> None:
    other = os.fsdecode(os.fsencode(tmp_path) + b"/\xb0\xa1")
    os.rename(root, other)
    assert code(workspace, other) == "BAD_PATH"


def test_the_folder_of_the_user_is_not_touched(workspace: Path, root: Path) -> None:
    put(root / "images/train/cut.jpg", image_bytes()[:-40])
    for path in sorted(root.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root.chmod(0o555)
    before = snapshot(root)
    try:
        added = datasets.add(workspace, root)
        assert datasets.verify(workspace, added.name) == []
        datasets.remove(workspace, added.name)
        assert snapshot(root) == before
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)


def test_two_at_once_one_wins(workspace: Path, root: Path) -> None:
    start, outcomes = threading.Barrier(6), []

    def run() -> None:
        start.wait()
        try:
            datasets.add(workspace, root, "same", progress=lambda done, total: time.sleep(0.01))
            outcomes.append("added")
        except DojangError as e:
            outcomes.append(e.code)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["EXISTS"] * 5 + ["added"]
    assert [p.name for p in (workspace / "datasets").iterdir()] == ["same"]
    assert len(datasets.items(workspace, "same")) == 5


def test_cancelling_leaves_nothing(workspace: Path, root: Path) -> None:
    class Cancelled(Exception):
        pass

    def progress(done: int, total: int) -> None:
        assert (done, total) == (5, 5)
        raise Cancelled

    with pytest.raises(Cancelled):
        datasets.add(workspace, root, progress=progress)
    assert not workspace.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dojang-scan")]


def test_progress_reaches_the_total(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", {f"train/{i:03d}": "0 0.5 0.5 0.2 0.2\n" for i in range(100)})
    seen: list[tuple[int, int]] = []
    datasets.add(workspace, root, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (100, 100) and len(seen) > 2


def test_a_broken_entry_does_not_hide_the_others(workspace: Path, root: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        datasets.add(workspace, root, name)
    home = workspace / "datasets"
    put(home / "b/dataset.toml", "name = [unclosed")
    put(home / "c/dataset.toml", 'name = "c"\n')
    put(home / "d/dataset.toml", (home / "d/dataset.toml").read_text().replace("version = 2", "version = 99"))
    (home / "e/dataset.toml").unlink()
    put(home / "notes.txt", "mine")
    assert [dataset.name for dataset in datasets.list_datasets(workspace)] == ["a"]
    assert [name for name, _ in datasets.broken(workspace)] == ["b", "c", "d", "e", "notes.txt"]
    for name in "bcde":
        with pytest.raises(DojangError):
            datasets.load(workspace, name)
        datasets.remove(workspace, name)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "json", "gone", "version"])
def test_a_damaged_index_is_an_error_in_words(workspace: Path, root: Path, damage: str) -> None:
    datasets.add(workspace, root)
    path = workspace / "datasets/pets/items.bin"
    data = path.read_bytes()
    flipped = bytes([data[-9] ^ 1])
    damaged = {
        "cut": data[:-8],
        "flip": data[:-9] + flipped + data[-8:],
        "empty": b"",
        "json": b'{"version":1,"items":[["x"]]}',
        "version": data.replace(b'"version": 2', b'"version": 9'),
    }
    path.unlink() if damage == "gone" else put(path, damaged[damage])
    with pytest.raises(DojangError) as error:
        datasets.items(workspace, "pets")
    assert error.value.code == "BAD_FILE" and error.value.hint


def test_remove_forgets_the_dataset_and_nothing_else(workspace: Path, root: Path) -> None:
    before = snapshot(root)
    datasets.add(workspace, root)
    datasets.remove(workspace, "pets")
    assert datasets.list_datasets(workspace) == [] and snapshot(root) == before
    assert list((workspace / "datasets").iterdir()) == []
    with pytest.raises(NotFound, match="no dataset named pets"):
        datasets.remove(workspace, "pets")


def test_verify_names_what_has_gone(workspace: Path, root: Path) -> None:
    datasets.add(workspace, root)
    assert datasets.verify(workspace, "pets") == []
    (root / "images/train/2.jpg").unlink()
    assert datasets.verify(workspace, "pets") == ["images/train/2.jpg"]
    root.rename(root.with_name("gone"))
    with pytest.raises(DojangError) as error:
        datasets.verify(workspace, "pets")
    assert error.value.code == "DATASET_GONE" and str(root) in error.value.message


def test_a_workspace_that_cannot_be_written_is_an_error_in_words(root: Path, tmp_path: Path) -> None:
    file = put(tmp_path / "file", "")
    with pytest.raises(DojangError) as error:
        datasets.add(file / "workspace", root)
    assert error.value.code in ("WRITE_FAILED", "READ_ONLY")


def test_a_full_disk_leaves_no_half_dataset(workspace: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DojangError("No space left.", code="DISK_FULL", hint="Free some.")

    monkeypatch.setattr(store, "write_toml", full)
    assert code(workspace, root) == "DISK_FULL"
    assert list((workspace / "datasets").iterdir()) == []


def test_listing_dozens_is_quick(workspace: Path, root: Path) -> None:
    datasets.add(workspace, root, "first")
    for i in range(50):
        shutil.copytree(workspace / "datasets/first", workspace / f"datasets/copy{i}")
    start = time.perf_counter()
    assert len(datasets.list_datasets(workspace)) == 51
    assert time.perf_counter() - start < 0.25


def test_importing_and_listing_stay_light() -> None:
    script = (
        "import sys; from pathlib import Path; from engine import datasets; datasets.list_datasets(Path('/nowhere'));"
        "print([m for m in ('torch','cv2','numpy','PIL','yaml','ultralytics','pydantic') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
