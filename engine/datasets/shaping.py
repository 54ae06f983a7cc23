"""What a version makes of an image's pixels: as it is, preprocessed, and augmented. The preview and the pack both ask here.

Everything follows from the file's bytes, the recipe and, for a copy, the seed, the file's digest and the copy's number:
neither from the machine (of one version of Pillow), nor from paths, nor from what was asked before. Each augmentation draws
from dice of its own, so that changing one setting leaves what the others do as it was.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine.datasets.decoding import decoded
from engine.datasets.edges import Edges, cut, framed, inside, turned
from engine.datasets.fingerprints import digest_of
from engine.datasets.images import LARGE, MANY
from engine.datasets.model import Box, Dataset, Item
from engine.datasets.recipe import Recipe
from engine.errors import DojangError

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

GREY = 114  # of letterbox bars and of what a turned image leaves empty, as trainings fill up
MIDDLE = (0.3, 0.7)  # where the four images of a mosaic may meet, as parts of its sides
SHARE = (0.4, 0.6)  # of the other image in a mix-up
KEPT = 128 << 20  # bytes of preprocessed images that a pool holds on to
FULL_TURN = 2 * math.pi


@dataclass(frozen=True)
class Shown:
    """An image as a training gets it: `pixels` uint8 (height, width, 3), red first; `boxes` as parts of it."""

    pixels: numpy.ndarray[Any, Any]
    boxes: tuple[Box, ...]
    label: int | None = None


class Images(Protocol):
    """The training images that copies are made from, in an order that follows from their contents alone."""

    def __len__(self) -> int: ...

    def digest(self, index: int) -> bytes: ...

    def prepared(self, recipe: Recipe, index: int) -> Shown: ...


def original(dataset: Dataset, item: Item) -> Shown:
    """The image upright, in eight bits a channel, without alpha, as trainings decode it. Raises BadImage or OSError."""
    return _shown(dataset.image(item).read_bytes(), item)


def _shown(data: bytes, item: Item) -> Shown:
    import numpy as np

    with LARGE if item.width * item.height > MANY else nullcontext():
        return Shown(np.asarray(decoded(data)), item.boxes, item.label)


def prepared(recipe: Recipe, shown: Shown) -> Shown:
    """`shown` after preprocessing; itself where there is none."""
    if not recipe.preprocessed:
        return shown
    import numpy as np
    from PIL import Image as pil

    image, boxes = pil.fromarray(shown.pixels), shown.boxes
    if recipe.resize != "none":
        image, boxes = _resized(recipe, image, boxes)
    if recipe.grey:
        image = image.convert("L").convert("RGB")
    return Shown(np.asarray(image), boxes, shown.label)


def _resized(recipe: Recipe, image: Image, boxes: tuple[Box, ...]) -> tuple[Image, tuple[Box, ...]]:
    from PIL import Image as pil

    side, (width, height) = recipe.size, image.size
    if recipe.resize == "stretch":
        return image.resize((side, side), pil.Resampling.BILINEAR), boxes
    if recipe.resize == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        window = Edges(left, top, left + short, top + short)
        small = image.resize((side, side), pil.Resampling.BILINEAR, box=window)
        return small, cut(framed(boxes), window.parts(width, height))
    scale = side / max(width, height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - wide) // 2, (side - high) // 2
    square = pil.new("RGB", (side, side), (GREY, GREY, GREY))
    square.paste(image.resize((wide, high), pil.Resampling.BILINEAR), (left, top))
    return square, inside(boxes, Edges(left, top, left + wide, top + high).parts(side, side))


class Pool:
    """The training images of a version, by digest and labels: the same order wherever the files lie."""

    def __init__(self, dataset: Dataset, items: Sequence[Item], digests: Sequence[bytes]) -> None:
        """`items` of all splits and the digest of each one's file; those of val and test are left out."""
        rows = ((digest, item) for item, digest in zip(items, digests, strict=True) if item.split == "train")
        self._dataset = dataset
        self._rows = sorted(rows, key=lambda row: (row[0], row[1].label or 0, sorted(row[1].boxes)))
        self._kept: OrderedDict[tuple[Any, ...], Future[Shown]] = OrderedDict()
        self._room, self._lock = KEPT, threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, index: int) -> Item:
        return self._rows[index][1]

    def digest(self, index: int) -> bytes:
        return self._rows[index][0]

    def prepared(self, recipe: Recipe, index: int) -> Shown:
        """Image `index` after preprocessing. Raises BadImage, OSError, or DojangError where the file was changed."""
        key = (index, recipe.resize, recipe.size, recipe.grey)
        with self._lock:
            if mine := key not in self._kept:
                self._kept[key] = Future()
            self._kept.move_to_end(key)
            promised = self._kept[key]
        if mine:
            self._make(recipe, index, key, promised)
        return promised.result()

    def _make(self, recipe: Recipe, index: int, key: tuple[Any, ...], promised: Future[Shown]) -> None:
        """Keep the promise; other threads that want the image wait for it instead of making it too."""
        digest, item = self._rows[index]
        try:
            found = prepared(recipe, checked(self._dataset, item, digest))
        except BaseException as e:
            with self._lock:
                del self._kept[key]
            promised.set_exception(e)
            return
        with self._lock:
            promised.set_result(found)
            self._room -= found.pixels.nbytes
            made = iter([k for k, one in self._kept.items() if one.done()])  # longest unused first
            while self._room < 0:
                self._room += self._kept.pop(next(made)).result().pixels.nbytes


def checked(dataset: Dataset, item: Item, digest: bytes) -> Shown:
    """`original`, its boxes in order, of the very file that was registered. DojangError where it is another by now."""
    data = dataset.image(item).read_bytes()
    if digest_of(data) != digest:
        raise DojangError(
            f"{dataset.image(item)} is not the image that {dataset.name} was made with.",
            code="DATA_CHANGED",
            hint="Put the file back, or make a new version of the data set as it is now.",
        )
    found = _shown(data, item)
    return Shown(found.pixels, tuple(sorted(found.boxes)), found.label)


class Dice:
    """What one copy draws: a number for each name, whatever else is drawn."""

    def __init__(self, seed: int, digest: bytes, copy: int) -> None:
        self._start = f"{seed}\0{copy}\0".encode() + digest

    def of(self, name: str) -> random.Random:
        value = hashlib.blake2b(self._start + name.encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(value, "big"))

    def happens(self, name: str, chance: float) -> bool:
        return self.of(name).random() < chance

    def within(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * self.of(name).random()


@dataclass(frozen=True)
class _Scene:
    """A copy in the making."""

    image: Image
    boxes: tuple[Box, ...]


def augmented(recipe: Recipe, pool: Images, index: int, copy: int) -> Shown:
    """Copy number `copy` (1…) of image `index` of `pool`: preprocessed, then varied.

    Pictures that are not square swap their sides by a quarter turn; else the size stays. A box of which less than a
    fifth remains in the picture is dropped.
    """
    import numpy as np
    from PIL import Image as pil

    base, dice = pool.prepared(recipe, index), Dice(recipe.seed, pool.digest(index), copy)
    scene = _Scene(pil.fromarray(base.pixels), base.boxes)
    if dice.happens("mosaic", recipe.mosaic):
        scene = _mosaic(scene, [_scene(recipe, pool, i) for i in _others(dice, "mosaic others", pool, index, 3)], dice)
    if dice.happens("mixup", recipe.mixup):
        scene = _mixed(scene, _scene(recipe, pool, _others(dice, "mixup other", pool, index, 1)[0]), dice)
    scene = _moved(_mirrored(scene, recipe, dice), recipe, dice)
    image = _blurred(_coloured(scene.image, recipe, dice), recipe, dice)
    return Shown(np.asarray(image), scene.boxes, base.label)


def _scene(recipe: Recipe, pool: Images, index: int) -> _Scene:
    from PIL import Image as pil

    found = pool.prepared(recipe, index)
    return _Scene(pil.fromarray(found.pixels), found.boxes)


def _others(dice: Dice, name: str, pool: Images, index: int, count: int) -> list[int]:
    """`count` images of the pool, other than `index` where there are others."""
    drawn, among = dice.of(name), max(1, len(pool) - 1)
    return [(index + 1 + int(drawn.random() * among)) % len(pool) for _ in range(count)]


def _mosaic(first: _Scene, others: list[_Scene], dice: Dice) -> _Scene:
    """Four pictures that meet in a point, each cut so that it fills its quarter, on a canvas of the first one's size."""
    from PIL import Image as pil

    width, height = first.image.size
    x = round(dice.within("mosaic x", *MIDDLE) * width)
    y = round(dice.within("mosaic y", *MIDDLE) * height)
    quarters = [Edges(0, 0, x, y), Edges(x, 0, width, y), Edges(0, y, x, height), Edges(x, y, width, height)]
    at = int(dice.within("mosaic place", 0, 4))
    canvas, offsets = pil.new("RGB", (width, height)), dice.of("mosaic windows")
    boxes: list[Box] = []
    for place, scene in zip([*quarters[at:], *quarters[:at]], [first, *others], strict=True):
        wide, high = int(place.right - place.left), int(place.bottom - place.top)
        scale = max(wide / scene.image.width, high / scene.image.height)
        across, down = min(wide / scale, scene.image.width), min(high / scale, scene.image.height)
        left = offsets.random() * (scene.image.width - across)
        top = offsets.random() * (scene.image.height - down)
        window = Edges(left, top, min(left + across, scene.image.width), min(top + down, scene.image.height))
        small = scene.image.resize((wide, high), pil.Resampling.BILINEAR, box=window)
        canvas.paste(small, (int(place.left), int(place.top)))
        seen = cut(framed(scene.boxes), window.parts(*scene.image.size))
        boxes += inside(seen, place.parts(width, height))
    return _Scene(canvas, tuple(boxes))


def _mixed(one: _Scene, other: _Scene, dice: Dice) -> _Scene:
    """Both pictures at once, the other stretched to the size of the one, with the objects of both."""
    from PIL import Image as pil

    stretched = other.image.resize(one.image.size, pil.Resampling.BILINEAR)
    blended = pil.blend(one.image, stretched, dice.within("mixup share", *SHARE))
    return _Scene(blended, one.boxes + other.boxes)


def _mirrored(scene: _Scene, recipe: Recipe, dice: Dice) -> _Scene:
    from PIL import Image as pil

    image, boxes = scene.image, scene.boxes
    if dice.happens("flip_horizontal", recipe.flip_horizontal):
        image = image.transpose(pil.Transpose.FLIP_LEFT_RIGHT)
        boxes = tuple(box._replace(cx=1 - box.cx) for box in boxes)
    if dice.happens("flip_vertical", recipe.flip_vertical):
        image = image.transpose(pil.Transpose.FLIP_TOP_BOTTOM)
        boxes = tuple(box._replace(cy=1 - box.cy) for box in boxes)
    if dice.happens("quarter_turns", recipe.quarter_turns):
        turns = 1 + int(dice.within("quarter_turns count", 0, 3))
        way = ("ROTATE_90", "ROTATE_180", "ROTATE_270")[turns - 1]  # anticlockwise, to Pillow
        image = image.transpose(pil.Transpose[way])
        for _ in range(turns):
            boxes = tuple(Box(box.cls, box.cy, 1 - box.cx, box.h, box.w) for box in boxes)
    return _Scene(image, boxes)


def _moved(scene: _Scene, recipe: Recipe, dice: Dice) -> _Scene:
    """Turned about its middle, then a window of it blown up to the whole: in one step, so that it blurs but once."""
    angle = math.radians(dice.within("rotation", -recipe.rotation, recipe.rotation))
    lost = dice.within("crop", 0, recipe.crop)
    if not angle and not lost:
        return scene
    from PIL import Image as pil

    width, height = scene.image.size
    left, top = lost * dice.of("crop x").random(), lost * dice.of("crop y").random()
    window = Edges(left, top, left + 1 - lost, top + 1 - lost)
    cosine, sine, scale = math.cos(angle), math.sin(angle), 1 - lost
    # of a pixel of the result: where it was in the window, from the middle, turned back
    across, down = left * width - width / 2, top * height - height / 2
    back = (
        *(cosine * scale, sine * scale, cosine * across + sine * down + width / 2),
        *(-sine * scale, cosine * scale, -sine * across + cosine * down + height / 2),
    )
    fill = (GREY, GREY, GREY)
    image = scene.image.transform((width, height), pil.Transform.AFFINE, back, pil.Resampling.BILINEAR, fillcolor=fill)
    return _Scene(image, cut(turned(framed(scene.boxes), angle, width, height), window))


def _coloured(image: Image, recipe: Recipe, dice: Dice) -> Image:
    """Brightness, contrast, saturation and hue in one step, so that colours are rounded but once."""
    light, hard, strong = (
        1 + dice.within(name, -most, most)
        for name, most in (
            ("brightness", recipe.brightness),
            ("contrast", recipe.contrast),
            ("saturation", recipe.saturation),
        )
    )
    hue = FULL_TURN * dice.within("hue", -recipe.hue, recipe.hue)
    if light == hard == strong == 1 and not hue:
        return image
    import numpy as np

    ones = np.ones((3, 3))
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])  # a turn about the line of greys
    turn = math.cos(hue) * np.eye(3) + (1 - math.cos(hue)) / 3 * ones + math.sin(hue) / math.sqrt(3) * axis
    paler = strong * np.eye(3) + (1 - strong) * ones * [0.299, 0.587, 0.114]
    colours = light * hard * paler @ turn
    middle = float(np.asarray(image.convert("L")).mean(dtype=np.float64)) if hard != 1 else 0.0
    offset = (1 - hard) * light * middle
    return image.convert("RGB", tuple(float(v) for row in colours for v in (*row, offset)))


def _blurred(image: Image, recipe: Recipe, dice: Dice) -> Image:
    radius = dice.within("blur", 0, recipe.blur)
    if not radius:
        return image
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(radius))
