"""YOLO label rows: numbers survive exactly; everything wrong is named with its object's number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.datasets.files import Unreadable
from engine.datasets.formats import MOST_DEFECTS, Labels
from engine.datasets.rows import TOLERANCE, parse_rows

SIZE = (40, 30)
part = st.floats(0, 1, exclude_min=True)
row = st.tuples(st.integers(0, 4), part, part, part, part)


def parse(text: str, classes: int = 3, keypoints: int = 0) -> Labels:
    return parse_rows(text.encode(), SIZE, classes, keypoints)


def codes(labels: Labels) -> list[tuple[str, int | None]]:
    return [(defect.code, defect.object) for defect in labels.defects]


@given(st.lists(row, unique=True))
def test_valid_rows_survive_bit_for_bit(rows: list[tuple[int, float, float, float, float]]) -> None:
    labels = parse("".join(" ".join(map(repr, r)) + "\n" for r in rows), classes=5)
    assert [tuple(box) for box in labels.boxes] == rows
    assert not labels.left_out


@given(st.binary(max_size=300))
def test_any_bytes_give_labels_or_unreadable(data: bytes) -> None:
    try:
        labels = parse_rows(data, SIZE, 3)
    except Unreadable:
        return
    assert all(0 <= box.cls < 3 and box.w > 0 and box.h > 0 for box in labels.boxes)
    assert all(-TOLERANCE <= value <= 1 + TOLERANCE for box in labels.boxes for value in box[1:])


@given(st.lists(st.lists(st.sampled_from(["0", "1", "2", "9", "-1", "0.5", "nan", "inf", "x", "1e400"]), max_size=9)))
def test_every_row_is_kept_or_accounted_for(rows: list[list[str]]) -> None:
    labels = parse("\n".join(" ".join(columns) for columns in rows))
    assert len(labels.boxes) + labels.left_out == sum(bool(columns) for columns in rows)
    assert all(math.isfinite(value) for box in labels.boxes for value in box)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0 0.5 0.5 0 0.2", "zero_area"),
        ("0 0.5 0.5 0.2 -0.005", "out_of_range"),
        ("0 1.5 0.5 0.2 0.2", "out_of_range"),
        ("0 120 88 30 30", "out_of_range"),
        ("0 -0.2 0.5 0.2 0.2", "out_of_range"),
        ("0 nan 0.5 0.2 0.2", "out_of_range"),
        ("0 inf 0.5 0.2 0.2", "out_of_range"),
        ("3 0.5 0.5 0.2 0.2", "bad_class"),
        ("-1 0.5 0.5 0.2 0.2", "bad_class"),
        ("1.5 0.5 0.5 0.2 0.2", "bad_class"),
        ("nan 0.5 0.5 0.2 0.2", "bad_class"),
        ("1e300 0.5 0.5 0.2 0.2", "bad_class"),
        ("cat 0.5 0.5 0.2 0.2", "malformed"),
        ("0 0.5 0.5 0.2", "malformed"),
        ("0 0.5 0.5 0.2 0.2 0.9", "malformed"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "malformed"),
        ("0 0.5 0.5 0.2 O.2", "malformed"),
    ],
)
def test_a_defective_row_is_left_out_and_named(text: str, code: str) -> None:
    labels = parse(f"1 0.5 0.5 0.4 0.4\n\n{text}\n2 0.3 0.3 0.1 0.1\n")
    assert [box.cls for box in labels.boxes] == [1, 2]
    assert codes(labels) == [(code, 2)]


def test_pixels_are_recognised_as_such() -> None:
    assert "pixels" in parse("0 120 88 30 30").defects[0].message


def test_duplicates_are_dropped_with_a_warning() -> None:
    labels = parse("0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n0 0.50 0.5 0.2 0.2\n")
    assert [box.cls for box in labels.boxes] == [0, 1]
    assert codes(labels) == [("duplicate", 3)] and labels.defects[0].severity == "warning"


def test_a_polygon_becomes_the_box_around_it() -> None:
    labels = parse("2 0.125 0.25 0.5 0.25 0.5 0.75 0.125 0.5\n")
    assert [tuple(box) for box in labels.boxes] == [(2, 0.3125, 0.5, 0.375, 0.5)]


def test_two_polygons_with_one_box_are_not_duplicates() -> None:
    assert len(parse("0 0 0 1 0 1 1 0 1\n0 0 0 1 0 1 1\n").boxes) == 2


def test_keypoints_are_not_a_polygon() -> None:
    labels = parse("0 0.5 0.5 0.2 0.2 0.9 0.9 2 0.1 0.1 2", keypoints=6)
    assert [tuple(box) for box in labels.boxes] == [(0, 0.5, 0.5, 0.2, 0.2)]


def test_a_box_that_reaches_out_is_kept_as_written_with_a_warning() -> None:
    labels = parse("0 0.05 0.5 0.2 0.2\n")
    assert [tuple(box) for box in labels.boxes] == [(0, 0.05, 0.5, 0.2, 0.2)]
    assert codes(labels) == [("out_of_frame", 1)] and labels.defects[0].severity == "warning"


def test_an_empty_file_is_background_and_one_of_rubbish_is_not() -> None:
    assert parse("").told
    assert parse("0 0.5 0.5 0 0\n").told, "an object without area says nothing about the rest"
    assert not parse("cat somewhere\n").told


def test_a_byte_order_mark_and_windows_lines_are_read() -> None:
    assert len(parse("\ufeff0 0.5 0.5 0.2 0.2\r\n1 0.5 0.5 0.2 0.2\r\n").boxes) == 2


def test_other_encodings_are_refused_by_name() -> None:
    with pytest.raises(Unreadable, match="UTF-8"):
        parse_rows("0 0.5".encode("utf-16"), SIZE, 3)


def test_a_file_of_another_kind_does_not_flood_the_findings() -> None:
    labels = parse("a caption of a picture\n" * 5000)
    assert labels.left_out == 5000
    assert len(labels.defects) == MOST_DEFECTS + 1 and labels.defects[-1].code == "many_defects"
