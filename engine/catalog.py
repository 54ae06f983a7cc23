"""Every model that can be trained: facts that a person chooses by, kept apart from the libraries that build them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import NotFound


@dataclass(frozen=True, slots=True)
class Model:
    """One trainable model. `parameters` in millions at `classes=80`; `pretrained` is the file of its public weights."""

    name: str
    family: str
    kernel: str
    task: str
    image_size: int
    parameters: float
    config: str
    pretrained: str
    trained_on: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# Parameter counts: built from the library's own configurations with 80 classes.
_YOLO_SIZES = {
    "YOLOv5": {"n": 2.65, "s": 9.15, "m": 25.12, "l": 53.26, "x": 97.30},
    "YOLOv8": {"n": 3.16, "s": 11.17, "m": 25.90, "l": 43.69, "x": 68.23},
}


def _yolo() -> list[Model]:
    models = []
    for family, sizes in _YOLO_SIZES.items():
        stem = family.lower()
        for size, parameters in sizes.items():
            # The library trains every YOLOv5 as its anchor-free "u" model, and its weights carry that letter.
            pretrained = f"{stem}{size}{'u' if stem == 'yolov5' else ''}.pt"
            name = f"{stem}{size}"
            models.append(
                Model(name, family, "ultralytics", "detect", 640, parameters, f"{name}.yaml", pretrained, "COCO")
            )
    return models


MODELS: dict[str, Model] = {m.name: m for m in _yolo()}


def find(name: str) -> Model:
    """The model of that name. Raises NotFound with the closest names."""
    model = MODELS.get(name.strip().lower())
    if model:
        return model
    import difflib

    close = difflib.get_close_matches(name.lower(), MODELS, 3)
    raise NotFound(
        f"There is no model “{name}”.",
        hint=(f"Did you mean {', '.join(close)}? " if close else "") + "`dojang models` lists them all.",
    )
