"""A setting is chosen on one half of the prompts and reported on the other."""

from __future__ import annotations

from pathlib import Path

from table_helpers import PLUGINS, finish, make_plan, printed, quiet, tabulate

from erasebench.store import Store
from erasebench.tables.halves import measured_halves, split_prompts
from erasebench.tables.view import View


def test_a_prompt_is_in_one_half_with_all_its_erasers_and_tasks() -> None:
    plan = make_plan(prompts=5)
    first, second = split_prompts(plan)
    assert len(first) + len(second) == len(plan) and not set(first.prompt) & set(second.prompt)
    for half, prompts in ((first, 3), (second, 2)):
        assert set(half.groupby("label").prompt.nunique()) == {prompts}
        assert set(half.eraser) == set(plan.eraser) and set(half.task) == set(plan.task)


def test_what_is_chosen_on_one_half_is_reported_with_the_numbers_of_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = finish(store, "one", make_plan(prompts=5))
    console = quiet()
    tabulate(["one"], str(tmp_path), console=console, view=View(best="retained>=0.9"))
    halves = measured_halves([folder], store, "wilson", PLUGINS)
    assert halves is not None
    rows = [half[(half.eraser == "cure") & (half.role == "erase") & (half.task == "all")].iloc[0] for half in halves]
    assert [row.n for row in rows] == [6, 4]
    ends = f"[{100 * rows[1].low:.1f}, {100 * rows[1].high:.1f}]"
    assert f"cure (classifier.erased 0.0 % {ends}" in printed(console)
    assert "on the other half of the prompts" in printed(console)


def test_too_few_prompts_for_two_halves_are_said_to_flatter(tmp_path: Path) -> None:
    folder = finish(Store(tmp_path), "one", make_plan(prompts=1))
    assert measured_halves([folder], Store(tmp_path), "wilson", PLUGINS) is None
    console = quiet()
    tabulate(["one"], str(tmp_path), console=console, view=View(best="retained>=0.9"))
    assert "on the prompts it was chosen by, which flatters it" in printed(console)
