"""Frozen layers: what they make of an image is the same in every epoch, so where it pays it is computed once.

How many views of an image there are is settled once and for all, and which one an epoch shows follows from counters;
whether their features come from the disk or are computed anew is then a matter of speed alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.training import checkpoint, loading
from engine.training.data import Sample
from engine.training.kernels import torchvision_features as features
from engine.training.kernels.torchvision_data import Images, Unfolded, Views, partner, targets
from engine.training.kernels.torchvision_models import Network
from engine.training.randomness import Key
from engine.training.session import Batch, Between, UnreadableImage
from engine.training.world import rank, size

if TYPE_CHECKING:
    from engine.training.kernels.torchvision import Classifier

AT_ONCE = 32  # images whose features are computed together
EPOCHS_A_VIEW = 20  # so many epochs reuse a view, at least, where the number of views is left to us
MOST_VIEWS = 8


class Frozen:
    """The features of a session's frozen layers. `notes` say what was decided, once `prepare` is done."""

    def __init__(self, session: Classifier, folder: Path, structure: dict[str, Any] | None) -> None:
        self.session, self.folder = session, folder
        self.notes: list[str] = []
        self.pack: features.Pack | None = None
        self._resumed = structure or {}
        self.views = Views(session.spec.seed, int(structure["views"]) if structure else self._view_count())
        self.packing = bool(structure["packed"]) if structure else self._pays()
        self._weights = ""  # digest of the layers that the pack was computed with

    def structure(self) -> dict[str, Any]:
        return {"views": self.views.count, "packed": self.packing, "frozen": self._weights}

    def _view_count(self) -> int:
        """Views of each image that epochs take turns with; 0 for a new one each time."""
        spec = self.session.spec
        if not self.session.model.frozen:
            return 0
        if spec.feature_views is not None:
            return spec.feature_views
        views = 1 if self.session.recipe.plain else min(MOST_VIEWS, max(1, spec.epochs // EPOCHS_A_VIEW))
        return views if spec.epochs > views else 0

    def _pays(self) -> bool:
        """Whether features are used more than once: those of val in every epoch, those of train where views are limited."""
        return self.session.model.frozen > 0 and self.session.spec.epochs > max(1, self.views.count)

    # Computing them

    def prepare(self, between: Between) -> bool:
        """Compute the features, or find those of an earlier training; False when `between` stopped it.

        Called before the first step. A checkpoint's weights must be in the model by then; where they are not, features
        are computed when the first batch is asked for.
        """
        if not self.packing or self.pack:
            return True
        self._weights = checkpoint.digest(self.session.model.frozen_tensors())
        if self._resumed and self._resumed["frozen"] != self._weights:
            return True
        shape = self._shape()
        if not self._agreed(features.room(self.folder, shape)):
            self._refuse(shape)
            return True
        if size() > 1 and rank() > 0:  # rank 0 is at it
            return self._agreed(True) and self._make(shape, between)
        return self._agreed(self._make(shape, between))

    def _make(self, shape: features.Shape, between: Between) -> bool:
        """Find the pack or write it. False when `between` stopped that."""
        samples = self.session.material.samples
        name = features.key(self._origin(), self.session.recipe, self.views, _there(samples["train"] + samples["val"]))
        started, how = time.monotonic(), "found from an earlier training"
        try:
            self.pack = features.find(self.folder, name, shape)
        except features.Damaged as e:
            self.notes.append(f"The features in {self.folder} cannot be used, so they are computed anew: {e}.")
        if self.pack is None:
            if not between(0, shape.rows):
                return False
            self.pack = features.write(self.folder, name, shape, self._computed(), between)
            how = f"computed in {time.monotonic() - started:.0f} s"
        if self.pack:
            self._tell(shape, how)
        return self.pack is not None

    def _origin(self) -> dict[str, Any]:
        """What features depend on, beside the images and how they are varied."""
        session = self.session
        return {
            "model": session.spec.model,
            "weights": self._weights,
            "frozen": session.model.frozen,
            "data": session.data_hash,
            "precision": session.precision.name,
            "device": session.device.type,
            "torch": torch.__version__,
        }

    def _shape(self) -> features.Shape:
        session, side = self.session, self.session.spec.image_size
        row = self._features(torch.zeros(1, 3, side, side, dtype=torch.uint8))[0]
        rows = session.images["train"] * self.views.count + session.images["val"]
        dtype = str(features.DTYPES[session.precision.name]).removeprefix("torch.")
        return features.Shape(rows, tuple(row.shape), dtype)

    def _computed(self) -> Iterator[Tensor]:
        """Features of every view of the training images, then of the val images, in batches."""
        session = self.session
        sources: list[tuple[Images, Views | None]] = [(session.image_set("val", None), None)]
        if self.views.count:
            sources.insert(0, (session.train_data, self.views))
        for images, views in sources:
            data = Unfolded(images, views)
            loader = session.loader(data, min(session.workers, len(data)), prefetch=2, batch_size=AT_ONCE)
            try:
                for batch in loader:
                    yield self._features(batch)
            finally:
                loading.end(None, [loader])

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        model = self.session.model
        training = model.training
        try:
            with self.session.precision.autocast():
                return model.eval().features(self.session.normal(images))
        finally:
            model.train(training)

    def _refuse(self, shape: features.Shape) -> None:
        self.packing = False
        self.notes.append(
            f"The disk of {self.folder} has no room for the features of frozen layers ({shape.bytes / 1e6:,.0f} MB): "
            "they are computed anew in every epoch."
        )

    def _tell(self, shape: features.Shape, how: str) -> None:
        views, train, val = self.views.count, self.session.images["train"], self.session.images["val"]
        one = "each as it is judged, without augmentation" if views == 1 else f"{views} views of each"
        of = f"{train} training images ({one}) and {val} val images" if views else f"{val} val images"
        self.notes.append(
            f"Features of the frozen layers, of {of}: {how}, {shape.bytes / 1e6:,.1f} MB, reused in every epoch."
            + (" feature_views sets how many views there are." if views and not self.session.recipe.plain else "")
        )

    def _agreed(self, fine: bool) -> bool:
        """Whether it is so for all processes that train together."""
        if size() == 1:
            return fine
        import torch.distributed as dist

        found = torch.tensor([int(fine)], device=self.session.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return bool(found.item())

    # Using them

    def feeds(self) -> bool:
        """Whether the training takes features instead of images. Asked before the first batch of each epoch."""
        if self.packing and not self.pack and self._resumed:  # the checkpoint's weights are in the model only by now
            self._resumed = {}
            self.prepare(lambda done, total: True)
        return self.pack is not None and self.views.count > 0

    def batch(self, keys: list[Key]) -> Batch:
        """The batch of `keys`. What is blended are features, where images would have been."""
        assert self.pack
        samples, spec = self.session.material.samples["train"], self.session.spec
        rows, other_rows, parts = [], [], []
        for epoch, index in keys:
            other, share = partner(spec.seed, epoch, index, len(samples), spec.settled("mixup")) or (index, 1.0)
            rows.append(self._row(epoch, index))
            other_rows.append(self._row(epoch, other))
            parts.append({"label": samples[index].label, "other": samples[other].label, "share": share})
        found, batch = self.pack.rows(rows), targets(parts)
        if rows != other_rows:
            share = batch["share"].view(-1, *[1] * (found.ndim - 1))
            blended = found.float() * share + self.pack.rows(other_rows).float() * (1 - share)
            found = blended.to(found.dtype)
        return {"features": found, **batch}

    def _row(self, epoch: int, index: int) -> int:
        return index * self.views.count + self.views.number(epoch, index)

    def judged(self, model: Network) -> Iterator[Batch] | None:
        """The batches of val for `model`; None where the features at hand are not of its frozen layers."""
        if not self.pack or not self._same(model):
            return None
        samples, pack = self.session.material.samples["val"], self.pack
        first, at_once = self.session.images["train"] * self.views.count, self.session.spec.batch_size
        parts = [{"label": s.label, "other": s.label, "share": 1.0} for s in samples]
        starts = range(0, len(samples), at_once)
        ends = [min(start + at_once, len(samples)) for start in starts]
        return (
            {"features": pack.rows(list(range(first + a, first + b))), **targets(parts[a:b])}
            for a, b in zip(starts, ends, strict=True)
        )

    def _same(self, model: Network) -> bool:
        """Whether `model` has the layers that the pack was computed with: copies of ours do, files may not."""
        ours = self.session.model.frozen
        if model.frozen == ours:
            return True
        model.frozen = ours
        if checkpoint.digest(model.frozen_tensors()) == self._weights:
            return True
        model.frozen = 0
        return False


def _there(samples: list[Sample]) -> list[Sample]:
    """The samples. Raises UnreadableImage for a file that is gone."""
    for sample in samples:
        if not sample.packed and not os.path.isfile(sample.path):
            raise UnreadableImage(sample.path)
    return samples
