"""The app: one workspace, its screens, and what works everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from engine.errors import DojangError
from engine.versions import Workspace
from tui import preferences
from tui.graphics import Cell
from tui.keys import bind
from tui.screens.base import Page
from tui.widgets.chrome import working_bindings

if TYPE_CHECKING:
    from engine.servers.fleet import Fleet


def lazily(module: str, maker: str) -> Callable[[], Page]:
    """A screen that is imported when first wanted: the first frame must not wait for what it does not show."""
    return lambda: getattr(import_module(f"tui.screens.{module}"), maker)()


class DojangApp(App[str]):
    """Holds the workspace and the preferences; each screen holds its own state."""

    TITLE = "dojang"
    ENABLE_COMMAND_PALETTE = True
    DEFAULT_MODE = "Versions"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "Versions": lazily("versions", "VersionsScreen"),
        "Data sets": lazily("datasets", "DatasetsScreen"),
        "Servers": lazily("servers", "ServersScreen"),
        "Queue": lazily("queue", "QueueScreen"),
        "Settings": lazily("settings", "SettingsScreen"),
    }
    CSS = """
    Toast { width: 60; max-width: 90%; }
    ToolTip, SearchIcon { display: none; }
    VerticalScroll { scrollbar-size-vertical: 1; }
    Button { background: $panel; color: $foreground; text-style: none; }
    Button.-primary { color: $accent; background: $panel; }
    Button.-error { color: $error; background: $panel; }
    Button:focus, Button:hover { background: $accent; color: $background; background-tint: transparent; }
    Button.-error:focus, Button.-error:hover { background: $error; }
    Button:disabled { background: $panel; color: $foreground-muted; text-style: dim; text-opacity: 1; border: none !important; }
    Button:ansi:focus { background: ansi_default; color: ansi_default; text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", "palette", show=False, tooltip="every action by name"),
        bind("q", "leave", "quit", show=False, help="quit; a running training goes on"),
        Binding("ctrl+q", "leave(True)", "quit at once", show=False, priority=True, tooltip="quit without asking"),
        Binding("ctrl+c", "leave", "quit", show=False),
        Binding("1", "go('Versions')", "Versions", show=False, tooltip="go to Versions"),
        Binding("2", "go('Data sets')", "Data sets", show=False, tooltip="go to Data sets"),
        Binding("3", "go('Servers')", "Servers", show=False, tooltip="go to Servers"),
        Binding("4", "go('Queue')", "Queue", show=False, tooltip="go to Queue"),
        Binding("5", "go('Settings')", "Settings", show=False, tooltip="go to Settings"),
    ]

    def __init__(
        self, workspace: Workspace, *, theme: str | None = None, open_version: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self.workspace = workspace
        self.preferences = preferences.load(workspace)
        self._theme_asked, self._open = theme, open_version
        self.cell: Cell | None = None
        """Pixels of a character cell, where the terminal draws pictures itself."""
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        """Every server at a glance; nothing connects before a screen attends to it."""
        if self._fleet is None:
            from engine.servers.fleet import Fleet

            self._fleet = Fleet(self.workspace)
        return self._fleet

    def on_unmount(self) -> None:
        if self._fleet is not None:
            self._fleet.close()

    def on_mount(self) -> None:
        from tui import terminal, themes

        problems = themes.register(self, self.workspace.path / "themes")
        wanted = self._theme_asked or self.preferences.theme
        if wanted and wanted not in self.available_themes:
            problems.append(f"There is no theme “{wanted}”.")
            wanted = ""
        if wanted and not self._theme_asked and terminal.colour_count() <= 16:
            wanted = wanted if self.available_themes[wanted].ansi else ""
        self.theme = self._theme_first = wanted or themes.default_theme()
        terminal.install_fixes(self)
        if self._open:
            self.open_version(self._open)
        for problem in problems:
            self.notify(problem, severity="warning", markup=False)
        self.theme_changed_signal.subscribe(self, self._keep_theme)

    def _keep_theme(self, theme: Theme) -> None:
        """Keep what a person chose in the app; the one it starts with is for this terminal, or for this once."""
        if theme.name != self._theme_first:
            self._theme_first = ""
            self.prefer(theme=theme.name)

    async def _may_leave(self) -> bool:
        """Whether every open screen lets itself be closed."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, Page) and not await screen.may_leave():
                return False
        return True

    @work(exclusive=True, group="leave")
    async def action_go(self, name: str) -> None:
        """Go to a section, from wherever; screens stacked over the sections close."""
        if not await self._may_leave():
            return
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.switch_mode(name)

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

    @work(exclusive=True, group="leave")
    async def action_leave(self, at_once: bool = False) -> None:
        """Quit. What runs goes on, and the last line on the terminal says so."""
        if not at_once and not await self._may_leave():
            return
        running, queued = self.workspace.running(), self.workspace.queued()
        goes_on = f"{', '.join(running)} goes on training. " if running else ""
        goes_on += f"{', '.join(queued)} starts in its turn. " if queued else ""
        for server, there in self.workspace.elsewhere().items():
            goes_on += f"{', '.join(there)} goes on ({server}). "
        self.exit(f"{goes_on}Come back with: dojang" if goes_on else "")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Everything that a key does here, by name; then the themes."""
        nodes = {a.binding.action: a.node for a in screen.active_bindings.values()}
        for binding in working_bindings(screen, by_name=True):
            if binding.action in ("command_palette", "cancel"):
                continue
            node = nodes.get(binding.action, screen)

            def run(node: Any = node, action: str = binding.action) -> None:
                self.call_later(self.run_action, action, node)

            name = binding.description
            yield SystemCommand(name[:1].upper() + name[1:], binding.tooltip or "", run)
        for name in sorted(self.available_themes):
            yield SystemCommand(f"Theme: {name}", "Use these colours", lambda name=name: setattr(self, "theme", name))
