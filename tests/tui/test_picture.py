"""The picture widget: what stands in which cell, in which colours, and that keys never wait for it."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil
from rich.cells import cell_len
from rich.color import Color, ColorSystem
from textual.app import App, ComposeResult
from textual.containers import Horizontal

from tui.widgets import blocks
from tui.widgets.blocks import (
    COLOURS,
    CUBE,
    SIXTEEN,
    Cells,
    Look,
    Mark,
    View,
    cells,
    colour_of,
    few,
    fitted,
    sixteen,
    strips,
)
from tui.widgets.frames import overlay
from tui.widgets.picture import Picture

TRUE = Look()
LOOKS = [
    Look(colours, plain, light)
    for colours in (2, 16, 256, 1 << 24)
    for plain in (False, True)
    for light in (False, True)
]


def photo(size: tuple[int, int] = (80, 40), seed: int = 0) -> pil.Image:
    return pil.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (80, 40)) -> pil.Image:
    return pil.new("RGB", size, colour)


def drawn(
    image: pil.Image, marks: list[Mark], room: tuple[int, int] = (40, 10), focus: int | None = None, look: Look = TRUE
) -> Cells:
    made = cells(image, View(), room, look)
    overlay(made, marks, View(), focus, look)
    return made


def text_of(made: Cells, look: Look = TRUE) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in strips(made, look)]


@pytest.mark.parametrize(
    ("size", "room", "wanted"),
    [((810, 1080), (76, 20), (30, 20)), ((640, 480), (53, 22), (53, 20)), ((1000, 1), (50, 9), (50, 1)), ((1, 1000), (50, 9), (1, 9))],
)  # fmt: skip
def test_proportions_are_kept(size: tuple[int, int], room: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert fitted(size, room) == wanted


def test_a_cell_holds_four_pixels_in_two_colours() -> None:
    image = pil.new("RGB", (4, 8), (0, 0, 0))  # a cell is twice as high as wide, and so are its quarters
    for spot in ((0, 0), (3, 1), (0, 2), (1, 2), (2, 2), (2, 3)):  # ▘ ▗ / ▀ ▌
        image.paste((255, 255, 255), (spot[0], 2 * spot[1], spot[0] + 1, 2 * spot[1] + 2))
    made = cells(image, View(), (2, 2), TRUE)
    assert text_of(made) == ["▘▗", "▀▌"]
    assert made.ink[0, 0] > 0xF0F0F0 and made.ground[0, 0] < 0x101010


def test_a_flat_picture_is_one_stretch_a_line() -> None:
    made = strips(cells(flat((90, 140, 200)), View(), (40, 10), TRUE), TRUE)
    assert all(len(list(line)) == 1 for line in made)


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_fills_its_room(look: Look) -> None:
    marks = [Mark((0.5, 0.5, 0.6, 0.6), "백혈구", 0), Mark((0.9, 0.9, 0.02, 0.02), "x", 1)]
    made = drawn(photo(), marks, focus=0, look=look)
    lines = strips(made, look)
    assert [line.cell_length for line in lines] == [40] * 10
    assert all(cell_len("".join(s.text for s in line)) == 40 for line in lines)
    text = "".join(text_of(made, look))
    assert "백혈구" in text
    if look.plain:
        assert text.replace("백혈구", "").isascii()
    if look.colours == 2:
        assert all(
            s.style is not None and s.style.color is None for line in lines for s in line
        )  # a filter wants a style


def sent(value: int, system: ColorSystem) -> int | None:
    """The number of the colour that Rich sends for 0xRRGGBB."""
    return Color.from_rgb(value >> 16, value >> 8 & 255, value & 255).downgrade(system).number


def test_sixteen_colours_are_sent_as_they_were_chosen() -> None:
    assert [sent(value, ColorSystem.STANDARD) for value in SIXTEEN] == list(range(16))
    for line in strips(drawn(photo(), [], look=Look(16)), Look(16)):
        for segment in line:
            assert segment.style and segment.style.color and segment.style.color.triplet
            red, green, blue = segment.style.color.triplet
            assert red << 16 | green << 8 | blue in SIXTEEN


def test_256_colours_are_sent_as_they_were_chosen() -> None:
    """What the terminal shows after Rich rounds is near to what was drawn: no second rounding shifts a hue."""
    cube = [(r, g, b) for r in CUBE for g in CUBE for b in CUBE if not r == g == b]
    for red, green, blue in [*cube, *((v, v, v) for v in range(4, 244))]:
        chosen = int(few(np.array([red << 16 | green << 8 | blue], np.uint32))[0])
        shown = Color.from_ansi(sent(chosen, ColorSystem.EIGHT_BIT) or 0).get_truecolor()
        assert max(abs(a - b) for a, b in zip(shown, (red, green, blue), strict=True)) <= 6


def test_nearest_colours() -> None:
    some = np.array([0x000000, 0xFFFFFF, 0xFF0000, 0x87D7AF, 0x767676], np.uint32)
    assert few(some)[:4].tolist() == [0x000000, 0xFFFFFF, 0xFF0000, 0x87D7AF]
    assert sixteen(np.array([0x0A0505, 0xF0F8F0, 0xFF5050], np.uint32)).tolist() == [0x000000, 0xFFFFFF, 0xFF5555]


def test_classes_are_told_apart() -> None:
    def far(a: int, b: int) -> int:
        return sum(abs((a >> shift & 255) - (b >> shift & 255)) for shift in (16, 8, 0))

    assert min(far(a, b) for i, a in enumerate(COLOURS) for b in COLOURS[:i]) > 60
    assert len({colour_of(n, Look(16)) for n in range(12)}) == 12
    assert colour_of(0) == colour_of(len(COLOURS))


def test_frames_and_names() -> None:
    made = drawn(flat((200, 200, 200)), [Mark((0.5, 0.5, 0.5, 0.6), "cell", 0, 0.914)])
    lines = text_of(made)
    assert lines[2][10:30] == "cell 0.91──────────┐"[:20]
    assert lines[7][10] == "└" and lines[7][29] == "┘" and lines[5][10] == lines[5][29] == "│"
    assert made.ground[2, 10] == colour_of(0) and made.ink[2, 10] == 0x101418
    assert made.ink[7, 15] == colour_of(0)
    light = (made.ground[7, 15] >> 16 & 255, 200)
    assert light[0] < 0.7 * light[1]  # darker behind the line


def test_names_do_not_cover_each_other() -> None:
    marks = [Mark((0.5, 0.5, 0.5, 0.6), name, i) for i, name in enumerate(("alpha", "beta", "gamma"))]
    text = "\n".join(text_of(drawn(flat((200, 200, 200)), marks)))
    assert all(name in text for name in ("alpha", "beta", "gamma"))
    apart = [Mark((0.5, 0.5, 0.5, 0.6), "left", 0), Mark((0.6, 0.5, 0.5, 0.6), "right", 1)]
    assert "leftright" not in "".join(text_of(drawn(flat((200, 200, 200)), apart)))


def test_a_small_object_lies_on_top_and_is_never_lost() -> None:
    marks = [Mark((0.5, 0.5, 0.01, 0.01), "tiny", 1), Mark((0.5, 0.5, 0.9, 0.9), "large", 0)]
    made = drawn(flat((200, 200, 200)), marks)
    assert made.ground[4, 20] == colour_of(1) or made.ground[5, 20] == colour_of(1)
    assert "tiny" in "".join(text_of(made))


def test_kinds_look_different_and_the_one_looked_at_is_heavy() -> None:
    marks = [Mark((0.3, 0.5, 0.3, 0.6), "", 0), Mark((0.7, 0.5, 0.3, 0.6), "", 0, kind="predicted")]
    text = "".join(text_of(drawn(flat((200, 200, 200)), marks)))
    assert "─" in text and "╌" in text
    assert "━" in "".join(text_of(drawn(flat((200, 200, 200)), marks, focus=0)))
    plain = "".join(text_of(drawn(flat((200, 200, 200)), marks, look=Look(plain=True)), Look(plain=True)))
    assert "|" in plain and ":" in plain


def test_the_others_are_dimmed() -> None:
    marks = [Mark((0.25, 0.5, 0.3, 0.6), "one", 0), Mark((0.75, 0.5, 0.3, 0.6), "two", 1)]
    made = drawn(flat((200, 200, 200)), marks, focus=0)
    assert made.ground[5, 10] >> 16 > 180  # inside of the one that is looked at
    assert made.ground[9, 39] >> 16 < 110
    text = "".join(text_of(made))
    assert "one" in text and "two" not in text


def test_nothing_of_others_is_drawn_over_the_one_looked_at() -> None:
    marks = [Mark((0.5, 0.5, 0.6, 0.6), "a", 0), Mark((0.5, 0.5, 0.1, 0.2), "b", 1), Mark((0.3, 0.5, 0.2, 0.3), "c", 2)]
    made = drawn(flat((200, 200, 200)), marks, focus=0)
    inside = made.ink[3:7, 10:30]
    assert not {colour_of(1), colour_of(2)} & set(inside.flatten().tolist())


@pytest.mark.parametrize("box", [(math.nan, 0.5, 0.1, 0.1), (math.inf, 0.5, 0.1, 0.1), (9.0, 9.0, 0.1, 0.1), (0.5, 0.5, 0.0, 0.0), (0.5, 0.5, 1e9, 1e9)])  # fmt: skip
def test_boxes_from_anywhere(box: tuple[float, float, float, float]) -> None:
    for look in (TRUE, Look(16)):
        for focus in (None, 0):
            made = drawn(photo(), [Mark(box, "x" * 500, 10**9)], focus=focus, look=look)
            assert [cell_len(line) for line in text_of(made, look)] == [40] * 10


def test_a_name_in_loose_syllables_is_composed() -> None:
    import unicodedata

    made = drawn(flat((9, 9, 9)), [Mark((0.5, 0.5, 0.8, 0.8), unicodedata.normalize("NFD", "적혈구"), 0)])
    assert "적혈구" in "".join(text_of(made))


def test_a_screen_is_drawn_in_time() -> None:
    image, marks = photo((810, 1080)), [Mark((0.5, 0.5, 0.3, 0.3), "cell", n) for n in range(6)]
    took = []
    for _ in range(9):
        begun = time.perf_counter()
        strips(drawn(image, marks, (156, 46)), TRUE)
        took.append(time.perf_counter() - begun)
    assert sorted(took)[2] < 0.025


# The widget


class Two(App[None]):
    """Two pictures side by side, as an original and what was made of it."""

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Picture(id="left")
            yield Picture(id="right")


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOJANG_ASCII", "0")


def lines(app: App[Any]) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


async def until(pilot: Any, true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "\n".join(lines(pilot.app))
        await pilot.pause(0.02)


async def test_two_side_by_side_and_words() -> None:
    app = Two()
    async with app.run_test(size=(80, 24)) as pilot:
        left, right = app.query_one("#left", Picture), app.query_one("#right", Picture)
        left.show(flat((200, 60, 60)), [Mark((0.5, 0.5, 0.5, 0.5), "left", 0)])
        right.show(flat((60, 60, 200)), [Mark((0.5, 0.5, 0.5, 0.5), "right", 1)])
        await until(pilot, lambda: any("left" in line and "right" in line for line in lines(app)))
        right.say("The image is damaged.")
        await until(pilot, lambda: any("The image is damaged." in line for line in lines(app)))
        assert any("left" in line for line in lines(app))


async def test_kinds_get_a_legend() -> None:
    app = Two()
    async with app.run_test(size=(80, 24)) as pilot:
        left = app.query_one("#left", Picture)
        truth, predicted = (
            Mark((0.3, 0.5, 0.3, 0.5), "cell", 0),
            Mark((0.6, 0.5, 0.3, 0.5), "cell", 0, 0.8, "predicted"),
        )
        left.show(flat((200, 60, 60)), [truth])
        await until(pilot, lambda: any("cell" in line for line in lines(app)))
        assert not any("labelled" in line for line in lines(app))
        left.show(flat((200, 60, 60)), [truth, predicted])
        await until(pilot, lambda: any("─── labelled   ╌╌╌ predicted" in line for line in lines(app)))


async def test_close_and_whole_again() -> None:
    app = Two()
    async with app.run_test(size=(80, 24)) as pilot:
        left, image = app.query_one("#left", Picture), photo((400, 300))
        marks = [Mark((0.2, 0.2, 0.1, 0.1), "one", 0), Mark((0.8, 0.8, 0.1, 0.1), "two", 1)]
        left.show(image, marks, focus=0)
        await until(pilot, lambda: any("one" in line for line in lines(app)))
        left.zoom(0)
        view = left._view
        assert view.left <= 0.15 and view.right >= 0.25 and view.right - view.left < 0.5
        left.show(image, marks, focus=1)  # the close look goes along
        assert left.close == 1 and left._view.right >= 0.85
        for _ in range(30):
            left.pan(1, 1)
        assert left._view.right == pytest.approx(1) and left._view.bottom == pytest.approx(1)
        left.sharpen(photo((800, 600)))
        assert left.zoomed
        left.zoom(None)
        assert not left.zoomed
        left.closer()
        assert left.zoomed and left.close is None
        left.show(photo(), marks)  # another image: the whole of it
        assert not left.zoomed


async def test_only_lines_that_changed_are_painted() -> None:
    app = Two()
    async with app.run_test(size=(80, 24)) as pilot:
        left, image = app.query_one("#left", Picture), photo((400, 300))
        painted: list[Any] = []
        left.show(image)
        await until(pilot, lambda: left._strips)
        refresh = left.refresh
        left.refresh = lambda *regions, **how: painted.extend(regions) or refresh(*regions, **how)  # type: ignore[method-assign, func-returns-value, return-value]
        before = left._strips
        left.show(image, [Mark((0.5, 0.5, 0.9, 0.01), "", 0)])
        await until(pilot, lambda: left._strips is not before)
        assert 1 <= len(painted) <= 2


async def test_keys_do_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long drawing takes, the loop goes on, and what is outdated is never shown."""
    real = blocks.cells

    def slow(*given: Any) -> Cells:
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr("tui.widgets.picture.cells", slow)
    app = Two()
    async with app.run_test(size=(80, 24)) as pilot:
        left = app.query_one("#left", Picture)
        begun = time.monotonic()
        left.show(flat((200, 60, 60)), [Mark((0.5, 0.5, 0.5, 0.5), "old", 0)])
        left.show(flat((200, 60, 60)), [Mark((0.5, 0.5, 0.5, 0.5), "new", 0)])
        assert time.monotonic() - begun < 0.2
        await until(pilot, lambda: any("new" in line for line in lines(app)))
        assert not any("old" in line for line in lines(app))
        await pilot.pause(0.4)
        assert any("new" in line for line in lines(app))
