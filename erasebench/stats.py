"""Numbers with their intervals: rates, means, paired differences, and statistics of whole sets of images.

Every interval is at 95 % and every :class:`Estimate` says how it was made and from how many values. Nothing here
knows what an image is: the functions take plain sequences. Mathematics is float64 and every random draw is seeded, so
that the same records always give the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
"""Level of every interval."""

RESAMPLES = 1000
"""Bootstrap resamples of means and differences."""


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of it.

    Attributes:
        value: the number; NaN if it could not be computed (``n`` is 0 then) or is undefined.
        n: independent values it was computed from (images, not prompts that share one image).
        low: lower end of the 95 % interval; NaN if there is none.
        high: upper end.
        how: how the interval was made: ``wilson``, ``bca`` or ``percentile`` (bootstrap), ``exact`` (all values are
            equal, or there is one), ``none`` (no interval), ``not run`` (no values), or a metric's own remark
            such as ``reference``.
    """

    value: float
    n: int
    low: float
    high: float
    how: str


def not_run(how: str = "not run") -> Estimate:
    """The estimate of no values: NaN everywhere, n = 0."""
    return Estimate(math.nan, 0, math.nan, math.nan, how)


def wilson(successes: int, n: int) -> Estimate:
    """A rate and its Wilson score interval (E. B. Wilson, 1927), which stays inside [0, 1] and is sane at 0 and n.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a rate")
    if n == 0:
        return not_run()
    interval = scipy_stats.binomtest(int(successes), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(successes / n, int(n), float(interval.low), float(interval.high), "wilson")


def mean_estimate(values: Sequence[float], groups: Sequence[Any] | None = None, seed: int = 0) -> Estimate:
    """The mean of some values with its interval.

    Values that are all 0 or 1 are a rate and get :func:`wilson`; anything else gets a BCa bootstrap interval (Efron,
    1987; :func:`scipy.stats.bootstrap`). NaNs are left out, and ``n`` says so.

    Args:
        values: numbers; NaN for "no value".
        groups: what makes two values the same observation, e.g. the key of the image. Values of one group are averaged
            first and count once: two prompt rows that share one image are one observation.
        seed: of the bootstrap.
    """
    numbers = _grouped(values, groups)
    if numbers.size == 0:
        return not_run()
    if np.isin(numbers, (0.0, 1.0)).all():
        return wilson(int(numbers.sum()), numbers.size)
    return _bootstrap_mean(numbers, seed)


def paired_difference(
    a: Sequence[float], b: Sequence[float], groups: Sequence[Any] | None = None, seed: int = 0
) -> Estimate:
    """The mean of ``a - b`` over the same prompts, with a bootstrap interval over pairs.

    Pairs with a NaN on either side are left out. Where every difference is the same (two erasers that agree on each
    prompt) the bootstrap has nothing to resample: the interval is then that one value and ``how`` is ``exact``.

    Args:
        a: values of one eraser, in the order of prompts. Position decides, not the index of a Series.
        b: values of the other (usually ``none``), same order.
        groups: as in :func:`mean_estimate`.
        seed: of the bootstrap.

    Raises:
        ValueError: the two are not of one length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values differ in number: {first.shape} and {second.shape}")
    numbers = _grouped(first - second, groups)
    return not_run() if numbers.size == 0 else _bootstrap_mean(numbers, seed)


def set_bootstrap(
    features_a: np.ndarray,
    features_b: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], float],
    n_resamples: int = 200,
    seed: int = 0,
    groups: Sequence[Any] | None = None,
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
        ``(low, high)``; NaNs if a set has fewer than two rows.
    """
    if len(features_a) < 2 or len(features_b) < 2:
        return math.nan, math.nan
    if groups is not None and not len(features_a) == len(features_b) == len(groups):
        raise ValueError(f"paired sets differ in number: {len(features_a)}, {len(features_b)}, {len(groups)} groups")
    members = [] if groups is None else _members(groups)
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
    draws = draws[~np.isnan(draws)]  # a draw of one row only, from very small sets, has no distance
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - draws.mean()
    return float(point + low), float(point + high)


def harmonic_mean(rates: Sequence[float]) -> float:
    """Harmonic mean of rates in [0, 1]; 0 if one of them is 0, NaN if one is NaN or there is none."""
    numbers = np.asarray(rates, dtype=np.float64)
    if numbers.size == 0 or np.isnan(numbers).any():
        return math.nan
    if (numbers <= 0).any():
        return 0.0
    return float(numbers.size / np.sum(1.0 / numbers))


def harmonic_mean_estimate(
    parts: Sequence[Sequence[float]], groups: Sequence[Sequence[Any]] | None = None, seed: int = 0
) -> Estimate:
    """Harmonic mean of several means, with a bootstrap interval: each part is resampled on its own.

    The score of MACE and SPEED for celebrities is ``harmonic_mean_estimate([1 - erased, retained])`` over images, the
    one for CIFAR-like objects has a third part. Give each part so that 1 is good.

    Args:
        parts: values of each part, each at least one number; NaNs are left out.
        groups: for each part, as in :func:`mean_estimate`.
        seed: of the bootstrap.

    Returns:
        ``n`` is the size of the smallest part; NaN and n = 0 if a part is empty. The interval is the percentile one.
    """
    sets = [_grouped(part, None if groups is None else groups[i]) for i, part in enumerate(parts)]
    if not sets or any(part.size == 0 for part in sets):
        return not_run()
    value = harmonic_mean([part.mean() for part in sets])
    rng = np.random.default_rng(seed)
    means = np.stack([part[rng.integers(part.size, size=(RESAMPLES, part.size))].mean(axis=1) for part in sets])
    with np.errstate(divide="ignore"):
        draws = np.where((means > 0).all(axis=0), len(sets) / (1.0 / means).sum(axis=0), 0.0)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, min(part.size for part in sets), float(low), float(high), "percentile")


def _members(groups: Sequence[Any]) -> list[np.ndarray]:
    """The row numbers of each group."""
    _, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])


def _grouped(values: Sequence[float], groups: Sequence[Any] | None) -> np.ndarray:
    """Values without NaNs as float64, one (the mean) a group if groups are given."""
    numbers = np.asarray(values, dtype=np.float64)
    if groups is None:
        return numbers[~np.isnan(numbers)]
    names = np.asarray(groups, dtype=object)
    if names.shape != numbers.shape:
        raise ValueError(f"{numbers.size} values but {names.size} groups")
    keep = ~np.isnan(numbers)
    _, code = np.unique(names[keep].astype(str), return_inverse=True)
    counts = np.bincount(code)
    return np.bincount(code, weights=numbers[keep]) / counts if counts.size else numbers[keep]


def _bootstrap_mean(numbers: np.ndarray, seed: int) -> Estimate:
    """Mean with a BCa interval; percentile where BCa is not defined; exact where there is nothing to resample."""
    value = float(numbers.mean())
    if numbers.size == 1:
        return Estimate(value, 1, math.nan, math.nan, "none")
    if np.ptp(numbers) == 0:
        return Estimate(value, numbers.size, value, value, "exact")
    for method in ("BCa", "percentile"):
        interval = scipy_stats.bootstrap(
            (numbers,),
            np.mean,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            method=method,
            batch=max(1, 2_000_000 // numbers.size),
            rng=np.random.default_rng(seed),
            vectorized=True,
        ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            break
    return Estimate(value, numbers.size, float(interval.low), float(interval.high), method.lower())
