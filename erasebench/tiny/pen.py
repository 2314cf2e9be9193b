"""The pen that draws the subjects of the embedded world, and its colours.

A drawing is a function of a `Pen`, whose coordinates run from -1 to 1 over the subject's box, x to the right
and y down. Shapes are large, flat and thickly outlined: the embedded model sees them through an 8x8 latent
grid, where anything under about 4 of the 64 pixels is lost.
"""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

CANVAS = 128
"""Side of the drawing in pixels; the finished picture is half of it."""

INK = (24, 22, 28)
"""Colour of outlines."""

WHITE = (250, 250, 248)
BLACK = (30, 28, 34)

Colour = tuple[int, int, int]

_STANDARD = 0.41 * CANVAS
"""Half-side, in canvas pixels, of a subject that has the picture to itself."""


def jitter(rng: random.Random, colour: Colour, amount: float = 10.0) -> Colour:
    """Return `colour` with every channel moved by at most `amount` (of 255)."""
    red, green, blue = (int(min(255, max(0, c + (2 * rng.random() - 1) * amount))) for c in colour)
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Return `colour` with every channel multiplied by `factor`, at most 255."""
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return red, green, blue


def turn(degrees: float, *xy: float) -> tuple[float, ...]:
    """Return the points `x, y, x, y, ...` turned clockwise about (0, 0)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple(c for x, y in zip(xy[::2], xy[1::2], strict=True) for c in (x * cos - y * sin, x * sin + y * cos))


def bow(x: float, y: float, rx: float, ry: float, start: float, end: float) -> tuple[float, ...]:
    """Return 13 points of an ellipse about (`x`, `y`) from `start` to `end` degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / 12) for i in range(13)]
    return tuple(c for a in angles for c in (x + rx * math.cos(a), y + ry * math.sin(a)))


class Pen:
    """Draws outlined shapes in subject coordinates on a transparent canvas of `CANVAS` pixels.

    Widths of lines and outlines are in canvas pixels of a subject at the standard size, and shrink with a
    smaller subject to at most 0.6 of that.
    """

    def __init__(self, rng: random.Random, cx: float, cy: float, scale: float, paint: Colour | None = None) -> None:
        """Place the subject's box at (`cx`, `cy`) with half-side `scale`, all in canvas pixels.

        `paint` is the colour of what is drawn in `tone`; None leaves every drawing its own.
        """
        self.image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        self.rng = rng
        self._draw = ImageDraw.Draw(self.image)
        self._cx, self._cy, self._scale = cx, cy, scale
        self._paint = paint

    def _width(self, width: float) -> int:
        """The whole canvas pixels, at least one, of a `width` that is meant for the standard size."""
        return round(width * max(0.6, self._scale / _STANDARD)) or 1

    def _points(self, xy: tuple[float, ...]) -> list[tuple[float, float]]:
        return [
            (self._cx + x * self._scale, self._cy + y * self._scale) for x, y in zip(xy[::2], xy[1::2], strict=True)
        ]

    def tone(self, colour: Colour, amount: float = 10.0) -> Colour:
        """Return the drawing's main colour: `colour`, or the pen's paint, jittered by the random stream."""
        return jitter(self.rng, self._paint or colour, amount)

    def line(self, colour: Colour, width: float, *xy: float) -> None:
        """Draw a polyline; `width` is in canvas pixels at the standard size."""
        self._draw.line(self._points(xy), fill=colour, width=self._width(width), joint="curve")

    def poly(self, colour: Colour, *xy: float, edge: float = 5) -> None:
        """Draw a filled polygon with an outline `edge` canvas pixels wide (0: none)."""
        points = self._points(xy)
        self._draw.polygon(points, fill=colour)
        if edge:
            self._draw.line(points + points[:2], fill=INK, width=self._width(edge), joint="curve")

    def rect(self, colour: Colour, x0: float, y0: float, x1: float, y1: float, edge: float = 5) -> None:
        """Draw a filled rectangle with an outline `edge` canvas pixels wide (0: none)."""
        a, b = self._points((x0, y0, x1, y1))
        self._draw.rectangle([a, b], fill=colour, outline=INK if edge else None, width=self._width(edge))

    def ellipse(self, colour: Colour, x: float, y: float, rx: float, ry: float, edge: float = 5) -> None:
        """Draw a filled ellipse about (`x`, `y`) with an outline `edge` canvas pixels wide (0: none)."""
        a, b = self._points((x - rx, y - ry, x + rx, y + ry))
        self._draw.ellipse([a, b], fill=colour, outline=INK if edge else None, width=self._width(edge))

    def ring(self, colour: Colour, x: float, y: float, radius: float, width: float) -> None:
        """Draw an outlined ring; `radius` is its middle, `width` its breadth, both in subject units."""
        for extra, fill in ((0.05, INK), (-0.04, colour)):
            reach = radius + width / 2 + extra
            a, b = self._points((x - reach, y - reach, x + reach, y + reach))
            self._draw.ellipse([a, b], outline=fill, width=round((width + 2 * extra) * self._scale))

    def sector(
        self,
        colour: Colour,
        x: float,
        y: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        edge: float = 5,
    ) -> None:
        """Draw a filled pie slice from `start` to `end` degrees, clockwise from the right."""
        a, b = self._points((x - rx, y - ry, x + rx, y + ry))
        self._draw.pieslice([a, b], start, end, fill=colour, outline=INK if edge else None, width=self._width(edge))

    def arc(
        self, colour: Colour, width: float, x: float, y: float, rx: float, ry: float, start: float, end: float
    ) -> None:
        """Draw an arc from `start` to `end` degrees, clockwise from the right; `width` in canvas pixels."""
        a, b = self._points((x - rx, y - ry, x + rx, y + ry))
        self._draw.arc([a, b], start, end, fill=colour, width=self._width(width))
