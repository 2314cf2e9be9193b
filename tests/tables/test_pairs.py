"""Erasers against each other on the same prompts: tests, their correction, and the letters they allow."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from table_helpers import METRICS, Accuracy, TextMatch, make_plan, make_scores

from erasebench.scores.paired import holm
from erasebench.tables import pairs as paired
from erasebench.tables.letters import compact_letters, letters


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return make_plan(erasers=("none", "cure", "uce", "rece"), prompts=6)


@pytest.fixture(scope="module")
def pairs(plan: pd.DataFrame) -> pd.DataFrame:
    return paired.compare(plan, make_scores(plan), METRICS)


@given(st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_sign_test_of_the_pairs_that_differ(only_a: int, only_b: int) -> None:
    n, rare = only_a + only_b, min(only_a, only_b)
    literal = min(1.0, 2 * sum(math.comb(n, k) for k in range(rare + 1)) / 2**n)
    assert paired.mcnemar(only_a, only_b) == pytest.approx(literal)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_few_differences_are_turned_every_way(differences: list[float]) -> None:
    total = abs(sum(differences))
    ways = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    literal = np.mean([way >= total * (1 - 1e-9) for way in ways])
    assert paired.sign_flip(differences) == pytest.approx(literal)


def test_many_differences_agree_with_scipys_permutation_test() -> None:
    d = np.random.default_rng(0).normal(0.25, 1, size=40)
    theirs = scipy_stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=9999, vectorized=True, rng=np.random.default_rng(1)
    )
    assert paired.sign_flip(d) == pytest.approx(theirs.pvalue, abs=0.012)
    more = np.random.default_rng(0).normal(0.1, 1, size=600)
    assert paired.sign_flip(more) == pytest.approx(scipy_stats.ttest_1samp(more, 0).pvalue, rel=0.1)


def test_a_small_p_value_is_not_cut_off_by_the_number_of_draws() -> None:
    assert paired.sign_flip(np.ones(100)) < 1e-9
    assert paired.sign_flip([0.0, 0.0]) == 1.0
    assert paired.sign_flip([3.0]) == 1.0, "one prompt proves nothing"


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    alarms = [paired.sign_flip(rng.exponential(1, 15) * rng.choice([-1, 1], 15), seed=i) < 0.05 for i in range(300)]
    assert 0.02 <= np.mean(alarms) <= 0.08


def test_pairs_are_of_the_same_prompts_and_leave_the_unedited_model_out(
    pairs: pd.DataFrame, plan: pd.DataFrame
) -> None:
    assert list(pairs.columns) == list(paired.FIELDS)
    assert {*pairs.a, *pairs.b} == {"cure", "uce", "rece"}
    erased = pairs[(pairs.metric == "classifier@1") & (pairs.role == "erase")].set_index(["a", "b"])
    row = erased.loc[("cure", "uce")]
    assert (row.difference, row.n, row.only_a, row.only_b, row.test) == (-1, 12, 0, 12, "mcnemar")
    assert row.p == pytest.approx(2 * 0.5**12)
    same = erased.loc[("uce", "rece")]
    assert same.difference == 0 and same.p == 1 and same.low < 0 < same.high
    general = pairs[pairs.role == "general"].iloc[0]
    assert general.n == 6 and general.test == "sign-flip", "two edits of one prompt are one observation"
    np.testing.assert_allclose(pairs.difference, pairs.value_a - pairs.value_b, atol=1e-12)


def test_differences_equal_a_plain_mean_over_prompts(pairs: pd.DataFrame, plan: pd.DataFrame) -> None:
    value = make_scores(plan)["text_match@2-a_b"].set_index("key").value
    for row in pairs[pairs.metric == "text_match@2-a_b"].itertuples():
        a, b = (
            plan[(plan.eraser == name) & (plan.role == row.role)].set_index(["task", "prompt_id"]).key.map(value)
            for name in (row.a, row.b)
        )
        assert row.difference == pytest.approx((a - b).mean())
        assert row.low < row.difference < row.high


def test_the_correction_is_over_the_pairs_of_a_column(pairs: pd.DataFrame, plan: pd.DataFrame) -> None:
    for _, column in pairs.groupby(["role", "metric"]):
        assert len(column) == 3, "all pairs of three erasers"
        np.testing.assert_allclose(column.p_holm, holm(column.p))
    artists = plan.assign(task_kind="artist", kind="artist")
    both = paired.compare(pd.concat([plan, artists], ignore_index=True), make_scores(plan), METRICS)
    pd.testing.assert_frame_equal(both[both.task_kind == "object"], pairs)


def test_letters_are_given_where_the_tests_allow(pairs: pd.DataFrame) -> None:
    found = letters(pairs)
    erased = found[(found.metric == "classifier@1") & (found.role == "erase")]
    assert list(zip(erased.eraser, erased.letters, erased.best, strict=True)) == [
        ("cure", "a", True), ("uce", "b", False), ("rece", "b", False)
    ]  # fmt: skip
    assert not (found.metric == "text_match@2-a_b").any(), "nothing but noise tells these apart"


def row(a: str, b: str, difference: float, p: float, direction: str = "up") -> dict:
    values = {"x": 0.9, "y": 0.8, "z": 0.5}
    return {
        "task_kind": "object", "role": "retain", "metric": "m@1", "unit": "%", "direction": direction, "a": a, "b": b,
        "value_a": values[a], "value_b": values[b], "difference": difference, "p_holm": p,
    }  # fmt: skip


def test_a_tie_is_not_passed_on() -> None:
    table = pd.DataFrame([row("x", "y", 0.1, 0.3), row("x", "z", 0.4, 0.01), row("y", "z", 0.3, 0.2)])
    assert dict(letters(table)[["eraser", "letters"]].to_numpy()) == {"x": "a", "y": "ab", "z": "b"}
    down = table.assign(direction="down")
    assert dict(letters(down)[["eraser", "letters"]].to_numpy()) == {"z": "a", "y": "ab", "x": "b"}
    assert set(letters(down).query("best").eraser) == {"z", "y"}
    assert not len(letters(table.assign(p_holm=0.2))), "no letter where nothing is told apart"


@given(st.integers(1, 7), st.data())
@settings(max_examples=80, deadline=None)
def test_two_share_a_letter_if_and_only_if_they_are_not_told_apart(count: int, data: st.DataObject) -> None:
    names = [f"e{i}" for i in range(count)]
    every = list(itertools.combinations(names, 2))
    apart = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    found = compact_letters(names, apart)
    for a, b in every:
        assert bool(set(found[a]) & set(found[b])) == ((a, b) not in apart)
    used = set("".join(found.values()))
    assert found["e0"].startswith("a") and all(list(text) == sorted(text) for text in found.values())
    for letter in used:  # none is superfluous: its group is in no other one
        group = {name for name in names if letter in found[name]}
        others = [{name for name in names if other in found[name]} for other in used - {letter}]
        assert not any(group <= other for other in others)


def test_the_files_say_the_same(pairs: pd.DataFrame, tmp_path: Path) -> None:
    written = paired.write_pairs(pairs, tmp_path)
    assert [path.name for path in written] == ["pairs.csv", "pairs.md"]
    read = pd.read_csv(written[0], keep_default_na=False, na_values={"only_a": [""], "only_b": [""]})
    pd.testing.assert_frame_equal(read, pairs, check_dtype=False)
    text = written[1].read_text()
    assert "| uce | b |" in text and "| recognised by classifier % erased ↓ | cure | uce | -100.0 [" in text


def test_names_cannot_break_the_table(tmp_path: Path) -> None:
    plan = make_plan(erasers=("none", "a|b", "[red]c*"), tasks=("church",), prompts=2)
    found = paired.compare(plan, make_scores(plan), [Accuracy()])
    paired.write_pairs(found, tmp_path)
    rows = [line for line in (tmp_path / "pairs.md").read_text().splitlines() if "a\\|b" in line]
    assert rows and all(line.replace("\\|", "").count("|") in (4, 9) for line in rows)


def test_what_has_no_number_an_image_or_is_not_run_has_no_pairs(plan: pd.DataFrame, tmp_path: Path) -> None:
    absent = paired.compare(plan, make_scores(plan), METRICS, {"classifier@1": "weights are absent"})
    assert "classifier@1" not in set(absent.metric) and len(absent)
    assert not len(paired.compare(plan, {}, METRICS))
    single = plan[plan.eraser.isin(["none", "cure"])]
    none = paired.compare(single, make_scores(plan), METRICS)
    assert not len(none) and list(none.columns) == list(paired.FIELDS)
    assert paired.write_pairs(none, tmp_path) == [] and not len(letters(none))


def test_a_table_of_very_many_erasers_has_no_pairs() -> None:
    plan = make_plan(erasers=("none", *(f"e{i}" for i in range(paired.MOST_ERASERS + 1))), tasks=("church",), prompts=1)
    assert not len(paired.compare(plan, make_scores(plan), [TextMatch()]))
