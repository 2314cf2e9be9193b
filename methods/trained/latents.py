"""Latents to train on: denoised part of the way by the network itself, or encoded from images and noised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from PIL.Image import Image
from torch import Tensor
from torch.nn import Module

from erasebench.models.pipeline import Pipeline, part_of


def ddim(config: Mapping[str, Any], steps: int) -> Any:
    """The DDIM sampler of a model, without noise of its own, set to a number of steps."""
    scheduler = DDIMScheduler.from_config(config, clip_sample=False)
    scheduler.set_timesteps(steps)
    return scheduler


def initial_noise(unet: Any, batch: int, numbers: torch.Generator) -> Tensor:
    """Noise [batch, channels, height, width] in the network's own size and type, drawn on the CPU in float32."""
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn((batch, unet.config.in_channels, height, width), generator=numbers).to(unet.device, unet.dtype)


def remaining_and_timestep(scheduler: Any, numbers: torch.Generator) -> tuple[int, Tensor]:
    """How many sampling steps remain, from 0, and a training timestep [1] of that part of the schedule (ESD, 2023)."""
    steps, total = len(scheduler.timesteps), scheduler.config.num_train_timesteps
    remaining = int(torch.randint(0, steps, (1,), generator=numbers))
    first, last = round(remaining / steps * total), round((remaining + 1) / steps * total)
    return remaining, torch.randint(first, max(last, first + 1), (1,), generator=numbers)


@torch.no_grad()
def denoised(
    unet: Module, scheduler: Any, latents: Tensor, context: Tensor, empty: Tensor, guidance: float, remaining: int
) -> Tensor:
    """Latents denoised for a text until so many steps of the scheduler remain.

    Args:
        latents: [n, channels, height, width], noise.
        context, empty: [1, positions, d], the text and ``""``; or as many texts as latents.
    """
    both = torch.cat([text.expand(len(latents), -1, -1) for text in (empty, context)])
    for timestep in scheduler.timesteps[: len(scheduler.timesteps) - remaining]:
        without, with_text = unet(torch.cat([latents] * 2), timestep, both).sample.chunk(2)
        noise = without + guidance * (with_text - without)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def encoded(pipe: Pipeline, images: Sequence[Image]) -> Tensor:
    """The latents of images: means of the VAE's posterior, scaled as the pipeline scales them.

    (Releases draw from the posterior; its deviation is far below the noise that is added to train.)

    Args:
        images: of the model's size, RGB.

    Returns:
        [n, channels, height, width] float32, on the pipeline's device.
    """
    vae = part_of(pipe, "vae")
    parts = []
    for image in images:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].to(vae.device, vae.dtype)
        mean = vae.encode(pixels / 127.5 - 1).latent_dist.mean.float()
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        parts.append((mean - shift) * vae.config.scaling_factor)
    return torch.cat(parts)


def noising(config: Mapping[str, Any]) -> Any:
    """What adds noise to latents as in the model's own training (``add_noise``, ``get_velocity``)."""
    return DDPMScheduler.from_config(config)


def target_of(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network should predict for noised latents: the noise, or the velocity where the model predicts that."""
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    return noise


def noised(scheduler: Any, latents: Tensor, numbers: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents as the model's own training has them: each at a timestep of its own, with noise drawn on the CPU.

    Args:
        scheduler: of :func:`noising`.
        latents: [n, channels, height, width].

    Returns:
        The noised latents, the timesteps [n], and what the network should predict (:func:`target_of`).
    """
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), generator=numbers)
    noise = torch.randn(latents.shape, generator=numbers).to(latents)
    timesteps = timesteps.to(latents.device)
    return scheduler.add_noise(latents, noise, timesteps), timesteps, target_of(scheduler, latents, noise, timesteps)
