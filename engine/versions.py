"""Workspace, project, version: the only module that knows their file names.

WORKSPACE/workspace.toml            the current project
WORKSPACE/datasets/NAME/            registered data sets (see engine.datasets)
WORKSPACE/weights/                  pretrained weights
WORKSPACE/cache/                    may be deleted at any time
WORKSPACE/trash/ID/                 deleted versions, each with trash.toml, until emptied
WORKSPACE/projects/NAME/project.toml
WORKSPACE/projects/NAME/V_0/        one version:
    spec.toml  version.toml  events.jsonl  train.log  lock  control.json
    job.json  waiting.json  heartbeat  exit.json          its supervisor's: see engine.servers.supervisor
    checkpoints/state.pt  checkpoints/state.previous.pt  weights/best.pt  weights/last.pt
    server.toml  remote.json  mirror.json  prepare.log    of one that trains on a server: see engine.servers.elsewhere
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalog, events, files
from engine.errors import DojangError, NotFound
from engine.progress import Progress, number
from engine.servers import elsewhere

if TYPE_CHECKING:
    from engine.spec import Label, Spec

LONGEST_NAME = 64  # characters
MOST_BYTES = 200  # of a name; file systems allow 255, and the trash adds to it
VERSION_ID = re.compile(r"V_(0|[1-9][0-9]{0,5})")
DEFAULT_PROJECT = "default"
LIVE = frozenset({"queued", "preparing", "preprocessing", "training", "testing"})


def default_workspace() -> Path:
    """`DOJANG_WORKSPACE`, else the user's data folder."""
    chosen = os.environ.get("DOJANG_WORKSPACE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("dojang", appauthor=False))


def clean_name(name: str, what: str = "name") -> str:
    """A name fit to be a folder: NFC, letters of any script, digits, space and `-_.`; raises DojangError."""
    name = unicodedata.normalize("NFC", name.strip())
    if not _is_name(name):
        raise DojangError(
            f"“{name[:80]}” cannot be a {what}.",
            code="BAD_NAME",
            hint="Use letters, digits, spaces and - _ . ; begin with a letter or digit; at most 64 characters.",
        )
    return name


def _is_name(name: str) -> bool:
    fits = 0 < len(name) <= LONGEST_NAME and len(name.encode("utf-8", "replace")) <= MOST_BYTES
    held = all(c in " -_." or unicodedata.category(c)[0] in "LMN" for c in name)
    return fits and held and unicodedata.category(name[0])[0] in "LN"


class Workspace:
    """One folder that holds everything."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def ensure(self) -> Workspace:
        """Make the folder, or say why it cannot be."""
        try:
            for name in ("projects", "datasets", "weights", "cache", "trash"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise files.disk_error(e, self.path) from e
        return self

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def current_project(self) -> str:
        try:
            return str(files.read_toml(self.path / "workspace.toml").get("project") or DEFAULT_PROJECT)
        except FileNotFoundError:
            return DEFAULT_PROJECT

    def use(self, project: str) -> None:
        """Make `project` the current one."""
        files.write_toml(self.path / "workspace.toml", {"project": self.project(project, create=True).name})

    def project(self, name: str | None = None, *, create: bool = False) -> Project:
        name = clean_name(name or self.current_project, "project name")
        found = Project(self, name)
        if create:
            try:
                found.path.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise files.disk_error(e, found.path) from e
            if not (found.path / "project.toml").exists():
                files.write_toml(found.path / "project.toml", {"created": now_text()})
        return found

    def projects(self) -> list[str]:
        folder = self.path / "projects"
        names = [e.name for e in os.scandir(folder) if e.is_dir() and _is_name(e.name)] if folder.is_dir() else []
        return sorted(names)

    def running(self) -> list[str]:
        """References of what runs on this machine now, in any project; what only waits for its turn does not."""
        return [v.reference for v in self._alive() if not v.server and not v.waiting_file.exists()]

    def queued(self) -> list[str]:
        """References of what waits on this machine for its turn, in any project."""
        return [v.reference for v in self._alive() if not v.server and v.waiting_file.exists()]

    def elsewhere(self) -> dict[str, list[str]]:
        """References of what runs, waits or is prepared on servers, as far as is known here, by server."""
        found: dict[str, list[str]] = {}
        for version in self._alive():
            if version.server:
                found.setdefault(version.server, []).append(version.reference)
        return found

    def _alive(self) -> list[Version]:
        return [v for name in self.projects() for v in self.project(name).versions() if v.alive()]

    def version(self, reference: str) -> Version:
        """The version called `PROJECT/V_0`, `V_0`, or by its name within the current project."""
        project_name, _, wanted = unicodedata.normalize("NFC", reference.strip()).rpartition("/")
        project = self.project(project_name or None)
        if VERSION_ID.fullmatch(wanted.upper()):
            version = Version(project, wanted.upper())
            if version.path.is_dir():
                return version
        else:
            named = [v for v in project.versions() if v.label_data().get("name") == wanted]
            if len(named) == 1:
                return named[0]
            if named:
                raise DojangError(
                    f"{len(named)} versions are called “{wanted}”.",
                    code="AMBIGUOUS",
                    hint="Use " + " or ".join(v.id for v in named),
                )
        raise NotFound(f"There is no version “{wanted}” in project {project.name}.", hint=self._where(project, wanted))

    def _where(self, project: Project, wanted: str) -> str:
        """Where a version may be that is not in `project`."""
        if any((t.project, t.version) == (project.name, wanted.upper()) for t in self.trash()):
            return f"It is in the trash: dojang restore {project.name}/{wanted.upper()}"
        projects = self.projects()
        if not projects:
            return "There is none at all yet. Train one: dojang train --dataset NAME --model yolov8n"
        if project.name not in projects:
            return f"There is no such project. There are: {', '.join(projects)}."
        return f"`dojang list --project {shlex.quote(project.name)}` shows them all."

    def trash(self) -> list[Trashed]:
        """Deleted versions, newest first."""
        found = []
        for entry in os.scandir(self.path / "trash") if (self.path / "trash").is_dir() else ():
            try:
                data = files.read_toml(Path(entry.path) / "trash.toml")
                project, version = clean_name(str(data["project"])), str(data["version"])
                if VERSION_ID.fullmatch(version):
                    found.append(Trashed(self, Path(entry.path), project, version, str(data["deleted"])))
            except (OSError, DojangError, KeyError):
                continue
        return sorted(found, key=lambda t: (t.deleted, t.path.name.rpartition("--")[2]), reverse=True)


@dataclass(frozen=True)
class Project:
    """A named folder of versions."""

    workspace: Workspace
    name: str

    @property
    def path(self) -> Path:
        return self.workspace.path / "projects" / self.name

    def versions(self) -> list[Version]:
        """Newest first."""
        try:
            names = [e.name for e in os.scandir(self.path) if VERSION_ID.fullmatch(e.name) and e.is_dir()]
        except FileNotFoundError:
            return []
        return [Version(self, n) for n in sorted(names, key=lambda n: -int(n[2:]))]

    def next_id(self) -> int:
        """One past the highest number ever used here, so that an undone delete finds its place free."""
        used = [int(v.id[2:]) for v in self.versions()]
        used += [int(t.version[2:]) for t in self.workspace.trash() if t.project == self.name]
        return max(used, default=-1) + 1

    def create(self, spec: Spec, label: Label) -> Version:
        """Lay down a new version's folder whole: made aside, then renamed into its number, which is the claim."""
        from engine.spec import to_toml

        self.workspace.ensure()
        self.workspace.project(self.name, create=True)
        draft = self.path / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            draft.mkdir()
            files.write_toml(draft / "spec.toml", to_toml(spec))
            files.write_toml(
                draft / "version.toml",
                {"name": label.name, "tags": list(label.tags), "memo": label.memo, "created": now_text()},
            )
            number = self.next_id()
            while True:
                target = self.path / f"V_{number}"
                try:
                    draft.rename(target)
                    return Version(self, target.name)
                except OSError:
                    if not target.exists():
                        raise
                    number += 1
        except OSError as e:
            raise files.disk_error(e, draft) from e
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True)
class Version:
    """One training and all that came of it."""

    project: Project
    id: str

    @property
    def path(self) -> Path:
        return self.project.path / self.id

    @property
    def workspace(self) -> Workspace:
        return self.project.workspace

    @property
    def reference(self) -> str:
        return f"{self.project.name}/{self.id}"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def train_log(self) -> Path:
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def control(self) -> Path:
        return self.path / "control.json"

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.toml"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def waiting_file(self) -> Path:
        return self.path / "waiting.json"

    @property
    def exit_record(self) -> Path:
        return self.path / "exit.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def state_file(self) -> Path:
        return self.checkpoints / "state.pt"

    @property
    def best_weights(self) -> Path:
        return self.path / "weights" / "best.pt"

    @property
    def last_weights(self) -> Path:
        return self.path / "weights" / "last.pt"

    @property
    def server(self) -> str:
        """Name of the server that it trains on, “?” where that cannot be read; empty for this machine."""
        try:
            place = elsewhere.place_of(self) if self._elsewhere() else None
        except DojangError:
            return "?"
        return place.server if place else ""

    def now(self) -> float:
        """Now, by the clock that its events are dated with: a server's may go otherwise than ours."""
        return time.time() + (elsewhere.known(self).skew if self._elsewhere() else 0.0)

    def spec_data(self) -> dict[str, Any]:
        return files.read_toml(self.spec_file)

    def spec(self) -> Spec:
        from engine.spec import parse

        return parse(self.spec_data())

    def label_data(self) -> dict[str, Any]:
        """Name, tags, memo and when it was created; what cannot be read is left out."""
        try:
            data = files.read_toml(self.path / "version.toml")
        except (OSError, DojangError):
            return {}
        if not isinstance(data.get("tags", []), list):
            del data["tags"]
        return data

    def relabel(self, **changes: Any) -> Label:
        """Change name, tags or memo; checked as a whole first. Raises Invalid, or DojangError where the file is broken."""
        from engine.spec import parse_label

        if str(changes.get("name", "")).strip().upper() == self.id:
            changes["name"] = ""
        try:
            data = files.read_toml(self.path / "version.toml")
        except FileNotFoundError:
            data = {}
        kept: dict[str, Any] = {k: data[k] for k in ("name", "tags", "memo") if k in data}
        label = parse_label({**kept, **changes})
        files.write_toml(self.path / "version.toml", {**data, **label.model_dump(), "tags": list(label.tags)})
        return label

    def alive(self) -> bool:
        """Whether its run's lock is held: by the supervisor or, should that be gone, by the worker itself.

        Of one that trains on a server: whether it ran there when it was last heard of, or the server is prepared for it.
        """
        if self._elsewhere():
            return elsewhere.alive(self)
        return files.is_locked(self.lock)

    def model(self) -> str:
        """The model's name; empty where the spec cannot be read."""
        try:
            return str(self.spec_data().get("model", ""))
        except (OSError, DojangError):
            return ""

    def progress(self, *, skip_steps: bool = False) -> Progress:
        """The whole log, folded. `skip_steps` leaves out curves by step and the exact step reached."""
        progress = Progress()
        progress.apply(events.read_all(self.events, skip_steps=skip_steps))
        return progress

    def state(self, progress: Progress) -> str:
        """The one word for where it stands, from its log, its lock, and whether it waits for its turn."""
        if self._elsewhere():
            return elsewhere.state(self, progress)
        waits, alive = self._waits(progress), self.alive()
        if waits and (alive or self._waits(progress)):  # asked twice: it may just have left the queue
            return "queued" if alive else "lost"
        if alive and self._restarting(progress):
            return "preparing"
        if progress.ended:
            return progress.ended
        if alive:
            return state_of_stage(progress.stage)
        return "lost" if progress.attempt or self.exit_record.exists() else "draft"

    def _elsewhere(self) -> bool:
        return (self.path / elsewhere.SERVER).exists()

    def _waits(self, progress: Progress) -> bool:
        """Whether it was waiting for its turn when it was last heard of."""
        try:
            return self.waiting_file.stat().st_mtime >= progress.last_time
        except OSError:
            return False

    def waiting(self) -> dict[str, Any]:
        """What a queued version's supervisor says: `reason`, and where it is known `ahead`, `free` and `held`."""
        try:
            found = json.loads(self.waiting_file.read_bytes())
        except (OSError, ValueError, RecursionError):
            found = {}
        found = found if isinstance(found, dict) else {}
        ahead, free = (n if isinstance(n := found.get(k), int) and 0 <= n < 10_000 else 0 for k in ("ahead", "free"))
        return {
            "reason": str(found.get("reason", ""))[:300],
            "ahead": ahead,
            "free": free,
            "held": found.get("held") is True,
        }

    def _restarting(self, progress: Progress) -> bool:
        """A resumed run holds its lock before its first word: the old last word no longer counts."""
        try:
            return self.lock.stat().st_mtime > progress.last_time
        except OSError:
            return False

    def exit_reason(self) -> str:
        """What the supervisor saw when the worker ended, in words; empty while unknown."""
        try:
            return str(json.loads(self.exit_record.read_bytes())["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def summary(self) -> dict[str, Any]:
        """What lists show, from cache where nothing changed."""
        return summaries([self])[0]

    def delete(self) -> Trashed:
        """Move it into the trash. Raises DojangError while it is running."""
        if self.alive():
            what = "waits in the queue" if self.waiting_file.exists() else "is running"
            hint = f"Stop it first: dojang stop {self.reference}"
            raise DojangError(f"{self.reference} {what}.", code="RUNNING", hint=hint)
        deleted = now_text()
        bin_ = self.workspace.ensure().path / "trash" / f"{self.project.name}--{self.id}--{time.time_ns()}"
        files.write_toml(
            self.path / "trash.toml", {"project": self.project.name, "version": self.id, "deleted": deleted}
        )
        try:
            self.path.rename(bin_)
        except OSError as e:
            (self.path / "trash.toml").unlink(missing_ok=True)
            raise files.disk_error(e, self.path) from e
        return Trashed(self.workspace, bin_, self.project.name, self.id, deleted)


@dataclass(frozen=True)
class Trashed:
    """A deleted version that can be had back."""

    workspace: Workspace
    path: Path
    project: str
    version: str
    deleted: str

    def restore(self) -> Version:
        """Put it back under its old number, or the next free one if that is taken."""
        project = self.workspace.project(self.project, create=True)
        target = project.path / self.version
        if target.exists():
            target = project.path / f"V_{project.next_id()}"
        try:
            self.path.rename(target)
            (target / "trash.toml").unlink(missing_ok=True)
        except OSError as e:
            raise files.disk_error(e, self.path) from e
        return Version(project, target.name)


def state_of_stage(stage: str) -> str:
    """A running version's state: its stage, in the words that lists use."""
    return stage if stage in LIVE else "preparing"


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Folds:
    """Logs of running versions, folded as they grow: who looks every second must not read them whole every second."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Progress, int]] = {}

    def of(self, version: Version) -> Progress:
        """The version's progress up to now."""
        progress, offset = self._known.get(version.reference, (Progress(), 0))
        while True:
            batch, new = events.follow(version.events, offset)
            if new < offset:  # another log stands there now
                progress = Progress()
            progress.apply(batch)
            if new == offset:
                break
            offset = new
        self._known[version.reference] = (progress, offset)
        return progress


def summaries(versions: list[Version], folds: Folds | None = None) -> list[dict[str, Any]]:
    """`dojang list`'s rows. Logs are folded once and remembered by size and time, so hundreds list in milliseconds."""
    if not versions:
        return []
    cache_file = versions[0].workspace.cache / "summaries.json"
    cache, rows, changed = _read_cache(cache_file), [], False
    for version in versions:
        signature, known = _signature(version), cache.get(version.reference)
        if isinstance(known, dict) and known.get("signature") == signature and isinstance(known.get("row"), dict):
            row = known["row"]
        else:
            row = _fold(version, folds.of(version) if folds else version.progress())
            if row["ended"] or not version.alive():  # also one that is lost: its log will not grow by itself
                cache[version.reference] = {"signature": signature, "row": row}
                changed = True
        rows.append(_with_state(version, dict(row)))
    if changed:
        try:
            files.write_json(cache_file, cache)
        except DojangError:
            pass  # a cache that cannot be kept only costs time
    return rows


ROW_FORMAT = 2  # of a cached row; raise it with every change to what `_fold` returns


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
        return data if isinstance(data, dict) else {}
    except (OSError, ValueError):
        return {}


def _signature(version: Version) -> list[int]:
    found = [ROW_FORMAT]
    for path in (version.events, version.path / "version.toml"):
        try:
            stat = path.stat()
            found += [stat.st_size, stat.st_mtime_ns]
        except OSError:
            found += [0, 0]
    return found


def _fold(version: Version, progress: Progress) -> dict[str, Any]:
    """The part of a summary that follows from the files alone."""
    try:
        spec = version.spec_data()
    except (OSError, DojangError):
        spec = {}
    label = version.label_data()
    task = progress.task or task_of(str(spec.get("model", "")))
    return {
        "version": version.id,
        "name": str(label.get("name") or version.id),
        "project": version.project.name,
        "ended": progress.ended,
        "stage": progress.stage,
        "attempt": progress.attempt,
        "model": str(spec.get("model", "")),
        "dataset": str(spec.get("dataset", "")),
        "tags": [str(t) for t in label.get("tags", [])],
        "memo": str(label.get("memo", "")),
        "created": str(label.get("created", "")),
        "started": progress.started,
        "last_time": progress.last_time,
        "elapsed": round(progress.elapsed(), 1),
        "remaining": progress.remaining(),
        "spent_before": progress.spent_before,
        "attempt_started": progress.attempt_started,
        "fraction": round(progress.fraction, 4),
        "epochs_done": progress.epochs_done,
        "epochs": progress.epochs_total or int(number(spec.get("epochs")) or 0),
        "task": task,
        "metrics": progress.metrics(task),
        "confidence": progress.confidence(),
        "split": "val",
        "test_metrics": (progress.results.get("test") or {}).get("metrics"),
        "test_confidence": progress.confidence("test"),
        "error": progress.error,
        "pace": _pace(progress, spec),
    }


def task_of(model: str) -> str:
    """What a version that has measured nothing yet is for."""
    try:
        return catalog.find(model).task
    except NotFound:
        return "detect"


def _pace(progress: Progress, spec: dict[str, Any]) -> dict[str, Any] | None:
    """How long an epoch takes for each training image, val included: what later estimates rest on."""
    images = number(progress.plan.get("train_images"))
    seconds = sorted(sum(v or 0.0 for v in e["seconds"].values()) for e in progress.epochs if e["seconds"])
    if not images or not seconds:
        return None
    return {
        "seconds_per_image": seconds[len(seconds) // 2] / images,
        "image_size": int(number(progress.plan.get("image_size")) or 640),
        "device": str(spec.get("device", "auto")),
        "processes": int(number(progress.plan.get("processes")) or 1),
    }


def _with_state(version: Version, row: dict[str, Any]) -> dict[str, Any]:
    probe = Progress(attempt=row.pop("attempt"), stage=row["stage"], ended=row.pop("ended"), last_time=row["last_time"])
    row["state"] = version.state(probe)
    row["waiting"] = version.waiting() if row["state"] == "queued" else None
    if row["state"] == "lost" and (not row["error"] or version.waiting_file.exists()):
        row["error"] = lost_error(version)
    row["run_dir"] = str(version.path)
    row["server"] = version.server
    row["as_of"] = elsewhere.heard_at(version) if row["server"] else None
    row["skew"] = elsewhere.known(version).skew if row["server"] else 0.0
    row["weights"] = str(version.best_weights) if version.best_weights.exists() else None
    return row


def lost_error(version: Version) -> dict[str, str]:
    """What to say of a run that ended without a last word."""
    if version.server:
        return elsewhere.lost_error(version)
    if version.waiting_file.exists():
        message = "It waited in the queue, and what waited for it is gone: killed, or the machine was restarted."
        hint = f"Nothing saved is lost. Let it wait again: dojang resume {version.reference}"
        return {"code": "LOST", "message": message, "hint": hint}
    reason = version.exit_reason() or "Its processes are gone: killed, or the machine was restarted."
    resumable = version.state_file.exists()
    hint = (
        f"Nothing saved is lost. Go on from the last checkpoint: dojang resume {version.reference}"
        if resumable
        else f"It ended before its first checkpoint. Start it again: dojang resume {version.reference}"
    )
    return {"code": "LOST", "message": f"The training ended without a last word. {reason}", "hint": hint}


def show(version: Version) -> dict[str, Any]:
    """`dojang show`: the summary, every result (metrics by class, confusion, curves) and the whole spec.

    The spec is empty where it cannot be read: `error` says why.
    """
    results = version.progress(skip_steps=True).results
    told = ("metrics", "confidence", "per_class", "confusion", "curves", "images", "weights")
    row = version.summary()
    row["results"] = {split: {key: found.get(key) for key in told} for split, found in results.items()}
    try:
        return {**row, "spec": version.spec_data()}
    except OSError as e:
        problem = DojangError(f"{version.path / 'spec.toml'} cannot be read: {e.strerror}.", code="BAD_FILE")
    except DojangError as e:
        problem = e
    error = {"code": problem.code, "message": problem.message, "hint": problem.hint}
    return {**row, "spec": {}, "error": row["error"] or error}
