"""One VOC annotation: boxes from pixel corners, defects by object, and an XML parser that cannot be abused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.datasets.files import Unreadable
from engine.datasets.formats import Labels
from engine.datasets.vocxml import parse_annotation
from tests.datasets.make import Corners, xml

SIZE = (40, 30)


def parse(*objects: tuple[str, Corners], size: tuple[int, int] = SIZE) -> Labels:
    return parse_annotation(xml(list(objects), size).encode(), SIZE)


def codes(labels: Labels) -> list[tuple[str, str, int | None]]:
    return [(defect.severity, defect.code, defect.object) for defect in labels.defects]


def test_boxes_are_corners_over_the_size_of_the_image() -> None:
    labels = parse(("cat", (4, 3, 20, 18)), ("dog", (0, 0, 40, 30)), ("cat", (1.5, 2.25, 7, 9)))
    assert labels.names == ["cat", "dog"]
    assert labels.boxes[0] == (0, 12 / 40, 10.5 / 30, 16 / 40, 15 / 30)
    assert labels.boxes[1] == (1, 0.5, 0.5, 1, 1)
    assert labels.boxes[2] == (0, 4.25 / 40, 5.625 / 30, 5.5 / 40, 6.75 / 30)


@pytest.mark.parametrize(
    ("name", "corners", "defect"),
    [
        ("cat", (9, 9, 9, 9), ("error", "zero_area", 2)),
        ("cat", (9, 3, 9, 20), ("error", "zero_area", 2)),
        ("cat", (20, 3, 4, 20), ("error", "inverted", 2)),
        ("cat", (50, 3, 60, 20), ("error", "out_of_frame", 2)),
        ("cat", (-9, 3, 0, 20), ("error", "out_of_frame", 2)),
        ("cat", ("a", 3, 4, 20), ("error", "malformed", 2)),
        ("cat", ("nan", 3, 4, 20), ("error", "malformed", 2)),
        ("cat", ("", 3, 4, 20), ("error", "malformed", 2)),
        ("", (1, 3, 4, 20), ("error", "bad_class", 2)),
        ("dog", (1, 1, 5, 5), ("warning", "duplicate", 2)),
    ],
)
def test_a_defective_object_is_left_out_and_named(
    name: str, corners: Corners, defect: tuple[str, str, int | None]
) -> None:
    labels = parse(("dog", (1, 1, 5, 5)), (name, corners), ("dog", (2, 2, 6, 6)))
    assert len(labels.boxes) == 2
    assert codes(labels) == [defect]


def test_a_box_that_reaches_out_is_cut_off_with_a_warning() -> None:
    labels = parse(("cat", (-10, 5, 20, 45)))
    assert labels.boxes[0] == (0, 0.25, 17.5 / 30, 0.5, 25 / 30)
    assert codes(labels) == [("warning", "out_of_frame", 1)]


def test_one_pixel_beyond_is_a_matter_of_counting() -> None:
    labels = parse(("cat", (0, 0, 41, 31)))
    assert labels.boxes[0] == (0, 0.5, 0.5, 1, 1) and not labels.defects


def test_another_size_than_the_image_has_is_a_warning() -> None:
    assert codes(parse(("cat", (1, 1, 5, 5)), size=(400, 300))) == [("warning", "size_mismatch", None)]
    assert codes(parse(("cat", (1, 1, 5, 5)), size=(0, 0))) == []


def test_parts_of_an_object_are_not_objects() -> None:
    inner = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = xml([("person", (4, 3, 20, 18))]).replace("</object>", f"{inner}</object>")
    labels = parse_annotation(text.encode(), SIZE)
    assert labels.names == ["person"] and labels.boxes == [(0, 12 / 40, 10.5 / 30, 16 / 40, 15 / 30)]


def test_no_objects_is_background() -> None:
    labels = parse()
    assert labels.told and not labels.boxes


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;&l;">]><annotation>&m;</annotation>'
OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>'
)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (BOMB, "unsafe_xml"),
        (OUTSIDE, "unsafe_xml"),
        ("<!DOCTYPE annotation><annotation/>", "unsafe_xml"),
        ("<a>" * 10_000, "unsafe_xml"),
        ("", "bad_xml"),
        ("not xml", "bad_xml"),
        ("<annotation><object>", "bad_xml"),
        ("<annotation>&undefined;</annotation>", "bad_xml"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "bad_encoding"),
    ],
)
def test_bad_xml_is_refused(text: str, code: str) -> None:
    with pytest.raises(Unreadable) as error:
        parse_annotation(text.encode(), SIZE)
    assert error.value.code == code


def test_declared_encodings_are_read() -> None:
    text = '<?xml version="1.0" encoding="iso-8859-1"?>' + xml([("café", (1, 1, 5, 5))])
    assert parse_annotation(text.encode("latin-1"), SIZE).names == ["café"]
    korean = '<?xml version="1.0" encoding="utf-8"?>' + xml([("고양이", (1, 1, 5, 5))])
    assert parse_annotation(korean.encode(), SIZE).names == ["고양이"]
    with pytest.raises(Unreadable):
        parse_annotation(korean.replace("utf-8", "euc-kr").encode("euc-kr"), SIZE)


@given(st.binary(max_size=200))
def test_any_bytes_give_labels_or_unreadable(data: bytes) -> None:
    try:
        parse_annotation(data, SIZE)
    except Unreadable:
        pass


corner = st.integers(-50, 90)


@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=8))
def test_boxes_never_leave_the_image(all_corners: list[Corners]) -> None:
    labels = parse(*(("cat", corners) for corners in all_corners))
    assert len(labels.boxes) + labels.left_out == len(all_corners)
    for box in labels.boxes:
        assert box.w > 0 and box.h > 0
        assert box.cx - box.w / 2 >= -1e-9 and box.cx + box.w / 2 <= 1 + 1e-9
        assert box.cy - box.h / 2 >= -1e-9 and box.cy + box.h / 2 <= 1 + 1e-9
