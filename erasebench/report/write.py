"""``erasebench report`` and ``erasebench compare``: from finished runs to a folder of pages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from erasebench.errors import UserError
from erasebench.progress import say
from erasebench.report import pages
from erasebench.report.browser import make_rows, write_browser
from erasebench.report.folder import check_target, replacing
from erasebench.report.outcomes import outcomes
from erasebench.report.runs import Run, check_scored, find_runs
from erasebench.report.site import Contents
from erasebench.report.telling import telling_pairs
from erasebench.report.thumbnails import write_thumbnails
from erasebench.runs.about import About
from erasebench.store import Store
from erasebench.tables.numbers import Numbers, numbers_of
from erasebench.tables.printed import print_tables
from erasebench.tables.recognised import became_unsafe, by_image, recognised
from erasebench.tables.tabulate import Joint, join_runs, joint_name

WRAPPER = r"""% All tables of this folder in one document: pdflatex all.tex
\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
INPUTS
\end{document}
"""


def write_report(
    names: Sequence[str],
    store_dir: str = "results",
    out: str | None = None,
    *,
    force: bool = False,
    full: bool = False,
    show: bool = False,
    console: Console | None = None,
    plugins: Sequence[str] = (),
) -> Path:
    """Write the report of one run, or of several together.

    Args:
        names: runs; none is the latest one. An unfinished one alone gets a page that says what it lacks.
        store_dir: the results folder.
        out: the report's folder; ``<store>/reports/<run>`` if not given.
        force: replace a report of other runs.
        full: put whole images into the folder, too.
        show: print the tables first.
        console: where to print; the terminal if not given.
        plugins: modules of the user's own that metrics and erasers of these runs may come from.

    Returns:
        The folder; ``index.html`` in it is the first page.

    Raises:
        UserError: no such run, runs that cannot stand in one table, no scores at all, or a folder that is not ours.
    """
    console = console or Console()
    store = Store(store_dir)
    runs = find_runs(store, names, plugins)
    folders = [run.folder for run in runs]
    target = Path(out) if out else store.root / "reports" / (runs[0].name if len(runs) == 1 else joint_name(folders))
    check_target(target, [run.name for run in runs], force)
    if not runs[0].finished:
        with replacing(target, [runs[0].name]) as folder:
            _assets(folder)
            pages.write_incomplete(folder, runs[0], store)
        say(console, f"run {runs[0].name} is not finished; the report says what it lacks")
    else:
        joint = join_runs(folders, store, plugins=plugins)
        if show:
            print_tables(joint.measured, joint.about, console)
        check_scored(joint.measured, runs, store)
        _write_finished(runs, joint, store, target, full, plugins)
    say(console, "", str(target / "index.html"))
    return target


def compare(
    names: Sequence[str],
    store_dir: str = "results",
    out: str | None = None,
    *,
    force: bool = False,
    full: bool = False,
    plugins: Sequence[str] = (),
) -> Path:
    """``erasebench compare``: several runs in one table and one report; arguments as :func:`write_report`.

    Raises:
        UserError: fewer than two runs, and whatever :func:`write_report` refuses.
    """
    if len(find_runs(Store(store_dir), names, plugins)) < 2:
        raise UserError("compare needs two runs or more; for one run: erasebench report RUN")
    return write_report(names, store_dir, out, force=force, full=full, show=True, plugins=plugins)


def _write_finished(
    runs: Sequence[Run], joint: Joint, store: Store, target: Path, full: bool, plugins: Sequence[str]
) -> None:
    metrics = [metric for metric in joint.metrics if metric.id not in joint.not_run]
    classifiers, verdicts = recognised(joint.plan, joint.scores, metrics)
    rows = make_rows(joint.plan, verdicts.answer, outcomes(joint.plan, verdicts.recognised))
    sensitive = {kind for kind in joint.plan.task_kind.unique() if joint.about.blurs(kind)}
    with replacing(target, [run.name for run in runs]) as folder:
        _assets(folder)
        numbers = numbers_of(joint.measured, joint.plan, joint.scores, joint.metrics, joint.not_run)
        _tables(folder / "tables", numbers, joint.about)
        made = write_thumbnails(store, joint.plan.key, folder, before=target, full=full)
        classifier = " and ".join(classifiers)
        write_browser(rows, folder, thumbnails=made, sensitive=sensitive, classifier=classifier, full=full)
        pages.write_pages(
            Contents(
                folder,
                runs,
                joint,
                numbers,
                store,
                rows,
                classifier,
                sensitive,
                int(joint.plan.key.nunique()),
                made,
                by_image(joint.plan, verdicts),
                became_unsafe(joint.plan, verdicts),
                telling_pairs(joint.plan, verdicts, made, sensitive),
                plugins,
            )
        )


def _assets(folder: Path) -> None:
    (folder / "assets").mkdir()
    for entry in files("erasebench.report").joinpath("static").iterdir():
        if entry.name.endswith((".css", ".js")):
            (folder / "assets" / entry.name).write_bytes(entry.read_bytes())


def _tables(folder: Path, numbers: Numbers, about: About) -> None:
    """The tables as CSV, Markdown and LaTeX, and a document that puts the latter together."""
    written = numbers.write(folder, about)
    inputs = "\n".join(rf"\input{{{path.stem}}}\clearpage" for path in written if path.suffix == ".tex")
    (folder / "all.tex").write_text(WRAPPER.replace("INPUTS", inputs), encoding="utf-8")
