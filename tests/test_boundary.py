"""The screens and the light half of the engine never load what only the worker needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "ultralytics", "effdet", "timm", "cv2", "numpy", "PIL")
SCREENS = sorted(f"tui.screens.{p.stem}" for p in (ROOT / "tui" / "screens").glob("*.py") if p.stem != "__init__")
WIDGETS = sorted(f"tui.widgets.{p.stem}" for p in (ROOT / "tui" / "widgets").glob("*.py") if p.stem != "__init__")


LIGHT = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "engine").rglob("*.py")
    if "training" not in p.parts and p.stem != "__main__"
)
UNPLUGGED = """
import sys
def hook(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(hook)
"""


def loaded(code: str) -> set[str]:
    """Top names of what is loaded after `code` ran in a fresh process that may not open a socket."""
    script = f"{UNPLUGGED}\n{code}\nimport sys; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_light_half_of_the_engine_loads_nothing_heavy() -> None:
    assert "engine.servers.local" in LIGHT and "engine.datasets" in LIGHT
    assert not loaded("import " + ", ".join(LIGHT)) & {*HEAVY, "textual", "tui"}


def test_the_supervisor_and_the_inventory_need_the_standard_library_only() -> None:
    assert not loaded("import engine.servers.supervisor, engine.servers.inventory") & {"pydantic", "platformdirs"}


def test_no_screen_loads_torch() -> None:
    modules = ["tui.app", "tui.commands", "tui.demo", "tui.start", *SCREENS, *WIDGETS]
    assert not loaded("import " + ", ".join(modules)) & set(HEAVY)


def test_the_first_frame_waits_for_nothing_it_does_not_show() -> None:
    """pydantic is the form's; plotext the first chart's."""
    assert not loaded("import tui.cli, tui.start, tui.app, tui.screens.versions") & {"pydantic", "plotext", *HEAVY}


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["models"], ["schema"], ["server", "--json"], ["dataset", "list"], ["trash"], ["project", "list"]],
)
def test_no_command_but_the_training_loads_torch(arguments: list[str], tmp_path: Path) -> None:
    given = [*arguments, "--workspace", str(tmp_path)]
    assert not loaded(f"from tui.cli import main\nassert main({given!r}) == 0") & set(HEAVY)


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def test_arrows_point_one_way() -> None:
    for path in (ROOT / "engine").rglob("*.py"):
        assert not any(m == "tui" or m.startswith("tui.") for m in imports(path)), path
    for path in (ROOT / "tui").rglob("*.py"):
        assert not any(m.startswith("engine.training") for m in imports(path)), path
    for path in (ROOT / "engine").rglob("*.py"):
        if "training" not in path.parts and path.name != "worker.py":
            assert not any(m.startswith("engine.training") for m in imports(path)), path
