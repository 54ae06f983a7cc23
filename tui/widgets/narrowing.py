"""Which images of a data set fit what was typed: words, and `split:val`, `class:"red cell"`, `found:zero_area`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.datasets.model import SPLITS, Finding, Item
from tui import words

WORD = re.compile(r'(?:(split|class|found):)?(?:"([^"]*)"?|(\S+))', re.IGNORECASE)
ANY = "any"  # finding
NONE = "none"  # of the classes


def plain(text: str) -> str:
    """As it is compared: composed, and without case."""
    return unicodedata.normalize("NFC", text).casefold()


class Query(NamedTuple):
    """What was typed, taken apart; an image has to fit all of it."""

    names: tuple[str, ...] = ()  # parts of the file's path, its split, a class or a finding's code
    splits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    found: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Query:
        parts: dict[str, list[str]] = {"": [], "split": [], "class": [], "found": []}
        for kind, quoted, word in WORD.findall(plain(text)):
            if quoted or word:
                parts[kind].append(quoted or word)
        return cls(*(tuple(parts[kind]) for kind in ("", "split", "class", "found")))

    @property
    def empty(self) -> bool:
        return not any(self)


class Narrowing:
    """Tells for images of one data set whether they fit."""

    def __init__(self, classes: Sequence[str], findings: Mapping[str, Sequence[Finding]], query: Query) -> None:
        self._classes = [plain(name) for name in classes]
        self._findings, self._query = findings, query

    def fits(self, item: Item) -> bool:
        q = self._query
        if q.splits and any(split != item.split for split in q.splits):
            return False
        held = [self._classes[c] for c in item.classes]
        if any(name not in held and not (name == NONE and not held) for name in q.classes):
            return False
        if not q.found and not q.names:
            return True
        codes = [plain(finding.code) for finding in self._findings.get(item.path, ())]
        if any(code not in codes and not (code == ANY and codes) for code in q.found):
            return False
        told = " ".join((plain(item.path), item.split, *held, *codes)) if q.names else ""
        return all(word in told for word in q.names)


def choices(
    classes: Sequence[str], items: Iterable[Item], findings: Mapping[str, Sequence[Finding]]
) -> list[tuple[str, str, str]]:
    """What can be narrowed to by a key, of what there is: what to type for it, a word for it, and how many images."""
    total = bare = told = 0
    splits, held, codes = Counter[str](), Counter[int](), Counter[str]()
    for item in items:
        total += 1
        splits[item.split] += 1
        held.update(item.classes)
        bare += not item.classes
        if said := findings.get(item.path):
            told += 1
            codes.update({finding.code for finding in said})
    rows = [("", "all", total)]
    rows += [(f"split:{split}", split, splits[split]) for split in SPLITS if splits[split]]
    for number, name in enumerate(classes):
        if held[number]:
            rows.append((f'class:"{name}"' if " " in name else f"class:{name}", words.clean(name), held[number]))
    if bare:
        rows.append((f"class:{NONE}", "nothing in it", bare))
    if told:
        rows.append((f"found:{ANY}", "anything found", told))
    rows += [(f"found:{code}", code.replace("_", " "), many) for code, many in codes.most_common()]
    return [(typed, word, words.plural(many, "image")) for typed, word, many in rows]
