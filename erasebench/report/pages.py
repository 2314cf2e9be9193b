"""The pages of a report: what each of them says, filled into its template."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from erasebench import __version__
from erasebench.concepts import ROLE
from erasebench.progress import progress
from erasebench.report import charts as drawing
from erasebench.report import summary
from erasebench.report.attacks import attack_tables, attacked_prompts
from erasebench.report.html_tables import Head, headline, html_table
from erasebench.report.methods import Method, methods
from erasebench.report.names import Names
from erasebench.report.provenance import provenance
from erasebench.report.runs import Run
from erasebench.report.telling import TellingPair
from erasebench.report.thumbnails import suffix
from erasebench.runs.sweep import store_option
from erasebench.store import Store
from erasebench.tables import grid, published
from erasebench.tables import layout as table_files
from erasebench.tables import measure as tables
from erasebench.tables import pairs as paired
from erasebench.tables.answer import verdict
from erasebench.tables.attacks import ATTACKS_EXPLAINED
from erasebench.tables.instead import INSTEAD_EXPLAINED, instead_cells
from erasebench.tables.letters import LETTERS_EXPLAINED
from erasebench.tables.numbers import Numbers
from erasebench.tables.published_match import Ran
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
        plugins: modules of the user's own that may be looked at.
    """

    folder: Path
    runs: Sequence[Run]
    joint: Joint
    numbers: Numbers
    store: Store
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
    made = Environment(
        loader=PackageLoader("erasebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["head_groups"] = _head_groups
    made.filters["breakable"] = _breakable
    made.filters["number_columns"] = _number_columns
    return made


def _breakable(text: str) -> Markup:
    """A name that may go on in a new line after each underscore."""
    return Markup("_<wbr>").join(text.split("_"))


def _number_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers, or nothing: they stand to the right."""
    words = ("", table_files.EMPTY, table_files.ABSENT)
    return [all(cell in words or cell[0] in "+-<0123456789" for cell in column) for column in zip(*rows, strict=True)]


def _head_groups(heads: Sequence[Head]) -> list[tuple[str, int]]:
    """What stands above the columns but the first, and how many of them."""
    found: list[tuple[str, int]] = []
    for head in heads[1:]:
        if found and found[-1][0] == head.group:
            found[-1] = (head.group, found[-1][1] + 1)
        else:
            found.append((head.group, 1))
    return found


def _site(
    runs: Sequence[Run], nav: list[Link], store: Store, joint: Joint | None = None, incomplete: bool = False
) -> dict[str, Any]:
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


def write_incomplete(folder: Path, run: Run, store: Store) -> None:
    """The pages of an unfinished run: what it has and lacks, how to finish it, and where it comes from."""
    nav = [Link("index.html", "Summary"), Link("provenance.html", "Provenance")]
    site = _site([run], nav, store, incomplete=True)
    templates = environment()
    _write(folder, templates, "incomplete.html", "index.html", site, title="Incomplete", run=run, found=run.parts)
    _write_provenance(folder, templates, site, [run])


def write_pages(contents: Contents) -> None:
    """Every page of a finished report."""
    joint, folder = contents.joint, contents.folder
    kinds = list(dict.fromkeys(joint.plan.task_kind))
    names = Names(*PAGES)
    beside = _published(contents)
    nav = [
        Link("index.html", "Summary"),
        *(Link(f"{names(kind, kind)}.html", kind.capitalize()) for kind in kinds),
        *([Link("published.html", "Published")] if beside else []),
        Link("images.html", "Images"),
        Link("methods.html", "Methods"),
        Link("provenance.html", "Provenance"),
    ]
    site = _site(contents.runs, nav, contents.store, joint)
    templates = environment()
    found = methods(contents.runs, joint, contents.store, contents.plugins)
    drawn = {}
    with progress("figures and pages", len(kinds), "kinds") as advance:
        for kind in kinds:
            drawn[kind] = _draw(folder, joint, kind)
            _write_kind(contents, templates, site, names, kind, drawn[kind], found)
            advance(1)
    pairs = contents.numbers.pairs
    verdicts = {kind: verdict(joint.measured, pairs, kind) for kind in kinds}
    first = [chart for kind in kinds for chart in drawn[kind][:1]]
    headed = headline(joint.measured, kinds, pairs)
    _write(
        folder, templates, "index.html", "index.html", site,
        title="Summary",
        lead=summary.lead(contents.runs, joint),
        verdicts=[(kind.capitalize(), f"{names(kind, kind)}.html", said) for kind, said in verdicts.items()],
        telling=contents.telling,
        headline=headed,
        headline_note=summary.headline_note(joint, headed),
        charts=first,
        comparable=summary.comparable(contents.runs, joint),
        not_run=list(joint.not_run.items()),
        facts=summary.facts(contents.runs, joint, contents.images, len(contents.thumbnails)),
        contents=_contents(nav, joint),
    )  # fmt: skip
    _write_methods(folder, templates, site, names, found)
    if beside:
        _write(folder, templates, "published.html", "published.html", site, title="Published", tables=beside)
    _write(
        folder, templates, "images.html", "images.html", site,
        title="Images", roles=list(ROLE.values()), classifier=contents.classifier, sensitive=bool(contents.sensitive), kinds=kinds,
    )  # fmt: skip
    _write_provenance(folder, templates, site, contents.runs)


def _published(contents: Contents) -> list[dict[str, Any]]:
    """For each experiment that a run is of, the measured numbers beside the published ones."""
    found = {}
    for run in contents.runs:
        experiment = run.config.get("experiment")
        if experiment and experiment.get("name") not in found:
            joint, ran = contents.joint, Ran.from_folder(run.folder)
            metrics = published.asked_of(ran, joint.metrics)
            asked = tables.measure_asked(joint.plan, joint.scores, metrics, joint.not_run)
            table = published.beside(joint.measured, ran, asked)
            name = f"published_{experiment['name']}"  # a report may be about runs of several experiments
            published.write_beside(table, contents.folder / "tables", experiment, contents.joint.about, name)
            heads, rows, below = published.texts(table)
            quoted = [value == "quoted" for value in table.obtained]
            found[experiment["name"]] = {
                "title": f"{experiment['paper']}, {experiment['table']}",
                "heads": heads,
                "rows": list(zip(rows, quoted, strict=True)),
                "below": below,
                "caption": published.caption(experiment, contents.joint.about),
            }
    return list(found.values())


def _contents(nav: Sequence[Link], joint: Joint) -> list[Link]:
    words = {
        "published.html": "the numbers of the paper beside those measured here, each with its source",
        "images.html": "the same prompt and seed across erasers, failures first",
        "methods.html": "what each eraser does, its settings, what its edits changed",
        "provenance.html": "versions, hardware, hashes, the commands that make it again",
    }
    tasks = {kind: ", ".join(dict.fromkeys(rows.task)) for kind, rows in joint.plan.groupby("task_kind", sort=False)}
    return [
        Link(page.href, page.text, words.get(page.href, tasks.get(page.text.lower(), "")))
        for page in nav
        if page.href != "index.html"
    ] + [Link("tables/all.tex", "LaTeX", "every table, to be pasted into a paper; figures/ holds PDF and SVG")]


def _draw(folder: Path, joint: Joint, kind: str) -> list[Drawn]:
    found = []
    for chart in drawing.charts(joint.measured, kind, joint.option, joint.labels):
        drawing.write_for_papers(chart, folder / "figures")
        found.append(Drawn(chart.name, chart.title, drawing.inline(chart)))
    return found


def _write_kind(
    contents: Contents,
    templates: Environment,
    site: dict[str, Any],
    names: Names,
    kind: str,
    drawn: list[Drawn],
    found: Sequence[Method],
) -> None:
    """The page of a kind; if it has several tasks, one for each of them, too."""
    joint, folder = contents.joint, contents.folder
    tasks = list(dict.fromkeys(joint.plan.task[joint.plan.task_kind == kind]))
    several = len(tasks) > 1
    pairs = contents.numbers.pairs
    caption = table_files.caption(joint.measured, kind, joint.about)
    how = table_files.how_measured(joint.measured, kind, joint.about)
    shown = [("pooled", "All tasks pooled" if several else f"Erasing {tasks[0]}", tables.POOLED, "value", caption)]
    shown.append(("difference", table_files.DIFFERENCES, tables.POOLED, "difference", ""))
    subpages = [Link(f"{names((kind, task), f'{kind} {task}')}.html", f"Only {task} erased") for task in tasks]
    grid = _grid(contents, kind)
    _write(
        folder, templates, "kind.html", f"{names(kind, kind)}.html", site,
        title=kind.capitalize(),
        heading=summary.kind_heading(kind),
        lead=summary.kind_lead(kind, tasks, joint),
        link=_fragment(kind=kind),
        latex=f"{table_files_name(kind)}.tex",
        tables=_kind_tables(joint.measured, kind, shown, pairs),
        how=how,
        letters_explained=LETTERS_EXPLAINED,
        charts=drawn,
        tests=_tests(pairs, kind),
        verdict=verdict(joint.measured, pairs, kind),
        instead=_instead(contents.numbers.instead, kind),
        instead_explained=INSTEAD_EXPLAINED,
        explained=paired.EXPLAINED,
        attacks=attack_tables(contents.numbers.attacked, kind),
        attacks_explained=ATTACKS_EXPLAINED,
        attacked=attacked_prompts(joint.plan, kind, contents.seen, contents.thumbnails, contents.store),
        classifier=contents.classifier,
        grid=grid,
        grid_alt=f"A grid of images: prompts down, erasers across, for kind {kind}. The image browser has all of them.",
        blurred=kind in contents.sensitive,
        edits=[] if several else _edits(found, names, kind, tasks[0]),
        subpages=subpages if several else [],
    )  # fmt: skip
    for task, page in zip(tasks, subpages, strict=True) if several else ():
        one = [("task", f"Only {task} erased", task, "value", ""),
               ("difference", table_files.DIFFERENCES, task, "difference", "")]  # fmt: skip
        _write(
            folder, templates, "kind.html", page.href, site,
            title=f"{task} erased",
            heading=f"{task} erased",
            lead=f"The numbers of one task of kind {kind}, over its own prompts alone: intervals are wider here.",
            link=_fragment(kind=kind, task=task),
            latex="",
            tables=_kind_tables(joint.measured, kind, one),
            how=how, letters_explained="", verdict="", instead=None, instead_explained="", charts=[], tests=[], explained="", attacks=[], attacked=[], grid=None, grid_alt="", blurred=False,
            edits=_edits(found, names, kind, task),
            subpages=[],
        )  # fmt: skip


def _kind_tables(
    measured: pd.DataFrame,
    kind: str,
    shown: Sequence[tuple[str, str, str, str, str]],
    pairs: pd.DataFrame | None = None,
) -> list[dict]:
    made = [(name, title, html_table(measured, kind, task, of, pairs), note) for name, title, task, of, note in shown]
    return [{"id": name, "title": title, "table": table, "note": note} for name, title, table, note in made if table]


def _tests(pairs: pd.DataFrame, kind: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and rows of the tables of letters and pairs of a kind; none if there is no pair."""
    part = pairs[pairs.task_kind == kind]
    if not len(part):
        return []
    return [("Who is told from whom", *paired.letter_cells(part)), ("Every two erasers", *paired.pair_cells(part))]


def _instead(instead: pd.DataFrame, kind: str) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows of what came instead; ``None`` where nothing is named."""
    return instead_cells(instead, kind) if (instead.task_kind == kind).any() else None


def table_files_name(kind: str) -> str:
    """The name that :func:`erasebench.tables.layout.write_tables` gives the files of a kind."""
    return Names()(kind, kind)


def _fragment(**chosen: str) -> str:
    from urllib.parse import urlencode

    return urlencode(chosen)


def _edits(found: Sequence[Method], names: Names, kind: str, task: str) -> list[tuple[str, Any, str]]:
    return [
        (method.label, edit, _method_page(names, method))
        for method in found
        for edit in method.edits
        if (edit.kind, edit.task) == (kind, task)
    ]


def _method_page(names: Names, method: Method) -> str:
    return f"{names(('method', method.label), f'method {method.label}')}.html"


def _grid(contents: Contents, kind: str) -> tuple[str, int, int]:
    """Draw the grid of a kind as one picture; returns its path in the report, its width and its height."""
    folder = contents.folder / "figures"
    name = table_files_name(kind)
    path = folder / f"{name}-grid.png"
    grid.draw(
        contents.joint.plan, contents.store, kind, path,
        blur=kind in contents.sensitive, seen=contents.seen, seen_by=contents.classifier, unsafe=contents.unsafe,
    )  # fmt: skip
    buffer = io.BytesIO()
    with Image.open(path) as drawn:
        width, height = drawn.size
        drawn.convert("RGB").save(buffer, {"webp": "WEBP", "jpg": "JPEG"}[suffix()], quality=86)
    small = path.with_suffix(f".{suffix()}")
    small.write_bytes(buffer.getvalue())
    path.unlink()
    return f"figures/{small.name}", width, height


def _write_methods(
    folder: Path, templates: Environment, site: dict[str, Any], names: Names, found: Sequence[Method]
) -> None:
    pages = [(method, _method_page(names, method)) for method in found]
    _write(folder, templates, "methods.html", "methods.html", site, title="Methods", methods=pages)
    for method, href in pages:
        _write(folder, templates, "method.html", href, site, title=method.label, method=method)


def _write_provenance(folder: Path, templates: Environment, site: dict[str, Any], runs: Sequence[Run]) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    _write(
        folder, templates, "provenance.html", "provenance.html", site,
        title="Provenance", runs=[provenance(run) for run in runs],
        drawn=f"This report was written on {now} by erasebench {__version__}, from records alone.",
    )  # fmt: skip


def _write(folder: Path, templates: Environment, template: str, name: str, site: dict[str, Any], **values: Any) -> None:
    text = templates.get_template(template).render(site=site, here=name, **values)
    (folder / name).write_text(text, encoding="utf-8")
