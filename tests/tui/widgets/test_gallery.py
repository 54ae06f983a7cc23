"""Everything at once, in every theme and size, with the keys a person would try."""

from __future__ import annotations

import pytest

from tests.tui.gallery import Gallery
from tui.widgets.chart import Chart
from tui.widgets.table import Table


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
@pytest.mark.parametrize("theme", ["dojang-dark", "ansi-light"])
async def test_gallery(size: tuple[int, int], theme: str) -> None:
    app = Gallery(theme, moving=False)
    async with app.run_test(size=size) as pilot:
        assert app.problems == []
        await pilot.press("down", "space", "end", "l", "s", "m", "m", "t", "tab", "m", "home")
        for _ in range(4):
            app.tick()
            await pilot.pause()
        assert app.query_one(Table).marked == {"1"}
        assert app.query_one("#loss", Chart).log_scale


async def test_gallery_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOJANG_ASCII", "1")
    app = Gallery("ansi-dark", moving=False)
    async with app.run_test(size=(100, 30)):
        for chart in app.query(Chart):
            text = "".join(chart.render_line(y).text for y in range(chart.size.height))
            assert text.isascii()
