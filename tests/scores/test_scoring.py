"""Every image is scored once for what decides its score, and a kill costs one chunk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from table_helpers import colour, make_plan, make_store

from erasebench.errors import UserError
from erasebench.scores import scoring
from erasebench.scores.metric import Metric, rows_to_score
from erasebench.scores.scoring import score_missing
from erasebench.store import Store


@dataclass  # a plain dataclass, as users write it: it has no hash
class Red(Metric):
    """The red of an image; remembers what it was given, and can be killed."""

    name: str = "red"
    version: str = "1"
    directions: dict = field(default_factory=lambda: {"erase": "down", "retain": "up"})
    inputs: tuple = ()
    kinds: tuple = ()
    paired_with: str = ""
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
        assert (originals is not None) == bool(self.paired_with)
        red = [float(np.asarray(image)[0, 0, 0]) for image in images]
        if self.paired_with:
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
    assert set(rows_to_score(plan, Red(paired_with="original_key")).eraser) == {"cure", "uce"}


def test_a_metric_may_compare_an_attacked_image_with_the_clean_one_of_the_same_edit(plan: pd.DataFrame, store) -> None:
    """Rows of one edit stand in for attacked rows of another; all others are compared with nothing."""
    place = ["task", "prompt_id"]
    clean = plan[plan.eraser == "cure"].set_index(place).key
    attacked = [clean[row.task, row.prompt_id] if row.eraser == "uce" else row.key for row in plan.itertuples()]
    rows = plan.assign(clean_key=attacked)
    metric = Red(name="brought_back", paired_with="clean_key", inputs=("clean_key",))
    assert set(rows_to_score(rows, metric).eraser) == {"uce"}
    score_missing(rows, [metric], store)
    gaps = store.scores("brought_back@1", ("clean_key",))
    assert len(gaps) == len(rows_to_score(rows, metric))
    for gap in gaps.itertuples():
        assert gap.value == colour(gap.key)[0] - colour(gap.clean_key)[0]


def test_scores_belong_to_their_images(plan: pd.DataFrame, store, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "IMAGES_A_WRITE", 3)
    plain, paired = Red(), Red(name="gap", paired_with="original_key", inputs=("original_key",))
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


# What fails is named, and the rest goes on


class Failing(Red):
    """Does something else at its second chunk."""

    def instead(self, scores: pd.DataFrame, rows: pd.DataFrame) -> object:
        raise RuntimeError("the net is\nbroken")

    def score(self, images, rows, originals=None) -> pd.DataFrame:
        scores = super().score(images, rows, originals)
        return scores if len(self.chunks) < 2 else self.instead(scores, rows)


FAULTS = {
    "raises": (None, r"RuntimeError: the net is broken \(test_scoring.py:\d+\)"),
    "a row too few": (lambda scores, rows: scores.iloc[1:], r"gave \d+ scores for \d+ images"),
    "a row too many": (lambda scores, rows: pd.concat([scores, scores[:1]]), r"gave \d+ scores for \d+ images"),
    "no table": (lambda scores, rows: scores.value.tolist(), "gave a list, not a DataFrame"),
    "no columns": (lambda scores, rows: scores[[]], "need names"),
    "a number as a name": (lambda scores, rows: scores.set_axis([0], axis=1), "need names"),
    "two columns of one name": (lambda scores, rows: scores[["value", "value"]], "each another one"),
    "a column of the plan": (lambda scores, rows: scores.assign(label="x", seed=1), "a plan has, too: label, seed"),
    "the key": (lambda scores, rows: scores.assign(key=rows.key), "a plan has, too: key"),
    "nothing for an image": (lambda scores, rows: scores.assign(answer=["x", None, "x"]), "gave no answer for image"),
    "nothing at all": (lambda scores, rows: scores.assign(value=[None] * len(rows)), "gave no value for image"),
    "objects": (lambda scores, rows: scores.assign(value=[object()] * len(rows)), "cannot be stored.*value"),
    "another type than before": (lambda scores, rows: scores.assign(value="high"), "under this version.*value"),
    "half a character": (lambda scores, rows: scores.assign(answer="\ud800"), "cannot be stored|surrogates"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_metric_that_fails_is_named_and_the_others_are_scored(fault: str, plan, store, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "IMAGES_A_WRITE", 3)
    instead, message = FAULTS[fault]
    if instead is not None:
        monkeypatch.setattr(Failing, "instead", lambda self, scores, rows: instead(scores, rows))
    bad, good = Failing(name="bad"), Red(name="good")
    unscored = score_missing(plan, [bad, good], store)
    assert list(unscored.failed) == ["bad@1"] and not unscored.lost
    assert re.search(message, unscored.failed["bad@1"]) and "\n" not in unscored.failed["bad@1"]
    assert len(store.scores("bad@1", ())) == 3, "what was right is kept, and nothing else"
    assert len(store.scores("good@1", ())) == len(rows_to_score(plan, good))
    mended = Red(name="bad")
    assert not score_missing(plan, [mended], store).failed
    assert len(store.scores("bad@1", ())) == len(rows_to_score(plan, good)) and len(mended.chunks[0]) == 3


def test_metrics_that_share_records_fail_together(plan, store) -> None:
    class Broken(Red):
        def score(self, images, rows, originals=None):
            raise UserError("the weights are gone; run erasebench prefetch")

    unscored = score_missing(plan, [Broken(name="a", records="raw@1"), Red(name="b", records="raw@1")], store)
    assert unscored.failed == dict.fromkeys(("a@1", "b@1"), "the weights are gone; run erasebench prefetch")


def test_nan_is_a_score_and_none_is_not(plan, store) -> None:
    class Half(Red):
        def score(self, images, rows, originals=None):
            return super().score(images, rows, originals).assign(value=[float("nan")] * len(rows))

    assert not score_missing(plan, [Half()], store).failed
    assert store.scores("red@1", ()).value.isna().all()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_where_memory_runs_out_the_chunk_is_halved(error: Exception, plan, store) -> None:
    class Large(Red):
        def score(self, images, rows, originals=None):
            if len(images) > 5:
                raise error
            return super().score(images, rows, originals)

    large = Large()
    assert not score_missing(plan, [large, Red(name="plain")], store).failed
    assert {len(chunk) for chunk in large.chunks} <= {1, 2, 3, 4, 5}
    columns = ["key", "value"]
    pd.testing.assert_frame_equal(store.scores("red@1", ())[columns], store.scores("plain@1", ())[columns])


def test_memory_that_is_too_small_for_one_image_is_a_sentence(plan, store) -> None:
    class Larger(Red):
        def score(self, images, rows, originals=None):
            raise MemoryError

    assert "out of memory for a single image" in score_missing(plan, [Larger()], store).failed["red@1"]


def test_an_image_that_is_gone_or_damaged_is_told_and_the_others_are_scored(plan, tmp_path) -> None:
    store = Store(make_store(tmp_path, plan).root, mends=True)
    edited = plan[(plan.eraser == "cure") & (plan.role == "erase")].key.tolist()
    original = plan[(plan.eraser == "none") & (plan.role == "erase")].key.iloc[0]
    store.image_path(edited[0]).unlink()
    store.image_path(edited[1]).write_bytes(b"cut")
    store.image_path(original).unlink()
    plain, paired = Red(), Red(name="gap", paired_with="original_key", inputs=("original_key",))
    unscored = score_missing(plan, [plain, paired], store)
    assert not unscored.failed and set(unscored.lost) == {edited[0], edited[1], original}
    assert set(store.scores("red@1", ()).key) == set(rows_to_score(plan, plain).key) - set(unscored.lost)
    gaps = store.scores("gap@1", ("original_key",))
    assert not set(gaps.key) & set(edited[:2]) and original not in set(gaps.original_key) and len(gaps)
    assert set(store.missing(plan.key)) == set(unscored.lost), "so that they are made again"


def test_a_disk_that_fails_is_no_failure_of_a_metric(plan, store, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="no space is left"):
        score_missing(plan, [Red()], store)


def test_reference_images_are_scored_once_with_the_run_and_found_by_their_keys(
    plan: pd.DataFrame, store, tmp_path
) -> None:
    files = {f"reference-3.abc-{i}": tmp_path / f"{i}.png" for i in range(3)}
    for place, file in enumerate(files.values()):
        Image.new("RGB", (4, 4), (place, 0, 0)).save(file)

    class Beside(Red):
        reference_key = "reference-3.abc-"

        def reference_images(self) -> dict[str, Path]:
            return files

    first, second = Beside(name="a", records="raw@1"), Beside(name="b", records="raw@1")
    assert not score_missing(plan, [first, second], store).problems
    stored = store.scores("raw@1", ()).set_index("key").value
    assert [stored[key] for key in files] == [0, 1, 2]
    assert first.chunks[0][:3] == list(files) and not second.chunks, "references first, once for both"
    again = Beside(records="raw@1")
    score_missing(plan, [again], store)
    assert again.chunks == []
    broken = Beside(name="c")
    next(iter(files.values())).write_bytes(b"no image")
    failed = score_missing(plan, [broken, Red()], store).failed
    assert set(failed) == {"c@1"} and "0.png cannot be read" in failed["c@1"]
    assert not store.scores("red@1", ()).empty, "the other metrics go on"
