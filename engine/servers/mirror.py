"""Bringing home what a server writes of a run: its events and its log as they grow, at last its weights.

    python -m engine.servers.mirror RUN_DIR…      once, for scripts: catch up and end

A mirror holds nothing but byte offsets, and those follow from the files here; it may be killed or cut off at any byte.
Several may mirror one version, here or on other machines: each appends only what is not there yet.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine import files
from engine.errors import DojangError
from engine.files import disk_error
from engine.servers import elsewhere, fetching, links, remote
from engine.servers.elsewhere import ENDS, Known, Place
from engine.servers.link import Link, LinkState
from engine.servers.link_errors import Closed, LinkError, NotThere, Timeout
from engine.versions import Version, Workspace

WAIT = 2.0  # seconds that the server holds back an answer while there is nothing new
STATUS_SECONDS = 2.0  # between two looks at how the run stands
PIECE = 1 << 20
LONGEST_PAUSE = 10.0
SCAN_SECONDS = 2.0
RESUMED_SECONDS = 60.0  # between two questions whether somebody else has resumed what ended
DEAD = ("failed", "lost")
SKEWED = 2.0  # seconds between two clocks that are worth speaking of
SMALL = ("waiting.json", "exit.json")
LARGEST = 64_000  # bytes of one of those


class Mirror:
    """One version's, over one link. `whole`: it is over there, and all of it is here."""

    def __init__(self, version: Version, place: Place, link: Link) -> None:
        self.version, self.place, self.link = version, place, link
        self.whole = False
        self.trouble: DojangError | None = None
        self._looked = 0.0
        self._lags: deque[float] = deque(maxlen=20)  # seconds from fresh events to their arrival, by both clocks
        self._asked_to_end = threading.Event()

    def stop(self) -> None:
        self._asked_to_end.set()

    def run(self) -> None:
        """Follow until the run is over and whole here, or `stop`. A lost link is waited for, for ever."""
        pause = 0.5
        while not self._asked_to_end.is_set() and not self.whole:
            try:
                self.round(WAIT)
                self.trouble, pause = None, 0.5
            except Closed:
                return
            except (DojangError, OSError) as e:  # of the link, or of the disk here: neither changes the run
                if not self.version.path.is_dir():  # it was put into the trash
                    return
                self.trouble = e if isinstance(e, DojangError) else disk_error(e, self.version.path)
                self._asked_to_end.wait(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    def round(self, wait: float = 0.0) -> None:
        """Bring what is new; waits up to `wait` seconds for it. Raises LinkError, DojangError(DISK_FULL)."""
        if elsewhere.offset(self.version) is None and not self._adopt():
            self._asked_to_end.wait(wait or 0.0)
            return
        more = self._events(wait)
        if not more or time.monotonic() - self._looked > STATUS_SECONDS:
            self._status()

    def _adopt(self) -> bool:
        """Whoever prepared the server may have gone without hearing that it was accepted."""
        if elsewhere.preparing(self.version):
            return False
        if elsewhere.offset(self.version) is not None:  # accepted just now
            return True
        found = self._ask() if elsewhere.unsure(self.version) else Known()
        if found.attempt <= elsewhere.known(self.version).attempt:
            self.whole = True  # nothing of it runs or ran there that is not known: nothing to follow
            return False
        elsewhere.accepted(self.version, found.state, found.attempt)
        elsewhere.give_log(self.version)
        return True

    def _ask(self) -> Known:
        rid = self.place.rid
        return elsewhere.answered(self.link.call("status", rids=[rid])["runs"], rid)

    def _hear(self, found: Known, fetched: bool = False) -> None:
        attempt = found.attempt if found.state != "absent" else elsewhere.known(self.version).attempt
        elsewhere.heard(self.version, found.state, found.reason, attempt, fetched, self._skew)

    def _events(self, wait: float) -> bool:
        """Whether there may be more at once."""
        at = elsewhere.offset(self.version)
        if at is None:
            return False
        began = time.monotonic()
        data = self._read("events", at, wait)
        if data and wait and 0.1 < time.monotonic() - began < wait:  # it was waited for, so it has just happened
            self._compare_clocks(data)
        lines = data[: data.rfind(b"\n") + 1] if len(data) < PIECE or b"\n" in data else data
        if lines:  # whole ones: whatever of ours comes between splits none
            elsewhere.append_events(self.version, at, lines)
        elif data:
            self._asked_to_end.wait(min(wait, 0.2))
        return len(data) == PIECE

    def _compare_clocks(self, data: bytes) -> None:
        with suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):
            self._lags.append(time.time() - float(json.loads(data.rstrip(b"\n").rpartition(b"\n")[2])["t"]))

    @property
    def _skew(self) -> float | None:
        if not self._lags:
            return None
        least = min(self._lags)
        return -least if abs(least) > SKEWED else 0.0

    def _log(self) -> None:
        while True:
            at = _size(self.version.train_log)
            data = self._read("log", at)
            if data:
                elsewhere.append_log(self.version, at, data)
            if len(data) < PIECE or self._asked_to_end.is_set():
                return

    def _read(self, stream: str, at: int, wait: float = 0.0) -> bytes:
        try:
            reply = self.link.call(
                "read", rid=self.place.rid, stream=stream, offset=at, limit=PIECE, wait=wait, timeout=wait + 20.0
            )
        except NotThere:
            return b""
        return bytes(reply.body)

    def _status(self) -> None:
        """How it stands; once it is over, that all of it is here."""
        self._looked = time.monotonic()
        found = self._ask()
        if elsewhere.preparing(self.version):
            return
        if not found.live:
            if found.state != "absent":
                self._bring_rest()
            self._small()
            fetched = found.state == "done" and self._fetch()
            self._hear(found, fetched)
            self.whole = found.state != "done" or fetched
            return
        self._hear(found)
        self._small()
        self._log()

    def _bring_rest(self) -> None:
        """It is over, so that its files grow no more: to their ends."""
        while self._events(0.0) and not self._asked_to_end.is_set():
            continue
        self._log()

    def _small(self) -> None:
        """The supervisor's small files, which are replaced as a whole; one that is gone there goes here."""
        for name in SMALL:
            path, data = self.version.path / name, self._read(name, 0)
            if not data:
                path.unlink(missing_ok=True)
            elif _sound(data) and not (path.exists() and path.read_bytes() == data):
                files.write_bytes(path, data)

    def _fetch(self) -> bool:
        if elsewhere.known(self.version).fetched and self.version.best_weights.exists():
            return True
        try:
            fetching.fetch(self.version, self.place, self.link)
            return True
        except NotThere:  # a training that ended without any
            return True


def _sound(data: bytes) -> bool:
    try:
        return len(data) <= LARGEST and isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def following(version: Version) -> Iterator[Mirror | None]:
    """Mirror a version in a thread meanwhile; None, and nothing, for one of which no more is to be heard."""
    prepared = bool(version.server) and elsewhere.preparing(version)  # asked first: what ends in between is behind then
    if not prepared and not behind(version):
        yield None
        return
    box, place = remote.where(version)
    with ExitStack() as ending:
        link = ending.enter_context(links.shared(box, place.root))
        mirror = Mirror(version, place, link)
        thread = threading.Thread(target=mirror.run, name=f"dojang-mirror-{place.rid}", daemon=True)
        thread.start()
        try:
            yield mirror
        finally:
            mirror.stop()
            ending.close()  # a link that nobody else uses ends what it waits for
            thread.join(0.5)


def behind(version: Version) -> bool:
    """Whether a server may know more of this version than is known here."""
    if not version.server or elsewhere.preparing(version):
        return False
    now = elsewhere.known(version)
    return now.live or elsewhere.unsure(version) or (now.state == "done" and not now.fetched)


def perhaps_resumed(version: Version) -> bool:
    """Whether somebody else, on another machine, may have gone on with what ended as far as is known here."""
    if not version.server or behind(version) or elsewhere.known(version).state not in ("stopped", "paused", *DEAD):
        return False
    try:
        remote.where(version)
    except DojangError:
        return False  # a server that was forgotten: nobody can be asked
    return not elsewhere.preparing(version)


def catch_up(versions: Sequence[Version], seconds: float = 5.0) -> list[DojangError]:
    """Bring home what is new of those versions, all servers at once, for at most so long; what could not be heard.

    Who lists or shows versions calls this first; what is then not known is shown as of when it was last heard. Asked for
    one alone, also whether somebody else has resumed it.
    """
    wanted = [v for v in versions if behind(v) or (len(versions) == 1 and perhaps_resumed(v))]
    troubles: list[DojangError] = []
    threads = [threading.Thread(target=_once, args=(v, troubles, seconds), daemon=True) for v in wanted]
    with ExitStack() as held:
        for version in wanted:  # held here, so that one link serves all of a server's versions
            with suppress(DojangError):
                box, place = remote.where(version)
                held.enter_context(links.shared(box, place.root))
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        late = {v.server for v, thread in zip(wanted, threads, strict=True) if thread.is_alive()}
        found = [*troubles, *(Timeout(f"nothing within {seconds:g} s", where=name) for name in sorted(late))]
    return list({str(trouble): trouble for trouble in found}.values())


def _once(version: Version, troubles: list[DojangError], seconds: float) -> None:
    end = time.monotonic() + seconds
    try:
        box, place = remote.where(version)
        with links.shared(box, place.root) as link:
            mirror = Mirror(version, place, link)
            mirror.round()
            while not mirror.whole and mirror._events(0.0) and time.monotonic() < end:
                continue
            if not mirror.whole:
                mirror._status()
    except DojangError as e:
        troubles.append(e)
    except OSError as e:
        troubles.append(disk_error(e, version.path))


class Watch:
    """Mirrors every version of a workspace that runs on a server, for as long as it is open: the app's.

    One server that does not answer delays no other: each version has its thread, each server its link.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._ended = threading.Event()
        self._mirrors: dict[str, Mirror] = {}
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dojang-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        with self._guard:
            for mirror in self._mirrors.values():
                mirror.stop()

    def mirror(self, version: Version) -> Mirror | None:
        """The mirror of a version, while it is mirrored: its link's state, what troubles it."""
        with self._guard:
            return self._mirrors.get(version.reference)

    def links(self) -> dict[str, LinkState]:
        """How the link to each server is that is mirrored from, by its name."""
        with self._guard:
            mirrors = list(self._mirrors.values())
        return {mirror.place.server: mirror.link.state for mirror in mirrors}

    def _run(self) -> None:
        asked = time.monotonic()
        while not self._ended.is_set():
            up: set[str] = set()
            if time.monotonic() - asked > RESUMED_SECONDS:  # where a link is up anyway: no other is made for that
                asked, up = time.monotonic(), {name for name, state in self.links().items() if state.name == "up"}
            for name in self.workspace.projects():
                for version in self.workspace.project(name).versions():
                    wanted = behind(version) or (version.server in up and perhaps_resumed(version))
                    if wanted and self.mirror(version) is None:
                        self._begin(version)
            self._ended.wait(SCAN_SECONDS)

    def _begin(self, version: Version) -> None:
        try:
            box, place = remote.where(version)
        except DojangError:
            return  # a server that was forgotten: nobody can be asked
        with ExitStack() as held:
            link = held.enter_context(links.shared(box, place.root))
            mirror = Mirror(version, place, link)
            with self._guard:
                if self._ended.is_set():
                    return
                self._mirrors[version.reference] = mirror
            held = held.pop_all()
        threading.Thread(target=self._follow, args=(mirror, held), daemon=True).start()

    def _follow(self, mirror: Mirror, held: ExitStack) -> None:
        try:
            mirror.run()
        finally:
            with self._guard:
                del self._mirrors[mirror.version.reference]
            held.close()


def main(argv: Sequence[str]) -> int:
    from engine.worker import version_at

    troubles = catch_up([version_at(Path(each)) for each in argv], 60.0)
    for trouble in troubles:
        sys.stderr.write(f"{trouble}\n")
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

__all__ = ["ENDS", "LinkError", "Mirror", "Watch", "behind", "catch_up", "following"]
