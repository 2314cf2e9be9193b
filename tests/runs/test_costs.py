"""What edits cost comes from their notes, and seconds of two machines never share a column."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from table_helpers import METRICS, make_plan, make_scores, recipe

from erasebench.edits.eraser import Edit
from erasebench.models.load import load_model
from erasebench.runs.costs import COST_COLUMNS, read_costs
from erasebench.runs.environment import machine
from erasebench.store import Store
from erasebench.tables.layout import layout
from erasebench.tables.letters import NO_MARK
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
    assert by_eraser == {"unedited": ["–", "–"], "cure": ["2.00", "–"], "uce": ["–", "2.00"]}
    assert all(mark[column] == NO_MARK for mark in marks for column in columns), "alone in a column nothing is best"


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


TRAINING = {"trained": True, "gradient_steps": 150, "images": 32, "parameters": 5000, "hooks": []}
GUARD = {"trained": False, "images": 0, "parameters": 0, "hooks": [{"name": "sld", "version": "1"}]}


def timed(store: Store, plan: pd.DataFrame, seconds: dict[str, float]) -> None:
    """Images of a plan, each eraser's with seconds of its own, half of them twice as slow."""
    for row in plan.drop_duplicates("key").itertuples():
        meta = {"seconds": seconds[row.eraser] * (1 + row.seed % 2), "device": CPU}
        store.put_image(recipe(row.prompt, row.seed, row.edit_key), Image.new("RGB", (64, 64)), meta)
    store.flush()


def with_notes(root: Path, plan: pd.DataFrame, notes: dict[str, dict]) -> Store:
    store = Store(root)
    for row in plan[plan.edit_key != ""].drop_duplicates("edit_key").itertuples():
        about = {"seconds": 2.0, "device": "cpu", "machine": CPU, **notes[row.eraser]}
        store.put_edit(row.edit_key, Edit({}, about))
    return store


def test_what_a_training_takes_is_a_column_each(plan: pd.DataFrame, tmp_path: Path) -> None:
    closed = {"trained": False, "images": 0, "parameters": 800}
    costs = read_costs(tmp_path, plan, with_notes(tmp_path, plan, {"cure": TRAINING, "uce": closed}))
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    values = {(row.eraser, row.metric): row.value for row in table.itertuples()}
    assert values == {
        ("cure", "edit_seconds"): 2.0, ("cure", "gradient_steps"): 150, ("cure", "images"): 32, ("cure", "parameters"): 5000,
        ("uce", "edit_seconds"): 2.0, ("uce", "gradient_steps"): 0, ("uce", "images"): 0, ("uce", "parameters"): 800,
    }  # fmt: skip
    heads, _, _ = layout(measure(plan, make_scores(plan), METRICS, costs=costs), "object")
    assert heads[-4:] == ["edit s ↓", "gradient steps ↓", "example images ↓", "parameters ↓"]


def test_closed_forms_alone_differ_in_seconds(plan: pd.DataFrame, tmp_path: Path) -> None:
    notes = {name: {"trained": False, "images": 0, "parameters": 800 + len(name)} for name in ("cure", "uce")}
    costs = read_costs(tmp_path, plan, with_notes(tmp_path, plan, notes))
    assert set(costs.gradient_steps) == {0} and costs.image_time.isna().all()
    assert set(costs_of(measure(plan, make_scores(plan), METRICS, costs=costs)).metric) == {"edit_seconds"}


def test_steps_of_an_earlier_version_are_not_known(plan: pd.DataFrame, tmp_path: Path) -> None:
    """It noted neither steps nor images; a training's number is then missing, and never 0."""
    costs = read_costs(tmp_path, plan, with_notes(tmp_path, plan, {"cure": {"trained": True}, "uce": TRAINING}))
    before = costs[costs.eraser == "cure"]
    assert before.gradient_steps.isna().all() and before.images.isna().all() and before.parameters.isna().all()


def test_adapters_beside_the_network_are_parameters_that_are_added(plan: pd.DataFrame, tmp_path: Path) -> None:
    beside = TRAINING | {"parameters": 0, "trained_parameters": 77}
    costs = read_costs(tmp_path, plan, with_notes(tmp_path, plan, {"cure": beside, "uce": TRAINING}))
    assert set(costs[costs.eraser == "cure"].parameters) == {77}


def test_a_guard_costs_time_an_image_beside_the_unedited_model(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = with_notes(tmp_path, plan, {"cure": GUARD, "uce": TRAINING})
    timed(store, plan, {"none": 2.0, "cure": 3.0, "uce": 9.0})
    costs = read_costs(tmp_path, plan, store)
    times = costs.groupby("eraser").image_time.unique()
    assert list(times["cure"]) == [1.5]
    assert set(costs.parameters[costs.eraser == "cure"]) == {0}, "a guard touches none, which is known"
    assert pd.isna(times["uce"]).all(), "weights alone take no time: what was measured is the machine's other work"
    table = costs_of(measure(plan, make_scores(plan), METRICS, costs=costs))
    assert list(table.value[table.metric == "image_time"]) == [1.5]


def test_without_records_of_images_no_time_is_known(plan: pd.DataFrame, tmp_path: Path) -> None:
    store = with_notes(tmp_path, plan, {"cure": GUARD, "uce": TRAINING})
    assert read_costs(tmp_path, plan, store).image_time.isna().all(), "no image has a record"


def test_a_machine_is_named_by_what_decides_seconds(tiny_random_pipe) -> None:
    name = machine(load_model("embedded", device="cpu"))
    assert name.startswith("cpu ") and name.endswith(" threads") and len(name) > len("cpu , 1 threads")
    json.dumps(name)
