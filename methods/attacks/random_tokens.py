"""Control: random tokens in place of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, too_long, vocabulary
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from erasebench.models.load import Model


@dataclass(frozen=True)
class RandomTokens(Attack):
    """As many random tokens as Ring-A-Bell has, and no search: how often a judge sees a concept in anything.

    Attributes:
        length: how many.
        seed: of the random numbers; every prompt has its own.
        words: whole words only, see :class:`erasebench.methods.attacks.ring_a_bell.RingABell`.

    Raises:
        UserError: no tokens are asked for.
    """

    name: ClassVar[str] = "random_tokens"
    describe: ClassVar[str] = "control: random tokens in place of the prompt"
    access: ClassVar[str] = "tokenizer"
    adaptive: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("prompt",)
    unsupported: ClassVar = ONE_ENCODER

    length: int = 16
    seed: int = 0
    words: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"length={self.length}: must be 1 or more")

    def refuses(self, model: Model) -> str | None:
        """Also where the text encoder does not read so many tokens."""
        return super().refuses(model) or too_long(self.length, model.pipe)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The text of the tokens."""
        ids = vocabulary(pipe.tokenizer, self.words)
        rng = np.random.default_rng(hashed_seed("random_tokens", self.seed, recipe.prompt))
        tokens = [ids[n] for n in rng.integers(len(ids), size=self.length)]
        tools.advance(1)
        return Found(prompt=pipe.tokenizer.decode(tokens).strip(), info={"tokens": tokens})
