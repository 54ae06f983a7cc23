"""What a training must never do, and what it says when the world around it is broken."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import demo
from engine.datasets import add
from engine.versions import Workspace
from tests.training.conftest import Create, ending, of_kind, start, tiny, train
from tests.training.test_resume import stop_at_step

pytestmark = pytest.mark.slow

NO_NETWORK = """
import socket, sys
def refused(self, address, *more):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        print("NETWORK", address, file=sys.stderr, flush=True)
        raise OSError("the network is off")
    return connect(self, address, *more)
connect = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refused
def lookup(*a, **k):
    print("NETWORK", a, file=sys.stderr, flush=True)
    raise OSError("the network is off")
socket.getaddrinfo = socket.gethostbyname = lookup
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below: inode, time of change and contents."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns, digest)
    return found


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def set_traps(folder: Path, marker: Path) -> None:
    """What ultralytics would unpickle, take for images, delete or rewrite, beside the user's images."""
    import numpy as np

    for split in ("train", "val"):
        with (folder / "labels" / f"{split}.cache").open("wb") as file:
            np.save(file, np.array(Payload(marker), dtype=object), allow_pickle=True)
        image = sorted((folder / "images" / split).iterdir())[0]
        image.with_suffix(".npy").write_bytes(b"the user's own")
        np.save(sorted((folder / "images" / split).iterdir())[3].with_suffix(".npy"), np.zeros((64, 64, 3), np.uint8))
        with image.open("ab") as file:
            file.write(b"\0\0\0\0")  # an odd end, which ultralytics deems corrupt and rewrites


def test_nothing_is_touched_beside_the_data_and_no_network(workspace: Workspace, shapes: Path, tmp_path: Path) -> None:
    marker, blocker = tmp_path / "ran", tmp_path / "blocker"
    set_traps(shapes.parent, marker)
    shapes.write_text(shapes.read_text() + f"download: 'touch {marker}'\n")
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(NO_NETWORK)
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    tried = subprocess.run(probe, env={**os.environ, "PYTHONPATH": str(blocker)}, capture_output=True, text=True)
    assert "NETWORK" in tried.stderr
    add(workspace.path, shapes, "shapes")
    for path in (*shapes.parent.rglob("*"), shapes.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot(shapes.parent)
    version = tiny(workspace, epochs=2, workers=2)
    home = tmp_path / "home"
    home.mkdir()
    paths = os.pathsep.join([str(blocker), str(Path(__file__).parents[2])])
    process = start(version, PYTHONPATH=paths, HOME=str(home), YOLO_CONFIG_DIR="", YOLO_OFFLINE="0", DOJANG_LOCK_FD="")
    code = process.wait(120)
    log = version.train_log.read_text()
    for path in (shapes.parent, *shapes.parent.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert code == 0, log
    assert version.progress().ended == "done"
    assert snapshot(shapes.parent) == before
    assert not marker.exists()
    assert "NETWORK" not in log
    assert not [p for p in home.rglob("*") if p.is_file()]


def test_a_file_that_would_run_code_is_refused(create: Create, tmp_path: Path) -> None:
    import torch

    marker, path = tmp_path / "ran", tmp_path / "best.pt"
    torch.save({"model": Payload(marker), "train_args": {}}, path)
    events = train(create(weights=str(path)))
    assert ending(events).startswith("failed: UNSAFE_FILE")
    error = of_kind(events, "error")[0]
    assert "posix.system" in error["message"] and "scratch" in error["hint"] and not marker.exists()


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "BAD_WEIGHTS"), (b"GIF89a" * 99, "BAD_WEIGHTS"), (None, "MISSING_WEIGHTS")]
)
def test_a_file_that_is_no_model(create: Create, tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    events = train(create(weights=str(path)))
    assert ending(events).startswith(f"failed: {code}") and str(path) in ending(events)


def test_tensors_alone_are_no_model(create: Create, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(3)}, path)
    assert ending(train(create(weights=str(path)))).startswith("failed: BAD_WEIGHTS")


def test_pretrained_weights_that_are_not_there(create: Create, workspace: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(workspace.path / "home"))
    events = train(create(weights="pretrained", model="yolov5n"))
    error = of_kind(events, "error")[0]
    assert error["code"] == "MISSING_WEIGHTS" and "yolov5nu.pt" in error["message"]
    assert str(workspace.weights) in error["hint"] and "scratch" in error["hint"]


def test_missing_images_are_named(create: Create, shapes: Path) -> None:
    version = create()
    gone = sorted((shapes.parent / "images" / "train").iterdir())[:2]
    for path in gone:
        path.unlink()
    events = train(version)
    assert ending(events).startswith("failed: BAD_DATASET")
    assert all(path.name in of_kind(events, "error")[0]["message"] for path in gone)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_while_training(create: Create, shapes: Path, monkeypatch: Any, workers: int) -> None:
    from engine.training import data

    version = create(epochs=20, workers=workers)
    image = sorted((shapes.parent / "images" / "train").iterdir())[5]
    gather = data.gather

    def then_gone(*arguments: Any) -> Any:
        found = gather(*arguments)
        image.unlink()
        return found

    monkeypatch.setattr(data, "gather", then_gone)
    events = train(version)
    assert ending(events).startswith("failed: BAD_DATASET")
    assert str(image) in of_kind(events, "error")[0]["message"]


def test_a_loss_that_explodes_once_is_gone_back_on(create: Create, monkeypatch: Any) -> None:
    from engine.training.kernels.ultralytics import Detector
    from engine.training.loop import Loop

    version, loss, steps = create(), Detector.loss, [0]

    def exploding(self: Detector, batch: Any) -> Any:
        steps[0] += 1
        total, parts = loss(self, batch)
        return (total * float("nan"), parts * float("nan")) if steps[0] == 5 else (total, parts)

    rates: list[tuple[int, float]] = []
    step = Loop._step

    def watching(self: Loop, batch: Any) -> Any:
        found = step(self, batch)
        rates.append((self.at.taken, self.optimizer.param_groups[0]["lr"]))
        return found

    monkeypatch.setattr(Detector, "loss", exploding)
    monkeypatch.setattr(Loop, "_step", watching)
    events = train(version)
    assert ending(events) == "done"
    (told,) = of_kind(events, "rollback")
    assert (told["code"], told["step"], told["lr_scale"]) == ("NAN_LOSS", 3, 0.25)
    fourth = [lr for taken, lr in rates if taken == 4]
    assert len(fourth) == 2 and fourth[1] == pytest.approx(fourth[0] / 4)
    progress = version.progress()
    assert list(progress.step_series["lr"].xs) == sorted(set(progress.step_series["lr"].xs))
    assert all(v == v for v in progress.step_series["box_loss"].ys), "what was taken back is off the curve"


def test_a_folder_that_is_gone(create: Create, shapes: Path) -> None:
    version = create()
    shutil.rmtree(shapes.parent)
    assert ending(train(version)).startswith("failed: DATASET_GONE")


def test_other_data_than_was_agreed_on(create: Create) -> None:
    events = train(create(dataset_hash="0" * 64))
    assert ending(events).startswith("failed: DATA_CHANGED")


def test_a_loss_that_explodes(create: Create, monkeypatch: Any) -> None:
    from engine.training.kernels.ultralytics import Detector

    version, loss, steps = create(epochs=20), Detector.loss, [0]

    def exploding(self: Detector, batch: Any) -> Any:
        steps[0] += 1
        total, parts = loss(self, batch)
        return (total * float("inf"), parts * float("inf")) if steps[0] > 4 else (total, parts)

    monkeypatch.setattr(Detector, "loss", exploding)
    events = train(version)
    assert ending(events).startswith("failed: NAN_LOSS") and "lr" in of_kind(events, "error")[0]["hint"]
    assert of_kind(events, "step")[-1]["step"] <= 6
    assert [e["epoch"] for e in of_kind(events, "epoch")] == [1] and version.state_file.exists()


def test_weights_that_explode_unseen(create: Create, monkeypatch: Any) -> None:
    """The last update of an epoch may ruin the weights after the last loss was fine."""
    import torch

    from engine.training.loop import Loop

    update = Loop._update

    def ruining(self: Loop) -> None:
        update(self)
        with torch.no_grad():
            next(iter(self.session.model.parameters())).mul_(float("nan"))

    monkeypatch.setattr(Loop, "_update", ruining)
    version = create(batch_size=24)
    events = train(version)
    assert ending(events).startswith("failed: NAN_LOSS")
    assert not version.best_weights.exists()
    assert len(of_kind(events, "rollback")) == 2


def test_spoilt_weights_do_not_take_the_place_of_sound_ones(create: Create, monkeypatch: Any) -> None:
    """Stopped right after an update that ruined the weights: resumed, it goes on from the state before and ends well."""
    import torch

    from engine.training import checkpoint
    from engine.training.loop import Loop

    version, step = create(), Loop._step

    def ruining(self: Loop, batch: Any) -> None:
        step(self, batch)
        if self.at.taken == 5:
            with torch.no_grad():
                next(iter(self.session.model.parameters())).mul_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", ruining)
        stop_at_step(patch, version, 5)
        events = train(version)
    assert ending(events) == "stopped"
    assert any("last checkpoint before that is kept" in e["text"] for e in of_kind(events, "log"))
    assert checkpoint.read(version.state_file)["position"]["taken"] == 3
    version.control.unlink()
    events = train(version)
    assert ending(events) == "done" and not of_kind(events, "rollback")


def test_a_checkpoint_on_its_way_survives_a_failure(create: Create, monkeypatch: Any) -> None:
    """The training fails while its first checkpoint is still being written: it is whole on disk all the same."""
    import time

    from engine.training import checkpoint
    from engine.training.loop import Loop

    save = checkpoint.save

    def slow(*arguments: Any) -> None:
        time.sleep(1.0)
        save(*arguments)

    def failing(self: Loop, batch: Any) -> None:
        raise RuntimeError("something else")

    version = create()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", slow)
        patch.setattr(Loop, "_step", failing)
        assert ending(train(version)).startswith("failed: INTERNAL")
        assert version.state_file.exists()


def test_a_disk_that_fills_up_keeps_the_last_good_state(create: Create, monkeypatch: Any) -> None:
    from engine.training import checkpoint

    version = create()
    write, full = checkpoint._Witness.write, [False]

    def failing(self: Any, data: Any) -> int:
        if full[0] and self.file.tell() > 100_000:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._Witness, "write", failing)
        patch.setattr(checkpoint, "sync_folder", lambda _: full.__setitem__(0, version.state_file.exists()))
        events = train(version)
    assert ending(events).startswith("failed: DISK_FULL")
    assert "resume" in of_kind(events, "error")[0]["hint"]
    assert not list(version.path.rglob("*.tmp"))
    assert checkpoint.read(version.state_file)["position"]["epoch"] == 0

    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "start")[0]["resumed"] == {"epoch": 1, "step": 0}


def test_unreadable_checkpoints_are_said(create: Create, monkeypatch: Any) -> None:
    version = create()
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 7)
        train(version)
    version.control.unlink()
    data = version.state_file.read_bytes()
    version.state_file.write_bytes(data[: random.randrange(len(data))])
    version.state_file.with_name("state.previous.pt").write_bytes(b"")
    events = train(version)
    assert ending(events) == "done"
    assert any("begins anew" in e["text"] for e in of_kind(events, "log"))
    progress = version.progress()
    assert [e["epoch"] for e in progress.epochs] == [1, 2, 3]
    assert list(progress.step_series["lr"].xs)[-1] == 9


def test_memory_that_runs_out(create: Create, monkeypatch: Any) -> None:
    import torch

    from engine.training.kernels.ultralytics import Detector

    def fail(self: Detector, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Detector, "loss", fail)
    events = train(create())
    assert ending(events).startswith("failed: OOM_GPU")
    assert "batch_size 4" in of_kind(events, "error")[0]["hint"]
    assert [e["parts"] for e in of_kind(events, "rollback")] == [2, 4, 8]  # down to single images


def test_memory_that_runs_out_for_a_while(create: Create, monkeypatch: Any) -> None:
    """Anything above three images does not fit from step 4 on: it goes back, and on in smaller runs, to the end."""
    import torch

    from engine.training.kernels.ultralytics import Detector

    loss, calls = Detector.loss, [0]

    def short(self: Detector, batch: Any) -> Any:
        calls[0] += 1
        if calls[0] > 3 and self.size(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss(self, batch)

    monkeypatch.setattr(Detector, "loss", short)
    version = create()
    events = train(version)
    assert ending(events) == "done"
    told = of_kind(events, "rollback")
    assert [(e["code"], e["step"], e["parts"]) for e in told] == [("OOM_GPU", 3, 2), ("OOM_GPU", 3, 4)]
    assert "runs of 2" in told[-1]["text"]
    progress = version.progress()
    assert list(progress.step_series["box_loss"].xs)[-1] == 9 and progress.epochs_done == 3


def test_memory_that_runs_out_in_an_evaluation(create: Create, monkeypatch: Any) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    plain = create(epochs=1)
    assert ending(train(plain)) == "done"
    predict = DetectionModel.predict

    def short(self: DetectionModel, x: Any, *more: Any, **named: Any) -> Any:
        if not self.training and x.shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return predict(self, x, *more, **named)

    monkeypatch.setattr(DetectionModel, "predict", short)
    version = create(epochs=1)
    events = train(version)
    assert ending(events) == "done"
    told = [e["text"] for e in of_kind(events, "log") if "evaluation" in e["text"]]
    assert len(told) == 2 and "1/4" in told[-1]  # runs of 8, of 4, then of 2; known from then on
    for a, b in zip(version.progress().epochs, plain.progress().epochs, strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], abs=1e-4)


def test_runs_of_a_batch_add_up_to_it(create: Create) -> None:
    """Gradients of a batch's pieces come to those of the whole, but for what batch normalisation sees."""
    import torch

    from engine.training import data, kernels
    from engine.training.environment import Precision

    version = create(batch_size=8, mosaic=0.0)
    spec = version.spec()
    material = data.gather(spec, version.workspace.path, lambda *_: True)
    assert material
    precision = Precision("off", torch.device("cpu"))
    session = kernels.open_session(spec, material, precision, version.workspace.cache / "scratch", None, None)
    batch = next(iter(session.batches(0, 0)))
    session.model.eval()  # no batch normalisation: pieces do not know of each other
    session.model.train = lambda *_: session.model  # type: ignore[method-assign]
    found = []
    for parts in (1, 3):
        session.model.zero_grad()
        pieces = session.split(batch, parts)
        assert len(pieces) == parts and sum(session.size(p) for p in pieces) == 8
        with torch.random.fork_rng():
            for m in session.model.modules():
                m.training = isinstance(m, type(session.model)) or m is session.model.model[-1]
            for piece in pieces:
                session.loss(piece)[0].backward()
        found.append(torch.cat([p.grad.flatten() for p in session.model.parameters() if p.grad is not None]))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0)
    assert cosine > 0.99  # lengths agree once predictions are good: until then the loss is no mean, upstream's neither
    session.close()


def test_a_last_batch_of_one_tiny_image(workspace: Workspace, tmp_path: Path) -> None:
    add(workspace.path, demo.draw(tmp_path / "odd", images=10, size=64, val=0.5), "shapes")
    events = train(tiny(workspace, batch_size=2, image_size=32))
    assert ending(events).startswith("failed: BAD_SPEC") and "batch_size" in of_kind(events, "error")[0]["hint"]


def test_a_split_without_any_object(workspace: Workspace, shapes: Path, tmp_path: Path) -> None:
    held_back = demo.draw(tmp_path / "held-back", images=8, size=64, seed=9, val=0.5).parent
    for path in (held_back / "labels" / "val").iterdir():
        path.write_text("")
    shapes.write_text(shapes.read_text() + f"test: {held_back / 'images' / 'val'}\n")
    add(workspace.path, shapes, "shapes")
    events = train(tiny(workspace, epochs=1))
    assert ending(events) == "done"
    result = of_kind(events, "result")[1]
    assert result["split"] == "test" and set(result["metrics"].values()) == {None}
    assert all(c["labels"] == 0 and c["map50"] is None for c in result["per_class"])


def test_unlabelled_images_are_said(workspace: Workspace, shapes: Path) -> None:
    labels = sorted((shapes.parent / "labels" / "train").iterdir())
    labels[0].unlink()  # background, by the format's own rule
    labels[1].write_text("99 0.5 0.5 0.1 0.1\n")  # says nothing that can be used
    add(workspace.path, shapes, "shapes")
    events = train(tiny(workspace, epochs=1))
    assert ending(events) == "done"
    assert of_kind(events, "plan")[0]["train_images"] == 23
    texts = [e["text"] for e in of_kind(events, "log")]
    assert any(t.startswith("1 image without a label file") for t in texts)
    assert any(t.startswith("1 image without a usable annotation") for t in texts)
