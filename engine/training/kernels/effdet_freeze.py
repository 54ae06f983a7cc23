"""Which layers of an EfficientDet learn.

Its blocks are, in order: the stem and the stages of the backbone, then the cells that bring scales together, of which
the first includes what makes the coarser levels. The two heads come after them and are no blocks.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import nn

from engine.errors import DojangError


def freeze(model: Any, how: str) -> list[nn.Module]:
    """Let only what `how` says learn; the modules that are frozen, to be held in `eval`.

    They must not gather statistics of new images, nor leave out paths at random: nothing in them can adapt to either.
    `how` is as the spec settles it: none, features, but-last, a number of first blocks or last- and a number of last ones.
    Raises DojangError(BAD_SPEC) when there are fewer blocks.
    """
    blocks = [*_backbone(model), *_cells(model)]
    if how == "none":
        frozen = []
    elif how == "features":
        frozen = _backbone(model)
    elif how == "but-last":
        heads = (model.class_net, model.box_net)
        frozen = [*blocks, *((part,) for head in heads for part in (head.conv_rep, head.bn_rep))]
    else:
        number = int(how.removeprefix("last-"))
        if number > len(blocks):
            raise DojangError(
                f"freeze is {how}, but this model has {len(blocks)} blocks and its heads.",
                code="BAD_SPEC",
                hint=f"Train a new version with freeze of at most {len(blocks)}, or features or but-last.",
            )
        frozen = blocks[: len(blocks) - number] if how.startswith("last-") else blocks[:number]
    modules = list(chain.from_iterable(frozen))
    for module in modules:
        module.requires_grad_(False)
    return modules


def _backbone(model: Any) -> list[tuple[nn.Module, ...]]:
    return [(model.backbone.conv_stem, model.backbone.bn1), *((stage,) for stage in model.backbone.blocks)]


def _cells(model: Any) -> list[tuple[nn.Module, ...]]:
    first, *rest = model.fpn.cell
    return [(model.fpn.resample, first), *((cell,) for cell in rest)]
