"""Writing a dataset to detect in as YOLO, COCO or VOC, into a new folder: for other programs, and for autolabel.

What is read back is the same set, hash and all: images keep their names and their order (layout.py), boxes their last
bit (boxes.py), classes their numbers. `Written` says what a format could not hold. The new folder appears whole, by a
rename; images are copied, or linked to where that is asked for. A link is a symbolic one: a hard one would have the
user's own file hang on whatever is done to the copy.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from engine.datasets import registry
from engine.datasets.files import from_user, inside, is_folder, there
from engine.datasets.layout import lay_out, renamed
from engine.datasets.model import Dataset, Finding, Item, Progress
from engine.datasets.store import background
from engine.datasets.writers import WRITERS, Page, WriteFormat, Written
from engine.errors import DojangError
from engine.files import disk_error

Images = Literal["copy", "link"]
SPARE = 64 << 20  # bytes left free on the disk


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
    home = _new(from_user(folder), dataset, items)
    written = Written(home, format)
    pages = _pages(dataset, items, background(dataset.format, items, findings), written)
    if images == "copy":
        _check_space(home, sum(page.item.bytes for page in pages))
    temp = home.with_name(f".{home.name[:100]}.{uuid.uuid4().hex[:8]}.tmp")
    made = [parent for parent in home.parents if not there(parent)]
    try:
        temp.mkdir(parents=True)
        labels = WRITERS[format](temp, dataset.classes, pages, written)
        for done, _ in enumerate(chain(labels, _put_images(temp, format, pages, images)), 1):
            if progress:
                progress(done // 2, len(pages))  # labels are half the way, images the other
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


def _new(folder: Path, dataset: Dataset, items: Sequence[Item]) -> Path:
    """The folder, if it is new or empty and apart from the dataset's own, and from those of images elsewhere."""
    home, root = folder.resolve(), dataset.root.resolve()
    elsewhere = {Path(item.path).parent for item in items if item.path.startswith("/")}
    for theirs in (root, *(place.resolve() for place in elsewhere)):
        if home == theirs or inside(str(home), theirs) or inside(str(theirs), home):
            hint = "Choose a folder beside it."
            message = f"{folder} and {theirs}, which belongs to {dataset.name} and is only read, lie in each other."
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


def _pages(dataset: Dataset, items: Sequence[Item], empty: frozenset[str], written: Written) -> list[Page]:
    """What is to be written, `empty` being the paths of images that count as background though nobody said so.

    A missing label file means background to YOLO, and an image in the list without objects does to COCO. An image
    that nobody has labelled would become background there, so only VOC, which knows the difference, gets it.
    """
    kept: list[tuple[Item, bool]] = []
    for item in items:
        used = item.labelled or item.path in empty
        if used or written.format == "voc":
            kept.append((item, used))
        else:
            written.left_out += 1
    places = lay_out([item for item, _ in kept], by_split=written.format != "voc")
    pages = []
    for item, used in kept:
        boxes = tuple(dict.fromkeys(item.boxes))
        written.merged += len(item.boxes) - len(boxes)
        written.labels += len(boxes)
        written.renamed += renamed(item.path) != item.path.rpartition("/")[2]
        pages.append(Page(item, dataset.image(item), places[item.path], boxes, used))
    written.images = len(pages)
    _note(written, pages)
    return pages


def _note(written: Written, pages: list[Page]) -> None:
    unsplit = not {"train", "val"} <= {page.item.split for page in pages if page.boxes}
    for count, text in (
        (written.left_out, "{} images without labels are left out: they would count as background."),
        (written.merged, "{} boxes were there twice and are written once."),
        (written.renamed, "{} images have names that could not be read back; they are written under others."),
        (unsplit, "Train or val has no object, so whoever reads this divides the two anew."),
    ):
        if count:
            written.notes.append(text.format(count))


def _put_images(root: Path, format: WriteFormat, pages: list[Page], images: Images) -> Iterator[None]:
    for page in pages:
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
        yield


def _image_place(format: WriteFormat, page: Page) -> str:
    return f"JPEGImages/{page.place}" if format == "voc" else f"images/{page.item.split}/{page.place}"
