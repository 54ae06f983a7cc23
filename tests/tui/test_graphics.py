"""Pictures in pixels: who is asked, what counts as a yes, and what is sent."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import sys
import threading
from typing import Any

import pytest
from PIL import Image as pil

from tui import graphics
from tui.graphics import Cell
from tui.widgets.blocks import Look, Mark, View

YES = "\x1b_Gi=31;OK\x1b\\\x1b[6;20;9t\x1b[?62;4c"


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, True),
        ({"TERM": "xterm-ghostty", "SSH_TTY": "/dev/pts/1"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, False),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "kitty"}, False),
        ({}, False),
    ],
)
def test_only_a_terminal_that_will_answer_is_asked(environment: dict[str, str], asked: bool) -> None:
    assert graphics.may_draw(environment) is asked


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (YES, Cell(9, 20)),
        ("\x1b[6;20;9t\x1b[?62;4c", None),  # draws none
        ("\x1b_Gi=31;OK\x1b\\\x1b[?62;4c", None),  # says no size
        ("\x1b_Gi=31;EINVAL:no\x1b\\\x1b[6;20;9t\x1b[?1c", None),
        ("\x1b_Gi=31;OK\x1b\\\x1b[6;0;0t\x1b[?1c", None),
        ("", None),
        ("rm -rf", None),
    ],
)
def test_a_yes_says_pictures_and_a_size(text: str, cell: Cell | None) -> None:
    assert graphics.read_answer(text) == cell


def ask(monkeypatch: pytest.MonkeyPatch, answer: str | None, timeout: float = 5.0) -> tuple[Cell | None, bytes]:
    """What `ask` makes of a terminal that gives `answer`, or none; and what that terminal was sent."""
    ours, theirs = pty.openpty()
    end = os.fdopen(theirs, "r+b", buffering=0)
    heard = bytearray()

    def terminal() -> None:
        while b"\x1b[c" not in heard:
            heard.extend(os.read(ours, 1000))
        if answer is not None:
            os.write(ours, answer.encode())

    monkeypatch.setattr(sys, "__stdin__", end)
    monkeypatch.setattr(sys, "__stderr__", end)
    monkeypatch.setattr(os, "environ", {"TERM": "xterm-kitty"})
    thread = threading.Thread(target=terminal)
    thread.start()
    try:
        return graphics.ask(timeout), bytes(heard)
    finally:
        thread.join()
        end.close()
        os.close(ours)


def test_the_terminal_is_asked_and_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, heard = ask(monkeypatch, YES)
    assert cell == Cell(9, 20) and heard == graphics.QUESTION.encode()


def test_a_silent_terminal_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, None, 0.2)[0] is None


def test_no_terminal_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setattr(sys, "__stdin__", io.StringIO())
    assert graphics.ask() is None


def decoded(sent: str) -> tuple[dict[str, str], Any]:
    """The keys of the first message and the picture in all of them."""
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    keys = dict(pair.split("=") for pair in parts[0][0].split(","))
    assert all(len(data) <= 4096 for _, data in parts)
    assert [head.rpartition("m=")[2] for head, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    return keys, pil.open(io.BytesIO(base64.b64decode("".join(data for _, data in parts))))


def test_what_is_sent_is_the_picture_with_its_frames() -> None:
    image = pil.effect_noise((200, 100), 80).convert("RGB")
    marks = [Mark((0.5, 0.5, 0.5, 0.5), "세포", 0), Mark((0.9, 0.9, 0.1, 0.1), "x", 1, 0.5)]
    png, text = graphics.drawn(image, View(), (80, 24), Cell(10, 20), marks, None, Look())
    keys, shown = decoded(graphics.placed(7, png, (3, 2), (80, 20)))
    assert {k: keys[k] for k in "aicrq"} == {"a": "T", "i": "7", "c": "80", "r": "20", "q": "2"}
    assert shown.size == (800, 400) and text.signs.shape == (20, 80)
    colour = shown.convert("RGB").getpixel((600 - 1, 200))  # the right edge of the first frame
    assert max(abs(a - b) for a, b in zip(colour, (0x4E, 0xC9, 0xF0), strict=True)) < 40
    row, column = (int(part[0]) for part in text.signs.nonzero())
    assert shown.convert("RGBA").getpixel((column * 10 + 5, row * 20 + 10))[3] == 0  # a hole for the name's letters
    written = "".join(chr(sign) for sign in text.signs.ravel() if sign)
    assert written == "세 포 x 0.50"


def test_the_cursor_stays() -> None:
    sent = graphics.placed(1, b"png", (3, 2), (80, 20))
    assert sent.startswith("\x1b7\x1b[3;4H") and sent.endswith("\x1b8")


def test_an_object_that_is_looked_at_is_in_full_light() -> None:
    image = pil.new("RGB", (100, 100), (200, 200, 200))
    marks = [Mark((0.25, 0.25, 0.3, 0.3), "a", 0), Mark((0.75, 0.75, 0.3, 0.3), "b", 1)]
    png, _ = graphics.drawn(image, View(), (40, 20), Cell(10, 20), marks, 0, Look())
    shown = pil.open(io.BytesIO(png)).convert("L")
    inside, outside = shown.getpixel((100, 130)), shown.getpixel((300, 60))
    assert isinstance(inside, int) and isinstance(outside, int) and inside > 180 and outside < 110
