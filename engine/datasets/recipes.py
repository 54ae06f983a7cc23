"""Data set versions: what a recipe makes of registered sets, kept for good as the set NAME@NUMBER.

A version is a registered set like any other, so whatever trains from a set trains from a version. Its images stay
where they are; only its lists lie in the workspace.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.datasets import fingerprints, registry, store
from engine.datasets.groups import join_alike, same_files
from engine.datasets.model import SPLITS, Counts, Dataset, Item, Progress, Split
from engine.datasets.recipe import Recipe, parse, unsuited
from engine.datasets.stratify import Unit, deal
from engine.errors import DojangError, Invalid, NotFound
from engine.files import read_toml, write_bytes, write_toml

RECIPE, DIGESTS = "recipe.toml", "digests.bin"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a recipe comes to, before it is kept."""

    recipe: Recipe
    sources: list[Dataset]
    classes: tuple[str, ...]
    items: list[Item]
    digests: list[bytes]  # of each item's file
    hash: str
    unlabelled: int  # images of the sources that are left out
    emptied: int  # images that lost all objects
    groups: int  # of two or more images that stay together

    @property
    def counts(self) -> Counts:
        return Counts.of(self.items, self.classes)

    @property
    def deviation(self) -> float:
        """How far a class's share of the objects of a split is from that of the whole, at most, in points."""
        counts, worst = self.counts, 0.0
        for part in counts.per_split.values():
            for name, count in part.per_class.items():
                if part.labels:
                    worst = max(worst, abs(count / part.labels - counts.per_class[name] / counts.labels))
        return 100 * worst


@dataclass(slots=True)
class _Row:
    item: Item
    digest: bytes
    look: bytes
    split: Split | None  # where it is settled


def draft(workspace: Path, recipe: Recipe, progress: Progress | None = None) -> Draft:
    """What `recipe` comes to; nothing is kept. DojangError where its sets are gone, changed, or not of one task."""
    parts: list[tuple[str, Split | None]] = [(name, None) for name in recipe.sources]
    parts += [(name, split) for split, name in recipe.apart().items()]
    sets = [registry.load(workspace, name) for name, _ in parts]
    if len({one.task for one in sets}) > 1:
        told = ", ".join(f"{one.name} to {one.task}" for one in sets)
        raise DojangError(f"The sets are not of one task: {told}.", code="BAD_RECIPE", hint="Choose sets of one task.")
    unfit = unsuited(recipe, sets[0].task)
    if unfit:
        raise Invalid(unfit, code="BAD_RECIPE")
    classes, maps = _classes(recipe, sets)
    rows: list[_Row] = []
    unlabelled = emptied = 0
    for number, (one, (_, split)) in enumerate(zip(sets, parts, strict=True)):
        registry.require(one)
        items = registry.items(workspace, one.name)
        blank = store.background(one.format, items, registry.findings(workspace, one.name))
        used = [item for item in items if item.labelled or item.path in blank]
        unlabelled += len(items) - len(used)
        prints = fingerprints.take(workspace, one, used, recipe.group, progress)
        for item, seen in zip(used, prints, strict=True):
            mapped = _mapped(item, maps[number])
            lost = bool(item.classes) and not mapped.classes
            emptied += lost
            if lost and (recipe.empty == "drop" or one.task == "classify"):
                continue
            if one.root != sets[0].root:
                mapped = replace(mapped, path=str(one.image(item)))
            settled = split or (item.split if recipe.split == "existing" else None)
            if split is None and settled in recipe.apart():
                continue  # a set apart stands in its place
            rows.append(_Row(mapped, seen.digest, seen.look, settled))
    groups = _divide(recipe, rows)
    rows.sort(key=lambda row: row.item.path)
    items = [row.item for row in rows]
    digests = [row.digest for row in rows]
    found = _hash(recipe, classes, rows)
    return Draft(recipe, sets, classes, items, digests, found, unlabelled, emptied, groups)


def _classes(recipe: Recipe, sets: list[Dataset]) -> tuple[tuple[str, ...], list[list[int | None]]]:
    """The classes that remain, and for each set the new number of each of its classes, None where it is dropped."""
    known = dict.fromkeys(name for one in sets for name in one.classes)
    strange = [name for name in (*recipe.rename, *recipe.drop) if name not in known]
    if strange:
        hint = f"There are: {', '.join(list(known)[:20])}."
        raise DojangError(f"No set has a class {strange[0]!r}.", code="BAD_RECIPE", hint=hint)
    final = tuple(dict.fromkeys(recipe.rename.get(name, name) for name in known if name not in recipe.drop))
    if not final:
        raise DojangError("Every class is dropped.", code="BAD_RECIPE", hint="Keep one at least.")
    number = {name: i for i, name in enumerate(final)}
    new = {name: None if name in recipe.drop else number[recipe.rename.get(name, name)] for name in known}
    return final, [[new[name] for name in one.classes] for one in sets]


def _mapped(item: Item, new: list[int | None]) -> Item:
    boxes = tuple(box._replace(cls=cls) for box in item.boxes if (cls := new[box.cls]) is not None)
    label = None if item.label is None else new[item.label]
    return replace(item, boxes=boxes, label=label, labelled=True)


def _divide(recipe: Recipe, rows: list[_Row]) -> int:
    """Give each row its split. Only files, labels and the seed decide. How many groups stay together."""
    free = [row for row in rows if row.split is None]
    groups = same_files([row.digest for row in free])
    if recipe.group:
        join_alike(groups, [row.look for row in free])
    together: dict[int, list[_Row]] = {}
    for row, root in zip(free, groups.roots(), strict=True):
        together.setdefault(root, []).append(row)
    drawn = sorted(together.values(), key=lambda found: min(_lot(row.digest, recipe.seed) for row in found))
    units = []
    for found in drawn:
        objects = Counter(box.cls for row in found for box in row.item.boxes)
        objects.update(row.item.label for row in found if row.item.label is not None)
        units.append(Unit(len(found), tuple(sorted(objects.items()))))
    for found, part in zip(drawn, deal(units, recipe.shares, recipe.stratify), strict=True):
        for row in found:
            row.split = SPLITS[part]
    for row in rows:
        assert row.split is not None
        row.item = replace(row.item, split=row.split)
    return sum(len(found) > 1 for found in drawn)


def _lot(digest: bytes, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0".encode() + digest, digest_size=16).digest()


def _hash(recipe: Recipe, classes: tuple[str, ...], rows: Sequence[_Row]) -> str:
    """sha256 of recipe, classes, and every image's content, labels and split; of no path, name or order."""
    told = []
    for row in rows:
        labels = sorted(row.item.boxes) if row.item.label is None else row.item.label
        told.append(json.dumps([row.digest.hex(), row.item.split, labels]))
    whole = hashlib.sha256(json.dumps([recipe.hashed(), classes], ensure_ascii=False).encode())
    for line in sorted(told):
        whole.update(line.encode())
    return whole.hexdigest()


def create(workspace: Path, name: str, made: Draft) -> Dataset:
    """Keep `made` as the next version of `name`: NAME@1, NAME@2, …; numbers are never given twice."""
    name, counts = registry.check_name(name), made.counts
    if not (counts.per_split["train"].images and counts.per_split["val"].images):
        hint = "Give each a share, or a set of its own."
        raise DojangError("Train or val would have no image.", code="BAD_RECIPE", hint=hint)
    first, ratio = made.sources[0], made.recipe.split == "ratio"
    split = (
        {"ratios": list(made.recipe.ratio), "seed": made.recipe.seed}
        if ratio
        else {"from": ", ".join(made.recipe.sources)}
    )
    while True:
        number = max([registry.last_number(workspace, name), *(n for n, _ in _numbered(workspace, name))]) + 1
        dataset = Dataset(
            name=registry.check_version_name(f"{name}@{number}"),
            root=first.root,
            format=first.format,
            task=first.task,
            classes=made.classes,
            added=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            split_source="made" if ratio else "existing",
            split=split,
            hash=made.hash,
            counts=counts,
            findings=store.count_findings([]),
        )

        def more(folder: Path) -> None:
            write_toml(folder / RECIPE, made.recipe.to_toml())
            write_bytes(folder / DIGESTS, b"".join(made.digests))

        try:
            registry.keep(workspace / "datasets" / dataset.name, dataset, made.items, [], more)
            return dataset
        except DojangError as e:
            if e.code != "EXISTS":  # another process took the number
                raise


def versions(workspace: Path, name: str) -> list[Dataset]:
    """All versions of `name`, by number."""
    return [store.read_dataset(folder) for _, folder in _numbered(workspace, registry.check_name(name))]


def _numbered(workspace: Path, name: str) -> list[tuple[int, Path]]:
    found = ((place.name.rpartition("@"), place) for place in (workspace / "datasets").glob("[!.]*@*"))
    return sorted((int(n), place) for (base, _, n), place in found if base == name and n.isdecimal())


def recipe_of(workspace: Path, name: str) -> Recipe:
    """The recipe that the version NAME@NUMBER was made from."""
    found = find_recipe(workspace, name)
    if found is None:
        raise NotFound(f"{name} has no recipe.", hint="Only versions have one, such as cells@1.")
    return found


def find_recipe(workspace: Path, name: str) -> Recipe | None:
    """The recipe of a set that is a version; None of one that is not."""
    path = registry.home(workspace, name) / RECIPE
    try:
        return parse(read_toml(path))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="UNREADABLE") from e


def train_images(workspace: Path, dataset: Dataset) -> int:
    """How many images an epoch of training on `dataset` goes through: those of train, and their augmented copies."""
    recipe = find_recipe(workspace, dataset.name)
    return dataset.counts.per_split["train"].images * (1 + (recipe.copies if recipe else 0))


def digests(workspace: Path, name: str) -> list[bytes]:
    """The digest of each item's file, as it was when the version was made."""
    path, size = registry.home(workspace, name) / DIGESTS, fingerprints.DIGEST
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="UNREADABLE") from e
    if len(raw) != size * len(registry.open_items(workspace, name)):
        hint = "Make the version again: `dojang dataset version show` prints its recipe."
        raise DojangError(f"{path} is not whole.", code="BAD_FILE", hint=hint)
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def delete(workspace: Path, name: str) -> None:
    """Remove a version; its images stay where they are, and its number is not given again."""
    recipe_of(workspace, name)
    registry.remove(workspace, name)


def diff(workspace: Path, one: str, other: str) -> dict[str, Any]:
    """Where two versions differ: recipe, classes, images that only one has, and images that changed their split."""
    from engine.datasets.recipe import different

    first, second = registry.load(workspace, one), registry.load(workspace, other)
    left, right = _splits(workspace, one), _splits(workspace, other)
    moved = [(left[d], right[d]) for d in left.keys() & right.keys() if left[d][0] != right[d][0]]
    return {
        "same": first.hash == second.hash,
        "recipe": {k: list(v) for k, v in different(recipe_of(workspace, one), recipe_of(workspace, other)).items()},
        "classes": {
            "removed": [name for name in first.classes if name not in second.classes],
            "added": [name for name in second.classes if name not in first.classes],
        },
        "counts": [first.counts.to_json(), second.counts.to_json()],
        "only": [len(left.keys() - right.keys()), len(right.keys() - left.keys())],
        "moved": sorted(({"image": a[1], "from": a[0], "to": b[0]} for a, b in moved), key=lambda m: m["image"]),
    }


def _splits(workspace: Path, name: str) -> dict[bytes, tuple[str, str]]:
    """Split and path of each image by its content."""
    items = registry.open_items(workspace, name)
    return {digest: (item.split, item.path) for digest, item in zip(digests(workspace, name), items, strict=True)}
