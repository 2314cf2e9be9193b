"""The rates of each concept alone: which one an edit leaves in place, and which one it takes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from erasebench.edits.label import UNEDITED, shown_row
from erasebench.files import write_text
from erasebench.tables.layout import (
    Layout,
    column_text,
    markdown_table,
    title,
    unmarked,
    without_attacks,
)
from erasebench.tables.measure import FEWEST_CONCEPTS
from erasebench.tables.printed import print_caption, print_columns
from erasebench.tables.slices import POOLED
from erasebench.texts import escape_markdown, to_csv

PRINTED_CONCEPTS = 40
"""Concepts of one column that are printed in the terminal; files have all."""

CONCEPTS_EXPLAINED = (
    "Each concept by itself, pooled over the edits of a row: those furthest from the aim stand first. n: images, which are "
    "fewer than in the other tables, so that intervals are wider; of many concepts some are far off by chance. Below them "
    "all concepts together, with the interval over their prompts (it holds for these concepts), and over concepts (for "
    f"others like them, too; only of {FEWEST_CONCEPTS} and more)."
)
OVER_PROMPTS, OVER_CONCEPTS = "all, over prompts", "all, over concepts"
"""The last rows of a table of concepts."""


def concept_tables(concepts: pd.DataFrame, measured: pd.DataFrame, kind: str) -> list[tuple[str, Layout]]:
    """One kind's tables of concepts, one for each role and rate, with what stands above each.

    Args:
        concepts: what :func:`erasebench.tables.measure.measure_concepts` returns.
        measured: what :func:`erasebench.tables.measure.measure` returns of the same.
        kind: kind of the tasks.

    Returns:
        A row a concept, then all of them with both intervals; a column an eraser, the unedited model first; ``n`` last.
    """
    tables: list[tuple[str, Layout]] = []
    part = concepts[concepts.task_kind == kind]
    pooled = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    whole = {(row["eraser"], row["role"], row["metric"]): row for row in pooled.to_dict("records")}
    for (role, metric, unit, direction), rows in part.groupby(["role", "metric", "unit", "direction"], sort=False):
        erasers = sorted(dict.fromkeys(rows.eraser), key=lambda name: name != UNEDITED)
        names = _furthest_first(rows)
        cells = {(row["eraser"], row["concept"]): row for row in rows.to_dict("records")}
        together = {eraser: _together(whole.get((eraser, role, metric))) for eraser in erasers}
        columns = [
            column_text([*(cells.get((eraser, name)) for name in names), *together[eraser]]) for eraser in erasers
        ]
        counts = [_count(rows.n[(rows.concept == name) & (rows.n > 0)]) for name in names]
        of_all = _count(pooled.n[(pooled.role == role) & (pooled.metric == metric) & (pooled.n > 0)])
        names, counts = [*names, OVER_PROMPTS, OVER_CONCEPTS], [*counts, of_all, of_all]
        lines = [list(line) for line in zip(names, *columns, counts, strict=True)]
        heads = ["concept", *map(shown_row, erasers), "n"]
        tables.append((title(role, metric, direction, unit), unmarked(heads, lines)))
    return tables


def _together(row: dict[Any, Any] | None) -> list[dict[Any, Any] | None]:
    """All concepts together, with the interval over prompts and with that over concepts."""
    return [row, None if row is None else row | {"low": row["low_concepts"], "high": row["high_concepts"]}]


def _furthest_first(rows: pd.DataFrame) -> list[str]:
    """The concepts of one column, those that the edits bring furthest from their aim first."""
    edited = rows[rows.eraser != UNEDITED]
    ranked: pd.Series[Any] = (edited if len(edited) else rows).groupby("concept", sort=False).value.mean()
    return list(ranked.sort_values(ascending=rows.direction.iloc[0] == "up", kind="stable", na_position="last").index)


def _count(numbers: pd.Series[int]) -> str:
    if not len(numbers):
        return ""
    least, most = int(numbers.min()), int(numbers.max())
    return str(least) if least == most else f"{least} to {most}"


def write_concepts(concepts: pd.DataFrame, measured: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``by_concept.csv`` (full precision) and ``by_concept.md``.

    Returns:
        The files written; none where nothing was measured by a rate.
    """
    if not len(concepts):
        return []
    written = [folder / "by_concept.csv", folder / "by_concept.md"]
    write_text(written[0], to_csv(without_attacks(concepts)))
    parts = []
    for kind in dict.fromkeys(concepts.task_kind):
        for name, (heads, rows, _) in concept_tables(concepts, measured, kind):
            parts += [
                f"**{escape_markdown(name)}, erasing concepts of kind {escape_markdown(kind)}**",
                markdown_table(heads, rows),
            ]
    write_text(written[1], "\n\n".join([*parts, CONCEPTS_EXPLAINED]) + "\n")
    return written


def print_concepts(concepts: pd.DataFrame, measured: pd.DataFrame, console: Console) -> None:
    """Print the tables of concepts; of a long one its first rows."""
    if not len(concepts):
        console.print("nothing was measured by a rate: nothing to say of single concepts", highlight=False)
        return
    for kind in dict.fromkeys(concepts.task_kind):
        for name, (heads, rows, marks) in concept_tables(concepts, measured, kind):
            shown = [*rows[:-2][:PRINTED_CONCEPTS], *rows[-2:]]
            print_columns(
                f"{kind}, by concept: {name}", (heads, shown, marks[: len(shown)]), range(1, len(heads)), console
            )
            if len(rows) > len(shown):
                console.print(f"{len(rows) - len(shown)} more concepts are in by_concept.md", highlight=False)
    print_caption(CONCEPTS_EXPLAINED, console)
