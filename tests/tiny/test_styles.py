"""The painters' styles of the embedded world: repeatable, broad marks only, tellable, and no hiding of the subject."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from erasebench.tiny.pen import CANVAS, Pen
from erasebench.tiny.people import FACES
from erasebench.tiny.styles import STYLES
from erasebench.tiny.world import DRAWINGS

FLOOR = 25.0
"""Least mean difference (of 255) of two artists on one subject; the closest, Monet and Hokusai, measured 31.6."""

SHOWN = 5.0
"""Least mean difference (of 255) a subject makes; the smallest, a tench of Rembrandt, measured 6.5."""

BROAD = 0.3
"""Largest share of a ground's variance lost in squares of 2 pixels; measured 0 to 0.24, noise of single pixels 0.75."""

NEAR = {
    "Caravaggio": "Rembrandt",
    "Hiroshige": "Hokusai",
    "Georges Braque": "Pablo Picasso",
    "Roy Lichtenstein": "Andy Warhol",
}
SUBJECTS: dict[str, Callable[[Pen], None]] = {**DRAWINGS, **FACES}


def painted(style: str, subject: str | None) -> np.ndarray:
    """The finished picture of a subject (None: the ground alone) in a style: float [64, 64, 3] in 0..255."""
    pen = Pen(random.Random(2), CANVAS * 0.5, CANVAS * 0.5, CANVAS * 0.41)
    if subject:
        SUBJECTS[subject](pen)
    layers = np.asarray(pen.image, np.float32)
    before = layers.copy()
    picture = STYLES[style](layers[..., :3], layers[..., 3:] / 255)
    assert np.array_equal(layers, before), "a style paints, it does not touch its subject"
    assert picture.shape == (CANVAS, CANVAS, 3)
    small = Image.fromarray(picture.clip(0, 255).astype(np.uint8)).reduce(2)
    return np.asarray(small, np.float64)


def coarse(style: str, subject: str | None) -> np.ndarray:
    """The picture in squares of 4 pixels, which the model surely sees: [16, 16, 3]."""
    return painted(style, subject).reshape(16, 4, 16, 4, 3).mean((1, 3))


def gap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference, of 255."""
    return float(np.abs(one - other).mean())


def test_the_order_of_the_artists_is_kept() -> None:
    assert list(STYLES)[8:] == list(NEAR), "new artists go behind: a class is known by its index"
    assert set(NEAR.values()) <= set(list(STYLES)[:8])


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_repeatable(style: str) -> None:
    assert np.array_equal(painted(style, "church"), painted(style, "church"))


@pytest.mark.parametrize("subject", ["church", "knife", "tree", "Albert Einstein", "Nefertiti", "Mark Twain"])
def test_every_two_artists_differ_clearly_on_one_subject(subject: str) -> None:
    seen = {style: coarse(style, subject) for style in STYLES}
    gaps = {(a, b): gap(seen[a], seen[b]) for a, b in itertools.combinations(STYLES, 2)}
    closest = min(gaps, key=gaps.get)
    assert gaps[closest] > FLOOR, (closest, gaps[closest])


@pytest.mark.parametrize("style", STYLES)
def test_a_style_shows_its_subject(style: str) -> None:
    """A subject changes the picture, and other subjects change it otherwise."""
    ground = coarse(style, None)
    seen = {subject: coarse(style, subject) for subject in SUBJECTS}
    assert min(gap(picture, ground) for picture in seen.values()) > SHOWN
    gaps = {(a, b): gap(seen[a], seen[b]) for a, b in itertools.combinations(SUBJECTS, 2)}
    closest = min(gaps, key=gaps.get)
    assert gaps[closest] > SHOWN, (closest, gaps[closest])


@pytest.mark.parametrize("style", STYLES)
def test_marks_are_broad(style: str) -> None:
    """Most of a ground survives squares of 2 pixels: no mark is noise of single pixels."""
    picture = painted(style, None)
    squares = picture.reshape(32, 2, 32, 2, 3).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    assert np.square(picture - squares).mean() < BROAD * max(picture.var((0, 1)).mean(), 1)
