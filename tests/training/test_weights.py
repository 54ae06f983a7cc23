"""Fetching pretrained weights: a real HTTP server on the loopback, with the ways in which one fails."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
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
    """Serves FILE under the names of `files`. `cut` breaks the connection off after so many bytes.

    As a proxy it answers for every address, and refuses tunnels.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut: int | None = None
        self.whole_only = False
        self.content = FILE
        self.files = {MODEL.pretrained}
        self.etag = ""
        self.range_text = ""  # what it says that it sends, where that is not what was asked for
        self.asked: list[str] = []  # addresses

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(403, "no tunnels here")

    def do_HEAD(self) -> None:
        known = self.path.rpartition("/")[2] in self.server.files
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        self.server.asked.append(self.path)
        if self.path.rpartition("/")[2] not in self.server.files:
            return self.send_error(404)
        data, begin = self.server.content, 0
        changed = self.headers.get("If-Range", self.server.etag) != self.server.etag
        if wanted and not self.server.whole_only and not changed:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", self.server.range_text or f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
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
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
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
    assert sorted(p.name for p in place.weights.iterdir()) == ["yolov8n.pt", "yolov8n.pt.json"]
    note = weights.noted(path)
    assert note["sha256"] == hashlib.sha256(FILE).hexdigest() and note["size"] == len(FILE)
    assert note["from"] == f"{server.url}/v1/yolov8n.pt"


def with_digest(content: bytes) -> catalog.Model:
    """A model whose file's name carries the digest of `content`, as those of torchvision and effdet do."""
    return replace(MODEL, name="tiny", pretrained=f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth")


def test_the_digest_in_a_name_is_held_to(server: Server, place: Workspace) -> None:
    good, bad = with_digest(FILE), with_digest(b"another")
    server.files = {good.pretrained, bad.pretrained}
    path = weights.fetch(good, place, go_on)
    assert path == place.weights / good.pretrained
    with pytest.raises(DojangError, match="SHA-256") as caught:
        weights.fetch(bad, place, go_on)
    assert caught.value.code == "MISSING_WEIGHTS" and weights.find(bad, place) is None
    assert not list(place.weights.glob("*.part*"))


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, place: Workspace) -> None:
    server.cut, server.etag = 300_000, '"one"'
    with pytest.raises(DojangError):
        weights.fetch(MODEL, place, go_on)
    server.cut, server.etag, server.content = None, '"two"', FILE[:-4] + b"new!"
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=300000-"]


def test_another_part_than_was_asked_for_is_not_put_behind(server: Server, place: Workspace) -> None:
    (place.weights / "yolov8n.pt.part").write_bytes(FILE[:1000])
    server.range_text = "bytes 500-999/1000"
    with pytest.raises(DojangError, match="1,000 was asked for"):
        weights.fetch(MODEL, place, go_on)
    server.range_text = ""
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE


def test_a_model_without_public_weights(place: Workspace) -> None:
    for model in (replace(MODEL, kernel="theirs"), replace(MODEL, pretrained="")):
        assert weights.find(model, place) is None
        with pytest.raises(DojangError, match="no public weights"):
            weights.fetch(model, place, go_on)


def test_the_size_is_asked_for(server: Server, place: Workspace, monkeypatch: Any) -> None:
    assert weights.size(MODEL) == len(FILE)
    assert weights.size(catalog.find("yolov8s")) is None
    monkeypatch.setenv("DOJANG_WEIGHTS_URL", "file:///etc")
    assert weights.size(MODEL) is None


def test_a_proxy_is_gone_through_and_named(server: Server, place: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setenv("DOJANG_WEIGHTS_URL", "http://weights.invalid/v1")
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{server.server_port}")
    path = weights.fetch(MODEL, place, go_on)
    assert path and path.read_bytes() == FILE
    assert server.asked == ["http://weights.invalid/v1/yolov8n.pt"]

    monkeypatch.setenv("DOJANG_WEIGHTS_URL", "https://weights.invalid/v1")
    monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{server.server_port}")
    with pytest.raises(DojangError) as caught:
        weights.fetch(catalog.find("yolov8s"), place, go_on)
    assert server.asked[-1] == "weights.invalid:443"
    said = caught.value.message
    assert "no tunnels here" in said and f"through the proxy http://127.0.0.1:{server.server_port}" in said
    assert "secret" not in said and "yolov8s.pt" in caught.value.hint


def test_what_a_spec_names_is_found(place: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    from engine.spec import parse, parse_label

    version = place.project("default", create=True).create(
        parse({"dataset": "d", "model": "yolov8n"}), parse_label({"name": "mine"})
    )
    with pytest.raises(DojangError, match="no weights yet"):
        weights.resolve("V_0", place)
    version.best_weights.parent.mkdir(parents=True, exist_ok=True)
    version.best_weights.write_bytes(FILE)
    for name in ("V_0", "v_0", "default/V_0", "mine"):
        assert weights.resolve(name, place, MODEL) == version.best_weights
    with pytest.raises(DojangError, match="nothing of it fits efficientdet_d0"):
        weights.resolve("V_0", place, catalog.find("efficientdet_d0"))

    (place.weights / "taken.pt").write_bytes(FILE)
    assert weights.resolve("taken.pt", place) == place.weights / "taken.pt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.pt").write_bytes(FILE)
    assert weights.resolve("taken.pt", place) == tmp_path / "taken.pt"  # a file at hand comes first
    for missing in ("V_7", "other/V_0", "/nowhere/mine", "./mine", "~nobody/mine", "a/b/mine", "no.pt"):
        found = weights.resolve(missing, place)
        assert found.is_absolute() and not found.is_file()


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
