"""CCE through guidance: a soft word that is read as the concept although a negative prompt or SLD guides away from it.

M. Pham, K. O. Marshall et al., "Circumventing Concept Erasure Methods For Text-to-Image Generative Models" (ICLR 2024), and the
scripts ``np`` and ``sld`` of its release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from erasebench.concepts import Concept
from erasebench.edits.eraser import Eraser
from erasebench.edits.hook import Hook, hooks_on
from erasebench.errors import UserError
from erasebench.methods.attacks.budget import check_whole
from erasebench.methods.attacks.cce import Cce
from erasebench.methods.guards.negative_prompt import NegativeText
from erasebench.methods.guards.sld import STEPS, SafeGuidance, safety
from erasebench.methods.trained.latents import noised
from erasebench.models.encode import encode_prompts
from erasebench.models.pipeline import Pipeline
from erasebench.models.soft_words import read_with
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe

GUARDS: tuple[type[Hook], ...] = (NegativeText, SafeGuidance)
"""The guards that it learns through."""


@dataclass(frozen=True)
class CceGuarded(Cce):
    """``min_v E ||guided_with_guard(z_t, t, sentence with v) - guided(z_t, t, prompt)||^2`` on images of the concept and their own
    prompts, both with the guidance ``g`` of the image that is attacked.

    Through a negative prompt: ``eps_neg + g (eps_v - eps_neg)`` is brought to ``eps_0 + g (eps_prompt - eps_0)``. Through SLD the
    first is ``eps_0 + g (eps_v - eps_0 - gamma)``, whose momentum is unrolled: from a random timestep t on, some timesteps
    of the ``within`` before it are visited from the highest down, with the same noise, and the loss is that of the last. The release
    takes the gradient through all of them; here it is taken through the last, in a thirty-fifth of the memory.

    On a model without a guard it is :class:`erasebench.methods.attacks.cce.Cce` itself, step for step.

    Attributes:
        unroll, within: SLD's timesteps in one draw, and the part of the 1000 that they are from.
        others: as of :class:`erasebench.methods.attacks.cce.Cce`.

    Raises:
        UserError: an option that is not above 0, or fewer timesteps than are to be visited.
    """

    name: ClassVar[str] = "cce_guarded"
    describe: ClassVar[str] = "CCE through a negative prompt or SLD: the soft word is learnt with the guard in place"
    access: ClassVar[str] = "weights and guard"

    unroll: int = 35
    within: int = 90

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "unroll", "within")
        if self.unroll > self.within:
            raise UserError(f"unroll={self.unroll}: more than the within={self.within} timesteps that they are from")

    def refuses_edits(self, eraser: Eraser) -> str | None:
        """Those with a guard of another kind, or with several."""
        kinds = eraser.acts()
        if len(kinds) > 1 or any(kind not in GUARDS for kind in kinds):
            names = " or ".join(kind.name for kind in GUARDS)
            return f"it learns through {names} alone, not through {', '.join(kind.name for kind in kinds)}"
        return None

    def loss_of(
        self,
        pipe: Pipeline,
        concepts: Sequence[Concept],
        recipe: Recipe,
        latents: Tensor,
        texts: Sequence[tuple[Tensor, int]],
        words: Tensor,
        scheduler: Any,
    ) -> Callable[[torch.Generator], Tensor]:
        """Through the guard that is on the pipeline."""
        guards = [hook for hook in hooks_on(pipe) if isinstance(hook, GUARDS)]
        if not guards:
            return super().loss_of(pipe, concepts, recipe, latents, texts, words, scheduler)
        prompts = encode_prompts(pipe, [target.prompt for target in self.targets(concepts, recipe)])[0].to(latents)
        guard = guards[0]
        text = guard.settings["text"]
        if isinstance(guard, NegativeText):
            text = ", ".join(filter(None, (recipe.negative_prompt, text)))
        empty, away = (
            encode_prompts(pipe, [one], negative=True)[0].to(latents) for one in (recipe.negative_prompt, text)
        )

        def through(numbers: torch.Generator) -> Tensor:
            chosen = torch.randint(len(latents), (self.batch,), generator=numbers)
            sentences = torch.randint(len(texts), (self.batch,), generator=numbers).tolist()
            own = {
                n: read_with(pipe.text_encoder, texts[n][0].to(words.device), words, texts[n][1])
                for n in set(sentences)
            }
            soft = torch.cat([own[n] for n in sentences]).to(latents)
            four = [empty.expand_as(soft), away.expand_as(soft), prompts[chosen.to(latents.device)], soft]
            image = latents[chosen.to(latents.device)]
            if isinstance(guard, NegativeText):
                z, timesteps, _ = noised(scheduler, image, numbers)
                return self.guided_loss(guard, recipe, predicted(pipe, z, timesteps, four), 0.0, 0.0)
            return self._unrolled(pipe, guard, recipe, image, four, scheduler, numbers)

        return through

    def _unrolled(
        self,
        pipe: Pipeline,
        guard: Hook,
        recipe: Recipe,
        image: Tensor,
        texts: Sequence[Tensor],
        scheduler: Any,
        numbers: torch.Generator,
    ) -> Tensor:
        """The loss at the last of some timesteps, with SLD's momentum of those before it."""
        total = scheduler.config.num_train_timesteps
        latest = int(torch.randint(self.within, total, (1,), generator=numbers))
        visited = (latest - self.within + torch.randperm(self.within, generator=numbers)[: self.unroll]).sort(
            descending=True
        )
        noise = torch.randn(image.shape, generator=numbers).to(image)
        velocity: Tensor | float = 0.0
        for timestep in visited.values.tolist():
            timesteps = torch.full((len(image),), timestep, device=image.device)
            z, last = scheduler.add_noise(image, noise, timesteps), timestep == int(visited.values[-1])
            with torch.set_grad_enabled(last):
                parts = predicted(pipe, z, timesteps, texts)
            if not last:
                _, velocity = safety(guard.settings, parts[0], parts[3], parts[1], velocity)
        return self.guided_loss(guard, recipe, parts, velocity, 1 - timestep / total)

    def guided_loss(
        self, guard: Hook, recipe: Recipe, parts: Sequence[Tensor], velocity: Tensor | float, share: float
    ) -> Tensor:
        """How far what the guard makes of the soft word is from the concept's own guided prediction, a scalar.

        Args:
            guard: on the pipeline.
            recipe: whose guidance counts.
            parts: predictions without a text, with the guard's, with the concept's own prompt and with the soft word.
            velocity: SLD's momentum so far.
            share: of the sampling that is behind, for SLD's warm-up.
        """
        empty, away, prompt, soft = parts
        if isinstance(guard, NegativeText):
            guarded = away + recipe.guidance * (soft - away)
        else:
            gamma, _ = safety(guard.settings, empty, soft, away, velocity)
            acts = share * STEPS >= guard.settings["warmup"]
            guarded = empty + recipe.guidance * (soft - empty - (gamma if acts else 0.0))
        return mse_loss(guarded, (empty + recipe.guidance * (prompt - empty)).detach())


def predicted(pipe: Pipeline, z: Tensor, timesteps: Tensor, texts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the denoiser predicts for latents [n, ...] at timesteps [n] with each of some texts [n, positions, d]."""
    rows = denoiser(pipe)(z.repeat(len(texts), 1, 1, 1), timesteps.repeat(len(texts)), torch.cat(list(texts))).sample
    parts: tuple[Tensor, ...] = rows.chunk(len(texts))
    return parts
