"""The table of searches counts each search once, and tells success from a budget that ran out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from table_helpers import attacked_plan

from erasebench.edits.found import Found
from erasebench.store import Store
from erasebench.tables.searches import searches_of, write_searches


def searched(tmp_path: Path) -> tuple[pd.DataFrame, Store]:
    plan = attacked_plan(("ring", "seeds"))
    hit = plan.attack == "seeds"
    plan.loc[hit, "attack_key"] = [f"{number:032x}" for number in range(hit.sum())]
    store = Store(tmp_path)
    store.put_attack("aa" * 16, Found(prompt="x", info={"seconds": 3.0}))
    for number, (key, eraser) in enumerate(zip(plan.attack_key[hit], plan.eraser[hit], strict=True)):
        first = eraser.startswith("none")
        info = {"seconds": float(number), "images": 1 if first else 4, "succeeded": first or number % 2 == 0}
        info |= {} if info["succeeded"] else {"out_of_time": True}
        store.put_attack(key, Found(seed=number, info=info))
    return plan, store


def test_each_search_counts_once(tmp_path: Path) -> None:
    plan, store = searched(tmp_path)
    table = searches_of(plan, store).set_index(["eraser", "attack"])
    assert len(table) == 6
    ring = table.loc[("cure", "ring")]
    assert (ring.searches, ring.seconds) == (1, 3.0) and pd.isna(ring.succeeded) and pd.isna(ring.images)
    unedited, cure = table.loc[("none", "seeds")], table.loc[("cure", "seeds")]
    assert unedited.succeeded == unedited.searches == 10 and unedited.images == 1
    assert (unedited.out_of_time, cure.out_of_time, ring.out_of_time) == (0, 5, 0)
    assert cure.succeeded == 5 and cure.images == 4 and cure.searches == 10


def test_it_is_written_and_what_is_gone_is_left_out(tmp_path: Path) -> None:
    plan, store = searched(tmp_path / "r")
    written = write_searches(searches_of(plan, store), tmp_path)
    assert [path.name for path in written] == ["searches.csv", "searches.md"]
    assert "| unedited | seeds | 10 |" in written[1].read_text(encoding="utf-8")
    assert len(pd.read_csv(written[0])) == 6
    store.attack_path("aa" * 16).unlink()
    assert set(searches_of(plan, store).attack) == {"seeds"}
    assert write_searches(searches_of(plan[plan.attack == ""], store), tmp_path / "none") == []
