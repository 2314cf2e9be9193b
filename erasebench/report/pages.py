"""The pages of a report but those of kinds: what each of them says, filled into its template."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erasebench import __version__
from erasebench.concepts import ROLE
from erasebench.progress import progress
from erasebench.report import summary
from erasebench.report.kinds import write_kind
from erasebench.report.methods import Method, methods
from erasebench.report.names import Names
from erasebench.report.provenance import START_HEADS, provenance
from erasebench.report.runs import Run
from erasebench.report.site import PAGES, Contents, Link, Writer, environment, site_of
from erasebench.store import Store
from erasebench.tables import measure as tables
from erasebench.tables import published
from erasebench.tables.answer import verdict
from erasebench.tables.published_match import Ran
from erasebench.tables.tabulate import Joint


def write_incomplete(folder: Path, run: Run, store: Store) -> None:
    """The pages of an unfinished run: what it has and lacks, how to finish it, and where it comes from."""
    nav = [Link("index.html", "Summary"), Link("provenance.html", "Provenance")]
    write = Writer(folder, environment(), site_of([run], nav, store, incomplete=True), Names(*PAGES))
    write("incomplete.html", "index.html", title="Incomplete", run=run, found=run.parts)
    _write_provenance(write, [run])


def write_pages(contents: Contents) -> None:
    """Every page of a finished report."""
    joint = contents.joint
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
    write = Writer(contents.folder, environment(), site_of(contents.runs, nav, contents.store, joint), names)
    used = methods(contents.runs, joint, contents.store, contents.plugins)
    plots = {}
    with progress("figures and pages", len(kinds), "kinds") as advance:
        for kind in kinds:
            plots[kind] = write_kind(contents, write, kind, used)
            advance(1)
    write(
        "index.html", "index.html",
        title="Summary",
        lead=summary.lead(contents.runs, joint),
        kinds=[
            (kind.capitalize(), write.kind_page(kind), verdict(joint.measured, contents.numbers.pairs, kind), plots[kind])
            for kind in kinds
        ],
        telling=contents.telling,
        numbers_note=summary.numbers_note([panel for of_kind in plots.values() for panel in of_kind]),
        comparable=summary.comparable(contents.runs, joint),
        not_run=list(joint.not_run.items()),
        facts=summary.facts(contents.runs, joint, contents.images, len(contents.thumbnails)),
        contents=_contents(nav, joint),
    )  # fmt: skip
    _write_methods(write, used)
    if beside:
        write("published.html", "published.html", title="Published", tables=beside)
    write(
        "images.html", "images.html",
        title="Images", roles=list(ROLE.values()), classifier=contents.classifier, sensitive=bool(contents.sensitive), kinds=kinds,
    )  # fmt: skip
    _write_provenance(write, contents.runs)


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
            if not len(table):  # an experiment of our own has nothing beside it
                continue
            name = f"published_{experiment['name']}"  # a report may be about runs of several experiments
            published.write_beside(table, contents.folder / "tables", experiment, contents.joint.about, name)
            heads, rows, below = published.texts(table)
            quoted = [value == "quoted" for value in table.obtained]
            found[experiment["name"]] = {
                "title": f"{experiment['paper']}, {experiment['table']}",
                "files": f"tables/{name}",
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


def _write_methods(write: Writer, used: Sequence[Method]) -> None:
    pages = [(method, write.method_page(method.label)) for method in used]
    write("methods.html", "methods.html", title="Methods", methods=pages)
    for method, href in pages:
        write("method.html", href, title=method.label, method=method)


def _write_provenance(write: Writer, runs: Sequence[Run]) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write(
        "provenance.html", "provenance.html",
        title="Provenance", runs=[provenance(run) for run in runs], start_heads=START_HEADS,
        drawn=f"This report was written on {now} by erasebench {__version__}, from records alone.",
    )  # fmt: skip
