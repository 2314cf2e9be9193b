"""How plots look, and the plot of strength: a number of an eraser against what is erased and what is kept."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from erasebench.edits.label import UNEDITED, Label, shown_row
from erasebench.files import write_atomic
from erasebench.tables.slices import POOLED

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7d5ba6", "#8c6d46")
"""Okabe and Ito's colours, which people with any colour vision can tell apart, and two more."""

MARKERS = "osD^vP*X"
SIZE = (4.8, 3.7)
"""Inches of a plot of points, without its legend."""

Style = tuple[str, str]
"""Colour and marker."""


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Colour and marker by name; the unedited model is a ring in the colour of the text."""
    distinct = dict.fromkeys(names)
    ours = [name for name in distinct if name != UNEDITED]
    unedited = {UNEDITED: (matplotlib.rcParams["text.color"], "o")} if UNEDITED in distinct else {}
    return unedited | {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(ours)}


def axes_of(across: str, up: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(across, parse_math=False)
    axis.set_ylabel(up, parse_math=False)
    axis.grid(alpha=0.18, linewidth=0.6)
    return figure, axis


def point(axis: Axes, name: str, style: Style, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw a point with its error bars.

    Args:
        axis: where.
        name: of the eraser.
        style: see :func:`styles`.
        x: the value, and the ends of its interval; NaN: none.
        y: the same.
    """
    colour, marker = style
    bars: dict[str, Any] = {
        f"{axis_name}err": [[max(0.0, value - low)], [max(0.0, high - value)]]
        for axis_name, (value, low, high) in (("x", x), ("y", y))
        if low == low
    }
    axis.errorbar(
        x[0], y[0], **bars, color=colour, marker=marker, markersize=7, elinewidth=1, capsize=2.5,
        linestyle="none", markerfacecolor="none" if name == UNEDITED else colour, zorder=3,
    )  # fmt: skip


def legend(figure: Figure, chosen: Mapping[str, Style], more: Sequence[Line2D] = ()) -> None:
    """Names below the plot, in as many columns as they allow."""
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="none",
               markerfacecolor="none" if name == UNEDITED else colour,
               label=shown_row(name))
        for name, (colour, marker) in chosen.items()
    ]  # fmt: skip
    handles += more
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = 1 if longest > 26 else 2 if longest > 11 else 4
    figure.set_figheight(SIZE[1] + 0.19 * (-(-len(handles) // columns) - 1))
    made = figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5)
    for text in made.get_texts():
        text.set_parse_math(False)


def write(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure in some formats beside each other; returns the files."""
    written = []
    for suffix in formats:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160)
        written.append(path.with_name(f"{path.name}.{suffix}"))
        write_atomic(written[-1], buffer.getvalue())
    return written


def lines_of(erasers: Iterable[str], labels: Mapping[str, Label], option: str) -> dict[str, list[tuple[float, str]]]:
    """The rows that differ in one option alone, as lines.

    Args:
        erasers: the texts of labels.
        labels: by their texts.
        option: a numeric one.

    Returns:
        By what the rows of a line have in common, the option's value and the text of each, in the option's order.
        Rows that nothing varies are on no line.
    """
    lines: dict[str, list[tuple[float, str]]] = {}
    for eraser in dict.fromkeys(erasers):
        label = labels.get(eraser, Label(eraser))
        value = label.number(option)
        if value is not None:
            lines.setdefault(label.without([option]).text, []).append((value, eraser))
    return {common: sorted(row) for common, row in lines.items() if len({value for value, _ in row}) > 1}


def draw_strength(measured: pd.DataFrame, kind: str, option: str, labels: Mapping[str, Label]) -> Figure:
    """Erased and retained accuracy against one option, with error bars and the unedited model as dotted lines.

    Rows that differ in more than the option are lines of their own.

    Args:
        measured: from :func:`erasebench.tables.measure.measure`.
        kind: kind of the tasks.
        option: name of the option, e.g. ``alpha``.
        labels: of the erasers, by their texts.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED) & (measured.unit == "%")]
    metrics = list(dict.fromkeys(part.metric[part.role == "erase"]))
    figure = Figure(figsize=(4.6 * max(1, len(metrics)), 3.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(metrics)), squeeze=False)[0]
    lines = lines_of(part.eraser, labels, option)
    for axis, metric in zip(axes, metrics, strict=False):
        for role, colour, name in (("erase", "firebrick", "erased ↓"), ("retain", "seagreen", "kept ↑")):
            rows = part[(part.metric == metric) & (part.role == role)].dropna(subset="value").drop_duplicates("eraser")
            rows = rows.set_index("eraser")
            for (common, members), marker in zip(lines.items(), itertools.cycle("os^vD"), strict=False):
                there = [(value, eraser) for value, eraser in members if eraser in rows.index]
                points = rows.loc[[eraser for _, eraser in there]]
                bars = 100 * pd.concat([points.value - points.low, points.high - points.value], axis=1).T.clip(lower=0)
                axis.errorbar(
                    [value for value, _ in there], 100 * points.value, yerr=bars.to_numpy(), color=colour,
                    marker=marker, capsize=3, label=f"{name} {common}" if len(lines) > 1 else name,
                )  # fmt: skip
            if UNEDITED in rows.index:
                axis.axhline(100 * rows.value[UNEDITED], color=colour, linestyle=":", linewidth=1)
        values = [value for members in lines.values() for value, _ in members]
        if values and min(values) > 0 and max(values) >= 20 * min(values):
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(_plainly)
        axis.set(xlabel=option, ylabel=f"{metric.partition('@')[0]} (%)", ylim=(-3, 103), title=kind)
        axis.legend(frameon=False)
        axis.grid(alpha=0.25)
    if metrics:
        axes[0].annotate("dotted: unedited model", (0.02, 0.02), xycoords="axes fraction", fontsize=7, color="grey")
    return figure


def _plainly(value: float, _: Any) -> str:
    return f"{value:g}"
