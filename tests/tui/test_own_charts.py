"""The charts that a training draws itself, on its live screen."""

from __future__ import annotations

from engine.versions import Workspace
from tests.tui import made
from tests.tui.conftest import Open
from tui.screens.version import VersionScreen


async def test_a_csv_of_its_own_is_a_chart_that_grows(workspace: Workspace, opened: Open) -> None:
    version = made.version(workspace, made.training(epochs=4, per_epoch=10, until=15))
    folder = version.path / "metrics"
    with made.held(version):
        async with opened(workspace, open_version=version.reference) as person:
            await person.sees("step 5/10")
            screen = person.app.screen
            assert isinstance(screen, VersionScreen)
            known = len(screen.curves.plots(screen.progress))
            folder.mkdir()
            (folder / "distance [b]x.csv").write_text("epoch,ants\x1b[31m,bees\n1,0.5,0.25\n2,0.25,nan\n")
            await person.until(lambda: len(screen.curves.plots(screen.progress)) == known + 1)
            await person.press("z")  # one chart at a time
            for _ in range(known):
                await person.press("g")
            await person.sees("distance [b]x", "ants", "bees")
            with (folder / "distance [b]x.csv").open("a") as file:
                file.write("3,0.125,0.5\n")
            await person.until(lambda: lengths(screen) == [3, 3])
            await person.press("g")
            await person.sees("loss")


def lengths(screen: VersionScreen) -> list[int]:
    """How long the curves of the last chart are now: each look makes new ones."""
    return [len(s.xs) for s in screen.curves.plots(screen.progress)[-1].series(screen.progress)]
