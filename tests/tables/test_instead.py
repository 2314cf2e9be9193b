"""What came instead of an erased concept: counted once an image, named by the classifier, unsafe where it is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from table_helpers import Accuracy, TextMatch, make_costs, make_plan, make_scores

from erasebench.metrics.judge import Judge
from erasebench.tables.instead import MatrixCell, came_instead, instead_cells, instead_matrix, write_instead
from erasebench.tables.layout import title
from erasebench.tables.measure import measure
from erasebench.tiny.judge import BROKEN
from erasebench.tiny.names import HEADS


def judged(**heads: str) -> dict[str, str]:
    return dict.fromkeys((*HEADS, BROKEN), "none") | {"label": "church"} | heads


class Looking(Accuracy):
    """The answers of a classifier, of which a bomb is unsafe."""

    def unsafe(self, rows: pd.DataFrame) -> pd.Series:
        return (rows["answer"] == "bomb").astype(float)


@pytest.fixture
def plan() -> pd.DataFrame:
    return make_plan(prompts=4)


@pytest.fixture
def scores(plan: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """After ``cure`` a church is twice a bomb, once a tench and once nothing; a gas pump is nothing."""
    made = make_scores(plan)
    church = plan[(plan.eraser == "cure") & (plan.role == "erase") & (plan.task == "church")].key
    gone = plan[(plan.eraser == "cure") & (plan.role == "erase") & (plan.task == "gas pump")].key
    new = dict(zip(church, ["bomb", "bomb", "tench", ""], strict=True)) | dict.fromkeys(gone, "")
    answers = made["classifier@1"]
    made["classifier@1"] = answers.assign(answer=answers.key.map(new).fillna(answers.answer))
    return made


def test_replacements_are_counted_by_concept_and_together(plan: pd.DataFrame, scores: dict) -> None:
    found = came_instead(plan, scores, [TextMatch(), Looking()])
    church = found[(found.eraser == "cure") & (found.concept == "church")]
    assert dict(zip(church.shown, church.images, strict=True)) == {"bomb": 2, "tench": 1, "nothing": 1}
    assert set(church.n) == {4} and set(church.still) == {0} and set(church.unsafe) == {2}
    together = found[(found.eraser == "cure") & (found.concept == "all")]
    assert dict(zip(together.shown, together.images, strict=True)) == {"nothing": 5, "bomb": 2, "tench": 1}
    kept = found[(found.eraser == "uce") & (found.concept == "all")].iloc[0]
    assert (kept.still, kept.n, kept.images, kept.unsafe) == (8, 8, 0, 0)


def test_the_table_names_the_most_frequent_and_the_files_say_the_same(
    plan: pd.DataFrame, scores: dict, tmp_path: Path
) -> None:
    found = came_instead(plan, scores, [Looking()])
    _, rows = instead_cells(found, "object")
    assert ["cure", "church", "4", "0.0", "bomb 50, nothing 25, tench 25", "50.0"] in rows
    assert ["unedited", "all", "8", "100.0", "–", "0.0"] in rows
    assert [path.name for path in write_instead(found, tmp_path)] == ["instead.csv", "instead.md"]
    assert "| cure | church | 4 | 0.0 | bomb 50, nothing 25, tench 25 | 50.0 |" in (tmp_path / "instead.md").read_text()


def test_the_matrix_has_erased_concepts_down_and_says_where_something_unsafe_came(
    plan: pd.DataFrame, scores: dict
) -> None:
    instead = came_instead(plan, scores, [Looking()])
    erasers, rows = instead_matrix(instead, "object")
    cells = {concept: dict(zip(erasers, of_concept, strict=True)) for concept, of_concept in rows}
    assert cells["church"]["cure"] == MatrixCell(("bomb 50", "nothing 25", "tench 25"), 0.0, 50.0)
    assert cells["gas pump"]["cure"] == MatrixCell(("nothing 100",), 0.0, 0.0)
    assert cells["church"]["unedited"] == MatrixCell((), 100.0, 0.0)
    lacking = instead[(instead.eraser != "cure") | (instead.concept != "church")]
    erasers, rows = instead_matrix(lacking, "object")
    assert dict(rows)["church"][erasers.index("cure")] is None, "not run is no number"
    asked_for = instead.assign(task_kind="unsafe")
    assert not any(
        cell.unsafe for _, of_concept in instead_matrix(asked_for, "unsafe")[1] for cell in of_concept if cell
    )
    assert instead_matrix(instead, "artist") == ([], [])


def test_a_metric_that_names_nothing_has_no_table(plan: pd.DataFrame, scores: dict, tmp_path: Path) -> None:
    assert not len(came_instead(plan, scores, [TextMatch()]))
    assert not len(came_instead(plan, scores, [Looking()], {"classifier@1": "no weights"}))
    assert write_instead(came_instead(plan, scores, [TextMatch()]), tmp_path) == []


def test_what_became_unsafe_is_a_column_beside_the_unedited_model(plan: pd.DataFrame, scores: dict) -> None:
    measured = measure(plan, scores, [Looking(), TextMatch()], costs=make_costs(plan))
    rows = measured[(measured.role == "instead") & (measured.task == "all")].set_index("eraser")
    assert rows.value.to_dict() == {"none": 0, "cure": 0.25, "uce": 0} and set(rows.n) == {8}
    assert rows.loc["cure", "low"] > 0 and rows.loc["cure", "difference"] == 0.25
    unsafe = plan.assign(task_kind="unsafe")
    assert not (measure(unsafe, scores, [Looking()]).role == "instead").any(), "what was unsafe cannot become so"
    assert title("instead", rows.metric.iloc[0], "down", "%") == "became unsafe % ↓"
    assert not (measure(plan, scores, [Accuracy()]).role == "instead").any(), "it cannot tell"


def test_the_judge_names_what_it_sees() -> None:
    rows = pd.DataFrame(
        [
            judged(object="tench", unsafe="pistol") | {"kind": "object"},
            judged(object="tench", artist="Hokusai") | {"kind": "object"},
            judged(person="Cleopatra") | {"kind": "object"},
            judged(object="church") | {"kind": "artist"},
            judged(artist="Hokusai", object="church") | {"kind": "artist"},
            judged() | {"kind": "celebrity"},
            judged(object="castle + bus", unsafe="rifle + bomb") | {"kind": "object"},
        ]
    )
    assert list(Judge().shown(rows)) == ["pistol", "tench", "Cleopatra", "", "Hokusai", "", "rifle"]
    assert list(Judge().unsafe(rows)) == [1, 0, 0, 0, 0, 0, 1]
    assert Judge().unsafe(rows.assign(unsafe="")).isna().all(), "a network that gave no answer cannot tell"
