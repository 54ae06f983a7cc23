"""Looks: copies in any disguise are found, and strangers are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from engine.datasets.looks import Seen, nearest, see
from tests.datasets.make import picture, picture_bytes, put

PICTURES = 60


def jpeg(image: Image.Image, quality: int = 85, orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.convert("RGB").save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()


def seen(folder: Path, data: bytes, name: str = "a.jpg") -> Seen:
    return see(put(folder / name, data), 64 * 48)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("teachers")
    return [seen(folder, jpeg(picture(i))).look for i in range(PICTURES)]


DISGUISES: dict[str, tuple[Callable[[Image.Image], Image.Image], bool]] = {
    "same": (lambda image: image, True),
    "half": (lambda image: image.resize((32, 24)), True),
    "large": (lambda image: image.resize((640, 480)), True),
    "stretched": (lambda image: image.resize((100, 48)), True),
    "bright": (lambda image: ImageEnhance.Brightness(image).enhance(1.25), True),
    "pale": (lambda image: ImageEnhance.Contrast(image).enhance(0.6), True),
    "grey": (lambda image: image.convert("L"), True),
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(1)), True),
    "mirrored": (ImageOps.mirror, False),
    "upside down": (ImageOps.flip, False),
    "turned": (lambda image: image.rotate(90, expand=True), False),
    "turned back": (lambda image: image.rotate(270, expand=True), False),
    "half turned": (lambda image: image.rotate(180), False),
    "transposed": (lambda image: image.transpose(Image.Transpose.TRANSPOSE), False),
    "transversed": (lambda image: image.transpose(Image.Transpose.TRANSVERSE), False),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_copies_are_found(tmp_path: Path, teachers: list[bytes], name: str) -> None:
    disguise, upright = DISGUISES[name]
    looks = [seen(tmp_path, jpeg(disguise(picture(i)), 60)).look for i in range(0, PICTURES, 3)]
    assert nearest(looks, teachers) == [(i, upright) for i in range(0, PICTURES, 3)]


def test_strangers_are_not(tmp_path: Path, teachers: list[bytes]) -> None:
    looks = [seen(tmp_path, jpeg(picture(1000 + i))).look for i in range(PICTURES)]
    assert nearest(looks, teachers) == [None] * PICTURES
    assert nearest([], teachers) == [] and nearest(looks, []) == [None] * PICTURES


def test_flat_images_are_like_nothing(tmp_path: Path) -> None:
    flat = seen(tmp_path, jpeg(Image.new("RGB", (64, 48), (90, 91, 92)))).look
    assert nearest([flat], [flat]) == [None]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path: Path, teachers: list[bytes], orientation: int) -> None:
    data = jpeg(picture(5), orientation=orientation)
    baked = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert baked is not None
    first, second = seen(tmp_path, data), seen(tmp_path, jpeg(baked, 100))
    assert nearest([first.look], [*teachers[:5], second.look]) == [(5, True)]


def test_form_does_not_matter(tmp_path: Path, teachers: list[bytes]) -> None:
    image = picture(7)
    grey = np.asarray(image.convert("L"))
    forms = {
        "a.png": image, "a.webp": image, "a.bmp": image, "a.tif": image, "deep.png": Image.fromarray(grey.astype(np.uint16) << 8),
        "palette.png": image.quantize(64), "cmyk.jpg": image.convert("CMYK"), "alpha.png": image.convert("RGBA"),
    }  # fmt: skip
    for name, form in forms.items():
        form.save(tmp_path / name)
        assert nearest([see(tmp_path / name, 1).look], teachers) == [(7, True)], name


def test_what_cannot_be_decoded_says_why(tmp_path: Path) -> None:
    whole = picture_bytes(1, (400, 300))
    for data in (whole[:-2000], b"", b"not an image", whole[:20]):
        found = seen(tmp_path, data)
        assert found.fault and not found.look and found.digest
    assert seen(tmp_path, whole).digest == seen(tmp_path, whole, "b.jpg").digest != seen(tmp_path, whole + b"\0").digest


def test_many_are_compared_in_blocks(teachers: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.datasets.looks.BLOCK", 7)
    ticks: list[None] = []
    assert nearest(teachers[::-1], teachers, lambda: ticks.append(None)) == [
        (i, True) for i in reversed(range(PICTURES))
    ]
    assert len(ticks) == 81
