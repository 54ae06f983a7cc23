"""What is made of an image: pixels as OpenCV decodes them, boxes that follow, copies that are the same everywhere."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.datasets import recipes, registry
from engine.datasets.decoding import decoded
from engine.datasets.images import BadImage
from engine.datasets.model import Box, Dataset, Item
from engine.datasets.recipe import Recipe, parse
from engine.datasets.shaping import Pool, Shown, augmented, original, prepared
from engine.errors import DojangError
from tests.datasets.make import picture, picture_bytes, put, yolo

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # of the classes
ALL = {
    "flip_horizontal": 0.5, "flip_vertical": 0.5, "quarter_turns": 0.5, "rotation": 30, "crop": 0.4, "brightness": 0.3,
    "contrast": 0.3, "saturation": 0.5, "hue": 0.1, "blur": 1.5, "mosaic": 0.5, "mixup": 0.5,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    return parse({"sources": "set", **changes})


# Decoding


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def noise(channels: int, mode: str | None = None) -> Image.Image:
    grid = np.random.default_rng(1).integers(0, 256, (40, 50, channels), dtype=np.uint8)
    return Image.fromarray(grid, mode) if mode else Image.fromarray(grid)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def sixteen(channels: int, suffix: str) -> bytes:
    cv2 = pytest.importorskip("cv2")
    grid = np.random.default_rng(2).integers(0, 65536, (40, 50, channels)).astype(np.uint16)
    return bytes(cv2.imencode(suffix, grid)[1])


FILES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: saved(picture(1), "JPEG"),
    "progressive": lambda: saved(picture(1), "JPEG", progressive=True, quality=95, subsampling=0),
    "turned": lambda: saved(picture(1), "JPEG", exif=turned()),
    "grey": lambda: saved(picture(1).convert("L"), "JPEG"),
    "inks": lambda: saved(picture(1).convert("CMYK"), "JPEG"),
    "palette": lambda: saved(picture(1).convert("P"), "PNG"),
    "two colours": lambda: saved(picture(1).convert("1"), "PNG"),
    "alpha": lambda: saved(noise(4), "PNG"),
    "grey and alpha": lambda: saved(noise(2, "LA"), "PNG"),
    "16 bits of grey": lambda: sixteen(1, ".png"),
    "16 bits": lambda: sixteen(3, ".png"),
    "16 bits and alpha": lambda: sixteen(4, ".png"),
    "webp": lambda: saved(picture(1), "WEBP", quality=80),
    "webp, turned": lambda: saved(picture(1), "WEBP", lossless=True, exif=turned()),
    "bmp": lambda: saved(picture(1), "BMP"),
    "tiff": lambda: saved(picture(1), "TIFF", compression="tiff_lzw"),
    "tiff, turned": lambda: saved(picture(1), "TIFF", exif=turned()),
    "tiff with alpha": lambda: saved(noise(4), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_trainings_decode(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    data = FILES[name]()
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    ours = np.asarray(decoded(data))
    assert ours.shape == theirs.shape and np.array_equal(ours, theirs)


def test_what_cannot_be_decoded_is_a_bad_image() -> None:
    for data in (b"", b"no image", picture_bytes(1)[:300]):
        with pytest.raises(BadImage):
            decoded(data)


# Boxes follow pixels


class Painted:
    """Training images with a plain rectangle for each box, in the colour of its class, on black."""

    def __init__(self, shown: list[Shown]) -> None:
        self.shown = shown

    def __len__(self) -> int:
        return len(self.shown)

    def digest(self, index: int) -> bytes:
        return bytes([index])

    def prepared(self, recipe: Recipe, index: int) -> Shown:
        return prepared(recipe, self.shown[index])


def painted(width: int, height: int, edges: list[tuple[int, int, int, int]]) -> Shown:
    """Rectangles of classes 0, 1, 2 from left, top to right, bottom, in pixels."""
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for cls, (left, top, right, bottom) in enumerate(edges):
        pixels[top:bottom, left:right] = COLOURS[cls]
        boxes.append(
            Box(
                cls,
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            )
        )
    return Shown(pixels, tuple(boxes))


def bounds(shown: Shown, cls: int) -> tuple[float, float, float, float] | None:
    """Where the colour of a class is, in pixels."""
    there = shown.pixels[..., cls] > 127  # which neither black nor what a turn fills up with has
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


def edges_of(shown: Shown, box: Box) -> tuple[float, float, float, float]:
    height, width = shown.pixels.shape[:2]
    return (
        (box.cx - box.w / 2) * width, (box.cy - box.h / 2) * height,
        (box.cx + box.w / 2) * width, (box.cy + box.h / 2) * height,
    )  # fmt: skip


# three rectangles in thirds of the picture, so that they stay apart
CORNERS = st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(12, 24), st.integers(20, 40))


@st.composite
def scenes(draw: Any) -> Shown:
    width, height = draw(st.integers(120, 200)), draw(st.integers(90, 160))
    third = width // 3
    edges = []
    for cls in range(3):
        x, y, w, h = draw(CORNERS)
        edges.append((cls * third + x, y, cls * third + x + w, min(y + h, height)))
    return painted(width, height, edges)


def follows(found: Shown, slack: float) -> None:
    """Every box is where its colour is."""
    for box in found.boxes:
        seen, told = bounds(found, box.cls), edges_of(found, box)
        assert seen is not None
        assert told == pytest.approx(seen, abs=slack), (box, seen, told)


@given(scenes(), st.sampled_from(["stretch", "letterbox", "crop"]), st.integers(64, 300))
@settings(max_examples=60)
def test_boxes_follow_preprocessing(scene: Shown, resize: str, size: int) -> None:
    found = prepared(recipe(resize=resize, size=size), scene)
    assert found.pixels.shape == (size, size, 3)
    gain = size / min(scene.pixels.shape[:2])
    follows(found, 1.5 + gain)
    if resize != "crop":
        assert len(found.boxes) == 3


@given(scenes(), st.integers(0, 2**32 - 1), st.sampled_from(["flip_horizontal", "flip_vertical", "quarter_turns"]))
@settings(max_examples=60)
def test_boxes_follow_flips_and_turns_to_the_pixel(scene: Shown, seed: int, name: str) -> None:
    found = augmented(recipe(copies=1, seed=seed, **{name: 1}), Painted([scene]), 0, 1)
    assert len(found.boxes) == 3
    follows(found, 1e-6)


@given(scenes(), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
@settings(max_examples=80)
def test_boxes_follow_a_crop_and_little_that_remains_is_dropped(scene: Shown, seed: int, most: float) -> None:
    found = augmented(recipe(copies=1, seed=seed, crop=most), Painted([scene]), 0, 1)
    assert found.pixels.shape == scene.pixels.shape
    follows(found, 2 + 1 / (1 - most))
    for cls in {0, 1, 2} - {box.cls for box in found.boxes}:  # what is left of one that was dropped is a small part
        seen = bounds(found, cls)
        gone = scene.boxes[cls]
        area = gone.w * gone.h * scene.pixels[..., 0].size / (1 - most) ** 2
        assert seen is None or (seen[2] - seen[0] - 2) * (seen[3] - seen[1] - 2) < 0.25 * area


@given(scenes(), st.integers(0, 2**32 - 1), st.floats(1, 180))
@settings(max_examples=80)
def test_boxes_hold_what_is_turned(scene: Shown, seed: int, most: float) -> None:
    found = augmented(recipe(copies=1, seed=seed, rotation=most), Painted([scene]), 0, 1)
    height, width = found.pixels.shape[:2]
    for box in found.boxes:
        seen, told = bounds(found, box.cls), edges_of(found, box)
        if seen is None:
            continue  # a corner of the box, without what it holds
        assert told[0] <= seen[0] + 1.5 and told[1] <= seen[1] + 1.5
        assert told[2] >= seen[2] - 1.5 and told[3] >= seen[3] - 1.5
        inside = told[0] > 1 and told[1] > 1 and told[2] < width - 1 and told[3] < height - 1
        if inside:  # then it is as tight as the corners are
            assert told == pytest.approx(seen, abs=2.5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_boxes_follow_a_mosaic(seed: int) -> None:
    """Four pictures, each of one colour on the whole: every box is a quarter, or a part of one, of its colour."""
    plain = [painted(120, 90, [(0, 0, 120, 90)])]
    for cls in (1, 2):
        pixels = np.zeros((90, 120, 3), np.uint8)
        pixels[:] = COLOURS[cls]
        plain.append(Shown(pixels, (Box(cls, 0.5, 0.5, 1.0, 1.0),)))
    found = augmented(recipe(copies=1, seed=seed, mosaic=1), Painted(plain), 0, 1)
    assert found.pixels.shape == (90, 120, 3) and len(found.boxes) == 4
    area = 0.0
    for box in found.boxes:
        left, top, right, bottom = (round(edge) for edge in edges_of(found, box))
        assert (found.pixels[top:bottom, left:right] == COLOURS[box.cls]).all()
        area += (right - left) * (bottom - top)
    assert area == 120 * 90


@given(scenes(), scenes(), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_a_mixup_shows_the_objects_of_both(one: Shown, other: Shown, seed: int) -> None:
    found = augmented(recipe(copies=1, seed=seed, mixup=1), Painted([one, other]), 0, 1)
    assert found.pixels.shape == one.pixels.shape and found.boxes == one.boxes + other.boxes
    for box in found.boxes:
        left, top, right, bottom = (round(edge) for edge in edges_of(found, box))
        middle = found.pixels[(top + bottom) // 2, (left + right) // 2]
        assert middle[box.cls] >= 90


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "blur"])
def test_colours_and_blur_move_nothing(name: str) -> None:
    shown = Shown(np.asarray(noise(3)), (Box(0, 0.5, 0.5, 0.2, 0.2),), None)
    found = augmented(recipe(copies=1, **{name: 0.5}), Painted([shown]), 0, 1)
    assert found.boxes == shown.boxes and found.pixels.shape == shown.pixels.shape
    assert not np.array_equal(found.pixels, shown.pixels)


def test_grey_stays_grey() -> None:
    shown = Shown(np.asarray(picture(3)), ())
    looks = recipe(grey=True, copies=3, brightness=0.5, contrast=0.5, rotation=20, blur=1)
    for copy in (1, 2, 3):
        found = augmented(looks, Painted([shown]), 0, copy)
        assert (found.pixels == found.pixels[..., :1]).all()


# The same everywhere


@pytest.fixture
def lain(tmp_path: Path) -> Path:
    root = yolo(tmp_path / "set", {f"{'val' if i > 5 else 'train'}/{i}": f"{i % 2} .4 .5 .3 .4\n" for i in range(8)})
    for i, path in enumerate(sorted(root.rglob("*.jpg"))):
        put(path, picture_bytes(i, (90 + i, 70)))
    registry.add(tmp_path / "w", root, "set")
    return tmp_path


def pool_of(workspace: Path, looks: Recipe) -> Pool:
    made = recipes.draft(workspace, looks)
    return Pool(made.sources[0], made.items, made.digests)


def sums(looks: Recipe, pool: Pool) -> list[str]:
    """What all copies come to, in the order of the files' digests."""
    found = [augmented(looks, pool, i, copy) for i in range(len(pool)) for copy in (1, 2)]
    return [hashlib.sha256(one.pixels.tobytes() + repr(one.boxes).encode()).hexdigest() for one in found]


@pytest.mark.parametrize("more", [{}, {"resize": "letterbox", "size": 96}], ids=["as they are", "letterbox"])
def test_copies_are_the_same_in_any_process_order_and_folder(lain: Path, more: dict[str, Any]) -> None:
    looks = recipe(split="existing", copies=2, **ALL, **more)
    pool = pool_of(lain / "w", looks)
    expected = sums(looks, pool)
    assert len(set(expected)) == len(expected) == 12

    turns = [(i, copy) for i in range(len(pool)) for copy in (1, 2)]
    with ThreadPoolExecutor(4) as threads:
        again = pool_of(lain / "w", looks)
        found = dict(zip(turns[::-1], threads.map(lambda t: augmented(looks, again, *t), turns[::-1]), strict=True))
    assert all(np.array_equal(found[t].pixels, augmented(looks, pool, *t).pixels) for t in turns)

    (lain / "set").rename(lain / "moved")
    for path in sorted((lain / "moved").rglob("*.jpg")):  # other names in another order
        label = path.parents[2] / "labels" / path.parent.name / f"{path.stem}.txt"
        label.rename(label.with_stem(f"x{9 - int(path.stem)}"))
        path.rename(path.with_stem(f"x{9 - int(path.stem)}"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom engine.datasets import registry\n"
        "from tests.datasets.test_shaping import pool_of, recipe, sums, ALL\n"
        f"w = Path(sys.argv[1])\nregistry.add(w, {str(lain / 'moved')!r}, 'set')\n"
        f"looks = recipe(split='existing', copies=2, **ALL, **{more!r})\nprint(sums(looks, pool_of(w, looks)))"
    )
    run = subprocess.run([sys.executable, "-c", script, str(lain / "other")], capture_output=True, text=True)
    assert run.stdout.strip() == str(expected), run.stderr


def test_one_setting_leaves_the_draws_of_the_others_alone(lain: Path) -> None:
    plain, more = (
        recipe(split="existing", copies=1, flip_horizontal=0.5, rotation=30, **m) for m in ({}, {"blur": 2.0})
    )
    pool = pool_of(lain / "w", plain)
    assert [augmented(plain, pool, i, 1).boxes for i in range(6)] == [
        augmented(more, pool, i, 1).boxes for i in range(6)
    ]


def test_partners_come_from_train_alone(lain: Path) -> None:
    pool = pool_of(lain / "w", recipe(split="existing", copies=1, mosaic=1))
    assert len(pool) == 6 and {pool.item(i).split for i in range(6)} == {"train"}


def test_a_file_that_was_changed_is_refused(lain: Path) -> None:
    looks = recipe(split="existing", copies=1, flip_horizontal=1)
    pool = pool_of(lain / "w", looks)
    path = lain / "set" / pool.item(0).path
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xd9")
    augmented(looks, pool, 0, 1)  # the same bytes
    path.write_bytes(picture_bytes(77, (90, 70)))
    with pytest.raises(DojangError) as e:
        augmented(looks, pool_of_changed(lain, pool), 0, 1)
    assert e.value.code == "DATA_CHANGED"


def pool_of_changed(lain: Path, pool: Pool) -> Pool:
    """The same pool with nothing kept in memory."""
    dataset = registry.load(lain / "w", "set")
    return Pool(dataset, [pool.item(i) for i in range(len(pool))], [pool.digest(i) for i in range(len(pool))])


def test_the_preview_of_one_image(lain: Path) -> None:
    dataset: Dataset = registry.load(lain / "w", "set")
    item: Item = registry.items(lain / "w", "set")[0]
    shown = original(dataset, item)
    assert shown.pixels.shape == (item.height, item.width, 3) and shown.boxes == item.boxes
    assert prepared(recipe(), shown) is shown
