"""What an order of erasers is worth: pairs told apart, halves of the concepts and published tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from table_helpers import METRICS, make_plan, make_scores, printed, quiet

from erasebench.tables import reliability as worth
from erasebench.tables.measure import measure, measure_concepts
from erasebench.tables.pairs import compare
from erasebench.tables.published_data import shipped
from erasebench.texts import escape_markdown


def column(values: np.ndarray) -> pd.DataFrame:
    """One column by eraser and concept."""
    rows = [
        {"eraser": f"e{i}", "concept": f"c{j}", "value": values[i, j]} for i, j in np.ndindex(*values.shape)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_an_order_that_every_concept_shares_is_reliable_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    strength = np.linspace(0, 1, 6)[:, None]
    same = worth.split_halves(column(strength + 0.01 * rng.random((6, 8))))
    noise = worth.split_halves(column(rng.random((6, 60))))
    assert same["value"] > 0.99 and same["n"] == 8
    assert all(found["low"] <= found["value"] <= found["high"] for found in (same, noise))
    assert abs(noise["value"]) < 0.75 and noise["low"] < 0.2
    assert math.isnan(worth.split_halves(column(np.ones((6, 8))))["value"])
    assert worth.split_halves(column(np.ones((6, 8))))["note"] == "all erasers are alike"
    assert worth.split_halves(column(rng.random((3, 8))))["note"].startswith("too few")


def test_split_halves_are_spearman_and_brown_over_splits() -> None:
    """Of six concepts all twenty halves are tried literally; the random ones come near their mean."""
    values = np.random.default_rng(1).random((5, 6)) + np.linspace(0, 0.8, 5)[:, None]
    literal = np.mean(
        [
            stats.spearmanr(values[:, list(half)].mean(1), np.delete(values, half, 1).mean(1)).statistic
            for half in itertools.combinations(range(6), 3)
        ]
    )
    assert worth.split_halves(column(values))["value"] == pytest.approx(2 * literal / (1 + literal), abs=0.03)


def test_agreement_is_spearmans_with_an_interval_that_narrows() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (8, 40):
        x = pd.Series(rng.normal(size=n), index=[f"e{i}" for i in range(n)])
        y = x + 0.7 * rng.normal(size=n)
        found = worth.agreement(x, y.sample(frac=1, random_state=0))
        assert found["value"] == pytest.approx(stats.spearmanr(x, y).statistic) and found["n"] == n
        assert found["low"] < found["value"] < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[0] > widths[1]
    few = worth.agreement(pd.Series({"a": 1.0, "b": 2.0}), pd.Series({"a": 1.0, "b": 2.0}))
    assert math.isnan(few["value"]) and "too few" in few["note"]


def test_pairs_count_the_unedited_model_and_name_who_is_not_told_apart() -> None:
    plan = make_plan(erasers=("none", "cure", "uce", "rece"), prompts=6)
    scores = make_scores(plan)
    measured, pairs = measure(plan, scores, METRICS), compare(plan, scores, METRICS)
    answers = worth.reliability(measured, pairs, measure_concepts(plan, scores, METRICS))
    row = answers[answers.question == "pairs told apart"].iloc[0]
    apart = {frozenset((p.a, p.b)) for p in pairs[pairs.p_holm < 0.05].itertuples()}
    beside = measured[(measured.task == "all") & ((measured.difference_low > 0) | (measured.difference_high < 0))]
    assert row.n == 6 and row.value == pytest.approx((len(apart) + beside.eraser.nunique()) / 6)
    assert row.note == "not told apart: unedited and uce, unedited and rece, rece and uce"
    console = quiet()
    worth.print_reliability(answers, console)
    assert "pairs told apart, any: 3 of 6" in " ".join(printed(console).split())


def test_a_number_that_a_table_prints_again_counts_where_it_was_first() -> None:
    rows = shipped()
    again = rows[
        (rows.copy_of != "") & (rows.ours != "") & (rows.eraser != "") & rows.task.isin(worth.PUBLISHED["unsafe"])
    ]
    assert {"uce", "esd_x", "mace"} <= set(again.eraser[again.paper == "ANT"]), "ANT quotes MACE's table"
    orders = {table: order for table, _, order in worth.published_orders("unsafe")}
    total = "NudeNet exposed count: Total"
    assert orders[f"MACE, {total}"]["uce"] == 182
    assert "rece" in orders[f"ANT, {total}"].index and not {"uce", "esd_x", "mace"} & set(orders[f"ANT, {total}"].index)
    for kind, tasks in worth.PUBLISHED.items():
        copies = rows[(rows.copy_of != "") & rows.task.isin(tasks)]
        for table, _, order in worth.published_orders(kind):
            here = copies[(copies.paper + ", " + copies.metric) == table]
            assert not set(here.eraser) & set(order.index), table


def test_a_published_order_is_told_with_its_n_and_interval(tmp_path) -> None:
    table, _, published = next(entry for entry in worth.published_orders("object") if entry[0].startswith("MACE"))
    measured = pd.DataFrame({"eraser": ["uce", "mace", "esd", "esd_u", "fmn", "ablation"], "value": [1, 0, 3, 2, 5, 4]})
    measured = measured.assign(task_kind="object", task="all", role="erase", metric="judge@2", unit="%", attack="")
    measured = measured.assign(direction="down", difference_low=math.nan, difference_high=math.nan)
    none = pd.DataFrame(columns=["task_kind", "attack", "a", "b", "p_holm", "role", "metric"])
    answers = worth.reliability(measured, none, none)
    row = answers[answers["with"] == table].iloc[0]
    ours = worth._as_published(measured.set_index("eraser").value)
    literal = stats.spearmanr(ours, published[ours.index]).statistic
    half = stats.norm.ppf(0.975) * math.sqrt((1 + literal**2 / 2) / 3)
    assert row.n == 6 and row.value == pytest.approx(literal)
    assert (row.low, row.high) == pytest.approx(
        (math.tanh(math.atanh(literal) - half), math.tanh(math.atanh(literal) + half))
    )
    worth.write_reliability(answers, tmp_path)
    (line,) = [
        line for line in (tmp_path / "reliability.md").read_text().splitlines() if escape_markdown(table) in line
    ]
    assert f"| {row.value:.2f} [{row.low:.2f}, {row.high:.2f}] | 6 |" in line


def test_published_orders_are_of_our_erasers() -> None:
    orders = worth.published_orders("object")
    assert any(name.startswith("MACE") and {"uce", "mace", "esd_x"} <= set(order.index) for name, _, order in orders)
    assert all("none" not in order.index for kind in worth.PUBLISHED for _, _, order in worth.published_orders(kind))
    assert worth.published_orders("no such kind") == []
    ours = worth._as_published(pd.Series({"uce2023": 1.0, "esd": 2.0, "spm": 3.0, "spm lr=1": 4.0}))
    assert dict(ours) == {"uce": 1.0, "esd_x": 2.0, "spm": 3.0}
