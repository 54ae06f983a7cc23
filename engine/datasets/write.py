"""Writing a dataset to detect in as YOLO, COCO or VOC, into a new folder: for other programs, and for autolabel.

What is read back is the same set, hash and all: images keep their names and their order (layout.py), boxes their last
bit (boxes.py), classes their numbers. `Written` says what a format could not hold. The new folder appears whole, by a
rename; images are copied, or linked to where that is asked for. A link is a symbolic one: a hard one would have the
user's own file hang on whatever is done to the copy.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

from engine.datasets import registry
from engine.datasets.boxes import pixels
from engine.datasets.classes import NO_CHARACTER
from engine.datasets.files import from_user, inside, is_folder, there
from engine.datasets.images import is_image
from engine.datasets.layout import lay_out, renamed
from engine.datasets.model import SPLITS, Box, Dataset, Finding, Item, Progress, Split
from engine.errors import DojangError
from engine.files import disk_error

WriteFormat = Literal["yolo", "coco", "voc"]
Images = Literal["copy", "link"]
SPARE = 64 << 20  # bytes left free on the disk


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


def export(
    workspace: Path,
    name: str,
    folder: Path | str,
    format: WriteFormat,
    *,
    images: Images = "copy",
    progress: Progress | None = None,
) -> Written:
    """Write the registered dataset `name` into the new `folder`; DojangError says why it cannot be.

    Raise from `progress` to cancel: nothing is left behind.
    """
    dataset = registry.load(workspace, name)
    items, found = registry.items(workspace, name), registry.findings(workspace, name)
    return write(dataset, items, folder, format, findings=found, images=images, progress=progress)


def write(
    dataset: Dataset,
    items: Sequence[Item],
    folder: Path | str,
    format: WriteFormat,
    *,
    findings: Iterable[Finding] = (),
    images: Images = "copy",
    progress: Progress | None = None,
) -> Written:
    """Write `items`, with the dataset's classes, into the new `folder`. `findings` tell unlabelled from unreadable."""
    if format not in get_args(WriteFormat):
        hint = f"There are: {', '.join(get_args(WriteFormat))}."
        raise DojangError(f"{str(format)[:40]!r} is not a format to write.", code="BAD_FORMAT", hint=hint)
    if dataset.task != "detect":
        hint = "Its folder can be used as it is."
        raise DojangError(f"{dataset.name} has no boxes to write: it is to {dataset.task}.", code="BAD_TASK", hint=hint)
    home = _new(from_user(folder), dataset)
    written = Written(home, format)
    pages = _pages(dataset, items, {f.image or f.file for f in findings if f.severity == "error"}, written)
    if images == "copy":
        _check_space(home, sum(page.item.bytes for page in pages))
    temp = home.with_name(f".{home.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    made = [parent for parent in home.parents if not there(parent)]
    try:
        temp.mkdir(parents=True)
        WRITERS[format](temp, dataset.classes, pages, written)
        _put_images(temp, format, pages, images, progress)
        temp.rename(home)  # over an empty folder too, but over nothing else
    except OSError as e:
        raise disk_error(e, home) from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        if not there(home):
            for parent in made:
                _drop_empty(parent)
    return written


def _drop_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # somebody else uses it by now
        pass


def _new(folder: Path, dataset: Dataset) -> Path:
    """The folder, if it is new or empty and apart from the dataset's own."""
    home, root = folder.resolve(), dataset.root.resolve()
    if home == root or inside(str(home), root) or inside(str(root), home):
        hint = "Choose a folder beside it."
        message = f"{folder} and {dataset.name}'s own folder {dataset.root} lie in each other; that one is only read."
        raise DojangError(message, code="BAD_FOLDER", hint=hint)
    if there(home) and (not is_folder(home) or any(home.iterdir())):
        raise DojangError(f"{folder} is there already.", code="EXISTS", hint="Choose a new folder.")
    return home


def _check_space(home: Path, needed: int) -> None:
    place = next(path for path in (home, *home.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        message = f"The images need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free at {place}."
        raise DojangError(message, code="DISK_FULL", hint="Free some, or write links to the images instead of copies.")


def _pages(dataset: Dataset, items: Sequence[Item], unreadable: set[str], written: Written) -> list[Page]:
    """What is to be written, in the order of the hash.

    A missing label file means background to YOLO, and an image in the list without objects does to COCO. An image
    that nobody has labelled would become background there, so only VOC, which knows the difference, gets it.
    """
    kept: list[tuple[Item, bool]] = []
    for item in items:
        background = item.labelled or (dataset.format == "yolo" and item.path not in unreadable)
        if background or written.format == "voc":
            kept.append((item, background))
        else:
            written.left_out += 1
    places = lay_out([item for item, _ in kept], by_split=written.format != "voc")
    pages = []
    for item, labelled in kept:
        boxes = tuple(dict.fromkeys(item.boxes))
        written.merged += len(item.boxes) - len(boxes)
        written.labels += len(boxes)
        written.renamed += renamed(item.path) != item.path.rpartition("/")[2]
        empty = labelled and (item.labelled or written.format != "yolo")  # YOLO's background had no file, and has none
        pages.append(Page(item, dataset.image(item), places[item.path], boxes, empty))
    written.images = len(pages)
    _note(written, pages, dataset)
    return pages


def _note(written: Written, pages: list[Page], dataset: Dataset) -> None:
    changed = sum(page.labelled != page.item.labelled for page in pages)
    unsplit = not {"train", "val"} <= {page.item.split for page in pages if page.boxes}
    for count, text in (
        (written.left_out, "{} images without labels are left out: they would count as background."),
        (changed, "{} images without a label file are written as background, which is what they were to YOLO."),
        (written.merged, "{} boxes were there twice and are written once."),
        (written.renamed, "{} images have names that could not be read back; they are written under others."),
        (unsplit, "Train or val has no object, so whoever reads this divides the two anew."),
    ):
        if count:
            written.notes.append(text.format(count))


def _put_images(root: Path, format: WriteFormat, pages: list[Page], images: Images, progress: Progress | None) -> None:
    changed = 0
    for done, page in enumerate(pages, 1):
        target = root / _image_place(format, page)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            changed = page.source.stat().st_size != page.item.bytes
            if images == "link":
                target.symlink_to(page.source.resolve())
            else:
                shutil.copyfile(page.source, target)
        except FileNotFoundError as e:
            hint = "Put it back, or add the dataset again."
            raise DojangError(f"The image {page.source} is gone.", code="MISSING_IMAGE", hint=hint) from e
        if changed:
            hint = "Add the dataset again, so that its labels are known to belong to it."
            message = f"The image {page.source} is not the one that was registered: it has another size in bytes."
            raise DojangError(message, code="DATA_CHANGED", hint=hint)
        if progress:
            progress(done, len(pages))


def _image_place(format: WriteFormat, page: Page) -> str:
    return f"JPEGImages/{page.place}" if format == "voc" else f"images/{page.item.split}/{page.place}"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_yolo(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> None:
    import yaml

    for page in pages:
        if page.labelled:
            rows = (f"{box.cls} {box.cx!r} {box.cy!r} {box.w!r} {box.h!r}\n" for box in page.boxes)
            _put(root / "labels" / page.item.split / f"{_stem(page)}.txt", "".join(rows))
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


def _write_voc(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> None:
    lists: dict[Split, list[str]] = {split: [] for split in SPLITS}
    (root / "Annotations").mkdir()
    for page in pages:
        lists[page.item.split].append(f"{page.place}\n" if _is_dotted(page) else f"{_stem(page)}\n")
        if page.labelled:
            _put(root / "Annotations" / f"{_stem(page)}.xml", _annotation(page, classes, written))
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


def _write_coco(root: Path, classes: tuple[str, ...], pages: list[Page], written: Written) -> None:
    (root / "annotations").mkdir()
    for split in SPLITS:
        mine = [page for page in pages if page.item.split == split]
        if mine:
            with (root / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8", newline="\n") as f:
                _write_instances(f.write, mine, classes, written)
    _note_cut(written)


def _write_instances(
    put: Callable[[str], object], pages: list[Page], classes: tuple[str, ...], written: Written
) -> None:
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
    put('\n],\n"categories": [')
    for number, name in enumerate(classes, 1):
        category = {"id": number, "name": name, "supercategory": ""}
        put(("," if number > 1 else "") + "\n" + json.dumps(category, ensure_ascii=False))
    put("\n]}\n")


WRITERS: dict[WriteFormat, Callable[[Path, tuple[str, ...], list[Page], Written], None]] = {
    "yolo": _write_yolo,
    "voc": _write_voc,
    "coco": _write_coco,
}
