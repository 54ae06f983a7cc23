"""How far each update moves the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from engine.spec.fields import Part, field

FALLING = {"schedule": ("linear", "cosine", "one-cycle")}
WITH_WARMUP = {"schedule": ("linear", "cosine", "constant", "step", "cyclic")}


class Rates(Part):
    """Optimizer, learning rate, and how it changes over the training."""

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
            when=WITH_WARMUP,
            zero="no warm-up",
        ),
    ] = 3.0
    warmup_steps: Annotated[
        int | None,
        field(
            "Learning rate",
            "Warm-up steps",
            "Length of the warm-up in steps, where epochs are too coarse a measure.",
            unit="steps",
            auto="as long as the warm-up epochs",
            advanced=True,
            ge=0,
            le=10_000_000,
            when=WITH_WARMUP,
        ),
    ] = None
    schedule: Annotated[
        Literal["linear", "cosine", "constant", "step", "cyclic", "one-cycle"],
        field(
            "Learning rate",
            "Schedule",
            "What the learning rate does after warm-up. linear and cosine fall to the final rate; step falls by a factor every "
            "so many epochs; cyclic goes down and up again; one-cycle climbs over the first part, then falls to the end.",
        ),
    ] = "linear"
    final_lr: Annotated[
        float | None,
        field(
            "Learning rate",
            "Final learning rate",
            "The last rate in its own right. Empty: a share of the learning rate, see Final rate.",
            auto="final rate × learning rate",
            advanced=True,
            ge=0,
            le=1,
            when=FALLING,
        ),
    ] = None
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
            when=FALLING,
        ),
    ] = 0.01
    step_gamma: Annotated[
        float,
        field(
            "Learning rate",
            "Step factor",
            "Schedule step: what the rate is multiplied by at each fall.",
            unit="×",
            gt=0,
            le=1,
            when={"schedule": ("step",)},
        ),
    ] = 0.1
    step_every: Annotated[
        float,
        field(
            "Learning rate",
            "Step every",
            "Schedule step: epochs between two falls.",
            unit="epochs",
            gt=0,
            le=10_000,
            when={"schedule": ("step",)},
        ),
    ] = 30.0
    cycle_epochs: Annotated[
        float,
        field(
            "Learning rate",
            "Cycle length",
            "Schedule cyclic: epochs from one peak to the next, in straight lines down and up.",
            unit="epochs",
            gt=0,
            le=10_000,
            when={"schedule": ("cyclic",)},
        ),
    ] = 10.0
    cycle_low_ratio: Annotated[
        float,
        field(
            "Learning rate",
            "Cycle low",
            "Schedule cyclic: the lowest rate of each cycle as a share of the learning rate.",
            unit="× lr",
            ge=0,
            le=1,
            when={"schedule": ("cyclic",)},
        ),
    ] = 0.1
    rise_share: Annotated[
        float,
        field(
            "Learning rate",
            "Rise",
            "Schedule one-cycle: share of the training in which the rate climbs, from the warm-up learning rate to the "
            "learning rate. It replaces warm-up.",
            gt=0,
            lt=1,
            when={"schedule": ("one-cycle",)},
        ),
    ] = 0.3
    backbone_lr_ratio: Annotated[
        float,
        field(
            "Learning rate",
            "Backbone rate",
            "Learning rate of the backbone as a share of the head's. Trained weights are kept better by less than 1.",
            unit="× lr",
            small="the backbone hardly changes",
            large="the backbone learns as fast as the new head",
            advanced=True,
            ge=0,
            le=10,
        ),
    ] = 1.0
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
    momentum_warmup: Annotated[
        bool,
        field(
            "Learning rate",
            "Momentum warm-up",
            "Whether momentum climbs during warm-up too. Off, it is the same from the first step.",
            advanced=True,
        ),
    ] = True
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
            auto="64 for YOLO, 8 for EfficientDet, 16 for classifiers",
            by_kernel={"ultralytics": 64, "effdet": 8, "torchvision": 16},
            advanced=True,
            ge=1,
            le=4096,
        ),
    ] = None
    clip: Annotated[
        float | None,
        field(
            "Learning rate",
            "Clip gradients",
            "Gradients longer than this are shortened to it, which keeps one odd batch from throwing the weights off. 0 never.",
            small="slows learning down",
            large="lets an odd batch through",
            auto="10 for YOLO and classifiers, 1 for EfficientDet",
            by_kernel={"ultralytics": 10.0, "effdet": 1.0, "torchvision": 10.0},
            advanced=True,
            ge=0,
            le=10_000,
            zero="never",
        ),
    ] = None
