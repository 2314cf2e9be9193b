"""Best of N: the same prompt with other noise, until the judge sees the concept. What every search has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.budget import Clock, Limited, Tries, check_whole
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class Seeds(Limited):
    """Tries other seeds for the prompt as it is, its own first, and takes the first whose image shows the concept.

    Any attack that looks at N images and keeps the best is to be compared with this (best-of-24 in WhenAreConceptsErased,
    NeurIPS 2025). Nothing of the model is needed but its images.

    Attributes:
        images: N, the seed of the prompt included.
        seed: of the other seeds.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: no image may be tried.
    """

    name: ClassVar[str] = "seeds"
    describe: ClassVar[str] = "baseline: other seeds for the same prompt, up to N images"
    access: ClassVar[str] = "images"
    judged: ClassVar[bool] = True

    images: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "images")

    @property
    def steps(self) -> int:
        """A step is an image."""
        return self.images

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """A seed; the prompt's own where none succeeds."""
        results = [Found(seed=seed) for seed in (recipe.seed, *other_seeds(self.seed, recipe, self.images))]
        tries = Tries(tools, Clock(self.seconds))
        result = tries.through(results, at_first=1)  # the prompt's own: the run has its image
        return replace(result or results[0], info=tries.notes(result is not None))


def other_seeds(seed: int, recipe: Recipe, images: int) -> list[int]:
    """The seeds of so many images of a prompt, but for the first, which has its own."""
    return [hashed_seed("seeds", seed, recipe.prompt, recipe.seed, number) for number in range(1, images)]
