"""Pixels as trainings decode them, where OpenCV, which does that for them, may not be loaded.

To the last bit, but for TIFF in inks or with colours of 16 bits: there it is one of 256 steps, now and then.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from engine.datasets.images import FORMATS, BadImage, orientation
from engine.datasets.looks import TURNS

if TYPE_CHECKING:
    from PIL.Image import Image


def decoded(data: bytes) -> Image:
    """The image in the file `data`: upright, in colour, without alpha. Raises BadImage."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(data), formats=FORMATS) as image:
            turn = TURNS.get(orientation(image))
            upright = in_colour(image)
    except Exception as e:  # decoders raise what they like on damaged files
        raise BadImage("corrupt_image", f"The image is damaged: {str(e)[:120] or type(e).__name__}.") from e
    return upright.transpose(pil.Transpose[turn]) if turn else upright


def in_colour(image: Image) -> Image:
    """Three channels of eight bits: of 16 the upper ones, of inks what OpenCV makes of them."""
    import numpy as np
    from PIL import Image as pil

    if image.mode.startswith("I;16"):
        return pil.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "CMYK":
        inks = np.asarray(image).astype(np.int32)  # of JPEG, Pillow has turned them round already
        black = 255 - inks[..., 3:]
        return pil.fromarray((black - (inks[..., :3] * black >> 8)).astype(np.uint8))
    if image.format == "TIFF" and image.mode == "RGBA":  # which OpenCV shows on black
        parts = np.asarray(image).astype(np.uint32)
        return pil.fromarray(((parts[..., :3] * parts[..., 3:] + 127) // 255).astype(np.uint8))
    return image.convert("RGB")
