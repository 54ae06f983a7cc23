"""Adding and changing a server: an alias of the person's ssh settings, another host, or a folder of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import DojangError, Invalid
from engine.servers import boxes, entries
from engine.servers.boxes import Box
from tui import words
from tui.screens.dialogs import Ask, Pick

if TYPE_CHECKING:
    from tui.screens.base import Page

OTHER, FOLDER = "\0other", "\0folder"
FIELDS = (
    ("name", "Name here", "letters, digits and . _ -"),
    ("host", "Host or alias of ~/.ssh/config", "gpu1, or kim@gpu1.example.org"),
    ("port", "Port", "as ssh says"),
    ("root", "Folder there that holds everything", boxes.ROOT),
    ("python", "Python there that has torch", "empty: an environment is made there"),
    ("wheels", "Folder here of wheels, for a server without internet", "empty: packages are fetched there"),
    ("slurm", "Slurm there, each way after a ;", "partition=gpu,time=1-00:00:00; partition=debug,time=30"),
)


async def add(page: Page) -> Box | None:
    """Ask for a server and keep it; None when the person thought better of it. In a worker."""
    from engine.servers import ssh_config

    known = {b.host for b in boxes.listed(page.dojang.workspace.path)[0]}
    aliases = [a for a in ssh_config.aliases() if boxes.HOST.fullmatch(a.name) and a.name not in known]
    chosen = OTHER
    if aliases:
        options = [(a.name, words.clean(a.name), words.clean(_note(a.user, a.host))) for a in aliases]
        more = [
            (OTHER, "another host", "by its name or address"),
            (FOLDER, "a folder of this machine", "to try it out"),
        ]
        picked = await page.app.push_screen_wait(Pick("Add a server", [*options, *more]))
        if picked is None:
            return None
        chosen = picked
    given = {} if chosen in (OTHER, FOLDER) else {"name": _name(chosen), "host": chosen}
    return await _form(page, "Add a server", given, folder=chosen == FOLDER)


async def change(page: Page, box: Box) -> Box | None:
    """The same of one that there is; where its data lie stays as it is."""
    given = {name: str(value) for name, value in box.to_json().items() if name != "data" and value}
    given["slurm"] = "; ".join(entries.text(entry) for entry in box.slurm)
    return await _form(page, f"Change {box.name}", given, folder=not box.host, before=box)


def _note(user: str, host: str) -> str:
    return f"{user}@{host}" if user and host else user or host


def _name(alias: str) -> str:
    found = "".join(c if c.isalnum() or c in "._-" else "-" for c in alias)[:32].lstrip("._-")
    return found if boxes.NAME.fullmatch(found) else ""


async def _form(
    page: Page, title: str, given: dict[str, str], *, folder: bool, before: Box | None = None
) -> Box | None:
    workspace = page.dojang.workspace.path
    taken = {b.name for b in boxes.listed(workspace)[0]} - {before.name if before else ""}
    left_out = {"host", "port"} if folder else set()
    if before:
        left_out.add("name")
    fields = [(key, label, given.get(key, ""), help) for key, label, help in FIELDS if key not in left_out]

    def data_of(values: dict[str, str]) -> dict[str, Any]:
        """Raises Invalid for Slurm's alone."""
        data: dict[str, Any] = {k: v.strip() for k, v in values.items() if v.strip()}
        if "slurm" in data:
            data["slurm"] = [entries.parse(way.strip()) for way in data["slurm"].split(";") if way.strip()]
        if before:
            rest = {k: v for k, v in before.to_json().items() if v and (k not in values)}
            data = {**rest, **data, "name": before.name}
        if str(data.get("port", "")).isdecimal():
            data["port"] = int(data["port"])
        if data.get("host") and "@" in str(data["host"]) and not data.get("user"):
            data["user"], _, data["host"] = str(data["host"]).rpartition("@")
        return data

    def check(values: dict[str, str]) -> dict[str, str]:
        try:
            data = data_of(values)
        except Invalid as e:
            return {"slurm": e.problems[0].message}
        wrong = {p.field if p.field != "user" else "host": p.message for p in boxes.problems(data)}
        if not folder and not data.get("host"):
            wrong["host"] = "is missing"
        if data.get("name") in taken:
            wrong["name"] = "is taken by another server"
        if folder and not data.get("root"):
            wrong["root"] = "is missing: a folder of this machine, such as /data/dojang"
        return wrong

    answer = await page.app.push_screen_wait(Ask(title, fields, check, ok="Save" if before else "Add"))
    if answer is None:
        return None
    try:
        box = boxes.make(data_of(answer))
        boxes.add(workspace, box, replace=before is not None)
    except DojangError as e:
        page.complain(e)
        return None
    page.dojang.fleet.renew()
    return box


__all__ = ["add", "change"]
