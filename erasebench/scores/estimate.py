"""A number with what is known of it, and what its observations are.

Every interval is at 95 % and every :class:`Estimate` says how it was made and from how many values. Nothing in the
rooms of estimates (``rates``, ``means``, ``bootstrap``, ``paired``) knows what an image is: the functions take plain
sequences. Mathematics is float64 and every random draw is seeded, so that the same records always give the same table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
"""Level of every interval."""

CLUSTERED = ", clustered"
"""How ``how`` ends where observations that belong together were drawn, or counted, together."""

BINARY, COUNT, CONTINUOUS = "binary", "count", "continuous"
"""What one value is: 0 or 1, so that a mean is a rate; a number of things, 0 at least; any number.

It decides the kind of interval, and is said by who knows it: values that happen to be 0 and 1 do not make a rate.
"""


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of it.

    Attributes:
        value: the number; NaN if it could not be computed (``n`` is 0 then) or is undefined.
        n: independent values it was computed from (images, not prompts that share one image).
        low: lower end of the 95 % interval; NaN if there is none.
        high: upper end.
        how: how the interval was made: ``wilson``, ``clopper-pearson`` (rates), ``joint`` (a harmonic mean of two),
            ``newcombe`` (a difference of paired rates), ``t``, ``bca`` or ``percentile`` (means), ``poisson`` (counts
            that are all equal), ``exact`` (numbers that are all equal: both ends are the value), ``none`` (no
            interval), ``not run`` (no values), or a metric's own remark such as ``reference``. :data:`CLUSTERED`
            behind it: several images of one prompt and seed hang together, and the interval is wider for it; a remark
            such as ``, biased`` is explained in a table's caption.
    """

    value: float
    n: int
    low: float
    high: float
    how: str

    def clustered(self) -> Estimate:
        """The same, saying that its interval knows of clusters (if it has one)."""
        return self if self.how == "none" else replace(self, how=self.how + CLUSTERED)


def not_run(how: str = "not run") -> Estimate:
    """The estimate of no values: NaN everywhere, n = 0."""
    return Estimate(math.nan, 0, math.nan, math.nan, how)


def members_of(groups: ArrayLike) -> list[np.ndarray]:
    """The row numbers of each group, groups in the order of their names."""
    _, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    return np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])


def observations(
    values: ArrayLike, groups: ArrayLike | None = None, clusters: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values without NaNs, one (the mean) a group if groups are given, and the number of each one's cluster.

    Args:
        values: numbers; NaN for "no value".
        groups: what makes two values the same observation, e.g. the key of the image.
        clusters: what makes observations hang together, e.g. the prompt and seed that several edits have drawn. All
            values of one group are in one cluster. Not given: each observation is its own.

    Returns:
        Two arrays of one length, float64 and whole numbers from 0.

    Raises:
        ValueError: groups or clusters of another number than values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    keep = ~np.isnan(numbers)
    codes = {}
    for what, names in (("groups", groups), ("clusters", clusters)):
        named = np.arange(numbers.size) if names is None else np.asarray(names, dtype=object)
        if named.shape != numbers.shape:
            raise ValueError(f"{numbers.size} values but {named.size} {what}")
        codes[what] = named[keep] if names is None else np.unique(named[keep].astype(str), return_inverse=True)[1]
    numbers = numbers[keep]
    if groups is not None and numbers.size:
        group = codes["groups"]
        _, first = np.unique(group, return_index=True)
        numbers = np.bincount(group, weights=numbers) / np.bincount(group)
        codes["clusters"] = codes["clusters"][first]
    if clusters is None:
        return numbers, np.arange(numbers.size)
    return numbers, np.unique(codes["clusters"], return_inverse=True)[1]
