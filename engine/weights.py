"""Pretrained weights: where they may lie already, and fetching them once the person has agreed. Stdlib only."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import catalog
from engine.catalog import Model
from engine.errors import DojangError
from engine.files import disk_error, sync_folder, write_json
from engine.versions import Workspace

RELEASES = {  # by kernel: where the library itself fetches from
    "ultralytics": "https://github.com/ultralytics/assets/releases/download/v8.4.0",
    "effdet": "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1",
    "torchvision": "https://download.pytorch.org/models",
}
ARCHIVE = b"PK\x03\x04"  # how torch's files begin,
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # and those from before torch 1.6
TIMEOUT = 20.0  # seconds without a byte
CHUNK = 1 << 18
SMALLEST = 100_000  # bytes; less is an error page

Tick = Callable[[int, int], bool]
"""Called with (bytes so far, in all; 0 while unknown); False cancels."""


def find(model: Model, workspace: Workspace) -> Path | None:
    """The file of `model`'s pretrained weights, from the workspace or the libraries' own folders; None if nowhere."""
    for folder in folders(workspace) if model.pretrained else ():
        path = folder / model.pretrained
        if path.is_file() and path.stat().st_size >= SMALLEST:
            return path
    return None


def folders(workspace: Workspace) -> list[Path]:
    """Where `find` looks, the workspace first."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    torch_home = Path(
        os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "torch"
    )
    found = [workspace.weights]
    try:
        settings = json.loads((config / "Ultralytics" / "settings.json").read_bytes())
        chosen = Path(str(settings["weights_dir"]))
        found += [chosen] if chosen.is_absolute() else []
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [*found, torch_home / "hub" / "checkpoints"]


def address(model: Model) -> str:
    """Where the weights are fetched from. `DOJANG_WEIGHTS_URL` names a mirror's folder.

    Raises DojangError(MISSING_WEIGHTS) for a model without public weights.
    """
    folder = os.environ.get("DOJANG_WEIGHTS_URL") or RELEASES.get(model.kernel)
    if not folder or not model.pretrained:
        raise DojangError(
            f"{model.name} has no public weights.", code="MISSING_WEIGHTS", hint="Train it from scratch or from a file."
        )
    return f"{folder.rstrip('/')}/{model.pretrained}"


def size(model: Model) -> int | None:
    """How many bytes the address says that the weights have; None where it does not say, or cannot be reached."""
    try:
        request = urllib.request.Request(address(model), method="HEAD")  # noqa: S310
        if request.type not in ("https", "http"):
            return None
        with _opener().open(request, timeout=TIMEOUT) as answer:
            return _length(answer) or None
    except (OSError, ValueError, http.client.HTTPException):
        return None


def resolve(text: str, workspace: Workspace, model: Model | None = None) -> Path:
    """The file that a spec's `weights` names: a path, a file in the workspace's weights folder, or a version.

    `V_3`, `PROJECT/V_3` or a version's own name is that version's best weights. Whatever is no file at all comes back as
    an absolute path, from wherever a worker may run. Raises DojangError: MISSING_WEIGHTS for a version without weights,
    BAD_WEIGHTS for one of another kernel than `model`.
    """
    path = Path(os.path.expanduser(text)).absolute()  # Path's own raises for unknown users
    if path.is_file() or text.startswith(("/", "~", ".")) or text.count("/") > 1:
        return path
    if "/" not in text and (workspace.weights / text).is_file():
        return workspace.weights / text
    try:
        version = workspace.version(text)
        trained = catalog.find(str(version.spec_data().get("model")))
    except (DojangError, OSError):
        return path
    if model and model.kernel != trained.kernel:
        raise DojangError(
            f"{version.reference} is a {trained.name}: nothing of it fits {model.name}.",
            code="BAD_WEIGHTS",
            hint=f"Start from weights of {model.name}, or train a {trained.name}.",
        )
    if not version.best_weights.is_file():
        raise DojangError(
            f"{version.reference} has no weights yet.",
            code="MISSING_WEIGHTS",
            hint="Wait for its first epoch, or start from another version or file.",
        )
    return version.best_weights


def missing(model: Model, workspace: Workspace, why: str = "") -> DojangError:
    """The pretrained weights are not there: what the file is called, where to put it, what else can be done."""
    return DojangError(
        why or f"The pretrained weights of {model.name}, {model.pretrained}, are not on this machine.",
        code="MISSING_WEIGHTS",
        hint=f"Fetch it (dojang weights fetch {model.name}), or put {model.pretrained} into {workspace.weights}, or allow "
        "the download (download = true), or train from scratch (weights = scratch).",
    )


def fetch(model: Model, workspace: Workspace, tick: Tick) -> Path | None:
    """Download the weights into the workspace and return the file; None when `tick` cancelled it.

    What an earlier attempt got is gone on from. `HTTPS_PROXY` and its kin are honoured. Raises DojangError
    (MISSING_WEIGHTS with the reason, DISK_FULL).
    """
    target = workspace.ensure().weights / model.pretrained
    part = target.with_name(f"{target.name}.part")
    url = address(model)
    try:
        if not _download(url, part, tick):
            return None
    except DojangError:
        raise
    except urllib.error.HTTPError as e:
        e.close()
        raise missing(model, workspace, f"{url} answered {e.code} ({e.reason}){_through(url)}.") from e
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as e:
        reason = getattr(e, "reason", None) or e
        raise missing(model, workspace, f"{url} could not be reached or broke off{_through(url)}: {reason}.") from e
    except OSError as e:
        raise disk_error(e, part) from e
    try:
        found = _checked(part, model, workspace, url)
        write_json(note_of(target), {"sha256": found, "size": part.stat().st_size, "from": url, "how": "fetched"})
        part.replace(target)
    except OSError as e:
        raise disk_error(e, target) from e
    note_of(part).unlink(missing_ok=True)
    sync_folder(target.parent)
    return target


def note_of(path: Path) -> Path:
    """Where it is noted what a file is and where it came from."""
    return path.with_name(f"{path.name}.json")


def noted(path: Path) -> dict[str, Any]:
    """What is noted of a file; nothing where there is no note, or none that can be read."""
    try:
        found = json.loads(note_of(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(path: Path) -> str:
    """The file's SHA-256, as hexadecimal digits."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_digest(name: str) -> str:
    """The first digits of its SHA-256 that torchvision, timm and effdet put into a file's name; empty where there are none."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", name)
    return found[1] if found else ""


def _checked(part: Path, model: Model, workspace: Workspace, url: str) -> str:
    """The SHA-256 of what came. What is not the file that was asked for is removed: raises DojangError(MISSING_WEIGHTS)."""
    found, expected = digest(part), known_digest(model.pretrained)
    if not _is_model(part):
        why = f"What {url} sent is not a file of weights."
    elif not found.startswith(expected):
        why = f"What {url} sent is not {model.pretrained}: its SHA-256 begins with {found[: len(expected)]}."
    else:
        return found
    for path in (part, note_of(part)):
        path.unlink(missing_ok=True)
    raise missing(model, workspace, why)


def _through(url: str) -> str:
    """Which proxy stands between, if any; without the password that its address may hold."""
    proxy = urllib.request.getproxies().get(url.partition(":")[0])
    host = urllib.parse.urlsplit(url).hostname or ""
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return f" through the proxy {re.sub(r'//[^/@]*@', '//', proxy)}"


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """An address that was asked for in secret is not followed into the open."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise ValueError(f"it sent on to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Made anew each time: urllib's own remembers the proxies of its first use."""
    return urllib.request.build_opener(_NoDowngrade)


def _download(url: str, part: Path, tick: Tick) -> bool:
    """Fill `part` up to the whole file. False when cancelled; what is there then is kept for the next time."""
    if not url.startswith(("https://", "http://")):
        raise ValueError("its address begins with neither https:// nor http://")
    had, headers = _begun(url, part)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code != 416 or not had:
            raise
        e.close()
        part.unlink()  # it has at least as many bytes as the whole: not a beginning of it
        return _download(url, part, tick)
    with answer:
        begins = (answer.headers.get("Content-Range") or f"bytes {had}-").partition("-")[0]
        if answer.status != 206 or begins != f"bytes {had}":
            if answer.status == 206:
                part.unlink()
                raise ConnectionError(f"it sent from {begins} on where {had:,} was asked for")
            had = 0  # the server sends it whole again
        write_json(note_of(part), {"from": url, "etag": answer.headers.get("ETag") or ""})
        total = had + _length(answer)
        with part.open("ab" if had else "wb") as file:
            if not _copy(answer, file, had, total, tick):
                return False
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
    if total > had and size < total:
        raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")
    return True


def _begun(url: str, part: Path) -> tuple[int, dict[str, str]]:
    """Bytes that an earlier attempt got, and what asks for the rest: of the same file only, should it have changed."""
    note = noted(part)
    if not part.exists() or note.get("from", url) != url:
        return 0, {}
    had = part.stat().st_size
    etag = str(note.get("etag") or "")
    strong = {"If-Range": etag} if etag.startswith('"') and etag.isascii() and etag.isprintable() else {}
    return had, {"Range": f"bytes={had}-", **strong} if had else {}


def _length(answer: Any) -> int:
    text = answer.headers.get("Content-Length") or ""
    return int(text) if text.isdigit() else 0


def _copy(answer: Any, file: Any, done: int, total: int, tick: Tick) -> bool:
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        done += len(chunk)
        if not tick(done, max(total, done) if total else 0):
            return False
    return True


def _is_model(path: Path) -> bool:
    """Whether it begins as torch's files do, and is not a page that says sorry. It is vetted before use."""
    with path.open("rb") as file:
        return path.stat().st_size >= SMALLEST and file.read(len(OLD)).startswith((ARCHIVE, OLD))
