"""A link to the agent on a server: many calls at once over one connection that is made anew whenever it breaks."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import secrets
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.servers import agent
from engine.servers.link_errors import (
    Closed,
    Denied,
    HostKeyChanged,
    HostKeyUnknown,
    LinkError,
    LinkLost,
    NeedsInteraction,
    NoBanner,
    ProtocolMismatch,
    Timeout,
    from_agent,
)
from engine.servers.transport import Frame, Frames, Pipe, Stage, Transport, greeting, local, packed

StateName = Literal["up", "connecting", "reconnecting", "down"]
STATES: tuple[StateName, ...] = ("up", "connecting", "reconnecting", "down")
ONCE = frozenset({"run"})  # never repeated by itself: everything else may be done twice without harm
FOR_A_PERSON = (Denied, HostKeyChanged, HostKeyUnknown, NeedsInteraction)
READ = 1 << 18  # bytes read at once
SMALLEST_WINDOW, FIRST_WINDOW, LARGEST_WINDOW = 256 << 10, 1 << 20, 32 << 20
MANY = 512  # requests of a stream under way at once


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. `pauses`: before each attempt after a failed one, the last for ever; `every`: between two signs of life;
    `frozen`: without any, the link is given up; `greeting`: for logging in and the agent's first answer."""

    pauses: tuple[float, ...] = (1, 2, 4, 8, 16, 30)
    every: float = 4.0
    frozen: float = 12.0
    greeting: float = 25.0


@dataclass(frozen=True, slots=True)
class LinkState:
    """`since`: seconds since the Unix epoch; `error`: what went wrong last, None when up; `round_trip` in ms."""

    name: StateName
    since: float
    error: LinkError | None = None
    round_trip: float | None = None


class Untold(ProtocolMismatch, KeyError):
    """Something that belongs to every answer of its kind is missing in this one."""


class Reply(Mapping[str, Any]):
    """What an operation answered: its values by name, and `body`, raw bytes."""

    __slots__ = ("body", "values_")

    def __init__(self, values: Mapping[str, Any], body: bytes = b"") -> None:
        self.values_, self.body = values, body

    def __getitem__(self, name: str) -> Any:
        """Raises ProtocolMismatch for what the agent did not tell."""
        try:
            return self.values_[name]
        except KeyError as e:
            raise Untold(f"its answer does not tell {name}") from e

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __repr__(self) -> str:
        return f"Reply({dict(self.values_)!r}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a stream."""

    op: str
    arguments: Mapping[str, Any]
    body: bytes = b""


class _Call:
    """A call under way. Whoever made it takes parts, and at last a Reply or LinkError, from `came`."""

    __slots__ = ("began", "body", "came", "head", "most", "number", "once", "size")

    def __init__(self, number: int, request: Request) -> None:
        arguments = dict(request.arguments)
        if request.op == "cancel":
            arguments["token"] = secrets.token_hex(8)  # repeated, it is still one
        self.number, self.body, self.once = number, request.body, request.op in ONCE
        self.head = packed({"id": number, "op": request.op, "arguments": arguments}, request.body)
        self.size = len(self.head) + len(self.body)
        self.most = largest_answer(request.op, arguments)
        self.began = time.monotonic()
        self.came: queue.SimpleQueue[bytes | Reply | LinkError] = queue.SimpleQueue()


class Link:
    """Calls to one agent, from any thread. Connects by itself from the start on, and again after every loss, for ever;
    what only a person can mend (a changed key, a refused login) puts it down until `retry`."""

    def __init__(
        self, open: Callable[[], Transport], *, root: str = "", name: str = "", pace: Pace | None = None
    ) -> None:
        self.name, self._open, self._root, self._pace = name, open, root, pace or Pace()
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._small: deque[_Call] = deque()  # go before what is large
        self._large: deque[_Call] = deque()
        self._flying: dict[int, _Call] = {}
        self._listeners: list[Callable[[LinkState], None]] = []
        self._closing = self._retry = self._was_up = False
        self._resting = False  # never up so far, and the next attempt is not due yet
        self._facts: dict[str, Any] = {}
        self._pulse = 0.0  # when the agent last said that something long is arriving
        self._state = LinkState("connecting", time.time())
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)
        self._thread = threading.Thread(target=self._work, name=f"link {name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def round_trip(self) -> float | None:
        """ms there and back, as last seen."""
        return self._state.round_trip

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the agent said of itself when it answered first, this connection; see its hello."""
        return self._facts

    def call(
        self,
        op: str,
        *,
        body: bytes = b"",
        timeout: float = 30.0,
        on_part: Callable[[bytes], object] | None = None,
        **arguments: Any,
    ) -> Reply:
        """Have the agent do `op`, waiting for the link if it is away, `timeout` seconds in all.

        Repeated by itself after a loss, save `run`. `on_part` gets what a `run` prints. Raises LinkError: Timeout and
        LinkLost leave the outcome unknown.
        """
        call = self._enter(Request(op, arguments, body))
        end = time.monotonic() + timeout
        try:
            while True:
                try:
                    came = call.came.get(timeout=max(0.0, end - time.monotonic()))
                except queue.Empty:
                    raise self._late(op, timeout) from None
                if not isinstance(came, bytes):
                    return _answer(came)
                if on_part:
                    on_part(came)
        finally:
            self._forget(call)

    def stream(self, requests: Iterable[Request], *, timeout: float = 60.0) -> Iterator[Reply]:
        """Many calls without waiting for each; their replies in order. `timeout` is between two replies.

        A long request that is still arriving has all the time it takes. As much is under way as the link takes away in
        about a second, so that other calls are not kept waiting.
        """
        flying: deque[_Call] = deque()
        window, bytes_flying = float(FIRST_WINDOW), 0
        source = iter(requests)
        more = True
        try:
            while more or flying:
                while more and len(flying) < MANY and (not flying or bytes_flying < window):
                    request = next(source, None)
                    if request is None:
                        more = False
                        break
                    flying.append(self._enter(request))
                    bytes_flying += flying[-1].size
                if not flying:
                    return
                reply = self._awaited(flying[0], timeout)
                call = flying.popleft()
                bytes_flying -= call.size
                window = _widened(window, time.monotonic() - call.began)
                yield reply
        finally:
            for call in flying:
                self._forget(call)

    def listen(self, callback: Callable[[LinkState], None]) -> Callable[[], None]:
        """Have every change of state told, in the link's own thread; returns what ends that."""
        with self._guard:
            self._listeners.append(callback)

        def stop() -> None:
            with self._guard, suppress(ValueError):
                self._listeners.remove(callback)

        return stop

    def retry(self) -> None:
        """Try at once to connect, if it is not up; calls wait for that."""
        self._retry = True
        with self._guard:
            if self._state.name == "down":
                name: StateName = "reconnecting" if self._was_up else "connecting"
                self._state = LinkState(name, time.time(), self._state.error)
        self._ring()

    def close(self) -> None:
        """End the connection and every call; what runs on the server goes on."""
        self._closing = True
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Calls, in their callers' threads

    def _enter(self, request: Request) -> _Call:
        call = _Call(next(self._numbers), request)
        with self._guard:
            if self._closing:
                raise Closed(where=self.name)
            given_up = self._state.name == "down" or (self._resting and not self._retry)
            if given_up and self._state.error:
                raise _again(self._state.error)
            (self._large if len(request.body) > 8192 else self._small).append(call)
        self._ring()
        return call

    def _awaited(self, call: _Call, timeout: float) -> Reply:
        while True:
            try:
                came = call.came.get(timeout=timeout)
            except queue.Empty:
                if time.monotonic() - self._pulse < timeout / 2:
                    continue
                raise self._late("it", timeout) from None
            if not isinstance(came, bytes):
                return _answer(came)

    def _late(self, op: str, timeout: float) -> LinkError:
        state = self._state
        if state.name != "up" and state.error:
            return _again(state.error)
        return Timeout(f"{op} took more than {timeout:g} s", where=self.name)

    def _forget(self, call: _Call) -> None:
        with self._guard:
            self._flying.pop(call.number, None)
            for waiting in (self._small, self._large):
                with suppress(ValueError):
                    waiting.remove(call)

    def _ring(self) -> None:
        with self._guard, suppress(OSError):
            if self._wake >= 0:
                os.write(self._wake, b".")

    # The link's own thread

    def _work(self) -> None:
        failures = 0
        while not self._closing:
            self._tell("reconnecting" if self._was_up else "connecting", self._state.error)
            self._retry = False
            session = _Session(self)
            error = session.run()
            if self._closing:
                break
            failures = 0 if session.stage == "up" else failures + 1
            if isinstance(error, FOR_A_PERSON) or not (error.retry or self._was_up):
                self._tell("down", error)
                self._fail_all(error)
                self._pause(None)
                continue
            self._tell("reconnecting" if self._was_up else "connecting", error)
            self._resting = not self._was_up
            if not self._was_up:
                self._fail_all(error)  # nobody waits for what may never have been there
            self._pause(self._pace.pauses[min(max(0, failures - 1), len(self._pace.pauses) - 1)])
            self._resting = False
        self._fail_all(Closed(where=self.name))
        with self._guard:
            os.close(self._woken)
            os.close(self._wake)
            self._wake = self._woken = -1

    def _pause(self, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing and not self._retry:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return
                if selector.select(left):
                    self._drain()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._woken, 4096):
                pass

    def _tell(self, name: StateName, error: LinkError | None, round_trip: float | None = None) -> None:
        before = self._state
        since = before.since if before.name == name else time.time()
        self._state = LinkState(name, since, error, round_trip)
        if (before.name, before.error) == (name, error):
            return
        with self._guard:
            listeners = list(self._listeners)
        for each in listeners:
            try:
                each(self._state)
            except Exception:
                logging.getLogger(__name__).exception("a listener failed")

    def _fail_all(self, error: LinkError) -> None:
        with self._guard:
            calls = [*self._flying.values(), *self._small, *self._large]
            self._flying.clear()
            self._small.clear()
            self._large.clear()
        for call in calls:
            call.came.put(error)

    def _next(self) -> _Call | None:
        with self._guard:
            waiting = self._small or self._large
            if not waiting:
                return None
            call = waiting.popleft()
            self._flying[call.number] = call
            return call

    def _lost(self, error: LinkError) -> None:
        """Whatever was under way goes first on the next connection, in its order; what must not be repeated ends."""
        with self._guard:
            calls = [self._flying[n] for n in sorted(self._flying)]
            self._flying.clear()
            for call in reversed(calls):
                if not call.once:
                    (self._large if len(call.body) > 8192 else self._small).appendleft(call)
        for call in calls:
            if call.once:
                call.came.put(error)

    def _arrived(self, frame: Frame) -> None:
        header = frame.header
        with self._guard:
            call = self._flying.get(header.get("id", 0)) if isinstance(header.get("id"), int) else None
            if call and not header.get("more"):
                del self._flying[call.number]
        if call is None:
            return
        values = header.get("values")
        if header.get("more"):
            if call.once and len(frame.body) <= call.most:
                call.came.put(frame.body)
        elif len(frame.body) > call.most:
            call.came.put(ProtocolMismatch("it sent more than was asked for", where=self.name))
        elif isinstance(values, dict):
            call.came.put(Reply(values, frame.body))
        else:
            call.came.put(from_agent(header.get("error"), self.name))


class _Session:
    """One connection of a link, from opening to loss, in the link's thread."""

    def __init__(self, link: Link) -> None:
        self.link, self.pace = link, link._pace
        self.stage: Stage = "opening"
        self._frames = Frames()
        self._out: deque[memoryview] = deque()
        self._heard = self._began = time.monotonic()
        self._pinged = 0.0  # when a ping left that is not answered yet; 0: none
        self._ping_at = 0.0

    def run(self) -> LinkError:
        """Until it is lost or the link is closed; why."""
        link = self.link
        transport: Transport | None = None
        error: LinkError = LinkLost(where=link.name)
        try:
            transport = link._open()
            error = self._serve(transport)
        except LinkError as e:
            error = e
        except OSError as e:
            error = LinkLost(e.strerror or str(e), where=link.name)
        except Exception as e:  # whatever the other end sent, the link goes on
            logging.getLogger(__name__).exception("a link failed")
            error = ProtocolMismatch(f"{type(e).__name__}: {e}", where=link.name)
        finally:
            link._lost(LinkLost(error.cause, where=link.name))
            if transport:
                transport.close(1.0 if link._closing else 0.0)
        if link.name and not error.where:
            error = type(error)(error.cause, where=link.name, hint=error.hint, **error.details)
        return error

    def _serve(self, transport: Transport) -> LinkError:
        self._out.append(memoryview(greeting()[0]))
        with selectors.DefaultSelector() as selector:
            selector.register(transport.reader, selectors.EVENT_READ)
            selector.register(self.link._woken, selectors.EVENT_READ)
            if transport.complaints >= 0:
                selector.register(transport.complaints, selectors.EVENT_READ)
            writing = False
            while not self.link._closing:
                self._fill()
                if bool(self._out) != writing:
                    writing = not writing
                    if writing:
                        selector.register(transport.writer, selectors.EVENT_WRITE)
                    else:
                        selector.unregister(transport.writer)
                asleep = time.monotonic()
                ready = {key.fd for key, _ in selector.select(self._patience())}
                if time.monotonic() - asleep > self._patience() + 2.0:
                    self._heard = max(self._heard, time.monotonic() - self.pace.frozen / 2)  # we were halted, not it
                if self.link._woken in ready:
                    self.link._drain()
                if transport.complaints in ready and not self._complaints(transport):
                    selector.unregister(transport.complaints)
                if transport.reader in ready and not self._read(transport.reader):
                    return transport.failure(self.stage)
                if transport.writer in ready and not self._write(transport.writer):
                    self._last_words(transport)
                    return transport.failure(self.stage)
                if (late := self._check(transport)) is not None:
                    return late
        return Closed(where=self.link.name)

    def _patience(self) -> float:
        return min(1.0, self.pace.every / 4, self.pace.frozen / 4)

    def _fill(self) -> None:
        """What is next to be written, if anything: a little at a time, so that small requests overtake large ones."""
        now = time.monotonic()
        if self.stage != "up":
            return
        if not self._pinged and now >= self._ping_at:
            self._pinged, self._ping_at = now, now + self.pace.every
            self._out.append(memoryview(packed({"id": -1, "op": "ping"}, b"")))
        while sum(map(len, self._out)) < READ:
            call = self.link._next()
            if call is None:
                return
            self._out.append(memoryview(call.head))
            if call.body:
                self._out.append(memoryview(call.body))

    def _complaints(self, transport: Transport) -> bool:
        try:
            data = os.read(transport.complaints, 4096)
        except BlockingIOError:
            return True
        transport.complained(data)
        return bool(data)

    def _read(self, fd: int) -> bool:
        """Take what came; False at its end."""
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._heard = time.monotonic()
        frames = self._frames.feed(data)
        if self._frames.greeted and self.stage == "opening":
            self.stage = "greeting"
            hello = {"proto": agent.PROTO, "root": self.link._root, "pulse": self.pace.frozen / 6}
            self._out.append(memoryview(packed({"id": 0, "op": "hello", "arguments": hello}, b"")))
            self._began = time.monotonic()
        for frame in frames:
            self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        number = frame.header.get("id")
        if number == 0:
            self._welcome(frame)
        elif number == -1:
            trip, self._pinged = 1000 * (time.monotonic() - self._pinged), 0.0
            self.link._state = replace(self.link._state, round_trip=trip)
        elif number == -2:
            self.link._pulse = time.monotonic()
        else:
            self.link._arrived(frame)

    def _welcome(self, frame: Frame) -> None:
        values = frame.header.get("values")
        if not isinstance(values, dict):
            raise from_agent(frame.header.get("error"), self.link.name)
        if values.get("proto") != agent.PROTO or values.get("agent_hash") != greeting()[1]:
            raise ProtocolMismatch("what answers is not what was sent", where=self.link.name)
        self.stage = "up"
        self.link._facts, self.link._was_up = values, True
        self._ping_at = time.monotonic() + self.pace.every
        self.link._tell("up", None, 1000 * (time.monotonic() - self._began))

    def _write(self, fd: int) -> bool:
        """Write what the pipe takes; False when nobody reads any more."""
        while self._out:
            try:
                written = os.write(fd, self._out[0][:READ])
            except BlockingIOError:
                return True
            except OSError:
                return False
            if written == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][written:]
        return True

    def _last_words(self, transport: Transport) -> None:
        """What the other end said before it hung up may explain it."""
        with suppress(OSError, LinkError):
            while self._read(transport.reader):
                if not self._waits(transport.reader):
                    return

    @staticmethod
    def _waits(fd: int) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            return bool(selector.select(0.1))

    def _check(self, transport: Transport) -> LinkError | None:
        """Why the link is given up now, if it is."""
        now, where = time.monotonic(), self.link.name
        if transport.asking:
            self._began = self._heard = now
        if self.stage != "up":
            if now - self._began <= self.pace.greeting:
                return None
            if self.stage == "opening" and self._heard > self._began:
                return NoBanner("nothing of ours came back", where=where)
            return Timeout("no answer to the login", where=where)
        if now - self._heard > self.pace.frozen:
            return LinkLost(f"nothing came for {now - self._heard:.0f} s", where=where)
        return None


def _answer(came: Reply | LinkError) -> Reply:
    if isinstance(came, LinkError):
        raise _again(came)
    return came


def largest_answer(op: str, arguments: Mapping[str, Any]) -> int:
    """Bytes that a reply's body may have: what was asked for. Else a server could fill our memory."""
    if op in ("get", "read"):
        limit = arguments.get("limit")
        return limit if isinstance(limit, int) else 1 << 20
    return agent.CHUNK if op in ONCE else 0


def _again(error: LinkError) -> LinkError:
    """The same error to be raised once more: several callers may get it."""
    return type(error)(error.cause, where=error.where, hint=error.hint, **error.details)


def _widened(window: float, took: float) -> float:
    """As much under way as is answered within about a second."""
    if took < 0.5:
        window *= 1.25
    elif took > 1.5:
        window *= 0.7
    return min(LARGEST_WINDOW, max(SMALLEST_WINDOW, window))


__all__ = ["STATES", "Link", "LinkState", "Pace", "Pipe", "Reply", "Request", "Transport", "local"]
