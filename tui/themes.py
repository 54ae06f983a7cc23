"""Themes are data: a file of `themes/*.toml` is the keyword arguments of `textual.theme.Theme`, and nothing else.

    messages = register(app, user_folder)      # then app.theme = default_theme()

A file that cannot be used is left out and named in a message; it never stops the program. All of a theme is tried
before Textual sees it, because Textual itself finds a bad colour only when it draws with it, and stops.

The variables `chart-1` … `chart-6` and `chart-dim` are ours. Stylesheets must not use them: a theme from elsewhere has
none, and the widgets know what to do then (`widgets.palette`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from textual.app import App
from textual.color import Color, ColorParseError
from textual.theme import Theme

import tui
from tui.terminal import colour_count, is_light

_COLOURS = (
    "primary", "secondary", "warning", "error", "success", "accent",
    "foreground", "background", "surface", "panel", "boost",
)  # fmt: skip
_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str, "dark": bool, "ansi": bool, "variables": dict,
    "luminosity_spread": (int, float), "text_alpha": (int, float),
    **dict.fromkeys(_COLOURS, str),
}  # fmt: skip


def themes_folder() -> Path:
    """Where the shipped themes are: beside the packages, in a checkout and when installed."""
    return Path(tui.__file__).parent.parent / "themes"


def load_themes(*folders: Path | None) -> tuple[list[Theme], list[str]]:
    """The shipped themes and those of `folders`, a later one of the same name replacing the earlier; and what failed."""
    themes: dict[str, Theme] = {}
    messages: list[str] = []
    for path in _files((themes_folder(), *folders)):
        try:
            theme = read_theme(path)
        except (OSError, ValueError) as error:
            messages.append(f"Theme {path} is left out: {error}")
        else:
            themes[theme.name] = theme
    return list(themes.values()), messages


def register(app: App[Any], *folders: Path | None) -> list[str]:
    """Make all themes known to the application; returns the messages about files that were left out."""
    themes, messages = load_themes(*folders)
    for theme in themes:
        app.register_theme(theme)
    return messages


def read_theme(path: Path) -> Theme:
    """One theme, tried out. Raises `ValueError` saying what is wrong with it."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(Theme)}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"“{key}” is not a part of a theme; known are {', '.join(sorted(known))}")
        if not isinstance(value, _KINDS[key]):
            raise ValueError(f"“{key}” has a value of the wrong kind: {value!r}")
    for key in ("name", "primary"):
        if not table.get(key):
            raise ValueError(f"“{key}” is missing")
    for key in _COLOURS:
        if key in table:
            _check_colour(key, table[key])
    for key, value in table.get("variables", {}).items():
        _check_variable(key, value)
    return Theme(**table)


def default_theme(*, light: bool | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The theme to start with when none is set: the terminal's own colours where it has no more than 16.

    Where a person wants none (NO_COLOR), Textual makes greys of the colours, but black of the terminal's own.
    """
    light = is_light(environment) if light is None else light
    bare = bool((os.environ if environment is None else environment).get("NO_COLOR"))
    family = "ansi" if colour_count(environment) <= 16 and not bare else "dojang"
    return f"{family}-{'light' if light else 'dark'}"


def _files(folders: Iterable[Path | None]) -> Iterable[Path]:
    for folder in folders:
        if folder is not None and folder.is_dir():
            yield from sorted(folder.glob("*.toml"))


def _check_colour(key: str, value: str) -> None:
    try:
        Color.parse(value)
    except ColorParseError:
        raise ValueError(f"“{key}” is not a colour: {value!r}") from None


def _check_variable(key: str, value: object) -> None:
    """A variable is a colour, perhaps with a percentage, or a text style where its name says so."""
    if not isinstance(value, str) or any(mark in value for mark in ";{}$"):
        raise ValueError(f"variable “{key}” must be a colour or a style in quotes, not {value!r}")
    if key.endswith(("-style", "-style-hover")):
        styles = {"none", "not", "bold", "dim", "italic", "underline", "underline2", "reverse", "strike", "b", "i", "u"}
        if unknown := set(value.split()) - styles:
            raise ValueError(f"variable “{key}” has unknown styles: {' '.join(sorted(unknown))}")
        return
    colour, _, share = value.partition(" ")
    if share and not (share.endswith("%") and share[:-1].replace(".", "", 1).isdecimal()):
        raise ValueError(f"variable “{key}” should be a colour and perhaps a percentage, not {value!r}")
    if colour != "auto":
        _check_colour(key, colour)
