"""Intervals by resampling: of a mean, and of a statistic of two sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from erasebench.scores.bootstrap import FEWEST_ROWS, bca_interval, set_bootstrap


def test_an_interval_over_clusters_of_one_size_is_that_of_their_means():
    sums = np.random.default_rng(0).normal(size=50)
    alone = bca_interval(sums, np.ones(50), seed=0)
    assert alone[2] == "bca" and alone[0] < sums.mean() < alone[1]
    four_each = bca_interval(4 * sums, np.full(50, 4.0), seed=0)
    assert four_each[:2] == pytest.approx(alone[:2], rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_bca_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    sums, counts = rng.exponential(2.0, size=60), rng.integers(1, 5, 60).astype(float)
    for data, mean in (
        ((sums,), np.mean),
        ((sums, counts), lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis)),
    ):
        theirs = scipy_stats.bootstrap(
            data,
            mean,
            paired=len(data) > 1,
            n_resamples=1000,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(7),
        ).confidence_interval
        ours = bca_interval(sums, counts if len(data) > 1 else np.ones(60), seed=7)
        np.testing.assert_allclose(ours[:2], tuple(theirs), rtol=1e-12)
        assert ours[2] == "bca"


def test_where_bca_is_not_defined_the_interval_is_that_of_percentiles():
    counts = np.array([1.0, 2.0, 3.0] * 20)
    assert bca_interval(2 * counts, counts, seed=0) == (2.0, 2.0, "percentile")  # no cluster moves the mean


def test_bca_intervals_cover_the_mean_of_skewed_values():
    rng = np.random.default_rng(3)
    ends = [bca_interval(rng.exponential(2.0, size=40), np.ones(40), seed=0)[:2] for _ in range(100)]
    assert 87 <= sum(low <= 2.0 <= high for low, high in ends) <= 100


def test_set_bootstrap_holds_the_statistic_and_narrows_with_n():
    rng = np.random.default_rng(0)

    def gap(a, b):
        return float(a.mean() - b.mean())

    widths = []
    for n in (20, 2000):
        a, b = rng.normal(1, 1, size=(n, 3)), rng.normal(0, 1, size=(n, 3))
        low, high = set_bootstrap(a, b, gap, 200, seed=0)
        assert low < gap(a, b) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
    low, high = set_bootstrap(a, a + 1, gap, 50, groups=range(len(a)))
    assert low == pytest.approx(-1) and high == pytest.approx(-1)  # the same rows on both sides


def test_a_set_of_too_few_rows_or_prompts_has_no_interval():
    """Of two prompts most draws are the same two: such an interval had no width."""
    a = np.random.default_rng(0).normal(size=(40, 3))

    def gap(a, b):
        return float(a.mean() - b.mean())

    for few in (a[:1], a[: FEWEST_ROWS - 1]):
        assert all(math.isnan(end) for end in set_bootstrap(few, a, gap))
    two_prompts = set_bootstrap(a, a + 1, gap, groups=np.repeat([0, 1], 20))
    assert all(math.isnan(end) for end in two_prompts)
    assert not math.isnan(set_bootstrap(a[:FEWEST_ROWS], a, gap)[0])


def test_set_bootstrap_draws_whole_groups():
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(40, 1))
    repeated, groups = np.repeat(distinct, 5, axis=0), np.repeat(np.arange(40), 5)

    def mean(a, b):
        return float(a.mean())

    low, high = set_bootstrap(distinct, distinct, mean, 400, groups=range(40))
    again = set_bootstrap(repeated, repeated, mean, 400, groups=groups)
    assert again == pytest.approx((low, high), abs=0.05)  # repeats add no certainty
    rows = set_bootstrap(repeated, repeated, mean, 400, groups=range(200))
    assert rows[1] - rows[0] < 0.6 * (high - low)
    with pytest.raises(ValueError, match="differ in number"):
        set_bootstrap(distinct, repeated, mean, groups=groups)
