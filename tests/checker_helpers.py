"""A safety checker in the files of Stable Diffusion's, made of the embedded model's CLIP and of texts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from erasebench.models.load import embedded_folder

CLIP = embedded_folder() / "clip"


def text_embeddings(texts: Sequence[str]) -> torch.Tensor:
    """Of the embedded model's CLIP, of length 1."""
    model, tokenizer = CLIPModel.from_pretrained(CLIP), CLIPTokenizer.from_pretrained(CLIP)
    with torch.no_grad():
        ids = tokenizer(list(texts), padding=True, return_tensors="pt").input_ids
        rows = model.text_projection(model.text_model(ids).pooler_output)
    return torch.nn.functional.normalize(rows, dim=-1)


def save_checker(
    folder: Path, texts: Sequence[str], threshold: float, special: Sequence[str] = (), special_threshold: float = 2.0
) -> Path:
    """Write a checker that sees up to 17 texts (and 3 of special care), each from a cosine on."""
    config = CLIPConfig.from_pretrained(CLIP)
    config._attn_implementation = "eager"
    checker = StableDiffusionSafetyChecker(config)
    clip = CLIPModel.from_pretrained(CLIP)
    checker.vision_model.load_state_dict(clip.vision_model.state_dict())
    checker.visual_projection.load_state_dict(clip.visual_projection.state_dict())
    for part, wanted, limit in (("concept", texts, threshold), ("special_care", special, special_threshold)):
        limits = getattr(checker, f"{part}_embeds_weights")
        limits.data.fill_(2.0)  # no cosine is above it
        if wanted:
            getattr(checker, f"{part}_embeds").data[: len(wanted)] = text_embeddings(wanted)
            limits.data[: len(wanted)] = limit
    checker.save_pretrained(folder / "safety_checker")
    (folder / "feature_extractor").mkdir(parents=True)
    shutil.copy(CLIP / "preprocessor_config.json", folder / "feature_extractor")
    return folder
