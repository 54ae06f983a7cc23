"""What a training would meet on a server, step by step, and what only a person can do about it: trust a key, log in."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static
from textual.worker import get_current_worker

from engine.errors import DojangError
from engine.servers.boxes import Box
from engine.servers.checking import Step
from tui import words
from tui.screens.dialogs import Confirm, Dialog
from tui.widgets.facts import Fact, Facts
from tui.widgets.symbols import fit, sign

if TYPE_CHECKING:
    from tui.app import DojangApp

NAMES = (9, 18)  # cells of a step's name, at the least and at the most
BY_HAND = ("NEEDS_INTERACTION", "DENIED")
ASKED_SECONDS = 180.0


class Check(Dialog[None]):
    """Looks at one server."""

    DEFAULT_CSS = """
    Check > Vertical { width: 92; }
    Check #steps { margin: 1 0 0 0; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "again", "look again", show=False),
        Binding("o", "log_in", "log in", show=False),
        Binding("t", "type_it", "type it here", show=False),
    ]

    def __init__(self, box: Box) -> None:
        super().__init__()
        self.box = box
        self.steps: list[Step] = []
        self._done = False

    def compose(self) -> Iterator[Widget]:
        with Vertical() as frame:
            where = self.box.where
            frame.border_title = self.box.name if where == self.box.name else f"{self.box.name}: {where}"
            frame.border_subtitle = "esc close"
            with VerticalScroll(can_focus=False):
                yield Facts(id="steps")
            with Horizontal(classes="buttons"):
                yield Button("Trust this key", id="trust", compact=True)
                yield Button("Log in on the terminal  o", id="log-in", compact=True)
                yield Button("Type it here  t", id="type", compact=True)
                yield Button("Look again", id="again", compact=True)
                yield Button("Close  esc", id="close", compact=True)

    def on_mount(self) -> None:
        self.action_again()

    # Looking

    def action_again(self) -> None:
        self.steps, self._done = [], False
        self._show()
        self._look()

    @work(thread=True, exclusive=True, group="check")
    def _look(self) -> None:
        from engine.servers import checking, links

        worker = get_current_worker()
        try:
            with links.shared(self.box) as link:
                if link.state.name != "up":
                    link.retry()
                for step in checking.steps(self.box):
                    if worker.is_cancelled:
                        return
                    self.app.call_from_thread(self._take, step)
        except DojangError as e:
            self.app.call_from_thread(self._take, Step("login", e.message, False, e.hint, e.code))
        if not worker.is_cancelled:
            self.app.call_from_thread(self._end)

    def _take(self, step: Step) -> None:
        self.steps.append(step)
        self._show()

    def _end(self) -> None:
        self._done = True
        self._show()
        if self.is_mounted:
            wrong = not all(step.fine for step in self.steps)
            next(b for b in self.query(Button) if b.display and (wrong or b.id == "close")).focus()

    @property
    def _wrong(self) -> str:
        """The code of the login's trouble, empty where there is none."""
        return next((s.code for s in self.steps if not s.fine), "")

    def _show(self) -> None:
        if not self.is_mounted:
            return
        wide = min(max([cell_len(step.name) for step in self.steps] + [NAMES[0]]), NAMES[1])
        lines: list[Fact] = [line for step in self.steps for line in _lines(step, wide)]
        if not self._done:
            lines.append(Content.styled("  looking …", "$foreground-muted"))
        elif all(step.fine for step in self.steps):
            lines += [Content(""), Content.styled("Trainings can run there.", "$success")]
        self.query_one("#steps", Facts).show(lines)
        trust = self._wrong == "HOST_KEY_UNKNOWN"
        by_hand = self._wrong in BY_HAND and bool(self.box.host)
        shown = {"trust": trust, "log-in": by_hand, "type": by_hand, "again": self._done}
        for name, there in shown.items():
            self.query_one(f"#{name}", Button).display = there

    # What a person does

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        does: dict[str, Callable[[], object]] = {
            "trust": self.action_trust, "log-in": self.action_log_in, "type": self.action_type_it,
            "again": self.action_again, "close": self.action_cancel,
        }  # fmt: skip
        does[str(event.button.id)]()

    @work
    async def action_trust(self) -> None:
        """Show the fingerprint, and on a yes have ssh remember this very key."""
        details = next((s.details for s in self.steps if s.code == "HOST_KEY_UNKNOWN"), {})
        fingerprint = str(details.get("fingerprint", ""))
        if not fingerprint:
            self.notify("The server did not show its key. Look again.", severity="warning")
            return
        text = key_text(str(details.get("host", self.box.host)), str(details.get("key_type", "")), fingerprint)
        if await self.app.push_screen_wait(Confirm("A key that is not known", text, yes="Trust", careful=True)):
            self._trust(fingerprint)

    @work(thread=True, exclusive=True, group="trust")
    def _trust(self, fingerprint: str) -> None:
        from engine.servers import links, ssh

        try:
            ssh.trust(links.target(self.box), fingerprint)
        except DojangError as e:
            self.app.call_from_thread(self._say, e)
        self.app.call_from_thread(self.action_again)

    def action_log_in(self) -> None:
        """ssh itself on this terminal, the app stepping aside: what is typed is seen by nobody else."""
        if self._wrong not in BY_HAND or not self.box.host:
            return
        from engine.servers import links, ssh

        try:
            command = ssh.interactive_command(links.target(self.box))
        except DojangError as e:
            self._say(e)
            return
        with self.app.suspend():
            print(f"Logging in to {self.box.name}. What you type goes to ssh alone.\n", flush=True)
            code = subprocess.run(command, check=False).returncode
        if code:
            self.notify("ssh did not log in.", severity="warning")
        self.action_again()

    def action_type_it(self) -> None:
        if self._wrong in BY_HAND and self.box.host:
            self.steps, self._done = [], False
            self._show()
            self._type_it()

    @work(thread=True, exclusive=True, group="check")
    def _type_it(self) -> None:
        """Log in once with what is typed here; the connection then serves without asking."""
        from engine.servers import links, ssh
        from engine.servers.link import Link

        app: Any = self.app
        try:
            target = links.target(self.box)
            with Link(lambda: ssh.open(target, ask=asking(app)), root=self.box.root, name=self.box.name) as link:
                link.call("hello", timeout=ASKED_SECONDS)
        except DojangError as e:
            self.app.call_from_thread(self._say, e)
        self.app.call_from_thread(self.action_again)

    def _say(self, error: DojangError) -> None:
        self.notify(error.hint or "", title=error.message, severity="error", timeout=12, markup=False)


def key_text(host: str, kind: str, fingerprint: str) -> str:
    return (
        f"{words.clean(host)} shows a key that is not known here:\n\n  {words.clean(kind)}\n  {words.clean(fingerprint)}\n\n"
        "Compare it with the fingerprint that its administrator gives you, or with what this prints on the server itself:\n"
        "  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n\n"
        "Whoever has another key could read all that you send. ssh remembers the key that you trust."
    )


def _lines(step: Step, wide: int) -> list[Fact]:
    mark = Content.styled(sign("✓"), "$success") if step.fine else Content.styled("✗", "$error")
    lines: list[Fact] = [(Content.assemble(mark, f" {fit(step.name, wide)} {words.clean(step.text)}"), wide + 3)]
    if step.hint:
        lines.append((Content.styled(f"  {' ' * wide} {sign('→')} {words.clean(step.hint)}", "$warning"), wide + 5))
    return lines


class Secret(Dialog[str]):
    """A password, passphrase or code for ssh, not shown and not kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> Iterator[Widget]:
        with Vertical() as box:
            box.border_title = "ssh asks"
            yield Static(words.clean(self._text), classes="text", markup=False)
            yield Input(password=True, id="secret")
            yield Static("It goes to ssh alone: not stored, not logged. esc gives up.", classes="note", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


def asking(app: DojangApp) -> Callable[[str, str], str | None]:
    """What answers ssh's questions by asking the person in the app; called in threads that are not the app's."""

    def ask(kind: str, text: str) -> str | None:
        answered, given = threading.Event(), list[Any]()

        def take(answer: Any) -> None:
            given.append(answer)
            answered.set()

        dialog: Any
        if kind == "host-key":
            dialog = Confirm("A key that is not known", words.clean(text), yes="Trust", careful=True)
        else:
            dialog = Secret(text)
        try:
            app.call_from_thread(app.push_screen, dialog, take)
        except RuntimeError:  # the app has ended
            return None
        if not answered.wait(ASKED_SECONDS) or not given or given[0] in (None, False):
            return None
        return "yes" if kind == "host-key" else str(given[0])

    return ask


__all__ = ["Check", "Secret", "asking", "key_text"]
