"""What a network does to a link: a TCP proxy that delays, slows down, freezes, cuts and resets; and agents behind TCP."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from engine.servers.link_errors import LinkError, LinkLost, Unreachable
from engine.servers.transport import BOOT_CODE, Stage

RESET = b"\1\0\0\0\0\0\0\0"  # linger on, for no time: closing sends RST


def pair(port: int) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), 5)
    found.settimeout(None)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


class Proxy:
    """`delay` (s, one way), `rate` (bytes/s each way), `refuse`; `drop`, `freeze`, `thaw`, `cut_after`."""

    def __init__(self, target: int, delay: float = 0.0, rate: float = 0.0) -> None:
        self.target, self.delay, self.rate = target, delay, rate
        self.refuse = self.closed = False
        self.connections = 0
        self.moved = {True: 0, False: 0}  # bytes, up and down
        self._left: dict[bool, int] = {}
        self._frozen = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Reset every connection."""
        with self._guard:
            found, self._sockets = self._sockets, set()
        for each in found:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                each.close()

    def cut_after(self, size: int, up: bool = True) -> None:
        """Reset them once `size` more bytes went up to the server, or down from it."""
        self._left[up] = size

    def freeze(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._frozen.set()

    def thaw(self) -> None:
        self._frozen.clear()

    def close(self) -> None:
        self.closed = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._frozen.clear()
        self.drop()

    def _accept(self) -> None:
        while not self.closed:
            try:
                a, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse or self.closed:
                a.close()
                continue
            try:
                b = pair(self.target)
            except OSError:
                a.close()
                continue
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._guard:
                self._sockets |= {a, b}
            for source, sink, up in ((a, b, True), (b, a, False)):
                waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(256)
                threading.Thread(target=self._take, args=(source, waiting, up), daemon=True).start()
                threading.Thread(target=self._give, args=(sink, waiting), daemon=True).start()

    def _take(self, source: socket.socket, waiting: queue.Queue[tuple[float, bytes]], up: bool) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            while self._frozen.is_set() and not self.closed:
                time.sleep(0.005)
            self.moved[up] += len(data)
            if up in self._left and data:
                self._left[up] -= len(data)
                if self._left[up] <= 0:
                    del self._left[up]
                    self.drop()
                    data = b""
            waiting.put((time.monotonic() + self.delay, data))

    def _give(self, sink: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if self.rate and data:
                time.sleep(len(data) / self.rate)
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                data = b""
            if not data:
                while waiting.get()[1]:  # let the other half go on to its end
                    pass
                return

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Agents:
    """A TCP port at which every connection gets an agent of its own: an ssh that takes no time to log in."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        command = [sys.executable, "-I", "-u", "-X", "utf8", "-c", BOOT_CODE]
        while True:
            try:
                found, _ = self._server.accept()
            except OSError:
                return
            with found:
                self.children.append(
                    subprocess.Popen(
                        command, stdin=found, stdout=found, stderr=subprocess.DEVNULL, start_new_session=True
                    )
                )

    def living(self) -> list[int]:
        return [c.pid for c in self.children if c.poll() is None]

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for child in self.children:
            child.kill()
            child.wait()

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire:
    """A transport over TCP, to `Agents`."""

    complaints = -1
    asking = False

    def __init__(self, port: int) -> None:
        try:
            found = pair(port)
        except OSError as e:
            raise Unreachable(str(e)) from e
        self.reader, self.writer = os.dup(found.fileno()), found.detach()
        os.set_blocking(self.reader, False)
        self._closed = False

    def complained(self, data: bytes) -> None:
        raise AssertionError("it has no complaints")

    def failure(self, stage: Stage) -> LinkError:
        return LinkLost()

    def close(self, patience: float = 0.0) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.reader)
            os.close(self.writer)
