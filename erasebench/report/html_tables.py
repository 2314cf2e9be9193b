"""Tables of measurements as values that a template prints: heads with directions, numbers, intervals, marks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from erasebench.edits.label import UNEDITED
from erasebench.tables import layout as table_files
from erasebench.tables import measure as tables
from erasebench.tables.answer import key_columns
from erasebench.tables.glossary import words_of_heading
from erasebench.tables.letters import Mark

DENSE = 8
"""A table with more columns than this stands closer."""


@dataclass(frozen=True)
class Head:
    """The head of a column: its words, its arrow, what the arrow means, what is measured, and whether it is shown unasked."""

    text: str
    arrow: str = ""
    meaning: str = ""
    tip: str = ""
    key: bool = True


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
        part = part[part.difference.notna() & (part.eraser != UNEDITED)]
    if not len(part):
        return None
    heads, rows, marked = table_files.layout(measured, kind, task, of, pairs)
    if not rows:
        return None
    keys = set(key_columns(measured, kind).values())
    columns = list(tables.wide(part, kind, task).columns)
    shown = [not keys or column in keys for column in columns]
    return HtmlTable(
        [head_of(heads[0]), *(replace(head_of(text), key=key) for text, key in zip(heads[1:], shown, strict=True))],
        [
            (row[0], [cell_of(text, mark) for text, mark in zip(row[1:], of_row[1:], strict=True)])
            for row, of_row in zip(rows, marked, strict=True)
        ],
        dense=len(heads) > DENSE,
    )


def head_of(text: str) -> Head:
    """The head that a column's title makes (:func:`erasebench.tables.layout.title`)."""
    for word, arrow in table_files.ARROWS.items():
        if arrow in text:
            meaning = "higher is better" if word == "up" else "lower is better"
            return Head(" ".join(text.replace(arrow, "").split()), arrow, meaning, tip=words_of_heading(text))
    return Head(text)


def cell_of(text: str, mark: Mark) -> Cell:
    """A cell of :func:`erasebench.tables.layout.column_text` in its parts."""
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
