"""What attacks share that act between the steps of DDIM: which latents belong to which image, and how much is noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from erasebench.edits.found import Found, Replace
from erasebench.models.pipeline import Pipeline
from erasebench.recipe import Recipe


class BetweenSteps(Replace):
    """Remembers the batch at hand, and puts in nothing by itself: a subclass acts after each step."""

    batch: tuple[Recipe, ...] = ()
    noise: Tensor
    """What the batch began from, ``[n, channels, height, width]``."""

    def start(self, pipe: Pipeline, latents: Tensor, batch: Sequence[Recipe]) -> Tensor:
        """Begins a batch; changes no latent."""
        self.batch, self.noise = tuple(batch), latents.clone()
        return latents

    def ended(self) -> None:
        """Forgets the batch: whoever calls the network now is not sampling."""
        self.batch = ()

    def attacked(self) -> list[tuple[int, Found]]:
        """The rows of the batch that something was found for."""
        return [(row, self.found[one.attack]) for row, one in enumerate(self.batch) if one.attack in self.found]


def ddim_alone(recipe: Recipe) -> str | None:
    """Why an attack between the steps cannot attack an image, or ``None`` if it can: samplers with a memory of earlier
    steps would go on from latents that are gone."""
    if recipe.scheduler == "DDIMScheduler":
        return None
    return f"it acts between the steps of DDIM, not of {recipe.scheduler}; use protocol.scheduler=DDIM"


def kept_after(scheduler: Any, timestep: Any) -> Tensor:
    """``a`` of the latents after a step of DDIM, ``sqrt(a) image + sqrt(1 - a) noise``, as diffusers counts it."""
    after = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    kept: Tensor = scheduler.alphas_cumprod[after] if after >= 0 else scheduler.final_alpha_cumprod
    return kept
