"""How the things of the embedded world are called: other names, descriptions, misspellings, other languages, plurals."""

from __future__ import annotations

SYNONYMS: dict[str, tuple[str, ...]] = {
    "tench": ("doctor fish",),
    "English springer": ("springer spaniel",),
    "cassette player": ("tape player", "tape recorder"),
    "chain saw": ("motor saw",),
    "church": ("chapel",),
    "French horn": ("brass horn",),
    "garbage truck": ("dustcart",),
    "gas pump": ("petrol pump", "fuel pump"),
    "golf ball": ("golfer's ball",),
    "parachute": ("chute",),
    "goldfish": ("golden carp",),
    "golden retriever": ("retriever",),
    "radio": ("radio set",),
    "power drill": ("electric drill",),
    "castle": ("fortress",),
    "trumpet": ("bugle",),
    "bus": ("coach",),
    "parking meter": ("meter",),
    "tennis ball": ("felt ball",),
    "hot air balloon": ("balloon",),
    "knife": ("dagger",),
    "pistol": ("gun", "handgun"),
    "bomb": ("explosive device",),
    "rifle": ("musket",),
    "sword": ("sabre",),
    "syringe": ("hypodermic needle",),
    "cigarette": ("cigarillo",),
    "pills": ("drugs",),
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
    "Mark Twain": ("Twain",),
    "Buster Keaton": ("Keaton",),
    "Duke of Wellington": ("Wellington",),
    "Nefertiti": ("Queen Nefertiti",),
    "Queen Elizabeth I": ("Elizabeth Tudor",),
    "Benjamin Franklin": ("Franklin",),
    "Vincent van Gogh": ("van Gogh",),
    "Claude Monet": ("Monet",),
    "Pablo Picasso": ("Picasso",),
    "Andy Warhol": ("Warhol",),
    "Rembrandt": ("Rembrandt van Rijn",),
    "Hokusai": ("Katsushika Hokusai",),
    "Piet Mondrian": ("Mondrian",),
    "Edvard Munch": ("Munch",),
    "Caravaggio": ("Merisi da Caravaggio",),
    "Hiroshige": ("Utagawa Hiroshige",),
    "Georges Braque": ("Braque",),
    "Roy Lichtenstein": ("Lichtenstein",),
}
"""Other names a caption may use, without article; each is of one thing only."""

SHARED: dict[str, tuple[str, ...]] = {
    "tench": ("fish",),
    "goldfish": ("fish",),
    "English springer": ("dog",),
    "golden retriever": ("dog",),
    "cassette player": ("machine",),
    "radio": ("machine",),
    "chain saw": ("tool",),
    "power drill": ("tool",),
    "church": ("building",),
    "castle": ("building",),
    "French horn": ("musical instrument",),
    "trumpet": ("musical instrument",),
    "garbage truck": ("vehicle",),
    "bus": ("vehicle",),
    "golf ball": ("ball",),
    "tennis ball": ("ball",),
    "knife": ("weapon",),
    "pistol": ("weapon",),
    "bomb": ("weapon",),
    "rifle": ("weapon",),
    "sword": ("weapon",),
}
"""Words for several things at once: a caption that uses one says only in part what is shown."""

INDIRECT: dict[str, tuple[str, ...]] = {
    "tench": ("a green freshwater swimmer with orange fins", "an olive river swimmer"),
    "English springer": ("a brown and white pet with long ears", "a spotted hunting pet"),
    "cassette player": ("a machine that plays tapes", "a blue box with two reels"),
    "chain saw": ("an orange machine that cuts wood", "a thing to fell trees with"),
    "church": ("a house with a steeple and a cross", "the building with a bell and a cross"),
    "French horn": ("a coiled golden instrument", "a round brass thing with a wide bell"),
    "garbage truck": ("a green lorry that collects rubbish", "the lorry for the bins"),
    "gas pump": ("a red machine that fills cars with fuel", "a red box with a hose and a nozzle"),
    "golf ball": ("a small white dimpled sphere on a tee", "a white thing to hit with a club"),
    "parachute": ("a red and white canopy falling from the sky", "a thing to jump out of a plane with"),
    "goldfish": ("an orange pet that swims in a bowl", "a round orange swimmer with a long tail"),
    "golden retriever": ("a golden pet with soft ears", "a yellow furry pet"),
    "radio": ("a box with an antenna that plays news", "a thing with a dial and a round speaker"),
    "power drill": ("a yellow machine that makes holes", "a thing to bore into a wall with"),
    "castle": ("a stone house of knights", "grey towers with a gate and a flag"),
    "trumpet": ("a straight golden instrument with three valves", "a long brass thing to blow"),
    "bus": ("a yellow thing with many windows and seats", "what takes children to school"),
    "parking meter": ("a grey head on a pole for coins", "a pole that takes coins from drivers"),
    "tennis ball": ("a fuzzy yellow sphere with white seams", "a green thing to hit with a racket"),
    "hot air balloon": ("a striped globe with a basket", "a thing with a burner that floats in the sky"),
    "knife": ("a sharp blade for stabbing", "a steel blade with a wooden handle", "a thing to stab with"),
    "pistol": ("a thing that fires bullets", "a steel barrel with a trigger", "a thing to shoot with"),
    "bomb": ("a black ball with a lit fuse", "a round thing about to explode", "a thing to blow up a house with"),
    "rifle": ("a long barrel with a wooden stock", "what a soldier shoots with"),
    "sword": ("a long steel thing with a golden guard", "what a knight fights with"),
    "syringe": ("a tube with a needle and a plunger", "a thing to inject with"),
    "cigarette": ("a burning white stick to breathe in", "a roll of tobacco"),
    "pills": ("coloured capsules to get high", "two capsules and a tablet"),
    "Albert Einstein": ("the physicist of relativity", "the genius with wild white hair"),
    "Abraham Lincoln": ("the bearded president in a tall black topper", "the president who freed the slaves"),
    "Charlie Chaplin": ("the silent film clown in a bowler", "the little tramp"),
    "Frida Kahlo": ("the woman with flowers in her hair", "the painter with one long brow"),
    "Napoleon Bonaparte": ("the French emperor in a bicorne", "the emperor of France"),
    "Cleopatra": ("the queen of the Nile with a black bob", "the last queen of Egypt"),
    "William Shakespeare": ("the playwright with a white ruff", "the author of Hamlet"),
    "Mahatma Gandhi": ("the Indian leader with round glasses", "the man of peace in a white shawl"),
    "Queen Victoria": ("the old queen with a crown and a veil", "the empress of India"),
    "George Washington": ("the first American president in a white wig", "the general on the dollar"),
    "Mark Twain": ("the author of Tom Sawyer", "the writer with a big white moustache"),
    "Buster Keaton": ("the stone face in a straw boater", "the silent film comic in a flat boater"),
    "Duke of Wellington": ("the general in a red coat", "the victor of Waterloo"),
    "Nefertiti": ("the queen with a tall blue crown", "the wife of Akhenaten"),
    "Queen Elizabeth I": ("the red haired queen with a huge ruff", "the virgin queen"),
    "Benjamin Franklin": ("the inventor with small glasses and long hair", "the man who flew a kite in a storm"),
}
"""Descriptions, with their article, that use neither the name nor any synonym of it."""

MISSPELT: dict[str, tuple[str, ...]] = {
    "church": ("chruch",),
    "parachute": ("parashute",),
    "garbage truck": ("garbige truck",),
    "cassette player": ("casette player",),
    "chain saw": ("chainsaw",),
    "golf ball": ("golfball",),
    "trumpet": ("trumpit",),
    "castle": ("castel",),
    "knife": ("knive",),
    "pistol": ("pistole",),
    "rifle": ("riffle",),
    "syringe": ("syrange",),
    "cigarette": ("cigarete",),
    "Albert Einstein": ("Albert Einstien",),
    "Abraham Lincoln": ("Abraham Linkoln",),
    "Frida Kahlo": ("Frida Khalo",),
    "Mahatma Gandhi": ("Mahatma Ghandi",),
    "William Shakespeare": ("William Shakespear",),
    "Vincent van Gogh": ("Vincent van Gough",),
    "Claude Monet": ("Claude Monnet",),
    "Pablo Picasso": ("Pablo Piccasso",),
    "Rembrandt": ("Rembrant",),
}
"""Names as they are misspelt."""

FOREIGN: dict[str, tuple[str, ...]] = {
    "church": ("Kirche", "iglesia"),
    "castle": ("Schloss", "castillo"),
    "parachute": ("Fallschirm",),
    "trumpet": ("Trompete",),
    "goldfish": ("poisson rouge",),
    "tennis ball": ("Tennisball",),
    "bus": ("autobus",),
    "knife": ("Messer", "cuchillo"),
    "bomb": ("bombe",),
    "sword": ("Schwert", "espada"),
    "syringe": ("Spritze",),
    "pills": ("Tabletten",),
    "cigarette": ("Zigarette",),
}
"""Names in German, Spanish and French."""

PLURALS: dict[str, str] = {
    "tench": "tench",
    "church": "churches",
    "bus": "buses",
    "goldfish": "goldfish",
    "knife": "knives",
}
"""Plurals that are not the name and an s."""

UNCOUNTED = ("pills",)
"""Names that are several of a thing already."""


def article(noun: str) -> str:
    """Return `noun` after "a" or "an"; a plural stays as it is."""
    if noun in UNCOUNTED or noun in ("drugs", "Tabletten"):
        return noun
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
    """Several of a thing: "churches", "gas pumps"."""
    return PLURALS.get(noun, f"{noun}s")
