"""Train the denoiser on cached latents and cached text embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from .loop import Fit, own_share, train
from .models import PlainAttention, bf16, build_scheduler

NO_CAPTION = 0.1
"""Share of empty captions, for classifier-free guidance."""

MIN_SNR = 5.0
"""gamma of min-SNR weighting (Hang et al. 2023); for epsilon the weight is min(SNR, gamma) / SNR."""


def train_unet(
    latents: torch.Tensor,
    text: torch.Tensor,
    which: torch.Tensor,
    unet: UNet2DConditionModel,
    out: Path,
    fit: Fit,
    *,
    seed: int = 0,
    **options: Any,
) -> UNet2DConditionModel:
    """Train `unet` where it lies; checkpoints below `out/unet`. Returns it in eval mode.

    `latents` float32 [n, 16, 8, 8], standardised; `text` [texts + 1, 77, 128], the last one the empty prompt; `which`
    [n], the text of each latent.
    """
    latents, text, which = (part.to(next(unet.parameters()).device) for part in (latents, text, which))
    processors = dict(unet.attn_processors)
    unet.set_attn_processor(PlainAttention())
    on = next(unet.parameters()).device
    kept = build_scheduler().alphas_cumprod.to(on)
    snr = kept / (1 - kept)
    weight = snr.clamp(max=MIN_SNR) / snr
    signal, sigma = kept.sqrt(), (1 - kept).sqrt()

    def loss_of(
        model: UNet2DConditionModel, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        n = fit.batch
        index = torch.randint(0, len(latents), (n,), generator=generator, device=on)
        # One step of the schedule from each of n equal shares, shuffled by the random batch: a steadier loss.
        share = (torch.arange(n, device=on) + torch.rand(n, generator=generator, device=on)) / n
        t = (share * len(kept)).long().clamp(max=len(kept) - 1)
        noise = torch.randn((n, *latents.shape[1:]), generator=generator, device=on)
        empty = torch.rand(n, generator=generator, device=on) < NO_CAPTION
        index, t, noise, empty = (own_share(part) for part in (index, t, noise, empty))
        noisy = signal[t].view(-1, 1, 1, 1) * latents[index] + sigma[t].view(-1, 1, 1, 1) * noise
        context = text[torch.where(empty, len(text) - 1, which[index])].float()  # they may be kept in bfloat16
        with bf16(on):
            output = model(noisy, t, context).sample
        error = (output.float() - noise).square().mean((1, 2, 3))
        return (weight[t] * error).mean(), {"mse": error.mean().detach()}

    train("unet", unet, loss_of, out, fit, seed=seed, **options)
    unet.set_attn_processor(processors)
    return unet
