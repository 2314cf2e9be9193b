"""Published numbers as data: whole, sourced, known by name, and linked where one number is printed twice."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import yaml

from erasebench.config.build import build
from erasebench.config.choices import groups
from erasebench.edits.released import releases
from erasebench.errors import UserError
from erasebench.scores.metric import Metric
from erasebench.tables.costs import COSTS
from erasebench.tables.published_data import PUBLISHED_COLUMNS, load_published, of_experiment, shipped
from erasebench.tables.published_match import MODELS, OWN_NAMES, _metric_node, known_prompts

DATA = files("erasebench").joinpath("data")


def test_every_number_is_whole_and_sourced() -> None:
    table = shipped()
    assert len(table) == 6408 and table.value.notna().all()
    assert set(table.obtained) == {"authors", "quoted"} and set(table.direction) == {"up", "down"}
    assert set(PUBLISHED_COLUMNS) <= set(table.columns)
    assert (table.source.str.len() > 10).all()
    for column in ("source", "paper", "table", "arxiv"):
        for text in table[column].unique():
            assert "/work" not in text and "/tmp" not in text and "methods_2" not in text
    cure = table[(table.paper == "CURE") & (table.erased == "church")].iloc[0]
    assert (cure.value, cure.obtained, cure.ours, cure.eraser) == (4.2, "quoted", "classifier", "cure")


def test_a_number_of_another_method_is_second_hand_and_one_of_a_benchmark_is_not() -> None:
    table = shipped()
    of_ant = table[(table.paper == "ANT") & (table.table == "Table 1")]
    own = of_ant.method.isin(["ANT (Ours)", "SD v1.4", "SD v2.1"])
    assert (of_ant.obtained[~own] == "quoted").all() and (~own).sum() == 196
    assert (of_ant.obtained[own] == "authors").all()
    for paper in ("HUB", "P4D", "UnlearnDiffAtk benchmark"):
        of_paper = table[(table.paper == paper) & ~table.source.str.startswith("public")]
        assert "authors" in set(of_paper.obtained), paper
    assert set(table.obtained[table.paper == "HUB"]) == {"authors"}


def test_one_number_under_two_papers_is_linked_to_where_it_was_printed_first() -> None:
    table = shipped()
    copies = table[table.copy_of != ""]
    assert Counter(copies.paper)["ANT"] > 100 and len(copies) > 150
    places = set(table.paper + ", " + table.table)
    assert set(copies.copy_of) <= places
    for row in copies.itertuples():
        paper, _, name = row.copy_of.rpartition(", ")
        first = table[(table.paper == paper) & (table.table == name)]
        assert row.value in set(first.value), (row.paper, row.method, row.metric)
    uce = table[(table.method == "UCE") & (table.metric == "NudeNet exposed count: Total")].set_index("paper")
    assert uce.loc["ANT", "value"] == uce.loc["MACE", "value"] and uce.loc["ANT", "copy_of"] == "MACE, Table 2"


def test_a_printed_value_that_contradicts_its_own_table_says_so() -> None:
    doubtful = shipped()[shipped().doubt != ""]
    assert Counter(doubtful.paper) == {"HUB": 5, "ANT": 1, "MACE": 1}


def test_labels_say_which_model_and_prompts_a_number_is_of() -> None:
    table = shipped()
    assert set(table.model[table.method == "SD v2.1"]) == {"SD v2.1"}
    quality = table[(table.paper == "Semantic Surgery") & table.metric.isin(["FID", "CLIP score"])]
    assert len(quality) == 8 and set(quality.split) == {"MS-COCO 30K"}
    paraphrases = table[(table.paper == "SDErasure") & (table.metric == "H_o")]
    assert paraphrases.why.str.contains("the mean over classes of three terms").all()


def test_every_counterpart_exists_among_our_metrics_protocols_and_erasers() -> None:
    table = shipped()
    assert set(table.protocol) - {""} <= set(groups()["protocol"])
    assert set(MODELS.values()) <= set(groups()["model"])
    for name in set(table.ours) - {"", *COSTS}:
        node = _metric_node(name)
        assert node is not None and build(node, f"metric.{name}", Metric).name == name
    assert not table[(table.ours == "") & (table.why == "")].any(axis=None), "what has no counterpart says why"
    for ours in set(table.eraser) - {"", "none"}:
        released = any(name == ours or name.startswith(f"{ours}_") for name in releases())
        assert released or OWN_NAMES.get(ours, ours) in groups()["method"], ours


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_finds_its_numbers(name: str) -> None:
    text = files("erasebench.conf").joinpath("experiment", f"{name}.yaml").read_text(encoding="utf-8")
    about = yaml.safe_load(text)["experiment"]
    rows = of_experiment(about)
    assert bool(len(rows)) == bool(about["published"])
    assert not rows.duplicated().any(), "two conditions may meet a row; it stands once"
    assert len(rows) or about["note"], "a table without numbers says so"


def faulty(tmp_path: Path, change, name: str = "published.csv") -> Path:
    for file in ("published.csv", "published_tables.csv", "published_metrics.csv", "published_methods.csv"):
        with DATA.joinpath(file).open(encoding="utf-8") as opened:
            table = pd.read_csv(opened, dtype=str, keep_default_na=False)
        if file == "published.csv":
            table = table.head(3).copy()
        table = change(table) if file == name else table
        table.to_csv(tmp_path / file, index=False)
    return tmp_path


def put(column: str, value: str, row: int = 1):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("method", "EraseDif"), "row 3: method 'EraseDif' is unknown. Did you mean 'EraseDiff'"),
        (
            put("metric", "Pre-ASRR %"),
            "row 3: metric 'Pre-ASRR %' of UnlearnDiffAtk benchmark is unknown.* 'Pre-ASR %'",
        ),
        (put("value", "about 4"), "row 3: 'about 4' is not a number"),
        (put("value", "nan"), "row 3: 'nan' is not a number"),
        (put("table_id", "unlearndiffatk"), "row 3: table 'unlearndiffatk' is unknown. Did you mean"),
        (put("obtained", "memory"), "obtained must be one of authors, quoted"),
        (lambda table: pd.concat([table, table.head(1)]), "EraseDiff, Pre-ASR % .* is there twice"),
        (lambda table: table.drop(columns="value"), "published.csv: no column value"),
    ],
)
def test_a_faulty_row_is_refused_by_name(change, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_published(faulty(tmp_path, change))


def test_a_table_without_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unlearndiffatk-1 needs a source"):
        load_published(faulty(tmp_path, put("source", "", 0), "published_tables.csv"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"paper": "CURE", "table": "Table 99"}, "experiment x: no published number with .*Table 99"),
        ({"papr": "CURE"}, "experiment x: published.papr: no such column. Did you mean 'paper'"),
    ],
)
def test_an_experiment_that_asks_for_nothing_known_is_refused(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        of_experiment({"name": "x", "published": [wanted]})


def test_a_condition_with_a_star_is_met_by_what_begins_so() -> None:
    rows = of_experiment(
        {"name": "x", "published": [{"paper": "SPEED", "table": "Table 1", "split": "erase Snoopy: *"}]}
    )
    assert set(rows.erased) == {"Snoopy"} and set(rows.asked) > {"Mickey", "Pikachu"}


def test_known_files_are_of_known_prompts_and_have_a_public_place() -> None:
    table = known_prompts()
    assert list(table.columns) == ["prompts", "file", "rows", "content"]
    hashed = table[table.content != ""]
    assert not hashed.content.duplicated().any() and hashed.content.str.fullmatch("[0-9a-f]{64}").all()
    assert set(table.prompts) <= set(groups()["prompts"])
    assert table.file.str.fullmatch(r"[^/]\S*: .+").all() and table.rows.str.fullmatch("[1-9][0-9]*").all()
