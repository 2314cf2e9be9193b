"""Intervals by resampling: of a mean, and of a statistic of two sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from erasebench.scores.estimate import CONFIDENCE, members_of

RESAMPLES = 1000
"""Bootstrap resamples of means and differences."""

FEWEST_ROWS = 8
"""Rows (or groups of them) of a set without which :func:`set_bootstrap` gives no interval: the draws of fewer are alike."""


def bca_interval(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float, str]:
    """The BCa interval of a mean over whole clusters (B. Efron, JASA 82, 1987).

    That of :func:`scipy.stats.bootstrap`, number by number. But a mean without one cluster is a subtraction, where scipy
    copies all the other clusters for each: 625 million numbers of 25 000.

    Args:
        sums: of each cluster's values, ``[m]``; not all alike.
        counts: of each cluster's values, ``[m]``, float.
        seed: of the resampling.

    Returns:
        ``(low, high, how)``: the percentile interval where BCa is not defined.
    """
    m, total, number = counts.size, sums.sum(), counts.sum()
    rng, draws, batch = np.random.default_rng(seed), [], max(1, 2_000_000 // m)
    for start in range(0, RESAMPLES, batch):
        rows = rng.integers(0, m, (min(batch, RESAMPLES - start), m))
        draws.append(sums[rows].sum(axis=1) / counts[rows].sum(axis=1))
    means = np.concatenate(draws)
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        bias = ndtri(((means < total / number).mean() + (means <= total / number).mean()) / 2)
        without = (total - sums) / (number - counts)
        influence = without.mean() - without
        acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
        shifted = bias + ndtri(tails)
        levels = ndtr(bias + shifted / (1 - acceleration * shifted))
    bca = bool(np.isfinite(levels).all())
    low, high = np.quantile(means, levels if bca else tails)
    return float(low), float(high), "bca" if bca else "percentile"


def set_bootstrap(
    features_a: np.ndarray,
    features_b: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], float],
    n_resamples: int = 200,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> tuple[float, float]:
    """A 95 % interval for a statistic of two sets of feature vectors (FID, KID), by resampling their rows.

    A resample repeats rows, and repeated rows make two sets look further apart than they are. The quantiles of the
    resamples are therefore moved so that their mean lies on the statistic itself. The interval shows the noise of sets
    of this size; a bias that the statistic has at this size stays in it.

    Args:
        features_a: ``[n, d]``, or row numbers ``[n]`` of something that ``statistic`` looks up.
        features_b: ``[m, d]`` or ``[m]``.
        statistic: function of two such arrays.
        n_resamples: how many resamples.
        seed: of the resampling.
        groups: for paired sets (n = m, row i of both belongs together): what makes rows one observation, e.g. the
            prompt and seed. Whole groups are drawn, and the same rows from both sets.

    Returns:
        ``(low, high)``; NaNs if a set has fewer than :data:`FEWEST_ROWS` rows, or groups.
    """
    if groups is not None and not len(features_a) == len(features_b) == len(groups):
        raise ValueError(f"paired sets differ in number: {len(features_a)}, {len(features_b)}, {len(groups)} groups")
    members = [] if groups is None else members_of(groups)
    if min(len(features_a), len(features_b), len(features_a) if groups is None else len(members)) < FEWEST_ROWS:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    point = float(statistic(features_a, features_b))
    draws = np.empty(n_resamples)
    for i in range(n_resamples):
        if groups is None:
            rows_a = rng.integers(len(features_a), size=len(features_a))
            rows_b = rng.integers(len(features_b), size=len(features_b))
        else:
            rows_a = rows_b = np.concatenate([members[j] for j in rng.integers(len(members), size=len(members))])
        draws[i] = statistic(features_a[rows_a], features_b[rows_b])
    draws = draws[~np.isnan(draws)]  # a draw of one group only has no distance
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - draws.mean()
    return float(point + low), float(point + high)
