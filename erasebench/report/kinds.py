"""The page of a kind of concept: all its numbers, what came instead, its images; and a page for each of its tasks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
from PIL import Image

from erasebench.report import charts as drawing
from erasebench.report import forest, summary
from erasebench.report.attacks import attack_tables, attacked_prompts
from erasebench.report.concepts import concepts_of, write_concepts
from erasebench.report.html_tables import html_table
from erasebench.report.methods import Method
from erasebench.report.site import Contents, Drawn, Link, Writer, fragment, table_files_name
from erasebench.report.thumbnails import suffix
from erasebench.tables import grid
from erasebench.tables import layout as table_files
from erasebench.tables import measure as tables
from erasebench.tables import pairs as paired
from erasebench.tables.answer import verdict
from erasebench.tables.attacks import ATTACKS_EXPLAINED, told_of_controls
from erasebench.tables.by_concept import CONCEPTS_EXPLAINED, concept_tables
from erasebench.tables.instead import INSTEAD_EXPLAINED, instead_cells, instead_matrix
from erasebench.tables.letters import LETTERS_EXPLAINED


def write_kind(contents: Contents, write: Writer, kind: str, methods: Sequence[Method]) -> list[forest.Panel]:
    """Write the page of a kind, one of each concept, and of several tasks one of each.

    Returns:
        The plots of its key columns.
    """
    joint, numbers = contents.joint, contents.numbers
    tasks = list(dict.fromkeys(joint.plan.task[joint.plan.task_kind == kind]))
    several = len(tasks) > 1
    caption = table_files.caption(joint.measured, kind, joint.about)
    shown = [("pooled", "All tasks pooled" if several else f"Erasing {tasks[0]}", tables.POOLED, "value", caption)]
    shown.append(("difference", table_files.DIFFERENCES, tables.POOLED, "difference", ""))
    plots = forest.panels(joint.measured, numbers.pairs, kind)
    concepts = concepts_of(contents, kind)
    write_concepts(contents, write, kind, concepts)
    write(
        "kind.html", write.kind_page(kind),
        title=kind.capitalize(),
        heading=summary.kind_heading(kind),
        lead=summary.kind_lead(kind, tasks, joint),
        link=fragment(kind=kind),
        latex=table_files_name(kind),
        forest=plots,
        paper=_for_papers(contents, kind, plots),
        tables=_tables(joint.measured, kind, shown, numbers.pairs),
        how=table_files.how_measured(joint.measured, kind, joint.about),
        letters_explained=LETTERS_EXPLAINED,
        charts=_draw(contents, kind),
        tests=_tests(numbers.pairs, kind),
        verdict=verdict(joint.measured, numbers.pairs, kind),
        instead=instead_cells(numbers.instead, kind) if (numbers.instead.task_kind == kind).any() else None,
        matrix=instead_matrix(numbers.instead, kind),
        instead_explained=INSTEAD_EXPLAINED,
        explained=paired.PAIRS_EXPLAINED,
        by_concept=[(name, heads, rows) for name, (heads, rows, _) in concept_tables(numbers.concepts, joint.measured, kind)],
        by_concept_explained=CONCEPTS_EXPLAINED,
        concepts={concept: write.concept_page(kind, concept) for concept in concepts},
        attacks=attack_tables(numbers.attacked, kind),
        attacks_controls=list(
            told_of_controls(numbers.attacked[numbers.attacked.task_kind == kind], joint.about.forgot)
        ),
        attacks_explained=ATTACKS_EXPLAINED,
        attacked=attacked_prompts(joint.plan, kind, contents.seen, contents.thumbnails, contents.store),
        classifier=contents.classifier,
        grid=_grid(contents, kind),
        grid_alt=f"A grid of images: prompts down, erasers across, for kind {kind}. The image browser has all of them.",
        blurred=kind in contents.sensitive,
        edits=[] if several else _edits(write, methods, kind, tasks[0]),
        subpages=[Link(write.task_page(kind, task), f"Only {task} erased") for task in tasks] if several else [],
    )  # fmt: skip
    for task in tasks if several else ():
        one = [("task", f"Only {task} erased", task, "value", ""),
               ("difference", table_files.DIFFERENCES, task, "difference", "")]  # fmt: skip
        write(
            "task.html", write.task_page(kind, task),
            title=f"{task} erased",
            lead=f"The numbers of one task of kind {kind}, over its own prompts alone: intervals are wider here.",
            link=fragment(kind=kind, task=task),
            tables=_tables(joint.measured, kind, one),
            how=table_files.how_measured(joint.measured, kind, joint.about),
            edits=_edits(write, methods, kind, task),
        )  # fmt: skip
    return plots


def _tables(
    measured: pd.DataFrame,
    kind: str,
    shown: Sequence[tuple[str, str, str, str, str]],
    pairs: pd.DataFrame | None = None,
) -> list[dict[str, Any]]:
    entries = [
        (name, title, html_table(measured, kind, task, of, pairs), note) for name, title, task, of, note in shown
    ]
    return [{"id": name, "title": title, "table": table, "note": note} for name, title, table, note in entries if table]


def _tests(pairs: pd.DataFrame, kind: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and rows of the tables of letters and pairs of a kind; none if there is no pair."""
    part = pairs[pairs.task_kind == kind]
    if not len(part):
        return []
    return [("Who is told from whom", *paired.letter_cells(part)), ("Every two erasers", *paired.pair_cells(part))]


def _for_papers(contents: Contents, kind: str, plots: Sequence[forest.Panel]) -> str:
    """Write the plots as one figure for papers; returns its name, empty if there is nothing to draw."""
    if not plots:
        return ""
    name = f"{table_files_name(kind)}-forest"
    chart = drawing.Chart(name, f"{kind}: the key columns", forest.describe(plots), lambda: forest.draw_forest(plots))
    drawing.write_for_papers(chart, contents.folder / "figures")
    return name


def _draw(contents: Contents, kind: str) -> list[Drawn]:
    joint, drawn = contents.joint, []
    for chart in drawing.charts(joint.measured, kind, joint.option, joint.labels):
        drawing.write_for_papers(chart, contents.folder / "figures")
        drawn.append(Drawn(chart.name, chart.title, drawing.inline(chart)))
    return drawn


def _edits(write: Writer, methods: Sequence[Method], kind: str, task: str) -> list[tuple[str, Any, str]]:
    return [
        (method.label, edit, write.method_page(method.label))
        for method in methods
        for edit in method.edits
        if (edit.kind, edit.task) == (kind, task)
    ]


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
