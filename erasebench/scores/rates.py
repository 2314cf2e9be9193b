"""Rates: how often something was seen, and the harmonic mean of two of them."""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike

from erasebench.scores.estimate import CONFIDENCE, Estimate, members_of, not_run, observations

WILSON, CLOPPER_PEARSON = RATE_INTERVALS = ("wilson", "clopper-pearson")
"""The intervals that a rate can have; the first if nothing is said."""

ANGLES = np.linspace(0.0, np.pi / 2, 181)
"""Directions in which the harmonic mean of two rates is looked at, half a degree apart; of three, two degrees."""

THREE = "three"
"""What the harmonic mean of three rates says of itself."""


def wilson(successes: float, n: int) -> Estimate:
    """A rate and its Wilson score interval (E. B. Wilson, 1927), which stays inside [0, 1] and is sane at 0 and n.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    return _rate(successes, n, n, WILSON)


def clopper_pearson(successes: float, n: int) -> Estimate:
    """A rate and its exact interval (C. J. Clopper and E. S. Pearson, 1934): it covers at least 95 %, often more.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    return _rate(successes, n, n, CLOPPER_PEARSON)


def _rate(successes: float, n: int, effective: float, how: str) -> Estimate:
    """A rate of n values that are worth ``effective`` independent ones."""
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a rate")
    if n == 0:
        return not_run()
    rate, tail = successes / n, (1 - CONFIDENCE) / 2
    if how == WILSON:
        z = float(scipy.stats.norm.isf(tail))
        middle = (rate + z**2 / (2 * effective)) / (1 + z**2 / effective)
        half = z * math.sqrt(rate * (1 - rate) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
        low, high = max(0.0, middle - half), min(1.0, middle + half)
    else:
        hits, misses = rate * effective, (1 - rate) * effective
        low = float(scipy.stats.beta.ppf(tail, hits, misses + 1)) if hits > 0 else 0.0
        high = float(scipy.stats.beta.isf(tail, hits + 1, misses)) if misses > 0 else 1.0
    # Rounding must not put an end on the wrong side of the rate (at 0 and n both are equal).
    return Estimate(rate, int(n), min(low, rate), max(high, rate), how)


def effective_n(values: ArrayLike, clusters: ArrayLike) -> float:
    """How many independent observations some 0/1 values are worth of which those of one cluster hang together.

    E. L. Korn and B. I. Graubard (Survey Methodology 24, 1998): the n of a simple sample whose rate would vary as much,
    less for few clusters. Where all values are equal nothing can be seen to vary, and it is the number of clusters.

    Returns:
        Between 1 and the number of values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    members = members_of(clusters)
    n, rate = numbers.size, float(numbers.mean())
    if len(members) in (1, n):
        return float(len(members))
    if rate in (0.0, 1.0):
        return float(len(members))
    # The rate is a sum over clusters, which are independent: how much their sums (about the rate) vary is how much it
    # varies. m / (m - 1) because the rate that they vary about was taken from them.
    sums = np.array([(numbers[rows] - rate).sum() for rows in members])
    variance = len(members) / (len(members) - 1) * float(sums @ sums) / n**2
    # That variance is known from m clusters only, so it deserves a t quantile of m - 1; the intervals below take the
    # normal one. The square of the ratio of quantiles makes n smaller by what that leaves out.
    upper = (1 + CONFIDENCE) / 2
    few = (scipy.stats.t.ppf(upper, n - 1) / scipy.stats.t.ppf(upper, len(members) - 1)) ** 2
    simple = rate * (1 - rate) / (n - 1)  # what the rate of n independent values would vary
    # Clusters that vary less than chance (it happens with few) do not make values worth more than one each.
    return float(np.clip(n * few * simple / variance, 1.0, n)) if variance > 0 else float(n)


def rate_estimate(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    interval: str = WILSON,
) -> Estimate:
    """The rate of 0/1 values with its interval. NaNs are left out, and ``n`` says so.

    Args:
        values: 0 or 1, or a share between them (its interval is then rather too wide); NaN for "no value".
        groups: what makes two values the same observation, see :func:`erasebench.scores.estimate.observations`. Values
            of one group are averaged first and count once: two prompt rows that share one image are one observation.
        clusters: what makes observations hang together. They all count in the rate and in n, but the interval is the
            one of :func:`effective_n` observations.
        interval: one of :data:`RATE_INTERVALS`.

    Raises:
        ValueError: no such interval, or a value outside 0 to 1.
    """
    if interval not in RATE_INTERVALS:
        raise ValueError(f"{interval!r} is none of {', '.join(RATE_INTERVALS)}")
    numbers, codes = observations(values, groups, clusters)
    if numbers.size == 0:
        return not_run()
    if numbers.min() < 0 or numbers.max() > 1:
        raise ValueError(f"values from {numbers.min():g} to {numbers.max():g} are no rate")
    together = np.unique(codes).size < numbers.size
    effective = effective_n(numbers, codes) if together else numbers.size
    estimate = _rate(float(numbers.sum()), numbers.size, effective, interval)
    return estimate.clustered() if together else estimate


def harmonic_mean(rates: ArrayLike) -> float:
    """Harmonic mean of rates in [0, 1]; 0 if one of them is 0, NaN if one is NaN or there is none."""
    numbers = np.asarray(rates, dtype=np.float64)
    return float(_harmonic(numbers[:, None])[0]) if numbers.size else math.nan


def _harmonic(rates: np.ndarray) -> np.ndarray:
    """The harmonic mean of each column of ``[k, n]``."""
    with np.errstate(divide="ignore"):
        means = len(rates) / np.sum(1.0 / rates, axis=0)
    return np.where((rates <= 0).any(axis=0) & ~np.isnan(means), 0.0, means)


def harmonic_mean_estimate(*parts: Estimate) -> Estimate:
    """Harmonic mean of two or three independent rates with an interval put together from theirs.

    The score of MACE and SPEED for celebrities is the one of (1 - erased) and retained, MACE's for objects (H_o) has
    (1 - paraphrased) as its third part: give each so that 1 is good.

    The interval is the range of the harmonic mean over the pairs of rates ``(a + da cos t, b + db sin t)``, where ``da``
    and ``db`` reach to the ends of the two intervals (of three rates over the eighth of a sphere): all rates at the ends
    at once would be rarer than 5 %. For a
    sum of two numbers this is MOVER (G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008); the harmonic mean is no
    sum, so its range is looked up in :data:`ANGLES`. It has no width of 0 unless both intervals have.

    The parts should have the exact intervals of :func:`clopper_pearson`: Wilson's is short where a rate is near 1,
    which is where this number is read. With them the interval covers 96 % and more (rates of 60 and 105 images of .95
    to .99, and at both ends; a test counts it out).

    Returns:
        ``n`` is the size of the smaller part; not run if a part is, no interval if a part has none.
    """
    if not all(part.n for part in parts):
        return not_run()
    value, n = harmonic_mean([part.value for part in parts]), min(part.n for part in parts)
    mark = f", {THREE}" if len(parts) == 3 else ""
    ends = np.array([[part.low, part.high] for part in parts])
    if np.isnan(ends).any():
        return Estimate(value, n, math.nan, math.nan, "none")
    rates = np.array([[part.value] for part in parts])
    low, high = (_harmonic(rates + (ends[:, [side]] - rates) * _directions(len(parts))) for side in (0, 1))
    joint = Estimate(value, n, min(value, float(low.min())), max(value, float(high.max())), f"joint{mark}")
    return joint.clustered() if any("clustered" in part.how for part in parts) else joint


def _directions(parts: int) -> np.ndarray:
    """Unit vectors with no negative entry, ``[parts, n]``, of two or three entries."""
    if parts == 2:
        return np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    height, turn = (grid.ravel() for grid in np.meshgrid(ANGLES[::4], ANGLES[::4]))
    return np.stack([np.cos(height), np.sin(height) * np.cos(turn), np.sin(height) * np.sin(turn)])


def complement(rate: Estimate) -> Estimate:
    """The rate of the opposite: ``1 - rate``, with its interval turned round."""
    return Estimate(1 - rate.value, rate.n, 1 - rate.high, 1 - rate.low, rate.how)
