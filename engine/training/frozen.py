"""Weights that never change are kept in a file of their own, written once: no checkpoint needs to repeat them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from engine.errors import DojangError
from engine.training import checkpoint

NAME = "frozen.pt"
WORTH = 1 << 20  # bytes; less may as well stay in the checkpoint
State = dict[str, Any]


def names(model: nn.Module) -> set[str]:
    """The parameters of `model` that do not learn, where they are worth a file."""
    found = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return set(found) if checkpoint.size_of(found) >= WORTH else set()


def keep(folder: Path, model: nn.Module, apart: set[str]) -> str:
    """Write them unless they lie there; their digest. Raises DojangError(DISK_FULL, …)."""
    tensors = {name: p.detach() for name, p in model.named_parameters() if name in apart}
    digest = checkpoint.digest(tensors)
    path = folder / NAME
    try:
        there = path.exists() and checkpoint.digest(checkpoint.read(path)) == digest
    except Exception:  # whatever the reader stumbles over: it is written anew
        there = False
    if not there:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.require_space(folder, checkpoint.size_of(tensors) + checkpoint.MARGIN)
        checkpoint.save_alone(path, tensors)
    return digest


def without(tensors: State, apart: set[str]) -> State:
    return {name: tensor for name, tensor in tensors.items() if name not in apart}


def fill(state: State, folder: Path) -> None:
    """Put what was left out back into a checkpoint's `model` and `average`. Raises DojangError(NO_CHECKPOINT)."""
    digest = state.get("frozen")
    if not digest:
        return
    path = folder / NAME
    try:
        found = checkpoint.read(path)
        if checkpoint.digest(found) != digest:
            raise ValueError("it belongs to another checkpoint")
    except Exception as e:  # a damaged archive raises whatever its reader stumbles over
        words = " ".join(str(e).split())[:200] or type(e).__name__
        raise DojangError(
            f"{path}, the frozen weights of this training, cannot be used: {words}.",
            code="NO_CHECKPOINT",
            hint="Put the file back, or train a new version from the best weights.",
        ) from e
    for part in ("model", "average"):
        state[part] |= found
