"""Means of numbers and of counts, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from erasebench.scores.means import FEW, FEWEST, count_estimate, mean_estimate, poisson_interval


def test_no_values_are_not_run():
    for estimate in (mean_estimate([]), mean_estimate([math.nan]), count_estimate([math.nan])):
        assert estimate.n == 0 and math.isnan(estimate.value) and estimate.how == "not run"


def test_equal_values_are_exact_and_fewer_than_six_have_no_interval():
    same = mean_estimate([0.25] * FEWEST)
    assert (same.low, same.high, same.how) == (0.25, 0.25, "exact")
    for values in ([0.25], [0.25] * (FEWEST - 1), [0.1, 0.2, 0.3, 0.4, 0.9]):
        few = mean_estimate(values)
        assert few.value == pytest.approx(np.mean(values)) and few.n == len(values)
        assert math.isnan(few.low) and math.isnan(few.high) and few.how == "none"
    assert FEWEST == 6 and mean_estimate([0.1, 0.2, 0.3, 0.4, 0.9, 0.2]).how == "t"


def test_rows_of_one_image_count_once():
    assert mean_estimate([3.0, 5.0, 10.0], groups=["x", "x", "y"]).value == 7.0


def test_one_cluster_has_a_mean_and_no_interval():
    estimate = mean_estimate([1.0, 2.0, 4.0], clusters=["a", "a", "a"])
    assert estimate.value == pytest.approx(7 / 3) and math.isnan(estimate.low) and estimate.how == "none"


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=40)
    assert mean_estimate(values) == mean_estimate(values)
    assert mean_estimate(values) != mean_estimate(values, seed=1)


@given(st.lists(st.floats(-100, 100), min_size=FEWEST, max_size=FEW - 1))
@settings(max_examples=60, deadline=None)
def test_few_values_have_students_interval(values):
    estimate = mean_estimate(values)
    if np.ptp(values) == 0:
        assert estimate.how == "exact"
        return
    theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert estimate.how == "t"
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-6)


def test_intervals_of_few_and_of_many_values_cover_the_mean():
    """Normal values: 95 of 100 even of six; skewed ones somewhat fewer, which the docstring says."""
    rng = np.random.default_rng(3)
    held = {}
    for n in (6, 10, 40):
        for name, draw, truth in (("normal", rng.normal, 0.0), ("skewed", rng.exponential, 1.0)):
            estimates = [mean_estimate(draw(size=n)) for _ in range(200)]
            held[n, name] = sum(estimate.low <= truth <= estimate.high for estimate in estimates) / 200
            assert {estimate.how for estimate in estimates} == {"t" if n < FEW else "bca"}
    assert min(held[n, "normal"] for n in (6, 10, 40)) >= 0.91
    assert min(held[n, "skewed"] for n in (6, 10, 40)) >= 0.82


def test_values_of_one_prompt_are_taken_together():
    """Copies of a value are one value: the interval is that of the prompts, for few and for many."""
    rng = np.random.default_rng(1)
    for prompts, how in ((12, "t, clustered"), (40, "bca, clustered")):
        values = rng.normal(size=prompts)
        alone = mean_estimate(values)
        copies = mean_estimate(np.repeat(values, 5), clusters=np.repeat(np.arange(prompts), 5))
        assert copies.how == how and copies.n == 5 * prompts
        assert (copies.low, copies.high) == pytest.approx(
            (alone.low, alone.high), abs=0.02 if how.startswith("bca") else 1e-9
        )


def test_values_that_happen_to_be_0_and_1_are_no_rate():
    """What a value is decides the interval, not what was drawn: one 2 among the counts must not change its kind."""
    values = [0.0] * 30 + [1.0] * 30
    assert mean_estimate(values).how == count_estimate(values).how == "bca"
    assert count_estimate([*values, 2.0]).how == "bca"


def test_no_box_in_sixty_images_is_not_none_in_a_thousand():
    estimate = count_estimate([0.0] * 60)
    assert (estimate.value, estimate.low, estimate.how) == (0.0, 0.0, "poisson")
    assert estimate.high == pytest.approx(-math.log(0.025) / 60)
    together = count_estimate([0.0] * 60, clusters=np.repeat(np.arange(20), 3))
    assert together.high == pytest.approx(-math.log(0.025) / 20) and together.how == "poisson, clustered"
    ones = count_estimate([1.0] * 60)
    assert ones.low < 1 < ones.high


def test_counts_are_never_below_0():
    estimate = count_estimate([0.0] * 6 + [3.0])
    assert estimate.how == "t" and estimate.low == 0 < estimate.value < estimate.high


@given(st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_poisson_intervals_are_garwoods(total):
    """By chi-squared quantiles, as printed; and by definition: at an end, what was seen or worse has 2.5 %."""
    low, high = poisson_interval(total)
    assert high == pytest.approx(scipy_stats.chi2.isf(0.025, 2 * total + 2) / 2)
    assert scipy_stats.poisson.cdf(total, high) == pytest.approx(0.025)
    if total:
        assert low == pytest.approx(scipy_stats.chi2.ppf(0.025, 2 * total) / 2)
        assert scipy_stats.poisson.sf(total - 1, low) == pytest.approx(0.025)
    else:
        assert low == 0
