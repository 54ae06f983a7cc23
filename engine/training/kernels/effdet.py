"""EfficientDet D0 to D7: effdet's model, loss and matching, driven as a library.

Images, augmentation and metrics are the YOLO kernel's: a setting or a number means the same for both.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ultralytics.utils import LOGGER

from engine.errors import DojangError
from engine.spec import Spec
from engine.training import loading
from engine.training.data import Material
from engine.training.environment import Precision, free_memory, worker_count
from engine.training.kernels import effdet_data, effdet_weights, ultralytics_batches
from engine.training.kernels.effdet_data import SquareDataset, Targets, detections
from engine.training.kernels.effdet_freeze import freeze
from engine.training.kernels.effdet_model import (
    Bench,
    Design,
    anchor_count,
    build,
    fitting_anchor_scale,
    level_sizes,
    stock_anchor_scale,
)
from engine.training.kernels.ultralytics_data import KEEP_SHARES, Counters, arguments
from engine.training.kernels.ultralytics_metrics import Judge
from engine.training.kernels.ultralytics_model import class_weights
from engine.training.optim import even_decay
from engine.training.randomness import EndlessBatches
from engine.training.session import Batch, Between, Evaluation, Plain, pieces_of

MEAN, SPREAD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's red, green, blue, 0 to 255
MOVED = ("img", "cls", "bboxes", "batch_idx", "places", "labels", "codes", "positives", "content")


class Detector(Plain):
    """An EfficientDet and the data to train it with. Implements `engine.training.session.Session`."""

    loss_names: tuple[str, ...] = ("box_loss", "cls_loss")

    def __init__(
        self,
        spec: Spec,
        material: Material,
        precision: Precision,
        scratch: Path,
        weights: Path | None,
        structure: dict[str, float] | None = None,
    ) -> None:
        """Build model and loaders. `weights` is the file to start from; `structure` that of a checkpoint to take up."""
        LOGGER.setLevel(logging.ERROR)
        self.spec, self.material, self.precision, self.scratch = spec, material, precision, scratch
        self.device = precision.device
        self.workers = worker_count(spec, self.device)
        self.images, self.names = material.images, material.dataset.classes
        self.classes, self.data_hash = len(self.names), material.dataset.hash
        self.arguments = arguments(spec, material)
        content = effdet_weights.read(weights) if weights and not structure else None
        scale = structure["anchor_scale"] if structure else self._anchor_scale(content)
        self.design = Design(spec.model, self.classes, spec.image_size, scale, self.arguments.max_det)
        model = build(self.design)
        self.weights_text = "random weights"
        if content and weights:
            self.weights_text = effdet_weights.transfer(model, content, weights, spec.model, self.names)
        self._held = freeze(model.model, spec.settled_freeze)
        self.model = self._placed(model)
        self.mean = torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        self.spread = torch.tensor(SPREAD, device=self.device).view(3, 1, 1)
        self.train_data = self._dataset("train", self._counters())
        self.steps_per_epoch = math.ceil(len(self.train_data) / spec.batch_size)
        self._refuse_lone_pixel()
        self._stream: Iterator[Batch] | None = None
        self.pieces = 1
        self._val: dict[str, DataLoader[Any]] = {"val": self._val_loader("val")}

    # Building

    def _anchor_scale(self, content: dict[str, Any] | None) -> float:
        """The spec's; else that of the weights, whose boxes mean nothing at another; else what fits the boxes."""
        stock = stock_anchor_scale(self.spec.model)
        if self.spec.anchor_scale is not None:
            return self.spec.anchor_scale
        if content is not None:
            return float(content.get("anchor_scale", stock))
        return fitting_anchor_scale(self.material.samples["train"], self.spec.image_size, stock)

    def _refuse_lone_pixel(self) -> None:
        """A last batch of one small image leaves normalisation a single value a channel: nothing to learn a spread from."""
        last = len(self.train_data) % self.spec.batch_size or self.spec.batch_size
        if last == 1 and level_sizes(self.model.config)[-1] == 1 and self.spec.settled_freeze != "but-last":
            raise DojangError(
                f"With batch_size {self.spec.batch_size} the last batch of {len(self.train_data)} images is a single one, "
                f"which cannot be learned from at {self.spec.image_size} px.",
                code="BAD_SPEC",
                hint="Train a new version with another batch_size, or larger images.",
            )

    def _placed(self, model: Bench) -> Bench:
        """On the device, laid out as it is fastest on CUDA and, by more than half again in any precision, on a CPU."""
        weights = class_weights(self.material.samples["train"], self.classes, self.spec.class_weights)
        model = model.to(self.device)
        model.focus = replace(
            model.focus,
            smoothing=self.spec.label_smoothing,
            weights=None if weights is None else weights.to(self.device),
        )
        return model.to(memory_format=torch.channels_last) if self._channels_last else model

    @property
    def _channels_last(self) -> bool:
        return self.device.type in ("cuda", "cpu")

    def _counters(self) -> Counters:
        spec = self.spec
        return Counters(spec.seed, spec.epochs - spec.close_mosaic if spec.close_mosaic else spec.epochs)

    def _dataset(self, split: str, counters: Counters | None) -> SquareDataset:
        training = split == "train"
        return SquareDataset(
            self.material.samples[split],
            counters,
            room=int(free_memory() * KEEP_SHARES[self.spec.cache] / 2 / max(1, self.workers)),
            data={"nc": self.classes, "names": dict(enumerate(self.names)), "channels": 3},
            task="detect",
            imgsz=self.spec.image_size,
            batch_size=self.spec.batch_size,
            augment=training,
            hyp=self.arguments,
            rect=False,
        )

    def _train_stream(self, epoch: int, skip: int) -> Iterator[Batch]:
        spec = self.spec
        order = EndlessBatches(len(self.train_data), spec.batch_size, spec.seed, spec.epochs, epoch, skip)
        return iter(self._loader(self.train_data, self.workers, prefetch=4, batch_sampler=order))

    def _val_loader(self, split: str) -> DataLoader[Any]:
        data = self._dataset(split, None)
        size = min(self.spec.batch_size, len(data))
        return self._loader(data, min(self.workers, math.ceil(len(data) / size)), prefetch=2, batch_size=size)

    def _loader(self, data: SquareDataset, workers: int, prefetch: int, **how: Any) -> DataLoader[Any]:
        return loading.loader(data, workers, prefetch, self.device, collate_fn=Targets(self.design), **how)

    # Training

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        if self._stream is None:
            self._stream = self._train_stream(epoch, skip)
        return itertools.islice(self._stream, self.steps_per_epoch - skip)

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        return effdet_data.split(batch, parts, anchor_count(self.model.config))

    def densest(self, count: int) -> Batch:
        samples, size = self.material.samples["train"], self.spec.image_size
        batch = ultralytics_batches.densest(samples, count, size, mosaic=self.spec.settled("mosaic") > 0)
        batch["content"] = torch.full((len(batch["img"]), 2), float(size))
        return Targets(self.design).matched(batch)

    def reschedule(self, epochs: int) -> None:
        self.spec = self.spec.model_copy(update={"epochs": epochs})
        self.train_data.counters = self._counters()
        loading.end(self._stream, ())  # what its processes have prepared may be of mosaics that are closed now
        self._stream = None

    def size(self, batch: Batch) -> int:
        return int(batch["img"].shape[0])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        for module in self._held:
            module.eval()  # whoever calls has put the whole model into training
        batch = self._to_device(batch)
        parts = self._parts(self.model(batch["img"], batch))
        # Gradients of several batches are added up: so weighted they come to their mean. Parts of a cut batch are divided
        # by the objects of the whole, so they add up to its loss as they are.
        share = batch["images"] / max(self.spec.batch_size, self.spec.settled("nominal_batch_size"))
        return parts.sum() * share, parts.detach() * (batch["images"] / self.size(batch))

    def _parts(self, found: dict[str, Tensor]) -> Tensor:
        """Losses (2) in the order of `loss_names`, weighted."""
        box = found["box_loss"] * self.spec.settled("box_loss")
        return torch.stack([box, found["class_loss"] * self.spec.settled("class_loss")]).float()

    def _to_device(self, batch: Batch) -> Batch:
        wait = self.device.type != "cuda"
        moved = {k: v.to(self.device, non_blocking=not wait) if k in MOVED else v for k, v in batch.items()}
        moved["img"] = (moved["img"].float() - self.mean) / self.spread
        if self._channels_last:
            moved["img"] = moved["img"].to(memory_format=torch.channels_last)
        return moved

    def decay(self, updates: int) -> float:
        return even_decay(updates)

    def boosted(self) -> set[int]:
        return set()

    def backbone_parameters(self) -> set[int]:
        return {id(p) for p in self.model.model.backbone.parameters()}

    # Evaluation

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str, between: Between) -> Evaluation | None:
        if split not in self._val:
            self._val[split] = self._val_loader(split)
        loader, judge, model = self._val[split], self._judge(split), model.eval()
        sums = torch.zeros(len(self.loss_names), device=self.device)
        for done, batch in enumerate(loader):
            if not between(done, len(loader)):
                return None
            for piece in pieces_of(self, batch):
                moved = self._to_device(piece)
                with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.precision.scaled):
                    found = model(moved["img"], moved)
                sums += self._parts(found)  # which those of the pieces add up to
                judge.update_metrics(detections(found["detections"], judge.args.conf), moved)
        if not between(len(loader), len(loader)):
            return None
        losses = dict(zip(self.loss_names, (sums.cpu() / len(loader)).tolist(), strict=True))
        return judge.verdict(split, self.images[split], self.names, losses)

    def _judge(self, split: str) -> Judge:
        """The evaluator of the YOLO kernel, told our classes."""
        judge = Judge(self._val[split], self.scratch, args=copy(self.arguments))
        judge.device, judge.data = self.device, {}
        judge.init_metrics(SimpleNamespace(names=dict(enumerate(self.names))))
        return judge

    # Files

    def structure(self) -> dict[str, float]:
        return {"anchor_scale": self.design.anchor_scale}

    def export(self, model: nn.Module, path: Path) -> None:
        effdet_weights.write(model, path, self.design, self.names)

    def exported(self, path: Path) -> nn.Module:
        return self._placed(effdet_weights.rebuild(path)).eval()

    def close(self) -> None:
        loading.end(self._stream, self._val.values())
