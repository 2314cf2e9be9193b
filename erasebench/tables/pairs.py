"""Erasers against each other on the same prompts and seeds: paired tests, corrected for their number.

Two intervals that overlap say little: images of one prompt and seed are alike whatever the eraser, and a test of pairs
sees through that. All pairs of a column are corrected together, so that a column seldom tells apart what is alike. Columns
are not: a table of ten may well hold one false alarm in two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

from erasebench.concepts import ROLES
from erasebench.edits.label import UNEDITED
from erasebench.files import write_text
from erasebench.scores.estimate import BINARY
from erasebench.scores.metric import Metric
from erasebench.scores.paired import holm, paired_difference
from erasebench.tables.layout import ABSENT, column_text, markdown_table, title
from erasebench.tables.letters import COLUMN, LETTERS_EXPLAINED, letters
from erasebench.tables.measure import FEWEST_CONCEPTS
from erasebench.tables.slices import slices_of
from erasebench.texts import escape_markdown, to_csv

FIELDS = (
    "task_kind", "role", "metric", "unit", "direction", "a", "b", "value_a", "value_b", "difference", "low", "high",
    "n", "only_a", "only_b", "sd", "test", "p", "p_holm", "units",
)  # fmt: skip
"""Columns of a table of pairs."""

DRAWS = 9999
DRAWN_UP_TO = 500
MOST_ERASERS = 20
"""With more erasers of one kind there are no pairs: hundreds of tests would tell nothing apart."""

PAIRS_EXPLAINED = (
    "Difference: A less B on the same prompts and seeds, with its 95 % interval. n: prompts and seeds, of which several "
    f"edits of one count once; the test holds for these concepts only. Of {FEWEST_CONCEPTS} concepts and more n counts "
    "concepts: interval and test (Student's t, with a spread that is never below that of the images of a concept) are over "
    "them, and hold for others like them. "
    "p otherwise: exact McNemar test of answers that are 0 or 1, else a sign-flip test of the differences. "
    f"p Holm: corrected for all pairs of a column, each column by itself. {LETTERS_EXPLAINED}."
)


def compare(
    plan: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    metrics: Sequence[Metric],
    not_run_because: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Every two erasers in every column that has a number for each image.

    The unedited model is left out: differences to it stand in the tables themselves. So are attacked images
    (:mod:`erasebench.tables.attacks`). The arguments are those of
    :func:`erasebench.tables.measure.measure`.

    Returns:
        Columns :data:`FIELDS`, pooled over tasks. ``only_a`` and ``only_b`` count the pairs in which one alone is 1
        (NaN where the test is not McNemar's); ``sd`` is the standard deviation of the differences. ``p_holm`` is
        corrected over all pairs of a column (of one ``task_kind``). ``units`` is what ``n`` counts: ``prompts`` (with their seeds), or
        ``concepts`` where a column has :data:`~erasebench.tables.measure.FEWEST_CONCEPTS` and more.
    """
    found: list[dict[str, Any]] = []
    plan = plan[plan.attack == ""]
    erasers = plan[plan.eraser != UNEDITED].groupby("task_kind").eraser.nunique()
    for metric in metrics:
        columns: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
        why = (not_run_because or {}).get(metric.id, "")
        for identity, rows, _, reason in slices_of(plan, scores, metric, why, tasks=False):
            if reason or identity["eraser"] == UNEDITED or not len(rows):
                continue
            values = pd.DataFrame(
                {
                    "value": metric.values(rows).to_numpy(),
                    "prompt": rows.original_key.to_numpy(),
                    "concept": rows.label.to_numpy(),
                    "identity": [identity] * len(rows),
                },
                index=pd.MultiIndex.from_frame(rows[["task", "prompt_id"]]),
            ).dropna(subset="value")
            if len(values) and erasers[identity["task_kind"]] <= MOST_ERASERS:
                columns.setdefault((identity["task_kind"], identity["role"]), {})[identity["eraser"]] = values
        for by_eraser in columns.values():
            for a, b in itertools.combinations(by_eraser, 2):
                both = by_eraser[a].join(by_eraser[b].value.rename("value_b"), how="inner")
                if len(both):
                    identity = {
                        name: both.identity.iloc[0][name]
                        for name in ("task_kind", "role", "metric", "unit", "direction")
                    }
                    units = "prompts"
                    if (both.concept != "").all() and both.concept.nunique() >= FEWEST_CONCEPTS:
                        units = "concepts"
                    pair = pair_of(both.value, both.value_b, both[units[:-1]], metric.outcome, units == "concepts")
                    found.append(identity | {"a": a, "b": b, "units": units} | pair)
    pairs = holm_by(COLUMN, pd.DataFrame(found, columns=list(FIELDS)))
    kinds = list(dict.fromkeys(plan.task_kind))
    order = [(kinds.index(row.task_kind), row.unit != "%", ROLES.index(row.role)) for row in pairs.itertuples()]
    return pairs.iloc[sorted(range(len(pairs)), key=order.__getitem__)].reset_index(drop=True)


def holm_by(columns: str | list[str], tests: pd.DataFrame) -> pd.DataFrame:
    """Tests with their ``p`` corrected in ``p_holm``, over all that are alike in some columns."""
    for _, rows in tests.groupby(columns, sort=False).groups.items():
        tests.loc[rows, "p_holm"] = holm(tests.p[rows])
    return tests


def pair_of(
    a: pd.Series, b: pd.Series, prompts: pd.Series, outcome: str, over_concepts: bool = False
) -> dict[str, Any]:
    """The difference of two numbers of the same prompts, its test, and how many prompts tell one from the other.

    Args:
        a: numbers, none of them NaN.
        b: the same of the other side, in the same order.
        prompts: what makes pairs hang together: the prompt and seed of each, or its concept.
        outcome: as :attr:`erasebench.scores.metric.Metric.outcome`.
        over_concepts: whether they hang together by concept, and the test is to hold for other concepts: see
            :func:`concept_t`.
    """
    estimate = paired_difference(a, b, prompts, outcome)
    one_each = not prompts.duplicated().any()
    # Pairs of one prompt and seed are turned together; scaled so that the mean is the difference.
    differences = (a - b).groupby(prompts.to_numpy(), sort=False).sum().to_numpy() * estimate.n / len(a)
    sd = float(np.std(differences, ddof=1)) if len(differences) > 1 else math.nan
    only_a = only_b = math.nan
    if over_concepts:
        sd = max(sd, image_spread(a, b, prompts, outcome))
        test, p = "t", concept_t(differences, sd)
    elif outcome == BINARY and one_each and a.isin((0.0, 1.0)).all() and b.isin((0.0, 1.0)).all():
        only_a, only_b = int((a > b).sum()), int((b > a).sum())
        test, p = "mcnemar", mcnemar(only_a, only_b)
    else:
        test, p = "sign-flip", sign_flip(differences)
    return {
        "value_a": a.mean(), "value_b": b.mean(), "difference": estimate.value, "low": estimate.low,
        "high": estimate.high, "n": estimate.n, "only_a": only_a, "only_b": only_b,
        "sd": sd, "test": test, "p": p,
    }  # fmt: skip


def concept_t(differences: Sequence[float], sd: float) -> float:
    """The two-sided p-value of Student's t over concepts, as the interval beside it is.

    A permutation of eight concepts has 256 ways, so that its p-value cannot be below 0.008 whatever happens, and after a
    correction for some twenty tests nothing is ever told apart.

    Args:
        differences: one a concept, at least two.
        sd: their standard deviation, or what it is at least.
    """
    d = np.asarray(differences, dtype=np.float64)
    if not d.any():
        return 1.0
    if sd == 0:
        return sign_flip(list(d))  # one image each and all alike: nothing is known of their spread
    return float(2 * scipy.stats.t.sf(abs(d.mean()) / (sd / math.sqrt(d.size)), d.size - 1))


def image_spread(a: pd.Series, b: pd.Series, concepts: pd.Series, outcome: str) -> float:
    """How far the difference of a concept is off by the chance of its own images, as a standard deviation.

    Concepts that happen to agree (all are lost with one eraser and none with the other) are not certain to the last digit:
    each rests on few images. The arguments are those of :func:`pair_of`.
    """
    by, n = concepts.to_numpy(), a.groupby(concepts.to_numpy()).size()
    if outcome == BINARY:  # half an image is added on each side, or all of three would be no chance at all
        rates = [(side.groupby(by).sum() + 0.5) / (n + 1) for side in (a, b)]
        variances = sum(rate * (1 - rate) / n for rate in rates)
    else:
        variances = (a - b).groupby(by).var(ddof=1).fillna(0.0) / n
    return math.sqrt(float(np.mean(variances)))


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test: is either side as often alone as the other?

    Args:
        only_a: pairs in which the first alone is 1.
        only_b: pairs in which the second alone is 1.
    """
    return float(scipy.stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """The two-sided p-value of a permutation test of paired differences: each pair may be the other way round.

    Up to 13 differences every way is tried; up to :data:`DRAWN_UP_TO` ways are drawn, :data:`DRAWS` of them; for more
    the normal limit is taken. Where no way that was drawn is as far out, the true value is known to be below
    ``2 exp(-z^2 / 2)`` (Hoeffding, 1963; z is the sum over the root of the sum of squares), and the smaller is taken.

    Args:
        differences: one a prompt and seed; at least one.
        seed: of the draws.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]  # turning a zero changes nothing
    if d.size == 0:
        return 1.0
    d = d / np.abs(d).max()
    z = abs(d.sum()) / math.sqrt(float(d @ d))
    if d.size > DRAWN_UP_TO:
        return float(2 * scipy.stats.norm.sf(z))
    if 2**d.size <= DRAWS:
        ways = 1 - 2.0 * (np.arange(2**d.size)[:, None] >> np.arange(d.size) & 1)
        return float(np.mean(np.abs(ways @ d) >= abs(d.sum()) * (1 - 1e-9)))
    ways = 1 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=(DRAWS, d.size), dtype=np.int8)
    hits = int(np.sum(np.abs(ways @ d) >= abs(d.sum()) * (1 - 1e-9)))
    drawn = (hits + 1) / (DRAWS + 1)
    return drawn if hits else min(drawn, 2 * math.exp(-(z**2) / 2))


def write_pairs(pairs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``pairs.csv`` (full precision) and ``pairs.md`` (letters, then pairs, for each kind).

    Returns:
        The files written; none where there are no pairs.
    """
    if not len(pairs):
        return []
    written = [folder / "pairs.csv", folder / "pairs.md"]
    write_text(written[0], to_csv(pairs))
    parts = []
    for kind in dict.fromkeys(pairs.task_kind):
        part = pairs[pairs.task_kind == kind]
        parts += [f"**Letters, erasing concepts of kind {escape_markdown(kind)}**", markdown_table(*letter_cells(part))]
        parts += [
            f"**Pairs, erasing concepts of kind {escape_markdown(kind)}**",
            markdown_table(*pair_cells(part)),
            PAIRS_EXPLAINED,
        ]
    write_text(written[1], "\n\n".join(parts) + "\n")
    return written


def letter_cells(pairs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of letters of one kind: a row an eraser, a column a metric."""
    found = letters(pairs)
    erasers = list(dict.fromkeys([*pairs.a, *pairs.b]))
    heads, columns = ["eraser"], [erasers]
    for (_, role, metric, unit, direction), _ in pairs.groupby(COLUMN, sort=False):
        of_column = found[(found.role == role) & (found.metric == metric)].set_index("eraser").letters
        heads.append(title(role, metric, direction, unit))
        columns.append([of_column.get(eraser, ABSENT) for eraser in erasers])
    return heads, [list(row) for row in zip(*columns, strict=True)]


def pair_cells(pairs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of pairs of one kind: a row a test."""
    rows = []
    for (role, metric, unit, direction), part in pairs.groupby(["role", "metric", "unit", "direction"], sort=False):
        named = part.rename(columns={"low": "difference_low", "high": "difference_high"}).assign(reason="", how="")
        shown = column_text([row | {"low": row["difference_low"]} for row in named.to_dict("records")], "difference")
        for row, text in zip(part.itertuples(), shown, strict=True):
            ps = (p_text(row.p), p_text(row.p_holm))
            n = f"{row.n} {row.units}" if row.units == "concepts" else str(row.n)
            rows.append([title(role, metric, direction, unit), row.a, row.b, text, n, row.test, *ps])
    return ["column", "A", "B", "difference", "n", "test", "p", "p Holm"], rows


def p_text(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
