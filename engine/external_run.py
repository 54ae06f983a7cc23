"""Trains with an external kernel: starts its program, hears it, obeys the person, and has the last word. No torch.

The program is given one JSON file (`_brief` says what is in it) and the data set as a manifest of JSON lines. It writes
events; what becomes of them is in `engine.external_events`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import catalog, external, files, weights
from engine.datasets import packs, recipes, registry
from engine.errors import DojangError
from engine.external_events import Heard
from engine.external_process import Process
from engine.external_writer import Writer

if TYPE_CHECKING:
    from engine.datasets.model import Dataset
    from engine.external import Declaration
    from engine.versions import Version
    from engine.worker import Job

Ended = Literal["done", "stopped", "paused"]
CONTRACT = 1  # raise it when a program written for the last one would fail
NAMED = 20  # missing images that are named


def resumable(version: Version, program: Declaration) -> bool:
    """Whether there is something to go on from, and the program can."""
    return "resume" in program.operations and _checkpoint(version) is not None


def train(job: Job, program: Declaration) -> Ended:
    """Train `job`'s version with the program, from the beginning or from its last checkpoint.

    Raises DojangError: KERNEL_NOT_ACCEPTED, KERNEL_MISSING, KERNEL_FAILED, or what the program itself said went wrong.
    """
    version = job.version
    checkpoint = _checkpoint(version) if job.resume else None
    if checkpoint:
        from engine.worker import announce

        announce(job, checkpoint["epoch"] + 1, checkpoint["step"])
    if not program.accepted:
        raise external.refusal(program)
    troubles = program.troubles()
    if troubles:
        raise DojangError(
            f"The kernel {program.name} cannot be started: {'; '.join(troubles)}.",
            code="KERNEL_MISSING",
            hint=f"Put it right and resume. dojang kernel check {program.name} says whether it is.",
        )
    _require_gpus(job, program)
    _make_room(version, fresh=not checkpoint)
    start_from = None if checkpoint else _start_from(job)
    job.log.append("stage", stage="preprocessing")
    dataset, images = _manifest(job)
    if dataset is None:
        return _asked(job)
    heard = Heard(
        _plan(job, dataset, images, start_from), *((checkpoint["step"], checkpoint["epoch"]) if checkpoint else ())
    )
    brief = output_of(version) / "spec.json"
    files.write_bytes(
        brief, json.dumps(_brief(job, program, dataset, images, start_from, checkpoint), indent=1).encode()
    )
    return _run(job, program, heard, brief)


def _run(job: Job, program: Declaration, heard: Heard, brief: Path) -> Ended:
    version = job.version
    job.log.append("log", level="info", text=f"Metrics are as the kernel {program.name} measures them.")
    writer = Writer(job.log, heard, version.checkpoints, checkpoint_file(version))
    command = program.command_line(spec=str(brief), run=str(version.path), output=str(output_of(version)))
    with Process(command, output_of(version), _environment(job), version.train_log) as process:
        ended = process.follow(job, program, heard, writer, events_file(version) if program.events == "file" else None)
    if ended == "done" and not any(p.is_file() for p in version.best_weights.parent.iterdir()):
        job.log.append("log", level="warning", text=f"It left no weights in {version.best_weights.parent}")
    if ended in ("stopped", "paused") and "resume" not in program.operations:
        text = f"The kernel {program.name} cannot go on from where it stopped: resume begins anew."
        job.log.append("log", level="warning", text=text)
    return ended


# Places


def output_of(version: Version) -> Path:
    """The program's own folder in the run directory; it is started in it."""
    return version.path / "kernel"


def events_file(version: Version) -> Path:
    return output_of(version) / "events.jsonl"


def checkpoint_file(version: Version) -> Path:
    """Where it is kept which checkpoint the program told of last."""
    return output_of(version) / "checkpoint.json"


def _checkpoint(version: Version) -> dict[str, Any] | None:
    """The checkpoint that was told of last, if its file is still there."""
    try:
        found = json.loads(checkpoint_file(version).read_bytes())
        name, epoch, step = str(found["name"]), int(found["epoch"]), int(found["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    path = version.checkpoints / name
    return {"path": str(path), "epoch": epoch, "step": step} if "/" not in name and path.exists() else None


def _make_room(version: Version, *, fresh: bool) -> None:
    """The folders that the program writes into. One that begins anew must not find what the last attempt left."""
    for folder in (output_of(version), version.path / "metrics", version.checkpoints, version.best_weights.parent):
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(exist_ok=True)
        except OSError as e:
            raise files.disk_error(e, folder) from e
    events_file(version).unlink(missing_ok=True)


# What the program is given


def _require_gpus(job: Job, program: Declaration) -> None:
    """Say so at once where a program cannot work on this machine."""
    if not program.gpus[0]:
        return
    from engine.servers import inventory

    found = inventory.machine(job.version.workspace.path).gpus
    if len(found) < program.gpus[0]:
        raise DojangError(
            f"The kernel {program.name} needs {program.gpus[0]} GPU(s); this machine has {len(found)} that can be seen.",
            code="NO_GPU",
            hint="Train it on a machine that has them, or choose another model. `dojang server` says what is seen here.",
        )


def _start_from(job: Job) -> Path | None:
    """The file of weights to begin with; None for none."""
    spec, workspace = job.spec, job.version.workspace
    if spec.weights == "scratch":
        return None
    model = catalog.find(spec.model)
    found = weights.find(model, workspace) if spec.weights == "pretrained" else Path(spec.weights)
    if found is None or not found.is_file():
        raise weights.missing(model, workspace, "" if found is None else f"There is no file {found}.")
    return found


def _manifest(job: Job) -> tuple[Dataset | None, dict[str, int]]:
    """Write the data set as JSON lines, one image each, and count images by split; no data set when it was stopped."""
    from engine.external_writer import Bar

    spec, place = job.spec, job.version.workspace.path
    dataset = registry.load(place, spec.dataset)
    registry.require(dataset)
    if spec.dataset_hash and spec.dataset_hash != dataset.hash:
        raise DojangError(
            f"The data set {spec.dataset} is not the one this training was set up with: its contents differ.",
            code="DATA_CHANGED",
            hint="Train a new version on it as it is now.",
        )
    recipe = recipes.find_recipe(place, spec.dataset)
    if recipe and recipe.makes_pixels:
        raise packs.files_only(spec.model)
    items, bar = registry.open_items(place, spec.dataset), Bar(job.log, "preprocessing")
    images, missing = {"train": 0, "val": 0, "test": 0}, []
    target = output_of(job.version) / "manifest.jsonl"
    try:
        with target.open("w", encoding="utf-8") as file:
            for done, item in enumerate(items):
                if done % 256 == 0 and job.control.poll() in ("stop", "pause"):
                    return None, images
                path = dataset.image(item)
                if not path.exists():
                    missing.append(item.path)
                images[item.split] += 1
                label = dataset.classes[item.label] if item.label is not None else None
                row = {"path": str(path), "split": item.split, "width": item.width, "height": item.height}
                row |= {"labelled": item.labelled, "label": item.label, "class": label, "boxes": item.boxes}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                bar.show(done + 1, len(items))
    except OSError as e:
        raise files.disk_error(e, target) from e
    if missing:
        raise DojangError(
            f"{len(missing)} images of the data set {spec.dataset} are missing:\n" + "\n".join(missing[:NAMED]),
            code="BAD_DATASET",
            hint="Put them back and resume, or add the folder as a new data set and train on that.",
        )
    return dataset, images


def _plan(job: Job, dataset: Dataset, images: dict[str, int], start_from: Path | None) -> dict[str, Any]:
    """The plan as far as it is known before the program says more."""
    spec = job.spec
    batch = spec.images_per_step
    return {
        "task": dataset.task,
        "epochs": spec.epochs,
        "steps_per_epoch": max(1, math.ceil(images["train"] / batch)),
        "batch_size": batch,
        "image_size": spec.image_size,
        **{f"{split}_images": count for split, count in images.items()},
        "classes": list(dataset.classes),
        "device": spec.device,
        "optimizer": "its own",
        "weights": str(start_from) if start_from else "none: from the beginning",
    }


def _brief(
    job: Job, program: Declaration, dataset: Dataset, images: dict[str, int], start_from: Path | None, checkpoint: Any
) -> dict[str, Any]:
    """The file that the program is given: all it needs to know, every path whole."""
    version, spec = job.version, job.spec.model_dump()
    told = ("dataset", "dataset_hash", "model", "options", "weights", "download")
    return {
        "contract": CONTRACT,
        "operation": "resume" if checkpoint else "train",
        "version": version.reference,
        "model": catalog.find(job.spec.model).to_json(),
        "settings": {k: v for k, v in spec.items() if k not in told},
        "options": dict(job.spec.options),
        "start_from": str(start_from) if start_from else None,
        "checkpoint": checkpoint,
        "etc_path": {name: str(path) for name, path in program.files().items()},
        "dataset": {
            "name": dataset.name,
            "task": dataset.task,
            "root": str(dataset.root),
            "classes": list(dataset.classes),
            "images": images,
            "manifest": str(output_of(version) / "manifest.jsonl"),
        },
        "output": str(output_of(version)),
        "weights": str(version.best_weights.parent),
        "checkpoints": str(version.checkpoints),
        "metrics": str(version.path / "metrics"),
        "events": str(events_file(version)) if program.events == "file" else None,
        "control": str(version.control),
        "stop_seconds": program.stop_seconds,
    }


def _environment(job: Job) -> dict[str, str]:
    """The program's environment: the person's own, seeing only the GPUs that the spec names."""
    import engine

    found = {k: v for k, v in os.environ.items() if not k.startswith("DOJANG_")}
    home = str(Path(engine.__file__).parent.parent)  # put there for our own worker
    paths = [p for p in found.pop("PYTHONPATH", "").split(os.pathsep) if p and p != home]
    found |= {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
    device, gpus = job.spec.device, job.spec.gpus
    if device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    elif device.startswith("cuda:"):
        first = int(device.removeprefix("cuda:"))
        seen = [d for d in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
        chosen = seen[first : first + gpus] or [str(first + i) for i in range(gpus)]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return found


def _asked(job: Job) -> Ended:
    return "paused" if job.control.poll() == "pause" else "stopped"


__all__ = ["resumable", "train"]
