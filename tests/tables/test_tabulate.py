"""Finished runs to tables and pictures, alone and together; what may not stand in one table."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from picture_helpers import read_picture
from table_helpers import ABOUT, METRICS, finish, make_plan, make_store, printed, quiet, tabulate, tabulate_sweep

from erasebench.cli import main
from erasebench.edits.label import UNEDITED, Label, row_text
from erasebench.errors import UserError
from erasebench.runs.folder import find_runs
from erasebench.store import Store
from erasebench.tables.view import View


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_run_is_tabulated_again_from_records_alone(store: Store) -> None:
    folder = finish(store, "one", make_plan(prompts=2))
    console = quiet()
    measured = tabulate([], str(store.root), console=console)
    assert set(measured.eraser) == {"none", "cure", "uce"} and measured.value.notna().any()
    for name in ("measured.csv", "object.md", "object.tex"):
        assert (folder / "tables" / name).stat().st_size > 0
    assert read_picture(folder / "grids" / "object.png").width > 500, "without images the grid has empty places"
    assert "not of Stable Diffusion" in printed(console)
    pd.testing.assert_frame_equal(tabulate(["one"], str(store.root), console=quiet()), measured)


def test_the_grid_of_a_run_is_marked_by_its_accuracy_metric(store: Store) -> None:
    plan = make_plan(prompts=2)
    make_store(store.root, plan)
    folder = finish(store, "one", plan)
    tabulate(["one"], str(store.root), console=quiet())
    marked = (folder / "grids" / "object.png").read_bytes()
    finish(store, "one", plan, not_run={"classifier@1": "weights are absent"})
    tabulate(["one"], str(store.root), console=quiet())
    assert (folder / "grids" / "object.png").read_bytes() != marked


def test_erasers_of_two_runs_stand_in_one_table(store: Store, tmp_path: Path) -> None:
    both = make_plan(prompts=2)
    finish(store, "both", both)
    for eraser in ("cure", "uce"):
        finish(store, eraser, both[both.eraser.isin(["none", eraser])], scored=False)
    found = tabulate(["cure", "uce"], str(store.root), str(tmp_path / "out"), quiet())
    together = tabulate(["both"], str(store.root), console=quiet())
    pd.testing.assert_frame_equal(found, together)
    assert (tmp_path / "out" / "object.md").exists()


def test_each_set_of_runs_has_a_folder_of_its_own(store: Store) -> None:
    plan = make_plan(prompts=2)
    names = ["object-embedded-cure-uce-rece-" + "x" * 50 + end for end in "abc"]
    for name in names:
        finish(store, name, plan)
    for pair in (names[:2], names[::2]):
        tabulate(pair, str(store.root), console=quiet())
    assert len(list(store.root.glob("tables/*"))) == 2


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"model": "another"}, ("model", ABOUT.model, "another")),
        ({"protocol": "another"}, ("protocol", ABOUT.protocol, "another")),
        ({"prompts": {"object": "another"}}, ("prompts of kind object", "builtin-object v1 (deadbeef)", "another")),
        ({"embedded": False}, ("note", "not of Stable Diffusion")),
    ],
)
def test_runs_that_measured_differently_are_refused_saying_how(other: dict, what: tuple, store: Store) -> None:
    plan = make_plan(prompts=2)
    finish(store, "mine", plan)
    finish(store, "yours", plan, about=replace(ABOUT, **other))
    with pytest.raises(UserError) as refused:
        tabulate(["mine", "yours"], str(store.root), console=quiet())
    for said in ("mine", "yours", *what):
        assert said in str(refused.value)
    assert not list(store.root.glob("tables/*"))


def test_runs_of_other_kinds_share_tables_but_not_rows(store: Store) -> None:
    plan = make_plan(prompts=2)
    artists = plan.assign(task_kind="artist", kind="artist")
    finish(store, "objects", plan)
    about = replace(ABOUT, prompts={"artist": "builtin-artist v1 (cafe)"})
    finish(store, "artists", artists, about=about)
    measured = tabulate(["objects", "artists"], str(store.root), console=quiet())
    assert set(measured.task_kind) == {"object", "artist"}
    text = next(store.root.glob("tables/*/artist.md")).read_text()
    assert "builtin-artist v1 (cafe)" in text and "builtin-object" not in text


def test_erasers_measured_on_other_prompts_are_not_pooled_side_by_side(store: Store) -> None:
    plan = make_plan(prompts=2)
    finish(store, "both-tasks", plan[plan.eraser.isin(["none", "cure"])])
    finish(store, "church-only", plan[plan.eraser.isin(["none", "uce"]) & (plan.task == "church")])
    with pytest.raises(UserError, match=r"uce was not measured on all prompts .* with gas pump erased"):
        tabulate(["both-tasks", "church-only"], str(store.root), console=quiet())


@pytest.mark.parametrize(
    ("column", "message"), [("edit_key", "in two ways .another retain list"), ("key", "another size")]
)
def test_one_label_for_two_things_is_refused(column: str, message: str, store: Store) -> None:
    plan = make_plan(prompts=2)
    finish(store, "a", plan)
    other = plan.copy()
    touched = (other.eraser == "cure") & (other.task == "church")
    other.loc[touched, "key"] = [f"{i:032x}" for i in range(touched.sum())]
    if column == "edit_key":
        other.loc[touched, "edit_key"] = "f" * 32
    finish(store, "b", other)
    with pytest.raises(UserError, match=message):
        tabulate(["a", "b"], str(store.root), console=quiet())


def test_what_one_run_could_not_measure_is_not_run_for_its_erasers_only(store: Store) -> None:
    plan = make_plan(prompts=2)
    make_store(store.root, plan)  # what was not scored must be there as an image
    absent = {"classifier@1": "weights are absent"}
    finish(store, "without", plan[plan.eraser.isin(["none", "uce"])], not_run=absent)
    assert tabulate(["without"], str(store.root), console=quiet()).query("metric == 'classifier@1'").value.isna().all()
    finish(store, "with", plan[plan.eraser.isin(["none", "cure"])])
    accuracy = tabulate(["without", "with"], str(store.root), console=quiet()).query("metric == 'classifier@1'")
    assert accuracy[accuracy.eraser == "cure"].value.notna().all()
    rows = accuracy[accuracy.eraser == "uce"]
    assert rows.value.isna().all() and rows.reason.str.contains("no score").all()


def test_an_unknown_run_is_answered_with_the_nearest(store: Store) -> None:
    with pytest.raises(UserError, match="no run here; make one with: erasebench run"):
        tabulate([], str(store.root), console=quiet())
    finish(store, "objects-1", make_plan(prompts=1))
    with pytest.raises(UserError, match=r"object-1: no such run .*Did you mean 'objects-1'\? Runs there: objects-1"):
        tabulate(["object-1"], str(store.root), console=quiet())


@pytest.mark.parametrize(
    ("planned", "why"),
    [
        (False, "it was stopped before its plan was written"),
        (True, r"missing are \d+ of \d+ images, \d+ of \d+ scores of classifier@1"),
    ],
)
def test_an_unfinished_run_is_refused_with_its_command(planned: bool, why: str, store: Store) -> None:
    plan = make_plan(prompts=1)
    finish(store, "whole", plan[plan.label != "tench"])
    finish(store, "half", plan, planned=planned, scored=False)
    for runs in (["half"], ["whole", "half"]):
        with pytest.raises(UserError, match=f"run half is not finished: {why}") as refused:
            tabulate(runs, str(store.root), console=quiet())
        assert "again: erasebench run 'task.erase=[church, gas pump]'" in str(refused.value)


def test_a_sweep_has_one_table_and_a_plot_the_default_included(store: Store) -> None:
    plan = make_plan(erasers=("none", "uce", "uce erase_scale=5.0"), prompts=2)
    folders = []
    for label in (Label("uce", {}, {"erase_scale": 1.0}), Label("uce", {"erase_scale": 5.0})):
        own = {UNEDITED: Label(UNEDITED), label.text: label}
        folders.append(finish(store, f"scale-{len(folders)}", plan[plan.eraser.isin(list(own))], labels=own))
    measured = tabulate_sweep(folders, quiet())
    assert set(measured.eraser) == {"none", "uce erase_scale=1.0", "uce erase_scale=5.0"}
    (plot,) = store.root.glob("tables/sweep-*/object-erase_scale.png")
    assert read_picture(plot).width > 500
    (table,) = store.root.glob("tables/sweep-*/object.md")
    assert r"uce erase\_scale=1.0" in table.read_text()


def test_attacked_rows_of_a_sweep_say_what_was_varied_as_the_clean_ones_do(store: Store) -> None:
    plan = make_plan(erasers=("none", "uce", "uce erase_scale=5.0"), prompts=2)
    hit = plan[plan.role == "erase"]
    plan = pd.concat([plan, hit.assign(eraser=[row_text(name, "ring") for name in hit.eraser], attack="ring")])
    folders = []
    for label in (Label("uce", {}, {"erase_scale": 1.0}), Label("uce", {"erase_scale": 5.0})):
        own = {UNEDITED: Label(UNEDITED), label.text: label}
        rows = plan[plan.eraser.isin([row_text(text, attack) for text in own for attack in ("", "ring")])]
        folders.append(finish(store, f"scale-{len(folders)}", rows.reset_index(drop=True), labels=own))
    measured = tabulate_sweep(folders, quiet())
    clean = {"none", "uce erase_scale=1.0", "uce erase_scale=5.0"}
    assert set(measured.eraser) == clean | {f"{name} + ring" for name in clean}
    assert measured.eraser.notna().all()


def test_the_command_that_mixes_runs_finds_them(store: Store) -> None:
    for name, protocol in (("mine", ABOUT.protocol), ("yours", "another")):
        finish(store, name, make_plan(prompts=1), about=replace(ABOUT, protocol=protocol))
    with pytest.raises(UserError) as refused:
        tabulate(["mine", "yours"], str(store.root), console=quiet())
    program, *arguments = shlex.split(str(refused.value).partition("for columns of their own: ")[2])
    assert program == "erasebench" and main([*arguments, "--plugins", "table_helpers"]) == 0


def test_a_sweep_over_what_cannot_be_compared_says_so_and_ends_well(store: Store) -> None:
    plan = make_plan(prompts=1)
    folders = [finish(store, name, plan, about=replace(ABOUT, model=name)) for name in ("sd14", "sd21")]
    console = quiet()
    assert tabulate_sweep(folders, console) is None
    assert "model differs (sd14 and sd21)" in printed(console)


def test_a_table_has_its_pairs_beside_it_and_says_what_they_tell(store: Store) -> None:
    folder = finish(store, "one", make_plan(prompts=4))
    console = quiet()
    tabulate(["one"], str(store.root), console=console)
    assert (folder / "tables" / "pairs.csv").exists() and (folder / "tables" / "pairs.md").exists()
    assert "cure (0.0 %) erases more than uce (100.0 %)" in printed(console), "eight of eight prompts on each side"


def test_rows_are_sorted_as_printed_and_written_as_they_were(store: Store) -> None:
    folder = finish(store, "one", make_plan(erasers=("none", "uce", "cure"), prompts=2))
    tabulate(["one"], str(store.root), console=quiet())
    before = (folder / "tables" / "object.md").read_text()
    console = quiet()
    tabulate(["one"], str(store.root), console=console, view=View(sort="classifier.erased", power=True))
    shown = [line.split()[0] for line in console.file.getvalue().splitlines() if line.startswith(("  uce ", "  cure "))]
    assert shown[:2] == ["cure", "uce"] and (folder / "tables" / "object.md").read_text() == before
    assert "n needed" in printed(console)
    with pytest.raises(UserError, match=r"--sort clasifier.erased: .*Did you mean 'classifier.erased'"):
        tabulate(["one"], str(store.root), console=quiet(), view=View(sort="clasifier.erased"))


def test_rates_have_the_interval_that_is_asked_for(store: Store) -> None:
    folder = finish(store, "one", make_plan(tasks=("church",), prompts=5))
    found = tabulate(["one"], str(store.root), console=quiet(), view=View(rates="clopper-pearson"))
    row = found[(found.eraser == "cure") & (found.role == "erase") & (found.task == "all")].iloc[0]
    assert row.high == pytest.approx(1 - 0.025 ** (1 / 5)) and row.how == "clopper-pearson"
    assert "Clopper-Pearson for rates" in (folder / "tables" / "object.md").read_text()


def test_the_name_of_a_sweep_stands_for_its_runs(store: Store) -> None:
    plan = make_plan(erasers=("none", "cure alpha=1", "cure alpha=2", "cure alpha=3"), prompts=2)
    folders = [
        finish(store, f"object-cure-{n}", plan[plan.eraser.isin(["none", f"cure alpha={n}"])]) for n in (1, 2)
    ]  # fmt: skip
    finish(store, "object-cure-3", plan[plan.eraser.isin(["none", "cure alpha=3"])])
    console = quiet()
    measured = tabulate_sweep(folders, console)
    (target,) = store.root.glob("tables/sweep-object-cure-*")
    assert f"erasebench table {target.name}" in printed(console) and (target / "object-frontier.pdf").exists()
    pd.testing.assert_frame_equal(tabulate([target.name], str(store.root), console=quiet()), measured)
    assert [path.parent for path in store.root.glob("tables/*/runs.json")] == [target] and len(
        list(store.root.glob("tables/*"))
    ) == 1
    assert find_runs(store, [target.name, "object-cure-1"]) == folders
    with pytest.raises(UserError, match="sweep-none: no such run"):
        find_runs(store, ["sweep-none"])


def test_a_best_setting_is_picked_among_runs_that_were_measured_alike(store: Store) -> None:
    plan = make_plan(prompts=2)
    finish(store, "mine", plan)
    finish(store, "yours", plan, about=replace(ABOUT, protocol="another"))
    with pytest.raises(UserError, match="--best: picks among settings that were measured alike"):
        tabulate(["mine", "yours"], str(store.root), console=quiet(), allow_mixed=True, view=View(best="retained>0"))
    console = quiet()
    tabulate(["mine", "yours"], str(store.root), console=console, allow_mixed=True, view=View(sort="eraser"))
    assert list(store.root.glob("tables/*/pairs.csv"))


def test_a_table_of_records_loads_no_network_nor_what_runs_one(store: Store) -> None:
    finish(store, "one", make_plan(prompts=2))
    command = [
        "import sys; from erasebench.cli import main",
        f"assert main(['table', 'one', '--store', {str(store.root)!r}, '--plugins', 'table_helpers', '--power']) == 0",
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", "\n".join(command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_records_of_a_metric_are_read_once_a_table(store: Store, monkeypatch) -> None:
    finish(store, "one", make_plan(prompts=2))
    read = []
    scores = Store.scores
    monkeypatch.setattr(Store, "scores", lambda self, name, inputs: read.append(name) or scores(self, name, inputs))
    tabulate(["one"], str(store.root), console=quiet())
    assert sorted(read) == sorted({metric.records_id for metric in METRICS})
