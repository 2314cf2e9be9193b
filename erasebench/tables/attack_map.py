"""The picture of what attacks brought back: a square for each eraser and attack, as dark as the attack was successful."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from erasebench.edits.label import short_rows
from erasebench.tables import plots

NO_ATTACK = "no attack"
"""The first column: the edit without an attack."""


def draw_map(attacks: pd.DataFrame, kind: str) -> Figure | None:
    """Success rates in per cent of one kind, erasers down and attacks across, by the first metric that is a rate.

    Args:
        attacks: see :func:`erasebench.tables.attacks.compare_attacks`.
        kind: kind of the tasks.

    Returns:
        ``None`` where nothing was attacked, or there is no rate.
    """
    part = attacks[(attacks.task_kind == kind) & (attacks.unit == "%")]
    if not len(part):
        return None
    part = part[part.metric == part.metric.iloc[0]]
    erasers, names = list(dict.fromkeys(part.eraser)), [NO_ATTACK, *dict.fromkeys(part.attack)]
    rates = pd.DataFrame(index=erasers, columns=names, dtype=float)
    for row in part.itertuples():
        rates.loc[row.eraser, NO_ATTACK], rates.loc[row.eraser, row.attack] = 100 * row.clean, 100 * row.attacked
    figure = Figure(figsize=(2.6 + 0.75 * len(names), 1.9 + 0.36 * len(erasers)), layout="constrained")
    axis = figure.subplots()
    colours = matplotlib.colormaps["YlOrRd"].with_extremes(bad="white")
    axis.imshow(rates.to_numpy(), cmap=colours, vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(range(len(names)), list(short_rows(names).values()), rotation=35, ha="right", parse_math=False)
    axis.set_yticks(range(len(erasers)), list(short_rows(erasers).values()), parse_math=False)
    for down, eraser in enumerate(erasers):
        for across, name in enumerate(names):
            rate = rates.loc[eraser, name]
            text = "not run" if pd.isna(rate) else f"{rate:.0f}"
            axis.text(across, down, text, ha="center", va="center", color="white" if rate > 60 else "black", fontsize=9)
    counts = sorted(set(part.n))
    axis.set_title(
        f"{kind}: % recognised by {part.metric.iloc[0].partition('@')[0]} (n = {', '.join(map(str, counts))})",
        fontsize=9, parse_math=False,
    )  # fmt: skip
    return figure


def write_maps(attacks: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``attacks-KIND.png`` for each kind that was attacked; returns the files."""
    written = []
    for kind in dict.fromkeys(attacks.task_kind):
        figure = draw_map(attacks, kind)
        if figure is not None:
            written += plots.write(figure, folder / f"attacks-{kind}", ("png",))
    return written
