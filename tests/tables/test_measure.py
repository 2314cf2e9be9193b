"""Records to numbers: what is pooled, paired, left out and refused."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from table_helpers import METRICS, Accuracy, TextMatch, make_costs, make_plan, make_scores

from erasebench.errors import UserError
from erasebench.scores.estimate import Estimate, not_run
from erasebench.scores.means import mean_estimate
from erasebench.scores.metric import Metric
from erasebench.scores.rates import wilson
from erasebench.tables import measure as tables


@pytest.fixture(scope="module")
def plan() -> pd.DataFrame:
    return make_plan()


@pytest.fixture(scope="module")
def measured(plan: pd.DataFrame) -> pd.DataFrame:
    return tables.measure(plan, make_scores(plan), METRICS, costs=make_costs(plan))


def one(measured: pd.DataFrame, **where: str) -> pd.Series:
    for column, value in where.items():
        measured = measured[measured[column] == value]
    assert len(measured) == 1, measured
    return measured.iloc[0]


def test_erased_and_retained_accuracy_with_wilson_intervals(measured: pd.DataFrame) -> None:
    for eraser, successes in (("none", 10), ("cure", 0), ("uce", 10)):
        row = one(measured, eraser=eraser, task="all", role="erase", metric="classifier@1")
        expected = wilson(successes, 10)
        assert (row.value, row.low, row.high, row.n, row.how) == (
            expected.value, expected.low, expected.high, 10, "wilson"
        )  # fmt: skip
        assert row.direction == "down" and row.unit == "%"
    assert one(measured, eraser="cure", task="church", role="erase", metric="classifier@1").n == 5


def test_pooled_rows_that_show_one_image_count_once(measured: pd.DataFrame, plan: pd.DataFrame) -> None:
    retained = plan[plan.role == "retain"]
    for eraser in ("none", "cure"):
        row = one(measured, eraser=eraser, task="all", role="retain", metric="classifier@1")
        assert row.n == retained.key[retained.eraser == eraser].nunique()
    none, cure = (
        one(measured, eraser=eraser, task="all", role="general", metric="text_match@2-a_b").n
        for eraser in ("none", "cure")
    )
    assert (none, cure) == (5, 10), "the unedited model draws a general prompt once for both tasks"


def test_values_equal_a_plain_mean_over_the_images(measured: pd.DataFrame, plan: pd.DataFrame) -> None:
    scores = make_scores(plan)["text_match@2-a_b"].set_index("key").value
    keys = plan.key[(plan.eraser == "uce") & (plan.task == "church") & (plan.role == "retain")]
    row = one(measured, eraser="uce", task="church", role="retain", metric="text_match@2-a_b")
    assert row.value == pytest.approx(scores[keys].mean(), rel=1e-12)
    assert row.low < row.value < row.high


def test_differences_are_paired_with_the_unedited_image_of_the_same_prompt(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    table = scores["text_match@2-a_b"]
    by_key = table.set_index("key").value
    original = dict(zip(plan.key, plan.original_key, strict=True))
    # Every edited image is exactly 0.01 below its own original, whose values differ widely.
    shift = [by_key[original[key]] - 0.01 * (original[key] != key) for key in table.key]
    scores["text_match@2-a_b"] = table.assign(value=shift).sample(frac=1, random_state=0)
    measured = tables.measure(plan.sample(frac=1, random_state=1), scores, [TextMatch()])
    for eraser in ("cure", "uce"):
        row = one(measured, eraser=eraser, task="all", role="retain")
        np.testing.assert_allclose([row.difference, row.difference_low, row.difference_high], -0.01, rtol=1e-9)
        assert row.high - row.low > 0.01, "the interval of the value itself is wide"
    assert math.isnan(one(measured, eraser="none", task="all", role="retain").difference)


def test_pairs_of_one_original_count_once_in_the_interval_of_a_difference() -> None:
    few, many = make_plan(tasks=("church",), prompts=8), make_plan(tasks=("church", "gas pump", "tench"), prompts=8)
    width = {}
    for name, plan in (("few", few), ("many", many)):
        scores = make_scores(plan)
        # What an edit does to a general prompt depends on the prompt alone, whatever the task.
        effect = plan.drop_duplicates("key").set_index("key")
        value = np.where(effect.eraser == "none", 0.0, effect.seed % 100 / 10)
        scores["text_match@2-a_b"] = pd.DataFrame(
            {"key": effect.index, "prompt": effect.prompt.to_numpy(), "value": value}
        )
        row = one(tables.measure(plan, scores, [TextMatch()]), eraser="uce", task="all", role="general")
        width[name] = row.difference_high - row.difference_low
    assert width["many"] == pytest.approx(width["few"], rel=1e-9), "three edits are not three times as many prompts"


def test_harmonic_mean_of_what_is_gone_and_what_is_kept(measured: pd.DataFrame) -> None:
    assert one(measured, eraser="cure", task="all", metric="H classifier@1").value == 1
    row = one(measured, eraser="uce", task="all", metric="H classifier@1")
    assert row.value == 0 and row.role == "both" and row.direction == "up"
    assert row.low == 0 and row.high > 0.1, "no image of few is not none of many"
    assert one(measured, eraser="cure", task="all", metric="H classifier@1").low < 0.95
    assert not (measured.metric == "H text_match@2-a_b").any()


class Beside(Metric):
    """How many images of the compared row of the table are not the row's own."""

    name, version, beside = "beside", "1", "uce"
    directions = {"erase": "down"}

    def score(self, images, rows, originals=None):
        raise NotImplementedError

    def reduce(self, rows, original=None, rates=""):
        if original is None or rows["key"].tolist() == original["key"].tolist():
            return not_run("reference")
        assert set(original.eraser) == {"uce"} and original.prompt_id.tolist() == rows.prompt_id.tolist()
        return Estimate(float((rows.key != original.key).sum()), len(rows), math.nan, math.nan, "none")


def test_a_metric_may_compare_with_another_row_than_the_unedited_model(plan: pd.DataFrame) -> None:
    scores = {"beside@1": pd.DataFrame({"key": plan.key.unique(), "value": 0.0})}
    measured = tables.measure(plan, scores, [Beside()])
    for eraser in ("none", "cure"):
        row = one(measured, eraser=eraser, task="all", role="erase")
        assert row.value == row.n == 10
    assert one(measured, eraser="uce", task="all", role="erase").how == "reference"
    without = tables.measure(plan[plan.eraser != "uce"], scores, [Beside()])
    assert set(without.how) == {"not run"} and without.reason.str.contains("does not have; add method=uce").all()


def test_the_unedited_model_is_not_compared_with_itself(measured: pd.DataFrame) -> None:
    change = measured[measured.metric == "change@1"]
    assert set(change.eraser) == {"cure", "uce"} and (change.value == 0.5).all()


def test_costs_are_rows_of_their_own(measured: pd.DataFrame) -> None:
    row = one(measured, eraser="cure", metric="edit_seconds")
    assert (row.value, row.n, row.role, row.direction) == (1.5, 2, "cost", "down")


def test_not_run_is_a_row_with_a_reason_and_no_number(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    measured = tables.measure(plan, scores, METRICS, not_run_because={"classifier@1": "weights are absent"})
    rows = measured[measured.metric.isin(["classifier@1", "H classifier@1"])]
    assert len(rows) and rows.value.isna().all() and (rows.n == 0).all()
    assert set(rows.reason) == {"weights are absent"} and set(rows.how) == {"not run"}
    assert measured.value[measured.metric == "text_match@2-a_b"].notna().all()


def test_a_mean_over_only_some_of_the_images_is_not_given(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    lost = plan.key[(plan.eraser == "uce") & (plan.role == "erase") & (plan.task == "church")].iloc[:2]
    scores["classifier@1"] = scores["classifier@1"][~scores["classifier@1"].key.isin(lost)]
    measured = tables.measure(plan, scores, [Accuracy()])
    row = one(measured, eraser="uce", task="church", role="erase")
    assert math.isnan(row.value) and "2 of 5 rows have no score" in row.reason
    assert math.isnan(one(measured, eraser="uce", task="church", role="both").value)
    assert one(measured, eraser="uce", task="gas pump", role="erase").value == 1, "other slices are whole"
    assert tables.measure(plan, {}, [Accuracy()]).value.isna().all()


def test_two_versions_of_a_metric_do_not_meet(plan: pd.DataFrame) -> None:
    newer = Accuracy()
    newer.version = "2"
    with pytest.raises(UserError, match=r"metric classifier: versions 1 and 2"):
        tables.measure(plan, make_scores(plan), [Accuracy(), newer])


def test_a_score_column_may_not_hide_a_column_of_the_plan(plan: pd.DataFrame) -> None:
    scores = {"classifier@1": make_scores(plan)["classifier@1"].assign(label="church")}
    with pytest.raises(ValueError, match="label"):
        tables.measure(plan, scores, [Accuracy()])


class SetDistance(Metric):
    """A metric of two sets, as FID is one: no number for a single image."""

    name, version = "set_distance", "1"
    directions = {"general": "down"}

    def score(self, images, rows, originals=None):
        raise NotImplementedError

    def values(self, rows: pd.DataFrame) -> pd.Series:
        return pd.Series(np.nan, index=rows.index)

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = "wilson"):
        assert list(rows.prompt_id) == list(original.prompt_id) and list(rows.task) == list(original.task)
        assert list(rows.original_key) == list(original.key)
        return mean_estimate([abs(rows.feature.mean() - original.feature.mean())])


def test_a_metric_of_sets_gets_the_unedited_rows_in_the_same_order(plan: pd.DataFrame) -> None:
    images = plan.drop_duplicates("key")
    features = pd.DataFrame({"key": images.key, "feature": np.where(images.eraser == "cure", 3.0, 1.0)})
    measured = tables.measure(plan.sample(frac=1, random_state=3), {"set_distance@1": features}, [SetDistance()])
    assert one(measured, eraser="cure", task="all").value == 2
    assert one(measured, eraser="none", task="all").value == 0
    assert measured.difference.isna().all()


class ToReference(SetDistance):
    """A metric of a set and of images that no model made."""

    reference_key = "reference-2.abc-"

    def reduce(self, rows: pd.DataFrame, original: pd.DataFrame | None = None, rates: str = "wilson"):
        assert list(original.key) == ["reference-2.abc-0", "reference-2.abc-1"]
        return mean_estimate([rows.feature.mean() - original.feature.mean()])


def test_a_metric_with_reference_images_gets_their_records(plan: pd.DataFrame) -> None:
    images = plan.drop_duplicates("key")
    keys = [*images.key, *(f"reference-2.{name}-{i}" for name in ("abc", "def") for i in range(2))]
    features = pd.DataFrame({"key": keys, "feature": [3.0] * len(images) + [1.0, 1.0, 9.0, 9.0]})
    measured = tables.measure(plan, {"set_distance@1": features}, [ToReference()])
    assert one(measured, eraser="cure", task="all").value == one(measured, eraser="none", task="all").value == 2


def test_kinds_and_roles_that_a_metric_does_not_know_are_skipped(plan: pd.DataFrame) -> None:
    artists = Accuracy()
    artists.kinds = ("artist",)
    assert not len(tables.measure(plan, make_scores(plan), [artists]))
    assert not (tables.measure(plan, make_scores(plan), [TextMatch()]).role == "erase").any()


def test_wide_has_the_unedited_model_first_and_roles_in_order(measured: pd.DataFrame) -> None:
    shuffled = measured.sort_values("eraser", ascending=False)
    wide = tables.wide(shuffled, "object")
    assert wide.index[0] == "none" and set(wide.index[1:]) == {"cure", "uce"}
    assert [role for role, _ in wide.columns] == [
        *("erase", "retain", "both"),  # of the accuracy, which comes first
        *("retain", "retain", "general"),
        *("cost", "cost"),
    ]
    assert wide.loc["none", ("cost", "edit_seconds")] is None
    assert tables.wide(measured, "object", "church").loc["cure", ("erase", "classifier@1")]["n"] == 5


def test_pooled_is_the_reduction_of_all_rows_together(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    by_key = scores["text_match@2-a_b"].set_index("key").value
    for eraser in ("none", "uce"):
        for role in ("retain", "general"):
            rows = plan[(plan.eraser == eraser) & (plan.role == role)]
            direct = mean_estimate(rows.key.map(by_key), groups=rows.key, clusters=rows.original_key)
            found = one(tables.measure(plan, scores, [TextMatch()]), eraser=eraser, task="all", role=role)
            ours, theirs = ([row.value, row.low, row.high, row.n] for row in (found, direct))
            np.testing.assert_array_equal(ours, theirs)  # five general prompts have no interval, on either side


def test_the_harmonic_mean_equals_its_formula(plan: pd.DataFrame) -> None:
    table = make_scores(plan)["classifier@1"]
    wrong = np.random.default_rng(5).random(len(table)) < 0.4
    scores = {"classifier@1": table.assign(answer=table.answer.where(~wrong, "other"))}
    measured = tables.measure(plan, scores, [Accuracy()])
    for eraser in ("none", "uce"):
        for task in ("all", "church", "gas pump"):
            erased, kept = (one(measured, eraser=eraser, task=task, role=role).value for role in ("erase", "retain"))
            assert 0 < erased < 1 and 0 < kept < 1
            row = one(measured, eraser=eraser, task=task, role="both")
            assert row.value == pytest.approx(2 / (1 / (1 - erased) + 1 / kept), rel=1e-12)
            assert row.low <= row.value <= row.high
            assert row.high - row.low > 0.05 and row.how.startswith("joint"), "so few images prove little"


def test_paraphrases_are_the_third_part_of_the_harmonic_mean() -> None:
    """MACE's H_o: of a hand-made plan whose edit loses names and knows three of five paraphrases."""
    plan = make_plan(("none", "cure"), ("church",))
    asked = plan[plan.role == "erase"].copy()
    words = asked.assign(
        role="paraphrase", prompt_id="x" + asked.prompt_id, key="x" + asked.key, original_key="x" + asked.original_key
    )
    plan = pd.concat([plan, words.assign(clean_key=words.key)], ignore_index=True)
    scores = make_scores(plan)
    answers = scores["classifier@1"].set_index("key").answer
    answers[words.key[words.eraser == "cure"]] = ["church"] * 3 + ["nothing"] * 2
    scores["classifier@1"] = answers.reset_index()

    class Both(Accuracy):
        directions = {"erase": "down", "paraphrase": "down", "retain": "up"}

    found = tables.measure(plan, scores, [Both()])
    assert one(found, eraser="cure", role="paraphrase", task="all", metric="classifier@1").value == 0.6
    row = one(found, eraser="cure", task="all", metric="H classifier@1")
    assert row.value == pytest.approx(3 / (1 / 1 + 1 / 0.4 + 1 / 1)) and row.how.startswith("joint, three")
    assert list(tables.wide(found, "object").columns.get_level_values("role"))[:4] == [
        "erase",
        "paraphrase",
        "retain",
        "both",
    ]


def test_an_interval_is_a_point_only_where_all_values_are_equal(measured: pd.DataFrame) -> None:
    there = measured[measured.low.notna()]
    points = there[there.high - there.low <= 0]
    assert len(points) and {how.partition(",")[0] for how in points.how} == {"exact"}
    assert not (points.unit == "%").any(), "of a rate few images that agree prove little"
    assert (there.low <= there.value).all() and (there.value <= there.high).all()


def test_scores_of_other_images_only_are_no_scores(plan: pd.DataFrame) -> None:
    table = make_scores(plan)["classifier@1"]
    elsewhere = {"classifier@1": table.assign(key=[f"{i:032x}" for i in range(len(table))])}
    measured = tables.measure(plan, elsewhere, [Accuracy()])
    assert len(measured) and measured.value.isna().all() and (measured.how == "not run").all()
    assert measured.reason.str.contains("have no score").all()


def test_without_scored_originals_a_set_is_not_its_own_reference(plan: pd.DataFrame) -> None:
    edited = plan[plan.eraser != "none"].drop_duplicates("key")
    features = pd.DataFrame({"key": edited.key, "feature": 1.0})
    measured = tables.measure(plan, {"set_distance@1": features}, [SetDistance()])
    assert (measured.how == "not run").all() and measured.reason.str.contains("no score").all()


def test_labels_that_a_metric_does_not_know_are_not_run_for_that_reason(plan: pd.DataFrame) -> None:
    class Unknowing(Accuracy):
        def values(self, rows: pd.DataFrame) -> pd.Series:
            return pd.Series(np.nan, index=rows.index)

    measured = tables.measure(plan, make_scores(plan), [Unknowing()])
    assert measured.value.isna().all() and set(measured.reason) == {tables.NO_NUMBER}


def test_one_task_stands_under_its_name_and_pooled() -> None:
    plan = make_plan(tasks=("church",))
    measured = tables.measure(plan, make_scores(plan), METRICS, costs=make_costs(plan))
    numbers = measured[measured.role != "cost"]
    one_task, pooled = (
        numbers[numbers.task == task].drop(columns="task").reset_index(drop=True) for task in ("church", "all")
    )
    pd.testing.assert_frame_equal(one_task, pooled)


def test_a_square_of_erased_and_asked_is_what_each_part_of_the_plan_alone_gives(plan: pd.DataFrame) -> None:
    scores = make_scores(plan)
    asked = tables.measure_asked(plan, scores, METRICS)
    places = plan[plan.label != ""].groupby(["task", "label", "role"], sort=False)
    assert len(places) > 4
    for (task, concept, role), rows in places:
        alone = tables.measure(rows, scores, METRICS)
        for eraser in ("cure", "uce"):
            where = {"eraser": eraser, "task": task, "role": role, "metric": "classifier@1"}
            square, single = one(asked, concept=concept, **where), one(alone, **where | {"task": "all"})
            assert (square.value, square.n, square.low) == (single.value, single.n, single.low)
