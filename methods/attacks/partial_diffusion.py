"""Partial diffusion: an image of the concept, half noised, that the edited model denoises without a text.

After A. S. Sharma et al., "Unlearning or Concealment? A Critical Analysis and Evaluation Metrics for Unlearning in Diffusion
Models" (2409.05668). The shares and the seeds are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.methods.attacks.between_steps import BetweenSteps, ddim_alone
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.trained.latents import encoded, noising
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class PartialDiffusion(Attack):
    """``z_t = sqrt(a_t) z + sqrt(1 - a_t) n`` of the unedited model's image ``z``, denoised from the timestep ``t`` on by
    the edited model with the empty prompt. No text names the concept, so what was only cut off from its name comes back.

    The unedited model's row is its ceiling: what is left of the image in ``z_t`` shows in any model. The edit does not
    decide what is found, so there is one find for all of them.

    Attributes:
        strength: the share of the sampler's steps that the edited model takes, above 0 and below 1.
        seed: of the noise.

    Raises:
        UserError: a strength that is not between 0 and 1.
    """

    name: ClassVar[str] = "partial_diffusion"
    describe: ClassVar[str] = "partial diffusion: an image of the concept, half noised and denoised without a text"
    access: ClassVar[str] = "latents between the steps"
    adaptive: ClassVar[bool] = False
    unsupported: ClassVar = ONE_ENCODER

    strength: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.strength < 1:
            raise UserError(f"strength={self.strength!r}: must be above 0 and below 1, the share of the steps")

    def before(self, steps: int) -> int:
        """How many of so many steps are left out, at least 1 and at most all but one."""
        return min(max(steps - round(self.strength * steps), 1), steps - 1)

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The unedited model's image of the same prompt and seed."""
        return (replace(recipe, edit="", attack=""),)

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM, or of a single step."""
        one = "a single step has no middle; use protocol.steps=2 or more" if recipe.steps < 2 else None
        return ddim_alone(recipe) or one

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The noised latents."""
        latents = encoded(pipe, tools.targets)
        sampler = DDIMScheduler(**json.loads(recipe.scheduler_config))
        sampler.set_timesteps(recipe.steps)
        timestep = sampler.timesteps[[self.before(recipe.steps)]]
        numbers = torch.Generator().manual_seed(hashed_seed(self.name, self.seed, recipe.prompt, recipe.seed))
        noise = torch.randn(latents.shape, generator=numbers).to(latents)
        noised = noising(pipe.scheduler.config).add_noise(latents, noise, timestep.to(latents.device))
        tools.advance(1)
        return Found(latents=noised[0].cpu(), info={"timestep": int(timestep)})

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Puts the latents in at their step, and takes the prompt away."""
        return _FromTheMiddle(found, self)


class _FromTheMiddle(BetweenSteps):
    """Latents in place of those after some steps, which come to nothing."""

    def __init__(self, found: Mapping[str, Found], attack: PartialDiffusion) -> None:
        super().__init__(found)
        self._attack = attack

    def drawn_as(self, recipe: Recipe) -> Recipe:
        return replace(recipe, prompt="") if self.holds(recipe.attack) else recipe

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = [(row, one) for row, one in self.attacked() if step + 1 == self._attack.before(self.batch[row].steps)]
        if not rows:
            return tensors
        latents = tensors["latents"].clone()
        for row, one in rows:
            assert one.latents is not None
            latents[row] = one.latents.to(latents)
        return tensors | {"latents": latents}
