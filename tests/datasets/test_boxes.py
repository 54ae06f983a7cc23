"""Pixels into parts and back: rounded once, and never a bit lost for a box inside its image."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.datasets.boxes import box_in_pixels, pixels
from engine.datasets.formats import Labels
from engine.datasets.model import Box

side = st.integers(10, 20_000)
share = st.floats(0, 1, exclude_min=True)


def read(corners: tuple[Decimal | int | str, ...], size: tuple[int, int]) -> tuple[Box | None, Labels]:
    labels = Labels()
    return box_in_pixels(corners, 0, "cat", 1, size, labels), labels


@st.composite
def spans(draw: st.DrawFn) -> tuple[float, float]:
    """Centre and length of an edge inside 0 and 1."""
    length = draw(share)
    return draw(st.floats(length / 2, 1 - length / 2)), length


def stays_inside(centre: float, length: float) -> bool:
    middle, half = Decimal(centre), Decimal(length) / 2
    return middle - half >= 0 and middle + half <= 1


@given(spans(), spans(), side, side)
@example((0.5, 1.0), (0.5, 1.0), 10, 20_000)
@example((0.5, 5e-324), (0.5, 1e-300), 10, 11)
def test_every_box_inside_its_image_reads_back_bit_for_bit(
    across: tuple[float, float], down: tuple[float, float], width: int, height: int
) -> None:
    box = Box(0, across[0], down[0], across[1], down[1])
    corners, exact = pixels(box, (width, height))
    again, labels = read(corners, (width, height))
    if exact:
        assert again == box and not labels.defects
    else:
        tiny = min(across[1], down[1]) < 1e-12
        assert tiny or not (stays_inside(*across) and stays_inside(*down)), "only what pixels cannot say is not exact"


@given(side, side, st.data())
def test_whole_pixels_stay_whole_pixels(width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    box, labels = read((left, top, right, bottom), (width, height))
    assert box == (
        0, (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    ) and not labels.defects  # fmt: skip
    assert pixels(box, (width, height)) == ((left, top, right, bottom), True)


@given(st.tuples(*[st.decimals(0, 10, places=3)] * 4))
def test_decimals_stay_as_short_as_they_were(corners: tuple[Decimal, ...]) -> None:
    box, _ = read(corners, (10, 10))
    if box:
        again, exact = pixels(box, (10, 10))
        assert exact and again == corners


@pytest.mark.parametrize("text", ["", "x", "nan", "-inf", "1e", "0x10", "1,5", "\u221e"])
def test_what_is_no_number_is_named(text: str) -> None:
    box, labels = read(("1", "2", text, "4"), (40, 30))
    assert box is None and [d.code for d in labels.defects] == ["malformed"]


@pytest.mark.parametrize("text", ["1e999999", "9" * 100_000, "0." + "9" * 100_000, "1e-999999", "-1e999999"])
def test_absurd_numbers_cost_nothing(text: str) -> None:
    box, labels = read(("1", "2", text, "4"), (40, 30))
    assert box is None or (0 < box.w <= 1)
    assert all(len(d.message) < 200 for d in labels.defects)
    read((text, text, "30", "20"), (40, 30))


def test_a_box_that_leaves_its_image_is_cut_off_and_said() -> None:
    corners, exact = pixels(Box(0, 0.05, 0.5, 0.2, 0.2), (40, 30))
    assert corners == (0, 12, 6, 18) and not exact
