"""Boxes from pixels, and back, without losing a bit.

A box is kept as four doubles, parts of the image's width and height. YOLO writes such parts, so its numbers are kept as
they are. VOC, COCO and labelme count in pixels: their decimals are added and divided as decimals, and the result becomes
a double once, at the very end. So a part depends on what the text says and on nothing else, and for every box inside its
image there are decimals that read back as that same box: `pixels` looks for the shortest, which for boxes that came from
whole pixels are those whole pixels. No grid, no tolerance: a set written in another format is the same set.

What pixels cannot say is a box that leaves its image, which YOLO allows: readers of pixels cut it off at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation

from engine.datasets.formats import Defect, Labels
from engine.datasets.model import Box

SLACK = 1  # pixels beyond the frame that are a matter of counting from 0 or from 1
PLACES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 24, 30, 40)  # decimals tried, until they read back the same
EXACT = Context(prec=60)  # digits: a double times a width has no more than that

Corners = Sequence[Decimal | str | int]


def box_in_pixels(
    corners: Corners, cls: int, name: str, number: int, size: tuple[int, int], labels: Labels
) -> Box | None:
    """The box with those edges (left, top, right, bottom) in an image of `size` (width, height); all in pixels.

    What reaches out of the image is cut off at its edge. None and a defect of object `number`, called `name`, if it
    cannot be used. Infinities and what is not a number are refused here, so any text may be given.
    """
    try:
        left, top, right, bottom = edges = [Decimal(corner) for corner in corners]
    except (InvalidOperation, ValueError):
        labels.drop(number, "malformed", f"The box of this {name} does not have four numbers.")
        return None
    if not all(edge.is_finite() for edge in edges):
        labels.drop(number, "malformed", f"The box of this {name} does not have four numbers.")
        return None
    place = f"{_short(left)},{_short(top)} to {_short(right)},{_short(bottom)} pixels"
    width, height = size
    if right < left or bottom < top:
        labels.drop(number, "inverted", f"The box of this {name} ends before it begins: {place}.")
        return None
    if right == left or bottom == top:
        labels.drop(number, "zero_area", f"The box of this {name} has no area: {place}.", unread=False)
        return None
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        labels.drop(number, "out_of_frame", f"The box of this {name} is outside the {width}×{height} image: {place}.")
        return None
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        message = f"The box of this {name} reaches out of the {width}×{height} image and is cut off: {place}."
        labels.note(Defect("warning", "out_of_frame", message, number))
    (cx, w), (cy, h) = _part(left, right, width), _part(top, bottom, height)
    if not (w and h):  # below what a double can say
        labels.drop(number, "zero_area", f"The box of this {name} has no area: {place}.", unread=False)
        return None
    return Box(cls, cx, cy, w, h)


def pixels(box: Box, size: tuple[int, int]) -> tuple[tuple[Decimal, Decimal, Decimal, Decimal], bool]:
    """Left, top, right and bottom in pixels; and whether they read back as this very box, as all do that stay inside."""
    left, right, across = _edges(box.cx, box.w, size[0])
    top, bottom, down = _edges(box.cy, box.h, size[1])
    return (left, top, right, bottom), across and down


def _part(low: Decimal, high: Decimal, side: int) -> tuple[float, float]:
    """Centre and length as parts of `side`, after cutting off what is beyond 0 and `side`."""
    low, high = max(low, Decimal(0)), min(high, Decimal(side))
    twice, across = EXACT.add(low, high), EXACT.subtract(high, low)
    return float(EXACT.divide(twice, Decimal(2 * side))), float(EXACT.divide(across, Decimal(side)))


def _edges(centre: float, length: float, side: int) -> tuple[Decimal, Decimal, bool]:
    """The shortest decimals, inside 0 and `side`, whose `_part` is (centre, length); the closest where there are none."""
    none, whole = Decimal(0), Decimal(side)
    twice, across = (EXACT.multiply(Decimal(part), whole) for part in (2 * centre, length))
    low, high = (EXACT.divide(both, Decimal(2)) for both in (EXACT.subtract(twice, across), EXACT.add(twice, across)))
    spans = [(max(low, none), min(high, whole))]
    if low < none or high > whole:  # by no more than the centre was rounded, maybe: then edge and length say the same
        edge = min(across, whole)
        spans.append((none, edge) if low < none else (EXACT.subtract(whole, edge), whole))
    for places in PLACES:
        for first, last in spans:
            start, end = _plain(first, places), _plain(last, places)
            if _part(start, end, side) == (centre, length):
                return start, end, True
    return _plain(spans[0][0], 6), _plain(spans[0][1], 6), False


def _plain(value: Decimal, places: int) -> Decimal:
    """The value with that many decimals, without the zeros at their end and without an exponent."""
    text = f"{value:.{places}f}"
    return Decimal(text.rstrip("0").rstrip(".") if places else text)


def _short(value: Decimal) -> str:
    """The number for a message: a stranger's text may have a million digits."""
    return f"{float(value):g}"
