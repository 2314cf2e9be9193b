"""Every image is scored once for what decides its score, and a kill costs one chunk."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from table_helpers import colour, make_plan, make_store

from erasebench.scores import scoring
from erasebench.scores.metric import Metric
from erasebench.scores.scoring import rows_to_score, score_missing


@dataclass  # a plain dataclass, as users write it: it has no hash
class Red(Metric):
    """The red of an image; remembers what it was given, and can be killed."""

    name: str = "red"
    version: str = "1"
    directions: dict = field(default_factory=lambda: {"erase": "down", "retain": "up"})
    inputs: tuple = ()
    kinds: tuple = ()
    paired: bool = False
    records: str = ""
    dies_at: int = 0
    chunks: list = field(default_factory=list)

    @property
    def records_id(self) -> str:
        return self.records or self.id

    def score(self, images, rows, originals=None) -> pd.DataFrame:
        self.chunks.append(rows.key.tolist())
        if len(self.chunks) == self.dies_at:
            raise KeyboardInterrupt
        assert (originals is not None) == self.paired
        red = [float(np.asarray(image)[0, 0, 0]) for image in images]
        if self.paired:
            red = [a - float(np.asarray(b)[0, 0, 0]) for a, b in zip(red, originals, strict=True)]
        return pd.DataFrame({"value": red}, index=rows.index[::-1])  # an index of its own does no harm


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return make_plan(prompts=2)


@pytest.fixture
def store(plan: pd.DataFrame, tmp_path):
    return make_store(tmp_path, plan)


def test_a_metric_gets_the_rows_of_its_roles_and_kinds_each_image_once(plan: pd.DataFrame) -> None:
    rows = rows_to_score(plan, Red())
    assert set(rows.role) == {"erase", "retain"} and not rows.key.duplicated().any()
    assert set(rows.key) == set(plan.key[plan.role != "general"])
    assert rows_to_score(plan, Red(kinds=("artist",))).empty
    assert set(rows_to_score(plan, Red(directions={"general": "up"})).role) == {"general"}


def test_inputs_decide_with_the_image_what_is_one_score(plan: pd.DataFrame) -> None:
    twice = pd.concat([plan, plan.assign(label=plan.label + " again", prompt_id=plan.prompt_id + "b")])
    assert len(rows_to_score(twice, Red())) == len(rows_to_score(plan, Red()))
    assert len(rows_to_score(twice, Red(inputs=("label",)))) == 2 * len(rows_to_score(plan, Red()))


def test_a_paired_metric_skips_the_unedited_model(plan: pd.DataFrame) -> None:
    assert set(rows_to_score(plan, Red(paired=True)).eraser) == {"cure", "uce"}


def test_scores_belong_to_their_images(plan: pd.DataFrame, store, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "IMAGES_A_WRITE", 3)
    plain, paired = Red(), Red(name="gap", paired=True, inputs=("original_key",))
    score_missing(plan, [plain, paired], store)
    assert {len(chunk) for chunk in plain.chunks[:-1]} == {3}
    found = store.scores("red@1", ())
    assert len(found) == len(rows_to_score(plan, plain))
    assert [colour(key)[0] for key in found.key] == found.value.tolist()
    gaps = store.scores("gap@1", ("original_key",))
    expected = [colour(key)[0] - colour(original)[0] for key, original in zip(gaps.key, gaps.original_key, strict=True)]
    assert gaps.value.tolist() == expected


def test_what_is_scored_is_not_scored_again(plan: pd.DataFrame, store) -> None:
    first, again = Red(), Red()
    some = plan[plan.eraser != "uce"]
    score_missing(some, [first], store)
    score_missing(plan, [again], store)
    assert set(sum(again.chunks, [])) == set(rows_to_score(plan, again).key) - set(sum(first.chunks, []))
    final = Red()
    score_missing(plan, [final], store)
    assert final.chunks == []


def test_metrics_that_share_records_score_an_image_once_for_all_roles(plan: pd.DataFrame, store) -> None:
    one, other = Red(name="a", records="raw@1"), Red(name="b", records="raw@1", directions={"general": "up"})
    score_missing(plan, [one, other], store)
    scored = sum(one.chunks + other.chunks, [])
    assert len(scored) == len(set(scored)) and set(scored) == set(plan.key)
    assert store.metric_ids() == ["raw@1"]


def test_a_kill_loses_one_chunk_at_most(plan: pd.DataFrame, store, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "IMAGES_A_WRITE", 4)
    killed, resumed, undisturbed = Red(dies_at=3), Red(), Red(name="undisturbed")
    with pytest.raises(KeyboardInterrupt):
        score_missing(plan, [killed], store)
    assert len(store.scores("red@1", ())) == 8
    score_missing(plan, [resumed], store)
    assert not set(sum(resumed.chunks, [])) & set(sum(killed.chunks[:2], [])), "finished chunks are kept"
    assert resumed.chunks[0] == killed.chunks[2]
    score_missing(plan, [undisturbed], store)
    pd.testing.assert_frame_equal(store.scores("red@1", ()), store.scores("undisturbed@1", ()))


def test_too_few_scores_are_refused_and_not_stored(plan: pd.DataFrame, store) -> None:
    class Short(Red):
        def score(self, images, rows, originals=None) -> pd.DataFrame:
            return super().score(images, rows, originals).iloc[1:]

    with pytest.raises(ValueError, match=r"metric red@1 gave \d+ scores for \d+ images"):
        score_missing(plan, [Short()], store)
    assert store.scores("red@1", ()).empty
