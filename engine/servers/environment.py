"""Which Python trains on a server: one that a person names, looked at first, or one made there for the driver found.

An environment lies in envs/ID of the server's folder, ID being all that it depends on, so it is made once and shared by
every run; it appears whole by a rename. Without internet there, it is made from a folder of wheels that is sent over.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
from engine.errors import DojangError
from engine.servers import builder, shipping
from engine.servers.boxes import Box
from engine.servers.link import Link
from engine.servers.link_errors import Conflict, plain
from engine.servers.shipping import Content

GIB = 1 << 30
LEAST = 8 * GIB  # bytes free on the server before an environment for GPUs is made: it takes about 6
LEAST_CPU = 3 * GIB
INODES = 80_000
LONGEST = 3 * 3600.0  # seconds it may take to be made
PATIENCE = 3.0  # seconds between two looks at somebody else who makes it
OLDEST = (3, 11)
DRIVERS = (  # the oldest driver that runs it, and what torch is then built for: NVIDIA's release notes, table 2
    ((580, 0), "cu130"),
    ((570, 0), "cu128"),
    ((525, 60), "cu126"),
    ((450, 80), "cu118"),
)
MOST = 1000  # of anything that a server lists
SCREENS = ("textual", "plotext")  # what only the screens need
ARRAY = ("torch", "torchvision")


@dataclass(frozen=True)
class Far:
    """The server as its agent describes it: what of `hello` and `probe` counts here."""

    root: str
    home: str
    executable: str
    python: tuple[int, ...]
    arch: str
    glibc: str
    drivers: tuple[str, ...]  # one for each GPU
    disk_free: float  # GiB

    @classmethod
    def of(cls, hello: dict[str, Any], probe: dict[str, Any]) -> Far:
        drivers = [str(g.get("driver", ""))[:40] for g in as_list(probe.get("gpus")) if isinstance(g, dict)]
        told = {name: str(hello.get(name, ""))[:1000] for name in ("root", "home", "executable", "arch", "glibc")}
        python = as_numbers(hello.get("python"))
        return cls(**told, python=python, drivers=tuple(drivers), disk_free=as_number(probe.get("disk_free")))

    def path(self, text: str) -> str:
        """A path of a person's, with ~ as the server's home."""
        return self.home + text[1:] if text.startswith("~/") else text


# What a server tells may be anything


def as_list(value: Any) -> list[Any]:
    return value[:MOST] if isinstance(value, list) else []


def as_table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_number(value: Any) -> float:
    """A size of something; 0.0 for what is none."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15
    return float(value) if sound else 0.0


def as_numbers(value: Any) -> tuple[int, ...]:
    """A version's numbers."""
    return tuple(n for n in as_list(value)[:4] if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10_000)


@dataclass(frozen=True)
class Wanted:
    """An environment to be made. `kind` is what torch is built for; none where there is a folder of wheels."""

    id: str
    first: tuple[str, ...]
    rest: tuple[str, ...]
    kind: str
    least: int


def wheel_kind(drivers: tuple[str, ...]) -> str:
    """What torch must be built for, by the driver of the GPUs; cpu without any. Raises DojangError(DRIVER_TOO_OLD)."""
    if not drivers:
        return "cpu"
    numbers = [int(n) for n in re.findall(r"\d+", drivers[0])[:2]]
    found = next((kind for least, kind in DRIVERS if tuple(numbers) >= least), "")
    if not found:
        raise DojangError(
            f"The NVIDIA driver on the server, {plain(drivers[0], 40) or 'of no known version'}, is too old for torch.",
            code="DRIVER_TOO_OLD",
            hint="Have driver 525 or newer installed there.",
        )
    return found


def requirements() -> list[str]:
    """What the worker needs, as it is declared, without what only the screens do."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, requires

    beside = Path(engine.__file__).parents[1] / "pyproject.toml"
    try:
        declared = tomllib.loads(beside.read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        try:
            declared = [r for r in requires("dojang") or [] if ";" not in r]
        except PackageNotFoundError as e:
            raise DojangError("dojang is not installed, so what it needs is not known.", code="BAD_INSTALL") from e
    return sorted(r for r in declared if _distribution(r) not in SCREENS)


def _distribution(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower()


def wanted(far: Far, wheels: str = "") -> Wanted:
    """The environment that this server needs; `wheels` names the folder that it is made from, if it is."""
    kind = wheel_kind(far.drivers)
    every = requirements()
    first = tuple(r for r in every if _distribution(r) in ARRAY)
    rest = tuple(r for r in every if _distribution(r) not in ARRAY)
    told = [first, rest, wheels, far.arch, far.glibc]
    id_ = f"{kind}-{shipping.digest_of(json.dumps(told).encode())[:16]}"
    return Wanted(id_, first, rest, "" if wheels else kind, LEAST if kind != "cpu" else LEAST_CPU)


def unfit(found: dict[str, Any], kernel: str) -> list[str]:
    """What keeps a Python on the server from training a model of `kernel`; empty if nothing does."""
    python = as_numbers(found.get("python")) or (0,)
    wrong = []
    if python[:2] < OLDEST:
        wrong.append(f"it is Python {'.'.join(map(str, python))}, 3.11 or newer is needed")
    other = {"ultralytics": ("ultralytics",), "effdet": ("effdet", "timm")}
    spared = {name for owner, names in other.items() if owner != kernel for name in names}
    missing = [n for n in map(str, as_list(found.get("missing"))) if n not in spared]
    wrong += [f"{plain(', '.join(missing), 200)} missing"] if missing else []
    versions = as_table(found.get("versions"))
    for requirement in requirements():
        name = _distribution(requirement)
        have = str(versions.get(name, ""))
        if have and name not in spared and not satisfies(have, requirement):
            wrong.append(f"{name} is {plain(have, 40)}, {requirement} is needed")
    wrong += [f"{n}: {plain(str(why), 120)}" for n, why in as_table(found.get("broken")).items() if n not in spared]
    return wrong


def satisfies(have: str, requirement: str) -> bool:
    """Whether a version is within the bounds that a requirement of ours names: >=, <, ==."""
    for sign, bound in re.findall(r"(>=|<=|==|<|>)\s*([\w.]+)", requirement):
        left, right = _numbers(have), _numbers(bound)
        width = max(len(left), len(right))
        left, right = left + (0,) * (width - len(left)), right + (0,) * (width - len(right))
        fits = {">=": left >= right, "<=": left <= right, "==": left == right, "<": left < right, ">": left > right}
        if not fits[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.partition("+")[0])[:4])


# On the server

Say = Callable[[str], None]


def ensure(link: Link, far: Far, box: Box, code: str, kernel: str, say: Say, key: str, note: Say) -> str:
    """A Python there that can train a model of `kernel`: its path.

    `say` is told each step, `note` what programs print; `key` is what `interrupt` ends it by. `code` is the folder of
    our own code there. Raises DojangError: ENV_UNFIT, DISK_FULL, NO_INTERNET, WHEEL_MISSING, DRIVER_TOO_OLD, ….
    """
    if box.python:
        python = far.path(box.python)
        _look(link, python, code, kernel, say, key, note)
        return python
    wheels = _wheels(link, box, say) if box.wheels else ""
    plan = wanted(far, wheels)
    python = f"{far.root}/envs/{plan.id}/bin/python"
    spec = {
        "target": f"{far.root}/envs/{plan.id}",
        "first": plan.first,
        "rest": plan.rest,
        "kind": plan.kind,
        "wheels": wheels,
        "least": plan.least,
        "inodes": INODES,
    }
    own = _own_uv(far)

    def make(**more: Any) -> dict[str, Any]:
        return aside(
            link, far.executable, code, ["make", json.dumps({**spec, **more})], key=key, hold=f"envs/{plan.id}.lock",
            limit=LONGEST, note=note,
            heard=lambda t: say(f"Making an environment: {plain(str(t['step']), 160)}") if "step" in t else None,
        )  # fmt: skip

    told = make(offered=own is not None)
    if own is not None and told.get("wants") == "uv":
        told = make(uv=_send_uv(link, own, say))
    if told.get("done") is not True:
        raise DojangError("Making the environment on the server broke off.", code="ENV_FAILED", hint="Try again.")
    if told.get("new") is True:
        say("The environment is ready.")
    return python


def _own_uv(far: Far) -> Path | None:
    """The uv of this machine, if it may run there too."""
    found = shutil.which("uv")
    same = sys.platform == "linux" and platform.machine() == far.arch and far.glibc
    return Path(found).resolve() if found and same else None


def _send_uv(link: Link, uv: Path, say: Say) -> str:
    """Its path there."""
    content = Content.at(uv)
    say(f"Sending uv, {content.size / 1e6:.0f} MB: it makes environments much quicker than pip")
    shipping.send(link, {content.digest: content})
    body = json.dumps({"uv": [content.digest, content.size, 0o755]}).encode()
    name = f"uv-{content.digest}"
    return str(link.call("materialise", name=name, kind="data", body=body, timeout=600.0)["path"]) + "/uv"


def _look(link: Link, python: str, code: str, kernel: str, say: Say, key: str, note: Say) -> None:
    """Whether the person's own Python can train. Loaded only where it was not seen to work as it is now."""
    found = aside(link, python, code, ["look"], key=key, limit=120.0, note=note)
    wrong = unfit(found, kernel)
    seen = f"seen-{shipping.digest_of(json.dumps([python, kernel, found], sort_keys=True).encode())}"
    if not wrong and seen not in as_table(link.call("list", kind="envs")["names"]):
        say(f"Trying out {python}")
        found = aside(link, python, code, ["look", "--import"], key=key, limit=600.0, note=note)
        wrong = unfit(found, kernel)
    if wrong:
        raise DojangError(
            f"{python} on the server cannot train: {'; '.join(wrong)}.",
            code="ENV_UNFIT",
            hint="Install what is missing there, or leave python out of the server's settings: then one is made.",
        )
    link.call("make", path=f"envs/{seen}")


def _wheels(link: Link, box: Box, say: Say) -> str:
    """The person's folder of wheels, sent over: its path there."""
    folder = Path(box.wheels).expanduser()
    found = sorted(p for p in folder.glob("*.whl") if p.is_file()) if folder.is_dir() else []
    if not found:
        raise DojangError(
            f"There is no wheel in {folder}.", code="WHEEL_MISSING", hint="Fill it here: pip download --dest DIR …"
        )
    files = {path.name: Content.at(path) for path in found}
    name = shipping.tree_name("wheels", files)
    sent = shipping.send(link, shipping.by_digest(files))
    if sent.files:
        say(f"Sent {sent.files} wheels, {sent.bytes / 1e6:.1f} MB.")
    return shipping.lay(link, name, files)


def aside(
    link: Link,
    python: str,
    code: str,
    words: list[str],
    *,
    key: str,
    limit: float,
    note: Say,
    hold: str = "",
    heard: Callable[[dict[str, Any]], object] = lambda told: None,
) -> dict[str, Any]:
    """Run `builder` on the server: the last of what it told. Raises the DojangError that it tells of."""
    reader = _Reader(heard, note)
    argv = [python, "-I", "-X", "utf8", f"{code}/engine/servers/builder.py", *words]
    while True:
        try:
            reply = link.call(
                "run", argv=argv, key=key, hold=hold, limit=limit, timeout=limit + 60, on_part=reader.take, env={}
            )
            break
        except Conflict:
            if not hold:
                raise
            heard({"step": "somebody else is making it; waiting"})
            time.sleep(PATIENCE)
    reader.end()
    error = reader.last.get("error")
    if isinstance(error, dict):
        raise DojangError(
            plain(str(error.get("message", "")), 600),
            code=str(error.get("code", "ENV_FAILED"))[:40],
            hint=plain(str(error.get("hint", "")), 300),
        )
    if reply.get("code") != 0 or not reader.last:
        raise _ended_badly(python, reply, reader.words)
    return reader.last


def _ended_badly(python: str, reply: Any, words: str) -> DojangError:
    if reply.get("interrupted"):
        return DojangError("It was interrupted.", code="INTERRUPTED")
    if reply.get("timed_out"):
        return DojangError("It took too long on the server.", code="TIMEOUT", hint="Resume to go on.")
    if reply.get("code") == 127:
        hint = "Mend `python` of the server, or leave it out: then an environment is made."
        return DojangError(
            f"{python} cannot be run on the server: {plain(str(reply.get('error') or words), 200)}.",
            code="ENV_UNFIT",
            hint=hint,
        )
    return DojangError(f"{python} failed on the server: {plain(words[-300:])}", code="ENV_FAILED")


class _Reader:
    """Lines of a builder as they come in pieces: what it tells, and everybody else's words."""

    def __init__(self, heard: Callable[[dict[str, Any]], object], note: Say) -> None:
        self.last: dict[str, Any] = {}
        self.words = ""
        self._heard, self._note, self._rest = heard, note, b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-(1 << 20) :]
        for line in lines:
            self._line(line.decode("utf-8", "replace"))

    def end(self) -> None:
        if self._rest:
            self.take(b"\n")

    def _line(self, text: str) -> None:
        if not text.startswith(builder.MARK):
            self.words = (self.words + plain(text, 2000) + "\n")[-4000:]
            self._note(plain(text, 2000))
            return
        try:
            told = json.loads(text[len(builder.MARK) :])
        except (ValueError, RecursionError):
            return
        if isinstance(told, dict):
            self.last = told
            self._heard(told)


__all__ = ["Far", "Wanted", "aside", "ensure", "requirements", "satisfies", "unfit", "wanted", "wheel_kind"]
