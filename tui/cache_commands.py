"""`dojang cache`: what the workspace's cache holds, and removing it."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.datasets import cached
from engine.errors import DojangError
from tui import words
from tui.commands import Arguments, _json, _out, _table, _workspace


def cache_list(a: Arguments) -> None:
    every = cached.listed(_workspace(a).path)
    total = sum(one.bytes for one in every)
    if a.json:
        return _json({"bytes": total, "kept": [one.to_json() for one in every]})
    if not every:
        return _out("The cache is empty.")
    rows = []
    for one in every:
        state = "in use" if one.in_use else "" if one.whole else "unfinished"
        used = words.when(datetime.fromtimestamp(one.used, UTC).isoformat())
        count = words.DASH if one.images is None else str(one.images)
        rows.append([one.short, one.kind, one.what, count, _size(one.bytes), used, state])
    _table(["name", "kind", "of", "images", "size", "last used", ""], rows, frozenset({3, 4}))
    return _out(f"{_size(total)} in all. Whatever is dropped is made again when it is needed.")


def cache_drop(a: Arguments) -> None:
    path = _workspace(a).path
    if bool(a.name) == a.all:
        hint = "`dojang cache` lists what there is."
        raise DojangError("Say what to drop: a NAME, or --all.", code="USAGE", hint=hint)
    cached.sweep(path)
    dropped, held = [], []
    for one in cached.listed(path) if a.all else [cached.find(path, a.name)]:
        try:
            cached.drop(one)
            dropped.append(one)
        except DojangError as e:
            if not (a.all and e.code == "RUNNING"):
                raise
            held.append(one)
    freed = sum(one.bytes for one in dropped)
    if a.json:
        return _json({"dropped": [one.name for one in dropped], "in_use": [one.name for one in held], "bytes": freed})
    for one in held:
        _out(words.clean(f"{one.short}, of {one.what}, is in use by a training: it stays."))
    return _out(f"{words.plural(len(dropped), 'thing')} dropped, {_size(freed)} freed.")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
