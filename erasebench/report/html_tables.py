"""Tables of measurements as values that a template prints: heads with directions, numbers, intervals, marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from erasebench.edits.label import UNEDITED, shown_row
from erasebench.tables import layout as table_files
from erasebench.tables import measure as tables
from erasebench.tables.columns import aims
from erasebench.tables.glossary import words_of_heading
from erasebench.tables.letters import NO_MARK, Mark, marks

DENSE = 8
"""A table with more columns than this stands closer."""


@dataclass(frozen=True)
class Head:
    """The head of a column: its words, its arrow, what the arrow means, and what stands above a group of columns,
    and what is measured."""

    text: str
    arrow: str = ""
    meaning: str = ""
    group: str = ""
    tip: str = ""


@dataclass(frozen=True)
class Cell:
    """A number as it is read, the interval below it, what it is sorted by, whether it is among the best, its letters."""

    text: str
    interval: str = ""
    sort: str = ""
    best: bool = False
    known: bool = True
    letters: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table: its heads (the first is of the erasers), its rows, and whether they stand close."""

    heads: list[Head]
    rows: list[tuple[str, list[Cell]]]
    dense: bool = False

    @property
    def marked(self) -> bool:
        """Whether a cell is among the best."""
        return any(cell.best for _, cells in self.rows for cell in cells)


def html_table(
    measured: pd.DataFrame, kind: str, task: str = tables.POOLED, of: str = "value", pairs: pd.DataFrame | None = None
) -> HtmlTable | None:
    """One table of a kind, with the same texts as every other form of it; ``None`` if it has no rows.

    Arguments are those of :func:`erasebench.tables.layout.layout`.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == task)]
    if of == "difference":
        part = part[part.difference.notna()]
    if not len(part):
        return None
    heads, rows, marked = table_files.layout(measured, kind, task, of, pairs)
    if not rows:
        return None
    return HtmlTable(
        [_head(text) for text in heads],
        [
            (row[0], [_cell(text, mark) for text, mark in zip(row[1:], of_row[1:], strict=True)])
            for row, of_row in zip(rows, marked, strict=True)
        ],
        dense=len(heads) > DENSE,
    )


def headline(measured: pd.DataFrame, kinds: Sequence[str], pairs: pd.DataFrame | None = None) -> HtmlTable | None:
    """The table of the first page: for each kind, what is erased, what is kept and their harmonic mean.

    Columns are those of the first metric that tells of both aims; a kind without any is left out. ``None`` if no
    kind has one.
    """
    heads, columns = [Head("eraser")], []
    erasers = list(dict.fromkeys(measured.eraser))
    for kind in kinds:
        pooled = measured[(measured.task_kind == kind) & (measured.task == tables.POOLED)]
        chosen = aims(pooled)
        if chosen is None:
            continue
        wide, known_marks = tables.wide(measured, kind), marks(pairs, kind)
        (_, metric), _ = chosen
        for role, name in [*chosen, ("both", f"H {metric}")]:
            if (role, name) not in wide.columns:
                continue
            cells = list(wide[(role, name)].reindex(erasers))
            cells = [cell if isinstance(cell, dict) else None for cell in cells]
            known = next(cell for cell in cells if cell is not None)
            head = _head(table_files.title(role, name, known["direction"], known["unit"]))
            short = table_files.ROLE_HEADINGS[role] or "both (H)"
            heads.append(Head(short, head.arrow, f"{head.text}, {head.meaning}", kind, head.tip))
            texts = table_files.column_text(cells)
            of_cells = [known_marks.get((role, name, eraser), NO_MARK) for eraser in erasers]
            columns.append([_cell(text, mark) for text, mark in zip(texts, of_cells, strict=True)])
    if not columns:
        return None
    erasers.sort(key=lambda name: name != UNEDITED)
    rows = {eraser: [column[i] for column in columns] for i, eraser in enumerate(dict.fromkeys(measured.eraser))}
    return HtmlTable(heads, [(shown_row(eraser), rows[eraser]) for eraser in erasers], dense=True)


def _head(text: str) -> Head:
    for word, arrow in table_files.ARROWS.items():
        if arrow in text:
            meaning = "higher is better" if word == "up" else "lower is better"
            return Head(" ".join(text.replace(arrow, "").split()), arrow, meaning, tip=words_of_heading(text))
    return Head(text)


def _cell(text: str, mark: Mark) -> Cell:
    value, _, interval = text.partition(" [")
    if value in (table_files.EMPTY, table_files.ABSENT):
        return Cell(value, known=False)
    low, _, high = interval.rstrip("]").partition(", ")
    shown = f"{low} to {high}" if set("+-") & set(interval) else f"{low}–{high}" if interval else ""
    return Cell(value, shown, _sort_key(value), mark.best, letters=mark.letters)


def _sort_key(text: str) -> str:
    """What a cell is sorted by; cells of words come last."""
    try:
        number = float(text.split()[0])
    except (ValueError, IndexError):
        return ""
    return "" if math.isnan(number) else repr(number)
