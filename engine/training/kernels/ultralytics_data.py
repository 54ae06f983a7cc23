"""Images and labels for ultralytics' models, taken from our manifest instead of from beside the user's images.

ultralytics' own dataset writes a label cache beside the labels, rewrites JPEGs that it deems corrupt, reads and
deletes `.npy` files beside the images, and unpickles whatever cache it finds. None of that code is reached from here.
"""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Albumentations, Compose
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_file_speeds

from engine import catalog
from engine.spec import Spec
from engine.training import pixels, randomness
from engine.training.data import Material, Sample
from engine.training.session import DamagedPack, UnreadableImage

KEEP_SHARE = 0.25  # of the free memory, at most, goes to decoded images
KEEP_SHARES = {"auto": KEEP_SHARE, "ram": 0.75, "off": 0.0}  # by the spec's `cache`
NOWHERE = Path(os.devnull) / "none.npy"  # never exists
Loaded = tuple[np.ndarray, tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Counters:
    """What the randomness of exact training is drawn from. Mosaic is off from epoch `closes` (0…) on."""

    seed: int
    closes: int


class ManifestDataset(YOLODataset):
    """ultralytics' dataset on samples in memory, in their order.

    With `counters` it takes (epoch, index) keys and draws all augmentation from them. `room` is how many bytes of
    decoded, resized images each process may keep; it changes nothing but the speed.
    """

    def __init__(self, samples: list[Sample], counters: Counters | None, room: int, **arguments: Any) -> None:
        self.samples = samples
        self.counters, self.room = counters, room
        self._kept: dict[int, Loaded] = {}
        # "ram" makes mosaic pick from all images, not from those that happened to be loaded lately
        super().__init__(img_path="", cache="ram" if counters else None, **arguments)
        self.npy_files = [NOWHERE] * self.ni
        if counters:
            hyp = copy(arguments["hyp"])
            hyp.mosaic = hyp.mixup = hyp.cutmix = hyp.copy_paste = 0.0
            self.closed = self.build_transforms(hyp)

    def get_img_files(self, img_path: Any) -> list[str]:
        files = [s.path for s in self.samples]
        if not self._exact:
            check_file_speeds(files)  # draws from `random`, as it does upstream: the same seed must draw the same
        return files

    @property
    def _exact(self) -> bool:
        return self.counters is not None

    def get_labels(self) -> list[dict[str, Any]]:
        return [_label(s) for s in self.samples]

    def check_cache_ram(self, safety_margin: float = 1.0) -> bool:
        """Never load everything up front: `load_image` keeps what fits as it comes."""
        return False

    def set_rectangle(self) -> None:
        """Upstream orders images by shape: samples go with them."""
        numbers = {id(label): number for number, label in enumerate(self.labels)}
        super().set_rectangle()
        self.samples = [self.samples[numbers[id(label)]] for label in self.labels]

    def build_transforms(self, hyp: Any) -> Compose:
        """Upstream's own, less what draws from generators that counters do not reach."""
        transforms = super().build_transforms(hyp=hyp)
        if self._exact:
            transforms.transforms = [t for t in transforms.transforms if not isinstance(t, Albumentations)]
        return transforms

    def __getitem__(self, key: Any) -> dict[str, Any]:
        if self.counters is None:
            item: dict[str, Any] = super().__getitem__(key)
            return item
        epoch, index = key
        randomness.seed_image(self.counters.seed, epoch, index)
        transforms = self.transforms if epoch < self.counters.closes else self.closed
        found: dict[str, Any] = transforms(self.get_image_and_label(index))
        return found

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Loaded:
        kept = self._kept.get(i)
        if kept is None:
            try:
                image, original, resized = self._loaded(i, rect_mode, resize_short)
            except DamagedPack:
                raise
            except Exception as e:
                raise UnreadableImage(self.im_files[i]) from e
            if image.nbytes > self.room:
                return image, original, resized
            self.room -= image.nbytes
            kept = self._kept[i] = image, original, resized
        # Colour augmentation writes into the image it is given, so the kept one is never handed out.
        return kept[0].copy(), kept[1], kept[2]

    def _loaded(self, i: int, rect_mode: bool, resize_short: bool) -> Loaded:
        """What upstream makes of a file; of packed pixels the same: the longer side is scaled to the image size."""
        sample = self.samples[i]
        if sample.packed is None or self.ims[i] is not None:
            found: Loaded = super().load_image(i, rect_mode, resize_short)
            return found
        assert rect_mode and not resize_short  # what detectors ask for
        image = pixels.packed(sample)
        height, width = image.shape[:2]
        if (scale := self.imgsz / max(height, width)) != 1:
            size = tuple(min(ceil(side * scale), self.imgsz) for side in (width, height))
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if self.augment and self.cache != "ram":
            self._remember(i, image, (height, width))
        return image, (height, width), image.shape[:2]

    def _remember(self, i: int, image: np.ndarray, original: tuple[int, int]) -> None:
        """Keep what was loaded lately for upstream's mosaic, as upstream does."""
        self.ims[i], self.im_hw0[i], self.im_hw[i] = image, original, image.shape[:2]
        self.buffer.append(i)
        if 1 < len(self.buffer) >= self.max_buffer_length:
            last = self.buffer.pop(0)
            self.ims[last], self.im_hw0[last], self.im_hw[last] = None, None, None


def _label(sample: Sample) -> dict[str, Any]:
    rows = np.array(sample.boxes, dtype=np.float32).reshape(-1, 5)
    return {
        "im_file": sample.path,
        "shape": (sample.height, sample.width),
        "cls": rows[:, 0:1],
        "bboxes": rows[:, 1:],
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }


def arguments(spec: Spec, material: Material) -> Any:
    """The spec in ultralytics' own spelling."""
    most = max(len(s.boxes) for split in ("train", "val") for s in material.samples[split])
    overrides = {
        "task": "detect",
        "mode": "train",
        "model": catalog.find(spec.model).config,
        "epochs": spec.epochs,
        "patience": spec.patience,
        "batch": spec.batch_size,
        "imgsz": spec.image_size,
        "seed": spec.seed,
        "nbs": spec.settled("nominal_batch_size"),
        "weight_decay": spec.weight_decay,
        "warmup_epochs": spec.warmup_epochs,
        "warmup_momentum": spec.warmup_momentum,
        "lrf": spec.final_lr_ratio,
        "cos_lr": spec.schedule == "cosine",
        "box": spec.settled("box_loss"),
        "cls": spec.settled("class_loss"),
        "dfl": spec.dfl_loss,
        "cls_pw": spec.class_weights,
        "multi_scale": spec.multi_scale,
        "mosaic": spec.settled("mosaic"),
        "close_mosaic": spec.close_mosaic,
        "mixup": spec.mixup,
        "hsv_h": spec.hue,
        "hsv_s": spec.saturation,
        "hsv_v": spec.brightness,
        "degrees": spec.rotation,
        "translate": spec.translate,
        "scale": spec.scale,
        "fliplr": spec.flip_horizontal,
        "flipud": spec.flip_vertical,
        "plots": False,
        "max_det": max(300, most),  # an image may not hold more objects than may be found in it
    }
    return get_cfg(overrides=overrides)
