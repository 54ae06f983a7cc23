"""One training from first import to last evaluation: what the worker calls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import catalog, schedule, weights
from engine.errors import DojangError
from engine.spec import Spec, resolved_optimizer
from engine.training import environment
from engine.worker import Job, announce

if TYPE_CHECKING:
    from engine.training.data import Material
    from engine.training.environment import Precision
    from engine.training.loop import Setting
    from engine.training.progress import Requests
    from engine.training.session import Session

State = dict[str, Any]
FREE_TO_CHANGE = {"workers", "device", "threads", "patience", "download", "dataset_hash"}  # between two attempts


def train(job: Job) -> Literal["done", "stopped"]:
    """Train `job`'s version, from the beginning or from its checkpoint. Says everything through `job.log`.

    Raises DojangError with a code and a hint for whatever a person can act on.
    """
    environment.prepare(job.version.workspace.cache, job.spec.threads)
    from engine.training.failures import explained

    with explained(job):
        return _train(job)


def _train(job: Job) -> Literal["done", "stopped"]:
    """The stages in their order, with an ear to the person's requests at each boundary."""
    from engine.training import checkpoint
    from engine.training.progress import Requests

    for folder in (job.version.checkpoints, job.version.best_weights.parent):
        checkpoint.sweep(folder)
    state = _saved_state(job) if job.resume else None
    requests = Requests(job.control, job.log)
    precision = _machine(job.spec)
    file = None if state else _weights_file(job, requests)
    if requests.stopped():
        return "stopped"
    job.log.append("stage", stage="preprocessing")
    material = _material(job, requests)
    if material is None:
        return "stopped"
    session = _open_session(job, material, precision, file, state)
    try:
        return _run(job, session, material, precision, requests, state)
    finally:
        session.close()


def _run(
    job: Job, session: Session, material: Material, precision: Precision, requests: Requests, state: State | None
) -> Literal["done", "stopped"]:
    """Training and testing, or what of them a checkpoint leaves to do."""
    from engine.training import checkpoint
    from engine.training.data import data_changed
    from engine.training.loop import Loop

    setting, optimizer = _settle(job.spec, session, precision)
    loop = Loop(job, session, optimizer, setting, requests)
    if state:
        if state["data_hash"] != session.data_hash:
            raise data_changed(job.spec)
        loop.restore(state)
        state.clear()  # as large as the model: not kept twice
    _log_plan(job, session, setting, optimizer, material)
    if not loop.at.complete:
        job.log.append("stage", stage="training")
        if loop.run() == "stopped":
            return "stopped"
    job.log.append("stage", stage="testing")
    ended = _test(job, session, requests)
    if ended == "done":  # from here on the newer generation is enough
        checkpoint.previous(job.version.state_file).unlink(missing_ok=True)
    return ended


def _machine(spec: Spec) -> Precision:
    """Settle what computes, on how many threads and how precisely."""
    device = environment.choose_device(spec.device)
    environment.use(device, spec.threads or environment.cores())
    return environment.choose_precision(spec.amp, device)


def _material(job: Job, requests: Requests) -> Material | None:
    """The data, checked; None when the person stopped it."""
    from engine.training import data
    from engine.training.progress import Bar

    bar = Bar(job.log, "preprocessing")

    def tick(done: int, total: int) -> bool:
        bar.show(done, total)
        return not requests.stopped()

    material = data.gather(job.spec, job.version.workspace.path, tick)
    for note in material.notes if material else ():
        job.log.append("log", level="warning", text=note)
    return material


def _saved_state(job: Job) -> State | None:
    """The checkpoint to go on from, announced; None when none is readable and the training begins anew."""
    from engine.training import checkpoint

    state, problems = checkpoint.load(job.version.state_file)
    at = state["position"] if state else None
    announce(job, at["epoch"] + 1 if at else 0, at["taken"] if at else 0)
    for problem in problems:
        job.log.append("log", level="warning", text=problem)
    if state is None:
        job.log.append("log", level="warning", text="No checkpoint can be read: the training begins anew.")
        return None
    saved, wanted = state["spec"], job.spec.model_dump()
    changed = [k for k in wanted if k not in FREE_TO_CHANGE and saved.get(k) != wanted[k]]
    if changed:
        raise DojangError(
            f"The checkpoint was made with other settings: {', '.join(changed)} changed since.",
            code="SPEC_CHANGED",
            hint="Put spec.toml back as it was, or train a new version.",
        )
    _warn_inexact(job, state)
    return state


def _warn_inexact(job: Job, state: State) -> None:
    threads = job.spec.threads or environment.cores()
    if not job.spec.exact_resume:
        text = "Exact resume is off: images come in another order from here on than in an unbroken training."
    elif threads != state["threads"]:
        text = f"Trained on {state['threads']} threads before, {threads} now: results will differ in the last digits."
    else:
        return
    job.log.append("log", level="warning", text=text)


def _weights_file(job: Job, requests: Requests) -> Path | None:
    """The file to start from; None for random weights. Raises DojangError(MISSING_WEIGHTS) with where to put it."""
    spec, workspace = job.spec, job.version.workspace
    if spec.weights == "scratch":
        return None
    if spec.weights != "pretrained":
        return Path(spec.weights).expanduser()
    model = catalog.find(spec.model)
    found = weights.find(model, workspace)
    if found:
        return found
    if not spec.download:
        raise weights.missing(model, workspace)
    from engine.training.progress import Bar

    bar = Bar(job.log, "preparing")

    def tick(done: int, total: int) -> bool:
        bar.show(done, total)
        return not requests.stopped()

    job.log.append("log", level="info", text=f"Fetching {model.pretrained} from {weights.address(model)}")
    return weights.fetch(model, workspace, tick)


def _open_session(
    job: Job, material: Material, precision: Precision, file: Path | None, state: State | None
) -> Session:
    """Seed everything, then let the model's kernel build."""
    from engine.training import kernels, randomness

    spec = job.spec
    seed = spec.seed
    if state and not spec.exact_resume:  # or else the images of the first epoch would come once more
        seed = randomness.mix(seed, state["position"]["taken"], randomness.RESTART)
    randomness.seed_all(seed)
    scratch = job.version.workspace.cache / "scratch"
    return kernels.open_session(spec, material, precision, scratch, file, state["structure"] if state else None)


def _settle(spec: Spec, session: Session, precision: Precision) -> tuple[Setting, Any]:
    """Schedule and optimizer, by ultralytics' rules for batches that add up and for “auto”."""
    from engine.training import optim
    from engine.training.loop import Setting

    images, steps, nominal = session.images["train"], session.steps_per_epoch, spec.settled("nominal_batch_size")
    updates = math.ceil(images / max(spec.batch_size, nominal)) * spec.epochs
    name, lr, momentum = resolved_optimizer(spec, session.classes, updates)
    accumulate = max(round(nominal / spec.batch_size), 1)
    decay = spec.weight_decay * spec.batch_size * accumulate / nominal
    optimizer = optim.build(session.model, name, lr, momentum, decay, session.boosted() if name == "MuSGD" else set())
    plan = schedule.of(spec, lr, steps)
    setting = Setting(
        schedule=plan,
        momentum=momentum,
        warm_momentum=0.937 if spec.momentum is None else spec.momentum,  # MuSGD of “auto” too, as upstream
        accumulate=min(accumulate, steps * spec.epochs),
        precision=precision,
        seed=spec.seed,
    )
    return setting, optimizer


def _log_plan(job: Job, session: Session, setting: Setting, optimizer: Any, material: Material) -> None:
    """All that was settled, before the first step."""
    spec, images, device = job.spec, session.images, setting.precision.device
    job.log.append(
        "plan",
        epochs=spec.epochs,
        steps_per_epoch=session.steps_per_epoch,
        batch_size=spec.batch_size,
        image_size=spec.image_size,
        train_images=images["train"],
        val_images=images["val"],
        test_images=images["test"],
        classes=list(material.dataset.classes),
        device=str(device),
        device_name=environment.device_name(device),
        threads=spec.threads or environment.cores(),
        workers=environment.worker_count(spec, device),
        amp=setting.precision.name,
        optimizer=type(optimizer).__name__,
        lr=setting.schedule.lr,
        momentum=setting.momentum,
        warmup_steps=setting.schedule.warmup_steps,
        parameters=sum(p.numel() for p in session.model.parameters()),
        weights=session.weights_text,
        loss_names=list(session.loss_names),
    )


def _test(job: Job, session: Session, requests: Requests) -> Literal["done", "stopped"]:
    """The best weights, as they lie on disk, once more on val and once on test, which nothing was chosen by."""
    from engine.training.progress import Bar

    best = job.version.best_weights
    if not best.exists():
        raise DojangError(
            f"{best} is gone.", code="MISSING_WEIGHTS", hint="Put it back and resume, or train a new version."
        )
    model = session.exported(best)
    for split in ("val", "test") if session.images["test"] else ("val",):
        bar = Bar(job.log, "test" if split == "test" else "val")

        def between(done: int, total: int, bar: Bar = bar) -> bool:
            bar.show(done, total)
            return not requests.stopped()

        found = session.evaluate(model, split, between)
        if found is None:
            return "stopped"
        job.log.append(
            "result",
            split=split,
            metrics=found.metrics,
            per_class=found.per_class,
            weights=best.name,
            images=found.images,
        )
    return "done"


__all__ = ["train"]
