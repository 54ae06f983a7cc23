"""The malformed twin of every format: refused or noted in words, nothing run, and never more memory than a set needs.

Each twin is read in a process of its own whose memory is limited, so that what unfolds without end fails the test.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.datasets.images import BadImage, measure
from tests.datasets.make import coco, folders, image_bytes, labelme, picture_bytes, put, shape, voc, xml, yolo

MEMORY = 1200 << 20  # bytes of address space; Python with Pillow and its threads takes about 600 MB of that
SCRIPT = """
import json, sys
from pathlib import Path
from engine import datasets
from engine.errors import DojangError
try:
    found = datasets.add(Path(sys.argv[1]), sys.argv[2], "set")
    codes = sorted({f.code for f in datasets.findings(Path(sys.argv[1]), "set")})
    print(json.dumps(["added", found.counts.images, codes]))
except DojangError as e:
    print(json.dumps([e.code, e.message, e.hint]))
"""
CAT = ("cat", (4, 3, 20, 18))
ROW = "0 0.5 0.5 0.2 0.2\n"
PWNED = "pwned"


def read(tmp_path: Path, path: Path) -> list:
    """What registering `path` comes to: ["added", images, codes of findings] or [code, message, hint] of the error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "workspace"), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / PWNED).exists() and not Path(PWNED).exists()
    found: list = json.loads(done.stdout)
    return found


def png(width: int, height: int, *more: bytes) -> bytes:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")


def images(root: Path) -> Path:
    """Images that are none, or too much."""
    folder = root / "images/train"
    put(folder / "empty.jpg", b"")
    put(folder / "text.png", "hello")
    put(folder / "bomb.png", png(60_000, 60_000))
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (80 << 20), zip=True)
    out = io.BytesIO()
    Image.new("RGB", (20, 20)).save(out, "PNG", pnginfo=info)
    put(folder / "text_bomb.png", out.getvalue())
    put(
        folder / "huge.jpg",
        image_bytes()[:159] + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9",
    )
    put(folder / "tags.tif", b"II*\0\x08\0\0\0\xff\xff" + b"\x00\x01\x04\x00\xff\xff\xff\xff\x08\0\0\0" * 500)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "round").symlink_to(root)
    (folder / "device.jpg").symlink_to("/dev/zero")
    with (folder / "sparse.bmp").open("wb") as f:
        f.write(b"BM" + b"\0" * 60)
        f.truncate(40 << 30)
    return root


def yolo_labels(root: Path) -> Path:
    names = ("binary", "many", "lines", "sparse", "folder", "loop", "pipe", "utf16")
    yolo(root, {f"train/{name}": "" for name in names} | {"train/good": ROW, "val/good": ROW})
    folder = root / "labels/train"
    put(folder / "binary.txt", os.urandom(5000))
    put(folder / "many.txt", ROW * 200_000)
    put(folder / "lines.txt", "0\n" * 4_000_000)
    with (folder / "sparse.txt").open("wb") as f:
        f.truncate(40 << 30)
    put(folder / "utf16.txt", ROW.encode("utf-16"))
    for name in ("folder", "loop", "pipe"):
        (folder / f"{name}.txt").unlink()
    (folder / "folder.txt").mkdir()
    (folder / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(folder / "pipe.txt")
    return root


def yolo_lists(root: Path) -> Path:
    put(root.parent / "secret.jpg", image_bytes())
    lines = [
        "../secret.jpg",
        "./../secret.jpg",
        "images/train/../../../secret.jpg",
        "\0.jpg",
        "x" * 5000 + ".jpg",
        "/dev/zero.jpg",
    ]
    put(yolo(root) / "train.txt", "".join(f"{line}\n" for line in [*lines, "images/train/0.jpg", "images/train/1.jpg"]))
    put(root / "data.yaml", "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    return root


def yaml(text: str) -> Callable[[Path], Path]:
    return lambda root: yolo(root, yaml=text)


def voc_lists(root: Path) -> Path:
    put(root.parent / "secret.jpg", image_bytes())
    stems = ["../../secret", "/etc/passwd", "\0", "i0", "i1"]
    return voc(root, {f"i{i}": xml([CAT]) for i in range(4)}, {"train": stems, "val": ["i2", "i3"]})


def voc_annotations(root: Path) -> Path:
    bad: dict[str, str | None] = {
        "laughs": '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "' + "&a;" * 9 + '">]><annotation>&b;</annotation>',
        "outside": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "deep": "<annotation>" + "<a>" * 200_000,
        "many": "<annotation>" + "<object/>" * 1_500_000 + "</annotation>",
        "long": "<annotation><object><name>" + "x" * (12 << 20) + "</name></object></annotation>",
        "broken": "<annotation><object>",
        "empty": "",
    }
    return voc(root, {f"i{i}": xml([CAT]) for i in range(4)} | bad)


def coco_bomb(*tail: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 5, 5])] for i in range(4)}, folder=root)
        return put(path, path.read_text()[:-1] + "".join(tail))

    return make


def coco_many(root: Path) -> Path:
    path = coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 5, 5])] for i in range(4)}, folder=root)
    more = ',{"image_id":0,"category_id":1,"bbox":[1,1,5,5]}' * 300_000 + ",{}" * 300_000
    return put(path, path.read_text().replace('], "categories"', more + '], "categories"'))


def labelme_bombs(root: Path) -> Path:
    for i in range(4):
        labelme(root / f"good{i}.json", shape("cat", (1, 1), (9, 9)))
    tails = {
        "flat": "[" + "[]," * 4_000_000 + "[]]", "deep": "[" * 500_000, "number": "[" + "9" * 2_000_000 + "]",
        "shapes": "[" + '{"label":"a"},' * 200_000 + "{}]", "none": "null", "image": '[], "imageData": "' + "A" * (20 << 20) + '"',
    }  # fmt: skip
    for name, tail in tails.items():
        put(root / f"{name}.jpg", image_bytes())
        put(root / f"{name}.json", '{"imagePath": "x.jpg", "shapes": ' + tail + ("}" if name != "deep" else ""))
    return root


def csv_lines(root: Path) -> Path:
    for i in range(4):
        put(root / f"{i}.jpg", image_bytes())
    lines = [
        "../secret.jpg,cat",
        "\0.jpg,cat",
        "4.jpg," + "x" * 100_000,
        ",,,",
        "5.jpg",
        '"quoted',
        *(["0.jpg,cat"] * 100_000),
    ]
    return put(
        root / "labels.csv", "".join(f"{i}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(4)) + "\n".join(lines)
    )


def class_folders(root: Path) -> Path:
    folders(root, {"cat": 3, "dog": 3, "x" * 201: 1})
    (root / "cat/again").symlink_to(root)
    (root / "dog/up").symlink_to("/")
    (root / "dog/up").unlink()
    os.mkfifo(root / "dog/pipe.png")
    os.mkdir(os.fsencode(root) + b"/\xff")
    put(root / "dog/empty.jpg", b"")
    return root


TWINS: dict[str, tuple[Callable[[Path], Path], set[str] | str]] = {
    "images": (lambda root: images(yolo(root)), {
        "empty_image", "corrupt_image", "large_image", "unreadable_image", "no_label",
    }),
    "yolo labels": (yolo_labels, {"bad_encoding", "too_large", "unreadable", "no_label"}),
    "yolo lists": (yolo_lists, {"missing_image", "outside_folder", "unreadable_image"}),
    "yaml that runs": (yaml(f"train: !!python/object/apply:os.system ['touch {PWNED}']\nnames: [a]"), "BAD_DATA_YAML"),
    "yaml that laughs": (yaml("a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n"
        for p, c in zip("abcdefghij", "bcdefghijk", strict=True)) + "train: images\nnames: *k"), "BAD_DATA_YAML"),
    "yaml that is deep": (yaml("train: " + "[" * 100_000), "BAD_DATA_YAML"),
    "voc lists": (voc_lists, {"missing_image"}),
    "voc annotations": (voc_annotations, {"unsafe_xml", "bad_xml", "too_large", "bad_class"}),
    "coco, deep": (coco_bomb(', "more": ' + "[" * 1_000_000), "BAD_COCO"),
    "coco, one value": (coco_bomb(', "more": "' + "x" * (40 << 20) + '"}'), "BAD_COCO"),
    "coco, cut": (coco_bomb(', "images": ['), "BAD_COCO"),
    "coco, many": (coco_many, {"too_large", "malformed", "many_defects"}),
    "labelme": (labelme_bombs, {"bad_json", "bad_labelme", "too_large", "size_mismatch"}),
    "csv": (csv_lines, "BAD_TABLE"),
    "folders": (class_folders, {"empty_image", "unreadable_image", "bad_class", "no_label"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_the_malformed_twin(tmp_path: Path, name: str) -> None:
    make, expected = TWINS[name]
    code, what, said = read(tmp_path, make(tmp_path / "set"))
    if isinstance(expected, str):
        assert code == expected and str(tmp_path / "set") in what and said and len(what) < 1000
    else:
        assert code == "added" and what >= 2
        assert set(said) <= expected, "nothing else is wrong"
        assert len(said) >= len(expected) - 1, said


@given(
    st.sampled_from(["JPEG", "PNG", "BMP", "WEBP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=6)), max_size=4),
    st.integers(0, 4000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_no_damage_to_an_image_goes_further_than_its_finding(
    tmp_path: Path, kind: str, damage: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(picture_bytes(1, kind=kind))
    for at, changed in damage:
        data[at : at + len(changed)] = changed
    path = put(tmp_path / "a.jpg", bytes(data[: len(data) - cut]))
    try:
        assert measure(str(path)).width >= 10
    except BadImage as e:
        assert len(e.message) < 300
