"""What came instead of an erased concept: what a classifier sees in the images whose prompts ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from erasebench.edits.label import short_rows, shown_row
from erasebench.files import write_text
from erasebench.scores.metric import Metric
from erasebench.tables.layout import markdown_table
from erasebench.tables.slices import POOLED
from erasebench.texts import escape_markdown, to_csv

INSTEAD_FIELDS = ("task_kind", "eraser", "concept", "metric", "shown", "images", "n", "still", "unsafe")
"""Columns of the table of what came instead."""

NAMED = 3
"""Replacements that are named in a cell, those seen most often."""

INSTEAD_EXPLAINED = (
    "Images whose prompts ask for the erased concept, by what the classifier sees in them. Still there: the concept itself or, "
    "where one edit erased several, any of them. "
    f"Instead: what is seen in its place, the {NAMED} most frequent; nothing: nothing that the classifier knows. "
    "Unsafe: it sees something unsafe there, whatever else it sees."
)
NOTHING = "nothing"
"""What is seen where a classifier recognises nothing."""


def came_instead(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    not_run_because: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """What is seen where a concept was erased, by the first metric that can name it, for each kind.

    The arguments are those of :func:`erasebench.tables.measure.measure`. Attacked images are left out.

    Returns:
        Columns :data:`INSTEAD_FIELDS`: a row a kind, eraser, concept (or :data:`~erasebench.tables.slices.POOLED`) and
        what is seen. ``images`` of ``n`` show it; in ``still`` of them the concept itself is seen (in a joint task, as the metric counts: any erased one), in ``unsafe``
        something unsafe (NaN where the metric cannot tell).
    """
    rows: list[dict[str, object]] = []
    done: set[str] = set()
    asked = plan[(plan.attack == "") & (plan.role == "erase") & (plan.label != "")]
    for metric in metrics:
        stored = scores.get(metric.records_id)
        if metric.id in (not_run_because or {}) or stored is None or not metric.recognises:
            continue
        wanted = metric.applies_to(asked[~asked.task_kind.isin(done)])
        joined = wanted.merge(stored, on=["key", *metric.inputs], how="inner").reset_index(drop=True)
        if not len(joined):
            continue
        seen = pd.DataFrame(
            {
                "shown": metric.shown(joined),
                "still": metric.values(joined),
                "unsafe": metric.unsafe(joined),
                **{name: joined[name] for name in ("task_kind", "eraser", "label", "key")},
            }
        ).dropna(subset="still")
        for kind, of_kind in seen.groupby("task_kind", sort=False):
            if not ((of_kind.shown != "") & (of_kind.still == 0)).any():
                continue  # it names nothing
            done.add(str(kind))
            rows += [row | {"metric": metric.id, "task_kind": kind} for row in _counted(of_kind)]
    return pd.DataFrame(rows, columns=list(INSTEAD_FIELDS))


def _counted(seen: pd.DataFrame) -> list[dict[str, object]]:
    rows = []
    for eraser, of_eraser in seen.groupby("eraser", sort=False):
        alone = list(of_eraser.groupby("label", sort=False))
        for concept, part in [(POOLED, of_eraser), *(alone if len(alone) > 1 else ())]:
            images = part.drop_duplicates("key")
            unsafe = float((images.unsafe == 1).sum()) if images.unsafe.notna().all() else float("nan")
            common = {
                "eraser": eraser, "concept": concept, "n": len(images), "still": int((images.still == 1).sum()),
                "unsafe": unsafe,
            }  # fmt: skip
            gone = images[images.still != 1].shown.replace("", NOTHING)
            counts = gone.value_counts()
            names = sorted(counts.index, key=lambda name: (-counts[name], name))
            rows += [common | {"shown": name, "images": int(counts[name])} for name in names]
            if not names:
                rows.append(common | {"shown": "", "images": 0})
    return rows


def instead_cells(instead: pd.DataFrame, kind: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one kind's table: a row an eraser, and below it one a concept where there are several."""
    part = instead[instead.task_kind == kind]
    heads = ["eraser", "erased concept", "n", "still there %", "instead %", "unsafe %"]
    rows = []
    for (eraser, concept), of_row in part.groupby(["eraser", "concept"], sort=False):
        n = int(of_row.n.iloc[0])
        named = [f"{row.shown} {100 * row.images / n:.0f}" for row in of_row.itertuples() if row.images][:NAMED]
        unsafe = of_row.unsafe.iloc[0]
        rows.append(
            [
                shown_row(str(eraser)), str(concept), str(n), f"{100 * of_row.still.iloc[0] / n:.1f}",
                ", ".join(named) or "–", "–" if unsafe != unsafe else f"{100 * unsafe / n:.1f}",
            ]
        )  # fmt: skip
    return heads, rows


@dataclass(frozen=True)
class MatrixCell:
    """What is seen where one eraser erased one concept.

    Attributes:
        named: the most frequent replacements with their shares in per cent; none where nothing came instead.
        still: in which share of the images the concept itself is seen, or another that the same edit erased, in per cent.
        unsafe: in which share something unsafe is seen that was not asked for, in per cent.
    """

    named: tuple[str, ...]
    still: float
    unsafe: float


def instead_matrix(instead: pd.DataFrame, kind: str) -> tuple[list[str], list[tuple[str, list[MatrixCell | None]]]]:
    """Erased concepts down, erasers across: the erasers, and by concept what came instead after each; ``None``: not measured.

    Where the concepts of the kind are unsafe themselves, one more of them is no news, and no cell says unsafe.
    """
    part = instead[(instead.task_kind == kind) & (instead.concept != POOLED)]
    erasers = list(dict.fromkeys(part.eraser))
    cells: dict[tuple[str, str], MatrixCell] = {}
    for (eraser, concept), of_cell in part.groupby(["eraser", "concept"], sort=False):
        n, first = int(of_cell.n.iloc[0]), of_cell.iloc[0]
        named = [f"{row.shown} {100 * row.images / n:.0f}" for row in of_cell.itertuples() if row.images][:NAMED]
        cells[str(eraser), str(concept)] = MatrixCell(
            tuple(named),
            100 * first.still / n,
            100 * first.unsafe / n if kind != "unsafe" and first.unsafe > 0 else 0.0,
        )
    rows = [
        (str(concept), [cells.get((eraser, str(concept))) for eraser in erasers])
        for concept in dict.fromkeys(part.concept)
    ]
    names = short_rows(erasers)
    return [names[eraser] for eraser in erasers], rows


def write_instead(instead: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``instead.csv`` (counts) and ``instead.md``.

    Returns:
        The files written; none where nothing is named.
    """
    if not len(instead):
        return []
    written = [folder / "instead.csv", folder / "instead.md"]
    write_text(written[0], to_csv(instead))
    parts = []
    for kind in dict.fromkeys(instead.task_kind):
        parts += [
            f"**What came instead, erasing concepts of kind {escape_markdown(kind)}**",
            markdown_table(*instead_cells(instead, kind)),
        ]
    write_text(written[1], "\n\n".join([*parts, INSTEAD_EXPLAINED]) + "\n")
    return written
