"""What the loop asks of a kernel. Everything that differs between families of models is behind this one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

Batch = Any
Between = Callable[[int, int], bool]
"""Called with (batches done, in all) during an evaluation; False abandons it."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one split. `metrics` and `per_class` as the event log has them; `fitness` chooses the best.

    Metrics are None where the split has no labels to judge by.
    """

    split: str
    images: int
    metrics: dict[str, float | None]
    per_class: list[dict[str, Any]]
    fitness: float
    losses: dict[str, float]
    confidence: float | None = None  # of detections, at which precision, recall and F1 are quoted
    confusion: dict[str, Any] | None = None  # see `engine.metrics.confusion`
    curves: dict[str, Any] | None = None  # precision by recall and F1 by confidence, of detectors


class Session(Protocol):
    """A model on a device and the data to train it with, ready for the first step."""

    model: nn.Module
    loss_names: tuple[str, ...]
    images: dict[str, int]  # by split
    classes: int
    data_hash: str  # fingerprint of the data set
    steps_per_epoch: int
    weights_text: str  # what the model started from, said plainly
    pieces: int  # how many runs each batch of an evaluation goes through in: 1 unless memory ran out

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of `epoch` (0…) after the first `skip`: of each this process's share. Raises UnreadableImage."""

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of how it was prepared."""

    def prepare(self, between: Between) -> bool:
        """Once before the first step, when the weights are those to begin with; False when `between` abandoned it."""

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """`batch` cut into at most `parts` runs of images, for a machine short of memory. Their losses add up."""

    def densest(self, count: int) -> Batch:
        """The `count` training images with the most objects as one batch: what needs the most memory."""

    def reschedule(self, epochs: int) -> None:
        """The training will have `epochs` epochs. Called between two epochs; `batches` may go beyond the old end."""

    def size(self, batch: Batch) -> int:
        """How many images are in it."""

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What to minimise, and its parts in the order of `loss_names`, detached, float32. Must not wait for a GPU.

        The first grows with the number of images in `batch`, so that pieces of a batch add up; the second are means.
        """

    def evaluate(self, model: nn.Module, split: str, between: Between) -> Evaluation | None:
        """Losses and metrics of `model` on a split; None when `between` abandoned it."""

    def decay(self, updates: int) -> float:
        """What share of the averaged weights an update keeps, after so many updates (see `optim.Average`)."""

    def boosted(self) -> set[int]:
        """Ids of parameters that MuSGD trains at three times the rate."""

    def backbone_parameters(self) -> set[int]:
        """Ids of the parameters that `backbone_lr_ratio` is for."""

    def structure(self) -> Mapping[str, Any]:
        """What a checkpoint must remember to build the same tensors again."""

    def export(self, model: nn.Module, path: Path) -> None:
        """Write `model` as a file of the library's own, whole or not at all. Raises DojangError(DISK_FULL, …)."""

    def exported(self, path: Path) -> nn.Module:
        """Read back what `export` wrote, ready for `evaluate`."""

    def close(self) -> None:
        """End the processes that load images."""


class Plain:
    """What sessions share that have nothing to prepare."""

    notes: Sequence[str] = ()

    def prepare(self, between: Between) -> bool:
        return True


def pieces_of(session: Session, batch: Batch) -> list[Batch]:
    """`batch` of an evaluation, in as many runs as memory has room for."""
    return session.split(batch, session.pieces) if session.pieces > 1 else [batch]


class DamagedPack(Exception):
    """The packed pixels of a data set's version are not those that were written. The text is their folder."""


class UnreadableImage(Exception):
    """An image that was there when the training began cannot be read any more. The text is its path alone."""
