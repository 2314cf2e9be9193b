"""Estimates and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench import stats


def test_wilson_is_the_textbook_formula():
    successes, n, z = 7, 23, 1.959963984540054
    rate = successes / n
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    estimate = stats.wilson(successes, n)
    assert (estimate.value, estimate.n, estimate.how) == (rate, n, "wilson")
    assert estimate.low == pytest.approx(middle - half, abs=1e-9)
    assert estimate.high == pytest.approx(middle + half, abs=1e-9)


@given(st.integers(1, 500), st.data())
@settings(max_examples=50, deadline=None)
def test_wilson_stays_a_rate_and_holds_its_value(n, data):
    estimate = stats.wilson(data.draw(st.integers(0, n)), n)
    assert -1e-12 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1 + 1e-12
    assert estimate.high - estimate.low > 0


def test_wilson_refuses_what_is_no_rate():
    for successes, n in ((3, 2), (-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="not a rate"):
            stats.wilson(successes, n)


def test_no_values_are_not_run():
    for estimate in (
        stats.wilson(0, 0),
        stats.mean_estimate([]),
        stats.mean_estimate([math.nan]),
        stats.paired_difference([math.nan], [1.0]),
        stats.harmonic_mean_estimate([[1.0], []]),
    ):
        assert estimate.n == 0
        assert math.isnan(estimate.value)
        assert estimate.how == "not run"


def test_binary_values_are_a_rate_and_nans_do_not_count():
    assert stats.mean_estimate([1, 0, math.nan, 1]) == stats.wilson(2, 3)


def test_rows_of_one_image_count_once():
    grouped = stats.mean_estimate([1, 1, 1, 0], groups=["a", "a", "a", "b"])
    assert grouped == stats.wilson(1, 2)
    assert stats.mean_estimate([3.0, 5.0, 10.0], groups=["x", "x", "y"]).value == 7.0


def test_equal_values_are_exact_and_one_value_has_no_interval():
    same = stats.mean_estimate([0.25] * 5)
    assert (same.low, same.high, same.how) == (0.25, 0.25, "exact")
    single = stats.mean_estimate([0.25])
    assert single.value == 0.25 and single.n == 1 and math.isnan(single.low)


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=40)
    assert stats.mean_estimate(values) == stats.mean_estimate(values)
    assert stats.mean_estimate(values) != stats.mean_estimate(values, seed=1)


def test_bootstrap_intervals_cover_the_mean():
    """95 % intervals of 30 skewed values hold the true mean in about 95 of 100 draws (a bootstrap: a little fewer)."""
    rng = np.random.default_rng(3)
    found = [stats.mean_estimate(rng.exponential(2.0, size=30)) for _ in range(100)]
    assert 85 <= sum(estimate.low <= 2.0 <= estimate.high for estimate in found) <= 100
    assert all(estimate.how == "bca" for estimate in found)


def test_paired_difference_is_of_pairs():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 10, size=50)
    a, b = prompts + 1 + rng.normal(0, 0.1, size=50), prompts
    estimate = stats.paired_difference(a, b)
    assert estimate.value == pytest.approx(np.mean(a - b))
    assert 0.9 < estimate.low < estimate.value < estimate.high < 1.1  # the spread of prompts (10) is gone
    assert stats.paired_difference(b, b).how == "exact"
    assert stats.paired_difference([1, math.nan, 3], [0, 0, 0]).n == 2
    with pytest.raises(ValueError, match="differ in number"):
        stats.paired_difference([1, 2], [1])


def test_set_bootstrap_holds_the_statistic_and_narrows_with_n():
    rng = np.random.default_rng(0)

    def gap(a, b):
        return float(a.mean() - b.mean())

    widths = []
    for n in (20, 2000):
        a, b = rng.normal(1, 1, size=(n, 3)), rng.normal(0, 1, size=(n, 3))
        low, high = stats.set_bootstrap(a, b, gap, 200, seed=0)
        assert low < gap(a, b) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
    low, high = stats.set_bootstrap(a, a + 1, gap, 50, groups=range(len(a)))
    assert low == pytest.approx(-1) and high == pytest.approx(-1)  # the same rows on both sides
    assert all(math.isnan(end) for end in stats.set_bootstrap(a[:1], b, gap))


def test_set_bootstrap_draws_whole_groups():
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(40, 1))
    repeated, groups = np.repeat(distinct, 5, axis=0), np.repeat(np.arange(40), 5)

    def mean(a, b):
        return float(a.mean())

    low, high = stats.set_bootstrap(distinct, distinct, mean, 400, groups=range(40))
    again = stats.set_bootstrap(repeated, repeated, mean, 400, groups=groups)
    assert again == pytest.approx((low, high), abs=0.05)  # repeats add no certainty
    rows = stats.set_bootstrap(repeated, repeated, mean, 400, groups=range(200))
    assert rows[1] - rows[0] < 0.6 * (high - low)
    with pytest.raises(ValueError, match="differ in number"):
        stats.set_bootstrap(distinct, repeated, mean, groups=groups)


def test_harmonic_mean_is_the_published_celebrity_score():
    assert stats.harmonic_mean([1 - 0.0587, 0.8554]) == pytest.approx(0.8963, abs=5e-5)  # SPEED, as printed
    assert stats.harmonic_mean([1 - 0.0480, 0.8020]) == pytest.approx(0.8706, abs=5e-5)  # MACE, as printed
    assert stats.harmonic_mean([0.0, 1.0]) == 0.0
    assert math.isnan(stats.harmonic_mean([math.nan, 1.0]))


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_harmonic_mean_lies_between_and_below_the_mean(rates):
    value = stats.harmonic_mean(rates)
    assert min(rates) - 1e-12 <= value <= np.mean(rates) + 1e-12


def test_harmonic_mean_estimate_of_images():
    parts = [[1.0] * 90 + [0.0] * 10, [1.0] * 160 + [0.0] * 40]
    estimate = stats.harmonic_mean_estimate(parts)
    assert estimate.value == pytest.approx(stats.harmonic_mean([0.9, 0.8]))
    assert estimate.n == 100
    assert 0.7 < estimate.low < estimate.value < estimate.high < 0.95
