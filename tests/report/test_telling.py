"""The image pairs of the first page: the worst there are, of different erasers, and nothing that must be blurred."""

from __future__ import annotations

import pandas as pd
from table_helpers import make_plan

from erasebench.report.telling import OF_EACH, PAIRS, telling_pairs
from erasebench.report.thumbnails import thumbnail_path


def planned(**options) -> pd.DataFrame:
    """A plan as it is read, with the targets of each task."""
    plan = make_plan(**options)
    return plan.assign(targets=plan.task.str.split(" + ", regex=False))


def verdicts_of(plan: pd.DataFrame) -> pd.DataFrame:
    """After ``cure`` a bomb comes once and tenches come elsewhere; ``uce`` leaves all as it was."""
    cure = (plan.eraser == "cure") & (plan.role == "erase")
    shown = plan.label.mask(cure, "tench")
    shown[plan.index[cure][-1]] = "bomb"
    return pd.DataFrame(
        {
            "recognised": (~cure).astype(float),
            "answer": shown,
            "shown": shown,
            "unsafe": (shown == "bomb").astype(float),
        },
        index=plan.index,
    )


def test_what_came_instead_and_what_is_still_there() -> None:
    plan = planned(erasers=("none", "cure", "uce"), prompts=3)
    found = telling_pairs(plan, verdicts_of(plan), set(plan.key), set())
    assert [pair.eraser for pair in found] == ["cure"] * OF_EACH + ["uce"] * OF_EACH
    assert found[0].words == "bomb came instead" and found[0].bad, "the unsafe one stands first"
    assert {pair.task for pair in found[1:3]} == {"church", "gas pump"} and not found[1].bad
    assert found[3].words.endswith("is still there") and {pair.task for pair in found[3:5]} == {"church", "gas pump"}
    assert all(pair.before != pair.after for pair in found)


def test_of_a_joint_task_it_is_told_which_of_the_erased_concepts_was_seen() -> None:
    """A cigarette that became a knife is not erased, and it is no cigarette."""
    plan = planned(erasers=("none", "cure"), prompts=1)
    plan = plan[(plan.role == "erase") & (plan.task == "church")]
    plan = plan.assign(label="cigarette", targets=[["cigarette", "knife"]] * len(plan), task="cigarette + knife")

    def words(answer: str, shown: str) -> set[str]:
        seen = {"recognised": 1.0, "answer": answer, "shown": shown, "unsafe": 1.0}
        return {pair.words for pair in telling_pairs(plan, pd.DataFrame(seen, index=plan.index), set(plan.key), set())}

    assert words("knife 0.98", "knife") == {"knife, erased too, is there in place of cigarette"}
    assert words("cigarette 0.9", "cigarette") == {"cigarette is still there"}
    assert words("knife and cigarette 0.9", "knife") == {"cigarette is still there"}, "both are seen"
    assert words("", "") == {"cigarette is still there"}, "a metric that names nothing"


def test_images_that_are_gone_or_must_be_blurred_are_not_shown() -> None:
    plan = planned(prompts=2)
    verdicts = verdicts_of(plan)
    assert telling_pairs(plan, verdicts, set(), set()) == []
    assert telling_pairs(plan, verdicts, set(plan.key), {"object"}) == []
    originals = set(plan.original_key)
    assert telling_pairs(plan, verdicts, set(plan.key) - originals, set()) == [], "a pair needs both"


def test_what_was_to_be_kept_and_is_lost_takes_the_places_that_are_left() -> None:
    plan = planned(erasers=("none", "cure"), prompts=3)
    lost = (plan.eraser == "cure") & (plan.role == "retain") & (plan.label == "tench")
    seen = {"answer": plan.label, "shown": plan.label, "unsafe": 0.0}
    verdicts = pd.DataFrame({"recognised": (~lost).astype(float), **seen}, index=plan.index)
    found = telling_pairs(plan, verdicts, set(plan.key), set())
    assert all(pair.words.endswith("is still there") for pair in found[:OF_EACH])
    assert [pair.words for pair in found[OF_EACH:]] == ["tench, to be kept, is lost"] * (PAIRS - OF_EACH)
    unseen = verdicts.assign(recognised=verdicts.recognised.mask(plan.label == "tench", 0.0))
    words = {pair.words for pair in telling_pairs(plan, unseen, set(plan.key), set())}
    assert not any("lost" in text for text in words), "what was never seen cannot be lost"


def test_the_kinds_take_turns() -> None:
    plan = planned(erasers=("none", "cure", "uce"), prompts=3)
    other = plan.assign(task_kind="artist", key=plan.key + "-a", original_key=plan.original_key + "-a")
    both = pd.concat([plan, other], ignore_index=True)
    pairs = telling_pairs(both, verdicts_of(both), set(both.key), set())
    kinds = {thumbnail_path(key): kind for key, kind in zip(both.key, both.task_kind, strict=True)}
    assert [kinds[pair.after] for pair in pairs[1:OF_EACH]] == ["object", "artist"], (
        "after the unsafe one of the first kind"
    )
    assert {kinds[pair.after] for pair in pairs[OF_EACH:]} == {"object", "artist"}
