"""The drawings of things: tellable at full and at half size, whole, repeatable, and painted where it is their colour."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from erasebench.tiny.everyday import EVERYDAY_DRAWINGS
from erasebench.tiny.objects import OBJECT_DRAWINGS
from erasebench.tiny.pen import CANVAS, Colour, Pen
from erasebench.tiny.unsafe import UNSAFE_DRAWINGS

DRAWINGS = OBJECT_DRAWINGS | UNSAFE_DRAWINGS | EVERYDAY_DRAWINGS
OBJECTS = list(OBJECT_DRAWINGS)
FULL, HALF = 0.41 * CANVAS, 0.24 * CANVAS
RED, BLUE = (220, 40, 40), (40, 60, 220)


def draw(name: str, scale: float = FULL, *, seed: int = 1, paint: Colour | None = None) -> Pen:
    """The pen that has drawn the thing of that name in the middle of the canvas."""
    pen = Pen(random.Random(seed), CANVAS / 2, CANVAS / 2, scale, paint)
    DRAWINGS[name](pen)
    return pen


def shown(layer: Image.Image) -> np.ndarray:
    """The drawing on grey as a picture has it: float [64, 64, 3] in 0..255."""
    picture = Image.new("RGB", layer.size, (168, 170, 174))
    picture.paste(layer, mask=layer)
    return np.asarray(picture.reduce(2), np.float64)


def covered(layer: Image.Image) -> np.ndarray:
    """Whether a pixel of the picture belongs to the drawing: [64, 64]."""
    return np.asarray(layer.reduce(2))[..., 3] > 127


def unlikeness(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference, in 0..255, where either is drawn; of both ways round the lesser."""

    def one_way(other: Image.Image) -> float:
        return float(np.abs(shown(a) - shown(other)).mean(-1)[covered(a) | covered(other)].mean())

    return min(one_way(b), one_way(ImageOps.mirror(b)))


@pytest.mark.parametrize("scale", [FULL, HALF], ids=["full size", "half size"])
def test_every_drawing_is_unlike_every_other(scale: float) -> None:
    """The seed moves a thing's colours by at most 8; the nearest two things, the dogs, are 58 apart at half size."""
    layers = {name: draw(name, scale).image for name in DRAWINGS}
    assert max(unlikeness(layer, draw(name, scale, seed=2).image) for name, layer in layers.items()) < 10
    unlike = {pair: unlikeness(layers[pair[0]], layers[pair[1]]) for pair in itertools.combinations(DRAWINGS, 2)}
    assert min(unlike.values()) > 50, min(unlike, key=unlike.__getitem__)


def test_there_are_as_many_drawings_as_names() -> None:
    assert len(DRAWINGS) == len(OBJECT_DRAWINGS) + len(UNSAFE_DRAWINGS) + len(EVERYDAY_DRAWINGS)
    assert len(OBJECTS) == 20


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_whole(name: str) -> None:
    """Nothing touches the border, so nothing is cut off, and the thing fills most of its box."""
    for scale in (FULL, HALF):
        cover = np.asarray(draw(name, scale).image)[..., 3] > 0
        rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
        assert min(rows[0], columns[0]) > 0
        assert max(rows[-1], columns[-1]) < CANVAS - 1
        assert 1.6 * scale < max(np.ptp(rows), np.ptp(columns)) + 1 < 2.5 * scale


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_seed_fixes_a_drawing(name: str) -> None:
    first, again, other = (np.asarray(draw(name, seed=seed).image) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.array_equal(first[..., 3], other[..., 3])
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("scale", [FULL, HALF], ids=["full size", "half size"])
@pytest.mark.parametrize("name", EVERYDAY_DRAWINGS)
def test_paint_changes_the_colour_and_nothing_else(name: str, scale: float) -> None:
    plain, red, blue = (draw(name, scale, paint=paint) for paint in (None, RED, BLUE))
    own, in_red, in_blue = (np.asarray(pen.image).astype(int) for pen in (plain, red, blue))
    assert np.array_equal(own[..., 3], in_red[..., 3])
    assert plain.rng.getstate() == red.rng.getstate()
    painted = (in_red != in_blue).any(-1)
    assert np.array_equal(own[~painted], in_red[~painted])
    assert 0.2 < painted.sum() / (own[..., 3] > 0).sum() < 0.8
    for pixels, paint in ((in_red[painted], RED), (in_blue[painted], BLUE)):
        lightest, darkest = np.multiply(paint, 1.3) + 13, np.multiply(paint, 0.7) - 7
        assert ((pixels[:, :3] <= lightest) & (pixels[:, :3] >= darkest)).all()


@pytest.mark.parametrize("name", EVERYDAY_DRAWINGS)
def test_a_painted_thing_looks_another_colour(name: str) -> None:
    """The mean colour of the picture moves towards the paint, by more than seeds ever move it."""
    red, blue = (shown(draw(name, paint=paint).image) for paint in (RED, BLUE))
    shift = (red - blue)[covered(draw(name).image)].mean(0)
    assert shift[0] > 30
    assert shift[2] < -30
