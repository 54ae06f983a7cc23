"""Images for classifiers, decoded, varied and cut square; all randomness is drawn from counters.

To be judged, an image is scaled so that its shorter side is image_size / 0.875 and its middle is cut out, as torchvision's
own presets do. It is decoded as the detectors' images are: by OpenCV, turned as EXIF says.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as change

from engine.spec import Spec
from engine.training import pixels
from engine.training.data import Sample
from engine.training.randomness import mix
from engine.training.session import Batch

CENTRE = 0.875  # share of the shorter side that is cut out
MIXED = (
    0.2  # both parameters of the beta distribution that shares are drawn from: mostly one image with a trace of another
)
VIEW, MIX = 11, 12  # purposes, so that equal counters do not draw equal numbers
SMALLEST_ZOOM = 0.05
BILINEAR = InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Recipe:
    """How images are cut and varied: the spec's words, see there."""

    image_size: int
    scale: float
    translate: float
    rotation: float
    flip_horizontal: float
    flip_vertical: float
    hue: float
    saturation: float
    brightness: float

    @classmethod
    def of(cls, spec: Spec) -> Recipe:
        return cls(**{name: spec.settled(name) for name in cls.__dataclass_fields__})

    @property
    def plain(self) -> bool:
        """Whether every view of an image is the same."""
        return not any(getattr(self, name) for name in self.__dataclass_fields__ if name != "image_size")

    @property
    def side(self) -> int:
        """Pixels of the shorter side that an image is scaled to before its middle is cut out."""
        return round(self.image_size / CENTRE)


@dataclass(frozen=True)
class Views:
    """Which views of the training images an epoch shows: `count` of each taken in turn, or a new one each time (0).

    Of a limited number the first is not varied at all: it is what the model is judged by.
    """

    seed: int
    count: int

    def number(self, epoch: int, index: int) -> int:
        """Of a limited number, the one that image `index` shows in `epoch` (both 0…)."""
        return (epoch + mix(self.seed, index, VIEW)) % self.count

    def dice(self, epoch: int, index: int) -> random.Random | None:
        """What the view of an image in an epoch is drawn from; None for the plain one."""
        return self.dice_of(self.number(epoch, index) if self.count else None, epoch, index)

    def dice_of(self, view: int | None, epoch: int, index: int) -> random.Random | None:
        if view is None:
            return random.Random(mix(self.seed, epoch, index))
        return random.Random(mix(self.seed, view, index, VIEW)) if view else None


def partner(seed: int, epoch: int, index: int, images: int, chance: float) -> tuple[int, float] | None:
    """The image that `index` is blended with in `epoch`, and the share that stays its own; None for most, by `chance`."""
    dice = random.Random(mix(seed, epoch, index, MIX))
    if not chance or dice.random() >= chance:
        return None
    share = dice.betavariate(MIXED, MIXED)
    return dice.randrange(images), max(share, 1 - share)


def decoded(sample: Sample) -> Tensor:
    """The image as shown: (3, height, width), red first, bytes. Raises UnreadableImage or DamagedPack."""
    return torch.from_numpy(pixels.read(sample)).flip(-1).permute(2, 0, 1)


def scaled(image: Tensor, side: int) -> Tensor:
    """`image` with a shorter side of `side` pixels."""
    return change.resize(image, [side], BILINEAR, antialias=True)


def reduced(image: Tensor, recipe: Recipe) -> Tensor:
    """`image` made as small as the closest zoom allows without loss: what is worth keeping in memory."""
    side = math.ceil(recipe.side * (1 + recipe.scale))
    return scaled(image, side) if min(image.shape[1:]) > side else image


def plain(image: Tensor, recipe: Recipe) -> Tensor:
    """The middle of `image` (3, h, w), (3, image_size, image_size): how it is judged."""
    return change.center_crop(scaled(image, recipe.side), [recipe.image_size, recipe.image_size]).contiguous()


def varied(image: Tensor, recipe: Recipe, dice: random.Random) -> Tensor:
    """A view of `image` (3, h, w) as `dice` have it, (3, image_size, image_size)."""
    if recipe.rotation:
        angle = dice.uniform(-recipe.rotation, recipe.rotation)
        image = change.rotate(image, angle, BILINEAR, fill=[114.0])
    top, left, height, width = _window(image.shape[1], image.shape[2], recipe, dice)
    size = [recipe.image_size, recipe.image_size]
    image = change.resized_crop(image, top, left, height, width, size, BILINEAR, antialias=True)
    if dice.random() < recipe.flip_horizontal:
        image = change.horizontal_flip(image)
    if dice.random() < recipe.flip_vertical:
        image = change.vertical_flip(image)
    return _coloured(image, recipe, dice).contiguous()


def _window(height: int, width: int, recipe: Recipe, dice: random.Random) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is cut out: zoomed, shifted and, with more zoom, of other proportions too.

    Without zoom and shift it is the middle as it is judged; with a zoom of 0.5, sides of 3:4 to 4:3 as torchvision has it.
    """
    zoom = max(SMALLEST_ZOOM, dice.uniform(1 - recipe.scale, 1 + recipe.scale))
    side = CENTRE * min(height, width) / zoom
    slant = math.log(1 / (1 - min(recipe.scale, 0.9) / 2))
    slant = math.exp(dice.uniform(-slant, slant) / 2)
    tall, wide = (max(1, min(most, round(s))) for most, s in ((height, side / slant), (width, side * slant)))
    shift = recipe.translate
    down, right = (dice.uniform(-shift, shift) * most for most in (height, width))
    top = min(max(0, round((height - tall) / 2 + down)), height - tall)
    left = min(max(0, round((width - wide) / 2 + right)), width - wide)
    return top, left, tall, wide


def _coloured(image: Tensor, recipe: Recipe, dice: random.Random) -> Tensor:
    if recipe.brightness:
        image = change.adjust_brightness(image, 1 + dice.uniform(-recipe.brightness, recipe.brightness))
    if recipe.saturation:
        image = change.adjust_saturation(image, 1 + dice.uniform(-recipe.saturation, recipe.saturation))
    if recipe.hue:
        most = min(recipe.hue, 0.5)  # half a turn of the colour circle either way is all there is
        image = change.adjust_hue(image, dice.uniform(-most, most))
    return image


class Images(Dataset[dict[str, Any]]):
    """The samples of a split as a model takes them. With `views` it takes (epoch, index) keys, else indices.

    `room` is how many bytes of decoded images each process may keep; it changes nothing but the speed.
    """

    def __init__(self, samples: list[Sample], recipe: Recipe, views: Views | None, mixup: float, room: int) -> None:
        self.samples, self.recipe, self.views, self.mixup, self.room = samples, recipe, views, mixup, room
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        if self.views is None:
            return {"img": self._base(key), **alone(self.samples[key].label)}
        epoch, index = key
        image, blend = self._view(epoch, index), partner(self.views.seed, epoch, index, len(self), self.mixup)
        if blend is None:
            return {"img": image, **alone(self.samples[index].label)}
        other, share = blend
        image = (image.float() * share + self._view(epoch, other).float() * (1 - share)).round().to(torch.uint8)
        return {"img": image, **blended(self.samples[index].label, self.samples[other].label, share)}

    def _view(self, epoch: int, index: int) -> Tensor:
        assert self.views is not None
        return self.view(index, self.views.dice(epoch, index))

    def view(self, index: int, dice: random.Random | None) -> Tensor:
        """Image `index` as `dice` have it, or plain."""
        base = self._base(index)
        return plain(base, self.recipe) if dice is None or self.recipe.plain else varied(base, self.recipe, dice)

    def _base(self, index: int) -> Tensor:
        """What views are made from; without any, what is judged."""
        kept = self._kept.get(index)
        if kept is None:
            image = decoded(self.samples[index])
            kept = reduced(image, self.recipe) if self.views else plain(reduced(image, self.recipe), self.recipe)
            kept = kept.contiguous()
            if kept.nbytes <= self.room:
                self.room -= kept.nbytes
                self._kept[index] = kept
        return kept


class Unfolded(Dataset[Tensor]):
    """Every view of every image in turn, image after image: what features are computed from once."""

    def __init__(self, images: Images, views: Views | None) -> None:
        self.images, self.views = images, views

    def __len__(self) -> int:
        return len(self.images) * (self.views.count if self.views else 1)

    def __getitem__(self, row: int) -> Tensor:
        if self.views is None:
            found: Tensor = self.images[row]["img"]
            return found
        index, view = divmod(row, self.views.count)
        return self.images.view(index, self.views.dice_of(view, 0, index))


def alone(label: int | None) -> dict[str, Any]:
    return {"label": label, "other": label, "share": 1.0}


def blended(label: int | None, other: int | None, share: float) -> dict[str, Any]:
    return {"label": label, "other": other, "share": share}


def collate(samples: list[dict[str, Any]]) -> Batch:
    """Images (n, 3, s, s) bytes or features (n, …), the class and the other class of each (n), and the first's share (n)."""
    what = "img" if "img" in samples[0] else "features"
    return {what: torch.stack([s[what] for s in samples]), **targets(samples)}


def targets(samples: list[dict[str, Any]]) -> Batch:
    return {
        "label": torch.tensor([s["label"] for s in samples]),
        "other": torch.tensor([s["other"] for s in samples]),
        "share": torch.tensor([s["share"] for s in samples], dtype=torch.float32),
    }


def class_weights(samples: list[Sample], classes: int, power: float) -> Tensor | None:
    """One over how often each class occurs, to `power`, with mean 1; a class that never does gets the mean of the rest.

    None where all are alike.
    """
    labels = torch.tensor([s.label for s in samples if s.label is not None], dtype=torch.long)
    counts = torch.bincount(labels, minlength=classes).float()
    present = counts > 0
    if not power or not bool(present.any()):
        return None
    weights = counts.clamp(min=1) ** -power
    weights = torch.where(present, weights, weights[present].mean())
    return weights / weights.mean()
