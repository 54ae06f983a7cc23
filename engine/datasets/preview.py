"""One image for the eye: upright, in colour, decoded no larger than it will be shown."""

from __future__ import annotations

import stat
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets.decoding import in_colour
from engine.datasets.images import FORMATS, LARGE, LARGEST, MANY, BadImage, orientation
from engine.datasets.looks import TURNS

if TYPE_CHECKING:
    from PIL.Image import Image


def load(path: Path, side: int) -> Image:
    """The image at `path`, RGB, its longer side at least `side` pixels where it has as many, and rarely much more.

    JPEG is decoded at a fraction of its size, which is what makes a large photograph quick. Raises BadImage with words for
    a person, whatever is in the file.
    """
    from PIL import Image as pil

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise BadImage("unreadable_image", "The image cannot be shown: it is not a regular file.")
        with pil.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels > LARGEST:
                raise BadImage("large_image", f"The image is {image.width}×{image.height} pixels: too large.")
            turn = TURNS.get(orientation(image))
            with LARGE if pixels > MANY else nullcontext():
                if image.format in ("JPEG", "MPO"):
                    image.draft("RGB" if image.mode != "CMYK" else "CMYK", (side, side))
                found = in_colour(image)
    except BadImage:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise BadImage("missing_image", "The image is not there any more.") from None
    except pil.DecompressionBombError:
        raise BadImage("large_image", f"The image has more than {LARGEST:,} pixels: too large.") from None
    except pil.UnidentifiedImageError:
        raise BadImage("corrupt_image", "The image cannot be shown: its file is no image, or damaged.") from None
    except PermissionError as e:
        raise BadImage("unreadable_image", f"The image cannot be read: {e.strerror}.") from e
    except Exception as e:  # decoders raise what they like on damaged files
        raise BadImage("corrupt_image", f"The image cannot be shown: {str(e)[:120] or type(e).__name__}.") from e
    if turn:
        found = found.transpose(pil.Transpose[turn])
    if max(found.size) > 2 * side:
        found.thumbnail((2 * side, 2 * side), pil.Resampling.BOX)
    return found
