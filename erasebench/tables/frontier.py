"""The frontier of a sweep: what is erased against what is kept, and which settings nothing beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from erasebench.edits.label import UNEDITED, Label, shared
from erasebench.tables import columns, plots
from erasebench.tables.layout import title

LABELS = 14
"""With more points than this, only those of the front are named."""

FORMATS = ("png", "pdf", "svg")


def pareto(erased: Sequence[float], retained: Sequence[float]) -> np.ndarray:
    """Which points nothing beats: no other has as little left and as much kept, and less or more of one.

    Args:
        erased: less is better.
        retained: more is better. A point with a NaN is never on the front and beats nothing.
    """
    x, y = np.asarray(erased, dtype=np.float64), np.asarray(retained, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        no_worse = (x[:, None] <= x[None, :]) & (y[:, None] >= y[None, :])
        better = (x[:, None] < x[None, :]) | (y[:, None] > y[None, :])
    return ~(no_worse & better).any(axis=0) & ~np.isnan(x) & ~np.isnan(y)


def points(measured: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A row an eraser that has both numbers of :func:`erasebench.tables.columns.aims`.

    Returns:
        ``eraser, erased, erased_low, erased_high, retained, retained_low, retained_high, front``. The unedited model is
        a row, but does not compete: it keeps everything.
    """
    parts = []
    for name in ("erased", "retained"):
        column = columns.cells(measured, kind, name)[["value", "low", "high"]].astype(float)
        parts.append(column.set_axis([name, f"{name}_low", f"{name}_high"], axis=1))
    found = pd.concat(parts, axis=1).dropna(subset=["erased", "retained"]).reset_index(names="eraser")
    ours = found.eraser != UNEDITED
    front = np.zeros(len(found), dtype=bool)
    front[ours] = pareto(found.erased[ours], found.retained[ours])
    return found.assign(front=front)


def draw(measured: pd.DataFrame, kind: str, labels: Mapping[str, Label], option: str | None = None) -> Figure:
    """Erased (across) against retained (up), one point a row with 95 % error bars, the front joined by steps.

    Rows of one eraser have its colour and say beside their points in what they differ; those that differ in ``option``
    alone are joined in its order.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`; one row at least has both numbers (:func:`points`).
        kind: kind of the tasks.
        labels: of the erasers, by their texts.
        option: the one that is varied, if one is.
    """
    found = points(measured, kind)
    known = columns.names(measured, kind)
    heads = {}
    for name in ("erased", "retained"):
        role, metric = known[name]
        row = measured[(measured.role == role) & (measured.metric == metric)].iloc[0]
        rate = row.unit == "%"
        heads[name] = title(role, metric, row.direction, row.unit)
        found[[name, f"{name}_low", f"{name}_high"]] *= 100 if rate else 1
    figure, axis = plots.axes_of(heads["erased"], heads["retained"])
    by_text = {eraser: labels.get(eraser, Label(eraser)) for eraser in found.eraser}
    chosen = plots.styles(label.name for label in by_text.values())
    for row in found.itertuples():
        plots.point(
            axis, row.eraser, chosen[by_text[row.eraser].name],
            (row.erased, row.erased_low, row.erased_high), (row.retained, row.retained_low, row.retained_high),
        )  # fmt: skip
    at = found.set_index("eraser")
    for members in plots.lines_of(found.eraser, by_text, option).values() if option else ():
        line = at.loc[[eraser for _, eraser in members]]
        axis.plot(line.erased, line.retained, color=rcParams["text.color"], alpha=0.35, linewidth=1, zorder=1)
    _annotate(axis, found, by_text)
    front = found[found.front].sort_values(["erased", "retained"])
    if (found.eraser != UNEDITED).sum() > 1:
        axis.step(front.erased, front.retained, where="post", color="dimgrey", linewidth=1, linestyle="--", alpha=0.6)
    steps = Line2D([], [], color="dimgrey", linewidth=1, linestyle="--", label="nothing measured beats these")
    plots.legend(figure, chosen, [steps] if len(front) > 1 else [])
    if "%" in heads["erased"]:
        axis.set_xlim(-4, 104)
    if "%" in heads["retained"]:
        axis.set_ylim(-4, 104)
    return figure


def _annotate(axis: Axes, found: pd.DataFrame, labels: Mapping[str, Label]) -> None:
    """Say beside the points of one eraser in what they differ."""
    for name in dict.fromkeys(label.name for label in labels.values()):
        members = [label for label in labels.values() if label.name == name]
        if len(members) < 2:
            continue
        alike = shared(members)
        rows = found[found.eraser.isin([label.text for label in members])]
        rows = rows[rows.front | (len(found) <= LABELS)]
        for (x, y), part in rows.groupby(["erased", "retained"], sort=False):
            texts = [labels[eraser].without(alike).text.removeprefix(f"{name} ") for eraser in part.eraser]
            # Away from the error bars, and from the edge that it would cross.
            left = x > found.erased.min() + 0.6 * np.ptp(found.erased)
            axis.annotate(
                ", ".join(texts), (x, y), (-6 if left else 6, -11), ha="right" if left else "left",
                textcoords="offset points", fontsize=7.5, parse_math=False,
            )  # fmt: skip


def write(
    measured: pd.DataFrame, kind: str, folder: Path, labels: Mapping[str, Label], option: str | None
) -> list[Path]:
    """Write :func:`draw`'s figure as ``KIND-frontier``, PNG, PDF and SVG; nothing where there are fewer than two settings."""
    if (points(measured, kind).eraser != UNEDITED).sum() < 2:
        return []
    return plots.write(draw(measured, kind, labels, option), folder / f"{kind}-frontier", FORMATS)
