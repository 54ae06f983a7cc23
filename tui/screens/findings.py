"""Findings of the doctor where they are: narrowed by words, listed one by one, opened as images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from engine.datasets.kinds import kind
from engine.datasets.model import SEVERITIES, SPLITS, Dataset, Finding, Item
from tui import words
from tui.keys import bind
from tui.screens.base import Page
from tui.screens.dialogs import Pick
from tui.widgets.facts import Fact, Facts
from tui.widgets.filter import Filter
from tui.widgets.narrowing import Query, plain
from tui.widgets.table import Cell, Column, Row, Table

if TYPE_CHECKING:
    from engine.datasets.doctor import Group

PLACES = (
    Column("file", "file", width=24, flex=2, priority=9),
    Column("object", "object", width=6, align="right", priority=7),
    Column("class", "class", width=10, flex=1, priority=5),
    Column("split", "split", width=5, priority=6),
    Column("message", "what", width=24, flex=3, priority=8),
)
HINT = "words, split:val, class:name, found:tiny_box, error"


class Place(NamedTuple):
    """Where a finding is, as far as its image is in the set."""

    split: str = ""
    of: str = ""  # the class of the object, or of an image that has one as a whole
    classes: tuple[str, ...] = ()  # all that the image shows
    shown: bool = False  # whether the image is in the set, so that it can be opened


class Places:
    """Where each finding is; made once, in a thread, since it goes through every image of the set."""

    def __init__(self, dataset: Dataset, items: Iterable[Item], groups: Iterable[Group]) -> None:
        wanted = {path for group in groups for f in group.findings for path in (f.image or f.file, f.other) if path}
        self._items = {item.path: item for item in items if item.path in wanted}
        self._classes = [plain(name) for name in dataset.classes]
        self._names = dataset.classes

    def __contains__(self, path: str) -> bool:
        return path in self._items

    def of(self, finding: Finding) -> Place:
        item = self._items.get(finding.image or finding.file)
        if item is None:
            return Place()
        held = tuple(self._names[c] for c in sorted(item.classes))
        number = self.object(finding)
        if number:
            return Place(item.split, self._names[item.boxes[number - 1].cls], held, True)
        return Place(item.split, held[0] if item.label is not None else "", held, True)

    def object(self, finding: Finding) -> int | None:
        """The number of the box among those that the image is shown with; None where it is not one of them.

        Readers number what is in the file, of which some may be left out; only findings of the image itself count boxes.
        """
        item = self._items.get(finding.file)
        fits = item and finding.object and finding.object <= len(item.boxes)
        return finding.object if fits else None

    def fits(self, finding: Finding, query: Query) -> bool:
        """Whether the finding has all that `query` asks for."""
        place = self.of(finding)
        held = [plain(name) for name in ([place.of] if self.object(finding) else place.classes)]
        said = plain(finding.message)
        if any(split != place.split for split in query.splits):
            return False
        if any(name not in held and (finding.file or name not in said) for name in query.classes):
            return False
        if any(code not in (plain(finding.code), "any") for code in query.found):
            return False
        told = " ".join(
            (finding.severity, finding.code, plain(kind(finding.code).title), plain(finding.file), plain(finding.image))
        )
        told = " ".join((told, place.split, *held, said))
        return all(name in told for name in query.names)

    def narrowed(self, group: Group, query: Query) -> Group:
        """The group with only what fits; its counts are then of those findings that are listed."""
        if query.empty:
            return group
        found = tuple(finding for finding in group.findings if self.fits(finding, query))
        files = {finding.image or finding.file for finding in found} - {""}
        return replace(group, findings=found, count=len(found), files=len(files))

    def choices(self, groups: Iterable[Group]) -> list[tuple[str, str, str]]:
        """What can be narrowed to by a key: what to type for it, a word for it, how many findings."""
        severities, splits, classes = Counter[str](), Counter[str](), Counter[str]()
        for group in groups:
            for finding in group.findings:
                place = self.of(finding)
                severities[finding.severity] += 1
                splits[place.split] += 1
                classes.update([place.of] if place.of else ())
        rows = [("", "all", severities.total())]
        rows += [(severity, severity, severities[severity]) for severity in SEVERITIES if severities[severity]]
        rows += [(f"split:{split}", split, splits[split]) for split in SPLITS if splits[split]]
        rows += [
            (f'class:"{name}"' if " " in name else f"class:{name}", words.clean(name), many)
            for name, many in classes.most_common()
        ]
        return [(typed, word, words.plural(many, "finding")) for typed, word, many in rows]


class FindingsScreen(Page):
    """Every finding of one kind; Enter opens the image where it was found."""

    HELP_TITLE = "Findings"
    HELP_TEXT = (
        "Every place where this was found. Enter shows the image with its labels, the object in question in full light. "
        '/ narrows by words, which may be split:val or class:"red cell"; o offers what there is.'
    )
    CSS = """
    FindingsScreen #said { height: 5; padding: 0 1; border-top: hkey $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", tooltip="all again, then back to the kinds"),
        Binding("enter", "open", "image", tooltip="the image, at this finding"),
        Binding("slash", "search", "search", tooltip="by file, split, class, or words of the message"),
        bind("o", "only", "only", help="only a split or a class"),
    ]

    def __init__(self, dataset: Dataset, group: Group, places: Places, text: str = "") -> None:
        super().__init__()
        self.dataset, self.group, self._places, self._text = dataset, group, places, text

    def body(self) -> Iterator[Widget]:
        yield Filter(self._text, placeholder=HINT, id="search")
        yield Table(PLACES, empty="Nothing fits.", id="places")
        with VerticalScroll(id="said", can_focus=False):
            yield Facts(id="facts")

    def on_mount(self) -> None:
        self.query_one(Filter).set_class(bool(self._text), "open")
        findings = self.group.findings
        told = {"object": any(f.object for f in findings), "class": any(self._places.of(f).of for f in findings)}
        if self.group.count > len(findings):
            text = f"Nothing fits among the first {len(findings):,}; the others are only counted."
            self.query_one(Table).set_empty(text)
        self.query_one(Table).set_columns([c for c in PLACES if told.get(c.key, True)])
        self.query_one(Table).focus()
        self._list(self._text)

    def _list(self, text: str) -> None:
        query = Query.of(text)
        shown = [(n, f) for n, f in enumerate(self.group.findings) if self._places.fits(f, query)]
        self.query_one(Table).set_rows([self._row(n, f) for n, f in shown])
        whole = len(shown) == self.group.count
        left = words.plural(len(shown), "finding") if whole else f"{len(shown)} of {self.group.count}"
        name = words.clean(self.dataset.name)
        head = [("dojang", "current"), (f"  {self.group.kind.title}", "title"), (f"  {name}", "muted")]
        self.title_bar.show(head, [(left, "muted")])
        self._say()

    def _row(self, number: int, finding: Finding) -> Row:
        place = self._places.of(finding)
        cells: dict[str, Cell] = {
            "file": words.clean(finding.file) or Content.styled("the whole set", "$foreground-muted"),
            "object": str(finding.object or ""),
            "class": words.clean(place.of),
            "split": place.split,
            "message": words.clean(finding.message),
        }
        return Row(str(number), cells)

    @property
    def finding(self) -> Finding | None:
        key = self.query_one(Table).cursor_key
        return None if key is None else self.group.findings[int(key)]

    @on(Table.Highlighted)
    def _say(self) -> None:
        """The whole of what a narrow line cuts off."""
        finding = self.finding
        lines: list[Fact] = []
        if finding:
            lines.append((Content.styled(words.clean(finding.where) or "the whole set", "bold"), 2))
            lines.append(Content(words.clean(finding.message)))
            lines.append(Content.styled(self.group.kind.remedy, "$foreground-muted"))
        self.query_one(Facts).show(lines)

    @on(Filter.Changed)
    def _typed(self, event: Filter.Changed) -> None:
        self._list(event.value)

    def action_search(self) -> None:
        self.query_one(Filter).open()

    @work
    async def action_only(self) -> None:
        await narrow_by_key(self, self._places.choices([self.group]))

    def action_back(self) -> None:
        if self.query_one(Filter).value:
            self.query_one(Filter).action_clear()
        else:
            self.dismiss(None)

    @on(Table.Selected)
    def action_open(self) -> None:
        if self.finding:
            open_finding(self, self.dataset, self.finding, self._shown(), self._places, self.group.kind.title)

    def _shown(self) -> list[Finding]:
        query = Query.of(self.query_one(Filter).value)
        return [f for f in self.group.findings if self._places.fits(f, query)]


async def narrow_by_key(page: Page, choices: Sequence[tuple[str, str, str]]) -> None:
    """Let a person choose what to narrow to, and type it for them."""
    filter = page.query_one(Filter)
    answer = await page.app.push_screen_wait(Pick("Only", choices, filter.value))
    if answer is not None:
        filter.value = answer
        filter.action_to_list()


def open_finding(
    page: Page, dataset: Dataset, finding: Finding, beside: Sequence[Finding], places: Places, title: str
) -> None:
    """Show the image of a finding, and by the arrow keys those of the findings `beside` it.

    Two images that have to do with each other are shown by themselves.
    """
    from tui.screens.gallery import open_images

    path = finding.image or finding.file
    if not path:
        open_images(page.app, dataset.name)
    elif path not in places:
        where = words.clean(str(dataset.root / finding.file))
        page.notify(f"It is not used, so there is no image to show. It is {where}", markup=False)
    elif finding.other in places:
        open_images(page.app, dataset.name, paths=[path, finding.other], at=path, title=title)
    else:
        paths = dict.fromkeys(f.image or f.file for f in beside)
        number = places.object(finding)
        open_images(
            page.app, dataset.name, paths=[p for p in paths if p in places], at=path, object=number, title=title
        )


__all__ = ["FindingsScreen", "Places", "narrow_by_key"]
