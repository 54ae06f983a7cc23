"""Small data sets drawn for the tests, whole or with one thing wrong."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Corners = tuple[Any, Any, Any, Any]


def image_bytes(width: int = 40, height: int = 30, kind: str = "JPEG", orientation: int = 0) -> bytes:
    image = Image.new("RGB", (width, height), (90, 120, 60))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, kind, exif=exif) if orientation else image.save(out, kind)
    return out.getvalue()


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image that looks like no other: smooth patches of colours."""
    grid = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def picture_bytes(seed: int, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    picture(seed, size).save(out, kind)
    return out.getvalue()


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def yolo(root: Path, rows: dict[str, str | None] | None = None, yaml: str | None = None) -> Path:
    """An Ultralytics set. `rows` gives the label text by `split/stem`; None leaves the label file out."""
    if rows is None:
        rows = {f"train/{i}": "0 0.5 0.5 0.2 0.2\n" for i in range(4)} | {"val/9": "1 0.5 0.5 0.5 0.5\n"}
    for key, text in rows.items():
        put(root / "images" / f"{key}.jpg", image_bytes())
        if text is not None:
            put(root / "labels" / f"{key}.txt", text)
    put(root / "data.yaml", yaml or "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def xml(objects: list[tuple[str, Corners]], size: tuple[int, int] = (40, 30)) -> str:
    parts = [
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in objects
    ]
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{head}{''.join(parts)}</annotation>"


def voc(root: Path, annotations: dict[str, str | None], lists: dict[str, list[str]] | None = None) -> Path:
    """A Pascal VOC set. `annotations` gives the XML by stem; None leaves it out."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        put(root / "JPEGImages" / f"{stem}.jpg", image_bytes())
        if text is not None:
            put(root / "Annotations" / f"{stem}.xml", text)
    for name, stems in (lists or {}).items():
        put(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{stem}\n" for stem in stems))
    return root


def coco(
    path: Path,
    images: dict[str, list[tuple[int, list[Any]]]],
    categories: dict[int, str] | None = None,
    size: tuple[int, int] = (40, 30),
    folder: Path | None = None,
) -> Path:
    """A COCO file. `images` gives (category, bbox) by file name; the images are drawn into `folder` when one is given."""
    annotations = []
    for number, objects in enumerate(images.values()):
        for category, bbox in objects:
            found = {"id": len(annotations), "image_id": number, "category_id": category, "bbox": bbox, "iscrowd": 0}
            annotations.append(found)
    names = categories or {1: "cat", 7: "dog"}
    data = {
        "info": {"year": 2024, "contributors": []},
        "images": [{"id": i, "file_name": name, "width": size[0], "height": size[1]} for i, name in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "supercategory": ""} for key, name in names.items()],
    }
    for name in images if folder else ():
        put(folder / name, image_bytes())
    return put(path, json.dumps(data))


def shape(label: str, *points: tuple[Any, Any], kind: str = "rectangle") -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, "flags": {}}


def labelme(path: Path, *shapes: dict[str, Any], image: str | None = None, **more: Any) -> Path:
    """A labelme file, and its image beside it unless the path of another is given."""
    if image is None:
        put(path.with_suffix(".jpg"), image_bytes())
    data = {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image or f"{path.stem}.jpg",
        "imageData": None, "imageHeight": 30, "imageWidth": 40,
    }  # fmt: skip
    return put(path, json.dumps(data | more))


def folders(root: Path, images: dict[str, int]) -> Path:
    """Folders with that many images each."""
    for folder, count in images.items():
        for i in range(count):
            put(root / folder / f"{folder.replace('/', '_')}_{i:02d}.jpg", image_bytes())
    return root


def snapshot(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything under `root` that writing would change: mode, size, time of change and content."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[os.fspath(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found
