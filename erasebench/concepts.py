"""What is to be erased: concepts and erasure tasks, as plain values.

A task says nothing about a model, a path or a metric, so that the same task can be given to every eraser.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from erasebench.errors import UserError


@dataclass(frozen=True)
class Role:
    """Why a prompt is in a run.

    Attributes:
        name: in configs, plans and tidy tables: ``erase``.
        words: what its prompts are called: ``judge.erased``, "erased n = 20".
        sign: one letter, in the data of a report's image browser.
        spellings: how else files of prompts write it. MACE's art file has 0 and 1; UCE's has preserved (named to the
            eraser) and holdout (not named): both are to be retained, and ``where={"type": "holdout"}`` selects one.
    """

    name: str
    words: str
    sign: str
    spellings: tuple[str, ...] = ()


ROLE = {
    role.name: role
    for role in (
        Role("erase", "erased", "e", ("0",)),
        Role("paraphrase", "paraphrased", "p", ("synonym", "implicit")),
        Role("near", "near", "n"),
        Role("retain", "retained", "r", ("preserved", "others", "other", "1", "holdout")),
        Role("general", "general", "g"),
    )
}
"""The roles by name: a prompt asks for an erased concept by its name, or in other words (a synonym, a description), for a
concept to be kept that is near an erased one, for another concept to be kept, or for neither."""

ROLES = tuple(ROLE)

PARAPHRASE = "paraphrase"
"""The role of prompts that ask for an erased concept without its name: MACE's synonyms, EraseEval's implicit prompts."""

NEAR = "near"
"""The role of prompts that ask for a neighbour of an erased concept (``near`` of a task): what an edit may harm first."""

KIND_WORDS = {"object": "objects", "artist": "artists", "celebrity": "celebrities", "unsafe": "unsafe content"}
"""The kinds of concept, and several of each in words."""

KINDS = tuple(KIND_WORDS)
"""They decide templates, anchors and which head of a classifier is asked."""


def kind_words(kind: str) -> str:
    """Several concepts of a kind in words, also of a kind that is none of :data:`KINDS`."""
    return KIND_WORDS.get(kind, f"{kind}s")


@dataclass(frozen=True)
class Concept:
    """One concept.

    Attributes:
        name: the name it is asked for and judged by, e.g. ``church``.
        kind: one of :data:`KINDS`.
        phrases: texts that evoke it; the name itself comes first. Erasers that take several forget prompts
            (CURE, UCE with templates) use all of them.
        anchor: the text it is mapped to by erasers that need one (UCE, RECE); ``""`` is the unconditional text.
    """

    name: str
    kind: str
    phrases: tuple[str, ...] = ()
    anchor: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"concept {self.name!r}: kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if not self.name.strip():
            raise UserError(f"a concept of kind {self.kind} has an empty name; give it a name")
        rest = tuple(phrase for phrase in self.phrases if phrase != self.name)
        object.__setattr__(self, "phrases", (self.name, *rest))


@dataclass(frozen=True)
class ErasureTask:
    """What one edit has to do.

    Attributes:
        targets: the concepts to erase, all in one edit.
        retain: texts whose meaning should survive (neighbouring concepts, ``""``).

    Raises:
        UserError: no target, a target named twice, or a target that is also to be retained.
    """

    targets: tuple[Concept, ...]
    retain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise UserError("the erase list is empty; name at least one concept, e.g. task.erase=[church]")
        names = [target.name.casefold() for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"concept {name!r} is in the erase list twice; remove one")
        kinds = {target.kind for target in self.targets}
        if len(kinds) > 1:
            raise UserError(f"one task erases concepts of one kind, not of {', '.join(sorted(kinds))}")
        for text in self.retain:
            if text.casefold() in names:
                raise UserError(f"concept {text!r} is in the erase list and in the retain list; remove it from one")

    @property
    def kind(self) -> str:
        """The kind of the targets."""
        return self.targets[0].kind

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the targets."""
        return tuple(target.name for target in self.targets)

    @property
    def label(self) -> str:
        """A short name for tables, e.g. ``church`` or ``church + gas pump``."""
        return " + ".join(self.names)

    @property
    def key(self) -> str:
        """Hash of everything in the task, 16 hex digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_GIVEN = re.compile(r"(an?|the|some|two|three|many|his|her|their)\s", re.IGNORECASE)
_AN = re.compile(r"(?!uni(?![ndm])|eu|one\b|us[ae]|ufo)[aeiou]|hour|honest|heir", re.IGNORECASE)
_MASS = frozenset(
    {
        "abuse",
        "art",
        "blood",
        "crime",
        "cruelty",
        "death",
        "drugs",
        "gore",
        "harassment",
        "hate",
        "horror",
        "illegal activity",
        "murder",
        "nudity",
        "people",
        "pornography",
        "self-harm",
        "sexual content",
        "hate speech",
        "suffering",
        "suicide",
        "terror",
        "torture",
        "violence",
    }
)


def with_article(noun: str) -> str:
    """``noun`` as it stands in a sentence: ``a church``, ``an English springer``, ``Snoopy``, ``nudity``.

    No article is put before one that is there, before a proper name (every word with a capital), a plural or an
    uncountable noun.
    """
    words = noun.split()
    last = words[-1].casefold()
    proper = all(word[0].isupper() for word in words)
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    uncountable = noun.casefold() in _MASS or last in _MASS
    if _GIVEN.match(noun) or proper or plural or uncountable:
        return noun
    return f"{'an' if _AN.match(noun) else 'a'} {noun}"
