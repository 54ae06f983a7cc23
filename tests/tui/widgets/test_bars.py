"""Bars, stages and states: exact widths, no colour needed to read them, and nothing repainted that did not change."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult

from tests.tui.pseudo_terminal import ROOT
from tui.widgets.bars import Bar, Metric, MetricBars, ProgressBars, Stage, StageLine, bar, state_badge, state_sign
from tui.widgets.lines import LineWidget, line_width
from tui.widgets.symbols import SIGNS, STATES, ascii_only

BARS = [Bar("epoch", 12, 50), Bar("step", 41, 128, text="212 img/s"), Bar("검증 데이터")]


class BarsApp(App[None]):
    def compose(self) -> ComposeResult:
        yield StageLine()
        yield ProgressBars(id="rows")
        yield ProgressBars(id="across", across=True)
        yield MetricBars()


def drawn(widget: LineWidget) -> list[str]:
    return [widget.render_line(y).text for y in range(widget.size.height)]


@pytest.mark.parametrize("width", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("share", [None, 0.0, 0.001, 0.25, 0.5, 0.999, 1.0])
def test_a_bar_is_exact_and_full_only_when_done(width: int, share: float | None) -> None:
    pieces = bar(share, width)
    assert line_width(pieces) == width or width == 0
    if width > 1:
        text = "".join(text for text, _ in pieces)
        assert (set(text) == {"━"}) == (share == 1.0)
        assert ("━" in text or "╸" in text) == bool(share)


async def test_rows_at_every_width() -> None:
    app = BarsApp()
    async with app.run_test(size=(80, 24)) as pilot:
        for width in (80, 40, 24, 12, 5):
            await pilot.resize_terminal(width, 24)
            for kind in ("#rows", "#across"):
                app.query_one(kind, ProgressBars).show(BARS)
            app.query_one(MetricBars).show(
                [Metric("mAP50", 0.781, "한 줄 도움말"), Metric("recall", None), Metric("x", math.nan)]
            )
            await pilot.pause()
            for widget in app.query(LineWidget):
                assert {cell_len(text) for text in drawn(widget)} <= {width}
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        rows = drawn(app.query_one("#rows", ProgressBars))
        assert "12/50" in rows[0] and rows[0].rstrip().endswith("24 %") and "212 img/s" in rows[1]
        metrics = drawn(app.query_one(MetricBars))
        assert "0.781" in metrics[0] and "한 줄 도움말" in metrics[0] and "–" in metrics[1] and "–" in metrics[2]


async def test_only_changed_lines_are_repainted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = BarsApp()
    async with app.run_test(size=(80, 24)) as pilot:
        rows = app.query_one("#rows", ProgressBars)
        rows.show(BARS)
        await pilot.pause()
        asked: list[Any] = []
        monkeypatch.setattr(rows, "refresh", lambda *regions, **_: asked.append(regions))
        rows.show(BARS)
        assert asked == []
        rows.show([BARS[0], Bar("step", 42, 128, text="212 img/s"), BARS[2]])
        assert [[region.y for region in regions] for regions in asked] == [[1]]


async def test_stage_line_keeps_the_current_word_longest() -> None:
    app = BarsApp()
    async with app.run_test(size=(80, 24)) as pilot:
        line = app.query_one(StageLine)
        line.show_steps(["server", "preprocessing", "training", "testing", "done"], 2)
        assert drawn(line)[0].rstrip() == "✓ server ── ✓ preprocessing ── ● training ── ○ testing ── ○ done"
        await pilot.resize_terminal(40, 24)
        assert "● training" in drawn(line)[0] and "server" not in drawn(line)[0]
        line.show([Stage("a", "done"), Stage("b", "failed")])
        assert drawn(line)[0].rstrip() == "✓ a ── ✗ b"


def test_every_sign_is_one_cell() -> None:
    for look in STATES.values():
        assert cell_len(look.sign) == cell_len(look.ascii) == 1 and look.ascii.isascii()
    for character, plain in SIGNS.items():
        assert cell_len(character) == cell_len(plain) == 1 and plain.isascii()
    words = {"draft", "queued", "preparing", "training", "testing", "done", "paused", "stopped", "failed", "lost"}
    assert words <= set(STATES)
    assert len({look.ascii for state, look in STATES.items() if state != "preprocessing"}) == len(STATES) - 1


def test_states_are_told_by_sign_and_word() -> None:
    assert state_badge("training").plain == "● training"
    assert state_badge("failed", "실패  no memory").plain == "✗ 실패  no memory"
    assert state_badge("never heard of").plain == "? never heard of"
    assert state_sign("done").plain == "✓"


def test_ascii_when_asked_or_when_the_locale_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOJANG_ASCII", "1")
    assert ascii_only() and state_badge("training").plain == "@ training"
    assert "".join(text for text, _ in bar(0.5, 10)).isascii()
    monkeypatch.setenv("DOJANG_ASCII", "0")
    assert not ascii_only()
    code = "from tui.widgets.symbols import ascii_only; assert ascii_only()"
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)


def test_widgets_import_nothing_heavy() -> None:
    code = (
        "import sys, tui.widgets.chart, tui.widgets.table, tui.widgets.bars, tui.driver, tui.themes\n"
        "assert not {'plotext', 'numpy', 'torch', 'PIL', 'cv2', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
