"""EfficientDet trained for real: what it says, leaves behind and goes on from."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine import catalog, demo
from engine.datasets import add
from engine.errors import DojangError
from engine.training import data
from engine.training.environment import Precision
from engine.training.kernels import effdet_weights
from engine.training.kernels.effdet import Detector
from engine.training.kernels.effdet_model import Design, build
from engine.versions import Version, Workspace
from tests.training.conftest import Create, ending, of_kind, same, start, tiny, train
from tests.training.test_resume import state_of, stop_at_step, wait_for

pytestmark = pytest.mark.slow

# Gradients are pending at most moments, and mosaic closes on the way.
D0 = {"model": "efficientdet_d0", "image_size": 128, "nominal_batch_size": 16, "batch_size": 8}
SHAPES = {"images": 32, "size": 128, "val": 0.25}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """data.yaml of 24 training and 8 val images of 128 px."""
    return demo.draw(tmp_path / "shapes", **SHAPES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: Any) -> Version:
    """The training that was left alone."""
    folder = tmp_path_factory.mktemp("unbroken")
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, demo.draw(folder / "shapes", **SHAPES), "shapes")
    version = tiny(workspace, **D0)
    assert ending(train(version)) == "done"
    return version


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def test_what_it_says_and_leaves(create: Create, shapes: Path) -> None:
    version = create(**D0, epochs=2)
    before = files(shapes.parent)
    events = train(version)
    assert ending(events) == "done"
    assert files(shapes.parent) == before, "something was written beside the user's images"
    (plan,) = of_kind(events, "plan")
    assert plan["optimizer"] == "AdamW" and plan["lr"] == 0.002 and plan["loss_names"] == ["box_loss", "cls_loss"]
    assert plan["parameters"] == pytest.approx(3.83e6, rel=0.01) and plan["weights"] == "random weights"
    epochs = of_kind(events, "epoch")
    assert len(epochs) == 2 and set(epochs[0]["metrics"]) == {"map50", "map50_95", "precision", "recall", "f1"}
    assert set(epochs[0]["train"]) == set(epochs[0]["val"]) == {"box_loss", "cls_loss"}
    assert [c["name"] for c in epochs[0]["per_class"]] == ["circle", "square", "triangle"]
    best = next(e for e in reversed(epochs) if e["best"])
    (result,) = of_kind(events, "result")
    assert (result["metrics"], result["per_class"]) == (best["metrics"], best["per_class"])  # the file loses nothing
    found = effdet_weights.read(version.best_weights)
    assert (found["model"], found["classes"]) == ("efficientdet_d0", ["circle", "square", "triangle"])
    assert version.last_weights.exists() and "effdet" in of_kind(events, "start")[0]["versions"]


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_within_an_epoch(create: Create, unbroken: Version, monkeypatch: Any, workers: int) -> None:
    version = create(workers=workers, **D0)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 5)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "start")[0]["resumed"] == {"epoch": 2, "step": 5}
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]
    assert version.progress().metrics() == unbroken.progress().metrics()


def test_killed(create: Create, unbroken: Version) -> None:
    version = create(workers=2, **D0)
    with version.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(version, lock.fileno())
        wait_for(version, lambda events: any(e["step"] >= 5 for e in of_kind(events, "step")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start(version).wait(200) == 0, version.train_log.read_text()
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]


def opened(version: Version) -> Detector:
    """The session that trains `version`."""
    import torch

    spec, workspace = version.spec(), version.workspace
    material = data.gather(spec, workspace.path, lambda done, total: True)
    assert material
    return Detector(spec, material, Precision("off", torch.device("cpu")), workspace.cache / "scratch", None)


def test_more_epochs_go_on_as_if_they_had_been_planned(create: Create) -> None:
    planned = opened(create(**D0, epochs=4))
    session = opened(create(**D0, epochs=3))
    taken = [list(session.batches(epoch, 0)) for epoch in (0, 1)]
    session.reschedule(4)
    taken += [list(session.batches(epoch, 0)) for epoch in (2, 3)]
    for epoch, batches in enumerate(taken):
        expected = list(planned.batches(epoch, 0))
        assert len(batches) == len(expected) == 3
        assert all(same(ours["img"], theirs["img"]) for ours, theirs in zip(batches, expected, strict=True)), epoch


def test_the_densest_batch_is_learned_from_and_parts_of_one_add_up(create: Create) -> None:
    import torch

    session = opened(create(**D0, mosaic=0.0, class_weights=0.5, label_smoothing=0.1))
    samples = session.material.samples["train"]
    batch = session.densest(3)
    fullest = sorted((len(s.boxes) for s in samples), reverse=True)[:3]
    assert session.size(batch) == 3 and [int((batch["batch_idx"] == i).sum()) for i in range(3)] == fullest
    assert session.size(session.densest(999)) == len(samples)
    session.model.train()
    loss, parts = session.loss(batch)
    assert torch.isfinite(loss) and parts.shape == (2,)
    session.model.eval()  # normalisation looks across images
    loss, parts = session.loss(batch)
    cut = [(session.size(piece), *session.loss(piece)) for piece in session.split(batch, 2)]
    assert [size for size, *_ in cut] == [1, 2]
    assert torch.allclose(sum(loss for _, loss, _ in cut), loss, rtol=1e-4)
    assert torch.allclose(sum(parts * size / 3 for size, _, parts in cut), parts, rtol=1e-4)


def test_an_evaluation_in_pieces_comes_to_the_same(create: Create, unbroken: Version) -> None:
    session = opened(create(**D0))
    model = session.exported(unbroken.best_weights)
    whole = session.evaluate(model, "val", lambda done, total: True)
    session.pieces = 3
    cut = session.evaluate(model, "val", lambda done, total: True)
    assert whole and cut and cut.metrics == pytest.approx(whole.metrics, abs=1e-3)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-3)


def test_a_frozen_backbone_stays_as_it_was_to_its_statistics(create: Create, unbroken: Version) -> None:
    version = create(**D0, weights=str(unbroken.best_weights), freeze="features", epochs=1)
    assert ending(train(version)) == "done"
    before, after = (effdet_weights.read(v.best_weights)["state_dict"] for v in (unbroken, version))
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed and not any(name.startswith("backbone.") for name in changed)
    assert any(name.startswith("fpn.") for name in changed)


def test_a_single_small_image_at_the_end_is_refused_before_the_start(create: Create) -> None:
    with pytest.raises(DojangError, match="a single one") as caught:
        opened(create(**{**D0, "batch_size": 23}))
    assert caught.value.code == "BAD_SPEC"
    opened(create(**{**D0, "batch_size": 23, "image_size": 256}))


def test_the_backbone_learns_at_its_own_rate(create: Create) -> None:
    session = opened(create(**D0))
    own = session.backbone_parameters()
    names = {name for name, p in session.model.named_parameters() if id(p) in own}
    assert names == {name for name, _ in session.model.named_parameters() if name.startswith("model.backbone.")}


@pytest.mark.parametrize(("model", "size", "scale"), [("efficientdet_d0", 384, None), ("efficientdet_d6", 1408, 2.5)])
@pytest.mark.timeout(600)
def test_sizes_that_no_model_has_by_itself(create: Create, model: str, size: int, scale: float | None) -> None:
    """Any multiple of 128, and anchors for small objects; one image, forward and backward."""
    import torch

    session = opened(
        create(model=model, image_size=size, anchor_scale=scale, batch_size=1, epochs=1, freeze="features")
    )
    batch = next(session.batches(0, 0))
    assert batch["img"].shape == (1, 3, size, size)
    session.model.train()
    loss, _ = session.loss(batch)
    loss.backward()
    assert torch.isfinite(loss) and session.design.anchor_scale == (scale or session.design.anchor_scale)


def test_pretrained_weights_are_taken_over_with_their_anchors(create: Create, workspace: Workspace) -> None:
    import torch

    donor = build(Design("efficientdet_d0", 90, 512, 4.0))
    path = workspace.weights / catalog.find("efficientdet_d0").pretrained
    torch.save(donor.model.state_dict(), path, _use_new_zipfile_serialization=False)
    version = create(weights="pretrained", **D0, epochs=1)
    events = train(version)
    assert ending(events) == "done"
    (plan,) = of_kind(events, "plan")
    assert plan["weights"].startswith(f"{path.name}: ") and plan["lr"] == 0.0004
    assert effdet_weights.read(version.best_weights)["anchor_scale"] == 4.0

    own = create(weights=str(version.best_weights), **{**D0, "image_size": 256}, epochs=1)
    assert ending(train(own)) == "done"
    total, *_ = own.progress().plan["weights"].split(": ")[1].split(" of ")
    assert total == own.progress().plan["weights"].split(" of ")[1].split()[0]


def test_one_class_background_and_bf16(workspace: Workspace, tmp_path: Path) -> None:
    """Fewer anchors than the library wants to pick predictions from, and images without any object."""
    data = demo.draw(tmp_path / "shapes", **SHAPES)
    for label in data.parent.glob("labels/*/*.txt"):
        rows = [f"0 {line.split(' ', 1)[1]}" for line in label.read_text().splitlines()]
        label.write_text("" if label.stem.endswith(("0", "5")) else "\n".join(rows))
    data.write_text("train: images/train\nval: images/val\nnames: [thing]\n")
    add(workspace.path, data, "shapes")
    version = tiny(workspace, **D0, epochs=1, amp="bf16")
    events = train(version)
    assert ending(events) == "done"
    assert len(of_kind(events, "result")[0]["per_class"]) == 1


@pytest.mark.parametrize("number", range(8))
@pytest.mark.timeout(600)
def test_every_model_takes_a_step_and_is_evaluated(workspace: Workspace, tmp_path: Path, number: int) -> None:
    add(workspace.path, demo.draw(tmp_path / "shapes", images=4, size=128, val=0.5), "shapes")
    version = tiny(workspace, model=f"efficientdet_d{number}", image_size=128, batch_size=2, epochs=1)
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "step")[-1]["step"] == 1 and of_kind(events, "result")
    expected = catalog.find(f"efficientdet_d{number}").parameters
    assert of_kind(events, "plan")[0]["parameters"] / 1e6 == pytest.approx(expected, rel=0.02)
