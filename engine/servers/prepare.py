"""Everything that a version needs on a server, brought there: our code, an environment, its data, its weights.

All of it goes by content: what is there already is not sent again, what broke off goes on, and what a queued run will
take is laid down when it is submitted, so that no later change here reaches it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import engine
from engine import catalog, plugins, weights
from engine.datasets import fingerprints, recipes, registry, store
from engine.datasets.model import Dataset, Item
from engine.errors import DojangError
from engine.files import disk_error
from engine.servers import environment, shipping, there
from engine.servers.boxes import Box
from engine.servers.environment import Far
from engine.servers.link import Link
from engine.servers.link_errors import LinkError
from engine.servers.shipping import Content
from engine.spec import Spec
from engine.versions import Version, Workspace

ELSEWHERE = "elsewhere"  # folder of images that lie outside of their set's own
ODD = frozenset({"", ".", ".."})


class Telling(Protocol):
    """Who is told how preparing goes on. Each may raise to stop it."""

    def say(self, text: str) -> None:
        """A step, in words for the person."""

    def note(self, text: str) -> None:
        """What a program printed; for the log."""

    def bar(self, done: int, total: int, unit: str) -> None:
        """How far the step is."""

    @property
    def key(self) -> str:
        """What a command on the server is interrupted by."""


@dataclass(frozen=True)
class Ready:
    """What a run is submitted with: by relative path, texts to write and contents to lay into its folder."""

    python: str
    code: str  # folder of our code there
    far: Far
    texts: dict[str, str] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)


def prepare(
    link: Link, box: Box, version: Version, run_dir: str, telling: Telling, again: bool = False, driver: str = ""
) -> Ready:
    """Have everything there that the version needs; `run_dir`: its run's folder, relative to the server's.

    `again`: an earlier attempt was submitted, so that data and weights that are gone or changed here since are not
    missed: those laid down then serve. `driver`: that of the GPUs, where the server has none itself. Raises LinkError, DojangError with what to do, and whatever `telling` raises.
    """
    spec = version.spec()
    require_ours(spec)
    far = look(link)
    if driver and not far.drivers:
        far = dataclasses.replace(far, drivers=(driver,))
    telling.say(f"Preparing {box.name}" + (f": {box.where}" if box.where != box.name else ""))
    code = send_code(link, telling)
    model = catalog.find(spec.model)
    python = environment.ensure(link, far, box, code, model.kernel, telling.say, telling.key, telling.note)
    telling.say(f"Training with {python}")
    texts = {f"{there.HOME}/{there.ABOUT}": json.dumps({"project": version.project.name, "version": version.id})}
    contents: dict[str, Content] = {}
    try:
        with _folder(version) as temp:
            contents |= _data(link, box, far, code, version.workspace, spec, temp, telling)
            spec, file = _weights(spec, version.workspace, f"{far.root}/{run_dir}")
            contents |= file
    except DojangError as e:
        if not again or isinstance(e, LinkError):
            raise
        contents, spec = {}, _laid_down(spec, f"{far.root}/{run_dir}")
        telling.say(f"{e.message} What was sent before serves.")
    _send(link, shipping.by_digest(contents), telling, "lists and weights")
    texts["spec.toml"] = spec_text(spec)
    texts["version.toml"] = (version.path / "version.toml").read_text(encoding="utf-8")
    return Ready(python, code, far, texts, contents)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would come before a training there: an environment to be made, `files` and `bytes` to be copied."""

    environment: bool
    files: int
    bytes: int


def outlook(link: Link, box: Box, workspace: Workspace, spec: Spec, driver: str = "") -> Outlook:
    """Reads what was never read of the data set here; changes nothing there. `driver` as for `prepare`.

    Raises LinkError, DojangError.
    """
    far = look(link)
    if driver and not far.drivers:
        far = dataclasses.replace(far, drivers=(driver,))
    needed = False
    if not box.python:
        made = environment.as_table(link.call("list", kind="envs")["names"])
        kind = environment.wheel_kind(far.drivers)
        needed = not any(str(name).startswith(f"{kind}-") for name in made)
    dataset = registry.load(workspace.path, spec.dataset)
    items = registry.items(workspace.path, spec.dataset)
    sizes: dict[str, int] = {}
    if not _lies_there(box, spec.dataset):
        prints = fingerprints.take(workspace.path, dataset, items)
        sizes = {seen.digest.hex(): item.bytes for seen, item in zip(prints, items, strict=True)}
    missing, parts = shipping.missing(link, list(sizes))
    return Outlook(needed, len(missing), sum(sizes[d] - min(sizes[d], parts.get(d, 0)) for d in missing))


def _lies_there(box: Box, dataset: str) -> str:
    """Where the images of a set, or of the set that it is a version of, lie on the server already; empty: nowhere."""
    return box.data.get(dataset) or box.data.get(dataset.rpartition("@")[0]) or ""


def look(link: Link) -> Far:
    """The server now."""
    hello, probe = link.call("hello"), link.call("probe", timeout=30.0)
    return Far.of(dict(hello), dict(probe))


def require_ours(spec: Spec) -> None:
    """Only dojang's own models train on a server: what a foreign package or program is made of is not known here."""
    model = catalog.find(spec.model)
    if model.kernel not in catalog.BUILT_IN:
        what = "program" if plugins.program_of(spec.model) else "package"
        raise DojangError(
            f"{spec.model} comes from a {what} of this machine, which is not on the server.",
            code="BAD_SPEC",
            hint="Train it on this machine, or choose one of dojang's own models.",
        )


def spec_text(spec: Spec) -> str:
    import tomli_w

    from engine.spec import to_toml

    return tomli_w.dumps({k: v for k, v in to_toml(spec).items() if v is not None})


# Our own code


def send_code(link: Link, telling: Telling) -> str:
    """The engine as it is here, file by file: its folder there."""
    files = code_files()
    name = shipping.tree_name("code", files)
    _send(link, shipping.by_digest(files), telling, "our own code")
    return shipping.lay(link, name, files)


def code_files() -> dict[str, Content]:
    """Every file of the engine that a worker may need."""
    top = Path(engine.__file__).parent
    found = {}
    for path in sorted(top.rglob("*")):
        relative = path.relative_to(top.parent)
        if "__pycache__" in relative.parts or path.suffix == ".pyc" or not path.is_file():
            continue
        found[relative.as_posix()] = Content.of(path.read_bytes())
    return found


# The data set


def _data(
    link: Link, box: Box, far: Far, code: str, workspace: Workspace, spec: Spec, temp: Path, telling: Telling
) -> dict[str, Content]:
    """The images there, and the lists that a worker reads them by."""
    dataset = registry.load(workspace.path, spec.dataset)
    registry.require(dataset)
    if spec.dataset_hash and spec.dataset_hash != dataset.hash:
        message = f"The data set {spec.dataset} is not the one this training was set up with: its contents differ."
        raise DojangError(message, code="DATA_CHANGED", hint="Train a new version on it as it is now.")
    items = registry.items(workspace.path, spec.dataset)
    telling.say(f"Reading {len(items):,} images of {dataset.name}")

    def read(done: int, total: int) -> None:
        telling.bar(done, total, "images")

    digests = [p.digest for p in fingerprints.take(workspace.path, dataset, items, progress=read)]
    names = there_names(items)
    files = {
        name: Content(digest.hex(), item.bytes, dataset.image(item))
        for name, item, digest in zip(names, items, digests, strict=True)
    }
    chosen = _lies_there(box, spec.dataset)
    if chosen:
        root = _check_data(link, far, code, far.path(chosen), files, telling)
    else:
        _send(link, shipping.by_digest(files), telling, f"images of {dataset.name}")
        root = shipping.lay(link, shipping.tree_name("data", files), files)
    return _lists(workspace, dataset, items, names, root, temp)


def there_names(items: Sequence[Item]) -> list[str]:
    """Where each image lies below the set's folder there. One from outside of it gets a place of its own."""
    found = []
    for number, item in enumerate(items):
        parts = PurePosixPath(item.path).parts
        sound = not item.path.startswith("/") and not ODD & set(item.path.split("/")) and "\\" not in item.path
        found.append(item.path if sound else f"{ELSEWHERE}/{number:07d}/{parts[-1]}")
    return found


def _check_data(link: Link, far: Far, code: str, folder: str, files: dict[str, Content], telling: Telling) -> str:
    """The images are there already: all of them by size, some by content."""
    body = json.dumps({path: [each.digest, each.size] for path, each in files.items()}).encode()
    listing = {"list.json": Content.of(body)}
    shipping.send(link, shipping.by_digest(listing))
    path = shipping.lay(link, shipping.tree_name("list", listing), listing) + "/list.json"
    telling.say(f"Checking {len(files):,} images in {folder} on the server")

    def heard(told: dict[str, Any]) -> None:
        if "total" in told:
            telling.bar(int(told["done"]), int(told["total"]), "images")

    told = environment.aside(
        link,
        far.executable,
        code,
        ["data", path, folder],
        key=telling.key,
        limit=3600.0,
        note=telling.note,
        heard=heard,
    )
    return str(told.get("path") or folder)


def _lists(
    workspace: Workspace, dataset: Dataset, items: list[Item], names: list[str], root: str, temp: Path
) -> dict[str, Content]:
    """The set's own files, of the images as they lie there."""
    home = registry.home(workspace.path, dataset.name)
    other = {item.path: name for item, name in zip(items, names, strict=True) if item.path != name}
    moved = [dataclasses.replace(item, path=name) for item, name in zip(items, names, strict=True)]
    findings = [
        dataclasses.replace(f, file=other.get(f.file, f.file), image=other.get(f.image, f.image))
        for f in registry.findings(workspace.path, dataset.name)
    ]
    store.write(temp, dataclasses.replace(dataset, root=Path(root)), moved, findings)
    for name in (recipes.RECIPE, recipes.DIGESTS):
        if (home / name).exists():
            shutil.copyfile(home / name, temp / name)
    return {
        f"{there.HOME}/datasets/{home.name}/{path.name}": Content.of(path.read_bytes())
        for path in sorted(temp.iterdir())
    }


@contextmanager
def _folder(version: Version) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="dojang-") as temp:
            yield Path(temp)
    except OSError as e:
        raise disk_error(e, version.path) from e


# Weights


def _weights(spec: Spec, workspace: Workspace, run_dir: str) -> tuple[Spec, dict[str, Content]]:
    """The spec as it is there, and the file to start from; none where the worker starts at random or fetches it itself."""
    model = catalog.find(spec.model)
    if spec.weights == "scratch":
        return spec, {}
    if spec.weights == "pretrained":
        file = weights.find(model, workspace)
        if file is None and not spec.download:
            raise weights.missing(model, workspace)
        return spec, {f"{there.HOME}/weights/{model.pretrained}": Content.at(file)} if file else {}
    file = weights.resolve(spec.weights, workspace, model)
    place = f"{there.HOME}/weights/{file.name}"
    return spec.model_copy(update={"weights": f"{run_dir}/{place}"}), {place: Content.at(file)}


def _laid_down(spec: Spec, run_dir: str) -> Spec:
    """The spec as it was sent before."""
    if spec.weights in ("scratch", "pretrained"):
        return spec
    return spec.model_copy(update={"weights": f"{run_dir}/{there.HOME}/weights/{Path(spec.weights).name}"})


def _send(link: Link, contents: dict[str, Content], telling: Telling, what: str) -> None:
    """Send what is missing, and tell what that was."""
    began = time.monotonic()

    def tick(done: int, total: int) -> None:
        if total:
            telling.bar(done, total, "bytes")

    sent = shipping.send(link, contents, tick)
    if sent.files:
        seconds = max(time.monotonic() - began, 1e-3)
        rate = sent.bytes / 1e6 / seconds
        plural = "file" if sent.files == 1 else "files"
        telling.say(f"Sent {what}: {sent.files:,} {plural}, {sent.bytes / 1e6:,.1f} MB, {rate:.1f} MB/s")


__all__ = ["Ready", "Telling", "code_files", "look", "prepare", "require_ours", "send_code", "there_names"]
