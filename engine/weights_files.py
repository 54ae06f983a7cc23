"""The files of weights on this machine: what is known of each, and taking in those from elsewhere. Stdlib only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import engine
from engine import catalog, weights
from engine.errors import DojangError
from engine.files import disk_error, sync_folder, write_json
from engine.versions import Workspace, clean_name

SUFFIXES = (".pt", ".pth", ".safetensors")
PATIENCE = 600.0  # seconds that looking a file through may take


@dataclass(frozen=True, slots=True)
class Held:
    """One file of weights. `path` is None where it is not on this machine, `size` in bytes and `sha256` where unknown.

    `how` it came: fetched, imported, found (in a folder of a library, or put there by hand) or missing. `models` are
    those that it fits, `classes` what it tells apart, where that is known.
    """

    file: str
    how: str
    path: str | None
    size: int | None
    sha256: str | None
    models: tuple[str, ...]
    source: str
    classes: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def public(workspace: Workspace) -> list[Held]:
    """The public weights of every model of the catalogue, here or not."""
    found = []
    for model in catalog.MODELS.values():  # those of other packages say nothing of where theirs are
        path = weights.find(model, workspace)
        if path:
            found.append(_held(path, (model.name,)))
        else:
            expected = weights.known_digest(model.pretrained)
            address = weights.address(model)
            found.append(Held(model.pretrained, "missing", None, None, expected or None, (model.name,), address))
    return found


def others(workspace: Workspace) -> list[Held]:
    """What else is in the workspace's folder: imported, or put there by hand."""
    known = {model.pretrained for model in catalog.MODELS.values()}
    try:
        names = sorted(e.name for e in os.scandir(workspace.weights) if e.is_file())
    except FileNotFoundError:
        return []
    paths = [workspace.weights / n for n in names if n.endswith(SUFFIXES) and n not in known]
    return [_held(path, tuple(weights.noted(path).get("fits") or ())) for path in paths]


def _held(path: Path, models: tuple[str, ...]) -> Held:
    """What is noted of a file. A note of a file of another size is of another file."""
    size, note = path.stat().st_size, weights.noted(path)
    if note.get("size") != size:
        note = {}
    classes = note.get("classes")
    return Held(
        path.name,
        str(note.get("how", "found")),
        str(path),
        size,
        note.get("sha256"),
        models,
        str(note.get("from", "")),
        tuple(classes) if isinstance(classes, list) else None,
    )


def public_name(file: str) -> str:
    """The model whose public weights are called so; empty when none are."""
    return next((m.name for m in catalog.MODELS.values() if m.pretrained == file), "")


def examine(path: Path) -> dict[str, Any]:
    """What the file is: `format`, `tensors`, `numbers`, `classes` and `fits`, as `engine.training.recognise` says it.

    It is looked through in a process of its own, in which nothing of it is run either. Raises DojangError
    (MISSING_WEIGHTS, BAD_WEIGHTS, UNSAFE_FILE).
    """
    home = Path(engine.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")]).strip(":"),
    }
    command = [sys.executable, "-P", "-m", "engine.training.recognise", str(path.absolute())]
    try:
        done = subprocess.run(
            command, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as e:
        raise DojangError(
            f"{path} could not be looked through: reading it took too long, or more memory than there is.",
            code="BAD_WEIGHTS",
            hint="Get the file from its source once more, or train from scratch.",
        ) from e
    if "error" in answer:
        error = answer["error"]
        raise DojangError(error["message"], code=error["code"], hint=error["hint"])
    return answer


def take(file: Path, workspace: Workspace, model: str = "", name: str = "") -> Held:
    """Copy a foreign file into the workspace once it is looked through, and note what it is.

    `model` is what it must fit; `name` what it is called here, by default as it is. Raises DojangError: what `examine`
    raises, BAD_WEIGHTS when it fits no model or not the one wanted, EXISTS, BAD_NAME.
    """
    wanted = catalog.find(model).name if model else ""
    target = workspace.ensure().weights / _name(name or file.name, file)
    found = examine(file)
    fits = [str(fit) for fit, _ in found["fits"]]
    _require_fit(file, target.name, fits, wanted)
    with suppress(FileNotFoundError):
        if target.samefile(file):
            return _note(target, file, found, fits)
    if target.exists():
        if weights.digest(target) == weights.digest(file):
            return _note(target, file, found, fits)
        raise DojangError(
            f"There is another {target.name} in {workspace.weights} already.",
            code="EXISTS",
            hint="Give it another name with --name, or remove that file.",
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(file, part)
        with part.open("rb") as copied:
            os.fsync(copied.fileno())
        part.replace(target)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise disk_error(e, target) from e
    sync_folder(target.parent)
    return _note(target, file, found, fits)


def _name(name: str, file: Path) -> str:
    """What the file is called here; its kind's ending is added where it is missing."""
    ending = next((s for s in SUFFIXES if name.endswith(s)), "")
    kind = ending or (file.suffix if file.suffix in SUFFIXES else ".pt")
    return clean_name(name.removesuffix(ending), "file name") + kind


def _require_fit(file: Path, name: str, fits: list[str], wanted: str) -> None:
    """Refuse what is of no use here, or would be taken for a model's public weights though it is another's."""
    listed = ", ".join(fits[:4]) or "no model of the catalogue"
    if not fits or (wanted and wanted not in fits):
        raise DojangError(
            f"{file} does not fit {wanted or 'any model'}: it fits {listed}.",
            code="BAD_WEIGHTS",
            hint="`dojang models` lists the models. The tensors' names must be as the model's library writes them.",
        )
    owner = public_name(name)
    if not owner:
        return
    expected = weights.known_digest(name)
    if owner not in fits:
        why = f"fits {listed}"
    elif expected and not weights.digest(file).startswith(expected):
        why = "has another SHA-256 than the name says"
    else:
        return
    raise DojangError(
        f"{name} is what the public weights of {owner} are called, and {file} {why}.",
        code="BAD_WEIGHTS",
        hint="Give it another name with --name.",
    )


def _note(target: Path, file: Path, found: dict[str, Any], fits: list[str]) -> Held:
    note = {
        "sha256": weights.digest(target),
        "size": target.stat().st_size,
        "from": str(file.absolute()),
        "how": "imported",
        "time": time.time(),
        "fits": fits,
        "classes": found["classes"],
    }
    write_json(weights.note_of(target), note)
    return _held(target, tuple(fits))
