"""Strangers' JSON, read so that neither its size nor its nesting nor its numbers can do harm.

A COCO file holds every annotation of a set: half a gigabyte is common. `stream` reads one element of its arrays at a
time and holds no more than that. Numbers with a point become decimals, so that what is read is what was written.
"""

from __future__ import annotations

import codecs
import json
import re
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from engine.datasets.files import Unreadable

CHUNK = 1 << 20  # bytes read at once
FILE_LIMIT = 4 << 30  # bytes
ELEMENT_LIMIT = 16 << 20  # characters of one element; a mask of a large image stays far below
NUMBER = re.compile(r"[-+.eE0-9]*")  # what could go on with a number in the next chunk
MOST_VALUES = 2_000_000  # of a small file; each takes up to a hundred bytes
TOO_DEEP = "The file is nested too deeply."


def _constant(text: str) -> Decimal:
    """NaN and infinities are not JSON, but Python writes them; readers refuse them where they matter."""
    return Decimal(text)


DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_constant)


def load(data: bytes) -> Any:
    """The value of a small file; Unreadable if it is not JSON."""
    if data.count(b",") > MOST_VALUES:
        raise Unreadable("too_large", f"The file has more than {MOST_VALUES:,} values.")
    try:
        return DECODER.decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise Unreadable("bad_encoding", f"The file is not UTF-8 text (byte {e.start + 1}).") from e
    except json.JSONDecodeError as e:
        raise Unreadable("bad_json", f"The file is not valid JSON: {e}.") from e
    except RecursionError:
        raise Unreadable("bad_json", TOO_DEEP) from None
    except (ValueError, ArithmeticError) as e:  # a number of a thousand digits
        raise Unreadable("bad_json", f"The file has a number that cannot be read: {str(e)[:80]}.") from e


def is_number(value: Any) -> bool:
    """Whether it is a finite number; what JSON calls true is none."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, Decimal) and value.is_finite()
    )


def stream(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Every element of the arrays in the file's object: the array's key, the element's number from 1, the element.

    What stands beside the arrays is skipped. Unreadable, in the midst of it, where the file stops being JSON.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("unreadable", "This is not a regular file.")
        if status.st_size > FILE_LIMIT:
            raise Unreadable("too_large", f"The file has {status.st_size:,} bytes; at most {FILE_LIMIT:,} are read.")
        with path.open("rb") as f:
            yield from _Reader(f).arrays()
    except OSError as e:
        raise Unreadable("unreadable", f"The file cannot be read: {e.strerror or e}.") from e
    except UnicodeDecodeError as e:
        raise Unreadable("bad_encoding", "The file is not UTF-8 text.") from e
    except RecursionError:
        raise Unreadable("bad_json", TOO_DEEP) from None


class _Reader:
    """A window of text that moves through the file, as wide as the element it is at."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._passed, self._ended = "", 0, 0, False

    def arrays(self) -> Iterator[tuple[str, int, Any]]:
        self._take("{")
        while self._next() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._wrong("a name in quotes is needed")
            self._take(":")
            if self._next() == "[":
                yield from ((key, number, element) for number, element in enumerate(self._elements(), 1))
            else:
                self._value()
            self._separate("}")
        self._take("}")
        if self._next():
            raise self._wrong("there is more after its end")

    def _elements(self) -> Iterator[Any]:
        self._take("[")
        while self._next() != "]":
            yield self._value()
            self._separate("]")
        self._take("]")

    def _separate(self, end: str) -> None:
        """Step over the comma that has to stand here unless `end` does."""
        if self._next() != end:
            self._take(",")
            if self._next() == end:
                raise self._wrong("a comma with nothing after it")

    def _take(self, mark: str) -> None:
        if self._next() != mark:
            raise self._wrong(f"{mark!r} is needed")
        self._at += 1

    def _next(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\n\r":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                rest = NUMBER.match(self._text, end)
                assert rest is not None, "it matches the empty text too"
                if rest.end() < len(self._text) or not self._more():
                    self._at = end
                    return value
            except json.JSONDecodeError as e:
                if len(self._text) - self._at > ELEMENT_LIMIT or not self._more():
                    raise self._wrong(e.msg, e.pos) from e
            except (ValueError, ArithmeticError) as e:
                raise self._wrong(f"a number cannot be read: {str(e)[:80]}") from e

    def _more(self) -> bool:
        """Widen the window; False at the end of the file. What has been passed is let go of."""
        if self._ended:
            return False
        self._passed += self._at
        rest = self._text[self._at :]
        data = self._file.read(max(CHUNK, len(rest)))
        self._ended = not data
        self._text, self._at = rest + self._decoder.decode(data, final=self._ended), 0
        return True

    def _wrong(self, message: str, at: int | None = None) -> Unreadable:
        place = self._passed + (self._at if at is None else at) + 1
        return Unreadable("bad_json", f"The file is not valid JSON: {message} (character {place:,}).")
