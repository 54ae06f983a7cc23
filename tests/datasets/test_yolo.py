"""Ultralytics folders as they are found in the wild, through `add`."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import Dataset, Finding, Item
from engine.errors import DojangError
from tests.datasets.make import image_bytes, put, yolo

NAMES = "names: [cat, dog]\n"
ROW = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def add(workspace: Path, path: Path) -> tuple[Dataset, dict[str, Item], list[Finding]]:
    dataset = datasets.add(workspace, path, "set")
    items = {item.path: item for item in datasets.items(workspace, "set")}
    return dataset, items, datasets.findings(workspace, "set")


def where(found: list[Finding]) -> set[tuple[str, str, int | None]]:
    return {(finding.code, finding.file, finding.object) for finding in found}


def test_the_usual_layout(workspace: Path, tmp_path: Path) -> None:
    dataset, items, found = add(workspace, yolo(tmp_path / "set"))
    assert (dataset.format, dataset.classes, dataset.split_source) == ("yolo", ("cat", "dog"), "existing")
    assert dataset.split == {"from": "data.yaml"}
    assert {s: c.images for s, c in dataset.counts.per_split.items()} == {"train": 4, "val": 1, "test": 0}
    item = items["images/val/9.jpg"]
    assert (item.split, item.width, item.height, item.labelled) == ("val", 40, 30, True)
    assert item.boxes == ((1, 0.5, 0.5, 0.5, 0.5),)
    assert dataset.image(item).is_file() and item.bytes == dataset.image(item).stat().st_size
    assert not found


def test_the_yaml_itself_may_be_named_and_may_point_elsewhere(workspace: Path, tmp_path: Path) -> None:
    yolo(tmp_path / "sets" / "x")
    path = put(tmp_path / "cfg" / "my.yaml", "path: ../sets/x\ntrain: images/train\nval: images/val\n" + NAMES)
    dataset, items, _ = add(workspace, path)
    assert dataset.root == tmp_path / "sets" / "x"
    assert "images/train/0.jpg" in items


def test_a_path_left_behind_by_a_move_falls_back_to_the_folder(workspace: Path, tmp_path: Path) -> None:
    text = "path: /nowhere/at/all\ntrain: ../images/train\nval: ../images/val\n" + NAMES
    assert add(workspace, yolo(tmp_path / "set", yaml=text))[0].counts.images == 5


def test_images_outside_the_root_keep_their_absolute_path(workspace: Path, tmp_path: Path) -> None:
    yolo(tmp_path / "other")
    text = f"train: {tmp_path}/other/images/train\nval: ../other/images/val\n" + NAMES
    path = put(tmp_path / "set" / "data.yaml", text)
    dataset, items, _ = add(workspace, path)
    assert str(tmp_path / "other/images/val/9.jpg") in items
    assert all(dataset.image(item).is_file() and item.labelled for item in items.values())


def test_lists_of_folders_and_txt_lists(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", {f"{part}/{i}": ROW for part in "abc" for i in range(2)})
    put(root / "lists" / "val.txt", "./../images/c/0.jpg\n\nimages/c/1.jpg\nimages/c/gone.jpg\nnotes.md\n")
    put(root / "data.yaml", "train: [images/a, images/b]\nval: lists/val.txt\n" + NAMES)
    dataset, items, found = add(workspace, root)
    assert {path for path, item in items.items() if item.split == "val"} == {"images/c/0.jpg", "images/c/1.jpg"}
    assert dataset.counts.per_split["train"].images == 4
    assert where(found) == {("missing_image", "images/c/gone.jpg", None), ("bad_list", "lists/val.txt", None)}


def test_labels_beside_the_images(workspace: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split in ("train", "valid"):
        for i in range(2):
            put(root / split / f"{i}.jpg", image_bytes())
            put(root / split / f"{i}.txt", ROW)
    put(root / "data.yaml", "train: train\nval: valid\n" + NAMES)
    assert add(workspace, root)[0].counts.labelled == 4


def test_only_the_last_images_folder_is_swapped(workspace: Path, tmp_path: Path) -> None:
    dataset, _, _ = add(workspace, yolo(tmp_path / "images" / "set"))
    assert dataset.counts.labelled == 5


@pytest.mark.parametrize("val", ["", "val: images/val\n", "val: images/train\n", "val: [images/train]\n"])
def test_a_split_is_made_when_val_is_missing_or_is_train(workspace: Path, tmp_path: Path, val: str) -> None:
    root = yolo(tmp_path / "set", {f"train/{i:02d}": ROW for i in range(20)}, "train: images/train\n" + val + NAMES)
    dataset, items, _ = add(workspace, root)
    assert dataset.split_source == "made" and dataset.split == {"ratios": [80.0, 10.0, 10.0], "seed": 0}
    assert [c.images for c in dataset.counts.per_split.values()] == [16, 2, 2]
    assert len(items) == 20


def test_an_existing_test_split_is_kept_when_the_rest_is_divided(workspace: Path, tmp_path: Path) -> None:
    rows = {f"train/{i:02d}": ROW for i in range(18)} | {f"test/{i}": ROW for i in range(3)}
    root = yolo(tmp_path / "set", rows, "train: images/train\ntest: images/test\n" + NAMES)
    dataset, items, _ = add(workspace, root)
    assert [c.images for c in dataset.counts.per_split.values()] == [16, 2, 3]
    assert all(item.split == "test" for path, item in items.items() if path.startswith("images/test"))
    assert dataset.split["test_from"] == "data.yaml"


def test_an_image_in_two_splits_judges_and_does_not_teach(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", yaml="train: [images/train, images/val]\nval: images/val\n" + NAMES)
    _, items, found = add(workspace, root)
    assert items["images/val/9.jpg"].split == "val"
    assert where(found) == {("in_two_splits", "images/val/9.jpg", None)}


def test_test_that_repeats_val_is_no_test(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", yaml="train: images/train\nval: images/val\ntest: images/val\n" + NAMES)
    dataset, _, found = add(workspace, root)
    assert [c.images for c in dataset.counts.per_split.values()] == [4, 1, 0]
    assert where(found) == {("test_is_val", "data.yaml", None)}


def test_defects_are_left_out_and_named(workspace: Path, tmp_path: Path) -> None:
    rows: dict[str, str | None] = {
        "train/good": ROW,
        "train/bad": ROW + "7 0.5 0.5 0.2 0.2\n" + "1 0.5 0.5 0 0\n" + "0 0.5 1.7 0.2 0.2\n" + ROW,
        "train/bare": None,
        "train/empty": "",
        "train/zip": ROW,
        "train/utf16": ROW,
        "val/9": ROW,
    }
    root = yolo(tmp_path / "set", rows)
    put(root / "images/train/zip.jpg", b"PK\3\4 not an image")
    put(root / "labels/train/utf16.txt", ROW.encode("utf-16"))
    put(root / "labels/train/lonely.txt", ROW)
    put(root / "labels/train/classes.txt", "cat\ndog\n")
    dataset, items, found = add(workspace, root)
    assert where(found) == {
        ("bad_class", "labels/train/bad.txt", 2),
        ("zero_area", "labels/train/bad.txt", 3),
        ("out_of_range", "labels/train/bad.txt", 4),
        ("duplicate", "labels/train/bad.txt", 5),
        ("no_label", "images/train/bare.jpg", None),
        ("corrupt_image", "images/train/zip.jpg", None),
        ("bad_encoding", "labels/train/utf16.txt", None),
        ("label_without_image", "labels/train/lonely.txt", None),
    }
    assert dataset.findings == {"error": 5, "warning": 2, "info": 1}
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["error", "warning", "info"].index)
    assert set(items) == {f"images/{key}.jpg" for key in rows} - {"images/train/zip.jpg", "images/train/utf16.jpg"}
    assert len(items["images/train/bad.jpg"].boxes) == 1
    assert items["images/train/empty.jpg"].labelled and not items["images/train/bare.jpg"].labelled
    assert (dataset.counts.images, dataset.counts.labelled, dataset.counts.unlabelled) == (5, 4, 1)


def test_objects_that_cannot_be_read_do_not_make_an_image_background(workspace: Path, tmp_path: Path) -> None:
    rows = {"train/a": ROW, "train/b": "9 0.5 0.5 0.2 0.2\n", "val/c": ROW}
    _, items, _ = add(workspace, yolo(tmp_path / "set", rows))
    assert not items["images/train/b.jpg"].labelled


def test_links_pipes_and_hidden_files_do_no_harm(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    folder = root / "images/train"
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    (root / "labels/train/0.txt").unlink()
    (root / "labels/train/0.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    put(folder / "._0.jpg", b"resource fork")
    dataset, items, found = add(workspace, root)
    assert set(items) == {f"images/train/{i}.jpg" for i in (1, 2, 3)} | {"images/val/9.jpg"}
    assert where(found) == {
        ("missing_image", "images/train/dangling.jpg", None),
        ("unreadable_image", "images/train/pipe.jpg", None),
        ("unreadable", "labels/train/0.txt", None),
    }
    assert dataset.counts.images == 4


def test_a_linked_image_folder_finds_its_labels(workspace: Path, tmp_path: Path) -> None:
    real = yolo(tmp_path / "real")
    root = tmp_path / "set"
    root.mkdir()
    (root / "train").symlink_to(real / "images/train")
    (root / "val").symlink_to(real / "images/val")
    put(root / "data.yaml", "train: train\nval: val\n" + NAMES)
    assert add(workspace, root)[0].counts.labelled == 5


def test_names_in_either_unicode_form_meet(workspace: Path, tmp_path: Path) -> None:
    composed, apart = "가나.jpg", unicodedata.normalize("NFD", "다라.jpg")
    root = tmp_path / "set"
    for name in (composed, apart):
        put(root / "images" / name, image_bytes())
    put(root / "labels" / unicodedata.normalize("NFD", "가나.txt"), ROW)
    put(root / "labels" / "다라.txt", ROW)
    put(root / "train.txt", "./images/다라.jpg\n")
    put(root / "val.txt", unicodedata.normalize("NFD", "./images/가나.jpg\n"))
    put(root / "data.yaml", "train: train.txt\nval: val.txt\n" + NAMES)
    dataset, _, found = add(workspace, root)
    assert dataset.counts.labelled == 2 and not found


def test_a_file_name_that_is_not_utf8_is_reported(workspace: Path, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    with open(os.fsencode(root / "images/train") + b"/\xb0\xa1.jpg", "wb") as f:
        f.write(image_bytes())
    _, items, found = add(workspace, root)
    assert len(items) == 5 and [finding.code for finding in found] == ["bad_file_name"]


def test_nothing_in_the_yaml_is_run_or_fetched(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    script = f"download: |\n  open({str(tmp_path / 'ran')!r}, 'w')\n"
    root = yolo(tmp_path / "set", yaml="train: images/train\nval: missing\n" + NAMES + script)
    dataset, _, found = add(workspace, root)
    assert not (tmp_path / "ran").exists()
    assert dataset.split_source == "made" and where(found) == {("missing_split", "data.yaml", None)}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("train: nowhere\nnames: [a]", "NO_IMAGES"),
        ("train: labels\nnames: [a]", "NO_IMAGES"),
        ("train: /etc/passwd\nnames: [a]", "NO_IMAGES"),
        ("train: images/train\nval: images/val\nnames: [only, three, classes]\nnc: 4", "BAD_DATA_YAML"),
    ],
)
def test_a_yaml_that_leads_nowhere(workspace: Path, tmp_path: Path, text: str, code: str) -> None:
    root = yolo(tmp_path / "set", yaml=text)
    with pytest.raises(DojangError) as error:
        add(workspace, root)
    assert error.value.code == code and error.value.hint
    assert not workspace.exists() or not list((workspace / "datasets").iterdir())


def test_a_set_without_anything_usable_says_why(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(DojangError) as error:
        add(workspace, yolo(tmp_path / "a", {"train/0": None, "val/0": ""}))
    assert error.value.code == "NO_LABELS"
    root = yolo(tmp_path / "b", {"train/0": ROW, "val/0": ROW})
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DojangError) as error:
        add(workspace, root)
    assert error.value.code == "NO_IMAGES" and "images/train/0.jpg: The image file is empty" in error.value.hint


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("images/*/train", "ab"),
        ("images/**/train", "abd"),
        ("images/?/train/*.jpg", "ab"),
        ("images/**", "abcd"),
        ("**/train/a.jpg", "a"),
        ("./images/a/tr*", "a"),
        ("images/[ab]/train", "ab"),
        ("images/[!b]/train", "a"),
        ("images/[a-b]/tr?in", "ab"),
        ("images/[z-a]/train", ""),
        ("images/[^b]/train", "b"),
        ("../set/images/*/train", ""),
        ("/*/*", ""),
        ("images/*a*a*a*a*a*a*a*a*a*b", ""),
    ],
)
def test_patterns(workspace: Path, tmp_path: Path, pattern: str, found: str) -> None:
    rows = {"a/train/a": ROW, "b/train/b": ROW, "b/other/c": ROW, "c/deep/train/d": ROW, "val/e": ROW}
    root = yolo(tmp_path / "set", rows, f"train: ['{pattern}', images/val]\nval: images/val\n{NAMES}")  # type: ignore[arg-type]
    (root / "round").symlink_to(root)
    _, items, notes = add(workspace, root)
    assert "".join(sorted(Path(path).stem for path in items if not path.startswith("images/val"))) == found.replace(
        "e", ""
    )
    assert ("missing_split", "data.yaml", None) in where(notes) or found
