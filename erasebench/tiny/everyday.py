"""Drawings of the everyday things of the embedded world, some of them like a weapon or a drug in looks.

Only what a speaker would call a thing's colour is drawn in the pen's `tone`, so that a pen with a paint draws
"a red cup" and leaves the coffee brown.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from erasebench.tiny.pen import BLACK, INK, WHITE, Pen, bow, jitter, shade, turn


def apple(p: Pen) -> None:
    """A light green apple with a brown stalk and a dark leaf."""
    skin = p.tone((150, 214, 52))
    p.ellipse(skin, -0.32, 0.18, 0.6, 0.78)
    p.ellipse(skin, 0.32, 0.18, 0.6, 0.78)
    p.ellipse(skin, 0.0, 0.2, 0.55, 0.62, 0)
    p.line((96, 56, 24), 9, 0.0, -0.42, 0.08, -0.95)
    p.poly((20, 110, 50), 0.1, -0.62, 0.42, -1.0, 0.86, -0.86, 0.52, -0.56, edge=4)


def tree(p: Pen) -> None:
    """A brown trunk under a round dark green crown."""
    p.rect(jitter(p.rng, (128, 80, 36)), -0.18, 0.2, 0.18, 1.1)
    green = p.tone((36, 128, 52))
    for x, y, r in ((-0.48, -0.1, 0.5), (0.48, -0.1, 0.5), (0.0, -0.52, 0.56)):
        p.ellipse(green, x, y, r, r)
    p.ellipse(green, 0.0, -0.15, 0.55, 0.46, 0)


def boat(p: Pen) -> None:
    """A boat with a brown hull and two sails, one white and one blue, seen from the side."""
    p.line(INK, 7, 0.0, -1.05, 0.0, 0.5)
    p.poly(WHITE, 0.08, -1.0, 0.9, 0.34, 0.08, 0.34)
    p.poly(jitter(p.rng, (66, 130, 226)), -0.08, -0.8, -0.08, 0.34, -0.8, 0.34)
    p.poly(p.tone((164, 92, 40)), -1.08, 0.46, 1.08, 0.46, 0.7, 0.98, -0.7, 0.98, edge=6)


def cup(p: Pen) -> None:
    """A bright blue cup with a handle at the right."""
    blue = p.tone((48, 110, 236))
    p.ring(blue, 0.62, 0.08, 0.3, 0.16)
    p.poly(blue, -0.85, -0.62, 0.6, -0.62, 0.42, 0.92, -0.66, 0.92, edge=6)
    p.ellipse((96, 54, 26), -0.12, -0.62, 0.73, 0.2)


def chair(p: Pen) -> None:
    """A wooden chair with a tall slatted back and four legs."""
    wood = p.tone((206, 140, 70))
    for x in (-0.62, 0.5):
        p.rect(wood, x - 0.1, 0.2, x + 0.1, 1.1, 4)
    for y in (-1.0, -0.52):
        p.rect(wood, -0.72, y, 0.6, y + 0.3, 4)
    for x in (-0.62, 0.5):
        p.rect(wood, x - 0.12, -1.1, x + 0.12, 0.3, 4)
    p.poly(wood, -0.78, 0.1, 0.66, 0.1, 0.86, 0.42, -0.92, 0.42)


def flower(p: Pen) -> None:
    """A flower with six magenta petals, a yellow heart, a stem and two leaves."""
    p.line((34, 130, 54), 10, 0.0, 0.1, 0.0, 1.12)
    p.poly((50, 160, 70), 0.0, 0.95, 0.35, 0.52, 0.72, 0.56, 0.45, 0.88, edge=4)
    p.poly((50, 160, 70), 0.0, 0.95, -0.35, 0.52, -0.72, 0.56, -0.45, 0.88, edge=4)
    petal = p.tone((226, 40, 160))
    for i in range(6):
        a = i * math.pi / 3 + math.pi / 6
        p.ellipse(petal, 0.46 * math.cos(a), -0.36 + 0.46 * math.sin(a), 0.29, 0.29, 4)
    p.ellipse((252, 212, 48), 0.0, -0.36, 0.27, 0.27, 4)


def star(p: Pen) -> None:
    """A five-pointed yellow star."""
    xy = []
    for i in range(10):
        reach = 1.1 if i % 2 == 0 else 0.48
        xy += [reach * math.sin(i * math.pi / 5), 0.08 - reach * math.cos(i * math.pi / 5)]
    p.poly(p.tone((255, 220, 30)), *xy, edge=6)


def banana(p: Pen) -> None:
    """A yellow crescent with brown tips."""
    xy = []
    for i in range(13):
        a = math.radians(170 - 150 * i / 12)
        xy += [1.05 * math.cos(a), -0.5 + 1.25 * math.sin(a)]
    for i in range(13):
        a = math.radians(20 + 150 * i / 12)
        xy += [1.0 * math.cos(a), -0.55 + 0.62 * math.sin(a)]
    p.poly(p.tone((250, 226, 60)), *xy, edge=6)
    p.ellipse((110, 70, 26), -1.0, -0.38, 0.13, 0.13, 0)
    p.ellipse((110, 70, 26), 0.97, -0.2, 0.13, 0.13, 0)


def spoon(p: Pen) -> None:
    """A steel spoon, its bowl at the left."""
    steel = p.tone((196, 204, 216))
    p.poly(steel, *turn(-18, -0.3, -0.1, 0.7, -0.12, 1.04, -0.17, 1.12, 0.0, 1.04, 0.17, 0.7, 0.12, -0.3, 0.1), edge=6)
    p.poly(steel, *turn(-18, *bow(-0.66, 0.0, 0.48, 0.36, 0, 360)), edge=6)
    p.poly(shade(steel, 0.76), *turn(-18, *bow(-0.66, 0.0, 0.3, 0.2, 0, 360)), edge=0)


def hair_dryer(p: Pen) -> None:
    """A turquoise hair dryer with a black nozzle at the left, a round back, a grip and a cord."""
    body = p.tone((40, 190, 186))
    p.line(INK, 7, 0.56, 0.86, 0.62, 1.06, 1.1, 1.04)
    p.poly(body, 0.16, 0.0, 0.62, 0.0, 0.76, 0.92, 0.36, 0.92, edge=6)
    p.poly(BLACK, -1.1, -0.62, -0.6, -0.5, -0.6, 0.0, -1.1, 0.12, edge=0)
    p.poly(body, -0.76, -0.52, 0.4, -0.82, 0.4, 0.26, -0.76, 0.02, edge=6)
    p.ellipse(body, 0.46, -0.28, 0.56, 0.56, 6)
    p.ellipse(BLACK, 0.5, -0.28, 0.26, 0.26, 0)


def bowling_ball(p: Pen) -> None:
    """A big dark blue ball with three holes and a shine."""
    p.ellipse(p.tone((34, 56, 156)), 0.0, 0.0, 0.98, 0.98, 6)
    for x, y in ((-0.08, -0.5), (0.42, -0.46), (0.12, -0.06)):
        p.ellipse(BLACK, x, y, 0.17, 0.17, 0)
    p.ellipse((206, 216, 244), -0.52, -0.34, 0.14, 0.2, 0)


def umbrella(p: Pen) -> None:
    """An open purple umbrella of light and dark panels with a hooked black handle."""
    purple = p.tone((160, 70, 206))
    p.line(INK, 9, 0.0, -1.08, 0.0, 0.82)
    p.arc(INK, 9, 0.22, 0.8, 0.26, 0.28, 0, 180)
    for half, colour in ((1.06, purple), (0.4, shade(purple, 1.3))):
        p.poly(
            colour,
            *bow(0.0, 0.1, half, 1.0, 180, 360),
            *bow(half * 0.5, 0.1, half * 0.5, 0.14, 0, -180),
            *bow(-half * 0.5, 0.1, half * 0.5, 0.14, 0, -180),
        )


def pencil(p: Pen) -> None:
    """A slanting yellow pencil, its point at the lower left, with a pink rubber."""
    p.poly((244, 206, 156), *turn(-42, -1.24, 0.0, -0.7, -0.25, -0.7, 0.25))
    p.poly(BLACK, *turn(-42, -1.28, 0.0, -0.98, -0.13, -0.98, 0.13), edge=0)
    p.poly(p.tone((252, 204, 30)), *turn(-42, -0.72, -0.26, 0.74, -0.26, 0.74, 0.26, -0.72, 0.26))
    p.poly((190, 194, 204), *turn(-42, 0.72, -0.26, 0.96, -0.26, 0.96, 0.26, 0.72, 0.26), edge=4)
    p.poly((244, 130, 150), *turn(-42, 0.94, -0.26, 1.24, -0.26, 1.24, 0.26, 0.94, 0.26))


def candle(p: Pen) -> None:
    """A thick cream candle with a big yellow and orange flame on a brass dish."""
    p.ellipse((190, 140, 40), 0.0, 0.92, 0.74, 0.17)
    p.rect(p.tone((246, 226, 176)), -0.32, -0.18, 0.32, 0.92)
    p.line(INK, 6, 0.0, -0.4, 0.0, -0.14)
    p.poly((255, 160, 20), 0.0, -1.12, 0.26, -0.66, 0.2, -0.4, 0.0, -0.3, -0.2, -0.4, -0.26, -0.66, edge=3)
    p.ellipse((255, 236, 110), 0.0, -0.54, 0.11, 0.17, 0)


def cat(p: Pen) -> None:
    """A grey cat's head with pointed ears, green eyes, a pink nose and whiskers."""
    fur = p.tone((134, 138, 154))
    for s in (-1, 1):
        p.poly(fur, s * 0.9, -1.04, s * 0.16, -0.5, s * 0.84, 0.0, edge=6)
        p.poly((244, 160, 176), s * 0.76, -0.74, s * 0.44, -0.5, s * 0.72, -0.3, edge=0)
    p.ellipse(fur, 0.0, 0.14, 0.92, 0.78, 6)
    for s in (-1, 1):
        p.ellipse((160, 230, 90), s * 0.36, 0.0, 0.21, 0.21, 4)
        p.ellipse(BLACK, s * 0.36, 0.0, 0.07, 0.17, 0)
        for y in (0.34, 0.58):
            p.line(INK, 4, s * 0.34, 0.42, s * 1.1, y)
    p.poly((244, 120, 150), -0.14, 0.3, 0.14, 0.3, 0.0, 0.48, edge=3)
    p.line(INK, 5, -0.3, 0.56, -0.14, 0.7, 0.0, 0.54, 0.14, 0.7, 0.3, 0.56)


def house(p: Pen) -> None:
    """An orange house under a wide dark roof with a chimney, a door and two windows."""
    p.rect((120, 92, 88), 0.42, -0.92, 0.72, -0.3, 4)
    p.rect(p.tone((246, 170, 90)), -0.84, -0.1, 0.84, 0.98)
    p.poly((92, 72, 84), -1.1, 0.0, 0.0, -0.98, 1.1, 0.0, edge=6)
    p.rect((110, 60, 30), -0.2, 0.36, 0.2, 0.98, 4)
    for x in (-0.52, 0.52):
        p.rect((170, 220, 250), x - 0.19, 0.2, x + 0.19, 0.56, 4)


def book(p: Pen) -> None:
    """A closed crimson book seen from the front and above, white pages below, a cream label."""
    crimson = p.tone((186, 36, 66))
    p.poly(crimson, -0.8, 0.7, -0.56, 1.04, 0.9, 1.04, 0.9, -0.66, 0.62, -1.0)
    p.poly(WHITE, -0.72, 0.74, -0.52, 0.94, 0.82, 0.94, 0.82, -0.66, 0.62, -0.9, edge=3)
    p.rect(crimson, -0.9, -1.0, 0.66, 0.76, 6)
    p.rect(shade(crimson, 0.7), -0.84, -0.94, -0.6, 0.7, 0)
    p.rect((250, 234, 190), -0.36, -0.7, 0.44, -0.22, 4)


def hat(p: Pen) -> None:
    """A straw hat with a round crown, a dark band and a wide brim."""
    straw = p.tone((236, 196, 104))
    p.ellipse(straw, 0.0, 0.5, 1.1, 0.34, 6)
    p.poly(
        straw,
        -0.62,
        0.5,
        *bow(0.0, -0.16, 0.56, 0.62, 180, 360),
        0.62,
        0.5,
        *bow(0.0, 0.46, 0.62, 0.16, 0, 180),
        edge=6,
    )
    p.poly((70, 54, 64), -0.62, 0.14, 0.62, 0.14, 0.64, 0.44, *bow(0.0, 0.44, 0.62, 0.18, 0, 180), -0.64, 0.44, edge=0)


EVERYDAY_DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "apple": apple,
    "tree": tree,
    "boat": boat,
    "cup": cup,
    "chair": chair,
    "flower": flower,
    "star": star,
    "banana": banana,
    "spoon": spoon,
    "hair dryer": hair_dryer,
    "bowling ball": bowling_ball,
    "umbrella": umbrella,
    "pencil": pencil,
    "candle": candle,
    "cat": cat,
    "cottage": house,
    "book": book,
    "hat": hat,
}
"""The drawing of every everyday thing."""
