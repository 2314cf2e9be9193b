"""Numbers with their intervals: rates, means, paired differences, and statistics of whole sets of images.

Every interval is at 95 % and every :class:`Estimate` says how it was made and from how many values. Nothing here
knows what an image is: the functions take plain sequences. Mathematics is float64 and every random draw is seeded, so
that the same records always give the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
"""Level of every interval."""

RESAMPLES = 1000
"""Bootstrap resamples of means and differences."""

RATE_INTERVALS = ("wilson", "clopper-pearson")
"""The intervals that a rate can have; the first unless :func:`rate_intervals` says otherwise."""

CLUSTERED = ", clustered"
"""How ``how`` ends where observations that belong together were drawn, or counted, together."""

_rates_by: ContextVar[str] = ContextVar("rates_by", default=RATE_INTERVALS[0])


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of it.

    Attributes:
        value: the number; NaN if it could not be computed (``n`` is 0 then) or is undefined.
        n: independent values it was computed from (images, not prompts that share one image).
        low: lower end of the 95 % interval; NaN if there is none.
        high: upper end.
        how: how the interval was made: ``wilson``, ``clopper-pearson``, ``newcombe`` (a difference of paired rates),
            ``bca`` or ``percentile`` (bootstrap), ``exact`` (all values are equal: nothing to resample, so both ends
            are the value), ``none`` (no interval), ``not run`` (no values), or a metric's own remark such as
            ``reference``. :data:`CLUSTERED` behind it: several images of one prompt and seed hang together, and the
            interval is wider for it; a remark such as ``, biased`` is explained in a table's caption.
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
    return _rate(successes, n, n, "wilson")


def clopper_pearson(successes: int, n: int) -> Estimate:
    """A rate and its exact interval (C. J. Clopper and E. S. Pearson, 1934): it covers at least 95 %, often more.

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    return _rate(successes, n, n, "clopper-pearson")


@contextmanager
def rate_intervals(name: str) -> Iterator[None]:
    """Within it, every rate of :func:`mean_estimate` has this interval, one of :data:`RATE_INTERVALS`."""
    if name not in RATE_INTERVALS:
        raise ValueError(f"{name!r} is none of {', '.join(RATE_INTERVALS)}")
    token = _rates_by.set(name)
    try:
        yield
    finally:
        _rates_by.reset(token)


def _rate(successes: float, n: int, effective: float, how: str) -> Estimate:
    """A rate of n values that are worth ``effective`` independent ones."""
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a rate")
    if n == 0:
        return not_run()
    rate, tail = successes / n, (1 - CONFIDENCE) / 2
    if how == "wilson":
        z = float(scipy_stats.norm.isf(tail))
        middle = (rate + z**2 / (2 * effective)) / (1 + z**2 / effective)
        half = z * math.sqrt(rate * (1 - rate) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
        low, high = max(0.0, middle - half), min(1.0, middle + half)
    else:
        hits, misses = rate * effective, (1 - rate) * effective
        low = float(scipy_stats.beta.ppf(tail, hits, misses + 1)) if hits > 0 else 0.0
        high = float(scipy_stats.beta.isf(tail, hits + 1, misses)) if misses > 0 else 1.0
    # Rounding must not put an end on the wrong side of the rate (at 0 and n both are equal).
    return Estimate(rate, int(n), min(low, rate), max(high, rate), how)


def effective_n(values: Sequence[float], clusters: Sequence[Any]) -> float:
    """How many independent observations some 0/1 values are worth of which those of one cluster hang together.

    Korn and Graubard (1998): the n of a simple sample whose rate would vary as much, less for few clusters. Where all
    values are equal nothing can be seen to vary, and it is the number of clusters.

    Returns:
        Between 1 and the number of values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    members = _members(clusters)
    n, rate = numbers.size, float(numbers.mean())
    if len(members) in (1, n):
        return float(len(members))
    if rate in (0.0, 1.0):
        return float(len(members))
    sums = np.array([(numbers[rows] - rate).sum() for rows in members])
    variance = len(members) / (len(members) - 1) * float(sums @ sums) / n**2
    upper = (1 + CONFIDENCE) / 2
    few = (scipy_stats.t.ppf(upper, n - 1) / scipy_stats.t.ppf(upper, len(members) - 1)) ** 2
    simple = rate * (1 - rate) / (n - 1)
    return float(np.clip(n * few * simple / variance, 1.0, n)) if variance > 0 else float(n)


def mean_estimate(
    values: Sequence[float],
    groups: Sequence[Any] | None = None,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
) -> Estimate:
    """The mean of some values with its interval.

    Values that are all 0 or 1 are a rate and get :func:`wilson` (or what :func:`rate_intervals` says); anything else
    gets a BCa bootstrap interval (Efron, 1987; :func:`scipy.stats.bootstrap`), and the percentile one where BCa is not
    defined. NaNs are left out, and ``n`` says so.

    Args:
        values: numbers; NaN for "no value".
        groups: what makes two values the same observation, e.g. the key of the image. Values of one group are averaged
            first and count once: two prompt rows that share one image are one observation.
        seed: of the bootstrap.
        clusters: what makes observations hang together, e.g. the prompt and seed that several edits have drawn. They
            all count in the mean and in n, but the interval knows: a rate has the one of :func:`effective_n`
            observations, a mean is resampled by whole clusters. All values of one group are in one cluster.
    """
    numbers, codes = _observations(values, groups, clusters)
    if numbers.size == 0:
        return not_run()
    together = CLUSTERED if np.unique(codes).size < numbers.size else ""
    if np.isin(numbers, (0.0, 1.0)).all():
        effective = effective_n(numbers, codes) if together else numbers.size
        found = _rate(float(numbers.sum()), numbers.size, effective, _rates_by.get())
    else:
        found = _bootstrap_mean(numbers, codes, seed)
    # One cluster that all values are in says nothing of others like it, but the values stand.
    return Estimate(found.value, found.n, found.low, found.high, found.how + (together if found.how != "none" else ""))


def paired_difference(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[Any] | None = None, seed: int = 0
) -> Estimate:
    """The mean of ``a - b`` over the same prompts, with an interval over pairs.

    Pairs with a NaN on either side are left out. Outcomes that are all 0 or 1, one pair a cluster, get
    :func:`newcombe`'s interval, which is not empty where two erasers agree on every prompt (one pair of each cluster, if
    every pair has the same difference); anything else a bootstrap over whole clusters, and ``exact`` where every
    difference is the same.

    Args:
        a: values of one eraser, in the order of prompts. Position decides, not the index of a Series.
        b: values of the other (usually ``none``), same order.
        clusters: what makes pairs hang together, as in :func:`mean_estimate`: the prompt and seed.
        seed: of the bootstrap.

    Returns:
        ``n`` is the number of clusters: pairs of one prompt and seed count once together.

    Raises:
        ValueError: the two are not of one length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values differ in number: {first.shape} and {second.shape}")
    numbers, codes = _observations(first - second, None, clusters)
    if numbers.size == 0:
        return not_run()
    known = ~np.isnan(first - second)
    first, second = first[known], second[known]
    _, one = np.unique(codes, return_index=True)
    if np.isin([first, second], (0.0, 1.0)).all() and (one.size == numbers.size or np.ptp(numbers) == 0):
        return newcombe(first[one], second[one])
    found = _bootstrap_mean(numbers, codes, seed)
    return Estimate(found.value, one.size, found.low, found.high, found.how)


def newcombe(a: Sequence[float], b: Sequence[float]) -> Estimate:
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
    together = max(0.0, together - n / 2) if together > 0 else together
    phi = together / math.sqrt(margins) if margins > 0 else 0.0
    one, two = wilson(int(first.sum()), n), wilson(int(second.sum()), n)

    def distance(own: float, other: float) -> float:
        return math.sqrt(max(0.0, own**2 - 2 * phi * own * other + other**2))

    value = one.value - two.value
    low = value - distance(one.value - one.low, two.high - two.value)
    high = value + distance(one.high - one.value, two.value - two.low)
    return Estimate(value, n, low, high, "newcombe")


def holm(p_values: Sequence[float]) -> np.ndarray:
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
    parts: Sequence[Sequence[float]],
    groups: Sequence[Sequence[Any]] | None = None,
    seed: int = 0,
    clusters: Sequence[Sequence[Any]] | None = None,
) -> Estimate:
    """Harmonic mean of several means, with a bootstrap interval: each part is resampled on its own.

    The score of MACE and SPEED for celebrities is ``harmonic_mean_estimate([1 - erased, retained])`` over images, the
    one for CIFAR-like objects has a third part. Give each part so that 1 is good.

    Args:
        parts: values of each part, each at least one number; NaNs are left out.
        groups: for each part, as in :func:`mean_estimate`.
        seed: of the bootstrap.
        clusters: for each part, as in :func:`mean_estimate`.

    Returns:
        ``n`` is the size of the smallest part; NaN and n = 0 if a part is empty. The interval is the percentile one.
    """
    sets = [
        _observations(part, None if groups is None else groups[i], None if clusters is None else clusters[i])
        for i, part in enumerate(parts)
    ]
    if not sets or any(numbers.size == 0 for numbers, _ in sets):
        return not_run()
    value = harmonic_mean([numbers.mean() for numbers, _ in sets])
    rng = np.random.default_rng(seed)
    means = []
    for numbers, codes in sets:
        sums, counts = np.bincount(codes, weights=numbers), np.bincount(codes)
        drawn = rng.integers(counts.size, size=(RESAMPLES, counts.size))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    with np.errstate(divide="ignore"):
        draws = np.where((np.stack(means) > 0).all(axis=0), len(sets) / (1.0 / np.stack(means)).sum(axis=0), 0.0)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    together = CLUSTERED if any(np.unique(codes).size < numbers.size for numbers, codes in sets) else ""
    return Estimate(value, min(numbers.size for numbers, _ in sets), float(low), float(high), "percentile" + together)


def _members(groups: Sequence[Any]) -> list[np.ndarray]:
    """The row numbers of each group."""
    _, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])


def _observations(
    values: Sequence[float], groups: Sequence[Any] | None = None, clusters: Sequence[Any] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values without NaNs, one (the mean) a group if groups are given, and the number of each one's cluster."""
    numbers = np.asarray(values, dtype=np.float64)
    keep = ~np.isnan(numbers)
    given = {}
    for what, names in (("groups", groups), ("clusters", clusters)):
        named = np.arange(numbers.size) if names is None else np.asarray(names, dtype=object)
        if named.shape != numbers.shape:
            raise ValueError(f"{numbers.size} values but {named.size} {what}")
        given[what] = named[keep] if names is None else np.unique(named[keep].astype(str), return_inverse=True)[1]
    numbers = numbers[keep]
    if groups is not None and numbers.size:
        code = given["groups"]
        _, first = np.unique(code, return_index=True)
        numbers = np.bincount(code, weights=numbers) / np.bincount(code)
        given["clusters"] = given["clusters"][first]
    _, codes = np.unique(given["clusters"], return_inverse=True)
    return numbers, codes if clusters is not None else np.arange(numbers.size)


def _bootstrap_mean(numbers: np.ndarray, codes: np.ndarray, seed: int) -> Estimate:
    """Mean with a BCa interval over whole clusters; percentile where BCa is not defined.

    ``exact`` where all values are equal; no interval where there is one cluster only.
    """
    value = float(numbers.mean())
    sums, counts = np.bincount(codes, weights=numbers), np.bincount(codes).astype(np.float64)
    if counts.size == 1:
        return Estimate(value, numbers.size, math.nan, math.nan, "none")
    if np.ptp(numbers) == 0:
        return Estimate(value, numbers.size, value, value, "exact")

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis=axis) / counts.sum(axis=axis)

    alone = counts.max() == 1
    for method in ("BCa", "percentile"):
        interval = scipy_stats.bootstrap(
            (numbers,) if alone else (sums, counts),
            np.mean if alone else mean,
            paired=not alone,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            method=method,
            batch=max(1, 2_000_000 // counts.size),
            rng=np.random.default_rng(seed),
            vectorized=True,
        ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            break
    return Estimate(value, numbers.size, float(interval.low), float(interval.high), method.lower())
