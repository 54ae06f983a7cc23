"""An image for the eye: upright, in colour, no larger than asked for, and words where it cannot be shown."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from engine.datasets import preview
from engine.datasets.images import BadImage

RED, GREEN = (200, 20, 20), (20, 200, 20)


def halves(size: tuple[int, int] = (60, 40), mode: str = "RGB") -> pil.Image:
    """Left red, right green."""
    image = pil.new("RGB", size, RED)
    image.paste(GREEN, (size[0] // 2, 0, *size))
    return image.convert(mode)


def near(found: Any, wanted: tuple[int, int, int]) -> bool:
    return bool(max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 40)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tiff"])
def test_every_format_is_shown_in_its_colours(tmp_path: Path, ending: str) -> None:
    halves().save(tmp_path / f"a.{ending}")
    found = preview.load(tmp_path / f"a.{ending}", 100)
    assert (found.mode, found.size) == ("RGB", (60, 40))
    assert near(found.getpixel((10, 20)), RED) and near(found.getpixel((50, 20)), GREEN)


@pytest.mark.parametrize(("turn", "size"), [(3, (60, 40)), (6, (40, 60)), (8, (40, 60))])
def test_the_camera_was_held_sideways(tmp_path: Path, turn: int, size: tuple[int, int]) -> None:
    exif = pil.Exif()
    exif[0x0112] = turn
    halves().save(tmp_path / "a.jpg", exif=exif)
    found = preview.load(tmp_path / "a.jpg", 100)
    assert found.size == size
    corner = {3: GREEN, 6: RED, 8: GREEN}[turn]
    assert near(found.getpixel((5, 5)), corner)


def test_other_modes(tmp_path: Path) -> None:
    deep: np.ndarray[Any, Any] = (np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).astype(np.uint16)
    pil.fromarray(deep).save(tmp_path / "deep.png")
    found = np.asarray(preview.load(tmp_path / "deep.png", 100))
    assert found[0, 0].max() == 0 and found[-1, -1].min() > 240  # the upper eight of 16 bits
    halves(mode="L").save(tmp_path / "grey.png")
    halves(mode="RGBA").save(tmp_path / "clear.png")
    halves(mode="P").save(tmp_path / "few.png")
    halves(mode="CMYK").save(tmp_path / "inks.jpg")
    halves(mode="L").save(tmp_path / "grey.jpg")
    for name in ("grey.jpg", "grey.png", "clear.png", "few.png", "inks.jpg"):
        assert preview.load(tmp_path / name, 100).mode == "RGB"
    assert near(preview.load(tmp_path / "inks.jpg", 100).getpixel((10, 20)), RED)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_large_ones_are_made_small(tmp_path: Path, ending: str) -> None:
    halves((3000, 1000)).save(tmp_path / f"a.{ending}")
    width, height = preview.load(tmp_path / f"a.{ending}", 200).size
    assert 200 <= width <= 400 and abs(width / height - 3) < 0.1


def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    halves((400, 400)).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-900])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, code in (
        ("gone.jpg", "missing_image"),
        ("cut.jpg", "corrupt_image"),
        ("empty.png", "corrupt_image"),
        ("text.png", "corrupt_image"),
        ("folder.png", "unreadable_image"),
        ("pipe.png", "unreadable_image"),
        ("whole.jpg/a.png", "missing_image"),
    ):
        with pytest.raises(BadImage) as problem:
            preview.load(tmp_path / name, 100)
        assert problem.value.code == code
        assert str(tmp_path) not in problem.value.message  # it stands in the picture's place: short


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(BadImage) as problem:
        preview.load(tmp_path / "bomb.png", 100)
    assert problem.value.code == "large_image"
