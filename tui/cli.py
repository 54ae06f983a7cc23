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

    def command(name: str, help: str, handler: str, parents: Any = (for_scripts,)) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, parents=list(parents))
        made.set_defaults(run=_lazily(handler))
        return made

    _dataset_commands(commands, for_scripts)
    _train_command(command)
    _version_commands(command)
    _other_commands(command, commands, for_scripts)
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
    for action, help in (("show", "counts and findings of one set"), ("remove", "forget a set; its folder stays")):
        one = actions.add_parser(action, help=help, parents=[shared])
        one.add_argument("name")
        one.set_defaults(run=_lazily(f"dataset_{action}"))


def _train_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    train = command("train", "start a training", "train")
    train.add_argument("spec", nargs="?", help="a spec.toml; options given beside it win")
    train.add_argument("--dataset", metavar="D")
    train.add_argument("--model", metavar="M", help="see `dojang models`")
    train.add_argument("--project", metavar="P", help="default: the current one")
    train.add_argument("--name", metavar="N")
    train.add_argument("--tag", metavar="T", action="append", default=[], help="may be given several times")
    train.add_argument("--memo", metavar="TEXT")
    train.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting; see `dojang schema`"
    )
    how = train.add_mutually_exclusive_group()
    how.add_argument("--foreground", action="store_true", help="train in this very process; ends with it")
    how.add_argument("--detach", action="store_true", help="start and return at once (the default)")
    how.add_argument("--follow", action="store_true", help="start, then print its progress; Ctrl+C leaves it running")


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
        command(name, help, name).add_argument("version", metavar="V")
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
    command("server", "this machine: processor, memory, disk, GPUs and who uses them", "server")
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


class _Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata is slow to load."""

    def __init__(self, option_strings: Any, dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        parser.exit(message=f"dojang {version('dojang')}\n")


def _lazily(handler: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from tui import commands

        return int(getattr(commands, handler)(arguments) or 0)

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
