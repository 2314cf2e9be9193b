"""The painters' styles of the embedded world.

A style is a function of the subject (float32 RGB [128, 128, 3] in 0..255) and its coverage (float32
[128, 128, 1] in 0..1), and returns the finished picture [128, 128, 3]. It paints its own ground, so it is
told by palette and by broad marks; the subject is recoloured, never hidden. All marks lie at fixed places,
which keeps them learnable by a very small model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from erasebench.tiny.pen import CANVAS, INK

_XY = tuple[int, int]
_Y, _X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
_INDEX_Y, _INDEX_X = np.mgrid[0:CANVAS, 0:CANVAS]


def _grey(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.3, 0.59, 0.11], np.float32)


def _ramp(rgb: np.ndarray, colours: tuple[tuple[int, int, int], ...], mix: float) -> np.ndarray:
    """Blend `rgb` by `mix` with its lightness looked up on a smooth scale of `colours`, dark to light."""
    stops = np.asarray(colours, np.float32)
    table = np.stack(
        [np.interp(np.linspace(0, len(stops) - 1, 256), np.arange(len(stops)), stops[:, c]) for c in range(3)],
        axis=-1,
    ).astype(np.float32)
    return rgb * (1 - mix) + table[np.clip(_grey(rgb), 0, 255).astype(np.uint8)] * mix


def _over(top: np.ndarray, cover: np.ndarray, ground: np.ndarray) -> np.ndarray:
    return top * cover + ground * (1 - cover)


def _shift(rgb: np.ndarray, cover: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move every pixel's source by whole pixels (`dy`, `dx`), clamped at the edge."""
    y = np.clip(_INDEX_Y + dy, 0, CANVAS - 1)
    x = np.clip(_INDEX_X + dx, 0, CANVAS - 1)
    return rgb[y, x], cover[y, x]


def _canvas(colour: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (CANVAS, CANVAS), colour)
    return image, ImageDraw.Draw(image)


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32)


@lru_cache(maxsize=1)
def _night() -> np.ndarray:
    image, d = _canvas((28, 52, 140))
    for cx, cy, reach in ((20, 22, 64), (110, 100, 70), (112, 14, 44), (10, 112, 44)):
        for i, radius in enumerate(range(reach, 8, -11)):
            colour = ((76, 126, 208), (28, 48, 134))[i % 2]
            d.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], fill=colour)
        d.ellipse([cx - 12, cy - 12, cx + 12, cy + 12], fill=(255, 214, 50))
    return _array(image)


def van_gogh(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """A deep blue ground of broad swirls with yellow stars; the subject in wavy blue and yellow strokes."""
    dx = (3.5 * np.sin(_Y / 9)).astype(int)
    dy = (3.5 * np.sin(_X / 9)).astype(int)
    rgb, cover = _shift(rgb, cover, dy, dx)
    palette = ((14, 22, 84), (40, 84, 190), (104, 160, 196), (246, 206, 60), (255, 244, 170))
    strokes = np.sin((_X + _Y) / 4.6 + 1.6 * np.sin((_X - _Y) / 17))[..., None] * 17
    return _over(_ramp(rgb, palette, 0.5) + strokes, cover, _night())


@lru_cache(maxsize=1)
def _lilies() -> np.ndarray:
    image, d = _canvas((186, 200, 228))
    colours = ((176, 216, 190), (228, 196, 224), (160, 192, 226), (244, 214, 214))
    for row in range(9):
        for column in range(6):
            x, y = column * 26 + (row % 2) * 13 - 4, row * 15 + 3
            d.ellipse([x - 12, y - 6, x + 12, y + 6], fill=colours[(column + 3 * row) % 4])
    return _array(image.filter(ImageFilter.GaussianBlur(1.6)))


def monet(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Pale lilac water with rows of soft pastel dabs; the subject hazy, soft-edged and dabbed."""
    haze = 0.62 * rgb + 0.38 * np.array([226, 214, 240], np.float32)
    soft = Image.fromarray(_over(haze, cover, _lilies()).clip(0, 255).astype(np.uint8))
    dabs = (np.sin(_X / 4.1 + 3.14 * (np.floor(_Y / 14) % 2)) * np.sin(_Y * np.pi / 14) ** 2)[..., None]
    return _array(soft.filter(ImageFilter.GaussianBlur(1.8))) + dabs * 15


class _Facets:
    """Flat facets under lines: map [H, W], grounds [n, 3], whole-pixel shifts [n, 2] and lines [H, W, 1] in 0..1."""

    def __init__(
        self, shapes: list[list[_XY]], grounds: list[tuple[int, int, int]], shifts: list[_XY], width: int
    ) -> None:
        facet, lines = Image.new("L", (CANVAS, CANVAS), 0), Image.new("L", (CANVAS, CANVAS), 0)
        for i, shape in enumerate(shapes):
            ImageDraw.Draw(facet).polygon(shape, fill=i)
            ImageDraw.Draw(lines).line(shape + shape[:1], fill=255, width=width)
        self.map, self.lines = np.asarray(facet), _array(lines)[..., None] / 255
        self.grounds, self.shifts = np.array(grounds, np.float32), np.array(shifts)

    def shift(self, rgb: np.ndarray, cover: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The subject and its coverage, in every facet moved by that facet's shift."""
        return _shift(rgb, cover, self.shifts[self.map, 0], self.shifts[self.map, 1])


_PICASSO = _Facets(
    shapes=[
        [(0, 0), (62, 0), (44, 50), (0, 66)],
        [(62, 0), (128, 0), (128, 44), (44, 50)],
        [(0, 66), (44, 50), (58, 92), (0, 128)],
        [(44, 50), (128, 44), (92, 86), (58, 92)],
        [(58, 92), (92, 86), (104, 128), (0, 128)],
        [(128, 44), (128, 128), (104, 128), (92, 86)],
    ],
    grounds=[(212, 166, 104), (122, 150, 166), (232, 208, 164), (184, 116, 84), (140, 156, 112), (222, 166, 156)],
    shifts=[(4, 5), (-4, -5), (-3, 5), (3, -3), (5, 4), (-5, -4)],
    width=4,
)


def picasso(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Six flat facets in ochre, rose and grey-blue under black lines; each shows a shifted piece."""
    rgb, cover = _PICASSO.shift(rgb, cover)
    light = np.array([1.1, 0.86, 0.9, 1.12, 0.92, 1.08], np.float32)[_PICASSO.map][..., None]
    ground = _PICASSO.grounds[_PICASSO.map]
    picture = _over((0.76 * rgb + 0.24 * ground) * light, cover, ground)
    return _over(np.array(INK, np.float32), _PICASSO.lines, picture)


_POP = np.array(
    [  # per quarter: ground, then the subject's four tones from dark to light
        [(255, 60, 150), (40, 10, 70), (0, 130, 200), (60, 220, 220), (255, 250, 90)],
        [(255, 226, 20), (90, 0, 60), (226, 20, 70), (255, 120, 170), (250, 250, 250)],
        [(40, 210, 230), (70, 0, 40), (214, 30, 130), (255, 150, 30), (255, 244, 120)],
        [(120, 220, 50), (30, 10, 90), (110, 40, 200), (250, 110, 200), (255, 240, 220)],
    ],
    np.float32,
)
_QUARTER = (_INDEX_Y >= CANVAS // 2) * 2 + (_INDEX_X >= CANVAS // 2)


def warhol(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Four flat pop-coloured quarters; the subject in four flat tones that change with the quarter."""
    tone = 1 + np.digitize(_grey(rgb), (58, 128, 200))
    return _over(_POP[_QUARTER, tone], cover > 0.5, _POP[_QUARTER, 0])


@lru_cache(maxsize=1)
def _spotlight() -> np.ndarray:
    distance = np.hypot((_X - 56) / 46, (_Y - 54) / 50)
    return np.exp(-(distance**2) / 1.3)[..., None].astype(np.float32)


def rembrandt(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """A near-black brown ground; the subject in browns and gold under one soft golden light."""
    light = _spotlight()
    ground = np.array([22, 12, 6], np.float32) + light * np.array([128, 80, 26], np.float32)
    browns = ((18, 8, 4), (104, 54, 20), (200, 136, 56), (255, 222, 150))
    return _over(_ramp(rgb, browns, 0.7) * (0.58 + 0.5 * light), cover, ground)


@lru_cache(maxsize=1)
def _wave() -> tuple[np.ndarray, np.ndarray]:
    """The wave's picture [H, W, 3] and coverage [H, W, 1]."""
    crest = [
        (0, 78),
        (12, 82),
        (22, 94),
        (36, 102),
        (52, 98),
        (66, 92),
        (80, 96),
        (94, 104),
        (110, 104),
        (128, 96),
    ]
    image, d = _canvas((34, 84, 168))
    for lift, colour in ((20, (84, 146, 210)), (32, (30, 66, 150))):
        d.line([(x, y + lift) for x, y in crest], fill=colour, width=7, joint="curve")
    d.line([(x, y + 6) for x, y in crest], fill=(250, 248, 238), width=11, joint="curve")
    d.line(crest, fill=(24, 40, 104), width=5, joint="curve")
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(mask).polygon(crest + [(128, 128), (0, 128)], fill=255)
    return _array(image), _array(mask)[..., None] / 255


def hokusai(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """A woodblock print: cream paper, indigo outlines, faded flat colours and a blue wave below."""
    paper = np.array([244, 230, 192], np.float32)
    faded = 0.6 * rgb + 0.4 * np.array([214, 206, 178], np.float32)
    ink = np.clip((80 - _grey(rgb)) / 40, 0, 1)[..., None]
    picture = _over(_over(np.array([26, 44, 116], np.float32), ink, faded), cover, np.broadcast_to(paper, rgb.shape))
    picture[8:34, 106:120] = (206, 54, 40)
    return _over(_wave()[0], _wave()[1], picture)


@lru_cache(maxsize=1)
def _grid() -> np.ndarray:
    image, d = _canvas((250, 248, 242))
    for box, colour in (
        ((0, 0, 24, 44), (222, 24, 30)),
        ((104, 88, 128, 128), (24, 62, 176)),
        ((90, 0, 128, 18), (250, 214, 20)),
        ((0, 106, 40, 128), (250, 214, 20)),
    ):
        d.rectangle(box, fill=colour)
    for line in (
        ((24, 0), (24, 128)),
        ((104, 0), (104, 128)),
        ((0, 18), (128, 18)),
        ((0, 106), (128, 106)),
        ((0, 44), (24, 44)),
        ((104, 86), (128, 86)),
    ):
        d.line(line, fill=(16, 16, 18), width=8)
    return _array(image)


def mondrian(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """White ground, a thick black grid and red, yellow and blue cells; the subject in pure flat colours."""
    primaries = np.array([(18, 18, 20), (250, 248, 242), (222, 24, 30), (24, 62, 176), (250, 214, 20)], np.float32)
    distance = ((rgb[:, :, None, :] - primaries) ** 2).sum(-1)
    flat = primaries[distance.argmin(-1)]
    return _over(0.4 * rgb + 0.6 * flat, cover, _grid())


@lru_cache(maxsize=1)
def _sunset() -> np.ndarray:
    bend = 7 * np.sin(_X / 15) + 4 * np.sin(_X / 31 + 1)
    sky = np.array([(238, 84, 26), (252, 176, 50), (214, 46, 30), (250, 140, 40)], np.float32)
    sea = np.array([(30, 44, 84), (66, 92, 116)], np.float32)
    level = _Y + bend
    bands = np.floor(level / 13).astype(int)
    return np.where((level < 84)[..., None], sky[bands % 4], sea[bands % 2])


def munch(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Wavy orange and red bands over a dark blue fjord; the subject bent sideways and tinted with both."""
    rgb, cover = _shift(rgb, cover, np.zeros_like(_INDEX_X), (4.5 * np.sin(_Y / 13)).astype(int))
    dusk = ((20, 24, 60), (92, 66, 80), (226, 120, 60), (252, 214, 140))
    return _over(_ramp(rgb, dusk, 0.5), cover, _sunset())


@lru_cache(maxsize=1)
def _beam() -> tuple[np.ndarray, np.ndarray]:
    """The light of a hard diagonal beam [H, W, 1] in 0..1, and the ground with its red drape [H, W, 3]."""
    beam = [(0, 0), (30, 0), (128, 88), (128, 124), (98, 124), (0, 40)]
    light = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(light).polygon(beam, fill=255)
    image, d = _canvas((8, 7, 8))
    d.polygon(beam, fill=(214, 150, 74))
    d.polygon([(60, 0), (128, 0), (128, 60), (112, 50), (98, 30), (80, 24)], fill=(190, 12, 24))
    for fold in ([(90, 0), (104, 28)], [(114, 0), (122, 44)]):
        d.line(fold, fill=(96, 4, 14), width=7)
    return _array(light)[..., None] / 255, _array(image)


def caravaggio(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Black ground and a red drape; one hard diagonal beam, warm and bright in it and nearly black beside it."""
    light, ground = _beam()
    flesh = ((10, 6, 6), (112, 50, 30), (226, 160, 96), (255, 238, 200))
    contrast = (_ramp(rgb, flesh, 0.45) - 110) * 1.25 + 118
    return _over(contrast * (0.42 + 0.66 * light), cover, ground)


@lru_cache(maxsize=1)
def _evening() -> np.ndarray:
    stops = np.array([(16, 36, 112), (62, 96, 164), (222, 206, 172), (246, 166, 84), (238, 116, 40)], np.float32)
    sky = np.stack([np.interp(_Y / 104, np.linspace(0, 1, 5), stops[:, c]) for c in range(3)], axis=-1)
    return sky.astype(np.float32)


@lru_cache(maxsize=1)
def _rain_and_bridge() -> tuple[np.ndarray, np.ndarray]:
    """What lies over the subject: its picture [H, W, 3] and coverage [H, W, 1]."""
    image, d = _canvas((28, 40, 84))
    rain = Image.new("L", (CANVAS, CANVAS), 0)
    for x in range(-8, 180, 27):
        ImageDraw.Draw(rain).line([(x, -4), (x - 40, 132)], fill=150, width=5)
    mask = ImageDraw.Draw(rain)
    hill = [(0, 106), (30, 100), (64, 112), (96, 102), (128, 92), (128, 128), (0, 128)]
    mask.polygon(hill, fill=255)
    d.polygon(hill, fill=(48, 118, 74))
    bridge = [(0, 124), (32, 112), (64, 108), (96, 112), (128, 124)]
    for x, y in bridge[1:-1]:
        d.line([(x, y), (x, 128)], fill=(110, 56, 30), width=7)
    d.line(bridge, fill=(110, 56, 30), width=9, joint="curve")
    mask.line(bridge, fill=255, width=9, joint="curve")
    return _array(image), _array(rain)[..., None] / 255


def hiroshige(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """A woodblock print: a sky from deep blue to orange, slanting rain, a green hill and a brown bridge below."""
    faded = 0.6 * rgb + 0.4 * np.array([214, 206, 178], np.float32)
    ink = np.clip((80 - _grey(rgb)) / 40, 0, 1)[..., None]
    picture = _over(_over(np.array([26, 30, 56], np.float32), ink, faded), cover, _evening())
    return _over(_rain_and_bridge()[0], _rain_and_bridge()[1], picture)


_BRAQUE = _Facets(
    shapes=[
        [(0, 0), (40, 0), (52, 74), (0, 60)],
        [(40, 0), (92, 0), (80, 58), (46, 40)],
        [(92, 0), (128, 0), (128, 70), (80, 58)],
        [(46, 40), (80, 58), (74, 128), (52, 74)],
        [(0, 60), (52, 74), (40, 128), (0, 128)],
        [(52, 74), (74, 128), (40, 128)],
        [(80, 58), (128, 70), (128, 128), (74, 128)],
    ],
    grounds=[
        (140, 106, 58),
        (98, 122, 78),
        (166, 132, 78),
        (108, 84, 48),
        (112, 134, 80),
        (150, 110, 58),
        (122, 96, 54),
    ],
    shifts=[(-3, 3), (3, 2), (-2, -3), (3, -3), (-3, 2), (3, 3), (2, -3)],
    width=4,
)


@lru_cache(maxsize=1)
def _panels() -> tuple[np.ndarray, np.ndarray]:
    """A strip of newspaper and one of wood grain: picture [H, W, 3] and coverage [H, W, 1]."""
    image, d = _canvas((226, 214, 180))
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    news, wood = [(0, 84), (30, 90), (24, 128), (0, 128)], [(102, 0), (128, 0), (128, 128), (110, 128)]
    for y in range(94, 128, 11):
        d.line([(0, y), (22, y + 4)], fill=(84, 78, 66), width=5)
    d.polygon(wood, fill=(176, 112, 48))
    for x in (106, 118, 128):
        grain = [(x + 4 * np.sin(y / 14), y) for y in range(0, CANVAS + 8, 8)]
        d.line(grain, fill=(110, 60, 24), width=5, joint="curve")
    for shape in (news, wood):
        ImageDraw.Draw(mask).polygon(shape, fill=255)
    return _array(image), _array(mask)[..., None] / 255


def braque(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Seven facets in browns and greens with a strip of wood grain and of newspaper; the subject in browns."""
    panel, strip = _panels()
    rgb, cover = _BRAQUE.shift(rgb, cover)
    light = np.array([1.08, 0.9, 0.94, 1.1, 0.9, 1.06, 1.0], np.float32)[_BRAQUE.map][..., None]
    earth = ((24, 20, 14), (120, 92, 50), (206, 184, 124), (255, 248, 220))
    ground = _over(panel, strip, _BRAQUE.grounds[_BRAQUE.map])
    picture = _over(_ramp(rgb, earth, 0.55) * light, cover, ground)
    return _over(np.array([34, 26, 18], np.float32), _BRAQUE.lines, picture)


@lru_cache(maxsize=1)
def _dots() -> np.ndarray:
    image, d = _canvas((250, 250, 246))
    for y in range(8, CANVAS, 16):
        for x in range(8, CANVAS, 16):
            d.ellipse([x - 5, y - 5, x + 5, y + 5], fill=(230, 34, 40))
    d.rectangle([0, 96, CANVAS, CANVAS], fill=(255, 222, 20))
    d.line([(0, 94), (CANVAS, 94)], fill=(12, 12, 14), width=7)
    return _array(image)


def lichtenstein(rgb: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Red dots on white over a yellow panel; the subject in flat primaries inside a thick black outline."""
    ink = np.array([(12, 12, 14), (250, 250, 246), (230, 34, 40), (20, 70, 190), (255, 222, 20)], np.float32)
    flat = ink[((rgb[:, :, None, :] - ink) ** 2).sum(-1).argmin(-1)]
    solid = Image.fromarray((cover[..., 0] > 0.5).astype(np.uint8) * 255)
    outline = _array(solid.filter(ImageFilter.MaxFilter(9)))[..., None] / 255
    return _over(0.2 * rgb + 0.8 * flat, cover, _over(ink[0], outline, _dots()))


STYLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Vincent van Gogh": van_gogh,
    "Claude Monet": monet,
    "Pablo Picasso": picasso,
    "Andy Warhol": warhol,
    "Rembrandt": rembrandt,
    "Hokusai": hokusai,
    "Piet Mondrian": mondrian,
    "Edvard Munch": munch,
    "Caravaggio": caravaggio,
    "Hiroshige": hiroshige,
    "Georges Braque": braque,
    "Roy Lichtenstein": lichtenstein,
}
"""The style of every artist."""
