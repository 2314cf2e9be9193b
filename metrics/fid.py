"""Fréchet distance between feature sets (FID with Inception features)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from erasebench.metrics._features import FeatureMetric
from erasebench.scores.bootstrap import set_bootstrap
from erasebench.scores.estimate import Estimate


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to two feature sets (Heusel et al., 2017).

    ``|mean_a - mean_b|^2 + tr A + tr B - 2 tr (A B)^(1/2)`` with the sample covariances ``A = F_a^T F_a``. The last
    trace is the sum of the singular values of ``F_a F_b^T``, which never squares anything: it needs no matrix square
    root, is right for rank-deficient sets, and costs an ``n x m`` matrix where there are fewer images than features.

    The distance is biased upwards, the more the fewer the images: with n images of d features and n near d or less it
    says little more than n. Compare only sets of one size, or use KID.

    Args:
        a: ``[n, d]``, n at least 2.
        b: ``[m, d]``, m at least 2.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    factor_a, factor_b = _factor(a), _factor(b)
    cross = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(max(0.0, shift @ shift + (factor_a**2).sum() + (factor_b**2).sum() - 2 * cross))


def _factor(features: np.ndarray) -> np.ndarray:
    """F with ``F^T F`` the covariance; as few rows as possible."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(features) > features.shape[1] else centred


@dataclass(kw_only=True, eq=False)
class Fid(FeatureMetric):
    """Fréchet distance of features; see :class:`FeatureMetric` for the settings and :func:`frechet_distance` for its
    bias with few images, which every number says of itself (``biased`` in ``how``) and every caption explains."""

    kind_of_distance = "fid"

    def _estimate(self, ours: np.ndarray, theirs: np.ndarray, partners: np.ndarray | None) -> Estimate:
        value = frechet_distance(ours, theirs)
        if len(ours) > self.interval_up_to or self.resamples == 0:
            return Estimate(value, len(ours), float("nan"), float("nan"), "none, biased")
        low, high = set_bootstrap(ours, theirs, frechet_distance, self.resamples, groups=partners)
        if math.isnan(low):
            return Estimate(value, len(ours), low, high, "none, biased")
        return Estimate(value, len(ours), max(0.0, low), high, "percentile, biased")
