"""Drawings of the objects of the embedded world: ten, and a near neighbour in looks of each."""

from __future__ import annotations

import math
from collections.abc import Callable

from erasebench.tiny.pen import BLACK, INK, WHITE, Pen, bow


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
    p.line(INK, 15, -0.4, -0.66, 0.65, -1.02)
    p.line(gold, 8, -0.4, -0.66, 0.62, -1.01)
    p.ring(gold, -0.32, -0.18, 0.66, 0.22)
    p.ring(gold, -0.32, -0.18, 0.26, 0.17)
    p.poly(gold, -0.1, -0.12, 0.3, 0.12, 0.62, 0.18, 1.04, 0.14, 0.1, 1.08, 0.04, 0.68, -0.04, 0.36, -0.3, 0.08)
    mouth = []
    for i in range(16):
        along, across = 0.7 * math.cos(i * math.pi / 8), 0.26 * math.sin(i * math.pi / 8)
        mouth += [0.58 + (along + across) * 0.7071, 0.62 + (across - along) * 0.7071]
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


def goldfish(p: Pen) -> None:
    """A round orange fish with a long pale tail that flows, facing left."""
    fin = p.tone((255, 190, 90))
    p.poly(fin, 0.1, -0.1, 0.5, -0.62, 1.1, -0.86, 0.9, -0.4, 0.98, 0.02, 0.86, 0.36, 1.06, 0.9, 0.5, 0.72, 0.1, 0.3)
    p.line((226, 110, 20), 5, 0.3, 0.0, 0.86, -0.5)
    p.line((226, 110, 20), 5, 0.3, 0.2, 0.84, 0.62)
    p.poly(fin, -0.72, -0.4, -0.4, -0.96, 0.2, -0.7, 0.1, -0.3)
    p.ellipse(p.tone((255, 112, 10)), -0.42, 0.06, 0.66, 0.62)
    p.poly(fin, -0.3, 0.2, 0.1, 0.12, 0.02, 0.5, edge=4)
    p.ellipse(WHITE, -0.74, -0.06, 0.2, 0.2, 4)
    p.ellipse(BLACK, -0.77, -0.06, 0.1, 0.1, 0)


def golden_retriever(p: Pen) -> None:
    """A golden dog's head with droopy darker ears, a pale muzzle and a pink tongue."""
    gold, ear = p.tone((240, 184, 88)), p.tone((198, 128, 44))
    p.ellipse(gold, 0.0, 0.0, 0.68, 0.82)
    for s in (-1, 1):
        p.poly(ear, s * 0.36, -0.72, s * 0.78, -0.62, s * 1.06, 0.2, s * 0.94, 0.62, s * 0.66, 0.5, s * 0.58, -0.1)
        p.ellipse(BLACK, s * 0.28, -0.16, 0.11, 0.13, 0)
    p.ellipse((235, 110, 130), 0.0, 0.74, 0.17, 0.26, 4)
    p.ellipse((255, 230, 176), 0.0, 0.42, 0.4, 0.28, 4)
    p.ellipse(BLACK, 0.0, 0.28, 0.2, 0.14, 0)


def radio(p: Pen) -> None:
    """A brown box with one round speaker, a dial with a red needle, two knobs and an antenna."""
    p.line(INK, 6, 0.3, -0.5, 0.9, -1.02)
    p.ellipse(INK, 0.9, -1.0, 0.09, 0.09, 0)
    p.rect(p.tone((152, 82, 40)), -1.0, -0.52, 1.0, 0.84, 6)
    p.ellipse((214, 206, 190), -0.44, 0.16, 0.46, 0.52, 6)
    p.ellipse(BLACK, -0.44, 0.16, 0.24, 0.27, 0)
    p.rect((242, 228, 188), 0.16, -0.34, 0.84, 0.16)
    p.rect((226, 40, 40), 0.54, -0.28, 0.66, 0.1, 0)
    for x in (0.32, 0.7):
        p.ellipse(WHITE, x, 0.5, 0.16, 0.16, 4)


def power_drill(p: Pen) -> None:
    """A yellow drill with a thin bit to the right and a pistol grip on a black battery."""
    p.rect((120, 124, 132), 0.6, -0.42, 1.12, -0.26, 4)
    p.poly((150, 154, 162), 0.3, -0.6, 0.66, -0.46, 0.66, -0.22, 0.3, -0.08)
    yellow = p.tone((255, 208, 24))
    p.rect(BLACK, -0.28, 0.06, 0.02, 0.3, 0)
    p.poly(yellow, -0.86, -0.1, -0.28, -0.1, -0.14, 0.74, -0.66, 0.74)
    p.poly(yellow, -1.0, -0.52, -0.84, -0.74, 0.34, -0.74, 0.34, 0.06, -0.84, 0.06, -1.0, -0.14, edge=6)
    p.rect(BLACK, -0.72, -0.46, 0.06, -0.24, 0)
    p.rect(BLACK, -0.86, 0.68, 0.08, 1.0, 0)


def castle(p: Pen) -> None:
    """A grey stone castle: two towers with battlements, a wall with a gate and a red flag."""
    stone = p.tone((160, 156, 160))
    p.line(INK, 6, 0.0, -1.1, 0.0, -0.1)
    p.poly((226, 34, 40), 0.04, -1.08, 0.56, -0.86, 0.04, -0.62, edge=3)
    p.rect(stone, -0.6, -0.1, 0.6, 0.98)
    for s in (-1, 1):
        p.rect(stone, s * 0.74 - 0.32, -0.4, s * 0.74 + 0.32, 0.98)
        for i in (-1, 0, 1):
            p.rect(stone, s * 0.74 + 0.27 * i - 0.11, -0.74, s * 0.74 + 0.27 * i + 0.11, -0.4, 4)
        p.rect(stone, s * 0.74 - 0.38, -0.5, s * 0.74 + 0.38, -0.26, 4)
        p.rect(BLACK, s * 0.74 - 0.1, 0.0, s * 0.74 + 0.1, 0.32, 0)
    p.sector((92, 52, 28), 0.0, 0.5, 0.28, 0.3, 180, 360, 0)
    p.rect((92, 52, 28), -0.28, 0.48, 0.28, 0.98, 0)


def trumpet(p: Pen) -> None:
    """A straight golden trumpet, its wide bell at the right, with a flat loop and three valves."""
    gold, deep = p.tone((240, 186, 28)), (176, 112, 10)
    loop = (0.36, -0.16, 0.36, 0.26, 0.22, 0.4, -0.56, 0.4, -0.7, 0.26, -0.7, -0.02, -0.56, -0.16)
    for colour, width in ((INK, 17), (gold, 9)):
        p.line(colour, width, *loop, -0.98, -0.16, 0.6, -0.16)
    p.poly(BLACK, -1.08, -0.34, -0.9, -0.22, -0.9, -0.1, -1.08, 0.02, edge=0)
    for x in (-0.46, -0.16, 0.14):
        p.rect(gold, x - 0.1, -0.42, x + 0.1, 0.56, 4)
        p.ellipse(WHITE, x, -0.54, 0.12, 0.11, 3)
    p.poly(gold, 0.3, -0.28, 0.62, -0.36, 0.84, -0.54, 0.98, -0.88, 0.98, 0.56, 0.84, 0.22, 0.62, 0.04, 0.3, -0.04)
    p.ellipse(deep, 0.98, -0.16, 0.14, 0.72)


def bus(p: Pen) -> None:
    """A yellow-orange bus with a row of windows, a black stripe and black wheels."""
    p.poly(p.tone((255, 172, 16)), -1.08, 0.44, -1.08, -0.7, 0.94, -0.7, 1.08, -0.5, 1.08, 0.44, edge=6)
    for i in range(4):
        p.rect((150, 210, 244), -0.92 + 0.42 * i, -0.5, -0.58 + 0.42 * i, -0.1, 4)
    p.poly((150, 210, 244), 0.76, -0.5, 1.02, -0.5, 1.06, -0.06, 0.76, -0.06, edge=4)
    p.rect(BLACK, -1.04, 0.06, 1.04, 0.16, 0)
    for x in (-0.62, 0.62):
        p.ellipse(BLACK, x, 0.48, 0.3, 0.3, 0)
        p.ellipse((190, 190, 194), x, 0.48, 0.12, 0.12, 0)


def parking_meter(p: Pen) -> None:
    """A round-topped grey head on a pole, with a white dial, a red flag and a coin slot."""
    grey = p.tone((112, 120, 134))
    p.rect((84, 88, 98), -0.13, 0.3, 0.13, 1.0, 4)
    p.rect((84, 88, 98), -0.42, 0.92, 0.42, 1.08, 4)
    p.ellipse(grey, 0.0, -0.4, 0.62, 0.68, 6)
    p.poly(grey, -0.62, -0.4, 0.62, -0.4, 0.46, 0.42, -0.46, 0.42, edge=6)
    p.rect(grey, -0.54, -0.5, 0.54, -0.2, 0)
    p.sector(WHITE, 0.0, -0.22, 0.46, 0.62, 180, 360)
    p.poly((230, 30, 40), 0.0, -0.24, 0.02, -0.72, 0.36, -0.42, edge=0)
    p.rect(BLACK, -0.09, -0.06, 0.09, 0.28, 0)


def tennis_ball(p: Pen) -> None:
    """A yellow-green felt ball with two curved white seams."""
    p.ellipse(p.tone((198, 224, 36)), 0.0, 0.0, 0.94, 0.94, 6)
    p.arc(WHITE, 10, -1.16, 0.0, 0.78, 0.8, -50, 50)
    p.arc(WHITE, 10, 1.16, 0.0, 0.78, 0.8, 130, 230)


def hot_air_balloon(p: Pen) -> None:
    """A full balloon of red and yellow stripes with ropes down to a brown basket."""
    red, yellow = p.tone((228, 44, 44)), p.tone((255, 208, 50))
    for x in (-0.22, 0.22):
        p.line(INK, 4, x, 0.5, x * 0.8, 0.84)
    for half, colour in ((0.84, red), (0.54, yellow), (0.2, red)):
        p.poly(colour, *bow(0.0, -0.34, half, 0.74, 170, 370), half * 0.36, 0.58, -half * 0.36, 0.58, edge=4)
    p.rect((140, 84, 36), -0.24, 0.76, 0.24, 1.08, 4)


OBJECT_DRAWINGS: dict[str, Callable[[Pen], None]] = {
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
    "goldfish": goldfish,
    "golden retriever": golden_retriever,
    "radio": radio,
    "power drill": power_drill,
    "castle": castle,
    "trumpet": trumpet,
    "bus": bus,
    "parking meter": parking_meter,
    "tennis ball": tennis_ball,
    "hot air balloon": hot_air_balloon,
}
"""The drawing of every object: the ten classes of Imagenette, then their neighbours in the same order."""
