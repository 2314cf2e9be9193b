"""Texts as a pipeline samples with them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from erasebench.models.pipeline import Pipeline


@torch.no_grad()
def encode_prompts(pipe: Pipeline, texts: Sequence[str], negative: bool = False) -> tuple[Tensor, ...]:
    """Encode texts as the pipeline itself does, for its ``prompt_embeds`` or ``negative_prompt_embeds``.

    Args:
        pipe: a Stable Diffusion (1.x, 2.x, XL, 3) or FLUX pipeline.
        texts: n texts.
        negative: they are negative prompts. SDXL then takes zeros for ``""``.

    Returns:
        Embeddings [n, positions, d], and for all but SD 1.x and 2.x the pooled ones [n, p].
    """
    encode = pipe.encode_prompt
    options: dict[str, Any] = {
        "prompt": list(texts),
        "device": pipe._execution_device,
        "num_images_per_prompt": 1,
        # Not options of some pipelines; must be said to others.
        "do_classifier_free_guidance": False,
        "prompt_2": None,
        "prompt_3": None,
    }
    taken = inspect.signature(encode).parameters
    encoded = encode(**{name: value for name, value in options.items() if name in taken})
    if hasattr(pipe, "transformer"):  # SD 3: rows, none, pooled, none; FLUX: rows, pooled, positions
        return encoded[0], encoded[1] if encoded[1] is not None else encoded[2]
    if not hasattr(pipe, "text_encoder_2"):
        return (encoded[0],)
    rows, pooled = encoded[0].clone(), encoded[2].clone()
    if negative and pipe.config.force_zeros_for_empty_prompt:
        # As the SDXL pipeline does when no negative prompt is given.
        empty = torch.tensor([text == "" for text in texts], device=rows.device)
        rows[empty], pooled[empty] = 0, 0
    return rows, pooled
