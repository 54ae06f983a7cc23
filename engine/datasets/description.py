"""Ultralytics' data.yaml, read as data: nothing in it is downloaded, run or believed to be small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.datasets.classes import clean_class
from engine.datasets.files import Unreadable, read_text
from engine.datasets.model import SPLITS, Split
from engine.errors import DojangError

if TYPE_CHECKING:
    import yaml

SIZE_LIMIT = 4 << 20  # bytes; twenty thousand class names are under one
NODE_LIMIT = 300_000  # values after every alias has been written out
CLASS_LIMIT = 100_000
HINT = "See https://docs.ultralytics.com/datasets/detect for what belongs into it."


@dataclass(frozen=True, slots=True)
class Description:
    """What a data.yaml says, checked. `places` are its texts as written, by split."""

    path: Path  # of the data.yaml itself
    base: str | None
    places: dict[Split, tuple[str, ...]]
    classes: tuple[str, ...]
    keypoints: int  # columns of keypoints after each box


def load_description(path: Path) -> Description:
    """Read and check a data.yaml; DojangError says what is wrong in it. `download` and all unknown keys are ignored."""
    data = _load(path)
    base = data.get("path")
    if base is not None and not isinstance(base, str):
        raise _bad(path, "`path` has to be the text of a folder's path.")
    if data.get("val") is None:
        data["val"] = data.get("validation")
    places = {split: _places(path, split, data.get(split)) for split in SPLITS}
    if not places["train"]:
        raise _bad(path, "`train` is missing: it names the folder of the training images.")
    return Description(path, base, places, _classes(path, data), _keypoints(data.get("kpt_shape")))


def _bad(path: Path, message: str) -> DojangError:
    return DojangError(f"{path}: {message}", code="BAD_DATA_YAML", hint=HINT)


def _load(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = read_text(path, SIZE_LIMIT)
        loader = yaml.SafeLoader(text)
        loader.compose_node = _counted(loader.compose_node, path)  # type: ignore[method-assign]
        try:
            node = loader.get_single_node()
            if node is None:
                raise _bad(path, "the file is empty.")
            if _expanded(node) > NODE_LIMIT:
                raise _bad(path, f"it unfolds to more than {NODE_LIMIT:,} values.")
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except Unreadable as e:
        raise _bad(path, e.message) from e
    except yaml.YAMLError as e:
        raise _bad(path, f"this is not valid YAML: {' '.join(str(e).split())[:300]}") from e
    except RecursionError:
        raise _bad(path, "it is nested too deeply.") from None
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as e:
        if isinstance(e, DojangError):
            raise
        raise _bad(path, f"a value cannot be read: {e}") from e
    if not isinstance(data, dict):
        raise _bad(path, "it has to consist of `key: value` lines (train, val, names).")
    return data


def _counted(compose: Callable[..., yaml.Node | None], path: Path) -> Callable[..., yaml.Node | None]:
    """`compose`, which makes a value of the document, but no more than NODE_LIMIT times: each takes a kilobyte."""
    count = 0

    def counted(*arguments: Any) -> yaml.Node | None:
        nonlocal count
        count += 1
        if count > NODE_LIMIT:
            raise _bad(path, f"it holds more than {NODE_LIMIT:,} values.")
        return compose(*arguments)

    return counted


def _expanded(root: yaml.Node) -> int:
    """How many values the document has with its aliases written out; far too many if one contains itself.

    Without this, `<<: [*a, *a, …]` on a few lines keeps the reader busy for ever.
    """
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_:
            return NODE_LIMIT + 1
        if key not in sizes:
            open_.add(key)
            children = node.value if isinstance(node.value, list) else ()
            flat = (child for item in children for child in (item if isinstance(item, tuple) else (item,)))
            sizes[key] = min(1 + sum(map(size, flat)), NODE_LIMIT + 1)
            open_.discard(key)
        return sizes[key]

    return size(root)


def _places(path: Path, split: str, value: Any) -> tuple[str, ...]:
    places = [value] if isinstance(value, str) else ([] if value is None else value)
    if not isinstance(places, list) or not all(isinstance(place, str) and place.strip() for place in places):
        raise _bad(path, f"`{split}` has to be a folder, a .txt list, or a list of those.")
    return tuple(place.strip() for place in places)


def _classes(path: Path, data: dict[Any, Any]) -> tuple[str, ...]:
    names, count = data.get("names"), data.get("nc")
    if names is None and count is None:
        raise _bad(path, "`names` is missing: it lists the classes.")
    number = _whole(count)
    if count is not None and (number is None or not 1 <= number <= CLASS_LIMIT):
        raise _bad(path, f"`nc` has to be a whole number from 1 to {CLASS_LIMIT:,}, not {str(count)[:40]}.")
    if names is None:
        return tuple(f"class_{i}" for i in range(number or 0))
    if isinstance(names, dict):
        names = _in_order(path, names)
    if not isinstance(names, list) or not 1 <= len(names) <= CLASS_LIMIT:
        raise _bad(path, "`names` has to list at least one class.")
    if number is not None and number != len(names):
        raise _bad(path, f"`nc` says {number} classes, but `names` lists {len(names)}.")
    return _clean(path, names)


def _in_order(path: Path, names: dict[Any, Any]) -> list[Any]:
    """Names keyed by index, as a list; the indices have to be 0, 1, 2, … without a gap."""
    keyed = {_whole(key): value for key, value in names.items()}
    if len(keyed) != len(names) or set(keyed) != set(range(len(names))):
        raise _bad(path, f"the indices in `names` have to be 0 to {len(names) - 1}, each once.")
    return [keyed[i] for i in range(len(names))]


def _clean(path: Path, names: list[Any]) -> tuple[str, ...]:
    clean: list[str] = []
    for i, name in enumerate(names):
        text = clean_class(str(name)) if isinstance(name, str | int | float) else None
        if text is None:
            raise _bad(path, f"class {i} in `names` has no usable name: {str(name)[:40]!r}.")
        clean.append(text)
    twice = next((name for name, count in Counter(clean).items() if count > 1), None)
    if twice is not None:
        raise _bad(path, f"`names` lists {twice!r} twice.")
    return tuple(clean)


def _whole(value: Any) -> int | None:
    """The whole number that a value is or spells; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return int(value) if float(value).is_integer() else None
    except (ValueError, OverflowError):
        return None


def _keypoints(shape: Any) -> int:
    """Columns that keypoints of `shape` [points, values a point] take; 0 if the set has none."""
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and 0 < n < 1000 for n in shape):
        return int(shape[0] * shape[1])
    return 0
