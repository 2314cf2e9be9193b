"""Train the autoencoder and encode the training set.

Trained on the posterior's mean with a little noise added: sampling an untrained posterior drowns the signal. Afterwards
each latent channel is brought to mean 0 and variance 1 inside the weights, so that the scaling factor is 1.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from erasebench.progress import progress

from .data import FRESH, World, draw, to_float
from .loop import Fit, load_ema, train
from .models import PlainAttention, bf16

NOISE = 0.03
"""Noise added to the latents in training, relative to their size near 1."""


def pyramid_loss(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 of pixels and of their differences at full and half size; returns the loss and the plain L1.

    [n, 3, h, w]. The differences keep edges, hence eyes and outlines, sharp.
    """
    error = output - target
    plain = error.abs().mean()
    loss = plain
    for scale in range(2):
        if scale:
            error = torch.nn.functional.avg_pool2d(error, 2)
            loss = loss + 0.5 * error.abs().mean()
        loss = loss + 0.5 * error.diff(dim=-1).abs().mean() + 0.5 * error.diff(dim=-2).abs().mean()
    return loss, plain.detach()


def train_vae(world: World, out: Path, fit: Fit, vae: AutoencoderKL, *, seed: int = 0, **options: Any) -> AutoencoderKL:
    """Train `vae` on `world`; checkpoints below `out/vae`. Returns it in eval mode, not yet scaled."""
    vae.set_attn_processor(PlainAttention())

    def loss_of(model: AutoencoderKL, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = world.images(world.draw_batch(fit.batch, generator))
        with bf16(images.device):
            mean = model.encode(images).latent_dist.mean
            noise = NOISE * torch.randn(mean.shape, generator=generator, device=generator.device)
            output = model.decode(mean + noise).sample
        loss, plain = pyramid_loss(output.float(), images)
        return loss + 1e-3 * mean.float().square().mean(), {"l1": plain}

    return train("vae", vae, loss_of, out, fit, seed=seed, **options)


@torch.no_grad()
def encode_pictures(world: World, vae: AutoencoderKL) -> np.ndarray:
    """The mean latents of every picture, as the autoencoder gives them: float16 [n, 16, 8, 8]."""
    latents = np.empty((len(world), vae.config.latent_channels, 8, 8), np.float16)
    vae.to(memory_format=torch.channels_last)  # half as fast again on CPUs
    with progress("encode", len(world)) as advance:
        for start in range(0, len(world), 250):
            index = torch.arange(start, min(start + 250, len(world)), device=world.labels.device)
            images = world.images(index).to(vae.device)
            with bf16(vae.device):
                latents[start : start + 250] = vae.encode(images).latent_dist.mean.float().cpu().numpy()
            advance(len(index))
    return latents


def encode_world(world: World, out: Path, vae: AutoencoderKL) -> None:
    """Load the trained weights into `vae`, encode every picture to `out/latents`, with the statistics of the latents.

    Written: latents.npy float16 [n, 16, 8, 8], not scaled, and latents.json (mean, std of each channel; step). Nothing
    is done if they are of the same step already.
    """
    step = load_ema(vae, out, "vae")
    folder = Path(out) / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / "latents.json"
    if info.exists() and json.loads(info.read_text())["step"] == step:
        print(f"latents: those of step {step} are there", flush=True)
        return
    started = time.monotonic()
    latents = encode_pictures(world, vae)
    mean = latents.mean((0, 2, 3), dtype=np.float64)
    std = latents.std((0, 2, 3), dtype=np.float64)
    np.save(folder / "part.npy", latents)
    os.replace(folder / "part.npy", folder / "latents.npy")
    info.write_text(json.dumps({"step": step, "mean": mean.tolist(), "std": std.tolist()}))
    print(
        f"latents: encoded in {(time.monotonic() - started) / 60:.1f} min; std of the channels "
        f"{std.min():.2f} .. {std.max():.2f}, mean {mean.min():.2f} .. {mean.max():.2f}",
        flush=True,
    )


def load_latents(out: Path) -> torch.Tensor:
    """The training latents at zero mean and unit variance in every channel: float32 [n, 16, 8, 8]."""
    info = json.loads((Path(out) / "latents" / "latents.json").read_text())
    mean, std = (np.array(info[k], np.float32)[:, None, None] for k in ("mean", "std"))
    latents = np.load(Path(out) / "latents" / "latents.npy").astype(np.float32)
    return torch.from_numpy((latents - mean) / std)


@torch.no_grad()
def standardise(vae: AutoencoderKL, out: Path) -> AutoencoderKL:
    """Fold the latents' means and deviations into the weights, so that `scaling_factor` is 1 and the latents standard.

    Only the 1x1 convolutions beside the latent change: the mean of `quant_conv` (and its log-variance, shifted), and
    the input of `post_quant_conv`. Decoding an encoded image gives what it gave before.
    """
    info = json.loads((Path(out) / "latents" / "latents.json").read_text())
    mean, std = (torch.tensor(info[k]) for k in ("mean", "std"))
    n = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:n] /= std[:, None, None, None]
    quant.bias[:n] = (quant.bias[:n] - mean) / std
    # Training used the mean only: the posterior's variance is set to that of the training noise.
    quant.weight[n:] = 0
    quant.bias[n:] = 2 * torch.log(NOISE / std)
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
    return vae


@torch.no_grad()
def reconstruction(vae: AutoencoderKL, n: int = 200, seed: int = FRESH) -> float:
    """Mean absolute error, in units of [-1, 1], of the reconstructions of `n` fresh renders."""
    images = to_float(draw(range(seed, seed + n))[0]).to(vae.device)
    output = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(50)])
    return float((output.clamp(-1, 1) - images).abs().mean())
