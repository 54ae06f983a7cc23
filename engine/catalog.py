"""Every model that can be trained: facts that a person chooses by, kept apart from the libraries that build them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import NotFound


@dataclass(frozen=True, slots=True)
class Model:
    """One trainable model. `parameters` in millions at `classes=80`; `pretrained` is the file of its public weights.

    `image_size` is what those weights were trained at, `stride` what any image size is a multiple of, both in pixels.
    """

    name: str
    family: str
    kernel: str
    task: str
    image_size: int
    parameters: float
    config: str
    pretrained: str
    trained_on: str
    stride: int = 32

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


# Image size, parameters, and the public weights as the library's own configuration names them.
_EFFICIENTDET = (
    (512, 3.87, "d0_34-f153e0cf"),
    (640, 6.62, "d1_40-a30f94af"),
    (768, 8.09, "d2_43-8107aa99"),
    (896, 12.02, "d3_47-0b525f35"),
    (1024, 20.70, "d4_49-f56376d9"),
    (1280, 33.63, "d5_51-c79f9be6"),
    (1280, 51.84, "d6_52-4eda3773"),
    (1536, 51.84, "d7_53-6d1d7a95"),
)


def _efficientdet() -> list[Model]:
    """D0 to D7 as Google built them: the library's `tf_` models are the only ones that all have public weights."""
    return [
        Model(
            name=f"efficientdet_d{number}",
            family="EfficientDet",
            kernel="effdet",
            task="detect",
            image_size=size,
            parameters=parameters,
            config=f"tf_efficientdet_d{number}",
            pretrained=f"tf_efficientdet_{file}.pth",
            trained_on="COCO",
            stride=128,  # of the coarsest level: anchors lie on whole pixels only then
        )
        for number, (size, parameters, file) in enumerate(_EFFICIENTDET)
    ]


MODELS: dict[str, Model] = {m.name: m for m in (*_yolo(), *_efficientdet())}


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
