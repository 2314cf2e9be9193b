"""Whether what was asked for is seen in an image: one rule, for the marks of grids and of reports."""

from __future__ import annotations

from table_helpers import METRICS, Accuracy, make_plan, make_scores

from erasebench.tables.recognised import by_image, recognised


def test_the_first_metric_that_can_tell_is_asked() -> None:
    plan = make_plan(prompts=2)
    names, verdicts = recognised(plan, make_scores(plan), METRICS)
    assert names == ["classifier"] and list(verdicts.index) == list(plan.index)
    gone = (plan.eraser == "cure") & (plan.role == "erase")
    judged = plan.role != "general"
    assert (verdicts.recognised[gone] == 0).all() and (verdicts.recognised[~gone & judged] == 1).all()
    assert verdicts.recognised[~judged].isna().all() and (verdicts.answer[gone] == "nothing").all()
    images = by_image(plan, verdicts)
    assert set(images) == set(plan.key[judged])
    assert {key for key, there in images.items() if not there} == set(plan.key[gone])


def test_without_scores_nothing_is_recognised_nor_missed() -> None:
    plan = make_plan(prompts=2)
    names, verdicts = recognised(plan, {}, METRICS)
    assert names == [] and by_image(plan, verdicts) == {}


def test_a_rate_that_should_be_low_everywhere_is_no_classifier() -> None:
    class Artefacts(Accuracy):
        directions = {"erase": "down", "retain": "down"}

    plan = make_plan(prompts=2)
    assert recognised(plan, make_scores(plan), [Artefacts()])[0] == []
