"""`dojang preset`: settings kept under a name."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from engine import presets
from engine.errors import Problem
from engine.spec import property_of
from tui import words
from tui.commands import Arguments, _json, _out, _table, _workspace


def preset_list(a: Arguments) -> None:
    found = presets.listing(_workspace(a))
    if a.json:
        return _json([p.to_json() for p in found])
    rows = [[p.name, "built in" if p.built_in else "yours", brief(p)] for p in found]
    return _table(["preset", "whose", "settings"], rows)


def brief(preset: presets.Preset) -> str:
    """What a preset is about, or its settings that differ from the defaults, in one line."""
    if preset.wrong and not preset.settings:
        return preset.wrong[0].message
    shown = [f"{n} {words.setting(preset.settings[n])}" for n in presets.differs(preset.settings)]
    return preset.about or ", ".join(shown) or "all at their defaults"


def preset_show(a: Arguments) -> None:
    found = presets.load(_workspace(a), a.name)
    if a.json:
        return _json(found.to_json())
    _out(f"{found.name}{' (built in)' if found.built_in else ''}{f': {found.about}' if found.about else ''}")
    for name, value in found.settings.items():
        _out(words.clean(f"  {name} = {words.setting(value)}"))
    for line in told(found.wrong):
        _out(line)
    return None


def told(wrong: Any) -> list[str]:
    """What of a preset is not used, and why."""
    return [words.clean(f"not used: {title(p)} {p.message}") for p in wrong]


def title(problem: Problem) -> str:
    return str(property_of(problem.field).get("title") or problem.field)


def preset_save(a: Arguments) -> None:
    """Keep the settings of a spec.toml or a version, with `--set` on top."""
    from tui.lr_commands import _spec_of

    workspace = _workspace(a).ensure()
    spec, _ = _spec_of(workspace, a.target, a.set)
    found = presets.save(workspace, a.name, spec.model_dump(), about=a.about or "", replace=a.replace)
    if a.json:
        return _json(found.to_json())
    return _out(f"“{found.name}” is kept: {brief(found)}. Use it: dojang train --preset {shlex.quote(found.name)} …")


def preset_delete(a: Arguments) -> None:
    presets.delete(_workspace(a), a.name)
    return _json({"deleted": a.name}) if a.json else _out(f"“{a.name}” is gone.")


def with_preset(a: Arguments, data: dict[str, Any]) -> dict[str, Any]:
    """`data` on top of the preset that `--preset` names; what of that cannot be used is said on stderr."""
    if not getattr(a, "preset", None):
        return data
    preset = presets.load(_workspace(a), a.preset)
    # a preset knows nothing of the data set, and what is given beside it wins
    base = {k: v for k, v in data.items() if k in ("dataset", "model")}
    usable = {k: v for k, v in preset.settings.items() if k not in data}
    merged, wrong = presets.applied(usable, base)
    for line in told((*preset.wrong, *wrong)):
        sys.stderr.write(f"{line}\n")
    return {**merged, **data}


__all__ = ["preset_delete", "preset_list", "preset_save", "preset_show", "with_preset"]
