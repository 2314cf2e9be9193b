"""Differences over the same prompts and seeds, and p-values of many tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasebench.scores.estimate import BINARY, COUNT
from erasebench.scores.paired import holm, newcombe, paired_difference
from erasebench.scores.rates import wilson


def test_paired_difference_is_of_pairs():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 10, size=50)
    a, b = prompts + 1 + rng.normal(0, 0.1, size=50), prompts
    estimate = paired_difference(a, b)
    assert estimate.value == pytest.approx(np.mean(a - b))
    assert 0.9 < estimate.low < estimate.value < estimate.high < 1.1  # the spread of prompts (10) is gone
    assert paired_difference(b, b).how == "exact"
    assert paired_difference([1, math.nan, 3], [0, 0, 0]).n == 2
    with pytest.raises(ValueError, match="differ in number"):
        paired_difference([1, 2], [1])


def test_differences_of_rates_have_newcombes_interval():
    """Method 10, step by step, on 36 pairs of two hits, 12 and 2 of one, none of neither."""
    a, b = [1] * 48 + [0] * 2, [1] * 36 + [0] * 12 + [1] * 2
    estimate, first, second = newcombe(a, b), wilson(48, 50), wilson(38, 50)
    phi = (36 * 0 - 12 * 2) / math.sqrt(48 * 2 * 38 * 12)  # negative: no correction for continuity
    below, above = first.value - first.low, second.high - second.value
    low = 0.2 - math.sqrt(below**2 - 2 * phi * below * above + above**2)
    below, above = second.value - second.low, first.high - first.value
    high = 0.2 + math.sqrt(above**2 - 2 * phi * below * above + below**2)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2, low, high), rel=1e-9)
    swapped = newcombe(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((-estimate.high, -estimate.low))


def test_erasers_that_agree_on_every_prompt_are_not_proven_to_be_the_same():
    agreed = paired_difference([1, 1, 0, 1], [1, 1, 0, 1], outcome=BINARY)
    assert agreed.value == 0 and agreed.low < 0 < agreed.high
    more = paired_difference([1, 0] * 50, [1, 0] * 50, outcome=BINARY)
    assert more.high - more.low < 0.3 * (agreed.high - agreed.low)
    copies = paired_difference([1, 1, 0, 1] * 9, [1, 1, 0, 1] * 9, [0, 1, 2, 3] * 9, BINARY)
    assert (copies.n, copies.low, copies.high) == (4, agreed.low, agreed.high)


def test_newcombes_interval_covers_a_difference():
    held = 0
    for a, b in outcomes(300, n=40):
        estimate = newcombe(a, b)
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
    few = paired_difference(effect, np.zeros(40))
    many = paired_difference(np.repeat(effect, 4), np.zeros(160), clusters=[f"{i // 4:02d}" for i in range(160)])
    assert many.n == 40 and (many.low, many.high) == pytest.approx((few.low, few.high), rel=1e-9)


def test_holm_is_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.02, math.nan, 0.5, 0.02])
    assert math.isnan(adjusted[1]) and adjusted[[0, 2, 3]].tolist() == pytest.approx([0.06, 0.5, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_holm_equals_a_literal_reading_and_keeps_the_order(p_values):
    """Literally: walk from the smallest on; each times the number of those left, never below the one before, at most 1."""
    order, literal, running = sorted(range(len(p_values)), key=lambda i: p_values[i]), {}, 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        literal[i] = min(1.0, running)
    found = holm(p_values)
    assert found.tolist() == pytest.approx([literal[i] for i in range(len(p_values))])
    assert (found >= np.asarray(p_values)).all()
    assert (np.diff(found[np.argsort(p_values, kind="stable")]) >= -1e-15).all()


def test_what_a_value_is_decides_the_interval_of_a_difference():
    """Numbers that happen to be 0 and 1 are no rates, and rates that differ alike everywhere are no certainty."""
    a, b = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert paired_difference(a, b, outcome=BINARY).how == "newcombe"
    assert paired_difference(a, b, outcome=COUNT).how == paired_difference(a, b).how == "t"


@given(st.integers(2, 60), st.integers(0, 3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_counts_that_never_differ_are_not_proven_to_be_the_same(pairs, step, drawn):
    """Boxes in images of two erasers: the interval narrows with the number of prompts, not of images, and is no point."""
    clusters = np.repeat(np.arange(pairs), drawn)
    counts = np.arange(pairs * drawn) % 4
    estimate = paired_difference(counts + step, counts, clusters, COUNT)
    assert (estimate.value, estimate.n, estimate.how) == (step, pairs, "poisson")
    assert estimate.low < estimate.value < estimate.high
    if step == 0:
        assert estimate.high == -estimate.low == pytest.approx(-math.log(0.025) / pairs)
