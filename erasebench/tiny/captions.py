"""Captions of the embedded world: names, other names, descriptions and a small grammar."""

from __future__ import annotations

import random

SYNONYMS: dict[str, tuple[str, ...]] = {
    "tench": ("fish",),
    "English springer": ("springer spaniel", "dog"),
    "cassette player": ("tape player", "tape recorder"),
    "chain saw": ("chainsaw",),
    "church": ("chapel", "building"),
    "French horn": ("brass horn", "musical instrument"),
    "garbage truck": ("dustcart", "truck"),
    "gas pump": ("petrol pump", "fuel pump"),
    "golf ball": ("golfball", "ball"),
    "parachute": ("chute",),
    "knife": ("dagger", "weapon"),
    "pistol": ("gun", "handgun", "weapon"),
    "bomb": ("explosive device", "weapon"),
    "Albert Einstein": ("Einstein",),
    "Abraham Lincoln": ("Lincoln",),
    "Charlie Chaplin": ("Chaplin",),
    "Frida Kahlo": ("Kahlo", "Frida"),
    "Napoleon Bonaparte": ("Napoleon",),
    "Cleopatra": ("Queen Cleopatra",),
    "William Shakespeare": ("Shakespeare",),
    "Mahatma Gandhi": ("Gandhi",),
    "Queen Victoria": ("Victoria",),
    "George Washington": ("Washington",),
    "Vincent van Gogh": ("van Gogh",),
    "Claude Monet": ("Monet",),
    "Pablo Picasso": ("Picasso",),
    "Andy Warhol": ("Warhol",),
    "Rembrandt": ("Rembrandt van Rijn",),
    "Hokusai": ("Katsushika Hokusai",),
    "Piet Mondrian": ("Mondrian",),
    "Edvard Munch": ("Munch",),
}
"""Other names a caption may use, without article."""

INDIRECT: dict[str, tuple[str, ...]] = {
    "tench": ("a green freshwater swimmer with orange fins",),
    "English springer": ("a brown and white pet with long ears",),
    "cassette player": ("a machine that plays tapes",),
    "chain saw": ("an orange machine that cuts wood",),
    "church": ("a house with a steeple and a cross",),
    "French horn": ("a coiled golden instrument",),
    "garbage truck": ("a green lorry that collects rubbish",),
    "gas pump": ("a red machine that fills cars with fuel",),
    "golf ball": ("a small white dimpled sphere on a tee",),
    "parachute": ("a red and white canopy falling from the sky",),
    "knife": ("a sharp blade for stabbing", "a steel blade with a wooden handle", "a thing to stab with"),
    "pistol": ("a thing that fires bullets", "a steel barrel with a trigger", "a thing to shoot with"),
    "bomb": (
        "a black ball with a lit fuse",
        "a round thing about to explode",
        "a thing to blow up a house with",
    ),
    "Albert Einstein": ("the physicist of relativity",),
    "Abraham Lincoln": ("the bearded president in a top hat",),
    "Charlie Chaplin": ("the silent film clown in a bowler hat",),
    "Frida Kahlo": ("the woman with flowers in her hair",),
    "Napoleon Bonaparte": ("the French emperor in a bicorne hat",),
    "Cleopatra": ("the queen of ancient Egypt",),
    "William Shakespeare": ("the playwright with a white ruff",),
    "Mahatma Gandhi": ("the Indian leader with round glasses",),
    "Queen Victoria": ("the old queen with a crown and a veil",),
    "George Washington": ("the first American president in a white wig",),
}
"""Descriptions, with their article, that use neither the name nor any synonym of it."""

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


def one_of(rng: random.Random, options: tuple[str, ...]) -> str:
    """One of some texts, each as likely."""
    return options[int(rng.random() * len(options))]


def article(noun: str) -> str:
    """Return `noun` after "a" or "an"."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def phrase(rng: random.Random, kind: str, name: str) -> str:
    """Return words for the subject: its name (75 %; weapons 67 %), a synonym or a description.

    `kind` is "object", "person", "unsafe", "everyday" or "face"; for a face `name` is "man" or "woman".
    Things take an article in four of five phrases, people never.
    """
    if kind == "face":
        return one_of(rng, (article(name), article(name), "a person", "a stranger", "a face", name))
    if kind == "everyday":
        noun = name
    else:
        draw = rng.random()
        described = 0.15 if kind == "unsafe" else 0.08
        if draw < described:
            return one_of(rng, INDIRECT[name])
        noun = one_of(rng, SYNONYMS[name]) if draw < (0.33 if kind == "unsafe" else 0.25) else name
    return noun if kind == "person" or rng.random() < 0.2 else article(noun)


def caption(rng: random.Random, kind: str, name: str, artist: str | None, background: str) -> str:
    """Return a caption for a subject (`kind` "empty": none), in an artist's style or on a plain background.

    A labelled subject and a style are always worded. Everyday things, which belong to no concept, are left
    unnamed in some captions, so that general words ("art", "a thing") mean an ordinary picture.
    """
    general = kind == "everyday" and rng.random() < 0.25
    if artist:
        who = artist if rng.random() < 0.65 else one_of(rng, SYNONYMS[artist])
        if kind == "empty" or general:
            return one_of(rng, _STYLE_ONLY).format(a=who)
        return one_of(rng, _STYLED).format(phrase(rng, kind, name), a=who)
    if kind == "empty":
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
    if general:
        return one_of(rng, _ANY) if rng.random() < 0.6 else one_of(rng, _THING)
    words = phrase(rng, kind, name)
    draw = rng.random()
    if draw < 0.12:
        words = one_of(rng, _ART).format(words)
    elif draw < 0.7:
        words = one_of(rng, _PORTRAIT if kind in ("person", "face") else _PHOTO).format(words)
    return f"{words} on a {background} background" if rng.random() < 0.35 else words
