"""The charts that a training draws itself, from RUN/metrics/*.csv, as the live screen's list of charts wants them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from engine.metrics_files import MetricsFiles, Table
from engine.progress import Progress
from tui import words
from tui.screens.curves import Plot
from tui.widgets.chart import Series

LOOK = 1.0  # seconds between two looks into the folder


class FileCharts:
    """Looks into a version's folder of metrics, from the thread that follows its log, and makes charts of what is there."""

    def __init__(self, folder: Path) -> None:
        self._files, self._looked = MetricsFiles(folder), 0.0

    def look(self) -> bool:
        """Whether there is something new to draw; costs nothing when asked again within a second."""
        now = time.monotonic()
        if self._looked and now - self._looked < LOOK:
            return False
        self._looked = now
        return self._files.look(time.time())

    @property
    def plots(self) -> tuple[Plot, ...]:
        """One chart a file, by name."""
        return tuple(
            Plot(words.clean(t.name), words.clean(t.x), _curves(t), False, words.number, own=True)
            for t in self._files.tables
        )


def _curves(table: Table) -> Callable[[Progress], list[Series]]:
    def pick(_: Progress) -> list[Series]:
        return [Series(words.clean(name), c.xs, c.ys) for name, c in table.curves.items() if len(c)]

    return pick
