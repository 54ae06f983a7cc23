"""The networks of ultralytics: built, partly frozen, and asked about their parts.

A model is a list of blocks, the last of which is the head. YOLOv10 and YOLO26 have two heads in it: one that answers
many times for an object, which evaluation uses with non-maximum suppression as upstream does unless told otherwise, and
one that answers once.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss

from engine.errors import DojangError
from engine.training.data import Sample

FIXED = ".dfl"  # weights that turn a distribution into a distance, and are never learned


def head_width(model: DetectionModel) -> int:
    """Channels of the hidden layers that tell classes apart."""
    return int(model.model[-1].cv3[0][-1].in_channels)


def class_layers(model: DetectionModel) -> set[int]:
    """Ids of the parameters of the layers that tell classes apart, of both heads where there are two."""
    head = model.model[-1]
    branches = (head.cv3, getattr(head, "one2one_cv3", None))
    return {id(p) for branch in branches if branch is not None for p in branch.parameters()}


def backbone(model: DetectionModel) -> nn.Sequential:
    """The blocks that see, before those that bring scales together and the head: as the model's own description has it."""
    blocks: nn.Sequential = model.model[: len(model.yaml["backbone"])]
    return blocks


def _last_layers(model: DetectionModel) -> list[nn.Module]:
    """The convolutions that predict, of both heads where there are two."""
    head = model.model[-1]
    names = ("cv2", "cv3", "one2one_cv2", "one2one_cv3")
    return [row[-1] for name in names for row in getattr(head, name, None) or ()]


def _learning(model: DetectionModel, freeze: str) -> list[nn.Module]:
    """The modules that learn. `freeze` as the spec settles it. Raises DojangError(BAD_SPEC) when there are fewer blocks."""
    blocks = list(model.model)
    if freeze == "none":
        return blocks
    if freeze == "but-last":
        return _last_layers(model)
    if freeze == "features":
        return blocks[len(backbone(model)) :]
    number = int(freeze.removeprefix("last-"))
    if number >= len(blocks):
        raise DojangError(
            f"freeze is {freeze}, but this model has {len(blocks) - 1} blocks and a head.",
            code="BAD_SPEC",
            hint=f"Train a new version with freeze below {len(blocks)}, or features or but-last.",
        )
    return blocks[-1 - number :] if freeze.startswith("last-") else blocks[number:]


def freeze(model: DetectionModel, how: str) -> list[nn.Module]:
    """Let only what `how` says learn; the normalisations that are frozen with their surroundings, to be held in `eval`.

    Those must not gather statistics of new images either: the layers after them were learned on what they gave, nothing
    frozen can adapt to another scale, and the running average is not taken of them. Upstream holds them likewise.
    """
    modules = _learning(model, how)
    learning = {id(p) for p in chain.from_iterable(m.parameters() for m in modules)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad = id(parameter) in learning and FIXED not in name
    within = {id(m) for module in modules for m in module.modules()}
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in within]


def class_weights(samples: list[Sample], classes: int, power: float) -> torch.Tensor | None:
    """One over how often each class occurs, to a power, with mean 1; a class that never does gets the mean of the rest.

    Upstream's rule (`cls_pw`). None where it changes nothing: power 0, or no label at all.
    """
    counts = np.bincount([int(box[0]) for s in samples for box in s.boxes], minlength=classes).astype(np.float32)
    present = counts > 0
    if power == 0 or not present.any():
        return None
    weights = (1.0 / np.where(present, counts, 1.0)) ** power
    weights = np.where(present, weights, weights[present].mean())
    return torch.from_numpy(weights / weights.mean())


def loss_names(model: DetectionModel) -> tuple[str, ...]:
    """The parts of the model's loss, in order. Of two heads, those of the one that answers once are told, as upstream."""
    criterion = model.init_criterion()
    return tuple(getattr(criterion, "one2one", criterion).loss_names)


def weigh_heads(model: DetectionModel, epoch: int) -> None:
    """In a model of two heads the weight of their losses moves from one to the other with the epochs (0…).

    Upstream counts the epochs as they end; here it follows from the number, so that a resumed training has the same.
    """
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    criterion: Any = model.criterion
    if isinstance(criterion, E2ELoss):
        criterion.updates = epoch - 1
        criterion.update()
