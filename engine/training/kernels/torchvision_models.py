"""torchvision's classifiers as chains of links, so that any of them can be frozen up to a point and gone on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from engine import catalog
from engine.errors import DojangError

HEAD, LAST = -2, -1  # in place of a block's number


@dataclass(frozen=True)
class Design:
    """What a classifier is built from. `dropout` None is the model's own."""

    model: str
    classes: int
    image_size: int  # pixels; only ViT is built for one
    dropout: float | None = None


@dataclass(frozen=True)
class Link:
    """One piece of the way from image to logits. `block` counts those of the backbone from 0, or is HEAD or LAST."""

    block: int
    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...] = ()
    loose: tuple[nn.Parameter, ...] = ()  # parameters outside of the modules

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*(p for m in self.modules for p in m.parameters()), *self.loose]

    @property
    def random(self) -> bool:
        """Whether it leaves something out at random while it trains."""
        return any(isinstance(m, nn.Dropout) for module in self.modules for m in module.modules())


class Network(nn.Module):
    """One of torchvision's classifiers, the same to the last bit, of which the first `frozen` links never change."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        size = {"image_size": design.image_size} if design.model.startswith("vit") else {}
        self.model = get_model(catalog.find(design.model).config, weights=None, num_classes=design.classes, **size)
        self.dropout = nn.Dropout(0.0)
        self.frozen = 0
        if design.dropout is not None:
            dropouts = [m for link in self.links() if link.block < 0 for m in link.modules if isinstance(m, nn.Dropout)]
            for module in dropouts or [self.dropout]:
                module.p = design.dropout

    def links(self) -> list[Link]:
        """Made anew each time: a copy of the network must not run through the original's layers."""
        backbone, head, last = CHAINS[catalog.find(self.design.model).family](self.model)
        own = [Link(HEAD, self.dropout, (self.dropout,))] if self.dropout.p else []
        return [*backbone, *head, *own, Link(LAST, last, (last,))]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of normalised images (n, 3, height, width)."""
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the frozen links make of `images`; the images themselves where nothing is frozen."""
        for link in self.links()[: self.frozen]:
            images = link.run(images)
        return images

    def head(self, features: Tensor) -> Tensor:
        """Logits of what `features` gave."""
        for link in self.links()[self.frozen :]:
            features = link.run(features)
        return features

    def freeze(self, how: str) -> None:
        """Let only what `how` says learn: none, features, but-last, a number of first blocks, or last- and one of last.

        What comes right behind and neither learns nor draws at random counts as frozen too: it may make the features
        that are kept smaller. Raises DojangError(BAD_SPEC) when there are fewer blocks.
        """
        links = self.links()
        through = _through(how, links)
        frozen = 1 + max((n for n, link in enumerate(links) if link.block in through and link.parameters), default=-1)
        while frozen and not links[frozen].parameters and not links[frozen].random:
            frozen += 1
        self.frozen = frozen
        for link in links[:frozen]:
            for parameter in link.parameters:
                parameter.requires_grad_(False)

    def hold(self) -> None:
        """Keep frozen links from gathering statistics and leaving things out, though the whole may be training."""
        for link in self.links()[: self.frozen]:
            for module in link.modules:
                module.eval()

    def frozen_tensors(self) -> dict[str, Tensor]:
        """All that the features depend on, by name: weights and running statistics."""
        within = {id(m) for link in self.links()[: self.frozen] for module in link.modules for m in module.modules()}
        loose = {id(p) for link in self.links()[: self.frozen] for p in link.loose}
        found: dict[str, Tensor] = {}
        for prefix, module in self.model.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            dot = f"{prefix}." if prefix else ""
            found |= {dot + name: tensor for name, tensor in own if id(module) in within or id(tensor) in loose}
        return found

    def backbone(self) -> set[int]:
        """Ids of the parameters before the head."""
        return {id(p) for link in self.links() if link.block >= 0 for p in link.parameters}

    def last(self) -> list[str]:
        """Names of the tensors that tell classes apart, as the library has them."""
        ids = {id(p) for p in self.links()[-1].parameters}
        return [name for name, p in self.model.named_parameters() if id(p) in ids]

    def learn_spread(self, learn: bool) -> None:
        """Whether batch normalisation gathers statistics: a single value has no spread, so it goes by what it has seen."""
        for link in self.links()[self.frozen :]:
            for module in (m for own in link.modules for m in own.modules()):
                if isinstance(module, nn.BatchNorm2d):
                    module.train(learn)


def _through(how: str, links: list[Link]) -> set[int]:
    """The blocks that `how` freezes."""
    blocks = {link.block for link in links if link.block >= 0}
    if how == "none":
        return set()
    if how == "features":
        return blocks
    if how == "but-last":
        return blocks | {HEAD}
    number = int(how.removeprefix("last-"))
    if number > len(blocks):
        raise DojangError(
            f"freeze is {how}, but this model has {len(blocks)} blocks and its head.",
            code="BAD_SPEC",
            hint=f"Train a new version with freeze of at most {len(blocks)}, or features or but-last.",
        )
    return {b for b in blocks if (b < len(blocks) - number if how.startswith("last-") else b < number)}


# How each family goes from image to logits: the blocks of its backbone, what of the head comes before the last layer,
# and that layer. Blocks are the library's own, but that VGG's end where it halves the image.

Chain = tuple[list[Link], list[Link], nn.Module]


def _flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def _each(block: int, modules: Iterable[nn.Module]) -> list[Link]:
    return [Link(block, module, (module,)) for module in modules]


def _in_order(block: int, modules: Iterable[nn.Module]) -> Link:
    whole = nn.Sequential(*modules)
    return Link(block, whole, (whole,))


def _vgg(model: Any) -> Chain:
    blocks: list[list[nn.Module]] = [[]]
    for module in model.features:
        blocks[-1].append(module)
        if isinstance(module, nn.MaxPool2d):
            blocks.append([])
    backbone = [_in_order(n, block) for n, block in enumerate(b for b in blocks if b)]
    *hidden, last = model.classifier
    return backbone, [*_each(HEAD, [model.avgpool]), Link(HEAD, _flat), *_each(HEAD, hidden)], last


def _resnet(model: Any) -> Chain:
    stem = _in_order(0, (model.conv1, model.bn1, model.relu, model.maxpool))
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    backbone = [stem, *(Link(n, stage, (stage,)) for n, stage in enumerate(stages, 1))]
    return backbone, [*_each(HEAD, [model.avgpool]), Link(HEAD, _flat)], model.fc


def _stages(model: Any) -> list[Link]:
    return [Link(n, stage, (stage,)) for n, stage in enumerate(model.features)]


def _flat_head(model: Any) -> Chain:
    *hidden, last = model.classifier
    return _stages(model), [*_each(HEAD, [model.avgpool]), Link(HEAD, _flat), *_each(HEAD, hidden)], last


def _convnext(model: Any) -> Chain:
    *hidden, last = model.classifier
    return _stages(model), _each(HEAD, [model.avgpool, *hidden]), last


def _vit(model: Any) -> Chain:
    encoder = model.encoder

    def patches(images: Tensor) -> Tensor:
        found = model._process_input(images)
        token = model.class_token.expand(found.shape[0], -1, -1)
        positions: Tensor = encoder.pos_embedding
        placed: Tensor = encoder.dropout(torch.cat([token, found], dim=1) + positions)
        return placed

    loose = (model.class_token, encoder.pos_embedding)
    *layers, end = encoder.layers
    backbone = [Link(0, patches, (model.conv_proj, encoder.dropout), loose)]
    backbone += [Link(n, layer, (layer,)) for n, layer in enumerate(layers, 1)]
    backbone.append(_in_order(len(backbone), (end, encoder.ln)))
    *hidden, last = model.heads
    return backbone, [Link(HEAD, lambda tokens: tokens[:, 0]), *_each(HEAD, hidden)], last


CHAINS: dict[str, Callable[[Any], Chain]] = {
    "VGG": _vgg,
    "ResNet": _resnet,
    "EfficientNet": _flat_head,
    "MobileNetV3": _flat_head,
    "ConvNeXt": _convnext,
    "ViT": _vit,
}
