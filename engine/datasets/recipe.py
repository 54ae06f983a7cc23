"""The recipe of a data set version: declared once, checked whole, kept as recipe.toml beside what came of it."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ValidationInfo, field_validator

from engine.datasets.model import SPLITS, Split, Task
from engine.errors import Invalid, Problem
from engine.spec import problems as problems_of
from engine.spec.fields import Part, field

MOST_SOURCES = 32
TAG_LENGTH = 20
SMALLEST, LARGEST = 32, 4096  # pixels a side of what is resized
SIZE = 640  # pixels a side, where none is given
RESIZES = ("stretch", "letterbox", "crop")
CHANCES = ("flip_horizontal", "flip_vertical", "quarter_turns", "mosaic", "mixup")
STRENGTHS = ("rotation", "crop", "brightness", "contrast", "saturation", "hue", "blur")
AUGMENTATIONS = (*CHANCES, *STRENGTHS)
SEVERAL = ("mosaic", "mixup")  # make one image of several: such an image has no one class
PIXELS = ("resize", "size", "grey", "copies", *AUGMENTATIONS)  # settings that change what images look like
NOT_HASHED = ("sources", "val", "test", "tags", *PIXELS)  # names say nothing; of PIXELS counts what has an effect


def _chance(label: str, help: str) -> Any:
    return field("Augmentation", label, help, unit="chance", ge=0, le=1)


def _strength(label: str, help: str, most: float, unit: str = "") -> Any:
    return field("Augmentation", label, help, unit=unit, ge=0, le=most)


class Recipe(Part):
    """Which images, how divided, which classes, and what is done to the pixels.

    Preprocessing applies to every image. Augmentation makes further copies of training images; what judges and what
    reports keep their pixels. Every field is fixed once a version was made from it.
    """

    sources: Annotated[
        tuple[str, ...],
        field("Images", "Data sets", "Registered sets of one task.", min_length=1, max_length=MOST_SOURCES),
    ]
    val: Annotated[
        str, field("Images", "Set for val", "A registered set that judges, in place of a share.", max_length=64)
    ] = ""
    test: Annotated[
        str, field("Images", "Set for test", "A registered set that reports, in place of a share.", max_length=64)
    ] = ""
    split: Annotated[
        Literal["ratio", "existing"],
        field("Split", "Split", "ratio divides all labelled images anew; existing keeps the sets' own split."),
    ] = "ratio"
    ratio: Annotated[
        tuple[float, float, float],
        field("Split", "Ratio", "Shares of train, val and test among labelled images.", unit="train/val/test"),
    ] = (80.0, 10.0, 10.0)
    stratify: Annotated[
        bool, field("Split", "Stratified", "Every split gets its share of each class; without, images are drawn.")
    ] = True
    group: Annotated[
        bool, field("Split", "Grouped", "Near-identical images stay in one split. Every image is decoded once for it.")
    ] = False
    seed: Annotated[int, field("Split", "Seed", "Of the draw, and of the augmented copies.", ge=0, le=2**32 - 1)] = 0
    rename: Annotated[
        dict[str, str], field("Classes", "New names", "New name by old name; two with one new name are merged.")
    ] = {}
    drop: Annotated[tuple[str, ...], field("Classes", "Dropped", "Classes whose objects are left out.")] = ()
    empty: Annotated[
        Literal["keep", "drop"],
        field("Classes", "Images left empty", "keep them as background, or drop the images that lost all objects."),
    ] = "keep"
    resize: Annotated[
        Literal["none", "stretch", "letterbox", "crop"],
        field(
            "Preprocessing",
            "Resize",
            "Every image to a square: stretch it, letterbox it with grey bars, or crop its middle. none leaves sizes.",
        ),
    ] = "none"
    size: Annotated[
        int,
        field("Preprocessing", "Size", "Of a side.", unit="px", when={"resize": RESIZES}, ge=SMALLEST, le=LARGEST),
    ] = SIZE
    grey: Annotated[bool, field("Preprocessing", "Grey", "Every image without colour; still three channels.")] = False
    flip_horizontal: Annotated[float, _chance("Mirror", "A copy is flipped left to right.")] = 0.0
    flip_vertical: Annotated[float, _chance("Upside down", "A copy is flipped top to bottom.")] = 0.0
    quarter_turns: Annotated[float, _chance("Quarter turns", "A copy is turned by 90°, 180° or 270°.")] = 0.0
    rotation: Annotated[float, _strength("Rotation", "Turned by at most so much, either way.", 180, "°")] = 0.0
    crop: Annotated[float, _strength("Crop", "Largest share of width and height that is cut off.", 0.9)] = 0.0
    brightness: Annotated[float, _strength("Brightness", "Darker or lighter by at most this share.", 1)] = 0.0
    contrast: Annotated[float, _strength("Contrast", "Flatter or harder by at most this share.", 1)] = 0.0
    saturation: Annotated[float, _strength("Saturation", "Paler or stronger by at most this share.", 1)] = 0.0
    hue: Annotated[float, _strength("Hue", "Colours shifted by at most this share of the circle.", 0.5)] = 0.0
    blur: Annotated[float, _strength("Blur", "Blurred by a radius of at most so much.", 20, "px")] = 0.0
    mosaic: Annotated[float, _chance("Mosaic", "A copy is laid together of four training images.")] = 0.0
    mixup: Annotated[float, _chance("Mix-up", "A copy is blended with another training image.")] = 0.0
    copies: Annotated[
        int,
        field("Augmentation", "Copies", "Varied copies of each training image, beside it.", unit="each", ge=0, le=20),
    ] = 0
    tags: Annotated[tuple[str, ...], field("Tags", "Tags", "Words to find it by.", max_length=20)] = ()

    @field_validator("size", "seed", "copies", *AUGMENTATIONS, mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"must not be {str(value).lower()}")
        return value

    @field_validator("sources", "drop", "tags", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Text with commas is a list; doubles go. Names are composed, as registered ones are."""
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not all(isinstance(part, str) for part in given):
            return value
        return tuple(dict.fromkeys(name for part in given if (name := _composed(part))))

    @field_validator("rename", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_composed(k): _composed(v) if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("ratio", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split("/"))
        except ValueError:
            raise ValueError(f"must be three numbers such as 80/10/10, not {value[:40]!r}") from None

    @field_validator("ratio")
    @classmethod
    def _divides(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(math.isfinite(r) and 0 <= r <= 1e6 for r in value) or value[0] <= 0:
            raise ValueError("must be three numbers from 0, train above 0, such as 80/10/10")
        return value

    @field_validator("val", "test")
    @classmethod
    def _apart(cls, value: str, info: ValidationInfo) -> str:
        value = _composed(value)
        if value and value in info.data.get("sources", ()):
            raise ValueError(f"“{value}” is among the sources; choose a set apart from them")
        if value and value == info.data.get("val") and info.field_name == "test":
            raise ValueError(f"“{value}” is the set for val already; one cannot choose and report at once")
        return value

    @field_validator("group")
    @classmethod
    def _divided(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("split") == "existing":
            raise ValueError("does nothing with the existing split: leave it off, or split by ratio")
        return value

    @field_validator("rename")
    @classmethod
    def _sound_names(cls, value: dict[str, str]) -> dict[str, str]:
        for old, new in value.items():
            if not new or len(new) > 256 or not new.isprintable():
                raise ValueError(f"“{old[:40]}” needs a new name of printable characters, at most 256")
        return value

    @field_validator("drop")
    @classmethod
    def _either(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        both = [name for name in value if name in info.data.get("rename", {})]
        if both:
            raise ValueError(f"“{both[0]}” has a new name already; drop it or name it")
        return value

    @field_validator("size", mode="before")
    @classmethod
    def _of_a_resize(cls, value: Any, info: ValidationInfo) -> Any:
        """Its default without a resize, whatever is given: forms keep a value that another choice hides."""
        return SIZE if info.data.get("resize") == "none" else value

    @field_validator("saturation", "hue")
    @classmethod
    def _colourful(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("grey"):
            raise ValueError("does nothing to grey images: leave it at 0")
        return value

    @field_validator("copies")
    @classmethod
    def _of_something(cls, value: int, info: ValidationInfo) -> int:
        wanted = any(info.data.get(name) for name in AUGMENTATIONS)
        if wanted and not value:
            raise ValueError(
                "must be 1 or more: augmentation makes copies, and leaves the images themselves as they are"
            )
        if value and not wanted and all(name in info.data for name in AUGMENTATIONS):
            raise ValueError("needs an augmentation: the copies would all be the same image")
        return value

    @field_validator("tags")
    @classmethod
    def _short(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tag in value:
            if len(tag) > TAG_LENGTH or not tag.isprintable():
                raise ValueError(f"“{tag[:40]}”: a tag has at most {TAG_LENGTH} printable characters")
        return value

    @property
    def preprocessed(self) -> bool:
        """Whether every image is changed, those of val and test too."""
        return self.resize != "none" or self.grey

    @property
    def makes_pixels(self) -> bool:
        """Whether a training takes other pixels than those of the files."""
        return self.preprocessed or self.copies > 0

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, val and test, 1 in all, among the images of the sources; a set apart has its split alone."""
        given = [0.0 if name else ratio for name, ratio in zip(("", self.val, self.test), self.ratio, strict=True)]
        return given[0] / sum(given), given[1] / sum(given), given[2] / sum(given)

    def apart(self) -> dict[Split, str]:
        """The sets that stand for a whole split."""
        return {split: name for split, name in zip(SPLITS, ("", self.val, self.test), strict=True) if name}

    def hashed(self) -> str:
        """What of the recipe counts for the content hash: neither names of sets nor tags, and no setting without effect."""
        told = {k: v for k, v in self.model_dump().items() if k not in NOT_HASHED}
        if self.split == "existing":
            for name in ("ratio", "stratify", "group"):
                del told[name]
            if not self.copies:
                del told["seed"]
        told |= self.pixels()
        told |= {"apart": sorted(self.apart()), "drop": sorted(self.drop)}
        return json.dumps(told, sort_keys=True, ensure_ascii=False)

    def pixels(self) -> dict[str, Any]:
        """What decides how pixels come out, less what has no effect; empty where images stay as they are."""
        told: dict[str, Any] = {"resize": self.resize, "size": self.size} if self.resize != "none" else {}
        if self.grey:
            told["grey"] = True
        if self.copies:
            told |= {"copies": self.copies}
            told |= {name: value for name in AUGMENTATIONS if (value := getattr(self, name))}
        return told

    def to_toml(self) -> dict[str, Any]:
        """Every value, as recipe.toml holds it."""
        return self.model_dump(mode="json")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def unsuited(recipe: Recipe, task: Task) -> list[Problem]:
    """What of a sound recipe sets of `task` cannot have."""
    if task == "detect":
        return []
    text = "makes one image of several, which has no one class: leave it at 0 for sets to classify"
    return [Problem(name, text) for name in SEVERAL if getattr(recipe, name)]


def problems(data: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with `data` at once; empty when it is a recipe."""
    return problems_of(dict(data), Recipe)


def parse(data: Mapping[str, Any]) -> Recipe:
    """The recipe in `data`. Raises Invalid with every problem at once."""
    found = problems(data)
    if found:
        raise Invalid(found, code="BAD_RECIPE")
    return Recipe.model_validate(dict(data))


def different(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings that two recipes differ in, in the order of the form."""
    first, second = one.to_toml(), other.to_toml()
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}
