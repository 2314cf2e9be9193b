"""Latent inversion: noise from which the edited model draws an image of the concept, found without a text.

After the scenarios "inverted latents" of M-ErasureBench (2512.22877), white box and black box, of which no code is public: plain
DDIM inversion. With a correction of each step it is :mod:`erasebench.methods.attacks.tina_plus`.
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
from erasebench.edits.found import Found, Replace
from erasebench.edits.hook import Hook
from erasebench.methods.attacks.budget import check_whole
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.trained.latents import ddim, encoded
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class DdimInversion(Attack):
    """Runs DDIM backwards with the edited network and the empty text, from the unedited model's image of the prompt.

    ``z' = sqrt(a') (z - sqrt(1 - a) eps(z, t, "")) / sqrt(a) + sqrt(1 - a') eps(z, t, "")``, with ``a`` and ``a'`` of one
    timestep and the next, up to the first timestep of the image's own sampler. The image is then drawn from there with its
    own prompt, as any other, or with the empty one, which M-ErasureBench calls the hardest to withstand.

    Attributes:
        timesteps: how many steps.
        unconditional: draw with the empty prompt.

    Raises:
        UserError: an option that is not above 0.
    """

    name: ClassVar[str] = "ddim_inversion"
    describe: ClassVar[str] = "latent inversion: noise from which the edited model draws an image of the concept"
    access: ClassVar[str] = "weights, and the noise that sampling starts from"
    unsupported: ClassVar = ONE_ENCODER

    timesteps: int = 50
    unconditional: bool = False

    def __post_init__(self) -> None:
        check_whole(self, "timesteps")

    @property
    def steps(self) -> int:
        """A step of DDIM."""
        return self.timesteps

    @property
    def settings(self) -> dict[str, Any]:
        """As of every attack, without ``unconditional`` where it is not: what was found before there was a choice stays."""
        return {name: value for name, value in super().settings.items() if (name, value) != ("unconditional", False)}

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The unedited model's image of the same prompt and seed."""
        return (replace(recipe, edit="", attack=""),)

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM."""
        if recipe.scheduler == "DDIMScheduler":
            return None
        return f"its latents are where DDIM starts, not {recipe.scheduler}; use protocol.scheduler=DDIM"

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """Latents."""
        latents = encoded(pipe, tools.targets)
        text = encode_prompts(pipe, [""])[0].to(denoiser(pipe).dtype)
        sampler = DDIMScheduler(**json.loads(recipe.scheduler_config))
        sampler.set_timesteps(recipe.steps)
        first = int(sampler.timesteps[0])
        latents = inverted(pipe, latents, text, first, self.timesteps, tools)
        return Found(latents=latents[0].float().cpu(), info={"start": first, "deviation": latents.std().item()})

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Draws from the latents that were found, with the prompt or without."""
        return WithoutPrompt(found) if self.unconditional else super().hook(found)


class WithoutPrompt(Replace):
    """Draws from what was found with the empty prompt."""

    def drawn_as(self, recipe: Recipe) -> Recipe:
        return replace(recipe, prompt="") if self.holds(recipe.attack) else recipe


@dataclass(frozen=True)
class DdimInversionTransfer(DdimInversion):
    """:class:`DdimInversion` with the unedited network: what leads that one back to its image is tried on every edit (the
    black-box latents of M-ErasureBench, 2512.22877)."""

    name: ClassVar[str] = "ddim_inversion_transfer"
    describe: ClassVar[str] = (
        "latent inversion as a transfer attack: noise found with the unedited model, tried on every edit"
    )
    access: ClassVar[str] = "weights of the unedited model, and the noise that sampling starts from"
    adaptive: ClassVar[bool] = False


@torch.no_grad()
def inverted(pipe: Pipeline, latents: Tensor, text: Tensor, first: int, steps: int, tools: Tools) -> Tensor:
    """DDIM backwards.

    Args:
        pipe: whose network predicts noise.
        latents: of images, ``[n, channels, height, width]``, float32 or float64, in which the steps are taken.
        text: that the network reads, ``[1, positions, d]``.
        first: timestep to arrive at.
        steps: from 0 to there, equally spaced.
        tools: whose bar goes on.
    """
    network: Any = denoiser(pipe)
    kept = ddim(pipe.scheduler.config, 1).alphas_cumprod.to(latents)  # near 1, so not in the network's own type
    times = torch.linspace(0, first, steps + 1).round().long().tolist()
    text = text.expand(len(latents), -1, -1)
    for now, then in zip(times[:-1], times[1:], strict=True):
        noise = network(latents.to(text), now, text).sample.to(latents)
        if pipe.scheduler.config.prediction_type == "v_prediction":
            noise = kept[now].sqrt() * noise + (1 - kept[now]).sqrt() * latents
        clean = (latents - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()
        latents = kept[then].sqrt() * clean + (1 - kept[then]).sqrt() * noise
        tools.advance(1)
    return latents
