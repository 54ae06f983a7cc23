"""Names of classes: read from strangers' files, shown on terminals."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from engine.datasets.files import Unreadable, is_file, read_text, relative
from engine.datasets.model import Finding

LONGEST = 200  # characters
NO_CHARACTER = {"\ufffe", "\uffff"}  # XML has no way to write them
NO_CLASS = ("__ignore__", "_background_")  # labelme's
LISTS = ("classes.txt", "labels.txt")
LIST_LIMIT = 4 << 20  # bytes


def clean_class(name: str) -> str | None:
    """The composed, trimmed name; None if it is empty, too long or holds what no text may hold."""
    text = unicodedata.normalize("NFC", name).strip()
    if not text or len(text) > LONGEST or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        return None
    if not NO_CHARACTER.isdisjoint(text):
        return None
    return text


def by_frequency(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, most frequent first, ties by alphabet: the order cannot depend on that of the files."""
    return tuple(sorted((counts := Counter(names)), key=lambda name: (-counts[name], name)))


def in_alphabet(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, in the order that torchvision gives the folders of classes."""
    return tuple(sorted(set(names)))


def in_number(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by number if all of them are whole numbers, else by alphabet."""
    found = in_alphabet(names)
    return tuple(sorted(found, key=int)) if all(name.isdecimal() and len(name) < 20 for name in found) else found


def listed_classes(root: Path, findings: list[Finding]) -> tuple[str, ...]:
    """The class names that a list in the dataset's folder gives, one a line."""
    path = next((root / name for name in LISTS if is_file(root / name)), None)
    if path is None:
        return ()
    try:
        lines = read_text(path, LIST_LIMIT).splitlines()
    except Unreadable as e:
        findings.append(Finding("warning", e.code, e.message, relative(path, root)))
        return ()
    names = (clean_class(line) for line in lines if line.strip() not in NO_CLASS)
    return tuple(dict.fromkeys(name for name in names if name))
