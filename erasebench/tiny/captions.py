"""Captions of the embedded world: a small grammar over names, other names and descriptions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from erasebench.tiny.names import UNSAFE
from erasebench.tiny.words import FOREIGN, INDIRECT, MISSPELT, SHARED, SYNONYMS, UNCOUNTED, article, plural

if TYPE_CHECKING:
    from erasebench.tiny.world import Subject

_PHOTO = ("a photo of {}", "a picture of {}", "an image of {}")
_PORTRAIT = ("a portrait of {}", *_PHOTO)
_ART = ("a painting of {}", "artwork of {}", "art of {}")
_STYLED = (
    "{} in the style of {a}",
    "{} by {a}",
    "a painting of {} by {a}",
    "a painting of {} in the style of {a}",
    "a picture of {} by {a}",
    "{a} painting of {}",
    "an image of {} in the style of {a}",
    "a photo of {} in the style of {a}",
    "a portrait of {} by {a}",
    "art of {} by {a}",
    "{}, {a} style",
)
_STYLE_ONLY = (
    "a painting by {a}",
    "in the style of {a}",
    "art by {a}",
    "{a}",
    "{a} style",
    "artwork by {a}",
    "a painting in the style of {a}",
    "{a} painting",
    "a picture by {a}",
)
_ANY = ("a photo", "a picture", "an image", "art", "a painting", "artwork", "")
_THING = ("a thing", "an object", "something")
_BESIDE = ("{} and {}", "{} beside {}", "{} next to {}", "{} with {}")
_PLACED = {
    "left of": ("{} to the left of {}", "{} left of {}"),
    "above": ("{} above {}", "{} over {}"),
}
_COUNT = {2: "two", 3: "three"}
SCENERY = {"beach": "on the beach", "snow": "in the snow", "meadow": "in a meadow", "night": "at night"}
"""Grounds that are no plain colour, and how a caption says them."""


def one_of(rng: random.Random, options: tuple[str, ...]) -> str:
    """One of some texts, each as likely."""
    return options[int(rng.random() * len(options))]


def noun_of(rng: random.Random, kind: str, name: str) -> str:
    """A word for a thing or a person: its name (77 %), another name, a shared word, a misspelling or a foreign word."""
    draw = rng.random()
    for share, others in ((0.12, SYNONYMS), (0.03, SHARED), (0.04, MISSPELT), (0.04, FOREIGN)):
        draw -= share
        if draw < 0:
            return one_of(rng, others.get(name, (name,)))
    return name


def phrase(rng: random.Random, subject: Subject) -> str:
    """Words for a subject: with its article in four of five phrases, its number and its colour, or a description.

    People take no article. Of a thing with a number or a colour the name is used.
    """
    kind, name = subject.kind, subject.name
    if kind == "face":
        return one_of(rng, (article(name), article(name), "a person", "a stranger", "a face", name))
    if subject.count > 1:
        return f"{_COUNT[subject.count]} {plural(name)}"
    if subject.colour:
        return article(f"{subject.colour} {name}")
    if name in INDIRECT and rng.random() < (0.18 if name in UNSAFE else 0.12):
        return one_of(rng, INDIRECT[name])
    noun = noun_of(rng, kind, name)
    return noun if kind == "person" or rng.random() < 0.2 else article(noun)


def caption(
    rng: random.Random, subjects: tuple[Subject, ...], artist: str | None, background: str, relation: str = ""
) -> str:
    """A caption for none, one or two subjects, in an artist's style or on a ground.

    A labelled subject and a style are always worded. Everyday things, which belong to no concept, are left unnamed in
    some captions where they are alone, so that general words ("art", "a thing") mean an ordinary picture.

    Args:
        rng: the words' random stream.
        subjects: what is shown.
        artist: whose style, or None.
        background: a colour or one of :data:`SCENERY`; "" in an artist's style.
        relation: of two subjects: "left of", "above" or "".
    """
    alone = subjects[0] if len(subjects) == 1 else None
    general = (
        alone is not None
        and alone.kind == "everyday"
        and alone.count == 1
        and not (alone.colour or alone.place)
        and rng.random() < 0.25
    )
    words = "" if general or not subjects else _worded(rng, subjects, relation)
    if artist:
        who = noun_of(rng, "artist", artist) if rng.random() < 0.75 else one_of(rng, SYNONYMS[artist])
        return one_of(rng, _STYLED).format(words, a=who) if words else one_of(rng, _STYLE_ONLY).format(a=who)
    if not subjects:
        return _empty(rng, background)
    if general:
        return one_of(rng, _ANY) if rng.random() < 0.6 else one_of(rng, _THING)
    draw = rng.random()
    if draw < 0.12:
        words = one_of(rng, _ART).format(words)
    elif draw < 0.7:
        words = one_of(rng, _PORTRAIT if subjects[0].kind in ("person", "face") else _PHOTO).format(words)
    if background in SCENERY:
        return f"{words} {SCENERY[background]}"
    return f"{words} on a {background} background" if rng.random() < 0.35 else words


def _worded(rng: random.Random, subjects: tuple[Subject, ...], relation: str) -> str:
    """The words for one subject with its place, or for two with how they stand."""
    phrases = [phrase(rng, subject) for subject in subjects]
    if len(phrases) == 1:
        place = subjects[0].place
        return f"{phrases[0]} on the {place}" if place else phrases[0]
    if relation and rng.random() < 0.5:
        return one_of(rng, _PLACED[relation]).format(*phrases)
    return one_of(rng, _BESIDE).format(*(phrases if rng.random() < 0.5 else phrases[::-1]))


def _empty(rng: random.Random, background: str) -> str:
    if background in SCENERY:
        return one_of(rng, (f"an empty {background}", f"nothing {SCENERY[background]}"))
    return one_of(
        rng,
        (
            f"a {background} background",
            f"a plain {background} background",
            "an empty scene",
            f"an empty {background} background",
            "a plain background",
            f"{background}",
        ),
    )


def countable(name: str) -> bool:
    """Whether there may be two or three of a thing."""
    return name not in UNCOUNTED
