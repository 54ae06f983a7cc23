"""Boxes under a change of the picture, in numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.datasets.edges import WHOLE, Edges, cut, framed, inside, turned
from engine.datasets.model import Box

PARTS = st.floats(0.05, 0.95)
BOXES = st.builds(Box, st.integers(0, 3), PARTS, PARTS, st.floats(0.01, 0.6), st.floats(0.01, 0.6))


def near(one: Box, other: Box) -> bool:
    return one.cls == other.cls and one[1:] == pytest.approx(other[1:], abs=1e-9)


def test_of_a_cut_counts_how_much_of_the_box_remains() -> None:
    box = Box(0, 0.5, 0.5, 0.4, 0.4)
    (left,) = cut([box], Edges(0, 0, 0.5, 1))
    assert near(left, Box(0, 0.8, 0.5, 0.4, 0.4))  # half of it, as parts of half of the picture
    assert cut([box], Edges(0, 0, 0.381, 1)) and not cut([box], Edges(0, 0, 0.379, 1))  # a fifth
    assert not cut([box], Edges(0.8, 0.8, 1, 1))


def test_what_nobody_saw_is_not_lost_by_a_cut() -> None:
    outside = Box(0, 0.0, 0.5, 0.4, 0.2)  # half of it reaches out of the picture
    (seen,) = framed([outside])
    assert near(seen, Box(0, 0.1, 0.5, 0.2, 0.2))
    assert not framed([Box(0, -0.5, 0.5, 0.4, 0.2)])


@given(BOXES, st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.5, 0.6))
def test_into_a_place_and_cut_out_again_is_the_same(box: Box, left: float, top: float, side: float) -> None:
    place = Edges(left, top, left + side, top + side)
    (whole,) = framed([box])
    (back,) = cut(inside([whole], place), place, 0.0)
    assert near(back, whole)


@given(BOXES, st.integers(20, 400), st.integers(20, 400))
def test_a_full_turn_changes_nothing_and_a_quarter_swaps_sides(box: Box, width: int, height: int) -> None:
    assert near(turned([box], 2 * math.pi, width, height)[0], box)
    (quarter,) = turned([box], math.pi / 2, width, width)
    assert near(quarter, Box(box.cls, 1 - box.cy, box.cx, box.h, box.w))


@given(BOXES, st.floats(-math.pi, math.pi))
def test_a_turned_box_holds_the_turned_corners(box: Box, angle: float) -> None:
    (found,) = turned([box], angle, 300, 200)
    for i in (-0.5, 0.5):
        for j in (-0.5, 0.5):
            x, y = (box.cx + i * box.w - 0.5) * 300, (box.cy + j * box.h - 0.5) * 200
            across = (math.cos(angle) * x - math.sin(angle) * y) / 300 + 0.5
            down = (math.sin(angle) * x + math.cos(angle) * y) / 200 + 0.5
            assert abs(across - found.cx) <= found.w / 2 + 1e-9 and abs(down - found.cy) <= found.h / 2 + 1e-9


def test_the_whole_is_no_cut() -> None:
    box = Box(1, 0.3, 0.4, 0.2, 0.1)
    assert near(cut([box], WHOLE)[0], box)
