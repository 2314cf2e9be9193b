"""Published numbers: whole, sourced, known by name; and compared only where they can be."""

from __future__ import annotations

import io
import math
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from erasebench.config.choices import groups
from erasebench.config.compose import compose
from erasebench.edits.eraser import Eraser
from erasebench.edits.label import label_of
from erasebench.errors import UserError
from erasebench.runs.about import About
from erasebench.runs.plan import prepare
from erasebench.scores.metric import Metric
from erasebench.tables.measure import MEASURED_COLUMNS as MEASURED
from erasebench.tables.published import (
    PUBLISHED_COLUMNS,
    _letters,
    beside,
    load_published,
    of_experiment,
    print_beside,
    texts,
    write_beside,
)
from erasebench.tables.published_match import published_content, run_mismatches

DATA = files("erasebench").joinpath("data")


@cache
def config_of(*overrides: str):
    return compose(overrides)


def cell(eraser: str, task: str, role: str, metric: str, value: float, **more) -> dict:
    row = dict.fromkeys(MEASURED, math.nan) | {
        "task_kind": "object", "eraser": eraser, "attack": "", "task": task, "role": role, "metric": metric, "unit": "%",
        "direction": "down", "value": value, "low": value - 0.01, "high": value + 0.01, "n": 500, "how": "wilson",
        "reason": "",
    }  # fmt: skip
    return row | more


MADE = pd.DataFrame(
    [
        cell("cure", "church", "erase", "classifier@1-x", 0.052),
        cell("cure", "all", "erase", "classifier@1-x", 0.01),
        cell("cure", "all", "retain", "classifier@1-x", 0.8),
        cell("uce", "all", "erase", "classifier@1-x", 0.3),
    ]
)


def test_every_number_is_whole_and_sourced() -> None:
    table = load_published()
    assert len(table) > 500 and set(table.obtained) == {"authors", "quoted"}
    assert (table.source.str.len() > 10).all() and table.value.notna().all()
    assert set(table.direction) == {"up", "down"}
    for text in table.source:
        assert "/work" not in text and "/tmp" not in text
    cure = table[(table.paper == "CURE") & (table.split == "church")].iloc[0]
    assert (cure.value, cure.obtained, cure.ours, cure.eraser) == (4.2, "quoted", "classifier", "cure")


def test_every_counterpart_exists_among_our_metrics_protocols_and_erasers(tmp_path: Path) -> None:
    table = load_published()
    protocols = set(table.protocol) - {""}
    assert protocols <= set(groups()["protocol"])
    names = {"edit_seconds"}
    options = set(table.ours) - {"", "edit_seconds"}
    for option in groups()["metric"]:
        if option in options or option.endswith("_parts"):
            from erasebench.config.build import build

            names |= {build(node, "metric", Metric).name for node in compose([f"metric=[{option}]"]).metric.values()}
    assert options <= names, options - names
    prepared = prepare(compose(["method=with_speed", f"store.dir={tmp_path}"]))
    assert set(table.eraser) - {""} <= {*prepared.erasers, "speed params=K", "speed params=KV"}
    from erasebench.config.build import build

    for params in ("K", "KV"):
        speed = build(compose(["method=speed", f"method.params={params}"]).method, "method", Eraser)
        assert label_of("speed", speed).text == f"speed params={params}"
    assert not table[(table.ours == "") & (table.why == "")].any(axis=None), "what has no counterpart says why"


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_finds_its_numbers(name: str) -> None:
    import yaml

    text = files("erasebench.conf").joinpath("experiment", f"{name}.yaml").read_text(encoding="utf-8")
    about = yaml.safe_load(text)["experiment"]
    rows = of_experiment(about)
    assert bool(len(rows)) == bool(about["published"])
    assert len(rows) or about["note"], "a table without numbers says so"


def faulty(tmp_path: Path, change) -> Path:
    for name in ("published.csv", "published_metrics.csv", "published_methods.csv"):
        with DATA.joinpath(name).open(encoding="utf-8") as file:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
        if name == "published.csv":
            table = change(table.head(3).copy())
        table.to_csv(tmp_path / name, index=False)
    return tmp_path


def put(column: str, value: str):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[1, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("method", "EraseDif"), "row 3: method 'EraseDif' is unknown. Did you mean 'EraseDiff'"),
        (put("metric", "Pre-ASR"), "row 3: metric 'Pre-ASR' of UnlearnDiffAtk benchmark is unknown.* 'Pre-ASR %'"),
        (put("value", "about 4"), "row 3: 'about 4' is not a number"),
        (put("value", "nan"), "row 3: 'nan' is not a number"),
        (put("source", ""), "row 3: needs a source"),
        (put("obtained", "memory"), "obtained must be one of authors, quoted"),
        (lambda table: pd.concat([table, table.head(1)]), "EraseDiff, Pre-ASR % .* is there twice"),
        (lambda table: table.drop(columns="source"), "published.csv: no column source"),
    ],
)
def test_a_faulty_row_is_refused_by_name(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_published(faulty(tmp_path, change))


def test_an_experiment_that_asks_for_nothing_known_is_refused() -> None:
    with pytest.raises(UserError, match="experiment x: no published number with .*Table 99"):
        of_experiment({"name": "x", "published": [{"paper": "CURE", "table": "Table 99"}]})


PROMPTS = {"object": {"content": next(iter(published_content("imagenette")))}}
"""What the manifest of a run says that was measured on the file of the paper."""


def row_of(table: pd.DataFrame, **wanted: str) -> pd.Series:
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_a_difference_is_taken_where_everything_matches() -> None:
    table = beside(MADE, config_of("experiment=cure_objects"), PROMPTS)
    church = row_of(table, split="church")
    assert (church.measured, church.published) == (pytest.approx(5.2), 4.2)
    assert church.difference == pytest.approx(1.0) and church.note == "" and church.n == 500
    assert (church.low, church.high) == (pytest.approx(4.2), pytest.approx(6.2))
    horn = row_of(table, split="French horn")
    assert math.isnan(horn.measured) and math.isnan(horn.difference), "not run stays not run"
    unrelated = row_of(table, split="average")
    assert unrelated.measured == pytest.approx(80) and math.isnan(unrelated.difference)
    assert unrelated.note == "approximate in its source"
    extra = row_of(table, method="uce")
    assert extra.measured == pytest.approx(30) and math.isnan(extra.published) and extra.source == ""


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("protocol.steps=20", "protocol changed: steps"),
        ("protocol=esd", "protocol esd, not cure"),
        ("model=sd21", "model sd21, not SD v1.4"),
        ("prompts.limit=10", "other prompts than the experiment's"),
        ("prompts=artists_famous", "other prompts than the experiment's"),
        ("task.anchor=sky", "task changed: anchor"),
        ("task.erase=[church]", "task changed: erase"),
        ("model.revision=main", "model changed: revision"),
        ("metric.classifier.top=5", "metric changed: top"),
    ],
)
def test_no_difference_is_taken_where_something_does_not_match(override: str, note: str) -> None:
    table = beside(MADE, config_of("experiment=cure_objects", override), PROMPTS)
    church = row_of(table, split="church")
    assert church.measured == pytest.approx(5.2) and math.isnan(church.difference) and note in church.note


@pytest.mark.parametrize(
    ("prompt_sets", "note"),
    [
        ({"object": {"content": "0" * 64}}, "prompts not verified: not the rows of the paper's file"),
        (
            {"object": {"hash": "of an earlier version"}},
            "prompts not verified: the run did not write down their content",
        ),
        ({}, "prompts not verified: the run did not write down their content"),
    ],
)
def test_a_file_of_ones_own_under_a_known_name_gives_no_difference(prompt_sets: dict, note: str) -> None:
    table = beside(MADE, config_of("experiment=cure_objects", "prompts.source=mine.csv"), prompt_sets)
    church = row_of(table, split="church")
    assert (church.measured, church.published) == (pytest.approx(5.2), 4.2), "both stand, side by side"
    assert math.isnan(church.difference) and church.note == note
    genuine = beside(MADE, config_of("experiment=cure_objects", "prompts.source=copy/of/theirs.csv"), PROMPTS)
    assert row_of(genuine, split="church").difference == pytest.approx(1.0), "where the file lies does not matter"


def test_prompts_that_nobody_here_has_read_are_not_vouched_for() -> None:
    reasons = run_mismatches(config_of("experiment=mace_artists_100"), "0" * 64)
    assert reasons == ["prompts not verified: nothing is known here of the file that the paper used"]


def test_known_files_are_of_known_prompts_and_have_a_public_place() -> None:
    with DATA.joinpath("published_prompts.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str)
    assert list(table.columns) == ["prompts", "file", "rows", "content"] and not table.content.duplicated().any()
    assert set(table.prompts) <= set(groups()["prompts"])
    assert (
        table.content.str.fullmatch("[0-9a-f]{64}").all()
        and table.file.str.fullmatch(r"[^/]\S*: data/\S+|\S+/\S+: \S+").all()
    )


def test_the_columns_of_metrics_may_differ_in_where_they_ran() -> None:
    config = config_of("experiment=cure_objects", "device=cpu", "metric.classifier.device=cuda")
    assert row_of(beside(MADE, config, PROMPTS), split="church").difference == pytest.approx(1.0)


def test_another_setting_of_an_eraser_is_not_the_published_one() -> None:
    table = beside(MADE.assign(eraser="cure alpha=9.0"), config_of("experiment=cure_objects"), PROMPTS)
    assert math.isnan(row_of(table, split="church").measured)


def test_totals_are_sums_over_images() -> None:
    made = pd.DataFrame([cell("none", "all", "erase", "nudenet_mace@1-3", 0.5, task_kind="unsafe", unit="", n=4703)])
    table = beside(made, config_of("experiment=mace_explicit"), PROMPTS)
    ours = table[table.method.isin(["SD v1.4"]) & table.metric.str.endswith("Total") & table.measured.notna()]
    assert len(ours) and ours.measured.tolist() == pytest.approx([0.5 * 4703] * len(ours))
    assert ours.difference.isna().all() and ours.note.str.contains("does not say the value").any()


def test_the_table_marks_what_is_quoted_and_names_its_source(tmp_path: Path) -> None:
    config = config_of("experiment=cure_objects")
    table = beside(MADE, config, PROMPTS)
    heads, rows, below = texts(table)
    church = next(row for row in rows if row[2] == "church")
    assert church[heads.index("published")] == "4.2~" and church[heads.index("difference")] == "+1"
    assert church[heads.index("measured")] == "5.2 [4.2, 6.2]"
    assert any("PAPER_PROMPTS.md" in text for text in below)
    about = About("sd14 (abc)", "cure v1")
    write_beside(table, tmp_path, config.experiment, about)
    text = (tmp_path / "published.md").read_text(encoding="utf-8")
    assert "not run" in text and "~ quoted by somebody else" in text and "model sd14 (abc)" in text
    assert list(pd.read_csv(tmp_path / "published.csv").columns) == list(table.columns)
    console = Console(file=io.StringIO(), width=200)
    print_beside(table, config.experiment, about, console)
    assert "4.2~" in console.file.getvalue()


def test_a_table_without_published_numbers_says_so() -> None:
    config = config_of("experiment=uce_objects")
    console = Console(file=io.StringIO(), width=200)
    table = beside(MADE, config, PROMPTS)
    assert table.empty
    print_beside(table, config.experiment, About("", ""), console)
    assert "no number of this table was found" in " ".join(console.file.getvalue().split())


def test_a_long_table_is_cut_in_the_terminal_only(tmp_path: Path) -> None:
    config = config_of("experiment=mace_explicit")
    table = beside(MADE, config, PROMPTS)
    console = Console(file=io.StringIO(), width=200)
    print_beside(table, config.experiment, About("", ""), console)
    assert "more published numbers are in published.md" in console.file.getvalue()
    assert len(table) == len(of_experiment(config.experiment))


def test_the_columns_are_documented() -> None:
    assert set(PUBLISHED_COLUMNS) <= set(load_published().columns) | {"value"}


def test_no_two_notes_share_letters() -> None:
    marks = [_letters(number) for number in range(800)]
    assert marks[:2] == ["a", "b"] and marks[25:28] == ["z", "aa", "ab"] and len(set(marks)) == 800
