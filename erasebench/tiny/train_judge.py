"""Train the judge on renders only, disturbed as generated pictures are: blur, noise, shifts, slight contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .data import FRESH, World, draw, shift, to_float
from .judge import Judge
from .loop import Fit, train
from .models import bf16
from .world import HEADS


def disturb(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur, noise, shift, contrast and brightness of random strength for each image. [n, 3, 64, 64] in [-1, 1]."""
    n = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    images = shift(images, 4, generator)
    small = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, 1)
    kind, strength = torch.rand(n, 1, 1, 1, generator=generator), uniform(0, 1)
    images = torch.where(
        kind < 0.5,
        torch.lerp(images, soft, strength),
        torch.where(kind < 0.8, torch.lerp(images, small, strength), images),
    )
    noise = torch.randn(images.shape, generator=generator)
    coarse = F.interpolate(torch.randn(n, 3, 16, 16, generator=generator), scale_factor=4, mode="bilinear")
    images = images * uniform(0.8, 1.15) + uniform(-0.1, 0.1)
    return (images + noise * uniform(0, 0.12) + coarse * uniform(0, 0.12)).clamp(-1, 1)


def train_judge(world: World, out: Path, fit: Fit, *, seed: int = 0, **options: Any) -> Judge:
    """Train the judge on `world`; checkpoints below `out/judge`. Returns it in eval mode."""
    torch.manual_seed(seed)
    judge = Judge(HEADS)

    def loss_of(model: Judge, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        index = world.draw_batch(fit.batch, generator)
        images = disturb(world.images(index), generator)
        with bf16():
            heads = model(images)
        truth = world.labels[index]
        losses = [F.cross_entropy(logits.float(), truth[:, k]) for k, logits in enumerate(heads.values())]
        right = [(logits.argmax(1) == truth[:, k]).float().mean() for k, logits in enumerate(heads.values())]
        return torch.stack(losses).sum(), dict(zip(heads, right, strict=True))

    return train("judge", judge, loss_of, out, fit, seed=seed, **options)


@torch.no_grad()
def accuracy(judge: Judge, n: int = 2000, seed: int = FRESH) -> dict[str, float]:
    """Top-1 accuracy of each head on `n` undisturbed fresh renders."""
    right = {head: 0 for head in HEADS}
    for start in range(seed, seed + n, 250):
        pixels, truth, _ = draw(range(start, min(start + 250, seed + n)))
        for k, (head, logits) in enumerate(judge(to_float(pixels)).items()):
            right[head] += int((logits.argmax(1) == torch.from_numpy(truth[:, k].astype("int64"))).sum())
    return {head: count / n for head, count in right.items()}
