"""Differences over the same prompts and seeds, and p-values of many tests."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from erasebench.scores.estimate import BINARY, CONTINUOUS, COUNT, Estimate, not_run, observations
from erasebench.scores.means import count_estimate, mean_estimate
from erasebench.scores.rates import wilson


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    outcome: str = CONTINUOUS,
    seed: int = 0,
) -> Estimate:
    """The mean of ``a - b`` over the same prompts, with an interval over pairs.

    Pairs with a NaN on either side are left out. The interval is the one of
    :func:`erasebench.scores.means.mean_estimate` over clusters, except for

    * binary outcomes, one pair a cluster (or any number of pairs with the same difference): :func:`newcombe`'s, which is
      not empty where two erasers agree on every prompt;
    * counts whose differences are all equal: the one of two Poisson means, of what is more and what is less.

    Args:
        a: values of one eraser, in the order of prompts. Position decides, not the index of a Series.
        b: values of the other (usually ``none``), same order.
        clusters: what makes pairs hang together: the prompt and seed.
        outcome: what a value is, see :data:`erasebench.scores.estimate.BINARY`.
        seed: of the bootstrap.

    Returns:
        ``n`` is the number of clusters: pairs of one prompt and seed count once together.

    Raises:
        ValueError: the two are not of one length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values differ in number: {first.shape} and {second.shape}")
    numbers, codes = observations(first - second, None, clusters)
    if numbers.size == 0:
        return not_run()
    both = ~np.isnan(first - second)
    first, second = first[both], second[both]
    _, one = np.unique(codes, return_index=True)
    same = np.ptp(numbers) == 0
    if outcome == BINARY and np.isin([first, second], (0.0, 1.0)).all() and (one.size == numbers.size or same):
        return newcombe(first[one], second[one])
    if outcome == COUNT and same:
        return _steady_counts(numbers[one])
    mean = mean_estimate(numbers, clusters=codes, seed=seed)
    return Estimate(mean.value, one.size, mean.low, mean.high, mean.how.partition(",")[0])


def _steady_counts(differences: np.ndarray) -> Estimate:
    """The difference of two counts that is the same for every pair: what was more and what was less are Poisson."""
    more, less = count_estimate(np.maximum(differences, 0)), count_estimate(np.maximum(-differences, 0))
    value = more.value - less.value
    low = value - math.hypot(more.value - more.low, less.high - less.value)
    high = value + math.hypot(more.high - more.value, less.value - less.low)
    return Estimate(value, differences.size, low, high, more.how)


def newcombe(a: ArrayLike, b: ArrayLike) -> Estimate:
    """The difference of two paired rates, with the interval of R. G. Newcombe (Statistics in Medicine 17, 1998).

    It is his method 10: Wilson intervals of both rates, put together with the correlation of the pairs (with his
    correction for continuity).

    Args:
        a: 0 or 1 for each pair; at least one.
        b: the same for the other side.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = first.size
    both, only_a = float((first * second).sum()), float((first * (1 - second)).sum())
    only_b, neither = float(((1 - first) * second).sum()), float(((1 - first) * (1 - second)).sum())
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    together = both * neither - only_a * only_b
    together = max(0.0, together - n / 2) if together > 0 else together  # for continuity, towards no correlation
    phi = together / math.sqrt(margins) if margins > 0 else 0.0
    one, two = wilson(int(first.sum()), n), wilson(int(second.sum()), n)

    def distance(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own**2 - 2 * phi * own * other + other**2))

    value = one.value - two.value
    low = value - distance(one.value - one.low, two.high - two.value)
    high = value + distance(one.high - one.value, two.value - two.low)
    return Estimate(value, n, low, high, "newcombe")


def holm(p_values: ArrayLike) -> np.ndarray:
    """p-values corrected for their number (S. Holm, 1979): the chance of any false alarm among them stays below 5 %.

    Args:
        p_values: of all tests of a table. NaN is no test: it stays NaN and is not counted.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)))
    return adjusted
