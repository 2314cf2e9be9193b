"""Kernel distance between feature sets (KID with Inception features)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from erasebench.metrics._features import FeatureMetric
from erasebench.stats import Estimate, set_bootstrap

SUBSET, SUBSETS = 1000, 100
"""Above this many images the distance is averaged over this many random subsets (Binkowski et al., 2018)."""


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cubic kernel ``(x y / d + 1)^3`` of all pairs, ``[n, m]``."""
    return (np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T / a.shape[1] + 1) ** 3


def _unbiased(aa: np.ndarray, bb: np.ndarray, ab: np.ndarray) -> float:
    """Squared MMD from kernel matrices, without the pairs of a row with itself."""
    n, m = len(aa), len(bb)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * ab.mean())


def kernel_distance(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Squared maximum mean discrepancy with a cubic kernel, the unbiased estimate (KID; Binkowski et al., 2018).

    Right on average for any number of images, so it may be negative where two sets are alike. Sets of at most 1000 are
    used whole; larger ones by the mean over 100 random subsets of 1000, as published.

    Args:
        a: ``[n, d]``, n at least 2.
        b: ``[m, d]``, m at least 2.
        seed: of the subsets.
    """
    if max(len(a), len(b)) <= SUBSET:
        return _unbiased(kernel(a, a), kernel(b, b), kernel(a, b))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(SUBSETS):
        some_a = a[rng.choice(len(a), min(SUBSET, len(a)), replace=False)]
        some_b = b[rng.choice(len(b), min(SUBSET, len(b)), replace=False)]
        draws.append(_unbiased(kernel(some_a, some_a), kernel(some_b, some_b), kernel(some_a, some_b)))
    return float(np.mean(draws))


@dataclass(kw_only=True, eq=False)
class Kid(FeatureMetric):
    """Kernel distance of features; unbiased, so the one to use with few images. See :class:`FeatureMetric`."""

    kind_of_distance = "kid"

    def _estimate(self, ours: np.ndarray, theirs: np.ndarray, *, paired: bool) -> Estimate:
        value = kernel_distance(ours, theirs)
        if max(len(ours), len(theirs)) > self.interval_up_to or self.resamples == 0:
            return Estimate(value, len(ours), float("nan"), float("nan"), "none")
        aa, bb, ab = kernel(ours, ours), kernel(theirs, theirs), kernel(ours, theirs)

        def resampled(i: np.ndarray, j: np.ndarray) -> float:
            return _unbiased(aa[np.ix_(i, i)], bb[np.ix_(j, j)], ab[np.ix_(i, j)])

        all_ours, all_theirs = np.arange(len(ours)), np.arange(len(theirs))
        low, high = set_bootstrap(all_ours, all_theirs, resampled, self.resamples, paired=paired)
        middle = resampled(all_ours, all_theirs)  # not quite the value where that is a mean over subsets
        return Estimate(value, len(ours), value + low - middle, value + high - middle, "percentile")
