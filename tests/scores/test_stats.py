"""Estimates and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from erasebench.scores import stats


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


@given(st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_rates_have_scipys_intervals(n, data):
    successes = data.draw(st.integers(0, n))
    for ours, name in ((stats.wilson, "wilson"), (stats.clopper_pearson, "exact")):
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
        for name, found in intervals.items():
            holds = np.array([estimate.low <= rate <= estimate.high for estimate in found])
            least[name] = min(least[name], chance[holds].sum())
    assert least["clopper-pearson"] >= 0.95 and 0.8 < least["wilson"] < 0.95


WAYS = {"wilson": stats.wilson, "clopper-pearson": stats.clopper_pearson}


def test_rates_have_the_interval_that_is_asked_for():
    with stats.rate_intervals("clopper-pearson"):
        assert stats.mean_estimate([1, 0, 1]) == stats.clopper_pearson(2, 3)
    assert stats.mean_estimate([1, 0, 1]) == stats.wilson(2, 3)
    with pytest.raises(ValueError, match="none of wilson, clopper-pearson"), stats.rate_intervals("wald"):
        pass


def test_images_of_one_prompt_count_but_do_not_make_it_surer():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 2, size=40).astype(float)
    copies, prompts = np.repeat(answers, 5), np.repeat(np.arange(40), 5)
    estimate, single = stats.mean_estimate(copies, clusters=prompts), stats.mean_estimate(answers)
    assert (estimate.value, estimate.n, estimate.how) == (single.value, 200, "wilson, clustered")
    # Five copies of an answer are one answer; Korn and Graubard's correction for few clusters makes it a little wider.
    assert single.high - single.low <= estimate.high - estimate.low < 1.1 * (single.high - single.low)
    alone = stats.mean_estimate(copies, clusters=np.arange(200))
    assert alone == stats.wilson(int(copies.sum()), 200)
    means = stats.mean_estimate(np.repeat(rng.normal(size=40), 5), clusters=prompts)
    assert means.how == "bca, clustered" and means.n == 200
    whole = stats.mean_estimate([1.0] * 10, clusters=np.repeat([0, 1], 5))
    assert whole.low == pytest.approx(stats.wilson(2, 2).low), "answers that all agree are as many as their prompts"


def test_intervals_over_clusters_cover_a_rate_that_prompts_share():
    """Prompts differ in how often an edit of theirs succeeds: only the clustered interval holds the rate often enough."""
    rng, prompts, edits = np.random.default_rng(0), 30, 6
    clusters, held = np.repeat(np.arange(prompts), edits), {"clustered": 0, "plain": 0}
    for _ in range(200):
        values = rng.random(prompts * edits) < np.repeat(rng.beta(0.5, 0.5, size=prompts), edits)
        for name, told in (("clustered", clusters), ("plain", None)):
            estimate = stats.mean_estimate(values.astype(float), clusters=told)
            held[name] += estimate.low <= 0.5 <= estimate.high
    assert held["clustered"] >= 0.9 * 200 > held["plain"]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_the_effective_number_lies_between_one_and_all(rows):
    values, clusters = zip(*rows, strict=True)
    assert 1 <= stats.effective_n(values, clusters) <= len(values)
    assert stats.effective_n(values, range(len(values))) == len(values)


def test_differences_of_rates_have_newcombes_interval():
    """Method 10, step by step, on 36 pairs of two hits, 12 and 2 of one, none of neither."""
    a, b = [1] * 48 + [0] * 2, [1] * 36 + [0] * 12 + [1] * 2
    estimate, first, second = stats.newcombe(a, b), stats.wilson(48, 50), stats.wilson(38, 50)
    phi = (36 * 0 - 12 * 2) / math.sqrt(48 * 2 * 38 * 12)  # negative: no correction for continuity
    below, above = first.value - first.low, second.high - second.value
    low = 0.2 - math.sqrt(below**2 - 2 * phi * below * above + above**2)
    below, above = second.value - second.low, first.high - first.value
    high = 0.2 + math.sqrt(above**2 - 2 * phi * below * above + below**2)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2, low, high), rel=1e-9)
    swapped = stats.newcombe(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-estimate.high, -estimate.low))


def test_erasers_that_agree_on_every_prompt_are_not_proven_to_be_the_same():
    agreed = stats.paired_difference([1, 1, 0, 1], [1, 1, 0, 1])
    assert agreed.value == 0 and agreed.low < 0 < agreed.high
    more = stats.paired_difference([1, 0] * 50, [1, 0] * 50)
    assert more.high - more.low < 0.3 * (agreed.high - agreed.low)
    copies = stats.paired_difference([1, 1, 0, 1] * 9, [1, 1, 0, 1] * 9, clusters=[0, 1, 2, 3] * 9)
    assert (copies.n, copies.low, copies.high) == (4, agreed.low, agreed.high)


def test_newcombes_interval_covers_a_difference():
    held = 0
    for a, b in outcomes(300, n=40):
        estimate = stats.newcombe(a, b)
        held += estimate.low <= 0.1 <= estimate.high
    assert held >= 0.92 * 300


def outcomes(count: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Paired outcomes of two rates that differ by 0.1: both 0.5, one alone 0.2 and 0.1, neither 0.2."""
    rng = np.random.default_rng(2)
    cells = rng.choice(4, p=[0.5, 0.2, 0.1, 0.2], size=(count, n))
    return [((row <= 1).astype(float), np.isin(row, (0, 2)).astype(float)) for row in cells]


def test_pairs_of_one_prompt_are_resampled_together():
    rng = np.random.default_rng(0)
    effect = rng.normal(0, 1, size=40)
    few = stats.paired_difference(effect, np.zeros(40))
    many = stats.paired_difference(np.repeat(effect, 4), np.zeros(160), clusters=[f"{i // 4:02d}" for i in range(160)])
    assert many.n == 40 and (many.low, many.high) == pytest.approx((few.low, few.high), rel=1e-9)


def test_holm_is_its_definition():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = stats.holm([0.02, math.nan, 0.5, 0.02])
    assert math.isnan(adjusted[1]) and adjusted[[0, 2, 3]].tolist() == pytest.approx([0.06, 0.5, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_holm_equals_a_literal_reading_and_keeps_the_order(p_values):
    """Literally: walk from the smallest on; each times the number of those left, never below the one before, at most 1."""
    order, literal, running = sorted(range(len(p_values)), key=lambda i: p_values[i]), {}, 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        literal[i] = min(1.0, running)
    found = stats.holm(p_values)
    assert found.tolist() == pytest.approx([literal[i] for i in range(len(p_values))])
    assert (found >= np.asarray(p_values)).all()
    assert (np.diff(found[np.argsort(p_values, kind="stable")]) >= -1e-15).all()


def test_one_cluster_has_a_mean_and_no_interval():
    estimate = stats.mean_estimate([1.0, 2.0, 4.0], clusters=["a", "a", "a"])
    assert estimate.value == pytest.approx(7 / 3) and math.isnan(estimate.low) and estimate.how == "none"
