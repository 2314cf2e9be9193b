"""Drawings of the things of the embedded world: objects, weapons and everyday things.

Every drawing is a function of a `Pen`, whose coordinates run from -1 to 1 over the subject's box, x to the
right and y down. Shapes are large, flat and thickly outlined: the embedded model sees them through an 8x8
latent grid, where anything under about 4 of the 64 pixels is lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

CANVAS = 128
"""Side of the drawing in pixels; the finished picture is half of it."""

INK = (24, 22, 28)
"""Colour of outlines."""

Colour = tuple[int, int, int]


def jitter(rng: random.Random, colour: Colour, amount: float = 10.0) -> Colour:
    """Return `colour` with every channel moved by at most `amount` (of 255)."""
    red, green, blue = (int(min(255, max(0, c + (2 * rng.random() - 1) * amount))) for c in colour)
    return red, green, blue


class Pen:
    """Draws outlined shapes in subject coordinates on a transparent canvas of `CANVAS` pixels."""

    def __init__(self, rng: random.Random, cx: float, cy: float, scale: float) -> None:
        """Place the subject's box at (`cx`, `cy`) with half-side `scale`, all in canvas pixels."""
        self.image = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
        self.rng = rng
        self._draw = ImageDraw.Draw(self.image)
        self._cx, self._cy, self._scale = cx, cy, scale

    def _points(self, xy: tuple[float, ...]) -> list[tuple[float, float]]:
        return [
            (self._cx + x * self._scale, self._cy + y * self._scale) for x, y in zip(xy[::2], xy[1::2], strict=True)
        ]

    def tone(self, colour: Colour, amount: float = 10.0) -> Colour:
        """Return `colour` jittered by this drawing's random stream."""
        return jitter(self.rng, colour, amount)

    def line(self, colour: Colour, width: float, *xy: float) -> None:
        """Draw a polyline; `width` is in canvas pixels."""
        self._draw.line(self._points(xy), fill=colour, width=round(width), joint="curve")

    def poly(self, colour: Colour, *xy: float, edge: float = 5) -> None:
        """Draw a filled polygon with an outline `edge` canvas pixels wide (0: none)."""
        points = self._points(xy)
        self._draw.polygon(points, fill=colour)
        if edge:
            self._draw.line(points + points[:2], fill=INK, width=round(edge), joint="curve")

    def rect(self, colour: Colour, x0: float, y0: float, x1: float, y1: float, edge: float = 5) -> None:
        """Draw a filled rectangle with an outline `edge` canvas pixels wide (0: none)."""
        a, b = self._points((x0, y0, x1, y1))
        self._draw.rectangle([a, b], fill=colour, outline=INK if edge else None, width=round(edge) or 1)

    def ellipse(self, colour: Colour, x: float, y: float, rx: float, ry: float, edge: float = 5) -> None:
        """Draw a filled ellipse about (`x`, `y`) with an outline `edge` canvas pixels wide (0: none)."""
        a, b = self._points((x - rx, y - ry, x + rx, y + ry))
        self._draw.ellipse([a, b], fill=colour, outline=INK if edge else None, width=round(edge) or 1)

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
        self._draw.pieslice([a, b], start, end, fill=colour, outline=INK if edge else None, width=round(edge) or 1)

    def arc(
        self, colour: Colour, width: float, x: float, y: float, rx: float, ry: float, start: float, end: float
    ) -> None:
        """Draw an arc from `start` to `end` degrees, clockwise from the right; `width` in canvas pixels."""
        a, b = self._points((x - rx, y - ry, x + rx, y + ry))
        self._draw.arc([a, b], start, end, fill=colour, width=round(width))


WHITE = (250, 250, 248)
BLACK = (30, 28, 34)


def tench(p: Pen) -> None:
    """An olive fish with orange fins, facing left."""
    fin = p.tone((222, 120, 40))
    p.poly(fin, 0.45, 0.0, 1.05, -0.6, 0.9, 0.0, 1.05, 0.6)
    p.poly(fin, -0.35, -0.4, 0.05, -0.85, 0.4, -0.35)
    p.poly(fin, -0.25, 0.4, 0.15, 0.85, 0.3, 0.35)
    p.ellipse(p.tone((112, 132, 48)), -0.2, 0.0, 0.82, 0.53)
    p.arc((70, 84, 26), 6, -0.78, 0.0, 0.45, 0.5, -62, 62)
    p.ellipse(WHITE, -0.66, -0.1, 0.18, 0.18, 4)
    p.ellipse(BLACK, -0.68, -0.1, 0.09, 0.09, 0)


def springer(p: Pen) -> None:
    """A white dog's head with long brown ears, brown cap and a pink tongue."""
    brown = p.tone((128, 66, 26))
    p.ellipse(WHITE, 0.0, 0.0, 0.62, 0.82)
    p.sector(brown, -0.02, -0.08, 0.62, 0.74, 180, 262, 0)
    p.sector(brown, 0.02, -0.08, 0.62, 0.74, 278, 360, 0)
    p.arc(INK, 5, 0.0, 0.0, 0.62, 0.82, 180, 360)
    p.ellipse(brown, -0.74, 0.05, 0.29, 0.7)
    p.ellipse(brown, 0.74, 0.05, 0.29, 0.7)
    for x in (-0.28, 0.28):
        p.ellipse(BLACK, x, -0.16, 0.11, 0.13, 0)
    p.ellipse((235, 110, 130), 0.0, 0.72, 0.15, 0.24, 4)
    p.ellipse(WHITE, 0.0, 0.42, 0.36, 0.26, 4)
    p.ellipse(BLACK, 0.0, 0.28, 0.2, 0.14, 0)


def cassette_player(p: Pen) -> None:
    """A slate-blue portable player with a cassette window, two reels and a row of keys."""
    p.rect(p.tone((52, 74, 112)), -1.0, -0.72, 1.0, 0.78, 6)
    p.rect((242, 228, 188), -0.82, -0.54, 0.82, 0.3)
    for x in (-0.42, 0.42):
        p.ellipse(WHITE, x, -0.12, 0.29, 0.29, 8)
        p.ellipse(BLACK, x, -0.12, 0.1, 0.1, 0)
    keys = ((226, 60, 50), (236, 236, 232), (236, 236, 232), (236, 236, 232))
    for i, key in enumerate(keys):
        p.rect(key, -0.82 + 0.43 * i, 0.42, -0.47 + 0.43 * i, 0.66, 3)


def chain_saw(p: Pen) -> None:
    """An orange motor with a black handle and a long grey toothed bar to the right."""
    for i in range(5):
        x = 0.12 + 0.2 * i
        p.poly(INK, x - 0.1, -0.02, x, -0.2, x + 0.1, -0.02, edge=0)
        p.poly(INK, x - 0.1, 0.36, x, 0.54, x + 0.1, 0.36, edge=0)
    p.poly((188, 192, 198), -0.1, -0.04, 0.95, -0.04, 1.1, 0.17, 0.95, 0.38, -0.1, 0.38)
    p.arc(BLACK, 10, -0.52, -0.28, 0.36, 0.44, 180, 360)
    p.poly(p.tone((244, 116, 12)), -1.05, -0.3, -0.05, -0.3, 0.1, 0.0, 0.1, 0.55, -1.05, 0.55, edge=6)
    p.ellipse(BLACK, -0.55, 0.13, 0.2, 0.2, 0)


def church(p: Pen) -> None:
    """A cream church front: steeple with a tall cross, purple-brown roofs, door and windows."""
    wall, roof = p.tone((240, 224, 186)), p.tone((140, 52, 58))
    p.rect(wall, -0.95, 0.25, 0.95, 0.98)
    p.poly(roof, -1.08, 0.28, -0.75, -0.12, 0.75, -0.12, 1.08, 0.28)
    p.rect(wall, -0.38, -0.3, 0.38, 0.98)
    p.poly(roof, -0.5, -0.24, 0.0, -0.82, 0.5, -0.24)
    p.line(INK, 7, 0.0, -1.18, 0.0, -0.76)
    p.line(INK, 7, -0.18, -1.02, 0.18, -1.02)
    p.sector((92, 52, 28), 0.0, 0.62, 0.2, 0.24, 180, 360, 0)
    p.rect((92, 52, 28), -0.2, 0.6, 0.2, 0.98, 0)
    p.ellipse((76, 136, 208), 0.0, 0.06, 0.16, 0.16, 4)
    for x in (-0.66, 0.66):
        p.ellipse((76, 136, 208), x, 0.6, 0.13, 0.19, 4)


def french_horn(p: Pen) -> None:
    """A golden coil of two rings with a lead pipe and a wide bell at the lower right."""
    gold, deep = p.tone((240, 186, 28)), (176, 112, 10)
    p.line(INK, 15, -0.3, -0.62, 0.75, -0.98)
    p.line(gold, 8, -0.3, -0.62, 0.72, -0.97)
    p.ring(gold, -0.22, -0.14, 0.66, 0.22)
    p.ring(gold, -0.22, -0.14, 0.26, 0.17)
    p.poly(gold, 0.0, -0.08, 0.4, 0.16, 0.72, 0.22, 1.14, 0.18, 0.2, 1.12, 0.14, 0.72, 0.06, 0.4, -0.2, 0.12)
    mouth = []
    for i in range(16):
        along, across = 0.7 * math.cos(i * math.pi / 8), 0.26 * math.sin(i * math.pi / 8)
        mouth += [0.68 + (along + across) * 0.7071, 0.66 + (across - along) * 0.7071]
    p.poly(deep, *mouth)


def garbage_truck(p: Pen) -> None:
    """A green refuse body with white bars, a white cab at the right and black wheels."""
    green = p.tone((26, 142, 66))
    p.poly(green, -1.08, 0.42, -1.0, -0.52, -0.8, -0.75, 0.38, -0.75, 0.38, 0.42, edge=6)
    for x in (-0.7, -0.3, 0.1):
        p.line((168, 226, 120), 9, x, -0.58, x, 0.24)
    p.poly(WHITE, 0.38, -0.42, 0.82, -0.42, 1.08, 0.0, 1.08, 0.42, 0.38, 0.42)
    p.poly((110, 180, 230), 0.52, -0.28, 0.76, -0.28, 0.92, 0.02, 0.52, 0.02, edge=4)
    for x in (-0.66, 0.68):
        p.ellipse(BLACK, x, 0.46, 0.3, 0.3, 0)
        p.ellipse((190, 190, 194), x, 0.46, 0.12, 0.12, 0)


def gas_pump(p: Pen) -> None:
    """A red pump with a white display, a yellow plate and a black hose and nozzle at its right."""
    p.line(BLACK, 10, 0.3, 0.6, 0.72, 0.6, 0.86, 0.42, 0.86, -0.35)
    p.poly(BLACK, 0.68, -0.3, 0.68, -0.62, 0.86, -0.82, 1.12, -0.82, 1.12, -0.62, 1.02, -0.58, 1.02, -0.3, edge=0)
    p.rect(p.tone((214, 30, 36)), -0.72, -0.92, 0.4, 0.9, 6)
    p.rect((236, 244, 248), -0.52, -0.72, 0.2, -0.2)
    p.rect((250, 206, 44), -0.52, 0.06, 0.2, 0.46, 4)
    p.rect((80, 80, 88), -0.9, 0.82, 0.58, 1.04, 4)


def golf_ball(p: Pen) -> None:
    """A white ball with grey dimples on a red tee."""
    p.poly(p.tone((224, 62, 48)), -0.34, 0.52, 0.34, 0.52, 0.12, 0.78, 0.1, 1.1, -0.1, 1.1, -0.12, 0.78)
    p.ellipse(WHITE, 0.0, -0.2, 0.82, 0.82, 6)
    for row, count in ((-0.66, 2), (-0.36, 3), (-0.06, 4), (0.24, 3)):
        for i in range(count):
            p.ellipse((176, 180, 190), (i - (count - 1) / 2) * 0.36, row, 0.1, 0.1, 0)


def parachute(p: Pen) -> None:
    """A canopy of red and white gores with lines down to a small blue jumper."""
    red = p.tone((232, 34, 60))
    for x in (-0.98, -0.35, 0.35, 0.98):
        p.line(INK, 4, x, -0.12, 0.0, 0.72)
    for i, colour in enumerate((red, WHITE, red, WHITE, red)):
        left = math.pi * (1 - i / 5)
        right = math.pi * (1 - (i + 1) / 5)
        p.poly(
            colour,
            math.cos(left) * 1.05,
            -0.08 - 0.9 * math.sin(left),
            math.cos(right) * 1.05,
            -0.08 - 0.9 * math.sin(right),
            -0.63 + 0.42 * i,
            -0.08,
            -1.05 + 0.42 * i,
            -0.08,
            edge=4,
        )
    p.ellipse((240, 190, 150), 0.0, 0.62, 0.13, 0.13, 3)
    p.rect((40, 70, 190), -0.17, 0.72, 0.17, 1.1, 4)


def knife(p: Pen) -> None:
    """A broad steel blade, point to the left, with a brown riveted handle."""
    p.poly((206, 214, 224), -1.15, 0.46, -0.8, 0.0, -0.3, -0.3, 0.3, -0.44, 0.4, 0.28, -0.3, 0.38, edge=6)
    p.line(WHITE, 8, -0.75, 0.18, -0.3, -0.04, 0.2, -0.16)
    p.poly(p.tone((116, 60, 26)), 0.3, -0.48, 0.44, -0.52, 1.1, -0.46, 1.14, -0.1, 0.46, 0.28, 0.38, 0.26, edge=6)
    p.ellipse((236, 200, 90), 0.6, -0.14, 0.09, 0.09, 0)
    p.ellipse((236, 200, 90), 0.9, -0.24, 0.09, 0.09, 0)


def pistol(p: Pen) -> None:
    """A dark steel pistol pointing left with a brown grip and a trigger guard."""
    p.poly(p.tone((140, 78, 36)), 0.26, 0.0, 0.86, 0.0, 1.04, 0.92, 0.5, 0.92, edge=6)
    p.arc(INK, 8, 0.12, 0.1, 0.26, 0.32, -10, 190)
    p.rect(p.tone((74, 78, 90), 6), -1.08, -0.56, 0.92, 0.04, 6)
    p.rect((150, 156, 170), -0.92, -0.4, 0.3, -0.24, 0)
    p.rect(INK, -1.0, -0.72, -0.84, -0.52, 0)


def bomb(p: Pen) -> None:
    """A round black bomb with a shine, a fuse and a big yellow-orange spark."""
    p.line((214, 176, 110), 9, 0.1, -0.5, 0.28, -0.8, 0.66, -0.78)
    spark = []
    for i in range(16):
        reach = 0.4 if i % 2 == 0 else 0.19
        spark += [0.74 + reach * math.cos(i * math.pi / 8), -0.72 + reach * math.sin(i * math.pi / 8)]
    p.poly((255, 190, 20), *spark, edge=0)
    p.ellipse((250, 84, 20), 0.74, -0.72, 0.14, 0.14, 0)
    p.rect((84, 86, 94), -0.28, -0.66, 0.26, -0.36, 4)
    p.ellipse(p.tone((38, 38, 46), 5), -0.08, 0.3, 0.78, 0.76)
    p.ellipse((210, 214, 224), -0.38, 0.02, 0.15, 0.17, 0)


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
    p.rect(p.tone((128, 80, 36)), -0.18, 0.2, 0.18, 1.1)
    green = p.tone((36, 128, 52))
    for x, y, r in ((-0.48, -0.1, 0.5), (0.48, -0.1, 0.5), (0.0, -0.52, 0.56)):
        p.ellipse(green, x, y, r, r)
    p.ellipse(green, 0.0, -0.15, 0.55, 0.46, 0)


def boat(p: Pen) -> None:
    """A boat with a brown hull and two sails, one white and one blue, seen from the side."""
    p.line(INK, 7, 0.0, -1.05, 0.0, 0.5)
    p.poly(WHITE, 0.08, -1.0, 0.9, 0.34, 0.08, 0.34)
    p.poly(p.tone((66, 130, 226)), -0.08, -0.8, -0.08, 0.34, -0.8, 0.34)
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


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "tench": tench,
    "English springer": springer,
    "cassette player": cassette_player,
    "chain saw": chain_saw,
    "church": church,
    "French horn": french_horn,
    "garbage truck": garbage_truck,
    "gas pump": gas_pump,
    "golf ball": golf_ball,
    "parachute": parachute,
    "knife": knife,
    "pistol": pistol,
    "bomb": bomb,
    "apple": apple,
    "tree": tree,
    "boat": boat,
    "cup": cup,
    "chair": chair,
    "flower": flower,
    "star": star,
    "banana": banana,
}
"""The drawing of every named thing."""
