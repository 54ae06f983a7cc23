"""Classifiers: torchvision's models, driven as a library.

What frozen layers make of the images is computed once, where that pays, and the training runs on it: see `prepare`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from engine.spec import Spec
from engine.training import loading
from engine.training.classification import Tally
from engine.training.data import Material
from engine.training.environment import Precision, free_memory, worker_count
from engine.training.kernels import torchvision_weights
from engine.training.kernels.torchvision_data import (
    Images,
    Recipe,
    Views,
    class_weights,
    collate,
    targets,
)
from engine.training.kernels.torchvision_frozen import Frozen
from engine.training.kernels.torchvision_models import Design, Network
from engine.training.optim import even_decay
from engine.training.randomness import EndlessBatches
from engine.training.session import Batch, Between, Evaluation, pieces_of

MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's red, green, blue, 0 to 255
KEEP_SHARES = {"auto": 0.25, "ram": 0.75, "off": 0.0}  # of the free memory, by the spec's `cache`
LONE_PIXEL = 64  # pixels; of a smaller image nothing but one pixel is left in the end


class Classifier:
    """A classifier and the data to train it with. Implements `engine.training.session.Session`.

    `notes` say what was decided about frozen features, once `prepare` is done.
    """

    loss_names: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        spec: Spec,
        material: Material,
        precision: Precision,
        scratch: Path,
        weights: Path | None,
        structure: dict[str, Any] | None = None,
    ) -> None:
        """Build model and loaders. `weights` is the file to start from; `structure` that of a checkpoint to take up."""
        self.spec, self.material, self.precision = spec, material, precision
        self.device = precision.device
        self.workers = worker_count(spec, self.device)
        self.images, self.names = material.images, material.dataset.classes
        self.classes, self.data_hash = len(self.names), material.dataset.hash
        self.steps_per_epoch = math.ceil(self.images["train"] / spec.batch_size)
        network = Network(Design(spec.model, self.classes, spec.image_size, spec.dropout))
        self.weights_text = "random weights"
        random: list[str] = []
        if weights and not structure:
            content = torchvision_weights.read(weights)
            self.weights_text, random = torchvision_weights.transfer(network, content, weights, self.names)
        network.freeze(spec.settled_freeze)
        self.model: Network = self._placed(network)
        self.mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        self.spread = torch.tensor(SPREAD, device=self.device).view(3, 1, 1)
        self.class_weights = class_weights(material.samples["train"], self.classes, spec.class_weights)
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(self.device)
        self.recipe = Recipe.of(spec)
        self.frozen = Frozen(self, scratch.parent / "features", structure)
        self.notes = self.frozen.notes
        if any(name in network.frozen_tensors() for name in random):
            self.notes.append("Frozen layers of the head hold random numbers: with freeze = features they would learn.")
        self.views = self.frozen.views
        self.train_data = self.image_set("train", self.views)
        self.pieces = 1
        self._stream: Iterator[Batch] | None = None
        self._val: dict[str, DataLoader[Any]] = {}

    # Building

    def _placed(self, network: Network) -> Network:
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self._channels_last else network

    @property
    def _channels_last(self) -> bool:
        return self.device.type in ("cuda", "cpu")

    def image_set(self, split: str, views: Views | None) -> Images:
        share = KEEP_SHARES[self.spec.cache] / 2 / max(1, self.workers)
        mixup = self.spec.settled("mixup") if views else 0.0
        return Images(self.material.samples[split], self.recipe, views, mixup, room=int(free_memory() * share))

    def loader(self, data: Any, workers: int, prefetch: int, **how: Any) -> DataLoader[Any]:
        return loading.loader(data, workers, prefetch, self.device, **how)

    def _train_stream(self, epoch: int, skip: int) -> Iterator[Batch]:
        order = self._order(epoch, skip)
        return iter(self.loader(self.train_data, self.workers, prefetch=4, batch_sampler=order, collate_fn=collate))

    def _order(self, epoch: int, skip: int) -> EndlessBatches:
        spec = self.spec
        return EndlessBatches(self.images["train"], spec.batch_size, spec.seed, spec.epochs, epoch, skip)

    def _val_loader(self, split: str) -> DataLoader[Any]:
        if split not in self._val:
            data = self.image_set(split, None)
            at_once = min(self.spec.batch_size, len(data))
            workers = min(self.workers, math.ceil(len(data) / at_once))
            self._val[split] = self.loader(data, workers, prefetch=2, batch_size=at_once, collate_fn=collate)
        return self._val[split]

    # Training

    def prepare(self, between: Between) -> bool:
        """Compute what frozen layers make of the images, where that pays; False when `between` stopped it."""
        return self.frozen.prepare(between)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        if self.frozen.feeds():
            keys = itertools.islice(self._order(epoch, skip), self.steps_per_epoch - skip)
            return map(self.frozen.batch, keys)
        if self._stream is None:
            self._stream = self._train_stream(epoch, skip)
        return itertools.islice(self._stream, self.steps_per_epoch - skip)

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        images = self.size(batch)
        parts = max(1, min(parts, images))
        bounds = [images * part // parts for part in range(parts + 1)]
        return [{k: v[begin:end] for k, v in batch.items()} for begin, end in pairwise(bounds)]

    def densest(self, count: int) -> Batch:
        """All images need the same: a black one, `count` times."""
        side = self.spec.image_size
        image = torch.zeros(count, 3, side, side, dtype=torch.uint8)
        return {"img": image, **targets([{"label": 0, "other": 0, "share": 1.0}] * count)}

    def reschedule(self, epochs: int) -> None:
        self.spec = self.spec.model_copy(update={"epochs": epochs})
        loading.end(self._stream, ())
        self._stream = None

    def size(self, batch: Batch) -> int:
        return len(batch["label"])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.model.hold()  # whoever calls has put the whole model into training
        count = self.size(batch)
        if self.spec.image_size < LONE_PIXEL:
            self.model.learn_spread(count > 1)
        batch = self._to_device(batch)
        losses = self._losses(self._logits(self.model, batch), batch)
        # Gradients of several batches are added up: so weighted they come to their mean.
        nominal = max(self.spec.batch_size, self.spec.settled("nominal_batch_size"))
        return losses.sum() / nominal, losses.detach().mean().view(1)

    def _logits(self, network: Network, batch: Batch) -> Tensor:
        found: Tensor = network.head(batch["features"]) if "features" in batch else network(batch["img"])
        return found

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of each image (n), of a blended one its two classes' in their shares."""
        weights, smoothing = self.class_weights, self.spec.label_smoothing
        logits = logits.float()
        first = functional.cross_entropy(logits, batch["label"], weights, reduction="none", label_smoothing=smoothing)
        if not self.spec.settled("mixup"):
            return first
        second = functional.cross_entropy(logits, batch["other"], weights, reduction="none", label_smoothing=smoothing)
        return first * batch["share"] + second * (1 - batch["share"])

    def _to_device(self, batch: Batch) -> Batch:
        wait = self.device.type != "cuda"
        moved = {k: v.to(self.device, non_blocking=not wait) for k, v in batch.items()}
        if "img" in moved:
            moved["img"] = self.normal(moved["img"])
        else:
            moved["features"] = moved["features"].float()
        return moved

    def normal(self, images: Tensor) -> Tensor:
        """Bytes as the model takes them, on its device."""
        images = (images.to(self.device).float() - self.mean) / self.spread
        return images.to(memory_format=torch.channels_last) if self._channels_last else images

    def decay(self, updates: int) -> float:
        return even_decay(updates)

    def boosted(self) -> set[int]:
        return set()

    def backbone_parameters(self) -> set[int]:
        return self.model.backbone()

    # Evaluation

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str, between: Between) -> Evaluation | None:
        assert isinstance(model, Network)
        tally, model = Tally(self.names), model.eval()
        total = math.ceil(self.images[split] / min(self.spec.batch_size, self.images[split]))
        sums = torch.zeros((), device=self.device)
        for done, batch in enumerate(self._judged(model, split)):
            if not between(done, total):
                return None
            for piece in map(self._to_device, pieces_of(self, batch)):
                with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.precision.scaled):
                    logits = self._logits(model, piece)
                    sums += self._losses(logits, piece).sum()
                tally.add(logits, piece["label"])
        if not between(total, total):
            return None
        return tally.verdict(split, self.images[split], {"loss": float(sums) / self.images[split]})

    def _judged(self, model: Network, split: str) -> Iterator[Batch]:
        """The images of a split, or their features where those at hand are of the same frozen layers."""
        packed = self.frozen.judged(model) if split == "val" else None
        yield from self._val_loader(split) if packed is None else packed

    # Files

    def structure(self) -> dict[str, Any]:
        return self.frozen.structure()

    def export(self, model: nn.Module, path: Path) -> None:
        assert isinstance(model, Network)
        torchvision_weights.write(model, path, self.names)

    def exported(self, path: Path) -> nn.Module:
        return self._placed(torchvision_weights.rebuild(path)).eval()

    def close(self) -> None:
        loading.end(self._stream, self._val.values())
