"""Files of classifiers' weights: tensors and plain values only, so that nothing in one can run."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings

from engine.errors import DojangError
from engine.training import checkpoint, vetting
from engine.training.kernels.torchvision_models import Design, Network

KERNEL = "torchvision"
FORMAT = 1
NAMED = 4  # tensors that an error lists
Content = dict[str, Any]


class Taken(NamedTuple):
    """What was taken over from a file, in words, and the tensors before the last layer that were not in it."""

    text: str
    random: list[str]


def write(network: Network, path: Path, classes: tuple[str, ...]) -> None:
    """Write the weights, in 32 bits, with all that is needed to use them. Raises DojangError(DISK_FULL, …).

    `torch.load(path)["model"]` is what torchvision's own model of that name and number of classes loads.
    """
    whole: Content = {
        "kernel": KERNEL,
        "format": FORMAT,
        **{k if k != "model" else "architecture": v for k, v in asdict(network.design).items() if k != "classes"},
        "classes": list(classes),
        "model": {k: v.detach().cpu().contiguous() for k, v in network.model.state_dict().items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.require_space(path.parent, checkpoint.size_of(whole) + checkpoint.MARGIN)
    checkpoint.replace_file(path, lambda file: torch.save(whole, file))


def read(path: Path) -> Content:
    """What `write` wrote, or a mere table of tensors, however its file wraps it, as {"model": …}.

    Raises DojangError: UNSAFE_FILE for a file that would run code, which is found out without running it, BAD_WEIGHTS or
    MISSING_WEIGHTS.
    """
    found = vetting.content(path)
    if isinstance(found, dict) and found.get("kernel") == KERNEL and isinstance(found.get("model"), dict):
        return found
    tensors = vetting.tensors(path)
    return {"model": {name.removeprefix("module."): tensor for name, tensor in tensors.items()}}


def rebuild(path: Path) -> Network:
    """The network that `write` was given, on the CPU. Raises DojangError(BAD_WEIGHTS, …) when it is anything else."""
    found = read(path)
    try:
        design = Design(found["architecture"], len(found["classes"]), found["image_size"], found["dropout"])
        network = Network(design)
        network.model.load_state_dict(found["model"])
    except (KeyError, TypeError, RuntimeError, DojangError) as e:
        raise DojangError(
            f"{path} is not a file of a classifier's weights, or it is damaged.",
            code="BAD_WEIGHTS",
            hint="Give a file written by dojang.",
        ) from e
    return network


def transfer(network: Network, content: Content, path: Path, classes: tuple[str, ...]) -> Taken:
    """Take over what fits from `content`, read from `path`; say how much that was. Raises BAD_WEIGHTS naming what does not.

    Of the layer that tells classes apart, the rows of classes of the same name are taken over; where the file names
    none, the layer if it is as large. The rest of the head may be missing, the backbone may not.
    """
    own = network.model.state_dict()
    offered = _usable(content["model"], network, path)
    last = network.last()
    fitting = {k: offered[k] for k, v in own.items() if k in offered and offered[k].shape == v.shape and k not in last}
    _require_backbone(network, own, fitting, offered, path)
    rows = _last_rows(own, offered, last, _names(content), classes)
    network.model.load_state_dict({**own, **fitting, **rows[0]})
    new = [
        name for name in own if name not in fitting and name not in last and not name.endswith("num_batches_tracked")
    ]
    total = len(fitting) + len(rows[0])
    text = f"{path.name}: {total} of {len(own)} tensors"
    if rows[1] < len(classes):
        text += ", the last layer is new" if not rows[1] else f", {rows[1]} of {len(classes)} classes known by name"
    return Taken(text + (f", {_listed(new)} random" if new else ""), new)


def _usable(tensors: Any, network: Network, path: Path) -> dict[str, Tensor]:
    """The finite tensors; of a ViT with the positions of patches spread over another image size."""
    found = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
    found = {k: v for k, v in found.items() if not v.is_floating_point() or bool(v.isfinite().all())}
    design, place = network.design, "encoder.pos_embedding"
    wanted = network.model.state_dict().get(place)
    if wanted is None or place not in found or found[place].shape == wanted.shape:
        return found
    try:
        spread: Any = interpolate_embeddings(design.image_size, network.model.patch_size, dict(found))
    except (ValueError, RuntimeError) as e:
        raise _unfit(network, path, f"{place} has the shape {tuple(found[place].shape)}") from e
    return dict(spread)


def _require_backbone(
    network: Network, own: dict[str, Tensor], fitting: dict[str, Tensor], offered: dict[str, Tensor], path: Path
) -> None:
    """Raises BAD_WEIGHTS unless all that comes before the head is there, and nothing else."""
    head = {id(p) for link in network.links() if link.block < 0 for p in link.parameters}
    free = {name for name, p in network.model.named_parameters() if id(p) in head}
    lacking = [k for k in own if k not in fitting and k not in free and not k.endswith("num_batches_tracked")]
    wrong = [k for k in lacking if k in offered]
    parts = {name.split(".")[0] for name in free}
    foreign = [k for k in offered if k not in own and k.split(".")[0] not in parts]
    if wrong:
        raise _unfit(network, path, f"{_listed(wrong)} of another shape")
    if lacking:
        raise _unfit(network, path, f"there is no usable {_listed(lacking)}")
    if foreign:
        raise _unfit(network, path, f"it has {_listed(foreign)} besides")


def _unfit(network: Network, path: Path, why: str) -> DojangError:
    name = network.design.model
    return DojangError(
        f"{path} is not for {name}: {why}.", code="BAD_WEIGHTS", hint=f"Give weights of {name}, or train from scratch."
    )


def _last_rows(
    own: dict[str, Tensor],
    offered: dict[str, Tensor],
    last: list[str],
    named: list[str] | None,
    classes: tuple[str, ...],
) -> tuple[dict[str, Tensor], int]:
    """The tensors of the last layer with what is known of our classes, and how many of them are."""
    if any(k not in offered or offered[k].shape[1:] != own[k].shape[1:] for k in last):
        return {}, 0
    if named is None:
        same = all(offered[k].shape == own[k].shape for k in last)
        return ({k: offered[k] for k in last}, len(classes)) if same else ({}, 0)
    if any(len(offered[k]) != len(named) for k in last):
        return {}, 0
    pairs = [(mine, named.index(name)) for mine, name in enumerate(classes) if name in named]
    if not pairs:
        return {}, 0
    rows = {k: own[k].clone() for k in last}
    for mine, theirs in pairs:
        for k in last:
            rows[k][mine] = offered[k][theirs]
    return rows, len(pairs)


def _names(content: Content) -> list[str] | None:
    names = content.get("classes")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else None


def _listed(names: list[str]) -> str:
    """Names of layers rather than of each of their tensors, the first few."""
    layers = list(dict.fromkeys(re.sub(r"\.(weight|bias|running_mean|running_var)$", "", name) for name in names))
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return ", ".join(layers[:NAMED]) + more
