"""External kernels: programs in any language that a person declares in WORKSPACE/kernels/NAME.toml and lets train.

A declaration is code that runs as the person, so it is listed at once but run only after they have seen its command and
said yes (`accept`). What was accepted is remembered by the digest of the declaration, beside the person's own settings
and not in the workspace: a workspace that came from elsewhere brings no consent with it. The digest covers the
declaration, not the program that it starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import files, plainfile
from engine.errors import DojangError, NotFound
from engine.options import Options

if TYPE_CHECKING:
    from engine.catalog import Model

LARGEST = 1 << 18  # bytes of a declaration
MOST = 64  # kernels of a workspace
PLACEHOLDERS = ("spec", "run", "python", "folder", "output")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One program that trains. `folder` is where its declaration came from: `{folder}` in the command."""

    name: str
    path: Path
    folder: Path
    digest: str
    accepted: bool
    task: str
    command: tuple[str, ...]
    models: tuple[Model, ...]
    operations: frozenset[str]
    gpus: tuple[int, int]
    settings: frozenset[str]
    events: str
    stop_seconds: float
    etc_path: tuple[str, ...]
    options: Options = field(default_factory=Options)

    def command_line(self, **places: str) -> list[str]:
        """The words to start, with the placeholders that are given filled in. No shell sees them."""
        known = {"python": sys.executable, "folder": str(self.folder), **places}
        words = []
        for word in self.command:
            for name, value in known.items():
                word = word.replace(f"{{{name}}}", value)
            words.append(word)
        return words

    def files(self) -> dict[str, Path]:
        """The extra files that it wants to be given, by their bare names."""
        return {Path(p).name: (self.folder / p).absolute() for p in self.etc_path}

    def troubles(self) -> list[str]:
        """What keeps its command from being started on this machine, as far as can be seen from outside."""
        found = []
        program = self.command_line()[0]
        if shutil.which(program) is None:
            found.append(f"its program {program} is not here, or may not be executed")
        for word in self.command_line()[1:]:
            if word.startswith(f"{self.folder}{os.sep}") and "{" not in word and not Path(word).exists():
                found.append(f"{word} is not there")
        found += [f"its file {path} is not there" for path in self.files().values() if not path.is_file()]
        return found


def folder_of(workspace: Path) -> Path:
    return workspace / "kernels"


def read(path: Path, folder: Path | None = None) -> Declaration:
    """The declaration in a file. Raises DojangError(BAD_KERNEL) with everything that is wrong with it."""
    from engine.external_schema import declaration

    data = _bytes(path)
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise _bad(path, [f"it is not valid TOML: {str(e)[:200]}"]) from e
    place = (folder or path.parent).absolute()
    made, wrong = declaration(table, path, place, digest(data, place))
    if made is None:
        raise _bad(path, wrong)
    return made


def digest(data: bytes, folder: Path) -> str:
    """Fingerprint of what runs: the declaration, and the folder that its `{folder}` stands for."""
    return hashlib.sha256(data + b"\0" + os.fsencode(folder)).hexdigest()


def _bytes(path: Path) -> bytes:
    """What the file holds: a plain file of a sane size, and never a pipe that one would wait for."""
    try:
        with plainfile.opened(path, links=True) as file:
            data = file.read(LARGEST + 1)
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="BAD_KERNEL") from e
    if len(data) > LARGEST:
        raise _bad(path, [f"it has more than {LARGEST // 1024} KiB"])
    return data


def _bad(path: Path, wrong: Iterable[str]) -> DojangError:
    lines = "".join(f"\n  {one}" for one in list(wrong)[:20])
    return DojangError(
        f"{path} does not declare a kernel:{lines}",
        code="BAD_KERNEL",
        hint="README, “Your own models”, shows a declaration.",
    )


_known: dict[Path, tuple[tuple[int, int, int], Declaration | DojangError]] = {}


def declarations(workspace: Path) -> tuple[list[Declaration], dict[str, DojangError]]:
    """The kernels declared in the workspace, and by name what is wrong with the rest. Files are read when they change."""
    found: list[Declaration] = []
    broken: dict[str, DojangError] = {}
    try:
        paths = sorted(Path(e.path) for e in os.scandir(folder_of(workspace)) if e.name.endswith(".toml"))
    except OSError:
        return found, broken
    consents = _consents()
    for path in paths[:MOST]:
        made = _cached(path, consents)
        if isinstance(made, Declaration):
            found.append(replace(made, accepted=_is_accepted(made, consents)))
        else:
            broken[path.stem] = made
    if len(paths) > MOST:
        broken["…"] = DojangError(f"Only the first {MOST} of {len(paths)} kernels are read.", code="BAD_KERNEL")
    return found, broken


def _cached(path: Path, consents: dict[str, Any]) -> Declaration | DojangError:
    folder = _recorded_folder(path, consents)
    try:
        status = path.stat()
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as e:
        return DojangError(f"{path} cannot be read: {e.strerror}.", code="BAD_KERNEL")
    before = _known.get(path)
    if before and before[0] == signature and (isinstance(before[1], DojangError) or before[1].folder == folder):
        return before[1]
    made: Declaration | DojangError
    try:
        made = read(path, folder)
    except DojangError as e:
        made = e
    _known[path] = (signature, made)
    return made


def find(workspace: Path, name: str) -> Declaration:
    """The kernel of that name. Raises NotFound, or what is wrong with its declaration."""
    found, broken = declarations(workspace)
    for one in found:
        if one.name == name:
            return one
    if name in broken:
        raise broken[name]
    there = ", ".join(one.name for one in found)
    raise NotFound(
        f"There is no external kernel “{name}”.",
        hint=f"There are: {there}." if there else "Add one: dojang kernel add FILE.toml",
    )


# Consent


def consents_file() -> Path:
    """Where it is kept what this person let run, whichever the workspace."""
    import platformdirs

    return Path(platformdirs.user_config_dir("dojang", appauthor=False)) / "accepted_kernels.json"


def _consents() -> dict[str, Any]:
    try:
        found = json.loads(consents_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _recorded_folder(path: Path, consents: dict[str, Any]) -> Path:
    """Where the declaration was added from; its own folder where it was not added but put there."""
    entry = consents.get(str(path.absolute()))
    folder = entry.get("folder") if isinstance(entry, dict) else None
    return Path(folder) if isinstance(folder, str) and folder.startswith("/") else path.parent.absolute()


def _is_accepted(made: Declaration, consents: dict[str, Any]) -> bool:
    entry = consents.get(str(made.path.absolute()))
    return isinstance(entry, dict) and entry.get("digest") == made.digest


def accept(made: Declaration) -> Declaration:
    """Remember that the person has seen this declaration and lets it run."""
    _remember(made.path, {"digest": made.digest, "folder": str(made.folder), "at": round(time.time())})
    return replace(made, accepted=True)


def _remember(path: Path, entry: dict[str, Any] | None) -> None:
    target = consents_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise files.disk_error(e, target) from e
    kept = {k: v for k, v in _consents().items() if k != str(path.absolute())}
    files.write_json(target, {**kept, str(path.absolute()): entry} if entry else kept)


def refusal(made: Declaration) -> DojangError:
    """Why a declaration that nobody said yes to does not run."""
    return DojangError(
        f"The kernel {made.name} is not accepted: its declaration is new here, or changed since you said yes.",
        code="KERNEL_NOT_ACCEPTED",
        hint=f"See its command and accept it: dojang kernel accept {made.name}",
    )


def add(workspace: Path, source: Path) -> Declaration:
    """Put a declaration into the workspace and accept it: the caller has shown its command and heard yes."""
    made = read(source)
    target = folder_of(workspace) / f"{made.name}.toml"
    if target.exists() and target.absolute() != source.absolute():
        raise DojangError(
            f"There is a kernel {made.name} already.",
            code="EXISTS",
            hint=f"Remove it first: dojang kernel remove {made.name}",
        )
    data = _bytes(source)
    if digest(data, made.folder) != made.digest:
        raise DojangError(f"{source} changed while you were asked.", code="BAD_KERNEL", hint="Look at it again.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise files.disk_error(e, target) from e
    files.write_bytes(target, data)
    return accept(replace(made, path=target))


def remove(workspace: Path, name: str) -> Path:
    """Take a declaration, broken or not, out of the workspace, into its trash; where it lies now. Its program stays."""
    source = folder_of(workspace) / f"{name}.toml"
    if os.sep in name or not os.path.lexists(source):
        find(workspace, name)  # says which there are
        raise NotFound(f"There is no external kernel “{name}”.")
    bin_ = workspace / "trash"
    target = bin_ / f"kernel--{name}--{time.time_ns()}.toml"
    try:
        bin_.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    except OSError as e:
        raise files.disk_error(e, source) from e
    _remember(source, None)
    return target
