"""The leaderboard of several stores: what stands in one table, what must not, and that names do no harm."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from chromium import FOUND, Chromium
from omegaconf import OmegaConf
from report_helpers import TASK, Page, renamed
from table_helpers import ABOUT, PLUGINS, attacked_plan, finish, make_plan

from erasebench.cli import main
from erasebench.config.compose import compose
from erasebench.edits.label import Label
from erasebench.runs.about import EMBEDDED
from erasebench.store import Store
from erasebench.texts import from_csv

HOSTILE = "<img src=x onerror=alert(1)>"
OTHER = replace(ABOUT, model="sd14 (0123456789ab, float16)", embedded=False, names={"model": "sd14"})


def leaderboard(out: Path, *stores: Path, more: tuple[str, ...] = ()) -> int:
    return main(["leaderboard", *map(str, stores), "--out", str(out), "--plugins", PLUGINS[0], *more])


def rows_of(out: Path) -> pd.DataFrame:
    text = (out / "leaderboard.csv").read_text(encoding="utf-8")
    return from_csv(
        pd.read_csv(
            io.StringIO(text), keep_default_na=False, na_values={name: [""] for name in ("value", "low", "high")}
        )
    )


def started(folder: Path, **said: str) -> None:
    """Put more into the manifest of a run."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path]:
    """Two stores: in both a run of the same prompts, in the second one another model, a broken run and an unfinished one."""
    first, second = (tmp_path_factory.mktemp("lab") / name for name in ("a", "b"))
    plan = renamed(make_plan(("none", "cure"), prompts=3))
    started(finish(Store(first), "one", plan), protocol="embedded v1 6a1b7fe6", started="2026-02-03T04:05:06+00:00")
    hostile = renamed(make_plan(("none", "uce"), prompts=3)).replace({"eraser": {"uce": HOSTILE}})
    finish(Store(second), "two", hostile, labels={"none": Label("none"), HOSTILE: Label(HOSTILE)})
    finish(Store(second), "three", renamed(make_plan(("none", "cure"), prompts=3)), about=OTHER)
    broken = finish(Store(second), "broken", plan)
    (broken / "manifest.json").write_text('{"command": [')
    finish(Store(second), "begun", renamed(make_plan(("none", "rece"), prompts=3)), planned=False)
    (first / "reports" / "one").mkdir(parents=True)
    (first / "reports" / "one" / "index.html").write_text("a report")
    return first, second


@pytest.fixture(scope="module")
def site(stores: tuple[Path, Path], tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "board"
    assert leaderboard(out, *stores) == 1, "a run of them cannot be read"
    return out


def test_runs_of_two_stores_stand_in_one_table_and_another_model_in_its_own(site: Path) -> None:
    table = rows_of(site)
    together = table[table.runs.str.contains("one") | table.runs.str.contains("two")]
    apart = table[table.runs == "three"]
    assert together.table.nunique() == 1 and set(together.eraser) == {"unedited", "cure", HOSTILE}
    assert apart.table.nunique() == 1 and set(apart.eraser) == {"unedited", "cure"}
    assert not set(together.table) & set(apart.table), "numbers of two models share no table"
    assert set(together.embedded) == {True} and set(apart.embedded) == {False}


def test_the_same_numbers_of_the_same_images_are_one_row_with_both_runs(site: Path) -> None:
    table = rows_of(site)
    unedited = table[(table.eraser == "unedited") & table.embedded]
    assert set(unedited.runs) == {"one two"} and set(unedited.stores) == {"a b"}
    assert set(table.runs[table.eraser == HOSTILE]) == {"two"}


def test_every_number_has_its_interval_run_protocol_hash_and_model(site: Path) -> None:
    table = rows_of(site)
    rates = table[table.metric == "classifier@1"]
    assert (rates.low <= rates.value).all() and (rates.value <= rates.high).all() and len(rates)
    assert set(table.protocol_hash[table.eraser == "cure"]) == {"6a1b7fe6", ""}
    text = Page(site / "index.html").text
    assert "6a1b7fe6" in text and "no hash" in text, "a run that did not write it down"
    assert "2026-02-03" in text and "(not Stable Diffusion)" in text and EMBEDDED in text
    source = (site / "index.html").read_text()
    assert source.count('<span class="interval">') >= 8
    assert "edit_seconds" not in source, "seconds are those of a machine"


def test_what_is_left_out_is_named_on_the_page_and_in_the_terminal(
    stores: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    assert leaderboard(tmp_path / "board", *stores) == 1
    shown = capsys.readouterr().out
    text = Page(tmp_path / "board" / "index.html").text
    for said in (shown, text):
        assert "broken" in said and "manifest.json" in said
        assert "begun" in said and "not finished" in said
    assert str(stores[1]) not in (tmp_path / "board" / "index.html").read_text(), (
        "where a store lies is nobody's business"
    )


def test_an_unfinished_run_alone_is_no_fault(stores: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(stores[1], tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "runs" / "broken")
    assert leaderboard(tmp_path / "board", tmp_path / "b") == 0


def test_names_are_shown_as_they_are_and_never_run(site: Path) -> None:
    page = Page(site / "index.html")
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert HOSTILE in page.text and TASK in page.text


def test_the_page_needs_no_network_is_light_and_links_a_report_that_exists(site: Path) -> None:
    page = Page(site / "index.html")
    for link in page.links:
        assert not re.match(r"\w+://|//", link), link
        if not link.startswith(("data:", "#")):
            assert (site / link).is_file(), link
    reports = [link for link in page.links if "reports" in link]
    assert len(reports) >= 1 and all(link.endswith("a/reports/one/index.html") for link in reports)
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 300_000


def test_two_edits_of_one_name_are_two_rows_that_say_so(tmp_path: Path) -> None:
    plan = make_plan(("none", "cure"), prompts=3)
    other = plan.assign(edit_key=plan.edit_key.str[::-1])
    finish(Store(tmp_path / "a"), "one", plan)
    finish(Store(tmp_path / "b"), "two", other)
    assert leaderboard(tmp_path / "board", tmp_path / "a", tmp_path / "b") == 0
    table = rows_of(tmp_path / "board")
    assert table[table.eraser == "cure"].edits.nunique() == 2 and table.table.nunique() == 1
    assert len(re.findall(r"cure \(edits [0-9a-f]{8}\)", Page(tmp_path / "board" / "index.html").text)) == 2


@pytest.mark.parametrize("what", ["protocol", "prompts", "tasks", "number of prompts"])
def test_what_may_not_be_mixed_has_tables_of_its_own(what: str, tmp_path: Path) -> None:
    plan = make_plan(("none", "cure"), prompts=3)
    about, other = ABOUT, make_plan(("none", "uce"), prompts=3)
    if what == "protocol":
        about = replace(ABOUT, protocol="mine v1 (DDIMScheduler, 50 steps, guidance 4)")
    elif what == "prompts":
        about = replace(ABOUT, prompts={"object": "builtin-object v1 (0000)"})
    elif what == "tasks":
        other = make_plan(("none", "uce"), ("church",), prompts=3)
    else:
        other = make_plan(("none", "uce"), prompts=4)
    finish(Store(tmp_path / "a"), "one", plan)
    finish(Store(tmp_path / "b"), "two", other, about=about)
    assert leaderboard(tmp_path / "board", tmp_path / "a", tmp_path / "b") == 0
    table = rows_of(tmp_path / "board")
    assert set(table.runs) == {"one", "two"} and table.groupby("table").runs.nunique().max() == 1


def test_attacked_edits_have_a_table_of_their_own(tmp_path: Path) -> None:
    finish(Store(tmp_path / "a"), "one", attacked_plan(prompts=3))
    assert leaderboard(tmp_path / "board", tmp_path / "a") == 0
    table = rows_of(tmp_path / "board")
    assert set(table.eraser[table.attack == "ring"]) == {"unedited + ring", "cure + ring", "uce + ring"}
    assert not set(table.table[table.attack == ""]) & set(table.table[table.attack == "ring"])
    assert "under ring" in Page(tmp_path / "board" / "index.html").text


def test_claimed_stands_beside_measured(tmp_path: Path) -> None:
    plan = make_plan(("none", "cure"), prompts=3)
    folder = finish(Store(tmp_path / "a"), "one", plan)
    config = compose(["experiment=cure_objects", "scale=tiny"])
    config.metric = {}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    assert leaderboard(tmp_path / "board", tmp_path / "a") == 0
    text = Page(tmp_path / "board" / "index.html").text
    assert "Claimed beside measured" in text and "CURE" in text
    assert "more published numbers have no counterpart in this run" in text


def test_refusals_come_before_anything_is_written(stores: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    def refused(out: Path, *places: Path) -> str:
        assert leaderboard(out, *places) == 2
        return capsys.readouterr().err

    assert "no run here" in refused(tmp_path / "board", stores[0], tmp_path / "nothing")
    only_broken = tmp_path / "c"
    shutil.copytree(stores[1] / "runs" / "broken", only_broken / "runs" / "broken")
    assert "nothing to show" in refused(tmp_path / "board", only_broken)
    assert not (tmp_path / "board").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert "not a report of erasebench" in refused(tmp_path / "mine", stores[0])
    assert "not a report" in refused(stores[0], stores[0])
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_an_earlier_leaderboard_is_replaced(stores: tuple[Path, Path], tmp_path: Path) -> None:
    assert leaderboard(tmp_path / "board", stores[0]) == 0
    assert leaderboard(tmp_path / "board", *stores) == 1
    assert "three" in Page(tmp_path / "board" / "index.html").text


@pytest.mark.skipif(FOUND is None, reason="no Chromium here")
def test_filters_hide_what_does_not_fit_and_a_phone_scrolls_tables_alone(site: Path, tmp_path: Path) -> None:
    with contextlib.closing(Chromium(tmp_path / "profile")) as browser:
        browser.size(360, 740)
        browser.open(site / "index.html")
        shown = "[...document.querySelectorAll('.board')].filter(board => !board.hidden).length"
        assert browser.run(shown) == 2
        assert browser.run("document.documentElement.scrollWidth <= 360"), "the page itself does not scroll sideways"
        browser.run(
            "f = document.getElementById('filters'); f.model.value = 'sd14'; f.dispatchEvent(new Event('change'))"
        )
        assert (
            browser.run(shown) == 1 and browser.run("document.getElementById('shown').textContent") == "1 of 2 tables"
        )
        assert browser.run("location.hash") == "#model=sd14"
        browser.run("f.columns.value = 'all'; f.dispatchEvent(new Event('change'))")
        assert browser.run("[...document.querySelectorAll('.more')].every(cell => !cell.hidden)")
        browser.run(f"f.model.value = ''; f.eraser.value = {json.dumps(HOSTILE)}; f.dispatchEvent(new Event('change'))")
        rows = "[...document.querySelectorAll('tr[data-eraser]')].filter(row => row.offsetParent).map(row => row.cells[0].textContent)"
        assert browser.run(rows) == ["unedited", HOSTILE]
        assert not browser.complaints
