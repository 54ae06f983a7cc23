"""What an image looks like, in 256 numbers, so that copies are found among a hundred thousand.

The look is the image in grey on a grid of 16 by 16, stretched to a square. Two looks are compared by their correlation,
which neither brightness nor contrast changes. A 64-bit hash of differences (dHash) was tried beside it on BCCD and on
ants and bees: recompressing (quality 30), halving, brightening by 30 %, blurring, greying left the correlation at 0.94
or more (with single exceptions), while no two different photographs came above 0.84; the hash had copies 8 bits apart
and strangers 6 bits apart. Every comparison is made in all eight orientations, since mirrored and turned copies are
what augmenting before splitting leaves behind. A crop of more than 3 % a side goes unnoticed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import stat
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.datasets.images import FORMATS, LARGE, MANY, MOST_BYTES, orientation

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

SIDE = 16  # of the grid
COARSE = 8  # side of the grid on which the closest one is looked for
ALIKE = 0.93  # correlation from which two images count as one
POSSIBLE = 0.85  # the same on the coarse grid: what is below is not looked at more closely
BLOCK = 2048  # images compared with as many at once
FLAT = 2.0  # spread of grey, out of 255, below which there is nothing to compare
MANY_BYTES = 64 << 20  # of a file that is read alone


@dataclass(frozen=True, slots=True)
class Seen:
    """What one image's pixels say. `fault` is why they could not be decoded."""

    digest: bytes = b""  # of the file
    look: bytes = b""  # SIDE × SIDE of grey, upright
    darkest: int = 0  # grey, 0 to 255, as training sees it
    lightest: int = 255
    fault: str = ""


def see(path: Path, pixels: int) -> Seen:
    """Decode the image at `path`, which had that many pixels, in full; large ones one at a time.

    JPEG is decoded at a fraction of its size: every byte is still read, so what is cut short is noticed. OSError if the
    file itself cannot be read, as when a pipe or something huge has come into its place.
    """
    size = regular(path)
    alone = pixels > MANY or size > MANY_BYTES
    with LARGE if alone else nullcontext(), path.open("rb") as file:
        data = file if size > MANY_BYTES else io.BytesIO(file.read(size))
        digest = hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=16)).digest()
        data.seek(0)
        try:
            return Seen(digest, *_grey(data, alone))
        except Exception as e:  # decoders raise what they like on damaged files
            return Seen(digest, fault=str(e)[:120] or type(e).__name__)


def regular(path: Path) -> int:
    """Bytes of the image file at `path`; OSError if it is none that can be read to its end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "this is not a regular file")
    if status.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, too many")
    return status.st_size


def _grey(data: IO[bytes], alone: bool) -> tuple[bytes, int, int]:
    """`alone` says that no other large image is being decoded; of one that has grown since, that is seen here."""
    from PIL import Image as pil

    with pil.open(data, formats=FORMATS) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (4 * SIDE, 4 * SIDE))
        with LARGE if image.width * image.height > MANY and not alone else nullcontext():
            grey = _eight_bits(image)
        darkest, lightest = grey.getextrema()
        small = grey.resize((SIDE, SIDE), pil.Resampling.BOX)
        turn = TURNS.get(orientation(image))
        upright = small.transpose(pil.Transpose[turn]) if turn else small
        return upright.tobytes(), int(darkest), int(lightest)


TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


def _eight_bits(image: Image) -> Image:
    """The image in grey. Of 16 bits training keeps the upper 8, so they are what counts here."""
    if not image.mode.startswith("I;16"):
        return image.convert("L")
    import numpy as np
    from PIL import Image as pil

    return pil.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def nearest(
    judges: list[bytes], teachers: list[bytes], tick: Callable[[], None] | None = None
) -> list[tuple[int, bool] | None]:
    """For each look of `judges`, the index of the one of `teachers` that is ALIKE, and whether it is as it stands.

    None where there is no such one. Of several it is the closest on the coarse grid. `tick` is called between blocks.
    """
    import numpy as np

    found: list[tuple[int, bool] | None] = []
    fine, rough = unit_vectors(teachers, SIDE), unit_vectors(teachers, COARSE)
    for start in range(0, len(judges), BLOCK):
        block = judges[start : start + BLOCK]
        best: numpy.ndarray[Any, Any] = np.full(len(block), POSSIBLE, np.float32)
        which, turn = np.full(len(block), -1), np.full(len(block), 0)
        turned = [unit_vectors(block, COARSE, way) for way in range(8)]
        for at in range(0, len(teachers), BLOCK):
            if tick:
                tick()
            part = rough[at : at + BLOCK].T
            for way, units in enumerate(turned):
                close = units @ part
                better = np.flatnonzero(close.max(1) > best)
                top = close[better].argmax(1)
                best[better], which[better], turn[better] = close[better, top], at + top, way
        for look, teacher, way in zip(block, which.tolist(), turn.tolist(), strict=True):
            sure = teacher >= 0 and float(unit_vectors([look], SIDE, way)[0] @ fine[teacher]) >= ALIKE
            found.append((teacher, way == 0) if sure else None)
    return found


def unit_vectors(looks: list[bytes], side: int, way: int = 0) -> numpy.ndarray[Any, Any]:
    """The looks on a grid of `side`, in one of eight orientations, each of mean 0 and length 1; flat ones all 0."""
    import numpy as np

    grid = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), SIDE, SIDE)
    if way & 4:
        grid = grid[:, :, ::-1]
    grid = np.rot90(grid, way & 3, axes=(1, 2))
    step = SIDE // side
    small = (
        grid.reshape(len(looks), side, step, side, step).mean((2, 4), dtype=np.float32).reshape(len(looks), side * side)
    )
    small -= small.mean(1, keepdims=True)
    spread = np.linalg.norm(small, axis=1, keepdims=True)
    units: numpy.ndarray[Any, Any] = np.where(spread > FLAT * side, small / np.maximum(spread, 1e-9), 0)
    return units.astype(np.float32, copy=False)
