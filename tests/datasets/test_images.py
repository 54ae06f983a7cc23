"""Image headers: sizes as shown, and no file that would fail to decode in the middle of a training."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.datasets.images import BadImage, is_image, measure
from tests.datasets.make import image_bytes, put

KINDS = [("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.bmp", "BMP"), ("a.webp", "WEBP"), ("a.tif", "TIFF")]


def fault(path: Path) -> str:
    with pytest.raises(BadImage) as error:
        measure(str(path))
    assert str(path) not in error.value.message
    return error.value.code


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_size_of_each_format(tmp_path: Path, name: str, kind: str) -> None:
    data = image_bytes(40, 30, kind)
    assert measure(str(put(tmp_path / name, data))) == (40, 30, len(data), None)


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_image_has_its_size_as_shown(tmp_path: Path, name: str, kind: str, orientation: int) -> None:
    if kind == "BMP":
        kind = "JPEG"
    size = measure(str(put(tmp_path / name, image_bytes(40, 30, kind, orientation))))
    assert size[:2] == ((40, 30) if orientation == 3 else (30, 40))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_file_cut_short_is_refused_and_left_as_it_is(tmp_path: Path, name: str, kind: str) -> None:
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    noise.save(tmp_path / name, kind)
    data = (tmp_path / name).read_bytes()
    cut = put(tmp_path / f"cut-{name}", data[: len(data) * 2 // 3])
    assert fault(cut) == "corrupt_image"
    assert cut.read_bytes() == data[: len(data) * 2 // 3]


def test_a_jpeg_with_an_odd_end_that_decodes_is_kept_with_a_note(tmp_path: Path) -> None:
    size = measure(str(put(tmp_path / "a.jpg", image_bytes() + b"\0\0")))
    assert size.note and size.note[0] == "odd_end"


def test_other_faults(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.jpg") == "missing_image"
    assert fault(tmp_path / "nul\0.jpg") == "missing_image"
    assert fault(put(tmp_path / "empty.jpg", b"")) == "empty_image"
    assert fault(put(tmp_path / "text.jpg", "<html>not found</html>")) == "corrupt_image"
    assert fault(put(tmp_path / "gif.jpg", image_bytes(kind="GIF"))) == "corrupt_image"
    assert fault(put(tmp_path / "small.png", image_bytes(9, 30, "PNG"))) == "small_image"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert fault(tmp_path / "pipe.jpg") == "unreadable_image"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert fault(tmp_path / "loop.jpg") in ("missing_image", "unreadable_image")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )
    assert fault(put(tmp_path / "bomb.png", data)) == "large_image"


def drawn() -> dict[str, Image.Image]:
    """One image in each form that files come in."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    colour, grey = Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0])
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    return {
        "grey.jpg": grey, "grey.png": grey, "grey.bmp": grey, "grey.webp": grey, "grey.tif": grey,
        "alpha.png": Image.fromarray(noise, "RGBA"), "alpha.webp": Image.fromarray(noise, "RGBA"),
        "alpha.tif": Image.fromarray(noise, "RGBA"), "grey_alpha.png": Image.fromarray(noise[..., :2], "LA"),
        "palette.png": colour.quantize(16), "bits.png": grey.convert("1"), "bits.tif": grey.convert("1"),
        "deep.png": deep, "deep.tif": deep, "cmyk.jpg": colour.convert("CMYK"), "cmyk.tif": colour.convert("CMYK"),
        "ycc.tif": colour.convert("YCbCr"),
    }  # fmt: skip


@pytest.mark.parametrize("name", drawn())
def test_what_is_measured_is_what_opencv_decodes(tmp_path: Path, name: str) -> None:
    drawn()[name].save(tmp_path / name)
    height, width, channels = cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR).shape
    assert measure(str(tmp_path / name))[:2] == (width, height) == (40, 30) and channels == 3


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_has_the_size_that_opencv_gives_it(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn()["grey.jpg"].save(tmp_path / f"a.{kind}", exif=exif)
    height, width, _ = cv2.imread(str(tmp_path / f"a.{kind}"), cv2.IMREAD_COLOR).shape
    assert measure(str(tmp_path / f"a.{kind}"))[:2] == (width, height)


def test_what_opencv_does_not_decode_is_refused(tmp_path: Path) -> None:
    grey = drawn()["grey.tif"]
    grey.convert("F").save(tmp_path / "float.tif")
    grey.convert("I").save(tmp_path / "long.tif")
    grey.save(tmp_path / "zstd.tif", compression="zstd")
    for name in ("float.tif", "long.tif", "zstd.tif"):
        assert fault(tmp_path / name) == "unsupported_image"
        assert cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR) is None


def test_suffixes() -> None:
    assert all(map(is_image, ("a.jpg", "a.JPEG", "b.Png", "c.bmp", "d.webp", "e.tif", "f.TIFF", "g.h.jpg")))
    assert not any(map(is_image, ("a.txt", "jpg", ".jpg", "a.jpg.bak", "a.gif", "a.npy")))
