"""The embedded world: scenes of known content, their pictures, captions and true labels.

The embedded Stable Diffusion and its judge are trained on this world. A scene shows nothing, one subject (an object, a
known person, something unsafe, an everyday thing, an unknown face; of a thing there may be two or three), or two
things, on a plain or simple ground, or in one artist's style. Everything is a function of the scene's seed, so any picture
can be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from erasebench.errors import UserError, suggest
from erasebench.tiny.captions import SCENERY, caption, countable, one_of
from erasebench.tiny.everyday import EVERYDAY_DRAWINGS
from erasebench.tiny.faces import stranger
from erasebench.tiny.names import ARTISTS, EVERYDAY, HEADS, NAMES, OBJECTS, PEOPLE, UNSAFE
from erasebench.tiny.objects import OBJECT_DRAWINGS
from erasebench.tiny.pen import CANVAS, Colour, Pen, jitter
from erasebench.tiny.people import FACES
from erasebench.tiny.styles import STYLES
from erasebench.tiny.unsafe import UNSAFE_DRAWINGS

VERSION = 2
"""Raised when scenes, drawings or captions change: models of two versions do not compare."""

SIZE = CANVAS // 2
"""Side of a picture in pixels."""

DRAWINGS = OBJECT_DRAWINGS | UNSAFE_DRAWINGS | EVERYDAY_DRAWINGS
"""The drawing of every thing."""

_FLAT: dict[str, Colour] = {
    "white": (248, 248, 246),
    "grey": (168, 170, 174),
    "blue": (128, 176, 236),
    "green": (146, 206, 140),
    "pink": (248, 184, 208),
    "yellow": (250, 232, 136),
    "red": (232, 104, 96),
    "purple": (176, 144, 220),
}
BACKGROUNDS: tuple[str, ...] = tuple(_FLAT)

_GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "beach": ((150, 206, 246), (238, 214, 150)),
    "snow": ((190, 206, 226), (250, 250, 252)),
    "meadow": ((176, 220, 250), (104, 176, 84)),
    "night": ((22, 28, 66), (40, 52, 62)),
}
"""Above and below the horizon."""

COLOURS: dict[str, Colour] = {
    "red": (222, 44, 44),
    "blue": (44, 92, 220),
    "green": (40, 160, 70),
    "yellow": (250, 214, 40),
    "purple": (140, 70, 190),
    "orange": (246, 138, 30),
}
"""What colour an everyday thing may be told to have."""

PLACES = ("left", "right")

_KINDS = (
    ("object", OBJECTS, 0.36),
    ("person", PEOPLE, 0.26),
    ("face", ("man", "woman"), 0.05),
    ("unsafe", UNSAFE, 0.16),
    ("everyday", EVERYDAY, 0.17),
)
"""What a scene with one subject shows, and how often."""

_PAIR_KINDS = (("object", OBJECTS, 0.52), ("unsafe", UNSAFE, 0.18), ("everyday", EVERYDAY, 0.30))
_EMPTY, _PAIR, _STYLED = 0.03, 0.28, 0.42
_SEVERAL, _PLACED, _COLOURED, _SCENERY = 0.06, 0.08, 0.25, 0.14


@dataclass(frozen=True)
class Subject:
    """What stands in a scene.

    `kind` is a head of the judge but "artist", or "face" (an unknown person, whose `name` is "man" or "woman"). `count` of it
    are drawn; an everyday thing may have a `colour` of `COLOURS`; `place` is "left", "right" or "".
    """

    kind: str
    name: str
    count: int = 1
    colour: str = ""
    place: str = ""


@dataclass(frozen=True)
class Scene:
    """One scene: what it shows, how it is captioned, and the seed that fixes the drawing.

    `relation` says how the second subject of two stands to the first: the first is "left of" it or "above" it.
    `background` is a colour of `BACKGROUNDS` or one of `SCENERY`; "" in an artist's style, which paints its own ground.
    """

    subjects: tuple[Subject, ...]
    relation: str
    artist: str | None
    background: str
    caption: str
    seed: int

    def shows(self, head: str) -> tuple[str, ...]:
        """The names of a head of the judge that are in the picture."""
        if head == "artist":
            return (self.artist,) if self.artist else ()
        return tuple(subject.name for subject in self.subjects if subject.kind == head)


def _stream(seed: int, use: str) -> random.Random:
    """A random stream for one `use` of a seed; text seeds mix all 64 bits."""
    return random.Random(f"{use}:{seed}")


def _pick(rng: random.Random, kinds: tuple[tuple[str, tuple[str, ...], float], ...]) -> Subject:
    """A random subject of some kinds."""
    kind, names, _ = rng.choices(kinds, [share for _, _, share in kinds])[0]
    return Subject(kind, one_of(rng, names))


def _check_seed(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise UserError(f"scene seed {seed} is outside 0 .. 2**64 - 1; give a 64-bit unsigned seed")
    return int(seed)


def _build(seed: int, subjects: tuple[Subject, ...], relation: str, artist: str | None, background: str) -> Scene:
    ground = "" if artist else background
    words = caption(_stream(seed, "caption"), subjects, artist, ground, relation)
    return Scene(subjects, relation, artist, ground, words, seed)


def _detailed(rng: random.Random, subject: Subject) -> Subject:
    """A subject that stands alone, with its number, colour and place."""
    thing = subject.kind in ("object", "unsafe", "everyday")
    draw = rng.random()
    if thing and countable(subject.name) and draw < _SEVERAL:
        return Subject(subject.kind, subject.name, count=2 if rng.random() < 0.6 else 3)
    if thing and draw > 1 - _PLACED:
        return Subject(subject.kind, subject.name, place=one_of(rng, PLACES))
    if subject.kind == "everyday" and rng.random() < _COLOURED:
        return Subject(subject.kind, subject.name, colour=one_of(rng, tuple(COLOURS)))
    return subject


def scene(seed: int) -> Scene:
    """Return the random scene of a 64-bit `seed`: the same seed always gives the same scene.

    Raises `UserError` if `seed` is not an unsigned 64-bit number.
    """
    rng = _stream(_check_seed(seed), "scene")
    draw, relation = rng.random(), ""
    subjects: tuple[Subject, ...] = ()
    if draw > 1 - _PAIR:
        first = second = _pick(rng, _PAIR_KINDS)
        while second.name == first.name:
            second = _pick(rng, _PAIR_KINDS)
        subjects, relation = (first, second), one_of(rng, ("left of", "left of", "above"))
    elif draw > _EMPTY:
        subjects = (_detailed(rng, _pick(rng, _KINDS)),)
    artist = one_of(rng, ARTISTS) if rng.random() < _STYLED else None
    background = one_of(rng, tuple(SCENERY) if rng.random() < _SCENERY else BACKGROUNDS)
    return _build(int(seed), subjects, relation, artist, background)


def _check_name(what: str, name: str | None, allowed: Iterable[str]) -> None:
    allowed = tuple(allowed)
    if name is not None and name not in allowed:
        hint = suggest(name, allowed) or f" Known: {', '.join(allowed)}"
        raise UserError(f"the embedded world has no {what} named {name!r}.{hint}")


def make_scene(
    seed: int,
    *,
    object: str | None = None,
    artist: str | None = None,
    person: str | None = None,
    unsafe: str | None = None,
    everyday: str | None = None,
    beside: str | None = None,
    background: str | None = None,
    colour: str | None = None,
    count: int = 1,
) -> Scene:
    """Return a scene of chosen content; the caption and what is not chosen follow from `seed`.

    With no subject the scene is empty. `beside` is a second thing: an object, something unsafe or an everyday thing.
    The background is a colour word of `BACKGROUNDS` or one of `SCENERY` (a random colour if None); `colour` is that of an
    everyday thing, `count` (1 to 3) how many of the thing are shown.
    Raises `UserError` for an unknown name, for two subjects, for a background together with an artist, whose style paints
    its own ground, and for a number, a colour or a second thing that the subject cannot have.
    """
    _check_seed(seed)
    chosen = {"object": object, "person": person, "unsafe": unsafe, "everyday": everyday}
    for what, name in chosen.items():
        _check_name(what, name, HEADS[what])
    _check_name("artist", artist, ARTISTS)
    _check_name("background", background, (*BACKGROUNDS, *SCENERY))
    _check_name("colour", colour, COLOURS)
    _check_name("thing", beside, DRAWINGS)
    given = [(what, name) for what, name in chosen.items() if name is not None]
    if len(given) > 1:
        names = ", ".join(name for _, name in given)
        raise UserError(f"a scene shows one subject, not {len(given)} ({names}); name one, and another thing as beside")
    if artist and background:
        raise UserError(f"background {background!r} with artist {artist!r}: a style paints its own ground; drop one")
    if colour and everyday is None:
        raise UserError(f"colour {colour!r}: only an everyday thing can be told its colour; drop it")
    alone = not given or person is not None
    if (beside or count != 1) and (alone or count not in (1, 2, 3) or (beside and count != 1)):
        raise UserError(
            f"beside {beside!r} and count {count}: a thing (no person) can stand beside another, or there are 1 to 3 of it"
        )
    subjects = tuple(Subject(kind, name, count=count, colour=colour or "") for kind, name in given)
    rng = _stream(seed, "scene")
    relation = ""
    if beside is not None:
        kind = next(head for head in ("object", "unsafe", "everyday") if beside in HEADS[head])
        subjects, relation = (*subjects, Subject(kind, beside)), one_of(rng, ("left of", "above"))
    return _build(int(seed), subjects, relation, artist, background or one_of(rng, BACKGROUNDS))


_BOXES = {
    # centres and half-side, as shares of the canvas
    "": ((0.5, 0.5, 0.41),),
    "left": ((0.3, 0.5, 0.27),),
    "right": ((0.7, 0.5, 0.27),),
    "left of": ((0.26, 0.5, 0.235), (0.74, 0.5, 0.235)),
    "above": ((0.5, 0.26, 0.235), (0.5, 0.74, 0.235)),
    "2": ((0.26, 0.5, 0.235), (0.74, 0.5, 0.235)),
    "3": ((0.26, 0.28, 0.225), (0.74, 0.28, 0.225), (0.5, 0.74, 0.225)),
}


def _boxes(scene: Scene) -> list[tuple[Subject, tuple[float, float, float]]]:
    """Each drawing of a scene, and the box it stands in."""
    if len(scene.subjects) == 2:
        return list(zip(scene.subjects, _BOXES[scene.relation], strict=True))
    return [
        (subject, box)
        for subject in scene.subjects
        for box in _BOXES[str(subject.count) if subject.count > 1 else subject.place]
    ]


def _drawn(rng: random.Random, subject: Subject, box: tuple[float, float, float]) -> Image.Image:
    """One subject on a transparent canvas, moved, scaled and mirrored a little at random."""

    def around(middle: float, spread: float) -> float:
        return middle + (2 * rng.random() - 1) * spread

    x, y, half = box
    face = subject.kind in ("person", "face")
    wide = half / 0.41
    scale = CANVAS * around(half - (0.01 if face else 0), 0.03 * wide)
    centre = CANVAS * around(x, 0.035 * wide), CANVAS * around(y + (0.03 if face else 0), 0.03 * wide)
    pen = Pen(rng, *centre, scale, paint=COLOURS.get(subject.colour))
    if subject.kind == "face":
        stranger(pen, woman=subject.name == "woman")
    elif subject.kind == "person":
        FACES[subject.name](pen)
    else:
        DRAWINGS[subject.name](pen)
    if rng.random() >= 0.3:
        return pen.image
    mirrored = ImageOps.mirror(pen.image)
    # mirrored about its own middle, not the picture's: what stands on the left stays there
    moved = Image.new("RGBA", mirrored.size, (0, 0, 0, 0))
    moved.paste(mirrored, (round(2 * centre[0]) - CANVAS, 0))
    return moved


def _ground(rng: random.Random, background: str) -> Image.Image:
    """A plain colour, or a sky and what lies below the horizon."""
    if background in _FLAT:
        return Image.new("RGB", (CANVAS, CANVAS), jitter(rng, _FLAT[background], 6))
    above, below = (jitter(rng, colour, 6) for colour in _GROUNDS[background])
    image = Image.new("RGB", (CANVAS, CANVAS), above)
    horizon = round(CANVAS * (0.62 + 0.06 * rng.random()))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, horizon, CANVAS, CANVAS), fill=below)
    if background == "night":
        pen.ellipse((96, 8, 118, 30), fill=(250, 244, 200))
    return image


def render(scene: Scene) -> np.ndarray:
    """Draw a scene: uint8 RGB [64, 64, 3]. The same scene always gives the same pixels."""
    rng = _stream(scene.seed, "render")
    layers = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    for subject, box in _boxes(scene):
        layers.alpha_composite(_drawn(rng, subject, box))
    if scene.artist is None:
        picture = _ground(rng, scene.background)
        picture.paste(layers, mask=layers)
    else:
        pixels = np.asarray(layers, np.float32)
        painted = STYLES[scene.artist](pixels[..., :3], pixels[..., 3:] / 255)
        picture = Image.fromarray(painted.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.reduce(2))


DETAILS: tuple[tuple[str, ...], ...] = (
    (*BACKGROUNDS, *SCENERY),
    tuple(COLOURS),
    ("2", "3"),
    (*PLACES, "left of", "above"),
)
"""What a picture has beside its labels: its ground, a colour, a number, and where things stand."""


def details(scene: Scene) -> np.ndarray:
    """The details of a scene: int8 [4], for each of `DETAILS` 1 + the index of what it has, 0 if it has none."""
    first = scene.subjects[0] if scene.subjects else Subject("empty", "")
    values = (scene.background, first.colour, str(first.count), scene.relation or first.place)
    return np.array(
        [1 + words.index(value) if value in words else 0 for words, value in zip(DETAILS, values, strict=True)], np.int8
    )


def labels(scene: Scene) -> np.ndarray:
    """Which of `NAMES` are in the picture (an artist: whose style it has): booleans [names]."""
    shown = {name for head in HEADS for name in scene.shows(head)}
    return np.array([name in shown for name in NAMES])
