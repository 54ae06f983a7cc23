"""EfficientDet's focal and box loss, as the library defines them, computed from the few anchors that learn an object.

The library spreads targets over all anchors and classes of each level; here only what has no object is summed over
all of them, and the few others are picked out. The result is the same to rounding, in a fraction of the memory, with a
weight for each class besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus


@dataclass(frozen=True)
class Focus:
    """Numbers of the loss. `weights` (classes) multiplies the class loss of each class; None is 1 for all."""

    alpha: float
    gamma: float
    delta: float
    smoothing: float = 0.0
    weights: Tensor | None = None


def flat(levels: list[Tensor], width: int) -> Tensor:
    """What a head gives for each level (n, anchors · width, h, w), as (n, all anchors, width), finest level first."""
    parts = [level.permute(0, 2, 3, 1).reshape(len(level), -1, width) for level in levels]
    return torch.cat(parts, 1).float()


def class_loss(logits: Tensor, batch: dict[str, Any], focus: Focus) -> Tensor:
    """Focal loss of `logits` (n, anchors, classes), a scalar, divided by the number of anchors that learn an object.

    `batch` has their `places` among all n · anchors, their `labels` (from 0), and `positives`, their number.
    """
    half = focus.smoothing / 2
    chance = logits.sigmoid()
    absent = (1 - focus.alpha) * chance**focus.gamma * (softplus(logits) - half * logits)
    at = logits.reshape(-1, logits.shape[2])[batch["places"], batch["labels"]]
    unsure = at.sigmoid()
    wrongly = (1 - focus.alpha) * unsure**focus.gamma * (softplus(at) - half * at)
    present = focus.alpha * (1 - unsure) ** focus.gamma * (half * at - logsigmoid(at)) - wrongly
    if focus.weights is not None:
        absent, present = absent * focus.weights, present * focus.weights[batch["labels"]]
    return (absent.sum() + present.sum()) / (batch["positives"] + 1)


def box_loss(codes: Tensor, batch: dict[str, Any], focus: Focus) -> Tensor:
    """Huber loss of `codes` (n, anchors, 4), a scalar. `batch` as above, with `codes` (positives, 4) that are wanted.

    A coordinate that is wanted to be exactly 0 is left out, as the library does.
    """
    wanted = batch["codes"]
    error = (codes.reshape(-1, 4)[batch["places"]] - wanted).abs() * (wanted != 0)
    near = error.clamp(max=focus.delta)
    return (0.5 * near**2 + focus.delta * (error - near)).sum() / (4 * (batch["positives"] + 1))
