"""The size of an image from its header, and whether it can be decoded, without changing or keeping it."""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext
from pathlib import Path, PurePath
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
# Decoders that may be tried; JPEG's also opens MPO. Naming them keeps what pretends to be an image away from the others.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF")
SMALLEST = 10  # pixels a side; what ultralytics accepts
FOREIGN = ("zstd", "webp", "lzma")  # compressions of TIFF that OpenCV is built without
MANY = 20_000_000  # pixels of an image that is decoded alone
LARGE = Lock()
MOST_BYTES = 1 << 30  # of a file
LARGEST = 178_956_970  # pixels in all; where Pillow stops believing that it is not a decompression bomb


class ImageSize(NamedTuple):
    width: int  # pixels as shown, so after the EXIF rotation
    height: int
    bytes: int
    note: tuple[str, str] | None = None  # code and message of what is odd about a usable image


class BadImage(Exception):
    """The image cannot be trained on. `code` is a finding's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in SUFFIXES


def measure(path: str) -> ImageSize:
    """Read the size of the image at `path`; raise BadImage if decoding it later would fail.

    Only the header is decoded, except where that says too little: PNG chunks are checked against their sums, and a
    JPEG with a wrong end, a BMP and a TIFF are decoded. A file cut short is refused, because OpenCV 5 does not read it.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadImage("missing_image", "There is no such image.") from None
    except OSError as e:
        raise BadImage("unreadable_image", f"The image cannot be read: {e.strerror}.") from e
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("unreadable_image", "This is not a regular file.")
    if status.st_size == 0:
        raise BadImage("empty_image", "The image file is empty (0 bytes).")
    if status.st_size > MOST_BYTES:
        raise BadImage("large_image", f"The file has {status.st_size:,} bytes; at most {MOST_BYTES:,} are read.")
    width, height, note = _open(path)
    if min(width, height) < SMALLEST:
        raise BadImage("small_image", f"The image is {width}×{height} pixels; at least {SMALLEST} a side are needed.")
    return ImageSize(width, height, status.st_size, note)


def _open(path: str) -> tuple[int, int, tuple[str, str] | None]:
    from PIL import Image as pil

    try:
        with pil.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise BadImage("large_image", f"The image is {image.width}×{image.height} pixels: too large.")
            width, height = _turned(image)
            return width, height, _check(image, path)
    except pil.DecompressionBombError:
        raise BadImage("large_image", f"The image has more than {LARGEST:,} pixels: too large.") from None
    except pil.UnidentifiedImageError:
        raise BadImage("corrupt_image", "This is not an image, or its header is damaged.") from None
    except BadImage:
        raise
    except PermissionError as e:
        raise BadImage("unreadable_image", f"The image cannot be read: {e.strerror}.") from e
    except Exception as e:  # decoders raise what they like on damaged files: OSError, SyntaxError, struct.error, …
        raise BadImage("corrupt_image", f"The image is damaged: {str(e)[:120] or type(e).__name__}.") from e


def _load(image: Image) -> None:
    """Decode the pixels; large images one at a time, or a handful of them would fill the memory."""
    with LARGE if image.width * image.height > MANY else nullcontext():
        image.load()


def _turned(image: Image) -> tuple[int, int]:
    """Width and height after the EXIF rotation, as OpenCV and ultralytics decode them."""
    width, height = image.size
    return (height, width) if orientation(image) in (5, 6, 7, 8) else (width, height)


def orientation(image: Image) -> int:
    """How the opened image is to be turned, by EXIF's number; 1 is as it lies. Pillow turns TIFF by itself."""
    if image.format == "TIFF" or "exif" not in image.info:
        return 1
    try:
        found = image.getexif().get(0x0112)
    except Exception:  # a damaged EXIF block: decoders ignore it, so the image is as it lies
        return 1
    return found if isinstance(found, int) else 1


def _check(image: Image, path: str) -> tuple[str, str] | None:
    """Raise what the decoder raises if the pixels are not all there; return a note if they are but the end is odd."""
    if image.format == "PNG":
        image.verify()
    elif image.format in ("BMP", "DIB", "TIFF"):
        if image.mode in ("I", "F") or image.info.get("compression") in FOREIGN:
            what = "32 bits a channel" if image.mode in ("I", "F") else f"{image.info['compression']} compression"
            raise BadImage("unsupported_image", f"The image has {what}, which OpenCV does not decode.")
        _load(image)
    elif image.format in ("JPEG", "MPO"):
        with Path(path).open("rb") as f:
            f.seek(-2, os.SEEK_END)
            whole = f.read() == b"\xff\xd9"
        if not whole:
            _load(image)
            return "odd_end", "The JPEG does not end as one should, but decodes; it is used as it is."
    return None
