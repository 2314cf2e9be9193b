"""The plain mean over kinds."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from table_helpers import table

from erasebench.scores.estimate import Estimate
from erasebench.tables.overall import EACH_KIND, overall, write_overall

OBJECTS = table({"none": (0.9, 0.9), "uce": (0.2, 0.8)}, kind="object", half=0.03)
PEOPLE = table({"none": (0.7, 0.7), "uce": (0.1, 0.5)}, kind="celebrity", half=0.04)


def cell(found: pd.DataFrame, eraser: str, role: str, metric: str) -> pd.Series:
    rows = found[(found.eraser == eraser) & (found.role == role) & (found.metric == metric)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_each_kind_weighs_the_same_and_intervals_are_put_together() -> None:
    many = PEOPLE.assign(n=10_000)
    found = overall(pd.concat([OBJECTS, many], ignore_index=True))
    row = cell(found, "uce", "erase", "judge@2")
    assert row.value == pytest.approx(0.15) and row.n == 10_020
    assert row.low == pytest.approx(0.15 - math.hypot(0.03, 0.04) / 2)
    assert row.high == pytest.approx(0.15 + math.hypot(0.03, 0.04) / 2)
    assert set(found.role) == {"erase", "retain", "general"}, "no mean of costs, and none of H"


def test_kinds_with_judges_of_their_own_have_one_axis() -> None:
    q16 = PEOPLE.assign(metric=PEOPLE.metric.str.replace("judge@2", "q16@1"))
    found = overall(pd.concat([OBJECTS, q16], ignore_index=True))
    assert cell(found, "none", "erase", EACH_KIND).value == pytest.approx(0.8)
    assert cell(found, "uce", "retain", EACH_KIND).value == pytest.approx(0.65)


def test_a_number_that_one_kind_lacks_is_not_run() -> None:
    lacking = PEOPLE.copy()
    gone = (lacking.eraser == "uce") & (lacking.role == "erase")
    none = Estimate(math.nan, 0, math.nan, math.nan, "not run")
    lacking.loc[gone, ["value", "low", "high", "n", "how"]] = [none.value, none.low, none.high, none.n, none.how]
    row = cell(overall(pd.concat([OBJECTS, lacking], ignore_index=True)), "uce", "erase", "judge@2")
    assert math.isnan(row.value) and row.how == "not run" and row.n == 0
    alone = overall(pd.concat([OBJECTS, PEOPLE[PEOPLE.eraser == "none"]], ignore_index=True))
    assert math.isnan(cell(alone, "uce", "retain", "judge@2").value)


def test_files_are_written_for_several_kinds_only(tmp_path: Path) -> None:
    assert write_overall(OBJECTS, tmp_path) == [] and not list(tmp_path.iterdir())
    write_overall(pd.concat([OBJECTS, PEOPLE], ignore_index=True), tmp_path)
    text = (tmp_path / "overall.md").read_text(encoding="utf-8")
    assert "15.0 [12.5, 17.5]" in text and "objects and celebrities" in text
    assert len(pd.read_csv(tmp_path / "overall.csv")) == 2 * 3
