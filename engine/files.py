"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import tomllib
from pathlib import Path
from typing import Any

from engine.errors import DojangError


def is_locked(path: Path) -> bool:
    """Whether a live process holds this file's lock. Asked with a shared lock, so that two who ask see the same."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` with `data` as a whole: temp file beside it, fsync, rename, fsync of the folder."""
    temp = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temp.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temp.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise disk_error(e, path) from e
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Some network file systems refuse: then it is best effort."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def disk_error(e: OSError, path: Path) -> DojangError:
    """Say in plain words why `path` could not be written."""
    import errno

    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return DojangError(
            f"No space left while writing {path}.", code="DISK_FULL", hint="Free some space, then resume."
        )
    if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return DojangError(
            f"{path} cannot be written: {e.strerror}.", code="READ_ONLY", hint="Choose another workspace."
        )
    return DojangError(f"{path} could not be written: {e.strerror or e}.", code="WRITE_FAILED")


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def write_toml(path: Path, value: dict[str, Any]) -> None:
    """Write what a person may read and edit. Keys whose value is None are left out: TOML has no null."""
    import tomli_w

    write_bytes(path, tomli_w.dumps({k: v for k, v in value.items() if v is not None}).encode())


def read_toml(path: Path) -> dict[str, Any]:
    """Read TOML, or say which file is broken and where."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DojangError(f"{path} is not valid TOML: {e}", code="BAD_FILE", hint="Mend the file or remove it.") from e
