"""Families of models: each builds a `Session` from a spec, so that one loop trains them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalog, plugins
from engine.datasets import packs
from engine.errors import DojangError
from engine.spec import Spec

if TYPE_CHECKING:
    from engine.training.data import Material
    from engine.training.environment import Precision
    from engine.training.session import Session


def open_session(
    spec: Spec,
    material: Material,
    precision: Precision,
    scratch: Path,
    weights: Path | None,
    structure: Any,
) -> Session:
    """Let the kernel of the spec's model build. Its libraries are imported only now: they are slow, and large.

    `scratch` is a folder for what a library insists on writing; `weights` the file to start from, None for random ones;
    `structure` that of the checkpoint to take up.
    """
    model, spec = catalog.find(spec.model), material.governs(spec)
    if model.kernel == "ultralytics":
        from engine.training.kernels import ultralytics

        return ultralytics.Detector(spec, material, precision, scratch, weights, structure)
    if model.kernel == "effdet":
        from engine.training.kernels import effdet

        return effdet.Detector(spec, material, precision, scratch, weights, structure)
    if model.kernel == "torchvision":
        from engine.training.kernels import torchvision

        return torchvision.Classifier(spec, material, precision, scratch, weights, structure)
    plugin = plugins.kernel(model.kernel)
    if plugin and material.pack and not getattr(plugin, "reads_packs", False):
        raise packs.files_only(model.name)
    if plugin:
        return plugin.open_session(spec, material, precision, scratch, weights, structure)
    raise DojangError(
        f"{model.name} cannot be trained yet.", code="NO_KERNEL", hint="Choose another: `dojang models` lists them."
    )
