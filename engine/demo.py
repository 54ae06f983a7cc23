"""A small detection set drawn by code, so that anyone can watch a training learn without owning a single image."""

from __future__ import annotations

import math
import random
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import DojangError
from engine.files import disk_error

if TYPE_CHECKING:
    from PIL.Image import Image

SHAPES = ("circle", "square", "triangle")
Colour = tuple[int, int, int]
Frame = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def draw(folder: Path, images: int = 400, size: int = 160, seed: int = 0, val: float = 0.2) -> Path:
    """Draw `images` square pictures of `size` pixels into `folder` as an Ultralytics set and return its data.yaml.

    The last `val` share of them is the val split. The same arguments draw the same pictures. `folder` appears whole or
    not at all, and is refused if something is already in it: whatever is there may be the user's.
    """
    if images < 2 or size < 32 or not 0 < val < 1:
        raise DojangError("A demo set needs at least 2 images of at least 32 pixels.", code="BAD_VALUE")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DojangError(f"{folder} already exists.", code="EXISTS", hint="Name a folder that is new or empty.")
    temp = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        _write(temp, images, size, seed, max(1, round(images * val)))
        temp.replace(folder)
    except OSError as e:
        raise disk_error(e, folder) from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return folder / "data.yaml"


def _write(folder: Path, images: int, size: int, seed: int, val: int) -> None:
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    for i in range(images):
        split = "val" if i >= images - val else "train"
        picture, rows = _scene(random.Random(f"{seed}/{i}"), size)
        picture.save(folder / "images" / split / f"{i:05d}.jpg", quality=90)
        (folder / "labels" / split / f"{i:05d}.txt").write_text("".join(rows), encoding="utf-8")
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(SHAPES))
    text = f"train: images/train\nval: images/val\nnames:\n{names}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _scene(rng: random.Random, size: int) -> tuple[Image, list[str]]:
    """One picture and its label rows. Later shapes may cover up to a quarter of an earlier one's frame."""
    picture = _background(rng, size)
    frames: list[Frame] = []
    rows = []
    for _ in range(rng.randint(1, 4)):
        frame = _place(rng, size, frames)
        if frame is None:
            continue
        cls = rng.randrange(len(SHAPES))
        left, top, right, bottom = _stamp(picture, rng, SHAPES[cls], frame)
        frames.append(frame)
        values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        rows.append(f"{cls} " + " ".join(f"{v / size:.6f}" for v in values) + "\n")
    return picture, rows


def _place(rng: random.Random, size: int, taken: list[Frame]) -> Frame | None:
    """A square frame wholly inside the picture that hides no earlier one by more than a quarter; None if none fits."""
    for _ in range(20):
        side = size * rng.uniform(0.18, 0.42)
        left, top = rng.uniform(0, size - side), rng.uniform(0, size - side)
        frame = (left, top, left + side, top + side)
        if all(_covered(frame, other) <= 0.25 for other in taken):
            return frame
    return None


def _covered(a: Frame, b: Frame) -> float:
    """The shared area as a part of the smaller frame, 0 to 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0.0, width) * max(0.0, height) / smaller


def _background(rng: random.Random, size: int) -> Image:
    """A dull gradient between two colours with coarse and fine noise on it."""
    from PIL import Image as I

    first, second = (tuple(rng.randrange(50, 190) for _ in range(3)) for _ in range(2))
    ramp = I.linear_gradient("L").rotate(rng.randrange(4) * 90).resize((size, size))
    picture = I.composite(I.new("RGB", (size, size), first), I.new("RGB", (size, size), second), ramp)
    for cell, strength in ((size // 8, 0.16), (1, 0.10)):
        side = max(1, size // cell)
        noise = I.frombytes("RGB", (side, side), rng.randbytes(side * side * 3))
        picture = I.blend(picture, noise.resize((size, size), I.Resampling.BILINEAR), strength)
    return picture


def _stamp(picture: Image, rng: random.Random, shape: str, frame: Frame) -> Frame:
    """Draw `shape`, turned a little, inside `frame`; return the tight frame around what was drawn."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    colour = _colour(rng)
    edge = tuple(v // 2 for v in colour)
    left, top, right, bottom = frame
    if shape == "circle":
        draw.ellipse(frame, fill=colour, outline=edge, width=2)
        return frame
    corners = 4 if shape == "square" else 3
    turn = math.radians(rng.uniform(-20, 20)) + (math.pi / 4 if corners == 4 else -math.pi / 2)
    radius = (right - left) / 2
    points = [
        ((left + right) / 2 + radius * math.cos(a), (top + bottom) / 2 + radius * math.sin(a))
        for a in (turn + 2 * math.pi * k / corners for k in range(corners))
    ]
    draw.polygon(points, fill=colour, outline=edge, width=2)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def _colour(rng: random.Random) -> Colour:
    """A strong colour: one channel bright, one dark, one anything, so that it stands out from the dull background."""
    channels = [rng.randrange(200, 256), rng.randrange(0, 60), rng.randrange(256)]
    rng.shuffle(channels)
    return channels[0], channels[1], channels[2]
