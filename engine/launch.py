"""From a filled-in form to a running version: the checks, facts and estimate that the wizard and `dojang train` share."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from typing import Any

from engine import catalog, estimate, plugins, weights
from engine.datasets import recipes, registry
from engine.datasets.model import Dataset, Split
from engine.errors import DojangError, Invalid, Problem
from engine.servers import anywhere, inventory, local, queue
from engine.servers.inventory import Machine
from engine.servers.turns import Request, View, outlook
from engine.spec import Label, Spec, advice, parse, problems, property_of, resolved_optimizer
from engine.versions import Version, Workspace, summaries

LOW_DISK = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a spec amounts to on its data: everything the confirmation shows beyond the spec itself.

    `seconds` is an estimate from the pace of `pace_from`, an earlier version; None while there is none. `memory` is one
    of the GiB it takes on each GPU, or of this machine's memory; None for models that were not measured. `starts` says
    when it would start on the machine that was seen; empty where none was.
    """

    spec: Spec
    dataset: Dataset
    steps_per_epoch: int
    steps: int
    optimizer: str
    lr: float
    momentum: float
    warnings: tuple[str, ...]
    weights: str
    seconds: float | None
    pace_from: str
    memory: float | None
    starts: str


def check(workspace: Workspace, data: dict[str, Any]) -> list[Problem]:
    """Every problem of a spec at once: its fields, its data set, its weights."""
    found = problems(data)
    broken = {p.field for p in found}
    if ("dataset" not in broken and (problem := _dataset_problem(workspace, str(data["dataset"])))) or (
        not broken & {"dataset", "model"} and (problem := _task_problem(workspace, data))
    ):
        found.append(problem)
    if "model" not in broken and (why := plugins.unready(str(data.get("model", "yolov8n")))):
        found.append(Problem("model", why))
    if not broken & {"model", "weights", "download"}:
        problem = _weights_problem(workspace, data)
        found += [problem] if problem else []
    return found


def _dataset_problem(workspace: Workspace, name: str) -> Problem | None:
    try:
        dataset = registry.load(workspace.path, name)
    except DojangError as e:
        return Problem("dataset", f"{e.message} {e.hint}".strip())
    if not dataset.counts.per_split["train"].images:
        return Problem("dataset", f"“{name}” has no image in its train split.")
    if not dataset.counts.per_split["val"].images:
        return Problem("dataset", f"“{name}” has no image in its val split.")
    return None


def _task_problem(workspace: Workspace, data: dict[str, Any]) -> Problem | None:
    model = catalog.find(str(data.get("model", "yolov8n")))
    dataset = registry.load(workspace.path, str(data["dataset"]))
    if model.task == dataset.task:
        return None
    message = f"“{dataset.name}” is to {dataset.task}, {model.name} learns to {model.task}: choose another of the two"
    return Problem("dataset", message)


def _weights_problem(workspace: Workspace, data: dict[str, Any]) -> Problem | None:
    chosen = str(data.get("weights", "scratch"))
    model = catalog.find(str(data.get("model", "yolov8n")))
    if chosen == "scratch":
        return None
    if chosen != "pretrained":
        try:
            place = weights.resolve(chosen, workspace, model)
            return None if place.is_file() else Problem("weights", f"there is no file {place}")
        except DojangError as e:
            return Problem("weights", e.message)
        except OSError as e:
            return Problem("weights", f"cannot be read: {e.strerror}")
    if weights.find(model, workspace) or str(data.get("download", "")).lower() in ("true", "1", "yes", "on"):
        return None
    return Problem(
        "weights",
        f"{model.pretrained} is not on this machine. Fetch it (dojang weights fetch {model.name}), put it into {workspace.weights}, allow the "
        "download "
        "(download=true), or start from scratch (weights=scratch)",
    )


def plan(
    workspace: Workspace, spec: Spec, seen: Machine | None = None, server: str = "", view: View | None = None
) -> Plan:
    """What `spec` amounts to on the machine `seen`, if any was: this one's, or that of `server`, with its queue's `view`.

    Raises NotFound when its data set is not registered.
    """
    dataset = registry.load(workspace.path, spec.dataset)
    train_images = recipes.train_images(workspace.path, dataset)
    per_epoch = max(1, math.ceil(train_images / spec.images_per_step))
    steps = per_epoch * spec.epochs
    # ultralytics decides "auto" by the number of updates at its nominal batch size
    updates = math.ceil(train_images / max(spec.images_per_step, spec.settled("nominal_batch_size"))) * spec.epochs
    name, lr, momentum = resolved_optimizer(spec, len(dataset.classes), updates)
    seconds, pace_from = duration(workspace, spec, dataset, server)
    memory, tight = _memory(spec, seen)
    starts, beside = (turn_there(spec, view), False) if server else _turn(spec, seen)
    warnings = [*advice(spec, len(dataset.classes), updates, train_images), *tight]
    warnings += [f"It would start {starts}."] if starts.startswith("never") else []
    warnings += _circumstances(workspace, dataset, beside)
    warnings += _on_pixels(workspace, spec)
    return Plan(
        spec=spec,
        dataset=dataset,
        steps_per_epoch=per_epoch,
        steps=steps,
        optimizer=name,
        lr=lr,
        momentum=momentum,
        warnings=tuple(warnings),
        weights=start_from(workspace, spec),
        seconds=seconds,
        pace_from=pace_from,
        memory=memory,
        starts=starts,
    )


def _turn(spec: Spec, seen: Machine | None) -> tuple[str, bool]:
    """When it would start on the machine last seen, and whether it then shares what computes with others."""
    if seen is None:
        return "", True
    request = Request(*local.needed(spec), visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not seen.gpus or not request.count or not request.pool([g.uuid for g in seen.gpus]):
        return "at once", True
    view = queue.look(queue.place(), [g.uuid for g in seen.gpus], inventory.others(seen.gpus))
    return outlook(view, request), False


def turn_there(spec: Spec, view: View | None) -> str:
    """When it would start on a server whose queue is `view`; empty where that was not seen."""
    request = Request(*local.needed(spec))
    if view is None:
        return ""
    return "at once" if not view.uuids or not request.count else outlook(view, request)


def gpu_limits(model: str) -> tuple[int, int]:
    """How few and how many GPUs may share a training of this model."""
    program = plugins.program_of(model)
    least, most = program.gpus if program else (1, int(property_of("gpus")["maximum"]))
    return max(1, least), max(1, most)


def _memory(spec: Spec, seen: Machine | None) -> tuple[float | None, list[str]]:
    """GiB that it will take on the machine last seen, and a warning where that is more than is free."""
    if seen is None:
        return None, []
    on_gpu = bool(seen.gpus) and spec.device != "cpu"
    room = max(g.memory_free for g in seen.gpus) if on_gpu else seen.memory_free
    needed = estimate.memory(spec, on_gpu)
    if needed is None or needed <= room or (on_gpu and not spec.batch_size):
        return needed, []
    place = "on the GPU" if on_gpu else "of memory"
    text = f"It needs about {needed:.1f} GiB {place}, {room:.1f} are free: batches would go through in smaller runs."
    return needed, [text]


def start_from(workspace: Workspace, spec: Spec) -> str:
    """Where the first weights come from, said plainly."""
    model = catalog.find(spec.model)
    if spec.weights == "scratch":
        return "scratch: random weights"
    if spec.weights != "pretrained":
        return f"the file {weights.resolve(spec.weights, workspace, model)}"
    found = weights.find(model, workspace)
    if found:
        return f"pretrained on {model.trained_on}: {found}"
    return f"pretrained on {model.trained_on}: {model.pretrained}, downloaded first into {workspace.weights}"


def duration(workspace: Workspace, spec: Spec, dataset: Dataset, server: str = "") -> tuple[float | None, str]:
    """Seconds that the training may take, from the pace of the latest version alike in model, device and server; and which."""
    candidates = [v for name in workspace.projects() for v in workspace.project(name).versions()]
    images = recipes.train_images(workspace.path, dataset)
    best: tuple[float, dict[str, Any]] | None = None
    for row in summaries(candidates):
        pace = row.get("pace")
        if (
            pace
            and row["model"] == spec.model
            and pace["device"] == spec.device
            and row["server"] == server.partition("/")[0]
            and (best is None or row["last_time"] > best[0])
        ):
            best = (row["last_time"], row)
    if best is None:
        return None, ""
    pace = best[1]["pace"]
    area = (spec.image_size / pace["image_size"]) ** 2 * pace.get("processes", 1) / spec.gpus
    return spec.epochs * images * pace["seconds_per_image"] * area, f"{best[1]['project']}/{best[1]['version']}"


def _on_pixels(workspace: Workspace, spec: Spec) -> list[str]:
    """Warnings about images that a version of the data set shapes beforehand."""
    recipe = recipes.find_recipe(workspace.path, spec.dataset)
    found = []
    if recipe and recipe.resize != "none" and recipe.size < spec.image_size:
        found.append(f"The version's images are {recipe.size} px a side: image_size {spec.image_size} enlarges them.")
    if recipe and recipe.copies:
        found.append("The version holds varied copies of its images, so the settings of augmentation do nothing.")
    return found


def _circumstances(workspace: Workspace, dataset: Dataset, beside: bool) -> list[str]:
    """Warnings about the data and this machine."""
    found = []
    place = workspace.ensure().path
    free = shutil.disk_usage(place).free / 2**30
    if free < LOW_DISK:
        found.append(f"Only {free:.1f} GiB are free at {place}: checkpoints may not fit.")
    if not dataset.counts.per_split["test"].images:
        found.append("The data set has no test split: results are those on val, which also chose the best weights.")
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        per_class = dataset.counts.per_split[split].per_class
        missing = [c for c in dataset.classes if not per_class.get(c)]
        if missing:
            found.append(f"No object of {', '.join(missing[:4])} in the {split} split.")
    running = workspace.running() if beside else []
    if running:
        found.append(f"{', '.join(running)} is training on this machine: both will be slower.")
    return found


def create(
    workspace: Workspace, data: dict[str, Any], label: Label, project: str | None = None, server: str = ""
) -> Version:
    """Check everything and lay down the version, not yet started, to train on `server`, or on this machine without.

    Raises Invalid with every problem at once, NotFound for a server that there is none of.
    """
    found = check(workspace, data)
    if found:
        raise Invalid(found)
    spec = parse(data)
    dataset = registry.load(workspace.path, spec.dataset)
    if spec.dataset_hash and spec.dataset_hash != dataset.hash:
        raise Invalid([Problem("dataset_hash", f"“{spec.dataset}” has changed since this spec was written")])
    file = spec.weights
    if file not in ("scratch", "pretrained"):
        file = str(weights.resolve(file, workspace, catalog.find(spec.model)))
    spec = spec.model_copy(update={"dataset_hash": dataset.hash, "weights": file})
    if not server:
        return workspace.project(project).create(spec, label)
    from engine.servers import boxes, elsewhere, prepare, slurm

    name, _, entry = server.partition("/")
    box = boxes.get(workspace.path, name)
    if entry:
        slurm.gpus_needed(slurm.entry_of(box, entry), spec)
    prepare.require_ours(spec)
    version = workspace.project(project).create(spec, label)
    elsewhere.put_on(version, server, box.root)
    return version


def create_and_start(
    workspace: Workspace, data: dict[str, Any], label: Label, project: str | None = None, server: str = ""
) -> Version:
    """`create`, then start it where it is to train."""
    version = create(workspace, data, label, project, server)
    anywhere.start(version)
    return version


def command(spec: Spec, label: Label, project: str, server: str = "") -> str:
    """The command that does what the wizard is about to do."""
    import shlex

    from engine.spec import changed

    words = ["dojang", "train", "--dataset", spec.dataset, "--model", spec.model, "--project", project]
    words += ["--server", server] if server else []
    words += ["--name", label.name] if label.name else []
    for tag in label.tags:
        words += ["--tag", tag]
    words += ["--memo", label.memo] if label.memo else []
    for name in changed(spec):
        if name != "model":
            value = getattr(spec, name)
            pairs = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
            for key, one in pairs.items():
                words += ["--set", f"{key}={str(one).lower() if isinstance(one, bool) else one}"]
    return shlex.join(words)
