"""Images as they are beside what a training gets of them: the very pixels that are packed and trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import get_current_worker

from engine.datasets.images import BadImage
from engine.errors import DojangError
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.widgets.blocks import Mark
from tui.widgets.picture import Picture

if TYPE_CHECKING:
    from engine.datasets.recipes import Draft
    from engine.datasets.shaping import Shown


class PreviewScreen(Page):
    """Left the image, right what becomes of it. ← → other images, ↑ ↓ other copies."""

    HELP_TITLE = "Preview"
    HELP_TEXT = (
        "Left an image of the training split as it is, right as a training gets it: what you see is pixel for pixel what "
        "is kept. Up and down go through its copies; the first is the image itself, preprocessed only, as val and test are."
    )
    CSS = """
    PreviewScreen Vertical { width: 1fr; padding: 0 1; }
    PreviewScreen .said { height: 1; color: $foreground-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        Binding("left", "turn(-1)", "previous", show=False, tooltip="previous image"),
        Binding("right", "turn(1)", "next image", tooltip="next image"),
        Binding("down", "copy(1)", "next copy", tooltip="next copy"),
        bind("b", "boxes", "boxes", help="hide the frames, and show them again"),
        Binding("up", "copy(-1)", "previous", show=False, tooltip="previous copy"),
    ]

    def __init__(self, made: Draft) -> None:
        super().__init__()
        from engine.datasets.shaping import Pool

        self.made = made
        self.pool = Pool(made.sources[0], made.items, made.digests)
        self._bare = False  # without frames
        self._last: tuple[Shown, Shown] | None = None
        self.index, self.copy = 0, min(1, made.recipe.copies)

    def body(self) -> Iterator[Widget]:
        with Horizontal():
            with Vertical():
                yield Static("", id="left-said", classes="said", markup=False)
                yield Picture(id="left")
            with Vertical():
                yield Static("", id="right-said", classes="said", markup=False)
                yield Picture(id="right")

    def on_mount(self) -> None:
        self._turned()

    def action_turn(self, by: int) -> None:
        if len(self.pool):
            self.index = (self.index + by) % len(self.pool)
            self._turned()

    def action_copy(self, by: int) -> None:
        count = self.made.recipe.copies + 1
        self.copy = (self.copy + by) % count
        self._turned()

    def _turned(self) -> None:
        head = [("dojang", "current"), ("  Preview", "title")]
        self.title_bar.show(head, [(f"{self.index + 1} of {len(self.pool)} in train", "muted")])
        if len(self.pool):
            self._make(self.index, self.copy)

    @work(thread=True, exclusive=True, group="preview")
    def _make(self, index: int, copy: int) -> None:
        from engine.datasets import shaping

        worker, recipe, item = get_current_worker(), self.made.recipe, self.pool.item(index)
        try:
            original = shaping.original(self.made.sources[0], item)
            after = shaping.augmented(recipe, self.pool, index, copy) if copy else shaping.prepared(recipe, original)
        except (BadImage, DojangError, OSError) as e:
            if not worker.is_cancelled:
                self.app.call_from_thread(self._failed, str(e))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._put, item.path, copy, original, after)

    def _failed(self, text: str) -> None:
        if self.is_attached:
            for name in ("#left", "#right"):
                self.query_one(name, Picture).say(text)

    def _put(self, path: str, copy: int, original: Shown, after: Shown) -> None:
        if not self.is_attached:
            return
        self._last = original, after
        self._draw()
        sizes = [f"{s.pixels.shape[1]} × {s.pixels.shape[0]} px" for s in (original, after)]
        name = words.clean(path.rpartition("/")[2])
        self.query_one("#left-said", Static).update(f"{name}, {sizes[0]}, as it is")
        copies = self.made.recipe.copies
        what = f"copy {copy} of {copies}" if copy else "as val and test are too" if copies else "as every image is"
        self.query_one("#right-said", Static).update(f"{what}, {sizes[1]}")

    def _draw(self) -> None:
        for side, shown in zip(("left", "right"), self._last or (), strict=False):
            self.query_one(f"#{side}", Picture).show(*self._seen(shown))

    def action_boxes(self) -> None:
        self._bare = not self._bare
        self._draw()

    def _seen(self, shown: Shown) -> tuple[Any, list[Mark]]:
        from PIL import Image as pil

        names = self.made.classes
        marks = [Mark((b.cx, b.cy, b.w, b.h), words.clean(names[b.cls]), b.cls) for b in shown.boxes if not self._bare]
        return pil.fromarray(shown.pixels), marks
