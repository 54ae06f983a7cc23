"""The servers that a person has added: WORKSPACE/servers.toml, a table each.

[gpu1]
host = "gpu1"                 an alias of ~/.ssh/config, or a host's name; without one it is a folder of this machine
user = "kim"                  where ~/.ssh/config does not say it; so too `port`
root = "~/.dojang"            the folder there that holds everything
python = "~/envs/t/bin/python"   what trains there; without one an environment is made there
wheels = "/home/kim/wheels"   a folder here of wheels to make it from, for a server without internet
[gpu1.data]
cells = "/mnt/cells"          where the images of a data set lie there already
[[gpu1.slurm]]                a way to submit to Slurm there, which it is the login node of; any number: see `entries`
partition = "gpu"
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from engine import files
from engine.errors import DojangError, Invalid, NotFound, Problem
from engine.servers import entries
from engine.servers.entries import Entry

FILE = "servers.toml"
ROOT = "~/.dojang"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]{0,252}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]{0,63}")
RESERVED = frozenset({"local", "this", "here", "localhost"})
MOST = 200  # servers; more in one file are not a person's


@dataclass(frozen=True)
class Box:
    """Where a version may train, and how it is reached. `slurm`: the ways to submit there."""

    name: str
    host: str = ""
    user: str = ""
    port: int = 0
    root: str = ROOT
    python: str = ""
    wheels: str = ""
    data: dict[str, str] = field(default_factory=dict)
    slurm: tuple[Entry, ...] = ()

    @property
    def where(self) -> str:
        """In words, for people."""
        if not self.host:
            return f"{self.root} on this machine"
        login = f"{self.user}@{self.host}" if self.user else self.host
        return f"{login}:{self.port}" if self.port else login

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def problems(data: dict[str, Any]) -> list[Problem]:
    """What is wrong with a server as somebody wrote it, all at once. Nothing that passes can be taken for an option."""
    found = []
    for name, says in _CHECKS.items():
        value = data.get(name)
        if value not in (None, "", {}, 0, [], ()) and (wrong := says(value)):
            found.append(Problem(name, wrong))
    unknown = [str(key) for key in data if key not in Box.__dataclass_fields__]
    found += [Problem(_shown(key), "is no setting of a server") for key in unknown]
    if not data.get("name"):
        found.append(Problem("name", "is missing"))
    return found


def make(data: dict[str, Any]) -> Box:
    """The server that `data` describes. Raises Invalid."""
    data = dict(data)
    host = data.get("host")
    if isinstance(host, str) and "@" in host and not data.get("user"):
        data["user"], _, data["host"] = host.rpartition("@")
    wrong = problems(data)
    if wrong:
        raise Invalid(wrong, code="BAD_SERVER")
    ways = data.pop("slurm", None) or ()
    told = {name: value for name, value in data.items() if value not in (None, "")}
    return Box(**told, slurm=tuple(e if isinstance(e, Entry) else entries.make(e) for e in ways))


def add(workspace: Path, box: Box, *, replace: bool = False) -> None:
    """Keep a server. Raises DojangError(EXISTS) where one has the name, unless it is to be replaced."""
    known = _read(workspace)
    if box.name in known and not replace:
        hint = f"Choose another name, or remove it first: dojang server remove {box.name}"
        raise DojangError(f"A server named {box.name} already exists.", code="EXISTS", hint=hint)
    told = {name: value for name, value in box.to_json().items() if value and name != "name"}
    if box.slurm:
        told["slurm"] = [entry.to_toml() for entry in box.slurm]
    _write(workspace, {**known, box.name: told})


def remove(workspace: Path, name: str) -> Box:
    """Forget a server; nothing on it is touched. Raises NotFound."""
    known = _read(workspace)
    if name not in known:
        raise _unknown(name, known)
    try:
        box = make({**_table(known[name]), "name": name})
    except Invalid:  # a broken one can be forgotten too
        box = Box(name)
    del known[name]
    _write(workspace, known)
    return box


def get(workspace: Path, name: str) -> Box:
    """The server of that name. Raises NotFound, and DojangError(BAD_FILE) where what is written of it cannot be."""
    known = _read(workspace)
    if name not in known:
        raise _unknown(name, known)
    try:
        return make({**_table(known[name]), "name": name})
    except Invalid as e:
        raise _broken(workspace, name, e) from e


def listed(workspace: Path) -> tuple[list[Box], list[DojangError]]:
    """Every server by name, and what is wrong with those that cannot be used."""
    found, troubles = [], []
    for name in sorted(_read(workspace))[:MOST]:
        try:
            found.append(get(workspace, name))
        except DojangError as e:
            troubles.append(e)
    return found, troubles


def _read(workspace: Path) -> dict[str, Any]:
    try:
        return files.read_toml(workspace / FILE)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise DojangError(f"{workspace / FILE} cannot be read: {e.strerror}.", code="UNREADABLE") from e


def _write(workspace: Path, known: dict[str, Any]) -> None:
    files.write_toml(workspace / FILE, dict(sorted(known.items())))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"host": value}


def _unknown(name: str, known: dict[str, Any]) -> NotFound:
    names = ", ".join(_shown(n) for n in sorted(known)[:10])
    hint = f"There are: {names}." if names else "Add one: dojang server add NAME"
    return NotFound(f"There is no server “{_shown(name)}”.", hint=hint)


def _broken(workspace: Path, name: str, e: Invalid) -> DojangError:
    told = "; ".join(f"{p.field} {p.message}" for p in e.problems)
    hint = f"Mend {workspace / FILE}, or: dojang server remove NAME"
    return DojangError(f"The server “{_shown(name)}” cannot be used: {told}.", code="BAD_FILE", hint=hint)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:80])


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        return "must be letters, digits and . _ -, beginning with a letter or digit, at most 32"
    return f"cannot be “{value}”, which means this machine" if value.lower() in RESERVED else ""


def _host(value: Any) -> str:
    if isinstance(value, str) and HOST.fullmatch(value):
        return ""
    return "must be an alias of ~/.ssh/config or a host's name: letters, digits and . _ : % -, not beginning with -"


def _user(value: Any) -> str:
    return "" if isinstance(value, str) and USER.fullmatch(value) else "must be a user's name, not beginning with -"


def _port(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return "" if whole and 1 <= value <= 65535 else "must be a whole number, 1 – 65535"


def _path_there(value: Any) -> str:
    """A path on the server, which goes into commands and search paths there as it stands."""
    sound = isinstance(value, str) and len(value) <= 1000 and value.isprintable() and value.startswith(("/", "~/"))
    if not sound or set(value) & set(":{}\\\"'`$") or ".." in PurePosixPath(value).parts:
        return "must be a whole path on the server, such as /data/dojang or ~/.dojang, without : { } $ or quotes"
    return ""


def _folder_here(value: Any) -> str:
    sound = isinstance(value, str) and value.isprintable() and value.startswith(("/", "~"))
    return "" if sound else "must be a whole path on this machine"


def _data(value: Any) -> str:
    if not isinstance(value, dict) or len(value) > 1000:
        return "must be a table of paths by data set"
    for name, path in value.items():
        if not name or not name.isprintable() or _path_there(path):
            return f"{_shown(str(name))}: {_path_there(path) or 'is no name of a data set'}"
    return ""


_CHECKS = {
    "name": _name,
    "host": _host,
    "user": _user,
    "port": _port,
    "root": _path_there,
    "python": _path_there,
    "wheels": _folder_here,
    "data": _data,
    "slurm": entries.problem,
}

__all__ = ["Box", "add", "get", "listed", "make", "problems", "remove"]
