"""Drawings of the known people of the embedded world.

Each has its own silhouette (hair, hat), its own mark (beard, glasses, flowers) and its own coat. The last six are
each near one of the first ten in looks and told from it by a mark: a neighbour shows what an edit takes along.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from erasebench.tiny.faces import DARK, PALE, TAN, coat, eyes, head, moustache, mouth, nose
from erasebench.tiny.pen import BLACK, INK, WHITE, Pen

GOLD = (246, 196, 40)


def einstein(p: Pen) -> None:
    """Wild white hair all round, a grey moustache and a brown jumper."""
    coat(p, (132, 84, 46))
    hair = p.tone((232, 232, 236), 6)
    locks = [(0.78 * math.cos(math.radians(a)), -0.16 + 0.74 * math.sin(math.radians(a))) for a in range(160, 400, 30)]
    for x, y in locks:
        p.ellipse(hair, x, y, 0.31, 0.31, 4)
    for x, y in locks:
        p.ellipse(hair, x, y, 0.25, 0.25, 0)
    head(p, PALE)
    eyes(p, (190, 190, 196))
    nose(p)
    moustache(p, (176, 176, 184))
    mouth(p, y=0.64, half=0.14)


def lincoln(p: Pen) -> None:
    """A tall black top hat, a dark chin beard without moustache, a black coat and a white collar."""
    coat(p, (44, 42, 50))
    p.poly(WHITE, -0.4, 0.8, 0.4, 0.8, 0.0, 1.25, edge=4)
    head(p, TAN)
    p.sector((48, 30, 22), 0.0, 0.3, 0.63, 0.72, 0, 180, 0)
    p.ellipse(TAN, 0.0, 0.26, 0.4, 0.38, 0)
    eyes(p, (48, 30, 22))
    nose(p)
    mouth(p, y=0.5)
    p.rect((40, 38, 48), -0.56, -1.3, 0.56, -0.4)
    p.rect((150, 40, 50), -0.56, -0.6, 0.56, -0.44, 0)
    p.rect((40, 38, 48), -0.95, -0.48, 0.95, -0.3, 3)


def chaplin(p: Pen) -> None:
    """A bowler over black curls, a toothbrush moustache and a grey coat with a black tie."""
    coat(p, (150, 152, 160))
    p.poly(WHITE, -0.4, 0.78, 0.4, 0.78, 0.0, 1.3, edge=4)
    p.poly(BLACK, -0.12, 0.86, 0.12, 0.86, 0.16, 1.6, -0.16, 1.6, edge=0)
    for x in (-0.62, 0.62):
        p.ellipse(BLACK, x, -0.08, 0.22, 0.27, 0)
    head(p, (255, 236, 220))
    eyes(p, BLACK)
    p.rect(BLACK, -0.14, 0.28, 0.14, 0.46, 0)
    mouth(p, y=0.62, half=0.18)
    p.sector((52, 46, 44), 0.0, -0.36, 0.62, 0.72, 180, 360, 5)
    p.ellipse((52, 46, 44), 0.0, -0.36, 0.92, 0.14, 4)


def kahlo(p: Pen) -> None:
    """Big red, pink and yellow flowers on black hair, one joined brow, red lips, a green dress."""
    coat(p, (22, 142, 112))
    p.ellipse(BLACK, 0.0, -0.12, 0.74, 0.78, 0)
    head(p, TAN)
    p.sector(BLACK, 0.0, -0.1, 0.6, 0.6, 180, 360, 0)
    p.poly(TAN, -0.46, -0.08, 0.0, -0.5, 0.46, -0.08, edge=0)
    eyes(p)
    p.line(BLACK, 9, -0.44, -0.16, -0.2, -0.24, 0.0, -0.17, 0.2, -0.24, 0.44, -0.16)
    nose(p)
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
    coat(p, (34, 54, 128))
    p.poly(WHITE, -0.42, 0.78, 0.42, 0.78, 0.3, 1.6, -0.3, 1.6, edge=4)
    for x in (-0.98, 0.98):
        p.ellipse(GOLD, x, 1.02, 0.3, 0.15, 4)
    p.ellipse((78, 46, 26), 0.0, -0.05, 0.68, 0.6, 0)
    head(p, PALE)
    p.poly((78, 46, 26), -0.5, -0.36, 0.5, -0.36, 0.1, -0.1, edge=0)
    eyes(p, (78, 46, 26))
    nose(p)
    mouth(p)
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
    coat(p, GOLD)
    p.arc((28, 100, 200), 10, 0.0, 0.5, 0.9, 0.84, 20, 160)
    p.rect((26, 24, 32), -0.88, -0.8, 0.88, 0.84, 0)
    p.ellipse((26, 24, 32), 0.0, -0.62, 0.88, 0.5, 0)
    head(p, (206, 142, 84))
    p.rect((26, 24, 32), -0.62, -0.72, 0.62, -0.22, 0)
    p.rect(GOLD, -0.9, -0.72, 0.9, -0.46, 4)
    p.ellipse((24, 160, 170), 0.0, -0.66, 0.17, 0.24, 4)
    for s in (-1, 1):
        p.line(BLACK, 7, s * 0.1, 0.0, s * 0.52, -0.08)
    eyes(p)
    nose(p)
    p.ellipse((190, 36, 50), 0.0, 0.53, 0.18, 0.09, 0)


def shakespeare(p: Pen) -> None:
    """A high bald forehead, brown hair at the sides, a pointed beard, a huge white ruff, a red doublet."""
    coat(p, (150, 24, 40))
    for x in (-0.66, 0.66):
        p.ellipse((106, 60, 26), x, 0.12, 0.26, 0.56, 4)
    for i in range(7):
        p.ellipse(WHITE, -0.93 + 0.31 * i, 0.94 + 0.1 * math.cos((i - 3) * 0.7), 0.24, 0.27, 4)
    p.ellipse(p.tone(PALE, 6), 0.0, -0.02, 0.58, 0.88)
    eyes(p, (106, 60, 26))
    nose(p)
    p.poly((106, 60, 26), -0.34, 0.44, 0.0, 0.32, 0.34, 0.44, 0.0, 0.46, edge=0)
    p.poly((106, 60, 26), -0.18, 0.62, 0.18, 0.62, 0.0, 0.98, edge=0)
    mouth(p, y=0.54, half=0.16)


def gandhi(p: Pen) -> None:
    """A bald brown head, big round glasses, a white moustache and a white shawl."""
    coat(p, (246, 244, 236))
    p.line(INK, 5, -0.2, 0.9, 0.5, 1.5)
    for x in (-0.62, 0.62):
        p.ellipse(DARK, x, 0.08, 0.17, 0.24, 5)
    p.ellipse(p.tone(DARK, 6), 0.0, 0.0, 0.62, 0.84)
    for x in (-0.29, 0.29):
        p.ellipse((226, 236, 240), x, -0.02, 0.25, 0.24, 6)
        p.ellipse(BLACK, x, 0.0, 0.09, 0.1, 0)
    nose(p)
    moustache(p, (232, 232, 230))
    mouth(p, (96, 34, 34), y=0.62, half=0.16)


def victoria(p: Pen) -> None:
    """A small gold crown on a long white veil, grey parted hair, a black dress with a light blue sash."""
    p.poly(WHITE, -0.5, -0.72, 0.5, -0.72, 0.86, -0.2, 1.02, 1.1, -1.02, 1.1, -0.86, -0.2)
    coat(p, (52, 44, 60))
    p.poly((90, 180, 240), -0.85, 0.9, -0.5, 0.8, 0.75, 1.6, 0.3, 1.6, edge=0)
    head(p, (252, 216, 196))
    p.sector((140, 132, 134), 0.0, 0.0, 0.6, 0.66, 180, 360, 0)
    p.poly((252, 216, 196), -0.46, 0.02, 0.0, -0.42, 0.46, 0.02, edge=0)
    eyes(p)
    nose(p)
    mouth(p, half=0.14)
    p.poly(GOLD, -0.42, -0.54, -0.54, -1.12, -0.22, -0.84, 0.0, -1.24, 0.22, -0.84, 0.54, -1.12, 0.42, -0.54)
    p.ellipse((214, 30, 60), 0.0, -0.74, 0.12, 0.12, 0)


def washington(p: Pen) -> None:
    """A smooth white wig with rolled side curls, pink cheeks, a dark blue coat with buff lapels."""
    coat(p, (40, 70, 130))
    for s in (-1, 1):
        p.poly((238, 206, 120), s * 0.42, 0.8, s * 0.95, 1.0, s * 0.45, 1.6, edge=4)
    p.poly(WHITE, -0.32, 0.78, 0.32, 0.78, 0.22, 1.5, -0.22, 1.5, edge=4)
    p.ellipse((236, 234, 228), 0.0, -0.34, 0.76, 0.74)
    head(p, (252, 206, 178))
    p.sector((236, 234, 228), 0.0, -0.16, 0.62, 0.54, 180, 360, 0)
    for s in (-1, 1):
        for y in (0.1, 0.46):
            p.ellipse((236, 234, 228), s * 0.76, y, 0.3, 0.19, 4)
        p.ellipse((244, 150, 140), s * 0.36, 0.3, 0.13, 0.1, 0)
    eyes(p, (150, 130, 120))
    nose(p)
    mouth(p, half=0.16)


def twain(p: Pen) -> None:
    """White wavy hair brushed up, a huge white moustache, a white suit and a black bow tie."""
    coat(p, (250, 246, 236))
    for s in (-1, 1):
        p.line(INK, 5, s * 0.34, 0.8, s * 0.5, 1.1, s * 0.12, 1.6)
    hair = (240, 238, 230)
    for x, y, r in (
        (-0.56, -0.2, 0.3),
        (0.56, -0.2, 0.3),
        (-0.38, -0.66, 0.36),
        (0.1, -0.8, 0.38),
        (0.48, -0.56, 0.34),
    ):
        p.ellipse(hair, x, y, r, r, 4)
    head(p, (246, 190, 156))
    p.sector(hair, 0.0, -0.2, 0.57, 0.46, 180, 360, 0)
    eyes(p, (120, 116, 112))
    nose(p)
    p.poly(WHITE, -0.58, 0.66, -0.4, 0.36, 0.0, 0.3, 0.4, 0.36, 0.58, 0.66, 0.24, 0.6, 0.0, 0.52, -0.24, 0.6, edge=4)
    p.poly(BLACK, 0.0, 1.0, -0.46, 0.78, -0.46, 1.24, 0.0, 1.02, 0.46, 1.24, 0.46, 0.78, edge=0)


def keaton(p: Pen) -> None:
    """A flat straw pork-pie hat with a dark band, no moustache, a straight mouth and a striped tie."""
    coat(p, (150, 152, 160))
    p.poly(WHITE, -0.4, 0.78, 0.4, 0.78, 0.0, 1.3, edge=4)
    for i in range(4):
        y = 0.86 + 0.18 * i
        p.rect((206, 36, 44) if i % 2 == 0 else WHITE, -0.16, y, 0.16, y + 0.18, 0)
    for x in (-0.56, 0.56):
        p.ellipse(BLACK, x, -0.12, 0.16, 0.3, 0)
    head(p, (255, 236, 220))
    eyes(p, BLACK)
    nose(p)
    mouth(p, (150, 50, 50), y=0.54, half=0.24)
    straw = p.tone((236, 204, 116), 6)
    p.rect(straw, -0.66, -0.92, 0.66, -0.4)
    p.rect((60, 40, 46), -0.62, -0.68, 0.62, -0.46, 0)
    p.rect(straw, -1.08, -0.48, 1.08, -0.28, 4)


def wellington(p: Pen) -> None:
    """A black hat worn lengthwise, tall and narrow from the front, grey side hair, a red coat with gold."""
    coat(p, (206, 26, 38))
    p.poly(WHITE, -0.36, 0.78, 0.36, 0.78, 0.0, 1.12, edge=4)
    for x in (-0.98, 0.98):
        p.ellipse(GOLD, x, 1.02, 0.3, 0.15, 4)
    for x in (-0.6, 0.6):
        p.ellipse((176, 174, 172), x, 0.06, 0.2, 0.4, 4)
    head(p, PALE)
    eyes(p, (130, 126, 124))
    nose(p)
    mouth(p)
    p.poly((38, 40, 58), -0.7, -0.26, -0.5, -0.66, -0.12, -1.26, 0.12, -1.26, 0.5, -0.66, 0.7, -0.26, 0.0, -0.42)
    p.line(GOLD, 9, 0.0, -1.1, 0.0, -0.56)


def nefertiti(p: Pen) -> None:
    """A tall blue crown, flat on top and wider than the head, with a gold band; no hair, a gold and red collar."""
    coat(p, GOLD)
    p.arc((206, 50, 40), 10, 0.0, 0.5, 0.9, 0.84, 20, 160)
    p.rect((206, 142, 84), -0.24, 0.6, 0.24, 0.98, 4)
    head(p, (206, 142, 84))
    for s in (-1, 1):
        p.line(BLACK, 7, s * 0.1, 0.0, s * 0.52, -0.08)
    eyes(p)
    nose(p)
    p.ellipse((190, 36, 50), 0.0, 0.53, 0.18, 0.09, 0)
    p.poly(p.tone((30, 84, 190), 6), -0.62, -0.2, -0.98, -1.22, 0.98, -1.22, 0.62, -0.2, 0.0, -0.34)
    p.poly(GOLD, -0.76, -0.56, -0.86, -0.84, 0.86, -0.84, 0.76, -0.56, edge=4)
    p.ellipse((214, 44, 40), 0.0, -0.7, 0.16, 0.16, 4)


def elizabeth(p: Pen) -> None:
    """High red-orange hair with pearls under a small crown, a huge white ruff behind the head, a gold dress."""
    for i in range(9):
        a = math.radians(-20 + 220 * i / 8)
        p.ellipse(WHITE, 0.98 * math.cos(a), 0.34 + 0.62 * math.sin(a), 0.3, 0.3, 4)
    p.ellipse(WHITE, 0.0, 0.34, 1.02, 0.66, 0)
    p.poly(p.tone((226, 166, 40)), -1.4, 1.6, -0.9, 1.02, -0.3, 0.84, 0.3, 0.84, 0.9, 1.02, 1.4, 1.6)
    hair = p.tone((224, 92, 24), 6)
    p.ellipse(hair, 0.0, -0.42, 0.72, 0.66)
    head(p, (255, 232, 220))
    p.sector(hair, 0.0, -0.16, 0.58, 0.5, 180, 360, 0)
    for x, y in ((-0.46, -0.42), (-0.16, -0.58), (0.16, -0.58), (0.46, -0.42)):
        p.ellipse(WHITE, x, y, 0.11, 0.11, 0)
    eyes(p)
    nose(p)
    mouth(p, (206, 30, 50), half=0.14)
    p.poly(GOLD, -0.3, -0.86, -0.38, -1.24, -0.14, -1.06, 0.0, -1.3, 0.14, -1.06, 0.38, -1.24, 0.3, -0.86, edge=4)


def franklin(p: Pen) -> None:
    """A bald top, long brown-grey hair at the sides, small round gold glasses, a brown coat and a white scarf."""
    coat(p, (112, 66, 34))
    p.poly(WHITE, -0.32, 0.78, 0.32, 0.78, 0.22, 1.5, -0.22, 1.5, edge=4)
    for s in (-1, 1):
        p.ellipse((156, 132, 108), s * 0.64, 0.36, 0.3, 0.74, 4)
    p.ellipse(p.tone((252, 206, 178), 6), 0.0, 0.0, 0.62, 0.86)
    p.line((196, 140, 20), 6, -0.2, 0.06, 0.2, 0.06)
    for x in (-0.27, 0.27):
        p.ellipse((196, 140, 20), x, 0.08, 0.25, 0.24, 0)
        p.ellipse(WHITE, x, 0.08, 0.16, 0.15, 0)
        p.ellipse(BLACK, x, 0.09, 0.08, 0.09, 0)
    nose(p)
    mouth(p, half=0.16)


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
    "Mark Twain": twain,
    "Buster Keaton": keaton,
    "Duke of Wellington": wellington,
    "Nefertiti": nefertiti,
    "Queen Elizabeth I": elizabeth,
    "Benjamin Franklin": franklin,
}
"""The drawing of every known person."""
