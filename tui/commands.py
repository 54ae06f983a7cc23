"""What each command does. Tables for people, JSON for scripts; errors are raised and told by `tui.cli.main`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine import events, metrics, plugins, versions
from engine.errors import DojangError, Invalid, NotFound, Problem
from engine.versions import Version, Workspace
from tui import words
from tui.cli import complain, workspace_path

if TYPE_CHECKING:
    from engine.datasets.doctor import Check

Arguments = argparse.Namespace
SHOWN = 5  # findings of a kind


def _workspace(a: Arguments) -> Workspace:
    workspace = Workspace(workspace_path(a))
    plugins.look_in(workspace.path)
    return workspace


def _out(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(events.finite(value), ensure_ascii=False, indent=2, default=str) + "\n")


def _table(titles: list[str], rows: list[list[str]], right: frozenset[int] = frozenset()) -> None:
    """Columns as wide as their widest cell, in terminal cells; `right` are aligned right."""
    from rich.cells import cell_len

    rows = [[words.clean(text) for text in row] for row in rows]
    widths = [max(cell_len(r[i]) for r in [titles, *rows]) for i in range(len(titles))]
    for row in [titles, *rows]:
        cells = []
        for i, text in enumerate(row):
            pad = " " * (widths[i] - cell_len(text))
            cells.append(pad + text if i in right else text + pad)
        _out("  ".join(cells).rstrip())


# Data sets


def dataset_add(a: Arguments) -> None:
    from engine.datasets import registry

    try:
        ratios = tuple(float(p) for p in a.split.split("/"))
    except ValueError:
        ratios = ()
    if len(ratios) != 3:
        raise DojangError(f"“{a.split}” is not a split.", code="BAD_SPLIT", hint="Write it as 80/10/10.")
    found = registry.add(
        _workspace(a).ensure().path,
        Path(a.path),
        a.name,
        format=a.format,
        ratios=ratios,
        seed=a.seed,
        progress=_progress(a, "reading"),
    )
    _show_dataset(a, found.name)


def _progress(a: Arguments, doing: str) -> Callable[[int, int], None] | None:
    """A line on stderr that counts images, where somebody is there to see it."""
    if a.json or not sys.stderr.isatty():
        return None

    ended = False

    def progress(done: int, total: int) -> None:
        nonlocal ended
        if not ended:
            ended = 0 < total == done
            sys.stderr.write(f"\r{doing} {done} of {total or '…'} images\x1b[K" + ("\n" if ended else ""))

    return progress


def dataset_export(a: Arguments) -> None:
    from engine.datasets.write import export

    images: Literal["copy", "link"] = "link" if a.link else "copy"
    found = export(
        _workspace(a).path, a.name, Path(a.folder), a.format, images=images, progress=_progress(a, "writing")
    )
    if a.json:
        return _json(found.to_json())
    _out(f"{words.plural(found.images, 'image')} and {words.plural(found.labels, 'label')} written to {found.folder}.")
    for note in found.notes:
        _out(note)
    return None


def dataset_check(a: Arguments) -> int:
    from engine.datasets import doctor

    place = Path(a.export) if a.export else None
    if place:
        doctor.check_place(place)
    found = doctor.check(_workspace(a).path, a.name, a.image_size, _progress(a, "checking"))
    if place:
        doctor.save_findings(found, place)
    if a.json:
        _json(found.to_json())
    else:
        _show_check(found)
    return int(bool(found.counts["error"]))


def _show_check(found: Check) -> None:
    images, counts = words.plural(found.images, "image"), found.counts
    said = ", ".join(words.plural(counts[s], s) if s != "info" else f"{counts[s]} info" for s in counts if counts[s])
    _out(
        f"{found.dataset}: {images} checked for {found.image_size} px in {found.seconds:.1f} s: {said or 'nothing found'}"
    )
    for group in found.groups:
        where = f" in {words.plural(group.files, 'file')}" if group.files else ""
        _out()
        _out(f"{group.severity}: {group.kind.title}: {group.count}{where} ({group.code})")
        _out(f"  {group.kind.effect}")
        _out(f"  → {group.kind.remedy}")
        for finding in group.findings[:SHOWN]:
            _out(words.clean(f"  {finding.where}{': ' if finding.where else ''}{finding.message}"))
        if group.count > SHOWN:
            _out(f"  … and {group.count - SHOWN} more: dojang dataset check {found.dataset} --export FILE")


def dataset_list(a: Arguments) -> None:
    from engine.datasets import registry

    found = registry.list_datasets(_workspace(a).path)
    if a.json:
        return _json([d.to_json() for d in found])
    if not found:
        return _out("No data set yet. Add one: dojang dataset add PATH")
    rows = [
        [
            d.name,
            d.task,
            str(d.counts.images),
            str(d.counts.labels),
            str(len(d.classes)),
            words.when(d.added),
            str(d.root),
        ]
        for d in found
    ]
    return _table(["name", "task", "images", "labels", "classes", "added", "folder"], rows, frozenset({2, 3, 4}))


def dataset_show(a: Arguments) -> None:
    _show_dataset(a, a.name)


def _show_dataset(a: Arguments, name: str) -> None:
    from engine.datasets import registry
    from engine.datasets.model import SPLITS

    path = _workspace(a).path
    found = registry.load(path, name)
    findings = registry.findings(path, found.name)
    if a.json:
        return _json({**found.to_json(), "findings": [finding.to_json() for finding in findings]})
    counts = found.counts
    _out(f"{found.name}: {found.task}, {found.format}, {found.root}")
    made = f"made here {found.split}" if found.split_source == "made" else "the set's own"
    unlabelled = f", {counts.unlabelled} without labels" if counts.unlabelled else ""
    _out(f"{words.plural(counts.images, 'image')}{unlabelled}, {words.plural(counts.labels, 'label')}; split: {made}")
    _out()
    splits = [s for s in SPLITS if counts.per_split[s].images]
    rows = [["images"] + [str(counts.per_split[s].images) for s in splits] + [str(counts.images)]]
    for name in found.classes:
        rows.append(
            [name]
            + [str(counts.per_split[s].per_class.get(name, 0)) for s in splits]
            + [str(counts.per_class.get(name, 0))]
        )
    _table(["", *splits, "all"], rows, frozenset(range(1, len(splits) + 2)))
    if findings:
        _out()
        for f in findings[:20]:
            _out(words.clean(f"{f.severity}: {f.where}: {f.message}"))
        if len(findings) > 20:
            _out(f"… and {len(findings) - 20} more: dojang dataset show {found.name} --json")
    return None


def dataset_remove(a: Arguments) -> None:
    from engine.datasets import registry

    registry.remove(_workspace(a).path, a.name)
    _json({"removed": a.name}) if a.json else _out(f"{a.name} is forgotten. Its folder was not touched.")


# Training


def train(a: Arguments) -> int:
    """Start, or with --foreground be, a training."""
    from engine import launch
    from engine.spec import Label, parse_label, problems

    workspace = _workspace(a).ensure()
    data, label, project, wrong = _request(a)
    wrong += [*launch.check(workspace, data), *problems(label, Label)]
    if wrong:
        raise Invalid(wrong)
    if a.server:
        from tui.server_commands import require

        require(a)
    version = launch.create(workspace, data, parse_label(label), project, a.server)
    if a.foreground:
        return _foreground(version, a)
    from engine.servers import anywhere

    if not a.draft:
        anywhere.start(version, **_turn(a))
    if a.follow:
        return follow_version(version, a.json)
    if a.json:
        _json({"version": version.id, "project": version.project.name, "run_dir": str(version.path)})
    elif a.draft:
        _out(f"{version.reference} is a draft. Start it: dojang resume {version.reference}")
    else:
        _out(f"{version.reference} {_started(version, 'is started')}. Watch it: dojang follow {version.reference}")
    return 0


def _turn(a: Arguments) -> dict[str, Literal["queue", "now"]]:
    """When it is to start, where something was asked for."""
    return {"mode": "queue"} if a.queue else {"mode": "now"} if a.now else {}


def _started(version: Version, words_: str) -> str:
    """What has become of one that was just started: it may wait for its turn."""
    row = version.summary()
    return f"is queued: it {row['waiting']['reason']}" if row["waiting"] else words_


def _request(a: Arguments) -> tuple[dict[str, Any], dict[str, Any], str | None, list[Problem]]:
    """Spec, label and project from a spec.toml and the options beside it, which win; and what is wrong with them."""
    data = _spec_file(a.spec) if a.spec else {}
    wrong = []
    label = data.pop("version", {})
    if not isinstance(label, dict):
        wrong.append(Problem("version", "must be a table, [version], with name, tags and memo"))
        label = {}
    for assignment in a.set:
        key, sign, value = assignment.partition("=")
        table, dot, option = key.strip().partition(".")
        if sign and dot and table == "options" and isinstance(data.setdefault("options", {}), dict):
            data["options"][option] = value.strip()
        elif sign:
            data[key.strip()] = _given(key.strip(), value.strip())
        else:
            wrong.append(Problem("--set", f"“{assignment}” is not KEY=VALUE"))
    data.update({k: v for k, v in (("dataset", a.dataset), ("model", a.model)) if v})
    if getattr(a, "preset", None):
        from tui.preset_commands import with_preset

        data = with_preset(a, data)
    label.update({k: v for k, v in (("name", a.name), ("tags", a.tag), ("memo", a.memo)) if v})
    given = label.pop("project", None)
    project = a.project or (None if given is None else str(given))
    try:
        project = project and versions.clean_name(project, "project name")
    except DojangError as e:
        wrong.append(Problem("project", f"{e.message} {e.hint}"))
    return data, label, project, wrong


def _given(name: str, text: str) -> str | None:
    """What `--set name=text` says: “none” empties a setting that may be empty, and is a word to any other."""
    from engine.spec import property_of

    return None if text.lower() in ("", "none") and property_of(name).get("nullable") else text


def _spec_file(path: str) -> dict[str, Any]:
    from engine.files import read_toml

    try:
        return read_toml(Path(path))
    except OSError as e:
        hint = "Give the path of a spec.toml, or use --dataset and --model."
        raise DojangError(f"{path} cannot be read: {e.strerror}.", code="BAD_SPEC", hint=hint) from e


def _foreground(version: Version, a: Arguments) -> int:
    """The worker's own function in this process; a thread reads the log back and prints it."""
    import threading

    from engine import worker
    from engine.servers import local

    lock = local.hold(version)
    try:
        local.take_gpus(version, **_turn(a))
    except DojangError:
        lock.close()
        raise
    done, teller = threading.Event(), _Teller(version, a.json)

    def tell() -> None:
        with suppress(OSError):  # nobody reads any more: the training goes on
            while not done.wait(0.2):
                teller.catch_up()
            teller.catch_up()

    printer = threading.Thread(target=tell, daemon=True)
    printer.start()
    try:
        worker.run_in_terminal(version.path)
    finally:
        done.set()
        printer.join()
        lock.close()
    return _verdict(version, a.json)


def follow(a: Arguments) -> int:
    return follow_version(_workspace(a).version(a.version), a.json)


def follow_version(version: Version, as_json: bool) -> int:
    """Print events as they come until the run is over."""
    from engine.servers import anywhere

    teller = _Teller(version, as_json)
    try:
        with anywhere.watched(version) as mirror:
            while True:
                goes_on = version.alive()  # asked before reading, so that the last words are read too
                teller.say_link(anywhere.link_words(mirror))
                teller.say_waiting(version)
                teller.catch_up()
                if not goes_on:
                    break
                time.sleep(0.2)
        return _verdict(version, as_json)
    except KeyboardInterrupt:
        if version.alive() and not as_json:
            sys.stderr.write(f"\n{version.reference} goes on training. End it: dojang stop {version.reference}\n")
        return 130


class _Teller:
    """Prints what is new in a log: every event as a JSON line, or what a person wants to read of it."""

    def __init__(self, version: Version, as_json: bool) -> None:
        from tui.lines import Lines

        self._path, self._as_json = version.events, as_json
        self._offset, self._lines, self._waits, self._link = 0, Lines(), "", ""

    def say_waiting(self, version: Version) -> None:
        """To a person, why it has not begun, when that changed."""
        reason = version.waiting()["reason"]
        if reason != self._waits and not self._as_json:
            self._waits = reason
            _out(words.clean(f"── queued: {reason}")) if reason else None
            sys.stdout.flush()

    def say_link(self, text: str) -> None:
        """To a person, what keeps a server from being heard, when that changed."""
        if text != self._link and not self._as_json:
            sys.stderr.write(words.clean(f"── {text or 'the server is heard again'}") + "\n")
        self._link = text

    def catch_up(self) -> None:
        while True:
            batch, new = events.follow(self._path, self._offset)
            for event in batch:
                if self._as_json:
                    _out(json.dumps(events.finite(event), ensure_ascii=False))
                else:
                    for line in self._lines.of(event):
                        _out(words.clean(line))
            if new == self._offset:
                break
            self._offset = new
        sys.stdout.flush()


def _verdict(version: Version, as_json: bool) -> int:
    """0 when it is done; else 1, with what happened and what to do."""
    row = version.summary()
    if row["state"] == "done":
        return 0
    hint = {"stopped": "Go on", "paused": "Go on", "draft": "Start it"}.get(row["state"], "Try again")
    error = row["error"] or {
        "code": row["state"].upper(),
        "message": f"{version.reference} is {row['state']}.",
        "hint": f"{hint}: dojang resume {version.reference}",
    }
    complain(DojangError(error["message"], code=error["code"], hint=error["hint"]), as_json)
    return 1


def stop(a: Arguments) -> int:
    from engine.servers import anywhere

    version = _workspace(a).version(a.version)
    queued = version.state(version.progress(skip_steps=True)) == "queued"
    anywhere.request(version, "finish" if a.finish else "stop")
    state = "asked" if a.no_wait else anywhere.wait(version, 3600)
    if a.json:
        _json({"version": version.id, "project": version.project.name, "state": state})
    elif queued:
        _out(f"{version.reference} is taken out of the queue. Start it again: dojang resume {version.reference}")
    elif state == "asked":
        _out(f"{version.reference} was asked to {'finish' if a.finish else 'stop'}.")
    else:
        _out(
            f"{version.reference} is {state}."
            + (f" Go on: dojang resume {version.reference}" if state == "stopped" else "")
        )
    return 0


def resume(a: Arguments) -> int | None:
    from engine.servers import anywhere

    version = _workspace(a).version(a.version)
    if a.stay:
        return _stay(version, a)
    anywhere.resume(version, **_turn(a))
    if a.json:
        _json({"version": version.id, "project": version.project.name, "run_dir": str(version.path)})
    else:
        _out(f"{version.reference} {_started(version, 'goes on')}. Watch it: dojang follow {version.reference}")
    return None


def _stay(version: Version, a: Arguments) -> int:
    """Be its supervisor; 1 unless it is done then. One that is done stays so: containers may be started once too often."""
    from engine.servers import local

    if version.server:
        hint = f"Without --stay: dojang resume {version.reference}"
        raise DojangError(f"{version.reference} trains on {version.server}.", code="USAGE", hint=hint)
    state = version.state(version.progress(skip_steps=True))
    state = state if state == "done" else local.stay(version, **_turn(a))
    _json({"version": version.id, "state": state}) if a.json else _out(f"{version.reference} is {state}.")
    return int(state != "done")


# Versions


def list_versions(a: Arguments) -> None:
    workspace = _workspace(a)
    names = workspace.projects() if a.all else [versions.clean_name(a.project or workspace.current_project)]
    if a.project and not a.all and names[0] not in workspace.projects():
        there = ", ".join(workspace.projects()) or "none yet"
        raise NotFound(f"There is no project “{names[0]}”.", hint=f"There are: {there}.")
    found = [v for name in names for v in workspace.project(name).versions()]
    _catch_up(found)
    rows = versions.summaries(found)
    if a.json:
        return _json(rows)
    if not rows:
        return _out("No version yet. Train one: dojang train --dataset NAME --model yolov8n")
    measured = metrics.columns({r["task"] for r in rows})
    heads = [m.title for m in measured]
    elsewhere = any(r["server"] for r in rows)
    titles = ["version", "name", "state", *(["server"] if elsewhere else []), "model", "data"]
    titles += [f"{heads[0]} val", *heads[1:], "took", "tags"]
    table = [
        [
            r["version"] if not a.all else f"{r['project']}/{r['version']}",
            r["name"] if r["name"] != r["version"] else "",
            words.state(r) + words.as_of(r),
            *([r["server"]] if elsewhere else []),
            r["model"],
            r["dataset"],
            *(words.metric(r["metrics"].get(m.key)) for m in measured),
            words.duration(r["elapsed"]) if r["elapsed"] else words.DASH,
            " ".join(r["tags"]),
        ]
        for r in rows
    ]
    return _table(titles, table, frozenset(range(5 + elsewhere, 6 + elsewhere + len(measured))))


def show(a: Arguments) -> None:
    from tui.lines import describe

    version = _workspace(a).version(a.version)
    _catch_up([version])
    found = versions.show(version)
    if a.json:
        return _json(found)
    return _out("\n".join(words.clean(line) for line in describe(found)))


def _catch_up(found: list[Version]) -> None:
    """Hear of those that train on servers; who cannot be reached is told of, and shown as of when it last was."""
    from engine.servers import anywhere

    for trouble in anywhere.catch_up(found):
        sys.stderr.write(words.clean(f"dojang: {trouble.message}") + "\n")


def log(a: Arguments) -> None:
    version = _workspace(a).version(a.version)
    _catch_up([version])
    text = version.train_log.read_text(errors="replace") if version.train_log.exists() else ""
    if a.json:
        return _json({"path": str(version.train_log), "text": text})
    return _out("\n".join(words.clean(line) for line in text.splitlines()))


def rename(a: Arguments) -> None:
    version = _workspace(a).version(a.version)
    label = version.relabel(name=a.name)
    return (
        _json({"version": version.id, "name": label.name or version.id})
        if a.json
        else _out(f"{version.reference} is called “{label.name or version.id}”.")
    )


def edit(a: Arguments) -> None:
    version = _workspace(a).version(a.version)
    if a.tags is None and a.memo is None:
        raise DojangError("There is nothing to change.", code="BAD_VALUE", hint="Give --tags or --memo.")
    changes = {k: v for k, v in (("tags", a.tags), ("memo", a.memo)) if v is not None}
    label = version.relabel(**changes)
    if a.json:
        return _json({"version": version.id, **label.model_dump()})
    return _out(f"{version.reference}: tags {' '.join(label.tags) or words.DASH}; memo {label.memo or words.DASH}")


def delete(a: Arguments) -> int:
    version = _workspace(a).version(a.version)
    if not a.yes:
        if not sys.stdin.isatty():
            raise DojangError(
                f"Deleting {version.reference} was not confirmed.", code="NOT_CONFIRMED", hint="Add --yes."
            )
        sys.stderr.write(f"Move {version.reference} to the trash? It can be restored. [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    version.delete()
    if a.json:
        _json({"deleted": version.id, "project": version.project.name})
    else:
        _out(f"{version.reference} is in the trash. Bring it back: dojang restore {version.reference}")
    return 0


def restore(a: Arguments) -> None:
    workspace = _workspace(a)
    project, _, wanted = a.version.rpartition("/")
    project = project or workspace.current_project
    for trashed in workspace.trash():
        if trashed.project == project and trashed.version == wanted.upper():
            version = trashed.restore()
            data = {"version": version.id, "project": version.project.name, "run_dir": str(version.path)}
            return _json(data) if a.json else _out(f"{version.reference} is back.")
    raise NotFound(f"There is no {project}/{wanted} in the trash.", hint="`dojang trash` lists what is there.")


def trash(a: Arguments) -> None:
    found = _workspace(a).trash()
    if a.json:
        return _json([{"project": t.project, "version": t.version, "deleted": t.deleted} for t in found])
    if not found:
        return _out("The trash is empty.")
    return _table(["version", "deleted"], [[f"{t.project}/{t.version}", words.when(t.deleted)] for t in found])


# The rest


def models(a: Arguments) -> None:
    from engine import catalog, weights

    workspace = _workspace(a)
    rows = [(m, weights.find(m, workspace)) for m in catalog.models().values()]
    for name, text in plugins.troubles().items():
        sys.stderr.write(words.clean(f"{name}: {text}") + "\n")
    if a.json:
        return _json([{**m.to_json(), "weights_file": str(w) if w else None} for m, w in rows])
    table = [
        [
            m.name,
            m.family,
            m.task,
            f"{m.parameters:.1f} M",
            f"{m.image_size} px",
            str(w) if w else f"{m.pretrained} not here" if m.pretrained else words.DASH,
        ]
        for m, w in rows
    ]
    return _table(["model", "family", "task", "parameters", "size", "pretrained weights"], table, frozenset({3, 4}))


def schema(a: Arguments) -> None:
    from engine.spec import schema as spec_schema

    _json(spec_schema())


def server(a: Arguments) -> None:
    from engine.servers.inventory import machine

    found = machine(_workspace(a).path)
    if a.json:
        return _json(found.to_json())
    _out(f"{found.host}: {found.processor}, {found.cores} cores, load {found.load}")
    _out(
        f"memory {found.memory_free} of {found.memory_total} GiB free; disk {found.disk_free} GiB free at {found.disk_path}"
    )
    for g in found.gpus:
        users = f"; used by {', '.join(g.users)}" if g.users else ""
        _out(f"GPU {g.index} {g.name}: {g.memory_free:.1f} of {g.memory_total:.1f} GiB free{users}")
    return _out(found.gpu_note) if found.gpu_note else None


def project_list(a: Arguments) -> None:
    workspace = _workspace(a)
    current = workspace.current_project
    rows = [
        {"project": n, "current": n == current, "versions": len(workspace.project(n).versions())}
        for n in workspace.projects()
    ]
    if a.json:
        return _json(rows)
    if not rows:
        return _out("No project yet. The first training makes one.")
    return _table(
        ["project", "versions"],
        [[f"{r['project']}{' *' if r['current'] else ''}", str(r["versions"])] for r in rows],
        frozenset({1}),
    )


def project_use(a: Arguments) -> None:
    workspace = _workspace(a).ensure()
    workspace.use(a.name)
    _json({"project": workspace.current_project}) if a.json else _out(
        f"The current project is {workspace.current_project}."
    )


def demo(a: Arguments) -> int:
    from engine.spec import problems
    from tui.demo import DATASET, run

    wrong = problems({"dataset": DATASET, "epochs": a.epochs}) if a.epochs is not None else []
    if wrong:
        raise Invalid(wrong)
    return run(_workspace(a).ensure(), a.epochs, a.json)
