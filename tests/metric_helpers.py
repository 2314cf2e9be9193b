"""Small networks of random weights and rows of a plan, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image


def pictures(count: int, size: int = 64, seed: int = 0) -> list[Image.Image]:
    """Smooth random RGB images."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(count, 8, 8, 3), dtype=np.uint8)
    return [Image.fromarray(entry).resize((size, size), Image.Resampling.BICUBIC) for entry in coarse]


def plan_rows(
    labels: Sequence[str], kind: str = "object", role: str = "erase", prompts: Sequence[str] = ()
) -> pd.DataFrame:
    """Rows as a plan has them, one image each."""
    count = len(labels)
    return pd.DataFrame(
        {
            "prompt_id": [f"p{i}" for i in range(count)],
            "prompt": list(prompts) or [f"a picture of {label}" for label in labels],
            "label": list(labels),
            "kind": kind,
            "role": role,
            "key": [f"k{i}" for i in range(count)],
            "original_key": [f"o{i}" for i in range(count)],
        }
    )


def scored(metric, images, rows, originals=None) -> pd.DataFrame:
    """Raw scores joined with the plan's columns, as a table gets them."""
    found = metric.score(images, rows, originals)
    assert len(found) == len(rows)
    return pd.concat([rows.reset_index(drop=True), found.reset_index(drop=True)], axis=1)


def random_judge(folder, seed: int = 0):
    """A judge of random weights in a folder."""
    from erasebench.tiny.judge import Judge
    from erasebench.tiny.names import HEADS

    torch.manual_seed(seed)
    judge = Judge(HEADS, channels=(4, 4, 4, 4, 8))
    judge.save(folder)
    return judge


def random_clip(folder, seed: int = 0):
    """A small ``CLIPModel`` of random weights with tokenizer and image processor in a folder."""
    from transformers import CLIPImageProcessor

    from erasebench.tiny.models import build_clip
    from erasebench.tiny.tokenizer import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(["a photo of a church", "a photo of a tench", "a gas pump on grey"], folder, merges=30)
    model = build_clip(tokenizer, width=32, layers=2).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    return model, tokenizer
