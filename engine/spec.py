"""The spec: everything that defines one training, declared once.

The wizard's form, `dojang schema`, the checks and `spec.toml` all come from the fields below. A field's metadata says
where the form shows it, its unit, and what happens when it is too small or too large.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from engine import catalog
from engine.errors import Invalid, NotFound, Problem

_EFFDET_LR = 2e-3  # of AdamW at 16 images an update, from random weights (measured)
TAG_LENGTH = 20
NAME_LENGTH = 64


def field(
    section: str,
    label: str,
    help: str,
    *,
    unit: str = "",
    small: str = "",
    large: str = "",
    advanced: bool = False,
    auto: str = "",
    kernels: tuple[str, ...] = (),
    by_kernel: dict[str, float] | None = None,
    **limits: Any,
) -> Any:
    """Metadata of one field. `auto` says in words what an empty value means, where empty is allowed.

    `kernels` are the families of models that have such a setting, where not all do; `by_kernel` is what an empty value
    comes to for each.
    """
    extra: dict[str, Any] = {
        "section": section,
        "unit": unit,
        "small": small,
        "large": large,
        "advanced": advanced,
        "auto": auto,
        **({"kernels": list(kernels)} if kernels else {}),
        **({"by_kernel": by_kernel} if by_kernel else {}),
    }
    return Field(title=label, description=help, json_schema_extra=extra, **limits)


class Spec(BaseModel):
    """One training, whole. Locked once started."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, validate_default=True)

    dataset: Annotated[
        str,
        field("Data", "Data set", "The registered data set that the model learns from.", min_length=1, max_length=64),
    ]
    dataset_hash: Annotated[
        str,
        field(
            "Data",
            "Data hash",
            "Fingerprint of the data set at the start; filled in by itself, and checked before a training goes on.",
            advanced=True,
        ),
    ] = ""
    model: Annotated[
        str,
        field(
            "Model",
            "Model",
            "Which network is trained. Within a family: n is the smallest and fastest, x the largest and most accurate.",
            small="quick to train and to run, less accurate on hard images",
            large="more accurate with enough data, slower, needs more memory, overfits small data sets",
        ),
    ] = "yolov8n"
    weights: Annotated[
        str,
        field(
            "Model",
            "Start from",
            "“scratch”: random weights. “pretrained”: the public weights, from a file at hand. Or the path of a .pt file.",
            small="from scratch needs more images and more epochs",
            large="pretrained weights learn faster and need far fewer images",
            min_length=1,
            max_length=4096,
        ),
    ] = "scratch"
    anchor_scale: Annotated[
        float | None,
        field(
            "Model",
            "Anchor scale",
            "Size of the smallest boxes that predictions start from, in steps of 8 pixels of the scaled image; "
            "EfficientDet only.",
            unit="× 8 px",
            small="large objects are found less exactly",
            large="small objects are missed",
            auto="from scratch fitted to the boxes of the data set, else as the weights have it",
            kernels=("effdet",),
            advanced=True,
            ge=0.5,
            le=16,
        ),
    ] = None
    download: Annotated[
        bool,
        field(
            "Model",
            "May download",
            "Whether the pretrained weights may be fetched from the library's public address when no file is at hand.",
        ),
    ] = False

    epochs: Annotated[
        int,
        field(
            "Training",
            "Epochs",
            "How many times the model sees every training image.",
            small="the model stops before it has learned what it could",
            large="time is spent after the metrics have stopped rising; “patience” ends that by itself",
            ge=1,
            le=10_000,
        ),
    ] = 100
    batch_size: Annotated[
        int,
        field(
            "Training",
            "Batch size",
            "How many images make one update of the weights.",
            unit="images",
            small="noisy updates, slow on a GPU",
            large="runs out of memory; wants a higher learning rate",
            ge=1,
            le=4096,
        ),
    ] = 16
    image_size: Annotated[
        int,
        field(
            "Training",
            "Image size",
            "Images are scaled to this many pixels on the longer side. A multiple of 32, for EfficientDet of 128.",
            unit="px",
            small="small objects vanish, training is fast",
            large="small objects are seen; time and memory grow with the square",
            ge=32,
            le=2048,
        ),
    ] = 640
    patience: Annotated[
        int,
        field(
            "Training",
            "Patience",
            "Stop early after this many epochs without a better result on val. 0 never stops early.",
            unit="epochs",
            small="may stop at a chance dip",
            large="keeps training long after the best epoch",
            ge=0,
            le=10_000,
        ),
    ] = 50
    seed: Annotated[
        int,
        field(
            "Training",
            "Seed",
            "Starting point of all randomness: the same seed and settings give the same training on the same machine.",
            ge=0,
            le=2**31 - 1,
        ),
    ] = 0

    optimizer: Annotated[
        Literal["auto", "SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSProp"],
        field(
            "Learning rate",
            "Optimizer",
            "The rule that turns gradients into updates. “auto” takes AdamW with a fitted learning rate, "
            "for YOLO MuSGD beyond 10 000 steps.",
        ),
    ] = "auto"
    lr: Annotated[
        float | None,
        field(
            "Learning rate",
            "Learning rate",
            "How far each update moves the weights, after warm-up.",
            small="the loss falls at a crawl",
            large="the loss jumps about or explodes. Fine-tuning wants 1e-5 … 1e-4 with Adam",
            auto="chosen for the optimizer",
            gt=0,
            le=1,
        ),
    ] = None
    warmup_lr: Annotated[
        float,
        field(
            "Learning rate",
            "Warm-up learning rate",
            "The rate of the very first step, for every group of weights; it climbs to the learning rate from there.",
            small="0 is the gentlest start",
            large="a start as high as the learning rate itself makes warm-up pointless",
            ge=0,
            le=1,
        ),
    ] = 0.0
    warmup_epochs: Annotated[
        float,
        field(
            "Learning rate",
            "Warm-up length",
            "How long the learning rate climbs. 0 starts at the full rate.",
            unit="epochs",
            small="early steps may throw pretrained weights off",
            large="most of a short training is spent below the learning rate",
            ge=0,
            le=1000,
        ),
    ] = 3.0
    schedule: Annotated[
        Literal["linear", "cosine", "constant"],
        field(
            "Learning rate",
            "Schedule",
            "How the learning rate falls after warm-up: in a straight line, along half a cosine, or not at all.",
        ),
    ] = "linear"
    final_lr_ratio: Annotated[
        float,
        field(
            "Learning rate",
            "Final rate",
            "The last rate as a share of the learning rate: 0.01 ends at a hundredth.",
            unit="× lr",
            small="the last epochs change next to nothing",
            large="the weights do not settle",
            advanced=True,
            ge=0,
            le=1,
        ),
    ] = 0.01
    warmup_bias_lr: Annotated[
        float | None,
        field(
            "Learning rate",
            "Warm-up rate of biases",
            "Lets biases start at a rate of their own; 0.1 is what ultralytics does with SGD.",
            auto="as the warm-up learning rate",
            advanced=True,
            ge=0,
            le=1,
        ),
    ] = None
    momentum: Annotated[
        float | None,
        field(
            "Learning rate",
            "Momentum",
            "How much of the previous updates goes on in the next one; beta 1 of the Adam family.",
            small="updates follow each batch's noise",
            large="updates overshoot",
            auto="0.937, or 0.9 with optimizer “auto”",
            advanced=True,
            ge=0,
            lt=1,
        ),
    ] = None
    warmup_momentum: Annotated[
        float,
        field(
            "Learning rate",
            "Warm-up momentum",
            "Momentum of the first step; it climbs to the momentum during warm-up (SGD and RMSProp only).",
            advanced=True,
            ge=0,
            lt=1,
        ),
    ] = 0.8
    weight_decay: Annotated[
        float,
        field(
            "Learning rate",
            "Weight decay",
            "Pulls weights towards zero a little at each update, against overfitting.",
            small="overfits small data sets",
            large="the model cannot fit the data",
            advanced=True,
            ge=0,
            le=0.1,
        ),
    ] = 0.0005
    nominal_batch_size: Annotated[
        int | None,
        field(
            "Learning rate",
            "Nominal batch size",
            "Gradients of several small batches are added up to about this many images before an update.",
            unit="images",
            auto="64 for YOLO, 16 for EfficientDet",
            by_kernel={"ultralytics": 64, "effdet": 16},
            advanced=True,
            ge=1,
            le=4096,
        ),
    ] = None

    box_loss: Annotated[
        float | None,
        field(
            "Loss",
            "Box loss",
            "Weight of where boxes are.",
            auto="7.5 for YOLO, 50 for EfficientDet",
            by_kernel={"ultralytics": 7.5, "effdet": 50.0},
            advanced=True,
            ge=0,
            le=1000,
        ),
    ] = None
    class_loss: Annotated[
        float | None,
        field(
            "Loss",
            "Class loss",
            "Weight of what boxes hold.",
            auto="0.5 for YOLO, 1 for EfficientDet",
            by_kernel={"ultralytics": 0.5, "effdet": 1.0},
            advanced=True,
            ge=0,
            le=1000,
        ),
    ] = None
    dfl_loss: Annotated[
        float,
        field(
            "Loss",
            "DFL loss",
            "Weight of how sharp box edges are; YOLO only.",
            kernels=("ultralytics",),
            advanced=True,
            ge=0,
            le=100,
        ),
    ] = 1.5

    mosaic: Annotated[
        float,
        field(
            "Augmentation",
            "Mosaic",
            "Chance that four images are laid together into one.",
            small="0 shows images as they are",
            large="objects are seen small and cut off; good for most detectors",
            advanced=True,
            ge=0,
            le=1,
        ),
    ] = 1.0
    close_mosaic: Annotated[
        int,
        field(
            "Augmentation",
            "Close mosaic",
            "Mosaic is off for this many last epochs, so that the model ends on whole images.",
            unit="epochs",
            advanced=True,
            ge=0,
            le=10_000,
        ),
    ] = 10
    mixup: Annotated[
        float,
        field("Augmentation", "Mix-up", "Chance that two images are blended.", advanced=True, ge=0, le=1),
    ] = 0.0
    hue: Annotated[
        float,
        field("Augmentation", "Hue", "How far colours may shift.", advanced=True, ge=0, le=1),
    ] = 0.015
    saturation: Annotated[
        float,
        field("Augmentation", "Saturation", "How far saturation may change.", advanced=True, ge=0, le=1),
    ] = 0.7
    brightness: Annotated[
        float,
        field("Augmentation", "Brightness", "How far brightness may change.", advanced=True, ge=0, le=1),
    ] = 0.4
    rotation: Annotated[
        float,
        field("Augmentation", "Rotation", "Largest angle, either way.", unit="°", advanced=True, ge=0, le=180),
    ] = 0.0
    translate: Annotated[
        float,
        field("Augmentation", "Shift", "Largest shift, as a share of the image.", advanced=True, ge=0, le=1),
    ] = 0.1
    scale: Annotated[
        float,
        field(
            "Augmentation", "Zoom", "Largest zoom in or out: 0.5 is half to one and a half.", advanced=True, ge=0, le=1
        ),
    ] = 0.5
    flip_horizontal: Annotated[
        float,
        field("Augmentation", "Mirror", "Chance of a left-right flip.", advanced=True, ge=0, le=1),
    ] = 0.5
    flip_vertical: Annotated[
        float,
        field("Augmentation", "Upside down", "Chance of an up-down flip.", advanced=True, ge=0, le=1),
    ] = 0.0

    device: Annotated[
        str,
        field(
            "Machine",
            "Device",
            "auto takes the GPU with the most free memory, else the CPU. Or cpu, cuda:0, cuda:1 …, mps.",
            pattern=r"^(auto|cpu|mps|cuda:\d{1,2})$",
        ),
    ] = "auto"
    workers: Annotated[
        int | None,
        field(
            "Machine",
            "Workers",
            "Processes that load and augment images. 0 does it within the training itself.",
            small="a fast GPU waits for images",
            large="memory and cores are wasted",
            auto="0 on CPU, 8 on GPU",
            ge=0,
            le=64,
        ),
    ] = None
    amp: Annotated[
        Literal["auto", "off", "fp16", "bf16"],
        field(
            "Machine",
            "Mixed precision",
            "Half-width arithmetic where it is safe: faster, less memory. auto: fp16 on CUDA, off on a CPU.",
            advanced=True,
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        field("Machine", "CPU threads", "Threads for arithmetic.", auto="all cores", advanced=True, ge=1, le=1024),
    ] = None
    exact_resume: Annotated[
        bool,
        field(
            "Machine",
            "Exact resume",
            "Draws all randomness from counters, so that a stopped training goes on exactly as if it had not been. "
            "Off, the random order is ultralytics' own; YOLO only.",
            kernels=("ultralytics",),
            advanced=True,
        ),
    ] = True

    @model_validator(mode="before")
    @classmethod
    def _size_of_the_model(cls, data: Any) -> Any:
        """Where no image size is given it is the model's own: public weights know objects at that size best."""
        if isinstance(data, dict) and "image_size" not in data:
            model = catalog.MODELS.get(str(data.get("model", default_of("model"))).strip().lower())
            return {**data, "image_size": model.image_size} if model else data
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"must not be {str(value).lower()}")
        return value

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        try:
            return catalog.find(value).name
        except NotFound as e:
            raise ValueError(f"{e.message} {e.hint}") from e

    @field_validator("image_size")
    @classmethod
    def _multiple_of_stride(cls, value: int, info: ValidationInfo) -> int:
        name = info.data.get("model")  # missing while it is wrong itself
        stride = catalog.find(name).stride if name else 32
        if value % stride:
            near = max(stride, round(value / stride) * stride)
            raise ValueError(f"must be a multiple of {stride}{f' for {name}' if stride > 32 else ''}, such as {near}")
        return value

    @field_validator("*")
    @classmethod
    def _has_an_effect(cls, value: Any, info: ValidationInfo) -> Any:
        """What a model knows nothing of may not be set for it: it would be ignored without a word."""
        name, model = str(info.field_name), info.data.get("model")
        kernels, default = property_of(name).get("kernels"), default_of(name)
        if kernels and model and value != default and catalog.find(model).kernel not in kernels:
            keep = "empty" if default is None else f"at {str(default).lower()}"
            raise ValueError(f"does nothing for {model}: leave it {keep}")
        return value

    def settled(self, name: str) -> Any:
        """A setting, or what it comes to for the model's kernel where it is empty (metadata `by_kernel`)."""
        value = getattr(self, name)
        return property_of(name)["by_kernel"][catalog.find(self.model).kernel] if value is None else value

    @field_validator("weights", "dataset", "dataset_hash")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must not hold control characters")
        return value


class Label(BaseModel):
    """What a person calls a version. Unlike the spec it may change at any time."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Annotated[
        str,
        field(
            "Name and tags",
            "Name",
            "A name of your own; left empty, the version's number is its name.",
            max_length=NAME_LENGTH,
        ),
    ] = ""
    tags: Annotated[
        tuple[str, ...],
        field(
            "Name and tags",
            "Tags",
            f"Words to find it by, with commas between; at most {TAG_LENGTH} characters each.",
            max_length=20,
        ),
    ] = ()
    memo: Annotated[
        str,
        field("Name and tags", "Memo", "Anything you want to remember about this version.", max_length=2000),
    ] = ""

    @field_validator("name", "memo", mode="before")
    @classmethod
    def _composed(cls, value: Any) -> Any:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value

    @field_validator("name", "memo")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must not hold control characters")
        return value

    @field_validator("name")
    @classmethod
    def _not_a_number(cls, value: str) -> str:
        if re.fullmatch(r"V_\d+", value, re.IGNORECASE):
            raise ValueError(f"“{value}” is how versions are numbered; choose another name")
        return value

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not all(isinstance(p, str) for p in given):
            return value
        parts = (unicodedata.normalize("NFC", p).strip().lstrip("#").strip() for text in given for p in text.split(","))
        return tuple(dict.fromkeys(p for p in parts if p))

    @field_validator("tags")
    @classmethod
    def _short(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tag in value:
            if len(tag) > TAG_LENGTH:
                raise ValueError(f"“{tag}” has {len(tag)} characters; a tag has at most {TAG_LENGTH}")
            if not tag.isprintable():
                raise ValueError("a tag must not hold control characters")
        return value


def problems(data: dict[str, Any], model: type[BaseModel] = Spec) -> list[Problem]:
    """Everything wrong with `data`, one Problem a field, in the order of the form. Empty when it is a spec."""
    try:
        model.model_validate(data)
    except ValidationError as e:
        return [_plain(error, model) for error in e.errors(include_url=False)]
    return []


def parse(data: dict[str, Any]) -> Spec:
    """The spec in `data`. Raises Invalid with every problem at once."""
    found = problems(data)
    if found:
        raise Invalid(found)
    return Spec.model_validate(data)


def parse_label(data: dict[str, Any]) -> Label:
    """The label in `data`. Raises Invalid with every problem at once."""
    found = problems(data, Label)
    if found:
        raise Invalid(found, code="BAD_LABEL")
    return Label.model_validate(data)


def _plain(error: Any, model: type[BaseModel]) -> Problem:
    """pydantic's words, in ours: what is allowed, and what was given."""
    name = str(error["loc"][0]) if error["loc"] else "spec"
    given, context, kind = error.get("input"), error.get("ctx", {}), error["type"]
    limits = range_text(name, model)
    if kind == "extra_forbidden":
        import difflib

        close = difflib.get_close_matches(name, model.model_fields, 1)
        return Problem(name, "is not a setting" + (f"; did you mean {close[0]}?" if close else ""))
    if kind == "missing":
        return Problem(name, "is missing")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return Problem(name, f"must be {limits}, not {given}")
    if kind.startswith(("int_", "float_")) or kind == "finite_number":
        what = "a whole number" if kind.startswith("int_") else "a number"
        return Problem(name, f"must be {what}{f', {limits}' if limits else ''}, not {given!r}")
    if kind == "literal_error":
        return Problem(name, f"must be one of {', '.join(choices(name, model))}, not {given!r}")
    if kind.startswith("bool_"):
        return Problem(name, f"must be true or false, not {given!r}")
    if kind == "string_pattern_mismatch":
        return Problem(name, f"must be auto, cpu, mps or cuda:N, not {given!r}")
    if kind == "string_type":
        return Problem(name, f"must be text, not {given!r}")
    if kind in ("string_too_long", "string_too_short"):
        bound = context.get("max_length", context.get("min_length"))
        return Problem(name, f"must have at {'most' if 'max_length' in context else 'least'} {bound} characters")
    if kind == "value_error":
        return Problem(name, str(context.get("error", error["msg"])))
    return Problem(name, str(error["msg"])[:1].lower() + str(error["msg"])[1:])


@cache
def schema(model: type[BaseModel] = Spec) -> dict[str, Any]:
    """JSON Schema of the spec, as `dojang schema` prints it and the form is made from it."""
    return model.model_json_schema()


def property_of(name: str, model: type[BaseModel] = Spec) -> dict[str, Any]:
    """The schema of one field; the non-null branch is folded in where a field may be empty."""
    found: dict[str, Any] = dict(schema(model)["properties"].get(name, {}))
    for branch in found.pop("anyOf", []):
        if branch.get("type") == "null":
            found["nullable"] = True
        else:
            found.update(branch)
    return found


def choices(name: str, model: type[BaseModel] = Spec) -> list[str]:
    """What a field may be, where that is a list."""
    if name == "model" and model is Spec:
        return list(catalog.MODELS)
    return [str(v) for v in property_of(name, model).get("enum", [])]


def range_text(name: str, model: type[BaseModel] = Spec) -> str:
    """A field's range in words, such as “1 – 10 000”; empty where there is none."""
    prop = property_of(name, model)
    low, high = prop.get("minimum", prop.get("exclusiveMinimum")), prop.get("maximum", prop.get("exclusiveMaximum"))
    if low is None or high is None:
        return ""
    if "exclusiveMinimum" in prop:
        return f"above {_number(low)}, up to {_number(high)}"
    if "exclusiveMaximum" in prop:
        return f"from {_number(low)}, below {_number(high)}"
    return f"{_number(low)} – {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if float(value).is_integer() else f"{value:g}"


def default_of(name: str, model: type[BaseModel] = Spec) -> Any:
    """A field's default, or None where it has none."""
    found = model.model_fields[name]
    return None if found.is_required() else found.get_default()


def changed(spec: Spec) -> list[str]:
    """Names of the settings that differ from their defaults, in the order of the form."""
    skip = {"dataset", "dataset_hash"}
    own = {"image_size": catalog.find(spec.model).image_size}
    return [n for n in Spec.model_fields if n not in skip and getattr(spec, n) != own.get(n, default_of(n))]


def to_toml(spec: Spec) -> dict[str, Any]:
    """The spec as `spec.toml` holds it: every value that is not empty."""
    return {k: v for k, v in spec.model_dump().items() if v is not None}


def resolved_optimizer(spec: Spec, classes: int, steps: int) -> tuple[str, float, float]:
    """Optimizer, learning rate and momentum that a training of `steps` batches will really use.

    “auto” follows ultralytics for its models: AdamW with a rate fitted to the classes up to 10 000 steps, MuSGD beyond.
    For EfficientDet it is AdamW, fine-tuning at a fifth of the rate that random weights want.
    """
    if spec.optimizer == "auto" and catalog.find(spec.model).kernel == "effdet":
        lr = _EFFDET_LR * (1 if spec.weights == "scratch" else 0.2)
        together = max(spec.batch_size, spec.settled("nominal_batch_size"))
        lr = round(lr * min(2.0, math.sqrt(together / 16)), 6)  # Adam's steps grow with the root of the batch
        return "AdamW", spec.lr or lr, 0.9 if spec.momentum is None else spec.momentum
    if spec.optimizer == "auto":
        name, lr = ("MuSGD", 0.01) if steps > 10_000 else ("AdamW", round(0.002 * 5 / (4 + classes), 6))
        return name, spec.lr or lr, 0.9 if spec.momentum is None else spec.momentum
    usual = {"SGD": 0.01, "RMSProp": 0.001}.get(spec.optimizer, 0.001)
    return spec.optimizer, spec.lr or usual, 0.937 if spec.momentum is None else spec.momentum


def advice(spec: Spec, classes: int, steps: int, train_images: int) -> list[str]:
    """Warnings worth a second look before the start; none of them forbids it."""
    name, lr, _ = resolved_optimizer(spec, classes, steps)
    found = []
    adam = name in ("Adam", "AdamW", "NAdam", "RAdam")
    if adam and lr >= 0.01:
        found.append(f"Learning rate {lr:g} is high for {name}: the loss may explode. 0.001 is usual.")
    if name in ("SGD", "MuSGD") and lr > 0.1:
        found.append(f"Learning rate {lr:g} is high for {name}: 0.01 is usual.")
    if lr <= 1e-6:
        found.append(f"Learning rate {lr:g} is so low that next to nothing will be learned.")
    if spec.weights != "scratch" and adam and lr > 1e-3:
        found.append("Fine-tuning from trained weights usually wants 1e-5 … 1e-4 with the Adam family.")
    if spec.warmup_lr > lr:
        found.append(
            f"The warm-up learning rate {spec.warmup_lr:g} is above the learning rate {lr:g}: it will fall, not climb."
        )
    if spec.warmup_epochs >= spec.epochs and spec.epochs > 1:
        found.append("Warm-up is as long as the training: it is cut so that the last epoch is left.")
    if spec.batch_size > train_images > 0:
        found.append(f"The batch is larger than the {train_images} training images.")
    if spec.weights == "scratch" and train_images and train_images < 1000 and spec.epochs < 100:
        found.append(f"{train_images} images from scratch: expect modest results; pretrained weights help most here.")
    return found
