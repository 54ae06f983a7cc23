"""What a kernel's declaration may hold. It comes from anywhere, so each value is checked before it is used."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import options
from engine.catalog import BUILT_IN, MODELS, Model
from engine.external import PLACEHOLDERS, Declaration

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ANNOTATIONS = {"detect": "box", "classify": "label"}
OPERATIONS = ("train", "resume", "finish")
KEYS = {
    "name", "task", "annotation", "command", "models", "operations", "gpus", "settings", "events", "stop_seconds",
    "etc_path", "options", "title", "description",
}  # fmt: skip
MODEL_KEYS = {"name", "family", "image_size", "parameters", "pretrained", "trained_on", "stride", "config"}
SETTINGS = ("epochs", "batch_size", "image_size", "lr", "seed", "device")
ALWAYS = frozenset({"dataset", "dataset_hash", "model", "options", "weights", "gpus"})
STOP_SECONDS = 30.0  # that a kernel has to obey a stop before it is ended by signal

Wrong = list[str]


def declaration(table: dict[str, Any], path: Path, folder: Path, digest: str) -> tuple[Declaration | None, Wrong]:
    """The declaration in a TOML table, or everything that is wrong with it."""
    wrong = unknown(table, KEYS)
    name, task = str(table.get("name", path.stem)), str(table.get("task", ""))
    if not NAME.fullmatch(name) or name in BUILT_IN:
        wrong.append(
            f"name {name[:64]!r}: must begin with a-z, then a-z, 0-9, _ or -, and be no kernel of dojang's own"
        )
    if task not in ANNOTATIONS:
        wrong.append("task: must be detect or classify")
    elif table.get("annotation", ANNOTATIONS[task]) != ANNOTATIONS[task]:
        wrong.append(f"annotation: to {task} is learned from {ANNOTATIONS[task]}, the only one that can be given")
    operations = table.get("operations", ["train"])
    if not _texts(operations) or not {"train"} <= set(operations) <= set(OPERATIONS):
        wrong.append(f"operations: must be a list with train, and any of {', '.join(OPERATIONS[1:])}")
        operations = []
    events = table.get("events", "stdout")
    if events not in ("stdout", "file"):
        wrong.append("events: must be stdout or file")
    seconds = table.get("stop_seconds", STOP_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= 3600:
        wrong.append("stop_seconds: must be a number of seconds, 0 – 3600")
    command = _command(table.get("command"), wrong)
    gpus, settings = _gpus(table.get("gpus", {}), wrong), _settings(table.get("settings", list(SETTINGS)), wrong)
    models, extra = _models(table.get("models"), name, task, wrong), _files(table.get("etc_path", []), wrong)
    try:
        declared = options.read(table.get("options", {}))
    except ValueError as e:
        wrong.append(f"options: {e}")
    if wrong:
        return None, wrong
    return Declaration(
        name=name,
        path=path,
        folder=folder,
        digest=digest,
        accepted=False,
        task=task,
        command=command,
        models=models,
        operations=frozenset(operations),
        gpus=gpus,
        settings=settings | ALWAYS,
        events=str(events),
        stop_seconds=float(seconds),
        etc_path=extra,
        options=declared,
    ), []


def unknown(table: dict[str, Any], known: set[str]) -> Wrong:
    """Keys that mean nothing: a setting that is misspelt would be passed over without a word."""
    found = []
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            found.append(f"{key[:64]!r} is not a key here" + (f"; did you mean {close[0]}?" if close else ""))
    return found


def _texts(value: Any, most: int = 256, longest: int = 4096) -> bool:
    """Whether it is a list of sane, printable text."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(isinstance(v, str) and 0 < len(v) <= longest and v.isprintable() for v in value)
    )


def _command(value: Any, wrong: Wrong) -> tuple[str, ...]:
    if not value or not _texts(value):
        wrong.append("command: must be a list of printable words: the program, then its arguments")
        return ()
    program = value[0]
    if "/" in program and not program.startswith(("/", "{folder}", "{python}")):
        wrong.append("command: the program must be a bare name, a whole path, or begin with {folder} or {python}")
    for word in value:
        for name in re.findall(r"\{(\w*)\}", word):
            if name not in PLACEHOLDERS:
                wrong.append(f"command: {{{name[:40]}}} means nothing; there are {', '.join(PLACEHOLDERS)}")
    if not any("{spec}" in word or "{run}" in word for word in value[1:]):
        wrong.append("command: must hold {spec} (or {run}): how else does it know what to train?")
    return tuple(value)


def _gpus(value: Any, wrong: Wrong) -> tuple[int, int]:
    given = value if isinstance(value, dict) else {"": ""}
    low, high = (v if type(v) is int else -1 for v in (given.get("minimum", 0), given.get("maximum", 1)))
    if not 0 <= low <= high <= 64 or unknown(given, {"minimum", "maximum"}):
        wrong.append("gpus: must be a table with minimum and maximum, 0 – 64")
        return 0, 0
    return low, high


def _settings(value: Any, wrong: Wrong) -> frozenset[str]:
    """Which settings of the spec it obeys. Whether they are settings is found out when they are used: the spec is slow to load."""
    if not _texts(value, longest=64) and value != []:
        wrong.append("settings: must be a list of the settings that it obeys, as `dojang schema` names them")
        return frozenset()
    return frozenset(value)


def _files(value: Any, wrong: Wrong) -> tuple[str, ...]:
    if value != [] and not _texts(value, most=100):
        wrong.append("etc_path: must be a list of files, relative to the declaration or whole paths")
        return ()
    if len({Path(v).name for v in value}) < len(value):
        wrong.append("etc_path: two of its files have the same name")
    return tuple(value)


def _models(value: Any, kernel: str, task: str, wrong: Wrong) -> tuple[Model, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= 64 or not all(isinstance(v, dict) for v in value):
        wrong.append("models: must be 1 – 64 tables, [[models]], each with a name")
        return ()
    found = []
    for row in value:
        made = _model(row, kernel, task, wrong)
        if made:
            found.append(made)
    if len({m.name for m in found}) < len(found):
        wrong.append("models: two have the same name")
    return tuple(found)


def _model(row: dict[str, Any], kernel: str, task: str, wrong: Wrong) -> Model | None:
    name = row.get("name")
    if not isinstance(name, str) or not MODEL_NAME.fullmatch(name):
        wrong.append(f"models: {str(name)[:64]!r} cannot be a name: a-z, 0-9, . _ -, at most 64 characters")
        return None
    bad = unknown(row, MODEL_KEYS)
    if name in MODELS:
        bad.append("is a model of dojang's own: choose another name")

    def take(key: str, default: Any, sound: Callable[[Any], bool], allowed: str) -> Any:
        given = row.get(key, default)
        if sound(given):
            return given
        bad.append(f"{key} must be {allowed}")
        return default

    def text(v: Any) -> bool:
        return isinstance(v, str) and len(v) <= 200 and v.isprintable()

    def whole(low: int, high: int) -> Callable[[Any], bool]:
        return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high

    def count(v: Any) -> bool:
        return isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1e7

    pretrained = take("pretrained", "", lambda v: text(v) and "/" not in v, "a bare file name")
    size, stride = take("image_size", 224, whole(32, 2048), "32 – 2048"), take("stride", 1, whole(1, 512), "1 – 512")
    if size % stride:
        bad.append(f"image_size must be a multiple of stride, {stride}")
    model = Model(
        name=name,
        family=take("family", kernel, text, "one line of text"),
        kernel=kernel,
        task=task,
        image_size=size,
        parameters=float(take("parameters", 0.0, count, "a number of millions")),
        config=take("config", "", text, "one line of text"),
        pretrained=pretrained,
        trained_on=take("trained_on", "", text, "one line of text"),
        stride=stride,
    )
    wrong.extend(f"models: {name}: {one}" for one in bad)
    return model
