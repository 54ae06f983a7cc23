"""Optimizers over ultralytics' three kinds of parameters, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from engine.spec import Spec

Group = dict[str, Any]
NORMS = tuple(cls for name, cls in nn.__dict__.items() if "Norm" in name and isinstance(cls, type))
BOOST = 3  # MuSGD trains the classification layers of a detector at this many times the rate, as ultralytics does


def build(
    model: nn.Module,
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    boosted: set[int],
    slowed: set[int],
    ratio: float,
) -> torch.optim.Optimizer:
    """The optimizer called `name`. Groups and their order are ultralytics' own, so that updates agree to the last bit.

    Each group has a `kind` (weight, norm, bias or muon), an `initial_lr`, which the loop scales by the schedule, and the
    `ratio` of that to `lr`: those in `boosted` (MuSGD only) learn faster, those in `slowed` at `ratio`. Weights decay;
    biases and the weights of normalisation layers do not.
    """
    kinds = _kinds(model, muon=name == "MuSGD")
    common = _arguments(name, lr, momentum)
    decays = {"weight": weight_decay, "norm": 0.0, "bias": 0.0, "muon": weight_decay}
    groups: list[Group] = []
    for kind, parameters in kinds.items():
        group: Group = {**common, "kind": kind, "weight_decay": decays[kind]}
        if name == "MuSGD":
            group["use_muon"] = kind == "muon"
        for share, members in _by_ratio(parameters, name == "MuSGD", boosted, slowed, ratio):
            groups.append({**group, "params": members, "lr": lr * share, "initial_lr": lr * share, "ratio": share})
    if name == "MuSGD":
        from ultralytics.optim import MuSGD

        return MuSGD(params=groups, muon=0.2, sgd=1.0)
    on_gpu = next(model.parameters()).is_cuda
    fused = {"fused": True} if name in ("Adam", "AdamW") and on_gpu else {}
    classes: dict[str, Any] = {
        "SGD": torch.optim.SGD,
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
        "NAdam": torch.optim.NAdam,
        "RAdam": torch.optim.RAdam,
        "RMSProp": torch.optim.RMSprop,
    }
    return classes[name](groups, **fused)


def _by_ratio(
    parameters: list[nn.Parameter], muon: bool, boosted: set[int], slowed: set[int], ratio: float
) -> list[tuple[float, list[nn.Parameter]]]:
    """Parameters of one kind by the ratio of their rate; always as many groups for the same arguments."""
    found: list[tuple[float, list[nn.Parameter]]] = []
    if muon:
        found.append((float(BOOST), [p for p in parameters if id(p) in boosted]))
        parameters = [p for p in parameters if id(p) not in boosted]
    if ratio != 1:
        found.append((ratio, [p for p in parameters if id(p) in slowed]))
        parameters = [p for p in parameters if id(p) not in slowed]
    return [*found, (1.0, parameters)]


def _kinds(model: nn.Module, muon: bool) -> dict[str, list[nn.Parameter]]:
    kinds: dict[str, list[nn.Parameter]] = {"weight": [], "norm": [], "bias": []}
    if muon:
        kinds["muon"] = []
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if muon and parameter.ndim in (2, 4):  # Muon orthogonalises matrices and filters, nothing else
                kinds["muon"].append(parameter)
            elif "bias" in f"{module_name}.{name}":
                kinds["bias"].append(parameter)
            elif isinstance(module, NORMS):
                kinds["norm"].append(parameter)
            else:
                kinds["weight"].append(parameter)
    return kinds


def _arguments(name: str, lr: float, momentum: float) -> Group:
    if name in ("SGD", "MuSGD"):
        return {"lr": lr, "momentum": momentum, "nesterov": True}
    if name == "RMSProp":
        return {"lr": lr, "momentum": momentum}
    return {"lr": lr, "betas": (momentum, 0.999)}


def clip(model: nn.Module, spec: Spec) -> None:
    """Shorten the gradients of all weights together to what `spec` allows."""
    limit = spec.settled("clip")
    if limit:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=limit)


def late_decay(updates: int) -> float:
    """Next to no averaging in the first few thousand updates: ultralytics' numbers."""
    return 0.9999 * (1 - math.exp(-updates / 2000))


def even_decay(updates: int) -> float:
    """An average over about the latest ninth of the training, however short it is (TensorFlow's rule)."""
    return min(0.9998, (1 + updates) / (10 + updates))


class Average:
    """A running average of everything floating in a model: it is what gets evaluated, exported and chosen from.

    `decay` says, by the number of updates so far, what share of the average each update keeps.
    """

    def __init__(self, model: nn.Module, decay: Callable[[int], float]) -> None:
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}  # what never changes is its own average
        self.model = deepcopy(model, dict(shared)).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        self._pairs: tuple[list[Tensor], list[Tensor]] | None = None

    def update(self, model: nn.Module) -> None:
        self.updates += 1
        if self._pairs is None:  # tensors are updated in place, so the lists are made once
            current = model.state_dict()
            averaged = self.model.state_dict()
            floating = [
                k for k, v in averaged.items() if v.dtype.is_floating_point and v.data_ptr() != current[k].data_ptr()
            ]
            self._pairs = [averaged[k] for k in floating], [current[k] for k in floating]
        torch._foreach_lerp_(*self._pairs, 1 - self.decay(self.updates))
