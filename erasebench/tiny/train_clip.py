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
from .tokenizer import token_ids


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """CLIP's loss with equal captions as equal targets.

    `image`, `text` [n, d] of unit length; `same` [n, n] true where two captions are the same text.
    """
    logits = scale * image @ text.t()
    target = same / same.sum(1, keepdim=True)
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.t().log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def train_clip(
    world: World, tokenizer: CLIPTokenizer, clip: CLIPModel, out: Path, fit: Fit, *, seed: int = 0, **options: Any
) -> CLIPModel:
    """Train `clip` on `world`; checkpoints below `out/clip`. Returns it in eval mode."""
    texts, which = distinct(world.captions)
    ids = token_ids(tokenizer, texts)
    # The text tower is causal and pools at the first EOS: what lies behind it cannot matter here, so it is cut off.
    ids = ids[:, : int((ids != tokenizer.eos_token_id).sum(1).max()) + 1]

    def loss_of(model: CLIPModel, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        index = world.draw_batch(fit.batch, generator)
        images = shift(world.images(index), 3, generator)
        images = images + 0.05 * torch.randn(images.shape, generator=generator)
        captions, place = which[index].unique(return_inverse=True)
        with bf16():
            image = model.visual_projection(model.vision_model(pixel_values=images).pooler_output).float()
            text = model.text_projection(model.text_model(input_ids=ids[captions]).pooler_output).float()[place]
        image, text = (torch.nn.functional.normalize(x, dim=-1) for x in (image, text))
        same = (place[:, None] == place[None]).float()
        loss = contrastive_loss(image, text, model.logit_scale.exp().clamp(max=100), same)
        best = (image @ text.t()).argmax(1)
        return loss, {"top-1": same[torch.arange(len(best)), best].mean()}

    return train("clip", clip, loss_of, out, fit, seed=seed, **options)


def distinct(captions: list[str]) -> tuple[list[str], torch.Tensor]:
    """The distinct captions, sorted, and for each caption the index of its text."""
    texts, which = np.unique(np.array(captions, dtype=object).astype(str), return_inverse=True)
    return texts.tolist(), torch.from_numpy(which)


@torch.no_grad()
def encode_texts(texts: list[str], tokenizer: CLIPTokenizer, text_model: torch.nn.Module) -> np.ndarray:
    """Embeddings of texts and, as the last one, of the empty prompt: float16 [texts + 1, 77, 128]."""
    ids = token_ids(tokenizer, [*texts, ""])
    rows = [text_model(input_ids=part).last_hidden_state.half().numpy() for part in ids.split(256)]
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
