"""What a spec comes to on its data, and what is worth a second look before the start."""

from __future__ import annotations

import math

from engine import catalog
from engine.spec.whole import Spec

_EFFDET_LR = 2e-3  # of AdamW at 16 images an update, from random weights (measured)


def resolved_optimizer(spec: Spec, classes: int, steps: int) -> tuple[str, float, float]:
    """Optimizer, learning rate and momentum that a training of `steps` batches will really use.

    “auto” follows ultralytics for its models: AdamW with a rate fitted to the classes up to 10 000 steps, MuSGD beyond.
    For EfficientDet it is AdamW, fine-tuning at a fifth of the rate that random weights want; for classifiers AdamW too.
    """
    if spec.optimizer == "auto" and catalog.find(spec.model).kernel == "effdet":
        lr = _EFFDET_LR * (1 if spec.weights == "scratch" else 0.2)
        together = max(spec.images_per_step, spec.settled("nominal_batch_size"))
        lr = round(lr * min(2.0, math.sqrt(together / 16)), 6)  # Adam's steps grow with the root of the batch
        return "AdamW", spec.lr or lr, 0.9 if spec.momentum is None else spec.momentum
    if spec.optimizer == "auto" and catalog.find(spec.model).kernel == "torchvision":
        together = max(spec.images_per_step, spec.settled("nominal_batch_size"))
        lr = round(_classifier_rate(spec) * min(2.0, math.sqrt(together / 16)), 6)
        return "AdamW", spec.lr or lr, 0.9 if spec.momentum is None else spec.momentum
    if spec.optimizer == "auto":
        name, lr = ("MuSGD", 0.01) if steps > 10_000 else ("AdamW", round(0.002 * 5 / (4 + classes), 6))
        return name, spec.lr or lr, 0.9 if spec.momentum is None else spec.momentum
    usual = {"SGD": 0.01, "RMSProp": 0.001}.get(spec.optimizer, 0.001)
    return spec.optimizer, spec.lr or usual, 0.937 if spec.momentum is None else spec.momentum


def _classifier_rate(spec: Spec) -> float:
    """AdamW's rate at 16 images an update: one new layer learns fast, trained layers slowly, deep ones without norms too."""
    if spec.settled_freeze == "but-last":
        return 1e-3
    if spec.weights != "scratch":
        return 1e-4
    fragile = spec.model in ("vgg16", "vgg19") or spec.model.startswith(("vit", "convnext"))
    return 1e-4 if fragile else 5e-4


_ADAM = ("Adam", "AdamW", "NAdam", "RAdam")
_SGD = ("SGD", "MuSGD")


def advice(spec: Spec, classes: int, steps: int, train_images: int) -> list[str]:
    """Warnings worth a second look before the start; none of them forbids it. `steps` are updates of the weights."""
    name, lr, _ = resolved_optimizer(spec, classes, steps)
    given = [] if spec.lr is None else [*_on_rate(spec, name, lr), *_on_batch(spec, name, lr)]  # else it is ours
    return [*given, *_on_schedule(spec, lr, train_images), *_on_data(spec, train_images)]


def _on_rate(spec: Spec, name: str, lr: float) -> list[str]:
    """A learning rate of one's own, by optimizer and by where the weights come from."""
    scratch = spec.weights == "scratch"
    if lr <= 1e-6:
        return [f"Learning rate {lr:g} is so low that next to nothing will be learned."]
    if name in _ADAM:
        if lr >= 0.01:
            return [f"Learning rate {lr:g} is high for {name}: the loss may explode. 0.001 is usual."]
        if not scratch and lr > 1e-3:
            return [f"Fine-tuning from trained weights usually wants 1e-5 … 1e-4 with {name}, not {lr:g}."]
        if scratch and lr < 1e-4:
            return [f"Learning rate {lr:g} is low for {name} from random weights: 0.001 is usual."]
    if name in _SGD:
        if lr > 0.1:
            return [f"Learning rate {lr:g} is high for {name}: 0.01 is usual."]
        if not scratch and lr > 0.01:
            return [f"Fine-tuning from trained weights usually wants 0.001 … 0.01 with {name}, not {lr:g}."]
    if name == "RMSProp" and lr >= 0.01:
        return [f"Learning rate {lr:g} is high for RMSProp: the loss may explode. 0.001 is usual."]
    return []


def _on_batch(spec: Spec, name: str, lr: float) -> list[str]:
    """A rate of one's own beside a batch of another size than rates are usually given for."""
    size = spec.images_per_step
    nominal = spec.settled("nominal_batch_size") or size
    together = size * max(round(nominal / size), 1)
    ratio = together / nominal
    if 2 / 3 < ratio < 1.5:
        return []
    linear = name in _SGD
    wanted = lr * (ratio if linear else math.sqrt(ratio))
    usual = 0.01 if linear else 0.001
    if abs(math.log(lr / (usual * wanted / lr))) < math.log(1.25):  # it has been scaled
        return []
    how = "grows with the batch" if linear else "grows with the root of the batch"
    return [
        f"Each update sees {together} images. If {lr:g} was chosen for the usual {nominal}, about {wanted:.2g} does the "
        f"same here: with {name} the rate {how}."
    ]


def _on_schedule(spec: Spec, lr: float, train_images: int) -> list[str]:
    """What the rate does over the training."""
    found = []
    per_epoch = max(1, math.ceil(train_images / spec.images_per_step))
    warm = spec.warmup_epochs if spec.warmup_steps is None else spec.warmup_steps / per_epoch
    if spec.warmup_lr > lr:
        found.append(
            f"The warm-up learning rate {spec.warmup_lr:g} is above the learning rate {lr:g}: it will fall, not climb."
        )
    if spec.schedule != "one-cycle" and warm >= spec.epochs > 1:
        found.append("Warm-up is as long as the training: it is cut so that the last epoch is left.")
    if spec.schedule == "step" and spec.step_every >= spec.epochs:
        found.append(f"The rate never falls: {spec.step_every:g} epochs to the first step, and {spec.epochs} in all.")
    if spec.schedule == "cyclic" and spec.cycle_epochs > spec.epochs:
        found.append(f"The training ends within its first cycle: {spec.cycle_epochs:g} epochs of {spec.epochs}.")
    if spec.schedule in ("linear", "cosine", "one-cycle") and (spec.final_lr or 0) > lr:
        found.append(f"The final rate {spec.final_lr:g} is above the learning rate {lr:g}: it will climb.")
    if spec.backbone_lr_ratio != 1 and spec.settled_freeze in ("features", "but-last"):
        found.append("The backbone is frozen: a learning rate of its own does nothing.")
    elif spec.backbone_lr_ratio < 1 and spec.weights == "scratch":
        found.append("From random weights a slower backbone only learns later: that is for trained ones.")
    return found


def _on_data(spec: Spec, train_images: int) -> list[str]:
    """How much there is to learn from, and what is left to learn it."""
    found = []
    if spec.batch_size > train_images > 0:
        found.append(f"The batch is larger than the {train_images} training images.")
    if spec.weights == "scratch" and spec.settled_freeze != "none":
        found.append("Frozen layers keep their random weights: start from trained ones, or set freeze to none.")
    elif spec.weights == "scratch" and train_images and train_images < 1000 and spec.epochs < 100:
        found.append(f"{train_images} images from scratch: expect modest results; pretrained weights help most here.")
    return found
