"""Randomness drawn from counters: what happens in step n depends on the seed and n, never on what ran before it.

That is what makes a stopped or killed training go on bit by bit as if nothing had happened, and makes the number of
loading processes irrelevant to the result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from engine.training.world import World, rank, size

Key = tuple[int, int]
"""Epoch and index of one image: all that its augmentation depends on."""

ORDER, STEP, RESTART, SIDE = 1, 2, 3, 0x51DE  # purposes, so that equal counters do not draw equal numbers


def mix(*parts: int) -> int:
    """32 well-mixed bits of some counters (the finaliser of splitmix64 over each in turn)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 32


def seed_all(seed: int) -> None:
    """Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_image(seed: int, epoch: int, index: int) -> None:
    """Before one image is augmented. Augmentations draw from Python and numpy; torch's generator is slow to seed."""
    value = mix(seed, epoch, index)
    random.seed(value)
    np.random.seed(value)


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Before one step: covers dropout and whatever else a model draws from torch."""
    torch.manual_seed(mix(seed, epoch, step, STEP))


class EndlessBatches(Sampler[list[Key]]):
    """Batches of keys from (`epoch`, `skip` batches done) on, epoch after epoch, each a permutation of its own.

    Loading processes run ahead over the end of an epoch without being told: the key says which epoch an image is for.
    Of several processes that train together each gets its share of every batch.
    """

    def __init__(self, images: int, batch_size: int, seed: int, epochs: int, epoch: int, skip: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.epochs, self.epoch, self.skip = epochs, epoch, skip

    def __iter__(self) -> Iterator[list[Key]]:
        skip, among = self.skip, World(rank(), size())
        for epoch in range(self.epoch, self.epochs):
            generator = torch.Generator()
            generator.manual_seed(mix(self.seed, epoch, ORDER))
            order = torch.randperm(self.images, generator=generator).tolist()
            for start in range(skip * self.batch_size, self.images, self.batch_size):
                keys = [(epoch, index) for index in order[start : start + self.batch_size]]
                yield list(among.share(keys))
            skip = 0
