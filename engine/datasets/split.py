"""Which images teach and which judge: settling a split that is given, and making one that is missing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from engine.datasets.files import nfc
from engine.datasets.model import SPLITS, Finding, Item, Part, Split
from engine.errors import DojangError

RATIOS = (80.0, 10.0, 10.0)
JUDGES: tuple[Split, ...] = ("test", "val", "train")  # an image in several splits stays in the first of these
TEST = SPLITS.index("test")
NOTHING = -1  # the class of an image without objects


def settle(
    lists: dict[Split, list[str]], name: Callable[[str], str], source: str, findings: list[Finding]
) -> dict[str, Part]:
    """The part that each image of `lists` belongs to, so that none teaches and judges at once.

    Lists that repeat another one are common (val: train, test: val) and would leave nothing: then the weaker one goes.
    `name` gives the file that a finding is about, `source` that of the lists.
    """
    train, val, test = lists["train"], lists["val"], lists["test"]
    if test and (set(test) >= set(train) or (val and set(test) >= set(val))):
        message = "test names the same images as another split, so there is no test split."
        findings.append(Finding("warning", "test_is_val", message, source))
        test = []
    if val and set(val) >= set(train):
        message = "val names the same images as train and would measure nothing; a split is made instead."
        findings.append(Finding("warning", "val_is_train", message, source))
        train, val = val, []
    parts: dict[str, Part] = {}
    for split, images in zip(JUDGES, (test, val, train), strict=True):
        part: Part = "" if split == "train" and not val else split
        for image in images:
            held = parts.setdefault(image, part)
            if held != part:
                message = f"It is in {split} and in {held}; it is used in {held} only."
                findings.append(Finding("warning", "in_two_splits", message, name(image)))
    return parts


def check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The ratios of train, val and test as parts of 1; DojangError unless train and val get something."""
    if len(ratios) != 3 or not all(math.isfinite(r) and r >= 0 for r in ratios) or not (ratios[0] and ratios[1]):
        given = "/".join(f"{r:g}" for r in ratios)
        hint = "Give three numbers such as 80/10/10; train and val have to be above 0."
        raise DojangError(f"{given} does not divide into train, val and test.", code="BAD_RATIOS", hint=hint)
    total = sum(ratios)
    return ratios[0] / total, ratios[1] / total, ratios[2] / total


def make_split(items: Sequence[Item], ratios: Sequence[float] = RATIOS, seed: int = 0) -> list[Item]:
    """The same items, in the same order, divided into train, val and test.

    Labelled images are divided by iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the class that
    the fewest images show is dealt out first, each image to the split that still lacks it most. Unlabelled ones are
    divided apart, so that the ratios hold among labelled images. Only the paths (composed, relative), the classes and
    the seed decide, never the order of `items` or the machine.
    """
    shares = check_ratios(ratios)
    order = sorted(range(len(items)), key=lambda i: _lot(items[i].path, seed))
    labelled = [i for i in order if items[i].labelled]
    parts = _stratify(items, labelled, shares)
    rest = [i for i in order if not items[i].labelled]
    sizes = _sizes(len(rest), shares, at_least_one=False)
    parts.update(zip(rest, (split for split, n in zip(SPLITS, sizes, strict=True) for _ in range(n)), strict=True))
    return [replace(item, split=parts[i]) for i, item in enumerate(items)]


def _lot(path: str, seed: int) -> bytes:
    return blake2b(f"{seed}\0{nfc(path)}".encode(), digest_size=16).digest()


def _sizes(total: int, shares: Sequence[float], at_least_one: bool) -> list[int]:
    """`total` divided by `shares`, largest remainders first; with `at_least_one`, train and val get one of two or more."""
    sizes = [int(total * share + 1e-9) for share in shares]
    by_remainder = sorted(range(3), key=lambda s: (-(total * shares[s] - sizes[s]), s))
    for s in by_remainder[: total - sum(sizes)]:
        sizes[s] += 1
    for needy in (0, 1):
        if at_least_one and total >= 2 and not sizes[needy]:
            donors = [s for s in range(3) if sizes[s] > (s != TEST)]
            sizes[max(donors, key=sizes.__getitem__)] -= 1
            sizes[needy] = 1
    return sizes


def _stratify(items: Sequence[Item], chosen: list[int], shares: Sequence[float]) -> dict[int, Split]:
    """The split of each index in `chosen`, whose order breaks ties."""
    room = _sizes(len(chosen), shares, at_least_one=True)
    classes = {i: items[i].classes or {NOTHING} for i in chosen}
    waiting: dict[int, dict[int, None]] = defaultdict(dict)  # images by class; a dict for its order
    for i in chosen:
        for cls in classes[i]:
            waiting[cls][i] = None
    lacking = {cls: [len(images) * share for share in shares] for cls, images in waiting.items()}
    parts: dict[int, Split] = {}
    while waiting:
        rarest = min(waiting, key=lambda cls: (len(waiting[cls]), cls))
        for i in list(waiting[rarest]):
            best = max((s for s in range(3) if room[s]), key=lambda s: (lacking[rarest][s], room[s], -s))
            parts[i] = SPLITS[best]
            room[best] -= 1
            for cls in classes[i]:
                lacking[cls][best] -= 1
                del waiting[cls][i]
        waiting = defaultdict(dict, {cls: images for cls, images in waiting.items() if images})
    return parts
