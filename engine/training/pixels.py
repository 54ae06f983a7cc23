"""Where every kernel gets the pixels of a sample: from its file, or from the pack of its data set's version."""

from __future__ import annotations

import cv2
import numpy as np

from engine.datasets.packfile import Damaged
from engine.training.data import Sample
from engine.training.session import DamagedPack, UnreadableImage


def read(sample: Sample) -> np.ndarray:
    """The image as shown, (height, width, 3) uint8, blue first; to be written into as one likes.

    Raises UnreadableImage, or DamagedPack when what lies on the disk is not what was packed.
    """
    return _decoded(sample.path) if sample.packed is None else packed(sample)


def packed(sample: Sample) -> np.ndarray:
    """The same for a sample that is known to be in a pack."""
    assert sample.packed
    try:
        found: np.ndarray = sample.packed.pack.pixels(sample.packed.place)
    except Damaged as e:
        raise DamagedPack(str(e)) from e
    return found


def _decoded(path: str) -> np.ndarray:
    try:
        found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as e:
        raise UnreadableImage(path) from e
    if found is None:
        raise UnreadableImage(path)
    return found
