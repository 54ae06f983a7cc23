"""The terminal is left as it was found, survives what comes in, and shows the same with the cell diff as without."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.pseudo_terminal import ROOT, PseudoTerminal, settle
from tui import terminal
from tui.driver import Outlet
from tui.themes import default_theme

APP = str(Path(__file__).with_name("pty_app.py"))


@pytest.fixture
def small() -> Iterator[PseudoTerminal]:
    screen = PseudoTerminal(APP)
    screen.pump(until="데이터")
    yield screen
    screen.close()


def tty(monkeypatch: pytest.MonkeyPatch, answer: bool = True) -> None:
    monkeypatch.setattr(terminal, "_is_terminal", lambda stream: answer)


def test_refuses_what_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    tty(monkeypatch, False)
    assert "need a terminal" in (terminal.prepare_environment({"TERM": "xterm"}) or "")
    tty(monkeypatch)
    assert "TERM is dumb" in (terminal.prepare_environment({"TERM": "dumb"}) or "")
    assert "not set" in (terminal.prepare_environment({}) or "")
    assert terminal.prepare_environment({"TERM": "xterm"}) is None


def test_waits_longer_for_escape_over_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    tty(monkeypatch)
    local, remote, chosen = (
        {"TERM": "xterm"},
        {"TERM": "xterm", "SSH_CONNECTION": "1"},
        {"SSH_TTY": "x", "ESCDELAY": "50"},
    )
    for environment in (local, remote, chosen):
        terminal.prepare_environment(environment)
    assert "ESCDELAY" not in local and remote["ESCDELAY"] == "250" and chosen["ESCDELAY"] == "50"


def test_preparing_does_not_import_textual() -> None:
    code = (
        "import sys, tui.terminal as t; t.prepare_environment(); t.colour_count(); assert 'textual' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("environment", "colours", "theme"),
    [
        ({"TERM": "xterm-256color"}, 256, "dojang-dark"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, terminal.TRUE_COLOUR, "dojang-dark"),
        ({"TERM": "xterm-kitty"}, 256, "dojang-dark"),
        ({"TERM": "xterm", "COLORFGBG": "0;15"}, 16, "ansi-light"),
        ({"TERM": "linux"}, 16, "ansi-dark"),
        ({"TERM": "vt220"}, 2, "ansi-dark"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, 2, "dojang-dark"),
        ({"TERM": "screen-256color", "COLORFGBG": "15;default;0"}, 256, "dojang-dark"),
    ],
)
def test_colours_and_theme(environment: dict[str, str], colours: int, theme: str) -> None:
    assert terminal.colour_count(environment) == colours
    assert default_theme(environment=environment) == theme


KEYS = [
    "\x1b[B",
    "\x1b[A",
    "\x1b[6~",
    "\x1b[F",
    "\x1b[H",
    "\t",
    "x",
    "가",
    "한글 ",
    "\x7f",
    "\x1bOQ",
    "\x1b",
    "\x1bOR",
    "\x1bOS",
    "\x0c",
]


def test_same_screen_with_and_without_the_cell_diff() -> None:
    plain, diffed = PseudoTerminal(APP, DOJANG_PLAIN_DRIVER="1"), PseudoTerminal(APP)
    chance = random.Random(3)
    try:
        settle(plain, diffed, until="데이터")
        for step in range(20):
            if step % 9 == 8:
                size = chance.randrange(50, 110), chance.randrange(16, 32)
                for screen in (plain, diffed):
                    screen.resize(*size)
            else:
                keys = "".join(chance.choice(KEYS) for _ in range(chance.randrange(1, 4)))
                for screen in (plain, diffed):
                    screen.type(keys)
            settle(plain, diffed, quiet=0.1)
            for _ in range(40):  # a busy machine may be silent before it is done
                if diffed.cells() == plain.cells():
                    break
                settle(plain, diffed, quiet=0.25)
            assert diffed.text() == plain.text(), f"step {step}"
            assert diffed.cells() == plain.cells(), f"step {step}"
        assert len(diffed.raw) * 2 < len(plain.raw)
    finally:
        plain.close()
        diffed.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_a_clean_terminal(small: PseudoTerminal, number: signal.Signals) -> None:
    os.kill(small.pid, number)
    assert small.ended() == 128 + number
    for switched_off in (b"\x1b[?1049l", b"\x1b[?1003l", b"\x1b[?2004l", b"\x1b[?25h", b"\x1b[<u"):
        assert switched_off in small.raw
    assert termios.tcgetattr(small.master)[3] == small.modes[3]


def test_ends_when_the_terminal_is_gone(small: PseudoTerminal) -> None:
    os.close(small.master)
    small.closed = True
    assert small.ended() is not None
    small.master = os.open(os.devnull, os.O_RDONLY)


def test_ends_when_the_terminal_goes_with_much_left_to_write(small: PseudoTerminal) -> None:
    """More screens than the queue for writing holds are due just then: nobody takes them any more."""
    os.write(small.master, b"\x1b[B" * 40 + b"?" * 3)
    os.close(small.master)
    small.closed = True
    assert small.ended() is not None
    small.master = os.open(os.devnull, os.O_RDONLY)


def test_an_outlet_outlives_its_file() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

        flush = write  # type: ignore[assignment]

    outlet = Outlet(Gone())
    assert outlet.write("text") == 4 == outlet.write("more")
    outlet.flush()


def test_bad_bytes_and_odd_keys_do_not_stop_it(small: PseudoTerminal) -> None:
    small.type(b"\xff\xfe\x1b[M\xe0\xf1\x80\x1b[97::98;5u\x1b[1114112u\x1b[99999999999999u\x1b[1:2:3u")
    small.pump()
    small.type("\t가나")
    small.pump(until="가나")
    assert "가나" in "".join(small.text())


def test_redraws_on_ctrl_l_also_over_a_dialog(small: PseudoTerminal) -> None:
    small.type("\x1bOQ")
    small.pump(until="삭제")
    before = small.cells()
    small.feed("\x1b[3;1Hkernel: something printed over the screen\x1b[H")
    small.type("\x0c")
    small.pump()
    assert small.cells() == before


def test_repaints_after_stop_and_continue(small: PseudoTerminal) -> None:
    before = small.text()
    os.kill(small.pid, signal.SIGTSTP)
    small.pump(1, quiet=0.3)
    assert b"\x1b[?1049l" in small.raw
    small.screen.erase_in_display(2)
    os.kill(small.pid, signal.SIGCONT)
    small.pump(3, quiet=0.4)
    assert small.text() == before


def test_an_exported_size_does_not_hide_the_true_one() -> None:
    given = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    terminal.prepare_environment(given)
    assert given == {"TERM": "xterm"}
