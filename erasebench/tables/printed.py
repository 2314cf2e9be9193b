"""Tables in the terminal: as wide as it is, with intervals below their numbers, in parts where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.errors import printable
from erasebench.runs.about import About
from erasebench.tables.layout import ABSENT, EMPTY, Layout, caption, how_measured, is_tested, layout

ERASER_WIDTH = 24
"""Characters of an eraser's label on one line in the terminal."""


def print_caption(text: str, console: Console, style: str = "dim") -> None:
    """Print a sentence of a table as it stands, broken at words to the terminal's width."""
    console.print(Text(printable(text), style=style))


def print_tables(measured: pd.DataFrame, about: About, console: Console, pairs: pd.DataFrame | None = None) -> None:
    """Print one table a kind with all its columns, and how each was measured.

    To fit a terminal, intervals stand below their numbers, columns without any number and the peak memory are left to
    the files, and what is too wide for one table goes into a second one.
    """
    for kind in dict.fromkeys(measured.task_kind):
        part = measured[~measured.metric.str.startswith("peak_memory_mb")]
        heads, rows, marked = layout(part, kind, pairs=pairs)
        shown = [i for i in range(1, len(heads)) if any(row[i] not in (EMPTY, ABSENT) for row in rows)]
        print_columns(kind, (heads, rows, marked), shown, console)
        print_caption(caption(measured, kind, about), console)
        print_caption(how_measured(measured, kind, about, is_tested(pairs, kind)), console)
        console.print()


def print_columns(name: str, table: Layout, shown: Sequence[int], console: Console) -> None:
    """Print a table with its intervals below its numbers, in as many tables as the terminal's width asks for.

    Args:
        name: what stands above it.
        table: its first column is in each of them.
        shown: which of the other columns, by number.
        console: where to print.
    """
    heads, rows, marked = table
    heads = [printable(head) for head in heads]
    cells = [
        [printable(row[0]), *(_below(cell, mark.letters) for cell, mark in zip(row[1:], marks[1:], strict=True))]
        for row, marks in zip(rows, marked, strict=True)
    ]
    for number, part in enumerate(_fitting(heads, cells, shown, console.width)):
        drawn = Table(
            title=Text(printable(f"{name}, more columns" if number else name)),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        drawn.add_column(heads[0], max_width=ERASER_WIDTH, overflow="fold")
        for i in part:
            drawn.add_column(_stacked(heads[i]), justify="right", no_wrap=True)
        for row, marks in zip(cells, marked, strict=True):
            drawn.add_row(Text(row[0]), *[Text(row[i], style="bold" if marks[i].best else "") for i in part])
        console.print(drawn)


def _below(cell: str, letters: str) -> str:
    """``12.3 [10.1, 14.9]`` with its interval below it: ``10.1–14.9``, or ``-2.0 to 1.5`` where a sign is in it."""
    value, _, interval = cell.partition(" [")
    value = f"{letters} {value}".lstrip()
    return f"{value}\n{interval[:-1].replace(', ', ' to ' if '-' in interval else '–')}" if interval else value


def _fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], room: int) -> list[list[int]]:
    """The columns in parts that each fit into a width beside the eraser's."""
    first = min(ERASER_WIDTH, max(len(text) for text in (heads[0], *(row[0] for row in rows)))) + 2
    parts: list[list[int]] = []
    left = 0
    for i in columns:
        lines = [line for text in (_stacked(heads[i]).plain, *(row[i] for row in rows)) for line in text.split("\n")]
        width = max(map(len, lines)) + 2
        if not parts or width > left:
            parts.append([])
            left = room - first
        parts[-1].append(i)
        left -= width
    return parts


def _stacked(head: str) -> Text:
    """A head over several lines, so that columns are as narrow as their numbers."""
    return Text(
        head.replace("_", " ").replace(" ", "\n").replace("\n%", " %").replace("\n↑", " ↑").replace("\n↓", " ↓")
    )
