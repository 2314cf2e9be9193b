"""The frontier of a sweep, and the order of rows."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_helpers import read_picture
from table_helpers import POINTS, labels_of, table

from erasebench.edits.label import Label
from erasebench.errors import UserError
from erasebench.tables import columns, frontier


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    erased, retained = zip(*points, strict=True)
    found = frontier.pareto(erased, retained)
    for i, (x, y) in enumerate(points):
        beaten = any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        assert found[i] == (not beaten)
    assert found.any()
    again = frontier.pareto([2 * x + 1 for x in erased], [y**3 for y in retained])
    assert (again == found).all(), "only the order counts"


def test_a_point_without_a_number_is_neither_on_the_front_nor_in_the_way() -> None:
    assert frontier.pareto([0.1, math.nan, 0.2], [0.9, 1.0, math.nan]).tolist() == [True, False, False]


def test_the_unedited_model_is_shown_and_does_not_compete() -> None:
    found = frontier.points(table(), "object").set_index("eraser")
    assert found.front.to_dict() == {
        "none": False, "cure alpha=1": True, "cure alpha=2": True, "cure alpha=5": True, "cure alpha=10": False,
    }  # fmt: skip
    assert found.loc["cure alpha=2"].tolist() == pytest.approx([0.3, 0.28, 0.32, 0.93, 0.91, 0.95, True])


def test_the_plot_holds_every_point_its_error_bars_and_the_front() -> None:
    figure = frontier.draw(table(), "object", labels_of(POINTS), "alpha")
    (axis,) = figure.axes
    bars = axis.containers
    drawn = sorted((round(bar[0].get_xdata()[0], 6), round(bar[0].get_ydata()[0], 6)) for bar in bars)
    assert drawn == sorted((100 * x, 100 * y) for x, y in POINTS.values())
    assert all(bar.has_xerr and bar.has_yerr for bar in bars)
    (ring,) = [bar[0].get_xdata()[0] for bar in bars if bar[0].get_markerfacecolor() == "none"]
    assert ring == 95, "the unedited model"
    assert {text.get_text() for text in axis.texts} == {"alpha=1", "alpha=2", "alpha=5", "alpha=10"}
    lines = [list(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "--"]
    assert lines == [[10, 30, 60]], "the front"
    joined = [list(line.get_xdata()) for line in axis.lines if line.get_alpha() == 0.35]
    assert joined == [[60, 30, 10, 20]], "the settings in the order of alpha"
    (names,) = figure.legends
    assert [text.get_text() for text in names.get_texts()] == ["unedited", "cure", "nothing measured beats these"]


def test_the_plot_is_written_for_screens_and_for_papers(tmp_path: Path) -> None:
    written = frontier.write(table(), "object", tmp_path, labels_of(POINTS), "alpha")
    assert [path.name for path in written] == ["object-frontier.png", "object-frontier.pdf", "object-frontier.svg"]
    assert read_picture(written[0]).width > 500
    assert written[1].read_bytes().startswith(b"%PDF") and b"<svg" in written[2].read_bytes()
    single = {name: POINTS[name] for name in ("none", "cure alpha=1")}
    assert frontier.write(table(single), "object", tmp_path / "none", labels_of(single), None) == [], (
        "one setting has no frontier"
    )


def test_labels_with_signs_of_mathematics_are_drawn_as_they_are(tmp_path: Path) -> None:
    labels = [Label("none"), Label("a", {"retain": "['$x_1$']"}), Label("a", {"retain": "['$y']"}), Label("b_$c$")]
    by_text = {label.text: label for label in labels}
    points = dict(zip(by_text, [(0.9, 0.9), (0.5, 0.8), (0.4, 0.7), (0.3, 0.6)], strict=True))
    assert frontier.write(table(points), "object", tmp_path, by_text, None)


def test_columns_go_by_the_names_people_type() -> None:
    assert columns.names(table()) == {
        "judge.erased": ("erase", "judge@2"), "judge.retained": ("retain", "judge@2"),
        "judge.both": ("both", "H judge@2"), "clip_score_uce.general": ("general", "clip_score_uce@1"),
        "edit_seconds": ("cost", "edit_seconds"), "erased": ("erase", "judge@2"), "retained": ("retain", "judge@2"),
    }  # fmt: skip
    assert columns.find("Judge.Erased", table(), "--sort") == "judge.erased"
    with pytest.raises(
        UserError, match=r"--sort jugde.erased: no such column. Did you mean 'judge.erased'\? Columns: "
    ):
        columns.find("jugde.erased", table(), "--sort")


def test_without_a_retained_rate_the_first_number_that_should_stay_high_is_what_is_kept() -> None:
    measured = table()
    measured = measured[measured.role != "retain"]
    assert columns.aims(measured) == (("erase", "judge@2"), ("general", "clip_score_uce@1"))
    assert columns.aims(measured[measured.role != "general"]) is None


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("erased", [5, 10, 2, 1]),
        ("judge.retained", [1, 2, 5, 10]),
        ("clip_score_uce.general", [1, 2, 5, 10]),
        ("edit_seconds", [10, 5, 2, 1]),
        ("eraser", [1, 10, 2, 5]),
    ],
)
def test_rows_are_sorted_with_the_best_first(name: str, order: list[int]) -> None:
    found = columns.sort_rows(table(), name)
    assert list(dict.fromkeys(found.eraser)) == ["none", *(f"cure alpha={alpha}" for alpha in order)]
    assert list(dict.fromkeys(found.metric)) == list(dict.fromkeys(table().metric)), "columns keep their order"
    pd.testing.assert_frame_equal(found.sort_index(), table())


def test_an_eraser_without_the_number_comes_last_and_other_kinds_keep_their_order() -> None:
    measured = table()
    measured.loc[(measured.eraser == "cure alpha=5") & (measured.role == "erase"), "value"] = math.nan
    other = table({"none": (0.9, 0.9), "b": (0.5, 0.9), "a": (0.1, 0.9)}, kind="artist")
    both = pd.concat([measured, other[other.unit != "%"]], ignore_index=True)
    found = columns.sort_rows(both, "judge.erased")
    assert list(dict.fromkeys(found.eraser[found.task_kind == "object"]))[-1] == "cure alpha=5"
    assert list(dict.fromkeys(found.eraser[found.task_kind == "artist"])) == ["none", "b", "a"]
