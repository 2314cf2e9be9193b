"""What edits cost comes from their notes, and seconds of two machines never share a column."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from table_helpers import METRICS, make_plan, make_scores

from erasebench.edits.eraser import Edit
from erasebench.models.load import load_model
from erasebench.runs.costs import COST_COLUMNS, read_costs
from erasebench.runs.environment import machine
from erasebench.store import Store
from erasebench.tables.layout import layout
from erasebench.tables.measure import measure

CPU, GPU = "cpu Some CPU, 2 threads", "cuda NVIDIA H100"


@pytest.fixture
def plan() -> pd.DataFrame:
    return make_plan(prompts=1)


def stored(root: Path, plan: pd.DataFrame, machines: dict[str, str], peak: float | None = 900.0) -> Store:
    """A store with the edits of a plan, those of each eraser made on a machine."""
    store = Store(root)
    for row in plan[plan.edit_key != ""].drop_duplicates("edit_key").itertuples():
        made_on = machines[row.eraser]
        notes = {"seconds": 2.0, "device": made_on[:4].strip(), "machine": made_on, "peak_memory_mb": peak}
        store.put_edit(row.edit_key, Edit({}, notes))
    return store


def costs_of(measured: pd.DataFrame) -> pd.DataFrame:
    return measured[measured.role == "cost"]


def test_the_cost_of_an_edit_is_what_its_notes_say(plan: pd.DataFrame, tmp_path: Path) -> None:
    costs = read_costs(tmp_path, plan, stored(tmp_path, plan, {"cure": GPU, "uce": GPU}))
    assert list(costs.columns) == list(COST_COLUMNS) and len(costs) == plan.edit_key.nunique() - 1
    assert set(costs.edit_seconds) == {2.0} and set(costs.peak_memory_mb) == {900.0} and set(costs.machine) == {GPU}
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    assert set(table.metric) == {"edit_seconds", "peak_memory_mb"} and table.value.notna().all()


def test_a_cpu_has_no_peak_memory_of_an_edit(plan: pd.DataFrame, tmp_path: Path) -> None:
    """Earlier versions noted the peak of the process there: whatever ran before is in it."""
    costs = read_costs(tmp_path, plan, stored(tmp_path, plan, {"cure": CPU, "uce": CPU}))
    assert costs.peak_memory_mb.isna().all()
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    assert set(table.metric) == {"edit_seconds"}


def test_seconds_of_two_machines_are_two_columns_and_none_is_lost(plan: pd.DataFrame, tmp_path: Path) -> None:
    costs = read_costs(tmp_path, plan, stored(tmp_path, plan, {"cure": CPU, "uce": GPU}))
    measured = measure(plan, make_scores(plan), METRICS, costs=costs)
    seconds = costs_of(measured)[lambda table: table.metric.str.startswith("edit_seconds")]
    assert dict(zip(seconds.eraser, seconds.metric, strict=True)) == {
        "cure": f"edit_seconds [{CPU}]", "uce": f"edit_seconds [{GPU}]",
    }  # fmt: skip
    assert set(seconds.value) == {2.0}
    heads, rows, marks = layout(measured, "object")
    columns = [heads.index(f"edit s [{machine}] ↓") for machine in (CPU, GPU)]
    by_eraser = {row[0]: [row[column] for column in columns] for row in rows}
    assert by_eraser == {"none": ["–", "–"], "cure": ["2.00", "–"], "uce": ["–", "2.00"]}
    assert not any(mark[column] for mark in marks for column in columns), "alone in a column nothing is best"


def test_edits_of_one_eraser_on_two_machines_count_apart(plan: pd.DataFrame, tmp_path: Path) -> None:
    costs = read_costs(tmp_path, plan, stored(tmp_path, plan, {"cure": CPU, "uce": CPU}))
    costs.loc[0, ["machine", "edit_seconds"]] = ["cpu Xeon @ 2.20GHz", 8.0]
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    ours = table[table.eraser == costs.eraser[0]].set_index("metric")
    assert ours.value.to_dict() == {"edit_seconds [cpu Xeon at 2.20GHz]": 8.0, f"edit_seconds [{CPU}]": 2.0}
    assert set(ours.n) == {1}


def test_an_edit_that_is_gone_costs_nothing_that_is_known(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = stored(tmp_path, plan, {"cure": CPU, "uce": CPU})
    gone = plan.edit_key[plan.eraser == "cure"].iloc[0]
    store.edit_path(gone).with_suffix(".json").unlink()
    assert len(read_costs(tmp_path, plan, store)) == plan.edit_key.nunique() - 2
    store.edit_path(gone).with_suffix(".json").write_text("[1, 2")
    assert len(read_costs(tmp_path, plan, store)) == plan.edit_key.nunique() - 2


def test_a_run_of_an_earlier_version_keeps_its_costs(plan: pd.DataFrame, tmp_path: Path) -> None:
    edits = plan[plan.edit_key != ""].drop_duplicates(["eraser", "task_kind", "task"])
    before = edits[["eraser", "task_kind", "task"]].assign(edit_seconds=1.5, peak_memory_mb=1203.0, rank=2, share=0.1)
    before.to_parquet(tmp_path / "costs.parquet")
    costs = read_costs(tmp_path, plan, Store(tmp_path))
    assert set(costs.edit_seconds) == {1.5} and costs.peak_memory_mb.isna().all()
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    assert not any(math.isnan(value) for value in table.value)


def test_a_machine_is_named_by_what_decides_seconds(tiny_random_pipe) -> None:
    name = machine(load_model("embedded", device="cpu"))
    assert name.startswith("cpu ") and name.endswith(" threads") and len(name) > len("cpu , 1 threads")
    json.dumps(name)
