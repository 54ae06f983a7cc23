"""What a spec comes to on its data, and what is worth a second look before the start."""

from __future__ import annotations

import math

from engine import catalog
from engine.spec.whole import Spec

_EFFDET_LR = 2e-3  # of AdamW at 16 images an update, from random weights (measured)


def resolved_optimizer(spec: Spec, classes: int, steps: int) -> tuple[str, float, float]:
    """Optimizer, learning rate and momentum that a training of `steps` batches will really use.

    “auto” follows ultralytics for its models: AdamW with a rate fitted to the classes up to 10 000 steps, MuSGD beyond.
    For EfficientDet it is AdamW, fine-tuning at a fifth of the rate that random weights want.
    """
    if spec.optimizer == "auto" and catalog.find(spec.model).kernel == "effdet":
        lr = _EFFDET_LR * (1 if spec.weights == "scratch" else 0.2)
        together = max(spec.images_per_step, spec.settled("nominal_batch_size"))
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
