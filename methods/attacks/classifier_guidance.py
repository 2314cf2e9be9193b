"""Classifier guidance: a small classifier of noisy latents pulls the sampling of the edited model towards the concept.

A probe of "When Are Concepts Erased From Diffusion Models?" (NeurIPS 2025) and its release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits, silu

from erasebench.concepts import Concept
from erasebench.edits.attack import Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.methods.attacks.between_steps import ddim_alone, kept_after
from erasebench.methods.attacks.budget import Clock, Limited, Tries, check_whole, checked_numbers
from erasebench.methods.attacks.concept_vector import ONE_ENCODER, contrast
from erasebench.methods.attacks.learning import concept_images
from erasebench.methods.attacks.noise_probe import Noisier, tensors_of
from erasebench.methods.attacks.seeds import other_seeds
from erasebench.methods.trained.latents import encoded, noising
from erasebench.models.pipeline import Pipeline
from erasebench.prompts.prompt_set import hashed_seed
from erasebench.recipe import Recipe

SIDE = 16
"""Latents are averaged to so many places a side, at most, before the classifier reads them."""

HIDDEN = 64
"""Width of the classifier's two layers."""

CLASSIFIER = ("in", "in_bias", "mid", "mid_bias", "out", "out_bias")
"""The classifier's tensors."""


@dataclass(frozen=True)
class ClassifierGuidance(Limited):
    """DDIM whose noise prediction is ``eps - scale sqrt(1 - a) grad log p(concept | z, t)`` in every step, and then has noise added as
    by :class:`erasebench.methods.attacks.noise_probe.NoiseProbe` with a spread of 1.

    ``p`` is a perceptron of two layers that is trained on the unedited model's images of the concept and as many without it, noised as
    in training. An image of each scale and ``eta`` is tried, and the search stops at the first in which the run's judge sees the concept.
    Its control is as many plain seeds (``attack=[classifier_guidance,seeds]``); the unedited model and ``method=shuffled`` say whether
    the classifier itself draws what the judge takes for the concept.

    The release has 25 scales of 25 to 193 in its code and speaks of 24 images; here four of its scales meet its six etas. Size, inputs
    (latents averaged to 16 x 16) and training images of the classifier are ours.

    Attributes:
        scales: of the gradient; above 0.
        etas: how much noise is added, in deviations of DDPM's; above 0.
        images: of the concept, and as many without it, to learn from.
        epochs: of the classifier's training.
        seed: of all random numbers.
        seconds: see :class:`erasebench.methods.attacks.budget.Limited`.

    Raises:
        UserError: an empty list, or a number that is not above 0.
    """

    name: ClassVar[str] = "classifier_guidance"
    describe: ClassVar[str] = "classifier guidance: a classifier of noisy latents pulls towards the concept, best of 24"
    access: ClassVar[str] = "latents between the steps"
    judged: ClassVar[bool] = True
    unsupported: ClassVar = ONE_ENCODER

    scales: tuple[float, ...] = (25.0, 67.0, 109.0, 193.0)
    etas: tuple[float, ...] = (1.0, 1.17, 1.34, 1.51, 1.68, 1.85)
    images: int = 32
    epochs: int = 70
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "images", "epochs")
        for option in ("scales", "etas"):
            object.__setattr__(self, option, checked_numbers(self, option))

    @property
    def steps(self) -> int:
        """A step is an image."""
        return len(self.scales) * len(self.etas)

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """Images of the concepts, and then as many of the same kinds of prompts without them."""
        having = concept_images(concepts, recipe, self.images, self.seed)
        without = [other for _, other in contrast(concepts)]
        return (*having, *(replace(one, prompt=without[n % len(without)]) for n, one in enumerate(having)))

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM."""
        return ddim_alone(recipe)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The classifier, a scale, an eta and a seed: those of the first image that shows the concept, or of the first of all."""
        latents = encoded(pipe, tools.targets)
        own = hashed_seed(self.name, self.seed, *(one.name for one in concepts))
        classifier, losses = self.trained(noising(pipe.scheduler.config), latents, torch.Generator().manual_seed(own))
        seeds = [recipe.seed, *other_seeds(self.seed, recipe, self.steps)]
        pairs = [(eta, scale) for scale in self.scales for eta in self.etas]
        results = [
            Found(
                tensors=classifier
                | {
                    "strengths": torch.tensor([eta, 1.0], dtype=torch.float64),
                    "scale": torch.tensor(scale, dtype=torch.float64),
                    "seed": torch.tensor(seed),
                }
            )
            for (eta, scale), seed in zip(pairs, seeds, strict=True)
        ]
        tries = Tries(tools, Clock(self.seconds))
        result = tries.through(results)
        kept = result or results[0]
        notes = {
            "eta": float(tensors_of(kept)["strengths"][0]),
            "scale": float(tensors_of(kept)["scale"]),
            "classifier_loss": losses[-1],
        }
        return replace(kept, info=notes | tries.notes(result is not None))

    def trained(
        self, scheduler: Any, latents: Tensor, numbers: torch.Generator
    ) -> tuple[dict[str, Tensor], list[float]]:
        """The classifier and its loss by epoch.

        Args:
            scheduler: that noises.
            latents: ``[2 images, channels, height, width]``, those of the concept first.
            numbers: random ones, on the CPU.
        """
        latents = latents.float()
        total = scheduler.config.num_train_timesteps
        size = pooled_latents(latents).shape[1]
        shapes = {"in": (size + 1, HIDDEN), "mid": (HIDDEN, HIDDEN), "out": (HIDDEN, 1)}
        values = {}
        for name, (inputs, outputs) in shapes.items():
            values[name] = torch.randn(inputs, outputs, generator=numbers).to(latents.device) / inputs**0.5
            values[f"{name}_bias"] = torch.zeros(outputs, device=latents.device)
        parameters = {name: value.requires_grad_() for name, value in values.items()}
        optimizer = torch.optim.Adam(list(parameters.values()), lr=1e-3)
        labels = (torch.arange(len(latents), device=latents.device) < len(latents) // 2).float()
        losses = []
        for _ in range(self.epochs):
            timesteps = torch.randint(total, (len(latents),), generator=numbers).to(latents.device)
            noise = torch.randn(latents.shape, generator=numbers).to(latents)
            z = scheduler.add_noise(latents, noise, timesteps)
            loss = binary_cross_entropy_with_logits(logit(parameters, z, timesteps / total), labels)
            for parameter, gradient in zip(
                parameters.values(), torch.autograd.grad(loss, list(parameters.values())), strict=True
            ):
                parameter.grad = gradient
            optimizer.step()
            losses.append(loss.item())
        return {name: value.detach().cpu() for name, value in parameters.items()}, losses

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Pulls, and adds the noise."""
        return _Pulled(found)


class _Pulled(Noisier):
    """The gradient of a classifier after every step of DDIM, and the noise of the probe."""

    def stepped(self, pipe: Pipeline, row: int, one: Found, timestep: Any, behind: Tensor) -> Tensor:
        before, tensors = self.before[row], tensors_of(one)
        a, after = pipe.scheduler.alphas_cumprod[int(timestep)].double(), kept_after(pipe.scheduler, timestep).double()
        share = float(timestep) / pipe.scheduler.config.num_train_timesteps
        classifier = {name: tensors[name].to(before.device) for name in CLASSIFIER}
        slope = pull(classifier, before.float(), share).double()
        # How much a step of DDIM changes with the noise that is predicted.
        much = (1 - after).sqrt() - (after * (1 - a) / a).sqrt()
        moved = behind.double() - (much * (1 - a).sqrt()).to(slope) * float(tensors["scale"]) * slope
        return super().stepped(pipe, row, one, timestep, moved.to(behind))


def pooled_latents(z: Tensor) -> Tensor:
    """What the classifier reads of latents [n, channels, height, width]: ``[n, channels * places]``."""
    side = (min(SIDE, z.shape[2]), min(SIDE, z.shape[3]))
    return adaptive_avg_pool2d(z, side).flatten(1)


def logit(classifier: Mapping[str, Tensor], z: Tensor, share: Tensor) -> Tensor:
    """The log of the odds that latents [n, channels, height, width] are of the concept, ``[n]``.

    Args:
        classifier: its tensors.
        z: float32.
        share: of the schedule, ``[n]``: the timestep over all of them.
    """
    rows = torch.cat([pooled_latents(z), share[:, None].to(z)], dim=1)
    rows = silu(rows @ classifier["in"] + classifier["in_bias"])
    rows = silu(rows @ classifier["mid"] + classifier["mid_bias"])
    return (rows @ classifier["out"] + classifier["out_bias"])[:, 0]


def pull(classifier: Mapping[str, Tensor], z: Tensor, share: float) -> Tensor:
    """``grad log p(concept | z, t)`` of latents [channels, height, width]."""
    with torch.enable_grad():
        at = z.detach().clone().requires_grad_()
        odds = logit(classifier, at[None], torch.tensor([share], device=z.device))
        (slope,) = torch.autograd.grad(torch.nn.functional.logsigmoid(odds).sum(), [at])
    return slope
