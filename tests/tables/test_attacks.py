"""Attacked rows in tables: beside the clean ones, compared with the same edit, and in nobody's way."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_helpers import ABOUT, METRICS, attacked_plan, attacked_scores, finish, make_scores, printed, quiet, tabulate

from erasebench.scores.rates import wilson
from erasebench.store import Store
from erasebench.tables import measure as tables
from erasebench.tables import pairs as paired
from erasebench.tables.attacks import attack_cells, compare_attacks, told_of_controls, write_attacks
from erasebench.tables.comparable import _check_comparable
from erasebench.tables.pairs import mcnemar


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return attacked_plan()


def cell(measured: pd.DataFrame, eraser: str, role: str = "erase", task: str = "all") -> pd.Series:
    part = measured[(measured.eraser == eraser) & (measured.role == role) & (measured.metric == "classifier@1")]
    return part[part.task == task].iloc[0]


def test_the_rate_of_an_attacked_row_is_its_success_rate(plan: pd.DataFrame) -> None:
    measured = tables.measure(plan, attacked_scores(plan, 3), METRICS)
    attacked, clean = cell(measured, "cure + ring"), cell(measured, "cure")
    assert (clean.value, clean.n) == (0.0, 10) and (attacked.value, attacked.n) == (0.6, 10)
    expected = wilson(6, 10)
    assert (attacked.low, attacked.high) == (expected.low, expected.high)
    assert attacked.attack == "ring" and clean.attack == ""
    assert not len(measured[(measured.eraser == "cure + ring") & (measured.role != "erase")])


def test_its_difference_is_to_the_same_edit_without_the_attack(plan: pd.DataFrame) -> None:
    measured = tables.measure(plan, attacked_scores(plan, 3), METRICS)
    assert cell(measured, "cure + ring").difference == pytest.approx(0.6)
    assert cell(measured, "cure").difference == pytest.approx(-1.0), "a clean row's is to the unedited model"
    assert cell(measured, "none + ring").difference == 0.0
    assert math.isnan(cell(measured, "none").difference)


def test_clean_rows_say_what_they_say_without_attacks(plan: pd.DataFrame) -> None:
    scores = attacked_scores(plan, 3)
    clean = plan[plan.attack == ""].reset_index(drop=True)
    with_attacks = tables.measure(plan, scores, METRICS)
    ours = with_attacks[with_attacks.attack == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, tables.measure(clean, scores, METRICS).reset_index(drop=True))
    pd.testing.assert_frame_equal(paired.compare(plan, scores, METRICS), paired.compare(clean, scores, METRICS))


def test_an_attack_is_tested_against_the_clean_images_pair_by_pair(plan: pd.DataFrame) -> None:
    attacks = compare_attacks(plan, attacked_scores(plan, 3), METRICS)
    row = attacks[(attacks.eraser == "cure") & (attacks.metric == "classifier@1")].iloc[0]
    assert (row.attack, row.role, row.n, row.test) == ("ring", "erase", 10, "mcnemar")
    assert (row.clean, row.attacked, row.only_attacked, row.only_clean) == (0.0, 0.6, 6, 0)
    assert row.difference == pytest.approx(0.6) and row.low < 0.6 < row.high
    assert row.p == mcnemar(6, 0) and row.p_holm == pytest.approx(3 * row.p), (
        "one of three tests, the others tell nothing"
    )
    assert set(attacks.eraser) == {"none", "cure", "uce"}


def test_a_success_on_a_network_that_knows_nothing_is_said_aloud(plan: pd.DataFrame, tmp_path: Path) -> None:
    attacks = compare_attacks(plan, attacked_scores(plan, 3), METRICS)
    (said,) = (text for text, held in told_of_controls(attacks, ["cure"]).items() if not held)
    assert "control cure" in said and "ring (object): 6 of 10 by classifier@1" in said and "judge was fooled" in said
    assert "control cure: its network knows nothing" in write_attacks(attacks, tmp_path, ["cure"])[1].read_text()
    none_back = compare_attacks(plan, attacked_scores(plan, 0), METRICS)
    assert told_of_controls(none_back, ["cure"]) == {
        "control cure: no attack succeeded on it, as it must be (ring)": True
    }
    assert told_of_controls(attacks, []) == {} == told_of_controls(attacks, ["shuffled"])


def test_a_run_prints_what_came_of_its_controls(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for eraser in ("cure", "uce"):
        finish(store, eraser, plan, about=replace(ABOUT, forgot=(eraser,)))
    for names in (["cure"], ["uce"], ["cure", "uce"]):
        console = quiet()
        tabulate(names, str(tmp_path), console=console)
        said = {
            name for name in ("cure", "uce") if f"warning control {name}: its network knows nothing" in printed(console)
        }
        assert said == set(names), "together they say what each says alone"


def test_nothing_attacked_nothing_to_tell(plan: pd.DataFrame, tmp_path: Path) -> None:
    clean = plan[plan.attack == ""]
    attacks = compare_attacks(clean, make_scores(clean), METRICS)
    assert not len(attacks) and write_attacks(attacks, tmp_path) == [] and not list(tmp_path.iterdir())


def test_the_table_of_attacks_reads_clean_then_attacked(plan: pd.DataFrame, tmp_path: Path) -> None:
    attacks = compare_attacks(plan, attacked_scores(plan, 3), METRICS)
    heads, rows = attack_cells(attacks, "object")
    row = dict(zip(heads, rows[1], strict=True))
    assert (
        row["eraser"] == "cure" and row["attack"] == "ring" and row["column"] == "recognised by classifier % erased ↓"
    )
    assert (
        row["clean"].startswith("0.0 [0.0, ")
        and row["attacked"].startswith("60.0 [")
        and row["difference"].startswith("+60.0 [")
    )
    assert row["brought back"] == "6 of 10" and rows[0][heads.index("brought back")] == "0 of 0"
    written = write_attacks(attacks, tmp_path)
    assert [path.name for path in written] == ["attacks.csv", "attacks.md"]
    assert "pre-ASR" in written[1].read_text() and "cure" in written[1].read_text()
    again = pd.read_csv(written[0])
    assert again.attacked.tolist() == attacks.attacked.tolist()


def test_a_run_with_attacks_is_tabulated_and_says_what_they_brought_back(plan: pd.DataFrame, tmp_path: Path) -> None:
    store, console = Store(tmp_path), quiet()
    folder = finish(store, "attacked", plan)
    measured = tabulate(["attacked"], str(tmp_path), console=console)
    said = printed(console)
    assert "attack success" in said and "unedited + ring" in said
    assert (folder / "tables" / "attacks.md").exists()
    assert "attack" in pd.read_csv(folder / "tables" / "measured.csv").columns
    assert set(measured.eraser) == {"none", "none + ring", "cure", "cure + ring", "uce", "uce + ring"}


def test_the_tables_of_a_run_without_attacks_have_no_word_of_them(plan: pd.DataFrame, tmp_path: Path) -> None:
    store, console = Store(tmp_path), quiet()
    folder = finish(store, "clean", plan[plan.attack == ""].reset_index(drop=True))
    tabulate(["clean"], str(tmp_path), console=console)
    written = [path for path in (folder / "tables").iterdir() if path.suffix in (".md", ".csv", ".tex")]
    assert written and not any("attack" in path.read_text() for path in written) and "attack" not in printed(console)


def test_a_plan_from_before_there_were_attacks_gives_the_same_tables(plan: pd.DataFrame, tmp_path: Path) -> None:
    clean = plan[plan.attack == ""].reset_index(drop=True)
    store = Store(tmp_path)
    finish(store, "new", clean)
    finish(store, "old", clean.drop(columns=["attack", "attack_key", "clean_key"]))
    pd.testing.assert_frame_equal(*(tabulate([name], str(tmp_path), console=quiet()) for name in ("new", "old")))


def test_a_run_with_attacks_and_one_without_stand_in_one_table(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = Store(tmp_path)
    finish(store, "attacked", plan[~plan.eraser.str.startswith("uce")].reset_index(drop=True))
    finish(store, "clean", plan[(plan.attack == "") & (plan.eraser != "cure")].reset_index(drop=True))
    measured = tabulate(["attacked", "clean"], str(tmp_path), console=quiet())
    assert set(measured.eraser) == {"none", "none + ring", "cure", "cure + ring", "uce"}


def test_an_attack_that_was_not_tried_on_all_prompts_is_refused(plan: pd.DataFrame) -> None:
    from erasebench.errors import UserError

    lacking = plan.drop(plan.index[plan.eraser == "cure + ring"][0])
    with pytest.raises(UserError, match="cure . ring was not measured on all prompts"):
        _check_comparable(lacking)


@settings(max_examples=30, deadline=None)
@given(hits=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_the_difference_is_attacked_less_clean(hits: list[tuple[bool, bool]]) -> None:
    plan = attacked_plan(prompts=len(hits))
    plan = plan[(plan.task == "church") & plan.eraser.isin(["none", "cure", "cure + ring"])].reset_index(drop=True)
    scores = make_scores(plan)
    answers = scores["classifier@1"].set_index("key").answer
    for (clean, attacked), row in zip(hits, plan[plan.eraser == "cure + ring"].itertuples(), strict=True):
        answers[row.clean_key] = "church" if clean else "nothing"
        answers[row.key] = "church" if attacked else "nothing"
    table = {"classifier@1": answers.reset_index()}
    (row,) = compare_attacks(plan, table, METRICS[:1]).itertuples()
    assert row.clean == pytest.approx(sum(a for a, _ in hits) / len(hits))
    assert row.attacked == pytest.approx(sum(b for _, b in hits) / len(hits))
    assert row.difference == pytest.approx(row.attacked - row.clean, abs=1e-12)
    assert (row.only_attacked, row.only_clean) == (sum(b > a for a, b in hits), sum(a > b for a, b in hits))
    assert row.gone == sum(not clean for clean, _ in hits) >= row.only_attacked
