"""Tables that paste into a paper: escaped, complete, and with a caption that says whose numbers they are."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console
from table_helpers import METRICS, make_costs, make_plan, make_scores

from erasebench.runs.about import About
from erasebench.tables import layout as table_files
from erasebench.tables import measure as tables
from erasebench.tables.answer import key_columns
from erasebench.tables.latex import ABREAST, ASIDE, latex, latex_narrow
from erasebench.tables.layout import column_text, markdown, write_tables
from erasebench.tables.pairs import compare
from erasebench.tables.printed import print_tables

ABOUT = About(
    model="small (abc, float32)",
    protocol="quick v1 (DDIMScheduler, 2 steps, guidance 7.5)",
    prompts={"object": "builtin-object v1 (0a1b2c3d)", "artist": "builtin-artist v1 (ffff0000)"},
    embedded=True,
)
NASTY = r"a_b & c% #1 $x$ {y} \z ~t ^u <v> |w| *s* `q`"


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    plan = make_plan()
    return tables.measure(plan, make_scores(plan), METRICS, costs=make_costs(plan))


def pairs() -> pd.DataFrame:
    plan = make_plan()
    return compare(plan, make_scores(plan), METRICS)


@pytest.fixture(scope="module")
def nasty() -> pd.DataFrame:
    plan = make_plan(erasers=("none", "cure", NASTY), tasks=("church", "gas pump"))
    return tables.measure(
        plan, make_scores(plan), METRICS, not_run_because={"text_match@2-a_b": "no_weights & 5% left"}
    )


def number(value: float, low: float = math.nan, high: float = math.nan, unit: str = "", role: str = "erase", **more):
    return {"value": value, "low": low, "high": high, "unit": unit, "role": role, "how": "", "reason": ""} | more


def test_cells_in_the_shape_papers_print() -> None:
    assert column_text([number(0.123, 0.101, 0.149, "%")]) == ["12.3 [10.1, 14.9]"]
    assert column_text([number(0.00123, -0.0004, 0.002), number(0.0, 0.0, 0.0)]) == [
        "0.00123 [-0.00040, 0.00200]", "0.00000 [0.00000, 0.00000]"
    ]  # fmt: skip
    assert column_text([number(0.3123, 0.3, 0.32), None]) == ["0.312 [0.300, 0.320]", "–"]
    assert column_text([number(150.2, 140, 160)]) == ["150 [140, 160]"]
    assert column_text([number(1.5, 1, 2, role="cost")]) == ["1.50"]
    assert column_text([number(0.5)]) == ["0.500"]


def test_no_number_is_said_to_be_one() -> None:
    assert column_text([number(math.nan, how="not run", reason="no weights")]) == ["not run"]
    assert column_text([number(math.nan, how="reference")]) == ["–"]


def rows_of(text: str) -> list[list[str]]:
    """Cells of the first Markdown table; escaped pipes do not divide."""
    lines = [line for line in text.split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_marks_the_best_and_says_how_it_was_measured(measured: pd.DataFrame) -> None:
    text = markdown(measured, "object", ABOUT, pairs())
    heads, _, none, *others = rows_of(text)
    assert heads[:3] == ["eraser", "recognised by classifier % erased ↓", "recognised by classifier % kept ↑"]
    cells = {row[0]: row for row in [none, *others]}
    assert cells["cure"][1] == "**0.0 [0.0, 27.8]** a" and cells["uce"][1] == "100.0 [72.2, 100.0] b"
    assert "**" not in cells["uce"][2] + cells["cure"][2], "no test tells them apart: nothing is marked"
    assert cells["unedited"][heads.index("edit s ↓")] == "–"
    for said in (
        "small (abc, float32)", "quick v1", "builtin-object v1 (0a1b2c3d)", r"classifier\@1", "10 erased", "95 %",
        "not of Stable Diffusion", "Wilson", "church, gas pump", "5 to 10 everyday",
    ):  # fmt: skip
        assert said in text, said
    assert "builtin-artist" not in text
    assert "builtin-artist" not in text


def test_markdown_also_has_differences_and_every_task(measured: pd.DataFrame) -> None:
    text = markdown(measured, "object", ABOUT)
    differences = text.split(f"**{table_files.DIFFERENCES}**")[1].split("\n\n**Only")[0]
    assert "| cure | -100.0 [-100.0, -60.8] |" in differences and "unedited" not in differences
    assert "**Only church erased**" in text and "**Only gas pump erased**" in text


def test_a_table_of_one_eraser_has_no_differences() -> None:
    plan = make_plan(erasers=("none",), tasks=("church",))
    measured = tables.measure(plan, make_scores(plan), METRICS)
    assert "Difference" not in markdown(measured, "object", ABOUT) + latex(measured, "object", ABOUT)


def test_markdown_survives_any_name(nasty: pd.DataFrame) -> None:
    rows = rows_of(markdown(nasty, "object", ABOUT))
    assert len({len(row) for row in rows}) == 1, "a pipe in a name does not make a column"
    assert any(r"\|w\| \*s\* \`q\`" in row[0] and r"\<v\>" in row[0] for row in rows)
    assert any("not run" in row for row in rows)
    assert r"not run: text\_match\@2-a\_b (no\_weights \& 5% left)" in markdown(nasty, "object", ABOUT)


def test_latex_is_balanced_and_has_as_many_cells_as_heads(nasty: pd.DataFrame) -> None:
    text = latex(nasty, "object", ABOUT)
    plain = re.sub(r"\\[{}&%$#_\\]", "", text)
    assert plain.count("{") == plain.count("}")
    assert [text.count(rf"\begin{{{name}}}") for name in ("table*", "tabular")] == [2, 2]
    assert [text.count(rf"\end{{{name}}}") for name in ("table*", "tabular")] == [2, 2]
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"\{(l?r*)\}", table).group(1))
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    for line in text.splitlines():
        outside = line.removesuffix("{!}{%")
        assert not re.search(r"(?<!\\)[%#_]", outside), line
    assert r"a\_b \& c\% \#1 \$x\$ \{y\} \textbackslash{}z \textasciitilde{}t \textasciicircum{}u" in text
    assert r"\scriptsize [0.0, 27.8]" in text and r"$\downarrow$" in text


def test_latex_of_many_columns_is_several_tables_that_a_page_has_room_for(measured: pd.DataFrame) -> None:
    measured = measured[~measured.metric.str.startswith(ASIDE)]
    costs = pd.concat([measured, *(measured.assign(metric=measured.metric + f"_{i}") for i in range(3))])
    text = latex(costs, "object", ABOUT)
    shapes = [len(shape) - 1 for shape in re.findall(r"\\begin\{tabular\}\{(l?r*)\}", text)]
    columns = len(table_files.layout(costs, "object")[0]) - 1
    differences = len(table_files.layout(costs, "object", of="difference")[0]) - 1
    assert columns > ABREAST and max(shapes) <= ABREAST and sum(shapes) == columns + differences
    assert "continued" in text and "continued" not in latex(measured[measured.unit == "%"], "object", ABOUT)


def test_a_narrow_table_has_the_key_columns_with_short_intervals(nasty: pd.DataFrame, measured: pd.DataFrame) -> None:
    text = latex_narrow(measured, "object", ABOUT, pairs())
    (shape,) = re.findall(r"\\begin\{tabular\}\{(l?r*)\}", text)
    assert len(shape) - 1 == len(key_columns(measured, "object")) and r"\begin{table}" in text
    assert r"\scriptsize [0, 28]" in text and r"\textbf{0.0}" in text and "share a letter" in text
    plain = re.sub(r"\\[{}&%$#_\\]", "", latex_narrow(nasty, "object", ABOUT))
    assert plain.count("{") == plain.count("}") and "share a letter" not in plain


def test_latex_marks_what_the_tests_tell(measured: pd.DataFrame) -> None:
    text = latex(measured, "object", ABOUT, pairs())
    assert r"\textbf{0.0}\rlap{\textsuperscript{a}}" in text and r"100.0\rlap{\textsuperscript{b}}" in text
    assert "share a letter" in text and r"\textbf" not in latex(measured, "object", ABOUT)


def test_csv_keeps_full_precision_and_every_row(measured: pd.DataFrame, tmp_path) -> None:
    written = write_tables(measured, tmp_path, ABOUT)
    assert {path.name for path in written} == {"measured.csv", "object.md", "object.tex", "object-narrow.tex"}
    back = pd.read_csv(tmp_path / "measured.csv", keep_default_na=False, na_values={"value": "", "low": "", "high": ""})
    columns = [name for name in tables.MEASURED_COLUMNS if name != "attack"]  # said only where something was attacked
    assert list(back.columns) == columns
    pd.testing.assert_series_equal(back.value, measured.value, check_exact=True)
    assert list(back.eraser) == list(measured.eraser), "the eraser none is not a missing value"


def test_a_kind_cannot_leave_the_folder(measured: pd.DataFrame, tmp_path) -> None:
    written = write_tables(measured.assign(task_kind="../../up"), tmp_path / "tables", ABOUT)
    assert {path.parent for path in written} == {tmp_path / "tables"}


def test_the_terminal_shows_the_same_numbers_in_80_columns(nasty: pd.DataFrame) -> None:
    out = io.StringIO()
    print_tables(nasty[nasty.eraser != NASTY], ABOUT, Console(file=out, width=80))
    text = out.getvalue()
    assert (
        "0.0–27.8" in text
        and "cure" in text
        and "not run: text_match@2-a_b (no_weights & 5% left)" in " ".join(text.split())
    )
    assert max(map(len, text.splitlines())) <= 80
    out = io.StringIO()
    print_tables(nasty.replace({"eraser": {NASTY: "[bold red]x[/] [/]"}}), ABOUT, Console(file=out, width=200))
    assert "[bold red]x" in out.getvalue().replace("\n", "").replace("  ", " "), "names are not markup"


def test_four_erasers_and_many_columns_fit_into_100_columns() -> None:
    plan = make_plan(erasers=("none", "cure", "uce", "rece alpha=2.0 token_rule=last_content templates=True"))
    few = tables.measure(plan, make_scores(plan), METRICS, costs=make_costs(plan))
    copies = [few.assign(metric=few.metric.str.replace("@", f"_{i}@")) for i in range(2)]
    full = few.assign(value=1.0, low=1.0, high=1.0, how="wilson", unit="%", reason="")  # the widest: 100.0–100.0
    for measured in (few, pd.concat([few, *copies], ignore_index=True), full):
        heads, rows, _ = table_files.layout(measured[measured.metric != "peak_memory_mb"], "object")
        assert len(heads) >= 8 and len(rows) == 4
        out = io.StringIO()
        print_tables(measured, ABOUT, Console(file=out, width=100))
        text = out.getvalue()
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text, "nothing is cut"
        for row in rows:
            for cell in row[1:]:
                assert cell.split(" [")[0] in text, "every number is shown"


def test_one_erased_concept_is_named_in_the_caption() -> None:
    plan = make_plan(tasks=("church",))
    measured = tables.measure(plan, make_scores(plan), METRICS)
    assert table_files.caption(measured, "object", ABOUT).startswith("Erasing concepts of kind object (church), ")
    assert "Only church erased" not in markdown(measured, "object", ABOUT), "the same table twice"


def test_the_caption_names_all_that_a_number_depends_on(measured: pd.DataFrame) -> None:
    text = table_files.caption(measured, "object", ABOUT) + table_files.how_measured(measured, "object", ABOUT)
    about = (ABOUT.model, ABOUT.protocol, ABOUT.prompts["object"], ABOUT.note)
    for said in (
        *about,
        "images of an eraser: 10 erased",
        "Wilson for rates",
        "Student's t",
        "put together, for H",
        *(metric.id for metric in METRICS),
    ):
        assert said in text, said
    assert "builtin-artist" not in text
