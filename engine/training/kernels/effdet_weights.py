"""Files of EfficientDet weights: tensors and plain values only, so that nothing in one can run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import DojangError
from engine.training import checkpoint, vetting
from engine.training.kernels.effdet_model import Design, build

KERNEL = "effdet"
FORMAT = 1
HEAD = "class_net.predict."  # what tells classes apart: of no use for other classes
Content = dict[str, Any]


def write(model: nn.Module, path: Path, design: Design, classes: tuple[str, ...]) -> None:
    """Write the weights, in 32 bits, with all that is needed to use them. Raises DojangError(DISK_FULL, …)."""
    weights = {k: v.detach().cpu().contiguous() for k, v in model.model.state_dict().items()}
    whole: Content = {
        "kernel": KERNEL,
        "format": FORMAT,
        **asdict(design),
        "classes": list(classes),
        "state_dict": weights,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.require_space(path.parent, checkpoint.size_of(whole) + checkpoint.MARGIN)
    checkpoint.replace_file(path, lambda file: torch.save(whole, file))


def read(path: Path) -> Content:
    """What `write` wrote, or the library's own file of mere tensors as {"state_dict": …}.

    Raises DojangError: UNSAFE_FILE for a file that would run code, which is found out without running it, BAD_WEIGHTS or
    MISSING_WEIGHTS.
    """
    found = vetting.content(path)
    if isinstance(found, dict) and found and all(isinstance(v, Tensor) for v in found.values()):
        found = {"state_dict": found}
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise _not_weights(path)
    return found


def _not_weights(path: Path) -> DojangError:
    return DojangError(
        f"{path} is not a file of EfficientDet weights, or it is damaged.",
        code="BAD_WEIGHTS",
        hint="Give a file written by dojang or the library's own .pth file, or train from scratch.",
    )


def rebuild(path: Path) -> nn.Module:
    """The model that `write` was given, on the CPU. Raises DojangError(BAD_WEIGHTS, …) when it is anything else."""
    found = read(path)
    try:
        design = Design(
            model=found["model"],
            classes=len(found["classes"]),
            image_size=found["image_size"],
            anchor_scale=found["anchor_scale"],
            found=found["found"],
        )
        model = build(design)
        model.model.load_state_dict(found["state_dict"])
    except (KeyError, TypeError, RuntimeError, DojangError) as e:
        raise _not_weights(path) from e
    return model


def transfer(model: nn.Module, content: Content, path: Path, name: str, classes: tuple[str, ...]) -> str:
    """Take over what fits from `content`, read from `path`; say how much that was. Raises BAD_WEIGHTS if nothing fits.

    The layer that tells classes apart is taken over only from weights of the very same classes.
    """
    own, offered = model.model.state_dict(), content["state_dict"]
    same = content.get("classes") == list(classes)
    fitting = {
        k: offered[k]
        for k, v in own.items()
        if isinstance(offered.get(k), Tensor) and offered[k].shape == v.shape and (same or not k.startswith(HEAD))
    }
    if not fitting:
        raise DojangError(f"Nothing in {path} fits {name}.", code="BAD_WEIGHTS", hint=f"Give weights of {name}.")
    model.model.load_state_dict(fitting, strict=False)
    return f"{path.name}: {len(fitting)} of {len(own)} tensors"
