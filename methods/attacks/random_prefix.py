"""Control: random tokens before the prompt, as many tries as a search has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.budget import Clock, Limited, Tries, check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, vocabulary
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class RandomPrefix(Limited):
    """UnlearnDiffAtk without its search: random tokens before the prompt, up to the same number of images.

    What this brings back is what comes of looking often, not of looking well. The clean prompt is tried first.

    Attributes:
        tokens: before the prompt.
        images: tried at most, the clean one included.
        seed: of the tokens.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: nothing may be tried.
    """

    name: ClassVar[str] = "random_prefix"
    describe: ClassVar[str] = "control: random tokens before the prompt, up to N images"
    access: ClassVar[str] = "images"
    unsupported: ClassVar = ONE_ENCODER
    judged: ClassVar[bool] = True

    tokens: int = 3
    images: int = 51
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "tokens", "images")

    @property
    def steps(self) -> int:
        """A step is an image."""
        return self.images

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The prompt with tokens before it, or alone where that is enough; the last that was tried where none succeeds."""
        ids = vocabulary(pipe.tokenizer)
        rng = np.random.default_rng(hashed_seed(self.name, self.seed, recipe.prompt, recipe.seed))
        drawn = rng.integers(len(ids), size=(self.images - 1, self.tokens))
        texts = [pipe.tokenizer.decode([ids[n] for n in row]).strip() for row in drawn]
        results = [Found(prompt=text) for text in (recipe.prompt, *(f"{text} {recipe.prompt}" for text in texts))]
        tries = Tries(tools, Clock(self.seconds))
        result = tries.through(results, at_first=1)  # the clean one by itself: often it is enough
        return replace(result or results[-1], info=tries.notes(result is not None))
