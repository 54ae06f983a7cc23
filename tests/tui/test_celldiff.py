"""The cell diff shows exactly what the bytes it replaces would have shown: a terminal (pyte) is the judge."""

from __future__ import annotations

import random
import re
from typing import Any

import pyte
import pytest

from tui.celldiff import CellDiff, split_cells

WORDS = ["loss", "0.781", "훈련", "데이터 세트", "●", "한글ab", "━━━╸───", "  ", "⣿⡇", "e\u0301a", "—", "x"]
COLOURS = ["", "1", "38;2;90;160;220", "7", "48;5;236;38;5;250", "3", "4;31", "9;44", "97;41"]


class Terminal:
    """A pyte screen that takes what our driver sends."""

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.screen.reset_mode(pyte.modes.DECAWM)
        self._stream = pyte.Stream(self.screen)
        self.received = 0

    def feed(self, data: str) -> None:
        self.received += len(data.encode())
        data = re.sub(r"\x1b\[[<>=][0-9;]*u|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[\?2026[hl]", "", data)
        self._stream.feed(data)

    def cells(self) -> list[list[tuple[Any, ...]]]:
        buffer = self.screen.buffer
        return [[seen(buffer[y][x]) for x in range(self.screen.columns)] for y in range(self.screen.lines)]

    def text(self) -> list[str]:
        return ["".join(cell[0] for cell in row).rstrip() for row in self.cells()]


def seen(cell: Any) -> tuple[Any, ...]:
    """What an eye gets of a cell: the ink of a blank is not part of it."""
    if cell.data == " " and not (cell.underscore or cell.reverse or cell.strikethrough):
        return cell.data, cell.bg
    return tuple(cell)


def move(x: int, y: int) -> str:
    return f"\x1b[{y + 1};{x + 1}H"


def piece(chance: random.Random) -> tuple[str, int]:
    text, colour = chance.choice(WORDS), chance.choice(COLOURS)
    return (f"\x1b[{colour}m{text}\x1b[0m" if colour else text), len(split_cells(text))


def line(chance: random.Random, width: int) -> str:
    """Text of exactly `width` cells, as Textual writes a strip."""
    parts: list[str] = []
    while width:
        text, size = piece(chance)
        if size <= width:
            parts.append(text)
            width -= size
        elif width < 3:
            parts.append(" " * width)
            break
    return "".join(parts)


def full_frame(chance: random.Random, columns: int, rows: int) -> str:
    body = "".join(move(0, y) + line(chance, columns) + ("\n" if y < rows - 1 else "") for y in range(rows))
    return body + move(chance.randrange(columns), chance.randrange(rows))


def spans(chance: random.Random, columns: int, rows: int) -> str:
    """Some stretches of some lines. They may cut wide characters of earlier frames in two."""
    body = ""
    for _ in range(chance.randrange(1, 6)):
        start = chance.randrange(columns - 4)
        body += move(start, chance.randrange(rows)) + line(chance, chance.randrange(1, columns - start))
    return body + move(0, 0)


def test_no_bytes_can_stop_it() -> None:
    chance = random.Random(9)
    parts = [
        "\x1b",
        "[",
        "]8;;",
        "P",
        "_",
        "\\",
        "\x07",
        "H",
        "12;4",
        "m",
        "38;5;",
        "1",
        "한",
        "글a",
        "\u0301",
        "\n",
        "\r",
        "\t",
        "J",
        "👩\u200d🚀",
        "0",
        "?2026h",
        "?2026l",
    ]
    diff = CellDiff()
    for _ in range(3000):
        diff.feed("".join(chance.choice(parts) for _ in range(chance.randrange(1, 30))), (20, 5))
    frame = f"{move(0, 0)}abc{move(0, 0)}"
    diff.feed("\x1b\\", (20, 5))
    diff.feed(frame, (20, 5))
    assert diff.feed(frame, (20, 5)) == ""


@pytest.mark.parametrize("seed", range(12))
def test_same_screen_as_without(seed: int) -> None:
    chance = random.Random(seed)
    columns, rows = 50, 12
    plain, diffed, diff = Terminal(columns, rows), Terminal(columns, rows), CellDiff()
    frame = full_frame(chance, columns, rows)
    for _ in range(60):
        plain.feed(frame)
        diffed.feed(diff.feed(frame, (columns, rows)))
        assert diffed.cells() == plain.cells()
        assert (diffed.screen.cursor.x, diffed.screen.cursor.y) == (plain.screen.cursor.x, plain.screen.cursor.y)
        kind = chance.random()
        if kind < 0.1:
            columns, rows = chance.randrange(20, 70), chance.randrange(5, 16)
            for terminal in (plain, diffed):
                terminal.screen.resize(rows, columns)
            diff.invalidate()
            frame = full_frame(chance, columns, rows)
        elif kind < 0.3:
            frame = full_frame(chance, columns, rows)
        elif kind < 0.85:
            frame = spans(chance, columns, rows)
    assert diffed.received < plain.received


def settled(*frames: str) -> tuple[CellDiff, str]:
    """A diff after these frames, and what it sent for the last one."""
    diff, sent = CellDiff(), ""
    for frame in frames:
        sent = diff.feed(frame, (40, 10))
    return diff, sent


def test_nothing_is_sent_for_what_is_shown() -> None:
    frame = f"{move(3, 2)}\x1b[1mepoch 12/50\x1b[0m{move(0, 0)}"
    diff, _ = settled(frame)
    assert diff.feed(frame, (40, 10)) == ""


def test_only_the_changed_digit_is_sent() -> None:
    _, sent = settled(f"{move(0, 0)}epoch 12/50{move(0, 0)}", f"{move(0, 0)}epoch 13/50{move(0, 0)}")
    assert sent == f"{move(7, 0)}3{move(0, 0)}"


def test_an_empty_synchronised_frame_is_dropped_and_a_full_one_is_kept() -> None:
    diff, _ = settled(f"{move(0, 0)}abc{move(0, 0)}")
    pieces = ["\x1b[?2026h", f"{move(0, 0)}abc{move(0, 0)}", "\x1b[?2026l"]
    assert "".join(diff.feed(part, (40, 10)) for part in pieces) == ""
    pieces[1] = f"{move(0, 0)}abd{move(0, 0)}"
    sent = "".join(diff.feed(part, (40, 10)) for part in pieces)
    assert sent.startswith("\x1b[?2026h") and sent.endswith("\x1b[?2026l") and "d" in sent


@pytest.mark.parametrize(
    "foreign",
    [
        "\x1bPq#0;2;0;0;0~~@@\x1b\\",
        "\x1b_Ga=T,f=100;AAAA\x1b\\",
        "\x1b]1337;File=inline=1:AAAA\x07",
        "\x1b[2J",
        "\x1b[3A",
        "\x1bc",
    ],
)
def test_what_it_does_not_understand_passes_and_makes_it_forget(foreign: str) -> None:
    frame = f"{move(0, 0)}abc{move(0, 0)}"
    diff, _ = settled(frame)
    assert foreign in diff.feed(foreign, (40, 10))
    assert "abc" in diff.feed(frame, (40, 10))


def test_an_image_in_two_writes_is_not_touched() -> None:
    frame = f"{move(0, 0)}abc{move(0, 0)}"
    diff, _ = settled(frame)
    data = "\x1bPq#0~~12;34Habc\x1b\\"
    assert diff.feed(data[:8], (40, 10)) + diff.feed(data[8:], (40, 10)) == data
    assert "abc" in diff.feed(frame, (40, 10))
    assert diff.feed(frame, (40, 10)) == ""


def test_titles_modes_bell_and_clipboard_pass_and_nothing_is_forgotten() -> None:
    frame = f"{move(0, 0)}abc{move(0, 0)}"
    diff, _ = settled(frame)
    for harmless in ("\x1b]52;c;QUJD\x07", "\x07", "\x1b[?1003h", "\x1b[>25u", "\x1b[?2026$p", "\x1b]2;dojang\x1b\\"):
        assert diff.feed(harmless, (40, 10)) == harmless
        assert diff.feed(frame, (40, 10)) == ""


def test_links_are_part_of_a_cell() -> None:
    linked = f"{move(0, 0)}\x1b]8;id=1;https://a.example\x1b\\\x1b[4mdocs\x1b[0m\x1b]8;;\x1b\\ end{move(0, 0)}"
    diff, sent = settled(linked)
    assert sent.count("\x1b]8;id=1;https://a.example\x1b\\") == 1 and sent.count("\x1b]8;;\x1b\\") == 1
    assert diff.feed(linked, (40, 10)) == ""
    assert "docs" in diff.feed(linked.replace("a.example", "b.example"), (40, 10))


def test_leaving_and_entering_the_other_screen_forgets() -> None:
    frame = f"{move(0, 0)}abc{move(0, 0)}"
    diff, _ = settled(frame)
    diff.feed("\x1b[?1049l", (40, 10))
    assert "abc" in diff.feed(frame, (40, 10))


def test_after_a_character_of_doubtful_width_the_cursor_is_placed_anew() -> None:
    _, sent = settled(f"{move(0, 0)}👩\u200d🚀 ok{move(0, 0)}")
    assert sent == f"{move(0, 0)}\x1b[0m👩\u200d🚀{move(2, 0)} ok{move(0, 0)}"


def test_only_what_differs_of_a_look_is_sent_and_blanks_need_no_ink() -> None:
    red, green = "38;2;200;0;0;48;2;9;9;9", "38;2;0;200;0;48;2;9;9;9"
    _, sent = settled(
        f"{move(0, 0)}\x1b[{red}ma\x1b[0m\x1b[{green}m  \x1b[0m\x1b[{red}mb\x1b[0m\x1b[{green}mc\x1b[0m{move(0, 0)}"
    )
    assert sent == f"{move(0, 0)}\x1b[0;{red}ma  b\x1b[38;2;0;200;0mc\x1b[0m{move(0, 0)}"


def test_cells_beside_the_screen_are_dropped() -> None:
    _, sent = settled(f"{move(36, 0)}abcdefgh{move(0, 0)}")
    assert "abcd" in sent and "e" not in sent
