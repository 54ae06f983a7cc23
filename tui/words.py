"""Numbers and times in the words that every screen and command uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

DASH = "–"


def duration(seconds: float | None) -> str:
    """“0:42”, “12:05”, “1:02:11”, “3d 04h”; a dash when unknown."""
    if seconds is None:
        return DASH
    whole = int(max(0.0, seconds))
    if whole >= 86_400 * 2:
        return f"{whole // 86_400}d {whole % 86_400 // 3600:02}h"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """A rough length of time, as one would say it."""
    if seconds < 90:
        return f"about {max(5, round(seconds / 5) * 5):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes, as disks count them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def metric(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def number(value: float | None) -> str:
    """A loss or a rate, in few characters."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def loss(name: str) -> str:
    """A loss's name where everybody knows that it is one."""
    return name.removesuffix("_loss")


def setting(value: Any) -> str:
    """A setting's value as a person would write it."""
    if value is None or value == "":
        return "auto"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def when(text: str) -> str:
    """An ISO time in this machine's own zone, to the minute; today's without the date."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return text
    return f"{moment:%H:%M}" if moment.date() == datetime.now().astimezone().date() else f"{moment:%Y-%m-%d %H:%M}"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", " ")


def state(row: Mapping[str, Any]) -> str:
    """A version's state with its share, or its reason, where that helps."""
    word = str(row["state"])
    if word == "training":
        return f"training {row['fraction'] * 100:.0f} %"
    if word == "queued" and row.get("waiting"):
        waits = row["waiting"]
        place = f"no. {waits['ahead'] + 1}" if waits["ahead"] else "next"
        return f"queued, {'held' if waits['held'] else place}"
    if word == "failed" and row.get("error"):
        return f"failed: {row['error']['code'].lower().replace('_', ' ')}"
    return word


STALE = 60.0  # seconds after which it is said when a server was last heard of


def as_of(row: Mapping[str, Any]) -> str:
    """“, as of 12:04” for a version that runs on a server which was not heard of lately; else empty."""
    heard = row.get("as_of")
    if not heard or time.time() - heard < STALE:
        return ""
    when = datetime.fromtimestamp(heard)
    return f", as of {when:%H:%M}" if time.time() - heard < 43_200 else f", as of {when:%Y-%m-%d %H:%M}"


def clean(text: str) -> str:
    """Text from outside, fit for a terminal: no control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
