"""Success by each paper's rule: each is a count by hand over the same images, and none is a number where it does not apply."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from table_helpers import METRICS, attacked_plan, attacked_scores

from erasebench.edits.found import Found
from erasebench.scores.rates import wilson
from erasebench.store import Store
from erasebench.tables.success import (
    ANY_SEED,
    ANY_TRY,
    ASR,
    CRR,
    HALF_SEEDS,
    POST_ASR,
    PRE_ASR,
    SUCCESS_RULES,
    UNION,
    success_by_rule,
    write_success,
)  # fmt: skip


def answered(plan: pd.DataFrame, scores: dict, eraser: str, seen: list[bool]) -> dict:
    """The scores with new answers for the erased prompts of a row."""
    hit = plan[(plan.eraser == eraser) & (plan.role == "erase")]
    assert len(hit) == len(seen)
    right = dict(
        zip(hit.key, [label if one else "nothing" for label, one in zip(hit.label, seen, strict=True)], strict=True)
    )
    table = scores["classifier@1"]
    answer = [right.get(key, was) for key, was in zip(table.key, table.answer, strict=True)]
    return scores | {"classifier@1": table.assign(answer=answer)}


@pytest.fixture
def attacked(tmp_path: Path):
    """Ten images of two tasks: seen without the attack 2, under it 5, of which one was seen before; a union with another."""
    plan, store = attacked_plan(("ring", "seeds")), Store(tmp_path)
    scores = attacked_scores(plan, 3)
    yes, no = True, False
    scores = answered(plan, scores, "cure", [yes, yes, no, no, no, no, no, no, no, no])
    scores = answered(plan, scores, "cure + ring", [yes, no, yes, yes, no, no, yes, yes, no, no])
    scores = answered(plan, scores, "cure + seeds", [no, no, no, no, no, no, no, no, no, yes])
    hit = plan.attack == "seeds"
    plan.loc[hit, "attack_key"] = [f"{number:032x}" for number in range(hit.sum())]
    for number, key in enumerate(plan.attack_key[hit]):
        store.put_attack(key, Found(seed=number, info={"succeeded": number % 5 == 0, "images": 1}))
    store.put_attack("aa" * 16, Found(prompt="x", info={}))
    return plan, scores, store


def table(attacked) -> pd.DataFrame:
    plan, scores, store = attacked
    rates = success_by_rule(plan, scores, METRICS, store)
    return rates[rates.eraser == "cure"].set_index(["attack", "rule"])


def test_every_rule_is_its_count(attacked) -> None:
    rates = table(attacked)
    counts = {
        ("ring", PRE_ASR): (2, 10),
        ("ring", CRR): (5, 10),
        ("ring", ASR): (6, 10),
        ("ring", POST_ASR): (4, 8),
        ("seeds", CRR): (1, 10),
        ("", UNION): (6, 10),
    }
    for place, (hits, n) in counts.items():
        row = rates.loc[place]
        assert (row.value, row.n, row.units) == (hits / n, n, "images"), place
    expected = wilson(4, 8)
    assert (rates.loc[("ring", POST_ASR)].low, rates.loc[("ring", POST_ASR)].high) == (expected.low, expected.high)


def test_any_try_counts_what_a_search_saw_and_is_no_number_of_one_that_does_not_look(attacked) -> None:
    plan, _, store = attacked
    own = plan[(plan.eraser == "cure + seeds") & (plan.role == "erase")]
    saw = [store.get_attack(key).info["succeeded"] for key in own.attack_key]
    rates = table(attacked)
    hits = sum(one or number == 9 for number, one in enumerate(saw))
    assert rates.loc[("seeds", ANY_TRY)].value == hits / 10 and sum(saw) >= 1
    assert ("ring", ANY_TRY) not in rates.index


def test_prompts_count_where_they_have_several_images(attacked) -> None:
    plan, scores, store = attacked
    one_each = not {ANY_SEED, HALF_SEEDS} & set(table(attacked).reset_index().rule)
    names = plan.groupby(["task", "role", "eraser"]).cumcount() // 2  # two images a prompt, and one of the last
    rates = table((plan.assign(prompt=[f"prompt {name}" for name in names]), scores, store))
    # a task has five images: two prompts of two, one of one
    assert (rates.loc[("ring", ANY_SEED)].value, rates.loc[("ring", ANY_SEED)].n) == (4 / 6, 6)
    assert rates.loc[("ring", HALF_SEEDS)].value == 4 / 6 and rates.loc[("ring", HALF_SEEDS)].units == "prompts"
    assert one_each


def test_it_is_written_with_what_each_rule_counts_and_nothing_where_nothing_was_attacked(attacked, tmp_path) -> None:
    plan, scores, store = attacked
    rates = success_by_rule(plan, scores, METRICS, store)
    written = write_success(rates, tmp_path / "out")
    text = written[1].read_text(encoding="utf-8")
    assert all(f"- {rule}: " in text for rule in SUCCESS_RULES) and "| CURE | ring | ASR |" in text.replace(
        "cure", "CURE"
    )
    assert len(pd.read_csv(written[0])) == len(rates)
    clean = success_by_rule(plan[plan.attack == ""].reset_index(drop=True), scores, METRICS, store)
    assert not len(clean) and write_success(clean, tmp_path / "none") == []
