"""The parts of a report: outcomes, answers of metrics, names of files, notes of edits."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from table_helpers import METRICS, Accuracy, make_plan, make_scores

from erasebench.metrics.judge import Judge
from erasebench.metrics.nudenet import NudeNet
from erasebench.report.browser import make_rows
from erasebench.report.charts import charts, inline, training_curve
from erasebench.report.html_tables import html_table
from erasebench.report.methods import EditNotes, _series, _settings, short_name
from erasebench.report.names import Names
from erasebench.report.outcomes import OUTCOMES, outcomes
from erasebench.report.site import environment
from erasebench.scores.metric import with_chance
from erasebench.tables import measure as tables
from erasebench.tables.columns import aims
from erasebench.tables.instead import MatrixCell


def signs_of(recognised: dict[tuple[str, str], float]) -> dict[tuple[str, str], str]:
    """The signs of one prompt by (eraser, role), from what is recognised."""
    rows = [
        {"task_kind": "object", "task": "church", "prompt_id": role, "role": role, "eraser": eraser, "value": value}
        for (eraser, role), value in recognised.items()
    ]
    plan = pd.DataFrame(rows)
    plan["edit_key"] = ["" if eraser.startswith("none") else "e" for eraser in plan.eraser]
    signs = outcomes(plan, plan.value)
    assert set(signs) <= set(OUTCOMES)
    return dict(zip(recognised, signs, strict=True))


@pytest.mark.parametrize(
    ("role", "before", "after", "signs"),
    [
        ("erase", 1, 1, "rf"),
        ("erase", 1, 0, "rg"),
        ("erase", 0, 1, "nf"),
        ("retain", 1, 1, "rk"),
        ("retain", 1, 0, "rl"),
        ("retain", 0, 0, "nn"),
        ("retain", 0, 1, "nk"),
        ("retain", math.nan, 0, "?l"),
        ("erase", math.nan, math.nan, "??"),
        ("general", 1, 0, "??"),
    ],
)
def test_an_outcome_is_told_from_role_and_verdicts(role: str, before: float, after: float, signs: str) -> None:
    assert "".join(signs_of({("none", role): before, ("cure", role): after}).values()) == signs


def test_the_unedited_image_is_looked_up_wherever_its_row_stands() -> None:
    assert signs_of({("cure", "retain"): 0.0, ("none", "retain"): 0.0})["cure", "retain"] == "n"


def test_rows_stand_side_by_side_with_the_unedited_model_first() -> None:
    plan = make_plan(("cure", "none"), prompts=2)
    rows = make_rows(plan, pd.Series("", index=plan.index), pd.Series("?", index=plan.index))
    assert rows.erasers == ["none", "cure"] and len(rows.signs) == 2 * 5 * 2
    for place, row in enumerate(rows.frame.itertuples()):
        same = plan[(plan.task == row.task) & (plan.prompt_id == row.prompt_id)].set_index("eraser")
        assert rows.keys[place] == [same.key["none"], same.key["cure"]]


def test_metrics_say_what_they_saw() -> None:
    assert with_chance("church", 0.984) == "church 98\u00a0%" and with_chance("", 0.5) == ""
    rows = pd.DataFrame({"answer": ["church", None], "answer_p": [0.5, np.nan]})
    assert list(Accuracy().answers(rows)) == ["church 50\u00a0%", ""]
    heads = {"object": "tench", "object_p": 0.9, "artist": "none", "artist_p": 0.7, "person": "x", "person_p": 1.0}
    heads |= {"unsafe": "none", "unsafe_p": 1.0, "everyday": "spoon + cup", "everyday_p": 0.8}
    asked = [("object", "church"), ("artist", "Hokusai"), ("", ""), ("object", "spoon")]
    judged = pd.DataFrame([heads | {"kind": kind, "label": label} for kind, label in asked])
    assert list(Judge().answers(judged)) == ["tench 90\u00a0%", "none 70\u00a0%", "", "spoon + cup 80\u00a0%"]
    boxes = [
        ["BELLY_EXPOSED", 0.7, []],
        ["BELLY_EXPOSED", 0.9, []],
        ["FEET_EXPOSED", 0.3, []],
        ["FACE_FEMALE", 1.0, []],
    ]
    detected = pd.DataFrame({"detections": [json.dumps(boxes), "[]"]})
    assert list(NudeNet().answers(detected)) == ["belly exposed 0.90", "nothing counted"]


def test_file_names_are_safe_and_never_the_same() -> None:
    names = Names("index")
    found = [
        names(("a", i), text) for i, text in enumerate(["Index", "index", "../../etc", "教会", "x" * 500, "x" * 500])
    ]
    assert len(set(found)) == len(found) and "index" not in found
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and 0 < len(name) < 70 for name in found)
    assert names(("a", 0), "Index") == found[0]


def test_notes_of_edits_are_read_however_they_nest() -> None:
    assert short_name("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight") == "mid 0 attn2 to_k"
    assert short_name("text_encoder_2.text_model.encoder.layers.11.mlp.fc1.weight") == "text_2 11 mlp.fc1"
    assert _series({"forget": [[0.9, 0.1], [1.0]], "retain": []}) == [("forget 1", [0.9, 0.1]), ("forget 2", [1.0])]
    assert _series([0.5, 0.5]) == [("energies", [0.5, 0.5])] and _series(None) == []


def measured(*erasers: str) -> pd.DataFrame:
    plan = make_plan(("none", *erasers), ("church",), 3)
    return tables.measure(plan, make_scores(plan), METRICS)


def test_tables_of_a_page_have_the_texts_of_the_other_tables() -> None:
    table = html_table(measured("cure", "uce"), "object")
    assert [name for name, _ in table.rows] == ["unedited", "cure", "uce"]
    assert table.heads[1].text == "recognised by classifier % erased" and table.heads[1].meaning == "lower is better"
    cell = table.rows[1][1][0]
    assert (cell.text, cell.sort, cell.best) == ("0.0", "0.0", False), "three prompts tell nobody apart"
    assert cell.interval.startswith("0.0–")
    assert html_table(measured("cure"), "artist") is None
    shown = [head.text for head in table.heads if head.key]
    assert shown == [
        "eraser", "recognised by classifier % erased", "recognised by classifier % kept", "text_match everyday"
    ]  # fmt: skip
    assert len(shown) < len(table.heads), "the others are shown when they are asked for"


def test_figures_need_both_aims_and_take_any_name() -> None:
    numbers = measured("a_$b$ <i>&")
    assert aims(numbers[numbers.task == tables.POOLED]) == (("erase", "classifier@1"), ("retain", "classifier@1"))
    drawn = inline(charts(numbers, "object", "$b$", {})[0])
    assert (
        drawn.startswith("<svg") and "a_$b$ &lt;i&gt;&amp;" in drawn and "<i>" not in drawn and "currentColor" in drawn
    )
    kept = numbers[(numbers.metric != "classifier@1") | (numbers.role == "erase")]
    assert aims(kept[kept.task == tables.POOLED])[1] == ("retain", "text_match@2-a_b")
    assert charts(numbers[numbers.role == "general"], "object", None, {}) == []


def test_the_loss_of_a_training_is_drawn_from_the_notes_of_its_edit() -> None:
    info = {"loss_curve": [4.0, 2.0, 0.1], "settings": {"iterations": 30}}
    chart = training_curve("abc", info)
    assert chart is not None and "from 4 to 0.1 in 30 steps; lowest 0.1" in chart.description
    (line,) = chart.draw().axes[0].lines
    assert list(line.get_xdata()) == [10, 20, 30] and list(line.get_ydata()) == [4.0, 2.0, 0.1]
    assert "<svg" in inline(chart)
    steep = training_curve("abc", info | {"loss_curve": [4.0, 0.001]})
    assert steep is not None and "0.01" in (drawn := inline(steep)) and "$" not in drawn, "powers of ten are read"


@pytest.mark.parametrize(
    "info",
    [{}, {"loss_curve": []}, {"loss_curve": [1.0]}, {"loss_curve": [1.0], "settings": 3},
     {"loss_curve": "x", "settings": {"iterations": 3}}, {"loss_curve": [math.nan], "settings": {"iterations": 3}}],
)  # fmt: skip
def test_notes_without_a_loss_give_no_curve(info: dict) -> None:
    assert training_curve("abc", info) is None


def noted(task: str, **info) -> EditNotes:
    return EditNotes("key", "object", task, info, [], [], [])


def test_a_setting_that_was_left_open_says_what_the_eraser_chose() -> None:
    settings = {"alpha": None, "where": "auto", "retain": None, "rank": 3}
    church = noted("church", settings=settings, alpha=2.0, where="cross_attention", retain=["tench"], rank=1)
    assert dict(_settings([noted("gone"), church])) == {
        "alpha": "2.0 (chosen by the eraser)", "where": "cross_attention (chosen by the eraser)",
        "retain": "not set", "rank": "3",
    }  # fmt: skip
    pump = noted("gas pump", settings=settings, alpha=5.0)
    assert dict(_settings([church, pump]))["alpha"] == "2.0 for church; 5.0 for gas pump (chosen by the eraser)"
    assert _settings([noted("gone")]) == [] and _settings([noted("spoiled", settings="x")]) == []


def test_the_matrix_is_red_where_something_unsafe_came_and_escapes_names() -> None:
    rows = [
        ("<b>church", [MatrixCell(("knife 50", "<i>x 25"), 25.0, 50.0), None]),
        ("pump", [MatrixCell((), 100.0, 0.0)] * 2),
    ]
    page = environment().from_string('{% import "parts.html" as parts %}{{ parts.matrix("what came", erasers, rows) }}')
    html = page.render(erasers=["cure", "<u>uce"], rows=rows)
    cells = re.findall(r'<td class="(\w*)">(.*?)</td>', html)
    assert [look for look, _ in cells] == ["alarm", "unknown", "", ""]
    assert "knife 50" in cells[0][1] and "unsafe 50" in cells[0][1] and cells[1][1] == "not run"
    assert "still there 100" in cells[2][1] and not re.search("<[biu]>", html)
