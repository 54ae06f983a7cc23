"""What is learned by which model, and for how long."""

from __future__ import annotations

from typing import Annotated

from engine.spec.fields import Part, field


class DataAndModel(Part):
    """What is learned, and what learns it."""

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
            "Which network is trained. Within a family the name tells its size: n … x, d0 … d7, 18 … 101, b0 … b4.",
            small="quick to train and to run, less accurate on hard images",
            large="more accurate with enough data, slower, needs more memory, overfits small data sets",
        ),
    ] = "yolov8n"
    weights: Annotated[
        str,
        field(
            "Model",
            "Start from",
            "“scratch”: random weights. “pretrained”: the public weights, from a file at hand. Or the path of a file, the name of an imported one, or a version (V_3).",
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
    freeze: Annotated[
        str,
        field(
            "Model",
            "Freeze",
            "Layers that keep the weights they start with. none: all learn; features: the backbone is frozen; but-last: only "
            "the last layer learns; a number: so many first blocks are frozen; last-N: the last N blocks and the head learn.",
            small="none: needs the most images and time, ends the most accurate",
            large="but-last: quick, and enough where the images are like those the weights were trained on",
            advanced=True,
            pattern=r"^(auto|none|features|but-last|\d{1,3}|last-\d{1,3})$",
            pattern_text="auto, none, features, but-last, a number, or last- and a number",
        ),
    ] = "auto"
    dropout: Annotated[
        float | None,
        field(
            "Model",
            "Dropout",
            "Share of a classifier's last features that each step leaves out, against overfitting.",
            small="overfits small data sets",
            large="the model cannot fit the data",
            auto="the model's own",
            kernels=("torchvision",),
            advanced=True,
            ge=0,
            lt=1,
        ),
    ] = None
    feature_views: Annotated[
        int | None,
        field(
            "Model",
            "Feature views",
            "With frozen features: how many augmented views of each image are computed once and then reused in every epoch. "
            "0 computes features anew in every epoch.",
            unit="views",
            small="fastest; less variety",
            large="more variety; longer to prepare, more disk",
            auto="chosen by what pays",
            kernels=("torchvision",),
            advanced=True,
            ge=0,
            le=64,
            zero="anew in every epoch",
        ),
    ] = None
    options: Annotated[
        dict[str, bool | int | float | str],
        field(
            "Model",
            "Own settings",
            "Settings that only this model's kernel knows, as name = value with commas between. Models of installed packages "
            "and of declared programs may have some: `dojang kernel list` names them.",
            advanced=True,
        ),
    ] = {}
    download: Annotated[
        bool,
        field(
            "Model",
            "May download",
            "Whether the pretrained weights may be fetched from the library's public address when no file is at hand.",
        ),
    ] = False


class Training(Part):
    """How long, and how much at once."""

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
            "How many images make one step. 0: as many as fit the GPU's memory; 16 on a CPU.",
            unit="images",
            small="noisy updates, slow on a GPU",
            large="needs more memory; wants a higher learning rate",
            ge=0,
            le=4096,
            zero="as many as fit",
        ),
    ] = 16
    image_size: Annotated[
        int,
        field(
            "Training",
            "Image size",
            "Images are scaled to this many pixels: detectors the longer side, in steps of 32, EfficientDet of 128; classifiers a "
            "square crop.",
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
            zero="never stops early",
        ),
    ] = 50
    val_every: Annotated[
        int,
        field(
            "Training",
            "Evaluate every",
            "Evaluate on val after every so many epochs, and always after the last and in the last tenth.",
            unit="epochs",
            small="the best weights are found exactly",
            large="saves time where val is large; the best epoch may be missed",
            advanced=True,
            ge=1,
            le=1000,
        ),
    ] = 1
    ema: Annotated[
        bool,
        field(
            "Training",
            "Average weights",
            "Evaluate and keep a running average of the weights (EMA) instead of those of the last step: steadier.",
            advanced=True,
        ),
    ] = True
    ema_decay: Annotated[
        float | None,
        field(
            "Training",
            "EMA decay",
            "Share of the averaged weights that each update keeps.",
            small="follows the latest steps",
            large="averages over more steps; lags in a short training",
            auto="grows with the updates, as the model's library has it",
            advanced=True,
            ge=0,
            lt=1,
            when={"ema": ("true",)},
        ),
    ] = None
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
