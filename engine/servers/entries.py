"""A way to submit to Slurm on a server: an entry of its [[NAME.slurm]] in servers.toml.

[[cluster.slurm]]
partition = "gpu"             required; the entry's name too, unless `name` gives it another
time = "1-00:00:00"           as sbatch takes it, or minutes; without one the partition's own
qos, account, constraint      as sbatch takes them
gres = "gpu"                  what a GPU is called there, such as "gpu:a100"; "none" where the partition has none
cpus = 8                      CPUs in all; by default 4 for each GPU, else the partition's own number
memory = "32G"                in all; by default the partition's own
margin = 120                  seconds before the time limit at which a training is saved and put back into the queue
driver = "550.54"             of the nodes' GPUs, for the environment made there when the login node has none
lines = ["--exclusive"]       any other options of sbatch

One node is all that a training takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from engine.errors import Invalid, Problem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
GRES = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_.-]{1,32})?")
CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.&|,*()\[\]!-]{0,199}")
MEMORY = re.compile(r"[1-9][0-9]{0,8}[KMGT]?")
TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?")
DRIVER = re.compile(r"[1-9][0-9]{1,3}(\.[0-9]{1,4}){0,3}")
OPTION = re.compile(r"--([a-z][a-z0-9-]{1,40})(=[^\x00-\x1f\x7f]{0,300})?")
NONE, GPU = "none", "gpu"
DRIVER_UNKNOWN = "535"
CPUS_PER_GPU = 4
MOST = 50
LEAST_MARGIN, MARGIN = 10, 120
OWN = {
    "partition": "partition", "qos": "qos", "account": "account", "gres": "gres", "time": "time",
    "cpus-per-task": "cpus", "mem": "memory", "constraint": "constraint", "nodes": "nodes",
}  # fmt: skip
BARRED = (
    *("output", "error", "input", "job-name", "signal", "requeue", "no-requeue", "open-mode", "array", "wrap", "wait"),
    *("dependency", "chdir", "parsable", "clusters", "cluster", "ntasks", "export", "export-file", "get-user-env"),
    *(
        "uid",
        "gid",
        "help",
        "usage",
        "version",
        "test-only",
        "quiet",
        "gpus",
        "ignore-pbs",
        "comment",
        "kill-on-invalid-dep",
    ),
)


@dataclass(frozen=True)
class Entry:
    """One of them, checked."""

    partition: str
    name: str = ""
    qos: str = ""
    account: str = ""
    gres: str = GPU
    time: str = ""
    cpus: int = 0
    memory: str = ""
    nodes: int = 1
    constraint: str = ""
    margin: int = MARGIN
    driver: str = DRIVER_UNKNOWN
    lines: tuple[str, ...] = ()

    def to_toml(self) -> dict[str, Any]:
        """What differs from the defaults."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        told = {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}
        if self.name == self.partition:
            del told["name"]
        return told


def make(data: dict[str, Any]) -> Entry:
    """The entry that `data`, which has no `problem`, describes."""
    told = {k: v for k, v in data.items() if v not in (None, "")}
    told["lines"] = tuple(told.get("lines") or ())
    for name in ("time", "memory"):
        told[name] = str(told.get(name, ""))
    told["name"] = told.get("name") or told["partition"]
    return Entry(**told)


def problem(value: Any) -> str:
    """What is wrong with a server's entries, as somebody wrote them; empty where nothing is."""
    if not isinstance(value, (list, tuple)) or len(value) > MOST:
        return "must be an array of tables: [[NAME.slurm]]"
    names: set[str] = set()
    for each in value:
        if isinstance(each, Entry):
            each = {**each.to_toml(), "name": each.name}
        if not isinstance(each, dict):
            return "must be an array of tables: [[NAME.slurm]]"
        where = shown(str(each.get("name") or each.get("partition") or "an entry"))
        wrong = _problem(each)
        if wrong:
            return f"{where}: {wrong}"
        name = str(each.get("name") or each["partition"])
        if name in names:
            return f"{where}: two entries have that name; give one another with `name`"
        names.add(name)
    return ""


def _problem(each: dict[str, Any]) -> str:
    known = {f.name for f in fields(Entry)}
    unknown = [key for key in each if key not in known]
    if unknown:
        return f"{shown(str(unknown[0]))} is no setting of an entry"
    if not each.get("partition"):
        return "partition is missing"
    for name, says in _CHECKS.items():
        value = each.get(name)
        if value not in (None, "") and (wrong := says(value)):
            return f"{name} {wrong}"
    limit = seconds(str(each.get("time") or ""))
    if limit and limit <= int(each.get("margin") or MARGIN):
        return f"margin must be less than its time, which is {limit} s"
    return ""


def seconds(time: str) -> int:
    """A time limit as sbatch reads it; 0 for none: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s."""
    match = TIME.fullmatch(time)
    if not match:
        return 0
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:
        return ((first or 0) * 60 + (second or 0)) * 60 + third
    return (first or 0) * 60 + (second or 0)


def parse(text: str) -> dict[str, Any]:
    """An entry as `--slurm` takes it: partition=gpu,time=1-00:00:00,line=--exclusive. Raises Invalid."""
    keys = "|".join([*(f.name for f in fields(Entry) if f.name != "lines"), "line"])
    told: dict[str, Any] = {}
    for part in re.split(rf",(?=(?:{keys})=)", text):
        key, equals, value = part.partition("=")
        if not equals or not re.fullmatch(keys, key):
            message = f"“{shown(part)}” is not one of {keys.replace('|', ', ')} with = and its value"
            raise Invalid([Problem("--slurm", message)], code="BAD_SERVER")
        if key == "line":
            told.setdefault("lines", []).append(value)
        else:
            told[key] = int(value) if key in ("cpus", "nodes", "margin") and value.isdecimal() else value
    return told


def text(entry: Entry) -> str:
    """What `parse` takes for this entry."""
    told = entry.to_toml()
    lines = told.pop("lines", [])
    return ",".join([*(f"{name}={value}" for name, value in told.items()), *(f"line={line}" for line in lines)])


def spaced(text: str) -> str:
    """`--name value` as `--name=value`, so that it stays one word."""
    name, space, value = text.strip().partition(" ")
    return f"{name}={value.strip()}" if space and "=" not in name else text.strip()


def _line(text: Any) -> str:
    if not isinstance(text, str):
        return "must be a text"
    match = OPTION.fullmatch(spaced(text))
    if not match:
        return "must be one option of sbatch that begins with --, on one line"
    name = match[1]
    for option, setting in OWN.items():
        if option == name:
            return f"--{name} is the setting `{setting}`"
    for barred in (*BARRED, *OWN):  # sbatch takes any beginning of an option's name for it
        if barred == name or (barred.startswith(name) and name not in WHOLE):
            return f"--{name} is dojang's own: a training is submitted, followed and resumed by it"
    return ""


WHOLE = frozenset({"mem-per-cpu", "mem-per-gpu", "time-min", "no-kill", "nice", "hold", "exclusive"})
"""Options that are whole though others begin with them."""


def _lines(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or len(value) > MOST:
        return "must be a list of options"
    return next((f"“{shown(str(one))}”: {wrong}" for one in value if (wrong := _line(one))), "")


def shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:80])


def _like(pattern: re.Pattern[str], words: str) -> Callable[[Any], str]:
    return lambda value: "" if isinstance(value, str) and pattern.fullmatch(value) else f"must be {words}"


def _whole(low: int, high: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        sound = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if sound else f"must be a whole number, {low} – {high}"

    return check


def _time(value: Any) -> str:
    sound = isinstance(value, (int, str)) and not isinstance(value, bool) and seconds(str(value)) > 0
    return "" if sound else "must be minutes, or as in 12:00:00 and 1-00:00:00"


def _memory(value: Any) -> str:
    sound = isinstance(value, (int, str)) and not isinstance(value, bool) and MEMORY.fullmatch(str(value))
    return "" if sound else "must be as in 32G, or a number of MiB"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "partition": _like(NAME, "a partition's name: letters, digits and . _ -"),
    "name": _like(NAME, "letters, digits and . _ -, beginning with a letter or digit"),
    "qos": _like(WORD, "a name"),
    "account": _like(WORD, "a name"),
    "gres": _like(GRES, "as in gpu or gpu:a100, or none"),
    "time": _time,
    "cpus": _whole(0, 4096),
    "memory": _memory,
    "nodes": _whole(1, 1),
    "constraint": _like(CONSTRAINT, "features as sbatch takes them, without spaces"),
    "margin": _whole(LEAST_MARGIN, 36_000),
    "driver": _like(DRIVER, "a driver's version, as in 550.54"),
    "lines": _lines,
}


def options(entry: Entry, gpus: int, processes: int) -> Sequence[str]:
    """What sbatch is told of a training that takes so many GPUs, or none and so many processes."""
    cpus = entry.cpus or (gpus * CPUS_PER_GPU if gpus else processes if processes > 1 else 0)
    told = {
        "partition": entry.partition, "qos": entry.qos, "account": entry.account, "time": entry.time,
        "constraint": entry.constraint, "mem": entry.memory, "cpus-per-task": str(cpus or ""),
        "gres": f"{entry.gres}:{gpus}" if gpus and entry.gres != NONE else "",
    }  # fmt: skip
    return [*(f"--{name}={value}" for name, value in told.items() if value), *map(spaced, entry.lines)]


__all__ = ["Entry", "make", "options", "parse", "problem", "seconds"]
