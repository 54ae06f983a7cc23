"""Annotations as other programs read them. Each writer goes through the pages and yields after each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

from engine.datasets.boxes import pixels
from engine.datasets.classes import NO_CHARACTER
from engine.datasets.images import is_image
from engine.datasets.model import SPLITS, Box, Item, Split

WriteFormat = Literal["yolo", "coco", "voc"]


@dataclass(slots=True)
class Written:
    """What came of it. `notes` say in words where the written set differs from the one it was made of."""

    folder: Path
    format: WriteFormat
    images: int = 0
    labels: int = 0
    left_out: int = 0  # images that the format would take for background, though nobody has labelled them
    cut: int = 0  # boxes that reach out of their image, cut off at its edge because pixels end there
    merged: int = 0  # boxes that were there twice
    renamed: int = 0  # images whose names a list or a folder could not hold
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether the folder, read again, is the very same dataset: same hash, same training."""
        return not self.notes

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "format": self.format,
            "images": self.images,
            "labels": self.labels,
            "left_out": self.left_out,
            "cut": self.cut,
            "merged": self.merged,
            "renamed": self.renamed,
            "same": self.same,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Page:
    """One image to write: where it comes from, where it goes, and whether it is labelled, though maybe with nothing."""

    item: Item
    source: Path
    place: str  # below the folder of images
    boxes: tuple[Box, ...]
    labelled: bool


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_yolo(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> Iterator[None]:
    import yaml

    for page in pages:
        if page.labelled:
            rows = (f"{box.cls} {box.cx!r} {box.cy!r} {box.w!r} {box.h!r}\n" for box in page.boxes)
            _put(root / "labels" / page.item.split / f"{_stem(page)}.txt", "".join(rows))
        yield
    used = [split for split in SPLITS if any(page.item.split == split for page in pages)]
    data = {split: f"images/{split}" for split in used} | {"names": dict(enumerate(classes))}
    _put(root / "data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=1000))


def _stem(page: Page) -> str:
    return page.place.rpartition(".")[0]


def _pixels(page: Page, box: Box, written: Written) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    corners, exact = pixels(box, (page.item.width, page.item.height))
    written.cut += not exact
    return corners


def _note_cut(written: Written) -> None:
    if written.cut:
        written.notes.append(f"{written.cut} boxes reach out of their image and are cut off at its edge.")


def write_voc(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> Iterator[None]:
    lists: dict[Split, list[str]] = {split: [] for split in SPLITS}
    (root / "Annotations").mkdir()
    for page in pages:
        lists[page.item.split].append(f"{page.place}\n" if _is_dotted(page) else f"{_stem(page)}\n")
        if page.labelled:
            _put(root / "Annotations" / f"{_stem(page)}.xml", _annotation(page, classes, written))
        yield
    for split, found in lists.items():
        if found:
            _put(root / "ImageSets" / "Main" / f"{split}.txt", "".join(found))
    _put(root / "ImageSets" / "Main" / "trainval.txt", "".join(lists["train"] + lists["val"]))
    _put(root / "classes.txt", "".join(f"{name}\n" for name in classes))
    _note_cut(written)


def _is_dotted(page: Page) -> bool:
    """Whether the name without its suffix looks like one with a suffix, as a.jpg.png does; lists then have it whole."""
    return is_image(_stem(page))


def _annotation(page: Page, classes: tuple[str, ...], written: Written) -> str:
    item = page.item
    lines = [
        "<annotation>",
        "\t<folder>JPEGImages</folder>",
        f"\t<filename>{escape(''.join(c for c in page.place if c not in NO_CHARACTER))}</filename>",
        f"\t<size><width>{item.width}</width><height>{item.height}</height><depth>3</depth></size>",
        "\t<segmented>0</segmented>",
    ]
    for box in page.boxes:
        left, top, right, bottom = _pixels(page, box, written)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(classes[box.cls])}</name>",
            "\t\t<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
            f"\t\t<bndbox><xmin>{left:f}</xmin><ymin>{top:f}</ymin><xmax>{right:f}</xmax><ymax>{bottom:f}</ymax></bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>\n"])


def write_coco(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> Iterator[None]:
    (root / "annotations").mkdir()
    for split in SPLITS:
        mine = [page for page in pages if page.item.split == split]
        if mine:
            with (root / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8", newline="\n") as f:
                yield from _write_instances(f.write, mine, classes, written)
    _note_cut(written)


def _write_instances(
    put: Callable[[str], object], pages: list[Page], classes: tuple[str, ...], written: Written
) -> Iterator[None]:
    """One line an element: large sets are written without being held in memory, and read well in a pager."""
    put('{"info": {"description": "written by dojang"}, "licenses": [],\n"images": [')
    for number, page in enumerate(pages, 1):
        image = {"id": number, "file_name": page.place, "width": page.item.width, "height": page.item.height}
        put(("," if number > 1 else "") + "\n" + json.dumps(image, ensure_ascii=False))
    put('\n],\n"annotations": [')
    count = 0
    for number, page in enumerate(pages, 1):
        for box in page.boxes:
            left, top, right, bottom = _pixels(page, box, written)
            width, height, count = right - left, bottom - top, count + 1
            put(
                f'{"," if count > 1 else ""}\n{{"id": {count}, "image_id": {number}, "category_id": {box.cls + 1}, '
                f'"bbox": [{left:f}, {top:f}, {width:f}, {height:f}], "area": {float(width * height)!r}, '
                '"segmentation": [], "iscrowd": 0}'
            )
        yield
    put('\n],\n"categories": [')
    for number, name in enumerate(classes, 1):
        category = {"id": number, "name": name, "supercategory": ""}
        put(("," if number > 1 else "") + "\n" + json.dumps(category, ensure_ascii=False))
    put("\n]}\n")


WRITERS: dict[WriteFormat, Callable[[Path, tuple[str, ...], list[Page], Written], Iterator[None]]] = {
    "yolo": write_yolo,
    "voc": write_voc,
    "coco": write_coco,
}
