"""Inpainting: the middle of an image of the concept, drawn anew by the edited model.

A probe of "When Are Concepts Erased From Diffusion Models?" (NeurIPS 2025), whose middle is a square of half the side (256 of
512 pixels); judged is the square alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from erasebench.concepts import Concept
from erasebench.edits.attack import Attack, Tools
from erasebench.edits.found import Found
from erasebench.edits.hook import Hook
from erasebench.errors import UserError
from erasebench.methods.attacks.between_steps import BetweenSteps, ddim_alone, kept_after
from erasebench.methods.attacks.concept_vector import ONE_ENCODER
from erasebench.methods.trained.latents import encoded
from erasebench.models.pipeline import Pipeline
from erasebench.recipe import Recipe


@dataclass(frozen=True)
class Inpainting(Attack):
    """After each step all latents but a square in the middle become those of the unedited model's image of the prompt,
    noised as far as the step is; so the edited model completes an image of the concept, with the prompt as it is.

    The image that is kept and judged is the square, enlarged: around it is the unedited model's work. The edit does not
    decide what is found, so there is one find for all of them.

    The unedited model's row must show the concept, or the judge cannot read the square: that of the embedded model, which never
    learnt enlarged parts of pictures, saw 0 of 8 churches.

    Attributes:
        share: the square's side as a share of the image's, above 0 and below 1.

    Raises:
        UserError: a share that is not between 0 and 1.
    """

    name: ClassVar[str] = "inpainting"
    describe: ClassVar[str] = "inpainting: the middle of an image of the concept, drawn anew by the edited model"
    access: ClassVar[str] = "latents between the steps"
    adaptive: ClassVar[bool] = False
    unsupported: ClassVar = ONE_ENCODER

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"share={self.share!r}: must be above 0 and below 1, the share of the image's side")

    def targets(self, concepts: Sequence[Concept], recipe: Recipe) -> tuple[Recipe, ...]:
        """The unedited model's image of the same prompt and seed."""
        return (replace(recipe, edit="", attack=""),)

    def refuses_images(self, recipe: Recipe) -> str | None:
        """Those of another sampler than DDIM."""
        return ddim_alone(recipe)

    def look(self, pipe: Pipeline, concepts: Sequence[Concept], recipe: Recipe, tools: Tools) -> Found:
        """The latents of the image."""
        latents = encoded(pipe, tools.targets)
        tools.advance(1)
        return Found(latents=latents[0].cpu())

    def hook(self, found: Mapping[str, Found]) -> Hook:
        """Puts the image back around the square, and cuts the square out."""
        return _Around(found, self.share)


class _Around(BetweenSteps):
    """What is around a square stays that of an image."""

    def __init__(self, found: Mapping[str, Found], share: float) -> None:
        super().__init__(found)
        self._share = share

    def on_step(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        latents, last = tensors["latents"].clone(), step + 1 == len(pipe.scheduler.timesteps)
        kept = kept_after(pipe.scheduler, timestep).to(latents)
        for row, one in self.attacked():
            assert one.latents is not None
            image = one.latents.to(latents)
            around = image if last else kept.sqrt() * image + (1 - kept).sqrt() * self.noise[row]
            high, wide = (middle(size, self._share) for size in image.shape[1:])
            around = around.clone()
            around[:, high, wide] = latents[row, :, high, wide]
            latents[row] = around
        return tensors | {"latents": latents}

    def images(self, pipe: Pipeline, images: np.ndarray, batch: Sequence[Recipe]) -> np.ndarray:
        images = images.copy()
        for row, _ in self.attacked():
            height, width = images.shape[1:3]
            square = images[row, middle(height, self._share), middle(width, self._share)]
            pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
            larger = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
            images[row] = larger[0].permute(1, 2, 0).clamp(0, 1).numpy()
        return images


def middle(size: int, share: float) -> slice:
    """The middle of so many places in a row: a share of them, at least one."""
    inside = max(1, round(share * size))
    return slice((size - inside) // 2, (size - inside) // 2 + inside)
