"""Installed packages that bring families of models: found when asked for, checked, and never able to break dojang."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import catalog, plugins
from engine.errors import NotFound
from engine.spec import parse, problems
from engine.versions import Workspace
from tui.cli import main

ROOT = Path(__file__).parents[1]
GOOD = """
from engine.catalog import Model

print("hello from a package")


class Kernel:
    options = {"properties": {"depth": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}}}
    defaults = {"nominal_batch_size": 8, "box_loss": 7.5, "class_loss": 0.5}

    def models(self):
        return [Model("tiny-yolo", "Tiny", "", "detect", 64, 2.6, "yolov5n.yaml", "", ""),
                Model("yolov8n", "Clash", "", "detect", 64, 1.0, "", "", "")]

    def open_session(self, spec, material, precision, scratch, weights, structure):
        from engine.training.kernels.ultralytics import Detector

        assert spec.options["depth"] == 5
        return Detector(spec, material, precision, scratch, weights, structure)


kernel = Kernel()
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of one module with an entry point, as a wheel would lie on the path."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(plugins, "_workspace", None)
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(module: str, text: str, kernel: str = "", target: str = "kernel") -> Path:
        (site / f"{module}.py").write_text(text)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{kernel or module} = {module}:{target}\n")
        importlib.invalidate_caches()
        plugins.forget()
        return site

    yield make
    plugins.forget()
    for name in ("goodkernel", "badkernel", "other"):
        sys.modules.pop(name, None)


def test_a_package_brings_models_and_settings(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("goodkernel", GOOD, "good")
    model = catalog.find("Tiny-YOLO")
    assert model.kernel == "good" and "tiny-yolo" in catalog.models()
    assert catalog.find("yolov8n").kernel == "ultralytics" and "yolov8n" in plugins.troubles()["good"]
    out = capsys.readouterr()
    assert out.out == "" and "hello from a package" in out.err
    spec = parse({"dataset": "d", "model": "tiny-yolo"})
    assert spec.options == {"depth": 3} and spec.image_size == 64 and spec.settled("nominal_batch_size") == 8
    (problem,) = problems({"dataset": "d", "model": "tiny-yolo", "options": {"depth": 12}})
    assert problem.field == "options" and "1 – 9" in problem.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("import no_such_module", "no_such_module"),
        ("kernel = 5", "open_session"),
        ("class K:\n def open_session(self): ...\n def models(self): return [1]\nkernel = K()", "engine.catalog.Model"),
        ("class K:\n def open_session(self): ...\n def models(self): 1/0\nkernel = K()", "ZeroDivisionError"),
        (GOOD.replace('"detect", 64, 2.6', '"dream", 64, 2.6'), "task"),
        (GOOD.replace('"maximum": 9', '"pattern": "x"'), "'pattern' is not understood"),
        (GOOD.replace("Tiny", "Tiny", 1).replace("tiny-yolo", "Tiny Yolo"), "cannot name a model"),
    ],
)
def test_a_broken_one_costs_its_models_and_a_line(
    install: Install, text: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install("badkernel", text, "bad")
    install("goodkernel", GOOD, "good")
    assert says in plugins.troubles()["bad"] and "tiny-yolo" in catalog.models()
    assert main(["models", "--json", "--workspace", str(tmp_path)]) == 0
    out = capsys.readouterr()
    assert any(m["name"] == "tiny-yolo" for m in json.loads(out.out)) and "bad:" in out.err
    assert main(["kernel", "list", "--json", "--workspace", str(tmp_path)]) == 0
    rows = {r["kernel"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["bad"]["state"] == "broken" and rows["good"]["state"] == "ready"
    assert main(["kernel", "check", "--workspace", str(tmp_path)]) == 1


def test_names_of_dojangs_own_are_refused(install: Install) -> None:
    install("goodkernel", GOOD, "effdet")
    assert "effdet" in plugins.troubles() and "tiny-yolo" not in catalog.models()
    with pytest.raises(NotFound):
        catalog.find("tiny-yolo")


def test_nothing_is_looked_for_until_it_is_needed(install: Install) -> None:
    site = install("badkernel", "import sys; sys.stderr.write('loaded')", "bad")
    script = "import sys, engine.catalog, engine.plugins\nengine.catalog.find('yolov8n')\n"
    script += "from engine.spec import parse; parse({'dataset': 'd', 'epochs': 3})\nprint('before')\n"
    script += "engine.catalog.models()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{script}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "before\n" and "loaded" in done.stderr
    bare = script.partition("from engine.spec")[0] + "assert 'importlib.metadata' not in sys.modules"
    subprocess.run([sys.executable, "-c", bare], cwd=ROOT, check=True, timeout=60)


@pytest.mark.slow
def test_it_trains_through_the_one_loop(
    install: Install, workspace: Workspace, shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import launch
    from engine.events import read_all
    from engine.servers import local
    from engine.spec import parse_label

    monkeypatch.setenv("PYTHONPATH", str(install("goodkernel", GOOD, "good")))
    data = {"dataset": shapes, "model": "tiny-yolo", "epochs": 2, "batch_size": 4, "device": "cpu", "threads": 1}
    version = launch.create(workspace, {**data, "options": {"depth": 5}}, parse_label({}))
    local.start(version)
    assert local.wait(version, 200) == "done", version.train_log.read_text()[-3000:]
    events = read_all(version.events)
    assert len([e for e in events if e["kind"] == "epoch"]) == 2 and events[-1]["state"] == "done"
