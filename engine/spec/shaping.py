"""What counts as an error, and how images are varied."""

from __future__ import annotations

from typing import Annotated

from engine.spec.fields import Part, field


class Loss(Part):
    """What the model is punished for."""

    box_loss: Annotated[
        float | None,
        field(
            "Loss",
            "Box loss",
            "Weight of where boxes are.",
            auto="7.5 for YOLO, 50 for EfficientDet",
            kernels=("ultralytics", "effdet"),
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
            kernels=("ultralytics", "effdet"),
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
    label_smoothing: Annotated[
        float,
        field(
            "Loss",
            "Label smoothing",
            "How much of the certainty is taken off the labels: 0.1 teaches nine tenths sure.",
            small="labels are taken at their word",
            large="the model is never sure of anything",
            kernels=("effdet", "torchvision"),
            advanced=True,
            ge=0,
            le=0.5,
        ),
    ] = 0.0
    class_weights: Annotated[
        float,
        field(
            "Loss",
            "Class weights",
            "Weighs rare classes up: the power of one over how often a class occurs. 0 weighs all alike, 1 evens them out.",
            small="rare classes are learned late",
            large="common classes suffer",
            advanced=True,
            ge=0,
            le=1,
        ),
    ] = 0.0


class Augmentation(Part):
    """How images are varied."""

    mosaic: Annotated[
        float | None,
        field(
            "Augmentation",
            "Mosaic",
            "Chance that four images are laid together into one.",
            small="0 shows images as they are",
            large="objects are seen small and cut off; good for most detectors",
            auto="1 for YOLO, 0 for EfficientDet",
            kernels=("ultralytics", "effdet"),
            by_kernel={"ultralytics": 1.0, "effdet": 0.0},
            advanced=True,
            ge=0,
            le=1,
        ),
    ] = None
    close_mosaic: Annotated[
        int,
        field(
            "Augmentation",
            "Close mosaic",
            "Mosaic is off for this many last epochs, so that the model ends on whole images.",
            unit="epochs",
            kernels=("ultralytics", "effdet"),
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
    multi_scale: Annotated[
        float,
        field(
            "Augmentation",
            "Multi-scale",
            "Each step's images are scaled by up to this share, down or up; YOLO only.",
            kernels=("ultralytics",),
            advanced=True,
            ge=0,
            le=0.9,
        ),
    ] = 0.0
