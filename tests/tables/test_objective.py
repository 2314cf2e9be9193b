"""Objectives: arithmetic of columns, each with its metric named, or a sentence."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_helpers import table

from erasebench.errors import UserError
from erasebench.tables import best
from erasebench.tables.objective import objective_value


@given(st.floats(-3, 3), st.floats(0.1, 3))
@settings(max_examples=40, deadline=None)
def test_an_objective_is_arithmetic_of_columns(a: float, b: float) -> None:
    measured = table({"none": (0.9, 0.9), "cure": (0.25, 0.75)})
    text = f"({a!r} * judge.retained - erased / {b!r}) + -clip_score_uce.general"
    value, meant = objective_value(text, measured)
    assert value == pytest.approx(a * 0.75 - 0.25 / b - 30)
    assert meant == f"({a!r} * judge.retained - judge.erased / {b!r}) + -clip_score_uce.general"


def test_what_is_near_and_other_words_count_under_their_short_names() -> None:
    measured = table({"none": (0.9, 0.9), "uce": (0.1, 0.8)})
    judged = measured[measured.metric.str.startswith("judge") & (measured.eraser == "uce")]
    near = judged[judged.role == "retain"].assign(role="near", value=0.5)
    words = judged[judged.role == "erase"].assign(role="paraphrase", value=0.3)
    measured = pd.concat([measured, near, words], ignore_index=True)
    value, meant = objective_value("near + retained - erased - paraphrased", measured)
    assert value == pytest.approx(0.5 + 0.8 - 0.1 - 0.3)
    assert meant == "judge.near + judge.retained - judge.erased - judge.paraphrased"
    assert objective_value("judge.near", measured)[0] == objective_value("near", measured)[0]
    chosen = best.choose(measured, "object", best.conditions("near>=0.4", measured))
    assert chosen.eraser == "uce" and "judge.near" in chosen.text
    with pytest.raises(UserError, match="judge.near >= 60 % is met by none"):
        best.choose(measured, "object", best.conditions("near>=0.6", measured))
    with pytest.raises(UserError, match="no such column"):
        objective_value("near", table({"none": (0.9, 0.9), "uce": (0.1, 0.8)}))


def test_an_objective_without_a_number_is_refused_with_the_reason() -> None:
    measured = table({"none": (0.9, 0.9), "cure": (float("nan"), 0.75)})
    measured.loc[measured.value.isna(), "reason"] = "weights are absent"
    with pytest.raises(UserError, match=r"objective judge.erased: no number for kind object: weights are absent"):
        objective_value("judge.retained - judge.erased", measured)
    with pytest.raises(UserError, match="objective judge.erazed: no such column. Did you mean 'judge.erased'"):
        objective_value("judge.erazed", measured)


def test_no_metric_takes_the_place_of_the_judge_unasked() -> None:
    measured = table({"none": (0.9, 0.9), "cure": (0.25, 0.75)})
    judged = measured.metric.str.startswith("judge")
    clip = measured[judged].assign(metric="clip_score_uce@1", unit="", value=30.0, low=29.0, high=31.0)
    measured = pd.concat([measured, clip], ignore_index=True)
    measured.loc[measured.metric.str.startswith("judge"), ["value", "low", "high"]] = float("nan")
    measured.loc[measured.metric.str.startswith("judge"), "reason"] = "its labels are unknown to it"
    with pytest.raises(
        UserError, match=r"objective retained: no metric that recognises .*unknown to it.*clip_score_uce"
    ):
        objective_value("retained - erased", measured)
    with pytest.raises(UserError, match=r"--best erased: no metric that recognises .*name the column"):
        best.choose(measured, "object", best.conditions("retained>=0.9", measured))
    assert objective_value("clip_score_uce.retained - clip_score_uce.erased", measured)[0] == 0
