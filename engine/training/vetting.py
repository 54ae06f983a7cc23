"""Files of weights from outside, looked through before anything in them can run or fill the memory.

A pickle is a program. Here it is followed with stand-ins in place of everything that it names, so that nothing it asks
for is imported or called; what it would name and call is noted instead. Sizes that a file declares are held against the
bytes it has. torch's own restricted loader comes after this, as a second gate.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from engine.errors import DojangError

MOST_PICKLE = 1 << 28  # bytes; that of the largest public model has 2 MB
MOST_ENTRIES = 100_000
MOST_HEADER = 100 << 20  # bytes of a safetensors header: the format's own limit
MOST_GROWTH = 4  # times its size, at most, may a file unpack to; torch itself never compresses
OLD_MAGIC = 0x1950A86A20F9469CFC6C  # how torch's files before 1.6 begin
BYTES = {  # of one number, by the storage's name
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
    "FloatStorage": 4, "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2,
}  # fmt: skip
# What the making of tensors and of plain values calls.
CALLABLE = (
    "torch._utils._rebuild_",
    "torch._tensor._rebuild_",
    "torch.Size",
    "torch.device",
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.set",
    "builtins.getattr",  # both loaders let it name attributes of model classes only
    "__builtin__.set",
    "_codecs.encode",
    "numpy.",
    "pathlib.",
)


# What torch never writes: shared extensions, sets, buffers, byte arrays that are allocated before they are read.
UNUSED = (0x82, 0x83, 0x84, 0x8F, 0x90, 0x91, 0x96, 0x97, 0x98)


PLAIN = re.compile(  # names of tensors' parts and of plain values; torch's restricted loader still decides about each
    r"torch\.(\w+|(storage|_utils|_tensor|nn\.parameter|serialization)\.\w+)|collections\.\w+|_codecs\.encode"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)"
)


@dataclass
class Look:
    """What a file is made of. `named` and `called` are qualified names that its pickles ask for."""

    format: str  # zip, old or safetensors
    named: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)


def look(path: Path) -> Look:
    """What is in the file at `path`, without running any of it.

    Raises DojangError: MISSING_WEIGHTS, BAD_WEIGHTS for what is no whole file of weights, UNSAFE_FILE for one that
    would call anything but the making of tensors and plain values, or unpack to far more than it is.
    """
    with opened(path) as file:
        size = path.stat().st_size
        head = file.read(9)
        file.seek(0)
        try:
            if head.startswith(b"PK"):
                found = _zip(path, file, size)
            elif int.from_bytes(head[:8], "little") < min(size, MOST_HEADER) and head[8:] == b"{":
                _safetensors(path, file, size)
                found = Look("safetensors")
            else:
                found = _old(path, file, size)
        except DojangError:
            raise
        except Exception as e:  # whatever the reader stumbles over in bytes that are something else
            raise damaged(path) from e
    wrong = sorted(name for name in found.called if not name.startswith(CALLABLE))
    if wrong:
        raise unsafe(path, f"it would call {', '.join(wrong[:5])}")
    return found


def plain(name: str) -> bool:
    """Whether a qualified name is one that tensors and plain values are made of."""
    return PLAIN.fullmatch(name) is not None


def opened(path: Path) -> IO[bytes]:
    """The file, for reading; the reasons why there is none to read are told apart. Pipes and devices are never opened."""
    hint = "Give the path of a file of weights, or train from scratch."
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise DojangError(f"{path} is a folder, not a file of weights.", code="BAD_WEIGHTS", hint=hint)
        if not stat.S_ISREG(kind):
            raise DojangError(f"{path} is not a file but a pipe or device.", code="BAD_WEIGHTS", hint=hint)
        if not path.stat().st_size:
            raise DojangError(f"{path} is empty: 0 bytes.", code="BAD_WEIGHTS", hint="Copy or fetch it once more.")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise DojangError(f"There is no file {path}.", code="MISSING_WEIGHTS", hint="Check the path.") from None
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror or e}.", code="BAD_WEIGHTS", hint=hint) from e


def unsafe(path: Path, why: str) -> DojangError:
    return DojangError(
        f"{path} is refused: {why}, which a file of weights has no use for.",
        code="UNSAFE_FILE",
        hint="Nothing in it was run. Get the weights from where you trust them, or train from scratch.",
    )


def damaged(path: Path, why: str = "") -> DojangError:
    return DojangError(
        f"{path} is not a file of weights, or it is damaged{f': {why}' if why else ''}.",
        code="BAD_WEIGHTS",
        hint="Give a .pt, .pth or .safetensors file as its library writes them, or train from scratch.",
    )


def _zip(path: Path, file: IO[bytes], size: int) -> Look:
    """A file of torch's since 1.6: a pickle, and the numbers beside it."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as e:
        raise damaged(path, "it was cut short or changed") from e
    members = archive.infolist()
    total = sum(m.file_size for m in members)
    if len(members) > MOST_ENTRIES or total > MOST_GROWTH * size + (1 << 20):
        raise unsafe(path, f"it has {size:,} bytes and would unpack to {total:,}")
    if any("/code/" in m.filename for m in members):
        raise damaged(path, "it is a TorchScript program. Give the weights that it was made from")
    pickles = [m for m in members if m.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MOST_PICKLE:
        raise damaged(path)
    root = pickles[0].filename.removesuffix("data.pkl")
    held = {m.filename: m.file_size for m in members}
    reader = _Reader(io.BytesIO(archive.read(pickles[0])))
    reader.load()
    for key, need in reader.storages.items():
        if held.get(f"{root}data/{key}", -1) < need:
            raise damaged(path, "it declares more numbers than it holds")
    return Look("zip", reader.named, reader.called)


def _old(path: Path, file: IO[bytes], size: int) -> Look:
    """A file of torch's before 1.6: pickles one after another, then the numbers."""
    named, called = set[str](), set[str]()
    for place in range(5):  # magic, protocol, machine, content, keys of the storages
        reader = _Reader(file)
        value = reader.load()
        if place == 0 and value != OLD_MAGIC:
            raise damaged(path)
        if sum(reader.storages.values()) > size:
            raise damaged(path, "it declares more numbers than it holds")
        named |= reader.named
        called |= reader.called
    return Look("old", named, called)


def _safetensors(path: Path, file: IO[bytes], size: int) -> None:
    """Only its frame: what tensors there are is the library's to check, which runs nothing."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) + 8 + length != size:
        raise damaged(path, "it was cut short or changed")


class _Kind(type):
    """The class of stand-ins. Calling one is noted; what `object.__new__` makes of it is not."""

    name: str
    noted: set[str]

    def __call__(cls, *_: Any, **__: Any) -> Any:
        cls.noted.add(cls.name)
        return super().__call__()


class _Anything:
    """Takes whatever an unpickler does to a thing it has made, and does nothing."""

    name: str
    noted: set[str]

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.noted.add(f"what {self.name} returns")
        return self

    def nothing(self, *_: Any, **__: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = update = nothing


_Unpickler: Any = pickle._Unpickler  # the one in Python: its memory grows only with what is really in the file


class _Reader(_Unpickler):  # type: ignore[misc]
    """Follows a pickle without importing or calling what it names."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.named, self.called = set[str](), set[str]()
        self.storages: dict[str, int] = {}  # bytes that each must have
        self._kinds: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        self.named.add(f"{module}.{name}")
        return self._stand_in(f"{module}.{name}")

    def _stand_in(self, name: str) -> Any:
        if name not in self._kinds:
            self._kinds[name] = _Kind("stand_in", (_Anything,), {"name": name, "noted": self.called})
        return self._kinds[name]

    def persistent_load(self, pid: Any) -> Any:
        """The numbers of a tensor: ("storage", class, key, device, count, …)."""
        what, kind, key, _, count = pid[:5]
        if what != "storage" or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError("not a storage")
        self.storages[str(key)] = count * BYTES.get(kind.name.rpartition(".")[2], 1)
        return self._stand_in("a storage")

    def _setitems(self) -> None:
        """Keys are plain: to hash tuples of tuples of tuples, each twice in the next, takes forever."""
        if any(isinstance(key, tuple) for key in self.stack[::2]):
            raise pickle.UnpicklingError("a tuple as key")
        self.load_setitems()

    def _setitem(self) -> None:
        if isinstance(self.stack[-2], tuple):
            raise pickle.UnpicklingError("a tuple as key")
        self.load_setitem()

    dispatch = {code: do for code, do in _Unpickler.dispatch.items() if code not in UNUSED}
    dispatch |= {pickle.SETITEMS[0]: _setitems, pickle.SETITEM[0]: _setitem}


def content(path: Path) -> Any:
    """What a file holds that is made of nothing but tensors and plain values.

    Raises what `look` raises; UNSAFE_FILE also for a file that holds more than those.
    """
    import torch

    if look(path).format == "safetensors":
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except Exception as e:
            raise damaged(path) from e
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        asked = re.search(r"GLOBAL ([\w.]+)", str(e))  # torch's words for a name that it will not look up
        raise (unsafe(path, f"it asks for {asked[1]}") if asked else damaged(path)) from e
    except Exception as e:  # whatever the reader stumbles over
        raise damaged(path) from e


def tensors(path: Path) -> dict[str, Any]:
    """The table of tensors that a file is, or that it holds as `state_dict`, `model` or `ema`. Raises as `content`."""
    import torch

    for found in _unwrapped(content(path)):
        if found and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in found.items()):
            return found
    raise damaged(path, "it holds no table of tensors")


def _unwrapped(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
        yield from (found[key] for key in ("state_dict", "model", "ema") if isinstance(found.get(key), dict))
