"""What a file of weights is: looked through, read safely, and held against every model of the catalogue.

`python -m engine.training.recognise FILE` prints it as one JSON object, in a process of its own: what reads a file from
anywhere should not be what the person works in.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import catalog
from engine.catalog import Model
from engine.errors import DojangError
from engine.training import environment, vetting

FITS = 0.8  # share of a model's tensors that must be there for it to be named; the rest tells classes apart
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recognised:
    """`fits` are models, best first, each with the share of its tensors that the file has; `classes` None if untold."""

    format: str
    tensors: int
    numbers: int  # in all tensors together
    classes: list[str] | None
    fits: list[tuple[str, float]]


def recognise(path: Path) -> Recognised:
    """Say what `path` is. Raises DojangError: MISSING_WEIGHTS, BAD_WEIGHTS, UNSAFE_FILE."""
    found = vetting.look(path)
    if any(name.startswith(("ultralytics.", "models.")) for name in found.named):
        from engine.training.kernels import ultralytics_weights

        model = ultralytics_weights.read(path)
        table, classes = model.state_dict(), _names(getattr(model, "names", None))
    else:
        table = vetting.tensors(path)
        whole = vetting.content(path)
        classes = _names(whole.get("classes") if isinstance(whole, dict) else None)
    shapes = {name: tuple(tensor.shape) for name, tensor in table.items()}
    numbers = sum(tensor.numel() for tensor in table.values())
    return Recognised(found.format, len(shapes), numbers, classes, _fits(shapes))


def _names(classes: Any) -> list[str] | None:
    if isinstance(classes, dict):
        classes = list(classes.values())
    return [str(name) for name in classes] if isinstance(classes, (list, tuple)) else None


def _fits(shapes: Shapes) -> list[tuple[str, float]]:
    """The models nearly all of which is in `shapes`."""
    found = []
    for model in catalog.MODELS.values():
        candidate = OWN.get(model.kernel)
        for own in candidate(model, shapes) if candidate else ():
            share = sum(shapes.get(name) == shape for name, shape in own.items()) / max(1, len(own))
            if share >= FITS:
                found.append((model.name, round(share, 4)))
    return sorted(found, key=lambda pair: -pair[1])


def _ultralytics(model: Model, shapes: Shapes) -> Iterator[Shapes]:
    """Built only where the number of blocks and the width of the first are right: building all takes half a minute."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    first = shapes.get("model.0.conv.weight") or shapes.get("model.1.conv.weight")  # YOLOv9e begins with nothing
    blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("model.") and name.split(".")[1].isdigit()}
    if not first or not blocks:
        return
    description = yaml_model_load(model.config)
    if max(blocks) == len(description["backbone"]) + len(description["head"]) - 1:
        built = DetectionModel(model.config, ch=3, nc=80, verbose=False)
        own = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
        if first in (own.get("model.0.conv.weight"), own.get("model.1.conv.weight")):
            yield own


def _effdet(model: Model, shapes: Shapes) -> Iterator[Shapes]:
    if not any(name.startswith("class_net.") for name in shapes):
        return
    import torch

    from engine.training.kernels.effdet_model import Design, build

    with torch.device("meta"):  # names and shapes without numbers
        bench = build(Design(model.name, 90, model.image_size, 4.0))
    yield {name: tuple(tensor.shape) for name, tensor in bench.model.state_dict().items()}


def _torchvision(model: Model, shapes: Shapes) -> Iterator[Shapes]:
    if any(name.startswith(("model.0.", "class_net.")) for name in shapes):
        return
    import torch
    import torchvision

    with torch.device("meta"):
        built = torchvision.models.get_model(model.config, weights=None)
    yield {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


OWN: dict[str, Callable[[Model, Shapes], Iterator[Shapes]]] = {
    "ultralytics": _ultralytics,
    "effdet": _effdet,
    "torchvision": _torchvision,
}


def main(path: str) -> int:
    """Print what the file is, or what is wrong with it as {"error": …}."""
    with tempfile.TemporaryDirectory(prefix="dojang-") as folder:
        environment.prepare(Path(folder), None)
        try:
            answer: dict[str, Any] = asdict(recognise(Path(path)))
        except DojangError as e:
            answer = {"error": {"message": e.message, "code": e.code, "hint": e.hint}}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")  # on a line of its own: a library may have said something
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
