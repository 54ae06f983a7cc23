"""`dojang`: without a command the app, with one what a script needs. Light at start: each command imports its own."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import DojangError, Invalid

EXIT = {
    "NOT_FOUND": 3,
    "RUNNING": 4,
    "NOT_RUNNING": 4,
    "DONE": 4,
    "AMBIGUOUS": 4,
    "NOT_QUEUED": 4,
    "BUSY": 4,
    "DISK_FULL": 5,
    "READ_ONLY": 5,
    "WRITE_FAILED": 5,
    "UNREADABLE": 5,
}
TITLES = {"BAD_SPEC": "this cannot be trained yet:", "BAD_LABEL": "this cannot be kept:"}
EPILOG = """exit codes: 0 fine · 1 the training failed, stopped or was lost, or a check found errors · 2 bad input · 3 not found ·
4 not possible in its present state · 5 a file cannot be written or read · 130 interrupted
A version is named PROJECT/V_0, V_0 in the current project, or by its own name."""


def main(argv: list[str] | None = None) -> int:
    """Entry point. Errors for the person go to stderr, with `--json` as one JSON object."""
    argv = sys.argv[1:] if argv is None else argv
    as_json = "--json" in argv
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets question marks, not a traceback
    try:
        arguments = parser().parse_args(argv, argparse.Namespace(json=False))
        code = int(arguments.run(arguments) or 0)
        sys.stdout.flush()
        return code
    except DojangError as e:
        return complain(e, as_json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `dojang list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        where = f"{os.fsdecode(e.filename)}: " if isinstance(e.filename, (str, bytes)) else ""
        return complain(DojangError(f"{where}{e.strerror or e}.", code="UNREADABLE"), as_json)


def complain(e: DojangError, as_json: bool) -> int:
    """Tell an error on stderr; the exit code that belongs to it."""
    problems = [{"field": p.field, "message": p.message} for p in e.problems] if isinstance(e, Invalid) else []
    if as_json:
        error = {"code": e.code, "message": e.message, "hint": e.hint, "problems": problems}
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        return EXIT.get(e.code, 2)
    from tui.words import clean

    told = [TITLES.get(e.code, "this is not right:"), *(f"  {p['field']}: {p['message']}" for p in problems)]
    lines = told if problems else str(e).splitlines()
    sys.stderr.write("dojang: " + "".join(f"{clean(line)}\n" for line in lines))
    return EXIT.get(e.code, 2)


class _Parser(argparse.ArgumentParser):
    """Wrong usage is an error like any other: told in the same form, as JSON where that was asked for."""

    def error(self, message: str) -> NoReturn:
        text = f"{message[:1].upper()}{message[1:].removesuffix('.')}."
        given, _, choices = message.partition(": invalid choice: ")[2].partition(" (choose from ")
        if choices:
            import difflib
            import re

            given = given.strip("'")
            close = difflib.get_close_matches(given, re.findall(r"[\w-]+", choices), 1)
            text = f"There is no command “{given}”." + (f" Did you mean {close[0]}?" if close else "")
        hint = f"{self.format_usage().strip()}\nMore: {self.prog} --help"
        raise DojangError(text, code="USAGE", hint=hint)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument(
        "--workspace",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder that holds everything (else DOJANG_WORKSPACE)",
    )
    for_scripts = argparse.ArgumentParser(add_help=False, parents=[everywhere])
    for_scripts.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    top = _Parser(
        prog="dojang",
        description="A terminal studio that trains, watches and compares vision models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[for_scripts],
    )
    top.add_argument("--version", action=_Version)
    top.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    top.add_argument("--theme", metavar="NAME", help="colours of the app")
    top.set_defaults(run=_app)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, help: str, handler: str, parents: Any = (for_scripts,), module: str = "commands"
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, parents=list(parents))
        made.set_defaults(run=_lazily(handler, module))
        return made

    _dataset_commands(commands, for_scripts)
    _weights_commands(commands, for_scripts)
    _train_command(command)
    _rate_commands(command)
    _preset_commands(commands, for_scripts)
    _version_commands(command)
    _other_commands(command, commands, for_scripts)
    _kernel_commands(commands, for_scripts)
    _cache_commands(commands, for_scripts)
    _queue_commands(commands, for_scripts)
    return top


def _dataset_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "dataset", help="add, list, show or remove data sets", description="Data sets.", parents=[shared]
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="register a folder; it is only ever read", parents=[shared])
    add.add_argument("path", help="folder of images and labels, or the data.yaml, COCO JSON or CSV that describes it")
    add.add_argument("--name", help="name to register it under (default: the folder's)")
    add.add_argument("--format", metavar="F", help="yolo, voc, coco, labelme, imagefolder or csv (default: found out)")
    add.add_argument(
        "--split", default="80/10/10", metavar="T/V/T", help="shares of train/val/test where the set has none"
    )
    add.add_argument("--seed", type=int, default=0, help="of that split")
    add.set_defaults(run=_lazily("dataset_add"))
    actions.add_parser("list", help="all registered sets", parents=[shared]).set_defaults(run=_lazily("dataset_list"))
    export = actions.add_parser("export", help="write a set in another format, into a new folder", parents=[shared])
    export.add_argument("name")
    export.add_argument("folder", metavar="DIR")
    export.add_argument("--format", metavar="F", required=True, help="yolo, coco or voc")
    export.add_argument("--link", action="store_true", help="links to the images instead of copies")
    export.set_defaults(run=_lazily("dataset_export"))
    check = actions.add_parser(
        "check", help="find what would spoil a training; 1 if there are errors", parents=[shared]
    )
    check.add_argument("name")
    check.add_argument("--image-size", type=int, default=640, metavar="N", help="to be trained at (default: 640)")
    check.add_argument("--export", metavar="FILE", help="also write the findings to a .csv, .tsv or .json file")
    check.set_defaults(run=_lazily("dataset_check"))
    _dataset_version_commands(actions, shared)
    for action, help in (("show", "counts and findings of one set"), ("remove", "forget a set; its folder stays")):
        one = actions.add_parser(action, help=help, parents=[shared])
        one.add_argument("name")
        one.set_defaults(run=_lazily(f"dataset_{action}"))


def _dataset_version_commands(actions: Any, shared: argparse.ArgumentParser) -> None:
    about = "immutable versions of sets: split, classes, preprocessing, augmentation"
    group = actions.add_parser("version", help=about, parents=[shared])
    steps = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    made = {}
    for action, help in (
        ("create", "divide sets anew, merge or drop classes, preprocess and augment images"),
        ("list", "all versions of a set"),
        ("show", "counts and recipe of NAME@NUMBER"),
        ("diff", "where two versions differ"),
        ("delete", "remove a version; its images stay"),
        ("schema", "JSON Schema of its settings"),
    ):
        made[action] = steps.add_parser(action, help=help, parents=[shared])
        if action != "schema":
            made[action].add_argument("name")
        made[action].set_defaults(run=_lazily(f"version_{action}", "dataset_version_commands"))
    made["diff"].add_argument("other")
    create = made["create"]
    create.add_argument("--from", dest="recipe", metavar="RECIPE.toml", help="options given beside it win")
    create.add_argument("--sources", metavar="A,B", help="sets to take (default: NAME)")
    create.add_argument("--split", metavar="S", help="ratio (the default) or existing")
    create.add_argument("--ratio", metavar="T/V/T", help="shares among labelled images (default: 80/10/10)")
    create.add_argument("--val", metavar="SET", help="a set apart that judges")
    create.add_argument("--test", metavar="SET", help="a set apart that reports")
    create.add_argument("--stratify", action=argparse.BooleanOptionalAction, help="by class (default: yes)")
    create.add_argument("--group", action=argparse.BooleanOptionalAction, help="keep near-identical images together")
    create.add_argument("--seed", type=int, metavar="N")
    create.add_argument(
        "--merge", metavar="A,B=C", action="append", default=[], help="one class of several, or a new name"
    )
    create.add_argument("--drop", metavar="CLASS", action="append", default=[], help="leave its objects out")
    create.add_argument("--empty", metavar="E", help="keep (the default) or drop images that lost all objects")
    create.add_argument("--resize", metavar="R", help="stretch, letterbox or crop every image to a square")
    create.add_argument("--size", type=int, metavar="PX", help="its side (default: 640)")
    create.add_argument("--grey", action=argparse.BooleanOptionalAction, help="every image without colour")
    create.add_argument("--copies", type=int, metavar="N", help="varied copies of each training image; see --set")
    create.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, such as flip_horizontal=0.5, several times; see `dojang dataset version schema`",
    )
    create.add_argument("--tag", metavar="T", dest="tags", action="append", default=[])
    create.add_argument("--dry-run", action="store_true", help="only say what it would hold")


def _of_weights(action: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from tui import weights_commands

        return int(getattr(weights_commands, action)(arguments) or 0)

    return run


def _weights_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "weights", help="list, fetch or import weights to start from", description="Weights.", parents=[shared]
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="public weights of every model, and other files", parents=[shared])
    listing.set_defaults(run=_of_weights("show_list"))
    fetch = actions.add_parser("fetch", help="download public weights, once you agree", parents=[shared])
    fetch.add_argument("models", metavar="MODEL", nargs="+", help="see `dojang models`")
    fetch.add_argument("--yes", action="store_true", help="do not ask")
    fetch.set_defaults(run=_of_weights("fetch"))
    take = actions.add_parser("import", help="look a file through and keep a copy in the workspace", parents=[shared])
    take.add_argument("file", metavar="FILE", help="a .pt, .pth or .safetensors")
    take.add_argument("--model", metavar="M", help="refuse it unless it fits this model")
    take.add_argument("--name", metavar="NAME", help="what to call it (default: as it is)")
    take.set_defaults(run=_of_weights("take"))


def _train_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    train = command("train", "start a training", "train")
    _spec_options(train)
    train.add_argument("--project", metavar="P", help="default: the current one")
    train.add_argument("--name", metavar="N")
    train.add_argument("--tag", metavar="T", action="append", default=[], help="may be given several times")
    train.add_argument("--memo", metavar="TEXT")
    where = "where, NAME or NAME/ENTRY for Slurm; see `dojang server list` (default: here)"
    train.add_argument("--server", metavar="S", default="", help=where)
    how = train.add_mutually_exclusive_group()
    how.add_argument("--foreground", action="store_true", help="train in this very process; ends with it")
    how.add_argument("--detach", action="store_true", help="start and return at once (the default)")
    how.add_argument("--draft", action="store_true", help="lay the version down, not started; `resume` starts it")
    how.add_argument("--follow", action="store_true", help="start, then print its progress; Ctrl+C leaves it running")
    _turn_options(train)


def _turn_options(of: argparse.ArgumentParser) -> None:
    """When a training starts; by default it waits for its turn where it needs GPUs."""
    turn = of.add_mutually_exclusive_group()
    turn.add_argument("--queue", action="store_true", help="wait for a turn on the CPU, too; see `dojang queue`")
    turn.add_argument("--now", action="store_true", help="start at once, whatever trains there already")


def _spec_options(of: argparse.ArgumentParser) -> None:
    """What makes a spec on the command line."""
    of.add_argument("spec", nargs="?", help="a spec.toml; options given beside it win")
    of.add_argument("--dataset", metavar="D")
    of.add_argument("--model", metavar="M", help="see `dojang models`")
    of.add_argument(
        "--weights",
        metavar="W",
        dest="set",
        action="append",
        default=[],
        type="weights={}".format,
        help="scratch, pretrained, a file, or a version to train further from",
    )
    of.add_argument("--preset", metavar="NAME", help="begin from these settings; see `dojang preset list`")
    _set_option(of)


def _set_option(of: argparse.ArgumentParser) -> None:
    of.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any setting; see `dojang schema`")


def _steer_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    pause = command(
        "pause", "save and leave the machine to others; `resume` goes on exactly", "pause", module="steer_commands"
    )
    pause.add_argument("version")
    pause.add_argument("--no-wait", action="store_true", help="do not wait until it has")
    extend = command("extend", "have so many epochs in all, also when it is done", "extend", module="steer_commands")
    extend.add_argument("version")
    extend.add_argument("epochs", type=int)
    change = command("change", "change epochs, patience or lr_scale while it runs", "change", module="steer_commands")
    change.add_argument("version")
    change.add_argument("settings", nargs="+", metavar="NAME=NUMBER", help="epochs=80 patience=20 lr_scale=0.5")


def _rate_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    plot = command("lr-plot", "draw the learning rate of every step", "lr_plot", module="lr_commands")
    plot.add_argument("target", metavar="SPEC.toml|VERSION")
    _set_option(plot)
    plot.add_argument("--steps", type=int, metavar="N", help="steps an epoch (default: what the data set gives)")
    about = "try learning rates in a short sweep and suggest one; nothing is kept"
    find = command("lr-find", about, "lr_find", module="lr_commands")
    _spec_options(find)
    find.add_argument("--from", dest="low", type=float, default=1e-7, metavar="LR", help="lowest rate (default: 1e-7)")
    find.add_argument("--to", dest="high", type=float, default=1.0, metavar="LR", help="highest rate (default: 1)")
    find.add_argument("--steps", type=int, default=100, metavar="N", help="of the sweep (default: 100)")
    find.set_defaults(name=None, tag=[], memo=None, project=None)


def _preset_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "preset", help="settings kept under a name", description="Settings kept under a name.", parents=[shared]
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    made = {}
    for action, help in (
        ("list", "your own and those built in"),
        ("show", "the settings of one"),
        ("save", "keep the settings of a spec.toml or a version"),
        ("delete", "remove one of your own"),
    ):
        made[action] = actions.add_parser(action, help=help, parents=[shared])
        made[action].set_defaults(run=_lazily(f"preset_{action}", "preset_commands"))
        if action != "list":
            made[action].add_argument("name")
    made["save"].add_argument("target", metavar="SPEC.toml|VERSION")
    made["save"].add_argument("--about", metavar="TEXT", help="what it is for")
    made["save"].add_argument("--replace", action="store_true", help="in place of one of that name")
    _set_option(made["save"])


def _version_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    listing = command("list", "all versions of a project", "list_versions")
    listing.add_argument("--project", metavar="P")
    listing.add_argument("--all", action="store_true", help="of every project")
    for name, help in (
        ("show", "one version: state, metrics, settings"),
        ("follow", "print a version's progress until it ends"),
        ("resume", "go on from the last checkpoint"),
        ("restore", "bring a deleted version back"),
        ("log", "what the worker printed"),
    ):
        made = command(name, help, name)
        made.add_argument("version", metavar="V")
        if name == "resume":
            _turn_options(made)
            staying = "supervise it from this very process until it ends, for containers and schedulers"
            made.add_argument("--stay", action="store_true", help=staying)
    fetch = command("fetch", "bring a version's weights home from its server", "fetch", module="server_commands")
    fetch.add_argument("version", metavar="V")
    fetch.add_argument("--all", action="store_true", help="the last weights and the checkpoints too")
    _steer_commands(command)
    stop = command("stop", "finish the step, save, stop; `resume` goes on", "stop")
    stop.add_argument("version", metavar="V")
    stop.add_argument("--finish", action="store_true", help="evaluate and keep the best as a done version instead")
    stop.add_argument("--no-wait", action="store_true", help="do not wait until it has stopped")
    rename = command("rename", "give a version a name", "rename")
    rename.add_argument("version", metavar="V")
    rename.add_argument("name", metavar="NAME")
    edit = command("edit", "change tags or memo", "edit")
    edit.add_argument("version", metavar="V")
    edit.add_argument("--tags", metavar="A,B", help="all of its tags, with commas between")
    edit.add_argument("--memo", metavar="TEXT")
    delete = command("delete", "move a version to the trash", "delete")
    delete.add_argument("version", metavar="V")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _other_commands(
    command: Callable[..., argparse.ArgumentParser], commands: Any, shared: argparse.ArgumentParser
) -> None:
    command("trash", "deleted versions", "trash")
    command("models", "every model that can be trained", "models")
    command("schema", "JSON Schema of the spec", "schema")
    _server_commands(commands, shared)
    group = commands.add_parser(
        "project", help="list projects or choose the current one", description="Projects.", parents=[shared]
    )
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    actions.add_parser("list", help="all projects", parents=[shared]).set_defaults(run=_lazily("project_list"))
    use = actions.add_parser("use", help="make a project the current one; made if need be", parents=[shared])
    use.add_argument("name")
    use.set_defaults(run=_lazily("project_use"))
    demo = command("demo", "draw a small data set and train on it, live", "demo")
    demo.add_argument("--epochs", type=int, help="default: what it takes to learn")


def _server_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    about = "this machine: processor, memory, disk, GPUs and who uses them; and other servers to train on"
    group = commands.add_parser("server", help=about, description=about[:1].upper() + about[1:] + ".", parents=[shared])
    group.set_defaults(run=_lazily("server"))
    actions = group.add_subparsers(title="actions", metavar="ACTION")
    made = {}
    for action, help in (
        ("add", "keep a server to train on, reached over SSH"),
        ("list", "every server that was added"),
        ("check", "what is there, step by step; 1 if something keeps it from training"),
        ("login", "log in by hand where it asks for a password, a code or about its key; links then go through that"),
        ("show", "what is written of one, and the versions on it"),
        ("remove", "forget one; what lies on it stays"),
    ):
        made[action] = actions.add_parser(action, help=help, description=help, parents=[shared])
        made[action].set_defaults(run=_lazily(f"server_{action}", "server_commands"))
        if action != "list":
            made[action].add_argument("name")
    made["remove"].add_argument("--force", action="store_true", help="also while versions train there")
    add = made["add"]
    add.add_argument("--host", metavar="H", help="alias of ~/.ssh/config, host or user@host (default: the name)")
    add.add_argument("--user", metavar="U", help="where ~/.ssh/config does not say it")
    add.add_argument("--port", type=int, metavar="N", help="likewise")
    add.add_argument("--folder", action="store_true", help="no host: a folder of this machine, given by --root")
    add.add_argument("--root", metavar="DIR", help="folder there that holds everything (default: ~/.dojang)")
    add.add_argument("--python", metavar="P", help="Python there that has torch (default: an environment is made)")
    add.add_argument("--wheels", metavar="DIR", help="folder here of wheels to make it from, without internet there")
    add.add_argument(
        "--data", metavar="SET=PATH", action="append", default=[], help="images of a set that lie there already"
    )
    add.add_argument(
        "--slurm", metavar="K=V,…", action="append", default=[],
        help="a way to submit to Slurm there: partition=P, and time, gres, qos, account, cpus, memory, constraint, name, "
        "margin (s), driver, line (an option of sbatch, may be repeated); may be given several times",
    )  # fmt: skip
    add.add_argument("--replace", action="store_true", help="in place of one of that name")


def _kernel_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "families of models from outside: installed packages, and programs that you declare"
    group = commands.add_parser("kernel", help=text, description=text[:1].upper() + text[1:] + ".", parents=[shared])
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    made = {}
    for action, help in (
        ("list", "all of them, and whether they can train"),
        ("add", "take in a program's declaration; shows its command and asks"),
        ("accept", "let a declaration run that is new in the workspace or was changed"),
        ("remove", "take a declaration out; its program stays"),
        ("check", "what is wrong with one, with a FILE.toml, or with all; 1 if anything is"),
    ):
        made[action] = actions.add_parser(action, help=help, description=help, parents=[shared])
        made[action].set_defaults(run=_lazily(f"kernel_{action}", "kernel_commands"))
    made["add"].add_argument("file", metavar="FILE.toml")
    made["check"].add_argument("name", nargs="?")
    for action in ("accept", "remove"):
        made[action].add_argument("name")
    for action in ("add", "accept"):
        made[action].add_argument("--yes", action="store_true", help="do not ask")


def _cache_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "what the cache holds, such as prepared images; any of it can be dropped"
    group = commands.add_parser("cache", help=text, description=text[:1].upper() + text[1:] + ".", parents=[shared])
    group.set_defaults(run=_lazily("cache_list", "cache_commands"))
    actions = group.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="everything in it: what for, size, last used", parents=[shared])
    listing.set_defaults(run=_lazily("cache_list", "cache_commands"))
    drop = actions.add_parser("drop", help="remove something; it is made again when it is needed", parents=[shared])
    drop.add_argument("name", nargs="?", help="as listed, or the version whose prepared images are to go")
    drop.add_argument("--all", action="store_true", help="everything that no training uses")
    drop.set_defaults(run=_lazily("cache_drop", "cache_commands"))


def _queue_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "what trains on which GPU, what waits in which order and why; move, hold and cancel what waits"
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--server", metavar="S", default=argparse.SUPPRESS, help="whose queue (default: this machine's)")
    both = [shared, where]
    group = commands.add_parser("queue", help=text, description=text[:1].upper() + text[1:] + ".", parents=both)
    group.set_defaults(run=_lazily("queue_list", "queue_commands"))
    actions = group.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="what trains, and what waits", parents=both)
    listing.set_defaults(run=_lazily("queue_list", "queue_commands"))
    move = actions.add_parser("move", help="have one that waits go earlier or later", parents=both)
    move.add_argument("version", metavar="V", help="a version, or its place such as 2")
    move.add_argument("to", choices=("up", "down", "first", "last"))
    move.set_defaults(run=_lazily("queue_move", "queue_commands"))
    for action, help in (
        ("hold", "let others go first"),
        ("release", "no longer hold it"),
        ("start", "start it in its turn, whoever else computes on its GPUs"),
        ("cancel", "take it out of the queue"),
    ):
        one = actions.add_parser(action, help=help, parents=both)
        one.add_argument("version", metavar="V", help="a version, or its place such as 2")
        one.set_defaults(run=_lazily("queue_change", "queue_commands"), action=action)


class _Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata is slow to load."""

    def __init__(self, option_strings: Any, dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        parser.exit(message=f"dojang {version('dojang')}\n")


def _lazily(handler: str, module: str = "commands") -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from importlib import import_module

        return int(getattr(import_module(f"tui.{module}"), handler)(arguments) or 0)

    return run


def workspace_path(arguments: argparse.Namespace) -> Path:
    """`--workspace`, else `DOJANG_WORKSPACE`, else the user's data folder."""
    given = getattr(arguments, "workspace", None)
    if given == "":
        raise DojangError("--workspace names no folder.", code="BAD_VALUE", hint="Is a variable empty?")
    try:
        if given:
            return Path(given).expanduser().absolute()
        from engine.versions import default_workspace

        return default_workspace().absolute()
    except RuntimeError as e:  # ~nobody
        raise DojangError(
            f"{given or os.environ.get('DOJANG_WORKSPACE')} names a user whom this machine does not know.",
            code="BAD_VALUE",
        ) from e
    except FileNotFoundError as e:
        raise DojangError(
            "This folder is gone, so no path can start here.", code="BAD_VALUE", hint="cd elsewhere."
        ) from e


def _app(arguments: argparse.Namespace) -> int:
    if arguments.json:
        raise DojangError("--json goes with a command.", code="USAGE", hint="dojang --help lists them.")
    from tui.start import open_app

    return open_app(workspace_path(arguments), theme=arguments.theme, mouse=not arguments.no_mouse)


if __name__ == "__main__":
    sys.exit(main())
