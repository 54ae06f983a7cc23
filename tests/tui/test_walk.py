"""The whole way in a real terminal, by keys alone: from an empty workspace to a finished training, through a crash."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import demo
from engine.events import read_all
from engine.versions import Version, Workspace
from tests.tui.pseudo_terminal import PseudoTerminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
ENTER, ESC, TAB, DOWN, CTRL_N, CTRL_U = "\r", "\x1b", "\t", "\x1b[B", "\x0e", "\x15"


class Sitting:
    """A person at a terminal in which `dojang` runs."""

    def __init__(self, workspace: Path) -> None:
        self.terminal = PseudoTerminal(
            "-m",
            "tui.cli",
            columns=120,
            rows=40,
            DOJANG_WORKSPACE=str(workspace),
            DOJANG_ASCII="0",
            COLUMNS="120",
            LINES="40",
        )

    @property
    def text(self) -> str:
        return "\n".join(self.terminal.text())

    def until(self, true: Callable[[], object], limit: float) -> None:
        end = time.monotonic() + limit
        while not true():
            assert time.monotonic() < end and not self.terminal.closed, f"it did not come; on the screen:\n{self.text}"
            self.terminal.pump(0.3, quiet=0.05)

    def sees(self, *patterns: str, limit: float = 60) -> None:
        self.until(lambda: all(re.search(p, self.text) for p in patterns), limit)

    def press(self, keys: str) -> None:
        self.terminal.type(keys)
        self.terminal.pump(1.0)

    def fill(self, title: str, value: str) -> None:
        """Down the form to the field that the side explains under this title, and a value into it."""
        for _ in range(40):
            if re.search(rf"▏ {title} *$", self.text, re.MULTILINE):
                break
            self.press(DOWN)
        self.press(CTRL_U)
        self.press(value)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A workspace's path; whatever trains in it when the test ends is stopped."""
    yield tmp_path / "workspace"
    for version in Workspace(tmp_path / "workspace").project("default").versions():
        while version.alive():
            os.kill(int(read_all(version.events)[0]["pid"]), signal.SIGKILL)
            time.sleep(0.2)


def steps(version: Version) -> list[int]:
    """Every step that the log tells of; an event may stand for several."""
    told = [e for e in read_all(version.events) if e["kind"] == "step"]
    return [e["step"] - i for e in told for i in reversed(range(e["n"]))]


def test_from_nothing_to_a_finished_version_though_the_app_is_killed(tmp_path: Path, place: Path) -> None:
    demo.draw(tmp_path / "pictures", images=24, size=64)
    version = Version(Workspace(place).project("default"), "V_0")

    first = Sitting(place)
    first.sees("No version yet", "n +train the first one")
    first.press("n")
    first.sees("No data set yet", "Cannot continue: choose a data set")
    first.press("a")
    first.sees("Add a data set")
    first.press(f"{tmp_path}/pic" + TAB)
    first.sees("/pictures/")
    first.press(ENTER)
    first.sees(r"pictures +detect +24", "enter chooses a data set")
    first.press(ENTER)
    first.sees("● Settings", "Epochs")
    first.fill("Epochs", "4")
    first.fill("Batch size", "8")
    first.fill("Image size", "64")
    first.sees("● changed")
    first.press(CTRL_N)
    first.sees("● Server", "this machine, auto")
    first.press(ENTER)
    first.sees("● Confirm", "nothing has been written or started yet", "The same as a command")
    assert not version.path.exists()
    first.press(ENTER)
    first.sees("Train yolov8n on “pictures” for 4 epochs")
    first.press("y")
    first.sees("V_0", "preparing server")

    first.until(lambda: steps(version), 60)
    os.kill(first.terminal.pid, signal.SIGKILL)
    first.terminal.close()  # and the terminal is gone with it
    assert version.alive()

    second = Sitting(place)
    second.sees("1 running", "V_0")
    second.press(ENTER)
    second.sees("train loss", "epoch [1-4]/4")
    second.sees("✓ done", limit=150)
    assert steps(version) == list(range(1, 13)), version.events.read_text()
    if "val, by class" not in second.text:  # it ended before our eyes: the curves stay, Tab leads on
        second.press(TAB)
    second.sees("val, by class", "weights, best on val", "started from random weights")
    second.press(TAB)
    second.sees("row: what it is, column: taken for")
    second.press(TAB)
    second.sees("locked: what this version was trained with")
    second.press(ESC)
    second.sees("✓ 1 done", r"V_0 +✓ done +\d\.\d{3}")
    second.press("q")
    assert second.terminal.ended() == 0
    second.terminal.close()
    assert version.best_weights.exists() and not version.alive()
