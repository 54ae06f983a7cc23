"""Classifiers in parts: models as chains, images and their views, features on disk, files of weights."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import get_model
from torchvision.transforms.v2 import functional as change

from engine import catalog
from engine.datasets import add
from engine.errors import DojangError
from engine.spec import parse
from engine.training import data
from engine.training.data import Sample
from engine.training.kernels import torchvision_features as features
from engine.training.kernels import torchvision_weights as weights
from engine.training.kernels.torchvision_data import (
    Images,
    Recipe,
    Unfolded,
    Views,
    class_weights,
    decoded,
    partner,
    plain,
    varied,
)
from engine.training.kernels.torchvision_models import Design, Network
from engine.training.session import UnreadableImage
from engine.versions import Workspace
from tests.training.test_guards import Payload

FEW = ("resnet18", "mobilenet_v3_small", "vit_b_16")
EVERY = tuple(name for name, model in catalog.MODELS.items() if model.kernel == "torchvision")


def network(name: str, classes: int = 2, size: int = 32, dropout: float | None = None) -> Network:
    torch.manual_seed(0)
    return Network(Design(name, classes, size, dropout))


def file(path: str) -> Sample:
    return Sample(path, 50, 70, (), 0)


def recipe(**changes: Any) -> Recipe:
    return Recipe.of(parse({"dataset": "d", "model": "resnet18", "image_size": 32, **changes}))


PLAIN = dict.fromkeys(
    ("scale", "translate", "rotation", "flip_horizontal", "flip_vertical", "hue", "saturation", "brightness"), 0.0
)


# Models


def same_as_the_library(name: str) -> None:
    ours, images = network(name), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for mode in (True, False):
            ours.train(mode)
            torch.manual_seed(1)
            found = ours(images)
            torch.manual_seed(1)
            assert torch.equal(found, ours.model(images)), f"{name} is another model, training {mode}"
    chained = {id(p) for link in ours.links() for p in link.parameters}
    assert chained == {id(p) for p in ours.model.parameters()}, "a parameter belongs to no link"


@pytest.mark.parametrize("name", FEW)
def test_a_chain_is_the_librarys_model(name: str) -> None:
    same_as_the_library(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(EVERY) - set(FEW)))
def test_every_chain_is_the_librarys_model(name: str) -> None:
    same_as_the_library(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_catalogue_says_how_large_a_model_is(name: str) -> None:
    model = catalog.find(name)
    with torch.device("meta"):
        built = Network(Design(name, 80, model.image_size))
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(model.parameters, abs=0.006)


def learning(name: str, how: str) -> set[str]:
    found = network(name)
    found.freeze(how)
    return {n.split(".")[0] for n, p in found.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("how", "learns"),
    [
        ("none", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}),
        ("2", {"layer2", "layer3", "layer4", "fc"}),
        ("last-1", {"layer4", "fc"}),
        ("last-5", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}),
        ("features", {"fc"}),
        ("but-last", {"fc"}),
    ],
)
def test_what_learns(how: str, learns: set[str]) -> None:
    assert learning("resnet18", how) == learns


def test_the_whole_classifier_learns_or_its_last_layer() -> None:
    small = network("mobilenet_v3_small")
    small.freeze("features")
    assert {n for n, p in small.model.named_parameters() if p.requires_grad} == {
        "classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias",
    }  # fmt: skip
    last = network("mobilenet_v3_small")
    last.freeze("but-last")
    assert {n for n, p in last.model.named_parameters() if p.requires_grad} == set(last.last())
    assert last.eval().features(torch.zeros(1, 3, 32, 32)).shape == (1, 1024), "features end right before the dropout"


def test_more_frozen_blocks_than_there_are() -> None:
    with pytest.raises(DojangError, match="5 blocks") as e:
        network("resnet18").freeze("6")
    assert e.value.code == "BAD_SPEC"


def test_frozen_layers_stay_as_they_are() -> None:
    model = network("resnet18")
    model.freeze("2")
    before = {k: v.clone() for k, v in model.frozen_tensors().items()}
    model.train()
    model.hold()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    assert before.keys() == model.frozen_tensors().keys() and "bn1.running_mean" in before
    assert all(torch.equal(v, before[k]) for k, v in model.frozen_tensors().items())
    assert model.model.layer4[0].bn1.num_batches_tracked == 1, "what learns does gather statistics"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_dropout_of_ones_own(name: str) -> None:
    model = network(name, dropout=0.5)
    drops = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    assert drops == [0.5]
    model.train()
    features_, seen = torch.randn(1, 1024 if "mobile" in name else 512), set()
    model.freeze("but-last")
    for _ in range(4):
        seen.add(tuple(model.head(features_).flatten().tolist()))
    assert len(seen) > 1, "nothing is left out"
    assert set(model.model.state_dict()) == set(get_model(name, weights=None).state_dict())


# Images


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """70 × 50 pixels, with a ramp to each side, so that a turn shows."""
    image = Image.linear_gradient("L").resize((70, 50))
    Image.merge("RGB", (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_judged_as_torchvisions_presets_do(photo: Path) -> None:
    found = plain(decoded(file(str(photo))), recipe())
    image = change.pil_to_tensor(Image.open(photo))
    expected = change.center_crop(change.resize(image, [37], antialias=True), [32, 32])
    assert found.shape == (3, 32, 32) and found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 1


def test_turned_as_exif_says(photo: Path, tmp_path: Path) -> None:
    image = Image.open(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", exif=exif, quality=100, subsampling=0)
    upright, turned = decoded(file(str(photo))), decoded(file(str(tmp_path / "b.jpg")))
    assert turned.shape == upright.shape == (3, 50, 70)
    assert (turned.int() - upright.int()).abs().float().mean() < 3


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.jpg").write_bytes(b"no image")
    for name in ("c.jpg", "gone.jpg"):
        with pytest.raises(UnreadableImage, match=name):
            decoded(file(str(tmp_path / name)))


def test_a_view_depends_on_counters_alone(photo: Path) -> None:
    image, wild = decoded(file(str(photo))), recipe(rotation=20, flip_vertical=0.5, hue=0.2)
    views = Views(7, 0)

    def view(epoch: int, index: int) -> torch.Tensor:
        dice = views.dice(epoch, index)
        assert dice
        return varied(image, wild, dice)

    first = view(3, 5)
    assert torch.equal(first, view(3, 5)) and first.shape == (3, 32, 32)
    assert not torch.equal(first, view(4, 5)) and not torch.equal(first, view(3, 6))


def test_without_variation_a_view_is_what_is_judged(photo: Path) -> None:
    still = recipe(**PLAIN)
    assert still.plain and not recipe().plain
    samples = [Sample(str(photo), 50, 70, (), 0)]
    shown, judged = Images(samples, still, Views(0, 0), 0.0, 0), Images(samples, still, None, 0.0, 0)
    assert torch.equal(shown[3, 0]["img"], judged[0]["img"])


@pytest.mark.parametrize("changes", [{"scale": 1.0}, {"translate": 1.0}, {"rotation": 180.0}, {"hue": 1.0}])
@pytest.mark.parametrize("shape", [(10, 300), (300, 10), (32, 32)])
def test_the_wildest_settings_still_give_images(changes: dict[str, float], shape: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    for index in range(20):
        dice = Views(0, 0).dice(0, index)
        assert dice and varied(image, recipe(**changes), dice).shape == (3, 32, 32)


def test_views_take_turns() -> None:
    views = Views(1, 3)
    for index in range(5):
        shown = Counter(views.number(epoch, index) for epoch in range(30))
        assert shown == {0: 10, 1: 10, 2: 10}
    assert len({views.number(0, index) for index in range(20)}) == 3, "an epoch shows images in different views"
    assert views.dice_of(0, 0, 4) is None, "the first is plain"
    a, b = views.dice_of(2, 0, 4), views.dice_of(2, 9, 4)
    assert a and b and a.random() == b.random(), "a view is the same in every epoch"


def test_unfolded_is_every_view_of_every_image(photo: Path) -> None:
    samples = [Sample(str(photo), 50, 70, (), 0)] * 2
    images = Images(samples, recipe(), Views(0, 3), 0.0, room=10**6)
    rows = Unfolded(images, images.views)
    assert len(rows) == 6
    for epoch, index in itertools.product(range(3), range(2)):
        row = index * 3 + Views(0, 3).number(epoch, index)
        assert torch.equal(rows[row], images[epoch, index]["img"])
    assert torch.equal(rows[0], rows[3]) and not torch.equal(rows[1], rows[4])


def test_keeping_images_changes_nothing(photo: Path) -> None:
    samples = [Sample(str(photo), 50, 70, (), 1)]
    keeping, frugal = (Images(samples, recipe(), Views(0, 0), 0.0, room) for room in (10**6, 0))
    for epoch in range(3):
        assert torch.equal(keeping[epoch, 0]["img"], frugal[epoch, 0]["img"])
    assert keeping._kept and not frugal._kept


def test_partners(photo: Path) -> None:
    assert all(partner(0, 0, index, 10, 0.0) is None for index in range(50))
    found = [partner(0, 1, index, 10, 0.5) for index in range(400)]
    pairs = [pair for pair in found if pair]
    assert 150 < len(pairs) < 250 and all(0 <= other < 10 and 0.5 <= share <= 1 for other, share in pairs)
    assert found == [partner(0, 1, index, 10, 0.5) for index in range(400)]
    samples = [Sample(str(photo), 50, 70, (), label) for label in (0, 1)]
    item = Images(samples, recipe(), Views(0, 0), 1.0, 0)[0, 0]
    assert item["img"].dtype == torch.uint8 and item["label"] == 0 and 0.5 <= item["share"] <= 1


def test_class_weights() -> None:
    samples = [Sample("", 1, 1, (), label) for label in [0] * 9 + [1]]
    assert class_weights(samples, 3, 0.0) is None
    found = class_weights(samples, 3, 1.0)
    assert found is not None and found.mean() == pytest.approx(1)
    assert found[1] / found[0] == pytest.approx(9) and found[2] == pytest.approx(found[:2].mean())


def test_a_damaged_label_is_no_background_and_its_namesake_is(tmp_path: Path) -> None:
    """Two images of one name in two splits: one has a label file that cannot be read, the other none."""
    root = tmp_path / "set"
    for split, names in (("train", "ab"), ("val", "ab")):
        for name in names:
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32)).save(root / "images" / split / f"{name}.jpg")
    (root / "labels/train/a.txt").write_text("0 broken\n")
    for split in ("train", "val"):
        (root / "labels" / split / "b.txt").write_text("0 .5 .5 .2 .2\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [x]\n")
    workspace = Workspace(tmp_path / "workspace").ensure()
    add(workspace.path, root / "data.yaml", "set")
    material = data.gather(parse({"dataset": "set", "model": "yolov8n"}), workspace.path, lambda *_: True)
    assert material and material.images == {"train": 1, "val": 2, "test": 0}


# Features on disk

SHAPE = features.Shape(4, (2, 3), "bfloat16")


def rows() -> torch.Tensor:
    return torch.arange(24).view(4, 2, 3).to(torch.bfloat16)


def packed(folder: Path, name: str = "k") -> features.Pack:
    found = features.write(folder, name, SHAPE, rows().split(3), lambda *_: True)
    assert found
    return found


def test_a_pack_gives_back_what_was_put_in(tmp_path: Path) -> None:
    written = packed(tmp_path)
    found = features.find(tmp_path, "k", SHAPE)
    assert found and features.find(tmp_path, "other", SHAPE) is None
    for pack in (written, found):
        assert torch.equal(pack.rows([2, 0, 2]), rows()[[2, 0, 2]])


def test_a_damaged_pack_is_found_out_and_goes(tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        os.truncate(path, features.HEADER + 10)

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    def swap(path: Path) -> None:
        content = path.read_bytes().replace(b"bfloat16", b"float16 ")
        path.write_bytes(content)

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    for spoil in (cut, flip, swap, empty):
        path = packed(tmp_path).path
        spoil(path)
        with pytest.raises(features.Damaged):
            features.find(tmp_path, "k", SHAPE)
        assert not path.exists()


def test_a_pack_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    assert features.write(tmp_path, "k", SHAPE, rows().split(1), lambda done, total: done < 2) is None
    assert not list(tmp_path.iterdir())


def test_old_packs_and_remains_go(tmp_path: Path) -> None:
    now = time.time()
    for number in range(features.KEPT + 2):
        os.utime(packed(tmp_path, f"k{number}").path, (now - 100 + number, now - 100 + number))
    for name, age in ((".a.1.tmp", 2 * features.ABANDONED), (".b.1.tmp", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    packed(tmp_path, "new")
    kept = sorted(p.name for p in tmp_path.glob("*.features"))
    assert len(kept) == features.KEPT and "new.features" in kept and "k0.features" not in kept
    assert [p.name for p in tmp_path.glob(".*")] == [".b.1.tmp"]


def test_a_full_disk_is_seen_before(tmp_path: Path) -> None:
    assert features.room(tmp_path / "not" / "there", SHAPE)
    assert not features.room(tmp_path, features.Shape(10**9, (10**6,), "float32"))


def test_a_pack_is_known_by_all_that_it_depends_on(photo: Path) -> None:
    def key(parts: dict[str, Any], views: Views, **changes: Any) -> str:
        return features.key(parts, recipe(**changes), views, [file(str(photo))])

    base = key({"weights": "a"}, Views(0, 2))
    assert base == key({"weights": "a"}, Views(0, 2))
    different = {
        key({"weights": "b"}, Views(0, 2)),
        key({"weights": "a"}, Views(0, 3)),
        key({"weights": "a"}, Views(1, 2)),
        key({"weights": "a"}, Views(0, 2), hue=0.3),
    }
    assert len(different | {base}) == 5
    once = key({}, Views(0, 1))
    assert once == key({}, Views(5, 1), hue=0.3), "a single view is not varied"
    os.utime(photo, (1, 1))
    assert key({}, Views(0, 1)) != once, "an image has changed"


# Files of weights


def stored(model: Network, path: Path, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    weights.write(model, path, classes)
    return path


def test_a_file_is_read_back_and_by_the_library_too(tmp_path: Path) -> None:
    model = network("resnet18", dropout=0.3)
    path = stored(model, tmp_path / "w.pt")
    again = weights.rebuild(path)
    assert again.design == model.design
    plain_ = get_model("resnet18", num_classes=2)
    plain_.load_state_dict(torch.load(path, weights_only=True)["model"])
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.eval()(images), plain_.eval()(images))


def test_public_weights_of_other_classes(tmp_path: Path) -> None:
    donor = get_model("resnet18", weights=None)
    torch.save(donor.state_dict(), tmp_path / "resnet18-f37072fd.pth", _use_new_zipfile_serialization=False)
    model = network("resnet18")
    content = weights.read(tmp_path / "resnet18-f37072fd.pth")
    text, _ = weights.transfer(model, content, tmp_path / "resnet18-f37072fd.pth", ("ant", "bee"))
    assert text == "resnet18-f37072fd.pth: 120 of 122 tensors, the last layer is new"
    assert torch.equal(model.model.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)


def test_rows_of_classes_of_the_same_name(tmp_path: Path) -> None:
    donor, model = network("resnet18"), network("resnet18", classes=3)
    torch.nn.init.normal_(donor.model.fc.weight)
    path = stored(donor, tmp_path / "w.pt")
    text, _ = weights.transfer(model, weights.read(path), path, ("wasp", "bee", "ant"))
    assert text.endswith("122 of 122 tensors, 2 of 3 classes known by name")
    assert torch.equal(model.model.fc.weight[1], donor.model.fc.weight[1])
    assert torch.equal(model.model.fc.weight[2], donor.model.fc.weight[0])


def test_a_head_that_is_not_there_or_not_a_number_is_random(tmp_path: Path) -> None:
    """The library's VGG16 of features alone holds such a head."""
    donor = network("mobilenet_v3_small").model
    donor.classifier[0].weight.data.fill_(float("nan"))
    torch.save({"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, tmp_path / "w.pth")
    model = network("mobilenet_v3_small")
    text, random = weights.transfer(model, weights.read(tmp_path / "w.pth"), tmp_path / "w.pth", ("ant", "bee"))
    assert text.endswith("classifier.0 random") and random == ["classifier.0.weight"]
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    path = stored(network("resnet34"), tmp_path / "w.pt")
    for name, named in (("mobilenet_v3_small", "features.0"), ("resnet50", "layer1"), ("resnet18", "besides")):
        with pytest.raises(DojangError, match=named) as e:
            weights.transfer(network(name), weights.read(path), path, ("ant", "bee"))
        assert e.value.code == "BAD_WEIGHTS" and name in e.value.message


def test_a_vit_takes_weights_of_another_size(tmp_path: Path) -> None:
    donor, model = network("vit_b_16", size=64), network("vit_b_16", size=32)
    path = stored(donor, tmp_path / "w.pt")
    weights.transfer(model, weights.read(path), path, ("ant", "bee"))
    assert model.model.encoder.pos_embedding.shape == (1, 5, 768)
    assert torch.equal(model.model.encoder.pos_embedding[:, 0], donor.model.encoder.pos_embedding[:, 0])


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(network("resnet18").model.state_dict(), tmp_path / "w.safetensors")
    path = tmp_path / "w.safetensors"
    taken = weights.transfer(network("resnet18"), weights.read(path), path, ("a", "b"))
    assert taken.text.endswith("122 of 122 tensors")


def test_hostile_and_foreign_files(tmp_path: Path) -> None:
    torch.save({"model": Payload(tmp_path / "marker")}, tmp_path / "w.pt")
    with pytest.raises(DojangError) as e:
        weights.read(tmp_path / "w.pt")
    assert e.value.code == "UNSAFE_FILE" and not (tmp_path / "marker").exists()
    torch.save({"kernel": "torchvision", "model": {}, "architecture": "resnet18"}, tmp_path / "x.pt")
    for bad in ("x.pt", "gone.pt"):
        with pytest.raises(DojangError) as e:
            weights.rebuild(tmp_path / bad)
        assert e.value.code in ("BAD_WEIGHTS", "MISSING_WEIGHTS")
