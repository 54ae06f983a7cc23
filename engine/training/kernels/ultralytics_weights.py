"""Files of weights in ultralytics' format: vetted before anything in them can run, and written whole."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT, DEFAULT_CFG_KEYS

from engine.errors import DojangError
from engine.training import checkpoint, vetting

# Names that a model file of ultralytics is made of besides tensors. What else a file asks for is refused before it is
# opened.
KNOWN = (
    "torch.nn.modules.",
    "ultralytics.nn.",
    "ultralytics.utils.loss.",
    "ultralytics.utils.tal.",
    "ultralytics.utils.IterableSimpleNamespace",
    "ultralytics.yolo.utils.IterableSimpleNamespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "builtins.getattr",  # ultralytics' restricted loader lets it name attributes of model classes only
    "pathlib.",
)


def vet(path: Path) -> bool:
    """Refuse a file that would run anything but the making of a model; whether it holds a whole model, not mere tensors.

    Nothing in it is executed to find out. Raises DojangError(UNSAFE_FILE) naming what it asks for, or BAD_WEIGHTS when
    it is no model file at all.
    """
    asked = vetting.look(path).named
    if any(name.startswith("models.") for name in asked):
        raise DojangError(
            f"{path} is a file of the original YOLOv5 repository, whose models are built differently.",
            code="BAD_WEIGHTS",
            hint="Use the public weights (weights=pretrained), whose names end in u, such as yolov5nu.pt, or scratch.",
        )
    refused = sorted(name for name in asked if not (vetting.plain(name) or name.startswith(KNOWN)))
    if refused:
        raise vetting.unsafe(path, f"it asks for {', '.join(refused[:5])}")
    return any(name.startswith("ultralytics.nn.") for name in asked)


def read(path: Path) -> nn.Module:
    """The model in a file, on the CPU, in 32 bits. Raises DojangError (UNSAFE_FILE, BAD_WEIGHTS, MISSING_WEIGHTS)."""
    if not vet(path):
        raise vetting.damaged(path, "it holds no model of ultralytics")
    with tempfile.TemporaryDirectory(prefix="dojang-") as folder:
        link = Path(folder) / "weights.pt"  # ultralytics reads meaning into names, and downloads when it misses one
        link.symlink_to(path.absolute())
        try:
            found, _ = torch_safe_load(str(link), safe_only=True)
        except TypeError as e:
            raise vetting.unsafe(path, "it holds types") from e
        except Exception as e:  # whatever the reader stumbles over in what is no model
            raise vetting.damaged(path) from e
    model = (found.get("ema") or found.get("model")) if isinstance(found, dict) else None
    if not isinstance(model, nn.Module):
        raise vetting.damaged(path)
    return model.float()


def transfer(model: DetectionModel, path: Path, name: str) -> str:
    """Load what fits from `path` into `model`; say how much that was. Raises BAD_WEIGHTS when nothing fits.

    A whole model may have other classes: the rows of those that both have are taken over by name. A file of mere tensors
    says nothing of its classes, so that only what has the very same shape is taken over.
    """
    source = read(path) if vet(path) else None
    if source is None:
        offered = vetting.tensors(path)
    else:
        offered = source.state_dict()
        model.load(source, verbose=False)  # this may widen the head
    own = model.state_dict()
    fitting = {k: offered[k] for k, v in own.items() if k in offered and offered[k].shape == v.shape}
    if not fitting:
        raise DojangError(f"Nothing in {path} fits {name}.", code="BAD_WEIGHTS", hint=f"Give weights of {name}.")
    if source is None:
        model.load_state_dict(fitting, strict=False)
    return f"{path.name}: {len(fitting)} of {len(own)} tensors"


def write(model: nn.Module, path: Path, arguments: dict[str, Any]) -> None:
    """Write `model` as ultralytics' own trainer leaves it: 16 bits, without optimizer, so that `YOLO(path)` works."""
    half = deepcopy(model).half().to(memory_format=torch.contiguous_format).requires_grad_(False)
    half.criterion = half.class_weights = None  # of training only
    half.args = {k: v for k, v in arguments.items() if k in DEFAULT_CFG_KEYS}
    for value in half.state_dict().values():
        if value.is_floating_point():
            torch.nan_to_num_(value)  # 16 bits may overflow
    content = {
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "epoch": -1,
        "model": half,
        "ema": None,
        "optimizer": None,
        "train_args": {**DEFAULT_CFG_DICT, **half.args},
    }
    checkpoint.replace_file(path, lambda file: torch.save(content, file))
