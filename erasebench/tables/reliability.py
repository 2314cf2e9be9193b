"""What a run's order of erasers is worth: who is told apart, and does the order come out again?

Three questions are asked of finished runs. Which erasers (the unedited model among them) does any column tell apart? Does
one half of the concepts order erasers as the other half does? And do published tables order them as this run does?
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
from rich.console import Console

from erasebench.concepts import NEAR, PARAPHRASE
from erasebench.edits.label import UNEDITED, short_rows
from erasebench.files import write_text
from erasebench.scores.estimate import CONFIDENCE
from erasebench.tables.columns import Column
from erasebench.tables.layout import ABSENT, markdown_table, title
from erasebench.tables.letters import ALPHA
from erasebench.tables.measure import FEWEST_CONCEPTS
from erasebench.tables.printed import print_caption
from erasebench.tables.published_data import shipped
from erasebench.tables.slices import POOLED
from erasebench.texts import to_csv

FIELDS = ("task_kind", "question", "role", "metric", "with", "value", "low", "high", "n", "note")
"""Columns of the table. ``value`` is a share of pairs (0 to 1) or a correlation (-1 to 1), ``n`` what it is over."""

SPLITS = 500
FEWEST_ERASERS = 4
"""Of fewer erasers no correlation of orders is given."""

RELIABILITY_EXPLAINED = (
    "pairs told apart: share of all pairs of erasers, the unedited model among them, that at least one column tells apart (pairs of "
    "erasers by their paired tests, Holm over a column, p < 0.05; the unedited model where the 95 % interval of the difference "
    "to it leaves out 0). halves of the concepts: Spearman's correlation between the orders of erasers on two halves, mean of "
    f"{SPLITS} random splits, corrected for half the length (Spearman and Brown), and the middle 95 % of the splits. published: "
    "Spearman's correlation with the order of the same erasers in a table, n erasers, and Bonett and Wright's interval (1.00, -1.00 "
    "and four erasers bound nothing: -1 to 1). A table counts for what it was the first to print: a number that it quotes of "
    "another table stands with that one alone."
)


def reliability(measured: pd.DataFrame, pairs: pd.DataFrame, concepts: pd.DataFrame) -> pd.DataFrame:
    """All that is asked, a row an answer, with :data:`FIELDS`.

    Args:
        measured: see :func:`erasebench.tables.measure.measure`.
        pairs: see :func:`erasebench.tables.pairs.compare`.
        concepts: see :func:`erasebench.tables.measure.measure_concepts`.
    """
    rows: list[dict[str, Any]] = []
    clean = measured[(measured.task == POOLED) & (measured.attack == "")]
    for kind in dict.fromkeys(clean.task_kind):
        part = clean[clean.task_kind == kind]
        rows.append(told_apart(part, pairs[pairs.task_kind == kind]) | {"task_kind": kind})
        of_kind = concepts[(concepts.task_kind == kind) & (concepts.attack == "")]
        for role, metric in dict.fromkeys(zip(of_kind.role, of_kind.metric, strict=True)):
            column = of_kind[(of_kind.role == role) & (of_kind.metric == metric)]
            rows.append(split_halves(column) | {"task_kind": kind, "role": role, "metric": metric})
        ours = {column: order_of(part, column) for column in rate_columns(part)}
        for table, role, order in published_orders(kind):
            for (own_role, metric), own in ours.items():
                if own_role == role:
                    rows.append(
                        agreement(_as_published(own), order)
                        | {"task_kind": kind, "question": "published", "role": role, "metric": metric, "with": table}
                    )
    answers = pd.DataFrame(rows, columns=list(FIELDS))
    texts = ["role", "metric", "with", "note"]  # a run without metrics has none, and its columns would be numbers
    answers[texts] = answers[texts].astype(object).fillna("")
    return answers[~((answers.question == "published") & answers.value.isna())]


def told_apart(part: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Any]:
    """The share of pairs that at least one column tells apart; who is not stands in ``note``.

    Args:
        part: pooled rows of one kind, without attacks.
        pairs: the tests of the same kind.
    """
    erasers = list(dict.fromkeys(part.eraser[part.role != "cost"]))
    apart = {frozenset((row.a, row.b)) for row in pairs[pairs.p_holm < ALPHA].itertuples()}
    changed = part[(part.role != "cost") & ((part.difference_low > 0) | (part.difference_high < 0))]
    apart |= {frozenset((UNEDITED, eraser)) for eraser in changed.eraser}
    every = [frozenset(pair) for pair in itertools.combinations(erasers, 2)]
    called = short_rows(erasers)
    alike = [" and ".join(called[one] for one in sorted(pair)) for pair in every if pair not in apart]
    value = 1 - len(alike) / len(every) if every else math.nan
    return {
        "question": "pairs told apart", "value": value, "low": math.nan, "high": math.nan, "n": len(every),
        "note": f"not told apart: {', '.join(alike)}" if alike else "",
    }  # fmt: skip


def split_halves(column: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """How alike the orders of erasers on two halves of the concepts are.

    Args:
        column: one column's numbers by ``eraser`` and ``concept``.
        seed: of the splits.
    """
    nothing = {"question": "halves of the concepts", "value": math.nan, "low": math.nan, "high": math.nan}
    ours = column[column.eraser != UNEDITED]
    square = ours.pivot_table("value", "eraser", "concept", aggfunc="first").dropna(axis=1)
    count = square.shape[1]
    if len(square) < FEWEST_ERASERS or count < FEWEST_CONCEPTS + 1:
        few = f"{len(square)} erasers, {count} concepts"
        return nothing | {"n": count, "note": f"too few: {few}"}
    if np.ptp(square.mean(axis=1)) == 0:
        return nothing | {"n": count, "note": "all erasers are alike"}
    rng, found = np.random.default_rng(seed), []
    for _ in range(SPLITS):
        places = rng.permutation(count)
        first, second = square.iloc[:, places[: count // 2]], square.iloc[:, places[count // 2 :]]
        rho = _spearman(first.mean(axis=1), second.mean(axis=1))
        if not math.isnan(rho):  # one half may see no difference at all
            found.append(rho)
    if not found:
        return nothing | {"n": count, "note": "no half tells erasers apart"}
    half = float(np.mean(found))
    low, high = map(_of_whole, np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    note = f"{len(square)} erasers; of half the concepts {half:.2f}"
    return nothing | {"value": _of_whole(half), "low": low, "high": high, "n": count, "note": note}


def _of_whole(half: float) -> float:
    """What a correlation between halves is between wholes (C. Spearman and W. Brown, 1910); none is made of one below 0."""
    return 2 * half / (1 + half) if half > 0 else half


def agreement(first: pd.Series, second: pd.Series) -> dict[str, Any]:
    """Spearman's correlation between two orders of the same erasers, with D. Bonett's and T. Wright's interval (2000).

    Args:
        first: numbers by eraser.
        second: the same elsewhere; smaller must mean the same in both.
    """
    both = first.index.intersection(second.index)
    n = len(both)
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan, "n": n}
    if n < FEWEST_ERASERS:
        return nothing | {"note": f"too few erasers in both: {n}"}
    rho = _spearman(first[both], second[both])
    if math.isnan(rho):
        return nothing | {"note": "all erasers are alike"}
    if abs(rho) == 1 or n == FEWEST_ERASERS:
        low, high = -1.0, 1.0
        return {"value": rho, "low": low, "high": high, "n": n, "note": ", ".join(both)}
    half = scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
    return {"value": rho, "low": low, "high": high, "n": n, "note": ", ".join(both)}


PUBLISHED = {
    "object": ("object CIFAR-10", "object Imagenette"),
    "artist": ("artist style (Van Gogh)", "artist multi-concept 100", "100 artists"),
    "celebrity": ("celebrity multi-concept",),
    "unsafe": ("nudity I2P (NudeNet counts)", "red-team nudity"),
}
"""Of a kind, the published tasks whose order of erasers is asked for."""


def published_orders(kind: str) -> list[tuple[str, str, pd.Series]]:
    """Published numbers of what is still there, by our erasers, smaller being better erased.

    A number that was printed before, in another table (``copy_of``), is no second measurement and is left out: an eraser has
    one place in the order of each table that was the first to print it.

    Returns:
        Of each table and column ``paper, metric``, the role, and the mean over what was erased by eraser.
    """
    rows = shipped()
    chosen = rows[
        rows.task.isin(PUBLISHED.get(kind, ())) & (rows.eraser != "") & (rows.eraser != "none") & (rows.ours != "")
        & (rows.direction == "down") & rows.role.isin(("erase", PARAPHRASE)) & (rows.doubt == "") & (rows.copy_of == "")
        & ~rows.metric.str.contains("count: (?!Total)", regex=True)
    ]  # fmt: skip
    return [
        (f"{paper}, {metric}", role, part.groupby("eraser").value.mean())
        for (paper, _, metric, role), part in chosen.groupby(["paper", "table_id", "metric", "role"], sort=False)
    ]


CALLED = {"esd": "esd_x", "sld": "sld_medium", "uce2023": "uce"}
"""What rows of ours are called among published methods, where that is not their own name."""


def _as_published(order: pd.Series) -> pd.Series:
    """Numbers by what published tables call an eraser; of several settings of one eraser the first."""
    names = [str(eraser).partition(" ")[0] for eraser in order.index]
    named = order.set_axis([CALLED.get(name, name) for name in names])
    return named[~named.index.duplicated()]


def rate_columns(part: pd.DataFrame) -> list[Column]:
    """The columns of rates that orders are compared in."""
    rates = part[(part.unit == "%") & part.role.isin(("erase", PARAPHRASE, NEAR, "retain"))]
    rates = rates[~rates.metric.str.startswith("H ")]
    return list(dict.fromkeys(zip(rates.role, rates.metric, strict=True)))


def order_of(part: pd.DataFrame, column: Column) -> pd.Series:
    """A column's numbers by eraser, without the unedited model."""
    rows = part[(part.role == column[0]) & (part.metric == column[1]) & (part.eraser != UNEDITED) & part.value.notna()]
    return rows.drop_duplicates("eraser").set_index("eraser").value


def _spearman(first: pd.Series, second: pd.Series) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(scipy.stats.spearmanr(first.to_numpy(), second.to_numpy()).statistic)


def answer_cells(answers: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of answers."""
    rows = []
    for row in answers.to_dict("records"):
        if row["question"] == "pairs told apart":
            value, column = f"{round(row['value'] * row['n'])} of {row['n']}" if row["n"] else ABSENT, "any"
        else:
            ends = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
            value = ABSENT if math.isnan(row["value"]) else f"{row['value']:.2f}{ends}"
            column = title(row["role"], row["metric"], "", "")
        asked = ", ".join(text for text in (row["question"], row["with"]) if text)
        rows.append([row["task_kind"], asked, column, value, str(row["n"]), row["note"]])
    return ["kind", "question", "column", "answer", "n", "note"], rows


def write_reliability(answers: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``reliability.csv`` (full precision) and ``reliability.md``."""
    written = [folder / "reliability.csv", folder / "reliability.md"]
    write_text(written[0], to_csv(answers))
    write_text(written[1], f"{markdown_table(*answer_cells(answers))}\n\n{RELIABILITY_EXPLAINED}\n")
    return written


def print_reliability(answers: pd.DataFrame, console: Console) -> None:
    """Print the answers that there are, a line each."""
    for kind, asked, column, value, n, note in answer_cells(answers)[1]:
        if value != ABSENT:
            extra = f" ({note})" if note.startswith("not told") else ""
            print_caption(f"{kind}: {asked}, {column}: {value}, n {n}{extra}", console, style="")
    print_caption(RELIABILITY_EXPLAINED, console)
