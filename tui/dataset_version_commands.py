"""`dojang dataset version`: what a recipe makes of registered sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.datasets import recipes
from engine.datasets.model import SPLITS, Counts
from engine.datasets.recipe import Recipe, parse
from engine.errors import DojangError, Invalid, Problem
from tui import words
from tui.commands import Arguments, _json, _out, _progress, _spec_file, _table, _workspace

OPTIONS = (
    *("sources", "val", "test", "split", "ratio", "stratify", "group", "seed", "drop", "empty", "tags"),
    *("resize", "size", "grey", "copies"),
)


def version_create(a: Arguments) -> None:
    """Make a version, or with --dry-run only say what it would hold."""
    path = _workspace(a).path
    made = recipes.draft(path, _recipe(a), _progress(a, "reading"))
    dataset = None if a.dry_run else recipes.create(path, a.name, made)
    if a.json:
        told = {"hash": made.hash, "classes": list(made.classes), **made.counts.to_json(), "deviation": made.deviation}
        told |= {"left_out": made.unlabelled, "emptied": made.emptied, "groups": made.groups}
        return _json({"name": dataset.name if dataset else None, **told})
    _counts(made.counts)
    _made(made.recipe, made.counts)
    _out(f"Class shares differ from the whole by at most {made.deviation:.2f} points.")
    for count, text in (
        (made.unlabelled, "without labels: left out"),
        (made.emptied, "lost all objects"),
    ):
        if count:
            _out(f"{words.plural(count, 'image')} {text}.")
    if made.groups:
        _out(f"{words.plural(made.groups, 'group')} of alike images kept together.")
    return _out(
        f"{dataset.name} is made. Train with it: dojang train --dataset {dataset.name}"
        if dataset
        else "Nothing was kept."
    )


def _recipe(a: Arguments) -> Recipe:
    data: dict[str, Any] = _spec_file(a.recipe) if a.recipe else {}
    given = {name: value for name in OPTIONS if (value := getattr(a, name)) not in (None, [])}
    for text in a.set:
        key, sign, value = text.partition("=")
        if not sign:
            raise DojangError(f"“{text}” is not KEY=VALUE.", code="BAD_VALUE", hint="Such as --set rotation=15.")
        given[key.strip()] = value.strip()
    data |= given
    data.setdefault("sources", [a.name])
    if "size" in given and data.get("resize", "none") == "none":
        raise Invalid(
            [Problem("size", "does nothing without a resize: give stretch, letterbox or crop")], code="BAD_RECIPE"
        )
    for text in a.merge:
        old, sign, new = text.partition("=")
        if not sign:
            raise DojangError(f"“{text}” is not OLD,OLD=NEW.", code="BAD_VALUE", hint="Such as --merge cat,dog=pet.")
        data["rename"] = {**data.get("rename", {}), **{name.strip(): new.strip() for name in old.split(",")}}
    return parse(data)


def _counts(counts: Counts) -> None:
    splits = [s for s in SPLITS if counts.per_split[s].images]
    rows = [["images", *(str(counts.per_split[s].images) for s in splits), str(counts.images)]]
    for name, count in counts.per_class.items():
        rows.append([name, *(str(counts.per_split[s].per_class[name]) for s in splits), str(count)])
    _table(["", *splits, "all"], rows, frozenset(range(1, len(splits) + 2)))


def _made(recipe: Recipe, counts: Counts) -> None:
    """What becomes of the pixels, where they do not stay as they are."""
    if recipe.preprocessed:
        done = [f"{recipe.resize} to {recipe.size} × {recipe.size} px"] if recipe.resize != "none" else []
        _out(f"Every image: {', '.join([*done, *(['grey'] if recipe.grey else [])])}.")
    if recipe.copies:
        train = counts.per_split["train"].images
        copies = words.plural(recipe.copies, "varied copy", "varied copies")
        _out(f"{copies} of each training image: an epoch goes through {train * (1 + recipe.copies)}.")


def version_schema(a: Arguments) -> None:
    from engine.spec import schema

    _json(schema(Recipe))


def version_list(a: Arguments) -> None:
    found = recipes.versions(_workspace(a).path, a.name)
    if a.json:
        return _json([one.to_json() for one in found])
    if not found:
        return _out(f"No version yet. Make one: dojang dataset version create {a.name}")
    rows = [[d.name, *(str(d.counts.per_split[s].images) for s in SPLITS), words.when(d.added)] for d in found]
    return _table(["version", *SPLITS, "made"], rows, frozenset({1, 2, 3}))


def version_show(a: Arguments) -> None:
    from engine.datasets import registry

    path: Path = _workspace(a).path
    recipe, found = recipes.recipe_of(path, a.name), registry.load(path, a.name)
    if a.json:
        return _json({**found.to_json(), "recipe": recipe.to_toml()})
    _out(f"{found.name}: {found.task}, {found.hash[:12]}")
    _counts(found.counts)
    _made(recipe, found.counts)
    for name, value in recipe.to_toml().items():
        _out(words.clean(f"  {name} = {value}"))
    return None


def version_diff(a: Arguments) -> None:
    told = recipes.diff(_workspace(a).path, a.name, a.other)
    if a.json:
        return _json(told)
    if told["same"]:
        return _out("They hold the same: same images, labels and splits.")
    for name, (one, other) in told["recipe"].items():
        _out(words.clean(f"{name}: {one} → {other}"))
    for how, names in told["classes"].items():
        if names:
            _out(words.clean(f"classes {how}: {', '.join(names)}"))
    one, other = (counts["per_split"] for counts in told["counts"])
    for split in SPLITS:
        _out(f"{split}: {one[split]['images']} → {other[split]['images']} images")
    _out(
        f"{told['only'][0]} images only in {a.name}, {told['only'][1]} only in {a.other}, {len(told['moved'])} moved split"
    )
    for move in told["moved"][:20]:
        _out(words.clean(f"  {move['image']}: {move['from']} → {move['to']}"))
    return None


def version_delete(a: Arguments) -> None:
    recipes.delete(_workspace(a).path, a.name)
    _json({"deleted": a.name}) if a.json else _out(f"{a.name} is gone; its images were not touched.")
