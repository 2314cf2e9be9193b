"""Parts of the faces of the embedded world, and its unknown faces.

Unknown faces have none of the marks of a known one: no hat, no beard, plain hair and a plain shirt.
"""

from __future__ import annotations

from erasebench.tiny.pen import BLACK, WHITE, Colour, Pen

PALE, TAN, DARK = (250, 214, 184), (222, 166, 116), (150, 94, 56)
"""Colours of skin."""


def coat(p: Pen, colour: Colour) -> None:
    """Shoulders that run off the bottom of the frame."""
    p.poly(p.tone(colour), -1.4, 1.6, -1.0, 0.98, -0.45, 0.78, 0.45, 0.78, 1.0, 0.98, 1.4, 1.6)


def head(p: Pen, skin: Colour) -> None:
    """An oval head without hair or features."""
    p.ellipse(p.tone(skin, 6), 0.0, 0.1, 0.6, 0.76)


def eyes(p: Pen, brow: Colour | None = None) -> None:
    """Two eyes, with separate brows when `brow` is a colour."""
    for x in (-0.25, 0.25):
        p.ellipse(WHITE, x, -0.02, 0.15, 0.13, 3)
        p.ellipse(BLACK, x, 0.0, 0.08, 0.09, 0)
        if brow:
            p.line(brow, 6, x - 0.15, -0.23, x + 0.15, -0.23)


def nose(p: Pen) -> None:
    """A nose turned to the left."""
    p.line((150, 90, 60), 5, 0.0, 0.08, 0.07, 0.26, -0.05, 0.28)


def mouth(p: Pen, colour: Colour = (188, 60, 60), y: float = 0.52, half: float = 0.2) -> None:
    """A straight mouth `2 * half` wide at height `y`."""
    p.line(colour, 7, -half, y, half, y)


def moustache(p: Pen, colour: Colour) -> None:
    """A broad moustache with drooping ends."""
    p.poly(colour, -0.4, 0.58, -0.3, 0.38, 0.0, 0.32, 0.3, 0.38, 0.4, 0.58, 0.0, 0.5, edge=0)


def stranger(p: Pen, woman: bool) -> None:
    """An unknown face; skin, hair colour and shirt are drawn from the pen's random stream."""
    pick = p.rng.random
    skin = (PALE, TAN, DARK)[int(pick() * 3)]
    hair = ((90, 54, 28), (206, 160, 70), (168, 74, 30))[int(pick() * 3)]
    shirt = ((210, 70, 60), (70, 130, 200), (96, 164, 90))[int(pick() * 3)]
    if woman:
        p.poly(hair, -0.72, -0.4, 0.72, -0.4, 0.86, 1.0, -0.86, 1.0)
    coat(p, shirt)
    p.ellipse(hair, 0.0, -0.22, 0.7, 0.68)
    head(p, skin)
    p.sector(hair, 0.0, -0.14, 0.57, 0.52, 180, 360, 0)
    eyes(p)
    nose(p)
    mouth(p, (206, 50, 70) if woman else (170, 80, 70))
