"""Train the judge on renders only, disturbed as generated pictures are: blur, noise, shifts, slight contrast; some broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .data import FRESH, World, draw, shift, to_float
from .judge import SEEN, Judge
from .loop import Fit, train
from .models import bf16
from .names import HEADS

BROKEN_SHARE = 0.08
"""Share of the training pictures that are broken, and show nothing."""


def disturb(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur, noise, shift, contrast and brightness of random strength for each image. [n, 3, 64, 64] in [-1, 1]."""
    n, on = len(images), generator.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator, device=on)

    images = shift(images, 4, generator)
    small = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, 1)
    kind, strength = uniform(0, 1), uniform(0, 1)
    images = torch.where(
        kind < 0.5,
        torch.lerp(images, soft, strength),
        torch.where(kind < 0.8, torch.lerp(images, small, strength), images),
    )
    noise = torch.randn(images.shape, generator=generator, device=on)
    coarse = torch.randn(n, 3, 16, 16, generator=generator, device=on)
    coarse = F.interpolate(coarse, scale_factor=4, mode="bilinear")
    images = images * uniform(0.8, 1.15) + uniform(-0.1, 0.1)
    return (images + noise * uniform(0, 0.12) + coarse * uniform(0, 0.12)).clamp(-1, 1)


def broken(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures of nothing that the world has: half are cut into squares of 8 that change places, half are soft noise.

    [n, 3, 64, 64] to the same.
    """
    n, on = len(images), generator.device
    squares = images.unflatten(2, (8, 8)).unflatten(4, (8, 8)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(n, 64, generator=generator, device=on).argsort(1)
    mixed = squares[torch.arange(n, device=on)[:, None], order].unflatten(1, (8, 8))
    mixed = mixed.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
    blobs = F.interpolate(torch.randn(n, 3, 8, 8, generator=generator, device=on), scale_factor=8, mode="bicubic")
    noise = (0.6 * blobs + 0.2 * torch.randn(images.shape, generator=generator, device=on)).clamp(-1, 1)
    return torch.where(torch.rand(n, 1, 1, 1, generator=generator, device=on) < 0.5, mixed, noise)


def train_judge(world: World, out: Path, fit: Fit, judge: Judge, *, seed: int = 0, **options: Any) -> Judge:
    """Train a judge on `world` where they lie; checkpoints below `out/judge`. Returns it in eval mode."""

    def loss_of(model: Judge, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        index = world.draw_batch(fit.batch, generator)
        images, truth = disturb(world.images(index), generator), world.labels[index].float()
        no_picture = torch.rand(len(index), generator=generator, device=generator.device) < BROKEN_SHARE
        images = torch.where(no_picture.view(-1, 1, 1, 1), broken(images, generator), images)
        truth = torch.cat([truth * ~no_picture[:, None], no_picture[:, None].float()], dim=1)
        with bf16(images.device):
            logits = model(images).float()
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1).mean()
        right = ((logits.sigmoid() >= SEEN) == truth.bool()).all(1).float().mean()
        return loss, {"all right": right}

    return train("judge", judge, loss_of, out, fit, seed=seed, **options)


@torch.no_grad()
def accuracy(judge: Judge, n: int = 2000, seed: int = FRESH) -> dict[str, float]:
    """By head, the share of `n` undisturbed fresh renders of which it sees exactly what is there."""
    right = {head: 0 for head in HEADS}
    on = next(judge.parameters()).device
    for start in range(seed, seed + n, 250):
        pixels, truth, *_ = draw(range(start, min(start + 250, seed + n)))
        seen = judge.split((judge(to_float(pixels).to(on)).sigmoid() >= SEEN).cpu())
        there = judge.split(torch.nn.functional.pad(torch.from_numpy(truth), (0, 1)))
        for head in HEADS:
            right[head] += int((seen[head] == there[head]).all(1).sum())
    return {head: count / n for head, count in right.items()}
