"""Opening the app: the terminal is looked at before Textual is imported."""

from __future__ import annotations

import sys
from pathlib import Path


def open_app(workspace_path: Path, *, theme: str | None = None, mouse: bool = True, open_version: str = "") -> int:
    """Run the app until the person leaves; returns the exit code."""
    from tui import terminal

    refusal = terminal.prepare_environment()
    if refusal:
        sys.stderr.write(f"dojang: {refusal}\n")
        return 2
    from engine import plugins
    from engine.servers.watching import watching
    from engine.versions import Workspace
    from tui import graphics, preferences

    workspace = Workspace(workspace_path).ensure()
    cell = graphics.ask() if preferences.load(workspace).images == "auto" else None
    from tui.app import DojangApp

    plugins.look_in(workspace.path)
    app = DojangApp(workspace, theme=theme, open_version=open_version, driver_class=terminal.driver_class())
    app.cell = cell
    with watching(workspace):
        goes_on = app.run(mouse=mouse and app.preferences.mouse)
    if goes_on:
        sys.stdout.write(goes_on + "\n")
    sys.stdout.flush()
    return app.return_code or 0
