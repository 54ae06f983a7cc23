"""Fetching pretrained weights: a real HTTP server on the loopback, with the ways in which one fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine import catalog, weights
from engine.errors import DojangError
from engine.versions import Workspace
from tests.training.conftest import Create, ending, of_kind, train

MODEL = catalog.find("yolov8n")
FILE = b"PK\x03\x04" + bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves FILE under the model's name. `cut` breaks the connection off after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut: int | None = None
        self.whole_only = False
        self.content = FILE

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if not self.path.endswith(f"/{MODEL.pretrained}"):
            return self.send_error(404)
        data, begin = self.server.content, 0
        if wanted and not self.server.whole_only:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                return self.send_error(416)
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : self.server.cut])
        return None


@pytest.fixture
def server(monkeypatch: Any) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("DOJANG_WEIGHTS_URL", f"{server.url}/v1/")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: Any) -> Workspace:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Workspace(tmp_path / "workspace").ensure()


def go_on(_done: int, _total: int) -> bool:
    return True


def test_fetched_whole_with_its_size(server: Server, place: Workspace) -> None:
    seen: list[tuple[int, int]] = []
    path = weights.fetch(MODEL, place, lambda done, total: bool(seen.append((done, total))) or True)
    assert path == place.weights / "yolov8n.pt" and path.read_bytes() == FILE
    assert seen[-1] == (len(FILE), len(FILE)) and len(seen) > 2
    assert weights.find(MODEL, place) == path
    assert [p.name for p in place.weights.iterdir()] == ["yolov8n.pt"]


def test_goes_on_where_it_broke_off(server: Server, place: Workspace) -> None:
    server.cut = 300_000
    with pytest.raises(DojangError) as caught:
        weights.fetch(MODEL, place, go_on)
    assert caught.value.code == "MISSING_WEIGHTS" and "300,000" in caught.value.message
    assert weights.find(MODEL, place) is None
    server.cut = None
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE
    assert server.ranges == [None, "bytes=300000-"]


def test_a_server_that_only_sends_it_whole(server: Server, place: Workspace) -> None:
    (place.weights / "yolov8n.pt.part").write_bytes(b"something older")
    server.whole_only = True
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE


def test_a_part_that_is_too_long_is_begun_anew(server: Server, place: Workspace) -> None:
    (place.weights / "yolov8n.pt.part").write_bytes(FILE + b"more")
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE


def test_cancelled_and_gone_on_with(server: Server, place: Workspace) -> None:
    assert weights.fetch(MODEL, place, lambda done, _: done < 500_000) is None
    kept = (place.weights / "yolov8n.pt.part").stat().st_size
    assert 0 < kept < len(FILE) and weights.find(MODEL, place) is None
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE and server.ranges[-1] == f"bytes={kept}-"


@pytest.mark.parametrize("url", ["{}/404/nothing/?", "http://127.0.0.1:9", "https://127.0.0.1:9", "file:///etc"])
def test_it_says_what_failed_and_what_to_do(server: Server, place: Workspace, monkeypatch: Any, url: str) -> None:
    monkeypatch.setenv("DOJANG_WEIGHTS_URL", url.format(server.url))
    with pytest.raises(DojangError) as caught:
        weights.fetch(catalog.find("yolov5s"), place, go_on)
    error = caught.value
    assert error.code == "MISSING_WEIGHTS"
    assert "yolov5su.pt" in error.hint and str(place.weights) in error.hint and "scratch" in error.hint
    assert "404" in error.message or "could not be reached" in error.message


def test_a_page_that_says_sorry_is_no_model(server: Server, place: Workspace) -> None:
    server.content = b"<html>" + b"sorry " * 50_000
    with pytest.raises(DojangError, match="not a file of weights"):
        weights.fetch(MODEL, place, go_on)
    assert not list(place.weights.iterdir())


def test_found_in_the_libraries_own_folders(place: Workspace, tmp_path: Path) -> None:
    assert weights.find(MODEL, place) is None
    hub = tmp_path / "home" / ".cache" / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "yolov8n.pt").write_bytes(b"cut short")
    assert weights.find(MODEL, place) is None
    (hub / "yolov8n.pt").write_bytes(FILE)
    assert weights.find(MODEL, place) == hub / "yolov8n.pt"
    own = tmp_path / "models"
    own.mkdir()
    (own / "yolov8n.pt").write_bytes(FILE)
    settings = tmp_path / "home" / ".config" / "Ultralytics"
    settings.mkdir(parents=True)
    (settings / "settings.json").write_text(f'{{"weights_dir": "{own}"}}')
    assert weights.find(MODEL, place) == own / "yolov8n.pt"


def test_no_torch_is_needed() -> None:
    import subprocess
    import sys

    code = "import engine.weights, sys; assert not {'torch', 'ultralytics', 'numpy', 'requests'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_training_that_may_download_does(server: Server, create: Create, monkeypatch: Any, tmp_path: Path) -> None:
    from ultralytics.nn.tasks import DetectionModel

    from engine.training.kernels import ultralytics_weights

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = tmp_path / "made.pt"
    ultralytics_weights.write(DetectionModel("yolov8n.yaml", nc=80, verbose=False), made, {})
    server.content = made.read_bytes()
    version = create(weights="pretrained", download=True, epochs=1)
    events = train(version)
    assert ending(events) == "done"
    assert of_kind(events, "plan")[0]["weights"] == "yolov8n.pt: 349 of 355 tensors"
    bar = [e for e in of_kind(events, "progress") if e["what"] == "preparing"]
    assert bar[-1]["done"] == bar[-1]["total"] == len(server.content)
    assert server.url in of_kind(events, "log")[0]["text"]
