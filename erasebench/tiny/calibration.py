"""What the judge's chances and the words' places are worth, as tables and pictures: ``erasebench tiny evaluate --out``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from erasebench.files import write_text
from erasebench.models.load import Model
from erasebench.models.pipeline import part_of
from erasebench.scores.rates import wilson
from erasebench.texts import to_csv
from erasebench.tiny.data import FRESH, draw, to_float
from erasebench.tiny.judge import Judge
from erasebench.tiny.names import NAMES
from erasebench.tiny.train_judge import disturb

EDGES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
"""Chances are counted between these."""

PICTURES = 4000
"""Of so many fresh pictures results/tables/embedded/calibration.csv is made."""


@torch.no_grad()
def calibration(judge: Judge, n: int = PICTURES, seed: int = FRESH + 10_000) -> pd.DataFrame:
    """How often a name is there, by the chance that the judge gives it.

    Half of the ``n`` fresh renders are disturbed as in training, half are half-erased: mixed with another picture by a random
    share up to a third, where what is there is what the first picture shows.

    Returns:
        Of each head and share of :data:`EDGES` ``head, low, high, chance`` (their mean), ``there`` (share of names that are)
        and ``n`` names.
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    for start in range(seed, seed + n, 250):
        pixels, truth, *_ = draw(range(start, min(start + 250, seed + n)))
        images = to_float(pixels)
        half = len(images) // 2
        share = 0.35 * torch.rand(half, 1, 1, 1, generator=generator)
        images = torch.cat(
            [torch.lerp(images[:half], images[:half].roll(1, 0), share), disturb(images[half:], generator)]
        )
        chances = judge(images).sigmoid()[:, : len(NAMES)]
        seen = judge.split(torch.cat([chances, chances[:, :1]], 1))
        there = judge.split(torch.nn.functional.pad(torch.from_numpy(truth), (0, 1)))
        for head in judge.heads:
            rows.append(
                pd.DataFrame({"head": head, "chance": seen[head].flatten(), "there": there[head].flatten() * 1.0})
            )
    every = pd.concat(rows, ignore_index=True)
    place = np.clip(np.searchsorted(EDGES, every.chance, side="right") - 1, 0, len(EDGES) - 2)
    every = every.assign(low=np.take(EDGES, place), high=np.take(EDGES, place + 1))
    groups = every.groupby(["head", "low", "high"], sort=True)
    return groups.agg(chance=("chance", "mean"), there=("there", "mean"), n=("there", "size")).reset_index()


@torch.no_grad()
def cosines(model: Model, texts: Sequence[str]) -> pd.DataFrame:
    """The cosines between some texts in the text encoder that the UNet listens to, at the end of each text.

    The mean over all texts is taken off first: the encoder adds the same large vector to everything.
    """
    tokenizer, encoder = part_of(model.pipe, "tokenizer"), part_of(model.pipe, "text_encoder")
    tokens = tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    ends = encoder(tokens.input_ids).pooler_output.double()
    ends = torch.nn.functional.normalize(ends - ends.mean(0), dim=1)
    return pd.DataFrame((ends @ ends.T).numpy(), index=list(texts), columns=list(texts))


def draw_calibration(table: pd.DataFrame) -> Figure:
    """The reliability plot over all heads: how often a name is there, over the chance that it was given, with n and Wilson's
    95 % interval.
    """
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    weighted = table.assign(chance=table.chance * table.n, there=table.there * table.n)
    for row in weighted.groupby(["low", "high"])[["chance", "there", "n"]].sum().itertuples():
        estimate, chance = wilson(round(row.there), int(row.n)), row.chance / row.n
        axes.plot([chance] * 2, [estimate.low, estimate.high], color="C0", linewidth=1)
        axes.plot(chance, estimate.value, "o", color="C0", markersize=4)
        axes.annotate(
            f"{row.n:,.0f}", (chance, estimate.high), fontsize=6, ha="center", va="bottom", annotation_clip=False
        )
    axes.set(xlabel="chance that the judge gives", ylabel="share of names that are there (n above)", xlim=(-0.02, 1.02))
    return figure


def draw_cosines(tables: dict[str, pd.DataFrame]) -> Figure:
    """Matrices of cosines side by side, each under its name."""
    figure = Figure(figsize=(6.4 * len(tables), 6.4), layout="constrained")
    for axes, (name, table) in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True):
        image = axes.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
        axes.set_title(name, fontsize=9)
        axes.set_xticks(range(len(table)), table.columns, rotation=90, fontsize=6)
        axes.set_yticks(range(len(table)), table.index, fontsize=6)
    figure.colorbar(image, ax=figure.axes, shrink=0.6, label="cosine")
    return figure


def write_calibration(judge: Judge, model: Model, folder: Path, n: int = PICTURES) -> list[Path]:
    """Write ``calibration`` and ``cosines``, each as CSV and as a picture, into a folder."""
    table, near = calibration(judge, n), cosines(model, NAMES)
    written = [folder / name for name in ("calibration.csv", "cosines.csv", "calibration.png", "cosines.png")]
    write_text(written[0], to_csv(table))
    write_text(written[1], to_csv(near.round(4).rename_axis("text").reset_index()))
    draw_calibration(table).savefig(written[2], dpi=120)
    draw_cosines({f"model {model.short_revision}": near}).savefig(written[3], dpi=120)
    return written
