"""Pretrained weights: where they may lie already, and fetching them once the person has agreed. Stdlib only."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.catalog import Model
from engine.errors import DojangError
from engine.files import disk_error, sync_folder
from engine.versions import Workspace

RELEASES = {  # by kernel: where the library itself fetches from
    "ultralytics": "https://github.com/ultralytics/assets/releases/download/v8.4.0",
    "effdet": "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1",
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
    for folder in folders(workspace):
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
    """Where the weights are fetched from. `DOJANG_WEIGHTS_URL` names a mirror's folder."""
    return f"{(os.environ.get('DOJANG_WEIGHTS_URL') or RELEASES[model.kernel]).rstrip('/')}/{model.pretrained}"


def missing(model: Model, workspace: Workspace, why: str = "") -> DojangError:
    """The pretrained weights are not there: what the file is called, where to put it, what else can be done."""
    return DojangError(
        why or f"The pretrained weights of {model.name}, {model.pretrained}, are not on this machine.",
        code="MISSING_WEIGHTS",
        hint=f"Put {model.pretrained} into {workspace.weights}, or allow the download (download = true), "
        "or train from scratch (weights = scratch).",
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
    except urllib.error.HTTPError as e:
        e.close()
        raise missing(model, workspace, f"{url} answered {e.code} ({e.reason}).") from e
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as e:
        reason = getattr(e, "reason", None) or e
        raise missing(model, workspace, f"{url} could not be reached or broke off: {reason}.") from e
    except OSError as e:
        raise disk_error(e, part) from e
    if not _is_model(part):
        part.unlink(missing_ok=True)
        raise missing(model, workspace, f"What {url} sent is not a file of weights.")
    part.replace(target)
    sync_folder(target.parent)
    return target


def _download(url: str, part: Path, tick: Tick) -> bool:
    """Fill `part` up to the whole file. False when cancelled; what is there then is kept for the next time."""
    if not url.startswith(("https://", "http://")):
        raise ValueError("its address begins with neither https:// nor http://")
    had = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as e:
        if e.code != 416 or not had:
            raise
        e.close()
        part.unlink()  # it has at least as many bytes as the whole: not a beginning of it
        return _download(url, part, tick)
    with answer:
        if answer.status != 206:
            had = 0  # the server sends it whole again
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
