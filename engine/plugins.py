"""Families of models that are not dojang's own: Python packages with an entry point, and declared programs.

A package offers an object under the entry point group `dojang.kernels`; the entry point's name is the kernel's:

    [project.entry-points."dojang.kernels"]
    mykernel = "my_package.dojang:kernel"

The object has what `Kernel` says. Nothing is looked for before the catalogue is asked for more than dojang's own models,
and whatever is wrong with a package costs its models and a line (`troubles`), never dojang.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import DojangError

if TYPE_CHECKING:
    from engine.catalog import Model
    from engine.external import Declaration
    from engine.options import Options
    from engine.spec import Spec

GROUP = "dojang.kernels"
NOMINAL_BATCH = 16.0


class Kernel(Protocol):
    """What an entry point offers. `options` (JSON Schema) and `defaults` may be left out.

    `models` is asked by the screens too: it must not import torch. `open_session` runs in the worker alone and returns
    an `engine.training.session.Session`; see `engine.training.kernels.open_session` for what it is given.
    `defaults` are what empty settings come to for this kernel, such as {"nominal_batch_size": 64}. `reads_packs = True`
    says that images are read by `engine.training.pixels`; without, versions of data sets that shape images are refused.
    """

    options: Mapping[str, Any]
    defaults: Mapping[str, float]

    def models(self) -> Sequence[Model]:
        """Every model of the family; their `kernel` is filled in."""

    def open_session(
        self, spec: Any, material: Any, precision: Any, scratch: Path, weights: Path | None, structure: Any
    ) -> Any:
        """Build the model and its data."""


@dataclass
class _Known:
    """What was found, once asked for."""

    kernels: dict[str, Kernel] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    options: dict[str, Options] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)


_known: _Known | None = None
_workspace: Path | None = None


def look_in(workspace: Path) -> None:
    """Have the catalogue hold what is declared in this workspace too. A process works in one workspace at a time."""
    global _workspace
    _workspace = workspace


def forget() -> None:
    """Look for installed packages anew."""
    global _known
    _known = None


def models() -> dict[str, Model]:
    """Every model from outside by name, none of which has a name of dojang's own."""
    found = dict(_packages().models)
    for declared in _declared()[0]:
        if declared.name not in _packages().kernels:
            found |= {m.name: m for m in declared.models if m.name not in found}
    return found


def troubles() -> dict[str, str]:
    """By kernel, what is wrong with those that are left out, or with some of their models."""
    declared, broken = _declared()
    found = {**_packages().troubles, **{name: e.message for name, e in broken.items()}}
    taken = set(_packages().models)
    for one in declared:
        if one.name in _packages().kernels:
            found[one.name] = f"{one.path} has the name of an installed package's kernel: it is left out"
            continue
        twice = [m.name for m in one.models if m.name in taken]
        if twice:
            found[one.name] = f"{', '.join(twice)} of {one.path}: another kernel has models of that name"
        taken |= {m.name for m in one.models}
    return found


def package_troubles() -> dict[str, str]:
    """By kernel, what is wrong with what installed packages offer."""
    return dict(_packages().troubles)


def kernel(name: str) -> Kernel | None:
    """The kernel that a package offers under this name."""
    return _packages().kernels.get(name)


def kernels() -> dict[str, Kernel]:
    """Every kernel that a package offers."""
    return dict(_packages().kernels)


def declaration(name: str) -> Declaration | None:
    """The program declared under this kernel's name, if it is one."""
    from engine.catalog import BUILT_IN

    if name in BUILT_IN or name in _packages().kernels:
        return None
    return next((d for d in _declared()[0] if d.name == name), None)


def program_of(model: str) -> Declaration | None:
    """The declared program that trains this model, None where dojang's own loop does."""
    from engine import catalog

    return declaration(catalog.find(model).kernel)


def unready(model: str) -> str:
    """What keeps the declared program of a model from being started; empty for every other model."""
    from engine import external

    program = program_of(model)
    if program is None:
        return ""
    if not program.accepted:
        refused = external.refusal(program)
        return f"{refused.message} {refused.hint}"
    return "; ".join(program.troubles())


def processes(spec: Spec) -> int:
    """How many processes of ours share a training: one for each GPU, and one alone for a program, which sees to its own."""
    return 1 if program_of(spec.model) else spec.gpus


def options_of(kernel_name: str) -> Options:
    """A kernel's own settings; none for dojang's."""
    from engine.catalog import BUILT_IN
    from engine.options import Options

    if kernel_name in BUILT_IN:
        return Options()
    declared = declaration(kernel_name)
    return declared.options if declared else _packages().options.get(kernel_name, Options())


def settled(kernel_name: str, name: str) -> float | None:
    """What an empty setting comes to for a kernel from outside."""
    from engine.catalog import BUILT_IN

    if kernel_name in BUILT_IN:
        return None
    defaults = getattr(_packages().kernels.get(kernel_name), "defaults", {})
    value = defaults.get(name, NOMINAL_BATCH if name == "nominal_batch_size" else None)
    return value if isinstance(value, (int, float)) else None


def ignores(kernel_name: str, name: str) -> bool:
    """Whether a kernel from outside does nothing with a setting. Packages train in dojang's own loop, which obeys them."""
    from engine.catalog import BUILT_IN

    if kernel_name in BUILT_IN:
        return False
    declared = declaration(kernel_name)
    return declared is not None and name != "image_size" and name not in declared.settings


def objection(model: Model, name: str, value: Any, default: Any) -> str:
    """What speaks against a setting for a model from outside; empty where nothing does."""
    from engine.catalog import BUILT_IN

    if model.kernel in BUILT_IN:
        return ""
    if name == "weights" and value == "pretrained" and not model.pretrained:
        return f"{model.name} has no pretrained weights: take scratch, or a file"
    if name == "download" and value:
        return f"does nothing for {model.name}, whose weights have no public address: leave it at false"
    declared = declaration(model.kernel)
    if declared is None:
        return ""
    if name == "gpus":
        low, high = max(1, declared.gpus[0]), max(1, declared.gpus[1])
        return "" if low <= value <= high else f"must be {low} – {high} for {model.name}"
    if name == "device" and value == "cpu" and declared.gpus[0]:
        return f"{model.name} needs a GPU"
    if ignores(model.kernel, name) and value != default:
        keep = "empty" if default is None else f"at {str(default).lower()}"
        return f"does nothing for {model.name}: leave it {keep}"
    return ""


def _declared() -> tuple[list[Declaration], dict[str, DojangError]]:
    from engine import external

    return external.declarations(_workspace) if _workspace else ([], {})


def _packages() -> _Known:
    global _known
    if _known is None:
        _known = _find()
    return _known


def _find() -> _Known:
    """Every installed entry point. What a package prints while it loads goes to stderr: stdout may be a script's JSON."""
    from importlib.metadata import entry_points

    found = _Known()
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        said, before = io.StringIO(), "torch" in sys.modules
        try:
            with contextlib.redirect_stdout(said):
                _take(found, entry)
        except (Exception, SystemExit) as e:  # whatever a foreign package does wrong, dojang goes on
            what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
            found.troubles[entry.name] = f"the package's kernel cannot be loaded: {what.splitlines()[0][:300]}"
        if "torch" in sys.modules and not before and entry.name not in found.troubles:
            found.troubles[entry.name] = "imports torch to list its models, which slows every start: import it later"
        if said.getvalue():
            sys.stderr.write(said.getvalue())
    return found


def _take(found: _Known, entry: Any) -> None:
    """Load one entry point and take in its models. Raises whatever is wrong with it."""
    from engine import options
    from engine.catalog import BUILT_IN, MODELS
    from engine.external_schema import NAME

    name = entry.name
    if not NAME.fullmatch(name) or name in BUILT_IN:
        raise ValueError(f"{name!r} cannot be its name: a-z, 0-9, _ and -, and no kernel of dojang's own")
    if name in found.kernels:
        raise ValueError("two packages offer a kernel of that name; only the first is taken")
    loaded = entry.load()
    if not callable(getattr(loaded, "open_session", None)):
        raise TypeError("it has no function open_session")
    settings = options.read(getattr(loaded, "options", {}))
    made = [_checked(m, name) for m in loaded.models()]
    taken = [m.name for m in made if m.name in MODELS or m.name in found.models]
    if taken:
        found.troubles[name] = f"{', '.join(taken)}: another kernel has models of that name; these are left out"
    found.models |= {m.name: m for m in made if m.name not in taken}
    found.kernels[name], found.options[name] = loaded, settings


def _checked(model: Any, kernel_name: str) -> Model:
    from engine.catalog import Model
    from engine.external_schema import ANNOTATIONS, MODEL_NAME

    if not isinstance(model, Model):
        raise TypeError(f"models() must give engine.catalog.Model, not {type(model).__name__}")
    if not isinstance(model.name, str) or not MODEL_NAME.fullmatch(model.name):
        raise ValueError(f"{str(model.name)[:64]!r} cannot name a model: a-z, 0-9, . _ -, at most 64 characters")
    if model.task not in ANNOTATIONS:
        raise ValueError(f"{model.name}: task must be detect or classify")
    whole = isinstance(model.image_size, int) and isinstance(model.stride, int) and model.stride > 0
    if not whole or not 32 <= model.image_size <= 2048 or model.image_size % model.stride:
        raise ValueError(f"{model.name}: image_size must be 32 – 2048 and a multiple of stride")
    return replace(model, kernel=kernel_name)


__all__ = [
    "Kernel",
    "declaration",
    "forget",
    "ignores",
    "kernel",
    "kernels",
    "look_in",
    "models",
    "objection",
    "options_of",
    "package_troubles",
    "processes",
    "program_of",
    "settled",
    "troubles",
    "unready",
]
