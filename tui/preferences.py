"""What a person chose about the looks of the app, kept in the workspace as `settings.toml`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from engine import files
from engine.errors import DojangError
from engine.versions import Workspace

MARKERS = ("braille", "quadrant", "ascii")
IMAGES = ("auto", "blocks")


@dataclass(frozen=True, slots=True)
class Preferences:
    """`theme` empty: chosen for the terminal. `smoothing`: 0 … 0.99, of curves by step.

    `images`: pixels where the terminal draws them (auto), or blocks of text everywhere.
    """

    theme: str = ""
    marker: str = "braille"
    smoothing: float = 0.6
    mouse: bool = True
    images: str = "auto"


def load(workspace: Workspace) -> Preferences:
    """The saved preferences; what is missing or wrong in the file is as by default."""
    try:
        data = files.read_toml(workspace.path / "settings.toml")
    except (OSError, DojangError):
        return Preferences()
    found = Preferences()
    if isinstance(data.get("theme"), str):
        found = replace(found, theme=data["theme"])
    if data.get("marker") in MARKERS:
        found = replace(found, marker=data["marker"])
    if isinstance(data.get("smoothing"), (int, float)) and 0 <= data["smoothing"] <= 0.99:
        found = replace(found, smoothing=float(data["smoothing"]))
    if data.get("images") in IMAGES:
        found = replace(found, images=data["images"])
    if isinstance(data.get("mouse"), bool):
        found = replace(found, mouse=data["mouse"])
    return found


def save(workspace: Workspace, now: Preferences, **changes: Any) -> Preferences:
    """Change and keep; where the file cannot be written the change holds until the app ends."""
    changed = replace(now, **changes)
    if changed != now:
        try:
            files.write_toml(workspace.ensure().path / "settings.toml", asdict(changed))
        except DojangError:
            pass
    return changed
