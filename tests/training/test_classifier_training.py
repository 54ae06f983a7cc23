"""Classifiers trained for real: what they say and leave behind, and that they go on exactly from wherever they were stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import catalog
from engine.control import send
from engine.datasets import add
from engine.spec import parse, parse_label
from engine.versions import Version, Workspace
from tests.bench.classify import draw
from tests.training.conftest import ending, of_kind, same, start, train
from tests.training.test_resume import state_of, stop_at_step, wait_for
from tests.training.test_world import start_together

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "model": "resnet18", "image_size": 48, "batch_size": 8, "epochs": 3, "threads": 1, "warmup_epochs": 1.0, "lr": 1e-3,
}  # fmt: skip
# All layers: gradients are pending at most moments, images are blended and features left out.
WHOLE = {"nominal_batch_size": 16, "mixup": 0.5, "dropout": 0.2, "class_weights": 0.5, "label_smoothing": 0.1}
# The last layers on features that were computed once, of two views of each image.
PACKED = {
    "model": "mobilenet_v3_small",
    "freeze": "features",
    "feature_views": 2,
    "nominal_batch_size": 16,
    "mixup": 0.5,
}
# Some blocks are frozen, and features too new to be kept.
PARTLY = {"freeze": "2", "feature_views": 0}
Create = Callable[..., Version]


def lay_down(folder: Path) -> Workspace:
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, draw(folder / "pictures", 32, 48), "pictures")
    return workspace


def version_of(workspace: Workspace, **changes: Any) -> Version:
    spec = parse({"dataset": "pictures", **TINY, **changes})  # of 24 images to train with and 8 to judge by
    return workspace.project("default", create=True).create(spec, parse_label({}))


@pytest.fixture
def pictures(tmp_path: Path) -> Workspace:
    return lay_down(tmp_path)


@pytest.fixture
def lay(pictures: Workspace) -> Create:
    return lambda **changes: version_of(pictures, **changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: Any) -> Callable[[dict[str, Any]], Version]:
    """Trainings that were left alone, each made once."""
    workspace, made = lay_down(tmp_path_factory.mktemp("unbroken")), dict[str, Version]()

    def of(settings: dict[str, Any]) -> Version:
        if str(settings) not in made:
            made[str(settings)] = version_of(workspace, **settings)
            assert ending(train(made[str(settings)])) == "done"
        return made[str(settings)]

    return of


def texts(events: list[Any]) -> str:
    return "\n".join(e["text"] for e in of_kind(events, "log"))


def count_decoded(monkeypatch: Any) -> list[str]:
    """Paths of the images that are decoded from here on."""
    from engine.training.kernels import torchvision_data

    found: list[str] = []
    decoded = torchvision_data.decoded

    def noting(sample: Any) -> Any:
        found.append(sample.path)
        return decoded(sample)

    monkeypatch.setattr(torchvision_data, "decoded", noting)
    return found


def packs(workspace: Workspace) -> list[Path]:
    return list((workspace.cache / "features").glob("*"))


def test_what_it_says_and_leaves(lay: Create, pictures: Workspace) -> None:
    import torch
    from torchvision.models import get_model

    version = lay(**WHOLE)
    before = {str(p): p.stat().st_mtime_ns for p in (pictures.path.parent / "pictures").rglob("*")}
    events = train(version)
    assert ending(events) == "done"
    assert before == {str(p): p.stat().st_mtime_ns for p in (pictures.path.parent / "pictures").rglob("*")}
    (plan,) = of_kind(events, "plan")
    assert plan["task"] == "classify" and plan["loss_names"] == ["loss"] and plan["weights"] == "random weights"
    assert plan["parameters"] == plan["trained_parameters"] == 11_177_538
    epochs = of_kind(events, "epoch")
    assert len(epochs) == 3 and {"top1", "top5", "precision", "recall", "f1"} <= set(epochs[0]["metrics"])
    assert [c["name"] for c in epochs[0]["per_class"]] == ["disc", "square"]
    best = next(e for e in reversed(epochs) if e["best"])
    (result,) = of_kind(events, "result")
    assert (result["metrics"], result["per_class"]) == (best["metrics"], best["per_class"])  # the file loses nothing
    found = torch.load(version.best_weights, weights_only=True)
    assert found["classes"] == ["disc", "square"] and found["architecture"] == "resnet18"
    get_model("resnet18", num_classes=2).load_state_dict(found["model"])
    assert not packs(pictures), "nothing is frozen, so there is nothing to keep"


def test_it_learns(pictures: Workspace, tmp_path: Path) -> None:
    add(pictures.path, draw(tmp_path / "many", 160, 48), "many")
    version = version_of(pictures, dataset="many", epochs=8)
    assert ending(train(version)) == "done"
    epochs = version.progress().epochs
    assert max(e["metrics"]["top1"] for e in epochs) >= 0.8, [e["metrics"]["top1"] for e in epochs]
    assert epochs[-1]["train"]["loss"] < epochs[0]["train"]["loss"]


@pytest.mark.parametrize("settings", [WHOLE, PACKED, PARTLY], ids=["whole", "packed", "partly"])
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_within_an_epoch(
    lay: Create, unbroken: Any, monkeypatch: Any, settings: dict[str, Any], workers: int
) -> None:
    version = lay(**settings, workers=workers)
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 5)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "start")[0]["resumed"] == {"epoch": 2, "step": 5}
    ours, theirs = state_of(version), state_of(unbroken(settings))
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]
    assert version.progress().metrics() == unbroken(settings).progress().metrics()


@pytest.mark.parametrize("settings", [WHOLE, PACKED], ids=["whole", "packed"])
def test_killed(lay: Create, unbroken: Any, settings: dict[str, Any]) -> None:
    version = lay(**settings)
    with version.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(version, lock.fileno())
        wait_for(version, lambda events: any(e["epoch"] >= 1 for e in of_kind(events, "epoch")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start(version).wait(200) == 0, version.train_log.read_text()
    ours, theirs = state_of(version), state_of(unbroken(settings))
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]


def test_features_are_computed_once_and_used_again(lay: Create, pictures: Workspace, monkeypatch: Any) -> None:
    decoded = count_decoded(monkeypatch)
    first = lay(**PACKED, cache="off")
    events = train(first)
    assert ending(events) == "done"
    assert "24 training images (2 views of each) and 8 val images: computed in" in texts(events)
    assert len(decoded) == 2 * 24 + 8, "an image was decoded after its features were there"
    assert [p.suffix for p in packs(pictures)] == [".features"]
    (plan,) = of_kind(events, "plan")
    assert plan["trained_parameters"] < plan["parameters"]

    second = lay(**PACKED, cache="off", epochs=4)
    events = train(second)
    assert "found from an earlier training" in texts(events)
    assert len(decoded) == 2 * 24 + 8 and len(packs(pictures)) == 1


def test_damaged_features_are_computed_anew(lay: Create, pictures: Workspace) -> None:
    first, second = lay(**PACKED), lay(**PACKED)
    assert ending(train(first)) == "done"
    (pack,) = packs(pictures)
    content = bytearray(pack.read_bytes())
    content[-1] ^= 1
    pack.write_bytes(content)
    events = train(second)
    assert ending(events) == "done" and "computed anew: its contents do not match" in texts(events)
    assert same(state_of(second), state_of(first))


def test_without_room_for_features_it_trains_all_the_same(lay: Create, pictures: Workspace, monkeypatch: Any) -> None:
    import torch

    from engine.training.kernels import torchvision_features

    kept, plain = lay(**PACKED), lay(**PACKED)
    train(kept)
    monkeypatch.setattr(torchvision_features, "MARGIN", 1 << 60)
    shutil.rmtree(pictures.cache / "features")
    events = train(plain)
    assert ending(events) == "done" and "no room" in texts(events) and not packs(pictures)
    weight = "model.classifier.0.weight"  # the same views; images are blended where features are otherwise
    ours, theirs = state_of(plain)["model"][weight], state_of(kept)["model"][weight]
    assert torch.allclose(ours, theirs, atol=0.02) and not torch.equal(ours, theirs)


def test_it_may_be_left_to_dojang(lay: Create, pictures: Workspace) -> None:
    """From trained weights only the last layer learns, and as it is a short training, on one plain view of each image."""
    import torch
    from torchvision.models import get_model

    path = pictures.weights / catalog.find("mobilenet_v3_small").pretrained
    torch.manual_seed(3)
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), path)
    version = lay(model="mobilenet_v3_small", weights="pretrained")
    events = train(version)
    assert ending(events) == "done" and "without augmentation" in texts(events)
    (plan,) = of_kind(events, "plan")
    assert plan["trained_parameters"] == 2 * 1024 + 2 and plan["weights"].endswith("the last layer is new")

    again = lay(weights=str(version.best_weights), model="mobilenet_v3_small", freeze="none")
    events = train(again)
    assert ending(events) == "done" and of_kind(events, "plan")[0]["weights"].endswith("244 of 244 tensors")


def test_frozen_layers_that_the_file_does_not_have_are_told(lay: Create, pictures: Workspace) -> None:
    import torch
    from torchvision.models import get_model

    donor = get_model("mobilenet_v3_small", weights=None).state_dict()
    torch.save({k: v for k, v in donor.items() if not k.startswith("classifier")}, pictures.path / "features.pth")
    settings = {"model": "mobilenet_v3_small", "weights": str(pictures.path / "features.pth"), "epochs": 1}
    assert "hold random numbers" in texts(train(lay(**settings)))
    assert "hold random numbers" not in texts(train(lay(**settings, freeze="features")))


def test_the_file_and_the_cache_may_be_gone_when_it_goes_on(lay: Create, pictures: Workspace, monkeypatch: Any) -> None:
    import torch
    from torchvision.models import get_model

    path = pictures.path / "donor.pth"
    torch.manual_seed(3)
    torch.save(get_model("resnet18", weights=None).state_dict(), path)
    settings = {"weights": str(path), "epochs": 4}
    whole, broken = lay(**settings), lay(**settings)
    assert ending(train(whole)) == "done"
    with monkeypatch.context() as patch:
        stop_at_step(patch, broken, 5)
        assert ending(train(broken)) == "stopped"
    broken.control.unlink()
    path.unlink()
    shutil.rmtree(pictures.cache)
    assert ending(train(broken)) == "done"
    assert len(packs(pictures)) == 1
    assert same(state_of(broken), state_of(whole))


def test_more_epochs_while_it_runs(lay: Create, monkeypatch: Any) -> None:
    from engine.training.loop import Loop

    for settings in (PACKED, WHOLE):
        version, step = lay(**settings), Loop._step

        def asking(self: Loop, batch: Any, version: Version = version, step: Any = step) -> Any:
            if self.at.taken == 4:
                send(version.control, epochs=5)
            return step(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Loop, "_step", asking)
            events = train(version)
        assert ending(events) == "done"
        assert [e["epoch"] for e in of_kind(events, "epoch")] == [1, 2, 3, 4, 5]


def test_stopped_while_features_are_computed(lay: Create, pictures: Workspace, monkeypatch: Any) -> None:
    from engine.training.kernels.torchvision_frozen import Frozen

    version, compute = lay(**PACKED), Frozen._computed

    def asking(self: Frozen) -> Any:
        send(version.control, "stop")
        return compute(self)

    with monkeypatch.context() as patch:
        patch.setattr(Frozen, "_computed", asking)
        assert ending(train(version)) == "stopped"
    assert not packs(pictures)
    version.control.unlink()
    assert ending(train(version)) == "done"


def test_pieces_of_a_batch_add_up(lay: Create, pictures: Workspace) -> None:
    """What a machine short of memory does comes to what one does that is not. Frozen, so that nothing is normalised."""
    import torch

    from engine.training import data, kernels
    from engine.training.environment import Precision
    from engine.training.randomness import seed_all

    spec = parse({"dataset": "pictures", **TINY, **PACKED})
    material = data.gather(spec, pictures.path, lambda *_: True)
    assert material
    seed_all(0)
    precision = Precision("off", torch.device("cpu"))
    session: Any = kernels.open_session(spec, material, precision, pictures.cache / "scratch", None, None)
    session.model.eval()
    batch = next(iter(session.batches(0, 0)))
    loss, _ = session.loss(batch)
    pieces = session.split(batch, 3)
    assert [session.size(p) for p in pieces] == [2, 3, 3] and len(session.split(batch, 99)) == 8
    assert torch.allclose(sum(session.loss(p)[0] for p in pieces), loss)
    whole = session.evaluate(session.model, "val", lambda *_: True)
    session.pieces = 3
    assert session.evaluate(session.model, "val", lambda *_: True) == whole
    assert session.evaluate(session.model, "val", lambda *_: False) is None
    assert session.size(session.densest(5)) == 5 and bool(session.loss(session.densest(5))[0].isfinite())
    session.close()


def test_two_processes_share_the_features(lay: Create, pictures: Workspace) -> None:
    """Frozen normalisation does the same to a share as to the whole, so what is left is the order in which floats are added."""
    import torch

    single, double = (lay(**PACKED, dropout=0.0, gpus=gpus) for gpus in (1, 2))
    assert ending(train(single)) == "done"
    shutil.rmtree(pictures.cache / "features")
    process = start_together(double)
    assert process.wait(200) == 0, double.train_log.read_text()
    assert len(packs(pictures)) == 1 and double.progress().ended == "done"
    ours, theirs = state_of(double)["average"], state_of(single)["average"]
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-5) for k in theirs)


@pytest.mark.parametrize("amp", ["bf16", "off"])
@pytest.mark.parametrize("settings", [PACKED, {"batch_size": 23, "image_size": 32}], ids=["packed", "lone image"])
def test_precisions_and_a_last_batch_of_one(lay: Create, amp: str, settings: dict[str, Any]) -> None:
    version = lay(**{**settings, "amp": amp, "epochs": 3})
    events = train(version)
    assert ending(events) == "done"
    (result,) = of_kind(events, "result")
    best = next(e for e in reversed(of_kind(events, "epoch")) if e["best"])
    assert result["metrics"] == best["metrics"]


@pytest.mark.parametrize("name", [n for n, m in catalog.MODELS.items() if m.kernel == "torchvision"])
@pytest.mark.timeout(300)
def test_every_model_takes_a_step_and_is_evaluated(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path / "workspace").ensure()
    add(workspace.path, draw(tmp_path / "pictures", 4, 40, val=0.5), "pictures")
    version = version_of(workspace, model=name, image_size=32, batch_size=2, epochs=1, freeze="none")
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "step")[-1]["step"] == 1 and of_kind(events, "result")
