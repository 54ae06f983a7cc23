"""The YOLO families: ultralytics' model, augmentation, loss and metrics, driven as a library.

None of its trainer is used, and with it none of its writing, plotting, asking and downloading.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ultralytics.data.build import InfiniteDataLoader, build_dataloader, seed_worker
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from engine import catalog
from engine.errors import DojangError
from engine.spec import Spec
from engine.training import loading
from engine.training.data import Material
from engine.training.environment import Precision, free_memory, worker_count
from engine.training.kernels import ultralytics_batches as shapes
from engine.training.kernels import ultralytics_model as network
from engine.training.kernels import ultralytics_weights
from engine.training.kernels.ultralytics_batches import STRIDE
from engine.training.kernels.ultralytics_data import KEEP_SHARES, Counters, ManifestDataset, arguments
from engine.training.kernels.ultralytics_metrics import Judge
from engine.training.optim import late_decay
from engine.training.randomness import EndlessBatches
from engine.training.session import Batch, Between, Evaluation, Plain, pieces_of


class Detector(Plain):
    """A YOLO detector and the data to train it with. Implements `engine.training.session.Session`."""

    def __init__(
        self,
        spec: Spec,
        material: Material,
        precision: Precision,
        scratch: Path,
        weights: Path | None,
        structure: dict[str, int] | None = None,
    ) -> None:
        """Build model and loaders. `weights` is the file to start from; `structure` that of a checkpoint to take up."""
        LOGGER.setLevel(logging.ERROR)  # what it has to say in between is said by our own events
        self.spec, self.material, self.precision, self.scratch = spec, material, precision, scratch
        self.device = precision.device
        self.workers = worker_count(spec, self.device)
        self.images, self.classes = material.images, len(material.dataset.classes)
        self.data_hash = material.dataset.hash
        self.arguments = arguments(spec, material)
        self.data = {
            "nc": self.classes,
            "names": dict(enumerate(material.dataset.classes)),
            "channels": 3,
        }
        self.model, self.weights_text = self._build(weights, structure)
        self.loss_names = network.loss_names(self.model)
        self.train_data = self._dataset("train", self._counters())
        self.steps_per_epoch = math.ceil(len(self.train_data) / spec.batch_size)
        self._refuse_lone_pixel()
        self._loader: InfiniteDataLoader | None = None if spec.exact_resume else self._upstream_loader()
        self._stream: Iterator[Batch] | None = None
        self.pieces = 1
        self._mosaic_closed = False
        self._val: dict[str, DataLoader[Any]] = {"val": self._val_loader("val")}

    # Building

    def _build(self, weights: Path | None, structure: dict[str, int] | None) -> tuple[DetectionModel, str]:
        config = catalog.find(self.spec.model).config
        model = DetectionModel(config, ch=3, nc=self.classes, verbose=False)
        model.names = self.data["names"]  # before weights are loaded: rows of the head are matched by class name
        text = "random weights"
        if structure and structure["head"] != network.head_width(model):
            # Weights of more classes widen the head they are loaded into; a donor of that width does the same again.
            model.load(DetectionModel(config, ch=3, nc=structure["head"], verbose=False), verbose=False)
        elif weights and not structure:
            text = ultralytics_weights.transfer(model, weights, self.spec.model)
        model = model.to(self.device)
        if self.precision.channels_last:
            model = model.to(memory_format=torch.channels_last)
        model.nc, model.args = self.classes, self.arguments
        model.set_head_attr(max_det=self.arguments.max_det)
        self._held = network.freeze(model, self.spec.settled_freeze)
        power, samples = self.spec.class_weights, self.material.samples["train"]
        model.class_weights = network.class_weights(samples, self.classes, power)  # where its loss looks for them
        return model, text

    def _counters(self) -> Counters | None:
        return Counters(self.spec.seed, self._mosaic_closes()) if self.spec.exact_resume else None

    def _mosaic_closes(self) -> int:
        """The epoch, 0…, from which on mosaic is off."""
        return self.spec.epochs - self.spec.close_mosaic if self.spec.close_mosaic else self.spec.epochs

    def _refuse_lone_pixel(self) -> None:
        """A last batch of one small image leaves normalisation a single value a channel: nothing to learn a spread from."""
        last = len(self.train_data) % self.spec.batch_size or self.spec.batch_size
        smallest, _ = shapes.sides(self.spec.image_size, self.spec.multi_scale)
        if last == 1 and smallest < 2 * STRIDE:
            raise DojangError(
                f"With batch_size {self.spec.batch_size} the last batch of {len(self.train_data)} images is a single one, "
                f"which cannot be learned from at {smallest} px.",
                code="BAD_SPEC",
                hint=f"Train a new version with another batch_size, or so that no image is below {2 * STRIDE} px.",
            )

    def _dataset(self, split: str, counters: Counters | None) -> ManifestDataset:
        training = split == "train"
        samples = self.material.samples[split]
        if not self.spec.exact_resume:
            samples = sorted(samples, key=lambda s: s.path)  # upstream's order, by which it draws
        share = (
            free_memory() * KEEP_SHARES[self.spec.cache] / 2 / max(1, self.workers if training else self.workers * 2)
        )
        return ManifestDataset(
            samples,
            counters,
            room=int(share) if counters or not training else 0,
            data=self.data,
            task="detect",
            imgsz=self.spec.image_size,
            batch_size=self.spec.batch_size * (1 if training else 2),
            augment=training,
            hyp=self.arguments,
            rect=not training,
            stride=STRIDE,
            pad=0.0 if training else 0.5,
        )

    def _upstream_loader(self) -> InfiniteDataLoader:
        """Upstream's own shuffling, drawn from generators that run on from epoch to epoch."""
        loader = build_dataloader(self.train_data, self.spec.batch_size, self.workers, shuffle=True, device=self.device)
        loader.worker_init_fn = _begin_seeded
        return loader

    def _exact_stream(self, epoch: int, skip: int) -> Iterator[Batch]:
        """One stream over all epochs, so that its processes run ahead over an epoch's end; begun where it is wanted."""
        if self._stream is None:
            spec = self.spec
            order = EndlessBatches(len(self.train_data), spec.batch_size, spec.seed, spec.epochs, epoch, skip)
            self._stream = iter(self._plain_loader(self.train_data, self.workers, batch_sampler=order, prefetch=4))
        return self._stream

    def _val_loader(self, split: str) -> DataLoader[Any]:
        data = self._dataset(split, None)
        size = min(self.spec.batch_size * 2, len(data))
        workers = min(self.workers * 2, math.ceil(len(data) / size))
        return self._plain_loader(data, workers, batch_size=size, prefetch=2)

    def _plain_loader(self, data: ManifestDataset, workers: int, prefetch: int, **how: Any) -> DataLoader[Any]:
        return loading.loader(data, workers, prefetch, self.device, collate_fn=data.collate_fn, **how)

    # Training

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        spec = self.spec
        network.weigh_heads(self.model, epoch)
        stream = self._exact_stream(epoch, skip) if spec.exact_resume else self._upstream_stream(epoch)
        for step in range(skip, self.steps_per_epoch):
            batch = next(stream)
            if spec.multi_scale:
                drawn = (spec.image_size, spec.multi_scale)
                exact = spec.exact_resume
                batch["side"] = shapes.side(*drawn, spec.seed, epoch, step) if exact else shapes.upstream_side(*drawn)
            yield batch

    def _upstream_stream(self, epoch: int) -> Iterator[Batch]:
        assert self._loader is not None
        closed = epoch >= self._mosaic_closes()
        if closed != self._mosaic_closed:
            self._mosaic_closed = closed
            if closed:
                self.train_data.close_mosaic(hyp=copy(self.arguments))
            else:
                self.train_data.transforms = self.train_data.build_transforms(copy(self.arguments))
            self._loader.reset()
        return iter(self._loader)

    def reschedule(self, epochs: int) -> None:
        """Train for `epochs` in all. Mosaic closes accordingly, from the next epoch on."""
        self.spec = self.spec.model_copy(update={"epochs": epochs})
        self.arguments.epochs = epochs  # the losses of two heads are weighed by it
        self.train_data.counters = self._counters()
        loading.end(self._stream, ())  # what its processes have prepared may be of mosaics that are closed now
        self._stream = None

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        return shapes.split(batch, parts)

    def densest(self, count: int) -> Batch:
        spec = self.spec
        largest = shapes.sides(spec.image_size, spec.multi_scale)[1]
        return shapes.densest(self.material.samples["train"], count, largest, mosaic=spec.settled("mosaic") > 0)

    def size(self, batch: Batch) -> int:
        return int(batch["img"].shape[0])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        for norm in self._held:
            norm.eval()  # whoever calls has put the whole model into training
        loss, parts = self.model(self._to_device(batch))
        return loss.sum(), torch.stack(list(parts.values())).float()

    def _to_device(self, batch: Batch) -> Batch:
        moved = {
            k: v.to(self.device, non_blocking=self.device.type == "cuda") if isinstance(v, Tensor) else v
            for k, v in batch.items()
        }
        moved["img"] = moved["img"].float() / 255
        if "side" in batch:
            moved["img"] = shapes.scaled(moved["img"], batch["side"])
        if self.precision.channels_last:
            moved["img"] = moved["img"].to(memory_format=torch.channels_last)
        return moved

    def decay(self, updates: int) -> float:
        return late_decay(updates)

    def boosted(self) -> set[int]:
        return network.class_layers(self.model)

    def backbone_parameters(self) -> set[int]:
        """Ids of the parameters that learn at `backbone_lr_ratio` of the rate."""
        return {id(p) for p in network.backbone(self.model).parameters()}

    # Evaluation

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str, between: Between) -> Evaluation | None:
        if split not in self._val:
            self._val[split] = self._val_loader(split)
        loader = self._val[split]
        judge = Judge(loader, self.scratch, args=copy(self.arguments))
        judge.device, judge.data = self.device, self.data
        model = model.eval()
        judge.init_metrics(model)
        sums: Tensor | None = None
        for done, batch in enumerate(loader):
            if not between(done, len(loader)):
                return None
            for piece in pieces_of(self, batch):
                moved = self._to_device(piece)
                with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.precision.scaled):
                    found = model(moved["img"])
                    parts = torch.stack(list(model.loss(moved, found)[1].values())).float()
                parts = parts if piece is batch else parts * (self.size(piece) / self.size(batch))
                sums = parts if sums is None else sums + parts
                judge.update_metrics(judge.postprocess(found), moved)
        if not between(len(loader), len(loader)):
            return None
        assert sums is not None
        losses = dict(zip(self.loss_names, (sums.cpu() / len(loader)).tolist(), strict=True))
        return judge.verdict(split, self.images[split], self.material.dataset.classes, losses)

    # Files

    def structure(self) -> dict[str, int]:
        return {"head": network.head_width(self.model)}

    def export(self, model: nn.Module, path: Path) -> None:
        ultralytics_weights.write(model, path, vars(self.arguments))

    def exported(self, path: Path) -> nn.Module:
        """The weights as people will use them: rounded to 16 bits by the file, convolutions and norms fused."""
        model = ultralytics_weights.read(path)
        model.args = self.arguments
        return model.eval().fuse(verbose=False).to(self.device)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
        loading.end(self._stream, self._val.values())


def _begin_seeded(worker: int) -> None:
    seed_worker(worker)
    loading.begin(worker)
