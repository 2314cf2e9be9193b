"""How many prompts it takes: against simulation, and against what must be true of any such number."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats as scipy_stats
from table_helpers import METRICS, make_plan, make_scores

from erasebench.tables import pairs as paired
from erasebench.tables import power


def simulated(n: int, only_a: float, only_b: float, times: int = 4000) -> float:
    """How often the exact test of n pairs finds the difference."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=times)
    known = {tuple(c): paired.mcnemar(int(c[0]), int(c[1])) < 0.05 for c in np.unique(counts[:, :2], axis=0)}
    return float(np.mean([known[tuple(c)] for c in counts[:, :2]]))


@pytest.mark.parametrize(("only_a", "only_b"), [(0.3, 0.1), (0.15, 0.02), (0.05, 0.0), (0.4, 0.3)])
def test_the_number_of_pairs_gives_the_power_that_it_promises(only_a: float, only_b: float) -> None:
    n = int(power.mcnemar_pairs(only_a, only_b))
    assert simulated(n, only_a, only_b) == pytest.approx(power.mcnemar_power(n, only_a, only_b), abs=0.025)
    assert simulated(n, only_a, only_b) >= 0.775
    assert simulated(int(0.75 * n), only_a, only_b) < 0.76


def test_the_power_is_the_sum_over_all_outcomes() -> None:
    n, only_a, only_b = 12, 0.4, 0.1
    literal = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            if paired.mcnemar(a, b) < 0.05:
                ways = math.comb(n, a) * math.comb(n - a, b)
                literal += ways * only_a**a * only_b**b * (1 - only_a - only_b) ** (n - a - b)
    assert power.mcnemar_power(n, only_a, only_b) == pytest.approx(literal, abs=1e-9)


@given(st.floats(0.02, 0.4), st.floats(0.0, 0.4))
@settings(max_examples=25, deadline=None)
def test_either_side_may_be_the_better_and_a_smaller_difference_needs_more(only_a: float, only_b: float) -> None:
    if abs(only_a - only_b) < 0.05:
        return
    n = power.mcnemar_pairs(only_a, only_b)
    assert n == power.mcnemar_pairs(only_b, only_a) and n >= 6
    assert power.mcnemar_pairs(only_a / 2, only_b / 2) > n


def test_what_was_not_seen_to_differ_needs_no_end_of_prompts() -> None:
    assert power.mcnemar_pairs(0.2, 0.2) == math.inf and power.mcnemar_pairs(0, 0) == math.inf
    assert power.mcnemar_pairs(0.1001, 0.1) == math.inf, "over a million"
    assert power.mean_pairs(0.0, 1.0) == math.inf and power.mean_pairs(1.0, math.nan) == math.inf


def test_means_need_what_the_t_test_needs() -> None:
    n = int(power.mean_pairs(0.5, 1.0))
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 1.0, size=(4000, n))
    assert np.mean(scipy_stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.025)


def test_no_test_is_planned_that_cannot_find_anything() -> None:
    """Of five pairs that all go one way p is 2 in 32."""
    assert power.mean_pairs(1.0, 0.5) == power.mean_pairs(10.0, 0.1) == 6
    assert paired.sign_flip([1.0] * 5) > 0.05 > paired.sign_flip([1.0] * 6)
    assert power.mcnemar_pairs(1.0, 0.0) == 6


def row_of(**values: object) -> SimpleNamespace:
    return SimpleNamespace(**{"only_a": math.nan, "only_b": math.nan, "difference": math.nan, "sd": math.nan} | values)


def test_what_is_needed_is_a_range_that_narrows_with_what_was_seen() -> None:
    """60 pairs of which 9 and 3 differ: 168 would do if that were the truth, and it may be far from it."""
    widths = []
    for times in (1, 4, 40):
        seen = row_of(test="mcnemar", n=60 * times, only_a=9 * times, only_b=3 * times)
        low, high = power.needed_range(seen)
        assert low < power.mcnemar_pairs(9 / 60, 3 / 60) < high
        widths.append(high / low)
    assert widths[0] > 30 > widths[1] > widths[2] > 1
    assert power.needed_range(row_of(test="mcnemar", n=60, only_a=5, only_b=5))[1] > 1e5


def test_the_range_holds_what_another_run_would_have_said() -> None:
    """Means: of runs of 20 pairs, 90 in 100 of what they need lies in the range around the truth's own run, roughly."""
    rng, held = np.random.default_rng(0), 0
    truth = power.mean_pairs(0.6, 1.0)
    for _ in range(200):
        seen = rng.normal(0.6, 1.0, size=20)
        low, high = power.needed_range(row_of(test="sign-flip", n=20, difference=seen.mean(), sd=seen.std(ddof=1)))
        assert low >= 6
        held += low <= truth <= high
    assert 0.82 * 200 <= held <= 0.97 * 200


def test_one_pair_leaves_the_range_open() -> None:
    assert power.needed_range(row_of(test="sign-flip", n=1, difference=1.0)) == (math.inf, math.inf)


def test_the_table_says_now_and_needed() -> None:
    plan = make_plan(erasers=("none", "cure", "uce"), tasks=("church",), prompts=5)
    pairs = paired.compare(plan, make_scores(plan), METRICS)
    needed = power.needed(pairs).set_index(["metric", "role"]).needed
    assert needed["classifier@1", "erase"] == 6 and needed["classifier@1", "retain"] == math.inf
    console = Console(file=io.StringIO(), width=100)
    power.print_power(pairs, console)
    line = next(line for line in console.file.getvalue().splitlines() if "erased" in line and "cure" in line)
    assert line.split()[-6:] == ["-100.0", "5", "6", "6", "to", "51"]
    assert "no difference seen" in console.file.getvalue()
    console = Console(file=io.StringIO(), width=100)
    power.print_power(pairs[pairs.unit != "%"], console)
    assert "nothing to say about power" in console.file.getvalue()
