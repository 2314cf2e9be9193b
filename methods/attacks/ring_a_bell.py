"""Ring-A-Bell: token sequences whose text rows are those of a prompt with more of the concept in it.

Y.-L. Tsai, C.-Y. Hsu et al., "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?" (ICLR 2024),
and the notebooks that were released with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.methods.attacks.budget import Clock, Limited
from erasebench.methods.attacks.concept_vector import (
    ONE_ENCODER,
    checked_pairs,
    contrast,
    encoded,
    shifted_rows,
    token_ids,
    too_long,
    vocabulary,
)
from erasebench.methods.attacks.genetic import Budget, search
from erasebench.methods.attacks.kept import Kept
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import padded
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

if TYPE_CHECKING:
    from erasebench.models.load import Model

SHOWN = 50
"""The notes hold the loss of every so many generations, as the notebook prints it."""


@dataclass(frozen=True)
class RingABell(Budget, Limited):
    """Searches tokens that minimise ``||E(prompt) + eta v - E(tokens)||^2`` over all 77 rows, on the unedited model.

    Only the text encoder is used, without gradients, and no image is made. What is found is a text: the tokens are
    written out and the model reads that text as any other prompt. It is tried on every edit (a transfer attack).

    Attributes:
        eta: how much of the concept is added; 3 for nudity, 5 and 5.5 for violence in the paper.
        seed: of the search; every prompt has random numbers of its own.
        words: choose among whole words only, which a tokenizer reads back as they were. As released (false) any token
            may be chosen, and the text that is written out is read as other tokens than those that were searched.
        pairs: sentences with the concept, each beside one without it; our own
            (:func:`erasebench.methods.attacks.concept_vector.contrast`) if not given.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.
        others: the budget, see :class:`erasebench.methods.attacks.genetic.Budget`.
    """

    name: ClassVar[str] = "ring_a_bell"
    describe: ClassVar[str] = (
        "Ring-A-Bell: a genetic search for a text near the prompt plus eta times the concept vector"
    )
    access: ClassVar[str] = "text encoder"
    adaptive: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("prompt",)
    unsupported: ClassVar = ONE_ENCODER

    eta: float = 3.0
    seed: int = 0
    words: bool = False
    pairs: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        Budget.__post_init__(self)
        Limited.__post_init__(self)
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))

    def refuses(self, model: Model) -> str | None:
        """Also where the text encoder does not read so many tokens."""
        return super().refuses(model) or too_long(self.length, model.pipe)

    @property
    def steps(self) -> int:
        """A step is a generation."""
        return self.generations

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The text of the best tokens, with the loss by generation, and that of the text as the model reads it.

        The generation at hand is kept from time to time, with the state of the random numbers: a search that was killed goes on
        from there, and ends as if it had not been.
        """
        tokenizer, clock = pipe.tokenizer, Clock(self.seconds)
        target = shifted_rows(pipe, recipe.prompt, self.pairs or contrast(concepts), self.eta)

        def loss(ids: torch.Tensor) -> np.ndarray:
            return (target - encoded(pipe, ids)).square().sum(dim=(1, 2)).double().cpu().numpy()

        best = search(
            lambda tokens: loss(padded(tokenizer, torch.from_numpy(tokens))),
            vocabulary(tokenizer, self.words),
            self,
            hashed_seed("ring_a_bell", self.seed, recipe.prompt),
            tools.advance,
            clock.is_over,
            Kept(tools.folder, self.generations, clock),
        )
        tools.advance(self.generations - len(best.curve))
        text = tokenizer.decode(list(best.tokens)).strip()
        read = token_ids(pipe, [text])
        return Found(
            prompt=text,
            info={
                "tokens": list(best.tokens),
                "loss": best.loss,
                "loss_of_text": float(loss(read)[0]),
                "loss_of_prompt": float(loss(token_ids(pipe, [recipe.prompt]))[0]),
                "losses": [[n, value] for n, value in enumerate(best.curve) if n % SHOWN == 0],
                "evaluations": best.evaluations,
                **clock.notes(),
            },
        )
