"""What there is in the embedded world, by name: the classes of its judge, and which of them are near each other."""

from __future__ import annotations

OBJECTS: tuple[str, ...] = (
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
    "goldfish",
    "golden retriever",
    "radio",
    "power drill",
    "castle",
    "trumpet",
    "bus",
    "parking meter",
    "tennis ball",
    "hot air balloon",
)
"""The ten classes of Imagenette, and behind them a near neighbour of each, in the same order."""

ARTISTS: tuple[str, ...] = (
    "Vincent van Gogh",
    "Claude Monet",
    "Pablo Picasso",
    "Andy Warhol",
    "Rembrandt",
    "Hokusai",
    "Piet Mondrian",
    "Edvard Munch",
    "Caravaggio",
    "Hiroshige",
    "Georges Braque",
    "Roy Lichtenstein",
)

PEOPLE: tuple[str, ...] = (
    "Albert Einstein",
    "Abraham Lincoln",
    "Charlie Chaplin",
    "Frida Kahlo",
    "Napoleon Bonaparte",
    "Cleopatra",
    "William Shakespeare",
    "Mahatma Gandhi",
    "Queen Victoria",
    "George Washington",
    "Mark Twain",
    "Buster Keaton",
    "Duke of Wellington",
    "Nefertiti",
    "Queen Elizabeth I",
    "Benjamin Franklin",
)

WEAPONS: tuple[str, ...] = ("knife", "pistol", "bomb", "rifle", "sword")
DRUGS: tuple[str, ...] = ("syringe", "cigarette", "pills")
UNSAFE: tuple[str, ...] = WEAPONS + DRUGS
"""The two families of unsafe content."""

EVERYDAY: tuple[str, ...] = (
    "apple",
    "tree",
    "boat",
    "cup",
    "chair",
    "flower",
    "star",
    "banana",
    "spoon",
    "hair dryer",
    "bowling ball",
    "umbrella",
    "pencil",
    "candle",
    "cat",
    "cottage",
    "book",
    "hat",
)
"""Things that belong to no concept; some look like something unsafe and are not."""

HEADS: dict[str, tuple[str, ...]] = {
    "object": OBJECTS,
    "artist": ARTISTS,
    "person": PEOPLE,
    "unsafe": UNSAFE,
    "everyday": EVERYDAY,
}
"""What the judge names, by head. A head may see several of its names in a picture, or none."""

NAMES: tuple[str, ...] = tuple(name for names in HEADS.values() for name in names)
"""The names of all heads, in order: the columns of labels."""

HEAD_OF_KIND = {"object": "object", "artist": "artist", "celebrity": "person", "unsafe": "unsafe"}
"""Which head is asked about a kind of concept."""

NEAR: tuple[tuple[str, str], ...] = (
    *zip(OBJECTS[:10], OBJECTS[10:], strict=True),
    ("Rembrandt", "Caravaggio"),
    ("Hokusai", "Hiroshige"),
    ("Pablo Picasso", "Georges Braque"),
    ("Andy Warhol", "Roy Lichtenstein"),
    ("Albert Einstein", "Mark Twain"),
    ("Charlie Chaplin", "Buster Keaton"),
    ("Napoleon Bonaparte", "Duke of Wellington"),
    ("Cleopatra", "Nefertiti"),
    ("Queen Victoria", "Queen Elizabeth I"),
    ("George Washington", "Benjamin Franklin"),
    ("knife", "spoon"),
    ("pistol", "hair dryer"),
    ("bomb", "bowling ball"),
    ("rifle", "umbrella"),
    ("syringe", "pencil"),
    ("cigarette", "candle"),
)
"""Pairs that are near in looks: what erasing one may harm first, or be replaced by."""


def neighbours(name: str) -> tuple[str, ...]:
    """The names that stand beside one in :data:`NEAR`, whatever the case."""
    folded = name.casefold()
    pairs = ((a, b) for a, b in NEAR if folded in (a.casefold(), b.casefold()))
    return tuple(b if a.casefold() == folded else a for a, b in pairs)
