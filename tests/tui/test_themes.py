"""Shipped themes are readable; themes of people are tried before use, and a broken one only costs itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.app import App
from textual.color import Color

from tui.themes import default_theme, load_themes, read_theme, register, themes_folder

SHIPPED = sorted(themes_folder().glob("*.toml"))
READABLE = 4.5  # WCAG AA for text
VISIBLE = 3.0  # WCAG AA for graphics


def contrast(one: str, other: str) -> float:
    def luminance(text: str) -> float:
        parts = [
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
            for part in Color.parse(text).normalized
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_both_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {"dojang-dark", "dojang-light"}
    assert load_themes()[1] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_text_is_readable_on_every_ground(path: Path) -> None:
    theme = read_theme(path)
    colours = theme.to_color_system().generate()
    grounds = [
        colours[name]
        for name in ("background", "surface", "panel", "block-cursor-background", "block-cursor-blurred-background")
    ]
    texts = ["foreground", "foreground-muted", "text-muted", "accent", "success", "warning", "error"]
    for text in texts:
        for ground in grounds:
            assert contrast(colours[text], ground) >= READABLE, (text, ground)
    for text, ground in (
        ("footer-key-foreground", "footer-background"),
        ("footer-description-foreground", "footer-background"),
    ):
        assert contrast(colours[text], colours[ground]) >= READABLE
    assert contrast(colours["block-cursor-foreground"], colours["block-cursor-background"]) >= READABLE


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_curves_are_visible(path: Path) -> None:
    theme = read_theme(path)
    assert theme.background is not None
    for name in (*(f"chart-{number}" for number in range(1, 7)), "chart-dim"):
        assert contrast(theme.variables[name], theme.background) >= VISIBLE, name
    assert len({theme.variables[f"chart-{number}"] for number in range(1, 7)}) == 6
    assert theme.variables["chart-1"] == theme.accent == theme.primary


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('name = "x"\nprimary = "#12345"', "not a colour"),
        ('name = "x"\nprimary = "nonsense"', "not a colour"),
        ('name = "x"', "primary"),
        ('primary = "#fff"', "name"),
        ('name = "x"\nprimary = "#fff"\ncolour = "#fff"', "not a part of a theme"),
        ('name = "x"\nprimary = 12', "wrong kind"),
        ('name = "x"\nprimary = "#fff"\ndark = "yes"', "wrong kind"),
        ('name = "x"\nprimary = "#fff"\n[variables]\nborder = "blau"', "not a colour"),
        ('name = "x"\nprimary = "#fff"\n[variables]\nborder = 3', "must be a colour"),
        ('name = "x"\nprimary = "#fff"\n[variables]\nborder = "#fff 300"', "percentage"),
        ('name = "x"\nprimary = "#fff"\n[variables]\nborder = "red; } Screen { display: none"', "must be a colour"),
        ('name = "x"\nprimary = "#fff"\n[variables]\nlink-style = "blinking"', "unknown styles"),
        ("name = ", "Invalid value"),
        ("\xff\xfe", "is left out"),
    ],
)
def test_a_broken_file_is_named_and_left_out(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "mine.toml").write_bytes(text.encode("latin-1"))
    themes, messages = load_themes(tmp_path)
    assert {theme.name for theme in themes} == {"dojang-dark", "dojang-light"}
    assert len(messages) == 1 and reason in messages[0] and "mine.toml" in messages[0]


def test_own_theme_replaces_and_folder_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "dojang-dark"\nprimary = "#ff0000"\n', encoding="utf-8")
    themes, messages = load_themes(None, tmp_path / "nowhere", tmp_path)
    assert messages == []
    assert next(theme for theme in themes if theme.name == "dojang-dark").primary == "#ff0000"


async def test_every_theme_can_be_put_on() -> None:
    app: App[None] = App()
    async with app.run_test() as pilot:
        assert register(app) == []
        for name in ("dojang-dark", "dojang-light"):
            app.theme = name
            await pilot.pause()
            assert app.theme_variables["chart-6"]


def test_light_can_be_wished_for() -> None:
    environment = {"TERM": "xterm-256color", "COLORFGBG": "15;0"}
    assert default_theme(light=True, environment=environment) == "dojang-light"
