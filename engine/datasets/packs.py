"""The pixels that a version's recipe makes, made once and shared by every training from it.

A pack lies in WORKSPACE/cache/packs/NAME, named by all that its contents depend on, so it is never out of date. Who
makes it or trains from it holds the folder's lock: two at once wait for each other, and nobody drops what is in use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from engine.datasets import recipes, registry
from engine.datasets.images import BadImage
from engine.datasets.model import SPLITS, Dataset, Item
from engine.datasets.packfile import PIXELS, WHOLE, Pack, Writer, whole
from engine.datasets.recipe import Recipe
from engine.datasets.shaping import Pool, Shown, augmented, checked, prepared
from engine.errors import DojangError
from engine.files import disk_error, write_json

FORMAT = 1  # of pixels and files; raise it with every change to what comes out
ABOUT, LOCK = "about.json", "lock"
AHEAD, AHEAD_BYTES = 4, 256 << 20  # images in the making for each thread, or bytes in all
THREADS = 8  # at most
MARGIN = 1 << 30  # bytes that stay free on the disk
PATIENCE = 0.2  # seconds between two looks at a lock
Tick = Callable[[int, int], bool]
"""Called with images done and in all; False abandons it."""


@dataclass(frozen=True)
class Source:
    """A version as its pack is made from it: `digests` of the files of `items`."""

    dataset: Dataset
    recipe: Recipe
    items: Sequence[Item]
    digests: Sequence[bytes]

    @property
    def name(self) -> str:
        """Of the folder: what decides a single pixel."""
        told = [FORMAT, self.dataset.hash, self.recipe.pixels(), self.recipe.seed]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


class Layout:
    """Where in its pack each image of a version lies: by split, then by content, whatever the files are called."""

    def __init__(self, source: Source) -> None:
        recipe, items, digests = source.recipe, source.items, source.digests
        self.copies, self.kept = recipe.copies, int(recipe.preprocessed)  # `kept`: whether the images themselves are in
        self.order = sorted(
            (i for i, item in enumerate(items) if self._count(item)),
            key=lambda i: (SPLITS.index(items[i].split), digests[i], items[i].label or 0, sorted(items[i].boxes)),
        )
        self.first: dict[int, int] = {}  # of each item, its first place
        self.images = 0
        for i in self.order:
            self.first[i] = self.images
            self.images += self._count(items[i])
        self.bytes = sum(self._count(items[i]) * self._area(recipe, items[i]) * 3 for i in self.order)

    def _count(self, item: Item) -> int:
        return self.kept + (self.copies if item.split == "train" else 0)

    @staticmethod
    def _area(recipe: Recipe, item: Item) -> int:
        return item.width * item.height if recipe.resize == "none" else recipe.size**2

    def places(self, i: int, item: Item) -> range:
        """The places of item `i`: of itself, if that is packed, then of its copies."""
        first = self.first.get(i, 0)
        return range(first, first + self._count(item))

    def steps(self, items: Sequence[Item]) -> Iterator[tuple[int, int, int]]:
        """What lies at each place in turn: number in the split, item, and copy, 0 for the image itself."""
        split, number = "", 0
        for i in self.order:
            number = number + 1 if items[i].split == split else 0
            split = items[i].split
            for place in range(self._count(items[i])):
                yield number, i, place + 1 - self.kept


def source(workspace: Path, name: str) -> Source | None:
    """What the pack of the data set `name` is made from; None where trainings take its files as they are."""
    dataset = registry.load(workspace, name)
    recipe = recipes.find_recipe(workspace, name)
    if recipe is None or not recipe.makes_pixels:
        return None
    return Source(dataset, recipe, registry.items(workspace, name), recipes.digests(workspace, name))


def files_only(model: str) -> DojangError:
    """Why a model whose kernel reads image files itself cannot be trained on a version that makes pixels."""
    return DojangError(
        f"The kernel of {model} reads image files itself, but the data set's version shapes images before training.",
        code="BAD_DATASET",
        hint="Choose another model, or a version without preprocessing and augmentation.",
    )


def folder_of(workspace: Path) -> Path:
    return workspace / "cache" / "packs"


def take(workspace: Path, wanted: Source, tick: Tick) -> Pack | None:
    """The pack of `wanted`, made now or taken up where a killed process left it; None when `tick` abandoned it.

    It cannot be dropped before the result's `let_go`. Waits for another process that is making it. Raises
    DojangError: DISK_FULL with what is needed, BAD_DATASET or DATA_CHANGED naming the image.
    """
    folder, layout = folder_of(workspace) / wanted.name, Layout(wanted)
    while True:
        lock = open_lock(folder)
        try:
            pack = _take(folder, wanted, layout, lock, tick)
            if pack is not None:
                with suppress(OSError):
                    os.utime(folder / WHOLE)  # when it was last used
                pack.let_go = weakref.finalize(pack, os.close, lock)
                lock = -1
                return pack
            if not tick(_written(folder, layout), layout.images):
                return None
        except _Abandoned:
            return None
        finally:
            if lock >= 0:
                os.close(lock)
        time.sleep(PATIENCE)


class _Abandoned(Exception):
    pass


def _take(folder: Path, wanted: Source, layout: Layout, lock: int, tick: Tick) -> Pack | None:
    """The pack, its lock shared; None when it is to be waited for. Raises _Abandoned."""
    if (folder / WHOLE).exists():
        if not _locked(lock, fcntl.LOCK_SH):
            return None
        found = whole(folder)
        if found is not None and len(found.entries) == layout.images:
            return found if _ours(folder, lock) else None
    if not _locked(lock, fcntl.LOCK_EX) or not _ours(folder, lock):
        return None
    _build(folder, wanted, layout, tick)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return whole(folder) if _ours(folder, lock) else None


def _written(folder: Path, layout: Layout) -> int:
    """How many images another process has written by now, nearly."""
    try:
        return int(layout.images * min(1.0, (folder / PIXELS).stat().st_size / max(1, layout.bytes)))
    except OSError:
        return 0


def _build(folder: Path, wanted: Source, layout: Layout, tick: Tick) -> None:
    """Make what is missing. Raises _Abandoned."""

    def show(done: int) -> None:
        if not tick(done, layout.images):
            raise _Abandoned

    told = {"format": FORMAT, "dataset": wanted.dataset.name, "images": layout.images, "bytes": layout.bytes}
    with Writer(folder) as writer:
        _require_room(folder, layout.bytes * (layout.images - writer.done) // max(1, layout.images))
        write_json(folder / ABOUT, told)
        start = writer.done
        show(start)
        steps = islice(layout.steps(wanted.items), start, None)
        for done, shown in enumerate(_made(wanted, steps, layout.bytes // max(1, layout.images)), start + 1):
            writer.add(shown)
            show(done)
        writer.finish()


def _require_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted + MARGIN:
        raise DojangError(
            f"The prepared images need {wanted / 1e9:.1f} GB, and some to spare; the disk of {folder} has "
            f"{free / 1e9:.1f} GB free.",
            code="DISK_FULL",
            hint="Free some space (`dojang cache` lists what can go), or make a version with smaller images or fewer copies.",
        )


def _made(wanted: Source, steps: Iterator[tuple[int, int, int]], bytes_each: int) -> Iterator[Shown]:
    """The images of `steps` in their order, several in the making at a time: few, where they are large."""
    recipe, dataset = wanted.recipe, wanted.dataset
    pool = Pool(dataset, wanted.items, wanted.digests)

    def make(step: tuple[int, int, int]) -> Shown:
        number, i, copy = step
        item = wanted.items[i]
        try:
            if copy:
                return augmented(recipe, pool, number, copy)
            if item.split == "train":
                return pool.prepared(recipe, number)
            return prepared(recipe, checked(dataset, item, wanted.digests[i]))
        except (BadImage, OSError) as e:
            raise _unreadable(dataset, dataset.image(item), e) from e

    threads = min(THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    ahead = min(AHEAD * threads, max(threads, AHEAD_BYTES // max(1, bytes_each)))
    executor = ThreadPoolExecutor(threads, thread_name_prefix="dojang-pack")
    waiting: deque[Future[Shown]] = deque()
    try:
        for step in steps:
            waiting.append(executor.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _unreadable(dataset: Dataset, path: Path, e: Exception) -> DojangError:
    why = e.message if isinstance(e, BadImage) else f"{getattr(e, 'strerror', None) or e}."
    return DojangError(
        f"{path}, of {dataset.name} or beside it in a mosaic, cannot be read: {why}",
        code="BAD_DATASET",
        hint="Put it back and resume, or make a new version without it.",
    )


def open_lock(folder: Path) -> int:
    """A descriptor of the folder's lock, not yet taken; the folder is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:  # dropped in between
        return open_lock(folder)
    except OSError as e:
        raise disk_error(e, folder) from e


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ours(folder: Path, lock: int) -> bool:
    """Whether the lock is still that of the folder of this name: it may have been dropped before we had it."""
    try:
        return os.path.samestat(os.fstat(lock), (folder / LOCK).stat())
    except OSError:
        return False


def in_use(folder: Path) -> bool:
    """Whether somebody trains from the pack in `folder`, or makes it."""
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def about(folder: Path) -> dict[str, Any]:
    """What was said of a pack when it was begun; empty where nothing is known."""
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
