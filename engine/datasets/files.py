"""Looking at the user's folder: only ever reading, never hanging on a loop, a pipe or a huge file."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.datasets.images import is_image
from engine.datasets.model import Finding, Progress
from engine.errors import DojangError

LABEL_LIMIT = 16 << 20  # bytes of one annotation; polygons of a crowded image stay far below
LIST_LIMIT = 256 << 20  # bytes of a list of images
LINE_LIMIT = 1 << 20  # characters of one line of it; paths have some thousands at most
MOST_IMAGES = 2_000_000  # of one dataset
OUTSIDE = "{!r} leads out of the data set's folder, so it is left out; an absolute path would say that it is meant."
DRIVE = re.compile(r"[A-Za-z]:/")  # where an absolute path on Windows begins
BEAT = 1000  # files looked at between two calls of progress


class Unreadable(Exception):
    """A file inside the dataset cannot be read. `code` is a finding's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def nfc(text: str) -> str:
    """The composed form: macOS hands out decomposed Hangul and accents, and the same name must sort and hash alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def existing(path: str) -> str | None:
    """`path`, or its other Unicode form, if it exists: lists and folders often disagree on how Hangul is composed."""
    if there(path):
        return path
    if path.isascii():
        return None
    others = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((other for other in others if there(other)), None)


def there(path: str | Path) -> bool:
    """Whether something is at `path`; a name that is too long or holds a NUL, or a closed folder, has nothing."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def size_of(path: str | Path) -> int:
    """Bytes of the file; 0 if it cannot be asked, which reading it will say better."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0


def read_text(path: str | Path, limit: int) -> str:
    """The text of a small regular UTF-8 file, with or without a byte-order mark; Unreadable says what is wrong."""
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unreadable("bad_encoding", f"The file is not UTF-8 text (byte {e.start + 1}).") from e


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a regular UTF-8 file that may be long, with their ends; Unreadable where it cannot be read on."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("unreadable", "This is not a regular file.")
        if status.st_size > LIST_LIMIT:
            raise Unreadable("too_large", f"The file has {status.st_size:,} bytes; at most {LIST_LIMIT:,} are read.")
        with Path(path).open(encoding="utf-8-sig", newline="") as f:
            for number, line in enumerate(iter(lambda: f.readline(LINE_LIMIT), "")):
                if number == MOST_IMAGES:
                    raise Unreadable("too_large", f"The file has more than {MOST_IMAGES:,} lines.")
                if len(line) == LINE_LIMIT:
                    raise Unreadable("too_large", f"Line {number + 1:,} has more than {LINE_LIMIT:,} characters.")
                yield line
    except UnicodeDecodeError as e:
        raise Unreadable("bad_encoding", f"The file is not UTF-8 text: {e.reason}.") from e
    except OSError as e:
        raise Unreadable("unreadable", f"The file cannot be read: {e.strerror or e}.") from e


def read_bytes(path: str | Path, limit: int) -> bytes:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("unreadable", "This is not a regular file.")
        if status.st_size > limit:
            raise Unreadable("too_large", f"The file has {status.st_size:,} bytes; at most {limit:,} are read.")
        return Path(path).read_bytes()
    except OSError as e:
        raise Unreadable("unreadable", f"The file cannot be read: {e.strerror or e}.") from e


def walk(folder: str, findings: list[Finding], root: Path, progress: Progress | None = None) -> Iterator[str]:
    """Everything below `folder` but folders, each real folder once, hidden ones left out; refusals are noted.

    A link to a folder that holds `folder` itself is not followed: at its end is what is not meant, up to the whole disk.
    """
    seen = {place for above in _above(folder) if (place := _identity(above))}
    waiting, count = [folder], 0
    while waiting:
        current = waiting.pop()
        try:
            status = Path(current).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        waiting.append(entry.path)
                    else:
                        yield entry.path
                    count += 1
                    if progress and count % BEAT == 0:
                        progress(0, 0)
        except OSError as e:
            message = f"The folder cannot be read: {e.strerror or e}."
            findings.append(Finding("error", "unreadable_folder", message, relative(current, root)))


def _above(folder: str) -> Sequence[Path]:
    try:
        return Path(folder).resolve().parents
    except (OSError, RuntimeError):  # a link to itself
        return ()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def images_below(folder: str, findings: list[Finding], root: Path, progress: Progress | None = None) -> list[str]:
    """The images below `folder`, in an order that is the same on every system."""
    found = (path for path in walk(folder, findings, root, progress) if is_image(path))
    return sorted((path for path in found if sayable(path, findings, root)), key=nfc)


def sayable(path: str, findings: list[Finding], root: Path) -> bool:
    """Whether the name is valid Unicode; one that is not could be neither stored nor shown, so it is noted."""
    try:
        path.encode()
    except UnicodeEncodeError:
        message = "The file's name is not valid UTF-8: rename it."
        findings.append(Finding("error", "bad_file_name", message, printable(relative(path, root))))
        return False
    return True


def printable(path: str) -> str:
    """The name as text: bytes that are none show as �, and so do the halves of characters that JSON can say."""
    try:
        return os.fsencode(path).decode("utf-8", "replace")
    except UnicodeEncodeError:
        return path.encode("utf-8", "replace").decode()


def relative(path: str | Path, root: Path) -> str:
    """`path` from `root`, with "/", when it is inside it; else as it is."""
    text, base = os.fspath(path), os.fspath(root).rstrip(os.sep) + os.sep
    return printable(text[len(base) :].replace(os.sep, "/") if text.startswith(base) else text)


def absolute(path: str | Path, base: str | Path) -> str:
    """`path` from `base`, with its `..` resolved by name: symbolic links the user made stay as they are."""
    return os.path.normpath(Path(base) / path)


def inside(path: str, folder: str | Path) -> bool:
    """Whether `path`, both being absolute and normal, lies in `folder`."""
    return path.startswith(os.fspath(folder).rstrip(os.sep) + os.sep)


def named(text: str, bases: Sequence[str | Path], root: Path, moved: bool = False) -> str | None:
    """The image that a file of the dataset names: in the first of `bases` that has it, else where it should be.

    None if a relative path climbs out of them and of `root`: a list from a stranger has no business there. An absolute
    one says what it means; `moved` looks for one that is gone by its last name, since sets are copied about.
    """
    if "\\" in text and "/" not in text and not any(there(absolute(text, base)) for base in bases):
        text = text.replace("\\", "/")
    if os.path.isabs(text) or DRIVE.match(text):
        if moved and not there(text):
            return named(text.rpartition("/")[2], bases, root)
        return existing(text) or absolute(text, root)
    paths = [(absolute(text, base), base) for base in bases]
    options = [path for path, base in paths if inside(path, root) or inside(path, base)]
    return next((where for path in options if (where := existing(path))), options[0] if options else None)


def from_user(path: str | Path) -> Path:
    """A path as a person types it, made absolute; `~` is their home."""
    try:
        path = Path(path).expanduser()
    except RuntimeError:  # ~somebody, whom this machine does not know
        path = Path(path)
    return Path(absolute(path, Path.cwd()))


def require_folder(path: Path) -> None:
    """Refuse, saying why, a path that is not a folder that can be listed."""
    try:
        with os.scandir(path):
            return
    except (FileNotFoundError, ValueError):
        raise DojangError(f"{path} does not exist.", code="NOT_FOUND", hint="Check the path.") from None
    except OSError as e:
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="UNREADABLE", hint="Check its rights.") from e
