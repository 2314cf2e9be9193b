"""Edit images that are there with the model that is on the pipe: DDIM inversion, and LEDITS++ of diffusers.

What ACE (2501.01633) measures: a picture of the concept, made by the unedited model, is inverted and drawn again by the
erased one under another prompt. Both ways are theirs (src/eval_edit.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMInverseScheduler
from PIL import Image

from erasebench.errors import UserError
from erasebench.images.encoded import Texts
from erasebench.models.pipeline import Pipeline, part_of
from erasebench.models.targets import denoiser
from erasebench.recipe import Recipe

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"timestep_spacing": "leading"}),
    "ledits_pp": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "timestep_spacing": "leading"},
    ),
}
"""By the way of editing, the sampler that it is defined for and its settings."""


def check_editable(pipe: Pipeline, by: str) -> None:
    """Refuse a model whose images cannot be edited here in a way.

    Raises:
        UserError: it is not of the Stable Diffusion 1.x and 2.x kind, or has not their four channels, which LEDITS++ counts on.
    """
    needed = ("unet", "vae", "text_encoder", "tokenizer")
    if any(not hasattr(pipe, part) for part in needed) or hasattr(pipe, "text_encoder_2"):
        raise UserError(
            f"protocol.editing: images are edited with Stable Diffusion 1.x and 2.x, not with {type(pipe).__name__}; "
            "take a protocol without editing"
        )
    channels = denoiser(pipe).config.in_channels
    if by == "ledits_pp" and channels != 4:
        raise UserError(
            f"protocol.editing.by=ledits_pp: LEDITS++ of diffusers edits latents of 4 channels, and this model has {channels}; "
            "use protocol.editing.by=ddim without its other options (of the embedded model: protocol=embedded_editing)"
        )


def edit_images(pipe: Pipeline, texts: Texts, batch: Sequence[Recipe], sources: Sequence[Image.Image]) -> np.ndarray:
    """Edited images [n, height, width, 3] of a batch, 0 to 1, float32.

    Args:
        pipe: with the edit and the sampler of the recipes on it.
        texts: what encodes texts.
        batch: recipes with ``editing``, of one size, one number of steps and one guidance.
        sources: the images that are edited, RGB, in the same order.
    """
    ways = [json.loads(recipe.editing) for recipe in batch]
    fitted = [
        image.resize((r.width, r.height), Image.Resampling.BICUBIC) for image, r in zip(sources, batch, strict=True)
    ]
    if ways[0]["by"] == "ddim":
        return _by_ddim(pipe, texts, batch, fitted, [way["source_prompt"] for way in ways])
    return np.concatenate([_by_ledits(pipe, *one) for one in zip(batch, fitted, ways, strict=True)])


@torch.no_grad()
def _by_ddim(
    pipe: Any, texts: Texts, batch: Sequence[Recipe], images: Sequence[Image.Image], prompts: Sequence[str]
) -> np.ndarray:
    """Invert under the images' own prompts without guidance (J. Song et al., 2021, eq. 13 backwards), draw under the others."""
    first, unet, vae = batch[0], part_of(pipe, "unet"), part_of(pipe, "vae")
    pixels = part_of(pipe, "image_processor").preprocess(list(images)).to(unet.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode().to(unet.dtype) * vae.config.scaling_factor
    latents = inverted(pipe, latents, texts(list(prompts))[0], first.steps)
    options: dict[str, Any] = {"prompt_embeds": texts([recipe.prompt for recipe in batch])[0]}
    if first.guidance > 1:
        options["negative_prompt_embeds"] = texts([recipe.negative_prompt for recipe in batch], negative=True)[0]
    output = pipe(
        **options,
        latents=latents,
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        height=first.height,
        width=first.width,
        output_type="np",
    )
    return np.asarray(output.images, dtype=np.float32)


@torch.no_grad()
def inverted(pipe: Any, latents: torch.Tensor, embedded: torch.Tensor, steps: int) -> torch.Tensor:
    """The noise from which DDIM draws some latents [n, c, h, w] under texts [n, positions, d] without guidance, nearly."""
    backwards = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    backwards.set_timesteps(steps, device=latents.device)
    for timestep in backwards.timesteps:
        noise = part_of(pipe, "unet")(latents, timestep, encoder_hidden_states=embedded).sample
        latents = backwards.step(noise, timestep, latents).prev_sample
    return latents


def _by_ledits(pipe: Any, recipe: Recipe, image: Image.Image, way: dict[str, Any]) -> np.ndarray:
    """One image by LEDITS++ (M. Brack et al., 2024). The attention of the network is put back as it was."""
    from diffusers import LEditsPPPipelineStableDiffusion  # seconds of every run otherwise

    vae, unet = part_of(pipe, "vae"), part_of(pipe, "unet")
    editor = LEditsPPPipelineStableDiffusion(
        vae, pipe.text_encoder, pipe.tokenizer, unet, type(pipe.scheduler).from_config(pipe.scheduler.config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    editor.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(recipe.seed)
    attention = dict(unet.attn_processors)
    try:
        editor.invert(
            image=image, source_prompt=way["source_prompt"], source_guidance_scale=way["source_guidance"],
            num_inversion_steps=recipe.steps, skip=way["skip"], generator=generator,
        )  # fmt: skip
        output = editor(
            editing_prompt=[recipe.prompt], edit_guidance_scale=recipe.guidance, edit_threshold=way["threshold"],
            use_cross_attn_mask=way["mask"], use_intersect_mask=way["mask"], generator=generator, output_type="np",
            negative_prompt=recipe.negative_prompt or None,
        )  # fmt: skip
    except ValueError as error:
        if not way["mask"] or "non-empty list" not in str(error):
            raise
        raise UserError(
            "protocol.editing.mask=true: LEDITS++ takes its mask from attention at a quarter of the latents' size, which this "
            "network does not have; set protocol.editing.mask=false"
        ) from error
    finally:
        unet.set_attn_processor(attention)
    return np.asarray(output.images, dtype=np.float32)
