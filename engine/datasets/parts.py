"""Which split a folder's or a file's name speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from engine.datasets.files import is_file, is_folder, nfc, relative
from engine.datasets.model import Finding, Split
from engine.errors import DojangError

SPELLINGS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn", "학습", "훈련"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "검증"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "시험", "평가", "테스트"), "test"),
}
BESIDE = {"set", "data", "dataset", "image", "images", "img", "imgs", "split", "part", "folder", "데이터", "이미지"}
MOST_FILES = 60  # of labels, that describe one dataset
ENDS = ("dataset", "set", "data", "데이터셋", "데이터", "용")


def split_of(name: str, alone: bool = True) -> Split | None:
    """The split that a name says: train2017, training_set, Valid, TestSet, 1.Training. None when it says none or two.

    `alone` refuses names that say something else besides, as a class may: only a file's name may, as instances_train.
    """
    words = [_bare(word) for word in re.findall(r"[^\W\d_]+", nfc(name).lower())]
    found = {SPELLINGS[word] for word in words if word in SPELLINGS}
    others = [word for word in words if word not in SPELLINGS and word not in BESIDE]
    return found.pop() if len(found) == 1 and not (alone and others) else None


def _bare(word: str) -> str:
    """`trainingset` without its `set`."""
    return next((word.removesuffix(end) for end in ENDS if word.removesuffix(end) in SPELLINGS), word)


def split_above(path: str, root: Path) -> Split | None:
    """The split that the folders between `root` and the file at `path` name, the outermost of them first."""
    parents = Path(path).relative_to(root).parent.parts if Path(path).is_relative_to(root) else ()
    return next((split for part in parents if (split := split_of(part))), None)


def by_split(files: list[Path], root: Path, findings: list[Finding]) -> list[tuple[Path, Split | None]]:
    """Each of a dataset's files with the split that its own name says, or its folder's below `root`.

    One file alone may have none. Of several, those without are left out; DojangError if that were all.
    """
    found = [
        (f, split_of(f.stem, alone=False) or (split_of(f.parent.name) if f.parent != root else None)) for f in files
    ]
    if len(found) == 1:
        return found
    if not any(split for _, split in found):
        names = ", ".join(relative(file, root) for file in files[:5])
        hint = f"Give the path of the one to use ({names}), or name them after train, val and test."
        raise DojangError(f"{root} has several files of labels.", code="AMBIGUOUS", hint=hint)
    for file, split in found:
        if not split:
            message = "Its name says no split, while those of other files do, so it is left out."
            findings.append(Finding("warning", "not_in_split", message, relative(file, root)))
    return [(file, split) for file, split in found if split]


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in `folder`, hidden ones left out, in the same order on every system."""
    return sorted(
        (p for p in _entries(folder) if not p.name.startswith(".") and is_folder(p)), key=lambda p: nfc(p.name)
    )


def few(folder: Path, *suffixes: str) -> list[Path]:
    """Files in `folder` of those suffixes, if they are few enough to describe a dataset instead of an image each."""
    found = [p for p in _entries(folder) if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    return sorted(p for p in found if is_file(p)) if len(found) <= MOST_FILES else []


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
