"""Attacks: what looks for a way to bring an erased concept back, and what it has found.

An attack is to an edit what an eraser is to a model: it looks for something, once, and what it found is a value that
is kept under the hash of all that decides it. So an image's name is known before the attack has run.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from torch import Tensor

from erasebench.concepts import Concept
from erasebench.recipe import Recipe

FORMS = ("prompt", "tokens", "embedding", "latents", "seed")
"""What an attack may find. Each takes the place of the same thing in the recipe it was found for."""


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack found for one prompt: one of :data:`FORMS`.

    Attributes:
        prompt: a text in place of the recipe's.
        tokens: token ids in place of the prompt's, without BOS, EOS and padding.
        embedding: rows that the network reads in place of the prompt's, ``[positions, d]``.
        latents: noise to start from, ``[channels, height, width]`` in latent pixels.
        seed: to draw the noise from, in place of the recipe's.
        info: JSON-able notes: attack, settings, concepts, seconds, budget spent, loss curve.

    Raises:
        ValueError: none of them is there, or several are.
    """

    prompt: str | None = None
    tokens: tuple[int, ...] | None = None
    embedding: Tensor | None = None
    latents: Tensor | None = None
    seed: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = [name for name in FORMS if getattr(self, name) is not None]
        if len(there) != 1:
            raise ValueError(f"an attack finds one of {', '.join(FORMS)}; this found {', '.join(there) or 'none'}")

    @property
    def form(self) -> str:
        """Which of :data:`FORMS` it is."""
        return next(name for name in FORMS if getattr(self, name) is not None)
