"""The spec as one model, and what its schema says of each field."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationInfo, field_validator, model_validator

from engine import catalog, options, plugins
from engine.errors import NotFound
from engine.spec.machine import Machine
from engine.spec.rates import Rates
from engine.spec.shaping import Augmentation, Loss
from engine.spec.training import DataAndModel, Training

ASSUMED_BATCH = 16


class Spec(Machine, Augmentation, Loss, Rates, Training, DataAndModel):
    """One training, whole. Locked once started."""

    @model_validator(mode="before")
    @classmethod
    def _size_of_the_model(cls, data: Any) -> Any:
        """Where no image size is given it is the model's own: public weights know objects at that size best."""
        if isinstance(data, dict) and "image_size" not in data:
            try:
                model = catalog.find(str(data.get("model", default_of("model"))))
            except NotFound:  # told of the model itself
                return data
            return {**data, "image_size": model.image_size}
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

    @field_validator("options", mode="before")
    @classmethod
    def _declared_options(cls, value: Any, info: ValidationInfo) -> Any:
        """A kernel's own settings are held against what it declares; those that are not given get its defaults."""
        model = info.data.get("model")  # missing while it is wrong itself
        return plugins.options_of(catalog.find(model).kernel).settle(options.given(value)) if model else {}

    @field_validator("*")
    @classmethod
    def _suits_a_foreign_kernel(cls, value: Any, info: ValidationInfo) -> Any:
        """Models from outside may know little of these settings; what they would ignore is refused."""
        name, model = str(info.field_name), info.data.get("model")
        if model and model not in catalog.MODELS and (value != default_of(name) or name == "gpus"):
            wrong = plugins.objection(catalog.find(model), name, value, default_of(name))
            if wrong:
                raise ValueError(wrong)
        return value

    def settled(self, name: str) -> Any:
        """A setting, or what it comes to for the model's kernel where it is empty (metadata `by_kernel`)."""
        value, kernel = getattr(self, name), catalog.find(self.model).kernel
        if value is not None:
            return value
        known = property_of(name)["by_kernel"]
        if kernel in known:
            return known[kernel]
        own = plugins.settled(kernel, name)
        return known["ultralytics"] if own is None else own

    @property
    def images_per_step(self) -> int:
        """The batch size; what is assumed of it before the start where it is left to the GPU's memory."""
        return self.batch_size or ASSUMED_BATCH

    @property
    def settled_freeze(self) -> str:
        """`freeze`, or what “auto” comes to: classifiers that start from trained weights learn their last layer only."""
        if self.freeze != "auto":
            return self.freeze
        model = catalog.find(self.model)
        trained = self.weights != "scratch" or model.name.startswith("vgg")
        return "but-last" if model.task == "classify" and trained else "none"

    @field_validator("weights", "dataset", "dataset_hash")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must not hold control characters")
        return value


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
        return list(catalog.models())
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
    model = catalog.find(spec.model)
    own = {"image_size": model.image_size, "options": plugins.options_of(model.kernel).defaults}
    return [n for n in Spec.model_fields if n not in skip and getattr(spec, n) != own.get(n, default_of(n))]


def to_toml(spec: Spec) -> dict[str, Any]:
    """The spec as `spec.toml` holds it: every value that is not empty."""
    return {k: v for k, v in spec.model_dump().items() if v is not None and v != {}}
