"""The figures of a report: drawn once for the page, as SVG that follows its colours, and once for papers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from erasebench.files import write_atomic
from erasebench.tables.columns import Column, aims
from erasebench.tables.figures import draw_strength
from erasebench.tables.layout import NAMES, ROLE_HEADINGS
from erasebench.tables.measure import POOLED, UNEDITED

INK = "#010203"
"""Drawn in the page's own text colour: it is put in place of this one, which nothing else has."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7d5ba6", "#8c6d46")
"""Okabe and Ito's colours, which people with any colour vision can tell apart, and two more."""

MARKERS = "osD^vP*X"
SIZE = (4.8, 3.7)
PAGE_STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none", "savefig.transparent": True,
}  # fmt: skip
PAPER_STYLE = {"pdf.fonttype": 42}
STYLE = {
    "text.parse_math": False, "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.7, "legend.frameon": False, "axes.titlesize": 10,
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A figure: its name in file names, a title, what it shows in words, and the function that draws it."""

    name: str
    title: str
    description: str
    draw: Callable[[], Figure]


def charts(measured: pd.DataFrame, kind: str, option: str | None) -> list[Chart]:
    """The figures that the numbers of one kind allow."""
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    chosen = aims(part)
    found = []
    if chosen:
        (_, erased), (role, retained) = chosen
        words = [_axis_name(part, erased, "erase", "↓"), _axis_name(part, retained, role, "↑")]
        points = _points(part, chosen)
        if len(points):
            found.append(
                Chart(
                    f"{kind}-tradeoff",
                    f"{kind}: what is erased against what is kept",
                    f"One point an eraser. Across: {words[0]}, less is better. Up: {words[1]}, more is better. "
                    + _sentence(points),
                    lambda: draw_tradeoff(points, words, option),
                )
            )
        cost = _cost_points(part, erased)
        if len(cost):
            found.append(
                Chart(
                    f"{kind}-cost",
                    f"{kind}: what an edit costs and what it does",
                    f"One point an eraser. Across: seconds an edit takes, mean over tasks. Up: {words[0]}, less is "
                    "better. "
                    + " ".join(f"{row.eraser}: {row.seconds:.2g} s, {row.y:.1f}." for row in cost.itertuples()),
                    lambda: draw_cost(cost, words[0]),
                )
            )
    if option and (part.unit == "%").any():
        found.append(
            Chart(
                f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', option)}",
                f"{kind}: strength, by {option}",
                f"Erased and retained accuracy against {option}, with 95 % intervals; dotted: the unedited model.",
                lambda: draw_strength(measured, kind, option),
            )
        )
    return found


def _points(part: pd.DataFrame, chosen: tuple[Column, Column]) -> pd.DataFrame:
    """A row an eraser: ``eraser, x, x_low, x_high, y, y_low, y_high``; rates in per cent."""
    frames = []
    for axis, (role, metric) in zip("xy", chosen, strict=True):
        rows = part[(part.metric == metric) & (part.role == role)].drop_duplicates("eraser").set_index("eraser")
        scale = 100 if (rows.unit == "%").any() else 1
        frames.append(
            pd.DataFrame({axis: rows.value, f"{axis}_low": rows.low, f"{axis}_high": rows.high}).astype(float) * scale
        )
    return pd.concat(frames, axis=1).dropna(subset=["x", "y"]).reset_index(names="eraser")


def _cost_points(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    seconds = part[part.metric == "edit_seconds"].set_index("eraser").value
    points = _points(part, (("erase", metric), ("erase", metric)))
    return points.assign(seconds=points.eraser.map(seconds).astype(float)).dropna(subset="seconds")


def _axis_name(part: pd.DataFrame, metric: str, role: str, arrow: str) -> str:
    unit = part.unit[part.metric == metric].iloc[0]
    name = NAMES.get(metric, metric.partition("@")[0])
    return f"{name} of {ROLE_HEADINGS[role]} prompts{', %' if unit == '%' else ''} {arrow}"


def _sentence(points: pd.DataFrame) -> str:
    return " ".join(f"{row.eraser}: {row.x:.1f} of the erased, {row.y:.1f} of the kept." for row in points.itertuples())


def draw_tradeoff(points: pd.DataFrame, words: list[str], option: str | None = None) -> Figure:
    """Erased (across) against retained (up), one point an eraser with 95 % error bars; a sweep is joined by a line."""
    figure, axis = _axes(words[0], words[1])
    styles = _styles(points.eraser)
    for row in points.itertuples():
        _point(axis, row.x, row.y, row, styles[row.eraser], across=True)
    if option:
        swept = points[points.eraser.str.contains(f" {option}=", regex=False)]
        rest = swept.eraser.str.replace(rf" {re.escape(option)}=\S+", "", regex=True)
        values = swept.eraser.str.extract(rf" {re.escape(option)}=(\S+)")[0].astype(float)
        for _, line in swept.assign(value=values).groupby(rest, sort=False):
            line = line.sort_values("value")
            axis.plot(line.x, line.y, color=INK, alpha=0.35, linewidth=1, zorder=1)
    if "%" in words[0]:
        axis.set_xlim(-4, 104)
    if "%" in words[1]:
        axis.set_ylim(-4, 104)
    _legend(figure, styles)
    return figure


def draw_cost(points: pd.DataFrame, words: str) -> Figure:
    """Effect (up) against the seconds of an edit (across)."""
    figure, axis = _axes("seconds an edit ↓", words)
    styles = _styles(points.eraser)
    for row in points.itertuples():
        _point(axis, row.seconds, row.y, row, styles[row.eraser], across=False)
    if points.seconds.min() > 0 and points.seconds.max() > 5 * points.seconds.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(0, 1.15 * points.seconds.max())
    if "%" in words:
        axis.set_ylim(-4, 104)
    _legend(figure, styles)
    return figure


def _axes(across: str, up: str):
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=across, ylabel=up)
    axis.grid(alpha=0.18, linewidth=0.6)
    return figure, axis


def _styles(erasers: pd.Series) -> dict[str, tuple[str, str]]:
    """Colour and marker by eraser; the unedited model is a hollow ring."""
    names = [name for name in erasers if name != UNEDITED]
    unedited = {UNEDITED: (matplotlib.rcParams["text.color"], "o")} if UNEDITED in set(erasers) else {}
    return unedited | {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def _point(axis, x: float, y: float, row, style: tuple[str, str], across: bool) -> None:
    colour, marker = style
    bars = {"yerr": [[max(0, row.y - row.y_low)], [max(0, row.y_high - row.y)]]} if row.y_low == row.y_low else {}
    if across and row.x_low == row.x_low:
        bars["xerr"] = [[max(0, row.x - row.x_low)], [max(0, row.x_high - row.x)]]
    unedited = row.eraser == UNEDITED
    axis.errorbar(
        x, y, **bars, color=colour, marker=marker, markersize=7, elinewidth=1, capsize=2.5,
        linestyle="none", markerfacecolor="none" if unedited else colour,
    )  # fmt: skip


def _legend(figure: Figure, styles: Mapping[str, tuple[str, str]]) -> None:
    """Names of the erasers below the plot, in as many columns as they allow."""
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="none",
               markerfacecolor="none" if name == UNEDITED else colour,
               label="unedited" if name == UNEDITED else name)
        for name, (colour, marker) in styles.items()
    ]  # fmt: skip
    longest = max(len(handle.get_label()) for handle in handles)
    columns = 1 if longest > 26 else 2 if longest > 11 else 4
    figure.set_figheight(SIZE[1] + 0.19 * (-(-len(handles) // columns) - 1))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5)


def inline(chart: Chart) -> Markup:
    """A figure as an SVG element: named and described for those who cannot see it, in the colours of the page."""
    with matplotlib.rc_context({**STYLE, **PAGE_STYLE, "svg.hashsalt": chart.name}):
        text = _saved(chart.draw(), "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Several figures may stand on one page: their names inside must not meet.
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", chart.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}-", text)
    text = text.replace(INK, "currentColor")
    # Sizes come from the page's style: the picture's own would keep it from shrinking on a phone.
    head = re.match(r"<svg[^>]*>", text)[0]
    bare = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    words = (
        f'<title id="{prefix}-t">{escape(chart.title)}</title><desc id="{prefix}-d">{escape(chart.description)}</desc>'
    )
    opened = bare[:-1] + f' role="img" aria-labelledby="{prefix}-t" aria-describedby="{prefix}-d">' + words
    return Markup(opened + text[len(head) :])


def write_for_papers(chart: Chart, folder: Path) -> list[Path]:
    """Write a figure as PDF and SVG, black on white; returns the files."""
    written = [folder / f"{chart.name}.{kind}" for kind in ("pdf", "svg")]
    with matplotlib.rc_context({**STYLE, **PAPER_STYLE, "svg.hashsalt": chart.name}):
        figure = chart.draw()
        for path in written:
            write_atomic(path, _saved(figure, path.suffix[1:]))
    return written


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata: Mapping[str, None] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
