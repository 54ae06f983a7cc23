"""Files from outside: what would run code, fill the memory or is something else is refused before anything happens."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DojangError
from engine.training import vetting
from tests.training import conftest  # noqa: F401  (sets what the libraries read at import)

torch = pytest.importorskip("torch")


def readers() -> dict[str, Callable[[Path], Any]]:
    """Every way in which a kernel reads a file from outside."""
    from engine.training import recognise
    from engine.training.kernels import effdet_weights, ultralytics_weights

    return {
        "ultralytics": ultralytics_weights.read,
        "effdet": effdet_weights.read,
        "tensors": vetting.tensors,
        "recognise": recognise.recognise,
    }


READERS = ("ultralytics", "effdet", "tensors", "recognise")


class Runs:
    """Unpickled by a careless reader, it makes the folder `mark`."""

    def __init__(self, mark: Path, function: Any = os.mkdir) -> None:
        self.mark, self.function = mark, function

    def __reduce__(self) -> Any:
        return self.function, (str(self.mark),)


def refused(read: Callable[[Path], Any], path: Path) -> DojangError:
    with pytest.raises(DojangError) as caught:
        read(path)
    return caught.value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_a_program_is_not_run(tmp_path: Path, reader: str, zipped: bool) -> None:
    path, mark = tmp_path / "bad.pt", tmp_path / "ran"
    content = {"model": Runs(mark), "state_dict": {"a": torch.zeros(3)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    error = refused(readers()[reader], path)
    assert error.code == "UNSAFE_FILE" and "posix.mkdir" in error.message and str(path) in error.message
    assert "scratch" in error.hint and not mark.exists()
    pickle.loads(pickle.dumps(Runs(mark)))
    assert mark.exists()  # it would have


@pytest.mark.parametrize("reader", READERS)
def test_a_known_name_may_be_named_but_not_called(tmp_path: Path, reader: str) -> None:
    """To make a model out of a description would fetch that description from anywhere."""
    from ultralytics.nn.tasks import DetectionModel

    path = tmp_path / "bad.pt"
    torch.save({"model": Runs(Path("http:/127.0.0.1:9/model.yaml"), DetectionModel)}, path)
    error = refused(readers()[reader], path)
    assert error.code == "UNSAFE_FILE" and "DetectionModel" in error.message


@pytest.mark.parametrize("reader", READERS)
def test_what_a_getattr_returns_is_not_called(tmp_path: Path, reader: str) -> None:
    """The unpickler is asked for `getattr(Module, "x")` and told to call that."""
    content = b"\x80\x02cbuiltins\ngetattr\nctorch.nn.modules.module\nModule\nX\x04\x00\x00\x00eval\x86R)R."
    path = tmp_path / "bad.pt"
    path.write_bytes(archive(content))
    assert refused(readers()[reader], path).code == "UNSAFE_FILE"


def archive(content: bytes, **numbers: bytes) -> bytes:
    """A file of torch's around a pickle of one's own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x/data.pkl", content)
        made.writestr("x/version", "3\n")
        for key, value in numbers.items():
            made.writestr(f"x/data/{key.removeprefix('n')}", value)
    return file.getvalue()


def good(path: Path, **how: Any) -> bytes:
    torch.save({"weight": torch.arange(1000.0)}, path, **how)
    return path.read_bytes()


def bomb() -> bytes:
    """A thousand times what it is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x/data.pkl", b"\x80\x02}.")
        made.writestr("x/data/0", bytes(64 << 20))
    return file.getvalue()


def overstated(path: Path, zipped: bool) -> bytes:
    """It says that it has a billion numbers, and has a thousand."""
    whole = good(path, _use_new_zipfile_serialization=zipped)
    before, after = b"M\xe8\x03", b"J\x00\xca\x9a\x3b"  # 1000 in two bytes, a billion in four
    if not zipped:
        assert before in whole
        return whole.replace(before, after, 1)
    with zipfile.ZipFile(path) as file:
        content = file.read(f"{path.stem}/data.pkl")
        assert before in content
        return archive(content.replace(before, after), n0=file.read(f"{path.stem}/data/0"))


def bad_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    path = folder / "good.pt"
    whole = good(path)
    old = good(path, _use_new_zipfile_serialization=False)
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    frame = len(header).to_bytes(8, "little") + header
    nested = b"\x80\x02}N" + b"2\x86" * 60 + b"Ns."  # a pair of pairs of pairs …, as a key
    return {
        "empty": (b"", "empty"),
        "text": (b"<html>sorry</html>" * 100, "not a file of weights"),
        "zeros": (bytes(10_000), "not a file of weights"),
        "cut zip": (whole[: len(whole) // 2], "damaged"),
        "cut old": (old[: len(old) // 2], "damaged"),
        "another zip": (document(), "not a file of weights"),
        "bomb": (bomb(), "unpack to"),
        "overstated": (overstated(path, True), "more numbers than it holds"),
        "overstated old": (overstated(path, False), "more numbers than it holds"),
        "cut safetensors": (frame + bytes(8), "cut short"),
        "huge header": ((1 << 40).to_bytes(8, "little") + b"{" + bytes(100), "not a file of weights"),
        "huge byte array": (archive(b"\x80\x05\x96" + (1 << 45).to_bytes(8, "little") + b"."), "damaged"),
        "keys that take forever": (archive(nested), "damaged"),
        "zlib": (zlib.compress(bytes(100_000)), "not a file of weights"),
        "a number": (archive(b"\x80\x02K\x01."), ""),
    }


def document() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("word/document.xml", "<w/>")
    return file.getvalue()


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_of_weights(tmp_path: Path, reader: str) -> None:
    read = readers()[reader]
    for name, (content, words) in bad_files(tmp_path).items():
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        error = refused(read, path)
        assert error.code in ("BAD_WEIGHTS", "UNSAFE_FILE"), name
        assert words in error.message and str(path) in error.message and error.hint, (name, error.message)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file(tmp_path: Path, reader: str) -> None:
    read = readers()[reader]
    folder, loop, pipe, locked = (tmp_path / name for name in ("folder", "loop", "pipe", "locked"))
    folder.mkdir()
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    locked.write_bytes(b"x" * 100)
    assert "is a folder" in refused(read, folder).message
    assert "cannot be read" in refused(read, loop).message
    assert "pipe" in refused(read, pipe).message
    gone = refused(read, tmp_path / "none")
    assert gone.code == "MISSING_WEIGHTS" and "no file" in gone.message
    assert refused(read, locked / "x").code == "MISSING_WEIGHTS"
    from tests.conftest import read_only

    locked.chmod(0)
    with read_only(folder):  # what holds root to modes too
        if not os.access(locked, os.R_OK):
            assert "Permission denied" in refused(read, locked).message


def test_good_files_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "good.pt"
    for zipped, kind in ((True, "zip"), (False, "old")):
        good(path, _use_new_zipfile_serialization=zipped)
        assert vetting.look(path).format == kind
        assert torch.equal(vetting.tensors(path)["weight"], torch.arange(1000.0))
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3, "loss": [1.0]}, path)
    assert list(vetting.tensors(path)) == ["a"]
    save_file({"a": torch.ones(2)}, path)  # by content, not by name
    assert vetting.look(path).format == "safetensors" and list(vetting.tensors(path)) == ["a"]


def test_mere_tensors_of_a_yolo_are_taken_over(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights

    donor = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    for name in ("a.safetensors", "a.pt"):
        path = tmp_path / name
        table = {k: v.contiguous() for k, v in donor.state_dict().items()}
        save_file(table, path) if path.suffix == ".safetensors" else torch.save({"state_dict": table}, path)
        model = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
        assert ultralytics_weights.transfer(model, path, "yolo11n") == f"{name}: {len(table)} of {len(table)} tensors"
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), donor.parameters(), strict=True))
    torch.save({"elsewhere": torch.zeros(3)}, tmp_path / "b.pt")
    error = refused(lambda p: ultralytics_weights.transfer(model, p, "yolo11n"), tmp_path / "b.pt")
    assert "Nothing in" in error.message


def test_an_efficientdet_reads_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from engine.training.kernels import effdet_weights
    from engine.training.kernels.effdet_model import Design, build

    donor = build(Design("efficientdet_d0", 3, 128, 4.0))
    path = tmp_path / "d0.safetensors"
    save_file({k: v.contiguous() for k, v in donor.model.state_dict().items()}, path)
    model = build(Design("efficientdet_d0", 3, 128, 4.0))
    text = effdet_weights.transfer(model, effdet_weights.read(path), path, "efficientdet_d0", ("a", "b", "c"))
    taken = int(text.split(": ")[1].split()[0])
    assert taken == len(donor.model.state_dict()) - 3  # those that tell classes apart: the file does not say which


def test_it_is_said_which_models_a_file_fits(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights
    from engine.training.recognise import recognise

    path = tmp_path / "x.pt"
    model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    model.names = {0: "ant", 1: "bee"}
    ultralytics_weights.write(model, path, {})
    found = recognise(path)
    assert [name for name, _ in found.fits] == ["yolov8n"] and found.classes == ["ant", "bee"]
    assert found.fits[0][1] < 1  # the head is that of other classes
    torch.save({"elsewhere": torch.zeros(3)}, path)
    assert recognise(path).fits == []
