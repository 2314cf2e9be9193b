"""Write the trained parts as a Stable Diffusion pipeline folder: safetensors, float16, small files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from .judge import Judge
from .loop import load_ema
from .models import build_clip, build_scheduler, build_unet, build_vae
from .names import HEADS
from .train_vae import standardise

if TYPE_CHECKING:
    from .train import Plan

SHARD = "7MB"
"""Largest file of weights."""


def assemble(out: Path, plan: Plan) -> tuple[StableDiffusionPipeline, CLIPModel, Judge, dict[str, int]]:
    """Pipeline, CLIP and judge from the averaged weights in the checkpoints of `out`, with the step of each part."""
    out = Path(out)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    clip = build_clip(tokenizer, layers=plan.clip_layers)
    vae, unet = build_vae(plan.vae_channels), build_unet(plan.unet_channels)
    judge = Judge(HEADS, plan.judge_channels)
    steps = {
        name: load_ema(model, out, name)
        for name, model in (("clip", clip), ("vae", vae), ("unet", unet), ("judge", judge))
    }
    pipe = StableDiffusionPipeline(
        vae=standardise(vae, out),
        text_encoder=clip.text_model,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipe, clip, judge, steps


def export(out: Path, weights: Path, plan: Plan) -> None:
    """Write the pipeline folder `weights`, with `clip/` and `judge/` beside the pipeline's parts.

    The folder is made aside and put in place by rename. Weights are float16 on disk; the configurations say float32,
    in which they are to be run on CPUs.
    """
    pipe, clip, judge, steps = assemble(out, plan)
    weights = Path(weights)
    part = weights.with_name(weights.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(part, max_shard_size=SHARD)
    clip.half().save_pretrained(part / "clip", max_shard_size=SHARD)
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(part / "clip")
    CLIPTokenizer.from_pretrained(Path(out) / "tokenizer").save_pretrained(part / "clip")
    judge.save(part / "judge")
    for config in part.glob("*/config.json"):
        _say_float32(config)
    (part / "steps.json").write_text(json.dumps(steps) + "\n")
    old = weights.with_name(weights.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if weights.exists():
        os.replace(weights, old)
    os.replace(part, weights)
    shutil.rmtree(old, ignore_errors=True)
    sizes = [f.stat().st_size for f in weights.rglob("*") if f.is_file()]
    print(
        f"export: {weights}, {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files, the largest {max(sizes) / 1e6:.1f} MB; "
        f"steps {steps}",
        flush=True,
    )


def _say_float32(config: Path) -> None:
    """transformers loads in the type that the configuration names."""
    values = json.loads(config.read_text())

    def walk(node: dict) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value)
            elif key in ("dtype", "torch_dtype"):
                node[key] = "float32"

    walk(values)
    config.write_text(json.dumps(values, indent=2) + "\n")
