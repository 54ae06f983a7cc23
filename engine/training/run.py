"""One training from first import to last evaluation: what the worker calls."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import catalog, weights
from engine.errors import DojangError
from engine.spec import Spec, resolved_optimizer
from engine.training import environment
from engine.worker import Job, announce

if TYPE_CHECKING:
    from engine.training.data import Material
    from engine.training.environment import Precision
    from engine.training.loop import Loop, Setting
    from engine.training.progress import Requests
    from engine.training.session import Session
    from engine.training.world import World

State = dict[str, Any]
Ending = Literal["done", "stopped", "paused"]
FREE_TO_CHANGE = {  # between two attempts
    *("workers", "device", "threads", "patience", "download", "dataset_hash", "gpus", "cache", "save_minutes"),
    *("deterministic", "val_every"),
}


def train(job: Job) -> Ending:
    """Train `job`'s version, from the beginning or from its checkpoint. Says everything through `job.log`.

    Raises DojangError with a code and a hint for whatever a person can act on.
    """
    from engine.training import world

    threads = job.spec.threads or max(1, environment.cores() // world.size())
    environment.prepare(job.version.workspace.cache, threads)
    from engine.training.failures import explained

    with explained(job):
        return _train(job, threads)


def _train(job: Job, threads: int) -> Ending:
    """The stages in their order, with an ear to the person's requests at each boundary."""
    from engine.training import checkpoint
    from engine.training.progress import Requests
    from engine.training.world import join

    precision = machine(job.spec, threads)
    world = join(precision.device)
    try:
        if world.writes:
            for folder in (job.version.checkpoints, job.version.best_weights.parent):
                checkpoint.sweep(folder)
        state = _saved_state(job, threads) if job.resume else None
        requests = Requests(job.control, job.log)
        file = None if state else _weights_file(job, requests, world)
        if world.agree(int(requests.stopped())):
            return requests.word
        job.log.append("stage", stage="preprocessing")
        material = _material(job, requests)
        if world.agree(int(material is None)) or material is None:
            return requests.word
        try:
            return _with_session(job, material, precision, requests, world, file, state)
        finally:
            material.close()
    finally:
        world.close()


def _with_session(
    job: Job,
    material: Material,
    precision: Precision,
    requests: Requests,
    world: World,
    file: Path | None,
    state: State | None,
) -> Ending:
    """Open a session of the right batch size, prepare it, and run."""
    if world.size > 1 and not job.spec.exact_resume:
        raise DojangError(
            "Several GPUs share batches by counters, which exact_resume = false turns off.",
            code="BAD_SPEC",
            hint="Train a new version with exact_resume = true or gpus = 1.",
        )
    job = replace(job, spec=_settled_spec(job, material, precision, world, file, state))
    session = _open_session(job, material, precision, file, state)
    try:
        if state and state["data_hash"] == session.data_hash:
            session.model.load_state_dict(state["model"])  # what is prepared depends on the weights
        if not _prepared(job, session, requests):
            return requests.word
        return _run(job, session, material, precision, requests, world, state)
    finally:
        session.close()


def _run(
    job: Job,
    session: Session,
    material: Material,
    precision: Precision,
    requests: Requests,
    world: World,
    state: State | None,
) -> Ending:
    """Training and testing, or what of them a checkpoint leaves to do."""
    from engine.training import checkpoint
    from engine.training.data import data_changed
    from engine.training.loop import Loop

    setting, optimizer = settle(job.spec, session, precision)
    loop = Loop(job, session, optimizer, setting, requests, world)
    if state:
        if state["data_hash"] != session.data_hash:
            raise data_changed(job.spec)
        loop.restore(state)
        state.clear()  # as large as the model: not kept twice
    world.same_weights(session.model)
    loop.hear()
    _log_plan(job, session, loop, optimizer, material)
    if not loop.at.complete:
        job.log.append("stage", stage="training")
        try:
            ended = loop.run()
        finally:
            loop.keeper.abandon()
        if ended != "complete":
            return ended
    job.log.append("stage", stage="testing")
    tested = _test(job, session, requests) if world.writes else "done"
    stopped = world.agree(int(tested != "done"))
    if world.writes and tested == "done":  # from here on the newer generation is enough
        checkpoint.previous(job.version.state_file).unlink(missing_ok=True)
    return tested if world.writes else ("stopped" if stopped else "done")


def machine(spec: Spec, threads: int) -> Precision:
    """Settle what computes, on how many threads and how precisely."""
    from engine.training import world

    device = environment.choose_device(spec.device, world.size(), world.local_rank())
    environment.use(device, threads, spec.deterministic)
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
    for fact in material.facts if material else ():
        job.log.append("log", level="info", text=fact)
    return material


def _saved_state(job: Job, threads: int) -> State | None:
    """The checkpoint to go on from, announced; None when none is readable and the training begins anew."""
    from engine.training import checkpoint, frozen

    state, problems = checkpoint.load(job.version.state_file)
    at = state["position"] if state else None
    announce(job, at["epoch"] + 1 if at else 0, at["taken"] if at else 0)
    for problem in problems:
        job.log.append("log", level="warning", text=problem)
    if state is None:
        job.log.append("log", level="warning", text="No checkpoint can be read: the training begins anew.")
        return None
    frozen.fill(state, job.version.checkpoints)
    saved, wanted = state["spec"], job.spec.model_dump()
    if not wanted["batch_size"]:  # it was settled then
        wanted["batch_size"] = saved.get("batch_size")
    changed = [k for k in wanted if k not in FREE_TO_CHANGE and saved.get(k) != wanted[k]]
    if changed:
        raise DojangError(
            f"The checkpoint was made with other settings: {', '.join(changed)} changed since.",
            code="SPEC_CHANGED",
            hint="Put spec.toml back as it was, or train a new version.",
        )
    _warn_inexact(job, state, threads)
    return state


def _warn_inexact(job: Job, state: State, threads: int) -> None:
    if not job.spec.exact_resume:
        text = "Exact resume is off: images come in another order from here on than in an unbroken training."
    elif threads != state["threads"]:
        text = f"Trained on {state['threads']} threads before, {threads} now: results will differ in the last digits."
    else:
        return
    job.log.append("log", level="warning", text=text)


def _weights_file(job: Job, requests: Requests, world: World) -> Path | None:
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
    if world.writes:
        found = _fetch(job, model, requests)
    world.agree(0)  # the others wait for the file
    return found or weights.find(model, workspace)


def _fetch(job: Job, model: catalog.Model, requests: Requests) -> Path | None:
    from engine.training.progress import Bar

    bar = Bar(job.log, "preparing")

    def tick(done: int, total: int) -> bool:
        bar.show(done, total)
        return not requests.stopped()

    job.log.append("log", level="info", text=f"Fetching {model.pretrained} from {weights.address(model)}")
    return weights.fetch(model, job.version.workspace, tick)


def _settled_spec(
    job: Job, material: Material, precision: Precision, world: World, file: Path | None, state: State | None
) -> Spec:
    """The spec with its batch size settled: as it was before, or as many images as the GPU has room for."""
    spec = job.spec
    if spec.batch_size:
        return spec
    if state:
        return spec.model_copy(update={"batch_size": state["spec"]["batch_size"]})
    assumed = spec.model_copy(update={"batch_size": spec.images_per_step})
    if precision.device.type != "cuda":
        return assumed
    from engine.training import memory

    session = _open_session(replace(job, spec=assumed), material, precision, file, state)
    try:
        size, text = memory.fitting_batch(session, precision, material.images["train"], spec.gpus)
    finally:
        session.close()
        del session
        environment.free(precision.device)
    job.log.append("log", level="info", text=text)
    return spec.model_copy(update={"batch_size": -world.agree(-size)})  # the smallest of what each GPU has room for


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


def _prepared(job: Job, session: Session, requests: Requests) -> bool:
    """Let the session do what it does once before the first step; False when the person stopped it."""
    from engine.training.progress import Bar

    bar = Bar(job.log, "preprocessing")

    def between(done: int, total: int) -> bool:
        bar.show(done, total)
        return not requests.stopped()

    ready = session.prepare(between)
    for note in session.notes:
        job.log.append("log", level="info", text=note)
    return ready


def settle(spec: Spec, session: Session, precision: Precision) -> tuple[Setting, Any]:
    """What the loop trains by, and the optimizer, by ultralytics' rules for batches that add up and for “auto”."""
    from engine.training import optim
    from engine.training.loop import Setting

    images, steps, nominal = session.images["train"], session.steps_per_epoch, spec.settled("nominal_batch_size")
    updates = math.ceil(images / max(spec.batch_size, nominal)) * spec.epochs
    name, lr, momentum = resolved_optimizer(spec, session.classes, updates)
    accumulate = max(round(nominal / spec.batch_size), 1)
    decay = spec.weight_decay * spec.batch_size * accumulate / nominal
    boosted = session.boosted() if name == "MuSGD" else set()
    slowed, ratio = session.backbone_parameters(), spec.backbone_lr_ratio
    optimizer = optim.build(session.model, name, lr, momentum, decay, boosted, slowed, ratio)
    setting = Setting(
        lr=lr,
        momentum=momentum,
        warm_momentum=0.937 if spec.momentum is None else spec.momentum,  # MuSGD of “auto” too, as upstream
        accumulate=min(accumulate, steps * spec.epochs),
        precision=precision,
        seed=spec.seed,
        probe=precision.device.type == "cuda",
    )
    return setting, optimizer


def _log_plan(job: Job, session: Session, loop: Loop, optimizer: Any, material: Material) -> None:
    """All that was settled, before the first step."""
    spec, images, setting = job.spec, session.images, loop.setting
    device, model = setting.precision.device, session.model
    job.log.append(
        "plan",
        task=catalog.find(spec.model).task,
        epochs=loop.course.epochs,
        steps_per_epoch=session.steps_per_epoch,
        batch_size=spec.batch_size,
        image_size=spec.image_size,
        train_images=images["train"],
        val_images=images["val"],
        test_images=images["test"],
        classes=list(material.dataset.classes),
        device=str(device),
        device_name=environment.device_name(device),
        processes=loop.world.size,
        threads=spec.threads or max(1, environment.cores() // loop.world.size),
        workers=environment.worker_count(spec, device),
        amp=setting.precision.name,
        optimizer=type(optimizer).__name__,
        lr=setting.lr,
        momentum=setting.momentum,
        warmup_steps=loop.schedule.warmup_steps,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        weights=session.weights_text,
        loss_names=list(session.loss_names),
    )


def _test(job: Job, session: Session, requests: Requests) -> Ending:
    """The best weights, as they lie on disk, once more on val and once on test, which nothing was chosen by."""
    from engine.training import rescue
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

        found = rescue.evaluate(session, model, split, between, job.log)
        if found is None:
            return requests.word
        job.log.append(
            "result",
            split=split,
            metrics=found.metrics,
            per_class=found.per_class,
            weights=best.name,
            images=found.images,
            confidence=found.confidence,
            confusion=found.confusion,
            curves=found.curves,
        )
    return "done"


__all__ = ["train"]
