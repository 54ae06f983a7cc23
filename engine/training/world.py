"""The processes that train one model together: each takes its share of every batch, and gradients are added up.

There is no wrapper around the model: after the backward pass the gradients of all processes are summed in place. A
batch cut into as many pieces within one process gives the same sums, so several GPUs and a machine short of memory are
the same thing to the loop. Only the first process (rank 0) writes: events, checkpoints, weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

PATIENCE = timedelta(hours=12)  # one rank evaluates while the others wait; a dead one is noticed at once all the same
Key = TypeVar("Key")


@dataclass
class World:
    """This process among those that train together; alone where `size` is 1."""

    rank: int = 0
    size: int = 1
    talk: Any = field(default=None, repr=False)  # a gloo group: small flags must not wait for a GPU

    @property
    def writes(self) -> bool:
        """Whether this process is the one that keeps the log and the files."""
        return self.rank == 0

    def share(self, keys: Sequence[Key]) -> Sequence[Key]:
        """This process's run of a batch's keys; the whole where there are fewer keys than processes."""
        count = len(keys)
        if self.size == 1 or count < self.size:
            return keys
        return keys[self.rank * count // self.size : (self.rank + 1) * count // self.size]

    def weight(self, images: int) -> float:
        """What this process's loss counts for in a batch of `images` in all: less where everybody took the whole."""
        return 1.0 if images >= self.size else 1.0 / self.size

    def agree(self, flag: int) -> int:
        """The highest flag of all processes, known to all: what one must do, all do at the same step."""
        if self.size == 1:
            return flag
        import torch
        import torch.distributed as dist

        found = torch.tensor([flag], dtype=torch.int64)
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.talk)
        return int(found.item())

    def share_settings(self, values: dict[str, float]) -> dict[str, float]:
        """What rank 0 was told, told to all."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        box: list[Any] = [values]
        dist.broadcast_object_list(box, src=0, group=self.talk)
        told: dict[str, float] = box[0]
        return told

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every gradient over all processes, in place; a parameter without one counts as zero."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        trained = [p for p in parameters if p.requires_grad]
        for p in trained:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1) for p in trained if p.grad is not None])
        dist.all_reduce(flat)
        at = 0
        for p in trained:
            assert p.grad is not None
            p.grad.copy_(flat[at : at + p.numel()].view_as(p))
            at += p.numel()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a small tensor on the device."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        dist.all_reduce(values)
        return values / self.size

    def same_weights(self, model: nn.Module) -> None:
        """Everything of rank 0's model, running statistics too, to all: whatever drifted is together again."""
        if self.size == 1:
            return
        import torch.distributed as dist

        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)

    def close(self) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def rank() -> int:
    """This process's number among those that torchrun started; 0 when alone. Needs nothing of torch."""
    return int(os.environ.get("RANK") or 0)


def size() -> int:
    """How many processes torchrun started; 1 when alone."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def local_rank() -> int:
    """This process's number on this machine: which of its GPUs is ours."""
    return int(os.environ.get("LOCAL_RANK") or 0)


def join(device: torch.device) -> World:
    """Meet the others, if there are any. GPUs talk over NCCL, CPUs over gloo."""
    if size() == 1:
        return World()
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    talk = dist.new_group(backend="gloo", timeout=PATIENCE)
    return World(rank(), size(), talk)
