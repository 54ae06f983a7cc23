"""The aliases that a person has in their ssh settings, to choose from. Read only."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1 << 20
DEPTH = 16  # files within files, as ssh itself allows
MANY = 1000


@dataclass(frozen=True, slots=True)
class Alias:
    """`host` and `user` as far as the same section tells them: ssh knows more, see `ssh.settings`."""

    name: str
    host: str = ""
    user: str = ""


def aliases(path: Path | None = None) -> list[Alias]:
    """Every alias that names one host, in the order of the files; none where there is no file or it cannot be read."""
    told = os.environ.get("DOJANG_SSH_CONFIG", "")
    start = path or (Path(told) if told else Path.home() / ".ssh" / "config")
    found: dict[str, dict[str, str]] = {}
    names: list[str] = []
    for word, values in _lines(start, start.parent, 0):
        if word == "host":
            names = [v for v in values if not set(v) & set("*?!") and _plain(v)]
            for name in names:
                found.setdefault(name, {})
        elif word == "match":
            names = []
        elif word in ("hostname", "user") and values and _plain(values[0]):
            for name in names:
                found[name].setdefault(word, values[0])
        if len(found) >= MANY:
            break
    return [Alias(name, of.get("hostname", ""), of.get("user", "")) for name, of in found.items()]


def _plain(text: str) -> bool:
    return bool(text) and text.isprintable() and " " not in text and not text.startswith("-")


def _lines(path: Path, folder: Path, depth: int) -> Iterator[tuple[str, list[str]]]:
    """Option and values of each line, those of included files in their place."""
    if depth > DEPTH:
        return
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        word, values = _split(line)
        if word == "include":
            for value in values:
                pattern = os.path.expanduser(value)
                pattern = pattern if os.path.isabs(pattern) else str(folder / pattern)
                for each in sorted(glob.glob(pattern)):
                    yield from _lines(Path(each), folder, depth + 1)
        elif word:
            yield word, values


def _split(line: str) -> tuple[str, list[str]]:
    """`Option value value`, `Option=value`, values in quotes; nothing of a comment."""
    line = line.strip()
    if not line or line.startswith("#"):
        return "", []
    end = next((i for i, c in enumerate(line) if c in " \t="), len(line))
    word, rest = line[:end].lower(), line[end:].lstrip()
    rest = rest.removeprefix("=").strip()
    values: list[str] = []
    while rest and not rest.startswith("#"):
        if rest.startswith('"'):
            value, _, rest = rest[1:].partition('"')
        else:
            value, _, rest = rest.partition(" ") if "\t" not in rest else rest.replace("\t", " ").partition(" ")
        values.append(value)
        rest = rest.lstrip()
    return word, values


__all__ = ["Alias", "aliases"]
