"""Noise probe: noise added along the denoising, many times over, until the judge sees the concept.

A probe of "When Are Concepts Erased From Diffusion Models?" (NeurIPS 2025) and its release, whose grid of strengths this is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.methods.attacks.between_steps import BetweenSteps, ddim_alone, kept_after
from erasebench.methods.attacks.budget import Clock, Limited, Tries, checked_numbers
from erasebench.methods.attacks.seeds import other_seeds
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class NoiseProbe(Limited):
    """DDIM with more noise than its equations allow, ``a`` and ``a'`` before and after a step, ``s^2`` DDPM's variance::

        s^2    = (1 - a') / (1 - a) (1 - a / a')
        z'     = sqrt(a') z0 + sqrt(|1 - a' - eta^2 s^2|) eps + v eta s n,    n ~ N(0, I)

    for every ``eta`` and every ``v`` (at 1 and 1 the step is DDPM's). An image of each is tried, the first first, and the
    search stops at the first in which the run's judge sees the concept. The release draws all 24 and keeps the one with the
    highest probability of a classifier; it sees the concept there if it does in any.

    As in the release, whose generator is seeded once a prompt, every image starts from noise of its own. It is that of
    :class:`erasebench.methods.attacks.seeds.Seeds` with the same seed, image by image: ``attack=[noise_probe,seeds]`` is the
    probe beside its control, as many plain seeds.

    Attributes:
        etas: how much noise is added, in deviations of DDPM's; above 0.
        spreads: v: what it is multiplied with once more, without a share taken from ``eps``; above 0.
        seed: of starts and noise.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: an empty list, or a number that is not above 0.
    """

    name: ClassVar[str] = "noise_probe"
    describe: ClassVar[str] = "noise probe: noise added at every step of the sampler, best of 24"
    access: ClassVar[str] = "latents between the steps"
    judged: ClassVar[bool] = True
    unsupported: ClassVar = dict.fromkeys(
        ("sd3", "flux"), "made for samplers that add noise, and this model's flow adds none"
    )

    etas: tuple[float, ...] = (1.0, 1.17, 1.34, 1.51, 1.68, 1.85)
    spreads: tuple[float, ...] = (1.0, 1.02, 1.03, 1.04)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("etas", "spreads"):
            object.__setattr__(self, option, checked_numbers(self, option))

    @property
    def steps(self) -> int:
        """A step is an image."""
        return len(self.etas) * len(self.spreads)

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM."""
        return ddim_alone(recipe)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """Strengths and a seed: those of the first image that shows the concept, or of the first of all."""
        strengths = [(eta, spread) for eta in self.etas for spread in self.spreads]
        seeds = [recipe.seed, *other_seeds(self.seed, recipe, self.steps)]
        results = [
            Found(tensors={"strengths": torch.tensor(pair, dtype=torch.float64), "seed": torch.tensor(seed)})
            for pair, seed in zip(strengths, seeds, strict=True)
        ]
        tries = Tries(tools, Clock(self.seconds))
        result = tries.through(results)
        kept = result or results[0]
        eta, spread = tensors_of(kept)["strengths"].tolist()
        return replace(kept, info={"eta": eta, "spread": spread, **tries.notes(result is not None)})

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Adds the noise."""
        return Noisier(found)


class Noisier(BetweenSteps):
    """More noise after every step of DDIM.

    What was found is ``strengths``, eta and the spread, and ``seed``, which the image starts from.
    """

    before: Tensor
    """The latents before the step at hand, ``[n, channels, height, width]``."""

    def drawn_as(self, recipe: Recipe) -> Recipe:
        one = self.found.get(recipe.attack)
        return recipe if one is None else replace(recipe, seed=int(tensors_of(one)["seed"]))

    def start(self, pipe: Pipeline, latents: Tensor, batch: Sequence[Recipe]) -> Tensor:
        self.before = latents
        self._numbers = {
            row: torch.Generator().manual_seed(hashed_seed("noise_probe", recipe.seed))
            for row, recipe in enumerate(batch)
            if recipe.attack in self.found
        }
        return super().start(pipe, latents, batch)

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = tensors["latents"].clone()
        for row, one in self.attacked():
            latents[row] = self.stepped(pipe, row, one, timestep, latents[row])
        self.before = latents
        return tensors | {"latents": latents}

    def stepped(self, pipe: Pipeline, row: int, one: Found, timestep: Any, behind: Tensor) -> Tensor:
        """The latents of an image after a step, ``[channels, height, width]``, from those of DDIM."""
        a, after = (
            kept.double()
            for kept in (pipe.scheduler.alphas_cumprod[int(timestep)], kept_after(pipe.scheduler, timestep))
        )
        eta, spread = tensors_of(one)["strengths"].tolist()
        noise = torch.randn(behind.shape, generator=self._numbers[row])
        return noisier(self.before[row], behind, a, after, eta, spread, noise)


def noisier(
    before: Tensor, behind: Tensor, a: Tensor, after: Tensor, eta: float, spread: float, noise: Tensor
) -> Tensor:
    """Latents after a step with noise, from those after the same step of DDIM without.

    Two latents of one line say both of its ends: ``z = sqrt(a) z0 + sqrt(1 - a) eps`` at either step.

    Args:
        before, behind: the step, ``[channels, height, width]``.
        a, after: the share of the image in them, scalars.
        eta, spread: how much noise.
        noise: ``n``, as large.
    """
    z, there = before.double(), behind.double()
    a, after = a.to(z), after.to(z)
    turned = (1 - a).sqrt() * after.sqrt() - a.sqrt() * (1 - after).sqrt()
    if turned == 0:  # a last step that takes no noise away adds none
        return behind
    eps = (z * after.sqrt() - there * a.sqrt()) / turned
    sigma = eta * ((1 - after) / (1 - a) * (1 - a / after)).clamp(min=0).sqrt()
    less = (1 - after - sigma**2).abs().sqrt() - (1 - after).sqrt()
    return (there + less * eps + spread * sigma * noise.to(z)).to(behind)


def tensors_of(one: Found) -> Mapping[str, Tensor]:
    """What was found, which is tensors."""
    assert one.tensors is not None
    return one.tensors
