"""Presets: settings kept under a name, to begin other trainings from. TOML files in the workspace, and a few built in.

A preset holds any settings of the spec but those that belong to one training or one machine. “auto” stands for empty,
which TOML cannot say. What is wrong in a file is told, and the rest of it is used.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import files
from engine.errors import DojangError, NotFound, Problem
from engine.spec import Spec, default_of, problems, property_of
from engine.versions import Version, Workspace, clean_name

NOT_KEPT = ("dataset", "dataset_hash", "download", "device")
LARGEST = 64_000  # bytes; more is not ours
LONGEST_ABOUT = 200
Settings = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """Settings under a name. `wrong` is what of its file cannot be used."""

    name: str
    settings: Settings
    about: str = ""
    built_in: bool = False
    wrong: tuple[Problem, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        wrong = [{"field": p.field, "message": p.message} for p in self.wrong]
        return {
            "name": self.name, "built_in": self.built_in, "about": self.about, "settings": self.settings,
            "problems": wrong,
        }  # fmt: skip


def _built_in(name: str, about: str, **settings: Any) -> Preset:
    return Preset(name, settings, about, built_in=True)


BUILT_IN = {
    p.name: p
    for p in (
        _built_in(
            "fine-tune",
            "From the public weights, gently: a low rate of AdamW, a slower backbone, a cosine down.",
            weights="pretrained", optimizer="AdamW", lr=1e-4, schedule="cosine", epochs=50, patience=15,
            backbone_lr_ratio=0.1, warmup_epochs=1.0,
        ),
        _built_in(
            "from scratch",
            "From random weights: long, with the rates chosen by themselves, everything learns.",
            weights="scratch", optimizer="auto", lr=None, schedule="linear", epochs=300, patience=100, freeze="none",
            backbone_lr_ratio=1.0, warmup_epochs=3.0,
        ),
        _built_in(
            "quick look",
            "A few epochs, to see that data and settings work at all. Says little of what a model can reach.",
            epochs=5, patience=0, warmup_epochs=1.0,
        ),
    )
}  # fmt: skip


def folder(workspace: Workspace) -> Path:
    return workspace.path / "presets"


def listing(workspace: Workspace) -> list[Preset]:
    """The person's own by name, then those built in. A file that cannot be read at all has only `wrong`."""
    found = []
    for name in own_names(workspace):
        try:
            found.append(load(workspace, name))
        except DojangError as e:
            found.append(Preset(name, {}, wrong=(Problem("file", e.message),)))
    return [*found, *BUILT_IN.values()]


def own_names(workspace: Workspace) -> list[str]:
    """Names of the files in the workspace that could be presets."""
    try:
        entries = [e.name for e in os.scandir(folder(workspace)) if e.is_file()]
    except OSError:
        return []
    stems = (unicodedata.normalize("NFC", name.removesuffix(".toml")) for name in entries if name.endswith(".toml"))
    return sorted(stem for stem in stems if _fits(stem))


def _fits(name: str) -> bool:
    try:
        return clean_name(name) == name and name not in BUILT_IN
    except DojangError:
        return False


def load(workspace: Workspace, name: str) -> Preset:
    """The preset of that name. Raises NotFound, or DojangError(BAD_FILE) when nothing of it can be read."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    place = _place(workspace, name)
    try:
        if place.stat().st_size > LARGEST:
            raise DojangError(
                f"{place} is too large for a preset: more than {LARGEST // 1000} kB.",
                code="BAD_FILE",
                hint="Remove it, and save the preset again.",
            )
        data = files.read_toml(place)
    except FileNotFoundError:
        there = ", ".join([*own_names(workspace), *BUILT_IN])
        raise NotFound(f"There is no preset “{name}”.", hint=f"There are: {there}.") from None
    except OSError as e:
        raise DojangError(f"{place} cannot be read: {e.strerror}.", code="BAD_FILE") from e
    except (RecursionError, ValueError) as e:
        if isinstance(e, DojangError):
            raise
        raise DojangError(f"{place} is not valid TOML.", code="BAD_FILE", hint="Mend the file or remove it.") from e
    about = data.pop("about", "")
    about = "".join(c for c in about if c.isprintable())[:LONGEST_ABOUT] if isinstance(about, str) else ""
    settings, wrong = sound(data)
    return Preset(place.stem, settings, about, wrong=tuple(wrong))


def _place(workspace: Workspace, name: str) -> Path:
    return folder(workspace) / f"{clean_name(name, 'preset name')}.toml"


def sound(data: Mapping[str, Any]) -> tuple[Settings, list[Problem]]:
    """The settings of `data` that can be, each by itself; and what is wrong with the others."""
    settings: Settings = {}
    wrong: list[Problem] = []
    for name, value in data.items():
        if name in NOT_KEPT:
            wrong.append(Problem(name, "is not kept in presets"))
            continue
        plain = None if value == "auto" and property_of(name).get("nullable") else value
        others = {"model": settings["model"]} if "model" in settings else {}
        found = [p for p in problems({"dataset": "any", **others, name: plain}) if p.field == name]
        # whether it suits the model is for whoever applies it to say: the model may be another one there
        if found and not _suits_another(name, plain):
            wrong += found
        else:
            settings[name] = plain
    return settings, wrong


def _suits_another(name: str, value: Any) -> bool:
    """Whether the setting would be right with a model of another family."""
    from engine import catalog

    if name not in Spec.model_fields or name == "model":
        return False
    one_each = {m.kernel: m.name for m in reversed(catalog.MODELS.values())}.values()
    return any(
        not [p for p in problems({"dataset": "any", "model": model, name: value}) if p.field == name]
        for model in one_each
    )


def applied(settings: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[Settings, list[Problem]]:
    """`data` (a spec's answers so far) with `settings` in it; those that do not fit the rest stay as they were."""
    wrong: list[Problem] = []
    usable = dict(settings)
    while True:
        merged = {**data, **usable}
        bad = [p for p in problems(merged) if p.field in usable]
        if not bad:
            return merged, wrong
        wrong += bad
        for problem in bad:
            usable.pop(problem.field, None)


def kept(data: Mapping[str, Any]) -> Settings:
    """What of a whole spec a preset keeps."""
    return {k: v for k, v in data.items() if k in Spec.model_fields and k not in NOT_KEPT}


def save(
    workspace: Workspace, name: str, settings: Mapping[str, Any], *, about: str = "", replace: bool = False
) -> Preset:
    """Keep `settings` under `name`. Raises DojangError: BAD_NAME, or EXISTS unless `replace`."""
    place = _place(workspace, name)
    if place.stem in BUILT_IN:
        raise DojangError(f"“{place.stem}” is built in.", code="BAD_NAME", hint="Choose another name.")
    if place.exists() and not replace:
        hint = "Choose another name, or replace it (--replace)."
        raise DojangError(f"There is a preset “{place.stem}” already.", code="EXISTS", hint=hint)
    whole = {k: "auto" if v is None else v for k, v in kept(settings).items()}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise files.disk_error(e, place.parent) from e
    files.write_toml(place, {**({"about": about[:LONGEST_ABOUT]} if about else {}), **whole})
    return load(workspace, place.stem)


def delete(workspace: Workspace, name: str) -> None:
    """Remove a preset of the person's own."""
    if name in BUILT_IN:
        raise DojangError(f"“{name}” is built in and stays.", code="BUILT_IN")
    place = _place(workspace, name)
    try:
        place.unlink()
    except FileNotFoundError:
        raise NotFound(f"There is no preset “{name}”.", hint="`dojang preset list` shows them all.") from None
    except OSError as e:
        raise files.disk_error(e, place) from e


def of_version(version: Version) -> Preset:
    """A version's settings, its data set and label left out. Raises DojangError when its spec cannot be read."""
    return Preset(version.reference, kept(version.spec().model_dump()), f"the settings of {version.reference}")


def differs(settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that are not at their defaults, in the order of the form."""
    return [n for n in Spec.model_fields if n in settings and settings[n] != default_of(n)]


__all__ = [
    "BUILT_IN", "Preset", "applied", "delete", "differs", "folder", "kept", "listing", "load", "of_version",
    "own_names", "save", "sound",
]  # fmt: skip
