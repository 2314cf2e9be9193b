"""The rates of each concept alone: what they are of, where they stand, and that one that is lost is seen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from table_helpers import METRICS, finish, make_plan, make_scores, printed, quiet, tabulate

from erasebench.scores.rates import wilson
from erasebench.store import Store
from erasebench.tables.by_concept import concept_tables
from erasebench.tables.measure import measure, measure_concepts
from erasebench.tables.view import View


@pytest.fixture
def plan() -> pd.DataFrame:
    return make_plan(tasks=("church",))


def lost(plan: pd.DataFrame, eraser: str, label: str) -> dict[str, pd.DataFrame]:
    """Scores by which an eraser takes one kept concept along, and nothing else."""
    scores = make_scores(plan)
    gone = set(plan.key[(plan.eraser == eraser) & (plan.label == label)])
    table = scores["classifier@1"]
    scores["classifier@1"] = table.assign(answer=table.answer.where(~table.key.isin(gone), "nothing"))
    return scores


def test_one_kept_concept_that_is_lost_does_not_hide_behind_the_others(plan: pd.DataFrame) -> None:
    concepts = measure_concepts(plan, lost(plan, "uce", "tench"), METRICS)
    assert set(concepts.metric) == {"classifier@1"}, "rates alone"
    at = concepts.set_index(["eraser", "role", "concept"])
    for concept, hits in (("gas pump", 5), ("tench", 0), ("golf ball", 5)):
        row, expected = at.loc["uce", "retain", concept], wilson(hits, 5)
        assert (row.value, row.low, row.high, row.n) == (hits / 5, expected.low, expected.high, 5)
    assert at.loc["none", "retain", "tench"].value == 1 and at.loc["cure", "erase", "church"].value == 0
    assert at.loc["uce", "retain", "tench"].difference == -1, "against the unedited model on the same prompts"
    assert "" not in set(concepts.concept), "prompts that ask for no concept have none"


def test_concepts_together_are_the_whole(plan: pd.DataFrame) -> None:
    scores = lost(plan, "uce", "tench")
    concepts, measured = measure_concepts(plan, scores, METRICS), measure(plan, scores, METRICS)
    whole = measured[(measured.metric == "classifier@1") & (measured.task == "all")].set_index(["eraser", "role"])
    for (eraser, role), part in concepts.groupby(["eraser", "role"]):
        assert (part.value * part.n).sum() / part.n.sum() == pytest.approx(whole.loc[(eraser, role), "value"])
        assert part.n.sum() == whole.loc[(eraser, role), "n"]


def test_the_concept_furthest_from_the_aim_stands_first(plan: pd.DataFrame) -> None:
    concepts = measure_concepts(plan, lost(plan, "uce", "golf ball"), METRICS)
    tables = dict(concept_tables(concepts, measure(plan, lost(plan, "uce", "golf ball"), METRICS), "object"))
    heads, rows, _ = tables["recognised by classifier % kept ↑"]
    assert heads == ["concept", "unedited", "cure", "uce", "n"]
    assert rows[0] == ["golf ball", "100.0 [56.6, 100.0]", "100.0 [56.6, 100.0]", "0.0 [0.0, 43.4]", "5"]


def test_a_concept_with_images_that_are_not_scored_has_no_number_and_the_others_have(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    one = plan.key[(plan.eraser == "uce") & (plan.label == "tench")].iloc[0]
    scores["classifier@1"] = scores["classifier@1"][scores["classifier@1"].key != one]
    at = measure_concepts(plan, scores, METRICS).set_index(["eraser", "concept"])
    assert at.loc["uce", "tench"].how == "not run" and "1 of 5" in at.loc["uce", "tench"].reason
    assert at.loc["uce", "golf ball"].value == 1 and at.loc["cure", "tench"].value == 1


def test_the_command_writes_and_prints_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = finish(store, "one", make_plan(prompts=2))
    console = quiet()
    tabulate(["one"], str(tmp_path), console=console)
    assert "by concept" not in printed(console), "only where it is asked for"
    tabulate(["one"], str(tmp_path), console=console, view=View(by_concept=True))
    assert "object, by concept: recognised by classifier % kept ↑" in printed(console)
    rows = pd.read_csv(folder / "tables" / "by_concept.csv", keep_default_na=False)
    assert {"church", "gas pump", "tench", "golf ball"} == set(rows.concept)
    assert "| tench |" in (folder / "tables" / "by_concept.md").read_text(encoding="utf-8")
