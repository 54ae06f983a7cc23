"""Opening a file that anybody may have put there: never waits, and never reads what is no plain file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO


def opened(path: Path, *, links: bool = False) -> IO[bytes]:
    """The plain file at `path`, unbuffered. Raises OSError for anything else: a folder, a pipe, a link unless `links`."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        return os.fdopen(handle, "rb", buffering=0)
    except OSError:
        os.close(handle)
        raise
