"""The setting that conditions pick, and conditions that cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_helpers import table

from erasebench.errors import UserError
from erasebench.tables import best


def test_the_best_setting_has_the_least_left_of_those_that_keep_enough() -> None:
    for text in ("retained>=0.9", "retained >= 90 %", "retained>=90%", "judge.retained>=0.9, edit_seconds<=4"):
        choice = best.choose(table(), "object", best.conditions(text, table()))
        assert choice.eraser == "cure alpha=2" and choice.alike == (), text
        assert "erased 30.0 % [28.0, 32.0]" in choice.text
    assert best.choose(table(), "object", best.conditions("retained>0.5", table())).eraser == "cure alpha=5"
    wide = table(half=0.4)
    assert best.choose(wide, "object", best.conditions("retained>=0.9", wide)).alike == ("cure alpha=1",)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_choice_fulfils_the_condition_and_nothing_that_does_is_better(
    points: list[tuple[float, float]], least: float
) -> None:
    named = {"none": (1.0, 1.0)} | {f"e{i}": point for i, point in enumerate(points)}
    measured = table(named)
    wanted = [best.Condition("retained", ">=", least, False)]
    able = [name for name, (_, kept) in named.items() if kept >= least and name != "none"]
    if not able:
        with pytest.raises(UserError, match="no setting of kind object fits"):
            best.choose(measured, "object", wanted)
        return
    chosen = best.choose(measured, "object", wanted).eraser
    assert chosen in able and named[chosen][0] == min(named[name][0] for name in able)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retained", r"'retained': write COLUMN>=NUMBER"),
        ("retained>=much", r"write COLUMN>=NUMBER"),
        ("", r"write COLUMN>=NUMBER"),
        ("retianed>=0.9", r"--best retianed: no such column. Did you mean 'retained'\? Columns: judge.erased, "),
        ("retained>=90", r"--best retained>=90: retained is a rate from 0 to 1; write retained>=90% or 0.9"),
        ("erased<=1", r"--best erased<=1: of a rate, 1 is 100 %, .* for 1 % write erased<=1%"),
        ("edit_seconds<=4%", r"edit_seconds<=4%: edit_seconds is no rate"),
        ("erased<=1%", r"judge.erased <= 1 % is met by none; the nearest is cure alpha=5"),
        (
            "retained>=0.99",
            r"judge.retained >= 99 % is met by none; the nearest is cure alpha=1: judge.retained 95.0 %",
        ),
        ("erased<0.05", r"judge.erased < 5 % is met by none; the nearest is cure alpha=5: judge.erased 10.0 %"),
        ("erased<0.2,retained>0.9", r"judge.erased < 20 % is met by 1 of 4; judge.retained > 90 % is met by 2 of 4"),
    ],
)
def test_what_cannot_be_fulfilled_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        best.choose(table(), "object", best.conditions(text, table()))


def test_a_number_is_read_by_the_unit_of_its_column_and_not_by_its_size() -> None:
    measured = table({"none": (1.0, 1.0), "much": (0.5, 0.9), "some": (0.009, 0.5), "all": (0.0, 0.006)})
    for text, chosen in (("erased<=1%,retained>50%", None), ("erased<=1%,retained>=50%", "some"), ("retained>0.5", "much"),
                         ("retained>0.5%", "all"), ("retained>=100%", None), ("clip_score_uce.general>1", "all")):  # fmt: skip
        wanted = best.conditions(text, measured)
        if chosen is None:
            with pytest.raises(UserError, match="no setting of kind object fits"):
                best.choose(measured, "object", wanted)
        else:
            assert best.choose(measured, "object", wanted).eraser == chosen, text


def test_a_kind_without_both_aims_is_refused() -> None:
    measured = table()
    with pytest.raises(UserError, match="kind object says both"):
        best.choose(measured[measured.unit != "%"], "object", [])
