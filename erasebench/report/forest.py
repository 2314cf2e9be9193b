"""Forest plots: of each key column a row an eraser, its number and its interval, on an axis cut to what the erasers reach.

A page has them as small tables, which a phone can stack and a screen reader can read; a paper gets them as one figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from erasebench.edits.label import UNEDITED, short_rows
from erasebench.report.html_tables import Cell, Head, cell_of, head_of
from erasebench.tables import layout as table_files
from erasebench.tables.answer import key_columns
from erasebench.tables.letters import NO_MARK, Mark, marks
from erasebench.tables.slices import POOLED

TITLES = {"unsafe": "became unsafe", "words": "erased, in other words", "near": "kept near"}
"""What a key column is called, where that is not its own name."""

TICKS = 4
"""Numbers below an axis, at most."""


@dataclass(frozen=True)
class Row:
    """An eraser: its name, its number as it is read, and the number and its interval as they are drawn (NaN: none)."""

    name: str
    cell: Cell
    value: float
    low: float
    high: float
    unedited: bool


@dataclass(frozen=True)
class Panel:
    """One column drawn: its title and head, its rows, and the ends and numbers of its axis."""

    title: str
    head: Head
    rows: list[Row]
    start: float
    end: float
    ticks: list[float]

    def place(self, value: float) -> str:
        """Where a value is, in per cent of the axis; one outside it is at its end."""
        share = (value - self.start) / (self.end - self.start)
        return f"{100 * min(1.0, max(0.0, share)):.2f}"

    def beyond(self, row: Row) -> str:
        """The end that a row's number lies outside of, ``left`` or ``right``; empty if it is on the axis."""
        return "left" if row.value < self.start else "right" if row.value > self.end else ""

    def tick_text(self, tick: float) -> str:
        """The number below the axis."""
        return f"{tick:g}".replace("-", "−")


def panels(measured: pd.DataFrame, pairs: pd.DataFrame | None, kind: str) -> list[Panel]:
    """The plots of a kind: those of :func:`erasebench.tables.answer.key_columns` that have a number, without attacks.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        pairs: the tests, for letters and marks.
        kind: kind of the tasks.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED) & (measured.attack == "")]
    tested = marks(pairs, kind)
    plots = []
    for name, (role, metric) in key_columns(measured, kind).items():
        rows = part[(part.role == role) & (part.metric == metric)]
        of_column = {eraser: tested.get((role, metric, eraser), NO_MARK) for eraser in rows.eraser}
        plots.append(panel(TITLES.get(name, name), rows, of_column))
    return [each for each in plots if each]


def panel(title: str, rows: pd.DataFrame, tested: Mapping[str, Mark]) -> Panel | None:
    """One column as a plot; ``None`` if no row has a number.

    Args:
        title: what stands above it.
        rows: of a table as :func:`erasebench.tables.measure.measure` makes it, all of one column.
        tested: what the tests say, by eraser.
    """
    rows = rows.drop_duplicates("eraser")
    rows = rows.iloc[[*(rows.eraser != UNEDITED).argsort(kind="stable")]]
    records = rows.to_dict("records")
    if not rows.value.notna().any():
        return None
    names = short_rows(list(rows.eraser))
    first = records[0]
    scale = 100.0 if first["unit"] == "%" else 1.0
    texts = table_files.column_text(records)
    drawn = [
        Row(
            names[record["eraser"]],
            cell_of(text, tested.get(record["eraser"], NO_MARK)),
            scale * record["value"],
            scale * record["low"],
            scale * record["high"],
            record["eraser"] == UNEDITED,
        )
        for record, text in zip(records, texts, strict=True)
    ]
    start, end = _ends(drawn, rate=first["unit"] == "%")
    ticks = [float(tick) for tick in MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(start, end)]
    head = head_of(table_files.title("", first["metric"], first["direction"], first["unit"]))
    return Panel(title, head, drawn, start, end, [tick for tick in ticks if start <= tick <= end])


def _ends(rows: Sequence[Row], rate: bool) -> tuple[float, float]:
    """From where to where the erasers' intervals reach; the unedited model counts only if it is not far from them."""
    ours = [row for row in rows if not row.unedited and not math.isnan(row.value)]
    reach = _reach(ours or rows)
    span = reach[1] - reach[0]
    for row in rows if ours else ():
        if row.unedited and reach[0] - span / 2 <= row.value <= reach[1] + span / 2:
            reach = _reach([*ours, row])
    start, end = reach
    if end <= start:
        start, end = start - 1, end + 1
    else:
        start, end = start - 0.04 * (end - start), end + 0.04 * (end - start)
    if rate:
        start, end = max(0.0, start), min(100.0, end)
    return start, end


def _reach(rows: Sequence[Row]) -> tuple[float, float]:
    numbers = [end for row in rows for end in (row.value, row.low, row.high) if not math.isnan(end)]
    return min(numbers), max(numbers)


def describe(plots: Sequence[Panel]) -> str:
    """What the figure shows, in words."""
    return " ".join(
        f"{panel.title}: {', '.join(f'{row.name} {row.cell.text}' for row in panel.rows)}." for panel in plots
    )


def draw_forest(plots: Sequence[Panel]) -> Figure:
    """The plots of a kind beside each other, for a paper: rows have the names of erasers, points their numbers.

    Args:
        plots: from :func:`panels`; one at least.
    """
    rows = max(len(panel.rows) for panel in plots)
    figure = Figure(figsize=(1.2 + 1.7 * len(plots), 0.75 + 0.3 * rows), layout="constrained")
    axes = figure.subplots(1, len(plots), squeeze=False)[0]
    ink = rcParams["text.color"]
    for axis, panel in zip(axes, plots, strict=True):
        for place, row in enumerate(panel.rows):
            if math.isnan(row.value):
                continue
            marker = {"left": "<", "right": ">"}.get(panel.beyond(row), "o")
            value = min(panel.end, max(panel.start, row.value))
            if marker == "o" and not math.isnan(row.low):
                axis.plot([max(row.low, panel.start), min(row.high, panel.end)], [place] * 2, color=ink, linewidth=1)
            axis.plot(value, place, marker, color=ink, markersize=4.5, markerfacecolor="white" if row.unedited else ink,
                      clip_on=False, zorder=3)  # fmt: skip
            left = value > (panel.start + panel.end) / 2
            axis.annotate(row.cell.text, (value, place), (0, 4), textcoords="offset points", fontsize=6.5,
                          ha="right" if left else "left", weight="bold" if row.cell.best else "normal")  # fmt: skip
        axis.set_xlim(panel.start, panel.end)
        axis.set_xticks(panel.ticks, [panel.tick_text(tick) for tick in panel.ticks])
        axis.set_ylim(rows - 0.5, -0.7)
        names = [row.name for row in panel.rows] if axis is axes[0] else [""] * len(panel.rows)
        axis.set_yticks(range(len(panel.rows)), names, parse_math=False)
        axis.tick_params("y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_title(f"{panel.title} {panel.head.arrow}", fontsize=9, loc="left")
        axis.set_xlabel(panel.head.text, fontsize=8, parse_math=False)
        axis.grid(axis="x", alpha=0.18, linewidth=0.6)
    return figure
