"""The answer first: sentences that the tests support, and a compact table that fits the terminal."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console
from table_helpers import ABOUT, METRICS, make_plan, make_scores

from erasebench.tables.answer import key_columns, print_answer, verdict
from erasebench.tables.measure import measure
from erasebench.tables.pairs import compare


def numbers(plan: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = make_scores(plan)
    return measure(plan, scores, METRICS), compare(plan, scores, METRICS)


def shown(measured: pd.DataFrame, pairs: pd.DataFrame, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_answer(measured, pairs, ABOUT, console)
    return console.file.getvalue()


def test_nobody_is_said_to_erase_more_without_a_test() -> None:
    few, many = (numbers(make_plan(prompts=prompts)) for prompts in (2, 6))
    assert verdict(*many, "object").startswith("cure (0.0 %) erases more than uce (100.0 %)")
    assert "more than" not in verdict(*few, "object")
    assert "no test tells one eraser from another in erasing (0.0 to 100.0 % still there) or keeping" in verdict(
        *few, "object"
    )


def test_who_is_not_told_from_the_best_is_named() -> None:
    measured, pairs = numbers(make_plan(erasers=("none", "cure", "uce", "rece"), prompts=6))
    doubtful = (pairs.role == "erase") & (pairs.b == "rece")
    pairs.loc[doubtful, "p_holm"] = 0.3
    assert verdict(measured, pairs, "object").startswith(
        "cure (0.0 %) erases more than uce (100.0 %), and is not told from rece (100.0 %)"
    )


def test_one_eraser_stands_beside_the_unedited_model() -> None:
    text = verdict(*numbers(make_plan(erasers=("none", "cure"))), "object")
    assert text.startswith("still there with cure (0.0 %) (unedited 100.0 %); kept with cure (100.0 %)")


def test_too_many_erasers_are_said_not_to_be_tested() -> None:
    plan = make_plan(erasers=("none", *(f"e{i}" for i in range(21))), tasks=("church",), prompts=1)
    assert "more than 20 erasers are not tested against each other" in verdict(*numbers(plan), "object")


@pytest.mark.parametrize("eraser", ["uce", "uce erase_scale=5.0 preserve_scale=0.1 anchor=sky"])
def test_the_compact_table_fits_80_columns_and_breaks_no_number(eraser: str) -> None:
    plan = make_plan(erasers=("none", "cure", eraser), prompts=6)
    both = pd.concat([plan, plan.assign(task_kind="celebrity", kind="celebrity")], ignore_index=True)
    measured, pairs = numbers(both)
    text = shown(measured, pairs)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    cells = [line.split() for line in text.splitlines() if line.startswith("  cure ")]
    assert [line[1:7] for line in cells] == [["a", "0.0", "0–24", "100.0", "86–100", "0.297"]] * 2
    said = " ".join(text.split())
    assert "model embedded" in said and "not of Stable Diffusion" in said


def test_letters_stand_where_a_pipe_takes_the_bold() -> None:
    measured, pairs = numbers(make_plan(prompts=6))
    rows = {line.split()[0]: line.split() for line in shown(measured, pairs).splitlines() if line.strip()}
    assert rows["cure"][1] == "a" and rows["uce"][1] == "b" and rows["unedited"][1] == "100.0"


def test_columns_of_another_aim_take_their_place() -> None:
    plan = make_plan()
    measured = measure(plan, make_scores(plan), METRICS)
    assert key_columns(measured, "object") == {
        "erased": ("erase", "classifier@1"), "kept": ("retain", "classifier@1"), "everyday": ("general", "text_match@2-a_b"),
    }  # fmt: skip


def test_what_was_not_run_is_said_once_with_its_reason() -> None:
    plan = make_plan(prompts=2)
    scores = make_scores(plan)
    absent = {"text_match@2-a_b": "no weights"}
    measured = measure(plan, scores, METRICS, not_run_because=absent)
    text = shown(measured, compare(plan, scores, METRICS, absent))
    assert text.count("no weights") == 1 and "everyday" not in text
