"""Steering a training from its screens: pause and go on, more epochs, another learning rate."""

from __future__ import annotations

from engine import control
from engine.errors import DojangError
from engine.progress import Progress
from engine.versions import LIVE, Version
from tui.screens.base import Page
from tui.screens.dialogs import Ask

RESTS = ("stopped", "paused", "failed", "lost", "draft")  # from which a training can go on


def pause(page: Page, version: Version) -> None:
    """Ask it to save and leave the machine. No question first: `p` again undoes it."""
    from engine.servers import anywhere

    try:
        anywhere.request(version, "pause")
        page.notify(f"{version.id} will pause after the step it is in. p goes on.", markup=False)
    except DojangError as e:
        page.complain(e)


def go_on(page: Page, version: Version) -> bool:
    """Resume from the last checkpoint; False, with the reason shown, when it cannot be."""
    from engine.servers import anywhere

    try:
        anywhere.resume(version)
    except DojangError as e:
        page.complain(e)
        return False
    return True


async def ask_change(page: Page, version: Version, p: Progress, state: str) -> bool:
    """Ask for other epochs, patience and learning rate; True when there is a change to see."""
    from engine.servers import anywhere

    spec = version.spec()
    now = {
        "epochs": p.epochs_total or spec.epochs,
        "patience": p.changes.get("patience", spec.patience),
        "lr_scale": p.changes.get("lr_scale", 1.0),
    }
    asked = await page.app.push_screen_wait(
        Ask(
            f"Change {version.id}" if state in LIVE else f"Go on with {version.id}",
            [
                ("epochs", f"Epochs in all ({p.epochs_done} are done)", f"{now['epochs']:g}", "a whole number"),
                ("patience", "Patience in epochs, 0 never stops early", f"{now['patience']:g}", "a whole number"),
                ("lr_scale", "Learning rate, times", f"{now['lr_scale']:g}", "0.5 halves it, 1 leaves it"),
            ],
            lambda values: _wrong(values, p.epochs_done),
            ok="Change" if state in LIVE else "Go on",
        )
    )
    if not asked:
        return False
    settings = {name: float(text) for name, text in asked.items() if float(text) != now[name]}
    try:
        if settings:
            anywhere.change(version, **settings)
        if not version.alive() and (state != "done" or settings.get("epochs", 0) > p.epochs_done):
            anywhere.start(version)
    except DojangError as e:
        page.complain(e)
        return False
    page.notify(_told(version, settings), markup=False)
    return True


def _wrong(values: dict[str, str], done: int) -> dict[str, str]:
    found = {name: control.problem(name, text) for name, text in values.items()}
    if not found["epochs"] and float(values["epochs"]) < done:
        found["epochs"] = f"{done} are done already; f finishes it now"
    return {name: text for name, text in found.items() if text}


def _told(version: Version, settings: dict[str, float]) -> str:
    words = {"epochs": "{:g} epochs", "patience": "patience {:g}", "lr_scale": "learning rate × {:g}"}
    return f"{version.id}: " + (", ".join(words[n].format(v) for n, v in settings.items()) or "goes on")
