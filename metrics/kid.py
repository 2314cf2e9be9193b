"""Kernel distance between feature sets (KID with Inception features)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from erasebench.metrics._features import FeatureMetric
from erasebench.scores.bootstrap import set_bootstrap
from erasebench.scores.estimate import Estimate

SUBSET, SUBSETS = 1000, 100
"""Above this many images the distance is averaged over this many random subsets (Binkowski et al., 2018)."""


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cubic kernel ``(x y / d + 1)^3`` of all pairs, ``[n, m]``."""
    return (np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T / a.shape[1] + 1) ** 3


def _unbiased(aa: np.ndarray, bb: np.ndarray, ab: np.ndarray, groups: np.ndarray | None) -> float:
    """Squared MMD from kernel matrices, without the pairs of a row with itself, or within a group if there are any."""
    if groups is None:
        n, m = len(aa), len(bb)
        within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
        return float(within - 2 * ab.mean())
    apart = groups[:, None] != groups[None, :]
    return float(((aa + bb - 2 * ab) * apart).sum() / apart.sum()) if apart.any() else math.nan


def kernel_distance(a: np.ndarray, b: np.ndarray, groups: Sequence | np.ndarray | None = None, seed: int = 0) -> float:
    """Squared maximum mean discrepancy with a cubic kernel, the unbiased estimate (KID; Binkowski et al., 2018).

    Right on average for any number of images, so it may be negative where two sets are alike. Sets of at most 1000 are
    used whole; larger ones by the mean over 100 random subsets of 1000, as published.

    Two sets of images of the same prompts and seeds are not independent: an image resembles its partner, which pulls
    the usual estimate below zero. With ``groups`` the kernels of images that go back to one prompt and seed are left
    out, in both sets and between them. That is unbiased for such sets (the one-sample U-statistic of Gretton et al.,
    2012) and exactly 0 for the same images twice.

    Args:
        a: ``[n, d]``, n at least 2.
        b: ``[m, d]``, m at least 2; m = n and in the same order with groups.
        groups: ``[n]``, what prompt and seed row i of both sets belongs to; at least two different ones.
        seed: of the subsets.
    """
    code = None if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    if max(len(a), len(b)) <= SUBSET:
        return _unbiased(kernel(a, a), kernel(b, b), kernel(a, b), code)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(SUBSETS):
        rows_a = rng.choice(len(a), min(SUBSET, len(a)), replace=False)
        rows_b = rng.choice(len(b), min(SUBSET, len(b)), replace=False) if code is None else rows_a
        some_a, some_b, some = a[rows_a], b[rows_b], None if code is None else code[rows_a]
        draws.append(_unbiased(kernel(some_a, some_a), kernel(some_b, some_b), kernel(some_a, some_b), some))
    return float(np.mean(draws))


@dataclass(kw_only=True, eq=False)
class Kid(FeatureMetric):
    """Kernel distance of features; unbiased, so the one to use with few images. See :class:`FeatureMetric`.

    Against the unedited model's images it is the form of :func:`kernel_distance` for images of the same prompts and
    seeds; against a folder of real images, the published one.
    """

    kind_of_distance = "kid"

    def _estimate(self, ours: np.ndarray, theirs: np.ndarray, partners: np.ndarray | None) -> Estimate:
        value = kernel_distance(ours, theirs, partners)
        if max(len(ours), len(theirs)) > self.interval_up_to or self.resamples == 0:
            return Estimate(value, len(ours), float("nan"), float("nan"), "none")
        aa, bb, ab = kernel(ours, ours), kernel(theirs, theirs), kernel(ours, theirs)

        def resampled(i: np.ndarray, j: np.ndarray) -> float:
            some = None if partners is None else partners[i]
            return _unbiased(aa[np.ix_(i, i)], bb[np.ix_(j, j)], ab[np.ix_(i, j)], some)

        all_ours, all_theirs = np.arange(len(ours)), np.arange(len(theirs))
        low, high = set_bootstrap(all_ours, all_theirs, resampled, self.resamples, groups=partners)
        if math.isnan(low):
            return Estimate(value, len(ours), low, high, "none")
        middle = resampled(all_ours, all_theirs)  # not quite the value where that is a mean over subsets
        return Estimate(value, len(ours), value + low - middle, value + high - middle, "percentile")
