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


# Parameter counts in millions: built from the library's own configurations with 80 classes, both heads of a model that
# has two. The newest families stand last; YOLOv3 is there for those who must compare with it.
_YOLO_SIZES = {
    "YOLOv5": {"n": 2.65, "s": 9.15, "m": 25.11, "l": 53.23, "x": 97.28},
    "YOLOv8": {"n": 3.16, "s": 11.17, "m": 25.90, "l": 43.69, "x": 68.23},
    "YOLOv9": {"t": 2.13, "s": 7.32, "m": 20.22, "c": 25.59, "e": 58.21},
    "YOLOv10": {"n": 2.78, "s": 8.13, "m": 16.58, "b": 20.57, "l": 25.89, "x": 31.81},
    "YOLO11": {"n": 2.62, "s": 9.46, "m": 20.11, "l": 25.37, "x": 56.97},
    "YOLO12": {"n": 2.60, "s": 9.28, "m": 20.20, "l": 26.45, "x": 59.21},
    "YOLO26": {"n": 2.57, "s": 10.01, "m": 21.90, "l": 26.30, "x": 58.99},
    "YOLOv3": {"": 103.75, "-spp": 104.80, "-tiny": 12.17},
}
# The library trains these as anchor-free "u" models, and their weights carry that letter.
_YOLO_RENEWED = ("YOLOv5", "YOLOv3")


def _yolo() -> list[Model]:
    models = []
    for family, sizes in _YOLO_SIZES.items():
        for size, parameters in sizes.items():
            name = f"{family.lower()}{size}"
            pretrained = f"{name}{'u' if family in _YOLO_RENEWED else ''}.pt"
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


# Image size, parameters, and the public weights that the library itself takes by default.
_CLASSIFIERS = {
    "VGG": {
        "vgg16": (224, 134.59, "vgg16-397923af"),
        "vgg16_bn": (224, 134.60, "vgg16_bn-6c64b313"),
        "vgg19": (224, 139.90, "vgg19-dcbb9e9d"),
    },
    "ResNet": {
        "resnet18": (224, 11.22, "resnet18-f37072fd"),
        "resnet34": (224, 21.33, "resnet34-b627a593"),
        "resnet50": (224, 23.67, "resnet50-11ad3fa6"),
        "resnet101": (224, 42.66, "resnet101-cd907fc2"),
    },
    "EfficientNet": {
        "efficientnet_b0": (224, 4.11, "efficientnet_b0_rwightman-7f5810bc"),
        "efficientnet_b1": (240, 6.62, "efficientnet_b1-c27df63c"),
        "efficientnet_b2": (288, 7.81, "efficientnet_b2_rwightman-c35c1473"),
        "efficientnet_b3": (300, 10.82, "efficientnet_b3_rwightman-b3899882"),
        "efficientnet_b4": (380, 17.69, "efficientnet_b4_rwightman-23ab8bcd"),
    },
    "MobileNetV3": {
        "mobilenet_v3_small": (224, 1.60, "mobilenet_v3_small-047dcff4"),
        "mobilenet_v3_large": (224, 4.30, "mobilenet_v3_large-5c1a4163"),
    },
    "ConvNeXt": {
        "convnext_tiny": (224, 27.88, "convnext_tiny-983f1562"),
        "convnext_small": (224, 49.52, "convnext_small-0c510722"),
    },
    "ViT": {"vit_b_16": (224, 85.86, "vit_b_16-c867db91")},
}


def _torchvision() -> list[Model]:
    """Classifiers. They take images of any size, but for ViT, which cuts them into squares of 16 pixels."""
    return [
        Model(
            name=name,
            family=family,
            kernel="torchvision",
            task="classify",
            image_size=size,
            parameters=parameters,
            config=name,
            pretrained=f"{file}.pth",
            trained_on="ImageNet",
            stride=16 if family == "ViT" else 1,
        )
        for family, models in _CLASSIFIERS.items()
        for name, (size, parameters, file) in models.items()
    ]


MODELS: dict[str, Model] = {m.name: m for m in (*_yolo(), *_efficientdet(), *_torchvision())}


BUILT_IN = ("ultralytics", "effdet", "torchvision")
"""The kernels that dojang brings itself."""


def models() -> dict[str, Model]:
    """Every model by name: dojang's own, then those of installed packages and of programs declared in the workspace."""
    from engine import plugins

    return {**MODELS, **plugins.models()}


def find(name: str) -> Model:
    """The model of that name. Raises NotFound with the closest names.

    Only a name that is not dojang's own makes it look at what else is installed: that takes some milliseconds.
    """
    wanted = name.strip().lower()
    model = MODELS.get(wanted)
    if model:
        return model
    every = models()
    if wanted in every:
        return every[wanted]
    import difflib

    close = difflib.get_close_matches(wanted, every, 3)
    raise NotFound(
        f"There is no model “{name}”.",
        hint=(f"Did you mean {', '.join(close)}? " if close else "") + "`dojang models` lists them all.",
    )
