"""A run's numbers beside published ones: a difference stands only where the two are of one thing."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from erasebench.config.build import build
from erasebench.config.compose import compose
from erasebench.config.values import plain_values
from erasebench.runs.about import About
from erasebench.scores.metric import Metric
from erasebench.tables.measure import MEASURED_COLUMNS as MEASURED
from erasebench.tables.published import (
    BESIDE_COLUMNS,
    _letters,
    beside,
    print_beside,
    texts,
    write_beside,
)
from erasebench.tables.published_data import load_published, of_experiment
from erasebench.tables.published_match import Ran, _metric_node, find_label, known_prompts, run_mismatches


@cache
def config_of(*overrides: str):
    return compose(overrides)


def metric_id(name: str) -> str:
    """A metric's name and version, as a table has it."""
    node = _metric_node(name)
    assert node is not None
    return build(node, name, Metric).id


def cell(eraser: str, task: str, role: str, metric: str, value: float, **more) -> dict:
    row = dict.fromkeys(MEASURED, math.nan) | {
        "task_kind": "object", "eraser": eraser, "attack": "", "task": task, "role": role, "metric": metric_id(metric),
        "unit": "%", "direction": "down", "value": value, "low": value - 0.01, "high": value + 0.01, "n": 500,
        "how": "wilson", "reason": "",
    }  # fmt: skip
    return row | more


CURE = "cure our choice"
ERASERS: dict[str, Mapping[str, Any]] = {
    CURE: {
        "_target_": "erasebench.methods.closed_form.cure.Cure",
        "released": "cure",
        "alpha": None,
        "alpha_retain": None,
    },
    "uce": {},
}
"""What a config says of the erasers whose rows are below."""

SPEED = {"_target_": "erasebench.methods.closed_form.speed.Speed"}

MADE = pd.DataFrame(
    [
        cell(CURE, "church", "erase", "classifier", 0.052),
        cell(CURE, "all", "erase", "classifier", 0.01),
        cell(CURE, "all", "retain", "classifier", 0.8),
        cell("uce", "all", "erase", "classifier", 0.3),
    ]
)

IMAGENETTE = known_prompts().set_index("prompts").content["imagenette"]
PROMPTS = {"object": {"content": IMAGENETTE, "counts": {"rows": 5000}}}
"""What the manifest of a run says that was measured on the file of the paper."""


def ran(*overrides: str, prompts: Mapping[str, Any] = PROMPTS, dtype: str = "float32", **erasers) -> Ran:
    return Ran(plain_values(config_of(*overrides)), prompts, dtype, erasers or ERASERS)


def row_of(table: pd.DataFrame, **wanted: str) -> pd.Series:
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_difference_is_taken_where_everything_matches() -> None:
    table = beside(MADE, ran("experiment=cure_objects"))
    assert tuple(table.columns) == BESIDE_COLUMNS
    church = row_of(table, split="church")
    assert (church.measured, church.published) == (pytest.approx(5.2), 4.2)
    assert church.difference == pytest.approx(1.0) and church.note == "" and church.n == 500
    assert church.remark == "our choice, since the paper does not say it: token_rule, retain, templates, multi"
    assert (church.low, church.high) == (pytest.approx(4.2), pytest.approx(6.2))
    horn = row_of(table, split="French horn")
    assert math.isnan(horn.measured) and math.isnan(horn.difference), "not run stays not run"
    unrelated = row_of(table, split="average")
    assert unrelated.measured == pytest.approx(80) and math.isnan(unrelated.difference)
    assert unrelated.note == "approximate in its source" and unrelated.remark == ""
    extra = row_of(table, method="uce")
    assert extra.measured == pytest.approx(30) and math.isnan(extra.published) and extra.source == ""


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("protocol.steps=20", "protocol changed: steps"),
        ("protocol=esd", "protocol esd, not cure"),
        ("model=sd21", "model sd21, not SD v1.4"),
        ("model.path=some/finetune", "model changed: path"),
        ("model.revision=main", "model changed: revision"),
        ("prompts.limit=10", "other prompts than the experiment's"),
        ("prompts=artists_famous", "other prompts than the experiment's"),
        ("task.anchor=a fish", "task changed: anchor"),
        ("task.retain=none", "task changed: retain"),
        ("task.erase=[church]", "task changed: erase"),
        ("metric.classifier.top=5", "metric changed: top"),
        ("metric.classifier.weights=IMAGENET1K_V1", "metric changed: weights"),
        ("metric.classifier.model=resnet18", "metric changed: model"),
    ],
)
def test_no_difference_is_taken_where_something_does_not_match(override: str, note: str) -> None:
    table = beside(MADE, ran("experiment=cure_objects", override))
    church = row_of(table, split="church")
    assert church.measured == pytest.approx(5.2) and math.isnan(church.difference) and note in church.note
    assert table.difference.isna().all()


def test_no_difference_is_taken_in_another_type_of_weights() -> None:
    for given in (
        ran("experiment=cure_objects", "dtype=float16", dtype=""),
        ran("experiment=cure_objects", dtype="float16"),
    ):
        church = row_of(beside(MADE, given), split="church")
        assert math.isnan(church.difference) and church.note == "float16 weights, not float32"


def test_no_difference_is_taken_by_another_version_of_a_metric() -> None:
    old = MADE.assign(metric="classifier@0-of an earlier version")
    church = row_of(beside(old, ran("experiment=cure_objects")), split="church")
    assert church.measured == pytest.approx(5.2) and math.isnan(church.difference)
    assert church.note.startswith("metric version 0, not ")


@pytest.mark.parametrize(
    ("prompts", "note"),
    [
        ({"content": "0" * 64, "counts": {"rows": 5000}}, "prompts not verified: not the rows of the paper's file"),
        ({"content": "0" * 64, "counts": {"rows": 10}}, "prompts not verified: not the rows of the paper's file"),
        ({"hash": "of an earlier version"}, "prompts not verified: the run did not write down their content"),
    ],
)
def test_a_file_of_ones_own_under_a_known_name_gives_no_difference(prompts: dict, note: str) -> None:
    mine = ran("experiment=cure_objects", "prompts.source=ten_rows.csv", prompts={"object": prompts})
    church = row_of(beside(MADE, mine), split="church")
    assert (church.measured, church.published) == (pytest.approx(5.2), 4.2), "both stand, side by side"
    assert math.isnan(church.difference) and church.note == note
    genuine = beside(MADE, ran("experiment=cure_objects", "prompts.source=copy/of/theirs.csv"))
    assert row_of(genuine, split="church").difference == pytest.approx(1.0), "where the file lies does not matter"
    nothing = beside(MADE, ran("experiment=cure_objects", prompts={}))
    assert "did not write down" in row_of(nothing, split="church").note


def test_files_that_nobody_here_has_read_are_compared_by_their_number_of_rows() -> None:
    def reasons(rows: int) -> tuple[list[str], list[str]]:
        prompts = {"artist": {"content": "0" * 64, "counts": {"rows": rows}}}
        return run_mismatches(ran("experiment=mace_artists_100", prompts=prompts))

    assert reasons(5000) == ([], ["prompts compared by their number (5000): the paper's file was not read here"])
    assert reasons(50) == (["prompts not verified: 50 rows, not 5000 as in the paper"], [])


def test_the_columns_of_metrics_may_differ_in_where_they_ran() -> None:
    there = ran("experiment=cure_objects", "device=cpu", "metric.classifier.device=cuda")
    assert row_of(beside(MADE, there), split="church").difference == pytest.approx(1.0)


def test_another_setting_of_an_eraser_is_not_the_published_one() -> None:
    label = "cure alpha=9.0"
    table = beside(MADE.assign(eraser=label), ran("experiment=cure_objects", **{label: {"alpha": 9.0}}))
    assert math.isnan(row_of(table, split="church").measured)
    changed = ERASERS | {CURE: {**ERASERS[CURE], "alpha": 9.0}}
    church = row_of(beside(MADE, ran("experiment=cure_objects", **changed)), split="church")
    assert church.measured == pytest.approx(5.2) and church.note == "not as released: alpha"


def test_our_own_defaults_are_not_the_papers() -> None:
    table = beside(MADE.assign(eraser="cure"), ran("experiment=cure_objects", cure={"alpha": None}))
    church = row_of(table, split="church")
    assert church.measured == pytest.approx(5.2) and math.isnan(church.difference)
    assert church.note.startswith("our settings of the eraser")


def test_the_row_with_the_settings_of_the_release_stands_for_a_method() -> None:
    erasers = {"uce": {}, "uce as released": {"released": "uce_artists"}, "mace_cfr": {}}
    assert find_label("uce", erasers) == "uce as released" and find_label("mace", erasers) is None
    assert find_label("mace_cfr", erasers) == "mace_cfr" and find_label("none", {}) == "none"
    assert find_label("esd_x", {"esd": {}}) == "esd" and find_label("esd_u", {"esd": {}}) is None


def test_totals_are_sums_over_images_and_a_row_that_is_a_model_has_no_number_of_another() -> None:
    made = pd.DataFrame([cell("none", "all", "erase", "nudenet_mace_eight", 0.5, task_kind="unsafe", unit="", n=4703)])
    table = beside(made, ran("experiment=mace_explicit", prompts={}))
    ours = table[table.measured.notna()]
    assert set(ours.method) == {"SD v1.4"} and ours.metric.str.endswith("Total").all()
    assert ours.measured.tolist() == pytest.approx([0.5 * 4703] * len(ours))
    other = table[(table.method == "SD v2.1") & table.metric.str.endswith("Total")]
    assert len(other) and other.measured.isna().all() and other.difference.isna().all()


def test_a_rate_over_other_prompts_is_not_compared_with_i2p() -> None:
    made = pd.DataFrame([cell("speed", "all", "erase", "nudenet", 0.02, task_kind="unsafe")])
    table = beside(made, ran("experiment=speed_nudity", prompts={}, speed={**SPEED, "released": "speed_nudity"}))
    asr = table[(table.metric == "ASR (NudeNet 0.6)") & (table.method == "SPEED w/o AT")]
    assert asr.difference.isna().all()
    i2p = row_of(asr, task="nudity I2P")
    assert i2p.measured == pytest.approx(0.02) and i2p.note.startswith("not the share over the 4703 prompts of I2P")
    assert asr.task.is_unique and len(asr) == 4, "the task tells four numbers of one name apart"


def test_a_count_by_another_network_than_the_papers_is_not_compared() -> None:
    feet = cell("none", "all", "erase", "nudenet_mace_feet", 0.01, task_kind="unsafe", unit="", n=4703)
    given = ran("experiment=mace_explicit", prompts={"unsafe": {"content": I2P}})
    for version, note in (("", "not by the paper's network (9832f155...)"), ("-9832f155", "")):
        made = pd.DataFrame([feet | {"metric": feet["metric"] + version}])
        printed = beside(made, given)
        row = row_of(printed[printed.note.str.startswith(note) & printed.measured.notna()], split=MACE_SPLIT)
        assert math.isnan(row.difference) == bool(note)


I2P = known_prompts().set_index("prompts").content["i2p"]
MACE_SPLIT = "I2P 4703 prompts, threshold 0.6"


def test_a_number_that_another_paper_printed_first_is_not_compared_twice() -> None:
    made = pd.DataFrame([cell("none", "all", "erase", "nudenet_mace_feet", 0.01, task_kind="unsafe", unit="", n=4703)])
    table = beside(made, ran("experiment=ant_explicit", prompts={}))
    feet = table[(table.method == "SD v1.4") & table.metric.str.endswith("Feet")]
    assert (
        feet.measured.notna().all() and feet.note.str.contains("the number of MACE, Table 2, printed again").sum() == 1
    )


def test_one_concept_of_one_edit_is_found_by_both_names() -> None:
    concepts = pd.DataFrame(
        [
            cell("none", "all", "retain", "fid_inception", 0.0) | {"concept": "Mickey"},
            cell("speed", "Snoopy", "retain", "fid_inception", 25.0) | {"concept": "Mickey"},
            cell("speed", "Snoopy", "erase", "clip_score_speed", 23.0) | {"concept": "Snoopy"},
        ]
    )
    table = beside(MADE, ran("experiment=speed_few_1", speed={**SPEED, "released": "speed_instances"}), concepts)
    part = table[(table.method == "SPEED") & table.measured.notna()]
    assert set(zip(part.split, part.measured, part.published, strict=True)) == {
        ("erase Snoopy: Mickey", 25.0, 23.41),
        ("erase Snoopy: Snoopy", 23.0, 23.5),
    }


def test_the_table_marks_what_is_quoted_and_names_its_source(tmp_path: Path) -> None:
    given = ran("experiment=cure_objects")
    table = beside(MADE, given)
    heads, rows, below = texts(table)
    church = next(row for row in rows if row[heads.index("of")] == "church")
    assert church[heads.index("published")] == "4.2~" and church[heads.index("difference")] == "+1"
    assert church[heads.index("measured")] == "5.2 [4.2, 6.2]" and church[heads.index("task")] == "object Imagenette"
    assert any("PAPER_PROMPTS.md" in text for text in below)
    mark = church[heads.index("note")]
    assert any(text.startswith(f"{mark}: our choice") for text in below), "a remark is no reason against a difference"
    assert any(": no difference: approximate in its source" in text for text in below)
    about = About("sd14 (abc)", "cure v1")
    write_beside(table, tmp_path, given.experiment, about)
    text = (tmp_path / "published.md").read_text(encoding="utf-8")
    assert "not run" in text and "~ second-hand" in text and "model sd14 (abc)" in text
    assert list(pd.read_csv(tmp_path / "published.csv").columns) == list(table.columns)
    console = Console(file=io.StringIO(), width=200)
    print_beside(table, given.experiment, about, console)
    assert "4.2~" in console.file.getvalue()


def test_a_table_without_published_numbers_says_so() -> None:
    given = ran("experiment=uce_objects")
    console = Console(file=io.StringIO(), width=200)
    table = beside(MADE, given)
    assert table.empty
    print_beside(table, given.experiment, About("", ""), console)
    assert "no number of this table was found" in " ".join(console.file.getvalue().split())


def test_a_long_table_is_cut_in_the_terminal_only() -> None:
    given = ran("experiment=mace_explicit", prompts={})
    table = beside(MADE, given)
    console = Console(file=io.StringIO(), width=200)
    print_beside(table, given.experiment, About("", ""), console)
    assert "more published numbers are in published.md" in console.file.getvalue()
    assert len(table) == len(of_experiment(given.experiment))


def test_no_two_notes_share_letters() -> None:
    marks = [_letters(number) for number in range(800)]
    assert marks[:2] == ["a", "b"] and marks[25:28] == ["z", "aa", "ab"] and len(set(marks)) == 800


def test_published_numbers_of_ones_own_take_the_same_way(tmp_path: Path) -> None:
    files = {
        "published_tables.csv": "id,paper,arxiv,table,source\nx-1,CURE,,Table 4,made up for a test\n",
        "published_metrics.csv": "paper,metric,task,ours,version,role,scale,protocol,why\nCURE,acc,,judge,,erase,100,embedded,\n",
        "published_methods.csv": "method,paper,ours\nCURE,,cure\n",
        "published.csv": (
            "table_id,task,model,method,metric,direction,split,erased,asked,value,obtained,doubt,copy_of\n"
            "x-1,objects,embedded,CURE,acc,down,church,church,,12,authors,,\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    made = pd.DataFrame([cell(CURE, "church", "erase", "judge", 0.25)])
    small = ran("experiment=cure_objects", "scale=tiny")
    church = row_of(beside(made, small, published=load_published(tmp_path)), split="church")
    assert church.difference == pytest.approx(13) and church.note == ""
