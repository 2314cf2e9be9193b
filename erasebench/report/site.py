"""What every page of a report is made with: its contents, its templates, links between pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from erasebench import __version__
from erasebench.report import summary
from erasebench.report.browser import Rows
from erasebench.report.names import Names
from erasebench.report.runs import Run
from erasebench.report.telling import TellingPair
from erasebench.runs.sweep import store_option
from erasebench.store import Store
from erasebench.tables.layout import ABSENT, EMPTY
from erasebench.tables.numbers import Numbers
from erasebench.tables.tabulate import Joint

PAGES = ("index", "images", "methods", "provenance", "published")


@dataclass(frozen=True)
class Contents:
    """All that the pages are made of.

    Attributes:
        folder: where they go.
        runs: what they are about.
        joint: the runs' plan and numbers.
        numbers: all that the tables say.
        store: where images and edits are.
        classifier: whose answers the image browser shows.
        sensitive: kinds of task whose images are blurred.
        images: how many the runs have.
        thumbnails: the keys of those that are still there.
        seen: by image key, whether its prompt's concept is recognised.
        unsafe: keys of images in which something unsafe came instead of it.
        telling: the image pairs of the first page.
        rows: prompts with the images of all erasers, as the image browser has them.
        plugins: modules of the user's own that may be looked at.
    """

    folder: Path
    runs: Sequence[Run]
    joint: Joint
    numbers: Numbers
    store: Store
    rows: Rows
    classifier: str
    sensitive: set[str]
    images: int
    thumbnails: Set[str]
    seen: Mapping[str, bool]
    unsafe: Set[str] = frozenset()
    telling: Sequence[TellingPair] = ()
    plugins: Sequence[str] = ()


@dataclass(frozen=True)
class Link:
    """A page: its file, what it is called, and a word on what is there."""

    href: str
    text: str
    about: str = ""


@dataclass(frozen=True)
class Drawn:
    """A figure as it stands in a page; the same one for papers has its name."""

    name: str
    title: str
    svg: Markup


def environment() -> Environment:
    """Templates in which every value is escaped, and a name that is not there is an error."""
    templates = Environment(
        loader=PackageLoader("erasebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["breakable"] = _breakable
    templates.filters["number_columns"] = _number_columns
    return templates


def _breakable(text: str) -> Markup:
    """A name that may go on in a new line after each underscore."""
    return Markup("_<wbr>").join(text.split("_"))


def _number_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers, or nothing: they stand to the right."""
    words = ("", EMPTY, ABSENT)
    return [all(cell in words or cell[0] in "+-<0123456789" for cell in column) for column in zip(*rows, strict=True)]


def site_of(
    runs: Sequence[Run], nav: list[Link], store: Store, joint: Joint | None = None, incomplete: bool = False
) -> dict[str, Any]:
    """What the frame of every page says."""
    return {
        "title": "Concept erasure",
        "heading": summary.heading(runs, joint),
        "version": __version__,
        "runs": [run.name for run in runs],
        "nav": nav,
        "note": next((run.about.note for run in runs if run.about and run.about.note), ""),
        "embedded": all(run.embedded for run in runs),
        "incomplete": incomplete,
        "store_option": store_option(store.root),
    }


@dataclass(frozen=True)
class Writer:
    """Writes the pages of one report.

    Attributes:
        folder: where they go.
        templates: see :func:`environment`.
        site: see :func:`site_of`.
        names: of files.
    """

    folder: Path
    templates: Environment
    site: dict[str, Any]
    names: Names

    def __call__(self, template: str, name: str, **values: Any) -> None:
        """Fill a template into the file ``name``."""
        text = self.templates.get_template(template).render(site=self.site, here=name, **values)
        (self.folder / name).write_text(text, encoding="utf-8")

    def kind_page(self, kind: str) -> str:
        """The file of a kind."""
        return f"{self.names(kind, kind)}.html"

    def task_page(self, kind: str, task: str) -> str:
        """The file of one task."""
        return f"{self.names((kind, task), f'{kind} {task}')}.html"

    def concept_page(self, kind: str, concept: str) -> str:
        """The file of one concept."""
        return f"{self.names(('concept', kind, concept), f'{kind} concept {concept}')}.html"

    def method_page(self, label: str) -> str:
        """The file of one eraser."""
        return f"{self.names(('method', label), f'method {label}')}.html"


def fragment(**chosen: str) -> str:
    """The part of a link to the image browser that says what to show."""
    return urlencode(chosen)


def table_files_name(kind: str) -> str:
    """The name that :func:`erasebench.tables.layout.write_tables` gives the files of a kind."""
    return Names()(kind, kind)
