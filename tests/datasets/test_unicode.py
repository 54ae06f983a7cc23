"""Names in Hangul: macOS hands them out taken apart, lists have them composed, and both are the same names."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import datasets
from engine.datasets import doctor
from engine.datasets.model import Item
from tests.datasets.make import coco, folders, labelme, picture_bytes, put, shape, voc, xml, yolo

CAT = ("강아지", (4, 3, 20, 18))
ROW = "0 0.5 0.5 0.2 0.2\n"
NAMES = ("가나", "각도", "힣")
Say = Callable[[str], str]


def apart(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def as_yolo(root: Path, file: Say, said: Say) -> Path:
    yolo(root, {f"{file('학습')}/{file(n)}": ROW for n in NAMES} | {f"{file('검증')}/{file('라')}": ROW})
    put(root / "val.txt", f"images/{said('검증')}/{said('라')}.jpg\n")
    return put(root / "data.yaml", f"train: images/{said('학습')}\nval: val.txt\nnames: [{said('강아지')}]\n")


def as_voc(root: Path, file: Say, said: Say) -> Path:
    text = xml([(said(CAT[0]), CAT[1])])
    root = voc(root, {file(n): None for n in (*NAMES, "라")}, {"train": list(map(said, NAMES)), "val": [said("라")]})
    for name in (*NAMES, "라"):
        put(root / "Annotations" / f"{said(name)}.xml", text)
    return root


def as_coco(root: Path, file: Say, said: Say) -> Path:
    for split, names in (("train", NAMES), ("val", ("라",))):
        found = {f"{said(n)}.jpg": [(1, [4, 3, 16, 15])] for n in names}
        coco(root / f"{split}.json", found, {1: said("강아지")})
        for name in names:
            put(root / "images" / f"{file(name)}.jpg", picture_bytes(1, (40, 30)))
    return root


def as_labelme(root: Path, file: Say, said: Say) -> Path:
    for split, names in (("학습", NAMES), ("검증", ("라",))):
        for name in names:
            put(root / file(split) / f"{file(name)}.jpg", picture_bytes(1, (40, 30)))
            where = root / file(split) / f"note-{name}.json"
            labelme(where, shape(said("강아지"), (4, 3), (20, 18)), image=f"{said(name)}.jpg")
    return root


def as_folders(root: Path, file: Say, said: Say) -> Path:
    return folders(
        root, {f"{file('학습')}/{file('개')}": 3, f"{file('검증')}/{said('개')}": 1, f"{file('학습')}/{said('새')}": 2}
    )


def as_table(root: Path, file: Say, said: Say) -> Path:
    for name in (*NAMES, "라"):
        put(root / f"{file(name)}.jpg", picture_bytes(1, (40, 30)))
    rows = [f"{said(n)}.jpg,{said('개') if i % 2 else said('새')},train" for i, n in enumerate(NAMES)]
    return put(root / "labels.csv", "\n".join([*rows, f"{said('라')}.jpg,{said('개')},val"]))


FORMATS = {
    "yolo": as_yolo,
    "voc": as_voc,
    "coco": as_coco,
    "labelme": as_labelme,
    "imagefolder": as_folders,
    "csv": as_table,
}


@pytest.mark.parametrize("format", FORMATS)
def test_either_form_of_a_name_is_that_name(tmp_path: Path, format: str) -> None:
    make = FORMATS[format]
    forms = {
        "both": (composed, composed),
        "files apart": (apart, composed),
        "lists apart": (composed, apart),
        "apart": (apart, apart),
    }
    hashes, found = set(), set[str]()
    for name, (file, said) in forms.items():
        dataset = datasets.add(tmp_path / "workspace", make(tmp_path / name, file, said), name.replace(" ", "-"))
        assert dataset.format == format and dataset.split_source == "existing"
        assert [composed(c) for c in dataset.classes] == list(dataset.classes)
        hashes.add(dataset.hash)
        found |= {f.code for f in datasets.findings(tmp_path / "workspace", dataset.name)}
    assert len(hashes) == 1, "the same set hashes alike on every machine"
    assert not found


def test_the_doctor_finds_both_halves_of_a_leak_by_name(tmp_path: Path) -> None:
    path = as_yolo(tmp_path / "set", apart, composed)
    for n, image in enumerate(sorted((tmp_path / "set/images").rglob("*.jpg"))):
        put(image, picture_bytes(n))
    leaked = (tmp_path / "set/images" / apart("학습") / f"{apart('힣')}.jpg").read_bytes()
    put(tmp_path / "set/images" / apart("검증") / f"{apart('라')}.jpg", leaked)
    datasets.add(tmp_path / "workspace", path, "set")
    items: dict[str, Item] = {item.path: item for item in datasets.items(tmp_path / "workspace", "set")}
    result = doctor.check(tmp_path / "workspace", "set")
    (leak,) = next(group.findings for group in result.groups if group.code == "leak")
    assert items[leak.file].split == "val" and items[leak.other].split == "train"
    assert composed(leak.other).endswith("힣.jpg")
