"""Rates, their intervals, what hanging together does to them, and the harmonic mean of two."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from erasebench.scores.estimate import Estimate
from erasebench.scores.rates import (
    clopper_pearson,
    complement,
    effective_n,
    harmonic_mean,
    harmonic_mean_estimate,
    rate_estimate,
    wilson,
)

WAYS = {"wilson": wilson, "clopper-pearson": clopper_pearson}


def test_wilson_is_the_textbook_formula():
    successes, n, z = 7, 23, 1.959963984540054
    rate = successes / n
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    estimate = wilson(successes, n)
    assert (estimate.value, estimate.n, estimate.how) == (rate, n, "wilson")
    assert estimate.low == pytest.approx(middle - half, abs=1e-9)
    assert estimate.high == pytest.approx(middle + half, abs=1e-9)


@given(st.integers(1, 500), st.sampled_from(sorted(WAYS)), st.data())
@settings(max_examples=80, deadline=None)
def test_an_interval_of_a_rate_stays_a_rate_holds_its_value_and_is_never_a_point(n, way, data):
    estimate = WAYS[way](data.draw(st.integers(0, n)), n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 1 / (n + 4)


def test_what_is_no_rate_is_refused():
    for successes, n in ((3, 2), (-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="not a rate"):
            wilson(successes, n)
    with pytest.raises(ValueError, match="no rate"):
        rate_estimate([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="2 values but 1 clusters"):
        rate_estimate([0.0, 1.0], clusters=["a"])


def test_no_values_are_not_run():
    for estimate in (
        wilson(0, 0),
        rate_estimate([]),
        rate_estimate([math.nan]),
        harmonic_mean_estimate(wilson(1, 1), rate_estimate([])),
    ):
        assert estimate.n == 0 and math.isnan(estimate.value) and estimate.how == "not run"


def test_nans_do_not_count_and_rows_of_one_image_count_once():
    assert rate_estimate([1, 0, math.nan, 1]) == wilson(2, 3)
    assert rate_estimate([1, 1, 1, 0], groups=["a", "a", "a", "b"]) == wilson(1, 2)
    assert rate_estimate([1, 0, 0], groups=["a", "a", "b"]) == wilson(0.5, 2), "two prompts, one image: half a hit"


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_rates_have_scipys_intervals(n, data):
    successes = data.draw(st.integers(0, n))
    for ours, name in ((wilson, "wilson"), (clopper_pearson, "exact")):
        estimate = ours(successes, n)
        theirs = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method=name)
        assert estimate.low == pytest.approx(theirs.low, abs=1e-9)
        assert estimate.high == pytest.approx(theirs.high, abs=1e-9)


def test_clopper_pearson_covers_at_least_what_it_says():
    """Exact coverage, by summing over every outcome: never below 95 %, which Wilson's is for some rates."""
    n, outcomes = 20, np.arange(21)
    intervals = {name: [way(k, n) for k in outcomes] for name, way in WAYS.items()}
    least = {name: 1.0 for name in WAYS}
    for rate in np.linspace(0.01, 0.99, 99):
        chance = scipy_stats.binom.pmf(outcomes, n, rate)
        for name, estimates in intervals.items():
            holds = np.array([estimate.low <= rate <= estimate.high for estimate in estimates])
            least[name] = min(least[name], chance[holds].sum())
    assert least["clopper-pearson"] >= 0.95 and 0.8 < least["wilson"] < 0.95


def test_rates_have_the_interval_that_is_asked_for():
    assert rate_estimate([1, 0, 1], interval="clopper-pearson") == clopper_pearson(2, 3)
    assert rate_estimate([1, 0, 1]) == wilson(2, 3)
    with pytest.raises(ValueError, match="none of wilson, clopper-pearson"):
        rate_estimate([1, 0, 1], interval="wald")


def test_images_of_one_prompt_count_but_do_not_make_it_surer():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 2, size=40).astype(float)
    copies, prompts = np.repeat(answers, 5), np.repeat(np.arange(40), 5)
    estimate, single = rate_estimate(copies, clusters=prompts), rate_estimate(answers)
    assert (estimate.value, estimate.n, estimate.how) == (single.value, 200, "wilson, clustered")
    # Five copies of an answer are one answer; Korn and Graubard's correction for few clusters makes it a little wider.
    assert single.high - single.low <= estimate.high - estimate.low < 1.1 * (single.high - single.low)
    alone = rate_estimate(copies, clusters=np.arange(200))
    assert alone == wilson(int(copies.sum()), 200)
    whole = rate_estimate([1.0] * 10, clusters=np.repeat([0, 1], 5))
    assert whole.low == pytest.approx(wilson(2, 2).low), "answers that all agree are as many as their prompts"


def test_intervals_over_clusters_cover_a_rate_that_prompts_share():
    """Prompts differ in how often an edit of theirs succeeds: only the clustered interval holds the rate often enough."""
    rng, prompts, edits = np.random.default_rng(0), 30, 6
    clusters, held = np.repeat(np.arange(prompts), edits), {"clustered": 0, "alone": 0}
    for _ in range(200):
        values = rng.random(prompts * edits) < np.repeat(rng.beta(0.5, 0.5, size=prompts), edits)
        for name, given_clusters in (("clustered", clusters), ("alone", None)):
            estimate = rate_estimate(values.astype(float), clusters=given_clusters)
            held[name] += estimate.low <= 0.5 <= estimate.high
    assert held["clustered"] >= 0.9 * 200 > held["alone"]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_the_effective_number_lies_between_one_and_all(rows):
    values, clusters = zip(*rows, strict=True)
    assert 1 <= effective_n(values, clusters) <= len(values)
    assert effective_n(values, range(len(values))) == len(values)


# The harmonic mean


def test_harmonic_mean_is_the_published_celebrity_score():
    assert harmonic_mean([1 - 0.0587, 0.8554]) == pytest.approx(0.8963, abs=5e-5)  # SPEED, as printed
    assert harmonic_mean([1 - 0.0480, 0.8020]) == pytest.approx(0.8706, abs=5e-5)  # MACE, as printed
    assert harmonic_mean([0.0, 1.0]) == 0.0
    assert math.isnan(harmonic_mean([math.nan, 1.0])) and math.isnan(harmonic_mean([]))


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_harmonic_mean_lies_between_and_below_the_mean(rates):
    value = harmonic_mean(rates)
    assert min(rates) - 1e-12 <= value <= np.mean(rates) + 1e-12


@st.composite
def parts(draw):
    """Two rates with their intervals, at the ends too."""
    n, m = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    way = WAYS[draw(st.sampled_from(sorted(WAYS)))]
    counts = [draw(st.one_of(st.just(0), st.just(size), st.integers(0, size))) for size in (n, m)]
    return way(counts[0], n), way(counts[1], m)


@given(parts())
@settings(max_examples=150, deadline=None)
def test_an_interval_of_the_harmonic_mean_is_never_a_point_and_goes_as_far_as_its_parts_alone(rates):
    """It holds the number, lies within what both ends at once would give, and reaches what one end alone gives."""
    first, second = rates
    estimate = harmonic_mean_estimate(first, second)
    assert estimate.value == harmonic_mean([first.value, second.value]) and estimate.n == min(first.n, second.n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0.002
    assert harmonic_mean([first.low, second.low]) <= estimate.low + 1e-12
    assert estimate.high <= harmonic_mean([first.high, second.high]) + 1e-12
    for one in ((first.low, second.value), (first.value, second.low)):
        assert estimate.low <= harmonic_mean(one) + 1e-12
    for one in ((first.high, second.value), (first.value, second.high)):
        assert harmonic_mean(one) <= estimate.high + 1e-12
    swapped = harmonic_mean_estimate(second, first)
    assert (swapped.low, swapped.high) == pytest.approx((estimate.low, estimate.high), rel=1e-12, abs=1e-12)


def test_a_harmonic_mean_of_two_like_parts_has_movers_interval():
    """Near 1 it is the mean of its parts, and for a mean MOVER is known in closed form."""
    first, second = Estimate(0.99, 900, 0.985, 0.993, "x"), Estimate(0.99, 900, 0.987, 0.992, "x")
    estimate = harmonic_mean_estimate(first, second)
    assert estimate.low == pytest.approx(0.99 - math.hypot(0.005, 0.003) / 2, abs=2e-5)
    assert estimate.high == pytest.approx(0.99 + math.hypot(0.003, 0.002) / 2, abs=2e-5)


def test_a_part_without_an_interval_leaves_none():
    alone = harmonic_mean_estimate(Estimate(0.5, 3, math.nan, math.nan, "none"), wilson(3, 4))
    assert alone.value == pytest.approx(0.6) and math.isnan(alone.low) and alone.how == "none"


def test_the_harmonic_mean_of_all_or_nothing_says_how_little_few_images_prove():
    """0 of 60 erased concepts seen and all of 45 kept ones; and an eraser that did nothing."""
    perfect = harmonic_mean_estimate(complement(clopper_pearson(0, 60)), clopper_pearson(45, 45))
    assert perfect.value == 1 and perfect.high == 1 and perfect.low == pytest.approx(0.949, abs=0.002)
    nothing = harmonic_mean_estimate(complement(clopper_pearson(60, 60)), clopper_pearson(45, 45))
    assert nothing.value == 0 and nothing.low == 0 and nothing.high == pytest.approx(0.113, abs=0.002)


def test_the_harmonic_mean_of_three_has_their_range():
    """MACE's H_o; with a third part that is certain it is as wide as the two others make it."""
    first, second, third = (clopper_pearson(k, 60) for k in (54, 57, 48))
    estimate = harmonic_mean_estimate(first, second, third)
    assert estimate.value == pytest.approx(3 / (60 / 54 + 60 / 57 + 60 / 48)) and estimate.how == "joint, three"
    lows, highs = ([getattr(part, end) for part in (first, second, third)] for end in ("low", "high"))
    assert harmonic_mean(lows) <= estimate.low <= harmonic_mean([first.value, second.value, third.low])
    assert harmonic_mean([first.value, second.value, third.high]) <= estimate.high <= harmonic_mean(highs)
    sure = Estimate(0.8, 60, 0.8, 0.8, "x")
    flat = harmonic_mean_estimate(first, second, sure)
    low = min(
        harmonic_mean(
            [
                first.value + (first.low - first.value) * math.cos(t),
                second.value + (second.low - second.value) * math.sin(t),
                0.8,
            ]
        )
        for t in np.linspace(0, math.pi / 2, 181)
    )
    assert flat.low == pytest.approx(low, abs=1e-4)
    assert harmonic_mean_estimate(first, second, Estimate(math.nan, 0, math.nan, math.nan, "not run")).n == 0


def coverage(rates: tuple[float, float], sizes: tuple[int, int]) -> float:
    """How often the interval holds the true harmonic mean, summed over all outcomes that are not as good as impossible."""
    truth, held = harmonic_mean(rates), 0.0
    chances = [scipy_stats.binom.pmf(np.arange(n + 1), n, rate) for rate, n in zip(rates, sizes, strict=True)]
    seen = [np.flatnonzero(chance > 1e-6) for chance in chances]
    firsts, seconds = ([clopper_pearson(int(k), n) for k in part] for part, n in zip(seen, sizes, strict=True))
    for i, first in zip(seen[0], firsts, strict=True):
        for j, second in zip(seen[1], seconds, strict=True):
            estimate = harmonic_mean_estimate(first, second)
            held += chances[0][i] * chances[1][j] * (estimate.low - 1e-12 <= truth <= estimate.high + 1e-12)
    return held


@pytest.mark.parametrize("rates", [(0.99, 0.99), (0.97, 0.98), (0.95, 0.99), (0.999, 1.0), (0.01, 0.99), (0.05, 0.05)])
@pytest.mark.parametrize("sizes", [(60, 105), (20, 45)])
def test_intervals_of_the_harmonic_mean_cover_it(rates, sizes):
    assert coverage(rates, sizes) >= 0.96


@pytest.mark.parametrize(
    ("rates", "sizes"),
    [
        ((0.995, 0.995), (60, 135)), ((0.99, 0.99), (60, 135)), ((0.01, 0.99), (60, 135)), ((0.001, 1.0), (60, 135)),
        ((0.95, 0.99), (20, 45)), ((0.99, 0.99), (20, 45)), ((0.01, 0.99), (20, 45)), ((0.5, 0.9), (60, 135)),
    ],
)  # fmt: skip
def test_intervals_of_the_harmonic_mean_cover_it_where_the_bootstrap_did_not(rates, sizes):
    """(1 - erased, retained): the main job's sizes and those of one concept, at both ends; it covered 6 to 85 % there."""
    assert coverage(rates, sizes) >= 0.93


def test_intervals_of_the_harmonic_mean_cover_it_where_images_hang_together():
    """60 erased images, and 45 prompts that three edits each have drawn: a prompt that fails does so under all three."""
    rng, held, clusters = np.random.default_rng(7), 0, np.repeat(np.arange(45), 3)
    for _ in range(300):
        erased = (rng.random(60) < 0.97).astype(float)
        retained = np.repeat(rng.random(45) < 0.98, 3).astype(float)
        estimate = harmonic_mean_estimate(
            rate_estimate(erased, interval="clopper-pearson"),
            rate_estimate(retained, clusters=clusters, interval="clopper-pearson"),
        )
        held += estimate.low <= harmonic_mean([0.97, 0.98]) <= estimate.high
        assert estimate.how == "joint, clustered" and estimate.n == 60
    assert held >= 0.93 * 300
