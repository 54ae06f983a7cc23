"""The datasets of a workspace: WORKSPACE/datasets/NAME/. The user's folder is only ever pointed at."""

from __future__ import annotations

import errno
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from engine.datasets import store
from engine.datasets.files import from_user, is_folder, nfc, there
from engine.datasets.index import Items
from engine.datasets.model import Counts, Dataset, Finding, Format, Item, Progress
from engine.errors import DojangError, NotFound
from engine.files import disk_error, sync_folder, write_bytes

DESCRIPTIONS = (".yaml", ".yml", ".json", ".csv", ".tsv")  # files that may be given in the folder's stead
LONGEST_NAME = 64  # characters
MOST_BYTES = 200  # of a name; file systems allow 255, and temporary names are longer
RATIOS = (80.0, 10.0, 10.0)
NAME_RULE = "A name has 1 to 64 letters, digits, '-', '_' or '.', and does not begin with '.' or '-'."


def add(
    workspace: Path,
    path: Path | str,
    name: str | None = None,
    *,
    format: Format | None = None,
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Read the dataset at `path` (a folder, or the file that describes it) and register it; DojangError says why not.

    Its format is recognised unless given. `ratios` and `seed` count only where a split has to be made. Raise from `progress` to cancel: nothing is left
    behind. The folder appears whole by a rename, so that two processes adding one name cannot mix: the second fails.
    """
    from engine.datasets.recognise import open_source
    from engine.datasets.scan import scan
    from engine.datasets.split import check_ratios

    check_ratios(ratios)
    path = from_user(path)
    name = check_name(name) if name is not None else default_name(path)
    folder = workspace / "datasets" / name
    if there(folder):
        raise _exists(name)
    source = open_source(path, progress, format)
    result = scan(source, ratios, seed, progress)
    background = store.background(source.format, result.items, result.findings)
    dataset = Dataset(
        name=name,
        root=source.root,
        format=source.format,
        task=source.task,
        classes=result.classes,
        added=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        split_source=result.split_source,
        split=result.split,
        hash=store.content_hash(result.classes, result.items, background),
        counts=Counts.of(result.items, result.classes),
        findings=store.count_findings(result.findings),
    )
    keep(folder, dataset, result.items, result.findings)
    return dataset


def keep(
    home: Path,
    dataset: Dataset,
    items: list[Item],
    findings: list[Finding],
    more: Callable[[Path], None] | None = None,
) -> None:
    """Write all that is known of a dataset into the new folder `home`; `more` adds to it. DojangError if it exists."""
    temp = home.with_name(f".{dataset.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temp.mkdir(parents=True)
        store.write(temp, dataset, items, findings)
        if more:
            more(temp)
        _claim(temp, home)
    except OSError as e:
        raise disk_error(e, home) from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    sync_folder(home.parent)


def _claim(temp: Path, home: Path) -> None:
    try:
        temp.rename(home)
    except OSError as e:
        if e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _exists(home.name) from None
        raise


def _exists(name: str) -> DojangError:
    return DojangError(f"A dataset named {name} already exists.", code="EXISTS", hint="Choose another: --name NAME.")


def list_datasets(workspace: Path) -> list[Dataset]:
    """All datasets, oldest first. Broken ones are left out; `broken` names them."""
    return sorted((d for d in _read_all(workspace) if isinstance(d, Dataset)), key=lambda d: (d.added, d.name))


def broken(workspace: Path) -> list[tuple[str, DojangError]]:
    """The datasets that cannot be read, by name, and why."""
    return [entry for entry in _read_all(workspace) if isinstance(entry, tuple)]


def _read_all(workspace: Path) -> list[Dataset | tuple[str, DojangError]]:
    found: list[Dataset | tuple[str, DojangError]] = []
    for folder in sorted((workspace / "datasets").glob("[!.]*")):
        try:
            found.append(store.read_dataset(folder))
        except DojangError as e:
            found.append((folder.name, e))
    return found


def load(workspace: Path, name: str) -> Dataset:
    """The dataset of that name; NotFound if there is none."""
    return store.read_dataset(home(workspace, name))


def items(workspace: Path, name: str) -> list[Item]:
    """Every usable image with its labels, by path."""
    return list(open_items(workspace, name))


def open_items(workspace: Path, name: str) -> Items:
    """The same without making them all: a sequence that reads the items that are asked for."""
    return store.open_items(home(workspace, name))


def findings(workspace: Path, name: str) -> list[Finding]:
    """What was found wrong when the dataset was added: errors first, then by file."""
    return store.read_findings(home(workspace, name))


def verify(workspace: Path, name: str) -> list[str]:
    """Paths of the items whose image is no longer there, as in Item.path. DojangError if the whole folder is gone."""
    dataset = load(workspace, name)
    require(dataset)
    return [item.path for item in items(workspace, name) if not there(dataset.image(item))]


def require(dataset: Dataset) -> None:
    """DojangError if the folder of the dataset is gone."""
    if not is_folder(dataset.root):
        hint = "Mount it or put it back, or add the dataset again from where it is now."
        message = f"The folder of {dataset.name}, {dataset.root}, is gone."
        raise DojangError(message, code="DATASET_GONE", hint=hint)


def remove(workspace: Path, name: str) -> None:
    """Forget a dataset, broken or not. Its images and labels stay where they are; a version's number is not given again."""
    folder = home(workspace, name)
    base, _, number = folder.name.rpartition("@")
    if base and int(number) > last_number(workspace, base):
        write_bytes(_numbers(workspace, base), number.encode())
    trash = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        folder.rename(trash)
    except OSError as e:
        raise disk_error(e, folder) from e
    shutil.rmtree(trash, ignore_errors=True)
    sync_folder(folder.parent)


def last_number(workspace: Path, name: str) -> int:
    """The highest number of a version of `name` that was removed; 0 where none was."""
    try:
        return int(_numbers(workspace, name).read_text())
    except (OSError, ValueError):
        return 0


def _numbers(workspace: Path, name: str) -> Path:
    return workspace / "datasets" / f".{name}.number"


def home(workspace: Path, name: str) -> Path:
    """The folder in the workspace that holds all that is known of the dataset; NotFound if there is none."""
    found = workspace / "datasets" / nfc(name)
    if not (_is_name(nfc(name)) or _is_version_name(nfc(name))) or not is_folder(found):
        names = ", ".join(dataset.name for dataset in list_datasets(workspace)[:10])
        hint = f"There are: {names}." if names else "Add one: dojang dataset add PATH."
        raise NotFound(f"There is no dataset named {name}.", hint=hint)
    return found


def check_name(name: str) -> str:
    """The composed name; DojangError if it could not be a folder's or would be awkward on a command line."""
    name = nfc(name.strip())
    if not _is_name(name):
        raise DojangError(f"{name[:80]!r} cannot name a dataset.", code="BAD_NAME", hint=NAME_RULE)
    return name


def check_version_name(name: str) -> str:
    """NAME@NUMBER, as versions are called; DojangError if it is too long."""
    if not _is_version_name(name):
        raise DojangError(f"{name[:80]!r} cannot name a version.", code="BAD_NAME", hint=NAME_RULE)
    return name


def default_name(path: Path) -> str:
    """The name of the dataset's folder, with what a name may not hold replaced by '-'."""
    folder = path.parent if path.suffix.lower() in DESCRIPTIONS else path
    text = "".join(c if _may_hold(c) else "-" for c in nfc(folder.name)).lstrip(".-")[:LONGEST_NAME]
    while len(text.encode()) > MOST_BYTES:
        text = text[:-1]
    return text.rstrip("-") or "dataset"


def _is_name(name: str) -> bool:
    fits = 1 <= len(name) <= LONGEST_NAME and len(name.encode("utf-8", "replace")) <= MOST_BYTES
    return fits and name[0] not in ".-" and all(map(_may_hold, name))


def _is_version_name(name: str) -> bool:
    base, at, number = name.rpartition("@")
    return bool(at) and len(name) <= LONGEST_NAME and _is_name(base) and number.isascii() and number.isdecimal()


def _may_hold(character: str) -> bool:
    """Letters, their marks and digits of any script, and `-_.`."""
    return character in "-_." or unicodedata.category(character)[0] in "LMN"
