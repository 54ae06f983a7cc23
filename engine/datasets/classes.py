"""Names of classes: read from strangers' files, shown on terminals."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

LONGEST = 200  # characters


def clean_class(name: str) -> str | None:
    """The composed, trimmed name; None if it is empty, too long or holds control characters."""
    text = unicodedata.normalize("NFC", name).strip()
    if not text or len(text) > LONGEST or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        return None
    return text


def by_frequency(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, most frequent first, ties by alphabet: the order cannot depend on that of the files."""
    return tuple(sorted((counts := Counter(names)), key=lambda name: (-counts[name], name)))
