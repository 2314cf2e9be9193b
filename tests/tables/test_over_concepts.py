"""Concepts are a level of their own: many prompts of few concepts say little of others, and tables and tests say so."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from table_helpers import ABOUT, METRICS, Accuracy, finish, make_plan, make_scores, printed, quiet, tabulate

from erasebench.scores.rates import rate_estimate
from erasebench.store import Store
from erasebench.tables import pairs as paired
from erasebench.tables.by_concept import concept_tables
from erasebench.tables.layout import how_measured
from erasebench.tables.measure import measure, measure_concepts


def plan_of(concepts: int, prompts: int = 8, erasers: tuple[str, ...] = ("none", "uce", "rece")) -> pd.DataFrame:
    """Retained prompts of so many concepts."""
    plan = make_plan(erasers=erasers, tasks=("church",), prompts=concepts * prompts)
    plan = plan[plan.label.isin(("church", "tench"))]
    place = plan.prompt_id.str.rpartition("-")[2].astype(int)
    return plan.assign(label=plan.label.where(plan.role != "retain", "concept " + (place % concepts).astype(str)))


def losing(plan: pd.DataFrame, eraser: str, *labels: str) -> dict[str, pd.DataFrame]:
    """Scores by which one eraser loses some concepts, and no other does anything."""
    scores, gone = make_scores(plan), set(plan.key[(plan.eraser == eraser) & plan.label.isin(labels)])
    table = scores["classifier@1"]
    scores["classifier@1"] = table.assign(answer=table.answer.where(~table.key.isin(gone), "nothing"))
    return scores


def cell(measured: pd.DataFrame, eraser: str = "uce", role: str = "retain") -> pd.Series:
    rows = measured[(measured.eraser == eraser) & (measured.role == role) & (measured.metric == "classifier@1")]
    return rows[rows.task == "all"].iloc[0]


def test_the_interval_over_concepts_is_that_of_images_that_hang_together_by_concept() -> None:
    plan = plan_of(6)
    row = cell(measure(plan, losing(plan, "uce", "concept 0", "concept 3"), METRICS))
    values = np.repeat([0, 1, 1, 0, 1, 1], 8).astype(float)
    expected = rate_estimate(values, clusters=np.repeat(np.arange(6), 8))
    assert row.value == pytest.approx(2 / 3) and (row.concepts, row.n) == (6, 48)
    assert (row.low_concepts, row.high_concepts) == pytest.approx((expected.low, expected.high))
    assert row.high_concepts - row.low_concepts > 1.8 * (row.high - row.low), "six concepts, not 48 images"


@pytest.mark.parametrize(("concepts", "said"), [(4, False), (5, True)])
def test_fewer_than_five_concepts_say_nothing_of_others(concepts: int, said: bool) -> None:
    plan = plan_of(concepts)
    measured = measure(plan, losing(plan, "uce", "concept 0"), METRICS)
    assert math.isnan(cell(measured).low_concepts) != said
    text = how_measured(measured[measured.role == "retain"], "object", ABOUT)
    assert ("hold for these concepts only" in text) != said
    assert f"({concepts} concepts, {concepts * 8} texts, {concepts * 8} seeds)" in text


def test_all_alike_is_no_certainty_over_concepts_either() -> None:
    row = cell(measure(plan_of(5), make_scores(plan_of(5)), METRICS))
    assert row.value == row.high_concepts == 1 and row.low_concepts == pytest.approx(0.566, abs=0.001)  # Wilson, 5 of 5


def test_prompts_of_no_concept_have_none() -> None:
    plan = make_plan(prompts=6)
    measured = measure(plan, make_scores(plan), METRICS)
    general = measured[(measured.role == "general") & measured.value.notna()]
    assert len(general) and (general.concepts == 0).all() and general.low_concepts.isna().all()
    assert (general.texts > 0).all()


def test_the_table_of_concepts_ends_in_both_intervals() -> None:
    plan = plan_of(6)
    scores = losing(plan, "uce", "concept 0")
    measured = measure(plan, scores, METRICS)
    tables = dict(concept_tables(measure_concepts(plan, scores, METRICS), measured, "object"))
    heads, rows, _ = tables["recognised by classifier % kept ↑"]
    by_name = {row[0]: row for row in rows}
    at, row = heads.index("uce"), cell(measured)
    assert [row[0] for row in rows][-2:] == ["all, over prompts", "all, over concepts"]
    assert by_name["concept 0"][at].startswith("0.0 [")
    assert by_name["all, over prompts"][at] == f"83.3 [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert by_name["all, over concepts"][at] == f"83.3 [{100 * row.low_concepts:.1f}, {100 * row.high_concepts:.1f}]"
    assert by_name["all, over prompts"][-1] == "48"
    four = plan_of(4)
    measured = measure(four, make_scores(four), METRICS)
    rows = dict(concept_tables(measure_concepts(four, make_scores(four), METRICS), measured, "object"))[
        "recognised by classifier % kept ↑"
    ][1]
    assert rows[-1][at] == "100.0", "no interval over four concepts"


def test_one_concept_that_is_lost_tells_two_erasers_apart_for_these_concepts_and_not_for_others() -> None:
    """Eight prompts of one concept are eight pairs among four concepts, and one pair among eight."""
    for concepts, n, units, p in ((4, 32, "prompts", 2 / 2**8), (8, 8, "concepts", 2 * stats.t.sf(1, 7))):
        plan = plan_of(concepts)
        pairs = paired.compare(plan, losing(plan, "uce", "concept 0"), [Accuracy()])
        row = pairs[pairs.role == "retain"].iloc[0]
        assert (row.n, row.units, row.difference) == (n, units, pytest.approx(-1 / concepts))
        assert row.p == pytest.approx(p)
        assert row.test == ("mcnemar" if units == "prompts" else "t")


def test_concepts_that_all_go_one_way_are_as_sure_as_their_images_make_them() -> None:
    """Every concept is lost: the spread over concepts is none, and that of eight images a concept is counted."""
    ps = []
    for concepts in (5, 6, 10):
        plan = plan_of(concepts)
        pairs = paired.compare(plan, losing(plan, "uce", *(f"concept {i}" for i in range(concepts))), [Accuracy()])
        row = pairs[pairs.role == "retain"].iloc[0]
        rate = 8.5 / 9
        spread = math.sqrt(2 * rate * (1 - rate) / 8)
        assert (row.units, row.test, row.sd) == ("concepts", "t", pytest.approx(spread))
        assert row.p == pytest.approx(2 * stats.t.sf(math.sqrt(concepts) / spread, concepts - 1))
        assert row.low <= row.difference < row.high, "no certainty where all concepts agree"
        ps.append(row.p)
    assert ps == sorted(ps, reverse=True) and ps[0] < 0.001


def test_the_test_over_concepts_is_scipys_where_concepts_differ() -> None:
    d = np.random.default_rng(0).normal(0.3, 1, size=9)
    assert paired.concept_t(d, float(np.std(d, ddof=1))) == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert paired.concept_t(np.zeros(9), 0.1) == 1.0
    assert paired.concept_t(np.ones(8), 0.0) == paired.sign_flip(np.ones(8)), "no spread is known of one image each"


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_false_alarms_over_concepts_are_as_rare_as_promised(spread: float) -> None:
    """Eight concepts of six images, two erasers of the same rate in each: at most 5 in 100 are told apart."""
    rng = np.random.default_rng(0)
    concepts, alarms = pd.Series(np.repeat(np.arange(8), 6)), 0
    for _ in range(400):
        rates = np.clip(0.5 + spread * rng.standard_normal(8), 0, 1)
        shift = 0.2 * spread * rng.choice([-1, 1], 8)  # one eraser is better in one concept, the other in another
        a, b = (rng.random(48) < np.repeat(np.clip(rates + sign * shift, 0, 1), 6) for sign in (1, -1))
        alarms += paired.pair_of(pd.Series(a * 1.0), pd.Series(b * 1.0), concepts, "binary", True)["p"] < 0.05
    assert alarms / 400 < 0.07


def test_the_command_says_for_which_concepts_the_tests_hold(tmp_path) -> None:
    plan = plan_of(4, prompts=8)
    finish(Store(tmp_path), "one", plan)
    console = quiet()
    tabulate(["one"], str(tmp_path), console=console)
    assert "(they speak for these concepts)" in printed(console)
    text = (tmp_path / "runs" / "one" / "tables" / "by_concept.md").read_text(encoding="utf-8")
    assert "all, over prompts" in text and "all, over concepts" in text
