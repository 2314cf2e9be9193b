"""The figures of a report: drawn once for the page, as SVG that follows its colours, and once for papers."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from erasebench.edits.label import Label
from erasebench.files import write_atomic
from erasebench.tables import frontier, plots
from erasebench.tables.columns import Column, aims
from erasebench.tables.glossary import heading
from erasebench.tables.layout import ROLE_HEADINGS
from erasebench.tables.slices import POOLED

INK = "#010203"
"""Drawn in the page's own text colour: it is put in place of this one, which nothing else has."""

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


def charts(measured: pd.DataFrame, kind: str, option: str | None, labels: Mapping[str, Label]) -> list[Chart]:
    """The figures that the numbers of one kind allow.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        kind: kind of the tasks.
        option: the one numeric option of an eraser that the rows vary, if there is one.
        labels: of the erasers, by their texts.
    """
    part = measured[(measured.task_kind == kind) & (measured.task == POOLED)]
    chosen = aims(part)
    drawn = []
    if chosen:
        (_, erased), (role, retained) = chosen
        words = [_axis_name(part, erased, "erase"), _axis_name(part, retained, role)]
        points = _points(part, chosen)
        if option and len(points):  # of few rows the plots of single columns say it better
            drawn.append(
                Chart(
                    f"{kind}-tradeoff",
                    f"{kind}: what is erased against what is kept",
                    f"One point an eraser. Across: {words[0]}, less is better. Up: {words[1]}, more is better. "
                    + _sentence(points),
                    lambda: frontier.draw(measured, kind, labels, option),
                )
            )
        cost = _cost_points(part, erased)
        if len(cost) > 1:
            drawn.append(
                Chart(
                    f"{kind}-cost",
                    f"{kind}: what an edit costs and what it does",
                    f"One point an eraser. Across: seconds an edit takes, mean over tasks. Up: {words[0]}, less is "
                    "better. "
                    + " ".join(f"{row.eraser}: {row.seconds:.2g} s, {row.y:.1f}." for row in cost.itertuples()),
                    lambda: draw_cost(cost, f"{words[0]} ↓"),
                )
            )
    if option and (part.unit == "%").any():
        drawn.append(
            Chart(
                f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', option)}",
                f"{kind}: strength, by {option}",
                f"Erased and kept accuracy against {option}, with 95 % intervals; dotted: the unedited model.",
                lambda: plots.draw_strength(measured, kind, option, labels),
            )
        )
    return drawn


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


def _axis_name(part: pd.DataFrame, metric: str, role: str) -> str:
    unit = part.unit[part.metric == metric].iloc[0]
    name = heading(metric.partition("@")[0])
    return f"{name}, {ROLE_HEADINGS[role]} prompts{', %' if unit == '%' else ''}"


def _sentence(points: pd.DataFrame) -> str:
    return " ".join(f"{row.eraser}: {row.x:.1f} of the erased, {row.y:.1f} of the kept." for row in points.itertuples())


def draw_cost(points: pd.DataFrame, words: str) -> Figure:
    """Effect (up) against the seconds of an edit (across)."""
    figure, axis = plots.axes_of("seconds an edit ↓", words)
    chosen = plots.styles(points.eraser)
    for row in points.itertuples():
        seconds = (row.seconds, math.nan, math.nan)
        plots.point(axis, row.eraser, chosen[row.eraser], seconds, (row.y, row.y_low, row.y_high))
    if points.seconds.min() > 0 and points.seconds.max() > 5 * points.seconds.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(0, 1.15 * points.seconds.max())
    if "%" in words:
        axis.set_ylim(-4, 104)
    plots.legend(figure, chosen)
    return figure


def training_curve(key: str, info: Mapping[str, Any]) -> Chart | None:
    """The loss over a training, from the notes of an edit; none of an edit that was not trained, or of spoiled notes.

    Args:
        key: the edit's, for names inside the figure.
        info: notes: ``loss_curve``, means of the loss over equal parts of the steps, and the settings' ``iterations``.
    """
    losses, settings = info.get("loss_curve"), info.get("settings")
    steps = settings.get("iterations") if isinstance(settings, Mapping) else None
    if not isinstance(losses, list) or not losses or not isinstance(steps, int):
        return None
    if not all(isinstance(loss, int | float) and math.isfinite(loss) for loss in losses):
        return None

    def draw() -> Figure:
        figure, axis = plots.axes_of("step", "loss")
        ends = [round((i + 1) * steps / len(losses)) for i in range(len(losses))]
        axis.plot(ends, losses, color=INK, linewidth=1)
        if min(losses) > 0 and max(losses) > 20 * min(losses):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        return figure

    words = f"from {losses[0]:.3g} to {losses[-1]:.3g} in {steps} steps"
    return Chart(f"loss-{key[:12]}", "Loss of the training", f"Loss, {words}; lowest {min(losses):.3g}.", draw)


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
    head = text[: text.index(">") + 1]
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
