"""Diffusion completion: the unedited model takes the first steps of an image, and the edited one completes it.

A probe of "When Are Concepts Erased From Diffusion Models?" (NeurIPS 2025). It is not partial diffusion, which noises a finished
image and denoises it without a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.methods.attacks.between_steps import BetweenSteps, ddim_alone
from erasebench.methods.attacks.budget import check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class DiffusionCompletion(Attack):
    """The latents after the unedited model's first steps for the prompt, completed by the edited model with the same prompt.

    The release hands over after the first, second or third of 50 steps, in which the layout of an image is made. The edit does not
    decide what is found, so there is one find for all of them; the unedited model completes its own image.

    Attributes:
        base: steps that the unedited model takes.

    Raises:
        UserError: no step.
    """

    name: ClassVar[str] = "diffusion_completion"
    describe: ClassVar[str] = "diffusion completion: the unedited model takes the first steps, the edited one the rest"
    access: ClassVar[str] = "latents between the steps"
    adaptive: ClassVar[bool] = False
    unsupported: ClassVar = ONE_ENCODER

    base: int = 3

    def __post_init__(self) -> None:
        check_whole(self, "base")

    @property
    def steps(self) -> int:
        """A step of the sampler."""
        return self.base

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM, or of too few steps for two models."""
        few = f"base={self.base} are all of the image's {recipe.steps} steps; use fewer, or protocol.steps={self.base + 1} or more"
        return ddim_alone(recipe) or (few if recipe.steps <= self.base else None)

    @torch.no_grad()
    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The latents after the first steps."""
        network: Any = denoiser(pipe)
        sampler = DDIMScheduler(**json.loads(recipe.scheduler_config))
        sampler.set_timesteps(recipe.steps)
        texts = [encode_prompts(pipe, [recipe.prompt])[0]]
        if recipe.guidance > 1:  # as in diffusers, no second pass otherwise
            texts.insert(0, encode_prompts(pipe, [recipe.negative_prompt], negative=True)[0])
        rows = torch.cat(texts).to(network.dtype)
        factor, on = pipe.vae_scale_factor, network.device if recipe.rng == "cuda" else "cpu"
        shape = (1, network.config.in_channels, recipe.height // factor, recipe.width // factor)
        numbers = torch.Generator(on).manual_seed(recipe.seed)
        z = torch.randn(shape, generator=numbers, device=on).to(network.device, network.dtype)
        for timestep in sampler.timesteps[: self.base]:
            noise = network(torch.cat([z] * len(rows)), timestep, rows).sample
            if len(rows) == 2:
                without, with_text = noise.chunk(2)
                noise = without + recipe.guidance * (with_text - without)
            z = sampler.step(noise, timestep, z).prev_sample
            tools.advance(1)
        return Found(latents=z[0].float().cpu(), info={"base": self.base})

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Puts the latents in at their step."""
        return _Completed(found, self.base)


class _Completed(BetweenSteps):
    """Latents in place of those after some steps, which come to nothing."""

    def __init__(self, found: Mapping[str, Found], base: int) -> None:
        super().__init__(found)
        self._base = base

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if step + 1 != self._base:
            return tensors
        latents = tensors["latents"].clone()
        for row, one in self.attacked():
            assert one.latents is not None
            latents[row] = one.latents.to(latents)
        return tensors | {"latents": latents}
