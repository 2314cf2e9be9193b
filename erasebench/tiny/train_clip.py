"""Train the text and image towers contrastively, and encode the captions for the denoiser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from .data import World, shift
from .loop import Fit, load_ema, train
from .models import bf16
from .names import HEADS, NAMES, NEAR
from .tokenizer import token_ids
from .world import DETAILS

SHARPNESS = 0.12
"""How far apart the targets hold two pictures: the temperature of the softmax over their likeness."""


def kinship() -> torch.Tensor:
    """How names become likeness: float32 [names, features].

    A name has a feature of its own (1), shares one with each neighbour (0.8) and one with all of its head (0.45). So two
    pictures of churches are most alike, then a church and a castle, then any two objects.
    """
    families = [{a, b} for a, b in NEAR] + [set(names) for names in HEADS.values()]
    weights = [0.8] * len(NEAR) + [0.45] * len(HEADS)
    shared = [
        [weight if name in family else 0.0 for family, weight in zip(families, weights, strict=True)] for name in NAMES
    ]
    return torch.cat([torch.eye(len(NAMES)), torch.tensor(shared)], dim=1)


def likeness(labels: torch.Tensor, details: torch.Tensor, kin: torch.Tensor) -> torch.Tensor:
    """How alike the contents of pictures are: the cosines of their features, [n, n]; pictures of nothing are alike.

    `labels` bool [n, names]; `details` int8 [n, 4], each of which counts for half a name; `kin` as :func:`kinship`.
    """
    parts = [labels.to(kin) @ kin, (~labels.any(1, keepdim=True)).to(kin)]
    for words, values in zip(DETAILS, details.t().long(), strict=True):
        parts.append(0.5 * torch.nn.functional.one_hot(values, len(words) + 1)[:, 1:].to(kin))
    features = torch.nn.functional.normalize(torch.cat(parts, dim=1), dim=1)
    return features @ features.t()


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, alike: torch.Tensor, same: torch.Tensor
) -> torch.Tensor:
    """CLIP's loss with targets spread over pictures of like content, so that related captions come to lie near.

    `image`, `text` [n, d] of unit length; `alike` [n, n] in 0 to 1; `same` [n, n] true where two captions are one text,
    which counts for a fifth more. The target of a row is softmax((alike + same / 5) / :data:`SHARPNESS`).
    """
    logits = scale * image @ text.t()
    target = ((alike + 0.2 * same) / SHARPNESS).softmax(1)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.t().log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def train_clip(
    world: World, tokenizer: CLIPTokenizer, clip: CLIPModel, out: Path, fit: Fit, *, seed: int = 0, **options: Any
) -> CLIPModel:
    """Train `clip` on `world` where they lie; checkpoints below `out/clip`. Returns it in eval mode."""
    on = clip.device
    texts, which = distinct(world.captions)
    ids, which = token_ids(tokenizer, texts).to(on), which.to(on)
    # The text tower is causal and pools at the first EOS: what lies behind it cannot matter here, so it is cut off.
    ids = ids[:, : int((ids != tokenizer.eos_token_id).sum(1).max()) + 1]
    kin = kinship().to(on)

    def loss_of(model: CLIPModel, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        index = world.draw_batch(fit.batch, generator)
        images = shift(world.images(index), 3, generator)
        images = images + 0.05 * torch.randn(images.shape, generator=generator, device=on)
        captions, place = which[index].unique(return_inverse=True)
        with bf16(on):
            image = model.visual_projection(model.vision_model(pixel_values=images).pooler_output).float()
            text = model.text_projection(model.text_model(input_ids=ids[captions]).pooler_output).float()[place]
        image, text = (torch.nn.functional.normalize(x, dim=-1) for x in (image, text))
        same = (place[:, None] == place[None]).float()
        loss = contrastive_loss(
            image,
            text,
            model.logit_scale.exp().clamp(max=100),
            likeness(world.labels[index], world.details[index], kin),
            same,
        )
        best = (image @ text.t()).argmax(1)
        right = (world.labels[index] == world.labels[index][best]).all(1).float().mean()
        return loss, {"same content": right}

    return train("clip", clip, loss_of, out, fit, seed=seed, **options)


def distinct(captions: list[str]) -> tuple[list[str], torch.Tensor]:
    """The distinct captions, sorted, and for each caption the index of its text."""
    texts, which = np.unique(np.array(captions, dtype=object).astype(str), return_inverse=True)
    return texts.tolist(), torch.from_numpy(which)


@torch.no_grad()
def encode_texts(texts: list[str], tokenizer: CLIPTokenizer, text_model: torch.nn.Module) -> np.ndarray:
    """Embeddings of texts and, as the last one, of the empty prompt: float16 [texts + 1, 77, 128]."""
    ids = token_ids(tokenizer, [*texts, ""]).to(next(text_model.parameters()).device)
    rows = [text_model(input_ids=part).last_hidden_state.half().cpu().numpy() for part in ids.split(256)]
    return np.concatenate(rows)


def encode_captions(world: World, tokenizer: CLIPTokenizer, clip: CLIPModel, out: Path) -> None:
    """Encode each distinct caption and the empty prompt with the trained text tower, to `out/text`.

    text.npy float16 [texts, 77, 128], the last one the empty prompt; which.npy int64 [n], the text of each picture.
    """
    step = load_ema(clip, out, "clip")
    folder = Path(out) / "text"
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / "text.json"
    if info.exists() and json.loads(info.read_text())["step"] == step:
        return
    started = time.monotonic()
    texts, which = distinct(world.captions)
    np.save(folder / "text.npy", encode_texts(texts, tokenizer, clip.text_model))
    np.save(folder / "which.npy", which.numpy())
    info.write_text(json.dumps({"step": step, "texts": len(texts)}))
    print(f"text: {len(texts)} distinct captions encoded in {(time.monotonic() - started) / 60:.1f} min", flush=True)


def load_text(out: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Text embeddings bfloat16 [texts + 1, 77, 128] (last: the empty prompt) and the text index of each picture."""
    folder = Path(out) / "text"
    return (torch.from_numpy(np.load(folder / "text.npy")).bfloat16(), torch.from_numpy(np.load(folder / "which.npy")))
