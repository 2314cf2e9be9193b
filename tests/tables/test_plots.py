"""The plot of strength shows what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from table_helpers import METRICS, labels_of, make_plan, make_scores

from erasebench.edits.label import Label
from erasebench.tables import measure as tables
from erasebench.tables import plots


def test_strength_plot_has_every_setting_with_its_interval() -> None:
    plan = make_plan(erasers=("none", "cure alpha=10", "cure alpha=1", "cure alpha=2"))
    measured = tables.measure(plan, make_scores(plan), METRICS)
    (axis,) = plots.draw_strength(measured, "object", "alpha", labels_of(plan.eraser)).axes
    assert [container.get_label() for container in axis.containers] == ["erased ↓", "kept ↑"]
    for container, role in zip(axis.containers, ("erase", "retain"), strict=True):
        line, _, (bars,) = container.lines
        assert list(line.get_xdata()) == [1, 2, 10]
        pooled = measured[(measured.task == "all") & (measured.role == role) & (measured.metric == "classifier@1")]
        for (x, y), segment in zip(line.get_xydata(), bars.get_segments(), strict=True):
            row = pooled[pooled.eraser == f"cure alpha={x:g}"].iloc[0]
            np.testing.assert_allclose(
                [y, segment[0][1], segment[1][1]], [100 * row.value, 100 * row.low, 100 * row.high]
            )
    assert axis.get_xlabel() == "alpha"


def test_strength_plot_is_written_as_png_and_svg(tmp_path: Path) -> None:
    plan = make_plan(erasers=("none", "cure alpha=1", "cure alpha=100"))
    measured = tables.measure(plan, make_scores(plan), METRICS)
    figure = plots.draw_strength(measured, "object", "alpha", labels_of(plan.eraser))
    plots.write(figure, tmp_path / "plot", ("png", "svg"))
    assert Image.open(tmp_path / "plot.png").width > 500 and b"<svg" in (tmp_path / "plot.svg").read_bytes()[:500]


def test_labels_that_differ_in_more_than_the_option_are_lines_of_their_own() -> None:
    plan = make_plan(erasers=("none", *(f"cure alpha={a} rule={rule}" for a in (1, 2) for rule in ("all", "mean"))))
    measured = tables.measure(plan, make_scores(plan), METRICS)
    (axis,) = plots.draw_strength(measured, "object", "alpha", labels_of(plan.eraser)).axes
    lines = {container.get_label(): list(container.lines[0].get_xdata()) for container in axis.containers}
    assert lines == {f"{role} cure rule={rule}": [1, 2] for role in ("erased ↓", "kept ↑") for rule in ("all", "mean")}


def test_a_default_has_its_place_on_the_line_and_erasers_that_nothing_varies_have_none() -> None:
    plan = make_plan(erasers=("none", "uce", "cure", "cure alpha=5"))
    labels = {"none": Label("none"), "uce": Label("uce", {}, {"alpha": 3}), "cure": Label("cure", {}, {"alpha": 2}),
              "cure alpha=5": Label("cure", {"alpha": 5})}  # fmt: skip
    measured = tables.measure(plan, make_scores(plan), METRICS)
    (axis,) = plots.draw_strength(measured, "object", "alpha", labels).axes
    assert [list(container.lines[0].get_xdata()) for container in axis.containers] == [[2, 5], [2, 5]]
