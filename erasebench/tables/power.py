"""How many prompts, or concepts, it takes to tell two erasers apart.

The answer holds for one test of one pair at 5 %, two-sided, if erasers differ as much as they were seen to: what was
seen is itself an estimate, so the answer is a range, and a table of many tests (see
:func:`erasebench.scores.paired.holm`) needs more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import scipy
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from erasebench.errors import printable
from erasebench.tables.layout import title

POWER, ALPHA = 0.8, 0.05
MOST = 1_000_000
"""More prompts than this are not counted out."""

LEAST = 6
"""Pairs without which neither test can find anything: of five, all the same way, p is 2 in 32."""

DRAWS = 1000
"""What might as well have been seen, drawn for a range."""


def mcnemar_power(n: int, only_a: float, only_b: float, alpha: float = ALPHA) -> float:
    """The chance that the exact McNemar test of n pairs finds a difference.

    Args:
        n: pairs.
        only_a: the share of pairs in which the first alone is 1.
        only_b: the share of pairs in which the second alone is 1.
        alpha: of the test, two-sided.
    """
    share = only_a + only_b
    if share <= 0:
        return 0.0
    middle, spread = n * share, math.sqrt(n * share * (1 - share))
    discordant = np.arange(max(1, math.floor(middle - 8 * spread)), min(n, math.ceil(middle + 8 * spread)) + 1)
    # The test finds a difference where the rarer side has at most this many.
    rare = scipy.stats.binom.ppf(alpha / 2, discordant, 0.5)
    rare -= scipy.stats.binom.cdf(rare, discordant, 0.5) > alpha / 2
    found = scipy.stats.binom.cdf(rare, discordant, only_a / share)
    found += scipy.stats.binom.sf(discordant - rare - 1, discordant, only_a / share)
    return float(np.sum(scipy.stats.binom.pmf(discordant, n, share) * found))


def mcnemar_pairs(only_a: float, only_b: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Pairs that the exact McNemar test needs.

    R. J. Connor (Biometrics 43, 1987) gives a first number from the shares of discordant pairs,
    ``(z_(alpha/2) sqrt(s) + z_power sqrt(s - d^2))^2 / d^2`` with their sum s and difference d; from there the exact
    power is looked up.

    Returns:
        A whole number; infinite where the shares are equal, or for more than :data:`MOST`.
    """
    share, difference = only_a + only_b, only_a - only_b
    if difference == 0:
        return math.inf
    spread = math.sqrt(max(0.0, share - difference**2))
    z, z_power = scipy.stats.norm.isf(alpha / 2), scipy.stats.norm.isf(1 - power)
    first = (z * math.sqrt(share) + z_power * spread) ** 2 / difference**2
    if first > MOST:
        return math.inf
    n, step = max(LEAST, math.floor(0.8 * first)), max(1, int(first) // 200)
    while mcnemar_power(n, only_a, only_b, alpha) < power:
        n += step
    return n


def mean_pairs(difference: float, sd: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Pairs that a test of a mean difference needs: ``((z_(alpha/2) + z_power) sd / difference)^2 + z_(alpha/2)^2 / 2``.

    The second term makes up for the standard deviation's being estimated (W. C. Guenther, 1981). At least :data:`LEAST`:
    the test is one of flipped signs.

    Args:
        difference: the mean of paired differences.
        sd: their standard deviation.
        power: the chance to find it.
        alpha: of the test, two-sided.
    """
    if difference == 0 or math.isnan(difference) or math.isnan(sd):
        return math.inf
    z, z_power = scipy.stats.norm.isf(alpha / 2), scipy.stats.norm.isf(1 - power)
    needed = ((z + z_power) * sd / difference) ** 2 + z**2 / 2
    return max(LEAST, math.ceil(needed)) if needed <= MOST else math.inf


def needed_range(row: Any) -> tuple[float, float]:
    """From how many pairs to how many: what 5 and 95 % of draws would need, had they been seen instead.

    Shares of discordant pairs are drawn from what was seen with half a pair more in each cell (Jeffreys), means and
    standard deviations as those of normal differences; each draw needs what Connor's and Guenther's formulas say.

    Args:
        row: of a table of pairs: ``test, n, only_a, only_b, difference, sd``.
    """
    rng = np.random.default_rng(0)
    z, z_power = scipy.stats.norm.isf(ALPHA / 2), scipy.stats.norm.isf(1 - POWER)
    with np.errstate(divide="ignore", invalid="ignore"):
        if row.test == "mcnemar":
            counts = np.array([row.only_a, row.only_b, row.n - row.only_a - row.only_b])
            only_a, only_b, _ = rng.dirichlet(counts + 0.5, DRAWS).T
            share, apart = only_a + only_b, only_a - only_b
            pairs = (z * np.sqrt(share) + z_power * np.sqrt(np.maximum(0, share - apart**2))) ** 2 / apart**2
        elif row.n < 2 or math.isnan(row.sd):
            return math.inf, math.inf
        else:
            sd = row.sd * np.sqrt((row.n - 1) / rng.chisquare(row.n - 1, DRAWS))
            mean = row.difference + sd / math.sqrt(row.n) * rng.standard_normal(DRAWS)
            pairs = ((z + z_power) * sd / mean) ** 2 + z**2 / 2
    pairs = np.where(np.isfinite(pairs) & (pairs <= MOST), np.maximum(LEAST, np.ceil(pairs)), math.inf)
    low, high = np.quantile(pairs, [0.05, 0.95], method="inverted_cdf")
    return float(low), float(high)


def needed(pairs: pd.DataFrame) -> pd.DataFrame:
    """What :func:`erasebench.tables.pairs.compare` returns, with what 80 % power takes.

    Returns:
        Columns ``needed``, ``needed_low`` and ``needed_high`` more: prompts and seeds, or concepts, as ``units`` says.
    """
    ranges = [needed_range(row) for row in pairs.itertuples()]
    numbers = [
        mcnemar_pairs(row.only_a / row.n, row.only_b / row.n)
        if row.test == "mcnemar"
        else mean_pairs(row.difference, row.sd)
        for row in pairs.itertuples()
    ]
    return pairs.assign(
        needed=np.array(numbers, dtype=np.float64),
        needed_low=[low for low, _ in ranges],
        needed_high=[high for _, high in ranges],
    )


def print_power(pairs: pd.DataFrame, console: Console) -> None:
    """Print, for every two erasers and every rate, how many prompts or concepts were used and how many it takes."""
    rates = needed(pairs[pairs.unit == "%"])
    if not len(rates):
        console.print("no two erasers were measured by a rate: nothing to say about power", highlight=False)
        return
    for kind, part in rates.groupby("task_kind", sort=False):
        table = Table(
            title=Text(printable(f"{kind}: prompts, or concepts, to tell two erasers apart")),
            title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for head in ("column", "A", "B"):
            table.add_column(head, overflow="fold")
        for head in ("A - B", "n now", "n needed", "5 to 95 %"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in part.itertuples():
            wanted = "no difference seen" if row.difference == 0 else _pairs(row.needed)
            head = title(row.role, row.metric, row.direction, row.unit)
            table.add_row(
                *(Text(printable(name)) for name in (head, row.a, row.b)),
                f"{100 * row.difference:+.1f}",
                f"{row.n} concepts" if row.units == "concepts" else str(row.n),
                wanted,
                f"{_pairs(row.needed_low)} to {_pairs(row.needed_high)}",
            )
        console.print(table)
    console.print(
        f"n needed: for {POWER:.0%} power at {ALPHA:.0%}, two-sided, for that pair alone, if it differs by as much as was "
        "seen; beside it the range for what might as well have been seen. Rates: exact McNemar test, from the pairs in "
        "which one alone is right; where several edits share a prompt, and over concepts, a test of mean differences. "
        "More prompts of the same concepts tell of these concepts; for others, more concepts are needed.",
        style="dim", markup=False, highlight=False,
    )  # fmt: skip


def _pairs(number: float) -> str:
    return f"{number:.0f}" if math.isfinite(number) else f"over {MOST:,}".replace(",", " ")
