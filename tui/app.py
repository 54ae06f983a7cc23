"""The app: one workspace, its screens, and what works everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from engine.errors import DojangError
from engine.versions import Workspace
from tui import preferences
from tui.keys import bind
from tui.screens.base import Page
from tui.widgets.chrome import working_bindings


# Imported when first wanted: the first frame must not wait for what it does not show.
SECTION_SCREENS = {
    "Versions": ("tui.screens.versions", "VersionsScreen"),
    "Data sets": ("tui.screens.datasets", "DatasetsScreen"),
    "Servers": ("tui.screens.servers", "ServersScreen"),
    "Settings": ("tui.screens.settings", "SettingsScreen"),
}


class DojangApp(App[str]):
    """Holds the workspace and the preferences; each screen holds its own state."""

    TITLE = "dojang"
    ENABLE_COMMAND_PALETTE = True
    CSS = """
    Screen { background: $background; }
    Toast { width: 60; }
    ToolTip { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", "palette", show=False, tooltip="every action by name"),
        bind("q", "leave", "quit", show=False, help="quit; a running training goes on"),
        Binding("ctrl+q", "leave", "quit", show=False, priority=True),
        Binding("ctrl+c", "leave", "quit", show=False),
        Binding("1", "go('Versions')", "Versions", show=False, tooltip="go to Versions"),
        Binding("2", "go('Data sets')", "Data sets", show=False, tooltip="go to Data sets"),
        Binding("3", "go('Servers')", "Servers", show=False, tooltip="go to Servers"),
        Binding("5", "go('Settings')", "Settings", show=False, tooltip="go to Settings"),
    ]

    def __init__(
        self, workspace: Workspace, *, theme: str | None = None, open_version: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self.workspace = workspace
        self.preferences = preferences.load(workspace)
        self._theme_asked, self._open = theme, open_version
        self._sections: dict[str, Page] = {}

    def on_mount(self) -> None:
        from tui import terminal, themes

        problems = themes.register(self, self.workspace.path / "themes")
        wanted = self._theme_asked or self.preferences.theme
        if wanted and wanted not in self.available_themes:
            problems.append(f"There is no theme “{wanted}”.")
            wanted = ""
        self.theme = wanted or themes.default_theme()
        terminal.install_fixes(self)
        if self._open:
            self.open_version(self._open)
        for problem in problems:
            self.notify(problem, severity="warning", markup=False)
        self.theme_changed_signal.subscribe(self, lambda theme: self.prefer(theme=theme.name))

    def get_default_screen(self) -> Screen[Any]:
        """Home. Textual would show an empty screen first, and that costs a frame."""
        return self.section("Versions")

    def section(self, name: str) -> Page:
        """The screen of a section, made when first wanted."""
        if name not in self._sections:
            module, maker = SECTION_SCREENS[name]
            self._sections[name] = getattr(import_module(module), maker)()
        return self._sections[name]

    def action_go(self, name: str) -> None:
        """Go to a section, from wherever; screens stacked over the sections close."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        page = self.section(name)
        if self.screen is not page:
            self.switch_screen(page)

    def open_version(self, reference: str) -> None:
        """Show one version: live while it runs, its results after."""
        from tui.screens.version import VersionScreen

        try:
            self.push_screen(VersionScreen(self.workspace.version(reference)))
        except DojangError as e:
            self.notify(e.hint, title=e.message, severity="error", markup=False)

    def prefer(self, **changes: Any) -> None:
        """Change a preference and keep it; a workspace that cannot be written only forgets it."""
        self.preferences = preferences.save(self.workspace, self.preferences, **changes)

    def action_leave(self) -> None:
        """Quit. What runs goes on, and the last line on the terminal says so."""
        running = self.workspace.running()
        goes_on = f"{', '.join(running)} goes on training. Come back with: dojang" if running else ""
        self.exit(goes_on)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Everything that a key does here, by name; then the themes."""
        nodes = {a.binding.action: a.node for a in screen.active_bindings.values()}
        for binding in working_bindings(screen):
            if binding.action in ("command_palette", "cancel"):
                continue
            node = nodes.get(binding.action, screen)

            def run(node: Any = node, action: str = binding.action) -> None:
                self.call_later(self.run_action, action, node)

            name = binding.description
            yield SystemCommand(name[:1].upper() + name[1:], binding.tooltip or "", run)
        for name in sorted(self.available_themes):
            yield SystemCommand(f"Theme: {name}", "Use these colours", lambda name=name: setattr(self, "theme", name))
