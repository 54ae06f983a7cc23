"""What the doctor measured, as charts: classes by split, objects an image, sizes and shapes of boxes and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll

from engine.datasets.measures import LONG_BOX, RARE, TINY
from engine.datasets.model import Dataset
from tui import words
from tui.widgets.bars import Bar, ProgressBars
from tui.widgets.class_bars import ClassBars
from tui.widgets.facts import Facts, head
from tui.widgets.histogram import Histogram

if TYPE_CHECKING:
    from engine.datasets.doctor import Check

HISTOGRAMS = ("objects", "box-size", "box-shape", "image-shape")
SIZES = 8  # of images, told one by one
SHAPES = ("<1:8", "<1:4", "<1:2", "<4:5", "~1:1", "<2:1", "<4:1", "<8:1", "more")  # between SHAPE_EDGES
NAMED = 3  # classes in a sentence


class SetCharts(VerticalScroll):
    """Everything one below the other; in a wide room the histograms side by side."""

    DEFAULT_CSS = """
    SetCharts { padding: 0 1; }
    SetCharts ClassBars { margin-bottom: 1; }
    SetCharts Grid { height: auto; grid-size: 1; grid-rows: 11; grid-gutter: 1 3; }
    SetCharts Facts { margin-top: 1; }
    SetCharts ProgressBars { margin-bottom: 1; max-width: 90; }
    """

    def compose(self) -> ComposeResult:
        yield ClassBars(id="classes")
        with Grid():
            for name in HISTOGRAMS:
                yield Histogram(id=name)
        yield Facts(id="sizes-head")
        yield ProgressBars(id="image-sizes")

    def show(self, check: Check, dataset: Dataset) -> None:
        """Draw what `check` measured of `dataset`."""
        drawn = check.charts
        objects = dataset.task == "detect"
        title = f"{'objects' if objects else 'images'} by class and split"
        labels = drawn["labels_per_class"]
        self.query_one(ClassBars).show(title, {s: clean(labels[s]) for s in labels}, balance(labels))
        for name in HISTOGRAMS[:3]:
            self.query_one(f"#{name}").display = objects
        if objects:
            self._objects(drawn["boxes_per_image"])
            self._boxes(check)
        frames = drawn["image_shape"]["counts"]
        self.query_one("#image-shape").display = sum(map(bool, frames)) > 1
        self.query_one("#image-shape", Histogram).show("shape of images, width to height", SHAPES, frames)
        self._sizes(drawn["image_sizes"], drawn["other_image_sizes"])

    def _objects(self, counts: Sequence[int]) -> None:
        last = max((i for i, n in enumerate(counts) if n), default=0)
        tags = [str(i) for i in range(last + 1)]
        if last == len(counts) - 1:
            tags[-1] += "+"
        many, bare = sum(counts), counts[0]
        note = f"{share(bare, many)} of the labelled images have none: background" if bare else "none is without"
        self.query_one("#objects", Histogram).show("objects in an image", tags, counts[: last + 1], note)

    def _boxes(self, check: Check) -> None:
        side, drawn = check.image_size, check.charts
        edges = [f"{edge * side:.0f}" for edge in drawn["box_size"]["edges"]]
        tags = [f"<{edges[1]}", *(f"{a}-{b}" for a, b in pairwise(edges[1:-1])), f"{edges[-2]}+"]
        found = {group.code: group.count for group in check.groups}
        total = sum(drawn["box_size"]["counts"])
        tiny, odd = found.get("tiny_box", 0), found.get("odd_box_shape", 0)
        note = (
            f"{share(tiny, total)} are below {TINY:g} px at {side}: hardly learnt"
            if tiny
            else f"none is tiny at {side}"
        )
        title = f"size of boxes, px a side at {side}"
        self.query_one("#box-size", Histogram).show(title, tags, drawn["box_size"]["counts"], note)
        note = f"{share(odd, total)} are beyond {LONG_BOX:g} to 1: look at them" if odd else ""
        shapes = drawn["box_shape"]["counts"]
        self.query_one("#box-shape", Histogram).show("shape of boxes, width to height", SHAPES, shapes, note)

    def _sizes(self, sizes: Sequence[Sequence[int]], others: int) -> None:
        total = sum(count for *_, count in sizes) + others
        rows = [Bar(f"{width}×{height}", count, total) for width, height, count in sizes[:SIZES]]
        rest = others + sum(count for *_, count in sizes[SIZES:])
        if rest:
            rows.append(Bar("others", rest, total, role="track"))
        told = "all images have one size" if len(rows) == 1 else "sizes of images, px"
        self.query_one("#sizes-head", Facts).show([head(told)])
        self.query_one("#image-sizes", ProgressBars).show(rows)


def clean(counts: Mapping[str, int]) -> dict[str, int]:
    return {words.clean(name): count for name, count in counts.items()}


def share(part: int, whole: int) -> str:
    """“18 of 572 (3 %)”."""
    rate = "under 1" if 0 < part < whole / 100 else f"{100 * part / max(1, whole):.0f}"
    return f"{part} of {whole} ({rate} %)"


def balance(labels: Mapping[str, Mapping[str, int]]) -> str:
    """What the counts by split and class come to, in a sentence or two."""
    total: dict[str, int] = {}
    for found in labels.values():
        for name, count in found.items():
            total[name] = total.get(name, 0) + count
    used = {name: count for name, count in total.items() if count}
    told: list[str] = []
    if len(used) > 1:
        most, least = max(used, key=lambda n: used[n]), min(used, key=lambda n: used[n])
        times = used[most] / used[least]
        pair = f"{words.clean(most)} has {times:.1f} times as many as {words.clean(least)}"
        told.append(f"{pair}: the rare ones are found less often." if times >= RARE else f"{pair}.")
    if untaught := [name for name in used if not labels["train"].get(name)]:
        told.append(f"Not in train: {listed(untaught)}.")
    if unjudged := [name for name in used if any(labels["val"].values()) and not labels["val"].get(name)]:
        told.append(f"Not in val: {listed(unjudged)}.")
    if unused := [name for name, count in total.items() if not count]:
        told.append(f"Nowhere: {listed(unused)}.")
    return " ".join(told)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(map(words.clean, names[:NAMED])) + (f" and {more} more" if more > 0 else "")
