"""Trainings from a version that makes pixels: what the preview shows is what they get, and they go on exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import demo, launch
from engine.datasets import add, packs, recipes
from engine.datasets.packfile import PIXELS, WHOLE
from engine.datasets.recipe import parse as parse_recipe
from engine.datasets.shaping import Pool, augmented
from engine.datasets.write import export
from engine.errors import DojangError
from engine.spec import parse
from engine.training import data, pixels
from engine.training.data import VARIATIONS
from engine.versions import Version, Workspace
from tests.bench.classify import draw
from tests.training.conftest import SHAPES, TINY, ending, of_kind, same, tiny, train
from tests.training.test_resume import state_of, stop_at_step

LOOKS: dict[str, Any] = {
    "split": "existing", "resize": "letterbox", "size": 64, "copies": 2, "flip_horizontal": 0.5, "rotation": 15,
    "brightness": 0.3, "blur": 1.0,
}  # fmt: skip
KERNELS: dict[str, dict[str, Any]] = {
    "yolov8n": {"nominal_batch_size": 16, "workers": 2},
    "efficientdet_d0": {"image_size": 128, "nominal_batch_size": 16},
    "resnet18": {"image_size": 48, "workers": 2, "nominal_batch_size": 16, "close_mosaic": 10},
    "mobilenet_v3_small": {"image_size": 48, "freeze": "features", "close_mosaic": 10},  # on features computed once
}
CLASSIFIERS = ("resnet18", "mobilenet_v3_small")


def lay_down(folder: Path, **looks: Any) -> Workspace:
    """A workspace with the sets shapes and pictures, and of each a version that makes pixels."""
    workspace = Workspace(folder / "workspace").ensure()
    add(workspace.path, demo.draw(folder / "shapes", **SHAPES), "shapes")
    add(workspace.path, draw(folder / "pictures", 32, 48), "pictures")
    for name in ("shapes", "pictures"):
        made = recipes.draft(workspace.path, parse_recipe({"sources": name, **(looks or LOOKS)}))
        recipes.create(workspace.path, name, made)
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return lay_down(tmp_path)


def version_of(workspace: Workspace, model: str, **changes: Any) -> Version:
    name = "pictures@1" if model in CLASSIFIERS else "shapes@1"
    return tiny(workspace, **{"dataset": name, "model": model, "epochs": 2, **KERNELS[model], **changes})


def gathered(workspace: Workspace, **changes: Any) -> data.Material:
    found = data.gather(parse({**TINY, "dataset": "shapes@1", **changes}), workspace.path, lambda *_: True)
    assert found
    return found


def texts(events: list[Any]) -> str:
    return "\n".join(e["text"] for e in of_kind(events, "log"))


def test_samples_are_the_images_and_their_copies(workspace: Workspace) -> None:
    material = gathered(workspace)
    assert material.images == {"train": 72, "val": 8, "test": 0}
    source = packs.source(workspace.path, "shapes@1")
    assert source
    pool = Pool(source.dataset, source.items, source.digests)
    index = {str(source.dataset.image(pool.item(i))): i for i in range(len(pool))}
    for number, sample in enumerate(material.samples["train"]):
        at, copy = index[sample.path], number % 3
        shown = augmented(source.recipe, pool, at, copy) if copy else pool.prepared(source.recipe, at)
        assert np.array_equal(pixels.read(sample)[..., ::-1], shown.pixels)
        assert sample.boxes == shown.boxes and (sample.height, sample.width) == shown.pixels.shape[:2]
    pixels.read(sample)[:] = 0  # is one's own
    assert pixels.read(sample).any()


def test_copies_alone_leave_the_images_in_their_files(tmp_path: Path) -> None:
    workspace = lay_down(tmp_path, split="existing", copies=1, flip_vertical=1.0)
    material = gathered(workspace)
    plain = gathered(workspace, dataset="shapes")
    images = [sample for sample in material.samples["train"] if sample.packed is None]
    assert images == plain.samples["train"] and material.samples["val"] == plain.samples["val"]
    copies = [sample for sample in material.samples["train"] if sample.packed]
    for image, copy in zip(images, copies, strict=True):
        assert np.array_equal(pixels.read(copy)[::-1], pixels.read(image))


def test_images_that_were_varied_are_not_varied_again(workspace: Workspace, tmp_path: Path) -> None:
    spec = parse({**TINY, "dataset": "shapes@1", "mosaic": 1.0, "mixup": 0.5, "rotation": 20.0, "multi_scale": 0.25})
    governed = gathered(workspace).governs(spec)
    assert not any(governed.settled(name) for name in VARIATIONS) and governed.multi_scale == 0.25
    settled = lay_down(tmp_path / "resized", split="existing", resize="stretch", size=64)
    assert gathered(settled).governs(spec) is spec


def test_the_plan_counts_copies_and_says_what_is_shaped(workspace: Workspace) -> None:
    plan = launch.plan(workspace, parse({**TINY, "dataset": "shapes@1", "image_size": 96}))
    assert plan.steps_per_epoch == 9
    told = "\n".join(plan.warnings)
    assert "64 px a side: image_size 96 enlarges them" in told and "varied copies" in told
    plain = launch.plan(workspace, parse({**TINY, "dataset": "shapes"}))
    assert plain.steps_per_epoch == 3 and "varied" not in "".join(plain.warnings)


def test_stopped_while_pixels_are_made_it_goes_on_with_what_there_is(workspace: Workspace) -> None:
    spec = parse({**TINY, "dataset": "shapes@1"})
    assert data.gather(spec, workspace.path, lambda done, total: done < 50) is None
    begun: list[tuple[int, int]] = []
    assert data.gather(spec, workspace.path, lambda done, total: bool(begun.append((done, total))) or True)
    assert next(done for done, total in begun if total == 80) == 32


def test_kernels_that_read_files_themselves_are_refused(workspace: Workspace, monkeypatch: Any) -> None:
    from engine import catalog, plugins
    from engine.training import kernels

    class Plugin:
        reads_packs = False

        def open_session(self, *_: Any) -> str:
            return "opened"

    spec: Any = parse({**TINY, "dataset": "shapes@1"})
    material, foreign, plugin = gathered(workspace), replace(catalog.find("yolov8n"), kernel="other"), Plugin()
    monkeypatch.setattr(catalog, "find", lambda name: foreign)
    monkeypatch.setattr(plugins, "kernel", lambda name: plugin)
    rest: Any = (None, workspace.cache, None, None)
    with pytest.raises(DojangError, match="reads image files itself"):
        kernels.open_session(spec, material, *rest)
    plugin.reads_packs = True
    assert kernels.open_session(spec, material, *rest) == "opened"


@pytest.mark.slow
@pytest.mark.parametrize("model", KERNELS)
def test_stopped_anywhere_it_ends_with_the_same_bits(tmp_path: Path, monkeypatch: Any, model: str) -> None:
    one, two = lay_down(tmp_path / "one"), lay_down(tmp_path / "two")
    unbroken, version = version_of(one, model), version_of(two, model)
    events = train(unbroken)
    assert ending(events) == "done"
    assert of_kind(events, "plan")[0]["train_images"] == 72
    assert "2 varied copies of each training image" in texts(events) and "mosaic" in texts(events)
    assert {e["what"] for e in of_kind(events, "progress")} >= {"preprocessing"}
    with monkeypatch.context() as patch:
        stop_at_step(patch, version, 11)
        assert ending(train(version)) == "stopped"
    version.control.unlink()
    assert ending(train(version)) == "done"
    ours, theirs = state_of(version), state_of(unbroken)
    assert same(ours, theirs), [k for k in ours if not same(ours[k], theirs[k])]


@pytest.mark.slow
def test_later_trainings_share_what_was_made(workspace: Workspace) -> None:
    assert ending(train(version_of(workspace, "yolov8n"))) == "done"
    (folder,) = packs.folder_of(workspace.path).iterdir()
    made = (folder / PIXELS).stat().st_mtime_ns
    assert ending(train(version_of(workspace, "efficientdet_d0"))) == "done"
    assert (folder / PIXELS).stat().st_mtime_ns == made and not packs.in_use(folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_pixels_are_told_and_made_again(workspace: Workspace, workers: int) -> None:
    version = version_of(workspace, "yolov8n") if workers else tiny(workspace, dataset="shapes@1", epochs=1, workers=0)
    gathered(workspace)
    (folder,) = packs.folder_of(workspace.path).iterdir()
    with (folder / PIXELS).open("r+b") as file:
        file.seek(40 * 64 * 64 * 3)
        file.write(bytes(range(256)))
    events = train(version)
    (error,) = of_kind(events, "error")
    assert error["code"] == "BAD_FILE" and str(folder) in error["message"] and "resume" in error["hint"]
    assert not (folder / WHOLE).exists()
    assert ending(train(version)) == "done"


@pytest.mark.slow
def test_upstreams_own_order_takes_packed_pixels_too(tmp_path: Path) -> None:
    """Without exact resume the library's own loader, with its mosaic of images loaded lately, is fed from the pack."""
    workspace = lay_down(tmp_path, split="existing", resize="stretch", size=96)
    events = train(version_of(workspace, "yolov8n", exact_resume=False))
    assert ending(events) == "done" and "varied" not in texts(events)


@pytest.mark.slow
def test_the_format_of_a_data_set_changes_nothing(tmp_path: Path) -> None:
    """The same set as YOLO, COCO and VOC: the same version, the same pixels, and to the last bit the same training."""
    workspace = Workspace(tmp_path / "workspace").ensure()
    add(workspace.path, demo.draw(tmp_path / "shapes", **SHAPES), "yolo")
    for format in ("coco", "voc"):
        export(workspace.path, "yolo", tmp_path / format, format)  # type: ignore[arg-type]
        add(workspace.path, tmp_path / format, format)
    hashes, states = set(), []
    for name in ("yolo", "coco", "voc"):
        made = recipes.draft(workspace.path, parse_recipe({"sources": name, **LOOKS, "mosaic": 0.3}))
        hashes.add(recipes.create(workspace.path, name, made).hash)
        version = tiny(workspace, dataset=f"{name}@1", epochs=2)
        assert ending(train(version)) == "done"
        states.append(state_of(version))
    assert len(hashes) == 1 and len(list(packs.folder_of(workspace.path).iterdir())) == 1
    assert all(same(state["model"], states[0]["model"]) for state in states)
