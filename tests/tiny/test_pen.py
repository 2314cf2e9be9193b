"""The pen: paint instead of a drawing's main colour, widths that shrink with the subject, shapes it turns."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasebench.tiny.pen import CANVAS, Colour, Pen, bow, shade, turn

STANDARD = 0.41 * CANVAS
colours = st.tuples(*[st.integers(0, 255)] * 3)
numbers = st.floats(-2, 2)


def pen(scale: float = STANDARD, paint: Colour | None = None) -> Pen:
    return Pen(random.Random(7), CANVAS / 2, CANVAS / 2, scale, paint)


def ink(scale: float, width: float) -> int:
    """Breadth in canvas pixels of a horizontal line of that `width`."""
    p = pen(scale)
    p.line((0, 0, 0), width, -0.5, 0.0, 0.5, 0.0)
    return int(np.count_nonzero(np.asarray(p.image)[:, CANVAS // 2, 3]))


@given(colours, colours)
def test_paint_takes_the_place_of_the_tone(colour: Colour, paint: Colour) -> None:
    assert pen(paint=paint).tone(colour) == pen().tone(paint)


@given(colours)
def test_paint_draws_no_other_random_numbers(paint: Colour) -> None:
    plain, painted = pen(), pen(paint=paint)
    plain.tone((10, 20, 30))
    painted.tone((10, 20, 30))
    assert plain.rng.getstate() == painted.rng.getstate()


def test_black_is_a_paint() -> None:
    assert max(pen(paint=(0, 0, 0)).tone((255, 255, 255))) <= 10


@pytest.mark.parametrize(
    ("scale", "breadth"),
    [(1.0, 10), (0.8, 8), (0.6, 6), (0.3, 6), (1.2, 12)],
)
def test_widths_shrink_with_the_subject_down_to_six_tenths(scale: float, breadth: int) -> None:
    assert ink(scale * STANDARD, 10) == breadth


def test_the_thinnest_line_is_seen() -> None:
    assert ink(0.3 * STANDARD, 0.5) == 1


@pytest.mark.parametrize(("scale", "breadth"), [(1.0, 10), (0.6, 6), (0.3, 6)])
@pytest.mark.parametrize("shape", ["rect", "ellipse"])
def test_outlines_shrink_as_lines_do(shape: str, scale: float, breadth: int) -> None:
    p = pen(scale * STANDARD)
    if shape == "rect":
        p.rect((255, 255, 255), -0.9, -0.9, 0.9, 0.9, 10)
    else:
        p.ellipse((255, 255, 255), 0.0, 0.0, 0.9, 0.9, 10)
    row = np.asarray(p.image)[CANVAS // 2]
    assert np.count_nonzero((row[:, 3] > 0) & (row[:, 0] < 128)) == 2 * breadth


@given(st.floats(-360, 360), numbers, numbers)
def test_turning_is_a_rotation(degrees: float, x: float, y: float) -> None:
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert turn(degrees, x, y, 1.0, 0.0) == pytest.approx([*(matrix @ [x, y]), *matrix[:, 0]])


@given(numbers, numbers, st.floats(0.1, 2), st.floats(0.1, 2), st.floats(-360, 360), st.floats(-360, 360))
def test_a_bow_lies_on_its_ellipse(x: float, y: float, rx: float, ry: float, start: float, end: float) -> None:
    points = np.reshape(bow(x, y, rx, ry, start, end), (-1, 2))
    assert np.square((points - [x, y]) / [rx, ry]).sum(1) == pytest.approx(np.ones(13))
    for point, degrees in ((points[0], start), (points[-1], end)):
        angle = np.radians(degrees)
        assert point == pytest.approx([x + rx * np.cos(angle), y + ry * np.sin(angle)])


@given(colours, st.floats(0, 3))
def test_a_shade_is_a_colour(colour: Colour, factor: float) -> None:
    assert shade(colour, factor) == tuple(min(255, round(c * factor)) for c in colour)
