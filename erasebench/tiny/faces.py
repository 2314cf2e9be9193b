"""Drawings of the people of the embedded world: ten known faces and unknown ones.

Each known face has its own silhouette (hair, hat), its own mark (beard, glasses, flowers) and its own coat.
Unknown faces have none of these marks: no hat, no beard, plain hair and a plain shirt.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from erasebench.tiny.draw import BLACK, INK, WHITE, Colour, Pen

PALE, TAN, DARK = (250, 214, 184), (222, 166, 116), (150, 94, 56)
GOLD = (246, 196, 40)


def _coat(p: Pen, colour: Colour) -> None:
    """Shoulders that run off the bottom of the frame."""
    p.poly(p.tone(colour), -1.4, 1.6, -1.0, 0.98, -0.45, 0.78, 0.45, 0.78, 1.0, 0.98, 1.4, 1.6)


def _head(p: Pen, skin: Colour) -> None:
    p.ellipse(p.tone(skin, 6), 0.0, 0.1, 0.6, 0.76)


def _eyes(p: Pen, brow: Colour | None = None) -> None:
    """Two eyes, with separate brows when `brow` is a colour."""
    for x in (-0.25, 0.25):
        p.ellipse(WHITE, x, -0.02, 0.15, 0.13, 3)
        p.ellipse(BLACK, x, 0.0, 0.08, 0.09, 0)
        if brow:
            p.line(brow, 6, x - 0.15, -0.23, x + 0.15, -0.23)


def _nose(p: Pen) -> None:
    p.line((150, 90, 60), 5, 0.0, 0.08, 0.07, 0.26, -0.05, 0.28)


def _mouth(p: Pen, colour: Colour = (188, 60, 60), y: float = 0.52, half: float = 0.2) -> None:
    p.line(colour, 7, -half, y, half, y)


def _moustache(p: Pen, colour: Colour) -> None:
    """A broad moustache with drooping ends."""
    p.poly(colour, -0.4, 0.58, -0.3, 0.38, 0.0, 0.32, 0.3, 0.38, 0.4, 0.58, 0.0, 0.5, edge=0)


def einstein(p: Pen) -> None:
    """Wild white hair all round, a grey moustache and a brown jumper."""
    _coat(p, (132, 84, 46))
    hair = p.tone((232, 232, 236), 6)
    locks = [(0.78 * math.cos(math.radians(a)), -0.16 + 0.74 * math.sin(math.radians(a))) for a in range(160, 400, 30)]
    for x, y in locks:
        p.ellipse(hair, x, y, 0.31, 0.31, 4)
    for x, y in locks:
        p.ellipse(hair, x, y, 0.25, 0.25, 0)
    _head(p, PALE)
    _eyes(p, (190, 190, 196))
    _nose(p)
    _moustache(p, (176, 176, 184))
    _mouth(p, y=0.64, half=0.14)


def lincoln(p: Pen) -> None:
    """A tall black top hat, a dark chin beard without moustache, a black coat and a white collar."""
    _coat(p, (44, 42, 50))
    p.poly(WHITE, -0.4, 0.8, 0.4, 0.8, 0.0, 1.25, edge=4)
    _head(p, TAN)
    p.sector((48, 30, 22), 0.0, 0.3, 0.63, 0.72, 0, 180, 0)
    p.ellipse(TAN, 0.0, 0.26, 0.4, 0.38, 0)
    _eyes(p, (48, 30, 22))
    _nose(p)
    _mouth(p, y=0.5)
    p.rect((40, 38, 48), -0.56, -1.3, 0.56, -0.4)
    p.rect((150, 40, 50), -0.56, -0.6, 0.56, -0.44, 0)
    p.rect((40, 38, 48), -0.95, -0.48, 0.95, -0.3, 3)


def chaplin(p: Pen) -> None:
    """A bowler over black curls, a toothbrush moustache and a grey coat with a black tie."""
    _coat(p, (150, 152, 160))
    p.poly(WHITE, -0.4, 0.78, 0.4, 0.78, 0.0, 1.3, edge=4)
    p.poly(BLACK, -0.12, 0.86, 0.12, 0.86, 0.16, 1.6, -0.16, 1.6, edge=0)
    for x in (-0.62, 0.62):
        p.ellipse(BLACK, x, -0.08, 0.22, 0.27, 0)
    _head(p, (255, 236, 220))
    _eyes(p, BLACK)
    p.rect(BLACK, -0.14, 0.28, 0.14, 0.46, 0)
    _mouth(p, y=0.62, half=0.18)
    p.sector((52, 46, 44), 0.0, -0.36, 0.62, 0.72, 180, 360, 5)
    p.ellipse((52, 46, 44), 0.0, -0.36, 0.92, 0.14, 4)


def kahlo(p: Pen) -> None:
    """Big red, pink and yellow flowers on black hair, one joined brow, red lips, a green dress."""
    _coat(p, (22, 142, 112))
    p.ellipse(BLACK, 0.0, -0.12, 0.74, 0.78, 0)
    _head(p, TAN)
    p.sector(BLACK, 0.0, -0.1, 0.6, 0.6, 180, 360, 0)
    p.poly(TAN, -0.46, -0.08, 0.0, -0.5, 0.46, -0.08, edge=0)
    _eyes(p)
    p.line(BLACK, 9, -0.44, -0.16, -0.2, -0.24, 0.0, -0.17, 0.2, -0.24, 0.44, -0.16)
    _nose(p)
    p.ellipse((214, 24, 44), 0.0, 0.54, 0.2, 0.1, 0)
    for x, y, colour in (
        (-0.62, -0.66, (240, 90, 160)),
        (0.62, -0.66, (240, 90, 160)),
        (-0.24, -0.92, (226, 30, 40)),
        (0.26, -0.92, (226, 30, 40)),
    ):
        p.ellipse(colour, x, y, 0.3, 0.3, 4)
        p.ellipse(GOLD, x, y, 0.12, 0.12, 0)


def napoleon(p: Pen) -> None:
    """A wide black bicorne with a cockade, a navy coat with white lapels and gold epaulettes."""
    _coat(p, (34, 54, 128))
    p.poly(WHITE, -0.42, 0.78, 0.42, 0.78, 0.3, 1.6, -0.3, 1.6, edge=4)
    for x in (-0.98, 0.98):
        p.ellipse(GOLD, x, 1.02, 0.3, 0.15, 4)
    p.ellipse((78, 46, 26), 0.0, -0.05, 0.68, 0.6, 0)
    _head(p, PALE)
    p.poly((78, 46, 26), -0.5, -0.36, 0.5, -0.36, 0.1, -0.1, edge=0)
    _eyes(p, (78, 46, 26))
    _nose(p)
    _mouth(p)
    p.poly(
        (38, 40, 58),
        -1.25,
        -0.28,
        -0.95,
        -0.72,
        -0.35,
        -1.18,
        0.35,
        -1.18,
        0.95,
        -0.72,
        1.25,
        -0.28,
        0.6,
        -0.36,
        -0.6,
        -0.36,
        edge=5,
    )
    p.ellipse(WHITE, 0.0, -0.74, 0.24, 0.24, 0)
    p.ellipse((224, 30, 44), 0.0, -0.74, 0.14, 0.14, 0)


def cleopatra(p: Pen) -> None:
    """A square black bob with a fringe, a gold headband with a jewel, and a wide gold and blue collar."""
    _coat(p, GOLD)
    p.arc((28, 100, 200), 10, 0.0, 0.5, 0.9, 0.84, 20, 160)
    p.rect((26, 24, 32), -0.88, -0.8, 0.88, 0.84, 0)
    p.ellipse((26, 24, 32), 0.0, -0.62, 0.88, 0.5, 0)
    _head(p, (206, 142, 84))
    p.rect((26, 24, 32), -0.62, -0.72, 0.62, -0.22, 0)
    p.rect(GOLD, -0.9, -0.72, 0.9, -0.46, 4)
    p.ellipse((24, 160, 170), 0.0, -0.66, 0.17, 0.24, 4)
    for s in (-1, 1):
        p.line(BLACK, 7, s * 0.1, 0.0, s * 0.52, -0.08)
    _eyes(p)
    _nose(p)
    p.ellipse((190, 36, 50), 0.0, 0.53, 0.18, 0.09, 0)


def shakespeare(p: Pen) -> None:
    """A high bald forehead, brown hair at the sides, a pointed beard, a huge white ruff, a red doublet."""
    _coat(p, (150, 24, 40))
    for x in (-0.66, 0.66):
        p.ellipse((106, 60, 26), x, 0.12, 0.26, 0.56, 4)
    for i in range(7):
        p.ellipse(WHITE, -0.93 + 0.31 * i, 0.94 + 0.1 * math.cos((i - 3) * 0.7), 0.24, 0.27, 4)
    p.ellipse(p.tone(PALE, 6), 0.0, -0.02, 0.58, 0.88)
    _eyes(p, (106, 60, 26))
    _nose(p)
    p.poly((106, 60, 26), -0.34, 0.44, 0.0, 0.32, 0.34, 0.44, 0.0, 0.46, edge=0)
    p.poly((106, 60, 26), -0.18, 0.62, 0.18, 0.62, 0.0, 0.98, edge=0)
    _mouth(p, y=0.54, half=0.16)


def gandhi(p: Pen) -> None:
    """A bald brown head, big round glasses, a white moustache and a white shawl."""
    _coat(p, (246, 244, 236))
    p.line(INK, 5, -0.2, 0.9, 0.5, 1.5)
    for x in (-0.62, 0.62):
        p.ellipse(DARK, x, 0.08, 0.17, 0.24, 5)
    p.ellipse(p.tone(DARK, 6), 0.0, 0.0, 0.62, 0.84)
    for x in (-0.29, 0.29):
        p.ellipse((226, 236, 240), x, -0.02, 0.25, 0.24, 6)
        p.ellipse(BLACK, x, 0.0, 0.09, 0.1, 0)
    _nose(p)
    _moustache(p, (232, 232, 230))
    _mouth(p, (96, 34, 34), y=0.62, half=0.16)


def victoria(p: Pen) -> None:
    """A small gold crown on a long white veil, grey parted hair, a black dress with a light blue sash."""
    p.poly(WHITE, -0.5, -0.72, 0.5, -0.72, 0.86, -0.2, 1.02, 1.1, -1.02, 1.1, -0.86, -0.2)
    _coat(p, (52, 44, 60))
    p.poly((90, 180, 240), -0.85, 0.9, -0.5, 0.8, 0.75, 1.6, 0.3, 1.6, edge=0)
    _head(p, (252, 216, 196))
    p.sector((140, 132, 134), 0.0, 0.0, 0.6, 0.66, 180, 360, 0)
    p.poly((252, 216, 196), -0.46, 0.02, 0.0, -0.42, 0.46, 0.02, edge=0)
    _eyes(p)
    _nose(p)
    _mouth(p, half=0.14)
    p.poly(GOLD, -0.42, -0.54, -0.54, -1.12, -0.22, -0.84, 0.0, -1.24, 0.22, -0.84, 0.54, -1.12, 0.42, -0.54)
    p.ellipse((214, 30, 60), 0.0, -0.74, 0.12, 0.12, 0)


def washington(p: Pen) -> None:
    """A smooth white wig with rolled side curls, pink cheeks, a dark blue coat with buff lapels."""
    _coat(p, (40, 70, 130))
    for s in (-1, 1):
        p.poly((238, 206, 120), s * 0.42, 0.8, s * 0.95, 1.0, s * 0.45, 1.6, edge=4)
    p.poly(WHITE, -0.32, 0.78, 0.32, 0.78, 0.22, 1.5, -0.22, 1.5, edge=4)
    p.ellipse((236, 234, 228), 0.0, -0.34, 0.76, 0.74)
    _head(p, (252, 206, 178))
    p.sector((236, 234, 228), 0.0, -0.16, 0.62, 0.54, 180, 360, 0)
    for s in (-1, 1):
        for y in (0.1, 0.46):
            p.ellipse((236, 234, 228), s * 0.76, y, 0.3, 0.19, 4)
        p.ellipse((244, 150, 140), s * 0.36, 0.3, 0.13, 0.1, 0)
    _eyes(p, (150, 130, 120))
    _nose(p)
    _mouth(p, half=0.16)


def stranger(p: Pen, woman: bool) -> None:
    """An unknown face; skin, hair colour and shirt are drawn from the pen's random stream."""
    pick = p.rng.random
    skin = (PALE, TAN, DARK)[int(pick() * 3)]
    hair = ((90, 54, 28), (206, 160, 70), (168, 74, 30))[int(pick() * 3)]
    shirt = ((210, 70, 60), (70, 130, 200), (96, 164, 90))[int(pick() * 3)]
    if woman:
        p.poly(hair, -0.72, -0.4, 0.72, -0.4, 0.86, 1.0, -0.86, 1.0)
    _coat(p, shirt)
    p.ellipse(hair, 0.0, -0.22, 0.7, 0.68)
    _head(p, skin)
    p.sector(hair, 0.0, -0.14, 0.57, 0.52, 180, 360, 0)
    _eyes(p)
    _nose(p)
    _mouth(p, (206, 50, 70) if woman else (170, 80, 70))


FACES: dict[str, Callable[[Pen], None]] = {
    "Albert Einstein": einstein,
    "Abraham Lincoln": lincoln,
    "Charlie Chaplin": chaplin,
    "Frida Kahlo": kahlo,
    "Napoleon Bonaparte": napoleon,
    "Cleopatra": cleopatra,
    "William Shakespeare": shakespeare,
    "Mahatma Gandhi": gandhi,
    "Queen Victoria": victoria,
    "George Washington": washington,
}
"""The drawing of every known person."""
