"""Ring-A-Bell without the search, as RECE's code has it: the prompt's own rows plus the concept vector, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, checked_pairs, contrast, shifted_rows
from erasebench.models.pipeline import Pipeline
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class RingABellDirect(Attack):
    """Gives the network the rows ``E(prompt) + eta v`` (C. Gong et al., "RECE", ECCV 2024: its released code).

    No text has these rows: whoever attacks must be able to pass embeddings to the model. Nothing is searched.

    Attributes:
        eta: how much of the concept is added; 3 for nudity and 0.9 for Van Gogh in RECE's code.
        pairs: sentences with the concept, each beside one without it; our own
            (:func:`erasebench.methods.attacks.concept_vector.contrast`) if not given.
    """

    name: ClassVar[str] = "ring_a_bell_direct"
    describe: ClassVar[str] = (
        "Ring-A-Bell without the search, as RECE has it: the prompt's rows plus eta times the vector"
    )
    access: ClassVar[str] = "text encoder and embeddings"
    adaptive: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("prompt",)
    unsupported: ClassVar = ONE_ENCODER

    eta: float = 3.0
    pairs: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The shifted rows, float32."""
        rows = shifted_rows(pipe, recipe.prompt, self.pairs or contrast(concepts), self.eta)
        tools.advance(1)
        return Found(embedding=rows.float().cpu())
