"""The malformed twin of every format: refused or noted in words, nothing run, and never more memory than a set needs.

Each twin is read in a process of its own whose memory is limited, so that what unfolds without end fails the test.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.datasets import add, findings, items
from engine.datasets.images import BadImage, measure
from engine.datasets.kinds import KINDS
from engine.errors import DojangError
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


def many_columns(root: Path) -> Path:
    yolo(root, {"train/good": ROW, "val/good": ROW, "train/wide": "0 " + "0.5 " * 3_500_000})
    return root


def long_lines(root: Path) -> Path:
    yolo(root)
    with (root / "train.txt").open("w") as f:
        f.writelines(["images/train/0.jpg\nimages/train/1.jpg\n", *["a/" * (1 << 20)] * 60, ".jpg\n"])
    put(root / "data.yaml", "train: [train.txt, images/train]\nval: images/val\nnames: [cat, dog]\n")
    return root


def links_upwards(root: Path) -> Path:
    yolo(root)
    for name, target in (("root", "/"), ("set", root), ("above", root.parent)):
        (root / "images/train" / name).symlink_to(target)
    put(root.parent / "stranger.jpg", image_bytes())
    return root


def labelme_values(root: Path) -> Path:
    for i in range(4):
        labelme(root / f"good{i}.json", shape("cat", (1, 1), (9, 9)))
    put(root / "wide.jpg", image_bytes())
    put(root / "wide.json", '{"imagePath": "x.jpg", "shapes": [' + "1.5," * 12_000_000 + "1]}")
    put(root / "elsewhere.json", '{"imagePath": "x.jpg", "shapes": [' + "[]," * 12_000_000 + "[]]}")
    return root


def half_characters(root: Path) -> Path:
    """JSON can say halves of characters, which nothing can store."""
    path = coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 5, 5])] for i in range(4)}, folder=root)
    found = (
        '{"image_id":"\\ud800","category_id":1,"bbox":[1,1,5,5]},{"image_id":"\\udfff","category_id":1,"iscrowd":1},'
    )
    more = '{"id":9,"file_name":"\\ud800.jpg"},{"id":10,"file_name":"../\\ud800.jpg"},'
    text = path.read_text().replace('"annotations": [', f'"annotations": [{found}')
    return put(path, text.replace('"images": [', f'"images": [{more}'))


def half_shapes(root: Path) -> Path:
    for i in range(4):
        labelme(
            root / f"{i}.json",
            shape("cat", (1, 1), (9, 9)),
            shape("\ud800", (1, 1)),
            shape("cat", (1, 1), kind="\udfff"),
        )
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
    "yolo columns": (many_columns, {"malformed"}),
    "yolo lines": (long_lines, {"too_large"}),
    "links upwards": (links_upwards, set()),
    "labelme values": (labelme_values, {"too_large"}),
    "coco, half characters": (half_characters, {"label_without_image", "bad_file_name", "outside_folder", "crowd"}),
    "labelme, half characters": (half_shapes, {"bad_class", "other_shape"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_the_malformed_twin(tmp_path: Path, name: str) -> None:
    make, expected = TWINS[name]
    code, what, said = read(tmp_path, make(tmp_path / "set"))
    if isinstance(expected, str):
        assert code == expected and str(tmp_path / "set") in what and said and len(what) < 1000
    else:
        assert code == "added" and what >= 2, (code, what, said)
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


CHECK = """
import json, sys
from pathlib import Path
from engine.datasets import doctor
found = doctor.check(Path(sys.argv[1]), "set")
print(json.dumps({f.file.rpartition("/")[2]: f.code for f in found.findings if f.file.startswith("images")}))
"""


def test_the_doctor_survives_what_files_have_become(tmp_path: Path) -> None:
    names = ("bomb", "device", "folder", "huge", "link", "pipe", "sparse", "text")
    root = yolo(tmp_path / "set", {f"train/{name}": ROW for name in names} | {"val/good": ROW})
    for n, path in enumerate(sorted((root / "images").rglob("*.jpg"))):
        put(path, picture_bytes(n))
    add(tmp_path / "workspace", root, "set")
    folder = root / "images/train"
    for name in names:
        (folder / f"{name}.jpg").unlink()
    put(folder / "bomb.jpg", png(60_000, 60_000))
    put(folder / "text.jpg", "hello")
    Image.new("RGB", (13_000, 13_000)).save(folder / "huge.jpg", "PNG")  # 500 MB once decoded
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to("link.jpg")
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "sparse.jpg").open("wb") as f:
        f.truncate(40 << 30)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path / "workspace")],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {
        "bomb.jpg": "corrupt_image", "device.jpg": "unreadable_image", "folder.jpg": "unreadable_image",
        "huge.jpg": "changed_image", "link.jpg": "unreadable_image", "pipe.jpg": "unreadable_image",
        "sparse.jpg": "unreadable_image", "text.jpg": "corrupt_image",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "what"), [("MOST_IMAGES", "images"), ("MOST_ANNOTATIONS", "annotations"), ("CLASS_LIMIT", "categories")]
)
def test_absurd_counts_in_a_coco_file_are_refused_while_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str
) -> None:
    monkeypatch.setattr(f"engine.datasets.coco.{limit}", 10)
    monkeypatch.setattr("engine.datasets.coco.BEAT", 1)
    boxes = {f"{i}.jpg": [(1, [1, 1, 5, 5])] * (30 if what == "annotations" else 1) for i in range(4)}
    if what == "images":
        boxes |= {f"more{i}.jpg": [] for i in range(10)}
    categories = {i: f"c{i}" for i in range(20 if what == "categories" else 2)}
    path = coco(tmp_path / "labels.json", boxes, categories, folder=tmp_path)
    with pytest.raises(DojangError) as error:
        add(tmp_path / "workspace", path, "set")
    assert error.value.code == "TOO_LARGE" and str(path) in error.value.message and what in error.value.message


# Anything that JSON can say, where a reader expects something else
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | st.sampled_from(["../x.jpg", "0.jpg", "cat", "\0", "polygon"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "label", "bbox", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def altered(value: Any, place: int, other: Any) -> Any:
    """`value` with its part number `place`, counted through all of it, replaced by `other`."""
    count = -1

    def go(part: Any) -> Any:
        nonlocal count
        count += 1
        if count == place:
            return other
        if isinstance(part, dict):
            return {key: go(inner) for key, inner in part.items()}
        return [go(inner) for inner in part] if isinstance(part, list) else part

    return go(value)


@given(st.sampled_from(["coco", "labelme"]), st.integers(1, 90), values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_whatever_json_says_is_read_or_refused(tmp_path: Path, format: str, place: int, other: Any) -> None:
    shutil.rmtree(tmp_path / "workspace", ignore_errors=True)
    root = tmp_path / format
    if format == "coco":
        path = coco(root / "labels.json", {f"{i}.jpg": [(1, [1, 1, 5, 5])] for i in range(4)}, folder=root)
    else:
        for i in range(4):
            path = labelme(root / f"{i}.json", shape("cat", (1, 1), (9, 9)), shape("dog", (1, 1), (5, 9)))
    put(path, json.dumps(altered(json.loads(path.read_text()), place, other)))
    survives(tmp_path, root)


DAMAGE = (
    b"\0",
    b"\xff",
    b'"',
    b"<",
    b"&a",
    b"*a",
    b"[",
    b"{",
    b",",
    b"\n",
    b"-1",
    b"1e999",
    b"nan",
    b"../",
    b": ",
    b"\t",
    b"<<: ",
    b"1:30",
    b"",
)


@given(
    st.sampled_from(["yolo", "voc", "csv"]),
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5), st.sampled_from(DAMAGE)), min_size=1, max_size=4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_damage_to_a_text_goes_further_than_its_finding(
    tmp_path: Path, format: str, which: int, damage: list[tuple[int, int, bytes]]
) -> None:
    for path in tmp_path.iterdir():
        shutil.rmtree(path)
    root = tmp_path / format
    if format == "yolo":
        yolo(root)
    elif format == "voc":
        voc(root, {f"i{i}": xml([CAT]) for i in range(4)}, {"train": ["i0", "i1"], "val": ["i2"]})
    else:
        for i in range(4):
            put(root / f"{i}.jpg", image_bytes())
        put(
            root / "labels.csv",
            "path,label,split\n" + "".join(f"{i}.jpg,{'ab'[i % 2]},{'train' if i < 2 else 'val'}\n" for i in range(4)),
        )
    texts = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".xml", ".csv", ".yaml"))
    path = texts[which % len(texts)]
    data = bytearray(path.read_bytes())
    for at, length, new in damage:
        data[at % (len(data) + 1) : at % (len(data) + 1) + length] = new
    put(path, bytes(data))
    survives(tmp_path, root)


def survives(tmp_path: Path, root: Path) -> None:
    """Registering ends in a set whose boxes are boxes, or in an error in words; all of it can be stored and shown."""
    workspace = tmp_path / "workspace"
    try:
        found = add(workspace, root, "set")
    except DojangError as e:
        assert e.message.encode() and len(e.message) < 2000 and e.hint.encode()
        return
    for finding in findings(workspace, "set"):
        assert finding.message.encode() and len(finding.message) < 1000 and finding.code in KINDS
    for item in items(workspace, "set"):
        assert all(0 <= box.cls < len(found.classes) and 0 < box.w < 1.1 and 0 < box.h < 1.1 for box in item.boxes)
