"""TINA+: latent inversion without a text in which every step is corrected until the edited network agrees with it.

TINA+ as its paper gives it; no code was read. Text-free inversion finds what only the text was cut off from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn import Parameter

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.errors import UserError
from erasebench.methods.attacks.budget import check_positive, check_whole
from erasebench.methods.attacks.ddim_inversion import DdimInversion
from erasebench.methods.trained.latents import ddim, encoded
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.targets import denoiser
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

LEAST = -10.0
"""How many deviations the norm of latents may lie below that of noised images before it costs anything."""


@dataclass(frozen=True)
class TinaPlus(DdimInversion):
    """DDIM backwards with the edited network ``eps`` and the empty text, from the unedited model's image ``z0`` noised a little.

    With ``a`` and ``a'`` of one timestep and the next, a step is the ``z'`` that it would itself have led to,
    found from DDIM's own by AdamW::

        min_z' ||f(z') - z'||^2 + max(-r - 10, 0)^2
        f(z')  = sqrt(a') (z - sqrt(1 - a) eps(z', t', "")) / sqrt(a) + sqrt(1 - a') eps(z', t', "")
        r      = (||z'||^2 - a' ||z0||^2 - (1 - a') D) / sqrt(2 (1 - a')^2 D + 4 a' (1 - a') ||z0||^2)

    where D is the number of latents, so that ``z'`` keeps the norm of a noised image. The image is then drawn from the last of them
    with the empty prompt. (The paper draws with LMS, here it is the run's DDIM. Where ``z'`` starts is ours.)

    A network that has forgotten everything must stay empty: the control is ``method=shuffled``.

    Attributes:
        timesteps: of DDIM over all of the schedule.
        start: the share of the schedule at which the inversion starts, with noise as of there.
        updates: of AdamW, in each step.
        lr: of AdamW.
        seed: of the noise.
        unconditional: draw with the empty prompt.

    Raises:
        UserError: an option out of range.
    """

    name: ClassVar[str] = "tina_plus"
    describe: ClassVar[str] = "TINA+: latent inversion without a text, every step corrected by the edited model"
    differentiates: ClassVar[bool] = True

    unconditional: bool = True
    start: float = 0.1
    updates: int = 25
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "timesteps", "updates")
        check_positive(self, "lr")
        if not 0 < self.start < 1:
            raise UserError(f"start={self.start!r}: must be above 0 and below 1, the share of the schedule")

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """Latents, and how far the last step is from agreeing with itself."""
        image = encoded(pipe, tools.targets)
        text = encode_prompts(pipe, [""])[0].to(denoiser(pipe).dtype)
        sampler = DDIMScheduler(**json.loads(recipe.scheduler_config))
        sampler.set_timesteps(recipe.steps)
        first = int(sampler.timesteps[0])
        numbers = torch.Generator().manual_seed(hashed_seed(self.name, self.seed, recipe.prompt, recipe.seed))
        noise = torch.randn(image.shape, generator=numbers).to(image)
        latents, off = self.corrected(pipe, image, noise, text, first, tools)
        return Found(
            latents=latents[0].float().cpu(),
            info={"start": first, "deviation": latents.std().item(), "off": off},
        )

    def corrected(
        self, pipe: Pipeline, image: Tensor, noise: Tensor, text: Tensor, first: int, tools: Tools
    ) -> tuple[Tensor, float]:
        """DDIM backwards with corrected steps.

        Args:
            pipe: whose network predicts noise.
            image: latents of the image, ``[1, channels, height, width]``.
            noise: as large.
            text: that the network reads, ``[1, positions, d]``.
            first: timestep to arrive at.
            tools: whose bar goes on by a step for each of ``timesteps``.

        Returns:
            The latents, and the mean square by which the last step differs from what it leads to.
        """
        kept = ddim(pipe.scheduler.config, 1).alphas_cumprod.to(image)
        begin = round(self.start * len(kept))
        rest = [time for time in torch.linspace(0, first, self.timesteps + 1).round().long().tolist() if time > begin]
        if not rest:
            raise UserError(
                f"start={self.start}: the sampling begins at timestep {first}, which is before it; use a smaller start"
            )
        z, now, off = kept[begin].sqrt() * image + (1 - kept[begin]).sqrt() * noise, begin, 0.0
        tools.advance(self.timesteps - len(rest))
        for then in rest:
            a, after = kept[now], kept[then]
            norm = image.square().sum()

            def led(at: Tensor, time: int, z: Tensor = z, a: Tensor = a, after: Tensor = after) -> Tensor:
                eps = _noise(pipe, at, time, text, kept)
                return after.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - after).sqrt() * eps

            with torch.no_grad():
                guess = led(z, now)
            free = Parameter(guess)
            optimizer = torch.optim.AdamW([free], lr=self.lr)
            for _ in range(self.updates):
                apart = (led(free, then) - free).square().sum()
                size = image.numel()
                spread = (2 * (1 - after) ** 2 * size + 4 * after * (1 - after) * norm).sqrt()
                below = (free.square().sum() - after * norm - (1 - after) * size) / spread
                loss = apart + (LEAST - below).clamp(min=0) ** 2
                (free.grad,) = torch.autograd.grad(loss, [free])
                optimizer.step()
                off = apart.item() / size
            z, now = free.detach(), then
            tools.advance(1)
        return z, off


def _noise(pipe: Pipeline, z: Tensor, time: int, text: Tensor, kept: Tensor) -> Tensor:
    """The noise that the network sees in latents, whatever it predicts."""
    network: Any = denoiser(pipe)
    predicted: Tensor = network(z.to(text), time, text).sample.to(z)
    if pipe.scheduler.config.prediction_type == "v_prediction":
        return kept[time].sqrt() * predicted + (1 - kept[time]).sqrt() * z
    return predicted
